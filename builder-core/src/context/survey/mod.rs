//! [`Survey`]: what a request stands for, as far as the kernel tells without reading a file.
//!
//! [`Survey::fingerprint`] covers everything that [`BuildContext::read`](super::BuildContext::read) makes entries of, apart
//! from times of what is not a regular file. Content and attributes of a regular file are covered by its [`Stamp`], under
//! the condition that `read` reports as `settled`.

#[cfg(test)]
mod tests;

use super::disk::{Names, Stat};
use super::index::Stamp;
use super::mode::ContextMode;
use super::pattern::Above;
use super::select::FilterAbove;
use crate::rootfs::RootPath;
use crate::tree::{Time, Xattr};

/// Raised whenever fingerprints get another meaning.
const VERSION: &[u8] = b"survey 2";

/// Entries whose memory a thread of its own gives back.
const MANY: usize = 4000;

/// What a [`Request`](super::Request) stands for, seen and not read.
#[derive(Debug)]
pub struct Survey {
    pub(super) matches: Vec<Seen>,
    pub(super) mode: ContextMode,
}

/// Digest of all that was seen. Equal ones say that the same files are selected, with the same content if what made the
/// first was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// One path that a source stands for, and everything below it.
#[derive(Debug)]
pub(super) struct Seen {
    /// The last component of the path as it was matched.
    pub(super) name: Vec<u8>,
    /// Where it is, symbolic links followed.
    pub(super) root: RootPath,
    /// The first one is that above the match, with nothing but the match in it. The rest is in no order: entries say
    /// where their directory is.
    pub(super) directories: Vec<Directory>,
}

/// A directory and the entries in it that are wanted, in order of their names.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) path: RootPath,
    /// All names, those of unwanted entries too.
    pub(super) names: Names,
    pub(super) entries: Vec<SeenEntry>,
    pub(super) xattrs: Vec<Xattr>,
    /// The newest change of an entry.
    pub(super) newest: Time,
    /// Something in it is not ignored, although the filter may not want it.
    pub(super) visible: bool,
    pub(super) sealed: Sealed,
}

/// What is asked of the entries of a directory all together, worked out while they are at hand.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    /// Of everything but times of what is no regular file.
    pub(super) digest: [u8; 32],
    /// Of these too.
    pub(super) digest_with_times: [u8; 32],
    /// Not every entry is wanted for itself.
    pub(super) is_partial: bool,
    /// A regular file has several names.
    pub(super) has_links: bool,
    /// Numbers of the entries that have a directory.
    pub(super) parents: Vec<usize>,
}

/// One entry.
#[derive(Debug)]
pub(super) struct SeenEntry {
    /// Its number among the names of its directory.
    pub(super) name: usize,
    pub(super) stat: Stat,
    /// Of a symbolic link.
    pub(super) target: Option<Vec<u8>>,
    pub(super) included: bool,
    /// Not ignored itself.
    pub(super) visible: bool,
    /// The number of its directory, if it is one that was looked into.
    pub(super) child: Option<usize>,
}

/// A directory that is wanted for itself or for something below it.
pub(super) struct Entered {
    pub(super) path: RootPath,
    pub(super) slot: usize,
    pub(super) ignored: Above,
    pub(super) filtered: FilterAbove,
}

impl Fingerprint {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Survey {
    /// Giving back the memory of many entries takes milliseconds, which nobody has to wait for.
    fn drop(&mut self) {
        if self.count() > MANY {
            let matches = std::mem::take(&mut self.matches);
            // Without a thread it is given back here.
            let _ = std::thread::Builder::new().name("survey".to_owned()).spawn(move || drop(matches));
        }
    }
}

impl Survey {
    /// Digest of all that was seen.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(VERSION);
        hasher.update(&[self.mode as u8]);
        for found in &self.matches {
            for text in [found.name.as_slice(), found.root.as_bytes()] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
            // Each digest says how many others follow it.
            let mut open = vec![0];
            while let Some(slot) = open.pop() {
                let directory = &found.directories[slot];
                hasher.update(&directory.sealed.digest);
                open.extend(directory.children().rev().map(|(_, child)| child));
            }
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }
}

impl Seen {
    /// The entries of the result in order, each as the numbers of its directory and in it. Directories that are there
    /// only for what is below them, where nothing is, are left out.
    pub(super) fn order(&self) -> Vec<(usize, usize)> {
        let mut order = Vec::with_capacity(self.directories.iter().map(|directory| directory.entries.len()).sum());
        let mut parents = Vec::new();
        let is_plain = self.is_plain();
        let mut open = vec![(0, 0, 0)];
        while let Some((slot, next, parent)) = open.last_mut() {
            let Some(entry) = self.directories[*slot].entries.get(*next) else {
                open.pop();
                continue;
            };
            let at = order.len();
            order.push((*slot, *next));
            if !is_plain {
                parents.push(*parent);
            }
            *next += 1;
            if let Some(child) = entry.child {
                open.push((child, 0, at));
            }
        }
        if !is_plain {
            self.drop_empty(&mut order, &parents);
        }
        order
    }

    /// Whether every entry is wanted for itself.
    pub(super) fn is_plain(&self) -> bool {
        !self.directories.iter().any(|directory| directory.sealed.is_partial)
    }

    /// Of all entries in order, where each is wanted for itself, those of some directories, and the entries of these
    /// directories themselves.
    pub(super) fn order_of(&self, wanted: &[bool]) -> Vec<(usize, usize)> {
        // A directory is gone into if it is wanted, or one below it.
        let mut leads = wanted.to_vec();
        let mut open = vec![(0, false)];
        while let Some((slot, is_done)) = open.pop() {
            let mut children = self.directories[slot].children().map(|(_, child)| child);
            if is_done {
                leads[slot] = leads[slot] || children.any(|child| leads[child]);
            } else {
                open.push((slot, true));
                open.extend(children.map(|child| (child, false)));
            }
        }
        let mut order = Vec::new();
        let mut open = vec![(0, 0)];
        while let Some((slot, next)) = open.last_mut() {
            let (slot, number) = (*slot, *next);
            let directory = &self.directories[slot];
            // What is not wanted is not even looked at.
            let number = if wanted[slot] {
                number
            } else {
                let at = directory.sealed.parents.partition_point(|parent| *parent < number);
                directory.sealed.parents.get(at).copied().unwrap_or(directory.entries.len())
            };
            let Some(entry) = directory.entries.get(number) else {
                open.pop();
                continue;
            };
            *next = number + 1;
            if wanted[slot] || entry.child.is_some_and(|child| wanted[child]) {
                order.push((slot, number));
            }
            open.extend(entry.child.filter(|child| leads[*child]).map(|child| (child, 0)));
        }
        order
    }

    fn drop_empty(&self, order: &mut Vec<(usize, usize)>, parents: &[usize]) {
        let entry = |at: usize| {
            let (slot, number): (usize, usize) = order[at];
            &self.directories[slot].entries[number]
        };
        let sees_visible = |at: usize| entry(at).child.is_some_and(|slot| self.directories[slot].visible);
        let mut saw_visible: Vec<bool> = (0..order.len()).map(sees_visible).collect();
        let mut has_included = vec![false; order.len()];
        let mut keep = vec![true; order.len()];
        for at in (0..order.len()).rev() {
            let visible = entry(at).visible || saw_visible[at];
            let included = entry(at).included || has_included[at];
            keep[at] = visible && included;
            saw_visible[parents[at]] |= visible;
            has_included[parents[at]] |= keep[at];
        }
        let mut keep = keep.into_iter();
        order.retain(|_| keep.next().expect("one for each"));
    }

    /// Whether nothing is left: an ignored directory with nothing in it that is not ignored.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_plain() && self.order().is_empty()
    }

    /// Whether an entry is part of the result.
    pub(super) fn has(&self, path: &RootPath) -> bool {
        let is_it = |(slot, number): &(usize, usize)| self.directories[*slot].path_of(*number) == *path;
        self.order().iter().any(is_it)
    }
}

impl Directory {
    /// The path of an entry.
    pub(super) fn path_of(&self, number: usize) -> RootPath {
        match self.name_of(&self.entries[number]) {
            // The root, which has neither a name nor a directory.
            b"" => self.path.clone(),
            name => self.path.child(name),
        }
    }

    /// The entries that have a directory, by their numbers, and the numbers of these.
    pub(super) fn children(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        self.sealed.parents.iter().filter_map(|number| Some((*number, self.entries[*number].child?)))
    }

    pub(super) fn name_of(&self, entry: &SeenEntry) -> &[u8] {
        self.names.get(entry.name).0
    }

    /// Looks at all entries; nothing may change afterwards but the numbers of directories.
    pub(super) fn seal(&mut self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.push(u8::from(self.visible));
        let bytes = |bytes: &[u8], buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            buffer.extend_from_slice(bytes);
        };
        buffer.extend_from_slice(&(self.xattrs.len() as u64).to_le_bytes());
        for xattr in &self.xattrs {
            bytes(&xattr.name, buffer);
            bytes(&xattr.value, buffer);
        }
        let mut sealed = Sealed::default();
        let mut times = blake3::Hasher::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let SeenEntry { stat, target, included, visible, child, .. } = entry;
            sealed.is_partial |= !(*included && *visible);
            sealed.parents.extend(child.map(|_| number));
            bytes(self.names.get(entry.name).0, buffer);
            buffer.push(u8::from(*included) | u8::from(*visible) << 1 | u8::from(child.is_some()) << 2);
            for number in [stat.kind.as_raw_mode(), stat.mode, stat.device_number.0, stat.device_number.1] {
                buffer.extend_from_slice(&number.to_le_bytes());
            }
            bytes(target.as_deref().unwrap_or_default(), buffer);
            if stat.kind == rustix::fs::FileType::RegularFile {
                sealed.has_links |= stat.links > 1;
                let Stamp { device, inode, size, modified, changed } = stat.stamp;
                for number in [device, inode, size, u64::from(stat.links)] {
                    buffer.extend_from_slice(&number.to_le_bytes());
                }
                for time in [modified, changed] {
                    buffer.extend_from_slice(&time.seconds.to_le_bytes());
                    buffer.extend_from_slice(&time.nanoseconds.to_le_bytes());
                }
            } else {
                let time = stat.stamp.modified;
                times.update(&time.seconds.to_le_bytes());
                times.update(&time.nanoseconds.to_le_bytes());
            }
        }
        sealed.digest = *blake3::hash(buffer).as_bytes();
        times.update(&sealed.digest);
        sealed.digest_with_times = *times.finalize().as_bytes();
        self.sealed = sealed;
    }
}
