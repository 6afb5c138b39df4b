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

    fn keeps(&self, named: &Descriptor) -> bool {
        self.inner.keeps(named)
    }

    fn forgets(&self) -> bool {
        self.inner.forgets()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oci::MediaType;
    use crate::remote::deadline::Limits;

    /// Gives three bytes, or takes three, and is silent then.
    #[derive(Debug)]
    struct Stuck;

    fn silence(cancel: &CancelToken) -> io::Error {
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        io::Error::other("cancelled")
    }

    struct Three {
        left: usize,
        cancel: CancelToken,
    }

    impl Read for Three {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(silence(&self.cancel));
            }
            self.left -= 1;
            buffer[0] = 0;
            Ok(1)
        }
    }

    impl Backend for Stuck {
        fn name(&self) -> String {
            "stuck".to_owned()
        }

        fn manifest(&self, _: &CancelToken) -> Result<Option<Vec<u8>>, RemoteError> {
            Ok(None)
        }

        fn open(&self, _: &Descriptor, cancel: &CancelToken) -> Result<Box<dyn Read + Send>, RemoteError> {
            Ok(Box::new(Three { left: 3, cancel: cancel.clone() }))
        }

        fn has(&self, _: &Descriptor, _: &CancelToken) -> Result<bool, RemoteError> {
            Ok(false)
        }

        fn put(&self, blob: &BlobToPut<'_>, cancel: &CancelToken) -> Result<(), RemoteError> {
            let mut source = (blob.source)().map_err(|error| RemoteError::NoFiles { reason: error.to_string() })?;
            let _ = source.read(&mut [0; 3]);
            Err(RemoteError::NoFiles { reason: silence(cancel).to_string() })
        }

        fn put_manifest(&self, _: &Manifest, _: &[u8], _: &CancelToken) -> Result<(), RemoteError> {
            Ok(())
        }
    }

    #[test]
    fn a_place_that_stops_in_the_middle_is_given_up_and_a_slow_disk_is_not() {
        let activity = Arc::default();
        let place = Watched { inner: Box::new(Stuck), activity: Arc::clone(&activity) };
        let stall = Some(Duration::from_millis(40));
        let limits = Limits { whole: None, stall, activity: &activity };
        let (cancel, blob) = (CancelToken::new(), Descriptor::of(MediaType::OCI_MANIFEST, b"four"));

        let come = limits.within(&cancel, |token| {
            let mut bytes = place.open(&blob, token)?;
            // Whoever reads may take time between.
            std::thread::sleep(Duration::from_millis(80));
            let mut all = Vec::new();
            bytes.read_to_end(&mut all).map_err(|error| RemoteError::NoFiles { reason: error.to_string() })
        });
        assert!(matches!(come, Err(RemoteError::Stalled { .. })), "{come:?}");

        let gone = limits.within(&cancel, |token| {
            let source = || {
                std::thread::sleep(Duration::from_millis(80));
                assert!(!token.is_cancelled(), "nothing was asked of the place yet");
                Ok(Box::new(&b"four"[..]) as Box<dyn Read + Send>)
            };
            place.put(&BlobToPut { descriptor: &blob, source: &source, mount_from: Vec::new() }, token)
        });
        assert!(matches!(gone, Err(RemoteError::Stalled { .. })), "{gone:?}");
    }
}
