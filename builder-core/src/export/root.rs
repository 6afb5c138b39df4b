//! [`Root`]: the files of an image as one root filesystem.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::layer::Files;
use crate::oci::Platform;
use crate::rootfs::RootPath;
use crate::tree::{Entry, Found, Node, Stack, Time, Tree, TreeBuilder, TreeId};

/// A layer with its files.
pub type LayerFiles = (Tree, Arc<dyn Files + Send + Sync>);

/// The merged root filesystem of a stack of layers.
pub(super) struct Root {
    stack: Stack,
    files: Vec<Arc<dyn Files + Send + Sync>>,
    /// Where it begins: the directory of its platform, or the root.
    below: RootPath,
}

impl Root {
    /// Merges layers, lowest first; their paths begin in the directory of the platform if there is one.
    pub(super) fn new(layers: &[LayerFiles], platform: Option<&Platform>) -> Self {
        let below = platform.map_or_else(RootPath::root, |platform| {
            RootPath::root().child(platform.to_string().replace('/', "_").as_bytes())
        });
        Self {
            stack: Stack::new(layers.iter().map(|(tree, _)| tree.clone()).collect()),
            files: layers.iter().map(|(_, files)| Arc::clone(files)).collect(),
            below,
        }
    }

    /// Adds everything to a tree; no file is younger than `epoch`. Numbers of hard links begin after `links`; returns
    /// the last one.
    fn push_to(&self, builder: &mut TreeBuilder, epoch: Option<i64>, links: u32) -> u32 {
        let merged = self.stack.flatten();
        let mut last = links;
        if !self.below.is_root() && merged.get(&RootPath::root()).is_none() {
            builder.push(Entry::directory(self.below.clone(), 0o755, 0, 0, Time::default()));
        }
        for mut entry in merged.iter() {
            if let Node::File { link, .. } = &mut entry.node
                && *link != 0
            {
                *link += links;
                last = last.max(*link);
            }
            builder.push(clamped(Entry { path: self.below.append(&entry.path), ..entry }, epoch));
        }
        last
    }
}

impl Files for Root {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        let found = entry.path.strip_prefix(&self.below).and_then(|path| self.stack.lookup(&path));
        let Some(Found { layer, entry }) = found else { return Err(io::ErrorKind::NotFound.into()) };
        self.files[layer].open(&entry)
    }

    fn snapshot(&self, entry: &Entry) -> Option<TreeId> {
        let Found { layer, entry } = self.stack.lookup(&entry.path.strip_prefix(&self.below)?)?;
        self.files[layer].snapshot(&entry)
    }
}

/// Several roots, each in its own directory.
pub(super) struct Roots(pub(super) Vec<Root>);

impl Roots {
    /// A path that several of them have, where it is not a directory in all of them. Roots in directories of their own
    /// share none.
    pub(super) fn conflict(&self) -> Option<RootPath> {
        let mut seen: HashMap<RootPath, bool> = HashMap::new();
        let shared: Vec<&Root> = self.0.iter().filter(|root| root.below.is_root()).collect();
        if shared.len() < 2 {
            return None;
        }
        for root in shared {
            for entry in root.stack.flatten().iter() {
                let directory = entry.node.is_directory();
                if seen.insert(entry.path.clone(), directory).is_some_and(|known| !(known && directory)) {
                    return Some(entry.path);
                }
            }
        }
        None
    }

    /// Everything as one tree.
    pub(super) fn tree(&self, epoch: Option<i64>) -> Tree {
        let mut builder = TreeBuilder::new();
        self.0.iter().fold(0, |links, root| root.push_to(&mut builder, epoch, links));
        builder.finish()
    }
}

impl Roots {
    fn of(&self, entry: &Entry) -> Option<&Root> {
        let has =
            |root: &&Root| entry.path.strip_prefix(&root.below).is_some_and(|path| root.stack.lookup(&path).is_some());
        self.0.iter().find(has)
    }
}

impl Files for Roots {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        self.of(entry).ok_or(io::ErrorKind::NotFound)?.open(entry)
    }

    fn snapshot(&self, entry: &Entry) -> Option<TreeId> {
        self.of(entry)?.snapshot(entry)
    }
}

/// A tree in which nothing is younger than `epoch`, seconds since 1970.
pub(super) fn clamp(tree: &Tree, epoch: i64) -> Tree {
    let mut builder = TreeBuilder::new();
    tree.iter().for_each(|entry| builder.push(clamped(entry, Some(epoch))));
    builder.finish()
}

fn clamped(mut entry: Entry, epoch: Option<i64>) -> Entry {
    if let Some(epoch) = epoch
        && entry.node != Node::Whiteout
    {
        entry.mtime = entry.mtime.min(Time::from_seconds(epoch));
    }
    entry
}
