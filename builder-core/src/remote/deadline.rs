//! [`Limits::within`]: work that ends in time, whatever the other side does.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::RemoteError;
use crate::cancel::{CancelToken, Cancelled};
use crate::lock::lock;

/// Bytes per second with which a place at least puts away what it was sent whole, before it answers. Registries on object
/// stores copy a large blob at its end.
const PUTS_AWAY: u64 = 16 << 20;

/// Whether anything moves between this program and a place.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Moving>);

#[derive(Debug)]
struct Moving {
    /// Requests and reads that wait for the place.
    waiting: usize,
    /// When something moved last.
    last: Instant,
    /// What is added to the limit for what was sent whole.
    leave: Duration,
}

/// Something waits for the place, until this is dropped.
pub(super) struct Waiting<'a>(&'a Activity);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Moving { waiting: 0, last: Instant::now(), leave: Duration::ZERO }))
    }
}

impl Activity {
    /// From now on something waits.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        lock(&self.0).waiting += 1;
        self.moved();
        Waiting(self)
    }

    /// Bytes came or went, or an answer came.
    pub(super) fn moved(&self) {
        let mut moving = lock(&self.0);
        (moving.last, moving.leave) = (Instant::now(), Duration::ZERO);
    }

    /// The last of so many bytes went: the place has something to do now.
    pub(super) fn sent(&self, bytes: u64) {
        let mut moving = lock(&self.0);
        (moving.last, moving.leave) = (Instant::now(), Duration::from_secs(bytes / PUTS_AWAY));
    }

    /// A request is made again after so long, because a server asked for that.
    pub(super) fn put_off(&self, wait: Duration) {
        let mut moving = lock(&self.0);
        (moving.last, moving.leave) = (Instant::now(), wait);
    }

    /// Does something on this machine, for which nobody can blame the place.
    pub(super) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        lock(&self.0).waiting -= 1;
        let done = work();
        lock(&self.0).waiting += 1;
        self.moved();
        done
    }

    /// How long nothing has moved although something waits.
    fn silence(&self) -> Duration {
        let moving = lock(&self.0);
        if moving.waiting == 0 { Duration::ZERO } else { moving.last.elapsed().saturating_sub(moving.leave) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).waiting -= 1;
        self.0.moved();
    }
}

/// How long work with a place may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits<'a> {
    /// In all.
    pub(super) whole: Option<Duration>,
    /// Without anything moving.
    pub(super) stall: Option<Duration>,
    pub(super) activity: &'a Activity,
}

impl Limits<'_> {
    /// Does `work` with a token that is cancelled when a limit is over.
    ///
    /// # Errors
    /// [`RemoteError::TooSlow`] or [`RemoteError::Stalled`] if one was, [`RemoteError::Cancelled`] if the build was
    /// cancelled, else that of the work.
    pub(super) fn within<T>(
        self,
        cancel: &CancelToken,
        work: impl FnOnce(&CancelToken) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let token = cancel.child();
        let late = OnceLock::new();
        let (done, wait) = channel::<()>();
        let result = std::thread::scope(|scope| {
            let (late, token) = (&late, &token);
            let watch = move || {
                let begun = Instant::now();
                let why = loop {
                    match self.left(begun) {
                        Ok(Some(left)) if wait.recv_timeout(left) == Err(RecvTimeoutError::Timeout) => {}
                        Ok(Some(_)) => return,
                        Ok(None) => {
                            let _ = wait.recv();
                            return;
                        }
                        Err(why) => break why,
                    }
                };
                let _ = late.set(why);
                token.cancel();
            };
            // A thread that cannot be started leaves the time limits of single requests.
            let _ = std::thread::Builder::new().name("deadline".to_owned()).spawn_scoped(scope, watch);
            let result = work(token);
            drop(done);
            result
        });
        match result {
            Err(_) if cancel.is_cancelled() => Err(Cancelled.into()),
            Err(error) => Err(late.into_inner().unwrap_or(error)),
            done => done,
        }
    }

    /// The time until a limit may be over; `None` if there is none.
    fn left(&self, begun: Instant) -> Result<Option<Duration>, RemoteError> {
        let left = |limit: Duration, gone: Duration| limit.checked_sub(gone).filter(|left| !left.is_zero());
        let whole = match self.whole {
            Some(limit) => Some(left(limit, begun.elapsed()).ok_or(RemoteError::TooSlow { seconds: limit.as_secs() })?),
            None => None,
        };
        let stall = match self.stall {
            Some(limit) => {
                Some(left(limit, self.activity.silence()).ok_or(RemoteError::Stalled { seconds: limit.as_secs() })?)
            }
            None => None,
        };
        Ok(whole.into_iter().chain(stall).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Option<Duration> = Some(Duration::from_secs(60));
    const MOMENT: Option<Duration> = Some(Duration::from_millis(5));

    fn endless(token: &CancelToken) -> Result<(), RemoteError> {
        while !token.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Cancelled.into())
    }

    #[test]
    fn work_ends_in_time_and_says_why() {
        let (cancel, activity) = (CancelToken::new(), Activity::default());
        let limits = |whole, stall| Limits { whole, stall, activity: &activity };
        assert_eq!(limits(MINUTE, MINUTE).within(&cancel, |_| Ok(7)).ok(), Some(7));
        assert_eq!(limits(None, None).within(&cancel, |_| Ok(7)).ok(), Some(7));
        let late = limits(MOMENT, MINUTE).within(&cancel, endless);
        assert!(matches!(late, Err(RemoteError::TooSlow { .. })), "{late:?}");
        assert!(!cancel.is_cancelled(), "the build goes on");
        cancel.cancel();
        let cancelled = limits(MINUTE, MINUTE).within(&cancel, endless);
        assert!(matches!(cancelled, Err(RemoteError::Cancelled(_))), "{cancelled:?}");
    }

    #[test]
    fn silence_counts_only_while_something_waits_for_the_place() {
        let (cancel, activity) = (CancelToken::new(), Activity::default());
        let limits = Limits { whole: MINUTE, stall: Some(Duration::from_millis(60)), activity: &activity };
        let pause = |times: u32| std::thread::sleep(Duration::from_millis(40) * times);
        let ended = |work: &dyn Fn(&CancelToken)| {
            limits.within(&cancel, |token| {
                work(token);
                token.check().map_err(RemoteError::from)
            })
        };
        assert!(ended(&|_| pause(3)).is_ok(), "nobody is asked");
        let moving = ended(&|_| {
            let _waiting = activity.waiting();
            for _ in 0..4 {
                pause(1);
                activity.moved();
            }
            activity.aside(|| pause(3));
        });
        assert!(moving.is_ok(), "{moving:?}");
        let silent = ended(&|token| {
            let _waiting = activity.waiting();
            while !token.is_cancelled() {
                pause(1);
            }
        });
        assert!(matches!(silent, Err(RemoteError::Stalled { .. })), "{silent:?}");
        // What was sent whole takes its time.
        let put_away = ended(&|_| {
            let _waiting = activity.waiting();
            activity.sent(PUTS_AWAY);
            pause(4);
        });
        assert!(put_away.is_ok(), "{put_away:?}");
        let put_off = ended(&|_| {
            let _waiting = activity.waiting();
            activity.put_off(Duration::from_secs(1));
            pause(4);
        });
        assert!(put_off.is_ok(), "{put_off:?}");
    }
}
