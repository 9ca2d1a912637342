//! [`Workers`]: the pods of one node.

use api::uid;

use crate::pod_worker::PodWorker;

/// The workers of a node's pods in the order of their UIDs.
#[derive(Clone, Default)]
pub(crate) struct Workers(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    /// How the UID begins: looking for a worker hardly ever touches those of others.
    begin: u64,
    worker: Box<PodWorker>,
}

impl Workers {
    fn place(&self, uid: &str) -> Result<usize, usize> {
        uid::place(&self.0, uid::beginning(uid), |entry| entry.begin, |e| (*e.worker.uid).cmp(uid))
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&PodWorker> {
        self.place(uid).ok().map(|at| &*self.0[at].worker)
    }

    pub(crate) fn get_mut(&mut self, uid: &str) -> Option<&mut PodWorker> {
        self.place(uid).ok().map(|at| &mut *self.0[at].worker)
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.place(uid).is_ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PodWorker> + Clone {
        self.0.iter().map(|entry| &*entry.worker)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PodWorker> {
        self.0.iter_mut().map(|entry| &mut *entry.worker)
    }

    /// Adds a worker; it takes the place of one of the same UID.
    pub(crate) fn insert(&mut self, worker: Box<PodWorker>) {
        let entry = Entry { begin: uid::beginning(&worker.uid), worker };
        match self.place(&entry.worker.uid) {
            Ok(at) => self.0[at] = entry,
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    // There may be a hundred thousand kubelets: doubling would leave much unused.
                    self.0.reserve_exact(2 + self.0.len() / 4);
                }
                self.0.insert(at, entry);
            }
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Box<PodWorker>> {
        self.place(uid).ok().map(|at| self.0.remove(at).worker)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{Pod, Time};

    use super::*;

    #[test]
    fn workers_are_found_and_in_order() {
        let uids = ["b", "", "aaaaaaaa-2", "aaaaaaaa", "aaaaaaaa-1", "aaaa"];
        let worker = |uid: &str| {
            let pod: Arc<Pod> = Arc::default();
            Box::new(PodWorker::new(pod, uid.into(), false, Time::ZERO))
        };
        let mut workers = Workers::default();
        uids.iter().for_each(|uid| workers.insert(worker(uid)));
        workers.insert(worker("aaaa"));
        let names = |workers: &Workers| -> Vec<String> {
            workers.iter().map(|w| w.uid.to_string()).collect()
        };
        assert_eq!(names(&workers), ["", "aaaa", "aaaaaaaa", "aaaaaaaa-1", "aaaaaaaa-2", "b"]);
        for uid in uids {
            assert_eq!(workers.get(uid).map(|w| &*w.uid), Some(uid));
        }
        assert!(!workers.contains("aaaaaaaa-") && workers.remove("c").is_none());
        assert!(workers.remove("aaaaaaaa-1").is_some() && workers.get_mut("aaaaaaaa-1").is_none());
        assert_eq!(names(&workers).len(), 5);
    }
}
