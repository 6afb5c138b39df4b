//! [`Engine::export_cache`].

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::sync::Arc;

use super::super::engine::Engine;
use super::super::remote_cache::{hold_mounts, identity_of};
use super::select::{Selected, select};
use super::{CacheExported, CacheSelection, CacheTransferError, store};
use crate::cancel::Cancelled;
use crate::export::ExportContext;
use crate::layer::Files;
use crate::oci::Compression;
use crate::remote::{
    Backends, Base, CacheDestination, CacheMode, Contents, Exporter, LayerToExport, MountChoice, MountIdentity,
    RemoteError, distinct,
};
use crate::rootfs::RootPath;
use crate::tree::{ContentDigest, Node, Tree};

/// Files that keys are computed from.
const SMALL_FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// The largest of them that travels, in bytes.
const MAX_FILE: u64 = 64 << 10;

impl Engine {
    /// Sends results that the store holds to a place; what was there under this name is replaced, as by a build with
    /// `--cache-to`. The files of layers go as far as the store has them.
    ///
    /// With `mode=min` those of the image that was built go, of everything those of every image in the store; with
    /// `mode=max` those of every result.
    ///
    /// # Errors
    /// Every case of [`CacheTransferError`] but [`CacheTransferError::Read`].
    pub fn export_cache(
        &self,
        selection: &CacheSelection,
        destination: &CacheDestination,
        context: &ExportContext<'_>,
    ) -> Result<CacheExported, CacheTransferError> {
        let _lease = self.content.lease(context.cancel).map_err(store)?;
        let selected = select(self, selection)?;
        let wanted = self.wanted_mounts(&destination.mounts)?;
        if selected.records.is_empty() && wanted.is_empty() {
            return Ok(CacheExported::default());
        }
        let contents = self.contents(&selected)?;
        let layers = self.layers(&selected, destination.mode);
        let failed = |source: RemoteError| match source {
            source if source.is_cancelled() || context.cancel.is_cancelled() => Cancelled.into(),
            source => CacheTransferError::Write { place: destination.place.to_string(), source: Box::new(source) },
        };
        let mut busy_mounts = Vec::new();
        let mut busy = |id: &str| busy_mounts.push(id.to_owned());
        let (mounts, _held) = hold_mounts(self, wanted, context.cancel, &mut busy).map_err(failed)?;
        let backends = Backends { registry: &self.registry };
        let exporter = Exporter { context, backends, compression: Compression::default() };
        let exported = exporter.export(destination, &contents, &layers, &mounts).map_err(failed)?;
        let mut ids: Vec<String> = mounts.into_iter().map(|mount| mount.mount.id).collect();
        ids.retain(|id| !busy_mounts.contains(id));
        ids.dedup();
        Ok(CacheExported {
            results: contents.records.len(),
            layers: exported.layers,
            without_files: exported.left_out,
            mounts: ids,
            busy_mounts,
            sent: exported.sent,
            sent_bytes: exported.sent_bytes,
            present: exported.blobs.saturating_sub(exported.sent),
        })
    }

    /// The mounts of the store that are meant, each identity once.
    fn wanted_mounts(&self, choice: &MountChoice) -> Result<Vec<(bool, MountIdentity)>, CacheTransferError> {
        let stored =
            if *choice == MountChoice::Nothing { Vec::new() } else { self.cache_mounts.list().map_err(store)? };
        if let MountChoice::Ids(ids) = choice
            && let Some(id) = ids.iter().find(|id| !stored.iter().any(|mount| mount.id == **id))
        {
            return Err(CacheTransferError::NoSuchMount { id: id.clone() });
        }
        let mut seen = HashSet::new();
        let meant = stored.iter().filter(|mount| choice.has(&mount.id)).map(identity_of);
        Ok(meant.filter(|mount| seen.insert(mount.clone())).map(|mount| (true, mount)).collect())
    }

    /// Everything but layers.
    fn contents(&self, selected: &Selected) -> Result<Contents, CacheTransferError> {
        let bases = selected.bases.iter();
        let trees = || bases.clone().map(|(_, tree)| tree).chain(selected.records.iter().map(|(_, tree)| tree));
        let mut files = BTreeMap::new();
        for tree in trees() {
            self.add_small_files(tree, &mut files)?;
        }
        Ok(Contents {
            records: selected.records.iter().map(|(record, _)| record.clone()).collect(),
            trees: trees().cloned().collect(),
            bases: bases.clone().map(|(layer, tree)| Base { layer: layer.clone(), tree: tree.id() }).collect(),
            files,
            ..Contents::default()
        })
    }

    /// Adds the small files of a layer whose bytes are here.
    fn add_small_files(
        &self,
        tree: &Tree,
        files: &mut BTreeMap<ContentDigest, Vec<u8>>,
    ) -> Result<(), CacheTransferError> {
        for path in SMALL_FILES {
            let path = RootPath::clean(path).expect("a constant path");
            let Some(entry) = tree.get(&path) else { continue };
            let Node::File { size, content: digest, .. } = entry.node else { continue };
            if size > MAX_FILE || files.contains_key(&digest) {
                continue;
            }
            let kept = self.cache.file(&digest).map_err(store)?;
            let content = match kept {
                Some(kept) => Some(kept),
                None => self.snapshots.get(&tree.id()).map_err(store)?.and_then(|snapshot| {
                    let mut content = Vec::new();
                    snapshot.open(&entry).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
                    Some(content)
                }),
            };
            // One that was damaged is what nobody looks for.
            if let Some(content) = content.filter(|content| ContentDigest::of(content) == digest) {
                files.insert(digest, content);
            }
        }
        Ok(())
    }

    fn layers<'a>(&'a self, selected: &Selected, mode: CacheMode) -> Vec<LayerToExport<'a>> {
        let wanted = |tree: &Tree| mode == CacheMode::Max || selected.result.contains(&tree.id());
        let trees = selected.records.iter().map(|(_, tree)| tree).filter(|tree| wanted(tree));
        let one = |tree: &Tree| LayerToExport {
            tree: tree.clone(),
            files: Box::new({
                let tree = tree.clone();
                move || match self.snapshots.get_verified(&tree)? {
                    Some(snapshot) => Ok(Arc::new(snapshot) as Arc<dyn Files + Send + Sync>),
                    None => Err(RemoteError::NoFiles { reason: "its files are not in the store".to_owned() }),
                }
            }),
        };
        distinct(trees.map(one).collect())
    }
}
