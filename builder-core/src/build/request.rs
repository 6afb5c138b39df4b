//! [`BuildRequest`]: what one build is asked to do. Plain data; nothing is touched to make one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::op::http::redacted;
use super::remote::FetchedContext;
use super::run_options::RunOptions;
use std::time::Duration;

use crate::context::ContextMode;
use crate::diagnostic::Source;
use crate::dockerfile::Dockerfile;
use crate::executor::Limits;
use crate::git::{Address, AddressError, Wanted};
use crate::graph;
use crate::lock::lock;
use crate::oci::{Descriptor, ImageId, Platform, Reference};
use crate::pins::Pins;
use crate::remote::{CacheDestination, CacheSource};
use crate::ssh::SshSource;

/// One build.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are options, each on its own")]
pub struct BuildRequest {
    /// The Dockerfile, read by the caller; its name is shown in errors.
    pub dockerfile: Source,
    /// The build context.
    pub context: ContextSource,
    /// Files of `--build-context`, by name. Names of images are in [`graph::Options::contexts`].
    pub named_contexts: BTreeMap<String, ContextSource>,
    /// Which rights of files in contexts that are directories count.
    pub context_mode: ContextMode,
    /// Everything that decides what the graph looks like. With [`BuildRequest::platforms`] its platform does not count.
    pub options: graph::Options,
    /// Platforms of the result, each once; empty is the one of the options.
    pub platforms: Vec<Platform>,
    /// Whether the result is an index: `BUILDKIT_MULTI_PLATFORM`. Unset it is one for several platforms.
    pub multi_platform: Option<bool>,
    /// When registries are asked although the store knows the image.
    pub pull: PullPolicy,
    /// What names of sources stand for (`rbuild.lock`), and what is done about others.
    pub pins: Arc<Pins>,
    /// `--omit-history`: the image says nothing of how it was made.
    pub omit_history: bool,
    /// Values of `--secret`, by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Limits of each RUN; they never decide whether it runs.
    pub limits: Limits,
    /// What else each RUN gets.
    pub run: RunOptions,
    /// Names of the result.
    pub tags: Vec<Reference>,
    /// Where the result goes; empty keeps it in the build cache only.
    pub outputs: Vec<crate::export::Output>,
    /// Caches elsewhere that are asked, in order, for what the store does not know.
    pub cache_from: Vec<CacheSource>,
    /// Where the cache goes after the build.
    pub cache_to: Vec<CacheDestination>,
    /// Images carry what is known of their own steps (`--cache-to type=inline`).
    pub inline_cache: bool,
    /// How long known results of commands count.
    pub cache_ttl: CacheTtl,
    /// Secrets whose values decide whether a step runs, by id.
    pub hashed_secrets: BTreeSet<String>,
    /// By the id of a secret, a word that is part of the key of each step that mounts it.
    pub secret_epochs: BTreeMap<String, String>,
    /// The most bytes on disk that cache mounts keep when a step ends that used them, by id.
    pub mount_sizes: BTreeMap<String, u64>,
    /// Ids of cache mounts that steps are thought to have; that none has them is a warning.
    pub expected_mounts: BTreeSet<String>,
    /// Percentage of the known results that are made again, to compare them.
    pub verify_cache: Option<u8>,
    /// Whether commands are traced, to say which copied files they look at.
    pub trace_reads: bool,
    /// Whether commands whose keys have no result are looked up by what they read, and their reads recorded.
    pub cache_reads: bool,
    /// Most steps at the same time; the number of processors if unset.
    pub jobs: Option<usize>,
    /// Text of the host's `resolv.conf`, for steps; the library does not look for it.
    pub resolv_conf: Option<Vec<u8>>,
}

impl BuildRequest {
    /// A build for this machine's platform with every default, that keeps its result in the build cache only.
    pub fn new(dockerfile: Source, context: ContextSource) -> Self {
        Self {
            dockerfile,
            context,
            named_contexts: BTreeMap::new(),
            context_mode: ContextMode::default(),
            options: graph::Options::new(Platform::host()),
            platforms: Vec::new(),
            multi_platform: None,
            pull: PullPolicy::default(),
            pins: Arc::default(),
            omit_history: false,
            secrets: BTreeMap::new(),
            limits: Limits::default(),
            run: RunOptions::default(),
            tags: Vec::new(),
            outputs: Vec::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            inline_cache: false,
            cache_ttl: CacheTtl::default(),
            hashed_secrets: BTreeSet::new(),
            secret_epochs: BTreeMap::new(),
            mount_sizes: BTreeMap::new(),
            expected_mounts: BTreeSet::new(),
            verify_cache: None,
            trace_reads: false,
            cache_reads: false,
            jobs: None,
            resolv_conf: None,
        }
    }

    /// Whether the result is an index of images, even if it is one of a single platform.
    pub fn is_multi_platform(&self) -> bool {
        self.multi_platform.unwrap_or(self.platforms.len() > 1)
    }

    /// Warns of secrets that may change although the result of their step counts.
    pub(super) fn check_secrets(&self, graph: &mut graph::Graph, parsed: &Dockerfile) {
        graph.check_secrets(parsed, &|vertex, id| {
            let keyed = self.hashed_secrets.contains(id) || self.secret_epochs.contains_key(id);
            !keyed && self.cache_ttl.of(&vertex.stage).is_none()
        });
    }

    /// Whether images carry a cache: it was asked for here, or with the build argument `BUILDKIT_INLINE_CACHE`.
    pub(super) fn wants_inline_cache(&self) -> bool {
        self.inline_cache || self.options.build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| is_true(value))
    }

    /// The options for each platform.
    pub(super) fn options_by_platform(&self) -> Vec<graph::Options> {
        let name_platform = self.is_multi_platform();
        let options = graph::Options { name_platform, ..self.options.clone() };
        if self.platforms.is_empty() {
            return vec![options];
        }
        let of = |platform: &Platform| graph::Options {
            platform: platform.clone(),
            explicit_platform: true,
            ..options.clone()
        };
        self.platforms.iter().map(of).collect()
    }
}

/// How long the result of a command counts after it ran; forever if unset (`--cache-ttl`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheTtl {
    /// In stages that are not named.
    pub all: Option<Duration>,
    /// By the name of a stage in small letters, or its number where it has no name.
    pub stages: BTreeMap<String, Duration>,
}

impl CacheTtl {
    /// In a stage.
    pub fn of(&self, stage: &str) -> Option<Duration> {
        self.stages.get(&stage.to_ascii_lowercase()).copied().or(self.all)
    }
}

/// Where the build context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory, read in place.
    Directory {
        /// Its absolute path.
        path: PathBuf,
        /// The ignore files to try, in order; the first that exists counts.
        ignore_files: Vec<PathBuf>,
    },
    /// Somewhere else; fetched when the target needs it.
    Remote(RemoteContext),
    /// What [`Engine::fetch_context`](super::Engine::fetch_context) or
    /// [`Engine::unpack_context`](super::Engine::unpack_context) brought.
    Fetched(FetchedContext),
    /// No files at all: a Dockerfile on standard input.
    Empty,
}

/// A context that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteContext {
    /// `http://` or `https://`: a tar archive, compressed or not, or one file.
    Url(String),
    /// A git repository.
    Git(Box<Wanted>),
}

impl std::fmt::Display for RemoteContext {
    /// The address without user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(address) => f.write_str(&redacted(address)),
            Self::Git(wanted) => wanted.address.fmt(f),
        }
    }
}

impl RemoteContext {
    /// Recognises an address, as BuildKit does; `None` for anything else, such as the path of a directory.
    ///
    /// # Errors
    /// If it is plainly the address of a git repository, but not a valid one.
    pub fn parse(text: &str) -> Result<Option<Self>, AddressError> {
        if let Some(address) = Address::parse(text).transpose()? {
            return Ok(Some(Self::Git(Box::new(Wanted::new(address)))));
        }
        let web = text.starts_with("http://") || text.starts_with("https://");
        Ok(web.then(|| Self::Url(text.to_owned())))
    }

    /// Says what the build arguments say about the main context: `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
    pub fn apply(&mut self, build_args: &BTreeMap<String, String>) {
        let value = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        if let (Self::Git(wanted), true) = (self, value.is_some_and(|value| is_true(value))) {
            wanted.keep_git_dir = true;
        }
    }
}

/// What is not a truth value counts as not given, as in BuildKit.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// `--pull`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Use what the store knows, else ask.
    #[default]
    Missing,
    /// Always ask what a tag means now.
    Always,
    /// Always ask; if there is no answer, use what the store knows.
    Newer,
    /// Never ask.
    Never,
}

/// Where a secret's value is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read when a step needs it.
    File(PathBuf),
    /// The value itself.
    Value(Vec<u8>),
}

/// The largest secret that is read, in bytes; that of BuildKit.
const MAX_SECRET: u64 = 500 << 10;

impl SecretSource {
    /// The value.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let path = match self {
            Self::Value(value) => return Ok(value.clone()),
            Self::File(path) => path,
        };
        let mut value = Vec::new();
        File::open(path)?.take(MAX_SECRET + 1).read_to_end(&mut value)?;
        if value.len() as u64 > MAX_SECRET {
            return Err(io::Error::other("it is larger than 500 KiB"));
        }
        Ok(value)
    }
}

/// The values of secrets that were read: no file is read twice, as some can be only once (`<(pass show token)`).
#[derive(Default)]
pub(super) struct SecretValues(Mutex<BTreeMap<String, Vec<u8>>>);

impl SecretValues {
    /// The value of a secret.
    pub(super) fn value(&self, id: &str, source: &SecretSource) -> io::Result<Vec<u8>> {
        let mut known = lock(&self.0);
        if let Some(value) = known.get(id) {
            return Ok(value.clone());
        }
        let value = source.read()?;
        known.insert(id.to_owned(), value.clone());
        Ok(value)
    }
}

impl std::fmt::Debug for SecretValues {
    /// Never shows a value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValues(..)")
    }
}

impl std::fmt::Debug for SecretSource {
    /// Never shows the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(..)"),
        }
    }
}

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct BuildResult {
    /// Id of the image (digest of its config), where an output needed an image.
    pub image_id: Option<ImageId>,
    /// The manifest, where an output made one.
    pub manifest: Option<Descriptor>,
    /// All names that were given.
    pub names: Vec<Reference>,
    /// What docker writes for `--metadata-file` about the image.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Steps of the graph that were looked at.
    pub steps: usize,
    /// Steps whose result was known.
    pub cached: usize,
    /// What making known results again came to.
    pub verified: Vec<crate::history::Verified>,
    /// Its record in the [history](super::Engine::history), for [`Engine::explain`]; unset if it could not be written.
    ///
    /// [`Engine::explain`]: super::Engine::explain
    pub build: Option<crate::history::BuildId>,
}

/// What a source that is elsewhere is fetched with.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions<'a> {
    /// Values of `--secret`, by id.
    pub secrets: &'a BTreeMap<String, SecretSource>,
    /// `--ssh default`; without it the agent of the caller serves.
    pub ssh: Option<&'a SshSource>,
    /// Whether a server is asked what the reference of a repository means now; without it, what it meant last counts.
    pub pull: PullPolicy,
    /// What names of sources stand for.
    pub pins: &'a Pins,
}
