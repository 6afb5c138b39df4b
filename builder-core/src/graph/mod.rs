//! From a parsed Dockerfile to a [`Graph`] of vertices: stages pruned, variables expanded, config effects folded in.
//!
//! ```text
//! Dockerfile + Options ── plan ──▶ Plan { stages that the target needs, images still unknown }
//!                          ▲                              │
//!                          └── Images ◀── caller resolves ┘          until nothing is unknown
//! Dockerfile + Options + Images ── lower ──▶ Graph { vertices in an order that respects their inputs, Target }
//! ```
//!
//! Several platforms are lowered one by one and then joined: what is the same for them is one vertex.
//!
//! Pure: no file, no network, no process. A tag ends in `Images`; after `lower` the graph never changes.

mod checks;
mod copy;
mod dump;
mod env;
mod epoch;
mod error;
mod globals;
mod instruct;
mod join;
mod lower;
mod names;
mod op;
mod options;
mod outline;
mod plan;
mod run;
mod shell_line;
mod stages;
mod state;
#[cfg(test)]
mod tests;

pub use dump::{to_dot, to_json};
pub use env::Env;
pub use epoch::{EpochSource, ResolvedEpoch, epoch_source};
pub use error::{GraphError, GraphErrorKind, GraphErrors};
pub use lower::lower;
pub use op::{
    AddSource, CacheMount, ContextId, CopyOp, DeviceOp, Files, ImageOp, MountOp, MountTarget, Op, RunOp, Script,
    SecretMount, SshMount, WorkdirOp,
};
pub use options::{ConfigEdits, ImageRequest, Images, KnownImage, NamedContext, NoCache, Options};
pub use outline::{Outline, OutlineArg, OutlineCache, OutlineSecret, StageEntry, targets};
pub use plan::{ImageUse, Plan, PlannedStage, plan};

use std::time::Duration;

use crate::diagnostic::Location;
use crate::dockerfile::lint::{self, LintWarning};
use crate::oci::{HistoryEntry, ImageConfig};

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
    /// The same for further platforms, in the order in which they were [joined](Graph::join).
    pub further_targets: Vec<Target>,
    /// What is doubtful, already filtered by `# check=`; each with the text it points into.
    pub warnings: Vec<(LintWarning, Location)>,
    /// What the file, or the build argument that replaces it, says of the checks: see [`Graph::violations`].
    pub check: lint::Options,
    /// Build arguments that no `ARG` of the file names; sorted.
    pub unused_build_args: Vec<String>,
    /// The time that everything new gets, in seconds since 1970, from the build argument `SOURCE_DATE_EPOCH`, the
    /// option, or the default of a global `ARG`.
    pub source_date_epoch: Option<i64>,
    /// What the target can be told.
    pub outline: Outline,
}

impl Graph {
    /// What was asked for, one for each platform.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.target).chain(&self.further_targets)
    }
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
    /// How long its result counts after it ran, as the comment above it says (`# cache=12h`).
    pub time_to_live: Option<Duration>,
    /// Where its key has no result it is looked up by what it reads, as the comment above it says (`# cache=reads`).
    pub cache_reads: bool,
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
    /// The entry, without a time. `empty_layer` is set where there is no vertex.
    pub entry: HistoryEntry,
    /// The vertex, if the instruction has one.
    pub vertex: Option<VertexId>,
}
