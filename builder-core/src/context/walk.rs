//! [`walk`]: everything below a path of a context that is neither ignored nor filtered away, in order.
//!
//! A directory is one task. Tasks are done by the calling thread; only when there are many do others help. A directory
//! is entered only if something in it can be wanted.

use std::collections::HashMap;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard};

use rustix::fs::{FileType, readlinkat};

use super::disk::{self, Disk, Stat};
use super::index::{Index, Stamp};
use super::pattern::{Above, Matcher};
use super::select::{Filter, FilterAbove};
use super::{ContextError, Selected};
use crate::rootfs::RootPath;
use crate::tree::{ContentDigest, Entry, Node, Time};

/// Entries that one thread looks at before it gets help: about 4 ms of work, a hundred times the cost of a thread.
const ALONE: usize = 2_000;

/// More threads than this only wait for each other in the kernel.
const MOST_THREADS: usize = 8;

/// What is looked through, and what is wanted of it.
pub(super) struct Walk<'a> {
    pub(super) disk: &'a Disk,
    pub(super) index: &'a Mutex<Index>,
    pub(super) ignore: &'a Matcher,
    pub(super) filter: &'a Filter,
    /// Length of the path of the match with its slash: where paths begin for the filter.
    pub(super) strip: usize,
}

/// One entry, before its content is known.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) selected: Selected,
    pub(super) stamp: Stamp,
    pub(super) links: u32,
    /// Its content has to be read.
    pub(super) unread: bool,
    /// Not ignored itself.
    visible: bool,
    child: Option<usize>,
}

/// Everything found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) items: Vec<Item>,
    /// All names of each directory that has a file whose content has to be read.
    pub(super) listings: HashMap<RootPath, Vec<Vec<u8>>>,
    /// The newest change seen.
    pub(super) newest: Time,
}

struct Task {
    path: RootPath,
    slot: usize,
    ignored: Above,
    filtered: FilterAbove,
}

#[derive(Default)]
struct Directory {
    items: Vec<Item>,
    tasks: Vec<Task>,
    xattrs: Vec<crate::tree::Xattr>,
    listing: Option<Vec<Vec<u8>>>,
    newest: Time,
    /// Something in it is not ignored, although the filter may not want it.
    visible: bool,
}

#[derive(Default)]
struct Progress {
    tasks: Vec<Task>,
    running: usize,
    seen: usize,
    done: Vec<Option<Directory>>,
    failed: Option<ContextError>,
}

/// Makes the item of an entry. The content of a file is taken from `known` or left to be read.
pub(super) fn item(path: RootPath, stat: &Stat, node: Option<Node>, known: Option<super::index::Record>) -> Item {
    let size = stat.stamp.size;
    let known = known.filter(|record| record.stamp == stat.stamp);
    let unread = node.is_none() && known.is_none();
    let (content, xattrs) =
        known.map_or((ContentDigest::new([0; 32]), Vec::new()), |known| (known.content, known.xattrs));
    let node = node.unwrap_or(Node::File { size, content, link: 0 });
    let mtime = stat.stamp.modified;
    let entry = Entry { path, node, mode: stat.mode, uid: 0, gid: 0, mtime, xattrs };
    let selected = Selected { entry, included: true, layer: 0 };
    Item { selected, stamp: stat.stamp, links: stat.links, unread, visible: true, child: None }
}

impl Walk<'_> {
    /// Looks through the directory `top`. Its own item comes first; `ignored` says whether it is ignored, and what
    /// the patterns say for its inside. Returns nothing if it is ignored and so is all that is in it.
    pub(super) fn walk(&self, top: Item, ignored: (bool, Above)) -> Result<Found, ContextError> {
        let task =
            Task { path: top.selected.entry.path.clone(), slot: 0, ignored: ignored.1, filtered: self.filter.root() };
        let progress = Progress { tasks: vec![task], done: Vec::from([None]), ..Progress::default() };
        let shared = (Mutex::new(progress), Condvar::new());
        std::thread::scope(|scope| {
            self.work(
                &shared,
                Some(&|| {
                    let helpers = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS) - 1;
                    for _ in 0..helpers {
                        scope.spawn(|| self.work(&shared, None));
                    }
                }),
            );
        });
        let progress = shared.0.into_inner().expect("no worker panics");
        if let Some(error) = progress.failed {
            return Err(error);
        }
        let top = Item { visible: !ignored.0, child: Some(0), ..top };
        Ok(gather(top, progress.done))
    }

    fn work(&self, shared: &(Mutex<Progress>, Condvar), mut ask_for_help: Option<&dyn Fn()>) {
        let (progress, changed) = shared;
        let lock = || progress.lock().expect("no worker panics");
        let mut state = lock();
        loop {
            let Some(task) = next(state, changed) else { return };
            let outcome = self.directory(&task);
            state = lock();
            state.running -= 1;
            match outcome {
                Ok(mut directory) => {
                    state.seen += directory.items.len();
                    // Slots were numbered within the directory.
                    let first = state.done.len();
                    for item in &mut directory.items {
                        item.child = item.child.map(|child| child + first);
                    }
                    for mut task in directory.tasks.drain(..).rev() {
                        task.slot += first;
                        state.tasks.push(task);
                        state.done.push(None);
                    }
                    state.done[task.slot] = Some(directory);
                }
                Err(error) => {
                    state.failed.get_or_insert(error);
                }
            }
            changed.notify_all();
            if state.seen > ALONE
                && state.tasks.len() > 1
                && let Some(ask) = ask_for_help.take()
            {
                ask();
            }
        }
    }

    fn directory(&self, task: &Task) -> Result<Directory, ContextError> {
        let read = |source| ContextError::Read { path: task.path.clone(), source };
        let mut directory = Directory::default();
        let fd = match self.disk.directory(&task.path) {
            Ok(fd) => fd,
            Err(error) if disk::is_gone(&error) => return Ok(directory),
            Err(error) => return Err(read(error)),
        };
        directory.xattrs = disk::xattrs(fd.as_fd()).map_err(read)?;
        let names = disk::list(fd.as_fd()).map_err(read)?;
        let records = self.index.lock().expect("no holder panics").directory(task.path.as_bytes());
        let mut records = records.as_ref().map(super::index::Records::reader);
        for (name, kind) in &names {
            let path = task.path.child(name);
            let failed = |source| ContextError::Read { path: task.path.child(name), source };
            let mut stat = None;
            let mut kind = *kind;
            if kind == FileType::Unknown {
                stat = Stat::in_directory(fd.as_fd(), name).map_err(failed)?;
                let Some(stat) = &stat else { continue };
                kind = stat.kind;
            }
            let Some(judged) = self.judge(task, &path, kind == FileType::Directory, &mut directory) else { continue };
            let stat = match stat {
                Some(stat) => stat,
                None => match Stat::in_directory(fd.as_fd(), name).map_err(failed)? {
                    Some(stat) => stat,
                    None => continue,
                },
            };
            if (stat.kind == FileType::Directory) != (kind == FileType::Directory) {
                // It became something else since the directory was read.
                return Err(ContextError::Changed(path));
            }
            let target = || Ok(readlinkat(fd.as_fd(), name.as_slice(), Vec::new())?.into_bytes());
            let node = match stat.node(target) {
                Ok(node) => node,
                Err(error) if disk::is_gone(&error) => continue,
                Err(error) => return Err(failed(error)),
            };
            let known = match (&node, &mut records) {
                (None, Some(records)) => records.find(name),
                _ => None,
            };
            directory.newest = directory.newest.max(stat.stamp.changed);
            let mut item = item(path, &stat, node, known);
            item.selected.included = judged.included;
            item.visible = judged.visible;
            if let Some((ignored, filtered)) = judged.inside {
                let slot = directory.tasks.len();
                item.child = Some(slot);
                directory.tasks.push(Task { path: item.selected.entry.path.clone(), slot, ignored, filtered });
            }
            directory.items.push(item);
        }
        if directory.items.iter().any(|item| item.unread) {
            directory.listing = Some(names.into_iter().map(|(name, _)| name).collect());
        }
        Ok(directory)
    }

    /// Whether an entry is wanted; for a directory, also what to take along into it.
    fn judge(&self, task: &Task, path: &RootPath, is_directory: bool, parent: &mut Directory) -> Option<Judged> {
        let below = &path.as_bytes()[self.strip..];
        if !is_directory {
            if self.ignore.judge(&task.ignored, path.as_bytes()).matched {
                return None;
            }
            parent.visible = true;
            return self.filter.takes(&task.filtered, below).then_some(Judged {
                included: true,
                visible: true,
                inside: None,
            });
        }
        let (verdict, ignored) = self.ignore.enter(&task.ignored, path.as_bytes());
        let visible = !verdict.matched;
        parent.visible |= visible;
        if !visible && !self.ignore.can_take_back_below(&ignored, path.as_bytes()) {
            return None;
        }
        let (included, filtered) = self.filter.enter(&task.filtered, below);
        if !included && filtered.is_none() {
            return None;
        }
        Some(Judged { included, visible, inside: filtered.map(|filtered| (ignored, filtered)) })
    }
}

struct Judged {
    included: bool,
    visible: bool,
    inside: Option<(Above, FilterAbove)>,
}

/// Waits for the next task; `None` when there will be none.
fn next(mut state: MutexGuard<'_, Progress>, changed: &Condvar) -> Option<Task> {
    loop {
        if state.failed.is_some() {
            return None;
        }
        if let Some(task) = state.tasks.pop() {
            state.running += 1;
            return Some(task);
        }
        if state.running == 0 {
            return None;
        }
        state = changed.wait(state).expect("no worker panics");
    }
}

/// Puts the directories one into the other, and drops those that are there only for what is below them, where nothing
/// is.
fn gather(top: Item, mut done: Vec<Option<Directory>>) -> Found {
    let mut found = Found::default();
    let mut parents: Vec<usize> = Vec::new();
    let mut saw_visible: Vec<bool> = Vec::new();
    let mut open = vec![(vec![top].into_iter(), 0)];
    while let Some((items, parent)) = open.last_mut() {
        let Some(mut item) = items.next() else {
            open.pop();
            continue;
        };
        let at = found.items.len();
        parents.push(*parent);
        let directory = item.child.and_then(|slot| done[slot].take());
        saw_visible.push(directory.as_ref().is_some_and(|directory| directory.visible));
        if let Some(directory) = directory {
            item.selected.entry.xattrs = directory.xattrs;
            found.newest = found.newest.max(directory.newest);
            if let Some(listing) = directory.listing {
                found.listings.insert(item.selected.entry.path.clone(), listing);
            }
            open.push((directory.items.into_iter(), at));
        }
        found.items.push(item);
    }
    if found.items.iter().all(|item| item.visible && item.selected.included) {
        return found;
    }
    let mut has_included = vec![false; found.items.len()];
    let mut keep = vec![true; found.items.len()];
    for at in (0..found.items.len()).rev() {
        let item = &found.items[at];
        let visible = item.visible || saw_visible[at];
        let included = item.selected.included || has_included[at];
        keep[at] = visible && included;
        saw_visible[parents[at]] |= visible;
        has_included[parents[at]] |= keep[at];
    }
    let mut keep = keep.into_iter();
    found.items.retain(|_| keep.next().expect("one for each"));
    found
}

/// Does `work` for every item, with as many threads as are worth it; `weight` is roughly the bytes to read.
pub(super) fn spread<T: Sync, R: Send>(
    items: &[T],
    weight: u64,
    work: impl Fn(&T, &mut Vec<u8>) -> Result<R, ContextError> + Sync,
) -> Result<Vec<R>, ContextError> {
    let worth = (items.len() / 64).max(usize::try_from(weight >> 22).unwrap_or(usize::MAX)) + 1;
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let threads = if worth > 1 { worth.min(items.len()).min(cores()) } else { 1 };
    let next = std::sync::atomic::AtomicUsize::new(0);
    let run = || {
        let mut buffer = Vec::new();
        let mut results = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(results) };
            match work(item, &mut buffer) {
                Ok(result) => results.push((at, result)),
                Err(error) => {
                    next.store(items.len(), std::sync::atomic::Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let mut all = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for helper in helpers {
            let more = helper.join().expect("no worker panics");
            all = all.and_then(|mut all| {
                all.extend(more?);
                Ok(all)
            });
        }
        all
    })?;
    all.sort_unstable_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}
