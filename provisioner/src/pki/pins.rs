//! The fingerprints of the authorities, written down when they are first made.

use std::collections::BTreeMap;

use super::{PkiError, store::Store};
use crate::digest::Digest;

const FILE: &str = "authorities.json";

/// The authority whose key is lost, in place of a fingerprint.
pub(super) const KEYLESS: &str = "keyless";

/// When the last finished rotation began, in place of a fingerprint.
pub(super) const ROTATED: &str = "rotated";

/// Reads the pinned fingerprint of the authority called `name`.
pub(super) fn read(store: &Store, name: &str) -> Result<Option<String>, PkiError> {
    Ok(all(store)?.remove(name))
}

/// Pins the authority called `name`.
pub(super) fn write(store: &Store, name: &str, fingerprint: &str) -> Result<(), PkiError> {
    let mut pins = all(store)?;
    pins.insert(name.to_owned(), fingerprint.to_owned());
    write_all(store, &pins)
}

fn write_all(store: &Store, pins: &BTreeMap<String, String>) -> Result<(), PkiError> {
    let text = serde_json::to_string_pretty(pins)
        .map_err(|source| PkiError::Pins { path: store.path(FILE), source })?;
    store.write(FILE, &format!("{text}\n"))
}

/// Removes the pin called `name` if it says `value`.
pub(super) fn remove(store: &Store, name: &str, value: &str) -> Result<(), PkiError> {
    let mut pins = all(store)?;
    if pins.get(name).is_none_or(|pinned| pinned != value) {
        return Ok(());
    }
    pins.remove(name);
    write_all(store, &pins)
}

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` has it, in lower case.
pub(super) fn fingerprint(der: &[u8]) -> String {
    Digest::of(der).to_string()
}

fn all(store: &Store) -> Result<BTreeMap<String, String>, PkiError> {
    let Some(text) = store.read(FILE)? else { return Ok(BTreeMap::new()) };
    serde_json::from_str(&text).map_err(|source| PkiError::Pins { path: store.path(FILE), source })
}
