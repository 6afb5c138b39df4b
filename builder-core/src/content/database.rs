//! [`Database`]: the one SQLite file of a store.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::ContentError;

use crate::lock::lock;
use crate::small_file;

/// Schema of the database file, in its `user_version`. Raise it with a migration in [`create`].
const SCHEMA: u32 = 2;

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(30);

/// Pages in the write-ahead log before they are moved into the file. The log is read when a process opens the
/// database, so it is kept short; moving is the only moment at which SQLite syncs.
const CHECKPOINT_PAGES: u32 = 128;

/// Images, tags, and facts about layers and blobs.
///
/// Nothing happens until the first question; then the file is opened, and made if it is missing. A damaged file is
/// set aside and a new one started: [`Database::warning`] says so. Everything in it can be fetched or built again.
pub struct Database {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    warning: Option<String>,
}

impl Database {
    /// The database of the store in `state`; touches nothing yet.
    pub(super) fn new(state: &Path) -> Self {
        Self { path: state.join("db.sqlite"), state: Mutex::default() }
    }

    /// Takes the one line to show when a damaged database was replaced.
    pub fn warning(&self) -> Option<String> {
        self.lock().warning.take()
    }

    /// Runs `work` with the connection. It may be run a second time, on a new file, if the old one is damaged.
    ///
    /// # Errors
    /// [`ContentError::Database`], and [`ContentError::NewerFormat`] if the schema is of a newer program.
    pub(crate) fn with<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, ContentError> {
        let mut state = self.lock();
        match self.attempt(&mut state, &work) {
            Err(ContentError::Database { source, .. }) if self.is_damage(&source) => {
                state.connection = None;
                let aside = self.set_aside()?;
                state.warning = aside.map(|aside| {
                    format!(
                        "the database of the store was damaged ({source}); it was set aside as {} and a new one started",
                        aside.display()
                    )
                });
                self.attempt(&mut state, &work)
            }
            other => other,
        }
    }

    /// Runs `work`, which remembers something that only saves work later: a store that cannot be written goes without it.
    ///
    /// # Errors
    /// Those of [`Database::with`], but for that.
    pub(crate) fn note(&self, work: impl Fn(&Connection) -> rusqlite::Result<()>) -> Result<(), ContentError> {
        match self.with(work) {
            Err(error) if error.is_read_only() => Ok(()),
            other => other,
        }
    }

    /// Runs `work` in one transaction that is taken for writing from its start.
    ///
    /// # Errors
    /// Those of [`Database::with`].
    pub(crate) fn write<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, ContentError> {
        self.with(|connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let result = work(connection).and_then(|value| connection.execute_batch("COMMIT").map(|()| value));
            if result.is_err() && !connection.is_autocommit() {
                let _ = connection.execute_batch("ROLLBACK");
            }
            result
        })
    }

    /// Reads the whole file. If it is damaged, its path; with `repair` it is set aside first, and a new one started, which
    /// knows no images: their files are found again when they are pulled or built again.
    ///
    /// # Errors
    /// [`ContentError::Database`] if it cannot be opened; [`ContentError::Write`].
    pub fn damaged(&self, repair: bool) -> Result<Option<PathBuf>, ContentError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let sound = self.with(|connection| Ok(is_sound(connection)));
        match sound {
            Ok(true) => return Ok(None),
            Ok(false) => {}
            Err(ContentError::Database { source, .. }) if self.is_damage(&source) => {}
            Err(error) => return Err(error),
        }
        if !repair {
            return Ok(Some(self.path.clone()));
        }
        self.lock().connection = None;
        Ok(Some(self.set_aside()?.unwrap_or_else(|| self.path.clone())))
    }

    fn attempt<T>(
        &self,
        state: &mut State,
        work: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ContentError> {
        if state.connection.is_none() {
            state.connection = Some(self.open()?);
        }
        let connection = state.connection.as_ref().expect("opened just above");
        work(connection).map_err(|source| self.error(source))
    }

    fn open(&self) -> Result<Connection, ContentError> {
        let connection = self.reach().map_err(|source| self.error(source))?;
        if self.schema(&connection)? == SCHEMA {
            return Ok(connection);
        }
        // One process at a time makes or migrates: changing to write-ahead logging does not wait for others.
        let _lock = self.file_lock()?;
        if self.schema(&connection)? < SCHEMA {
            create(&connection).map_err(|source| self.error(source))?;
        }
        Ok(connection)
    }

    /// Opens the file so that it can be read. On a read-only file system the index of the log may be missing, and cannot be
    /// made: as nobody can write there, the log is read without it, and without locks.
    fn reach(&self) -> rusqlite::Result<Connection> {
        let reached = self.connect(None).and_then(|connection| version(&connection).map(|_| connection));
        match reached {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && self.is_read_only() => {
                // `wal.html` of SQLite, section 8: exclusive mode keeps the index in memory.
                self.connect(Some("unix-none"))
            }
            reached => reached,
        }
    }

    fn is_read_only(&self) -> bool {
        let above = self.path.parent().and_then(|parent| rustix::fs::statvfs(parent).ok());
        self.path.exists() && above.is_some_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    }

    fn connect(&self, vfs: Option<&str>) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = match vfs {
            None => Connection::open_with_flags(self.canonical(), flags)?,
            Some(vfs) => {
                let connection = Connection::open_with_flags_and_vfs(self.canonical(), flags, vfs)?;
                connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
                connection
            }
        };
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // Closing would sync the file; the log is as durable.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    }

    /// The path with the links above the store resolved: SQLite's refusal of links is about the whole path.
    fn canonical(&self) -> PathBuf {
        match (self.path.parent().and_then(|parent| parent.canonicalize().ok()), self.path.file_name()) {
            (Some(parent), Some(name)) => parent.join(name),
            _ => self.path.clone(),
        }
    }

    fn schema(&self, connection: &Connection) -> Result<u32, ContentError> {
        let found = version(connection).map_err(|source| self.error(source))?;
        if found > SCHEMA {
            return Err(ContentError::NewerFormat { path: self.path.clone(), found, known: SCHEMA });
        }
        Ok(found)
    }

    /// Moves a damaged file and its log away; `None` if another process has done it.
    fn set_aside(&self) -> Result<Option<PathBuf>, ContentError> {
        let _lock = self.file_lock()?;
        let remove =
            |path: PathBuf| small_file::remove(&path).map(drop).map_err(|source| ContentError::Write { path, source });
        self.log_files().into_iter().filter(|path| path.is_dir()).try_for_each(remove)?;
        // What one process found damaged may have been replaced by another one while this one waited.
        if self.connect(None).is_ok_and(|connection| is_sound(&connection)) {
            return Ok(None);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut names = (now..).map(|number| self.path.with_extension(format!("damaged-{number}")));
        let aside = names.find(|path| !path.exists()).expect("there are not so many");
        self.log_files().into_iter().try_for_each(remove)?;
        std::fs::rename(&self.path, &aside)
            .map_err(|source| ContentError::Write { path: self.path.clone(), source })?;
        Ok(Some(aside))
    }

    /// Says whether an error means that the file's bytes are wrong, or that it or its log are no files.
    fn is_damage(&self, error: &rusqlite::Error) -> bool {
        let is_no_file = |path: &PathBuf| path.is_dir();
        let cannot_open = error.sqlite_error_code() == Some(ErrorCode::CannotOpen);
        is_damage(error) || (cannot_open && (is_no_file(&self.path) || self.log_files().iter().any(is_no_file)))
    }

    /// The write-ahead log, and its index.
    fn log_files(&self) -> [PathBuf; 2] {
        ["-wal", "-shm"].map(|suffix| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            name.into()
        })
    }

    fn file_lock(&self) -> Result<File, ContentError> {
        let path = self.path.with_file_name("db.lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = || {
            let open = || Ok(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
            let file = small_file::open(&path, open)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
            Ok::<_, io::Error>(File::from(file))
        };
        lock().map_err(|source| ContentError::Write { path: path.clone(), source })
    }

    fn error(&self, source: rusqlite::Error) -> ContentError {
        // What the file system refuses reads as anywhere else in the store, with the same hint.
        let refused = match source.sqlite_error_code() {
            Some(ErrorCode::ReadOnly) => io::ErrorKind::ReadOnlyFilesystem,
            Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
            _ => return ContentError::Database { path: self.path.clone(), source },
        };
        ContentError::Write { path: self.path.clone(), source: refused.into() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.path.display())
    }
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Says whether an error means that the file's bytes are wrong, and not that the question was or the disk is.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        )
}

fn is_sound(connection: &Connection) -> bool {
    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)).is_ok_and(|said| said == "ok")
        && super::images::all_readable(connection)
        && super::facts::all_readable(connection)
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
        CREATE TABLE IF NOT EXISTS images(
            id TEXT PRIMARY KEY, created INTEGER NOT NULL, size INTEGER NOT NULL, platform TEXT NOT NULL,
            layers TEXT NOT NULL, manifest TEXT) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS tags(
            reference TEXT PRIMARY KEY, image TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS tags_by_image ON tags(image);
        CREATE TABLE IF NOT EXISTS tag_variants(
            reference TEXT NOT NULL, place INTEGER NOT NULL, image TEXT NOT NULL,
            PRIMARY KEY(reference, place)) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS tag_variants_by_image ON tag_variants(image);
        CREATE TABLE IF NOT EXISTS repo_digests(
            repository TEXT NOT NULL, digest TEXT NOT NULL, image TEXT NOT NULL,
            PRIMARY KEY(repository, digest, image)) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS repo_digests_by_image ON repo_digests(image);
        CREATE TABLE IF NOT EXISTS resolved_tags(
            reference TEXT NOT NULL, platform TEXT NOT NULL, descriptor TEXT NOT NULL, at INTEGER NOT NULL,
            PRIMARY KEY(reference, platform)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS layer_trees(
            diff_id TEXT PRIMARY KEY, tree BLOB NOT NULL) STRICT, WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS layer_trees_by_tree ON layer_trees(tree);
        CREATE TABLE IF NOT EXISTS packed_trees(
            tree BLOB NOT NULL, format TEXT NOT NULL, diff_id TEXT NOT NULL,
            PRIMARY KEY(tree, format)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS layer_blobs(
            diff_id TEXT NOT NULL, compression TEXT NOT NULL, format TEXT NOT NULL, descriptor TEXT NOT NULL,
            PRIMARY KEY(diff_id, compression, format)) STRICT, WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS blob_sources(
            digest TEXT NOT NULL, repository TEXT NOT NULL,
            PRIMARY KEY(digest, repository)) STRICT, WITHOUT ROWID;
        PRAGMA user_version = {SCHEMA};
        COMMIT;"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostic as _;

    #[test]
    fn what_the_file_system_refuses_has_the_hint_of_any_other_file() {
        let database = Database::new(Path::new("/state"));
        let hint = |code| {
            let refused = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            database.error(refused).hint().unwrap_or_default()
        };
        assert!(hint(rusqlite::ffi::SQLITE_READONLY).contains("writable filesystem"));
        assert!(hint(rusqlite::ffi::SQLITE_FULL).contains("rbuild prune"));
        assert_eq!(hint(rusqlite::ffi::SQLITE_MISUSE), "");
    }
}
