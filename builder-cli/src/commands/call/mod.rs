//! `rbuild build --call`: looks at the Dockerfile and builds nothing. Nothing is asked of the network: what is not in
//! the store stays unknown.

mod check;
mod outline;

use std::collections::BTreeSet;

use builder_core::build::images;
use builder_core::content::ContentStore;
use builder_core::diagnostic::Source;
use builder_core::dockerfile::{self, Dockerfile};
use builder_core::graph::{self, Graph, ImageRequest, Images, KnownImage, Options};
use builder_core::oci::{Digest, ImageConfig};
use serde_json::json;

pub(super) use check::check;
pub(super) use outline::{outline, targets};

use super::inspect::indented;
use super::{Outcome, print};
use crate::command_error::CommandError;
use crate::ui::table;

/// Parses; all errors of the file at once.
pub(super) fn parse(source: &Source) -> Result<Dockerfile, CommandError> {
    dockerfile::parse(source).map_err(|errors| CommandError::diagnostics(errors.iter()))
}

/// A graph without the network. Images that are not in the store count as images that set nothing; says which.
pub(super) fn offline_graph(
    file: &Dockerfile,
    options: &Options,
    content: Option<&ContentStore>,
) -> Result<(Graph, BTreeSet<String>), CommandError> {
    let failed = |errors: graph::GraphErrors| CommandError::diagnostics(errors.iter());
    let (mut known, mut guessed) = (Images::new(), BTreeSet::new());
    loop {
        let plan = graph::plan(file, options, &known).map_err(failed)?;
        if plan.missing.is_empty() {
            return Ok((graph::lower(file, options, &known).map_err(failed)?, guessed));
        }
        for request in plan.missing {
            let image = content.and_then(|content| stored(content, &request)).unwrap_or_else(|| {
                guessed.insert(request.reference.to_string());
                unknown(&request)
            });
            known.insert(request, image);
        }
    }
}

fn stored(content: &ContentStore, request: &ImageRequest) -> Option<KnownImage> {
    let image = images::find(content, &request.reference.to_string()).ok()?;
    let config = images::config(content, &image.id).ok()?;
    Some(KnownImage { config, digest: image.id.digest().clone() })
}

fn unknown(request: &ImageRequest) -> KnownImage {
    let config = ImageConfig {
        os: request.platform.os.clone(),
        architecture: request.platform.architecture.clone(),
        variant: request.platform.variant.clone(),
        ..ImageConfig::default()
    };
    KnownImage { config, digest: Digest::sha256(b"") }
}

/// The methods, with the names and versions that BuildKit gives them.
const METHODS: [(&str, &str, &str); 4] = [
    ("frontend.outline", "1.0.0", "Arguments, secrets and mounts of a target"),
    ("frontend.targets", "1.0.0", "The stages that can be built"),
    ("frontend.lint", "1.0.0", "Findings of the checks"),
    ("frontend.subrequests.describe", "1.0.0", "This list"),
];

/// `--call=subrequests.describe`: the methods.
pub(super) fn describe(json: bool) -> Outcome {
    if json {
        let list: Vec<_> = METHODS
            .iter()
            .map(
                |(name, version, text)| json!({ "name": name, "version": version, "type": "rpc", "description": text }),
            )
            .collect();
        return print(indented(&list.into()) + "\n");
    }
    let heading = ["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec();
    let rows = METHODS.iter().map(|(name, version, text)| [*name, *version, *text].map(str::to_owned).to_vec());
    print(table::align(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()))
}
