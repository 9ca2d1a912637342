//! `get` and `list`.

use api::{Key, Reason, Revision, Status};
use http::{HeaderMap, StatusCode};
use registry::window::PageRequest;

use crate::answer::{Answer, expired_continue};
use crate::negotiate;
use crate::present::{self, ListMeta};
use crate::query::{Continue, Query};
use crate::route::Resource;
use crate::server::Server;

/// Waits until the window is as new as the client demands: consistent without a
/// `resourceVersion`, anything with 0, not older otherwise.
pub(crate) async fn fresh_enough(server: &Server, wanted: Option<Revision>) -> Result<(), Status> {
    if !server.hub.is_filled() {
        return Err(crate::hub::unavailable("the server is starting"));
    }
    match wanted {
        None => server.hub.barrier().await,
        Some(Revision(0)) => Ok(()),
        Some(revision) => server.hub.not_older_than(revision).await,
    }
}

/// Answers with one object.
pub(crate) async fn get(
    server: &Server,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    fresh_enough(server, query.revision()?).await?;
    let key = Key::new(resource.kind, &resource.namespace, &resource.name);
    let found = server.hub.read().window.get(&key).cloned();
    let entry = found.ok_or_else(|| Status::not_found(key.kind, &key.name))?;
    if resource.subresource == "scale" {
        let object = entry.object().map_err(Status::internal)?;
        return crate::write::scale_answer(StatusCode::OK, &object);
    }
    present::object(form, StatusCode::OK, resource.served, entry.json())
}

/// Which state a list is of.
struct Wanted {
    /// Wait for it.
    at_least: Option<Revision>,
    page: PageRequest,
}

/// Answers with a list.
pub(crate) async fn list(
    server: &Server,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    let filter = query.filter(resource.kind, &resource.namespace)?;
    let wanted = wanted(query)?;
    fresh_enough(server, wanted.at_least).await?;
    if wanted.page.limit == 1 && wanted.at_least.is_none() {
        // This is how our clients read the revision that they then wait to see on a watch.
        server.hub.announce(resource.kind);
    }
    let listing = {
        let state = server.hub.read();
        match state.window.list(resource.kind, &filter, &wanted.page) {
            Ok(listing) => listing,
            Err(_) if wanted.page.after.is_some() => {
                let last = wanted.page.after.as_deref().unwrap_or_default();
                return Ok(expired_continue(&Continue::new(None, last).token()));
            }
            Err(expired) => {
                let at = wanted.page.at.unwrap_or_default();
                return Err(Status::expired(format!(
                    "The resourceVersion for the provided list is too old: {at} ({})",
                    expired.oldest
                )));
            }
        }
    };
    let next = listing.more.then(|| {
        let last = listing.entries.last().map_or("", |e| e.path());
        Continue::new(Some(listing.revision), last).token()
    });
    let meta = ListMeta { revision: listing.revision, next, remaining: listing.remaining };
    present::list(form, resource.served, &meta, listing.entries)
}

/// Source: kubernetes 1.33, "Resource Versions", the table of `list`.
fn wanted(query: &Query) -> Result<Wanted, Status> {
    let revision = query.revision()?;
    let limit = query.number("limit").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let matching = query.get("resourceVersionMatch");
    if !query.get("continue").is_empty() {
        if !matching.is_empty() {
            return Err(invalid("resourceVersionMatch is forbidden for continue"));
        }
        if revision.is_some_and(|r| r > Revision(0)) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Continue::parse(query.get("continue"))?;
        let after = Some(token.last().to_owned());
        let at = token.revision();
        // A page of a list that began elsewhere waits for its revision; an inconsistent one is
        // of now.
        return Ok(Wanted { at_least: at, page: PageRequest { limit, after, at } });
    }
    let now =
        |at_least, limit| Wanted { at_least, page: PageRequest { limit, after: None, at: None } };
    match (matching, revision) {
        ("", None) => Ok(now(None, limit)),
        ("" | "NotOlderThan", Some(Revision(0))) => Ok(now(Some(Revision(0)), 0)),
        // With a limit and no match a revision means exactly that revision.
        ("Exact", Some(at)) if at > Revision(0) => Ok(exact(at, limit)),
        ("", Some(at)) if limit > 0 => Ok(exact(at, limit)),
        ("" | "NotOlderThan", Some(at)) => Ok(now(Some(at), limit)),
        ("Exact", Some(_)) => {
            Err(invalid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
        }
        ("Exact" | "NotOlderThan", None) => {
            Err(invalid("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        }
        (other, _) => Err(invalid(&format!(
            "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

const fn exact(at: Revision, limit: usize) -> Wanted {
    Wanted { at_least: Some(at), page: PageRequest { limit, after: None, at: Some(at) } }
}

pub(crate) fn invalid(why: &str) -> Status {
    Status::new(
        Reason::Invalid,
        format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {why}"),
    )
}
