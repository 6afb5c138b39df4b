//! RUN: one command in the sandbox; its layer is what it changed.
//!
//! 1. Which files it sees (root, mounts) is known from trees: that gives the key. Where that has no result, what an earlier run
//!    read may tell ([`ByReads`]), if it is asked for.
//! 2. A miss waits for others who run the same step, then prepares the root: snapshots below, a layer of empty mount
//!    targets, a fresh upper directory on top.
//! 3. The executor runs the command.
//! 4. The upper directory becomes a tree, and the tree a layer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::Timespec;

use super::by_reads::ByReads;
use super::devices::{self, Found};
use super::mounts::{self, Prepared};
use super::reads;
use crate::build::error::StepError;
use crate::build::filesystem::{Access, Filesystem, Source, Work};
use crate::build::solve::{Job, Session, Solved};
use crate::cache::key;
use crate::dockerfile;
use crate::executor::{
    self, ExecFailure, ExecuteError, Process, REQUIRED_DIRECTORIES, Security, Stdio, Trace, hosts_file,
};
use crate::graph::{MountTarget, RunOp};
use crate::layer;
use crate::oci::Platform;
use crate::rootfs::{self, Accounts, Identity, RootDir, RootPath, UserSpec};
use crate::snapshot::{self, Active, Mount};
use crate::ssh;
use crate::tree::{Entry, Node, Stack, Tree};

/// The word of `--add-host` for this machine.
const HOST_GATEWAY: &str = "host-gateway";

/// Lines of a failed command's output that its error carries.
const LAST_LINES: usize = 20;

/// Longest line that is kept for an error, in bytes.
const LONGEST_LINE: usize = 4096;

/// Free bytes below which a disk counts as full.
const ROOM: u64 = 1 << 20;

/// Largest passwd or group file that is read (security invariant S-10).
pub(crate) const MAX_ACCOUNTS: u64 = 10 << 20;

pub(crate) fn solve(job: &Job<'_>, op: &RunOp, work: Work) -> Result<Option<Solved>, StepError> {
    let session = job.session;
    let Some(stack) = job.root.stack(session, work)? else { return Ok(None) };
    let Some(sources) = mounts::sources(job, op, work)? else { return Ok(None) };
    let shown: Vec<_> = sources.iter().map(|source| source.as_ref().map(mounts::Source::digest)).collect();
    let options = &session.request.run;
    let found = devices::find(op, &options.entitlements.devices, &options.cdi_directories)?;
    let mut preimage = key::run(op, &stack.state(), &shown);
    if !found.seen.is_empty() {
        preimage.add("devices found", &found.seen);
    }
    for (id, fingerprint) in mounts::fingerprints(session, op)? {
        preimage.add(format!("{} {id}", key::FINGERPRINT), fingerprint);
    }
    let mounted =
        |id: &str| op.mounts.iter().any(|mount| matches!(&mount.kind, MountTarget::Secret(it) if it.id == id));
    for (id, epoch) in session.request.secret_epochs.iter().filter(|(id, _)| mounted(id)) {
        preimage.add(format!("secret epoch {id}"), epoch);
    }
    if let Some(known) = job.lookup(&preimage)? {
        return Ok(Some(Solved::layer(job, known, Source::Rerun, true)));
    }
    let by_reads = ByReads::of(job, op, &stack, &sources, &preimage);
    if let Some(solved) = by_reads.as_ref().map(|by_reads| by_reads.lookup(job)).transpose()?.flatten() {
        return Ok(Some(solved));
    }
    mounts::note(job, op, &sources);
    if work == Work::Known {
        return Ok(None);
    }
    let cache = &session.engine.cache;
    let key = preimage.key();
    let lock = cache.lock(&key, &session.cancel)?;
    // Another process may have run it while this one waited.
    let solved = if let Some(known) = job.lookup(&preimage)? {
        Solved::layer(job, known, Source::Rerun, true)
    } else {
        let begun = Instant::now();
        let trace = (session.request.trace_reads || by_reads.is_some()).then(|| Arc::new(Trace::default()));
        let (active, tree) = execute(job, op, &stack, &sources, found, trace.clone())?;
        let traced = trace.map(|trace| trace.take());
        if let Some(traced) = traced.as_ref().filter(|_| session.request.trace_reads) {
            let seen = reads::of(job, &stack, traced);
            session.recorder.note(job.vertex, |step| step.reads = Some(seen));
        }
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let made = job.remember(preimage, &stack.state(), tree.clone(), milliseconds)?;
        keep(session, active, &made.0)?;
        if let (Some(by_reads), Some(traced)) = (by_reads, traced) {
            by_reads.record(job, &traced, &tree, &made.1)?;
        }
        Solved::layer(job, made, Source::Rerun, false)
    };
    drop(lock);
    Ok(Some(solved))
}

/// Runs a step whose result is known once more; gives what it makes now.
pub(crate) fn again(job: &Job<'_>, op: &RunOp) -> Result<Tree, StepError> {
    let known = "with work allowed there is always a result";
    let stack = job.root.stack(job.session, Work::Allowed)?.expect(known);
    let sources = mounts::sources(job, op, Work::Allowed)?.expect(known);
    let options = &job.session.request.run;
    let found = devices::find(op, &options.entitlements.devices, &options.cdi_directories)?;
    execute(job, op, &stack, &sources, found, None).map(|(_, tree)| tree)
}

/// Commits what a step made as the snapshot of `tree`, which says the same apart from times.
fn keep(session: &Session<'_>, active: Active, tree: &Tree) -> Result<(), StepError> {
    let snapshots = &session.engine.snapshots;
    if tree.is_empty() || snapshots.get(&tree.id())?.is_some() {
        return Ok(());
    }
    set_times_of(&active, tree)?;
    snapshots.commit(active, tree)?;
    Ok(())
}

/// Gives files that say the same as `tree` its times.
pub(crate) fn set_times_of(active: &Active, tree: &Tree) -> Result<(), StepError> {
    // Deepest first: nothing below a directory changes after its own time is set.
    for entry in tree.iter().collect::<Vec<_>>().iter().rev() {
        let set = set_time(active.root(), entry);
        set.map_err(|source| StepError::Io { what: format!("cannot set the time of `{}`", entry.path), source })?;
    }
    Ok(())
}

fn set_time(root: &RootDir, entry: &Entry) -> std::io::Result<()> {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds.into() };
    match entry.node {
        // A whiteout has no time of its own.
        Node::Whiteout => Ok(()),
        _ if entry.path.is_root() => rootfs::set_times(root.directory(), time),
        _ => root.parent(&entry.path).and_then(|(directory, name)| directory.set_mtime(name, time)),
    }
}

fn execute(
    job: &Job<'_>,
    op: &RunOp,
    stack: &Stack,
    sources: &[Option<mounts::Source>],
    found: Found,
    trace: Option<Arc<Trace>>,
) -> Result<(Active, Tree), StepError> {
    let session = job.session;
    let engine = session.engine;
    session.request.run.entitlements.check(op)?;
    found.check()?;
    let mut account = resolve_user(session, &job.root, stack, &op.user)?;
    account.groups.extend(&found.groups);
    // As containerd: what the own group is denied is denied to whoever leaves it.
    if !account.groups.contains(&account.gid) {
        account.groups.insert(0, account.gid);
    }
    let warn = |text| session.events.warning(None, text);
    let (network, reach) = session.network.of(op.network, &session.request.run, warn)?;
    let mut prepared = mounts::prepare(job, op, stack, sources, reach)?;
    for (target, shown) in found.mounts()? {
        prepared.add(stack.resolve(&target, true)?, shown)?;
    }
    let active = engine.snapshots.begin()?;
    let root = Root { filesystem: &job.root, stack, prepared: &prepared }.mount(session, &active, &op.workdir)?;

    let mut env = environment(op, &account);
    env.retain(|(name, _)| !prepared.env.iter().any(|(secret, _)| secret == name));
    env.extend(prepared.env.iter().cloned());
    env.retain(|(name, _)| !found.env.iter().any(|(given, _)| given.as_bytes() == name));
    env.extend(found.env.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())));
    let Prepared { mounts, held, sockets, caches, .. } = prepared;
    let process = Process {
        root: duplicate(&root).map_err(|source| StepError::Io { what: "cannot open the root".to_owned(), source })?,
        args: op.args.iter().map(|argument| argument.clone().into_bytes()).collect(),
        env,
        cwd: stack.resolve(&op.workdir, true)?,
        user: executor::Identity { uid: account.uid, gid: account.gid, groups: account.groups },
        mounts,
        devices: found.nodes,
        network,
        hostname: op.hostname.clone(),
        security: match op.security {
            dockerfile::Security::Sandbox => Security::Sandbox,
            dockerfile::Security::Insecure => Security::Insecure,
        },
        no_new_privileges: op.no_new_privileges,
        limits: session.request.limits.clone(),
        stdio: Stdio::Captured,
        trace,
    };
    let mut last = LastLines::default();
    let mut output = |stream, bytes: &[u8]| {
        last.push(bytes);
        session.events.output(job.task, stream, bytes);
    };
    let exit = ssh::serve(&sockets, || engine.executor.run(process, &mut output, &session.cancel))
        .map_err(|source| StepError::Io { what: "cannot serve an agent's socket".to_owned(), source })?
        .map_err(|error| of_platform(op, error))?;
    drop((root, held, sockets));
    mounts::trim(job, op, caches)?;
    if !exit.is_success() {
        let full = is_full(engine.content.state());
        return Err(StepError::Command { command: quoted(&op.args), exit, output: last.finish(), full });
    }
    let tree = layer::capture(&active, stack)?;
    Ok((active, tree))
}

/// The directory, if its disk has no room left, be it for bytes or for files. Asked while what the command wrote is there:
/// commands say in many ways, or not at all, that they could not write.
fn is_full(directory: &Path) -> Option<PathBuf> {
    let found = rustix::fs::statvfs(directory).ok()?;
    let no_bytes = found.f_bavail.saturating_mul(found.f_frsize) < ROOM;
    (no_bytes || (found.f_files > 0 && found.f_favail == 0)).then(|| directory.to_owned())
}

/// A program of a platform that this machine does not run is no riddle.
fn of_platform(op: &RunOp, error: ExecuteError) -> StepError {
    let host = Platform::host();
    match error {
        ExecuteError::Exec { reason: ExecFailure::Format, .. }
            if op.platform.os != host.os || op.platform.architecture != host.architecture =>
        {
            StepError::Emulator { platform: Box::new(op.platform.clone()), host: Box::new(host) }
        }
        error => error.into(),
    }
}

/// A root filesystem about to be mounted.
pub(crate) struct Root<'a> {
    pub(crate) filesystem: &'a Filesystem,
    pub(crate) stack: &'a Stack,
    pub(crate) prepared: &'a Prepared,
}

impl Root<'_> {
    /// Mounts the layers with `active` on top; mount targets that the image has not got are in a layer between, which
    /// never becomes part of an image.
    pub(crate) fn mount(&self, access: &Access<'_>, active: &Active, workdir: &RootPath) -> Result<Mount, StepError> {
        let engine = access.engine;
        let lowers = self.filesystem.snapshots(access)?;
        let stubs = snapshot::stubs(active, self.stack, &self.prepared.targets)?;
        let root = engine.snapshotter()?.mount(&lowers.iter().collect::<Vec<_>>(), stubs.as_ref(), active)?;
        // As container runtimes do: a working directory that is missing is made, and is part of the layer. So are the
        // directories of the kernel's file systems, which BuildKit's images have got from their first RUN on.
        let required = REQUIRED_DIRECTORIES.map(|name| RootPath::clean(name).expect("a constant path"));
        for directory in required.into_iter().chain([self.stack.resolve(workdir, true)?]) {
            if self.stack.lookup(&directory).is_none() {
                duplicate(&root)
                    .and_then(|fd| RootDir::from_fd(fd).create_dir_all(&directory, 0o755))
                    .map_err(|source| StepError::Io { what: format!("cannot make directory `{directory}`"), source })?;
            }
        }
        Ok(root)
    }
}

/// A second descriptor of a mount.
pub(crate) fn duplicate(mount: &Mount) -> std::io::Result<OwnedFd> {
    mount.as_fd().try_clone_to_owned()
}

fn environment(op: &RunOp, account: &Identity) -> Vec<(Vec<u8>, Vec<u8>)> {
    let unkeyed = op.unkeyed_env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut keyed = op.env.to_vec();
    keyed.retain(|(name, _)| !op.unkeyed_env.iter().any(|(proxy, _)| proxy == name));
    // An empty one counts as none, as for runc.
    keyed.retain(|(name, value)| *name != "HOME" || !value.is_empty());
    let mut env: Vec<(Vec<u8>, Vec<u8>)> = unkeyed
        .chain(keyed.iter().copied())
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    if !keyed.iter().any(|(name, _)| *name == "HOME") {
        let home = account.home.clone().unwrap_or_else(|| "/".to_owned());
        env.push((b"HOME".to_vec(), home.into_bytes()));
    }
    env
}

/// Finds out who `user` is in the image.
pub(crate) fn resolve_user(
    access: &Access<'_>,
    filesystem: &Filesystem,
    stack: &Stack,
    user: &str,
) -> Result<Identity, StepError> {
    let spec = UserSpec::parse(if user.is_empty() { "0" } else { user })?;
    let read = |path: &str| Ok(filesystem.read(access, stack, path, MAX_ACCOUNTS)?.unwrap_or_default());
    Ok(accounts(read)?.run_as(&spec)?)
}

/// The users and groups of an image, for a key: a cache that is written afterwards has them too, so that nobody fetches a
/// layer to know the key.
pub(crate) fn accounts_for_key(
    access: &Access<'_>,
    filesystem: &Filesystem,
    stack: &Stack,
) -> Result<Accounts, StepError> {
    accounts(|path| {
        let content = filesystem.read(access, stack, path, MAX_ACCOUNTS)?;
        if let (Some(content), Some(remote)) = (&content, &access.remote) {
            remote.note_file(content);
        }
        Ok(content.unwrap_or_default())
    })
}

fn accounts(read: impl Fn(&str) -> Result<Vec<u8>, StepError>) -> Result<Accounts, StepError> {
    Ok(Accounts::parse(&read("/etc/passwd")?, &read("/etc/group")?))
}

/// `/etc/hosts` of a process. `gateway` is what `host-gateway` stands for, where the host can be reached.
pub(crate) fn hosts(
    hostname: &str,
    add_hosts: &[(String, String)],
    gateway: Option<IpAddr>,
) -> Result<Vec<u8>, StepError> {
    let parsed = add_hosts.iter().map(|(name, address)| {
        let known = if address == HOST_GATEWAY { gateway } else { address.parse().ok() };
        let unknown = || StepError::Unsupported(format!("`{address}` is not an address for the host `{name}` here"));
        Ok((name.clone(), known.ok_or_else(unknown)?))
    });
    Ok(hosts_file(hostname, &parsed.collect::<Result<Vec<_>, StepError>>()?).into_bytes())
}

/// The command as a person would type it.
fn quoted(args: &[String]) -> String {
    let words: Vec<String> = args
        .iter()
        .map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) { word.clone() } else { format!("{word:?}") }
        })
        .collect();
    format!("`{}`", words.join(" "))
}

/// Keeps the last lines of a stream.
#[derive(Default)]
struct LastLines {
    lines: VecDeque<String>,
    current: Vec<u8>,
}

impl LastLines {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE.saturating_sub(self.current.len());
            self.current.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.current);
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_however_the_output_is_split() {
        let mut last = LastLines::default();
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let text = lines.join("\n") + "\nend";
        for piece in text.as_bytes().chunks(7) {
            last.push(piece);
        }
        let lines = last.finish();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[0], "line 31");
        assert_eq!(lines[19], "end");
        let mut long = LastLines::default();
        long.push(&vec![b'x'; 1 << 20]);
        assert_eq!(long.finish()[0].len(), LONGEST_LINE);
    }

    #[test]
    fn commands_are_quoted_where_they_need_it() {
        let args = ["/bin/sh", "-c", "echo \"a b\""].map(str::to_owned);
        assert_eq!(quoted(&args), r#"`/bin/sh -c "echo \"a b\""`"#);
    }
}
