//! The store in etcd, over mutual TLS.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::Revision;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions,
    Identity, KeyValue, KvClient, ResponseHeader, TlsOptions, Txn, TxnOp, TxnOpResponse,
    WatchClient, WatchOptions, WatchResponse,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{
    Batch, Beside, Change, Commit, CommitError, MARK, PREFIX, Page, Range, Record, Store,
    StoreError, Watch, prefix_end,
};

/// Claims are keys under this prefix, outside of what is watched; they hold the key that was
/// written with them.
const CLAIMS: &str = "/kprov/claims/";
/// A member that takes longer to answer a read is left for another.
const READ_SECONDS_MAX: Duration = Duration::from_secs(5);
/// etcd itself gives up a write after about as long.
const WRITE_SECONDS_MAX: Duration = Duration::from_secs(8);
/// How often a lost answer is asked after.
const READ_BACK_ATTEMPTS_MAX: u32 = 3;

/// How etcd is reached.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// Addresses of members, `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// Certificates for `https` endpoints.
    pub tls: Option<EtcdTls>,
}

/// Certificates as PEM.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// The authorities that sign members' certificates.
    pub ca: Vec<u8>,
    /// Our certificate.
    pub certificate: Vec<u8>,
    /// Our private key.
    pub key: Vec<u8>,
}

/// One member of the cluster, by a connection of its own.
struct Member {
    kv: KvClient,
    watch: WatchClient,
}

/// The store in etcd.
///
/// All calls go to one member until it fails, then to the next. (A balancer over all of them
/// would send every other call to a member that is dead.)
pub struct Etcd {
    members: Vec<Member>,
    /// Index of the member that answered last.
    preferred: AtomicUsize,
}

impl Etcd {
    /// Prepares a connection to each endpoint. It is made when first needed and made again when
    /// lost.
    ///
    /// # Errors
    /// An endpoint is no URL, or a certificate cannot be read.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_keep_alive(Duration::from_secs(3), Duration::from_secs(3))
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(Duration::from_secs(30))
            // A member that has lost its quorum must end our watch rather than fall silent.
            .with_require_leader(true);
        if let Some(tls) = options.tls {
            connect = connect.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(tls.ca))
                    .identity(Identity::from_pem(tls.certificate, tls.key)),
            );
        }
        let mut members = Vec::with_capacity(options.endpoints.len());
        for endpoint in &options.endpoints {
            let client =
                Client::connect([endpoint], Some(connect.clone())).await.map_err(failure)?;
            // Pages are bounded by number, not by size; the default limit of 4 MiB is too small.
            members.push(Member {
                kv: client.kv_client().max_decoding_message_size(usize::MAX),
                watch: client.watch_client().max_decoding_message_size(usize::MAX),
            });
        }
        if members.is_empty() {
            return Err(StoreError::Failed("no endpoints".to_owned()));
        }
        Ok(Self { members, preferred: AtomicUsize::new(0) })
    }

    fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed) % self.members.len()
    }

    /// Makes the member after `failed` the preferred one, unless that has happened already.
    fn avoid(&self, failed: usize) {
        let next = (failed + 1) % self.members.len();
        let _ = self.preferred.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes a call that may be repeated, on one member after the other.
    async fn ask<T, F>(&self, call: impl Fn(&Member) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = StoreError::Unavailable("no endpoints".to_owned());
        for _ in &self.members {
            let index = self.preferred();
            match in_time(READ_SECONDS_MAX, call(&self.members[index])).await {
                Err(error @ StoreError::Unavailable(_)) => {
                    self.avoid(index);
                    last = error;
                }
                answer => return answer,
            }
        }
        Err(last)
    }

    async fn read(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let mut answer = self
            .ask(|member| {
                let mut kv = member.kv.clone();
                async move { kv.get(key, None).await }
            })
            .await?;
        Ok(answer.take_kvs().pop().map(record))
    }

    async fn read_page(&self, range: Range<'_>) -> Result<Page, StoreError> {
        let start = if range.from > range.prefix { range.from } else { range.prefix };
        let mut options = GetOptions::new().with_range(prefix_end(range.prefix));
        options = options.with_limit(i64::try_from(range.limit).unwrap_or(0));
        if let Some(at) = range.at {
            options = options.with_revision(signed(at));
        }
        let mut answer = self
            .ask(|member| {
                let (mut kv, options) = (member.kv.clone(), options.clone());
                async move { kv.get(start, Some(options)).await }
            })
            .await?;
        let revision = match range.at {
            Some(at) => at,
            None => header_revision(answer.header())?,
        };
        let more = answer.more();
        Ok(Page { records: answer.take_kvs().into_iter().map(record).collect(), more, revision })
    }

    async fn transact(&self, commit: Commit) -> Result<Revision, CommitError> {
        let mut last = String::new();
        for _ in &self.members {
            let index = self.preferred();
            let mut kv = self.members[index].kv.clone();
            let why = match timeout(WRITE_SECONDS_MAX, kv.txn(transaction(&commit))).await {
                Ok(Ok(answer)) if answer.succeeded() => {
                    return Ok(header_revision(answer.header())?);
                }
                Ok(Ok(answer)) => return Err(refusal(&commit, answer.op_responses())),
                Ok(Err(error)) if is_refused(&error) => match failure(error) {
                    // It never left: the next member may be better.
                    StoreError::Unavailable(why) => {
                        self.avoid(index);
                        last = why;
                        continue;
                    }
                    error => return Err(CommitError::Store(error)),
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            self.avoid(index);
            return self.read_back(&commit, &why).await;
        }
        Err(CommitError::Store(StoreError::Unavailable(last)))
    }

    /// Finds out what became of a transaction whose answer was lost.
    async fn read_back(&self, commit: &Commit, why: &str) -> Result<Revision, CommitError> {
        tracing::warn!(key = %commit.key, why, "the answer of the store to a write was lost");
        for attempt in 0..READ_BACK_ATTEMPTS_MAX {
            match self.read(&commit.key).await {
                // Object bytes hold a UID and times: the same bytes are our own write.
                Ok(Some(found)) if Some(&found.value) == commit.value.as_ref() => {
                    return Ok(found.revision);
                }
                // It may not have been carried out, or may still be: a retry could do it twice.
                Ok(_) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(200 << attempt)).await,
            }
        }
        Err(CommitError::Unknown(why.to_owned()))
    }

    async fn start_watch(&self, after: Revision) -> Result<Watch, StoreError> {
        let options = WatchOptions::new()
            .with_range(prefix_end(PREFIX))
            .with_start_revision(signed(after) + 1)
            .with_progress_notify();
        let index = self.preferred();
        let mut client = self.members[index].watch.clone();
        let started = in_time(READ_SECONDS_MAX, client.watch(PREFIX, Some(options))).await;
        if matches!(started, Err(StoreError::Unavailable(_))) {
            self.avoid(index);
        }
        let mut stream = started?;
        let (sender, receiver) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            loop {
                let next = match stream.message().await {
                    Ok(Some(answer)) => batch(&answer),
                    Ok(None) => return,
                    Err(error) => Err(failure(error)),
                };
                let failed = next.is_err();
                if let Some(next) = next.transpose()
                    && (sender.send(next).await.is_err() || failed)
                {
                    return;
                }
            }
        });
        Ok(Watch { receiver, task })
    }
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").finish_non_exhaustive()
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.read(key).boxed()
    }

    fn range<'a>(&'a self, range: Range<'a>) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.read_page(range).boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Revision, CommitError>> {
        self.transact(commit).boxed()
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        self.start_watch(after).boxed()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move {
            let answer = self
                .ask(|member| {
                    let mut kv = member.kv.clone();
                    async move { kv.get(MARK, Some(GetOptions::new().with_count_only())).await }
                })
                .await?;
            header_revision(answer.header())
        }
        .boxed()
    }

    fn mark(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move {
            let answer = self
                .ask(|member| {
                    let mut kv = member.kv.clone();
                    async move { kv.put(MARK, "", None).await }
                })
                .await?;
            header_revision(answer.header())
        }
        .boxed()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let compacted = self.ask(|member| {
                let mut kv = member.kv.clone();
                async move { kv.compact(signed(through), None).await }
            });
            match compacted.await {
                // Somebody else was faster.
                Ok(_) | Err(StoreError::Compacted) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }
}

fn transaction(commit: &Commit) -> Txn {
    let claim = |key: &String| format!("{CLAIMS}{key}");
    let key = &*commit.key;
    let expected = Compare::mod_revision(key, CompareOp::Equal, signed(commit.expected));
    let free = |k: &String| Compare::create_revision(claim(k), CompareOp::Equal, 0);
    let still = |b: &Beside| Compare::mod_revision(&*b.key, CompareOp::Equal, signed(b.expected));
    let when: Vec<_> = std::iter::once(expected)
        .chain(commit.take.iter().map(free))
        .chain(commit.besides.iter().map(still))
        .collect();
    let write = match &commit.value {
        Some(value) => TxnOp::put(key, value.to_vec(), None),
        None => TxnOp::delete(key, None),
    };
    let then: Vec<_> = std::iter::once(write)
        .chain(commit.take.iter().map(|k| TxnOp::put(claim(k), key, None)))
        .chain(commit.free.iter().map(|k| TxnOp::delete(claim(k), None)))
        .chain(commit.besides.iter().map(|b| TxnOp::put(&*b.key, b.value.to_vec(), None)))
        .collect();
    let otherwise: Vec<_> = std::iter::once(TxnOp::get(key, None))
        .chain(commit.take.iter().map(|k| TxnOp::get(claim(k), None)))
        .collect();
    Txn::new().when(when).and_then(then).or_else(otherwise)
}

/// Why the conditions of a transaction did not hold.
fn refusal(commit: &Commit, answers: Vec<TxnOpResponse>) -> CommitError {
    let mut found = answers.into_iter().map(|answer| match answer {
        TxnOpResponse::Get(mut get) => get.take_kvs().pop().map(record),
        _ => None,
    });
    let current = found.next().flatten();
    if current.as_ref().map_or(Revision(0), |r| r.revision) != commit.expected {
        return CommitError::Conflict(current);
    }
    match commit.take.iter().zip(found).find(|(_, holder)| holder.is_some()) {
        Some((key, _)) => CommitError::Taken(key.clone()),
        None if commit.besides.is_empty() => CommitError::Conflict(current),
        None => CommitError::Moved,
    }
}

fn record(kv: KeyValue) -> Record {
    let revision = revision(kv.mod_revision());
    let (key, value) = kv.into_key_value();
    let key = String::from_utf8(key).unwrap_or_default();
    Record { key, value: Bytes::from(value), revision }
}

/// What a message of the watch tells; `None` when nothing.
fn batch(answer: &WatchResponse) -> Result<Option<Batch>, StoreError> {
    if answer.compact_revision() > 0 {
        return Err(StoreError::Compacted);
    }
    if answer.canceled() {
        return Err(StoreError::Unavailable(answer.cancel_reason().to_owned()));
    }
    let changes: Vec<Change> = answer
        .events()
        .iter()
        .filter_map(|event| {
            let kv = event.kv()?;
            Some(Change {
                key: kv.key_str().ok()?.into(),
                value: (event.event_type() == EventType::Put)
                    .then(|| Bytes::copy_from_slice(kv.value())),
                revision: revision(kv.mod_revision()),
            })
        })
        .collect();
    // The header of a message without events is not trusted: see `Store::mark`.
    Ok(changes.last().map(|c| c.revision).map(|revision| Batch { changes, revision }))
}

async fn in_time<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    match timeout(patience, call).await {
        Ok(answer) => answer.map_err(failure),
        Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
    }
}

/// Whether the call was refused or never left, so that nothing can have been written.
fn is_refused(error: &Error) -> bool {
    use tonic_code::*;
    match error {
        Error::GRpcStatus(status) => match status.code() as i32 {
            INVALID_ARGUMENT | NOT_FOUND | PERMISSION_DENIED | RESOURCE_EXHAUSTED
            | FAILED_PRECONDITION | OUT_OF_RANGE | UNIMPLEMENTED | UNAUTHENTICATED => true,
            UNAVAILABLE => never_left(status),
            _ => false,
        },
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::EndpointError(_) => true,
        _ => false,
    }
}

/// Whether the failure was one of connecting.
fn never_left(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

/// The gRPC status codes, whose type the etcd client does not export.
mod tonic_code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of `map_err`")]
fn failure(error: Error) -> StoreError {
    let Error::GRpcStatus(status) = &error else {
        return StoreError::Unavailable(error.to_string());
    };
    let message = status.message().to_owned();
    match status.code() as i32 {
        tonic_code::OUT_OF_RANGE if message.contains("compacted") => StoreError::Compacted,
        code if is_refused(&error) && code != tonic_code::UNAVAILABLE => {
            StoreError::Failed(message)
        }
        _ => StoreError::Unavailable(message),
    }
}

fn header_revision(header: Option<&ResponseHeader>) -> Result<Revision, StoreError> {
    let header = header.ok_or_else(|| StoreError::Failed("an answer without header".to_owned()))?;
    Ok(revision(header.revision()))
}

fn revision(raw: i64) -> Revision {
    Revision(u64::try_from(raw).unwrap_or(0))
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
