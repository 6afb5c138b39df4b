//! [`walk`]: everything below a path of a context that is neither ignored nor filtered away, as the kernel describes it.
//!
//! A directory is one task. Tasks are done by the calling thread; only when there are many do others help. A directory
//! is entered only if something in it can be wanted.

use std::num::NonZero;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard};

use rustix::fs::{FileType, readlinkat};

use super::ContextError;
use super::disk::{self, Disk, Names, Stat};
use super::pattern::{Above, Matcher};
use super::select::{Filter, FilterAbove};
use super::survey::{Directory, Entered, SeenEntry};

/// Entries that one thread looks at before it gets help: about 1 ms of work, twenty times the cost of a thread.
const ALONE: usize = 500;

/// More threads than this only wait for each other in the kernel.
const MOST_THREADS: usize = 8;

/// What is looked through, and what is wanted of it.
pub(super) struct Walk<'a> {
    pub(super) disk: &'a Disk,
    pub(super) ignore: &'a Matcher,
    pub(super) filter: &'a Filter,
    /// Length of the path of the match with its slash: where paths begin for the filter.
    pub(super) strip: usize,
}

/// What a thread uses again for each directory.
#[derive(Default)]
struct Buffers {
    path: Vec<u8>,
    encoding: Vec<u8>,
}

struct Progress {
    tasks: Vec<Entered>,
    running: usize,
    seen: usize,
    done: Vec<Directory>,
    failed: Option<ContextError>,
}

impl Walk<'_> {
    /// Looks through the directory that is the only entry of `above`. Puts what is below it behind `above`.
    pub(super) fn walk(&self, above: Directory, top: Entered) -> Result<Vec<Directory>, ContextError> {
        let done = vec![above, Directory::default()];
        let progress = Progress { tasks: vec![top], running: 0, seen: 0, done, failed: None };
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
        progress.failed.map_or(Ok(progress.done), Err)
    }

    fn work(&self, shared: &(Mutex<Progress>, Condvar), mut ask_for_help: Option<&dyn Fn()>) {
        let (progress, changed) = shared;
        let lock = || progress.lock().expect("no worker panics");
        let mut buffers = Buffers::default();
        let mut state = lock();
        loop {
            let Some(task) = next(state, changed) else { return };
            let outcome = self.directory(&task, &mut buffers);
            state = lock();
            state.running -= 1;
            match outcome {
                Ok((mut directory, tasks)) => {
                    state.seen += directory.entries.len();
                    // Slots were numbered within the directory.
                    let first = state.done.len();
                    for entry in directory.entries.iter_mut().filter(|_| !tasks.is_empty()) {
                        entry.child = entry.child.map(|child| child + first);
                    }
                    state.done.resize_with(first + tasks.len(), Directory::default);
                    state.done[task.slot] = directory;
                    let is_news = !tasks.is_empty() || state.running == 0;
                    let tasks = tasks.into_iter().rev();
                    state.tasks.extend(tasks.map(|task| Entered { slot: task.slot + first, ..task }));
                    if is_news {
                        changed.notify_all();
                    }
                }
                Err(error) => {
                    state.failed.get_or_insert(error);
                    changed.notify_all();
                }
            }
            if state.seen > ALONE
                && state.tasks.len() > 1
                && let Some(ask) = ask_for_help.take()
            {
                ask();
            }
        }
    }

    /// Looks at one directory; also says which ones in it are to be looked at.
    fn directory(&self, task: &Entered, buffers: &mut Buffers) -> Result<(Directory, Vec<Entered>), ContextError> {
        let read = |source| ContextError::Read { path: task.path.clone(), source };
        let mut directory = Directory { path: task.path.clone(), ..Directory::default() };
        let mut tasks = Vec::new();
        let fd = match self.disk.directory(&task.path) {
            Ok(fd) => fd,
            Err(error) if disk::is_gone(&error) => return Ok((directory, tasks)),
            Err(error) => return Err(read(error)),
        };
        directory.xattrs = disk::xattrs(fd.as_fd()).map_err(read)?;
        let names = Names::of(fd.as_fd()).map_err(read)?;
        directory.entries.reserve_exact(names.len());
        let Buffers { path, encoding } = buffers;
        path.clear();
        path.extend_from_slice(task.path.as_bytes());
        if !path.is_empty() {
            path.push(b'/');
        }
        let above = path.len();
        for (number, (name, mut kind)) in names.iter().enumerate() {
            path.truncate(above);
            path.extend_from_slice(name);
            let failed = |source| ContextError::Read { path: task.path.child(name), source };
            let mut stat = None;
            if kind == FileType::Unknown {
                stat = Stat::in_directory(fd.as_fd(), name).map_err(failed)?;
                let Some(stat) = &stat else { continue };
                kind = stat.kind;
            }
            let slot = tasks.len();
            let Some(judged) = self.judge(task, path, kind == FileType::Directory, &mut directory) else { continue };
            let stat = match stat {
                Some(stat) => stat,
                None => match Stat::in_directory(fd.as_fd(), name).map_err(failed)? {
                    Some(stat) => stat,
                    None => continue,
                },
            };
            if (stat.kind == FileType::Directory) != (kind == FileType::Directory) {
                // It became something else since the directory was read.
                return Err(ContextError::Changed(task.path.child(name)));
            }
            let mut target = None;
            if stat.kind == FileType::Symlink {
                match readlinkat(fd.as_fd(), name, Vec::new()).map_err(std::io::Error::from) {
                    Ok(read) => target = Some(read.into_bytes()),
                    Err(error) if disk::is_gone(&error) => continue,
                    Err(error) => return Err(failed(error)),
                }
            }
            directory.newest = directory.newest.max(stat.stamp.changed);
            let Judged { included, visible, inside } = judged;
            let child = inside.map(|(ignored, filtered)| {
                tasks.push(Entered { path: task.path.child(name), slot, ignored, filtered });
                slot
            });
            directory.entries.push(SeenEntry { name: number, stat, target, included, visible, child });
        }
        directory.names = names;
        directory.seal(encoding);
        Ok((directory, tasks))
    }

    /// Whether an entry is wanted; for a directory, also what to take along into it.
    fn judge(&self, task: &Entered, path: &[u8], is_directory: bool, parent: &mut Directory) -> Option<Judged> {
        let below = &path[self.strip..];
        if !is_directory {
            if self.ignore.judge(&task.ignored, path).matched {
                return None;
            }
            parent.visible = true;
            return self.filter.takes(&task.filtered, below).then_some(Judged {
                included: true,
                visible: true,
                inside: None,
            });
        }
        let (verdict, ignored) = self.ignore.enter(&task.ignored, path);
        let visible = !verdict.matched;
        parent.visible |= visible;
        if !visible && !self.ignore.can_take_back_below(&ignored, path) {
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
fn next(mut state: MutexGuard<'_, Progress>, changed: &Condvar) -> Option<Entered> {
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
