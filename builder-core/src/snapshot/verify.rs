//! Whether a snapshot still holds what its tree says, after the machine lost power.

use std::collections::HashMap;
use std::io;

use rayon::prelude::*;
use rustix::io::Errno;

use super::derived::is_missing;
use super::{Overlaid, Snapshot, hash_file, overlaid, read_entry};
use crate::rootfs::{Directory, Kind, RootPath, Stat};
use crate::tree::{Entry, Node, Tree};

/// Compares every entry with the disk, content included. Unless it is `exact`, owners and attributes are left out,
/// which a user namespace cannot all store; nor can it devices, which may be empty files.
pub(super) fn verify(snapshot: &Snapshot, tree: &Tree, exact: bool) -> io::Result<bool> {
    let entries: Vec<Entry> = tree.iter().collect();
    let found = entries.par_iter().map(|entry| check(snapshot, entry, exact).or_else(missing));
    let found = found.collect::<io::Result<Vec<_>>>()?;
    for path in snapshot.derived.iter().flat_map(|derived| &derived.hidden) {
        match hides(snapshot, path) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => return missing(error).map(|_| false),
        }
    }
    let mut groups: HashMap<u32, (u64, u64)> = HashMap::new();
    for (entry, identity) in entries.iter().zip(&found) {
        let Some(identity) = identity else { return Ok(false) };
        if let Node::File { link, .. } = entry.node
            && link != 0
            && *groups.entry(link).or_insert(*identity) != *identity
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An entry that is not there, or whose directory is something else.
fn missing(error: io::Error) -> io::Result<Option<(u64, u64)>> {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => Ok(None),
        _ => Err(error),
    }
}

/// What a path is in the snapshot, or in that which it is derived from.
fn locate(snapshot: &Snapshot, path: &RootPath) -> io::Result<(Directory, Stat)> {
    let own = || {
        let directory = snapshot.root().open_dir_exact(&path.parent().unwrap_or_default())?;
        let stat = directory.stat(path.file_name().unwrap_or(b"."))?;
        Ok((directory, stat))
    };
    match (own(), snapshot.base()) {
        (Err(error), Some(base)) if is_missing(&error) => locate(base, path),
        (found, _) => found,
    }
}

/// Whether what is to hide something of the base is there.
fn hides(snapshot: &Snapshot, path: &RootPath) -> io::Result<bool> {
    let directory = snapshot.root().open_dir_exact(&path.parent().unwrap_or_default())?;
    let name = path.file_name().unwrap_or(b".");
    let stat = directory.stat(name)?;
    Ok(stat.kind == Kind::Directory || overlaid(&directory, name, &stat)? == Overlaid::Whiteout)
}

/// Identity of the file on disk, `None` if it is not what the entry says.
fn check(snapshot: &Snapshot, entry: &Entry, exact: bool) -> io::Result<Option<(u64, u64)>> {
    let name = entry.path.file_name().unwrap_or(b".");
    let (directory, stat) = locate(snapshot, &entry.path)?;
    let mark = overlaid(&directory, name, &stat)?;
    if (mark == Overlaid::Whiteout) != (entry.node == Node::Whiteout) {
        return Ok(None);
    }
    if mark == Overlaid::Whiteout {
        return Ok(Some(stat.identity));
    }
    let Some(mut actual) = read_entry(&directory, name, entry.path.clone(), &stat)? else { return Ok(None) };
    let device = matches!(entry.node, Node::CharDevice { .. } | Node::BlockDevice { .. });
    if device && stat.kind == Kind::File && stat.size == 0 {
        return Ok(Some(stat.identity));
    }
    match (&mut actual.node, &entry.node) {
        (Node::File { content, link, .. }, Node::File { link: number, .. }) => {
            *content = hash_file(&directory.open_file(name)?)?.1;
            *link = *number;
        }
        (Node::Directory { opaque }, _) => *opaque = mark == Overlaid::Opaque,
        _ => {}
    }
    let same = actual.node == entry.node && actual.mode == entry.mode;
    let owner = (actual.uid, actual.gid) == (entry.uid, entry.gid) && actual.xattrs == entry.xattrs;
    // The root takes its time from below when it is mounted.
    let time = actual.mtime == entry.mtime || entry.path.is_root();
    Ok((same && (owner || !exact) && time).then_some(stat.identity))
}
