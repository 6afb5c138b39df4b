//! Images and their names.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{ContentError, Database};
use crate::oci::{Descriptor, DiffId, Digest, ImageId, Platform, Reference};

/// An image in the store. Its config is the blob that its id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the config.
    pub id: ImageId,
    /// When it entered the store, in seconds since 1970.
    pub created: i64,
    /// Length of its layers, uncompressed, in bytes.
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// The manifest as it was pulled or pushed; its bytes are a blob.
    pub manifest: Option<Descriptor>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The compressed blob as the manifest that it came with describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// Length of its files together, in bytes.
    #[serde(default)]
    pub size: u64,
}

/// A manifest digest under which an image is known in a repository (`docker images --digests`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoDigest {
    /// Domain and path (`docker.io/library/app`).
    pub repository: String,
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// The image.
    pub image: ImageId,
}

impl Database {
    /// Remembers an image. The same image again writes nothing, and keeps the time at which it first came.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_image(&self, image: &ImageRecord) -> Result<(), ContentError> {
        if let Some(mut known) = self.image(&image.id)? {
            known.created = image.created;
            if known == *image {
                return Ok(());
            }
        }
        self.with(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO images VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(id) DO UPDATE SET
                     size = excluded.size, platform = excluded.platform, layers = excluded.layers, manifest = excluded.manifest",
                )?
                .execute(params![
                    image.id.digest().as_str(),
                    image.created,
                    i64::try_from(image.size).unwrap_or(i64::MAX),
                    to_json(&image.platform)?,
                    to_json(&image.layers)?,
                    image.manifest.as_ref().map(to_json).transpose()?,
                ])
                .map(drop)
        })
    }

    /// The record of an image.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT * FROM images WHERE id = ?1")?
                .query_row([id.digest().as_str()], read_image)
                .optional()
        })
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn images(&self) -> Result<Vec<ImageRecord>, ContentError> {
        self.with(all_images)
    }

    /// Forgets an image, its tags and its repository digests; says whether it was there. Blobs stay until they are collected.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn remove_image(&self, id: &ImageId) -> Result<bool, ContentError> {
        self.write(|connection| {
            let id = [id.digest().as_str()];
            connection.execute("DELETE FROM tag_variants WHERE image = ?1", id)?;
            // What is left of a name for several platforms keeps the name.
            connection.execute(
                "UPDATE tags SET image = (SELECT image FROM tag_variants WHERE reference = tags.reference ORDER BY place)
                 WHERE image = ?1 AND reference IN (SELECT reference FROM tag_variants)",
                id,
            )?;
            connection.execute(
                "DELETE FROM tag_variants WHERE EXISTS
                 (SELECT 1 FROM tags WHERE tags.reference = tag_variants.reference AND tags.image = tag_variants.image)",
                [],
            )?;
            connection.execute("DELETE FROM tags WHERE image = ?1", id)?;
            connection.execute("DELETE FROM repo_digests WHERE image = ?1", id)?;
            Ok(connection.execute("DELETE FROM images WHERE id = ?1", id)? > 0)
        })
    }

    /// Gives an image a name, taking it from the images that had it; returns the first of those. The same tag again
    /// writes nothing.
    ///
    /// # Errors
    /// [`ContentError::NoSuchImage`] if the image is not there, else [`ContentError::Database`].
    pub fn tag(&self, reference: &Reference, image: &ImageId) -> Result<Option<ImageId>, ContentError> {
        self.tag_all(reference, std::slice::from_ref(image))
    }

    /// Gives one name to the images of several platforms; the first is the one that the name means where no platform
    /// is asked for. Else as [`Database::tag`].
    ///
    /// # Errors
    /// Those of [`Database::tag`].
    ///
    /// # Panics
    /// If there is no image.
    pub fn tag_all(&self, reference: &Reference, images: &[ImageId]) -> Result<Option<ImageId>, ContentError> {
        let known = self.images_of_tag(reference)?;
        let before = known.first().cloned();
        if known == images {
            return Ok(before);
        }
        let missing = self.write(|connection| {
            let key = tag_key(reference);
            connection.execute("DELETE FROM tag_variants WHERE reference = ?1", [&key])?;
            for (place, image) in images.iter().enumerate() {
                let id = image.digest().as_str();
                let there = connection.query_row("SELECT 1 FROM images WHERE id = ?1", [id], |_| Ok(())).optional()?;
                if there.is_none() {
                    // Nothing of this may stay; the reason is given below.
                    connection.execute_batch("ROLLBACK; BEGIN IMMEDIATE")?;
                    return Ok(Some(image.clone()));
                }
                match i64::try_from(place).unwrap_or(i64::MAX) {
                    0 => connection.execute("INSERT OR REPLACE INTO tags VALUES(?1, ?2)", [key.as_str(), id])?,
                    place => {
                        connection.execute("INSERT INTO tag_variants VALUES(?1, ?2, ?3)", params![key, place, id])?
                    }
                };
            }
            Ok(None)
        })?;
        match missing {
            Some(image) => Err(ContentError::NoSuchImage(image)),
            None => Ok(before),
        }
    }

    /// The images that a reference stands for here, one for each platform; the first is the one of
    /// [`Database::resolve`].
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn images_of(&self, reference: &Reference) -> Result<Vec<ImageId>, ContentError> {
        let Some(digest) = reference.digest() else { return self.images_of_tag(reference) };
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT image FROM repo_digests WHERE repository = ?1 AND digest = ?2")?;
            statement.query_map([reference.repository().as_str(), digest.as_str()], |row| parsed(row, 0))?.collect()
        })
    }

    fn images_of_tag(&self, reference: &Reference) -> Result<Vec<ImageId>, ContentError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT image, 0 AS place FROM tags WHERE reference = ?1 UNION ALL
                 SELECT image, place FROM tag_variants WHERE reference = ?1 ORDER BY place",
            )?;
            statement.query_map([tag_key(reference)], |row| parsed(row, 0))?.collect()
        })
    }

    /// Takes a name away; returns the image that had it.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn untag(&self, reference: &Reference) -> Result<Option<ImageId>, ContentError> {
        self.write(|connection| {
            let key = tag_key(reference);
            let image = connection
                .query_row("SELECT image FROM tags WHERE reference = ?1", [&key], |row| parsed::<ImageId>(row, 0))
                .optional()?;
            connection.execute("DELETE FROM tags WHERE reference = ?1", [&key])?;
            connection.execute("DELETE FROM tag_variants WHERE reference = ?1", [&key])?;
            Ok(image)
        })
    }

    /// The image that a reference means here: by digest if it has one (see [`Database::put_repo_digest`]), else by tag.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn resolve(&self, reference: &Reference) -> Result<Option<ImageId>, ContentError> {
        let Some(digest) = reference.digest() else { return self.resolve_tag(reference) };
        self.with(|connection| {
            connection
                .prepare_cached("SELECT image FROM repo_digests WHERE repository = ?1 AND digest = ?2")?
                .query_row([reference.repository().as_str(), digest.as_str()], |row| parsed(row, 0))
                .optional()
        })
    }

    fn resolve_tag(&self, reference: &Reference) -> Result<Option<ImageId>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT image FROM tags WHERE reference = ?1")?
                .query_row([tag_key(reference)], |row| parsed(row, 0))
                .optional()
        })
    }

    /// All tags with their images, sorted by name; a name for several platforms comes once for each.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn tags(&self) -> Result<Vec<(Reference, ImageId)>, ContentError> {
        self.with(all_tags)
    }

    /// The tags of one image, sorted by name.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn tags_of(&self, image: &ImageId) -> Result<Vec<Reference>, ContentError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT reference FROM tags WHERE image = ?1 UNION
                 SELECT reference FROM tag_variants WHERE image = ?1 ORDER BY reference",
            )?;
            statement.query_map([image.digest().as_str()], |row| parsed(row, 0))?.collect()
        })
    }

    /// Finds an image by what people type: a name with or without tag or digest, an id, or the beginning of an id.
    ///
    /// A name wins over the beginning of an id, as in docker.
    ///
    /// # Errors
    /// [`ContentError::Ambiguous`] if several ids begin so, else [`ContentError::Database`].
    pub fn find_image(&self, text: &str) -> Result<Option<ImageId>, ContentError> {
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(image) = self.resolve(&reference)?
        {
            return Ok(Some(image));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let prefix = prefix.to_ascii_lowercase();
        let mut found: Vec<ImageId> = self.with(|connection| {
            // `g` sorts after every hexadecimal digit.
            let mut statement = connection.prepare_cached("SELECT id FROM images WHERE id >= ?1 AND id < ?2")?;
            let range = [format!("sha256:{prefix}"), format!("sha256:{prefix}g")];
            statement.query_map(range, |row| parsed(row, 0))?.collect()
        })?;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            count => Err(ContentError::Ambiguous { prefix, count }),
        }
    }

    /// Remembers under which manifest digest an image is known in a repository, after a pull or push.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_repo_digest(&self, repo_digest: &RepoDigest) -> Result<(), ContentError> {
        if self.repo_digests(&repo_digest.image)?.contains(repo_digest) {
            return Ok(());
        }
        self.note(|connection| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO repo_digests VALUES(?1, ?2, ?3)")?
                .execute([&repo_digest.repository, repo_digest.digest.as_str(), repo_digest.image.digest().as_str()])
                .map(drop)
        })
    }

    /// The manifest digests of an image, sorted.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn repo_digests(&self, image: &ImageId) -> Result<Vec<RepoDigest>, ContentError> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM repo_digests WHERE image = ?1 ORDER BY repository, digest")?;
            statement.query_map([image.digest().as_str()], read_repo_digest)?.collect()
        })
    }

    /// All manifest digests of all images, sorted.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn all_repo_digests(&self) -> Result<Vec<RepoDigest>, ContentError> {
        self.with(all_repo_digests)
    }

    /// Forgets under which digests a repository knows an image; says whether there were any.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn remove_repo_digests(&self, repository: &str, image: &ImageId) -> Result<bool, ContentError> {
        self.with(|connection| {
            let count = connection
                .prepare_cached("DELETE FROM repo_digests WHERE repository = ?1 AND image = ?2")?
                .execute([repository, image.digest().as_str()])?;
            Ok(count > 0)
        })
    }
}

/// A tag's row is named by repository and tag; a digest beside the tag does not belong to the name.
fn tag_key(reference: &Reference) -> String {
    format!("{}:{}", reference.repository(), reference.tag().unwrap_or("latest"))
}

fn all_images(connection: &Connection) -> rusqlite::Result<Vec<ImageRecord>> {
    let mut statement = connection.prepare_cached("SELECT * FROM images ORDER BY created DESC, id")?;
    statement.query_map([], read_image)?.collect()
}

fn all_tags(connection: &Connection) -> rusqlite::Result<Vec<(Reference, ImageId)>> {
    let mut statement = connection.prepare_cached(
        "SELECT reference, image, 0 AS place FROM tags UNION ALL
         SELECT reference, image, place FROM tag_variants ORDER BY reference, place",
    )?;
    statement.query_map([], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?.collect()
}

fn all_repo_digests(connection: &Connection) -> rusqlite::Result<Vec<RepoDigest>> {
    let mut statement = connection.prepare_cached("SELECT * FROM repo_digests ORDER BY repository, digest, image")?;
    statement.query_map([], read_repo_digest)?.collect()
}

/// Says whether every row of these tables can be read.
pub(super) fn all_readable(connection: &Connection) -> bool {
    all_images(connection).is_ok() && all_tags(connection).is_ok() && all_repo_digests(connection).is_ok()
}

fn read_image(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: parsed(row, 0)?,
        created: row.get(1)?,
        size: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        platform: from_json(&row.get::<_, String>(3)?, 3)?,
        layers: from_json(&row.get::<_, String>(4)?, 4)?,
        manifest: row.get::<_, Option<String>>(5)?.map(|text| from_json(&text, 5)).transpose()?,
    })
}

fn read_repo_digest(row: &Row<'_>) -> rusqlite::Result<RepoDigest> {
    Ok(RepoDigest { repository: row.get(0)?, digest: parsed(row, 1)?, image: parsed(row, 2)? })
}

/// Reads a column of text into the type that it spells.
pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, String>(column)?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn to_json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
