//! [`CancelToken`]: one switch that ends a build.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use rustix::event::{EventfdFlags, eventfd};

use crate::lock::lock;

/// Tells every part of a build to stop, at most once; clones share the switch.
///
/// Loops ask [`CancelToken::check`]; a thread that waits on descriptors adds [`CancelToken::fd`] to its poll set.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cancelled: AtomicBool,
    event: OnceLock<OwnedFd>,
    children: Mutex<Vec<Weak<Inner>>>,
}

/// The build was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl CancelToken {
    /// Makes a token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a token that is cancelled together with this one, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::new();
        lock(&self.inner.children).push(Arc::downgrade(&child.inner));
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    /// Cancels; further calls do nothing.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// Says whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    /// Returns an error once the token is cancelled, for use with `?`.
    ///
    /// # Errors
    /// [`Cancelled`] if it is.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Says whether both share one switch.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns a descriptor that becomes readable when the token is cancelled; it is made at the first call.
    ///
    /// # Errors
    /// When the process has no descriptor left (`eventfd(2)`).
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.inner.event.get().is_none() {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Another thread may have been first; its descriptor serves both.
            let _ = self.inner.event.set(made);
        }
        let event = self.inner.event.get().expect("set just above");
        // A cancel between the flag and the descriptor wrote to nothing: write now.
        if self.is_cancelled() {
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
        Ok(event.as_fd())
    }
}

impl Inner {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if let Some(event) = self.event.get() {
            // The counter cannot overflow: one write a cancel. A failure leaves the flag, which every poll loop re-reads.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
        let children = lock(&self.children).clone();
        for child in children.iter().filter_map(Weak::upgrade) {
            child.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(fd: BorrowedFd<'_>) -> bool {
        let mut set = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll works") == 1
    }

    #[test]
    fn a_descriptor_asked_for_before_or_after_the_cancel_becomes_readable() {
        let token = CancelToken::new();
        assert!(!readable(token.fd().expect("eventfd")));
        token.clone().cancel();
        assert!(readable(token.fd().expect("eventfd")));
        assert_eq!(token.check(), Err(Cancelled));

        let late = CancelToken::new();
        late.cancel();
        assert!(readable(late.fd().expect("eventfd")));
    }

    #[test]
    fn a_child_is_cancelled_with_its_parent_and_alone() {
        let parent = CancelToken::new();
        let (first, second) = (parent.child(), parent.child());
        first.cancel();
        assert!(first.is_cancelled() && !parent.is_cancelled() && !second.is_cancelled());
        parent.cancel();
        assert!(second.is_cancelled());
        assert!(parent.child().is_cancelled(), "a late child is cancelled at once");
    }
}
