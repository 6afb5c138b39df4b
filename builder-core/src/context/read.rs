//! [`BuildContext::read`]: from a [`Survey`] to entries with digests.

use std::collections::{BTreeMap, HashMap};

use rustix::fs::FileType;

use super::disk::Hashed;
use super::index::{Record, Records};
use super::survey::{Seen, SeenEntry, Survey};
use super::walk::spread;
use super::{BuildContext, ContextError, Match, Selected};
use crate::rootfs::RootPath;
use crate::tree::{ContentDigest, Entry, Node};

/// What a survey came to.
#[derive(Debug)]
pub struct Reading {
    /// One for each path that the source stands for.
    pub matches: Vec<Match>,
    /// Every file is still the one that was surveyed, had no writer, and was old enough when it was read that any later
    /// change has to show in a survey. Then, and only then, an equal fingerprint says that reading would give this again.
    pub settled: bool,
}

/// The entries of a match, and what is not known of them yet.
struct Entries {
    all: Vec<Selected>,
    /// Files whose content has to be read.
    unread: Vec<Unread>,
    /// Device and inode of each regular file that has several names, by its number.
    linked: BTreeMap<usize, (u64, u64)>,
}

struct Unread {
    /// Number of the entry.
    at: usize,
    /// Number of its directory, and its own number there.
    place: (usize, usize),
    path: RootPath,
}

impl BuildContext {
    /// The second half of [`BuildContext::select`]: reads the files that the index does not know as they are.
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, survey: &Survey) -> Result<Reading, ContextError> {
        let mut reading = Reading { matches: Vec::with_capacity(survey.matches.len()), settled: true };
        for seen in &survey.matches {
            let (found, settled) = self.read_entries(seen, seen.order())?;
            reading.settled &= settled;
            reading.matches.push(found);
        }
        Ok(reading)
    }

    /// Reads entries of what was seen, each given as the numbers of its directory and in it. Also says whether they are
    /// [settled](Reading::settled).
    pub(super) fn read_entries(&self, seen: &Seen, order: Vec<(usize, usize)>) -> Result<(Match, bool), ContextError> {
        let mut entries = self.known(seen, order);
        let settled = self.read_files(seen, &mut entries)?;
        number_links(&mut entries);
        entries.all.iter_mut().for_each(|selected| self.mode.apply(&mut selected.entry));
        Ok((Match { name: seen.name.clone(), root: seen.root.clone(), entries: entries.all }, settled))
    }

    /// Makes the entries; the content of files is that of the index.
    fn known(&self, seen: &Seen, order: Vec<(usize, usize)>) -> Entries {
        let mut has_files = vec![false; seen.directories.len()];
        for (slot, number) in &order {
            has_files[*slot] |= seen.directories[*slot].entries[*number].stat.kind == FileType::RegularFile;
        }
        let mut index = self.index.lock().expect("no holder panics");
        let records = seen
            .directories
            .iter()
            .zip(has_files)
            .map(|(directory, has_files)| has_files.then(|| index.directory(directory.path.as_bytes())).flatten());
        let records: Vec<Option<Records>> = records.collect();
        drop(index);
        let mut readers: Vec<_> = records.iter().map(|records| records.as_ref().map(Records::reader)).collect();
        let mut found = Entries { all: Vec::with_capacity(order.len()), unread: Vec::new(), linked: BTreeMap::new() };
        for (at, place @ (slot, number)) in order.into_iter().enumerate() {
            let directory = &seen.directories[slot];
            let entry = &directory.entries[number];
            let SeenEntry { stat, target, included, child, .. } = entry;
            let path = directory.path_of(number);
            let mut xattrs = child.map(|child| seen.directories[child].xattrs.clone()).unwrap_or_default();
            let node = stat.node(target.as_deref()).unwrap_or_else(|| {
                if stat.links > 1 {
                    found.linked.insert(at, (stat.stamp.device, stat.stamp.inode));
                }
                let known = readers[slot].as_mut().and_then(|records| records.find(directory.name_of(entry)));
                let mut content = ContentDigest::new([0; 32]);
                match known.filter(|record| record.stamp == stat.stamp) {
                    Some(record) => (content, xattrs) = (record.content, record.xattrs),
                    None => found.unread.push(Unread { at, place, path: path.clone() }),
                }
                Node::File { size: stat.stamp.size, content, link: 0 }
            });
            let entry = Entry { path, node, mode: stat.mode, uid: 0, gid: 0, mtime: stat.stamp.modified, xattrs };
            found.all.push(Selected { entry, included: *included, layer: 0 });
        }
        found
    }

    /// Reads the files whose content the index does not know, and tells it what it may keep: the answer is whether that
    /// is all of them.
    fn read_files(&self, seen: &Seen, found: &mut Entries) -> Result<bool, ContextError> {
        if found.unread.is_empty() {
            return Ok(true);
        }
        let newest = seen.directories.iter().map(|directory| directory.newest).max().unwrap_or_default();
        let stat = |unread: &Unread| &seen.directories[unread.place.0].entries[unread.place.1].stat;
        let weight = found.unread.iter().map(|unread| stat(unread).stamp.size).sum();
        let hashed = spread(&found.unread, weight, |unread, buffer| self.disk.hash(&unread.path, buffer))?;
        let mut settled: HashMap<usize, Vec<(Vec<u8>, Record)>> = HashMap::new();
        let mut all_settled = true;
        for (unread, Hashed { stat: read, record, began, has_writer }) in found.unread.iter().zip(hashed) {
            found.linked.remove(&unread.at);
            if read.links > 1 {
                found.linked.insert(unread.at, (read.stamp.device, read.stamp.inode));
            }
            let entry = &mut found.all[unread.at].entry;
            entry.node = Node::File { size: read.stamp.size, content: record.content, link: 0 };
            entry.mode = read.mode;
            entry.mtime = read.stamp.modified;
            entry.xattrs.clone_from(&record.xattrs);
            let is_settled = !has_writer && self.disk.is_settled(&read.stamp, began, newest);
            all_settled &= is_settled && read.stamp == stat(unread).stamp;
            if is_settled {
                let name = unread.path.file_name().expect("a file is not the root").to_vec();
                settled.entry(unread.place.0).or_default().push((name, record));
            }
        }
        let mut index = self.index.lock().expect("no holder panics");
        for (slot, records) in settled {
            let directory = &seen.directories[slot];
            // Of the directory above the match only the name of the match is known.
            let listing = (slot > 0).then_some(&directory.names);
            index.remember(directory.path.as_bytes(), records, listing);
        }
        Ok(all_settled)
    }
}

/// Gives regular files that are one inode a common number.
fn number_links(found: &mut Entries) {
    let mut numbers: HashMap<(u64, u64), u32> = HashMap::new();
    for (at, inode) in &found.linked {
        if let Node::File { link, .. } = &mut found.all[*at].entry.node {
            let next = u32::try_from(numbers.len()).expect("fewer than 2^32 files") + 1;
            *link = *numbers.entry(*inode).or_insert(next);
        }
    }
}
