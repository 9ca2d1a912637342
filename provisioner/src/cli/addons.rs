//! Addons, through the API server of a master that was reached.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::apply::nodes_requests;
use super::diary::Diary;
use super::prepare::Prepared;
use crate::addons::reconcile::{self, AddonChange};
use crate::host::{Host, HttpsEndpoint};
use crate::inventory::Role;

/// A master's host value and its API server, of those that were reached.
fn master(prepared: &mut Prepared) -> Option<(&mut Box<dyn Host>, HttpsEndpoint)> {
    let requests = nodes_requests(&prepared.inventory, &prepared.pki);
    let (name, request) =
        requests.into_iter().find(|(name, _)| prepared.hosts.contains_key(name))?;
    Some((prepared.hosts.get_mut(&name)?, request))
}

/// Whether no master was ever set up, so that there is no API server to ask.
fn is_new(prepared: &Prepared) -> bool {
    let mut masters = prepared.inventory.with_role(Role::Master);
    masters.all(|host| prepared.facts.get(&host.name).is_some_and(|facts| facts.record.is_none()))
}

/// What an apply would do; an error says why that cannot be told. Nothing is asked where the
/// inventory has no addons and none `were` brought in by an apply before.
pub(super) fn plan(prepared: &mut Prepared, were: bool) -> Result<Vec<AddonChange>, String> {
    if prepared.addons.is_empty() && !were {
        return Ok(Vec::new());
    }
    if is_new(prepared) {
        return Ok(reconcile::all_new(&prepared.addons));
    }
    let addons = prepared.addons.clone();
    let Some((host, api)) = master(prepared) else {
        return Err("no master was reached".to_owned());
    };
    reconcile::plan(host.as_mut(), &api, &addons)
}

/// Brings them in, in order, until `until`; `were` as in [`plan`].
pub(super) fn apply(
    prepared: &mut Prepared,
    were: bool,
    until: Instant,
    stop: &AtomicBool,
    diary: &Diary,
) -> Result<Vec<AddonChange>, String> {
    if prepared.addons.is_empty() && !were {
        return Ok(Vec::new());
    }
    let addons = prepared.addons.clone();
    let Some((host, api)) = master(prepared) else {
        return Err("the addons were not applied: no master was reached".to_owned());
    };
    reconcile::apply(host.as_mut(), &api, &addons, until, stop, &mut |text| diary.say(text))
        .map_err(|why| format!("the addons are not all applied: {why}"))
}
