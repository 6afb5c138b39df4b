//! Which files the processes of a sandbox look at.
//!
//! ```text
//!  child ── second filter: calls that name a file wait ──► listener thread: path, descriptor, working directory
//!                                                              │ resolved in the root as the kernel does, links too
//!  call goes on unchanged ◄── proceed ─────────────────────────┴──► Trace: path → what was done with it
//! ```
//!
//! The filter of the sandbox stays what it is: this one is beside it, changes no call, and allows none (of what several filters
//! say the kernel takes the strictest). Nothing is done on behalf of the process but to look, with `O_PATH`, in its own root.
//!
//! A call is looked at before it is made, so whether a path exists is said for that moment. What a call does that was not
//! looked at is not known: then the trace has a [gap](Traced::gap), and what it says is only a part. Programs that change
//! their memory while a call waits, to mislead, can do that. Whatever they hide then, what they are made of was read before,
//! by programs that hide nothing, and is in the trace: another build has it only with the same programs.

mod calls;
mod listener;
mod program;
mod resolve;

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::lock::lock;
use crate::rootfs::RootPath;

pub(super) use calls::filter;
pub(super) use listener::{Beginning, beside, hand_over};

/// What was done with a path; of several things the last in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathUse {
    /// It was looked for, and was not there.
    Missing,
    /// It was opened, executed, changed, or asked about; or it is a link on the way to something else. Of a directory: it
    /// has to be there.
    Touched,
    /// It was asked what it is; of a directory that says how many names are in it, about.
    Measured,
    /// The names in the directory were read.
    Listed,
    /// It was renamed, with all that is below it.
    Moved,
}

/// Collects what a process and its children look at.
#[derive(Debug, Default)]
pub struct Trace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    attached: bool,
    paths: BTreeMap<RootPath, PathUse>,
    /// Of all paths.
    bytes: usize,
    gap: Option<String>,
    doubt: Option<String>,
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Paths in the root, links followed, each with what was done with it. Those of `/proc` and `/sys` are left out.
    pub paths: BTreeMap<RootPath, PathUse>,
    /// Why there may be more, if so.
    pub gap: Option<String>,
    /// Why a result must not be taken for another one with the same state of these paths, although as far as can be seen there
    /// are no more.
    pub doubt: Option<String>,
}

/// Most bytes of paths that are kept.
const MAX_BYTES: usize = 32 << 20;

/// What an entry takes besides its path, about.
const ENTRY: usize = 64;

impl Trace {
    /// What was seen so far.
    pub fn take(&self) -> Traced {
        let state = std::mem::take(&mut *lock(&self.state));
        let gap = if state.attached { state.gap } else { state.gap.or_else(|| Some("it was not traced".to_owned())) };
        Traced { paths: state.paths, gap, doubt: state.doubt }
    }

    fn attach(&self) {
        lock(&self.state).attached = true;
    }

    /// The first reason is kept.
    pub(super) fn gap(&self, reason: impl Into<String>) {
        lock(&self.state).gap.get_or_insert_with(|| reason.into());
    }

    /// The first reason is kept.
    fn doubt(&self, reason: impl Into<String>) {
        lock(&self.state).doubt.get_or_insert_with(|| reason.into());
    }

    fn note(&self, path: RootPath, seen: PathUse) {
        let mut state = lock(&self.state);
        if let Some(before) = state.paths.get_mut(&path) {
            *before = seen.max(*before);
            return;
        }
        let bytes = state.bytes + path.as_bytes().len() + ENTRY;
        if bytes > MAX_BYTES {
            state.gap.get_or_insert_with(|| "it looks at too many files".to_owned());
            return;
        }
        state.bytes = bytes;
        state.paths.insert(path, seen);
    }
}

#[cfg(test)]
mod sandbox_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_counts_most_is_kept() {
        let trace = Trace::default();
        let path = |text: &str| RootPath::clean(text).expect("a path");
        trace.attach();
        trace.note(path("a"), PathUse::Listed);
        trace.note(path("a"), PathUse::Touched);
        for number in 0..(MAX_BYTES / ENTRY) {
            trace.note(path(&number.to_string()), PathUse::Missing);
        }
        let traced = trace.take();
        assert_eq!(traced.paths[&path("a")], PathUse::Listed);
        assert!(traced.paths.len() * ENTRY < MAX_BYTES);
        assert_eq!(traced.gap.as_deref(), Some("it looks at too many files"));
        assert_eq!(trace.take().gap.as_deref(), Some("it was not traced"), "nothing is left");
    }
}
