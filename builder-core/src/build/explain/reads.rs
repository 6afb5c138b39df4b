//! What commands looked at of the files that were copied before them, and what would be enough to copy.

use serde::Serialize;

use super::Past;
use super::matching::chain;
use super::proposal::{Proposal, propose};
use crate::history::{Build, BuildId, CopyReads, Reads, Step, Verdict};

/// What a command looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReads {
    /// Why it is not known, or not all of it, if so.
    pub unknown: Option<String>,
    /// The earlier build in which it was traced; `None` for this one.
    pub traced_in: Option<BuildId>,
    /// The copies of files of a context that are before it.
    pub copies: Vec<ReadCopy>,
}

/// What a command looked at of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadCopy {
    /// The number of the step that copied, from 1.
    pub step: usize,
    /// Files and links of it that the command sees.
    pub files: usize,
    /// Of these it looked at so many.
    pub read: usize,
    /// What would be enough to copy.
    #[serde(flatten)]
    pub proposal: Proposal,
}

impl Past<'_> {
    /// What a step looked at; `None` for one that is no command, and in builds that were not traced.
    pub(super) fn reads(&self, build: &Build, step: &Step) -> Option<StepReads> {
        let asked = build.inputs.trace_reads && matches!(step.verdict, Verdict::Hit | Verdict::Run | Verdict::Adopted);
        if step.op != "run" || !asked {
            return None;
        }
        let Some((reads, traced_in)) = self.traced(step) else {
            let stage = &step.stage;
            let unknown = format!("not traced: its result was known; `--no-cache-filter {stage}` traces it");
            return Some(StepReads { unknown: Some(unknown), traced_in: None, copies: Vec::new() });
        };
        let before = chain(build, step);
        let copies = reads.copies.iter().filter_map(|copy| {
            let at = before.iter().rposition(|step| step.result == Some(copy.result))?;
            let proposal = match &reads.gap {
                Some(reason) => Proposal::Unknown { why: format!("it may look at more: {reason}") },
                None => self.proposal(before[at], &before[at + 1..], copy),
            };
            Some(ReadCopy { step: before[at].number + 1, files: copy.files, read: copy.read, proposal })
        });
        Some(StepReads { unknown: reads.gap.clone(), traced_in: traced_in.cloned(), copies: copies.collect() })
    }

    /// The trace of a step: of this build, or of the newest earlier one in which it had the same key.
    fn traced<'a>(&'a self, step: &'a Step) -> Option<(&'a Reads, Option<&'a BuildId>)> {
        if let Some(reads) = &step.reads {
            return Some((reads, None));
        }
        let key = step.key.as_ref()?;
        self.builds.iter().find_map(|build| {
            let found = build.steps.iter().find(|other| other.key.as_ref() == Some(key) && other.reads.is_some())?;
            Some((found.reads.as_ref()?, Some(&build.id)))
        })
    }

    /// What a step and the commands `between` need of a copy, together.
    fn proposal(&self, copied: &Step, between: &[&Step], copy: &CopyReads) -> Proposal {
        let unknown = |why: String| Proposal::Unknown { why };
        let mut used = copy.used.clone();
        for other in between.iter().filter(|other| other.op == "run") {
            let number = other.number + 1;
            let Some((reads, _)) = self.traced(other) else {
                return unknown(format!("step {number}, which is between them, was not traced"));
            };
            if let Some(gap) = &reads.gap {
                return unknown(format!("step {number}, which is between them, may look at more: {gap}"));
            }
            for (path, seen) in reads.copies.iter().filter(|it| it.result == copy.result).flat_map(|it| &it.used) {
                let most = used.get(path).map_or(*seen, |known| (*known).max(*seen));
                used.insert(path.clone(), most);
            }
        }
        let Some(origin) = &copy.origin else {
            return unknown("where the copied files are from is not plain".to_owned());
        };
        let tree = copied.tree.and_then(|id| self.engine.trees.get(&id).ok()?);
        let Some(tree) = tree else { return unknown("what was copied is not known any more".to_owned()) };
        propose(&tree, &used, origin)
    }
}
