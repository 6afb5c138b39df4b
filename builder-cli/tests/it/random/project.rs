//! [`Project`]: a random Dockerfile, and the options that it is built with.

use std::fmt::Write as _;

use super::dice::Dice;

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
    /// What the base image is called.
    base: String,
    /// The address of a file.
    page: String,
    /// The address of a repository.
    upstream: String,
    /// Whether all rights of files count.
    git_mode: bool,
    /// Files get the time of the epoch, so that images can be compared bit by bit.
    pub(super) rewrite: bool,
    /// How the build gets the main context.
    pub(super) given: Given,
    /// The word that says which value a secret has.
    pub(super) epoch: usize,
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
    Stage(usize),
}

const SOURCES: &str = "src src/ src/. src/a src/a* src/sub lib lib/* . ./ top* */a src/?  [st]* lib/link src/sub/x data data/* */* src/link p.tar* ";
const TARGETS: &str = "/d/ /d/e/ /e/ /e/f/ /w/ /w/old/ / /d/sub/ rel/ . /link/ /d/deep/er/";
const EXCLUDED: &str = "a */a **/x sub src/sub lib/** !src/a *.log b **/* src";
const MODES: &str = "644 0755 700 u+x,g-r a=r u=rwX,go=rX +t";
const OWNERS: &str = "1:2 app app:extra :extra 7 0:0";
const SEEN: &str = "/d /e /w / /o /d/sub /link /d/src";
const ARGUMENTS: [&str; 5] = ["X", "Y", "UNUSED", "HTTP_PROXY", "Z"];

impl Project {
    pub(super) fn new(dice: &mut Dice, base: &str, page: &str, upstream: &str) -> Self {
        let mut project = Self {
            stages: Vec::new(),
            target: None,
            arguments: Vec::new(),
            label: None,
            network: None,
            host: None,
            base: base.to_owned(),
            page: page.to_owned(),
            upstream: upstream.to_owned(),
            git_mode: false,
            rewrite: dice.chance(60),
            given: Self::given(dice),
            epoch: 0,
        };
        for number in 0..=dice.below(4) {
            let from = match dice.below(10) {
                0..4 => From::Base,
                4 => From::Copied,
                5 if dice.chance(50) => From::Layout,
                5 => From::Scratch,
                _ if number > 0 => From::Stage(dice.below(number)),
                _ => From::Base,
            };
            project.stages.push(Stage { from, lines: Vec::new() });
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

    fn can_run(&self, stage: usize) -> bool {
        match self.stages[stage].from {
            From::Base | From::Copied => true,
            From::Scratch | From::Layout => false,
            From::Stage(below) => self.can_run(below),
        }
    }

    /// A random instruction of a stage.
    fn line(&self, dice: &mut Dice, stage: usize) -> String {
        match dice.below(100) {
            0 | 1 if self.can_run(stage) => format!("# cache=12h\n{}", Self::run(dice, stage)),
            2..40 if self.can_run(stage) => Self::run(dice, stage),
            0..66 => self.copy(dice, stage),
            70..80 => format!("ARG {}={}", dice.pick(&ARGUMENTS), dice.below(3)),
            80 => format!("ARG {}", dice.pick(&ARGUMENTS)),
            81..86 => format!("ENV {}={}", dice.word("A B X"), dice.word("1 2 $X ${Y:-no} $A$B")),
            66 | 67 | 86..89 => format!("WORKDIR {}", dice.word("/w rel /d/wd / $A /e")),
            68 | 69 | 89..91 => format!("USER {}", dice.word("app 0 1000:2000 root 7")),
            91..93 => {
                let inner =
                    if self.can_run(stage) && dice.chance(50) { Self::run(dice, 0) } else { self.copy(dice, 0) };
                if inner.contains('\n') || inner.starts_with('#') {
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

    fn copy(&self, dice: &mut Dice, stage: usize) -> String {
        let mut flags = String::new();
        if dice.chance(20) {
            let _ = write!(flags, "--chown={} ", dice.word(OWNERS));
        }
        if dice.chance(15) {
            let _ = write!(flags, "--chmod={} ", dice.word(MODES));
        }
        if dice.chance(15) {
            flags += "--link ";
        }
        for _ in 0..if dice.chance(20) { 1 + dice.below(2) } else { 0 } {
            let _ = write!(flags, "--exclude={} ", dice.word(EXCLUDED));
        }
        let target = dice.word(TARGETS);
        match dice.below(20) {
            0..4 if stage > 0 => {
                let from = dice.below(stage);
                format!("COPY --from=s{from} {flags}{} {target}", dice.word("/d /d/* /o* /e* /w /o/ /link* /d/sub*"))
            }
            4 | 5 => format!("COPY --from=named {flags}{} {target}", dice.word(". a* sub */* [a-c]")),
            6 => format!("COPY {flags}<<a <<b {target}\ntext {}\na\n$X\nb", dice.below(3)),
            7 if dice.chance(70) => format!("ADD {flags}{} {target}", dice.word("p.tar src p.* .")),
            7 | 8 if !flags.contains("exclude") => {
                if dice.chance(20) {
                    let _ = write!(flags, "--checksum={} ", checksum(dice));
                }
                format!("ADD {flags}{} {target}", self.page)
            }
            9 if !flags.contains("exclude") => {
                format!("COPY --parents {flags}{} {target}", dice.word("src/./**/x */a src/sub"))
            }
            10 if !flags.contains("exclude") => {
                format!(
                    "ADD {flags}{}{} {target}",
                    self.upstream,
                    dice.pick(&["", "#main", "#main:sub", "?branch=main&subdir=sub"])
                )
            }
            11 => format!("COPY --from=layout {flags}{} {target}", dice.word(". a* /sub")),
            12 => format!("COPY {flags}{} {} {target}", dice.word(SOURCES), dice.word(SOURCES)),
            _ => format!("COPY {flags}{} {target}", dice.word(SOURCES)),
        }
    }

    fn mount(dice: &mut Dice, stage: usize) -> String {
        let more = dice.pick(&["", "", ",rw"]);
        match dice.below(10) {
            0..3 => format!("--mount=type=bind,source={},target=/seen{more}", dice.word("src src/sub lib . data")),
            3 | 4 if stage > 0 => {
                let from = dice.below(stage);
                format!("--mount=type=bind,from=s{from},source={},target=/seen{more}", dice.word("/o /d / /w /e"))
            }
            3..6 => format!("--mount=type=bind,from=named,target=/seen{more}"),
            6 => format!("--mount=type=cache,id={},target=/cache", dice.word("one two")),
            7 => format!("--mount=type=tmpfs,target=/seen{}", dice.pick(&["", ",size=1m"])),
            8 => format!("--mount=type=secret,id={}", dice.pick(&["hashed", "dated"])),
            _ => "--mount=type=secret,id=plain".to_owned(),
        }
    }

    /// A command that writes what it sees.
    fn run(dice: &mut Dice, stage: usize) -> String {
        let out = format!("/o/{}", dice.below(1000));
        let count = [0, 0, 0, 1, 1, 2][dice.below(6)];
        let mut mounts: Vec<String> = (0..count).map(|_| Self::mount(dice, stage)).collect();
        if mounts.iter().filter(|mount| mount.contains("/seen")).count() > 1 {
            mounts.pop();
        }
        let has = |what: &str| mounts.iter().any(|mount| mount.contains(what));
        let look = |at: &str| {
            let not = "\\( -path /proc -o -path /sys -o -path /dev -o -path /cache -o -path /run -o -path /etc/hosts -o -path /etc/resolv.conf \\) -prune -o";
            format!(
                "x=$({{ find {at} {not} -exec stat -c '%N %a %u %g %F' {{}} +; find {at} {not} -type f -exec sha256sum {{}} +; }} 2>&1 | sort); echo \"$x\" > {out}; true"
            )
        };
        let command = match () {
            () if has("/seen") => look("/seen"),
            () if has("hashed") => format!("cat /run/secrets/hashed > {out}"),
            () if has("dated") => format!("cat /run/secrets/dated > {out}"),
            () if has("/cache") => format!("f=/cache/${{##*/}}; echo {} > $f; cat $f > {out}; rm $f", dice.below(3))
                .replace("${##*/}", &out[3..]),
            () if has("plain") => format!("test -s /run/secrets/plain; echo ok > {out}"),
            () => match dice.below(18) {
                0..3 => look(dice.word(SEEN)),
                3..6 => format!("env | grep -v -i _proxy | sort > {out}; true"),
                6 => format!("env | sort > {out}; true").replace("env | sort", "echo $HTTP_PROXY$X"),
                7 => format!("{{ id; pwd; umask; }} > {out}; true"),
                8 => format!("cat /d/* /d/src/* 2>/dev/null | grep -v '^#' > {out}; true"),
                9 => format!("cat /o/* /d/* 2>/dev/null | wc -c > {out}; true"),
                10 => dice.pick(&["rm -rf /d/a*; true", "rm -rf /d; true", "rm -f /o/1*; true"]).to_owned(),
                11 => dice.pick(&["mkdir -p /e/f; true", "mkdir -m 700 -p /d/deep; true", "true"]).to_owned(),
                12 => "mv /d /e 2>/dev/null; ln -s e /link 2>/dev/null; true".to_owned(),
                13 => dice
                    .pick(&[
                        "chmod -R go-rx /d /w 2>/dev/null; true",
                        "chown 5:6 /d /o/* 2>/dev/null; true",
                        "chmod 755 /d/* /o/* 2>/dev/null; true",
                    ])
                    .to_owned(),
                14 => "for f in /d/a /d/src/a; do ln $f $f.hard 2>/dev/null; done; true".to_owned(),
                15 => {
                    return format!(
                        "RUN {}<<E\nwc -c /d/* /o/* > {out} 2>/dev/null\necho {} >> {out}\ntrue\nE",
                        joined(&mounts),
                        dice.below(3)
                    );
                }
                _ => format!("echo {} > {out}", dice.below(4)),
            },
        };
        format!("RUN {}{command}", joined(&mounts))
    }

    pub(super) fn dockerfile(&self) -> String {
        let mut text = String::new();
        for (number, stage) in self.stages.iter().enumerate() {
            let begin = match stage.from {
                From::Base => format!("FROM {} AS s{number}\nRUN mkdir -m 777 /o /w && mkdir /w/old\n", self.base),
                From::Copied => {
                    format!("FROM scratch AS s{number}\nCOPY --from=bb . /\nENV PATH=/bin\nRUN mkdir -m 777 /o /w\n")
                }
                From::Scratch => format!("FROM scratch AS s{number}\n"),
                From::Layout => format!("FROM layout AS s{number}\n"),
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
        options.extend(self.network.map(|mode| format!("--network={mode}")));
        options.extend(self.host.map(|name| format!("--add-host={name}:10.0.0.1")));
        options
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
        match dice.below(10) {
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
            5 => self.git_mode = !self.git_mode,
            6 => self.target = dice.chance(60).then(|| dice.below(self.stages.len())),
            7 => self.label = dice.chance(60).then(|| dice.below(3).to_string()),
            8 => self.network = *dice.pick(&[&None, &Some("none")]),
            _ => self.host = *dice.pick(&[&None, &Some("there"), &Some("where")]),
        }
        format!("options {}", self.options().join(" "))
    }
}

/// The digest of a page, in one of the algorithms.
fn checksum(dice: &mut Dice) -> String {
    let page = super::world::page_text(dice.below(2));
    match dice.below(3) {
        0 => {
            let sum = crate::cache_lies::filter("sha512sum", "-", page.as_bytes());
            format!("sha512:{}", String::from_utf8_lossy(&sum[..128]))
        }
        _ => format!("sha256:{}", crate::inline_cache::sha256(page.as_bytes())),
    }
}

fn instruction(line: &str) -> &str {
    line.split([' ', '=']).next().unwrap_or_default()
}

fn joined(mounts: &[String]) -> String {
    mounts.iter().map(|mount| format!("{mount} ")).collect()
}
