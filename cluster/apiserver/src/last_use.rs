//! Notes in secrets with tokens of service accounts on which day they were used last, so that those
//! can be told that nobody needs any more.
//!
//! Source: kubernetes 1.33, `pkg/serviceaccount/legacy.go`,
//! `pkg/controlplane/controller/legacytokentracking`.

use std::sync::Arc;
use std::time::Duration;

use api::legacy_token::{LAST_USED, SINCE, date, day, tracking};
use api::{ApiObject, Key, Object, Patch, PatchKind, Reason, Status, Time, meta};
use k8s_openapi::api::core::v1::ConfigMap;
use registry::Operation;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::bootstrap::itself;
use crate::server::{Server, now};
use crate::write::Asked;

/// Uses that wait to be noted. One that finds no room is made good by the next use of its token.
const WAITING_MAX: usize = 64;
/// So long nothing is noted after a write that was not carried out.
const RETRY: Duration = Duration::from_secs(1);

/// Where uses are told.
#[derive(Clone)]
pub(crate) struct Uses(Sender<Key>);

impl Uses {
    /// Where uses are told, and where they are heard.
    pub(crate) fn new() -> (Self, Receiver<Key>) {
        let (sender, receiver) = channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Tells that the token in a secret is used. Waits for nothing.
    pub(crate) fn tell(&self, secret: Key) {
        if self.0.try_send(secret).is_err() {
            tracing::debug!("the use of a token was not noted: too many wait");
        }
    }
}

/// Notes uses until the server stops: of each secret one a day.
pub(crate) async fn keep(server: Arc<Server>, mut uses: Receiver<Key>) {
    while let Some(secret) = uses.recv().await {
        if let Err(status) = note(&server, &secret).await {
            tracing::warn!(%secret, message = status.message, "the use of a token was not noted");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn note(server: &Server, secret: &Key) -> Result<(), Status> {
    let today = date(now());
    let found = server.hub.read().window.get(secret).and_then(|e| e.object().ok());
    // The same token is told of more than once until everybody sees the note.
    let Some(found) = found.filter(|f| meta::label(f.meta(), LAST_USED) != Some(&today)) else {
        return Ok(());
    };
    let body = json!({"metadata": {"uid": found.uid(), "labels": {LAST_USED: today}}});
    let patch = Patch { kind: PatchKind::Merge, body: body.into() };
    let operation =
        Operation::Patch { key: secret.clone(), subresource: None, patch, strict: false };
    let caller = itself();
    let asked = Asked { server, caller: &caller, dry_run: false };
    match asked.carry_out(&operation).await {
        Ok(_) => server.hub.barrier().await,
        // It was deleted, or made anew, meanwhile.
        Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => Ok(()),
        Err(status) => Err(status),
    }
}

/// What says since when uses are noted: as `found` says, or since today if that says nothing, or
/// what cannot be.
pub(crate) fn tracked_since(found: Option<&Object>, now: Time) -> Object {
    let mut map = found.and_then(Object::get::<ConfigMap>).cloned().unwrap_or_default();
    let known = map.data.as_ref().and_then(|data| data.get(SINCE)).and_then(|text| day(text));
    if known.is_none_or(|since| since > now) {
        map.data.get_or_insert_default().insert(SINCE.to_owned(), date(now));
    }
    let key = tracking();
    map.metadata.name = Some(key.name.to_string());
    map.metadata.namespace = Some(key.namespace.to_string());
    map.into_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_noted_once() {
        // 2001-09-09.
        let now = Time::from_secs(1_000_000_000);
        let since = |object: &Object| {
            let map = object.get::<ConfigMap>().unwrap();
            map.data.as_ref().and_then(|data| data.get(SINCE)).cloned().unwrap_or_default()
        };
        let first = tracked_since(None, now);
        assert_eq!((first.key(), since(&first).as_str()), (tracking(), "2001-09-09"));
        let check = |before: &str, expected: &str| {
            let mut map = first.get::<ConfigMap>().unwrap().clone();
            map.data = Some([(SINCE.to_owned(), before.to_owned())].into());
            let object = map.into_object();
            let after = tracked_since(Some(&object), now);
            assert_eq!(since(&after), expected);
            assert_eq!(after == object, before == expected);
        };
        check("2000-01-01", "2000-01-01");
        check("2001-09-09", "2001-09-09");
        check("2001-09-10", "2001-09-09");
        check("yesterday", "2001-09-09");
    }

    #[test]
    fn uses_wait_in_bounds() {
        let (uses, mut heard) = Uses::new();
        for i in 0..2 * WAITING_MAX {
            uses.tell(Key::new(api::Kind::Secret, "n", &i.to_string()));
        }
        let mut count = 0;
        while heard.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, WAITING_MAX);
    }
}
