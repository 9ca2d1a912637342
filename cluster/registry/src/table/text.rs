//! Cells of events, certificate requests and role bindings, and the text that many kinds share.

use std::collections::BTreeMap;

use api::Time;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Container, Event};
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;

use super::{human_duration, name};

pub(super) const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

/// Elements shown of a list in a cell.
const SHOWN_MAX: usize = 3;

/// The time since the object was created.
pub(super) fn age(meta: &ObjectMeta, now: Time) -> Value {
    since(meta.creation_timestamp.as_ref().map(Time::from_meta), now).into()
}

pub(super) fn since(then: Option<Time>, now: Time) -> String {
    match then {
        None => UNKNOWN.to_owned(),
        // Clocks differ by a second at most, or somebody is wrong.
        Some(then) if then.since(now).as_secs() > 1 => "<invalid>".to_owned(),
        Some(then) => human_duration(now.since(then)),
    }
}

pub(super) fn text(value: Option<&str>) -> Value {
    value.unwrap_or_default().into()
}

/// The text, or a placeholder when there is none.
pub(super) fn or<'a>(value: Option<&'a str>, placeholder: &'a str) -> &'a str {
    value.filter(|v| !v.is_empty()).unwrap_or(placeholder)
}

/// The names and the images of containers.
pub(super) fn containers(containers: &[Container]) -> [Value; 2] {
    let join = |part: fn(&Container) -> &str| -> Value {
        containers.iter().map(part).collect::<Vec<_>>().join(",").into()
    };
    [join(|c| &c.name), join(|c| c.image.as_deref().unwrap_or_default())]
}

/// `a=1,b=2`, sorted.
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let mut pairs: Vec<String> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort_unstable();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// The selector in the notation of `kubectl get -l`, sorted by label; empty for everything.
pub(super) fn selector(selector: &LabelSelector) -> String {
    let mut parts: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push((key, format!("{key}={value}")));
    }
    for rule in selector.match_expressions.iter().flatten() {
        let key = &rule.key;
        let values = || {
            let mut values: Vec<&str> = rule.values.iter().flatten().map(String::as_str).collect();
            values.sort_unstable();
            values.join(",")
        };
        let part = match rule.operator.as_str() {
            "In" => format!("{key} in ({})", values()),
            "NotIn" => format!("{key} notin ({})", values()),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<invalid>".to_owned(),
        };
        parts.push((key, part));
    }
    parts.sort_by_key(|(key, _)| *key);
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// The first three and how many there are besides; `placeholder` when there are none.
pub(super) fn shortened(all: impl Iterator<Item = String>, placeholder: &str) -> Value {
    let mut shown: Vec<String> = Vec::new();
    let mut count = 0;
    for element in all {
        if count < SHOWN_MAX {
            shown.push(element);
        }
        count += 1;
    }
    let text = shown.join(",");
    if count > SHOWN_MAX {
        format!("{text} + {} more...", count - SHOWN_MAX).into()
    } else if text.is_empty() {
        placeholder.into()
    } else {
        text.into()
    }
}

pub(super) fn event(event: &Event, now: Time) -> Vec<Value> {
    let occurred = event.event_time.as_ref().map(Time::from_micro);
    let first = event.first_timestamp.as_ref().map(Time::from_meta).or(occurred);
    let last = event.last_timestamp.as_ref().map(Time::from_meta).or(first);
    let (last, count) = match &event.series {
        Some(series) => (
            series.last_observed_time.as_ref().map(Time::from_micro),
            series.count.unwrap_or_default(),
        ),
        // Events of the newer API that happened once have no count.
        None => (last, event.count.filter(|c| *c != 0).unwrap_or(1)),
    };
    let object = &event.involved_object;
    let kind = object.kind.as_deref().unwrap_or_default().to_lowercase();
    let target = match object.name.as_deref().unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = event.source.as_ref();
    let component = source.and_then(|s| s.component.as_deref());
    let component = or(component, event.reporting_component.as_deref().unwrap_or_default());
    let host = source.and_then(|s| s.host.as_deref());
    let host = or(host, event.reporting_instance.as_deref().unwrap_or_default());
    let source =
        if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        since(last, now).into(),
        text(event.type_.as_deref()),
        text(event.reason.as_deref()),
        target.into(),
        text(object.field_path.as_deref()),
        source.into(),
        event.message.as_deref().unwrap_or_default().trim().into(),
        since(first, now).into(),
        count.into(),
        name(&event.metadata),
    ]
}

pub(super) fn certificate_signing_request(
    request: &CertificateSigningRequest,
    now: Time,
) -> Vec<Value> {
    let status = request.status.as_ref();
    let is = |condition: &str| {
        status
            .and_then(|s| s.conditions.as_ref())
            .into_iter()
            .flatten()
            .any(|c| c.type_ == condition)
    };
    let mut condition = match () {
        () if is("Denied") => "Denied",
        () if is("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if is("Failed") {
        condition += ",Failed";
    }
    if status.and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty()) {
        condition += ",Issued";
    }
    let duration = request.spec.expiration_seconds.map_or_else(
        || NONE.to_owned(),
        |s| human_duration(std::time::Duration::from_secs(u64::try_from(s).unwrap_or(0))),
    );
    vec![
        name(&request.metadata),
        age(&request.metadata, now),
        or(Some(&request.spec.signer_name), NONE).into(),
        text(request.spec.username.as_deref()),
        duration.into(),
        condition.into(),
    ]
}

pub(super) fn binding(
    meta: &ObjectMeta,
    role: &RoleRef,
    subjects: Option<&[Subject]>,
    now: Time,
) -> Vec<Value> {
    let of = |kind: &str| -> Value {
        let names = subjects.into_iter().flatten().filter(|s| s.kind == kind).map(|s| {
            match s.namespace.as_deref() {
                Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{}", s.name),
                _ => s.name.clone(),
            }
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    vec![
        name(meta),
        format!("{}/{}", role.kind, role.name).into(),
        age(meta, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
