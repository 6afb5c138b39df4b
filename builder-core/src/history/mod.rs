//! What was built: a [`Build`] for each build that was tried, with every step, why it ran, and everything that it wrote.
//!
//! ```text
//! HistoryStore ── start ──▶ Journal ── write(Line)… ──▶ STATE/history/builds/ID     one line an event, each with a checksum
//!                              └────── log(step) ─────▶ STATE/history/logs/ID/STEP  what the step wrote, zstd
//! HistoryStore ── get, list, log ──▶ Build, BuildSummary, LogEntry
//! ```
//!
//! An id begins with the time at which the build began (or that of the newest one, if the clock says that it is earlier), so
//! names of files sort by order and nothing else has to be kept:
//! recording a build is one file, written without a sync. What a crash cuts off is dropped when it is read, and a build
//! without an end counts as interrupted, or as running while its journal is locked.
//!
//! Values of secrets are nowhere: not in the inputs, and masked in what steps wrote. Proxies of the caller are left out.

mod log;
mod mask;
mod reads;
mod record;
mod store;

pub use log::{LogEntry, LogReader, LogWriter};
pub use mask::Mask;
pub use reads::{ByReads, CopyReads, Lookup, Origin, READS_VERSION, Reads, Used};
pub(crate) use record::platform_in;
pub use record::{
    Build, BuildId, BuildSummary, Elsewhere, End, Inputs, Line, LogSize, Miss, ParseBuildIdError, Status, Step,
    Verdict, Verified, VerifiedAs, is_proxy, without_credentials,
};
pub use store::{HistoryError, HistoryStore, Journal, Retention};
