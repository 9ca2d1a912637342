//! Where the API's objects live: a versioned key-value store behind one interface.
//!
//! [`Store`] has two implementations, [`Etcd`] for production and [`Memory`] for tests, held to
//! the same behaviour by one conformance suite. The crate stores bytes: it knows nothing of
//! objects.

mod etcd;
mod memory;

use api::Revision;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

pub use etcd::{Etcd, EtcdOptions, EtcdTls};
pub use memory::Memory;
pub use registry::memory::{Beside, Change, Commit, Page, Record};

/// All objects live under this prefix; the watch covers it.
pub use registry::window::PREFIX;

/// A key under [`PREFIX`] that holds no object: [`Store::mark`] writes it.
const MARK: &str = "/registry/.progress";

/// Which part of the store to read.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// Keys start with this.
    pub prefix: &'a str,
    /// Keys are not below this; empty for all.
    pub from: &'a str,
    /// Up to so many records; any number when zero.
    pub limit: usize,
    /// As of this revision; as of now when absent.
    pub at: Option<Revision>,
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or does not answer in time. Nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The history that was asked for was compacted.
    #[error("the required revision has been compacted")]
    Compacted,
    /// It refused or answered nonsense.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Why a transaction has no revision.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The key has another revision than expected; this is what it holds. Nothing was written.
    #[error("the key has another revision")]
    Conflict(Option<Record>),
    /// This claim is taken. Nothing was written.
    #[error("{0} is taken")]
    Taken(String),
    /// A key that is written besides has another revision. Nothing was written.
    #[error("a key that is written with it has another revision")]
    Moved,
    /// Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The answer was lost: the transaction may have been carried out, or may still be.
    #[error("the outcome of the transaction is unknown: {0}")]
    Unknown(String),
}

/// Some changes of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In the order of their revisions; the changes of one transaction are never split.
    pub changes: Vec<Change>,
    /// Every change up to this revision was told, with these.
    pub revision: Revision,
}

/// A watch over all keys under [`PREFIX`]. It ends when dropped.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::Receiver<Result<Batch, StoreError>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// The next changes; `None` when the watch has ended.
    ///
    /// # Errors
    /// The watch broke: start another from the last revision seen, or list again when that was
    /// compacted.
    pub async fn next(&mut self) -> Result<Option<Batch>, StoreError> {
        self.receiver.recv().await.transpose()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A versioned key-value store.
pub trait Store: Send + Sync {
    /// Reads one key, consistently.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Reads a page of keys in order, consistently.
    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page, StoreError>>;

    /// Carries out one transaction. A lost answer is followed by a consistent read: the outcome
    /// is [`CommitError::Unknown`] only if that does not tell either.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Revision, CommitError>>;

    /// Watches all keys under [`PREFIX`] for changes with revisions above `after`.
    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>>;

    /// The current revision, read consistently: every write that was answered before the call
    /// has at most this revision.
    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Writes a key that is no object, so that the watch tells of a revision that is at least
    /// the current one. Needed only when somebody else writes outside of [`PREFIX`].
    ///
    /// etcd can also be asked for its progress, but versions before 3.4.25 answer before they
    /// have told all events (etcd issue 15220); the order of events is sound in all of them.
    fn mark(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Forgets history up to the revision.
    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The least key above all keys that start with `prefix`.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}
