//! [`Walk`]: everything that is in an upper directory, beside what lies below it.

use std::collections::{HashMap, HashSet};
use std::io;

use super::says_the_same;
use crate::layer::CaptureError;
use crate::layer::pack::WHITEOUT;
use crate::rootfs::{Directory, Kind, RootPath, Stat};
use crate::snapshot::{Active, Overlaid, overlaid, read_entry};
use crate::tree::{Entry, Node, Stack};

/// One path that is in the directory, or that is missing in it.
pub(super) struct Item {
    pub(super) entry: Entry,
    /// Index of its directory.
    pub(super) parent: Option<usize>,
    /// What the layers below show at its path, where this layer lets them.
    below: Option<Entry>,
    /// Device and number of a file with several names.
    pub(super) identity: Option<(u64, u64)>,
    pub(super) on_disk: bool,
    pub(super) opaque_on_disk: bool,
}

impl Item {
    /// Whether it differs from what lies below. A whiteout is an item only where it hides something.
    pub(super) fn is_change(&self) -> bool {
        self.below.as_ref().is_none_or(|below| !says_the_same(&self.entry, below))
    }
}

/// How a directory on disk relates to the one below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Nothing is below: everything in it is new.
    New,
    /// It holds what changed, and whiteouts.
    Changes,
    /// It holds everything: an opaque directory, or a copy. What is missing was deleted.
    Complete,
}

pub(super) struct Walk<'a> {
    active: &'a Active,
    lower: &'a Stack,
    /// In the order of the walk: a directory before what is in it.
    pub(super) items: Vec<Item>,
    /// What is on disk and means nothing: sockets, whiteouts of nothing, files of a copy that nobody touched.
    pub(super) removed: Vec<RootPath>,
}

/// One name of a directory on disk.
struct Found {
    name: Vec<u8>,
    stat: Stat,
    mark: Overlaid,
}

impl<'a> Walk<'a> {
    pub(super) fn new(active: &'a Active, lower: &'a Stack) -> Self {
        Self { active, lower, items: Vec::new(), removed: Vec::new() }
    }

    pub(super) fn run(&mut self) -> Result<(), CaptureError> {
        let mut pending = vec![self.root().map_err(|source| CaptureError::Io { path: RootPath::root(), source })?];
        while let Some((at, relation)) = pending.pop() {
            self.directory(at, relation, &mut pending)?;
        }
        Ok(())
    }

    fn root(&mut self) -> io::Result<(usize, Relation)> {
        let directory = self.active.root().directory();
        let stat = directory.stat_self()?;
        let entry = read_entry(directory, b".", RootPath::root(), &stat)?.expect("a directory is no socket");
        let below = self
            .lower
            .lookup(&RootPath::root())
            .map(|found| Entry { node: Node::Directory { opaque: false }, ..found.entry });
        let mark = overlaid(directory, b".", &stat)?;
        self.items.push(Item {
            entry,
            parent: None,
            below,
            identity: None,
            on_disk: true,
            opaque_on_disk: mark == Overlaid::Opaque,
        });
        let complete = self.active.baseline().is_some() || mark == Overlaid::Opaque;
        Ok((0, if complete { Relation::Complete } else { Relation::Changes }))
    }

    /// Adds what is in one directory, and puts the directories in it aside.
    fn directory(
        &mut self,
        at: usize,
        relation: Relation,
        pending: &mut Vec<(usize, Relation)>,
    ) -> Result<(), CaptureError> {
        let path = self.items[at].entry.path.clone();
        let io = |source| CaptureError::Io { path: path.clone(), source };
        let directory = self.active.root().open_dir_exact(&path).map_err(io)?;
        let (mut reals, mut whiteouts) = (Vec::new(), Vec::new());
        for found in list(&directory).map_err(io)? {
            if path.as_bytes().len() + 1 + found.name.len() > 4095 {
                return Err(CaptureError::TooLong { directory: path });
            }
            if found.mark == Overlaid::Whiteout { whiteouts.push(found.name) } else { reals.push(found) }
        }
        let below = match relation {
            Relation::New => HashMap::new(),
            Relation::Changes if whiteouts.is_empty() => HashMap::new(),
            Relation::Changes | Relation::Complete => self.below(&path),
        };
        let gone = match relation {
            Relation::New => HashSet::new(),
            Relation::Changes => {
                whiteouts.iter().filter(|name| below.contains_key(*name)).cloned().collect::<HashSet<_>>()
            }
            Relation::Complete => {
                let names: HashSet<&[u8]> = reals.iter().map(|found| found.name.as_slice()).collect();
                below.keys().filter(|name| !names.contains(name.as_slice())).cloned().collect()
            }
        };
        // Everything below is gone: said once for all of it.
        let opaque = !below.is_empty() && gone.len() == below.len();
        self.items[at].entry.node = Node::Directory { opaque };
        let relation =
            if opaque || (relation == Relation::Complete && below.is_empty()) { Relation::New } else { relation };
        for name in &whiteouts {
            if opaque || !gone.contains(name) {
                self.removed.push(path.child(name));
            }
        }
        if !opaque {
            let on_disk: HashSet<&Vec<u8>> = whiteouts.iter().collect();
            for name in &gone {
                self.push_whiteout(at, path.child(name), on_disk.contains(name));
            }
        }
        for found in reals {
            let child = path.child(&found.name);
            if found.name.starts_with(WHITEOUT) {
                return Err(CaptureError::ReservedName(child));
            }
            let lower = match relation {
                Relation::New => None,
                Relation::Changes => self.lower.lookup(&child).map(|found| found.entry),
                Relation::Complete => below.get(&found.name).cloned(),
            };
            self.real(at, relation, &directory, &found, lower, pending)
                .map_err(|source| CaptureError::Io { path: child, source })?;
        }
        Ok(())
    }

    /// Adds one entry that is on disk.
    fn real(
        &mut self,
        parent: usize,
        relation: Relation,
        directory: &Directory,
        found: &Found,
        below: Option<Entry>,
        pending: &mut Vec<(usize, Relation)>,
    ) -> io::Result<()> {
        let path = self.items[parent].entry.path.child(&found.name);
        let is_directory = found.stat.kind == Kind::Directory;
        let untouched = self.is_untouched(&path, &found.stat);
        if untouched && !is_directory {
            self.removed.push(path);
            return Ok(());
        }
        let Some(entry) = read_entry(directory, &found.name, path.clone(), &found.stat)? else {
            self.removed.push(path);
            // Where something was replaced by a socket, it is gone.
            if below.is_some() {
                self.push_whiteout(parent, self.items[parent].entry.path.child(&found.name), false);
            }
            return Ok(());
        };
        let mut below = below;
        if let Some(Entry { node: Node::Directory { opaque }, .. }) = &mut below {
            // Merged, nothing is opaque.
            *opaque = false;
        }
        let opaque_on_disk = found.mark == Overlaid::Opaque;
        if is_directory {
            let inner = match &below {
                Some(below) if below.node.is_directory() => {
                    if opaque_on_disk || relation == Relation::Complete {
                        Relation::Complete
                    } else {
                        Relation::Changes
                    }
                }
                _ => Relation::New,
            };
            pending.push((self.items.len(), inner));
        }
        if untouched && below.is_none() {
            // A place for a mount, made before the command ran.
            below = Some(entry.clone());
        }
        let identity = (found.stat.kind == Kind::File && found.stat.links > 1).then_some(found.stat.identity);
        self.items.push(Item { entry, parent: Some(parent), below, identity, on_disk: true, opaque_on_disk });
        Ok(())
    }

    fn push_whiteout(&mut self, parent: usize, path: RootPath, on_disk: bool) {
        self.items.push(Item {
            entry: Entry::whiteout(path),
            parent: Some(parent),
            below: None,
            identity: None,
            on_disk,
            opaque_on_disk: false,
        });
    }

    /// Whether a file of a copied root is the one that was copied: same number, and never changed since.
    fn is_untouched(&self, path: &RootPath, stat: &Stat) -> bool {
        let known = self.active.baseline().and_then(|baseline| baseline.get(path));
        known.is_some_and(|(number, changed)| *number == stat.identity.1 && *changed == stat.ctime)
    }

    /// What lower layers have in a directory, by name.
    fn below(&self, path: &RootPath) -> HashMap<Vec<u8>, Entry> {
        let children = self.lower.children(path).into_iter();
        children.map(|found| (found.entry.path.file_name().unwrap_or_default().to_vec(), found.entry)).collect()
    }
}

fn list(directory: &Directory) -> io::Result<Vec<Found>> {
    let names = directory.names()?.into_iter();
    names
        .map(|name| {
            let stat = directory.stat(&name)?;
            let mark = overlaid(directory, &name, &stat)?;
            Ok(Found { name, stat, mark })
        })
        .collect()
}
