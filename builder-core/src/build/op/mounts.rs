//! `RUN --mount`: what is shown where, first as data (for the key), then as mounts.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::run::{duplicate, hosts};
use crate::build::cache_mounts::move_into;
use crate::build::contexts::OpenContext;
use crate::build::error::StepError;
use crate::build::filesystem::{Filesystem, Work};
use crate::build::request::SecretSource;
use crate::build::run_options::Reach;
use crate::build::solve::{Job, Session};
use crate::cache::{CacheMountError, MountedCache, key};
use crate::context::{BuildContext, Request};
use crate::executor::{ExecuteError, Mount, MountSource};
use crate::graph::{CacheMount, Files, MountOp, MountTarget, RunOp, SecretMount, SshMount};
use crate::layer::{self, Keep};
use crate::rootfs::{RootDir, RootPath};
use crate::snapshot::{Active, Mount as SnapshotMount, Snapshot};
use crate::ssh::Socket;
use crate::sys::mount::{Attributes, bind};
use crate::tree::{Entry, SemanticDigest, Stack, Tree, TreeBuilder};

/// An owner that does not exist here, as the kernel says with `EINVAL`.
fn owner(mount: &MountOp, (uid, gid): (u32, u32), source: std::io::Error) -> StepError {
    ExecuteError::Owner { target: mount.target.to_string(), uid, gid, source }.into()
}

/// The files that a mount shows, as data.
pub(crate) struct Source {
    /// What is shown, as a tree whose root is what appears at the target.
    tree: Tree,
    origin: Origin,
}

enum Origin {
    /// Files of a context, whose paths start at this one.
    Context(Arc<BuildContext>, RootPath),
    /// A path in a root filesystem.
    Filesystem(Filesystem, RootPath),
}

impl Source {
    /// Digest of exactly what the step can see.
    pub(crate) fn digest(&self) -> SemanticDigest {
        self.tree.semantic()
    }

    /// Exactly what the step can see, as a tree whose root is what appears at the target.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    fn is_directory(&self) -> bool {
        self.tree.get(&RootPath::root()).is_none_or(|entry| entry.node.is_directory())
    }
}

/// The sources of all mounts that show files; `None` if they are not known and no work is allowed.
pub(crate) fn sources(job: &Job<'_>, op: &RunOp, work: Work) -> Result<Option<Vec<Option<Source>>>, StepError> {
    let mut sources = Vec::with_capacity(op.mounts.len());
    for mount in &op.mounts {
        let (MountTarget::Bind { from: files, source: path, .. }
        | MountTarget::Cache(CacheMount { seed: Some((files, path)), .. })) = &mount.kind
        else {
            sources.push(None);
            continue;
        };
        match source(job, files, path, &mount.target, work)? {
            Some(source) => sources.push(Some(source)),
            None => return Ok(None),
        }
    }
    Ok(Some(sources))
}

fn source(
    job: &Job<'_>,
    files: &Files,
    path: &RootPath,
    target: &RootPath,
    work: Work,
) -> Result<Option<Source>, StepError> {
    let missing = || StepError::MountSource { source_path: path.clone(), target: target.clone() };
    let filesystem = match files {
        Files::Context(id) => match job.session.contexts.get(id)? {
            OpenContext::Directory(context) => {
                job.note_ignore_file(&context);
                let pattern = literal_pattern(path);
                let request = Request { source: &pattern, parents: false, exclude: &[] };
                let Some(found) = context.select(&request)?.into_iter().next() else { return Err(missing()) };
                let tree = rebased(found.entries.into_iter().map(|selected| selected.entry), &found.root);
                return Ok(Some(Source { tree, origin: Origin::Context(context, found.root) }));
            }
            OpenContext::Files(filesystem) => filesystem,
        },
        Files::Vertex(vertex) => job.input(*vertex),
    };
    let Some(stack) = filesystem.stack(job.session, work)? else { return Ok(None) };
    let path = stack.resolve(path, true)?;
    let entries: Vec<Entry> = stack.select(&path).into_iter().map(|found| found.entry).collect();
    if entries.is_empty() && !path.is_root() {
        return Err(missing());
    }
    let tree = rebased(entries.into_iter(), &path);
    Ok(Some(Source { tree, origin: Origin::Filesystem(filesystem, path) }))
}

/// Remembers what each mount of a step that is going to run shows, so that it can be said which files changed. That a tree
/// cannot be stored is no error: it only helps to explain.
pub(crate) fn note(job: &Job<'_>, op: &RunOp, sources: &[Option<Source>]) {
    let trees = &job.session.engine.trees;
    for (mount, source) in op.mounts.iter().zip(sources) {
        let Some(source) = source else { continue };
        let id = if job.session.dry { Ok(trees.hold(&source.tree)) } else { trees.put(&source.tree) };
        if let Ok(id) = id {
            let field = key::mount_field(mount);
            job.session.recorder.note(job.vertex, |step| {
                step.shown.insert(field, id);
            });
        }
    }
}

/// A pattern that matches just this path.
fn literal_pattern(path: &RootPath) -> String {
    let mut pattern = String::from("/");
    for character in String::from_utf8_lossy(path.as_bytes()).chars() {
        if "*?[\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// A tree whose root is `top`.
fn rebased(entries: impl Iterator<Item = Entry>, top: &RootPath) -> Tree {
    let mut builder = TreeBuilder::new();
    for entry in entries {
        let path = entry.path.strip_prefix(top).expect("only what is below was selected");
        builder.push(Entry { path, ..entry });
    }
    builder.finish()
}

/// Everything that has to be mounted for one process.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) mounts: Vec<Mount>,
    /// Which targets have to exist, and whether as directories.
    pub(crate) targets: Vec<(RootPath, bool)>,
    /// Cache mounts that the step has taken into use, by identity.
    pub(crate) caches: HashMap<String, PathBuf>,
    /// Variables that hold secrets.
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    /// What has to live until the process ends.
    pub(crate) held: Vec<Held>,
    /// What has to be answered until then.
    pub(crate) sockets: Vec<Socket>,
}

/// Keeps the cache mounts that a step used within their sizes. One that another step uses is left to that; whatever goes
/// wrong is no fault of the step.
pub(crate) fn trim(job: &Job<'_>, op: &RunOp, mut used: HashMap<String, PathBuf>) -> Result<(), StepError> {
    let session = job.session;
    for mount in &op.mounts {
        let MountTarget::Cache(cache) = &mount.kind else { continue };
        let limit = session.request.mount_sizes.get(&cache.id);
        let (Some(limit), Some(content)) = (limit, used.remove(&cache.identity())) else { continue };
        match session.engine.cache_mounts.trim(&content, *limit, &session.cancel) {
            Ok(Some(trimmed)) if trimmed.files > 0 => {
                let what = format!("removing what was not used for longest from cache mount `{}`", cache.id);
                session.events.status(job.task, &what, trimmed.bytes, Some(trimmed.bytes), true);
            }
            Ok(_) => {}
            Err(CacheMountError::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(error) => {
                let text = format!("cache mount `{}` cannot be kept within its size: {error}", cache.id);
                session.events.warning(Some(job.task), text);
            }
        }
    }
    Ok(())
}

/// Something that a mount needs while it is in use.
#[expect(dead_code, reason = "held for what happens when they are dropped")]
pub(crate) enum Held {
    /// Keeps others off a cache mount.
    Cache(MountedCache),
    /// Takes what is written to a bind mount, and drops it.
    Discarded(Active),
    /// Files that may exist only for the mount.
    Files(SnapshotMount),
}

/// Makes the mounts of a step.
pub(crate) fn prepare(
    job: &Job<'_>,
    op: &RunOp,
    stack: &Stack,
    sources: &[Option<Source>],
    reach: Reach,
) -> Result<Prepared, StepError> {
    let session = job.session;
    let mut prepared = Prepared::default();
    if !op.no_hosts {
        let hosts = hosts(&op.hostname, &op.add_hosts, reach.gateway())?;
        prepared.file(stack, "/etc/hosts", hosts, true)?;
    }
    let host = String::from_utf8_lossy(session.request.resolv_conf.as_deref().unwrap_or_default());
    prepared.file(stack, "/etc/resolv.conf", reach.resolv_conf(&session.request.run.dns, &host).into_bytes(), true)?;
    if let Some(script) = &op.script {
        // Below /dev, which is a file system of the sandbox: the executor makes the target there.
        let target = RootPath::clean("/dev/pipes").expect("a constant path").child(script.name.as_bytes());
        let source = file(script.body.clone().into_bytes(), 0o755, 0, 0);
        prepared.mounts.push(Mount { target, source, read_only: true });
    }
    let mut all: Vec<(&MountOp, &Option<Source>)> = op.mounts.iter().zip(sources).collect();
    // Parents before their children, whatever the order in the file; secrets and sockets after what has files.
    all.sort_by_key(|(mount, _)| {
        let late = matches!(mount.kind, MountTarget::Secret(_) | MountTarget::Ssh(_));
        (mount.target.components().count(), late)
    });
    for (mount, source) in all {
        let target = stack.resolve(&mount.target, true)?;
        if let Some(mut shown) = prepared.show(job, mount, source.as_ref())? {
            // As runc: an empty file system looks like the directory that it covers.
            if let (MountSource::Tmpfs { mode, .. }, Some(found)) = (&mut shown.source, stack.lookup(&target))
                && prepared.outer(&target).is_none()
                && found.entry.node.is_directory()
            {
                *mode = found.entry.mode;
            }
            prepared.add(target, shown)?;
        }
    }
    prepared.make_workdir(&stack.resolve(&op.workdir, true)?)?;
    Ok(prepared)
}

/// What a mount shows, and how.
pub(crate) struct ShownMount {
    pub(crate) source: MountSource,
    pub(crate) read_only: bool,
    pub(crate) is_directory: bool,
}

fn file(content: Vec<u8>, mode: u32, uid: u32, gid: u32) -> MountSource {
    MountSource::File { content, mode, uid, gid }
}

impl Prepared {
    /// A generated file that never enters the layer.
    pub(crate) fn file(
        &mut self,
        stack: &Stack,
        path: &str,
        content: Vec<u8>,
        read_only: bool,
    ) -> Result<(), StepError> {
        let target = stack.resolve(&RootPath::clean(path).expect("a constant path"), true)?;
        self.targets.push((target.clone(), false));
        self.mounts.push(Mount { target, source: file(content, 0o644, 0, 0), read_only });
        Ok(())
    }

    /// Adds a mount after those above it; its target is made where it is missing.
    pub(crate) fn add(&mut self, target: RootPath, shown: ShownMount) -> Result<(), StepError> {
        let ShownMount { source, read_only, is_directory } = shown;
        // Of two at one place the last counts, and the other need not fit there.
        self.mounts.retain(|earlier| earlier.target != target);
        self.targets.retain(|(earlier, _)| *earlier != target);
        match self.outer(&target) {
            None => self.targets.push((target.clone(), is_directory)),
            Some((outer, below)) => {
                make_target(outer, &below, is_directory).map_err(|source| StepError::Io {
                    what: format!("cannot make the mount target `{target}`"),
                    source,
                })?;
            }
        }
        self.mounts.push(Mount { target, source, read_only });
        Ok(())
    }

    /// The mount that shows what is at a path, and the rest of the path in it.
    fn outer(&self, path: &RootPath) -> Option<(&Mount, RootPath)> {
        let outer = self.mounts.iter().rev().find(|outer| outer.target != *path && path.starts_with(&outer.target))?;
        Some((outer, path.strip_prefix(&outer.target)?))
    }

    /// Makes the working directory in the mount that covers it, as container runtimes do.
    fn make_workdir(&self, workdir: &RootPath) -> Result<(), StepError> {
        let Some((outer, below)) = self.outer(workdir).filter(|_| self.mounts.iter().all(|one| one.target != *workdir))
        else {
            return Ok(());
        };
        let what = || format!("cannot make the working directory `{workdir}`");
        make_target(outer, &below, true).map_err(|source| StepError::Io { what: what(), source })
    }

    /// What a mount of a RUN shows; `None` if it shows nothing.
    fn show(
        &mut self,
        job: &Job<'_>,
        mount: &MountOp,
        source: Option<&Source>,
    ) -> Result<Option<ShownMount>, StepError> {
        let session = job.session;
        Ok(Some(match &mount.kind {
            MountTarget::Bind { writable, .. } => {
                let source = source.expect("every bind mount has a source");
                ShownMount {
                    source: MountSource::Detached(self.bind(session, source)?),
                    read_only: !writable,
                    is_directory: source.is_directory(),
                }
            }
            MountTarget::Cache(cache) => {
                // Whatever its sharing, a step does not wait for itself.
                if let Some(content) = self.caches.get(&cache.identity()) {
                    let source = MountSource::Detached(bind_path(content)?);
                    return Ok(Some(ShownMount { source, read_only: cache.read_only, is_directory: true }));
                }
                let opened = session.engine.cache_mounts.open(cache, &session.cancel).map_err(|error| match error {
                    CacheMountError::Access { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                        owner(mount, (cache.uid, cache.gid), source)
                    }
                    error => error.into(),
                })?;
                self.caches.insert(cache.identity(), opened.content.clone());
                let remote = session.remote.as_ref();
                let restored = match remote.filter(|_| opened.is_new) {
                    Some(remote) => remote.restore_mount(session, cache, &opened)?,
                    None => false,
                };
                if let Some(source) = source
                    && opened.is_new
                    && !restored
                {
                    fill(session, source, &opened)?;
                }
                if opened.is_new {
                    opened.filled()?;
                }
                if let Some(remote) = remote {
                    remote.note_mount(cache);
                }
                let shown = bind_path(&opened.content)?;
                self.held.push(Held::Cache(opened));
                ShownMount { source: MountSource::Detached(shown), read_only: cache.read_only, is_directory: true }
            }
            MountTarget::Tmpfs { size } => {
                let source = MountSource::Tmpfs { size: *size, mode: 0o1777 };
                ShownMount { source, read_only: false, is_directory: true }
            }
            MountTarget::Secret(secret) => {
                let Some(value) = read_secret(session, secret)? else { return Ok(None) };
                session.recorder.hide(&value);
                if let Some(name) = &secret.env {
                    self.env.push((name.clone().into_bytes(), value.clone()));
                }
                if !secret.file {
                    return Ok(None);
                }
                let source = file(value, secret.mode, secret.uid, secret.gid);
                ShownMount { source, read_only: true, is_directory: false }
            }
            MountTarget::Ssh(ssh) => match session.request.run.ssh.get(&ssh.id) {
                Some(source) => {
                    let (listener, shown) = self.socket(session, mount, ssh)?;
                    self.sockets.push(Socket { source: source.clone(), listener });
                    ShownMount { source: MountSource::Detached(shown), read_only: false, is_directory: false }
                }
                None if ssh.required => return Err(StepError::MissingSsh { id: ssh.id.clone() }),
                None => return Ok(None),
            },
        }))
    }

    /// A socket, and a detached mount of it.
    fn socket(
        &mut self,
        session: &Session<'_>,
        mount: &MountOp,
        ssh: &SshMount,
    ) -> Result<(UnixListener, OwnedFd), StepError> {
        let active = session.engine.snapshots.begin()?;
        let path = active.path().join("agent");
        let bound = File::open(active.path()).and_then(|directory| {
            // The address of a socket has at most 107 bytes; the path of the store may be longer.
            let listener = UnixListener::bind(format!("/proc/self/fd/{}/agent", directory.as_raw_fd()))?;
            chown(&path, Some(ssh.uid), Some(ssh.gid))?;
            std::fs::set_permissions(&path, Permissions::from_mode(ssh.mode & 0o777))?;
            Ok(listener)
        });
        let listener = bound.map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => owner(mount, (ssh.uid, ssh.gid), source),
            _ => StepError::Io { what: "cannot make an agent's socket".into(), source },
        })?;
        let shown = bind_path(&path)?;
        self.held.push(Held::Discarded(active));
        Ok((listener, shown))
    }

    /// A detached mount of what `source` shows. What is written to it, if it may be, is dropped.
    fn bind(&mut self, session: &Session<'_>, source: &Source) -> Result<OwnedFd, StepError> {
        let failed = |source| StepError::Io { what: "cannot make a bind mount".to_owned(), source };
        if let Origin::Filesystem(filesystem, path) = &source.origin {
            let root = self.stack(session, &filesystem.snapshots(session)?)?;
            if path.is_root() {
                return Ok(root);
            }
            let opened = RootDir::from_fd(root).open_path(path).map_err(failed)?;
            match bind(opened, Attributes::empty()) {
                // Before Linux 6.15 a part of a detached mount cannot be mounted: it is copied out.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                bound => return bound.map_err(failed),
            }
        }
        let snapshot = snapshot_of(session, source)?;
        if source.is_directory() {
            return self.stack(session, &[snapshot]);
        }
        let copy = session.engine.snapshots.begin()?;
        let path = copy.path().join(SINGLE_FILE);
        let copied = || {
            let mut from = snapshot.open_file(&RootPath::root().child(SINGLE_FILE.as_bytes()))?;
            let mut to = File::create(&path)?;
            std::io::copy(&mut from, &mut to)?;
            to.set_permissions(from.metadata()?.permissions())
        };
        copied().map_err(failed)?;
        self.held.push(Held::Discarded(copy));
        bind_path(&path)
    }

    /// Mounts snapshots with a directory on top that takes what is written, and goes away with the process.
    fn stack(&mut self, session: &Session<'_>, lowers: &[Snapshot]) -> Result<OwnedFd, StepError> {
        let active = session.engine.snapshots.begin()?;
        let root = session.engine.snapshotter()?.mount(&lowers.iter().collect::<Vec<_>>(), None, &active)?;
        let fd =
            duplicate(&root).map_err(|source| StepError::Io { what: "cannot make a bind mount".to_owned(), source })?;
        self.held.push(Held::Files(root));
        self.held.push(Held::Discarded(active));
        Ok(fd)
    }
}

/// Makes the target of a mount that lies in another mount.
fn make_target(outer: &Mount, below: &RootPath, is_directory: bool) -> std::io::Result<()> {
    let root = match &outer.source {
        MountSource::Detached(fd) => RootDir::from_fd(fd.try_clone()?),
        // The executor makes targets in the file systems that it makes.
        MountSource::Tmpfs { .. } => return Ok(()),
        MountSource::File { .. } => return Err(std::io::ErrorKind::NotADirectory.into()),
    };
    if is_directory {
        return root.create_dir_all(below, 0o755).map(drop);
    }
    root.create_dir_all(&below.parent().unwrap_or_default(), 0o755)?;
    match root.create_file(below) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn bind_path(path: &std::path::Path) -> Result<OwnedFd, StepError> {
    crate::sys::mount::bind_path(path, Attributes::empty())
        .map_err(|source| StepError::Io { what: format!("cannot mount {}", path.display()), source })
}

/// Name of a file in a snapshot that holds nothing else.
const SINGLE_FILE: &str = "file";

/// What a mount shows as a snapshot of its own: what is ignored in a context must not be seen, and what changes there
/// during the step must not change below it.
fn snapshot_of(session: &Session<'_>, source: &Source) -> Result<Snapshot, StepError> {
    let below = if source.is_directory() { RootPath::root() } else { RootPath::root().child(SINGLE_FILE.as_bytes()) };
    let mut builder = TreeBuilder::new();
    for entry in source.tree.iter() {
        builder.push(Entry { path: below.append(&entry.path), ..entry });
    }
    let tree = builder.finish();
    let snapshots = &session.engine.snapshots;
    if let Some(snapshot) = snapshots.get_verified(&tree)? {
        return Ok(snapshot);
    }
    session.engine.trees.put(&tree)?;
    let keep = Keep { content: &session.engine.content, snapshots, trees: &session.engine.trees };
    with_files(session, source, &below, |files| Ok(keep.snapshot(&tree, files)?))
}

/// Hands over what opens the files of a source for its tree moved to `below`.
fn with_files<T>(
    session: &Session<'_>,
    source: &Source,
    below: &RootPath,
    then: impl FnOnce(&dyn layer::Files) -> Result<T, StepError>,
) -> Result<T, StepError> {
    match &source.origin {
        Origin::Context(context, top) => then(&ContextFiles { context, top, below }),
        Origin::Filesystem(filesystem, top) => {
            let stack = filesystem.stack(session, Work::Allowed)?.unwrap_or_default();
            then(&FilesystemFiles { session, filesystem, stack: &stack, top, below })
        }
    }
}

/// Opens files of a context for a tree that was moved from `top` to `below`.
struct ContextFiles<'a> {
    context: &'a BuildContext,
    top: &'a RootPath,
    below: &'a RootPath,
}

impl layer::Files for ContextFiles<'_> {
    fn open(&self, entry: &Entry) -> std::io::Result<std::fs::File> {
        let inside = entry.path.strip_prefix(self.below).unwrap_or_default();
        self.context.open_file(&Entry { path: self.top.append(&inside), ..entry.clone() })
    }
}

/// Opens files of a root filesystem for a tree that was moved from `top` to `below`.
struct FilesystemFiles<'a> {
    session: &'a Session<'a>,
    filesystem: &'a Filesystem,
    stack: &'a Stack,
    top: &'a RootPath,
    below: &'a RootPath,
}

impl layer::Files for FilesystemFiles<'_> {
    fn open(&self, entry: &Entry) -> std::io::Result<std::fs::File> {
        let inside = entry.path.strip_prefix(self.below).unwrap_or_default();
        let found = self.stack.lookup(&self.top.append(&inside)).ok_or(std::io::ErrorKind::NotFound)?;
        self.filesystem.open(self.session, found.layer, &found.entry).map_err(std::io::Error::other)
    }
}

/// Copies the seed of a new cache mount into it.
fn fill(session: &Session<'_>, source: &Source, opened: &MountedCache) -> Result<(), StepError> {
    let active = session.engine.snapshots.begin()?;
    with_files(session, source, &RootPath::root(), |files| {
        layer::materialise(&below_root(&source.tree), files, &active).map_err(StepError::of_files)
    })?;
    move_into(&active, opened)
}

/// The tree without its root: mode and owner of a cache mount are those that the mount asks for.
fn below_root(tree: &Tree) -> Tree {
    let mut builder = TreeBuilder::new();
    tree.iter().filter(|entry| !entry.path.is_root()).for_each(|entry| builder.push(entry));
    builder.finish()
}

/// The fingerprints of the secrets whose values belong to the key (`--secret id=…,cache=hash`), by id. A secret that is
/// not there has none.
pub(super) fn fingerprints(session: &Session<'_>, op: &RunOp) -> Result<BTreeMap<String, String>, StepError> {
    let mut found = BTreeMap::new();
    for mount in &op.mounts {
        if let MountTarget::Secret(secret) = &mount.kind
            && session.request.hashed_secrets.contains(&secret.id)
            && let Some(value) = read_secret(session, secret)?
        {
            let salt = session.engine.cache.salt(!session.dry)?;
            // The id is part of the message: equal values of two secrets do not show.
            let message = [secret.id.as_bytes(), b"\0", &value].concat();
            found.insert(secret.id.clone(), blake3::keyed_hash(&salt, &message).to_string());
        }
    }
    Ok(found)
}

/// The value of a secret; `None` if it was not given and is not required.
fn read_secret(session: &Session<'_>, secret: &SecretMount) -> Result<Option<Vec<u8>>, StepError> {
    match session.request.secrets.get(&secret.id) {
        Some(SecretSource::Value(value)) => Ok(Some(value.clone())),
        Some(given @ SecretSource::File(path)) => {
            let error = |source| StepError::ReadSecret { id: secret.id.clone(), path: path.clone(), source };
            session.answers.secrets.value(&secret.id, given).map(Some).map_err(error)
        }
        None if secret.required => Err(StepError::MissingSecret { id: secret.id.clone() }),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Node, Time};

    #[test]
    fn a_shown_tree_starts_at_its_top() {
        let at = |text: &str| RootPath::clean(text).expect("clean");
        let directory = |text: &str| Entry::directory(at(text), 0o755, 0, 0, Time::default());
        let fifo = Entry { node: Node::Fifo, ..directory("/a/b/c") };
        let tree = rebased([directory("/a/b"), fifo].into_iter(), &at("/a/b"));
        assert_eq!(tree.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>(), ["/", "/c"]);
    }
}
