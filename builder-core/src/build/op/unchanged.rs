//! Copies of files of a context that are known without planning them: everything that decides the result is as it was when
//! the same copy was planned before.
//!
//! ```text
//! CopyOp ─ see ─▶ Seen { a Survey for each source } ─┬─ inputs ─▶ BuildContext::recall ─▶ digest of the result
//!                                                     └─ read, plan: as any other copy ─▶ BuildContext::remember
//! ```
//!
//! Nothing is taken on trust that the kernel does not vouch for: see [`Survey`] and
//! [`Reading::settled`](crate::context::Reading).

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};

use super::copy::{self, Attributes, CopySource};
use super::transfer::Copied;
use crate::build::contexts::OpenContext;
use crate::build::error::StepError;
use crate::build::solve::Job;
use crate::cache::Preimage;
use crate::context::{BuildContext, Request, Survey};
use crate::graph::{AddSource, CopyOp, Files};
use crate::layer;
use crate::rootfs::RootPath;
use crate::tree::{Entry, Stack};

/// Raised whenever a copy of the same files comes to something else than it did before.
const VERSION: u32 = 2;

/// The sources of a copy whose sources are all in one directory of the host.
pub(super) struct Seen {
    pub(super) context: Arc<BuildContext>,
    /// One for each source.
    pub(super) surveys: Vec<Survey>,
}

/// Looks at the sources of a copy; `None` if they are not all in one directory of the host.
pub(super) fn see(job: &Job<'_>, op: &CopyOp) -> Result<Option<Seen>, StepError> {
    let Files::Context(id) = &op.from else { return Ok(None) };
    if op.sources.is_empty() || paths(op).count() < op.sources.len() {
        return Ok(None);
    }
    let OpenContext::Directory(context) = job.session.contexts.get(id)? else { return Ok(None) };
    job.note_ignore_file(&context);
    let surveys = requests(op).map(|request| context.survey(&request)).collect::<Result<_, _>>()?;
    Ok(Some(Seen { context, surveys }))
}

fn paths(op: &CopyOp) -> impl Iterator<Item = &String> {
    op.sources.iter().filter_map(|source| match source {
        AddSource::Path(path) => Some(path),
        AddSource::Inline { .. } | AddSource::Http(_) | AddSource::Git(..) => None,
    })
}

fn requests(op: &CopyOp) -> impl Iterator<Item = Request<'_>> {
    paths(op).map(|source| Request { source, parents: op.parents, exclude: &op.exclude })
}

impl Seen {
    /// Digest of everything that decides what the copy comes to, apart from times.
    pub(super) fn inputs(&self, op: &CopyOp, below: &Stack, attributes: Attributes) -> [u8; 32] {
        self.digest(making(op, below, attributes), op, |survey| {
            blake3::Hash::from_bytes(*survey.fingerprint().as_bytes()).to_string()
        })
    }

    /// The same, but for the files themselves.
    pub(super) fn making(&self, op: &CopyOp, below: &Stack, attributes: Attributes) -> [u8; 32] {
        self.digest(making(op, below, attributes), op, Survey::subject)
    }

    fn digest(&self, mut inputs: Preimage, op: &CopyOp, source: impl Fn(&Survey) -> String) -> [u8; 32] {
        for (path, survey) in paths(op).zip(&self.surveys) {
            inputs.add(format!("source {path}"), source(survey));
        }
        *inputs.key().as_bytes()
    }

    /// The files of a copy whose result is known.
    pub(super) fn files(&self, op: &CopyOp, below: &Stack, attributes: Attributes) -> UnplannedFiles {
        let context = Arc::clone(&self.context);
        UnplannedFiles { context, op: op.clone(), below: below.clone(), attributes, planned: OnceLock::new() }
    }
}

/// Everything that decides what a copy comes to, apart from its sources.
fn making(op: &CopyOp, below: &Stack, attributes: Attributes) -> Preimage {
    let CopyOp { add, from: _, sources: _, destination, workdir, chown: _, chmod, link, .. } = op;
    let CopyOp { parents, exclude, checksum, unpack, keep_git_dir, .. } = op;
    let mut inputs = Preimage::new("what a copy comes to");
    inputs.add("version", VERSION);
    inputs.add("program", env!("CARGO_PKG_VERSION"));
    inputs.add("add", add);
    inputs.add("destination", destination);
    inputs.add("directory", workdir.as_bytes().escape_ascii());
    inputs.add("owner", format!("{:?}", attributes.owner.map(|owner| (owner.uid, owner.gid))));
    inputs.add("mode", format!("{chmod:?}"));
    inputs.add("flags", format!("{link:?} {parents:?} {exclude:?} {checksum:?} {unpack:?} {keep_git_dir:?}"));
    inputs.add("below", below.state());
    inputs
}

/// The files of a copy that was not planned: it is when somebody reads one, which seldom happens.
pub(super) struct UnplannedFiles {
    context: Arc<BuildContext>,
    op: CopyOp,
    below: Stack,
    attributes: Attributes,
    planned: OnceLock<Result<Copied, String>>,
}

impl UnplannedFiles {
    fn plan(&self) -> Result<Copied, StepError> {
        let select = |request| self.context.select(&request).map(CopySource::Context);
        let sources = requests(&self.op).map(select).collect::<Result<_, _>>()?;
        let plan = copy::plan(&self.op, sources, &self.below, self.attributes)?;
        Ok(Copied::of_context(plan.files, Arc::clone(&self.context)))
    }
}

impl UnplannedFiles {
    fn planned(&self) -> Result<&Copied, &str> {
        let planned = self.planned.get_or_init(|| self.plan().map_err(|error| error.to_string()));
        planned.as_ref().map_err(String::as_str)
    }
}

impl layer::Files for UnplannedFiles {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        layer::Files::open(self.planned().map_err(io::Error::other)?, entry)
    }

    fn origin(&self, entry: &Entry) -> Option<RootPath> {
        layer::Files::origin(self.planned().ok()?, entry)
    }
}
