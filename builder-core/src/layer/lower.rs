//! What a layer that was unpacked alone has to take from those below.

use std::collections::BTreeMap;
use std::io;

use super::materialise::copy;
use super::{LowerLink, PackError, UnpackError};
use crate::rootfs::RootPath;
use crate::snapshot::{Active, Snapshot, create_node, set_metadata, set_metadata_of};
use crate::tree::{Entry, Node, Stack, Time, Tree, TreeBuilder};

/// Gives directories that an archive had no entry for the metadata that they have in `lower`; those that are new stay
/// as they are. Returns the new tree.
///
/// # Errors
/// [`UnpackError::Write`] if the disk fails.
pub fn fix_implied(active: &Active, tree: &Tree, implied: &[RootPath], lower: &Stack) -> Result<Tree, UnpackError> {
    let mut fixed = Vec::new();
    for path in implied {
        let (Some(found), Some(mut entry)) = (lower.lookup(path), tree.get(path)) else { continue };
        if !found.entry.node.is_directory() {
            continue;
        }
        (entry.mode, entry.uid, entry.gid) = (found.entry.mode, found.entry.uid, found.entry.gid);
        (entry.mtime, entry.xattrs) = (found.entry.mtime, found.entry.xattrs);
        let place = || set_metadata_of(active.root().open_dir_exact(path)?, &entry);
        place().map_err(|source| UnpackError::Write { path: path.clone(), source })?;
        fixed.push(entry);
    }
    Ok(with(tree, fixed))
}

/// Gives `directories` the time `time`. Returns the new tree.
///
/// # Errors
/// [`UnpackError::Write`] if the disk fails.
pub fn stamp(active: &Active, tree: &Tree, directories: &[RootPath], time: Time) -> Result<Tree, UnpackError> {
    let mut stamped = Vec::new();
    for path in directories {
        let Some(mut entry) = tree.get(path) else { continue };
        entry.mtime = time;
        let place = || set_metadata_of(active.root().open_dir_exact(path)?, &entry);
        place().map_err(|source| UnpackError::Write { path: path.clone(), source })?;
        stamped.push(entry);
    }
    Ok(with(tree, stamped))
}

/// The tree with these entries, in place of those that it has at their paths.
fn with(tree: &Tree, entries: Vec<Entry>) -> Tree {
    if entries.is_empty() {
        return tree.clone();
    }
    let mut builder = TreeBuilder::new();
    tree.iter().chain(entries).for_each(|entry| builder.push(entry));
    builder.finish()
}

/// Makes the files that hard links into lower layers lead to; `snapshots` are those of `lower`, in the same order.
/// Links to one file are hard links of each other; the file below stays a file of its own, as a layer must not depend
/// on the numbers of another's files. Returns the new tree.
///
/// # Errors
/// [`UnpackError::LinkTarget`] if no lower layer has the file.
pub fn resolve_lower_links(
    active: &Active,
    tree: &Tree,
    links: &[LowerLink],
    lower: &Stack,
    snapshots: &[&Snapshot],
) -> Result<Tree, UnpackError> {
    let mut next_link = tree.iter().filter_map(|entry| link_of(&entry)).max().unwrap_or(0);
    let mut first_paths: BTreeMap<RootPath, Entry> = BTreeMap::new();
    let mut made = Vec::new();
    for LowerLink { path, target } in links {
        let missing = || UnpackError::LinkTarget { path: path.clone(), target: target.clone() };
        let parent = lower.resolve(&target.parent().unwrap_or_default(), true)?;
        let resolved = parent.child(target.file_name().ok_or_else(missing)?);
        if let Some(first) = first_paths.get(&resolved) {
            let entry = Entry { path: path.clone(), ..first.clone() };
            let link = || {
                let (from, name) = active.root().parent(&first.path)?;
                let (to, to_name) = active.root().parent(path)?;
                from.hard_link(name, &to, to_name)
            };
            link().map_err(|source| UnpackError::Write { path: path.clone(), source })?;
            made.push(entry);
            continue;
        }
        let found = lower.lookup(&resolved).filter(|found| !found.entry.node.is_directory()).ok_or_else(missing)?;
        let mut entry = Entry { path: path.clone(), ..found.entry.clone() };
        if let Node::File { link, .. } = &mut entry.node {
            next_link += 1;
            *link = next_link;
            first_paths.insert(resolved, entry.clone());
        }
        let snapshot = snapshots.get(found.layer).ok_or_else(missing)?;
        place(active, &entry, snapshot, &found.entry)?;
        made.push(entry);
    }
    // Their directories have another time now.
    for entry in &made {
        let parent = entry.path.parent().unwrap_or_default();
        let Some(entry) = tree.get(&parent) else { continue };
        let restore = || set_metadata_of(active.root().open_dir_exact(&parent)?, &entry);
        restore().map_err(|source| UnpackError::Write { path: parent.clone(), source })?;
    }
    Ok(with(tree, made))
}

fn link_of(entry: &Entry) -> Option<u32> {
    match entry.node {
        Node::File { link, .. } => Some(link),
        _ => None,
    }
}

/// Copies one file of a lower layer.
fn place(active: &Active, entry: &Entry, snapshot: &Snapshot, original: &Entry) -> Result<(), UnpackError> {
    let write = |source: io::Error| UnpackError::Write { path: entry.path.clone(), source };
    let parent = active.root().open_dir_exact(&entry.path.parent().unwrap_or_default()).map_err(write)?;
    let name = entry.path.file_name().unwrap_or_default();
    if !entry.node.is_file() {
        create_node(&parent, name, &entry.node).map_err(write)?;
        return set_metadata(&parent, name, entry).map(drop).map_err(write);
    }
    let source = snapshot.open_file(&original.path).map_err(write)?;
    let file = parent.create_file(name).map_err(write)?;
    copy(original, &source, &file, &mut vec![0; 128 * 1024]).map_err(|error| match error {
        PackError::Read { source, .. } | PackError::Place { source, .. } | PackError::Write { source } => write(source),
        other => write(io::Error::other(other)),
    })?;
    set_metadata_of(&file, entry).map(drop).map_err(write)
}
