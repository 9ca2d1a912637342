//! A bounded memory of answers that are believed for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Remembers at most `capacity` answers, each until its own time.
pub(crate) struct Expiring<V> {
    entries: Mutex<BTreeMap<String, (Instant, V)>>,
    capacity: usize,
}

impl<V: Clone> Expiring<V> {
    /// Starts empty.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self { entries: Mutex::new(BTreeMap::new()), capacity }
    }

    /// The answer remembered, if it is still believed.
    pub(crate) fn get(&self, key: &str) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, value) = entries.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    /// Remembers an answer for a time, at the cost of expired ones, then of the next to expire.
    pub(crate) fn put(&self, key: String, value: V, time: Duration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if entries.len() >= self.capacity && !entries.contains_key(&key) {
            entries.retain(|_, (until, _)| now < *until);
            if entries.len() >= self.capacity {
                let next = entries.iter().min_by_key(|(_, (until, _))| *until);
                if let Some(next) = next.map(|(key, _)| key.clone()) {
                    entries.remove(&next);
                }
            }
        }
        entries.insert(key, (now + time, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_what_is_old_and_stays_small() {
        let memory = Expiring::new(2);
        memory.put("old".into(), 0, Duration::ZERO);
        assert_eq!(memory.get("old"), None);
        memory.put("a".into(), 1, Duration::from_secs(60));
        memory.put("b".into(), 2, Duration::from_secs(90));
        memory.put("c".into(), 3, Duration::from_secs(90));
        assert_eq!((memory.get("a"), memory.get("b"), memory.get("c")), (None, Some(2), Some(3)));
        memory.put("b".into(), 4, Duration::from_secs(90));
        assert_eq!((memory.get("b"), memory.get("c")), (Some(4), Some(3)));
    }
}
