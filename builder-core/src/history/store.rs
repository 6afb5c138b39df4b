//! [`HistoryStore`]: builds on disk.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::log::{LogReader, LogWriter};
use super::record::{Build, BuildId, Inputs, Line, Status, Step, milliseconds};
use crate::diagnostic::Diagnostic;
use crate::small_file;
use crate::tree::TreeId;

/// What is kept; older builds go when a new one is recorded. The newest one always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Most builds.
    pub builds: usize,
    /// Longest time since they began.
    pub age: Option<Duration>,
    /// Most bytes of their files, logs included.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { builds: 200, age: None, bytes: None }
    }
}

/// Builds whose trees stay in the store, so that files which changed since can be named.
const EXPLAINED_BUILDS: usize = 20;

/// Hexadecimal digits of the BLAKE3 digest that begins each line.
const CHECKSUM: usize = 16;

/// The directory of builds.
#[derive(Debug, Clone)]
pub struct HistoryStore {
    directory: PathBuf,
    retention: Retention,
}

/// Something about recorded builds went wrong.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system fails.
    #[error("cannot access {}", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No build has this id.
    #[error("there is no build `{0}`")]
    NotFound(String),
    /// Several builds have ids that begin so.
    #[error("`{given}` is the beginning of {count} ids")]
    Ambiguous {
        /// What was given.
        given: String,
        /// How many ids it fits.
        count: usize,
    },
    /// Nothing was built yet.
    #[error("no build is recorded")]
    Empty,
    /// The file of the build says nothing.
    #[error("the record of build `{0}` is damaged")]
    Damaged(BuildId),
    /// No step has this number or name.
    #[error("build `{build}` has no step `{step}`")]
    NoStep {
        /// The build.
        build: BuildId,
        /// What was given.
        step: String,
    },
}

impl Diagnostic for HistoryError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) | Self::Ambiguous { .. } => Some("`rbuild history ls` lists the builds".to_owned()),
            Self::NoStep { build, .. } => Some(format!("`rbuild history inspect {build}` lists its steps")),
            Self::Access { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Some("use a store on a writable filesystem with `--root`".to_owned())
            }
            Self::Damaged(build) => Some(format!("remove it with `rbuild history rm {build}`")),
            _ => None,
        }
    }
}

impl HistoryStore {
    /// Names the history of a state directory; nothing is touched yet.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("history"), retention: Retention::default() }
    }

    /// The same, keeping more or less.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// The directory, for measuring.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Begins the journal of a build. Nothing is written before [`Journal::write`].
    ///
    /// Where the clock was set back the id comes right after the newest one, so that `latest` is what was built last.
    pub fn start(&self, at: SystemTime) -> Journal {
        let newest = self.ids().ok().and_then(|ids| ids.into_iter().next()).map_or(0, |id| id.started());
        let after = UNIX_EPOCH + Duration::from_millis(u64::try_from(newest).unwrap_or(0) + 1);
        let at = if milliseconds(at) < newest { after } else { at };
        let mut random = [0; 8];
        // Two builds of one millisecond with equal ids: the second cannot make its file, and says so.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let id = BuildId::new(at, u64::from_le_bytes(random));
        Journal { store: self.clone(), id, file: None }
    }

    /// The ids of all builds, newest first.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn ids(&self) -> Result<Vec<BuildId>, HistoryError> {
        let directory = self.builds();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(HistoryError::Access { path: directory, source }),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| HistoryError::Access { path: directory.clone(), source })?;
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort_by(|a: &BuildId, b| b.cmp(a));
        Ok(ids)
    }

    /// The build that `reference` means: an id or its beginning, `latest`, or `^N` for the Nth before the latest. Before an
    /// id there may be names of a builder, as in `default/default/ID` of docker.
    ///
    /// # Errors
    /// [`HistoryError::NotFound`], [`HistoryError::Ambiguous`], [`HistoryError::Empty`], [`HistoryError::Access`]
    pub fn find(&self, reference: &str) -> Result<BuildId, HistoryError> {
        let mut ids = self.ids()?;
        if ids.is_empty() {
            return Err(HistoryError::Empty);
        }
        let not_found = || HistoryError::NotFound(reference.to_owned());
        let back = match reference.strip_prefix('^') {
            Some(number) => Some(number.parse::<usize>().map_err(|_| not_found())?),
            None => (reference == "latest").then_some(0),
        };
        if let Some(back) = back {
            return if back < ids.len() { Ok(ids.swap_remove(back)) } else { Err(not_found()) };
        }
        let start = reference.rsplit('/').next().unwrap_or_default();
        ids.retain(|id| !start.is_empty() && id.as_str().starts_with(start));
        match ids.len() {
            0 => Err(not_found()),
            1 => Ok(ids.swap_remove(0)),
            count => Err(HistoryError::Ambiguous { given: reference.to_owned(), count }),
        }
    }

    /// Reads a build. Lines that are damaged or cut off are left out.
    ///
    /// # Errors
    /// [`HistoryError::NotFound`] if it is gone, [`HistoryError::Damaged`] if nothing of it can be read.
    pub fn get(&self, id: &BuildId) -> Result<Build, HistoryError> {
        let path = self.build_path(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HistoryError::NotFound(id.to_string()));
            }
            Err(source) => return Err(HistoryError::Access { path, source }),
        };
        let mut build = None;
        let mut steps: Vec<Step> = Vec::new();
        let mut end = None;
        for line in bytes.split(|byte| *byte == b'\n').filter_map(unseal) {
            match line {
                Line::Begun { started, inputs } => build = Some((started, inputs)),
                Line::Step(step) => steps.push(*step),
                Line::Ended(ended) => end = Some(ended),
            }
        }
        // Of several lines about a step, the last one is the first in reverse.
        steps.reverse();
        steps.sort_by_key(|step| step.number);
        steps.dedup_by_key(|step| step.number);
        let (started, inputs): (i64, Inputs) = build.ok_or_else(|| HistoryError::Damaged(id.clone()))?;
        let status = match &end {
            Some(end) => end.status,
            None if is_locked(&path) => Status::Running,
            None => Status::Interrupted,
        };
        Ok(Build { id: id.clone(), started, inputs, steps, end, status })
    }

    /// Every build that can be read, newest first, read one by one as they are asked for.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn builds_newest_first(&self) -> Result<impl Iterator<Item = Build> + '_, HistoryError> {
        Ok(self.ids()?.into_iter().filter_map(|id| self.get(&id).ok()))
    }

    /// Opens what a step wrote; `None` if it wrote nothing.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn log(&self, id: &BuildId, step: usize) -> Result<Option<LogReader>, HistoryError> {
        let path = self.log_path(id, step);
        LogReader::open(&path).map_err(|source| HistoryError::Access { path, source })
    }

    /// Forgets a build and its logs; one that is gone already is not an error.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn remove(&self, id: &BuildId) -> Result<(), HistoryError> {
        let logs = self.directory.join("logs").join(id.as_str());
        // The logs first: a build without them is whole, logs without a build would stay.
        for (path, removed) in
            [(logs.clone(), fs::remove_dir_all(&logs)), (self.build_path(id), fs::remove_file(self.build_path(id)))]
        {
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(HistoryError::Access { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets the builds that are not to be kept; returns how many.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn trim(&self, now: SystemTime) -> Result<usize, HistoryError> {
        let Retention { builds, age, bytes } = self.retention;
        // An id from the future was made beside a clock that had been wrong: the journal says when the build began.
        let began = |id: &BuildId| match id.started() {
            started if started <= milliseconds(now) => started,
            started => self.get(id).map_or(started, |build| build.started),
        };
        let oldest = age.map(|age| milliseconds(now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)));
        let (mut removed, mut used) = (0, 0_u64);
        for (number, id) in self.ids()?.into_iter().enumerate() {
            let path = self.build_path(&id);
            let too_old = oldest.is_some_and(|oldest| began(&id) < oldest);
            if bytes.is_some() {
                let journal = fs::metadata(&path).map_or(0, |found| found.len());
                used = used.saturating_add(journal + length_of_files(&self.directory.join("logs").join(id.as_str())));
            }
            let too_much = bytes.is_some_and(|bytes| used > bytes);
            if number > 0 && (number >= builds || too_old || too_much) && !is_locked(&path) {
                self.remove(&id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Trees that explain the newest builds: what their steps resulted in, and what their mounts showed.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn trees(&self) -> Result<HashSet<TreeId>, HistoryError> {
        let of_step = |step: Step| {
            let elsewhere = step.elsewhere.into_iter().filter_map(|place| place.tree);
            step.shown.into_values().chain(step.tree).chain(elsewhere).collect::<Vec<_>>()
        };
        let builds = self.builds_newest_first()?.take(EXPLAINED_BUILDS);
        Ok(builds.flat_map(|build| build.steps).flat_map(of_step).collect())
    }

    fn builds(&self) -> PathBuf {
        self.directory.join("builds")
    }

    fn build_path(&self, id: &BuildId) -> PathBuf {
        self.builds().join(id.as_str())
    }

    fn log_path(&self, id: &BuildId, step: usize) -> PathBuf {
        self.directory.join("logs").join(id.as_str()).join(step.to_string())
    }
}

/// The record of a build that is under way.
#[derive(Debug)]
pub struct Journal {
    store: HistoryStore,
    id: BuildId,
    /// Locked as long as it is open, so that others know that the build runs.
    file: Option<File>,
}

impl Journal {
    /// The build.
    pub fn id(&self) -> &BuildId {
        &self.id
    }

    /// Appends lines with one write.
    ///
    /// # Errors
    /// [`HistoryError::Access`]
    pub fn write<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) -> Result<(), HistoryError> {
        let mut bytes = Vec::new();
        for line in lines {
            seal(line, &mut bytes);
        }
        let path = self.store.build_path(&self.id);
        let error = |source| HistoryError::Access { path: path.clone(), source };
        if let Some(file) = &mut self.file {
            return file.write_all(&bytes).map_err(error);
        }
        self.file = Some(self.create(&path, &bytes).map_err(error)?);
        Ok(())
    }

    /// Whether anything was written yet.
    pub fn is_begun(&self) -> bool {
        self.file.is_some()
    }

    /// The log of a step.
    pub fn log(&self, step: usize) -> LogWriter {
        LogWriter::new(self.store.log_path(&self.id, step))
    }

    /// Makes the file with its first lines: nobody ever sees it empty, or without its lock.
    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let directory = self.store.builds();
        small_file::make_directory(&directory)?;
        let mut file = small_file::begin(&directory)?;
        // Where locks are not to be had, a build that runs looks like one that was interrupted.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        file.write_all(bytes)?;
        Ok(file.persist_noclobber(path)?)
    }
}

fn seal(line: &Line, bytes: &mut Vec<u8>) {
    let body = serde_json::to_vec(line).expect("plain data serialises");
    bytes.extend_from_slice(&blake3::hash(&body).to_hex().as_bytes()[..CHECKSUM]);
    bytes.push(b' ');
    bytes.extend(body);
    bytes.push(b'\n');
}

fn unseal(bytes: &[u8]) -> Option<Line> {
    let (head, body) = bytes.split_at_checked(CHECKSUM + 1)?;
    let intact = head[..CHECKSUM] == blake3::hash(body).to_hex().as_bytes()[..CHECKSUM] && head[CHECKSUM] == b' ';
    if intact { serde_json::from_slice(body).ok() } else { None }
}

/// Whether another process, or another build of this one, holds the lock of a journal.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Bytes of the files in a directory; what cannot be read counts as nothing.
fn length_of_files(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::history::{End, Verdict};

    fn begun(context: &str) -> Line {
        Line::Begun { started: 0, inputs: Inputs { context: context.to_owned(), ..Inputs::default() } }
    }

    fn step(number: usize, verdict: Verdict) -> Line {
        Line::Step(Box::new(Step { number, verdict, op: "run".to_owned(), ..Step::default() }))
    }

    fn ended() -> Line {
        let status = Status::Completed;
        Line::Ended(End { status, error: None, milliseconds: 5, image: None, verified: Vec::new() })
    }

    fn store(directory: &tempfile::TempDir, builds: u64) -> HistoryStore {
        let store = HistoryStore::new(directory.path());
        for n in 0..builds {
            let mut journal = store.start(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n));
            journal.write(&[begun(&n.to_string()), step(0, Verdict::Hit), ended()]).expect("written");
        }
        store
    }

    #[test]
    fn builds_are_found_by_their_place_and_their_id() {
        let directory = tempfile::tempdir().expect("temporary directory");
        assert!(matches!(HistoryStore::new(directory.path()).find("latest"), Err(HistoryError::Empty)));
        let store = store(&directory, 3);
        let ids = store.ids().expect("listed");
        let check = |reference: &str, expected: Option<usize>| {
            assert_eq!(store.find(reference).ok(), expected.map(|index| ids[index].clone()), "{reference}");
        };
        check("latest", Some(0));
        check("^0", Some(0));
        check("^2", Some(2));
        check("^3", None);
        check("^x", None);
        check(ids[1].as_str(), Some(1));
        check(&ids[1].as_str()[..12], Some(1));
        check("", None);
        check("zzz", None);
        assert!(matches!(store.find(&ids[0].as_str()[..4]), Err(HistoryError::Ambiguous { count: 3, .. })));
        assert_eq!(store.get(&ids[2]).expect("there").inputs.context, "0");
    }

    #[test]
    fn what_was_built_last_is_the_latest_also_after_the_clock_was_set_back() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = HistoryStore::new(directory.path())
            .with_retention(Retention { age: Some(Duration::from_secs(3600)), ..Retention::default() });
        // The second one was built beside a clock that was far ahead.
        let ids = [1_700_000_000, 2_200_000_000, 1_700_000_005, 1_700_000_009].map(|at| {
            let mut journal = store.start(UNIX_EPOCH + Duration::from_secs(at));
            let started = i64::try_from(at).expect("small") * 1000;
            journal.write(&[Line::Begun { started, inputs: Inputs::default() }, ended()]).expect("written");
            journal.id().clone()
        });
        assert!(store.ids().expect("listed").into_iter().rev().eq(ids.clone()));
        assert_eq!(store.get(&ids[2]).expect("there").started, 1_700_000_005_000);
        // An hour and seven seconds after the first.
        assert_eq!(store.trim(UNIX_EPOCH + Duration::from_secs(1_700_003_607)).expect("trimmed"), 2);
        assert_eq!(store.ids().expect("listed"), [ids[3].clone(), ids[1].clone()]);
    }

    #[test]
    fn the_oldest_go_with_their_logs() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = store(&directory, 5);
        let ids = store.ids().expect("listed");
        fs::create_dir_all(store.log_path(&ids[4], 0)).expect("made");
        let later = SystemTime::now() + Duration::from_secs(10);
        let trim = |retention| store.clone().with_retention(retention).trim(later).expect("trimmed");
        let all = Retention::default();
        assert_eq!(trim(all), 0);
        assert_eq!(trim(Retention { builds: 2, bytes: Some(1 << 30), ..all }), 3);
        assert_eq!(store.ids().expect("listed"), ids[..2]);
        assert!(!store.directory.join("logs").join(ids[4].as_str()).exists());
        assert_eq!(trim(Retention { age: Some(Duration::ZERO), ..all }), 1, "the newest stays");
        assert_eq!(trim(Retention { builds: 0, bytes: Some(0), ..all }), 0);
    }

    #[test]
    fn a_journal_tells_how_its_build_stands() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = HistoryStore::new(directory.path());
        let mut journal = store.start(SystemTime::now());
        let id = journal.id().clone();
        journal.write(&[begun("."), step(1, Verdict::Hit)]).expect("written");
        assert_eq!(store.get(&id).expect("there").status, Status::Running);
        journal.write(&[step(0, Verdict::Run), step(1, Verdict::Run)]).expect("written");
        drop(journal);
        let build = store.get(&id).expect("there");
        assert_eq!(build.status, Status::Interrupted);
        assert_eq!(
            build.steps.iter().map(|step| (step.number, step.verdict)).collect::<Vec<_>>(),
            [(0, Verdict::Run), (1, Verdict::Run)]
        );
    }

    #[test]
    fn damaged_lines_are_left_out_and_never_believed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = store(&directory, 1);
        let id = store.find("latest").expect("there");
        let good = fs::read(store.build_path(&id)).expect("there");
        let whole = store.get(&id).expect("there");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(store.build_path(&id), bad).expect("written");
            match store.get(&id) {
                Ok(build) => assert!(build.steps.is_empty() || build.end.is_none(), "byte {at}: {build:?}"),
                Err(HistoryError::Damaged(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        for length in 0..good.len() - 1 {
            fs::write(store.build_path(&id), &good[..length]).expect("written");
            assert!(store.get(&id).ok() != Some(whole.clone()), "{length}");
        }
    }
}
