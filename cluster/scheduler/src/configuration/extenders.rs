//! The extenders of a file.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/apis/config` (`types.go`, `validation.go`), `extender.go`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Problems;
use crate::extender::{ExtenderConfig, ManagedResource, TIMEOUT};
use crate::profile::WEIGHT_MAX;

/// An extender as it is written.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct FileExtender {
    url_prefix: String,
    filter_verb: String,
    preempt_verb: String,
    prioritize_verb: String,
    weight: i64,
    bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    enable_https: bool,
    tls_config: Option<ExtenderTls>,
    http_timeout: String,
    node_cache_capable: bool,
    managed_resources: Vec<ManagedResource>,
    ignorable: bool,
}

/// How an extender is reached over TLS.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtenderTls {
    /// Whether its certificate need not be good.
    pub insecure: bool,
    /// The name that its certificate has to bear; empty for that of its address.
    pub server_name: String,
    /// The file of our certificate; empty if there is none.
    pub cert_file: String,
    /// The file of its key.
    pub key_file: String,
    /// The file of the authorities that its certificate may come from.
    pub ca_file: String,
    /// Our certificate, PEM in base64; it comes before the file.
    pub cert_data: String,
    /// Its key.
    pub key_data: String,
    /// The authorities.
    pub ca_data: String,
}

impl fmt::Debug for ExtenderTls {
    /// Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { insecure, server_name, cert_file, ca_file, .. } = self;
        write!(f, "{server_name:?} {cert_file:?} {ca_file:?} insecure={insecure}")
    }
}

impl ExtenderTls {
    fn has_authorities(&self) -> bool {
        !self.ca_file.is_empty() || !self.ca_data.is_empty()
    }

    fn complete(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("insecure".to_owned(), self.insecure.into());
        for (field, text) in [
            ("serverName", &self.server_name),
            ("certFile", &self.cert_file),
            ("keyFile", &self.key_file),
            ("caFile", &self.ca_file),
            ("certData", &self.cert_data),
            ("keyData", &self.key_data),
            ("caData", &self.ca_data),
        ] {
            put(&mut fields, field, text);
        }
        Value::Object(fields)
    }
}

fn put(fields: &mut Map<String, Value>, field: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(field.to_owned(), text.into());
    }
}

impl FileExtender {
    fn timeout(&self) -> Option<Duration> {
        let given = match self.http_timeout.as_str() {
            "" => Duration::ZERO,
            text => go_duration(text)?,
        };
        Some(if given.is_zero() { TIMEOUT } else { given })
    }

    pub(super) fn config(&self) -> ExtenderConfig {
        let timeout = self.timeout().unwrap_or(TIMEOUT).as_millis().max(1);
        ExtenderConfig {
            url_prefix: self.url_prefix.clone(),
            filter_verb: self.filter_verb.clone(),
            prioritize_verb: self.prioritize_verb.clone(),
            preempt_verb: self.preempt_verb.clone(),
            bind_verb: self.bind_verb.clone(),
            weight: self.weight,
            timeout_milliseconds: u64::try_from(timeout).unwrap_or(u64::MAX),
            node_cache_capable: self.node_cache_capable,
            managed_resources: self.managed_resources.clone(),
            ignorable: self.ignorable,
        }
    }

    /// How it is reached over TLS, if it is.
    pub(super) fn tls(&self) -> Option<ExtenderTls> {
        if !self.url_prefix.starts_with("https://") {
            return None;
        }
        let mut tls = self.tls_config.clone().unwrap_or_default();
        tls.insecure |= self.unverified();
        Some(tls)
    }

    /// Whether its certificate is not looked at because nobody says whose it may be.
    fn unverified(&self) -> bool {
        self.enable_https && !self.tls_config.as_ref().is_some_and(ExtenderTls::has_authorities)
    }

    pub(super) fn remark(&self, index: usize) -> Option<String> {
        let tls = self.tls()?;
        tls.insecure.then(|| {
            format!(
                "the certificate of extenders[{index}] is not verified: anybody can answer in its \
                 place; tlsConfig.caFile would name the authority that it comes from"
            )
        })
    }

    pub(super) fn complete(&self) -> Value {
        let mut fields = Map::new();
        for (field, text) in [
            ("urlPrefix", &self.url_prefix),
            ("filterVerb", &self.filter_verb),
            ("preemptVerb", &self.preempt_verb),
            ("prioritizeVerb", &self.prioritize_verb),
            ("bindVerb", &self.bind_verb),
        ] {
            put(&mut fields, field, text);
        }
        let timeout = if self.http_timeout.is_empty() { "5s" } else { &self.http_timeout };
        fields.insert("weight".to_owned(), self.weight.into());
        fields.insert("enableHTTPS".to_owned(), self.enable_https.into());
        fields.insert("httpTimeout".to_owned(), timeout.into());
        fields.insert("nodeCacheCapable".to_owned(), self.node_cache_capable.into());
        fields.insert("ignorable".to_owned(), self.ignorable.into());
        if let Some(tls) = &self.tls_config {
            fields.insert("tlsConfig".to_owned(), tls.complete());
        }
        if !self.managed_resources.is_empty() {
            fields.insert("managedResources".to_owned(), json!(self.managed_resources));
        }
        Value::Object(fields)
    }

    fn validate_address(&self, path: &str, problems: &mut Problems) {
        let at = format!("{path}.urlPrefix");
        let host = ["http://", "https://"].iter().find_map(|s| self.url_prefix.strip_prefix(s));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            problems.invalid(&at, &self.url_prefix, "must be an http:// or https:// URL");
        }
        if self.timeout().is_none() {
            let detail = "must be a positive duration such as 5s or 500ms";
            problems.invalid(&format!("{path}.httpTimeout"), &self.http_timeout, detail);
        }
        let Some(tls) = self.tls() else { return };
        let given = self.tls_config.as_ref();
        if given.is_some_and(|tls| tls.insecure && tls.has_authorities()) {
            let detail =
                "specifying a root certificates file with the insecure flag is not allowed";
            problems.forbidden(&format!("{path}.tlsConfig.insecure"), detail);
        }
        if !tls.insecure && !tls.has_authorities() {
            let detail = "name the authority that the extender's certificate comes from: this \
                          scheduler knows no others";
            problems.required(&format!("{path}.tlsConfig.caFile"), detail);
        }
        let has = |file: &str, data: &str| !file.is_empty() || !data.is_empty();
        if has(&tls.cert_file, &tls.cert_data) != has(&tls.key_file, &tls.key_data) {
            let detail = "a certificate needs its key, and a key its certificate";
            problems.forbidden(&format!("{path}.tlsConfig"), detail);
        }
    }
}

/// Checks all extenders of a file; `together` tells of a profile that places pods in groups.
pub(super) fn validate(
    extenders: &[FileExtender],
    together: Option<usize>,
    problems: &mut Problems,
) {
    let mut managed = BTreeSet::new();
    for (i, extender) in extenders.iter().enumerate() {
        let path = format!("extenders[{i}]");
        extender.validate_address(&path, problems);
        let at = format!("{path}.weight");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            problems.invalid(&at, extender.weight, "must have a positive weight applied to it");
        } else if extender.weight > WEIGHT_MAX {
            problems.invalid(&at, extender.weight, &format!("must not exceed {WEIGHT_MAX}"));
        }
        for (j, ManagedResource { name, .. }) in extender.managed_resources.iter().enumerate() {
            let at = format!("{path}.managedResources[{j}].name");
            let complaints = api::names::qualified_name(name);
            if complaints.is_empty() && !is_extended(name) {
                problems.invalid(&at, name, "is an invalid extended resource name");
            }
            problems.invalid_each(&at, name, complaints);
            if !managed.insert(name) {
                problems.invalid(&at, name, "duplicate extender managed resource name");
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        problems.invalid("extenders", found, "only one extender can implement bind");
    }
    if let Some(profile) = together.filter(|_| !extenders.is_empty()) {
        let detail = format!(
            "profiles[{profile}] enables Coscheduling: what extenders say of a pod is not known \
             when all pods of its group are placed at once"
        );
        problems.forbidden("extenders", &detail);
    }
}

/// Whether the name is one of somebody's own resources.
fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && api::names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Reads a duration as Go writes it; `None` for negative ones, too.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let next = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(next);
        let nanos: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(number * nanos / 1e9).ok()?;
        sum = sum.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let check = |text: &str, milliseconds: Option<u128>| {
            assert_eq!(go_duration(text).map(|d| d.as_millis()), milliseconds, "{text:?}");
        };
        check("5s", Some(5_000));
        check("100ms", Some(100));
        check("1.5s", Some(1_500));
        check("1m0.5s", Some(60_500));
        check("2h45m", Some(9_900_000));
        check("0", Some(0));
        check("0s", Some(0));
        for wrong in ["", "5", "-1s", "s", "1d", "1 s", "1..5s", "99999999999999999999999h"] {
            check(wrong, None);
        }
    }
}
