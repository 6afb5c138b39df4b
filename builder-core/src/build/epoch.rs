//! The time of what `SOURCE_DATE_EPOCH` names: of a commit, of an address, of the newest file in an archive.

use super::contexts::Contexts;
use super::error::BuildError;
use super::events::TaskNumbers;
use super::remote::{Bring, FetchedContext};
use super::request::{BuildRequest, RemoteContext};
use crate::dockerfile::Dockerfile;
use crate::graph::{self, AddSource, EpochSource, ResolvedEpoch};

/// Finds out the time; `None` if `SOURCE_DATE_EPOCH` is a number, or not set.
pub(super) fn resolve(
    parsed: &Dockerfile,
    request: &BuildRequest,
    contexts: &mut Contexts<'_>,
    bring: &Bring<'_>,
    numbers: &TaskNumbers,
) -> Result<Option<ResolvedEpoch>, BuildError> {
    let Some(source) = graph::epoch_source(parsed, &request.options).map_err(BuildError::Graph)? else {
        return Ok(None);
    };
    let fetched = match source {
        EpochSource::Context(id) => contexts.bring(&id, bring, numbers)?,
        EpochSource::Remote(AddSource::Http(address)) => Some(remote(&RemoteContext::Url(address), bring, numbers)?),
        EpochSource::Remote(AddSource::Git(_, wanted)) => Some(remote(&RemoteContext::Git(wanted), bring, numbers)?),
        EpochSource::Remote(AddSource::Path(_) | AddSource::Inline { .. }) | EpochSource::Nothing => None,
    };
    let time = fetched.and_then(|fetched| fetched.time().or_else(|| fetched.newest()));
    Ok(Some(time.map_or(ResolvedEpoch::Unset, ResolvedEpoch::At)))
}

fn remote(source: &RemoteContext, bring: &Bring<'_>, numbers: &TaskNumbers) -> Result<FetchedContext, BuildError> {
    bring.context(source, &format!("[internal] resolve SOURCE_DATE_EPOCH source {source}"), numbers)
}
