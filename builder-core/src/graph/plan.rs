//! [`plan`]: which stages does the target need, and which images do they need?

use super::stages::{Input, Stage, Stages};
use super::{GraphErrors, ImageRequest, Images, Options};
use crate::diagnostic::Location;
use crate::dockerfile::{Dockerfile, Expander};

/// What has to happen for a target, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The needed stages, in file order.
    pub stages: Vec<PlannedStage>,
    /// The images to resolve before [`plan`] is called again, each once. Empty: the Dockerfile can be lowered.
    pub missing: Vec<ImageRequest>,
    /// Every use of an image, known or not, in file order.
    pub uses: Vec<ImageUse>,
}

impl Plan {
    /// The first use of an image: to blame when it can't be resolved.
    pub fn first_use(&self, request: &ImageRequest) -> Option<&ImageUse> {
        self.uses.iter().find(|image| &image.request == request)
    }
}

/// A stage that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// Its number in the file, from 0.
    pub index: usize,
    /// Its name in lower case.
    pub name: Option<String>,
}

/// A place where an image is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The image.
    pub request: ImageRequest,
    /// The word that names it.
    pub location: Location,
    /// For an ONBUILD trigger, the `FROM` that brought it.
    pub origin: Option<Location>,
    /// What may have been meant, should there be no such image: the nearest stage or context.
    pub hint: Option<String>,
}

/// Finds the stages that the target needs and the images that these name.
///
/// The caller resolves [`Plan::missing`] into `images` and calls again: an ONBUILD trigger of a base that is known now
/// may need more. Stages that the target does not need ask for nothing.
///
/// # Errors
/// Everything that is wrong with names, platforms and the order of stages.
pub fn plan(dockerfile: &Dockerfile, options: &Options, images: &Images) -> Result<Plan, GraphErrors> {
    let expander = Expander::new(dockerfile.directives.escape);
    let mut stages = Stages::resolve(Input { dockerfile, options, images, expander: &expander });
    GraphErrors::check(std::mem::take(&mut stages.errors))?;
    let mut missing: Vec<ImageRequest> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for image in &stages.uses {
        if !images.contains_key(&image.request) && seen.insert(&image.request) {
            missing.push(image.request.clone());
        }
    }
    let planned = |(index, stage): (usize, &Stage<'_>)| PlannedStage { index, name: stage.name().map(str::to_owned) };
    let needed = stages.needed().map(planned).collect();
    Ok(Plan { stages: needed, missing, uses: stages.uses })
}
