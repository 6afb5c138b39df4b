//! [`Lease`] and [`ExclusiveLease`]: who may use and who may empty the store.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::store::write_error;
use super::{ContentError, ContentStore};
use crate::cancel::CancelToken;
use crate::small_file;

/// How long a waiter sleeps before it asks again: `flock(2)` itself cannot be cancelled.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// While it lives no garbage collection removes anything. The kernel ends it with the process.
#[derive(Debug)]
pub struct Lease {
    /// Unset on a read-only file system without a lock file.
    _lock: Option<OwnedFd>,
}

/// While it lives nobody holds a [`Lease`]: the moment in which garbage collection may remove things.
#[derive(Debug)]
pub struct ExclusiveLease {
    _lock: OwnedFd,
}

impl ContentStore {
    /// Takes a lease, waiting while a garbage collection removes files.
    ///
    /// # Errors
    /// [`ContentError::Cancelled`], or [`ContentError::Write`] if the lock file cannot be opened.
    pub fn lease(&self, cancel: &CancelToken) -> Result<Lease, ContentError> {
        self.wait(FlockOperation::NonBlockingLockShared, cancel).map(|lock| Lease { _lock: Some(lock) })
    }

    /// The same for somebody who only reads: on a read-only file system a lock file that is not there is not needed, as
    /// nothing can be removed through it either.
    ///
    /// # Errors
    /// As [`ContentStore::lease`].
    pub fn reading_lease(&self, cancel: &CancelToken) -> Result<Lease, ContentError> {
        match self.lease(cancel) {
            Err(error) if error.is_read_only() => {
                match self.wait_with(OFlags::RDONLY, FlockOperation::NonBlockingLockShared, cancel) {
                    Ok(lock) => Ok(Lease { _lock: Some(lock) }),
                    Err(ContentError::Cancelled(cancelled)) => Err(cancelled.into()),
                    Err(_) => Ok(Lease { _lock: None }),
                }
            }
            other => other,
        }
    }

    /// Takes the store for garbage collection if nobody uses it.
    ///
    /// A lease held by the caller counts as use, so it has to be dropped before.
    ///
    /// # Errors
    /// [`ContentError::Write`] if the lock file cannot be opened.
    pub fn try_exclusive(&self) -> Result<Option<ExclusiveLease>, ContentError> {
        let lock = self.lock(OFlags::RDWR | OFlags::CREATE, FlockOperation::NonBlockingLockExclusive)?;
        Ok(lock.map(|lock| ExclusiveLease { _lock: lock }))
    }

    /// Takes the store for garbage collection, waiting for running builds.
    ///
    /// # Errors
    /// [`ContentError::Cancelled`], or [`ContentError::Write`] if the lock file cannot be opened.
    pub fn exclusive(&self, cancel: &CancelToken) -> Result<ExclusiveLease, ContentError> {
        self.wait(FlockOperation::NonBlockingLockExclusive, cancel).map(|lock| ExclusiveLease { _lock: lock })
    }

    fn wait(&self, operation: FlockOperation, cancel: &CancelToken) -> Result<OwnedFd, ContentError> {
        self.wait_with(OFlags::RDWR | OFlags::CREATE, operation, cancel)
    }

    fn wait_with(
        &self,
        access: OFlags,
        operation: FlockOperation,
        cancel: &CancelToken,
    ) -> Result<OwnedFd, ContentError> {
        loop {
            cancel.check()?;
            if let Some(lock) = self.lock(access, operation)? {
                return Ok(lock);
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    fn lock(&self, access: OFlags, operation: FlockOperation) -> Result<Option<OwnedFd>, ContentError> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.inner.state_path("lock");
        let open = || Ok(rustix::fs::openat(self.inner.root(), "lock", flags, Mode::RUSR | Mode::WUSR)?);
        let file =
            small_file::open(&path, open).map_err(|source| ContentError::Write { path: path.clone(), source })?;
        // Who may write everywhere would leave files here that the owner of the store cannot use.
        let owner = rustix::fs::fstat(&file).map_err(|errno| write_error(path.clone(), errno))?.st_uid;
        let user = rustix::process::geteuid().as_raw();
        if owner != user {
            return Err(ContentError::Foreign { path: self.state().to_owned(), owner, user });
        }
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(errno) => Err(write_error(path, errno)),
        }
    }
}
