//! Contexts that are not directories of this machine: brought here once, and then the files of one layer.
//!
//! ```text
//! stream, or blob of an address ── unpack ──▶ Tree + Snapshot ─▶ FetchedContext
//! git repository ────────────────── git ────▶ Tree + Snapshot ─▶ FetchedContext
//! ```
//!
//! As in BuildKit such a context is like the files of a stage: what is copied from it keeps the owner that the archive
//! gives it, and ignore files in it are files like any other.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::engine::Engine;
use super::error::{BuildError, StepError};
use super::events::{Events, TaskNumbers};
use super::filesystem::{BuiltLayer, Filesystem, Source as Bytes};
use super::git_files::{Answers, GitFiles, GitUse};
use super::op::http::{self, Fetched, Fetcher};
use super::request::{FetchOptions, PullPolicy, RemoteContext, SecretSource};
use crate::cache::{Preimage, Record};
use crate::cancel::{CancelToken, Cancelled};
use crate::content::Lease;
use crate::diagnostic::{Diagnostic, Source, nearest};
use crate::graph::VertexId;
use crate::layer::{self, Archive, Files, LowerLink, UnpackError, UnpackOptions};
use crate::pins::Pins;
use crate::progress::{Outcome, Sink, TaskId};
use crate::rootfs::RootPath;
use crate::snapshot::Snapshot;
use crate::tar;
use crate::tree::{Node, Stack, Tree};

/// The op of records of contexts.
pub(super) const CONTEXT: &str = "context";

/// What BuildKit calls the one file of a context that is no archive.
const ONLY_FILE: &str = "context";

/// Names that are tried when no Dockerfile is named; the first that exists counts.
const DOCKERFILES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Largest Dockerfile that is read, in bytes (invariant P-1).
const MAX_DOCKERFILE: u64 = 16 << 20;

/// A context that was brought here. While it lives nothing of it is removed from the store. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct FetchedContext {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tree: Tree,
    snapshot: Snapshot,
    /// The file that is the Dockerfile, whatever is asked for: an address that is no archive.
    only_file: bool,
    time: Option<i64>,
    _lease: Lease,
}

/// A context from elsewhere cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It cannot be fetched, or the store fails.
    #[error(transparent)]
    Fetch(#[from] StepError),
    /// Its archive is damaged.
    #[error("cannot unpack {what}")]
    Unpack {
        /// Where it comes from.
        what: String,
        /// Why.
        source: UnpackError,
    },
    /// There is nothing in it.
    #[error("{what} is empty")]
    Empty {
        /// Where it comes from.
        what: String,
    },
    /// It has no such Dockerfile.
    #[error("there is no `{name}` in the build context")]
    NoDockerfile {
        /// The name.
        name: String,
        /// The name beside it that is most like it.
        nearest: Option<String>,
    },
    /// Its Dockerfile cannot be read.
    #[error("cannot read `{name}` in the build context: {reason}")]
    Dockerfile {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Diagnostic for RemoteError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Unpack { source, .. } => source.hint(),
            Self::NoDockerfile { nearest: Some(nearest), .. } => Some(format!("did you mean `--file {nearest}`?")),
            Self::NoDockerfile { .. } => Some("name it with `--file`, relative to the context".to_owned()),
            Self::Empty { .. } => Some("send a Dockerfile, or a tar archive with one in it".to_owned()),
            Self::Dockerfile { .. } => None,
        }
    }
}

impl From<RemoteError> for BuildError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Fetch(error) if error.is_cancelled() => Self::Cancelled(Cancelled),
            error => Self::Remote(Box::new(error)),
        }
    }
}

impl PartialEq for FetchedContext {
    /// Contexts with the same files are the same.
    fn eq(&self, other: &Self) -> bool {
        self.inner.tree.id() == other.inner.tree.id()
    }
}

impl Eq for FetchedContext {}

impl FetchedContext {
    /// A context of the files in `snapshot`, which `tree` describes.
    pub(super) fn new(tree: Tree, snapshot: Snapshot, lease: Lease) -> Self {
        Self { inner: Arc::new(Inner { tree, snapshot, only_file: false, time: None, _lease: lease }) }
    }

    /// When it was made, in seconds since 1970, as the server says: the time of the commit, or `Last-Modified`.
    pub fn time(&self) -> Option<i64> {
        self.inner.time
    }

    /// The time of the newest file in it, if it is an archive; in seconds since 1970.
    pub(super) fn newest(&self) -> Option<i64> {
        let files = self.inner.tree.iter().filter(|entry| entry.node.is_file() && !self.inner.only_file);
        files.map(|entry| entry.mtime.seconds).max()
    }

    /// Reads a Dockerfile from it: `name`, or the first of the usual names. Links are followed inside the context.
    ///
    /// # Errors
    /// [`BuildError::Remote`] if there is none, or it is no text of at most 16 MiB.
    pub fn dockerfile(&self, name: Option<&str>) -> Result<Source, BuildError> {
        self.find_dockerfile(name).map_err(BuildError::from)
    }

    /// Reads a text of at most 16 MiB that is in it; `None` if there is no such file.
    ///
    /// # Errors
    /// [`BuildError::Remote`] if it is no file, or cannot be read.
    pub fn text(&self, name: &str) -> Result<Option<Source>, BuildError> {
        if self.inner.only_file {
            return Ok(None);
        }
        Ok(self.read(name)?)
    }

    /// As the root filesystem of one layer.
    pub(super) fn filesystem(&self) -> Filesystem {
        let Inner { tree, snapshot, .. } = &*self.inner;
        let source = Bytes::Files(Arc::new(snapshot.clone()));
        Filesystem::default().with(BuiltLayer {
            vertex: VertexId(0),
            tree: tree.clone(),
            id: tree.id(),
            created: 0,
            source,
        })
    }

    fn find_dockerfile(&self, name: Option<&str>) -> Result<Source, RemoteError> {
        if self.inner.only_file {
            return self.read(ONLY_FILE)?.ok_or_else(|| self.no_dockerfile(ONLY_FILE));
        }
        let lower: String;
        let names: &[&str] = match name {
            None => &DOCKERFILES,
            Some(name) => {
                // Only the default name is also found in small letters.
                let start = name.len() - name.rsplit('/').next().unwrap_or(name).len();
                lower = format!("{}dockerfile", &name[..start]);
                if &name[start..] == DOCKERFILES[0] { &[name, &lower] } else { &[name] }
            }
        };
        for name in names {
            if let Some(found) = self.read(name)? {
                return Ok(found);
            }
        }
        Err(self.no_dockerfile(names[0]))
    }

    fn no_dockerfile(&self, name: &str) -> RemoteError {
        let stack = Stack::new(vec![self.inner.tree.clone()]);
        let directory = RootPath::clean(name).ok().and_then(|path| path.parent()).unwrap_or_default();
        let files = stack.children(&directory).into_iter().filter(|found| found.entry.node.is_file());
        let names: Vec<String> = files.map(|found| found.entry.path.to_string()).collect();
        let names = names.iter().map(|name| name.trim_start_matches('/'));
        RemoteError::NoDockerfile { name: name.to_owned(), nearest: nearest(name, names).map(str::to_owned) }
    }

    /// A text of the context; `None` if it is not there.
    fn read(&self, name: &str) -> Result<Option<Source>, RemoteError> {
        let failed = |reason: String| RemoteError::Dockerfile { name: name.to_owned(), reason };
        let stack = Stack::new(vec![self.inner.tree.clone()]);
        let path = RootPath::clean(name).map_err(|error| failed(error.to_string()))?;
        let path = stack.resolve(&path, true).map_err(|error| failed(error.to_string()))?;
        let Some(found) = stack.lookup(&path) else { return Ok(None) };
        match found.entry.node {
            Node::File { size, .. } if size <= MAX_DOCKERFILE => {}
            Node::File { .. } => return Err(failed(format!("it is larger than {} MiB", MAX_DOCKERFILE >> 20))),
            _ => return Err(failed("it is not a regular file".to_owned())),
        }
        let mut text = Vec::new();
        let read =
            self.inner.snapshot.open(&found.entry).and_then(|file| file.take(MAX_DOCKERFILE).read_to_end(&mut text));
        read.map_err(|error| failed(error.to_string()))?;
        let shown = if self.inner.only_file { "Dockerfile" } else { name };
        Ok(Some(Source::new(shown, text)))
    }
}

impl Engine {
    /// Brings a context from elsewhere; what is known and did not change is not brought again.
    ///
    /// # Errors
    /// [`BuildError::Remote`] and [`BuildError::Cancelled`].
    pub fn fetch_context(
        &self,
        remote: &RemoteContext,
        options: FetchOptions<'_>,
        sink: &dyn Sink,
        cancel: &CancelToken,
    ) -> Result<FetchedContext, BuildError> {
        let answers = Answers::default();
        let bring = self.bring(options, &answers, sink, cancel);
        bring.context(remote, "[internal] load remote build context", &TaskNumbers::before_build(0))
    }

    /// Unpacks a context that is a tar archive, compressed or not, and reads it to its end.
    ///
    /// # Errors
    /// As [`Engine::fetch_context`].
    pub fn unpack_context(
        &self,
        archive: &mut dyn Read,
        sink: &dyn Sink,
        cancel: &CancelToken,
    ) -> Result<FetchedContext, BuildError> {
        let secrets = BTreeMap::new();
        let (options, answers) = (
            FetchOptions { secrets: &secrets, ssh: None, pull: PullPolicy::Missing, pins: &Pins::default() },
            Answers::default(),
        );
        let bring = self.bring(options, &answers, sink, cancel);
        let numbers = TaskNumbers::before_build(0);
        bring.shown("[internal] load remote build context", &numbers, |_| {
            let lease = bring.lease()?;
            let (tree, snapshot) = bring.unpack(archive, "the build context")?;
            // Nothing looks it up; it tells what the files are, and when they were last used.
            let mut preimage = Preimage::new(CONTEXT);
            preimage.add("tree", tree.id());
            bring.remember(preimage, &tree)?;
            Ok(FetchedContext::new(tree, snapshot, lease))
        })
    }

    /// Fetches a Dockerfile from an address.
    ///
    /// # Errors
    /// As [`Engine::fetch_context`].
    pub fn fetch_dockerfile(
        &self,
        url: &str,
        options: FetchOptions<'_>,
        sink: &dyn Sink,
        cancel: &CancelToken,
    ) -> Result<Source, BuildError> {
        let answers = Answers::default();
        let bring = self.bring(options, &answers, sink, cancel);
        bring.shown(
            &format!("[internal] load build definition from {}", http::redacted(url)),
            &TaskNumbers::before_build(1),
            |task| {
                let _lease = bring.lease()?;
                let fetched = bring.download(url, task)?;
                let name = http::redacted(url);
                if fetched.size > MAX_DOCKERFILE {
                    let reason = format!("it is larger than {} MiB", MAX_DOCKERFILE >> 20);
                    return Err(RemoteError::Dockerfile { name, reason });
                }
                let text = self.content.read(&fetched.digest, MAX_DOCKERFILE).map_err(StepError::from)?;
                Ok(Source::new("Dockerfile", text))
            },
        )
    }
}

impl Engine {
    fn bring<'a>(
        &'a self,
        options: FetchOptions<'a>,
        answers: &'a Answers,
        sink: &'a dyn Sink,
        cancel: &'a CancelToken,
    ) -> Bring<'a> {
        let ssh_agent = self.git.ssh_agent.as_deref();
        let git = GitUse { answers, pins: options.pins, pull: options.pull, ssh: options.ssh, ssh_agent };
        Bring { engine: self, git, secrets: options.secrets, events: Events::Direct(sink), cancel }
    }
}

/// What bringing a context needs.
pub(super) struct Bring<'a> {
    pub(super) engine: &'a Engine,
    pub(super) git: GitUse<'a>,
    pub(super) secrets: &'a BTreeMap<String, SecretSource>,
    pub(super) events: Events<'a>,
    pub(super) cancel: &'a CancelToken,
}

impl Bring<'_> {
    /// Brings a context as a task with this name.
    pub(super) fn context(
        &self,
        remote: &RemoteContext,
        name: &str,
        numbers: &TaskNumbers,
    ) -> Result<FetchedContext, BuildError> {
        self.shown(name, numbers, |task| {
            let lease = self.lease()?;
            match remote {
                RemoteContext::Url(url) => self.address(url, task, lease),
                RemoteContext::Git(wanted) => {
                    let GitFiles { tree, snapshot, time } = self.git(wanted, task)?;
                    let time = Some(time);
                    Ok(FetchedContext {
                        inner: Arc::new(Inner { tree, snapshot, only_file: false, time, _lease: lease }),
                    })
                }
            }
        })
    }

    pub(super) fn shown<T>(
        &self,
        name: &str,
        numbers: &TaskNumbers,
        work: impl FnOnce(TaskId) -> Result<T, RemoteError>,
    ) -> Result<T, BuildError> {
        let task = numbers.declare(&self.events, name, Vec::new());
        self.events.started(task);
        let done = work(task).map_err(|error| match self.cancel.check() {
            // Whatever a cancel made fail first, it was the cancel.
            Err(cancelled) => BuildError::Cancelled(cancelled),
            Ok(()) => error.into(),
        });
        let outcome = match &done {
            Ok(_) => Outcome::Done,
            Err(BuildError::Cancelled(_)) => Outcome::Cancelled,
            Err(error) => Outcome::Failed(crate::diagnostic::chain(error)),
        };
        self.events.finished(task, outcome);
        done
    }

    fn lease(&self) -> Result<Lease, RemoteError> {
        Ok(self.engine.content.lease(self.cancel).map_err(StepError::from)?)
    }

    pub(super) fn download(&self, url: &str, task: TaskId) -> Result<Fetched, RemoteError> {
        let Self { engine, events, cancel, .. } = self;
        let shown = http::redacted(url);
        let fetcher = Fetcher {
            registry: &engine.registry,
            content: &engine.content,
            secrets: self.secrets,
            offline: self.git.pull == PullPolicy::Never,
            progress: &|current, total| events.status(task, &shown, current, total, false),
            cancel,
        };
        let fetched = fetcher.fetch_pinned(url, None, self.git.pins);
        let fetched = fetched.map_err(StepError::from)?;
        events.status(task, &shown, fetched.size, Some(fetched.size), true);
        Ok(fetched)
    }

    /// A web address: an archive, or one file.
    fn address(&self, url: &str, task: TaskId, lease: Lease) -> Result<FetchedContext, RemoteError> {
        let content = &self.engine.content;
        let fetched = self.download(url, task)?;
        let what = http::redacted(url);
        if fetched.size == 0 {
            return Err(RemoteError::Empty { what });
        }
        let open = || content.open_blob(&fetched.digest).map_err(StepError::from);
        let mut head = Vec::new();
        let read = open()?.take(512).read_to_end(&mut head);
        read.map_err(|source| StepError::Io { what: format!("cannot read {what} from the store"), source })?;
        let only_file = !layer::begins_as_archive(&head);
        let mut preimage = Preimage::new(CONTEXT);
        preimage.add("content", &fetched.digest);
        if only_file {
            preimage.add("modified", fetched.modified.unwrap_or_default());
        }
        let (tree, snapshot) = if let Some(known) = self.known(&preimage)? {
            known
        } else {
            let unpacked = if only_file {
                let head = header_of(&fetched);
                let end = tar::padding(fetched.size).chain(tar::trailer());
                self.unpack(&mut head.as_slice().chain(open()?).chain(end), &what)?
            } else {
                self.unpack(&mut open()?, &what)?
            };
            self.remember(preimage, &unpacked.0)?;
            unpacked
        };
        let time = fetched.modified;
        Ok(FetchedContext { inner: Arc::new(Inner { tree, snapshot, only_file, time, _lease: lease }) })
    }

    /// What was brought before under this name, if it is still there.
    pub(super) fn known(&self, preimage: &Preimage) -> Result<Option<(Tree, Snapshot)>, StepError> {
        let engine = self.engine;
        let Some(record) = engine.cache.get(&preimage.key())? else { return Ok(None) };
        let Some(tree) = engine.trees.get(&record.tree)? else { return Ok(None) };
        Ok(engine.snapshots.get_verified(&tree)?.map(|snapshot| (tree, snapshot)))
    }

    /// Remembers a tree, whose snapshot is committed, under a name.
    pub(super) fn remember(&self, preimage: Preimage, tree: &Tree) -> Result<(), StepError> {
        let created = super::engine::seconds_now();
        let record =
            Record { preimage, tree: tree.id(), semantic: tree.semantic(), created, milliseconds: Some(0), ran: None };
        self.engine.cache.put(&record)?;
        Ok(())
    }

    fn unpack(&self, archive: &mut dyn Read, what: &str) -> Result<(Tree, Snapshot), RemoteError> {
        let engine = self.engine;
        let broken = |source| RemoteError::Unpack { what: what.to_owned(), source };
        let active = engine.snapshots.begin().map_err(StepError::from)?;
        let lower = Stack::default();
        let options = UnpackOptions {
            archive: Some(Archive { into: RootPath::root(), owner: None, lower: &lower }),
            ..UnpackOptions::default()
        };
        let reader = Cancellable { inner: archive, cancel: self.cancel };
        let unpacked = layer::unpack(reader, &active, &options).map_err(broken)?;
        if let Some(LowerLink { path, target }) = unpacked.lower_links.into_iter().next() {
            return Err(broken(UnpackError::LinkTarget { path, target }));
        }
        engine.trees.put(&unpacked.tree).map_err(StepError::from)?;
        let snapshot = engine.snapshots.commit(active, &unpacked.tree).map_err(StepError::from)?;
        Ok((unpacked.tree, snapshot))
    }
}

/// The header of an archive with one file, as BuildKit keeps what it downloads.
fn header_of(fetched: &Fetched) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = tar::Header {
        mode: 0o600,
        mtime: (fetched.modified.unwrap_or_default(), 0),
        size: fetched.size,
        ..tar::Header::new(ONLY_FILE.as_bytes().to_vec(), tar::Kind::File)
    };
    tar::encode(&header, &mut bytes).expect("it has no attributes");
    bytes
}

/// A stream that ends with an error when the build is cancelled.
struct Cancellable<'a> {
    inner: &'a mut dyn Read,
    cancel: &'a CancelToken,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.inner.read(buffer)
    }
}
