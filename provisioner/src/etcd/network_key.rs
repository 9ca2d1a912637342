//! The key in etcd where the guide of classic binaries keeps flannel's network.
//!
//! Our flanneld does not read it: a node would need a certificate of etcd, which opens every secret.
//! It is there for people and tools that look where the guide says, and so it must be true.

use serde::Serialize;

use super::gateway::{Gateway, GatewayError};
use crate::inventory::{Inventory, Layout};

/// The key.
///
/// Source: flannel, `--etcd-prefix` and `config`.
pub const KEY: &str = "/k8s/network/config";

/// How the key is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChange {
    /// It is not there.
    Create,
    /// It says something else.
    Update,
}

impl KeyChange {
    /// One line for people.
    #[must_use]
    pub fn line(self) -> String {
        let sign = match self {
            Self::Create => '+',
            Self::Update => '~',
        };
        format!("{sign} etcd: key {KEY}")
    }
}

/// What the key should hold; `None` in layouts that have no such key.
#[must_use]
pub fn wanted(inventory: &Inventory) -> Option<String> {
    let (network, backend) = (inventory.cluster.pod_cidr, inventory.network.backend.as_str());
    (inventory.cluster.layout == Layout::Classic).then(|| {
        // Both are closed types without a character that JSON would escape.
        format!(r#"{{"Network": "{network}", "Backend": {{"Type": "{backend}"}}}}"#)
    })
}

/// How the key differs from what it should hold, as a member tells it.
///
/// # Errors
/// When the member does not answer.
pub fn look(member: &mut Gateway<'_>, wanted: &str) -> Result<Option<KeyChange>, GatewayError> {
    Ok(match member.value(KEY)? {
        None => Some(KeyChange::Create),
        Some(value) if value != wanted.as_bytes() => Some(KeyChange::Update),
        Some(_) => None,
    })
}

/// Writes the key where it differs; says how it did.
///
/// # Errors
/// When the member does not answer, or etcd does not take it.
pub fn ensure(member: &mut Gateway<'_>, wanted: &str) -> Result<Option<KeyChange>, GatewayError> {
    let change = look(member, wanted)?;
    if change.is_some() {
        member.put(KEY, wanted)?;
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::host::HttpsEndpoint;
    use crate::host::fake::FakeMachine;
    use crate::host::fake::etcd::FakeEtcd;

    const WANTED: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

    #[test]
    fn the_key_is_written_when_it_differs_and_never_else() {
        let etcd = Arc::new(Mutex::new(FakeEtcd::of(&[("m-1", "10.0.0.1")])));
        let machine = FakeMachine::new("m-1").with_etcd(&etcd);
        machine.state().units.entry("etcd.service".to_owned()).or_default().active = true;
        let endpoint = HttpsEndpoint {
            address: "10.0.0.1".to_owned(),
            port: 2379,
            path: String::new(),
            ca: String::new(),
            client: None,
        };
        let mut host = machine.connect();
        let mut member = Gateway::at(host.as_mut(), endpoint);
        let orders = || etcd.lock().unwrap().orders.len();
        assert_eq!(look(&mut member, WANTED), Ok(Some(KeyChange::Create)));
        assert_eq!(orders(), 0);
        assert_eq!(ensure(&mut member, WANTED), Ok(Some(KeyChange::Create)));
        assert_eq!(member.value(KEY), Ok(Some(WANTED.as_bytes().to_owned())));
        assert_eq!(ensure(&mut member, WANTED), Ok(None));
        assert_eq!(orders(), 1);
        // Somebody else has written it.
        member.put(KEY, "{}").unwrap();
        assert_eq!(ensure(&mut member, WANTED), Ok(Some(KeyChange::Update)));
        assert_eq!((orders(), look(&mut member, WANTED)), (3, Ok(None)));
    }
}
