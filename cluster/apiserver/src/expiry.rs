//! Events are forgotten an hour after they were last written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{Key, Kind, Revision};
use registry::window::{Filter, PageRequest, store_key};
use store::Commit;

use crate::server::Server;

/// How often old events are looked for.
const PERIOD: Duration = Duration::from_secs(300);
/// How many periods an event lives: an hour, as in Kubernetes.
const PERIODS: usize = 12;

/// Deletes old events until the server stops.
///
/// Revisions tell the age of a write: what is not above the revision of an hour ago is older
/// than an hour. Several servers may do the same; each event is deleted once.
pub(crate) async fn keep(server: Arc<Server>) {
    let mut revisions = VecDeque::with_capacity(PERIODS + 1);
    loop {
        tokio::time::sleep(PERIOD).await;
        revisions.push_back(server.hub.read().window.revision());
        if revisions.len() > PERIODS
            && let Some(old) = revisions.pop_front()
        {
            forget(&server, old).await;
        }
    }
}

/// Deletes the events last written at or before `old`.
async fn forget(server: &Server, old: Revision) {
    let listing = {
        let window = &server.hub.read().window;
        window.list(Kind::Event, &Filter::default(), &PageRequest::default())
    };
    let entries = listing.map(|l| l.entries).unwrap_or_default();
    for entry in entries.iter().filter(|e| e.revision() <= old) {
        let key = Key::new(Kind::Event, entry.namespace(), entry.name());
        let commit = Commit {
            key: store_key(&key),
            expected: entry.revision(),
            value: None,
            take: Vec::new(),
            free: Vec::new(),
            besides: Vec::new(),
        };
        if let Err(error) = server.hub.store.commit(commit).await {
            tracing::debug!(%key, %error, "an old event was not deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_live_an_hour() {
        assert_eq!(PERIOD * u32::try_from(PERIODS).unwrap(), Duration::from_secs(3600));
    }
}
