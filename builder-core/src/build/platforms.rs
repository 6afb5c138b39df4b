//! [`Engine::all_platforms`]: the platforms that every base image has (`--all-platforms`).

use super::base;
use super::engine::Engine;
use super::error::{BuildError, StepError};
use super::layout;
use super::request::{BuildRequest, PullPolicy};
use super::sources;
use crate::cancel::CancelToken;
use crate::dockerfile;
use crate::graph::{self, ImageRequest, Images};
use crate::oci::{Index, MediaKind, Platform, Reference};
use crate::registry;

/// Why there is nothing to choose from.
#[derive(Debug, thiserror::Error)]
pub enum PlatformsError {
    /// The Dockerfile is wrong, or an image cannot be had.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The target needs no image, or only images of fixed platforms.
    #[error("no base image says which platforms there are")]
    NoBase,
    /// The images have none in common.
    #[error("no platform is offered by all base images: {0}")]
    Disjoint(String),
}

impl Engine {
    /// Finds out for which platforms every image is offered that the target begins with or copies from. An image asked
    /// for with a `--platform` that does not depend on the target's is left out. In the order of the first image.
    ///
    /// # Errors
    /// Every case of [`PlatformsError`].
    pub fn all_platforms(&self, request: &BuildRequest, cancel: &CancelToken) -> Result<Vec<Platform>, PlatformsError> {
        let parsed = dockerfile::parse(&request.dockerfile).map_err(BuildError::Parse)?;
        // An image that depends on the target's platform is one that is asked for with this platform, which is not the
        // one of this machine.
        let host = Platform::host();
        let other = if host.architecture == "arm64" { "amd64" } else { "arm64" };
        let platform = Platform::new("linux", other, None);
        let options = graph::Options { platform: platform.clone(), explicit_platform: true, ..request.options.clone() };
        let plan = graph::plan(&parsed, &options, &Images::new()).map_err(BuildError::Graph)?;
        let mut common: Option<Vec<Platform>> = None;
        let mut offers = Vec::new();
        for image in plan.missing.iter().filter(|image| image.platform == platform) {
            let offered = self.offered(image, request, cancel);
            let offered = offered.map_err(|error| base::cannot_be_had(None, image, &plan, error))?;
            let names: Vec<String> = offered.iter().map(ToString::to_string).collect();
            offers.push(format!("`{}` has {}", image.reference.familiar(), names.join(", ")));
            common = Some(match common {
                None => offered,
                Some(common) => common.into_iter().filter(|platform| has(&offered, platform)).collect(),
            });
        }
        match common {
            None => Err(PlatformsError::NoBase),
            Some(common) if common.is_empty() => Err(PlatformsError::Disjoint(offers.join("; "))),
            Some(common) => Ok(common),
        }
    }

    /// The platforms of an image, each once.
    fn offered(
        &self,
        image: &ImageRequest,
        request: &BuildRequest,
        cancel: &CancelToken,
    ) -> Result<Vec<Platform>, StepError> {
        let pull = request.pull;
        let index = if let Some(layout) = &image.layout {
            layout::index(self, layout, cancel)?
        } else if let Some(digest) = sources::image(self, &image.reference, pull, &request.pins, cancel)? {
            self.registry_index(&image.reference.with_digest(digest), cancel)?
        } else {
            let stored = match pull {
                PullPolicy::Never => self.known_platforms(image)?,
                _ => self.stored_platforms(image)?,
            };
            if pull == PullPolicy::Never || (pull == PullPolicy::Missing && !stored.is_empty()) {
                return if stored.is_empty() { Err(StepError::NotLocal(image.reference.clone())) } else { Ok(stored) };
            }
            self.registry_index(&image.reference, cancel)?
        };
        let mut offered: Vec<Platform> = Vec::new();
        match index {
            Some(index) => {
                for platform in registry::platforms(&index) {
                    if !has(&offered, &platform) {
                        offered.push(Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref()));
                    }
                }
            }
            // The config of the only image says what it is for.
            None => {
                offered.push(base::resolve(self, image, request.pull, &request.pins, cancel)?.known.config.platform());
            }
        }
        Ok(offered)
    }

    /// The platforms for which nobody has to be asked what an image is.
    pub(super) fn known_platforms(&self, image: &ImageRequest) -> Result<Vec<Platform>, StepError> {
        let mut platforms = self.stored_platforms(image)?;
        for platform in self.content().database().resolved_platforms(&image.reference)? {
            let request = ImageRequest { platform, ..image.clone() };
            if !has(&platforms, &request.platform) && base::is_remembered(self, &request)? {
                platforms.push(request.platform);
            }
        }
        Ok(platforms)
    }

    /// What a registry has under a name, if it is an index.
    fn registry_index(&self, reference: &Reference, cancel: &CancelToken) -> Result<Option<Index>, StepError> {
        let resolved = self.registry().resolve(reference, cancel)?;
        match resolved.descriptor.media_type.kind() {
            MediaKind::Index => Index::parse(&resolved.bytes, &resolved.descriptor.media_type)
                .map(Some)
                .map_err(|error| StepError::Manifest { image: reference.familiar(), error }),
            _ => Ok(None),
        }
    }

    /// Those of the images that have this name in the store.
    fn stored_platforms(&self, image: &ImageRequest) -> Result<Vec<Platform>, StepError> {
        let database = self.content().database();
        let mut platforms = Vec::new();
        let mut ids = database.images_of(&image.reference)?;
        if ids.is_empty() {
            ids.extend(base::id_in(&image.reference).map(|id| database.find_image(id)).transpose()?.flatten());
        }
        for id in ids {
            if let Some(record) = database.image(&id)? {
                platforms.push(record.platform);
            }
        }
        Ok(platforms)
    }
}

fn has(platforms: &[Platform], wanted: &Platform) -> bool {
    platforms.iter().any(|platform| platform.distance(wanted) == Some(0))
}
