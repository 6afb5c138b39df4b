//! [`list`]: the images of a store, and [`rows`]: docker's table of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::name_pattern::NamePattern;
use super::{ImageError, config, find};
use crate::content::ContentStore;
use crate::oci::{Digest, ImageId, Platform, Reference};

/// One image with its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of its config.
    pub id: ImageId,
    /// When it was made, according to its config.
    pub created: Option<Timestamp>,
    /// Length of its layers, uncompressed, in bytes.
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// Its names, sorted.
    pub tags: Vec<Reference>,
    /// Its manifest digests in repositories (`domain/path`), sorted.
    pub digests: Vec<(String, Digest)>,
    /// Labels of its config.
    pub labels: BTreeMap<String, String>,
}

/// Which images are wanted; an image has to fulfil everything that is set.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Names, with the wildcards `*`, `?` and `[…]` inside of a part between slashes; one has to match. An image
    /// is shown with the names that match.
    pub references: Vec<String>,
    /// Only images without a name, or only those with one.
    pub dangling: Option<bool>,
    /// `KEY` or `KEY=VALUE`; all have to match.
    pub labels: Vec<String>,
    /// Only images that are older than this one.
    pub before: Option<String>,
    /// Only images that are newer than this one.
    pub since: Option<String>,
    /// Only images that were made before this time.
    pub until: Option<Timestamp>,
}

/// One line of docker's table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageRow {
    /// Name without tag, as people write it; `None` is `<none>`.
    pub repository: Option<String>,
    /// Tag; `None` is `<none>`.
    pub tag: Option<String>,
    /// Manifest digest, only if digests were asked for.
    pub digest: Option<Digest>,
    /// The image.
    #[serde(rename = "ID")]
    pub id: ImageId,
    /// When it was made.
    #[serde(skip)]
    pub created: Option<Timestamp>,
    /// Length of its layers, uncompressed, in bytes.
    pub size: u64,
}

/// Lists images, the newest first.
///
/// # Errors
/// [`ImageError::NoSuchImage`] for `before` and `since`, [`ImageError::Pattern`], and a store that cannot be read.
pub fn list(content: &ContentStore, filter: &ListFilter) -> Result<Vec<ImageSummary>, ImageError> {
    let patterns =
        filter.references.iter().map(|text| NamePattern::new(text)).collect::<Result<Vec<NamePattern>, _>>()?;
    let created = |name: &Option<String>| -> Result<Option<Timestamp>, ImageError> {
        let Some(name) = name else { return Ok(None) };
        let id = find(content, name)?.id;
        Ok(Some(created_of(config(content, &id)?.created.as_deref()).unwrap_or(Timestamp::MIN)))
    };
    let (before, since) = (created(&filter.before)?, created(&filter.since)?);
    let mut images = summaries(content)?;
    images.retain_mut(|image| {
        let dangling = image.tags.is_empty();
        if !patterns.is_empty() {
            image.tags.retain(|tag| patterns.iter().any(|pattern| pattern.matches(tag)));
            image
                .digests
                .retain(|(repository, _)| patterns.iter().any(|pattern| pattern.matches_repository(repository)));
            if image.tags.is_empty() && image.digests.is_empty() {
                return false;
            }
        }
        let time = image.created.unwrap_or(Timestamp::MIN);
        let labelled = |label: &String| match label.split_once('=') {
            Some((key, value)) => image.labels.get(key).is_some_and(|found| found == value),
            None => image.labels.contains_key(label),
        };
        filter.dangling.is_none_or(|wanted| wanted == dangling)
            && filter.labels.iter().all(labelled)
            && before.is_none_or(|bound| time < bound)
            && since.is_none_or(|bound| time > bound)
            && filter.until.is_none_or(|bound| time < bound)
    });
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    Ok(images)
}

fn summaries(content: &ContentStore) -> Result<Vec<ImageSummary>, ImageError> {
    let database = content.database();
    let mut tags: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
    for (reference, image) in database.tags()? {
        tags.entry(image).or_default().push(reference);
    }
    let mut digests: BTreeMap<ImageId, Vec<(String, Digest)>> = BTreeMap::new();
    for known in database.all_repo_digests()? {
        digests.entry(known.image).or_default().push((known.repository, known.digest));
    }
    let images = database.images()?.into_iter().map(|record| {
        // A damaged config must not hide the other images; this one is listed without a date.
        let (created, labels) = match config(content, &record.id) {
            Ok(config) => (created_of(config.created.as_deref()), config.config.labels),
            Err(_) => (None, BTreeMap::new()),
        };
        ImageSummary {
            created,
            size: record.size,
            platform: record.platform,
            tags: tags.remove(&record.id).unwrap_or_default(),
            digests: digests.remove(&record.id).unwrap_or_default(),
            labels,
            id: record.id,
        }
    });
    Ok(images.collect())
}

/// The time in a config.
pub(super) fn created_of(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// Makes docker's table: one row for each name of each image and, with `digests`, for each digest of it as well.
pub fn rows(images: &[ImageSummary], digests: bool) -> Vec<ImageRow> {
    let mut rows = Vec::new();
    for image in images {
        let row = |repository: Option<&str>, tag: Option<&str>, digest: Option<&Digest>| ImageRow {
            repository: repository.map(familiar),
            tag: tag.map(str::to_owned),
            digest: digest.cloned(),
            id: image.id.clone(),
            created: image.created,
            size: image.size,
        };
        let repositories: BTreeSet<String> = image
            .tags
            .iter()
            .map(Reference::repository)
            .chain(image.digests.iter().map(|(name, _)| name.clone()))
            .collect();
        for repository in &repositories {
            let tags: Vec<Option<&str>> =
                image.tags.iter().filter(|tag| tag.repository() == *repository).map(Reference::tag).collect();
            let known: Vec<Option<&Digest>> =
                image.digests.iter().filter(|(name, _)| name == repository).map(|(_, digest)| Some(digest)).collect();
            let tags = if tags.is_empty() { vec![None] } else { tags };
            let known = if known.is_empty() || !digests { vec![None] } else { known };
            for digest in known {
                rows.extend(tags.iter().map(|tag| row(Some(repository), *tag, digest)));
            }
        }
        if repositories.is_empty() {
            rows.push(row(None, None, None));
        }
    }
    rows
}

/// A repository as people write it.
pub(super) fn familiar(repository: &str) -> String {
    repository.parse::<Reference>().map_or_else(|_| repository.to_owned(), |name| name.familiar_name())
}
