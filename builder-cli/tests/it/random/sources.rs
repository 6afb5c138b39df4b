//! What a [`World`] builds from that is another thing from time to time under the same name: images in a registry and in
//! the store, contexts with names, and a clock.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::files::{self, Changed, EVERYTHING};
use super::project::Named;
use super::world::World;
use crate::cache_lies::filter;
use crate::env::end;
use crate::inline_cache::sha256;
use crate::registry::{base, shared};
use crate::web::Page;

/// What makes an image whose tag moves.
const BASE: &str = "ARG N\nRUN echo $N > /etc/moved; mkdir -p /d; echo $N$N > /d/a\nENV B=$N\n";

/// The same without a shell.
const OTHER: &str = "FROM scratch\nARG N\nCOPY <<a <<top /\na$N\na\nt\ntop\nCOPY <<b /sub/\n$N\nb\nENV B=$N\n";

/// The image that only stores know.
const LOCAL: &str = "local:1";

/// Results that may expire do so after this many seconds, or at once.
pub(super) const LIFE: u64 = 1;

/// Images whose names mean something else from time to time: which of several each is.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// The base image, in a registry.
    pub(super) base: Option<usize>,
    /// One without a shell, in a registry.
    pub(super) other: Option<usize>,
    /// The base image, in the store only.
    pub(super) local: Option<usize>,
    /// Which one each store has.
    held: std::collections::HashMap<String, usize>,
}

impl Images {
    pub(super) fn are_any(&self) -> bool {
        self.must_be_asked() || self.local.is_some()
    }

    /// Whether registries have to be asked what their tags are.
    pub(super) fn must_be_asked(&self) -> bool {
        self.base.is_some() || self.other.is_some()
    }
}

impl World {
    /// A name in the registry that no other world uses.
    pub(super) fn tag(&self, what: &str) -> String {
        shared().name(&format!("{what}/{}:1", self.env.mark().to_lowercase()))
    }

    /// What stages begin with.
    pub(super) fn base(&self) -> String {
        match (self.images.base, self.images.local) {
            (Some(_), _) => self.tag("base"),
            (None, Some(_)) => LOCAL.to_owned(),
            (None, None) => base(),
        }
    }

    fn make(&self, options: &str, dockerfile: &str, number: usize) {
        let file = self.env.path("image.Dockerfile");
        std::fs::write(&file, dockerfile).expect("written");
        let _ = std::fs::create_dir(self.env.path("nothing"));
        self.env.ok(&format!(
            "--root ../pusher build -q --source-date-epoch=1 --rewrite-timestamp --build-arg N={number} {options} -f {} ../nothing",
            file.display()
        ));
    }

    /// The tag of the base image becomes that of another image, or the same again.
    pub(super) fn move_base(&mut self, number: usize) {
        self.images.base = Some(number);
        self.make(&format!("--push -t {}", self.tag("base")), &format!("FROM {}\n{BASE}", base()), number);
    }

    /// The same for the image without a shell.
    pub(super) fn move_other(&mut self, number: usize) {
        self.images.other = Some(number);
        self.make(&format!("--push -t {}", self.tag("other")), OTHER, number);
    }

    /// The same for the one that only the store has; it gets there when it is needed.
    pub(super) fn move_local(&mut self, number: usize) {
        self.images.local = Some(number);
        let archive = self.env.path(&format!("local-{number}.tar"));
        if !archive.exists() {
            let name = if number == 0 { LOCAL.to_owned() } else { format!("local-{number}:1") };
            let options = format!("-t {name} -o type=docker,dest={}", archive.display());
            self.make(&options, &format!("FROM {}\n{BASE}", base()), number);
        }
    }

    /// One of the images becomes another one.
    pub(super) fn move_image(&mut self) -> Changed {
        let number = self.dice.below(3);
        let what = match (&self.images.base, &self.images.other) {
            (Some(_), Some(_)) if self.dice.chance(50) => "base",
            (Some(_), None) => "base",
            (_, Some(_)) => "other",
            (None, None) if self.images.local.is_some() => "local",
            (None, None) => return Changed { what: "no image".to_owned(), names: Vec::new(), nothing: true },
        };
        match what {
            "base" => self.move_base(number),
            "other" => self.move_other(number),
            _ => self.move_local(number),
        }
        self.figures.moved += 1;
        Changed::of(format!("image {what} {number}"), EVERYTHING)
    }

    /// Brings the image that only stores have into one.
    pub(super) fn hold_local(&mut self, store: &str) {
        let Some(number) = self.images.local.filter(|number| self.images.held.get(store) != Some(number)) else {
            return;
        };
        let run = |line: &[&str]| {
            let mut command = self.env.command(line);
            end(command.env("RBUILD_ROOT", self.env.path(store))).code
        };
        let name = format!("local-{number}:1");
        if number == 0 || run(&["tag", &name, LOCAL]) != 0 {
            let archive = self.env.path(&format!("local-{number}.tar"));
            assert_eq!(run(&["load", "-q", "-i", archive.to_str().expect("text")]), 0, "load");
            assert!(number == 0 || run(&["tag", &name, LOCAL]) == 0, "tag");
        }
        self.images.held.insert(store.to_owned(), number);
    }

    /// A store may have lost its images.
    pub(super) fn forget_local(&mut self, store: &str) {
        self.images.held.remove(store);
    }

    /// One store takes the place of another.
    pub(super) fn replace_store(&mut self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(self.env.path(to));
        std::fs::rename(self.env.path(from), self.env.path(to)).expect("renamed");
        self.forget_local(from);
        self.forget_local(to);
    }

    /// The time that steps see; results from before it are too old.
    pub(super) fn tick(&mut self) -> Changed {
        let time = self.dice.below(3).to_string();
        let file = self.env.path("home/clock");
        let before = std::fs::read_to_string(&file).expect("readable");
        std::fs::write(&file, &time).expect("written");
        self.figures.ticked += 1;
        if time == before {
            return Changed { what: format!("still {time}"), names: Vec::new(), nothing: true };
        }
        std::thread::sleep(Duration::from_millis(LIFE * 1000 + 20));
        Changed::of(format!("it is {time}"), EVERYTHING)
    }

    /// An archive of a directory.
    pub(super) fn pack(directory: &Path, archive: &Path) {
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--xattrs", "--sort=name", "-cf"]).arg(archive).arg("-C");
        assert!(tar.arg(directory).arg(".").status().expect("tar").success());
    }

    /// The address of a packed directory.
    pub(super) fn serve(&self, directory: &Path, name: &str) -> String {
        let archive = self.env.path(&format!("{name}.tar"));
        Self::pack(directory, &archive);
        let bytes = std::fs::read(&archive).expect("written");
        // Some servers tell nothing of what they send.
        let etag = format!("\"{}\"", sha256(&bytes));
        let etag = (self.env.mark().len() + self.page).is_multiple_of(2).then(|| &*etag.leak());
        let body = filter("gzip", "-nc", &bytes);
        self.web.put(&format!("/{name}.tar.gz"), Page { body, etag, ..Page::default() })
    }

    /// `--build-context` for each context with a name.
    pub(super) fn named_contexts(&self) -> Vec<String> {
        let path = |name: &str| self.env.path(name).display().to_string();
        let layout = format!("oci-layout://{}", path("layout"));
        let named = match self.project.named {
            Named::Directory => path("named"),
            Named::Layout => layout.clone(),
            Named::Archive => self.serve(&self.env.path("named"), "named"),
            Named::Repository => self.upstream.address(),
            Named::Image => format!("docker-image://{}", self.tag("other")),
            Named::Part => path("context/src"),
        };
        let mut contexts =
            vec![("named".to_owned(), named), ("bb".to_owned(), path("bb")), ("layout".to_owned(), layout)];
        contexts.extend(self.project.replaced.map(|stage| (format!("s{stage}"), path("named"))));
        contexts.into_iter().map(|(name, value)| format!("--build-context={name}={value}")).collect()
    }

    /// The words of a state that say what these are.
    pub(super) fn state_of_sources(&self) -> String {
        let Images { base, other, local, .. } = &self.images;
        let Self { project, .. } = self;
        let mut text = format!("{base:?} {other:?} {local:?} {:?} {:?}", project.named, project.replaced);
        for name in ["hashed", "clock"] {
            let _ = write!(text, " {}", std::fs::read_to_string(self.env.path("home").join(name)).expect("readable"));
        }
        text
    }

    /// A file of the cache in a directory is not what it was.
    pub(super) fn damage_cache(&mut self) {
        let blobs = self.env.path("cache/blobs/sha256");
        let Ok(entries) = std::fs::read_dir(blobs) else { return };
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        if found.is_empty() {
            return;
        }
        let file = found[self.dice.below(found.len())].clone();
        if self.dice.chance(50) {
            std::fs::remove_file(&file).expect("removed");
        } else {
            let mut bytes = std::fs::read(&file).expect("readable");
            let at = self.dice.below(bytes.len().max(1));
            bytes.truncate(at);
            std::fs::write(&file, bytes).expect("written");
        }
        self.log.push("  damaged the cache elsewhere".to_owned());
        // It is that of no state any more.
        self.exported = Some(String::new());
    }

    /// Patterns of what is ignored change.
    pub(super) fn ignore(&mut self) -> Changed {
        let name = self.dice.pick(&[".dockerignore", ".dockerignore", "Dockerfile.dockerignore"]);
        let file = self.env.context(name);
        let gone = self.dice.chance(20);
        if gone || file.is_dir() {
            let _ = std::fs::remove_dir_all(&file);
            let _ = std::fs::remove_file(&file);
        } else {
            let text = files::patterns(&std::fs::read_to_string(&file).unwrap_or_default(), &mut self.dice);
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, text).expect("written");
        }
        Changed::of(format!("{name}, gone: {gone}"), EVERYTHING)
    }
}
