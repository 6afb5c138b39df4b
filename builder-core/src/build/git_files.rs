//! Files of git repositories: a commit is checked out once, and is the files of one layer from then on.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::error::StepError;
use super::filesystem::{BuiltLayer, Filesystem, Source};
use super::remote::Bring;
use super::request::{PullPolicy, SecretSource, SecretValues};
use super::sources::of_pin;
use crate::cache::Preimage;
use crate::git::{Ask, GitAccess, GitContext, Repository, Resolved, Wanted};
use crate::graph::VertexId;
use crate::layer;
use crate::lock::lock;
use crate::pins::{Pin, Pins, SourceName};
use crate::progress::{Stream, TaskId};
use crate::snapshot::Snapshot;
use crate::ssh::{self, Socket, SshSource};
use crate::tree::{Stack, Tree};

/// Largest secret that is read, in bytes; the limit of BuildKit.
const MAX_SECRET: u64 = 500 << 10;

/// What was said in this build: a reference means the same commit from its beginning to its end, and a secret has the same
/// value for keys and for steps.
#[derive(Debug, Default)]
pub(super) struct Answers {
    git: Mutex<HashMap<(String, Option<String>), Resolved>>,
    pub(super) secrets: SecretValues,
}

/// How git works for one user of a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct GitUse<'a> {
    pub(super) answers: &'a Answers,
    /// What names of sources stand for.
    pub(super) pins: &'a Pins,
    pub(super) pull: PullPolicy,
    /// The agent for addresses of ssh: `--ssh default`.
    pub(super) ssh: Option<&'a SshSource>,
    /// The agent of the caller, where there is no other.
    pub(super) ssh_agent: Option<&'a Path>,
}

/// A commit that was checked out.
#[derive(Debug, Clone)]
pub(super) struct GitFiles {
    pub(super) tree: Tree,
    pub(super) snapshot: Snapshot,
    /// When it was committed, in seconds since 1970.
    pub(super) time: i64,
}

impl GitFiles {
    /// As the root filesystem of one layer.
    pub(super) fn filesystem(&self) -> Filesystem {
        let source = Source::Files(std::sync::Arc::new(self.snapshot.clone()));
        let (tree, id) = (self.tree.clone(), self.tree.id());
        Filesystem::default().with(BuiltLayer { vertex: VertexId(0), tree, id, created: 0, source })
    }
}

impl Bring<'_> {
    /// The files of a repository, if that can be told without asking anybody and without work.
    pub(super) fn known_git(&self, wanted: &Wanted) -> Result<Option<GitFiles>, StepError> {
        match self.locked(wanted)? {
            Some(resolved) => self.checked_out(wanted, &resolved),
            None => Ok(None),
        }
    }

    /// The commit that the address or the lock file names.
    fn locked(&self, wanted: &Wanted) -> Result<Option<Resolved>, StepError> {
        if let Some(resolved) = wanted.pinned()? {
            return Ok(Some(resolved));
        }
        let locked = self.git.pins.git(&SourceName::git(&wanted.address))?;
        Ok(locked.map(|resolved| wanted.fitting(resolved)).transpose()?)
    }

    /// The files of a repository, fetched if need be. What git says goes to the output of `task`.
    pub(super) fn git(&self, wanted: &Wanted, task: TaskId) -> Result<GitFiles, StepError> {
        if let Some(files) = self.known_git(wanted)? {
            return Ok(files);
        }
        let files = self.with_access(wanted, |access| self.git_with(wanted, access, task));
        files.map_err(|error| of_pin(self.git.pins, SourceName::git(&wanted.address), error))
    }

    /// Finds out which commit is meant; nothing is fetched.
    pub(super) fn git_commit(&self, wanted: &Wanted, task: TaskId) -> Result<(), StepError> {
        if self.locked(wanted)?.is_some() {
            return Ok(());
        }
        self.with_access(wanted, |access| {
            let log = |bytes: &[u8]| self.events.output(task, Stream::Stderr, bytes);
            let context = GitContext { environment: &self.engine.git, access, log: &log, cancel: self.cancel };
            let repository = self.engine.repositories.open(wanted, context);
            self.resolve(wanted, &repository, self.ask()).map(drop)
        })
    }

    fn with_access<T>(
        &self,
        wanted: &Wanted,
        work: impl Fn(&GitAccess) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        if !wanted.address.is_ssh() {
            return work(&GitAccess::for_address(&wanted.address, |id| read_secret(self.secrets, id))?);
        }
        let with = |agent: Option<&Path>| work(&GitAccess::with_agent(agent.map(Path::to_owned)));
        match self.git.ssh {
            None => with(self.git.ssh_agent),
            Some(SshSource::Agent(agent) | SshSource::Raw(agent)) => with(Some(agent)),
            Some(source @ SshSource::Keys(_)) => self.with_keys(source, |agent| with(Some(agent)))?,
        }
    }

    /// Runs something that can ask for keys at a socket.
    fn with_keys<T>(&self, source: &SshSource, run: impl FnOnce(&Path) -> T) -> Result<T, StepError> {
        let repositories = self.engine.repositories.directory();
        let failed = |source| StepError::Io { what: "cannot make the socket of an ssh agent".to_owned(), source };
        let make = || {
            std::fs::create_dir_all(repositories)?;
            let directory = tempfile::Builder::new().prefix("agent-").tempdir_in(repositories)?;
            // The address of a socket has at most 107 bytes (unix(7)), which a path may exceed.
            let open = std::fs::File::open(directory.path())?;
            let path = PathBuf::from(format!("/proc/{}/fd/{}/agent", std::process::id(), open.as_raw_fd()));
            let listener = UnixListener::bind(&path)?;
            std::io::Result::Ok((directory, open, path, listener))
        };
        let (_directory, _open, path, listener) = make().map_err(failed)?;
        ssh::serve(&[Socket { source: source.clone(), listener }], || run(&path)).map_err(failed)
    }

    fn git_with(&self, wanted: &Wanted, access: &GitAccess, task: TaskId) -> Result<GitFiles, StepError> {
        let log = |bytes: &[u8]| self.events.output(task, Stream::Stderr, bytes);
        let environment = &self.engine.git;
        let context = GitContext { environment, access, log: &log, cancel: self.cancel };
        let repository = self.engine.repositories.open(wanted, context);
        let ask = self.ask();
        let resolved = self.resolve(wanted, &repository, ask)?;
        if let Some(files) = self.checked_out(wanted, &resolved)? {
            return Ok(files);
        }
        let lock = repository.lock()?;
        // Another process or another step may have done it meanwhile.
        if let Some(files) = self.checked_out(wanted, &resolved)? {
            return Ok(files);
        }
        let engine = self.engine;
        let active = engine.snapshots.begin()?;
        repository.check_out(&lock, ask, &resolved, &active.path())?;
        let tree = layer::capture(&active, &Stack::default())?;
        engine.trees.put(&tree)?;
        let snapshot = engine.snapshots.commit(active, &tree)?;
        self.remember(preimage(wanted, &resolved), &tree)?;
        let time = engine.repositories.time(wanted, &resolved).unwrap_or_default();
        Ok(GitFiles { tree, snapshot, time })
    }

    fn ask(&self) -> Ask {
        if self.git.pull == PullPolicy::Never { Ask::Nobody } else { Ask::Server }
    }

    fn resolve(&self, wanted: &Wanted, repository: &Repository<'_>, ask: Ask) -> Result<Resolved, StepError> {
        if let Some(locked) = self.locked(wanted)? {
            return Ok(locked);
        }
        let address = &wanted.address;
        let question = (address.remote().to_owned(), address.reference.clone());
        let answers = || lock(&self.git.answers.git);
        if let Some(known) = answers().get(&question) {
            return Ok(wanted.fitting(known.clone())?);
        }
        let resolved = repository.resolve(ask)?;
        // Of two that ask at the same time the first counts.
        let agreed = answers().entry(question).or_insert(resolved).clone();
        let agreed = match self.git.pins.found(SourceName::git(address), Pin::Git(agreed.clone())) {
            Pin::Git(first) => first,
            _ => agreed,
        };
        Ok(wanted.fitting(agreed)?)
    }

    /// What was checked out before, if it is still there.
    fn checked_out(&self, wanted: &Wanted, resolved: &Resolved) -> Result<Option<GitFiles>, StepError> {
        let Some(time) = self.engine.repositories.time(wanted, resolved) else { return Ok(None) };
        let known = self.known(&preimage(wanted, resolved))?;
        Ok(known.map(|(tree, snapshot)| GitFiles { tree, snapshot, time }))
    }
}

/// Everything that decides what a checkout has.
fn preimage(wanted: &Wanted, resolved: &Resolved) -> Preimage {
    let mut preimage = Preimage::new("git");
    for (name, value) in wanted.identity(resolved) {
        preimage.add(name, value);
    }
    preimage
}

/// The value of a secret, if it was given.
fn read_secret(secrets: &BTreeMap<String, SecretSource>, id: &str) -> Result<Option<Vec<u8>>, StepError> {
    match secrets.get(id) {
        None => Ok(None),
        Some(SecretSource::Value(value)) => Ok(Some(value.clone())),
        Some(SecretSource::File(path)) => {
            let mut value = Vec::new();
            let read = std::fs::File::open(path).and_then(|file| file.take(MAX_SECRET).read_to_end(&mut value));
            match read {
                Ok(_) => Ok(Some(value)),
                Err(source) => Err(StepError::ReadSecret { id: id.to_owned(), path: path.clone(), source }),
            }
        }
    }
}
