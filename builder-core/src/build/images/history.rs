//! [`history`]: how an image was made, as docker's table has it.

use jiff::Timestamp;

use super::list::created_of;
use super::{ImageError, config, find};
use crate::content::ContentStore;
use crate::oci::ImageId;

/// One line of `docker history`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryRow {
    /// The image, in the first row only: nothing is stored under the ids of steps (`<missing>`).
    #[serde(rename = "ID")]
    pub id: Option<ImageId>,
    /// When it was made.
    #[serde(skip)]
    pub created: Option<Timestamp>,
    /// By which command.
    pub created_by: String,
    /// Length of its layer, uncompressed, in bytes; 0 if it has none.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// Names of the image, in the first row only.
    pub tags: Vec<String>,
}

/// Lists the steps of an image, the last first.
///
/// # Errors
/// [`ImageError::NoSuchImage`], [`ImageError::Config`], and a store that cannot be read.
pub fn history(content: &ContentStore, text: &str) -> Result<Vec<HistoryRow>, ImageError> {
    let image = find(content, text)?;
    let config = config(content, &image.id)?;
    let mut sizes = image.layers.iter().map(|layer| layer.size);
    let mut rows: Vec<HistoryRow> = config
        .history
        .into_iter()
        .map(|entry| HistoryRow {
            id: None,
            created: created_of(entry.created.as_deref()),
            created_by: entry.created_by,
            size: if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
            comment: entry.comment,
            tags: Vec::new(),
        })
        .collect();
    rows.reverse();
    if let Some(first) = rows.first_mut() {
        first.tags = content.database().tags_of(&image.id)?.iter().map(crate::oci::Reference::familiar).collect();
        first.id = Some(image.id);
    }
    Ok(rows)
}
