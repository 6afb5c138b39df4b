//! `type=registry`: an artifact in a registry.

use std::collections::HashSet;
use std::io::Read;

use super::{Backend, BlobToPut, refuse_buildkit};
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, Index, Manifest, MediaType, Platform, Reference};
use crate::registry::{Registry, RegistryError};
use crate::remote::RemoteError;

#[derive(Debug)]
pub(super) struct RegistryBackend {
    pub(super) registry: Registry,
    pub(super) reference: Reference,
}

impl Backend for RegistryBackend {
    fn name(&self) -> String {
        self.reference.familiar()
    }

    fn manifest(&self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
        match self.registry.resolve(&self.reference, cancel) {
            Ok(resolved) if resolved.descriptor.media_type == MediaType::OCI_MANIFEST => Ok(Some(resolved.bytes)),
            Ok(resolved) => {
                Err(RemoteError::malformed(format!("its media type is `{}`", resolved.descriptor.media_type)))
            }
            // A repository comes into being with its first push.
            Err(RegistryError::ImageNotFound { .. } | RegistryError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn manifests(&self, platforms: &[Platform], cancel: &CancelToken) -> Result<Vec<Manifest>, RemoteError> {
        let resolved = match self.registry.resolve(&self.reference, cancel) {
            Ok(resolved) => resolved,
            Err(RegistryError::ImageNotFound { .. } | RegistryError::Status { status: 404, .. }) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        if let Ok(index) = Index::parse(&resolved.bytes, &resolved.descriptor.media_type) {
            refuse_buildkit(&index)?;
        }
        let (mut seen, mut manifests) = (HashSet::new(), Vec::new());
        for platform in platforms {
            match self.registry.select_platform(&self.reference, &resolved, platform, cancel) {
                Ok(selected) if seen.insert(selected.descriptor.digest.clone()) => manifests.push(selected.manifest),
                Ok(_) | Err(RegistryError::NoPlatform { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(manifests)
    }

    fn open(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
        Ok(Box::new(self.registry.open_blob(&self.reference, blob, cancel)?))
    }

    fn has(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<bool, RemoteError> {
        Ok(self.registry.blob_exists(&self.reference, blob, cancel)?)
    }

    fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
        let reference = &self.reference;
        for repository in &blob.mount_from {
            let path = repository.strip_prefix(reference.domain()).and_then(|rest| rest.strip_prefix('/'));
            if let Some(path) = path.filter(|path| *path != reference.path())
                && self.registry.mount_blob(reference, &blob.descriptor.digest, path, cancel)?
            {
                return Ok(());
            }
        }
        Ok(self.registry.push_blob(reference, blob.descriptor, blob.source, &|_| Ok(()), cancel)?)
    }

    fn put_manifest(&self, _: &Manifest, bytes: &[u8], cancel: &CancelToken) -> Result<(), RemoteError> {
        self.registry.push_manifest(&self.reference, &MediaType::OCI_MANIFEST, bytes, cancel)?;
        Ok(())
    }

    fn repository(&self) -> Option<String> {
        Some(self.reference.repository())
    }
}
