//! [`Project`]: a random Dockerfile, and the options that it is built with.

use super::dice::Dice;
use super::sources::LIFE;

/// What is built, apart from the files.
#[derive(Clone)]
pub(super) struct Project {
    stages: Vec<Stage>,
    pub(super) target: Option<usize>,
    /// Value of each build argument that is given.
    arguments: Vec<(&'static str, String)>,
    label: Option<String>,
    network: Option<&'static str>,
    host: Option<&'static str>,
    pub(super) places: Places,
    /// Whether all rights of files count.
    git_mode: bool,
    /// Files get the time of the epoch, so that images can be compared bit by bit.
    pub(super) rewrite: bool,
    /// How the build gets the main context.
    pub(super) given: Given,
    /// The word that says which value a secret has.
    pub(super) epoch: usize,
    /// What the context `named` is.
    pub(super) named: Named,
    /// A stage that a context takes the place of.
    pub(super) replaced: Option<usize>,
    /// Images are for other platforms, too.
    for_platforms: bool,
    platforms: Option<&'static str>,
}

/// What things are called that are not files of the project.
#[derive(Clone, Default)]
pub(super) struct Places {
    /// The base image.
    pub(super) base: String,
    /// An image without a shell.
    pub(super) other: Option<String>,
    /// The address of a file.
    pub(super) page: String,
    /// The address of a repository.
    pub(super) upstream: String,
    /// Results of commands do not last.
    pub(super) forgets: bool,
    /// Images are for other platforms, too.
    pub(super) for_platforms: bool,
    /// Much comes from elsewhere.
    pub(super) fetches: bool,
}

/// What a context with a name is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Named {
    Directory,
    Layout,
    Archive,
    Repository,
    Image,
    /// A directory of the main context.
    Part,
}

/// How a build gets its main context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Given {
    Directory,
    /// An archive on standard input.
    Stream,
    /// An archive of a server.
    Address,
    Repository,
}

#[derive(Clone)]
struct Stage {
    from: From,
    lines: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum From {
    Base,
    /// `FROM scratch`, and the files of the base image out of a named context.
    Copied,
    Scratch,
    /// An image in a directory that is replaced now and then.
    Layout,
    /// An image whose tag moves.
    Other,
    Stage(usize),
}

pub(super) const CLOCK: &str = "--mount=type=secret,id=clock";
const PLATFORMS: [Option<&str>; 4] =
    [None, Some("linux/arm64"), Some("linux/amd64,linux/arm64"), Some("linux/arm/v7,linux/amd64")];
const ARGUMENTS: [&str; 5] = ["X", "Y", "UNUSED", "HTTP_PROXY", "Z"];

impl Project {
    pub(super) fn new(dice: &mut Dice, places: &Places) -> Self {
        let mut project = Self {
            stages: Vec::new(),
            target: None,
            arguments: Vec::new(),
            label: None,
            network: None,
            host: None,
            places: places.clone(),
            git_mode: false,
            rewrite: dice.chance(60),
            given: Self::given(dice),
            epoch: 0,
            named: Named::Directory,
            replaced: None,
            for_platforms: places.for_platforms,
            platforms: PLATFORMS[dice.below(PLATFORMS.len())],
        };
        let forgets = places.forgets || dice.chance(10);
        for number in 0..=dice.below(4) {
            let from = match dice.below(10) {
                0..4 => From::Base,
                4 => From::Copied,
                5 if places.other.is_some() && dice.chance(50) => From::Other,
                5 if dice.chance(50) => From::Layout,
                5 => From::Scratch,
                _ if number > 0 => From::Stage(dice.below(number)),
                _ => From::Base,
            };
            project.stages.push(Stage { from, lines: Vec::new() });
            if dice.chance(60) {
                let line = project.fetch(dice, number);
                project.stages[number].lines.extend(line);
            }
            if forgets && project.can_run(number) {
                let line = Self::look_at_the_clock(dice);
                project.stages[number].lines.push(line);
            }
            for _ in 0..=dice.below(6) {
                let line = project.line(dice, number);
                let is_seen = ["USER", "WORKDIR"].contains(&instruction(&line)) && project.can_run(number);
                project.stages[number].lines.push(line);
                if is_seen && dice.chance(60) {
                    let line = format!("RUN {{ id; pwd; }} > /o/{}; true", dice.below(1000));
                    project.stages[number].lines.push(line);
                }
            }
        }
        project
    }

    fn given(dice: &mut Dice) -> Given {
        if dice.chance(75) {
            return Given::Directory;
        }
        [Given::Stream, Given::Address, Given::Repository][dice.below(3)]
    }

    /// Begins with copies of a large directory.
    pub(super) fn copy_much(&mut self, dice: &mut Dice) {
        let lines = [
            "COPY src /d/src",
            "COPY . /all/",
            "COPY src/many /many",
            "COPY --link src /d/src",
            "COPY . .",
            "COPY --chown=1:2 src /d/src/",
            "COPY --exclude=*1* src /d/src",
            "ADD src/many /many/",
        ];
        for stage in 0..self.stages.len() {
            for _ in 0..=dice.below(2) {
                let line = dice.pick(&lines).to_owned();
                self.stages[stage].lines.insert(0, line);
            }
        }
    }

    pub(super) fn can_run(&self, stage: usize) -> bool {
        match self.stages[stage].from {
            From::Base | From::Copied => true,
            From::Scratch | From::Layout | From::Other => false,
            From::Stage(below) => self.can_run(below),
        }
    }

    /// A random instruction of a stage.
    fn line(&self, dice: &mut Dice, stage: usize) -> String {
        match dice.below(100) {
            0 | 1 if self.can_run(stage) => format!("# cache=12h\n{}", self.run(dice, stage)),
            2..4 if self.can_run(stage) => Self::look_at_the_clock(dice),
            4..40 if self.can_run(stage) => self.run(dice, stage),
            0..66 => self.copy(dice, stage),
            70..80 => format!("ARG {}={}", dice.pick(&ARGUMENTS), dice.below(3)),
            80 if self.for_platforms => format!("ARG {}", dice.word("TARGETARCH TARGETPLATFORM")),
            80 => format!("ARG {}", dice.pick(&ARGUMENTS)),
            81..86 => format!("ENV {}={}", dice.word("A B X"), dice.word("1 2 $X ${Y:-no} $A$B")),
            66 | 67 | 86..89 => format!("WORKDIR {}", dice.word("/w rel /d/wd / $A /e")),
            68 | 69 | 89..91 => format!("USER {}", dice.word("app 0 1000:2000 root 7")),
            91..93 => {
                let inner = if self.can_run(stage) && dice.chance(50) { self.run(dice, 0) } else { self.copy(dice, 0) };
                if inner.contains('\n') || inner.starts_with('#') || inner.contains(CLOCK) {
                    "ONBUILD ENV O=1".to_owned()
                } else {
                    format!("ONBUILD {inner}")
                }
            }
            93 => format!("VOLUME {}", dice.word("/v /d")),
            94 => r#"SHELL ["/bin/sh", "-ec"]"#.to_owned(),
            95 => format!("LABEL l{}={}", dice.below(2), dice.below(9)),
            96 => format!("CMD [\"{}\"]", dice.word("a b c")),
            97 => format!("# {}", dice.below(9)),
            98 => "HEALTHCHECK --interval=7s CMD true".to_owned(),
            _ => format!("EXPOSE {}", 80 + dice.below(9)),
        }
    }

    /// Whether results may be too old.
    pub(super) fn expires(&self) -> bool {
        self.dockerfile().contains(CLOCK)
    }

    pub(super) fn dockerfile(&self) -> String {
        let mut text = String::new();
        // There are images for one platform only.
        let flag = if self.for_platforms { "--platform=$BUILDPLATFORM " } else { "" };
        for (number, stage) in self.stages.iter().enumerate() {
            let begin = match stage.from {
                From::Base => {
                    let base = &self.places.base;
                    format!("FROM {flag}{base} AS s{number}\nRUN mkdir -m 777 /o /w && mkdir /w/old\n")
                }
                From::Copied => {
                    format!("FROM scratch AS s{number}\nCOPY --from=bb . /\nENV PATH=/bin\nRUN mkdir -m 777 /o /w\n")
                }
                From::Scratch => format!("FROM scratch AS s{number}\n"),
                From::Layout => format!("FROM {flag}layout AS s{number}\n"),
                From::Other => {
                    format!("FROM {flag}{} AS s{number}\n", self.places.other.as_deref().unwrap_or("scratch"))
                }
                From::Stage(below) => format!("FROM s{below} AS s{number}\n"),
            };
            text += &begin;
            for line in &stage.lines {
                text += line;
                text.push('\n');
            }
        }
        text
    }

    /// Whether an instruction sees something that belongs to this machine.
    pub(super) fn has_fingerprints(&self) -> bool {
        self.dockerfile().contains("hashed")
    }

    /// The options that decide the image.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        for (name, value) in &self.arguments {
            options.push(format!("--build-arg={name}={value}"));
        }
        options.extend(self.target.map(|stage| format!("--target=s{stage}")));
        options.extend(self.label.iter().map(|label| format!("--label=l={label}")));
        options.extend(self.git_mode.then(|| "--context-mode=git".to_owned()));
        options.push(format!("--secret=id=dated,src=../home/dated,epoch={}", self.epoch));
        options
            .extend(self.platforms.filter(|_| self.for_platforms).map(|platforms| format!("--platform={platforms}")));
        options.extend(self.lives());
        options.extend(self.network.map(|mode| format!("--network={mode}")));
        options.extend(self.host.map(|name| format!("--add-host={name}:10.0.0.1")));
        options
    }

    /// `--cache-ttl` for commands that say nothing themselves.
    fn lives(&self) -> Vec<String> {
        let begin = format!("RUN {CLOCK}");
        let stages = self.stages.iter().enumerate();
        let forgetful = stages.filter(|(_, stage)| stage.lines.iter().any(|line| line.starts_with(&begin)));
        let mut lives: Vec<String> = forgetful.map(|(stage, _)| format!("--cache-ttl=s{stage}={LIFE}s")).collect();
        if lives.len() > 1 {
            lives = vec![format!("--cache-ttl={LIFE}s")];
        }
        lives
    }

    /// Whether the image is for several platforms.
    pub(super) fn has_platforms(&self) -> bool {
        self.for_platforms && self.platforms.is_some_and(|platforms| platforms.contains(','))
    }

    /// Changes an instruction; says which.
    pub(super) fn edit(&mut self, dice: &mut Dice) -> String {
        let mut stage = dice.below(self.stages.len());
        let mut at = dice.below(self.stages[stage].lines.len() + 1);
        // Often only the value is another.
        let has_value = |line: &str| ["ARG", "ENV", "USER", "WORKDIR"].contains(&instruction(line));
        let numbered = self.stages.iter().enumerate();
        let places = numbered.flat_map(|(stage, found)| {
            let lines = found.lines.iter().enumerate().filter(|(_, line)| has_value(line));
            lines.map(move |(at, _)| (stage, at))
        });
        let places: Vec<(usize, usize)> = places.collect();
        if !places.is_empty() && dice.chance(40) {
            (stage, at) = places[dice.below(places.len())];
        }
        let mut line = self.line(dice, stage);
        let old = self.stages[stage].lines.get(at).map(|old| instruction(old).to_owned()).unwrap_or_default();
        if has_value(&old) {
            while instruction(&line) != old {
                line = self.line(dice, stage);
            }
        }
        let lines = &mut self.stages[stage].lines;
        match if old == instruction(&line) { 2 } else { dice.below(4) } {
            0 if at < lines.len() => format!("without `{}`", lines.remove(at)),
            1 if at + 1 < lines.len() => {
                lines.swap(at, at + 1);
                format!("`{}` after the next", lines[at + 1])
            }
            2 if at < lines.len() => format!("`{}` is now `{line}`", std::mem::replace(&mut lines[at], line.clone())),
            _ => {
                lines.insert(at, line.clone());
                format!("with `{line}`")
            }
        }
    }

    /// Changes an option; says which.
    pub(super) fn turn(&mut self, dice: &mut Dice) -> String {
        let choice = dice.below(16);
        self.turn_to(choice, dice)
    }

    /// Changes an option that says what the files are.
    pub(super) fn turn_files(&mut self, dice: &mut Dice) -> String {
        let choice = 10 + dice.below(6);
        self.turn_to(choice, dice)
    }

    fn turn_to(&mut self, choice: usize, dice: &mut Dice) -> String {
        match choice {
            10 if self.for_platforms => {
                let sets =
                    [None, Some("linux/arm64"), Some("linux/amd64,linux/arm64"), Some("linux/arm/v7,linux/amd64")];
                self.platforms = sets[dice.below(sets.len())];
            }
            12 | 13 => {
                let all =
                    [Named::Directory, Named::Layout, Named::Archive, Named::Repository, Named::Part, Named::Image];
                let known = if self.places.other.is_some() { 6 } else { 5 };
                self.named = all[if dice.chance(30) { 0 } else { dice.below(known) }];
            }
            14 if self.stages.len() > 1 => {
                self.replaced = dice.chance(60).then(|| dice.below(self.stages.len() - 1));
            }
            14 | 15 => self.target = dice.chance(60).then(|| dice.below(self.stages.len())),
            0..5 => {
                let said = self.dockerfile();
                let used: Vec<&str> =
                    ARGUMENTS.into_iter().filter(|name| said.contains(&format!("ARG {name}"))).collect();
                let name = if used.is_empty() || dice.chance(20) { dice.pick(&ARGUMENTS) } else { dice.pick(&used) };
                self.arguments.retain(|(known, _)| known != &name);
                if dice.chance(70) {
                    self.arguments.push((
                        ARGUMENTS.iter().find(|known| **known == name).expect("one of them"),
                        dice.below(3).to_string(),
                    ));
                }
            }
            5 if dice.chance(30) => self.given = Self::given(dice),
            5 if dice.chance(30) => self.epoch = dice.below(3),
            5 | 10 | 11 => self.git_mode = !self.git_mode,
            6 => self.target = dice.chance(60).then(|| dice.below(self.stages.len())),
            7 => self.label = dice.chance(60).then(|| dice.below(3).to_string()),
            8 => self.network = *dice.pick(&[&None, &Some("none")]),
            _ => self.host = *dice.pick(&[&None, &Some("there"), &Some("where")]),
        }
        format!("options {} named {:?} replaced {:?}", self.options().join(" "), self.named, self.replaced)
    }
}

fn instruction(line: &str) -> &str {
    line.split([' ', '=']).next().unwrap_or_default()
}
