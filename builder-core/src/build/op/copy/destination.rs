//! [`Destination`]: the root filesystem that is copied into, with what this copy has put there already.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{CopyError, Fact, FileSource};
use crate::rootfs::{Owner, RootPath};
use crate::tree::{Entry, Node, ResolveError, Stack, Time, sort_keeping_last};

/// Most symbolic links followed in one path, as in Linux (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// What directories are like that have to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// `--chown`.
    pub(super) owner: Option<Owner>,
    pub(super) mode: u32,
    pub(super) time: Time,
}

impl Made {
    /// Permission bits of directories that nobody described.
    pub(super) const MODE: u32 = 0o755;

    fn directory(&self, path: RootPath) -> Entry {
        let Owner { uid, gid } = self.owner.unwrap_or_default();
        Entry::directory(path, self.mode, uid, gid, self.time)
    }
}

/// A directory that `mkdir(2)` makes: in one with the set-group-id bit it gets that bit and, unless it is `owned` by
/// somebody in particular, the group.
pub(crate) fn inherit(parent: Option<&Entry>, owned: bool, mut directory: Entry) -> Entry {
    if let Some(parent) = parent.filter(|parent| parent.mode & 0o2000 != 0) {
        directory.mode |= 0o2000;
        if !owned {
            directory.gid = parent.gid;
        }
    }
    directory
}

/// An entry of the new layer and where its bytes are.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) entry: Entry,
    pub(super) bytes: Option<FileSource>,
}

/// Where things land.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    /// `None` with `--link`: whatever is there is not looked at.
    below: Option<&'a Stack>,
    /// What this copy has put there, later ones over earlier ones with the same path. A large directory that lands in
    /// a new place is only appended: nobody asks for its paths.
    placed: Vec<Placed>,
    /// Where in `placed` the first `indexed` ones are.
    index: HashMap<RootPath, usize>,
    indexed: usize,
    /// Directories that were made by this copy: nothing of `below` is in them.
    fresh: HashSet<RootPath>,
    /// Directories that are in the layer only to say what they are like.
    kept: HashSet<RootPath>,
    facts: BTreeMap<RootPath, Option<Entry>>,
    /// What directories are like that have to be made.
    pub(super) made: Made,
}

impl<'a> Destination<'a> {
    pub(super) fn new(below: Option<&'a Stack>, made: Made) -> Self {
        Self {
            below,
            placed: Vec::new(),
            index: HashMap::new(),
            indexed: 0,
            fresh: HashSet::new(),
            kept: HashSet::new(),
            facts: BTreeMap::new(),
            made,
        }
    }

    /// What is at a path, symbolic links not followed. The root is always a directory.
    pub(super) fn find(&mut self, path: &RootPath) -> Option<Entry> {
        self.find_placed(path).cloned().or_else(|| self.find_below(path))
    }

    fn find_placed(&mut self, path: &RootPath) -> Option<&Entry> {
        let new = self.placed[self.indexed..].iter().enumerate();
        self.index.extend(new.map(|(at, placed)| (placed.entry.path.clone(), self.indexed + at)));
        self.indexed = self.placed.len();
        self.index.get(path).map(|at| &self.placed[*at].entry)
    }

    fn find_below(&self, path: &RootPath) -> Option<Entry> {
        if path.is_root() {
            let found = self.below.and_then(|below| below.lookup(path)).map(|found| found.entry);
            return found.or_else(|| Some(Made { mode: Made::MODE, ..self.made }.directory(path.clone())));
        }
        if path.parent().is_some_and(|parent| self.fresh.contains(&parent)) {
            return None;
        }
        self.below?.lookup(path).map(|found| found.entry)
    }

    /// [`Destination::find`] for paths whose answer decides where things land.
    fn look(&mut self, path: &RootPath) -> Option<Entry> {
        if let Some(placed) = self.find_placed(path) {
            return Some(placed.clone());
        }
        let found = self.find_below(path);
        if self.below.is_some() && !path.is_root() {
            self.facts.insert(path.clone(), found.clone());
        }
        found
    }

    /// What is at a path whose links were followed.
    pub(super) fn at(&mut self, path: &RootPath) -> Option<Node> {
        self.look(path).map(|entry| entry.node)
    }

    /// Follows every symbolic link of a path, never out of the root. What does not exist is taken as it is written.
    pub(super) fn resolve(&mut self, path: &RootPath) -> Result<RootPath, CopyError> {
        let mut pending: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut resolved = RootPath::root();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    resolved = resolved.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = resolved.child(&component);
            let Some(Node::Symlink { target }) = self.at(&next) else {
                resolved = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(ResolveError::Loop(path.clone()).into());
            }
            if target.is_empty() || target.contains(&0) || target.len() > 4095 {
                return Err(ResolveError::Target(next).into());
            }
            if target.starts_with(b"/") {
                resolved = RootPath::root();
            }
            pending.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
        }
        // Links can make a path longer than any that the kernel takes.
        Ok(RootPath::clean(resolved.as_bytes())?)
    }

    /// Makes a directory and those above it where they are missing. Those that exist become part of the layer as they
    /// are: a layer has to say what its directories are like.
    pub(super) fn ensure(&mut self, directory: &RootPath) -> Result<(), CopyError> {
        let all: Vec<RootPath> = directory.ancestors().chain([directory.clone()]).collect();
        let mut above = None;
        for path in all {
            if path.is_root() {
                above = self.find(&path);
                continue;
            }
            if let Some(entry) = self.find_placed(&path).filter(|entry| entry.node.is_directory()) {
                above = Some(entry.clone());
                continue;
            }
            let entry = match self.look(&path) {
                None => {
                    self.fresh.insert(path.clone());
                    self.touch(&path.parent().unwrap_or_default());
                    inherit(above.as_ref(), self.made.owner.is_some(), self.made.directory(path))
                }
                Some(entry) if entry.node.is_directory() => {
                    above = Some(entry.clone());
                    self.place(entry, None);
                    self.kept.insert(path);
                    continue;
                }
                Some(entry) => return Err(in_the_way(path, &entry.node)),
            };
            above = Some(entry.clone());
            self.place(entry, None);
        }
        Ok(())
    }

    /// Makes room for what is going to be put there.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.placed.reserve(entries);
    }

    /// Puts an entry into the layer, whatever was there.
    pub(super) fn place(&mut self, mut entry: Entry, bytes: Option<FileSource>) {
        if let Node::Directory { opaque } = &mut entry.node {
            *opaque = false;
            self.kept.remove(&entry.path);
        }
        self.placed.push(Placed { entry, bytes });
    }

    /// Puts a directory into the layer that was not there before.
    pub(super) fn place_fresh(&mut self, entry: Entry) {
        self.fresh.insert(entry.path.clone());
        self.place(entry, None);
    }

    /// Gives a directory of the layer the time of now: something was made in it.
    pub(super) fn touch(&mut self, directory: &RootPath) {
        self.set_time(directory, self.made.time);
    }

    /// Sets the time of a directory of the layer. The root has no entry.
    pub(super) fn set_time(&mut self, directory: &RootPath, time: Time) {
        if self.find_placed(directory).is_some() {
            self.placed[self.index[directory]].entry.mtime = time;
        }
    }

    /// Takes away a path with all that was put below it.
    pub(super) fn clear(&mut self, path: &RootPath) {
        if self.find_placed(path).is_none() {
            return;
        }
        self.placed.retain(|placed| !placed.entry.path.starts_with(path));
        self.fresh.retain(|directory| !directory.starts_with(path));
        self.index.clear();
        self.indexed = 0;
    }

    /// The layer in order, and the facts that it rests on.
    pub(super) fn finish(mut self) -> (Vec<Placed>, Vec<Fact>) {
        sort_keeping_last(&mut self.placed, |placed| &placed.entry.path);
        self.drop_empty();
        let facts = self.facts.into_iter().map(|(path, found)| Fact::new(&path, found.as_ref())).collect();
        (self.placed, facts)
    }

    /// Takes away directories that are there only to say what they are like, and in which nothing landed.
    fn drop_empty(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let mut empty = HashSet::new();
        let mut next: Option<&RootPath> = None;
        for (at, Placed { entry, .. }) in self.placed.iter().enumerate().rev() {
            if self.kept.contains(&entry.path) && !next.is_some_and(|next| next.starts_with(&entry.path)) {
                empty.insert(at);
            } else {
                next = Some(&entry.path);
            }
        }
        let mut at = 0;
        self.placed.retain(|_| {
            at += 1;
            !empty.contains(&(at - 1))
        });
    }
}

/// The error for something that should be a directory.
pub(super) fn in_the_way(path: RootPath, node: &Node) -> CopyError {
    CopyError::NotADirectory { path, kind: super::kind_of(node) }
}
