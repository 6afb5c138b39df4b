//! [`Sending`]: each blob goes to a registry once. Whoever wants it in another repository waits until it is there, and
//! asks for a mount.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock::lock;
use crate::oci::Digest;

/// How often a thread that waits looks whether it still has to.
const TICK: Duration = Duration::from_millis(50);

/// A blob in a registry (`domain`).
type Key = (String, Digest);

/// What this client sends, and what it has sent.
#[derive(Debug, Default)]
pub(super) struct Sending {
    blobs: Mutex<HashMap<Key, State>>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// A thread deals with it.
    claimed: bool,
    /// A repository (path) that had it when this client was done with it.
    there: Option<String>,
}

/// The right to send a blob; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    sending: &'a Sending,
    key: Key,
    /// A repository (path) that has it, unless it was removed there since.
    pub(super) there: Option<String>,
}

impl Sending {
    /// Waits until no other thread sends a blob. `go_on` is asked again and again meanwhile.
    pub(super) fn claim<E>(
        &self,
        domain: &str,
        digest: &Digest,
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<Claim<'_>, E> {
        let key = (domain.to_owned(), digest.clone());
        let mut blobs = lock(&self.blobs);
        while blobs.get(&key).is_some_and(|state| state.claimed) {
            (blobs, _) = self.ended.wait_timeout(blobs, TICK).unwrap_or_else(PoisonError::into_inner);
            go_on()?;
        }
        let state = blobs.entry(key.clone()).or_insert(State { claimed: false, there: None });
        state.claimed = true;
        let there = state.there.clone();
        drop(blobs);
        Ok(Claim { sending: self, key, there })
    }
}

impl Claim<'_> {
    /// The blob is in a repository (path).
    pub(super) fn arrived(mut self, path: &str) {
        self.there = Some(path.to_owned());
    }

    /// The blob is not where it was said to be.
    pub(super) fn is_gone(&mut self) {
        self.there = None;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut blobs = lock(&self.sending.blobs);
        match self.there.take() {
            Some(path) => blobs.insert(self.key.clone(), State { claimed: false, there: Some(path) }),
            None => blobs.remove(&self.key),
        };
        self.sending.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sends_and_the_others_learn_where_it_is() {
        let (sending, digest) = (Sending::default(), Digest::sha256(b"x"));
        let claim = || sending.claim("r", &digest, || Ok::<_, ()>(())).expect("goes on");
        let failed = claim();
        assert_eq!(failed.there, None);
        drop(failed);
        let first = claim();
        let other = sending.claim("other", &digest, || Err(())).expect("another registry");
        assert_eq!(sending.claim("r", &digest, || Err(())).expect_err("has to wait"), ());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| claim().there.clone());
            std::thread::sleep(Duration::from_millis(10));
            first.arrived("team/app");
            assert_eq!(waiting.join().expect("no panic"), Some("team/app".to_owned()));
        });
        assert_eq!(other.there, None);
        let mut last = claim();
        assert_eq!(last.there.as_deref(), Some("team/app"));
        last.is_gone();
        drop(last);
        assert_eq!(claim().there, None);
    }
}
