//! Drives everything: [`Engine::build`].
//!
//! The path of a build, each step one module:
//!
//! 1. [`dockerfile::parse`](crate::dockerfile::parse): text → `Dockerfile`; all errors, not the first.
//! 2. [`graph::plan`](crate::graph::plan): the stages that the target needs, and the images that they name.
//! 3. `base`: what each name of an image means now; tags end here.
//! 4. [`graph::lower`](crate::graph::lower): the `Graph`; it never changes from here on.
//! 5. `solve`: every vertex gets its root filesystem, from the cache or by `op`, as many at once as there are
//!    processors. Keys are computed by [`cache::key`](crate::cache::key).
//! 6. [`image`](crate::image): base, layers and config → image.
//! 7. [`export`](crate::export): the image goes where it should.
//!
//! `inspect` stops after the graph (`--check`). `explain` says why steps ran, `forecast` what a build would do, `verify` runs known steps again.
//!
//! `sources` asks what a build takes from outside for (`rbuild.lock`).
//!
//! `by_hand` sends and brings caches without a build.
//!
//! `start` runs a command in an image with the same sandbox (`rbuild run`); `images` is what can be done with the
//! images of the store.

mod base;
mod by_hand;
mod cache_mounts;
mod clean;
mod contexts;
mod early_export;
mod engine;
mod epoch;
mod error;
mod events;
mod explain;
mod filesystem;
mod forecast;
mod git_files;
pub mod images;
mod inline_cache;
mod inspect;
mod layout;
mod mend;
mod misses;
pub mod op;
mod platforms;
mod probe;
mod recorder;
mod remote;
mod remote_cache;
mod request;
mod result;
mod run_options;
mod solve;
mod sources;
mod start;
mod verify;

pub use by_hand::{CacheExported, CacheImport, CacheImported, CacheSelection, CacheTransferError};
pub use clean::{CacheItem, CacheKind, Damage, DiskUsage, ItemFilter, Policy, PruneRequest, Pruned, Space, Verified};
pub use engine::{Engine, EngineOptions};
pub use error::{BuildError, StepError};
pub use explain::{
    Asked, Earlier, ExplainedStep, Explanation, LockChange, ParentChange, Proposal, ReadCopy, Reason, StepReads,
};
pub use forecast::{Forecast, ForecastStep, Prediction};
pub use inspect::{Inspection, UnknownBase};
pub use layout::LayoutError;
pub use platforms::PlatformsError;
pub use probe::{Answer, Place, PlaceCondition, Probe, ProbedStep};
pub use remote::{FetchedContext, RemoteError};
pub use request::{
    BuildRequest, BuildResult, CacheTtl, ContextSource, FetchOptions, PullPolicy, RemoteContext, SecretSource,
};
pub use run_options::{Entitlements, RunOptions, StepNetwork, UnknownEntitlement};
pub use start::StartRequest;
