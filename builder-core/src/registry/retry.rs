//! [`Backoff`]: when to try again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cancel::{CancelToken, Cancelled};

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait, also if a server asks for a longer one.
const LONGEST: Duration = Duration::from_secs(60);

/// Faults in all after which a transfer that makes some progress each time is given up.
const TOTAL: u32 = 50;

/// Who hears how long a request is put off, so that nobody takes that for silence. The default is nobody.
#[derive(Clone, Default)]
pub struct Waits(Option<Arc<dyn Fn(Duration) + Send + Sync>>);

impl Waits {
    /// Tells each wait before it begins.
    pub fn told(to: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(to)))
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Waits(told)" } else { "Waits(nobody)" })
    }
}

/// Counts the faults of one request or transfer, and waits after each.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    faults: u32,
    total: u32,
    waits: Waits,
}

impl Backoff {
    /// Allows `attempts` tries, the first one included.
    pub(crate) fn new(attempts: u32) -> Self {
        Self { attempts, faults: 0, total: 0, waits: Waits::default() }
    }

    /// Tells its waits.
    pub(crate) fn telling(self, waits: &Waits) -> Self {
        Self { waits: waits.clone(), ..self }
    }

    /// Notes progress: only faults in a row count towards the limit.
    pub(super) fn progress(&mut self) {
        self.faults = 0;
    }

    /// Says whether this is the first fault in a row.
    pub(super) fn once(&self) -> bool {
        self.faults == 0
    }

    /// Waits before the next try; `false` if there is none left.
    ///
    /// The wait doubles with each fault in a row and is cut by a random part, so that many clients do not come back together.
    pub(crate) fn wait(&mut self, asked: Option<Duration>, cancel: &CancelToken) -> Result<bool, Cancelled> {
        self.faults += 1;
        self.total += 1;
        if self.faults >= self.attempts || self.total >= TOTAL {
            return Ok(false);
        }
        let doubled = FIRST.saturating_mul(1 << (self.faults - 1).min(16));
        let wait = asked.unwrap_or_else(|| doubled.mul_f64(0.5 + random() / 2.0)).min(LONGEST);
        if let Some(told) = &self.waits.0 {
            told(wait);
        }
        sleep(wait, cancel)?;
        Ok(true)
    }
}

/// Reads a `Retry-After` header: seconds or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(header: &str) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(header).ok()?.timestamp();
    let date: SystemTime = date.into();
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Sleeps, unless the build is cancelled.
fn sleep(wait: Duration, cancel: &CancelToken) -> Result<(), Cancelled> {
    cancel.check()?;
    match cancel.fd() {
        Ok(fd) => {
            let timeout = Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(60),
                tv_nsec: i64::from(wait.subsec_nanos()),
            };
            // A signal ends the wait early, which only makes the next try come sooner.
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
        }
        Err(_) => std::thread::sleep(wait.min(Duration::from_secs(1))),
    }
    cancel.check()
}

/// A number from 0 to 1.
fn random() -> f64 {
    let mut bytes = [0u8; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_when_to_come_back_in_seconds_or_as_a_date() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(retry_after("Wed, 21 Oct 2099 07:28:00 GMT").is_some_and(|wait| wait > LONGEST));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn tries_are_bounded_and_cancelled() {
        let cancel = CancelToken::new();
        let mut backoff = Backoff::new(3);
        let now = Some(Duration::ZERO);
        assert_eq!(backoff.wait(now, &cancel), Ok(true));
        assert_eq!(backoff.wait(now, &cancel), Ok(true));
        assert_eq!(backoff.wait(now, &cancel), Ok(false));
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waits = Waits::told({
            let told = Arc::clone(&told);
            move |wait| told.lock().expect("not poisoned").push(wait)
        });
        let mut heard = Backoff::new(2).telling(&waits);
        let wait = Duration::from_millis(1);
        assert_eq!((heard.wait(Some(wait), &cancel), heard.wait(Some(wait), &cancel)), (Ok(true), Ok(false)));
        assert_eq!(*told.lock().expect("not poisoned"), [wait]);
        let mut slow = Backoff::new(3);
        let tries = (0..200)
            .take_while(|_| {
                slow.progress();
                slow.wait(now, &cancel) == Ok(true)
            })
            .count();
        assert_eq!(tries, 49);
        cancel.cancel();
        assert_eq!(Backoff::new(3).wait(Some(LONGEST), &cancel), Err(Cancelled));
    }
}
