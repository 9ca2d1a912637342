//! `watch`: events at the pace of their reader.
//!
//! A watch has no task and no queue of its own. Its body holds a position in the history of its
//! kind and reads on when the connection takes more. A reader that falls behind the history is
//! cut off and resumes by listing again; it never holds up others or memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{Kind, Revision, Status};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{HeaderMap, StatusCode};
use registry::window::{Cursor, Entry, Filter, Item, PageRequest};
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::negotiate::{self, Form};
use crate::query::Query;
use crate::read::{fresh_enough, invalid};
use crate::route::Resource;
use crate::server::{Server, random_below};

/// Time between bookmarks.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(10);
/// Watches without a timeout of their own end after this and up to as much again.
const TIMEOUT_SECONDS_MIN: u64 = 1_800;
/// Events read from the history at a time.
const ITEMS_MAX: usize = 64;
/// Initial objects sent at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// One watch.
struct Watching {
    server: Arc<Server>,
    /// In the version that the client asked for.
    served: Kind,
    filter: Filter,
    form: Form,
    cursor: Cursor,
    changes: Receiver<u64>,
    stopping: Receiver<bool>,
    /// What was there when the watch began and is still to be sent.
    initial: VecDeque<Arc<Entry>>,
    /// The bookmark that ends the initial part, and whether it is marked as such.
    first_bookmark: Option<bool>,
    bookmarks: bool,
    /// The revision the client knows it has reached.
    told: Revision,
    announced: u64,
    /// Whether no table has been sent yet: the first names the columns.
    headless: bool,
    bookmark_at: Instant,
    ends_at: Instant,
}

/// Answers with a stream of events.
pub(crate) async fn watch(
    server: &Arc<Server>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let mut filter = query.filter(resource.kind, &resource.namespace)?;
    if !resource.name.is_empty() {
        filter = filter.named(&resource.name);
    }
    let revision = query.revision()?;
    let send_initial = initial_wanted(query)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let from_state = match send_initial {
        Some(wanted) => wanted,
        None => revision.is_none_or(|r| r == Revision(0)),
    };
    if from_state || revision.is_none() {
        fresh_enough(server, revision).await?;
    } else {
        fresh_enough(server, Some(Revision(0))).await?;
    }
    let changes = server.hub.changes(resource.kind);
    let announced = *changes.borrow();
    let (cursor, initial, told) = {
        let window = &server.hub.read().window;
        if from_state {
            let listing = window.list(resource.kind, &filter, &PageRequest::default());
            let entries = listing.map(|l| l.entries).unwrap_or_default();
            (window.watch_from_now(resource.kind), VecDeque::from(entries), window.revision())
        } else {
            match revision {
                None | Some(Revision(0)) => {
                    (window.watch_from_now(resource.kind), VecDeque::new(), window.revision())
                }
                Some(after) => match window.watch_after(resource.kind, after) {
                    Ok(cursor) => (cursor, VecDeque::new(), after),
                    Err(error) => return Ok(expired(&error.to_string())),
                },
            }
        }
    };
    let seconds = match query.number("timeoutSeconds") {
        Some(seconds) if seconds > 0 => seconds,
        _ => TIMEOUT_SECONDS_MIN + random_below(TIMEOUT_SECONDS_MIN),
    };
    let now = Instant::now();
    let watching = Watching {
        server: server.clone(),
        served: resource.served,
        filter,
        form,
        cursor,
        changes,
        stopping: server.draining.subscribe(),
        initial,
        first_bookmark: bookmarks.then_some(send_initial == Some(true)),
        bookmarks,
        told,
        announced,
        headless: true,
        bookmark_at: now + BOOKMARK_PERIOD,
        ends_at: now + Duration::from_secs(seconds),
    };
    let body = answer::streamed(watching.events());
    Ok(answer::answer(StatusCode::OK, "application/json", body))
}

/// Whether the client says if it wants what is there first.
///
/// Source: kubernetes 1.33, `ValidateListOptions` (`sendInitialEvents`).
fn initial_wanted(query: &Query) -> Result<Option<bool>, Status> {
    let matching = query.get("resourceVersionMatch");
    if query.get("sendInitialEvents").is_empty() {
        if !matching.is_empty() {
            return Err(invalid(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        return Ok(None);
    }
    if matching != "NotOlderThan" {
        return Err(invalid(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    Ok(Some(query.flag("sendInitialEvents")))
}

/// A watch that ends at once because its history is gone.
fn expired(message: &str) -> Answer {
    let status = Status::expired(message);
    let event = json!({"type": "ERROR", "object": status.to_json()});
    answer::json(StatusCode::OK, format!("{event}\n"))
}

impl Watching {
    fn events(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut watching| async move {
            let chunk = watching.next().await?;
            Some((chunk, watching))
        })
    }

    /// The next bytes to send; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.initial.is_empty() {
                return Some(self.next_initial());
            }
            if let Some(marked) = self.first_bookmark
                && marked
            {
                self.first_bookmark = None;
                return Some(self.bookmark(self.told, true));
            }
            let announced = *self.changes.borrow_and_update();
            let read = {
                let state = self.server.hub.read();
                state.window.read(&mut self.cursor, &self.filter, ITEMS_MAX)
            };
            let batch = match read {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::info!(kind = %self.served, %error, "a slow watch is cut off");
                    return None;
                }
            };
            if let Some(last) = batch.items.last() {
                self.told = self.told.max(last.revision);
                return Some(self.encode(&batch.items));
            }
            if batch.more {
                continue;
            }
            if self.bookmark_due(announced, batch.revision) {
                return Some(self.bookmark(batch.revision, false));
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    fn bookmark_due(&mut self, announced: u64, revision: Revision) -> bool {
        if !self.bookmarks {
            return false;
        }
        let first = self.first_bookmark.take().is_some();
        let asked_for = std::mem::replace(&mut self.announced, announced) != announced;
        let timely = Instant::now() >= self.bookmark_at;
        if timely {
            self.bookmark_at = Instant::now() + BOOKMARK_PERIOD;
        }
        first || ((asked_for || timely) && revision > self.told)
    }

    /// Waits for something to do. Returns false when the watch is to end.
    async fn wait(&mut self) -> bool {
        let wake_at =
            if self.bookmarks { self.ends_at.min(self.bookmark_at) } else { self.ends_at };
        tokio::select! {
            changed = self.changes.changed() => changed.is_ok(),
            _ = self.stopping.wait_for(|stop| *stop) => false,
            () = tokio::time::sleep_until(wake_at) => Instant::now() < self.ends_at,
        }
    }

    fn next_initial(&mut self) -> Bytes {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES
            && let Some(entry) = self.initial.pop_front()
        {
            chunk.extend_from_slice(&self.frame(&Item::initial(&entry)));
        }
        chunk.freeze()
    }

    fn encode(&mut self, items: &[Item]) -> Bytes {
        if let [item] = items {
            return self.frame(item);
        }
        let mut chunk = BytesMut::new();
        for item in items {
            chunk.extend_from_slice(&self.frame(item));
        }
        chunk.freeze()
    }

    /// One event in the form the client asked for.
    fn frame(&mut self, item: &Item) -> Bytes {
        match self.form {
            Form::Object if self.served.stored_as() == self.served => item.frame.clone(),
            _ => {
                let first = std::mem::replace(&mut self.headless, false);
                let shown = crate::present::watched(self.form, self.served, &item.json(), first);
                event(item.event.name(), &shown)
            }
        }
    }

    fn bookmark(&mut self, revision: Revision, end_of_initial: bool) -> Bytes {
        self.told = self.told.max(revision);
        let (kind, api_version) = match self.form {
            Form::Object => (self.served.name(), self.served.api_version()),
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
            Form::Table(_) => ("Table", "meta.k8s.io/v1"),
        };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if matches!(self.form, Form::Table(_)) {
            object["columnDefinitions"] = json!([]);
            object["rows"] = json!([]);
        }
        event("BOOKMARK", object.to_string().as_bytes())
    }
}

fn event(name: &str, object: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(object.len() + 40);
    frame.extend_from_slice(format!(r#"{{"type":"{name}","object":"#).as_bytes());
    frame.extend_from_slice(object);
    frame.extend_from_slice(b"}\n");
    frame.freeze()
}
