//! The store in memory, shared by reference.

use std::sync::{Arc, Mutex, PoisonError};

use api::Revision;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use registry::memory::{Memory as Versions, Refusal};
use tokio::sync::{mpsc, watch};

use crate::{
    Batch, Change, Commit, CommitError, MARK, PREFIX, Page, Range, Record, Store, StoreError, Watch,
};

/// A store that is lost when the process ends.
#[derive(Clone, Debug)]
pub struct Memory {
    versions: Arc<Mutex<Versions>>,
    revision: Arc<watch::Sender<Revision>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Makes an empty store.
    pub fn new() -> Self {
        let versions = Versions::new();
        let revision = Arc::new(watch::Sender::new(versions.revision()));
        Self { versions: Arc::new(Mutex::new(versions)), revision }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Versions) -> T) -> T {
        act(&mut self.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn commit_now(&self, commit: Commit) -> Result<Revision, CommitError> {
        let key = commit.key.clone();
        let revision = self.with(|v| v.commit(commit)).map_err(|refusal| match refusal {
            Refusal::Conflict(current) => {
                CommitError::Conflict(current.map(|(revision, value)| Record {
                    key: key.to_string(),
                    value,
                    revision,
                }))
            }
            Refusal::Taken(claim) => CommitError::Taken(claim),
            Refusal::Moved => CommitError::Moved,
        })?;
        self.revision.send_replace(revision);
        Ok(revision)
    }
}

/// The changes after `after`, as one batch.
fn batch(versions: &Versions, after: Revision) -> Result<Batch, StoreError> {
    let changes = versions.changes(after).map_err(|_| StoreError::Compacted)?;
    let changes: Vec<Change> = changes.filter(|c| c.key.starts_with(PREFIX)).cloned().collect();
    Ok(Batch { changes, revision: versions.revision() })
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        future::ready(Ok(self.with(|v| v.get(key)))).boxed()
    }

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page, StoreError>> {
        let page = self.with(|v| v.range(range.prefix, range.from, range.limit, range.at));
        future::ready(page.map_err(|_| StoreError::Compacted)).boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Revision, CommitError>> {
        future::ready(self.commit_now(commit)).boxed()
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let (sender, receiver) = mpsc::channel(64);
        let store = self.clone();
        let mut moved = self.revision.subscribe();
        let task = tokio::spawn(async move {
            let mut after = after;
            loop {
                moved.mark_unchanged();
                let next = store.with(|v| batch(v, after));
                let failed = next.is_err();
                if let Ok(batch) = &next {
                    after = batch.revision.max(after);
                }
                let silent = next.as_ref().is_ok_and(|b| b.changes.is_empty());
                if !silent && (sender.send(next).await.is_err() || failed) {
                    return;
                }
                if moved.changed().await.is_err() {
                    return;
                }
            }
        });
        future::ready(Ok(Watch { receiver, task })).boxed()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        future::ready(Ok(self.with(|v| v.revision()))).boxed()
    }

    fn mark(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let expected = self.with(|v| v.get(MARK)).map_or(Revision(0), |r| r.revision);
        let commit = Commit {
            key: MARK.into(),
            expected,
            value: Some(Bytes::new()),
            take: Vec::new(),
            free: Vec::new(),
            besides: Vec::new(),
        };
        // Losing the race means that somebody else has marked.
        let _ = self.commit_now(commit);
        future::ready(Ok(self.with(|v| v.revision()))).boxed()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|v| v.compact(through));
        future::ready(Ok(())).boxed()
    }
}
