//! [`Watched`]: a place of which it is known whether anything moves.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Backend, BlobToPut};
use crate::cancel::CancelToken;
use crate::oci::{Descriptor, Manifest, Platform};
use crate::remote::RemoteError;
use crate::remote::deadline::Activity;

/// Notes in `activity` what the place is asked, and what comes and goes.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) inner: Box<dyn Backend>,
    pub(super) activity: Arc<Activity>,
}

impl Backend for Watched {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn begin(&self, cancel: &CancelToken) -> Result<(), RemoteError> {
        let _waiting = self.activity.waiting();
        self.inner.begin(cancel)
    }

    fn manifest(&self, cancel: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
        let _waiting = self.activity.waiting();
        self.inner.manifest(cancel)
    }

    fn manifests(&self, platforms: &[Platform], cancel: &CancelToken) -> Result<Vec<Manifest>, RemoteError> {
        let _waiting = self.activity.waiting();
        self.inner.manifests(platforms, cancel)
    }

    fn open(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
        let _waiting = self.activity.waiting();
        Ok(Box::new(Incoming { inner: self.inner.open(blob, cancel)?, activity: Arc::clone(&self.activity) }))
    }

    fn has(&self, blob: &Descriptor, cancel: &CancelToken) -> Result<bool, RemoteError> {
        let _waiting = self.activity.waiting();
        self.inner.has(blob, cancel)
    }

    fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
        let _waiting = self.activity.waiting();
        let size = blob.descriptor.size;
        let source = || {
            let inner = self.activity.aside(|| (blob.source)())?;
            let outgoing = Outgoing { inner, left: size, size, activity: Arc::clone(&self.activity) };
            Ok(Box::new(outgoing) as Box<dyn Read + Send>)
        };
        let moving = BlobToPut { descriptor: blob.descriptor, source: &source, mount_from: blob.mount_from.clone() };
        self.inner.put(&moving, cancel)
    }

    fn put_manifest(&self, manifest: &Manifest, bytes: &[u8], cancel: &CancelToken) -> Result<(), RemoteError> {
        let _waiting = self.activity.waiting();
        self.inner.put_manifest(manifest, bytes, cancel)
    }

    fn keeps_what_is_named(&self) -> bool {
        self.inner.keeps_what_is_named()
    }

    fn workers(&self) -> usize {
        self.inner.workers()
    }

    fn repository(&self) -> Option<String> {
        self.inner.repository()
    }
}

/// Bytes that come.
struct Incoming {
    inner: Box<dyn Read + Send>,
    activity: Arc<Activity>,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _waiting = self.activity.waiting();
        self.inner.read(buffer)
    }
}

/// Bytes that go.
struct Outgoing {
    inner: Box<dyn Read + Send>,
    left: u64,
    size: u64,
    activity: Arc<Activity>,
}

impl Read for Outgoing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            self.activity.sent(self.size);
        } else {
            self.activity.moved();
        }
        Ok(count)
    }
}
