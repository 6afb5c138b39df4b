//! [`capture`]: what a command changed, from the upper directory that received it.
//!
//! ```text
//! upper directory ─ walk ─▶ items (what is there, what lies below) ─ hash ─ decide ─▶ Tree
//!                                                                        └─ tidy the directory until it holds just that
//! ```
//!
//! One change has one form, however it came about: a directory is opaque exactly if it hides something and keeps none
//! of it; else what is missing has a whiteout, and what is the same as below is dropped. So overlayfs in each of its
//! dialects, and a full copy, give the same tree.

mod walk;

use std::collections::{HashMap, HashSet};
use std::io;

use rayon::prelude::*;
use walk::{Item, Walk};

use super::CaptureError;
use crate::rootfs::RootPath;
use crate::snapshot::{Active, clear_opaque, hash_file, make_whiteout, set_mtime, set_opaque};
use crate::tree::{ContentDigest, Entry, Node, Stack, Tree, TreeBuilder};

/// From this many bytes or files on, hashing on all cores is worth the start of the threads.
const PARALLEL_BYTES: u64 = 4 << 20;
const PARALLEL_FILES: usize = 64;

/// Finds out what was changed in `active`, which was mounted on top of `lower`, and leaves in it only that.
///
/// The mount must be gone. Each changed file is read once; nothing is read that was not changed. Entries equal to what
/// lies below, times included, are dropped, unless something below them or a hard link to them is kept. Sockets are
/// left out, as in every layer.
///
/// # Errors
/// [`CaptureError::ReservedName`] for a file whose name begins with `.wh.`.
pub fn capture(active: &Active, lower: &Stack) -> Result<Tree, CaptureError> {
    let mut walk = Walk::new(active, lower);
    walk.run()?;
    let Walk { mut items, removed, .. } = walk;
    hash(active, &mut items)?;
    let kept = decide(&items);
    tidy(active, &items, &kept, &removed)?;
    let mut builder = TreeBuilder::new();
    for (item, _) in items.into_iter().zip(kept).filter(|(_, kept)| *kept) {
        builder.push(item.entry);
    }
    Ok(builder.finish())
}

/// Fills in the digests of files, and numbers the hard links.
fn hash(active: &Active, items: &mut [Item]) -> Result<(), CaptureError> {
    let mut firsts: HashMap<(u64, u64), usize> = HashMap::new();
    let mut groups: HashMap<usize, u32> = HashMap::new();
    let mut same_as: HashMap<usize, usize> = HashMap::new();
    let (mut todo, mut bytes) = (Vec::new(), 0);
    for (at, item) in items.iter().enumerate() {
        let Node::File { size, .. } = item.entry.node else { continue };
        match item.identity.map(|identity| *firsts.entry(identity).or_insert(at)) {
            Some(first) if first != at => {
                let next = u32::try_from(groups.len()).expect("fewer than 2^32 paths") + 1;
                groups.entry(first).or_insert(next);
                same_as.insert(at, first);
            }
            _ => {
                todo.push(at);
                bytes += size;
            }
        }
    }
    let hash_one = |at: &usize| -> Result<(usize, u64, ContentDigest), CaptureError> {
        let path = &items[*at].entry.path;
        let open = active.root().open_file_exact(path).and_then(|file| hash_file(&file));
        let (size, content) = open.map_err(|source| CaptureError::Io { path: path.clone(), source })?;
        Ok((*at, size, content))
    };
    let hashed: Result<Vec<_>, _> = if bytes >= PARALLEL_BYTES || todo.len() >= PARALLEL_FILES {
        todo.par_iter().map(hash_one).collect()
    } else {
        todo.iter().map(hash_one).collect()
    };
    for (at, size, content) in hashed? {
        items[at].entry.node = Node::File { size, content, link: groups.get(&at).copied().unwrap_or(0) };
    }
    for (at, first) in same_as {
        items[at].entry.node = items[first].entry.node.clone();
    }
    Ok(())
}

/// Which items belong to the tree.
fn decide(items: &[Item]) -> Vec<bool> {
    let mut kept: Vec<bool> = items.iter().map(Item::is_change).collect();
    // A group of hard links stays whole.
    let link = |item: &Item| match item.entry.node {
        Node::File { link, .. } if link != 0 => Some(link),
        _ => None,
    };
    let linked: HashSet<u32> =
        items.iter().zip(&kept).filter(|(_, kept)| **kept).filter_map(|(item, _)| link(item)).collect();
    for (at, item) in items.iter().enumerate() {
        kept[at] |= link(item).is_some_and(|link| linked.contains(&link));
    }
    // What is below comes later.
    for at in (0..items.len()).rev() {
        if let Some(parent) = items[at].parent.filter(|_| kept[at])
            && !items[parent].entry.path.is_root()
        {
            kept[parent] = true;
        }
    }
    kept
}

/// Makes the directory hold what the tree says.
fn tidy(active: &Active, items: &[Item], kept: &[bool], removed: &[RootPath]) -> Result<(), CaptureError> {
    let mut touched: HashSet<RootPath> = HashSet::new();
    for path in removed {
        touched.extend(path.parent());
        active.root().remove_tree(path).map_err(|source| CaptureError::Io { path: path.clone(), source })?;
    }
    // What is below goes before what it is in.
    for (item, kept) in items.iter().zip(kept).rev() {
        let path = &item.entry.path;
        let mut adjust = || -> io::Result<()> {
            if !kept {
                let (directory, name) = active.root().parent(path)?;
                touched.extend(path.parent());
                return match item.entry.node {
                    Node::Directory { .. } => directory.remove_dir(name),
                    _ => directory.remove_file(name),
                };
            }
            match item.entry.node {
                Node::Whiteout if !item.on_disk => {
                    let (directory, name) = active.root().parent(path)?;
                    touched.extend(path.parent());
                    make_whiteout(&directory, name)
                }
                Node::Directory { opaque: true } => set_opaque(active.root().open_dir_exact(path)?, active.dialect()),
                Node::Directory { opaque: false } if item.opaque_on_disk => {
                    clear_opaque(active.root().open_dir_exact(path)?)
                }
                _ => Ok(()),
            }
        };
        // The root is no item of the tree as a rule, and is never removed.
        if kept | !path.is_root() {
            adjust().map_err(|source| CaptureError::Io { path: path.clone(), source })?;
        }
    }
    for (item, _) in items.iter().zip(kept).filter(|(item, kept)| **kept && touched.contains(&item.entry.path)) {
        let path = &item.entry.path;
        let restore = || set_mtime(active.root().open_dir_exact(path)?, item.entry.mtime);
        restore().map_err(|source| CaptureError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

/// Whether an entry says what lies below already, its time included. The root's own time does not count: mounting
/// changes it.
fn says_the_same(entry: &Entry, below: &Entry) -> bool {
    entry.same_without_times(below) && (entry.mtime == below.mtime || entry.path.is_root())
}

#[cfg(test)]
mod tests;
