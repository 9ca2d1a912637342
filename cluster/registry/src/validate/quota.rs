//! Resource quotas.
//!
//! Source: kubernetes 1.33, `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{
    ResourceQuota, ScopeSelector, ScopedResourceSelectorRequirement as Requirement,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::{Causes, Path, Shown, quote};
use crate::names;

/// Resources that come in whole numbers.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Resources that come in any amount.
const MEASURED: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];
/// What quotas of any scope of pods can limit, beside the number of pods.
const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 6] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
];
/// Scopes that no pod is in both of.
const CONFLICTING: [[&str; 2]; 2] =
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// Scopes in Go's notation.
struct Scopes<'a>(&'a [String]);

impl Shown for Scopes<'_> {
    fn shown(&self) -> String {
        if self.0.is_empty() {
            return "[]core.ResourceQuotaScope(nil)".to_owned();
        }
        let items: Vec<String> = self.0.iter().map(|s| quote(s)).collect();
        format!("[]core.ResourceQuotaScope{{{}}}", items.join(", "))
    }
}

/// A selector of scopes in Go's notation.
struct Selected<'a>(&'a ScopeSelector);

impl Shown for Selected<'_> {
    fn shown(&self) -> String {
        let one = |wanted: &Requirement| {
            let (scope, operator) = (quote(&wanted.scope_name), quote(&wanted.operator));
            let values = wanted.values.as_deref();
            let values = values.map_or_else(|| "[]string(nil)".to_owned(), Shown::shown);
            format!(
                "core.ScopedResourceSelectorRequirement{{ScopeName:{scope}, Operator:{operator}, \
                 Values:{values}}}"
            )
        };
        let all: Vec<String> = self.0.match_expressions.iter().flatten().map(one).collect();
        format!(
            "core.ScopeSelector{{MatchExpressions:[]core.ScopedResourceSelectorRequirement{{{}}}}}",
            all.join(", ")
        )
    }
}

pub(super) fn resource_quota(quota: &ResourceQuota, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &quota.spec else { return };
    amounts(spec.hard.as_ref(), &path.child("hard"), causes);
    let hard: BTreeSet<&str> = spec.hard.iter().flat_map(BTreeMap::keys).map(|s| &**s).collect();
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    let at = path.child("scopes");
    for scope in scopes {
        if !SCOPES.contains(&scope.as_str()) {
            causes.invalid(&at, Scopes(scopes), "unsupported scope");
        }
        if !limits_only_what_it_can(scope, &hard) {
            causes.invalid(&at, Scopes(scopes), "unsupported scope applied to resource");
        }
    }
    if conflict(scopes.iter()) {
        causes.invalid(&at, Scopes(scopes), "conflicting scopes");
    }
    if let Some(selector) = &spec.scope_selector {
        let at = path.child("scopeSelector");
        let at = at.child("matchExpressions");
        for wanted in selector.match_expressions.iter().flatten() {
            if !SCOPES.contains(&wanted.scope_name.as_str()) {
                let at = at.child("scopeName");
                causes.invalid(&at, &wanted.scope_name, "unsupported scope");
            }
            if !limits_only_what_it_can(&wanted.scope_name, &hard) {
                causes.invalid(&at, Selected(selector), "unsupported scope applied to resource");
            }
            requirement(wanted, &at, causes);
        }
        if conflict(selector.match_expressions.iter().flatten().map(|w| &w.scope_name)) {
            causes.invalid(&at, Scopes(scopes), "conflicting scopes");
        }
    }
}

fn requirement(wanted: &Requirement, at: &Path<'_>, causes: &mut Causes) {
    let (operator, values) = (wanted.operator.as_str(), wanted.values.as_deref());
    let scope = wanted.scope_name.as_str();
    if SCOPES.contains(&scope) && scope != "PriorityClass" && operator != "Exists" {
        let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                      ResourceQuotaScopeNotBestEffort or \
                      ResourceQuotaScopeCrossNamespacePodAffinity";
        causes.invalid(&at.child("operator"), operator, detail);
    }
    let values = values.unwrap_or_default();
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope \
                          selector";
            causes.required(&at.child("values"), detail);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope \
                          selector";
            causes.invalid(&at.child("values"), values, detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => causes.invalid(&at.child("operator"), operator, "not a valid selector operator"),
    }
}

fn conflict<'a>(scopes: impl Iterator<Item = &'a String>) -> bool {
    let scopes: BTreeSet<&str> = scopes.map(String::as_str).collect();
    CONFLICTING.iter().any(|pair| pair.iter().all(|scope| scopes.contains(scope)))
}

/// Whether a quota of that scope can limit all these resources: pods in a scope are counted, and
/// measured unless they ask for nothing.
fn limits_only_what_it_can(scope: &str, hard: &BTreeSet<&str>) -> bool {
    let of_a_quota = |name: &&&str| is_standard(name);
    hard.iter().filter(of_a_quota).all(|name| match scope {
        "BestEffort" => *name == "pods",
        _ if SCOPES.contains(&scope) => *name == "pods" || COMPUTE.contains(name),
        _ => true,
    })
}

/// Whether a name without a domain is one that quotas know.
fn is_standard(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-")
}

/// Whether the name is one of somebody's own resources.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Checks the name of a resource that anything is said of.
pub(super) fn resource_name(name: &str, path: &Path<'_>, causes: &mut Causes) {
    let wrong = names::qualified_name(name);
    if wrong.is_empty() && !name.contains('/') && !is_standard(name) && name != "storage" {
        causes.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    causes.invalid_each(path, name, wrong);
}

/// Checks the name of a resource of containers that anything is said of.
pub(super) fn container_resource_name(name: &str, path: &Path<'_>, causes: &mut Causes) {
    resource_name(name, path, causes);
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        if !standard {
            causes.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !name.contains("kubernetes.io/") && !is_extended(name) {
        causes.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn amounts(list: Option<&BTreeMap<String, Quantity>>, path: &Path<'_>, causes: &mut Causes) {
    for (name, quantity) in list.into_iter().flatten() {
        let at = path.key(name);
        resource_name(name, &at, causes);
        if !name.contains('/') && !is_standard(name) {
            causes.invalid(&at, name, "must be a standard resource for quota");
        }
        let Ok(amount) = Amount::parse(&quantity.0) else { continue };
        if amount.is_negative() {
            causes.invalid(&at, amount.to_string(), "must be greater than or equal to 0");
        }
        let whole = COUNTED.contains(&name.as_str()) || is_extended(name);
        if whole && amount.milli() % 1000 != 0 {
            causes.invalid(&at, amount.to_string(), "must be an integer");
        }
    }
}

/// What holds between the old quota and the new one.
pub(super) fn update(new: &ResourceQuota, old: &ResourceQuota, causes: &mut Causes) {
    let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
        quota.spec.iter().flat_map(|s| s.scopes.iter().flatten()).cloned().collect()
    };
    if scopes(new) != scopes(old) {
        let given = new.spec.as_ref().and_then(|s| s.scopes.as_deref()).unwrap_or_default();
        let at = Path::new("spec");
        causes.invalid(&at.child("scopes"), Scopes(given), "field is immutable");
    }
}

pub(super) fn status(quota: &ResourceQuota, causes: &mut Causes) {
    let path = Path::new("status");
    let Some(status) = &quota.status else { return };
    amounts(status.hard.as_ref(), &path.child("hard"), causes);
    amounts(status.used.as_ref(), &path.child("used"), causes);
}
