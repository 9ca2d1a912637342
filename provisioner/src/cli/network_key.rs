//! The network's settings in etcd, through the host of a member that was reached.

use super::prepare::Prepared;
use crate::etcd::gateway::{Gateway, GatewayError};
use crate::etcd::network_key::{self, KeyChange};
use crate::inventory::Role;

/// What an apply would do; an error says why that cannot be told. Nothing is asked in layouts without
/// the key, nor where there is no etcd yet.
pub(super) fn plan(prepared: &mut Prepared) -> Result<Option<KeyChange>, String> {
    let is_new = prepared
        .inventory
        .with_role(Role::Etcd)
        .all(|host| prepared.facts.get(&host.name).is_some_and(|facts| facts.record.is_none()));
    match network_key::wanted(&prepared.inventory) {
        Some(_) if is_new => Ok(Some(KeyChange::Create)),
        Some(wanted) => through_a_member(prepared, |member| network_key::look(member, &wanted)),
        None => Ok(None),
    }
}

/// Writes the key where it is not as it should be.
pub(super) fn apply(prepared: &mut Prepared) -> Result<Option<KeyChange>, String> {
    let Some(wanted) = network_key::wanted(&prepared.inventory) else { return Ok(None) };
    through_a_member(prepared, |member| network_key::ensure(member, &wanted)).map_err(|why| {
        let key = network_key::KEY;
        format!("etcd could not be asked for {key}, or given it: {why}; apply again")
    })
}

/// Asks the members in turn until one answers.
fn through_a_member(
    prepared: &mut Prepared,
    mut act: impl FnMut(&mut Gateway<'_>) -> Result<Option<KeyChange>, GatewayError>,
) -> Result<Option<KeyChange>, String> {
    let mut reason = "no member of etcd was reached".to_owned();
    for host in prepared.inventory.with_role(Role::Etcd) {
        let Some(connection) = prepared.hosts.get_mut(&host.name) else { continue };
        let Some(mut member) = Gateway::new(connection.as_mut(), host, &prepared.pki) else {
            continue;
        };
        match act(&mut member) {
            Ok(change) => return Ok(change),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}
