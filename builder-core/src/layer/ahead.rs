//! [`in_order`]: work that several threads do ahead of the one that takes the results, in order.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Condvar, Mutex};

use crate::lock::lock;

/// Threads that work ahead at most: what they wait for is the kernel, which does not become faster with more.
const MOST_THREADS: usize = 4;

/// Results that wait to be taken, for each thread.
const AHEAD: usize = 2;

/// Threads that are worth it on this machine.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS)
}

struct Queue<N, R> {
    next: N,
    /// Results in order, from the first that was not taken; `None` is still worked on.
    results: VecDeque<Option<R>>,
    /// How many were taken.
    taken: usize,
    /// No item is given out any more.
    ended: bool,
    /// A worker panicked: its result never comes.
    died: bool,
}

struct Shared<N, R> {
    queue: Mutex<Queue<N, R>>,
    /// Something in the queue is other than it was.
    changed: Condvar,
}

/// Does `work` for every item that `next` gives, with `threads` threads, and hands the results to `each` on this thread, in
/// the order of the items. The first error of `each` ends everything.
///
/// As many results as the threads can make at once wait at most, so memory is bounded by what a few of them take.
pub(super) fn in_order<T, R: Send, E>(
    threads: usize,
    next: impl FnMut() -> Option<T> + Send,
    work: impl Fn(T) -> R + Sync,
    mut each: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let queue = Queue { next, results: VecDeque::new(), taken: 0, ended: false, died: false };
    let shared = Shared { queue: Mutex::new(queue), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work(threads * AHEAD, &work));
        }
        let _end = End { shared: &shared, died: false };
        while let Some(result) = shared.take() {
            each(result)?;
        }
        Ok(())
    })
}

impl<N, R> Shared<N, R> {
    fn work<T>(&self, most: usize, work: &impl Fn(T) -> R)
    where
        N: FnMut() -> Option<T>,
    {
        let mut guard = End { shared: self, died: true };
        loop {
            let mut queue = lock(&self.queue);
            while !queue.ended && queue.results.len() >= most {
                queue = self.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            let Some(item) = (!queue.ended).then(|| (queue.next)()).flatten() else {
                drop(queue);
                guard.died = false;
                return;
            };
            let number = queue.taken + queue.results.len();
            queue.results.push_back(None);
            drop(queue);
            let result = work(item);
            let mut queue = lock(&self.queue);
            let place = number - queue.taken;
            queue.results[place] = Some(result);
            self.changed.notify_all();
        }
    }

    /// The next result; `None` if there is none any more.
    fn take(&self) -> Option<R> {
        let mut queue = lock(&self.queue);
        loop {
            match queue.results.front() {
                _ if queue.died => return None,
                Some(Some(_)) => break,
                None if queue.ended => return None,
                _ => queue = self.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner),
            }
        }
        queue.taken += 1;
        self.changed.notify_all();
        queue.results.pop_front().flatten()
    }
}

/// Ends the queue, also when the thread that holds it panics.
struct End<'a, N, R> {
    shared: &'a Shared<N, R>,
    died: bool,
}

impl<N, R> Drop for End<'_, N, R> {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.ended = true;
        queue.died |= self.died;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_and_are_few_at_a_time() {
        for threads in 1..5 {
            let (mut items, given) = (0..500_usize, AtomicUsize::new(0));
            let next = || {
                given.fetch_add(1, Ordering::SeqCst);
                items.next()
            };
            let work = |item: usize| {
                // Later ones are done first now and then.
                std::thread::sleep(Duration::from_micros((item as u64 % 3) * 50));
                item
            };
            let mut seen = Vec::new();
            let each = |item| {
                seen.push(item);
                let ahead = given.load(Ordering::SeqCst) - seen.len();
                assert!(ahead <= threads * (AHEAD + 1) + 1, "{ahead} ahead with {threads} threads");
                Ok::<_, ()>(())
            };
            in_order(threads, next, work, each).expect("no error");
            assert_eq!(seen, (0..500).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_it() {
        let worked = AtomicUsize::new(0);
        let mut items = 0..10_000;
        let work = |item| {
            worked.fetch_add(1, Ordering::SeqCst);
            item
        };
        let result = in_order(3, || items.next(), work, |item| if item == 20 { Err(item) } else { Ok(()) });
        assert_eq!(result, Err(20));
        assert!(worked.load(Ordering::SeqCst) < 50);
    }

    #[test]
    #[should_panic = "a scoped thread panicked"]
    fn a_panic_of_a_worker_is_one_of_the_caller() {
        let mut items = 0..100;
        let work = |item: usize| assert!(item != 7, "that one");
        let _ = in_order(2, || items.next(), work, |()| Ok::<_, ()>(()));
    }
}
