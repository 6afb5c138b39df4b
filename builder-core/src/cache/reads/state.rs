//! The state of paths in trees.

use std::cell::RefCell;
use std::collections::HashMap;

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use crate::rootfs::RootPath;
use crate::tree::{Entry, Found, Node, Stack};

/// How much of a path was looked at; of several the last in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// What it is. Of a directory nothing of what is in it.
    Seen,
    /// A directory: which names are in it, too.
    Listed,
    /// Everything below it, too.
    Whole,
}

/// A path that was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// 0 for the root filesystem, else the number of the mount that shows it, from 1.
    pub place: usize,
    /// The path there, `/a/b`.
    pub path: String,
    /// How much of it.
    pub how: How,
    /// Digest of what was found: 32 hexadecimal digits.
    pub state: String,
}

/// The names of each file of a layer that has several.
type Groups = HashMap<u32, Vec<RootPath>>;

/// The files that a command sees: its root and its mounts, in which paths are looked up.
#[derive(Debug, Default)]
pub struct Views {
    places: Vec<Option<Stack>>,
    /// By place and layer, the paths of each group of hard links.
    links: RefCell<HashMap<(usize, usize), Groups>>,
    known: RefCell<HashMap<(usize, RootPath, How), String>>,
}

impl Views {
    /// The views of a root and of mounts, of which only some show files that may be looked up.
    pub fn new(root: Stack, mounts: impl IntoIterator<Item = Option<Stack>>) -> Self {
        let places = std::iter::once(Some(root)).chain(mounts).collect();
        Self { places, ..Self::default() }
    }

    /// The state of a path; `None` if nothing can be looked up in that place.
    pub fn state(&self, place: usize, path: &RootPath, how: How) -> Option<String> {
        let stack = self.places.get(place)?.as_ref()?;
        let key = (place, path.clone(), how);
        if let Some(known) = self.known.borrow().get(&key) {
            return Some(known.clone());
        }
        let mut hasher = Hasher::new();
        match stack.lookup(path) {
            None => drop(hasher.update(b"nothing")),
            Some(found) => {
                let is_directory = found.entry.node.is_directory();
                self.entry(&mut hasher, place, stack, &found);
                if how >= How::Listed && is_directory {
                    // The kernel says another number of links for a directory that several layers have.
                    part(&mut hasher, if is_merged(stack, path) { b"merged" } else { b"one" });
                    for child in stack.children(path) {
                        part(&mut hasher, child.entry.path.file_name().unwrap_or_default());
                        part(&mut hasher, kind(&child.entry.node));
                    }
                }
                if how == How::Whole && is_directory {
                    for below in stack.select(path).iter().filter(|below| below.entry.path != *path) {
                        part(&mut hasher, below.entry.path.as_bytes());
                        self.entry(&mut hasher, place, stack, below);
                    }
                }
            }
        }
        let state = hasher.finalize().to_hex()[..32].to_owned();
        self.known.borrow_mut().insert(key, state.clone());
        Some(state)
    }

    /// The paths of these looks whose state is another now, the first of them, at most so many.
    pub fn differing<'a>(&self, looks: &'a [Look], limit: usize) -> Vec<&'a Look> {
        let differs = |look: &&Look| {
            let path = RootPath::clean(&look.path).ok();
            path.and_then(|path| self.state(look.place, &path, look.how)).is_none_or(|state| state != look.state)
        };
        looks.iter().filter(differs).take(limit).collect()
    }

    /// Everything but times.
    fn entry(&self, hasher: &mut Hasher, place: usize, stack: &Stack, found: &Found) {
        let Entry { path, node, mode, uid, gid, mtime: _, xattrs } = &found.entry;
        part(hasher, kind(node));
        for number in [mode, uid, gid] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&(xattrs.len() as u64).to_le_bytes());
        for xattr in xattrs {
            part(hasher, &xattr.name);
            part(hasher, &xattr.value);
        }
        match node {
            Node::Directory { .. } | Node::Fifo | Node::Whiteout => {}
            Node::Symlink { target } => part(hasher, target),
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                hasher.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
            }
            Node::File { size, content, link } => {
                hasher.update(&size.to_le_bytes()).update(content.as_bytes());
                if *link != 0 {
                    self.names(hasher, place, stack, found.layer, *link, path);
                }
            }
        }
    }

    /// The names of a file with several, and which of them show.
    fn names(&self, hasher: &mut Hasher, place: usize, stack: &Stack, layer: usize, link: u32, path: &RootPath) {
        let mut links = self.links.borrow_mut();
        let groups = links.entry((place, layer)).or_insert_with(|| {
            let mut groups = Groups::new();
            for entry in stack.trees()[layer].iter() {
                if let Node::File { link: link @ 1.., .. } = entry.node {
                    groups.entry(link).or_default().push(entry.path);
                }
            }
            groups
        });
        for name in groups.get(&link).into_iter().flatten().filter(|name| *name != path) {
            let shows = stack.lookup(name).is_some_and(|found| found.layer == layer);
            part(hasher, name.as_bytes());
            part(hasher, if shows { b"shows" } else { b"hidden" });
        }
    }
}

/// A part with its length before it.
fn part(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

fn kind(node: &Node) -> &'static [u8] {
    match node {
        Node::Directory { .. } => b"directory",
        Node::File { link: 0, .. } => b"file",
        Node::File { .. } => b"file with several names",
        Node::Symlink { .. } => b"link",
        Node::CharDevice { .. } => b"character device",
        Node::BlockDevice { .. } => b"block device",
        Node::Fifo => b"pipe",
        Node::Whiteout => b"nothing",
    }
}

/// Whether more than one layer has a directory, as far as it shows.
fn is_merged(stack: &Stack, path: &RootPath) -> bool {
    let mut layers = 0;
    for tree in stack.trees().iter().rev() {
        match tree.get(path).map(|entry| entry.node) {
            Some(Node::Directory { opaque }) => {
                layers += 1;
                if opaque {
                    break;
                }
            }
            Some(_) => break,
            None => {}
        }
        let hides = |ancestor: RootPath| {
            tree.get(&ancestor).is_some_and(|entry| entry.node != Node::Directory { opaque: false })
        };
        if path.ancestors().any(hides) {
            break;
        }
    }
    layers > 1
}
