//! [`Repositories`] of a store, and [`Repository`]: one of them, for one build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Timespec, UTIME_NOW, flock};

use super::access::{GitAccess, GitEnvironment};
use super::address::{Address, is_commit_id, is_short_commit_id};
use super::checkout::Shape;
use super::command::{Call, Git};
use super::error::GitError;
use super::fetch::Mirror;
use super::resolve::{self, Resolved};
use crate::cancel::CancelToken;
use crate::small_file;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };

/// The repositories of a store.
#[derive(Debug, Clone)]
pub struct Repositories {
    directory: PathBuf,
    known_hosts: PathBuf,
}

/// What is wanted of a repository, with every default settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where, which commit, which directory.
    pub address: Address,
    /// Whether `.git` is kept; without effect together with a subdirectory.
    pub keep_git_dir: bool,
}

/// Whether the server is asked what a reference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Yes; but a whole commit id that is here needs no server.
    Server,
    /// No: what it meant last counts.
    Nobody,
}

/// What working with a repository needs.
#[derive(Clone, Copy)]
pub struct GitContext<'a> {
    /// What git sees of the host.
    pub environment: &'a GitEnvironment,
    /// How it proves who it is.
    pub access: &'a GitAccess,
    /// Takes what git says about its work.
    pub log: &'a dyn Fn(&[u8]),
    /// Ends git.
    pub cancel: &'a CancelToken,
}

/// One repository. Nothing is touched before it is asked for something.
pub struct Repository<'a> {
    git: Git<'a>,
    wanted: &'a Wanted,
    shape: Shape,
    directory: PathBuf,
}

/// While it lives no other process works with the repository, nor another thread. Each git that does holds it too,
/// should it outlive this process.
#[derive(Debug)]
pub struct RepositoryLock(File);

impl Wanted {
    /// Everything as the address says.
    pub fn new(address: Address) -> Self {
        let keep_git_dir = address.keep_git_dir == Some(true);
        Self { address, keep_git_dir }
    }

    fn shape(&self) -> Shape {
        let address = &self.address;
        Shape {
            subdir: address.subdir.clone(),
            keep_git_dir: self.keep_git_dir && address.subdir.is_empty(),
            submodules: address.submodules != Some(false),
            mtime: address.mtime,
        }
    }

    /// What is meant, if that is known without asking anybody: a whole commit id.
    ///
    /// # Errors
    /// [`GitError::Checksum`] if the address says something else beside.
    pub fn pinned(&self) -> Result<Option<Resolved>, GitError> {
        let address = &self.address;
        let by_checksum = address.checksum.as_deref().filter(|_| address.fetch_by_commit);
        let by_id = address.reference.as_deref().filter(|reference| is_commit_id(reference));
        by_checksum.or(by_id).map(|id| self.fitting(Resolved::id(id))).transpose()
    }

    /// Checks `checksum=`.
    ///
    /// # Errors
    /// [`GitError::Checksum`] if the commit is another.
    pub fn fitting(&self, resolved: Resolved) -> Result<Resolved, GitError> {
        match &self.address.checksum {
            Some(expected) if !resolved.matches(expected) => Err(GitError::Checksum {
                address: self.address.to_string(),
                expected: expected.clone(),
                actual: resolved.identity().to_owned(),
            }),
            _ => Ok(resolved),
        }
    }

    /// Everything that decides what a checkout has, as names and values.
    pub fn identity(&self, resolved: &Resolved) -> Vec<(&'static str, String)> {
        let shape = self.shape();
        let mut fields = vec![
            ("repository", self.address.remote().to_owned()),
            ("commit", resolved.identity().to_owned()),
            ("subdirectory", shape.subdir),
            ("submodules", shape.submodules.to_string()),
            ("times", format!("{:?}", shape.mtime)),
        ];
        if shape.keep_git_dir {
            // It has the name and the tag.
            let name = resolved.name.as_deref().unwrap_or_default();
            fields.push(("git directory", format!("{} {name}", resolved.object)));
        }
        fields
    }
}

impl Repositories {
    /// Names the repositories of a state directory; nothing is touched yet.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("git"), known_hosts: state.join("known_hosts") }
    }

    /// The directory, for measuring and pruning. Whoever empties it has the store for itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A repository to work with.
    pub fn open<'a>(&self, wanted: &'a Wanted, context: GitContext<'a>) -> Repository<'a> {
        let GitContext { environment, access, log, cancel } = context;
        let known_hosts = self.known_hosts.clone();
        let address = &wanted.address;
        let git = Git { address, environment, access, known_hosts, log, cancel };
        Repository { git, wanted, shape: wanted.shape(), directory: self.of(address) }
    }

    /// When a commit was made, in seconds since 1970, if it was fetched before.
    pub fn time(&self, wanted: &Wanted, resolved: &Resolved) -> Option<i64> {
        let path = self.of(&wanted.address).join("times").join(resolved.identity());
        fs::read_to_string(path).ok()?.parse().ok()
    }

    fn of(&self, address: &Address) -> PathBuf {
        self.directory.join(blake3::hash(address.remote().as_bytes()).to_hex().as_str())
    }
}

impl Repository<'_> {
    /// Finds out which commit is meant.
    ///
    /// # Errors
    /// Every case of [`GitError`] but [`GitError::Subdir`].
    pub fn resolve(&self, ask: Ask) -> Result<Resolved, GitError> {
        if let Some(pinned) = self.wanted.pinned()? {
            return Ok(pinned);
        }
        let address = self.git.address;
        let reference = address.reference.as_deref();
        let known = self.directory.join("known").join(name_of(reference.unwrap_or_default()));
        if ask == Ask::Nobody {
            let text = fs::read(&known).unwrap_or_default();
            let not_local = || GitError::NotLocal { address: address.to_string() };
            return self.wanted.fitting(serde_json::from_slice(&text).map_err(|_| not_local())?);
        }
        let question = resolve::question(address.remote(), reference);
        let text = self.git.run(&Call { network: true, ..Call::new("read", &question) })?;
        let resolved = match (resolve::answer(&text, reference), reference) {
            (Some(resolved), _) => resolved,
            (None, None) => return Err(GitError::NoDefaultBranch { address: address.remote().to_owned() }),
            (None, Some(reference)) => self.short(reference, resolve::is_sha256(&text))?,
        };
        remember(&known, &serde_json::to_vec(&resolved).expect("plain data serialises"));
        self.wanted.fitting(resolved)
    }

    /// A commit by the beginning of its id.
    fn short(&self, reference: &str, sha256: bool) -> Result<Resolved, GitError> {
        let none =
            || GitError::NoReference { address: self.git.address.remote().to_owned(), reference: reference.to_owned() };
        if !is_short_commit_id(reference) {
            return Err(none());
        }
        let lock = self.lock()?;
        self.mirror(&lock, sha256).lengthen(reference)?.map(|id| Resolved::id(&id)).ok_or_else(none)
    }

    /// Keeps everybody else out of this repository, waiting for whoever is in it.
    ///
    /// # Errors
    /// [`GitError::Access`] and [`GitError::Cancelled`].
    pub fn lock(&self) -> Result<RepositoryLock, GitError> {
        fs::create_dir_all(&self.directory).map_err(GitError::access(&self.directory))?;
        remember(&self.directory.join("address"), self.git.address.remote().as_bytes());
        let path = self.directory.join("lock");
        let open = || File::options().create(true).append(true).open(&path);
        let lock = small_file::open(&path, open).map_err(GitError::access(&path))?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // Says when the repository was used last.
                    let now = rustix::fs::Timestamps { last_access: NOW, last_modification: NOW };
                    let _ = rustix::fs::utimensat(rustix::fs::CWD, &self.directory, &now, AtFlags::empty());
                    return Ok(RepositoryLock(lock));
                }
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(GitError::access(&path)(errno.into())),
            }
            self.git.cancel.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fetches a commit, unless it is here, and writes its files into an empty directory.
    ///
    /// # Errors
    /// Every case of [`GitError`].
    pub fn check_out(&self, lock: &RepositoryLock, ask: Ask, resolved: &Resolved, into: &Path) -> Result<(), GitError> {
        let mirror = self.mirror(lock, resolved.object.len() == 64);
        let commit = match ask {
            Ask::Server => mirror.fetch(resolved)?,
            Ask::Nobody => mirror
                .commit(&resolved.object)
                .ok_or_else(|| GitError::NotLocal { address: self.git.address.to_string() })?,
        };
        // What a lock file says of a tag may be wrong, and the files are remembered under the commit.
        if resolved.commit.as_ref().is_some_and(|expected| *expected != commit.id) {
            return Err(GitError::Tag {
                address: self.git.address.to_string(),
                tag: resolved.object.clone(),
                expected: resolved.identity().to_owned(),
                actual: commit.id,
            });
        }
        mirror.check_out(resolved, &commit, &self.shape, into)?;
        remember(&self.directory.join("times").join(resolved.identity()), commit.time.to_string().as_bytes());
        Ok(())
    }

    fn mirror<'w>(&'w self, lock: &'w RepositoryLock, sha256: bool) -> Mirror<'w> {
        let name = if sha256 { "sha256" } else { "sha1" };
        Mirror { git: &self.git, directory: self.directory.join(name), sha256, lock: &lock.0 }
    }
}

impl std::fmt::Debug for Repository<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("wanted", self.wanted).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GitContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitContext").field("environment", self.environment).finish_non_exhaustive()
    }
}

fn name_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// What is remembered only saves work: what cannot be written is not an error.
fn remember(path: &Path, bytes: &[u8]) {
    let _ = small_file::write(path, bytes);
}
