//! Config maps and secrets.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::field::{Causes, Path};
use crate::names;

/// All values of a config map or secret together: 1 MiB.
const BYTES_MAX: usize = 1 << 20;
const FROZEN: &str = "field is immutable when `immutable` is set";
/// The annotation that ties a token secret to its account.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

pub(super) fn config_map(map: &ConfigMap, causes: &mut Causes) {
    let path = Path::new("data");
    let mut bytes = 0;
    for (key, value) in map.data.iter().flatten() {
        causes.invalid_each(&path.key(key), key, names::config_map_key(key));
        if map.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
            causes.invalid(&path.key(key), key, "duplicate of key present in binaryData");
        }
        bytes += value.len();
    }
    let path = Path::new("binaryData");
    for (key, value) in map.binary_data.iter().flatten() {
        causes.invalid_each(&path.key(key), key, names::config_map_key(key));
        bytes += value.0.len();
    }
    if bytes > BYTES_MAX {
        // The whole object is too long, which Kubernetes writes as an empty list.
        causes.too_long(&Path::new("[]"), BYTES_MAX);
    }
}

pub(super) fn config_map_update(new: &ConfigMap, old: &ConfigMap, causes: &mut Causes) {
    if old.immutable != Some(true) {
        return;
    }
    for (field, changed) in [
        ("immutable", new.immutable != Some(true)),
        ("data", new.data != old.data),
        ("binaryData", new.binary_data != old.binary_data),
    ] {
        if changed {
            causes.forbidden(&Path::new(field), FROZEN);
        }
    }
}

pub(super) fn secret(secret: &Secret, causes: &mut Causes) {
    let path = Path::new("data");
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let mut bytes = 0;
    for (key, value) in data {
        causes.invalid_each(&path.key(key), key, names::config_map_key(key));
        bytes += value.0.len();
    }
    if bytes > BYTES_MAX {
        causes.too_long(&path, BYTES_MAX);
    }
    let mut require = |keys: &[&str]| {
        for key in keys.iter().filter(|k| !data.contains_key(**k)) {
            causes.required(&path.key(key), "");
        }
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let notes = secret.metadata.annotations.as_ref();
            if notes.and_then(|a| a.get(ACCOUNT)).is_none_or(String::is_empty) {
                let at = Path::new("metadata");
                let at = at.child("annotations");
                let at = at.key(ACCOUNT);
                causes.required(&at, "");
            }
        }
        "kubernetes.io/dockercfg" => json_value(data, ".dockercfg", causes),
        "kubernetes.io/dockerconfigjson" => json_value(data, ".dockerconfigjson", causes),
        "kubernetes.io/basic-auth"
            if !data.contains_key("username") && !data.contains_key("password") =>
        {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" => require(&["ssh-privatekey"]),
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn json_value(data: &BTreeMap<String, ByteString>, key: &str, causes: &mut Causes) {
    let at = Path::new("data");
    let at = at.key(key);
    let Some(value) = data.get(key) else { return causes.required(&at, "") };
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&value.0) {
        causes.invalid(&at, "<secret contents redacted>", &error.to_string());
    }
}

pub(super) fn secret_update(new: &Secret, old: &Secret, causes: &mut Causes) {
    causes.immutable(&Path::new("type"), &new.type_, &old.type_);
    if old.immutable != Some(true) {
        return;
    }
    for (field, changed) in
        [("immutable", new.immutable != Some(true)), ("data", new.data != old.data)]
    {
        if changed {
            causes.forbidden(&Path::new(field), FROZEN);
        }
    }
}
