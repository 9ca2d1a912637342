//! Many hosts at the same time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Runs `work` on all items, at most `at_once` at a time; the answers are in the items' order.
///
/// Threads instead of tasks: every host blocks in libssh2, and borrowed hosts need no sharing.
pub fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    at_once: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let count = items.len();
    let queue: Mutex<VecDeque<_>> = Mutex::new(items.into_iter().enumerate().collect());
    let done = Mutex::new(BTreeMap::new());
    let worker = || {
        loop {
            let next = lock(&queue).pop_front();
            let Some((index, item)) = next else { return };
            let result = work(item);
            lock(&done).insert(index, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..count.min(at_once.max(1)) {
            scope.spawn(worker);
        }
    });
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
