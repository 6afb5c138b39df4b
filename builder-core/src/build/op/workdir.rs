//! WORKDIR: makes a directory and those above it, owned by the current user.

use std::sync::Arc;

use crate::build::error::StepError;
use crate::build::filesystem::{NoFiles, Source, Work};
use crate::build::op::copy::inherit;
use crate::build::op::run::accounts_for_key;
use crate::build::solve::{Job, Solved};
use crate::cache::Preimage;
use crate::graph::WorkdirOp;
use crate::rootfs::{RootPath, UserSpec};
use crate::tree::{Entry, Node, Stack, Time, Tree, TreeBuilder};

pub(crate) fn solve(job: &Job<'_>, op: &WorkdirOp, work: Work) -> Result<Option<Solved>, StepError> {
    let session = job.session;
    let Some(stack) = job.root.stack(session, work)? else { return Ok(None) };
    let spec = UserSpec::parse(if op.user.is_empty() { "0" } else { &op.user })?;
    let owner = accounts_for_key(session, &job.root, &stack)?.run_as(&spec)?;
    let owned = !op.user.is_empty();
    let tree = plan(&stack, &op.path, (owner.uid, owner.gid, owned), Time::from_seconds(session.now))?;

    let mut preimage = Preimage::new("workdir");
    preimage.add("path", &op.path);
    preimage.add("owner", format_args!("{}:{}", owner.uid, owner.gid));
    preimage.add("result", tree.semantic());
    if let Some(known) = job.lookup(&preimage)? {
        return Ok(Some(Solved::layer(job, known, Source::Files(Arc::new(NoFiles)), true)));
    }
    let made = job.remember(preimage, &Stack::default().state(), tree, 0)?;
    Ok(Some(Solved::layer(job, made, Source::Files(Arc::new(NoFiles)), false)))
}

/// The layer: missing directories, and the existing ones above them (overlayfs shows the metadata of the topmost).
fn plan(stack: &Stack, path: &RootPath, (uid, gid, owned): (u32, u32, bool), now: Time) -> Result<Tree, StepError> {
    let resolved = stack.resolve(path, true)?;
    let mut builder = TreeBuilder::new();
    let mut above = Vec::new();
    let mut parent = stack.lookup(&RootPath::root()).map(|found| found.entry);
    let mut made = false;
    for directory in resolved.ancestors().skip(1).chain([resolved.clone()]) {
        match stack.lookup(&directory) {
            Some(found) if found.entry.node.is_directory() => {
                parent = Some(found.entry.clone());
                above.push(Entry { node: Node::Directory { opaque: false }, ..found.entry });
            }
            Some(_) => return Err(StepError::Workdir { path: path.clone(), blocker: directory }),
            None => {
                made = true;
                let entry = Entry::directory(directory, 0o755, uid, gid, now);
                let entry = inherit(parent.as_ref(), owned, entry);
                parent = Some(entry.clone());
                builder.push(entry);
            }
        }
    }
    if made {
        // A directory is made in it.
        if let Some(last) = above.last_mut() {
            last.mtime = now;
        }
        for entry in above {
            builder.push(entry);
        }
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RootPath {
        RootPath::clean(text).expect("clean")
    }

    fn stack() -> Stack {
        let mut builder = TreeBuilder::new();
        builder.push(Entry::directory(path("/srv"), 0o2750, 7, 8, Time::from_seconds(1)));
        let link = Node::Symlink { target: b"/srv".to_vec() };
        builder.push(Entry { node: link, ..Entry::directory(path("/link"), 0o777, 0, 0, Time::default()) });
        builder.push(Entry { node: Node::Fifo, ..Entry::directory(path("/pipe"), 0o600, 0, 0, Time::default()) });
        Stack::new(vec![builder.finish()])
    }

    fn planned(directory: &str) -> Result<Vec<String>, StepError> {
        let tree = plan(&stack(), &path(directory), (5, 6, true), Time::from_seconds(9))?;
        Ok(tree.iter().map(|e| format!("{} {:o} {}:{}", e.path, e.mode, e.uid, e.gid)).collect())
    }

    #[test]
    fn missing_directories_are_made_and_existing_ones_keep_what_they_have() {
        assert_eq!(planned("/srv").expect("fine"), [""; 0]);
        assert_eq!(planned("/srv/a/b").expect("fine"), ["/srv 2750 7:8", "/srv/a 2755 5:6", "/srv/a/b 2755 5:6"]);
        assert_eq!(planned("/link/a").expect("fine"), ["/srv 2750 7:8", "/srv/a 2755 5:6"]);
        assert!(matches!(planned("/pipe"), Err(StepError::Workdir { .. })));
        assert!(matches!(planned("/pipe/x"), Err(StepError::Resolve(_))));
    }
}
