//! [`Engine::verify`]: reads everything in the store again and finds what is no longer what it was.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::super::engine::Engine;
use super::super::images::{self, ImageError, Keep};
use super::cannot;
use super::item::size;
use crate::cancel::CancelToken;
use crate::content::ImageRecord;
use crate::export::ExportError;
use crate::oci::{Digest, Hasher};
use crate::progress::{Silent, TaskId};
use crate::small_file;
use crate::tree::{TreeId, TreeStoreError};

/// Size of the pieces in which files are read.
const PIECE: usize = 256 * 1024;

/// Something that is not what it was when it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// `blob`, `tree`, `snapshot`, `record`, `database`.
    pub kind: &'static str,
    /// Its name in the store.
    pub id: String,
    /// The file or directory.
    pub path: PathBuf,
    /// Names or ids of the images that need it: they have to be pulled or built again.
    pub images: Vec<String>,
}

/// What was read, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs, hashed.
    pub blobs: usize,
    /// Trees, hashed.
    pub trees: usize,
    /// Snapshots, compared with their trees, content included.
    pub snapshots: usize,
    /// Records, checked against their checksums and keys.
    pub records: usize,
    /// Bytes on disk of all of them.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Whether it was removed.
    pub repaired: bool,
}

impl Engine {
    /// Hashes every blob, tree and snapshot, and checks every record and the database. With `repair` what is damaged is
    /// removed, waiting for running builds: steps run again when they are needed, base images are fetched again.
    ///
    /// # Errors
    /// [`ImageError`] if something cannot be read at all, or not be removed; or if it was cancelled.
    pub fn verify(&self, repair: bool, cancel: &CancelToken) -> Result<Verified, ImageError> {
        let mut verified = Verified::default();
        let (mut alone, mut shared) = (None, None);
        if repair {
            alone = Some(self.content.exclusive(cancel)?);
        } else {
            shared = Some(self.content.reading_lease(cancel)?);
        }
        if let Some(path) = self.content.database().damaged(repair)? {
            verified.damaged.push(Damage { kind: "database", id: "db.sqlite".into(), path, images: Vec::new() });
        }
        self.verify_blobs(&mut verified, cancel)?;
        self.verify_trees(&mut verified, cancel)?;
        for path in
            self.cache.files().map_err(|error| cannot("read", self.cache.directory(), io::Error::other(error)))?
        {
            cancel.check().map_err(crate::content::ContentError::from)?;
            verified.records += 1;
            verified.bytes += size(&path);
            if !self.cache.is_sound(&path) {
                verified.damaged.push(damage("record", record_name(&path), path));
            }
        }
        self.name_images(&mut verified.damaged)?;
        if repair {
            // What is derived from others first: it is not saved from a base that goes after it.
            let mut damaged: Vec<&Damage> = verified.damaged.iter().collect();
            damaged.sort_by_key(|found| found.id.parse().is_ok_and(|id| self.snapshots.base_of(&id).is_none()));
            for found in damaged {
                self.drop_damaged(found)?;
            }
            self.sweep_leftovers()?;
            verified.repaired = true;
        }
        drop((alone, shared));
        Ok(verified)
    }

    fn verify_blobs(&self, verified: &mut Verified, cancel: &CancelToken) -> Result<(), ImageError> {
        let mut buffer = vec![0; PIECE];
        for (digest, bytes) in self.content.blobs()? {
            let path = self.content.blob_path(&digest);
            let sound = holds(&path, &digest, &mut buffer, cancel)?;
            verified.blobs += 1;
            verified.bytes += bytes;
            if !sound {
                verified.damaged.push(damage("blob", digest.to_string(), path));
            }
        }
        Ok(())
    }

    fn verify_trees(&self, verified: &mut Verified, cancel: &CancelToken) -> Result<(), ImageError> {
        let snapshots = self.snapshots.list().map_err(ExportError::from)?;
        for id in self.trees.list().map_err(ExportError::from)? {
            cancel.check().map_err(crate::content::ContentError::from)?;
            let path = self.trees.path(&id);
            verified.trees += 1;
            verified.bytes += size(&path);
            // What a build has found damaged and removed in the meantime is not there any more.
            let tree = match self.trees.check(&id) {
                Ok(Some(tree)) => tree,
                Ok(None) if !path.exists() => continue,
                Ok(None) | Err(TreeStoreError::Damaged(_)) => {
                    verified.damaged.push(damage("tree", id.to_string(), path));
                    continue;
                }
                Err(error) => return Err(ExportError::from(error).into()),
            };
            if snapshots.contains(&id) {
                verified.snapshots += 1;
                verified.bytes += self.snapshots.usage(&id).map_err(ExportError::from)?;
                if !self.snapshots.is_sound(&tree).map_err(ExportError::from)? {
                    verified.damaged.push(damage("snapshot", id.to_string(), self.snapshots.path(&id)));
                }
            }
        }
        Ok(())
    }

    /// Says which images need what is damaged.
    fn name_images(&self, damaged: &mut [Damage]) -> Result<(), ImageError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let database = self.content.database();
        for image in database.images()? {
            let names = database.tags_of(&image.id)?;
            let name = names.first().map_or_else(|| image.id.digest().short().to_owned(), ToString::to_string);
            let needed = self.needed_by(&image)?;
            for found in &mut *damaged {
                let uses = match found.kind {
                    "blob" => found.id.parse().is_ok_and(|digest: Digest| needed.blobs.contains(&digest)),
                    "snapshot" => found.id.parse().is_ok_and(|id: TreeId| needed.snapshots.contains(&id)),
                    _ => false,
                };
                if uses {
                    found.images.push(name.clone());
                }
            }
        }
        Ok(())
    }

    fn needed_by(&self, image: &ImageRecord) -> Result<Keep, ImageError> {
        let cancel = CancelToken::new();
        let context = self.context(&Silent, TaskId(0), &cancel, None);
        images::needed(&context, std::slice::from_ref(image), &Keep::default())
    }

    fn drop_damaged(&self, found: &Damage) -> Result<(), ImageError> {
        match (found.kind, found.id.parse::<TreeId>()) {
            ("snapshot", Ok(id)) => {
                // What is derived from it and sound does without what is damaged.
                let removed = self.snapshots.detach(&id).and_then(|()| self.snapshots.remove(&id));
                removed.map_err(|error| ExportError::from(error).into())
            }
            ("tree", Ok(id)) => self.trees.remove(&id).map_err(|error| ExportError::from(error).into()),
            // The database was set aside when it was found.
            ("database", _) => Ok(()),
            _ => small_file::remove(&found.path).map(drop).map_err(|source| cannot("remove", &found.path, source)),
        }
    }
}

fn damage(kind: &'static str, id: String, path: PathBuf) -> Damage {
    Damage { kind, id, path, images: Vec::new() }
}

/// The key of a record: the last two parts of its path.
fn record_name(path: &Path) -> String {
    let part = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.parent().map(part).unwrap_or_default() + &part(path)
}

/// Whether a file has the bytes that its name says.
fn holds(path: &Path, digest: &Digest, buffer: &mut [u8], cancel: &CancelToken) -> Result<bool, ImageError> {
    let failed = |source| cannot("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Hasher::new(digest.algorithm());
    loop {
        cancel.check().map_err(crate::content::ContentError::from)?;
        match file.read(buffer) {
            Ok(0) => return Ok(hasher.finish() == *digest),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
}
