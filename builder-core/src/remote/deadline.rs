//! [`within`]: work that ends in time, whatever the other side does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::RemoteError;
use crate::cancel::{CancelToken, Cancelled};

/// Does `work` with a token that is cancelled when `limit` is over.
///
/// # Errors
/// [`RemoteError::TooSlow`] if it was, [`RemoteError::Cancelled`] if the build was cancelled, else that of the work.
pub(super) fn within<T>(
    limit: Duration,
    cancel: &CancelToken,
    work: impl FnOnce(&CancelToken) -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let token = cancel.child();
    let late = AtomicBool::new(false);
    let (done, wait) = channel::<()>();
    let result = std::thread::scope(|scope| {
        let (late, token) = (&late, &token);
        let watch = move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                late.store(true, Ordering::SeqCst);
                token.cancel();
            }
        };
        // A thread that cannot be started leaves the time limits of single requests.
        let _ = std::thread::Builder::new().name("deadline".to_owned()).spawn_scoped(scope, watch);
        let result = work(token);
        drop(done);
        result
    });
    match result {
        Err(_) if cancel.is_cancelled() => Err(Cancelled.into()),
        Err(_) if late.load(Ordering::SeqCst) => Err(RemoteError::TooSlow { seconds: limit.as_secs() }),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endless(token: &CancelToken) -> Result<(), RemoteError> {
        while !token.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Cancelled.into())
    }

    #[test]
    fn work_ends_in_time_and_says_why() {
        let cancel = CancelToken::new();
        assert_eq!(within(Duration::from_secs(60), &cancel, |_| Ok(7)).ok(), Some(7));
        let late = within(Duration::from_millis(5), &cancel, endless);
        assert!(matches!(late, Err(RemoteError::TooSlow { .. })), "{late:?}");
        assert!(!cancel.is_cancelled(), "the build goes on");
        cancel.cancel();
        let cancelled = within(Duration::from_secs(60), &cancel, endless);
        assert!(matches!(cancelled, Err(RemoteError::Cancelled(_))), "{cancelled:?}");
    }
}
