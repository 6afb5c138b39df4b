//! [`Contexts`]: the build contexts of one build, each opened when the first step asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::error::{BuildError, StepError};
use super::events::TaskNumbers;
use super::filesystem::Filesystem;
use super::remote::{Bring, FetchedContext};
use super::request::{BuildRequest, ContextSource, RemoteContext};
use crate::context::{BuildContext, IgnoreSource};
use crate::graph::{ContextId, Graph};
use crate::lock::lock;

/// The contexts of a build.
pub(super) struct Contexts<'a> {
    request: &'a BuildRequest,
    state: &'a Path,
    fetched: BTreeMap<ContextId, FetchedContext>,
    opened: Mutex<BTreeMap<ContextId, Arc<BuildContext>>>,
}

/// An open context.
pub(super) enum OpenContext {
    /// A directory.
    Directory(Arc<BuildContext>),
    /// One that was fetched: files like those of a stage.
    Files(Filesystem),
}

impl<'a> Contexts<'a> {
    pub(super) fn new(request: &'a BuildRequest, state: &'a Path) -> Self {
        Self { request, state, fetched: BTreeMap::new(), opened: Mutex::default() }
    }

    /// Brings the contexts of a graph that are elsewhere.
    pub(super) fn fetch(&mut self, graph: &Graph, bring: &Bring<'_>, numbers: &TaskNumbers) -> Result<(), BuildError> {
        let used: BTreeSet<ContextId> = graph.vertices.iter().flat_map(|vertex| vertex.op.contexts()).collect();
        for id in used {
            self.bring(&id, bring, numbers)?;
        }
        Ok(())
    }

    /// Brings one context that is elsewhere, if it is not here yet; `None` for a directory.
    pub(super) fn bring(
        &mut self,
        id: &ContextId,
        bring: &Bring<'_>,
        numbers: &TaskNumbers,
    ) -> Result<Option<FetchedContext>, BuildError> {
        if let Some(fetched) = self.fetched.get(id) {
            return Ok(Some(fetched.clone()));
        }
        let remote = match self.source(id) {
            Some(ContextSource::Remote(remote)) => remote,
            Some(ContextSource::Fetched(fetched)) => return Ok(Some(fetched.clone())),
            Some(ContextSource::Directory { .. } | ContextSource::Empty) | None => return Ok(None),
        };
        let name = match id {
            ContextId::Main => "[internal] load remote build context".to_owned(),
            ContextId::Named(name) => format!("[context {name}] {remote}"),
        };
        let fetched = bring.context(remote, &name, numbers)?;
        self.fetched.insert(id.clone(), fetched.clone());
        Ok(Some(fetched))
    }

    /// Where a context is, if it is elsewhere.
    pub(super) fn remote(&self, id: &ContextId) -> Option<&'a RemoteContext> {
        match self.source(id) {
            Some(ContextSource::Remote(remote)) => Some(remote),
            _ => None,
        }
    }

    /// Opens a context, or returns it if it is open.
    pub(super) fn get(&self, id: &ContextId) -> Result<OpenContext, StepError> {
        if let Some(fetched) = self.fetched.get(id) {
            return Ok(OpenContext::Files(fetched.filesystem()));
        }
        if let Some(ContextSource::Fetched(fetched)) = self.source(id) {
            return Ok(OpenContext::Files(fetched.filesystem()));
        }
        let mut opened = lock(&self.opened);
        if let Some(context) = opened.get(id) {
            return Ok(OpenContext::Directory(Arc::clone(context)));
        }
        let context = Arc::new(self.open(id)?);
        opened.insert(id.clone(), Arc::clone(&context));
        Ok(OpenContext::Directory(context))
    }

    /// Writes the indexes of all open contexts. They only save time: one that cannot be written is not an error.
    pub(super) fn save(&self) {
        for context in lock(&self.opened).values() {
            let _ = context.save();
        }
    }

    fn source(&self, id: &ContextId) -> Option<&'a ContextSource> {
        match id {
            ContextId::Main => Some(&self.request.context),
            ContextId::Named(name) => self.request.named_contexts.get(name),
        }
    }

    fn open(&self, id: &ContextId) -> Result<BuildContext, StepError> {
        let (path, ignore) = match self.source(id) {
            Some(ContextSource::Directory { path, ignore_files }) => {
                (path.clone(), IgnoreSource::FirstOf(ignore_files.clone()))
            }
            Some(ContextSource::Empty) => (self.empty_directory()?, IgnoreSource::Nothing),
            Some(ContextSource::Remote(_) | ContextSource::Fetched(_)) | None => {
                return Err(StepError::Unsupported(format!("the files of {id:?} are not known")));
            }
        };
        Ok(BuildContext::open(&path, &ignore, self.state)?.with_mode(self.request.context_mode))
    }

    /// What a build without a context sees.
    fn empty_directory(&self) -> Result<PathBuf, StepError> {
        let path = self.state.join("contexts").join("empty");
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(StepError::Io { what: format!("cannot make {}", path.display()), source }),
        }
    }
}
