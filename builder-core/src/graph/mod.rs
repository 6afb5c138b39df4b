//! From a parsed Dockerfile to a [`Graph`] of vertices: stages pruned, variables expanded, config effects folded in.
//!
//! ```text
//! Dockerfile + Options ── plan ──▶ Plan { stages that the target needs, images still unknown }
//!                          ▲                              │
//!                          └── Images ◀── caller resolves ┘          until nothing is unknown
//! Dockerfile + Options + Images ── lower ──▶ Graph { vertices in an order that respects their inputs, Target }
//! ```
//!
//! Pure: no file, no network, no process. A tag ends in `Images`; after `lower` the graph never changes.

mod op;

pub use op::{
    AddSource, CacheMount, ContextId, CopyOp, Files, ImageOp, MountOp, MountTarget, Op, RunOp, Script, SecretMount,
    SshMount, WorkdirOp,
};

use std::collections::BTreeMap;

use crate::diagnostic::Location;
use crate::dockerfile::LintWarning;
use crate::oci::{HistoryEntry, ImageConfig, Platform, Reference};

/// Number of a vertex in its graph; inputs of a vertex have smaller numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct VertexId(pub usize);

/// Everything that has to happen for one target.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The vertices; an input always comes before its user.
    pub vertices: Vec<Vertex>,
    /// What was asked for.
    pub target: Target,
    /// What is doubtful, already filtered by `# check=`; each with the text it points into.
    pub warnings: Vec<(LintWarning, Location)>,
}

/// One step: makes a root filesystem from another by adding at most one layer.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// The root filesystem that it starts from; `None` is the empty one (`FROM scratch`).
    pub root: Option<VertexId>,
    /// What to show: `[build 2/4] RUN make`.
    pub name: String,
    /// The stage that it belongs to: its name, or its number.
    pub stage: String,
    /// Where it is written; `None` for what nobody wrote.
    pub location: Option<Location>,
    /// For an ONBUILD trigger, the `FROM` that brought it.
    pub origin: Option<Location>,
    /// Run it even if its result is known (`--no-cache`, `--no-cache-filter`).
    pub no_cache: bool,
}

/// The image that a graph ends in.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The vertex whose root filesystem it has; `None` is an image without layers.
    pub root: Option<VertexId>,
    /// Its config, complete but for `created`, `rootfs` and `history`.
    pub config: ImageConfig,
    /// History of the base image, as it was.
    pub base_history: Vec<HistoryEntry>,
    /// One entry an instruction since the base, in order. Entries of vertices that make a layer name them; `created`
    /// is not set yet.
    pub history: Vec<Step>,
}

/// An entry of the history with the vertex that makes its layer.
#[derive(Debug, Clone)]
pub struct Step {
    /// The entry; `empty_layer` is set by whoever assembles the image.
    pub entry: HistoryEntry,
    /// The vertex, if the instruction has one.
    pub vertex: Option<VertexId>,
}

/// What the user asked for, as far as the graph depends on it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--target`: name or number of a stage; the last one if unset.
    pub target: Option<String>,
    /// Platform of the image.
    pub platform: Platform,
    /// Platform that steps run on (`BUILDPLATFORM`).
    pub build_platform: Platform,
    /// `--build-arg`, proxies of the caller's environment included as they were given.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, applied last.
    pub labels: BTreeMap<String, String>,
    /// Names of `--build-context`, each with what it stands for.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--network`: what `RUN --network=default` means.
    pub network: crate::dockerfile::Network,
    /// `--add-host`, in order; names are part of a step's key, addresses are not.
    pub add_hosts: Vec<(String, String)>,
    /// `--hostname` or `BUILDKIT_SANDBOX_HOSTNAME`.
    pub hostname: Option<String>,
    /// `SOURCE_DATE_EPOCH` in seconds since 1970.
    pub source_date_epoch: Option<i64>,
}

/// What a named context stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory that the caller opened.
    Directory,
    /// `docker-image://`
    Image(Reference),
}

/// Which stages ignore known results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// Every stage.
    Always,
    /// Stages with these names (lower case).
    Stages(Vec<String>),
}

/// An image that the graph needs to know before it can be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Its name.
    pub reference: Reference,
    /// The platform that is wanted.
    pub platform: Platform,
}

/// What is known of an image: where its tag ended, and its config.
#[derive(Debug, Clone)]
pub struct KnownImage {
    /// The config, with layers and history.
    pub config: ImageConfig,
    /// What identifies it: a manifest digest or, for an image of the local store, its id.
    pub digest: crate::oci::Digest,
}

/// The images that are known so far.
pub type Images = BTreeMap<ImageRequest, KnownImage>;
