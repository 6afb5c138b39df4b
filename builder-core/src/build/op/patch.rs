//! [`Patching`]: the plan of a copy of a whole directory, made from that of an earlier one that differs in little.
//!
//! ```text
//! Outline of now ─┬─ read_changes ─▶ what differs ─ copy::plan ─▶ a small tree ─┐
//! Base: outline ──┘                                                              ├─ Tree::patched ─▶ the tree
//!       tree id ─────────────────────────────────── the tree of then ────────────┘
//! ```
//!
//! The result is the same to the last byte as if everything had been planned: where an entry lands, and as what, is decided
//! by itself and by what is below, which is the same. Only directories above the destination are decided by all of them
//! together, and they are in the small tree, too. Debug builds plan everything and compare.

use std::collections::HashSet;
use std::sync::Arc;

use super::copy::{self, Attributes, CopyPlan, CopySource, PlannedFiles};
use super::transfer::{Places, Planned};
use super::unchanged::Seen;
use crate::build::error::StepError;
use crate::build::solve::Job;
use crate::context::{Base, Changes, Outline};
use crate::graph::CopyOp;
use crate::rootfs::RootPath;
use crate::tree::{Stack, Tree, TreeId};

/// Entries below which it is as quick to plan all.
const WORTH: usize = if cfg!(debug_assertions) { 1 } else { 64 };

/// An earlier tree stays the one that others are made from as long as at most one entry in so many has to be looked at. The
/// files that the store keeps of it are then those that others are derived from, too, and it is read once.
const MAX_SHARE: usize = 16;

/// A copy of one whole directory.
pub(super) struct Patching<'a> {
    job: &'a Job<'a>,
    op: &'a CopyOp,
    seen: &'a Seen,
    /// Digest of all that decides what becomes of the directory, but for what is in it.
    making: [u8; 32],
    now: Outline,
    /// The base that is known is as good as a new one.
    base_is_near: bool,
}

impl<'a> Patching<'a> {
    /// `None` if the copy is of something else, or of little. Who verifies wants everything to be planned.
    pub(super) fn of(
        job: &'a Job<'a>,
        op: &'a CopyOp,
        seen: &'a Seen,
        below: &Stack,
        attributes: Attributes,
    ) -> Option<Self> {
        let [survey] = seen.surveys.as_slice() else { return None };
        if op.parents || survey.count() < WORTH || job.session.request.verify_cache.is_some() {
            return None;
        }
        let now = survey.outline()?;
        Some(Self { job, op, seen, making: seen.making(op, below, attributes), now, base_is_near: false })
    }

    /// The plan; `None` if nothing is known that it could be made from.
    pub(super) fn plan(&mut self, below: &Stack, attributes: Attributes) -> Result<Option<Planned>, StepError> {
        let context = &self.seen.context;
        let survey = &self.seen.surveys[0];
        let Some(base) = context.base(&self.making) else { return Ok(None) };
        // Both take their time to read what the store has.
        let (earlier, changes) = std::thread::scope(|scope| {
            let earlier = scope.spawn(|| self.job.session.engine.trees.get(&base.tree));
            let changes = context.read_changes(survey, &base.outline, &self.now);
            (earlier.join().expect("it does not panic"), changes)
        });
        let (Some(earlier), Some(changes)) = (earlier?, changes?) else { return Ok(None) };
        let Changes { found, renewed, settled } = changes;
        let (count, root) = (found.entries.len(), found.root.clone());
        let small = copy::plan(self.op, vec![CopySource::Context(vec![found])], below, attributes)?;
        let [landing] = small.landings.as_slice() else { return Ok(None) };
        let landing = landing.clone();
        let Some(tree) = patched(&small, &root, &landing.to, &renewed, &earlier) else { return Ok(None) };
        let plan = CopyPlan { tree, files: PlannedFiles::Moved(landing), ..small };
        if cfg!(debug_assertions) {
            self.compare(&plan, settled, below, attributes)?;
        }
        self.base_is_near = count <= survey.count() / MAX_SHARE;
        let places = Places::of_context(Arc::clone(context));
        Ok(Some(Planned { plan, places, settled }))
    }

    /// Remembers the tree that was made.
    pub(super) fn remember(self, tree: TreeId) {
        if self.base_is_near {
            return;
        }
        self.seen.context.remember_base(self.making, Base { outline: self.now, tree });
    }

    /// Plans everything, and panics if that comes to something else.
    fn compare(&self, plan: &CopyPlan, settled: bool, below: &Stack, attributes: Attributes) -> Result<(), StepError> {
        let reading = self.seen.context.read(&self.seen.surveys[0])?;
        let both_settled = settled && reading.settled;
        let whole = copy::plan(self.op, vec![CopySource::Context(reading.matches)], below, attributes)?;
        let differences = || crate::tree::differences(&whole.tree, &plan.tree, 10);
        assert!(!both_settled || whole.tree == plan.tree, "a patched tree differs: {:#?}", differences());
        for entry in whole.tree.iter() {
            assert!(
                !both_settled || whole.files.get(&entry) == plan.files.get(&entry),
                "`{}` is elsewhere",
                entry.path
            );
        }
        Ok(())
    }
}

/// The earlier tree with what is new; `None` if nothing new landed, or there are hard links.
fn patched(
    small: &CopyPlan,
    root: &RootPath,
    to: &RootPath,
    renewed: &HashSet<RootPath>,
    earlier: &Tree,
) -> Option<Tree> {
    // Otherwise nothing says what the directories above are like.
    let lands = |path: &RootPath| path != to && path.starts_with(to);
    if !small.tree.iter().any(|entry| lands(&entry.path)) {
        return None;
    }
    let renewed: Vec<RootPath> = renewed.iter().filter_map(|path| path.moved(root, to)).collect();
    earlier.patched(&renewed, &small.tree)
}
