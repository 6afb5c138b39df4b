//! Mutexes that outlive a panic: what they guard here is whole after every statement, so a thread that died while it
//! held one says nothing against the value.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the mutex, poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the mutex holds, poisoned or not.
pub(crate) fn unlocked<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_died_takes_nothing_along() {
        let mutex = Mutex::new(1);
        let died = std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                *lock(&mutex) = 2;
                let _guard = lock(&mutex);
                panic!("while holding it");
            });
            holder.join().is_err()
        });
        assert!(died && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 2);
        assert_eq!(unlocked(mutex), 2);
    }
}
