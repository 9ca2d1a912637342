//! [`Hub`]: the watch cache as requests see it, kept current by one watch of the store.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use api::{Cause, Key, Kind, Reason, Revision, Status};
use registry::authorize::Authorizer;
use registry::window::{Limits, Window, parse_store_key};
use store::{Change, PREFIX, Range, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Records read from the store at a time when starting.
const PAGE: usize = 500;
/// How long a consistent read waits for the watch before it suspects that the last write was
/// one the watch does not tell of.
const LAG_MAX: Duration = Duration::from_millis(100);
/// How long a read waits for the watch at most.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a list that must not be older than a revision waits for it.
const NOT_OLDER_WAIT_MAX: Duration = Duration::from_secs(3);
/// Pauses between attempts to reach the store.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// How often history is compacted: what is older than one period goes.
const COMPACTION_PERIOD: Duration = Duration::from_secs(300);

/// What every request reads.
pub(crate) struct State {
    /// All objects and their latest events.
    pub(crate) window: Window,
    /// Who may do what.
    pub(crate) authorizer: Authorizer,
}

/// The watch cache, shared by all requests.
pub(crate) struct Hub {
    pub(crate) store: Arc<dyn Store>,
    state: RwLock<State>,
    /// One a kind, at its index: woken when the kind changed; counts the reads of its revision.
    kinds: Vec<watch::Sender<u64>>,
    /// The revision of the window; zero before it was filled.
    revision: watch::Sender<Revision>,
    revision_reads: mpsc::Sender<oneshot::Sender<Result<Revision, String>>>,
    marking: tokio::sync::Mutex<()>,
}

impl Hub {
    /// Makes the hub and starts the tasks that keep it current. They end with `tasks`.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        limits: Limits,
        tasks: &mut tokio::task::JoinSet<()>,
    ) -> Arc<Self> {
        let (revision_reads, reads) = mpsc::channel(1024);
        let hub = Arc::new(Self {
            store,
            state: RwLock::new(State {
                window: Window::new(limits),
                authorizer: Authorizer::default(),
            }),
            kinds: Kind::ALL.iter().map(|_| watch::Sender::new(0)).collect(),
            revision: watch::Sender::new(Revision(0)),
            revision_reads,
            marking: tokio::sync::Mutex::new(()),
        });
        tasks.spawn(feed(hub.clone()));
        tasks.spawn(answer_revision_reads(hub.store.clone(), reads));
        tasks.spawn(compact(hub.clone()));
        hub
    }

    /// The present state. Not to be held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when the kind may have changed.
    pub(crate) fn changes(&self, kind: Kind) -> watch::Receiver<u64> {
        self.kinds[kind as usize].subscribe()
    }

    /// Makes watches of the kind that allow bookmarks tell how far they are: somebody waits to
    /// see the present revision on one.
    pub(crate) fn announce(&self, kind: Kind) {
        self.kinds[kind as usize].send_modify(|reads| *reads += 1);
    }

    /// Whether the window has been filled.
    pub(crate) fn is_filled(&self) -> bool {
        *self.revision.borrow() > Revision(0)
    }

    /// Waits until the window has been filled.
    pub(crate) async fn filled(&self) {
        let mut revision = self.revision.subscribe();
        let _ = revision.wait_for(|r| *r > Revision(0)).await;
    }

    /// Waits until the window holds every write that was answered before the call.
    ///
    /// # Errors
    /// The store cannot be reached, or the watch lags too far.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        let current = self.store_revision().await?;
        if self.wait_for(current, LAG_MAX).await {
            return Ok(());
        }
        // One of those who wait asks for a sign of life.
        {
            let _marking = self.marking.lock().await;
            if *self.revision.borrow() < current {
                self.store.mark().await.map_err(|e| unavailable(&e.to_string()))?;
            }
        }
        if self.wait_for(current, WAIT_MAX).await {
            return Ok(());
        }
        Err(unavailable("the watch cache lags behind the store"))
    }

    /// Waits until the window has reached a revision that the client has seen elsewhere.
    ///
    /// # Errors
    /// `Timeout` when it does not come.
    pub(crate) async fn not_older_than(&self, wanted: Revision) -> Result<(), Status> {
        if *self.revision.borrow() >= wanted || self.wait_for(wanted, LAG_MAX).await {
            return Ok(());
        }
        // The revision may be one of another kind of write, which the watch does not tell of.
        self.barrier().await?;
        if self.wait_for(wanted, NOT_OLDER_WAIT_MAX).await {
            return Ok(());
        }
        let current = *self.revision.borrow();
        let message = format!("Too large resource version: {wanted}, current: {current}");
        Err(Status {
            retry_after_seconds: 1,
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }],
            ..Status::new(Reason::Timeout, message)
        })
    }

    async fn wait_for(&self, wanted: Revision, patience: Duration) -> bool {
        let mut revision = self.revision.subscribe();
        matches!(timeout(patience, revision.wait_for(|r| *r >= wanted)).await, Ok(Ok(_)))
    }

    /// The revision of the store, by a read that is shared with others who ask meanwhile.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub(crate) async fn store_revision(&self) -> Result<Revision, Status> {
        let (answer, answered) = oneshot::channel();
        let lost = || unavailable("shutting down");
        self.revision_reads.send(answer).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?.map_err(|e| unavailable(&e))
    }

    /// Takes in what the watch told.
    fn apply(&self, changes: &[Change], revision: Revision) {
        let mut touched = BTreeSet::new();
        {
            let mut state = self.write();
            for change in changes {
                match state.window.apply(change) {
                    Ok(Some(kind)) => {
                        touched.insert(kind);
                        state.reauthorize(kind, &change.key);
                    }
                    Ok(None) => {}
                    Err(bad) => tracing::error!(%bad, "a stored object is not served"),
                }
            }
            state.window.advance(revision);
        }
        self.revision.send_replace(revision);
        for kind in touched {
            self.kinds[kind as usize].send_modify(|_| ());
        }
    }

    /// Reads everything anew.
    async fn refill(&self) -> Result<Revision, StoreError> {
        let mut records = Vec::new();
        let (mut from, mut at) = (String::new(), None);
        loop {
            let range = Range { prefix: PREFIX, from: &from, limit: PAGE, at };
            let page = self.store.range(range).await?;
            at = Some(page.revision);
            if let Some(last) = page.records.last() {
                from = format!("{}\0", last.key);
            }
            records.extend(page.records);
            if !page.more {
                break;
            }
        }
        let revision = at.unwrap_or_default();
        let bad = {
            let mut state = self.write();
            let bad = state.window.replace(records, revision);
            state.reauthorize_all();
            bad
        };
        for bad in bad {
            tracing::error!(%bad, "a stored object is not served");
        }
        tracing::info!(revision = revision.0, "the watch cache is filled");
        self.revision.send_replace(revision);
        for kind in &self.kinds {
            kind.send_modify(|_| ());
        }
        Ok(revision)
    }
}

impl State {
    fn reauthorize(&mut self, kind: Kind, store_key: &str) {
        if !Authorizer::KINDS.contains(&kind) {
            return;
        }
        let Some((kind, path)) = parse_store_key(store_key) else { return };
        let key = key_of(kind, path);
        let object = self.window.get(&key).and_then(|e| e.object().ok());
        self.authorizer.apply(&key, object.as_ref());
    }

    fn reauthorize_all(&mut self) {
        let mut authorizer = Authorizer::default();
        for kind in Authorizer::KINDS {
            let listing = self.window.list(*kind, &Default::default(), &Default::default());
            for entry in listing.iter().flat_map(|l| &l.entries) {
                if let Ok(object) = entry.object() {
                    authorizer.apply(&key_of(*kind, entry.path()), Some(&object));
                }
            }
        }
        self.authorizer = authorizer;
    }
}

/// The key of an object by its path in the store.
pub(crate) fn key_of(kind: Kind, path: &str) -> Key {
    match path.split_once('/') {
        Some((namespace, name)) => Key::new(kind, namespace, name),
        None => Key::cluster(kind, path),
    }
}

/// The store cannot do its part.
pub(crate) fn unavailable(why: &str) -> Status {
    Status { retry_after_seconds: 1, ..Status::new(Reason::ServiceUnavailable, why) }
}

/// Keeps the window current for as long as the server runs.
async fn feed(hub: Arc<Hub>) {
    let mut failures = 0_usize;
    let mut seen: Option<Revision> = None;
    loop {
        if let Err(error) = follow(&hub, &mut seen, &mut failures).await {
            if matches!(error, StoreError::Compacted) {
                seen = None;
            }
            tracing::warn!(%error, failures, "the watch of the store broke");
        }
        let pause = BACKOFF[failures.min(BACKOFF.len() - 1)];
        failures += 1;
        tokio::time::sleep(pause).await;
    }
}

/// Follows one watch until it breaks.
async fn follow(
    hub: &Hub,
    seen: &mut Option<Revision>,
    failures: &mut usize,
) -> Result<(), StoreError> {
    let from = match *seen {
        Some(revision) => revision,
        None => hub.refill().await?,
    };
    *seen = Some(from);
    let mut watch = hub.store.watch(from).await?;
    while let Some(batch) = watch.next().await? {
        *failures = 0;
        *seen = Some(batch.revision);
        hub.apply(&batch.changes, batch.revision);
    }
    Ok(())
}

/// Answers all who ask for the store's revision with one read at a time: a read that starts
/// after the question was asked is good for every question that waits by then.
async fn answer_revision_reads(
    store: Arc<dyn Store>,
    mut reads: mpsc::Receiver<oneshot::Sender<Result<Revision, String>>>,
) {
    let mut waiting = Vec::new();
    while reads.recv_many(&mut waiting, 1024).await > 0 {
        let answer = store.current_revision().await.map_err(|e| e.to_string());
        for waiter in waiting.drain(..) {
            // Who no longer waits needs no answer.
            let _ = waiter.send(answer.clone());
        }
    }
}

/// Forgets what is older than a period, period after period.
async fn compact(hub: Arc<Hub>) {
    let mut through: Option<Revision> = None;
    loop {
        tokio::time::sleep(COMPACTION_PERIOD).await;
        if let Some(through) = through
            && let Err(error) = hub.store.compact(through).await
        {
            tracing::warn!(%error, "history was not compacted");
        }
        through = hub.is_filled().then(|| *hub.revision.borrow());
    }
}
