//! `type=local`: an OCI image layout in a directory (image-spec `image-layout.md`).
//!
//! One directory may hold several caches, each under its tag. After a new index is in place, blobs that no index names
//! any more are removed, so that the directory does not grow from build to build. With `reset=false` they stay, and an
//! older cache can still be read by its digest.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Backend, BlobToPut, refuse_buildkit};
use crate::cancel::CancelToken;
use crate::lock::lock;
use crate::oci::{Descriptor, Digest, Index, Manifest, MediaKind, MediaType, Platform};
use crate::registry::choose;
use crate::remote::RemoteError;
use crate::remote::options::DEFAULT_TAG;

/// Annotation with the tag (image-spec `annotations.md`).
const TAG: &str = "org.opencontainers.image.ref.name";

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Largest index or manifest that is read, in bytes.
const MOST: u64 = 8 << 20;

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

#[derive(Debug)]
pub(super) struct LocalBackend {
    directory: PathBuf,
    tag: String,
    digest: Option<Digest>,
    /// Whether blobs that no index names are removed.
    reset: bool,
    /// Held while a cache is written, so that nobody collects what is not named yet.
    lock: Mutex<Option<File>>,
}

impl LocalBackend {
    pub(super) fn new(directory: &Path, tag: &str, digest: Option<&Digest>, reset: bool) -> Self {
        let (directory, tag, digest) = (directory.to_owned(), tag.to_owned(), digest.cloned());
        Self { directory, tag, digest, reset, lock: Mutex::default() }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn index(&self) -> Result<Option<Index>, RemoteError> {
        let path = self.directory.join("index.json");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        Ok(Some(Index::parse(&bytes, &MediaType::OCI_INDEX)?))
    }

    fn is_ours(&self, manifest: &Descriptor) -> bool {
        manifest.annotations.get(TAG).is_some_and(|tag| *tag == self.tag)
    }

    /// A manifest or index, verified.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RemoteError> {
        let digest = || descriptor.digest.clone();
        match read(&self.blob(&descriptor.digest))? {
            Some(bytes) if Digest::sha256(&bytes) == descriptor.digest => Ok(bytes),
            Some(_) => {
                Err(RemoteError::Damaged { digest: digest(), reason: "its content has another digest".to_owned() })
            }
            None => Err(RemoteError::Gone { digest: digest() }),
        }
    }

    /// What is to be read: a cache, an image, or an index of images.
    fn top(&self) -> Result<Option<Descriptor>, RemoteError> {
        #[derive(serde::Deserialize)]
        struct Either {
            manifests: Option<serde::de::IgnoredAny>,
        }
        if let Some(digest) = &self.digest {
            let Some(bytes) = read(&self.blob(digest))? else { return Ok(None) };
            let is_index = serde_json::from_slice::<Either>(&bytes).is_ok_and(|either| either.manifests.is_some());
            let media_type = if is_index { MediaType::OCI_INDEX } else { MediaType::OCI_MANIFEST };
            return Ok(Some(Descriptor::new(media_type, digest.clone(), bytes.len() as u64)));
        }
        let Some(index) = self.index()? else { return Ok(None) };
        // Images are written with whole names, too.
        let whole = format!(":{}", self.tag);
        let is_named = |one: &&Descriptor| {
            self.is_ours(one) || one.annotations.get(TAG).is_some_and(|name| name.ends_with(&whole))
        };
        Ok(match (index.manifests.iter().find(is_named), &index.manifests[..]) {
            (Some(found), _) => Some(found.clone()),
            // The only image needs no tag.
            (None, [only]) if self.tag == DEFAULT_TAG => Some(only.clone()),
            _ => None,
        })
    }

    /// The manifest for a platform below `top`; `None` if there is none for it.
    fn select(&self, mut top: Descriptor, platform: &Platform) -> Result<Option<Manifest>, RemoteError> {
        for _ in 0..MAX_NESTING {
            let bytes = self.document(&top)?;
            if top.media_type.kind() != MediaKind::Index {
                return Ok(Some(Manifest::parse(&bytes, &top.media_type)?));
            }
            let index = Index::parse(&bytes, &top.media_type)?;
            refuse_buildkit(&index)?;
            let Some(chosen) = choose(&index, platform) else { return Ok(None) };
            top = chosen.clone();
        }
        Err(RemoteError::malformed("its indexes are nested too deep"))
    }

    /// Removes blobs that no manifest of the index names. What cannot be removed stays until the next time.
    fn collect(&self, index: &Index) {
        let mut named = HashSet::new();
        for manifest in &index.manifests {
            let bytes = read(&self.blob(&manifest.digest)).ok().flatten();
            let Some(Ok(parsed)) = bytes.map(|bytes| Manifest::parse(&bytes, &MediaType::OCI_MANIFEST)) else {
                // Something else is in this layout: who knows what it needs.
                return;
            };
            named.insert(manifest.digest.hex().to_owned());
            named.extend(parsed.layers.iter().chain([&parsed.config]).map(|blob| blob.digest.hex().to_owned()));
        }
        for entry in fs::read_dir(self.directory.join("blobs/sha256")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_blob = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if (is_blob && !named.contains(&name)) || name.starts_with(TEMPORARY) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Backend for LocalBackend {
    fn name(&self) -> String {
        self.directory.display().to_string()
    }

    fn begin(&self, cancel: &CancelToken) -> Result<(), RemoteError> {
        let path = self.directory.join(".lock");
        let access = |source| RemoteError::Access { path: path.clone(), source };
        fs::create_dir_all(&self.directory).map_err(access)?;
        let file = File::options().create(true).append(true).open(&path).map_err(access)?;
        while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            match errno {
                Errno::WOULDBLOCK | Errno::INTR => {}
                // A file system without locks: there is no second builder that would see one.
                _ => break,
            }
            cancel.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        *lock(&self.lock) = Some(file);
        Ok(())
    }

    fn manifest(&self, _: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
        if let Some(digest) = &self.digest {
            let bytes = read(&self.blob(digest))?;
            return Ok(bytes.filter(|bytes| Digest::sha256(bytes) == *digest));
        }
        let Some(index) = self.index()? else { return Ok(None) };
        let Some(manifest) = index.manifests.iter().find(|manifest| self.is_ours(manifest)) else { return Ok(None) };
        self.document(manifest).map(Some)
    }

    fn manifests(&self, platforms: &[Platform], _: &CancelToken) -> Result<Vec<Manifest>, RemoteError> {
        let Some(top) = self.top()? else { return Ok(Vec::new()) };
        let mut manifests: Vec<Manifest> = Vec::new();
        for platform in platforms {
            manifests.extend(self.select(top.clone(), platform)?.filter(|found| !manifests.contains(found)));
        }
        Ok(manifests)
    }

    fn open(&self, blob: &Descriptor, _: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
        let path = self.blob(&blob.digest);
        match File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(RemoteError::Gone { digest: blob.digest.clone() })
            }
            Err(source) => Err(RemoteError::Access { path, source }),
        }
    }

    fn has(&self, blob: &Descriptor, _: &CancelToken) -> Result<bool, RemoteError> {
        Ok(self.keeps(blob))
    }

    /// Anybody may have removed a file.
    fn keeps(&self, named: &Descriptor) -> bool {
        fs::metadata(self.blob(&named.digest)).is_ok_and(|found| found.is_file() && found.len() == named.size)
    }

    fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
        let path = self.blob(&blob.descriptor.digest);
        let access = |source| RemoteError::Access { path: path.clone(), source };
        let mut source = (blob.source)().map_err(access)?;
        write(&path, |file| {
            let mut buffer = vec![0; 128 << 10];
            loop {
                cancel.check().map_err(io::Error::other)?;
                match source.read(&mut buffer)? {
                    0 => return Ok(()),
                    length => file.write_all(&buffer[..length])?,
                }
            }
        })
    }

    fn put_manifest(&self, _: &Manifest, bytes: &[u8], _: &CancelToken) -> Result<(), RemoteError> {
        let mut manifest = Descriptor::of(MediaType::OCI_MANIFEST, bytes);
        write(&self.blob(&manifest.digest), |file| file.write_all(bytes))?;
        write(&self.directory.join("oci-layout"), |file| file.write_all(LAYOUT))?;
        let mut index = self.index()?.unwrap_or_else(|| Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        });
        index.manifests.retain(|known| !self.is_ours(known));
        manifest.annotations.insert(TAG.to_owned(), self.tag.clone());
        index.manifests.push(manifest);
        let json = serde_json::to_vec_pretty(&index).expect("a document has string keys only");
        write(&self.directory.join("index.json"), |file| file.write_all(&json))?;
        if self.reset {
            self.collect(&index);
        }
        Ok(())
    }
}

/// How names of files begin that are being written.
const TEMPORARY: &str = ".tmp-";

fn read(path: &Path) -> Result<Option<Vec<u8>>, RemoteError> {
    let access = |source| RemoteError::Access { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(access(error)),
    };
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(access)?;
    if bytes.len() as u64 > MOST {
        return Err(RemoteError::malformed(format!("{} is larger than 8 MiB", path.display())));
    }
    Ok(Some(bytes))
}

/// Writes a file that appears complete or not at all.
fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), RemoteError> {
    let access = |source| RemoteError::Access { path: path.to_owned(), source };
    let directory = path.parent().expect("below the directory of the cache");
    fs::create_dir_all(directory).map_err(access)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut builder = tempfile::Builder::new();
    let mut file = builder.prefix(TEMPORARY).permissions(mode).tempfile_in(directory).map_err(access)?;
    fill(file.as_file_mut()).map_err(access)?;
    file.persist(path).map(drop).map_err(|failed| access(failed.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Contents;

    #[test]
    fn an_old_cache_goes_and_those_of_other_tags_stay() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let backend = |tag: &str| LocalBackend::new(directory.path(), tag, None, true);
        let cancel = CancelToken::new();
        let put = |tag: &str, file: &[u8]| {
            let mut contents = Contents::default();
            contents.files.insert(crate::tree::ContentDigest::of(file), file.to_vec());
            let encoded = contents.encode();
            for (descriptor, bytes) in &encoded.documents {
                let source = || Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
                let blob = BlobToPut { descriptor, source: &source, mount_from: Vec::new() };
                assert!(!backend(tag).has(descriptor, &cancel).expect("readable"));
                backend(tag).put(&blob, &cancel).expect("written");
                assert!(backend(tag).has(descriptor, &cancel).expect("readable"));
            }
            let manifest = Manifest::parse(&encoded.manifest, &MediaType::OCI_MANIFEST).expect("valid");
            backend(tag).put_manifest(&manifest, &encoded.manifest, &cancel).expect("written");
            encoded.manifest
        };
        assert_eq!(backend("a").manifest(&cancel).expect("readable"), None);
        put("a", b"1");
        let other = put("b", b"2");
        let newest = put("a", b"3");
        let blobs = || fs::read_dir(directory.path().join("blobs/sha256")).expect("listed").count();
        assert_eq!(blobs(), 4, "two manifests, two indexes");
        assert_eq!(backend("a").manifest(&cancel).expect("readable"), Some(newest.clone()));
        assert_eq!(backend("b").manifest(&cancel).expect("readable"), Some(other.clone()));
        let pinned = LocalBackend::new(directory.path(), "none", Some(&Digest::sha256(&other)), true);
        assert_eq!(pinned.manifest(&cancel).expect("readable"), Some(other));
        let path = backend("a").blob(&Digest::sha256(&newest));
        fs::write(&path, b"{}").expect("written");
        assert!(matches!(backend("a").manifest(&cancel), Err(RemoteError::Damaged { .. })));
        fs::remove_file(&path).expect("removed");
        assert!(matches!(backend("a").manifest(&cancel), Err(RemoteError::Gone { .. })));
    }
}
