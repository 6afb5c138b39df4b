//! Cache mounts as files: [`Engine::export_cache_mount`] and [`Engine::import_cache_mount`].
//!
//! The file is a zstd-compressed tar with `identity` (the id on a line, then mode and owner) and `content/`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use super::engine::{Engine, seconds_now};
use super::error::{BuildError, StepError};
use super::remote_cache::identity_of;
use crate::cache::{CacheMountError, MountedCache, StoredMount};
use crate::cancel::CancelToken;
use crate::dockerfile::Sharing;
use crate::graph::CacheMount;
use crate::layer::{self, Archive, Files, LayerFormat, PackOptions, UnpackOptions};
use crate::oci::Compression;
use crate::remote::{MountIdentity, tree_of};
use crate::rootfs::{RootDir, RootPath};
use crate::snapshot::Active;
use crate::tree::{ContentDigest, Entry, Node, Stack, Time, TreeBuilder};

const IDENTITY: &str = "identity";
const CONTENT: &str = "content";

/// Longest identity that is read, in bytes.
const MAX_IDENTITY: u64 = 64 << 10;

impl Engine {
    /// Writes a cache mount as one file, and keeps steps off it meanwhile.
    ///
    /// # Errors
    /// [`BuildError::Store`] if it cannot be read, [`BuildError::Cancelled`] if the token is cancelled while a step uses it.
    pub fn export_cache_mount(
        &self,
        mount: &StoredMount,
        out: &mut dyn Write,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        self.write_mount(mount, out, cancel).map_err(of_store)
    }

    /// Reads what [`Engine::export_cache_mount`] wrote. What the mount held before is gone; returns its id.
    ///
    /// # Errors
    /// [`BuildError::Store`] if it is no such file, [`BuildError::Cancelled`].
    pub fn import_cache_mount(&self, input: &mut dyn Read, cancel: &CancelToken) -> Result<String, BuildError> {
        self.read_mount(input, cancel).map_err(of_store)
    }

    /// Bytes on disk that a cache mount occupies.
    pub fn cache_mount_size(&self, mount: &StoredMount) -> u64 {
        super::clean::size(&mount.directory)
    }

    fn write_mount(&self, mount: &StoredMount, out: &mut dyn Write, cancel: &CancelToken) -> Result<(), StepError> {
        let failed = |source| StepError::Io { what: format!("cannot read cache mount `{}`", mount.id), source };
        let held = self.cache_mounts.hold(mount, Duration::MAX, cancel)?;
        let held = held.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let root = RootDir::open(&held.content).map_err(failed)?;
        let identity = mount.identity().into_bytes();
        let (identity_path, top) = (path(IDENTITY), path(CONTENT));
        let now = Time::from_seconds(seconds_now());
        let node = Node::File { size: identity.len() as u64, content: ContentDigest::of(&identity), link: 0 };
        let mut builder = TreeBuilder::new();
        builder.push(Entry { node, ..Entry::directory(identity_path, 0o644, 0, 0, now) });
        builder.push(Entry::directory(top.clone(), mount.mode, mount.uid, mount.gid, now));
        for entry in tree_of(&root).map_err(failed)?.iter() {
            builder.push(Entry { path: top.append(&entry.path), ..entry });
        }
        let files = MountFiles { root, top, identity };
        let format = LayerFormat { compression: Compression::Zstd, level: None, docker_media_types: false };
        layer::write_layer(&builder.finish(), &files, &format, &PackOptions::default(), out)?;
        Ok(())
    }

    fn read_mount(&self, input: &mut dyn Read, cancel: &CancelToken) -> Result<String, StepError> {
        let _lease = self.content.lease(cancel)?;
        let active = self.snapshots.begin()?;
        let lower = Stack::default();
        let archive = Some(Archive { into: RootPath::root(), owner: None, lower: &lower });
        layer::unpack(input, &active, &UnpackOptions { archive, ..UnpackOptions::default() })?;
        let foreign = |source| StepError::Io { what: "the file is no exported cache mount".to_owned(), source };
        let mut identity = String::new();
        let file = active.root().open_file_exact(&path(IDENTITY)).map_err(foreign)?;
        file.take(MAX_IDENTITY).read_to_string(&mut identity).map_err(foreign)?;
        let mount = StoredMount::parse(&identity).ok_or_else(|| foreign(io::ErrorKind::InvalidData.into()))?;
        let opened = self.open_alone(&identity_of(&mount), cancel)?;
        // A link or a file of this name is no content.
        active.root().open_dir_exact(&path(CONTENT)).map_err(foreign)?;
        opened.replace(&active.path().join(CONTENT))?;
        if opened.is_new {
            opened.filled()?;
        }
        Ok(mount.id)
    }

    /// Takes a cache mount into use for filling it: no step has it meanwhile.
    pub(super) fn open_alone(
        &self,
        mount: &MountIdentity,
        cancel: &CancelToken,
    ) -> Result<MountedCache, CacheMountError> {
        let MountIdentity { id, mode, uid, gid } = mount.clone();
        let wanted = CacheMount { id, sharing: Sharing::Locked, read_only: false, seed: None, mode, uid, gid };
        self.cache_mounts.open(&wanted, cancel)
    }
}

/// Moves everything in a new directory into a mount.
pub(super) fn move_into(active: &Active, opened: &MountedCache) -> Result<(), StepError> {
    let moved = RootDir::open(&opened.content).and_then(|content| {
        let from = active.root().directory();
        from.names()?.iter().try_for_each(|name| from.rename(name, content.directory(), name))
    });
    moved.map_err(|source| StepError::Io { what: format!("cannot fill {}", opened.content.display()), source })
}

fn of_store(error: StepError) -> BuildError {
    BuildError::of(error, |error| BuildError::Store(Box::new(error)))
}

fn path(name: &str) -> RootPath {
    RootPath::root().child(name.as_bytes())
}

/// The files of an export.
struct MountFiles {
    root: RootDir,
    top: RootPath,
    identity: Vec<u8>,
}

impl Files for MountFiles {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        use std::io::Seek as _;
        if let Some(inside) = entry.path.strip_prefix(&self.top) {
            return self.root.open_file_exact(&inside);
        }
        let mut file = File::from(rustix::fs::memfd_create(Path::new(IDENTITY), rustix::fs::MemfdFlags::CLOEXEC)?);
        file.write_all(&self.identity)?;
        file.rewind()?;
        Ok(file)
    }
}
