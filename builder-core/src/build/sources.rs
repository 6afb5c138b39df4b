//! What a build takes from outside, and its pins: [`Engine::resolve_sources`] asks for all of it without building.

use std::collections::BTreeSet;

use super::base;
use super::contexts::Contexts;
use super::engine::{Engine, Known};
use super::error::{BuildError, StepError};
use super::events::{Events, TaskNumbers};
use super::git_files::{Answers, GitUse};
use super::op::http;
use super::remote::{Bring, RemoteError};
use super::request::{BuildRequest, PullPolicy, RemoteContext};
use super::solve::step_error;
use crate::cancel::CancelToken;
use crate::diagnostic::Diagnostic as _;
use crate::dockerfile;
use crate::git::GitError;
use crate::graph::{self, AddSource, ContextId, Graph, ImageRequest, KnownImage, Op, ResolvedEpoch, VertexId};
use crate::oci::{Digest, Reference};
use crate::pins::{Pin, Pins, SourceName};
use crate::progress::Sink;
use crate::registry::RegistryError;

/// The digest that the lock file names for an image. Where names are being locked, a registry is asked what it stands
/// for now; `None` leaves everything as it is without a lock file.
pub(super) fn image(
    engine: &Engine,
    reference: &Reference,
    pull: PullPolicy,
    pins: &Pins,
    cancel: &CancelToken,
) -> Result<Option<Digest>, StepError> {
    if reference.digest().is_some() {
        return Ok(None);
    }
    let name = SourceName::image(reference);
    if let Some(digest) = pins.image(&name)? {
        return Ok(Some(digest));
    }
    if !pins.collects() {
        return Ok(None);
    }
    let database = engine.content.database();
    let mut images = database.images_of(reference)?;
    if images.is_empty() {
        images.extend(base::id_in(reference).map(|id| database.find_image(id)).transpose()?.flatten());
    }
    let repository = reference.repository();
    let mut from_there = Vec::new();
    for image in &images {
        let digests = database.repo_digests(image)?;
        from_there.extend(digests.into_iter().filter(|known| known.repository == repository));
    }
    // A registry that has this name too means another image with it.
    if !images.is_empty() && from_there.is_empty() {
        pins.leave(name, "only the local store has it");
        return Ok(None);
    }
    let digest = if pull == PullPolicy::Never {
        let Some(known) = from_there.into_iter().next() else {
            pins.leave(name, "nobody may be asked what it stands for");
            return Ok(None);
        };
        known.digest
    } else {
        engine.registry.resolve(reference, cancel)?.descriptor.digest
    };
    match pins.found(name, Pin::Image(digest.clone())) {
        Pin::Image(agreed) => Ok(Some(agreed)),
        _ => Ok(Some(digest)),
    }
}

/// Says of an error about a pinned source that a lock file names it, if it is about its not being there.
pub(super) fn of_pin(pins: &Pins, name: SourceName, error: StepError) -> StepError {
    match pins.locked().get(&name).filter(|_| is_gone(&error)) {
        Some(pin) => {
            let (pin, file) = (pin.to_string(), pins.shown().to_owned());
            StepError::Pinned { name, pin, file, error: Box::new(error) }
        }
        None => error,
    }
}

/// Whether a server says that it has no such thing.
fn is_gone(error: &StepError) -> bool {
    match error {
        StepError::Registry(RegistryError::ImageNotFound { .. }) | StepError::Git(GitError::NoReference { .. }) => true,
        // What has a hint is about the network, or about who asks.
        StepError::Git(error @ GitError::Git { .. }) => error.hint().is_none(),
        _ => false,
    }
}

/// Finds what a build would take from outside although the lock file does not have it, before anything runs.
pub(super) fn check_locked(graph: &Graph, pins: &Pins) -> Result<(), BuildError> {
    if !pins.is_strict() {
        return Ok(());
    }
    for (number, vertex) in graph.vertices.iter().enumerate() {
        let Op::Copy(copy) = &vertex.op else { continue };
        for source in &copy.sources {
            locked(source, pins).map_err(|error| step_error(graph, VertexId(number), error))?;
        }
    }
    Ok(())
}

fn locked(source: &AddSource, pins: &Pins) -> Result<(), StepError> {
    match source {
        AddSource::Http(url) => pins.url(&SourceName::url(http::redacted(url))).map(drop)?,
        AddSource::Git(_, wanted) if wanted.pinned()?.is_none() => {
            pins.git(&SourceName::git(&wanted.address)).map(drop)?;
        }
        AddSource::Git(..) | AddSource::Path(_) | AddSource::Inline { .. } => {}
    }
    Ok(())
}

impl Engine {
    /// Finds out what everything stands for that a build would take from outside. What that is, is in the report of the
    /// request's pins. Contents of addresses, and manifests and configs of images, are in the store afterwards; of git
    /// repositories nothing is fetched.
    ///
    /// All sources are asked for. Returns why some could not be had, each once; what only they would have led to is not in
    /// the report then.
    ///
    /// # Errors
    /// As [`Engine::build`], for what is wrong with the Dockerfile.
    pub fn resolve_sources(
        &self,
        request: &BuildRequest,
        sink: &dyn Sink,
        cancel: &CancelToken,
    ) -> Result<Vec<BuildError>, BuildError> {
        let store = |error: StepError| BuildError::of(error, |error| BuildError::Store(Box::new(error)));
        let _lease = self.content.lease(cancel).map_err(|error| store(error.into()))?;
        let (events, numbers) = (Events::Direct(sink), TaskNumbers::default());
        let parsed = dockerfile::parse(&request.dockerfile).map_err(BuildError::Parse)?;
        let answers = Answers::default();
        let ssh = request.run.ssh.get("default");
        let ssh_agent = self.git.ssh_agent.as_deref();
        let git = GitUse { answers: &answers, pins: &request.pins, pull: request.pull, ssh, ssh_agent };
        let bring = Bring { engine: self, git, secrets: &request.secrets, events: events.clone(), cancel };
        // A time that something fetched would give changes no source but itself.
        let epoch = graph::epoch_source(&parsed, &request.options).map_err(BuildError::Graph)?;
        let resolved_epoch = epoch.map(|_| ResolvedEpoch::Unset);
        let (mut known, mut failures) = (Known::default(), Failures::default());
        for options in request.options_by_platform() {
            let options = graph::Options { resolved_epoch, ..options };
            let asked = (request.pull, &*request.pins);
            let mut instead = |image: &ImageRequest, error| {
                let gone = matches!(&error, BuildError::Base { error, .. } if is_gone(error));
                failures.add(error)?;
                Ok(self.stand_in(image, gone, &request.pins, cancel))
            };
            let resolved =
                self.resolve_or(&parsed, &options, asked, &mut known, (&events, &numbers), cancel, &mut instead);
            let graph =
                resolved.and_then(|()| graph::lower(&parsed, &options, &known.images).map_err(BuildError::Graph));
            match graph {
                Ok(graph) => {
                    bring.sources(&graph, &Contexts::new(request, self.content.state()), &numbers, &mut failures)?;
                }
                // It may be about what took the place of an image.
                Err(BuildError::Graph(_)) if !failures.errors.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(failures.errors)
    }

    /// What is taken for an image that cannot be had, to find the other sources: what was locked, if that is still there.
    fn stand_in(&self, image: &ImageRequest, gone: bool, pins: &Pins, cancel: &CancelToken) -> KnownImage {
        let locked = match pins.locked().get(&SourceName::image(&image.reference)) {
            Some(Pin::Image(digest)) => Some(digest.clone()),
            _ => None,
        };
        let locked = locked.and_then(|digest| {
            let request = ImageRequest { reference: image.reference.with_digest(digest), ..image.clone() };
            // Who did not answer before is not asked again.
            let pull = if gone { PullPolicy::Missing } else { PullPolicy::Never };
            base::resolve(self, &request, pull, &Pins::default(), cancel).ok()
        });
        locked.map_or_else(|| KnownImage::guess(&image.platform), |found| found.known)
    }
}

/// Why sources cannot be had.
#[derive(Default)]
struct Failures {
    errors: Vec<BuildError>,
    /// What is said of them: several platforms fail alike.
    said: BTreeSet<String>,
}

impl Failures {
    /// Keeps an error, unless it ends everything.
    fn add(&mut self, error: BuildError) -> Result<(), BuildError> {
        if matches!(error, BuildError::Cancelled(_)) {
            return Err(error);
        }
        if self.said.insert(error.to_string()) {
            self.errors.push(error);
        }
        Ok(())
    }
}

impl Bring<'_> {
    fn sources(
        &self,
        graph: &Graph,
        contexts: &Contexts<'_>,
        numbers: &TaskNumbers,
        failures: &mut Failures,
    ) -> Result<(), BuildError> {
        for (number, vertex) in graph.vertices.iter().enumerate() {
            for id in vertex.op.contexts() {
                if let Some(remote) = contexts.remote(&id) {
                    let name = match &id {
                        ContextId::Main => "the build context".to_owned(),
                        ContextId::Named(name) => format!("context {name}"),
                    };
                    let found = self.source(remote, &format!("[internal] resolve {name}: {remote}"), numbers);
                    found.or_else(|error| failures.add(error))?;
                }
            }
            let Op::Copy(copy) = &vertex.op else { continue };
            // A Dockerfile is not handed the keys of whoever builds it, unless `--ssh` says so.
            let bring = Bring { git: GitUse { ssh_agent: None, ..self.git }, events: self.events.clone(), ..*self };
            for source in &copy.sources {
                let remote = match source {
                    AddSource::Http(url) => RemoteContext::Url(url.clone()),
                    AddSource::Git(_, wanted) => RemoteContext::Git(wanted.clone()),
                    AddSource::Path(_) | AddSource::Inline { .. } => continue,
                };
                let found = bring.source(&remote, &format!("[internal] resolve {remote}"), numbers);
                found.map_err(|error| at(graph, number, error)).or_else(|error| failures.add(error))?;
            }
        }
        Ok(())
    }

    fn source(&self, remote: &RemoteContext, name: &str, numbers: &TaskNumbers) -> Result<(), BuildError> {
        self.shown(name, numbers, |task| match remote {
            RemoteContext::Url(url) => self.download(url, task).map(drop),
            RemoteContext::Git(wanted) => Ok(self.git_commit(wanted, task)?),
        })
    }
}

/// Says of an error of a source which instruction names it.
fn at(graph: &Graph, number: usize, error: BuildError) -> BuildError {
    match error {
        BuildError::Remote(error) => match *error {
            RemoteError::Fetch(error) => step_error(graph, VertexId(number), error),
            error => BuildError::Remote(Box::new(error)),
        },
        error => error,
    }
}
