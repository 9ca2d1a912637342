//! Label selectors and references to other objects' keys.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{Causes, Path};
use crate::{meta, names};

/// Checks labels and expressions of a selector.
pub(super) fn label_selector(selector: &LabelSelector, path: &Path<'_>, causes: &mut Causes) {
    let labels = selector.match_labels.as_ref();
    meta::validate_labels(labels, &path.child("matchLabels"), causes);
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        requirement(expression, &path.child("matchExpressions").index(i), causes);
    }
}

fn requirement(requirement: &LabelSelectorRequirement, path: &Path<'_>, causes: &mut Causes) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => causes.required(
            &path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                causes.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
        }
        other => causes.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    let key = &requirement.key;
    causes.invalid_each(&path.child("key"), key, names::qualified_name(key));
    for (i, value) in values.iter().enumerate() {
        causes.invalid_each(&path.child("values").index(i), value, names::label_value(value));
    }
}

/// Whether the selector selects by nothing.
pub(super) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Checks a port by number or name.
pub(super) fn port(port: &IntOrString, path: &Path<'_>, causes: &mut Causes) {
    match port {
        IntOrString::Int(number) => {
            if !names::is_port(i64::from(*number)) {
                causes.invalid(path, number, names::PORT_RANGE);
            }
        }
        IntOrString::String(name) => causes.invalid_each(path, name, names::port_name(name)),
    }
}

/// Checks that a text is there and is a key of a config map or secret.
pub(super) fn config_key(key: &str, path: &Path<'_>, causes: &mut Causes) {
    if key.is_empty() {
        causes.required(path, "");
    } else {
        causes.invalid_each(path, key, names::config_map_key(key));
    }
}
