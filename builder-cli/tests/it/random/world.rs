//! [`World`]: one project over time, with the stores that build it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::dice::Dice;
use super::files::{self, Changed, EVERYTHING, FILES};
use super::image::Built;
use super::number;
use super::project::{Given, Places, Project};
use super::reasons::Past;
use super::sources::Images;
use crate::env::TestEnv;
use crate::git::Upstream;
use crate::moto::Moto;
use crate::registry::busybox;
use crate::web::{Page, Web};

/// What makes the image in a directory.
const LAYOUT: &str = "FROM scratch\nARG N\nCOPY --from=named . /\nENV LAYOUT=$N\nONBUILD COPY a* /onbuild/\n";

/// Where a store writes its remote cache to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Directory,
    /// In the image.
    Inline,
    Registry,
    Bucket,
}

/// What changes more than other things in a world.
#[derive(Clone, Copy, PartialEq)]
enum Theme {
    Files,
    Clock,
    Images,
    /// Addresses, repositories, secrets.
    Sources,
    /// Platforms, what contexts are, what counts of files.
    Options,
}

impl Theme {
    const ALL: [Self; 8] =
        [Self::Files, Self::Clock, Self::Images, Self::Sources, Self::Options, Self::Files, Self::Files, Self::Images];
}

/// A server of buckets for the whole test program.
fn bucket() -> &'static Moto {
    static SHARED: std::sync::OnceLock<Moto> = std::sync::OnceLock::new();
    SHARED.get_or_init(Moto::start)
}

/// What the server says.
pub(super) fn page_text(number: usize) -> String {
    match number {
        // Those with a date: what has none is older than the epoch of all builds, and times do not make another layer.
        4 | 5 => "page with a date\n".to_owned(),
        _ => format!("page {}\n", number % 4),
    }
}

/// What was done.
#[derive(Debug, Default, Clone)]
pub(super) struct Figures {
    pub(super) rounds: usize,
    pub(super) changes: usize,
    pub(super) compared: usize,
    pub(super) failed: usize,
    pub(super) ran: usize,
    pub(super) hit: usize,
    pub(super) unchanged: usize,
    pub(super) imported: usize,
    pub(super) pruned: usize,
    pub(super) killed: usize,
    pub(super) damaged: usize,
    pub(super) moved: usize,
    pub(super) ticked: usize,
    pub(super) expired: usize,
    pub(super) platforms: usize,
    pub(super) replaced: usize,
}

impl Figures {
    pub(super) fn add(&mut self, more: &Self) {
        let Self { rounds, changes, compared, failed, ran, hit, unchanged, imported, pruned, killed, damaged, .. } =
            more;
        let Self { moved, ticked, expired, platforms, replaced, .. } = more;
        self.rounds += rounds;
        self.changes += changes;
        self.compared += compared;
        self.failed += failed;
        self.ran += ran;
        self.hit += hit;
        self.unchanged += unchanged;
        self.imported += imported;
        self.pruned += pruned;
        self.killed += killed;
        self.damaged += damaged;
        self.moved += moved;
        self.ticked += ticked;
        self.expired += expired;
        self.platforms += platforms;
        self.replaced += replaced;
    }
}

/// One project over time.
pub(super) struct World {
    pub(super) env: TestEnv,
    pub(super) web: Web,
    pub(super) dice: Dice,
    pub(super) project: Project,
    /// States that the store has built since it was pruned.
    pub(super) seen: HashSet<String>,
    /// What an empty store made of a state.
    pub(super) fresh: HashMap<String, Built>,
    /// The empty store did not get the file that a checksum is of.
    pub(super) refused: bool,
    /// States in which that is so: only a store that has the file can build them.
    pub(super) only_known: HashSet<String>,
    /// Builds of the store since it was pruned.
    pub(super) past: Vec<Past>,
    /// Something may be gone for good.
    pub(super) was_pruned: bool,
    /// What changed since the last of them.
    pub(super) names: Vec<String>,
    /// The state of the last export of the cache.
    pub(super) exported: Option<String>,
    pub(super) saved: Vec<Project>,
    pub(super) good: Option<Project>,
    pub(super) failures: usize,
    pub(super) page: usize,
    pub(super) upstream: Upstream,
    /// What the image in the directory is.
    layout: usize,
    /// Where the remote cache of the store is.
    pub(super) place: Place,
    pub(super) images: Images,
    /// What changes more than other things.
    theme: Theme,
    /// Where the context is committed to.
    repository: Option<Upstream>,
    is_large: bool,
    pub(super) log: Vec<String>,
    pub(super) figures: Figures,
}

impl World {
    pub(super) fn new(mut dice: Dice, is_large: bool) -> Self {
        // In memory, where syncing costs nothing.
        let memory = Path::new("/dev/shm");
        let chosen = std::env::var_os("RBUILD_RANDOM_DIR").map(PathBuf::from);
        let parent = chosen.unwrap_or_else(|| if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() });
        let env = TestEnv::below(&parent);
        let web = Web::start();
        let url = web.bytes("/page", "");
        for name in ["named", "bb"] {
            std::fs::create_dir(env.path(name)).expect("made");
        }
        std::fs::write(env.path("bb.tar"), busybox()).expect("written");
        let unpacked = Command::new("tar").arg("-xf").arg(env.path("bb.tar")).arg("-C").arg(env.path("bb")).status();
        assert!(unpacked.expect("tar").success());
        files::plant(&env.context(""), &mut dice);
        files::plant(&env.path("named"), &mut dice);
        if is_large {
            files::plant_many(&env.context(""), &mut dice);
        }
        if dice.chance(25) {
            files::plant_heavy(&env.context(""));
        }
        let theme = Theme::ALL[dice.below(Theme::ALL.len())];
        let theme =
            number("RBUILD_RANDOM_THEME").map_or(theme, |theme| Theme::ALL[usize::try_from(theme % 8).expect("small")]);
        if theme == Theme::Options {
            files::set_modes(&env.context(""), &mut dice);
        }
        let upstream = Upstream::new(&env, "upstream");
        upstream.commit(&[("a", "a\n"), ("sub/b", "b\n")]);
        let places = Places { page: url, upstream: upstream.address(), ..Places::default() };
        let project = Project::new(&mut dice, &places);
        let place = [Place::Directory, Place::Inline, Place::Registry, Place::Bucket]
            [[0, 0, 0, 0, 1, 1, 1, 2, 2, 3][dice.below(10)]];
        let mut world = Self {
            env,
            web,
            dice,
            project,
            seen: HashSet::new(),
            fresh: HashMap::new(),
            refused: false,
            only_known: HashSet::new(),
            past: Vec::new(),
            was_pruned: false,
            names: Vec::new(),
            exported: None,
            saved: Vec::new(),
            good: None,
            failures: 0,
            page: 0,
            upstream,
            layout: 0,
            place,
            images: Images::default(),
            theme,
            repository: None,
            is_large,
            log: Vec::new(),
            figures: Figures { rounds: 1, ..Figures::default() },
        };
        for (name, value) in [("plain", "p"), ("hashed", "h"), ("clock", "0")] {
            std::fs::write(world.env.path("home").join(name), value).expect("written");
        }
        for number in 0..2 {
            world.env.write("number", number.to_string()).write("Dockerfile", LAYOUT);
            world.env.ok(&format!("--root ../empty build -q --build-context named=../named --build-arg N={number} -o type=oci,tar=false,dest=../layout-{number} ."));
            std::fs::remove_file(world.env.context("number")).expect("removed");
            files::change(&world.env.path("named"), &mut world.dice);
        }
        world.put_layout(0);
        world.put_page(0);
        if theme == Theme::Images || world.dice.chance(15) {
            match world.dice.below(4) {
                0 => world.move_base(0),
                1 => world.move_other(0),
                2 => {
                    world.move_base(0);
                    world.move_other(0);
                }
                _ => world.move_local(0),
            }
        }
        world.project = world.another();
        world.write_dockerfile();
        world
    }

    /// What happened so far.
    pub(super) fn log(&self) -> String {
        let dockerfile = std::fs::read_to_string(self.env.context("Dockerfile")).unwrap_or_default();
        let ignored = std::fs::read_to_string(self.env.context(".dockerignore")).unwrap_or_default();
        format!("{dockerfile}--- .dockerignore\n{ignored}---\n{}", self.log.join("\n"))
    }

    /// Keeps everything, if that is asked for; says where.
    pub(super) fn keep(&self, seed: u64) -> String {
        let Some(directory) = std::env::var_os("RBUILD_RANDOM_KEEP") else { return String::new() };
        let to = Path::new(&directory).join(seed.to_string());
        std::fs::create_dir_all(&directory).expect("made");
        files::copy(&self.env.path(""), &to);
        to.display().to_string()
    }

    fn put_layout(&mut self, number: usize) {
        self.layout = number;
        files::copy(&self.env.path(&format!("layout-{number}")), &self.env.path("layout"));
    }

    /// A project of the same places.
    pub(super) fn another(&mut self) -> Project {
        let places = Places {
            base: self.base(),
            other: self.images.other.map(|_| self.tag("other")),
            page: format!("{}/page", self.web.address),
            upstream: self.upstream.address(),
            forgets: self.theme == Theme::Clock,
            for_platforms: self.theme == Theme::Options,
            fetches: self.theme == Theme::Sources,
        };
        let mut project = Project::new(&mut self.dice, &places);
        if self.is_large {
            project.given = Given::Directory;
            project.copy_much(&mut self.dice);
        }
        project
    }

    /// What `--cache-to` and `--cache-from` say.
    pub(super) fn caches(&self) -> [String; 2] {
        let cache = self.env.path("cache").display().to_string();
        match self.place {
            Place::Directory => [format!("type=local,dest={cache}"), format!("type=local,src={cache}")],
            Place::Inline => ["type=inline".to_owned(), format!("type=local,src={cache}")],
            Place::Registry => {
                let place = format!("type=registry,ref={}", self.tag("cache"));
                [place.clone(), place]
            }
            Place::Bucket => {
                let place = format!(
                    "type=s3,bucket=bucket,prefix={}/,endpoint_url=http://{},use_path_style=true,\
                     access_key_id=me,secret_access_key=secret,region=us-east-1,name=main",
                    self.env.mark().to_lowercase(),
                    bucket().address
                );
                [place.clone(), place]
            }
        }
    }

    /// Puts the context where the build gets it; gives the argument that names it.
    pub(super) fn give(&mut self) -> String {
        match self.project.given {
            Given::Directory => ".".to_owned(),
            Given::Stream => {
                Self::pack(&self.env.context(""), &self.env.path("given.tar"));
                "-".to_owned()
            }
            Given::Address => self.serve(&self.env.context(""), "given"),
            Given::Repository => {
                let repository = self.repository.get_or_insert_with(|| Upstream::new(&self.env, "repository"));
                let tree = format!("--git-dir=.git --work-tree={}", self.env.context("").display());
                repository.git(&format!("{tree} add --all --force"));
                repository.git(&format!("{tree} commit --quiet --allow-empty -m x"));
                repository.address()
            }
        }
    }

    fn put_page(&mut self, number: usize) {
        self.page = number;
        let body = page_text(number).into_bytes();
        let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"];
        let etag = [Some("\"0\""), Some("W/\"1\""), Some("\"2\""), None].get(number).copied().flatten();
        let last_modified = number.checked_sub(4).and_then(|date| dates.get(date).copied());
        self.web.put("/page", Page { body, etag, last_modified, ..Page::default() });
    }

    pub(super) fn write_dockerfile(&self) {
        let text = self.project.dockerfile();
        // Not again: that would make the file newer.
        if std::fs::read_to_string(self.env.context("Dockerfile")).ok().as_deref() != Some(&text) {
            let _ = std::fs::remove_dir_all(self.env.context("Dockerfile"));
            self.env.write("Dockerfile", text);
        }
    }

    /// Everything that decides what is built.
    pub(super) fn state(&self) -> String {
        let Self { env, project, page, layout, .. } = self;
        let upstream = self.upstream.git("rev-parse HEAD");
        let (context, named) = (files::state(&env.context("")), files::state(&env.path("named")));
        let options = project.options().join(" ");
        let given = project.given;
        format!(
            "{}\n{options}\n{} {page} {layout} {given:?} {upstream}\n{context}\n{named}",
            project.dockerfile(),
            self.state_of_sources()
        )
    }

    pub(super) fn note(&mut self, changed: Changed) {
        self.figures.changes += 1;
        self.log.push(format!("  changed: {}", changed.what));
        if !changed.nothing {
            self.names.extend(changed.names);
            // What an explanation says of files of archives and commits is not compared.
            self.names.extend((self.project.given != Given::Directory).then(|| EVERYTHING.to_owned()));
        }
    }

    /// Something is not as it was.
    pub(super) fn change(&mut self) {
        let changed = if self.dice.chance(30) { self.themed() } else { self.any_change() };
        self.note(changed);
    }

    fn themed(&mut self) -> Changed {
        match self.theme {
            Theme::Files => self.any_change(),
            Theme::Clock => self.tick(),
            Theme::Images => self.move_image(),
            Theme::Sources => self.change_source(),
            Theme::Options => Changed::of(self.project.turn_files(&mut self.dice), EVERYTHING),
        }
    }

    fn any_change(&mut self) -> Changed {
        match self.dice.below(100) {
            0 | 1 if self.images.are_any() => self.move_image(),
            2 if self.project.expires() => self.tick(),
            3 | 4 => self.ignore(),
            0..52 => files::change(&self.env.context(""), &mut self.dice),
            52..58 => files::change(&self.env.path("named"), &mut self.dice),
            58..70 => {
                let what = self.project.edit(&mut self.dice);
                self.write_dockerfile();
                Changed::of(format!("Dockerfile {what}"), EVERYTHING)
            }
            70..80 => Changed::of(self.project.turn(&mut self.dice), EVERYTHING),
            80..90 => self.change_source(),
            90..94 => self.save(),
            _ => self.go_back(),
        }
    }

    fn change_source(&mut self) -> Changed {
        match self.dice.below(10) {
            0..3 => {
                let secret = self.dice.below(2).to_string();
                std::fs::write(self.env.path("home/hashed"), &secret).expect("written");
                Changed::of(format!("secret is {secret}"), EVERYTHING)
            }
            3 | 4 => {
                let number = self.dice.below(2);
                self.put_layout(number);
                Changed::of(format!("layout {number}"), EVERYTHING)
            }
            5 | 6 => {
                let text = self.dice.below(3).to_string();
                let name = self.dice.pick(&["a", "sub/b", "sub/c"]);
                self.upstream.commit(&[(name, &text)]);
                Changed::of(format!("commit {name} {text}"), FILES)
            }
            _ => {
                let number = self.dice.below(8);
                self.put_page(number);
                Changed::of(format!("page {number}"), FILES)
            }
        }
    }

    fn save(&mut self) -> Changed {
        let number = self.saved.len();
        self.keep_as(&format!("saved-{number}"));
        self.saved.push(self.project.clone());
        Changed { what: format!("saved {number}"), names: Vec::new(), nothing: true }
    }

    pub(super) fn keep_as(&self, name: &str) {
        files::copy(&self.env.context(""), &self.env.path(&format!("{name}-context")));
        files::copy(&self.env.path("named"), &self.env.path(&format!("{name}-named")));
    }

    pub(super) fn restore(&mut self, name: &str) {
        files::copy(&self.env.path(&format!("{name}-context")), &self.env.context(""));
        files::copy(&self.env.path(&format!("{name}-named")), &self.env.path("named"));
        self.write_dockerfile();
    }

    fn go_back(&mut self) -> Changed {
        if self.saved.is_empty() {
            return self.save();
        }
        let number = self.dice.below(self.saved.len());
        self.project = self.saved[number].clone();
        self.restore(&format!("saved-{number}"));
        Changed::of(format!("back to {number}"), EVERYTHING)
    }

    /// The options of every build.
    pub(super) fn options(&self) -> Vec<String> {
        let path = |name: &str| self.env.path(name).display().to_string();
        let mut options: Vec<String> =
            ["build", "--progress=rawjson", "--source-date-epoch=1"].map(str::to_owned).into();
        options.extend(self.named_contexts());
        options.push(format!("--secret=id=hashed,src={},cache=hash", path("home/hashed")));
        std::fs::write(path("home/dated"), self.project.epoch.to_string()).expect("written");
        options.push(format!("--secret=id=clock,src={}", path("home/clock")));
        options.extend(self.images.must_be_asked().then(|| "--pull".to_owned()));
        options.push(format!("--secret=id=plain,src={}", path("home/plain")));
        if self.project.rewrite {
            options.push("--rewrite-timestamp".to_owned());
        }
        options.extend(self.project.options());
        options
    }
}
