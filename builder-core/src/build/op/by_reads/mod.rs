//! RUN, looked up by what it reads: a second way to a hit where its key has no result (`--cache-reads`, `# cache=reads`).
//!
//! 1. [`ByReads::of`]: what the command is, without the files that it can see; or why that is not enough.
//! 2. [`ByReads::lookup`]: recorded runs of it; the first that looked at nothing that is another now has the result.
//! 3. [`ByReads::record`]: after a run that was traced without gaps, what it looked at.
//!
//! What belongs to what was looked at, so that an equal state means an equal layer on any root:
//!
//! | | why |
//! |---|---|
//! | each path that a call of the command named, links followed, those that were not there too | the command was told about it |
//! | of a directory that was asked about, opened, removed or replaced: the names in it | number of links, and whether it is empty |
//! | of a renamed directory: everything below | it is elsewhere then, under paths that nobody named |
//! | programs that the kernel opens for others: loaders, interpreters of scripts | no call names them |
//! | each directory above all of these | whether one may pass; what a copy of it in the layer says |
//! | each path of the layer | whether it is new or equal to what is below |
//! | the names in a directory where the layer removes something | whether all went: then the layer hides it whole |
//! | working directory, `/etc/passwd`, `/etc/group`, targets of mounts, directories that each root gets | read or made before the command begins |
//!
//! Paths in read-only bind mounts are looked up in what is mounted. Those in `/proc`, `/sys`, `/dev` and in other mounts are left
//! out: what is there is in no key, or is in the definition.

use std::collections::BTreeMap;

use super::mounts;
use crate::build::error::StepError;
use crate::build::filesystem::Source;
use crate::build::solve::{Job, Solved};
use crate::cache::reads::{How, Look, ReadSet, VERSION, Views, definition};
use crate::cache::{CacheKey, Preimage, Record, key};
use crate::dockerfile::Security;
use crate::executor::{PathUse, REQUIRED_DIRECTORIES, Traced};
use crate::graph::{MountTarget, RunOp};
use crate::history::{self, Lookup};
use crate::oci::Platform;
use crate::rootfs::RootPath;
use crate::tree::{Node, SemanticDigest, Stack, StateDigest, Tree};

/// Most paths of one run that are recorded.
const MAX_LOOKS: usize = 40_000;

/// Differing paths that are kept for explanations.
const MAX_DIFFERING: usize = 5;

/// Read or covered before a command begins.
const READ_BEFORE: [&str; 5] = ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

/// A command that is looked up by what it reads.
pub(super) struct ByReads<'a> {
    op: &'a RunOp,
    stack: &'a Stack,
    views: Views,
    definition: CacheKey,
    /// Where mounts are, each with the place where paths in it are looked up, if they are.
    mounts: Vec<(RootPath, Option<usize>)>,
}

impl<'a> ByReads<'a> {
    /// `None` if nobody asked for it, or the command is none that can be looked up so; that is noted.
    pub(super) fn of(
        job: &Job<'_>,
        op: &'a RunOp,
        stack: &'a Stack,
        sources: &[Option<mounts::Source>],
        preimage: &Preimage,
    ) -> Option<Self> {
        if !job.session.request.cache_reads && !job.planned().cache_reads {
            return None;
        }
        match Self::new(op, stack, sources, preimage) {
            Ok(found) => Some(found),
            Err(reason) => {
                note(job, None, Lookup::NotAsked, Some(reason));
                None
            }
        }
    }

    fn new(
        op: &'a RunOp,
        stack: &'a Stack,
        sources: &[Option<mounts::Source>],
        preimage: &Preimage,
    ) -> Result<Self, String> {
        let host = Platform::host();
        if op.security == Security::Insecure {
            return Err("it runs with `--security=insecure`".to_owned());
        }
        if !op.devices.is_empty() || preimage.fields.iter().any(|field| field.name == "devices found") {
            return Err("it uses devices".to_owned());
        }
        if (&op.platform.os, &op.platform.architecture) != (&host.os, &host.architecture) {
            return Err("it is made of programs of another platform".to_owned());
        }
        let looked_up = |at: usize| {
            matches!(op.mounts[at].kind, MountTarget::Bind { writable: false, .. }) && sources[at].is_some()
        };
        let mut places: Vec<(RootPath, Option<usize>)> = Vec::new();
        for (at, mount) in op.mounts.iter().enumerate() {
            let target = stack.resolve(&mount.target, true).map_err(|error| error.to_string())?;
            if let Some((other, _)) =
                places.iter().find(|(other, _)| target.starts_with(other) || other.starts_with(&target))
            {
                return Err(format!("its mounts at `{other}` and `{target}` lie in each other"));
            }
            places.push((target, looked_up(at).then_some(at + 1)));
        }
        let shown: Vec<Option<SemanticDigest>> = sources
            .iter()
            .enumerate()
            .map(|(at, source)| source.as_ref().filter(|_| !looked_up(at)).map(mounts::Source::digest))
            .collect();
        let plain = key::run(op, &StateDigest::new([0; 32]), &shown);
        let views = sources.iter().enumerate().map(|(at, source)| {
            source.as_ref().filter(|_| looked_up(at)).map(|source| Stack::new(vec![source.tree().clone()]))
        });
        let views = Views::new(stack.clone(), views.collect::<Vec<_>>());
        Ok(Self { op, stack, views, definition: definition(plain, preimage), mounts: places })
    }

    /// The result of a run that looked at nothing that is another now.
    pub(super) fn lookup(&self, job: &Job<'_>) -> Result<Option<Solved>, StepError> {
        let engine = job.session.engine;
        if job.is_rerun() {
            note(job, Some(&self.definition), Lookup::NotAsked, None);
            return Ok(None);
        }
        let mut outcome = Lookup::Nothing;
        for set in engine.cache.read_sets(&self.definition, !job.session.dry)? {
            let differing = self.views.differing(&set.looks, MAX_DIFFERING);
            if !differing.is_empty() {
                if outcome == Lookup::Nothing {
                    let paths = differing.into_iter().map(|look| self.shown(look)).collect();
                    outcome = Lookup::Differs { paths };
                }
                continue;
            }
            let tree = match job.expired(&set.record) {
                Some(_) => None,
                None => engine.trees.get(&set.record.tree)?,
            };
            let Some(tree) = tree else {
                outcome = Lookup::Gone;
                continue;
            };
            if !job.session.dry {
                engine.cache.mark_read_set(&self.definition, &set);
            }
            note(job, Some(&self.definition), Lookup::Hit { paths: set.looks.len() }, None);
            job.session.recorder.note(job.vertex, |step| {
                (step.tree, step.result, step.bytes) = (Some(set.record.tree), Some(set.record.semantic), None);
            });
            // Its key stays without a record: what is wrong here must not live on as an ordinary result.
            return Ok(Some(Solved::untold(job, (tree, set.record), Source::Rerun, true)));
        }
        note(job, Some(&self.definition), outcome, None);
        Ok(None)
    }

    /// Records what a run that gave `tree` looked at; or notes why that cannot be.
    pub(super) fn record(&self, job: &Job<'_>, traced: &Traced, tree: &Tree, record: &Record) -> Result<(), StepError> {
        let looks = match self.looks(traced, tree) {
            Ok(looks) => looks,
            Err(reason) => {
                job.session.recorder.note(job.vertex, |step| {
                    if let Some(found) = &mut step.by_reads {
                        found.unrecorded = Some(reason);
                    }
                });
                return Ok(());
            }
        };
        let set = ReadSet { version: VERSION, definition: self.definition.to_string(), record: record.clone(), looks };
        Ok(job.session.engine.cache.put_read_set(&self.definition, &set)?)
    }

    /// Everything that the layer depends on, with its state before the run.
    fn looks(&self, traced: &Traced, tree: &Tree) -> Result<Vec<Look>, String> {
        if let Some(reason) = traced.gap.as_ref().or(traced.doubt.as_ref()) {
            return Err(reason.clone());
        }
        let mut seen = Seen { mounts: &self.mounts, looks: BTreeMap::new() };
        self.before(&mut seen)?;
        for (path, used) in &traced.paths {
            let how = match used {
                PathUse::Missing | PathUse::Touched => How::Seen,
                PathUse::Measured | PathUse::Listed => How::Listed,
                PathUse::Moved => How::Whole,
            };
            if how == How::Whole && self.mounts.iter().any(|(target, _)| target.starts_with(path)) {
                return Err(format!("it renames `{path}`, and a mount with it"));
            }
            seen.note(path, how);
        }
        for entry in tree.iter() {
            seen.note(&entry.path, How::Seen);
            match entry.node {
                Node::Whiteout => seen.note(&entry.path.parent().unwrap_or_default(), How::Listed),
                Node::Directory { opaque: true } => seen.note(&entry.path, How::Listed),
                _ => {}
            }
        }
        if seen.looks.len() > MAX_LOOKS {
            return Err("it looks at too many files".to_owned());
        }
        let look = |((place, path), how): ((usize, RootPath), How)| {
            let text = std::str::from_utf8(path.as_bytes());
            let text = text.map_err(|_| format!("the name of a file that it looks at is no text: {path}"))?;
            let state = self.views.state(place, &path, how).ok_or_else(|| format!("`{path}` cannot be looked up"))?;
            Ok(Look { place, path: format!("/{text}"), how, state })
        };
        seen.looks.into_iter().map(look).collect()
    }

    /// What decides how the root is set up.
    fn before(&self, seen: &mut Seen<'_>) -> Result<(), String> {
        let fixed = READ_BEFORE.iter().chain(&REQUIRED_DIRECTORIES);
        let fixed = fixed.map(|path| RootPath::clean(path).expect("a constant path"));
        let targets = self.op.mounts.iter().map(|mount| mount.target.clone());
        for path in fixed.chain(targets).chain([self.op.workdir.clone()]) {
            let mut note = |path: &RootPath| seen.put(0, path.clone(), How::Seen);
            let resolved = self.stack.resolve_noting(&path, true, &mut note).map_err(|error| error.to_string())?;
            seen.put(0, resolved, How::Seen);
        }
        // Where it is in a mount, it is made there.
        seen.note(&self.stack.resolve(&self.op.workdir, true).map_err(|error| error.to_string())?, How::Seen);
        Ok(())
    }

    /// A look as the command sees its path.
    fn shown(&self, look: &Look) -> String {
        let mount = look.place.checked_sub(1).and_then(|at| self.op.mounts.get(at));
        match mount {
            Some(mount) if look.path == "/" => mount.target.to_string(),
            Some(mount) => format!("{}{}", mount.target, look.path),
            None => look.path.clone(),
        }
    }
}

/// Collects looks, each with everything above it.
struct Seen<'a> {
    mounts: &'a [(RootPath, Option<usize>)],
    looks: BTreeMap<(usize, RootPath), How>,
}

impl Seen<'_> {
    /// Notes a path of the command.
    fn note(&mut self, path: &RootPath, how: How) {
        if let Some((target, place)) = self.mounts.iter().find(|(target, _)| path.starts_with(target)) {
            if let Some(place) = place {
                self.put(*place, path.strip_prefix(target).unwrap_or_default(), how);
            }
            return;
        }
        let mut components = path.components();
        let special = matches!(components.next(), Some(b"proc" | b"sys" | b"dev"));
        if !special || components.next().is_none() {
            self.put(0, path.clone(), if special { How::Seen } else { how });
        }
    }

    fn put(&mut self, place: usize, path: RootPath, how: How) {
        for above in path.ancestors() {
            self.looks.entry((place, above)).or_insert(How::Seen);
        }
        let most = self.looks.entry((place, path)).or_insert(how);
        *most = how.max(*most);
    }
}

fn note(job: &Job<'_>, definition: Option<&CacheKey>, outcome: Lookup, unrecorded: Option<String>) {
    let definition = definition.map(ToString::to_string);
    let by_reads = history::ByReads { definition, outcome, unrecorded };
    job.session.recorder.note(job.vertex, |step| step.by_reads = Some(by_reads));
}

#[cfg(test)]
mod tests;
