//! COPY and ADD: what lands where is planned from trees; the layer is the plan.
//!
//! The key of a copy is its result without times: the copied entries as they land, and the directories above them with the
//! mode and owner that the destination gives them. So nothing else of the destination runs a copy again.
//!
//! A copy is not carried out here. Its files are opened where they are when somebody needs them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::sync::Arc;
use std::time::Instant;

use super::archive;
use super::copy::{self, Attributes, CopyError, CopyPlan, CopySource, FileSource, LooseFile, PlannedFiles};
use super::http::{self, Fetched, Fetcher};
use super::patch;
use super::run::accounts_for_key;
use super::unchanged;
use crate::build::contexts::OpenContext;
use crate::build::error::StepError;
use crate::build::filesystem::{Access, Filesystem, LayerFiles, Source, Work};
use crate::build::git_files::GitUse;
use crate::build::remote::Bring;
use crate::build::request::PullPolicy;
use crate::build::solve::{Job, Solved};
use crate::cache::Preimage;
use crate::context::{BuildContext, Match, Reading, Request, Selected, Survey};
use crate::git::Wanted;
use crate::graph::{AddSource, CopyOp, Files};
use crate::layer::{self, Archive};
use crate::oci::Digest;
use crate::rootfs::{Owner, RootPath, UserSpec};
use crate::snapshot::Snapshot;
use crate::tree::{ContentDigest, Entry, Node, SemanticDigest, Stack, Time, TreeId};

pub(crate) fn solve(job: &Job<'_>, op: &CopyOp, work: Work) -> Result<Option<Solved>, StepError> {
    let session = job.session;
    let begun = Instant::now();
    let below = if op.link && op.chown.is_none() { Some(Stack::default()) } else { job.root.stack(session, work)? };
    let Some(below) = below else { return Ok(None) };
    let owner = match &op.chown {
        // `:group` leaves the user to root.
        Some(chown) => {
            let spec = if chown.starts_with(':') { format!("0{chown}") } else { chown.clone() };
            Some(accounts_for_key(session, &job.root, &below)?.owner(&UserSpec::parse(&spec)?)?)
        }
        None => None,
    };
    let attributes = Attributes { owner, created: Time::from_seconds(session.now) };
    let seen = unchanged::see(job, op)?;
    let inputs = seen.as_ref().map(|seen| seen.inputs(op, &below, attributes));
    let recalled = seen.as_ref().zip(inputs).and_then(|(seen, inputs)| seen.context.recall(&inputs));
    // Who verifies wants everything to be planned.
    let asked = recalled.filter(|_| session.request.verify_cache.is_none());
    if let (Some(seen), Some(result)) = (&seen, asked)
        && let Some(known) = job.lookup(&preimage(op, result))?
    {
        let files = seen.files(op, &below, attributes);
        return Ok(Some(Solved::layer(job, known, Source::Files(Arc::new(files)), true)));
    }

    let mut patching = seen.as_ref().and_then(|seen| patch::Patching::of(job, op, seen, &below, attributes));
    let patched = patching.as_mut().map(|patching| patching.plan(&below, attributes)).transpose()?.flatten();
    let planned = if let Some(planned) = patched {
        planned
    } else {
        let surveys = seen.as_ref().map_or(&[][..], |seen| &seen.surveys).iter();
        let unpacked = below.clone();
        let found = Found::default();
        let mut finder = Finder { job, op, work, below: &below, unpacked, owner, surveys, settled: true, found };
        if !finder.all()? {
            return Ok(None);
        }
        let Finder { found: Found { sources, places }, settled, .. } = finder;
        Planned { plan: copy::plan(op, sources, &below, attributes)?, places, settled }
    };
    let Planned { plan, places, settled } = planned;
    let result = plan.tree.semantic();
    if let (Some(context), Some(inputs)) = (&places.context, inputs) {
        if settled && recalled.is_some_and(|recalled| recalled != result) {
            session
                .events
                .warning(Some(job.task), "the memo of the build context was wrong; it is not used".to_owned());
        }
        // What an archive holds is looked at each time, as its files are somewhere else.
        if settled && places.unpacked.is_empty() && !session.dry {
            context.remember(inputs, result);
        }
    }
    let preimage = preimage(op, result);
    let from_layers = plan.files.is_in_layers();
    let files = Arc::new(Copied { files: plan.files, places });
    let source = if from_layers { Source::Layers(files) } else { Source::Files(files) };
    if asked != Some(result)
        && let Some(known) = job.lookup(&preimage)?
    {
        return Ok(Some(Solved::layer(job, known, source, true)));
    }
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    // The root is left out: the same files are the same layer wherever they are copied to.
    let made = job.remember(preimage, &Stack::default().state(), plan.tree.clone(), milliseconds)?;
    if let Some(patching) = patching.filter(|_| settled && !session.dry && made.0 == plan.tree) {
        patching.remember(plan.tree.id());
    }
    Ok(Some(Solved::layer(job, made, source, false)))
}

/// A copy as far as it was worked out.
pub(super) struct Planned {
    pub(super) plan: CopyPlan,
    pub(super) places: Places,
    /// What was read is as it was looked at, and stays so unless that shows.
    pub(super) settled: bool,
}

/// What the key of a copy is made of: its result.
fn preimage(op: &CopyOp, result: SemanticDigest) -> Preimage {
    let mut preimage = Preimage::new(if op.add { "add" } else { "copy" });
    preimage.add("result", result);
    preimage
}

/// The sources of a copy, and where their bytes are.
#[derive(Default)]
struct Found {
    sources: Vec<CopySource>,
    places: Places,
}

/// Where the bytes of sources are.
#[derive(Default)]
pub(super) struct Places {
    context: Option<Arc<BuildContext>>,
    filesystem: Option<Filesystem>,
    /// Repositories, by the number of their source.
    repositories: BTreeMap<usize, Filesystem>,
    /// Snapshots of archives, by the number of their source.
    unpacked: BTreeMap<usize, Snapshot>,
}

impl Places {
    /// All of them are in one context.
    pub(super) fn of_context(context: Arc<BuildContext>) -> Self {
        Self { context: Some(context), ..Self::default() }
    }
}

/// Finds the sources of one copy.
struct Finder<'a> {
    job: &'a Job<'a>,
    op: &'a CopyOp,
    work: Work,
    below: &'a Stack,
    /// The same with the archives so far: the next one is unpacked over them.
    unpacked: Stack,
    owner: Option<Owner>,
    /// Of the sources in order, if all of them were looked at before.
    surveys: std::slice::Iter<'a, Survey>,
    /// What was read is as it was looked at, and stays so unless that shows.
    settled: bool,
    found: Found,
}

/// Whether something is known; if not, it takes work and none is allowed.
type Known = bool;

impl Finder<'_> {
    /// Finds every source.
    fn all(&mut self) -> Result<Known, StepError> {
        for source in &self.op.sources {
            let known = match source {
                AddSource::Inline { name, body } => {
                    self.found.sources.push(inline(self.job, name, body));
                    true
                }
                AddSource::Http(_) if self.work == Work::Known && !self.job.session.dry => false,
                AddSource::Git(..) if self.job.session.dry => false,
                AddSource::Http(url) => self.download(url)?,
                AddSource::Git(_, wanted) => self.repository(wanted)?,
                AddSource::Path(path) => self.path(path)?,
            };
            if !known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds a repository: its files, without the directory that they are in.
    fn repository(&mut self, wanted: &Wanted) -> Result<Known, StepError> {
        let session = self.job.session;
        // A Dockerfile is not handed the keys of whoever builds it, unless `--ssh` says so.
        let ssh = session.request.run.ssh.get("default");
        let git = GitUse {
            pins: &session.request.pins,
            answers: session.answers,
            pull: session.request.pull,
            ssh,
            ssh_agent: None,
        };
        let (engine, secrets, events) = (session.engine, &session.request.secrets, session.events.clone());
        let bring = Bring { engine, git, secrets, events, cancel: &session.cancel };
        let files = match self.work {
            Work::Known => bring.known_git(wanted)?,
            Work::Allowed => Some(bring.git(wanted, self.job.task)?),
        };
        let Some(files) = files else { return Ok(false) };
        let filesystem = files.filesystem();
        let Some(stack) = filesystem.stack(session, self.work)? else { return Ok(false) };
        let request = Request { source: "/", parents: false, exclude: &self.op.exclude };
        let matches = copy::select(&stack, &request)?;
        self.found.places.repositories.insert(self.found.sources.len(), filesystem);
        self.found.sources.push(CopySource::Stack(matches));
        Ok(true)
    }

    fn path(&mut self, path: &str) -> Result<Known, StepError> {
        let request = Request { source: path, parents: self.op.parents, exclude: &self.op.exclude };
        let filesystem = match &self.op.from {
            Files::Context(id) => match self.job.session.contexts.get(id)? {
                OpenContext::Directory(context) => {
                    let Reading { matches, settled } = match self.surveys.next() {
                        Some(survey) => context.read(survey)?,
                        None => context.read(&context.survey(&request)?)?,
                    };
                    self.settled &= settled;
                    self.found.places.context = Some(Arc::clone(&context));
                    return self.add_matches(matches, CopySource::Context, |found| context.open_file(&found.entry));
                }
                OpenContext::Files(filesystem) => filesystem,
            },
            Files::Vertex(vertex) => self.job.input(*vertex),
        };
        let Some(stack) = filesystem.stack(self.job.session, self.work)? else { return Ok(false) };
        let matches = copy::select(&stack, &request)?;
        self.found.places.filesystem = Some(filesystem.clone());
        let access = &self.job.session.access;
        self.add_matches(matches, CopySource::Stack, |found| {
            filesystem.open(access, found.layer, &found.entry).map_err(io::Error::other)
        })
    }

    /// Adds matches, archives of an ADD unpacked.
    fn add_matches(
        &mut self,
        matches: Vec<Match>,
        source: fn(Vec<Match>) -> CopySource,
        open: impl Fn(&Selected) -> io::Result<File>,
    ) -> Result<Known, StepError> {
        if !self.op.add || self.op.unpack == Some(false) {
            self.found.sources.push(source(matches));
            return Ok(true);
        }
        for found in matches {
            let file = found.entries.first().filter(|first| first.entry.node.is_file()).cloned();
            let source = source(vec![found]);
            if let Some(file) = file {
                if !self.archive_or(&file.entry, &|| open(&file), source)? {
                    return Ok(false);
                }
            } else {
                self.found.sources.push(source);
            }
        }
        Ok(true)
    }

    /// Adds a file unpacked if it is an archive, else as `otherwise`.
    fn archive_or(
        &mut self,
        entry: &Entry,
        open: &dyn Fn() -> io::Result<File>,
        otherwise: CopySource,
    ) -> Result<Known, StepError> {
        if !archive::holds_archive(entry, open)? {
            self.found.sources.push(otherwise);
            return Ok(true);
        }
        let into = copy::landing(self.op, self.below)?;
        let archive = Archive { into, owner: self.owner, lower: &self.unpacked };
        match archive::unpack(self.job.session, entry, open, archive, self.work)? {
            archive::Unpacked::Archive(archive, snapshot) => {
                self.unpacked.push(archive.tree.clone());
                self.found.places.unpacked.insert(self.found.sources.len(), snapshot);
                self.found.sources.push(CopySource::Unpacked(archive));
            }
            archive::Unpacked::Unknown => return Ok(false),
        }
        Ok(true)
    }

    fn download(&mut self, url: &str) -> Result<Known, StepError> {
        let (job, session) = (self.job, self.job.session);
        let checksum = match self.op.checksum.as_deref().map(str::parse::<Digest>) {
            Some(Err(error)) => return Err(StepError::Unsupported(format!("invalid `--checksum`: {error}"))),
            Some(Ok(checksum)) => Some(checksum),
            None => None,
        };
        let engine = session.engine;
        let shown = http::redacted(url);
        let fetcher = Fetcher {
            registry: &engine.registry,
            content: &engine.content,
            secrets: &session.request.secrets,
            offline: session.request.pull == PullPolicy::Never,
            progress: &|current, total| session.events.status(job.task, &shown, current, total, false),
            cancel: &session.cancel,
        };
        let pins = &session.request.pins;
        let fetched = match self.work {
            Work::Known => fetcher.known(url, checksum.as_ref(), pins)?,
            Work::Allowed => Some(fetcher.fetch_pinned(url, checksum.as_ref(), pins)?),
        };
        let Some(Fetched { digest, content, size, modified, .. }) = fetched else { return Ok(false) };
        session.events.status(job.task, &shown, size, Some(size), true);
        let path = engine.content.blob_path(&digest);
        let file = LooseFile {
            name: http::file_name(url),
            mode: 0o600,
            mtime: Time::from_seconds(modified.unwrap_or_default()),
            size,
            content,
            bytes: FileSource::Host(path.clone()),
        };
        let node = Node::File { size, content: file.content, link: 0 };
        let entry = Entry { node, ..Entry::directory(RootPath::root(), 0o600, 0, 0, file.mtime) };
        let source = CopySource::File(file);
        if self.op.unpack == Some(true) {
            return self.archive_or(&entry, &|| File::open(&path), source);
        }
        self.found.sources.push(source);
        Ok(true)
    }
}

fn inline(job: &Job<'_>, name: &str, body: &str) -> CopySource {
    let bytes: Arc<[u8]> = body.as_bytes().into();
    CopySource::File(LooseFile {
        name: name.to_owned(),
        mode: 0o644,
        mtime: Time::from_seconds(job.session.now),
        size: bytes.len() as u64,
        content: ContentDigest::of(&bytes),
        bytes: FileSource::Inline(bytes),
    })
}

/// Where the files of a copy are.
pub(super) struct Copied {
    files: PlannedFiles,
    places: Places,
}

impl Copied {
    /// What keeps the content of a file, with its digest and length: only of copies that were made before and differ in
    /// little is that worth the room.
    fn keeper<'a>(&self, entry: &'a Entry) -> Option<(&BuildContext, &'a ContentDigest, u64)> {
        let (PlannedFiles::Moved(_), Node::File { content, size, .. }) = (&self.files, &entry.node) else {
            return None;
        };
        Some((self.places.context.as_deref()?, content, *size))
    }

    /// All of them are in one context.
    pub(super) fn of_context(files: PlannedFiles, context: Arc<BuildContext>) -> Self {
        Self { files, places: Places::of_context(context) }
    }
}

impl layer::Files for Copied {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        match self.files.get(entry) {
            Some(FileSource::Context { path, size, .. }) => {
                self.places.context.as_ref().ok_or(io::ErrorKind::NotFound)?.open_path(&path, size)
            }
            Some(FileSource::Unpacked { source }) => {
                self.places.unpacked.get(&source).ok_or(io::ErrorKind::NotFound)?.open(entry)
            }
            Some(FileSource::Host(path)) => File::open(path),
            Some(FileSource::Inline(bytes)) => in_memory(&bytes),
            Some(FileSource::Layer { .. }) | None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn kept(&self, entry: &Entry, out: &mut Vec<u8>) -> bool {
        self.keeper(entry).is_some_and(|(context, content, size)| context.kept_content(content, size, out))
    }

    fn keep(&self, entry: &Entry, bytes: &[u8]) {
        if let Some((context, content, _)) = self.keeper(entry) {
            context.keep_content(content, bytes);
        }
    }

    fn origin(&self, entry: &Entry) -> Option<RootPath> {
        match self.files.get(entry)? {
            FileSource::Context { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl Copied {
    /// The file system, layer and path of a file that comes from another stage.
    fn in_layer(&self, entry: &Entry) -> Option<(&Filesystem, usize, RootPath)> {
        let FileSource::Layer { source, layer, path } = self.files.get(entry)? else { return None };
        let places = &self.places;
        places.repositories.get(&source).or(places.filesystem.as_ref()).map(|files| (files, layer, path))
    }
}

impl LayerFiles for Copied {
    fn open(&self, access: &Access<'_>, entry: &Entry) -> Result<File, StepError> {
        match self.in_layer(entry) {
            Some((filesystem, layer, path)) => filesystem.open(access, layer, &Entry { path, ..entry.clone() }),
            None => layer::Files::open(self, entry)
                .map_err(|source| StepError::Io { what: format!("cannot read `{}`", entry.path), source }),
        }
    }

    fn snapshot(&self, access: &Access<'_>, entry: &Entry) -> Option<TreeId> {
        let (filesystem, layer, _) = self.in_layer(entry)?;
        filesystem.snapshot_id(access, layer)
    }
}

/// A file that only this process has.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("inline", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

impl From<CopyError> for StepError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Context(error) => Self::Context(error),
            error => Self::Copy(error),
        }
    }
}
