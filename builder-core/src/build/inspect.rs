//! [`Engine::inspect`]: what a Dockerfile means, without building it (`--check`, `--call=outline`).
//!
//! Of images only manifest and config are fetched. One that cannot be had in time is left unknown.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::base;
use super::engine::Engine;
use super::error::{BuildError, StepError};
use super::request::{BuildRequest, ContextSource};
use crate::cancel::{CancelToken, Cancelled};
use crate::context::{BuildContext, IgnoreSource};
use crate::dockerfile::Dockerfile;
use crate::graph::{self, Graph, ImageRequest, Images, KnownImage, Plan, ResolvedEpoch};
use crate::registry::RegistryError;

/// Longest wait for all registries together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a Dockerfile means.
#[derive(Debug)]
pub struct Inspection {
    /// The graph of the first platform, with everything that is doubtful in its warnings.
    pub graph: Graph,
    /// Images that nobody could be asked for. Nothing is said of variables that they may set.
    pub unknown: Vec<UnknownBase>,
}

/// An image that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBase {
    /// Its name as people write it.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Puts the graph of `parsed`, which is the request's Dockerfile, together. Images come from the store or from their
/// registries, as the request's policy says; without an engine all of them are unknown.
///
/// # Errors
/// [`BuildError::Graph`]; [`BuildError::Base`] if a registry says that it does not have an image or does not give it to us.
pub(super) fn inspect(
    engine: Option<&Engine>,
    parsed: &Dockerfile,
    request: &BuildRequest,
    cancel: &CancelToken,
) -> Result<Inspection, BuildError> {
    let options = request.options_by_platform().swap_remove(0);
    // A time that something fetched would give changes nothing that is looked at here.
    let epoch = graph::epoch_source(parsed, &options).map_err(BuildError::Graph)?;
    let options = graph::Options { resolved_epoch: epoch.map(|_| ResolvedEpoch::Unset), ..options };
    let mut images = Images::new();
    let mut unknown = Vec::new();
    within(PATIENCE, cancel, |cancel| {
        loop {
            let plan = graph::plan(parsed, &options, &images).map_err(BuildError::Graph)?;
            if plan.missing.is_empty() {
                return Ok(());
            }
            for image in &plan.missing {
                let known = match ask(engine, image, request, &plan, cancel)? {
                    Ok(known) => known,
                    Err(reason) => {
                        unknown.push(UnknownBase { name: image.reference.familiar(), reason });
                        KnownImage::guess(&image.platform)
                    }
                };
                images.insert(image.clone(), known);
            }
        }
    })?;
    let mut graph = graph::lower(parsed, &options, &images).map_err(BuildError::Graph)?;
    request.check_secrets(&mut graph, parsed);
    check_ignored(&mut graph, parsed, request);
    Ok(Inspection { graph, unknown })
}

/// The image, or why it is not known.
fn ask(
    engine: Option<&Engine>,
    image: &ImageRequest,
    request: &BuildRequest,
    plan: &Plan,
    cancel: &CancelToken,
) -> Result<Result<KnownImage, String>, BuildError> {
    let Some(engine) = engine else { return Ok(Err("there is no store".to_owned())) };
    match base::resolve(engine, image, request.pull, &request.pins, cancel) {
        Ok(found) => Ok(Ok(found.known)),
        Err(_) if cancel.is_cancelled() => Ok(Err("its registry does not answer in time".to_owned())),
        Err(error) if is_final(&error) => Err(base::cannot_be_had(Some(engine), image, plan, error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Whether a build would fail here too, whenever it is tried.
fn is_final(error: &StepError) -> bool {
    match error {
        StepError::Registry(error) => matches!(
            error,
            RegistryError::ImageNotFound { .. } | RegistryError::Unauthorized { .. } | RegistryError::Refused { .. }
        ),
        StepError::Layout(_) | StepError::MalformedImage { .. } | StepError::NotLocked(_) => true,
        StepError::Pinned { error, .. } => is_final(error),
        _ => false,
    }
}

/// Compares what is copied with the ignore file of a context that is a directory here.
fn check_ignored(graph: &mut Graph, parsed: &Dockerfile, request: &BuildRequest) {
    let ContextSource::Directory { path, ignore_files } = &request.context else { return };
    if !graph.copies_from_context() {
        return;
    }
    // No file is looked up, so no state is needed. What is wrong with the context is for a build to say.
    let ignore = IgnoreSource::FirstOf(ignore_files.clone());
    if let Ok(context) = BuildContext::open(path, &ignore, Path::new(""))
        && let Some(ignore) = context.ignore_file()
    {
        graph.check_ignored(parsed, ignore);
    }
}

/// Does `work` with a token that is cancelled when `limit` is over, or when `cancel` is.
fn within(
    limit: Duration,
    cancel: &CancelToken,
    work: impl FnOnce(&CancelToken) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let token = cancel.child();
    let (done, wait) = channel::<()>();
    let result = std::thread::scope(|scope| {
        let token = &token;
        let watch = move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                token.cancel();
            }
        };
        // A thread that cannot be started leaves the time limits of single requests.
        let _ = std::thread::Builder::new().name("deadline".to_owned()).spawn_scoped(scope, watch);
        let result = work(token);
        drop(done);
        result
    });
    if cancel.is_cancelled() { Err(BuildError::Cancelled(Cancelled)) } else { result }
}

impl Engine {
    /// Looks at what a Dockerfile means. Nothing is run; manifests and configs of images are fetched where the request's
    /// policy asks for that, for at most ten seconds.
    ///
    /// # Errors
    /// [`BuildError::Graph`]; [`BuildError::Base`] if a registry says that it does not have an image or does not give it
    /// to us. A registry that does not answer leaves its image [unknown](Inspection::unknown).
    pub fn inspect(
        &self,
        parsed: &Dockerfile,
        request: &BuildRequest,
        cancel: &CancelToken,
    ) -> Result<Inspection, BuildError> {
        // A store that can only be read is good enough.
        let _lease = self.content().lease(cancel).ok();
        inspect(Some(self), parsed, request, cancel)
    }
}

impl Inspection {
    /// The same without a store: every image is unknown.
    ///
    /// # Errors
    /// [`BuildError::Graph`].
    pub fn without_store(parsed: &Dockerfile, request: &BuildRequest) -> Result<Self, BuildError> {
        inspect(None, parsed, request, &CancelToken::new())
    }
}
