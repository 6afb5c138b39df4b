//! Facts that save work: what a tag was resolved to, what a layer holds, where a blob is.

use rusqlite::{Connection, OptionalExtension, params};

use super::images::{from_json, parsed, to_json};
use super::{ContentError, Database};
use crate::oci::{Compression, Descriptor, DiffId, Digest, Platform, Reference};

/// What a tag meant when its registry was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTag {
    /// The manifest for the platform.
    pub descriptor: Descriptor,
    /// When, in seconds since 1970.
    pub at: i64,
}

impl Database {
    /// Remembers what a reference was resolved to for a platform.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_resolved_tag(
        &self,
        reference: &Reference,
        platform: &Platform,
        resolved: &ResolvedTag,
    ) -> Result<(), ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO resolved_tags VALUES(?1, ?2, ?3, ?4)")?
                .execute(params![
                    reference.to_string(),
                    to_json(platform)?,
                    to_json(&resolved.descriptor)?,
                    resolved.at
                ])
                .map(drop)
        })
    }

    /// What a reference was last resolved to for a platform.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn resolved_tag(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<ResolvedTag>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT descriptor, at FROM resolved_tags WHERE reference = ?1 AND platform = ?2")?
                .query_row([reference.to_string(), to_json(platform)?], |row| {
                    Ok(ResolvedTag { descriptor: from_json(&row.get::<_, String>(0)?, 0)?, at: row.get(1)? })
                })
                .optional()
        })
    }

    /// The platforms for which a reference was resolved.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn resolved_platforms(&self, reference: &Reference) -> Result<Vec<Platform>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT platform FROM resolved_tags WHERE reference = ?1 ORDER BY platform")?
                .query_map([reference.to_string()], |row| from_json(&row.get::<_, String>(0)?, 0))?
                .collect()
        })
    }

    /// Forgets what references were resolved to, so that the next build asks the registries again.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn forget_resolved_tags(&self) -> Result<(), ContentError> {
        self.with(|connection| connection.execute("DELETE FROM resolved_tags", []).map(drop))
    }

    /// Remembers the tree that a layer unpacks to. The id is the caller's; here it is 32 opaque bytes.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_layer_tree(&self, diff_id: &DiffId, tree: &[u8; 32]) -> Result<(), ContentError> {
        if self.layer_tree(diff_id)?.as_ref() == Some(tree) {
            return Ok(());
        }
        self.note(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO layer_trees VALUES(?1, ?2)")?
                .execute(params![diff_id.digest().as_str(), tree])
                .map(drop)
        })
    }

    /// The tree that a layer unpacks to.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn layer_tree(&self, diff_id: &DiffId) -> Result<Option<[u8; 32]>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT tree FROM layer_trees WHERE diff_id = ?1")?
                .query_row([diff_id.digest().as_str()], |row| row.get(0))
                .optional()
        })
    }

    /// Every layer whose tree is known, with that tree.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn layer_trees(&self) -> Result<Vec<(DiffId, [u8; 32])>, ContentError> {
        self.with(|connection| {
            let mut select = connection.prepare_cached("SELECT diff_id, tree FROM layer_trees ORDER BY diff_id")?;
            select.query_map([], |row| Ok((parsed(row, 0)?, row.get(1)?)))?.collect()
        })
    }

    /// A layer that unpacks to a tree; the least of them if there are several, so that the answer does not vary.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn diff_id_of_tree(&self, tree: &[u8; 32]) -> Result<Option<DiffId>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT diff_id FROM layer_trees WHERE tree = ?1 ORDER BY diff_id LIMIT 1")?
                .query_row([tree], |row| parsed(row, 0))
                .optional()
        })
    }

    /// Forgets the tree of a layer, because its files are gone.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn remove_layer_tree(&self, diff_id: &DiffId) -> Result<(), ContentError> {
        self.with(|connection| {
            connection.execute("DELETE FROM layer_trees WHERE diff_id = ?1", [diff_id.digest().as_str()]).map(drop)
        })
    }

    /// Remembers the layer that packing a tree gives. `format` says what else decides the bytes of the tar.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_packed_tree(&self, tree: &[u8; 32], format: &str, diff_id: &DiffId) -> Result<(), ContentError> {
        if self.packed_tree(tree, format)?.as_ref() == Some(diff_id) {
            return Ok(());
        }
        self.note(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO packed_trees VALUES(?1, ?2, ?3)")?
                .execute(params![tree, format, diff_id.digest().as_str()])
                .map(drop)
        })
    }

    /// The layer that packing a tree gives, if it was packed before.
    ///
    /// This is not the inverse of [`Database::layer_tree`]: a layer that was pulled may hold the same tree in another tar.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn packed_tree(&self, tree: &[u8; 32], format: &str) -> Result<Option<DiffId>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT diff_id FROM packed_trees WHERE tree = ?1 AND format = ?2")?
                .query_row(params![tree, format], |row| parsed(row, 0))
                .optional()
        })
    }

    /// Remembers the blob of a layer in a compression. `format` says what else decides the bytes (level, encoder).
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_layer_blob(
        &self,
        diff_id: &DiffId,
        compression: Compression,
        format: &str,
        descriptor: &Descriptor,
    ) -> Result<(), ContentError> {
        if self.layer_blob(diff_id, compression, format)?.as_ref() == Some(descriptor) {
            return Ok(());
        }
        self.note(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO layer_blobs VALUES(?1, ?2, ?3, ?4)")?
                .execute(params![diff_id.digest().as_str(), compression.to_string(), format, to_json(descriptor)?])
                .map(drop)
        })
    }

    /// The blob of a layer in a compression, as it was remembered; the blob itself may be gone.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn layer_blob(
        &self,
        diff_id: &DiffId,
        compression: Compression,
        format: &str,
    ) -> Result<Option<Descriptor>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT descriptor FROM layer_blobs WHERE diff_id = ?1 AND compression = ?2 AND format = ?3",
                )?
                .query_row(params![diff_id.digest().as_str(), compression.to_string(), format], |row| {
                    from_json(&row.get::<_, String>(0)?, 0)
                })
                .optional()
        })
    }

    /// Every remembered blob of every layer, with its diff id.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn layer_blobs(&self) -> Result<Vec<(DiffId, Descriptor)>, ContentError> {
        self.with(all_layer_blobs)
    }

    /// The layer that a compressed blob holds, if it was ever seen.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn diff_id_of_blob(&self, digest: &Digest) -> Result<Option<DiffId>, ContentError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT diff_id FROM layer_blobs WHERE descriptor ->> '$.digest' = ?1 ORDER BY diff_id LIMIT 1",
                )?
                .query_row([digest.as_str()], |row| parsed(row, 0))
                .optional()
        })
    }

    /// Forgets the blobs of a layer.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn remove_layer_blobs(&self, diff_id: &DiffId) -> Result<(), ContentError> {
        self.with(|connection| {
            connection.execute("DELETE FROM layer_blobs WHERE diff_id = ?1", [diff_id.digest().as_str()]).map(drop)
        })
    }

    /// Remembers that a repository (`domain/path`) has a blob, so that a push to the same registry can mount it.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_blob_source(&self, digest: &Digest, repository: &str) -> Result<(), ContentError> {
        if self.blob_sources(digest)?.iter().any(|known| known == repository) {
            return Ok(());
        }
        self.note(|connection| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO blob_sources VALUES(?1, ?2)")?
                .execute([digest.as_str(), repository])
                .map(drop)
        })
    }

    /// The repositories (`domain/path`) that had a blob, sorted.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn blob_sources(&self, digest: &Digest) -> Result<Vec<String>, ContentError> {
        self.with(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT repository FROM blob_sources WHERE digest = ?1 ORDER BY repository")?;
            statement.query_map([digest.as_str()], |row| row.get(0))?.collect()
        })
    }
}

fn all_layer_blobs(connection: &Connection) -> rusqlite::Result<Vec<(DiffId, Descriptor)>> {
    let mut statement = connection.prepare_cached("SELECT diff_id, descriptor FROM layer_blobs")?;
    statement.query_map([], |row| Ok((parsed(row, 0)?, from_json(&row.get::<_, String>(1)?, 1)?)))?.collect()
}

/// Says whether every row of these tables can be read.
pub(super) fn all_readable(connection: &Connection) -> bool {
    let resolved = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT descriptor FROM resolved_tags")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            from_json::<Descriptor>(&row.get::<_, String>(0)?, 0)?;
        }
        Ok(())
    };
    let trees = || -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT tree FROM layer_trees")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            row.get::<_, [u8; 32]>(0)?;
        }
        Ok(())
    };
    all_layer_blobs(connection).is_ok() && resolved().is_ok() && trees().is_ok()
}
