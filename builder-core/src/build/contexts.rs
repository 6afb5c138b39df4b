//! [`Contexts`]: the build contexts of one build, each opened when the first step asks for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::StepError;
use super::request::{BuildRequest, ContextSource};
use crate::context::{BuildContext, IgnoreSource};
use crate::graph::ContextId;

/// The contexts of a build.
pub(super) struct Contexts<'a> {
    request: &'a BuildRequest,
    state: &'a Path,
    opened: Mutex<BTreeMap<ContextId, Arc<BuildContext>>>,
}

impl<'a> Contexts<'a> {
    pub(super) fn new(request: &'a BuildRequest, state: &'a Path) -> Self {
        Self { request, state, opened: Mutex::default() }
    }

    /// Opens a context, or returns it if it is open.
    pub(super) fn get(&self, id: &ContextId) -> Result<Arc<BuildContext>, StepError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = opened.get(id) {
            return Ok(Arc::clone(context));
        }
        let context = Arc::new(self.open(id)?);
        opened.insert(id.clone(), Arc::clone(&context));
        Ok(context)
    }

    /// Writes the indexes of all open contexts. They only save time: one that cannot be written is not an error.
    pub(super) fn save(&self) {
        for context in self.opened.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let _ = context.save();
        }
    }

    fn open(&self, id: &ContextId) -> Result<BuildContext, StepError> {
        let (path, ignore) = match id {
            ContextId::Main => match &self.request.context {
                ContextSource::Directory { path, ignore_files } => {
                    (path.clone(), IgnoreSource::FirstOf(ignore_files.clone()))
                }
                ContextSource::Empty => (self.empty_directory()?, IgnoreSource::Nothing),
            },
            ContextId::Named(name) => {
                let path = self.request.named_contexts.get(name);
                let path =
                    path.ok_or_else(|| StepError::Unsupported(format!("build context `{name}` is not a directory")))?;
                (path.clone(), IgnoreSource::FirstOf(vec![path.join(".dockerignore")]))
            }
        };
        Ok(BuildContext::open(&path, &ignore, self.state)?)
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
