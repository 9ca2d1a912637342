//! Limit ranges.
//!
//! Source: kubernetes 1.33, `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quota::{container_resource_name, resource_name};
use crate::field::{Causes, Path};
use crate::names;

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

type List = Option<BTreeMap<String, Quantity>>;

pub(super) fn limit_range(range: &LimitRange, causes: &mut Causes) {
    let path = Path::new("spec");
    let path = path.child("limits");
    let mut types = BTreeSet::new();
    for (i, item) in range.spec.iter().flat_map(|s| &s.limits).enumerate() {
        let path = path.index(i);
        let at = path.child("type");
        limit_type(&item.type_, &at, causes);
        if !types.insert(&item.type_) {
            causes.duplicate(&at, &item.type_);
        }
        limits(item, &path, causes);
    }
}

fn limit_type(name: &str, at: &Path<'_>, causes: &mut Causes) {
    let wrong = names::qualified_name(name);
    if wrong.is_empty() && !name.contains('/') && !TYPES.contains(&name) {
        causes.invalid(at, name, "must be a standard limit type or fully qualified");
    }
    causes.invalid_each(at, name, wrong);
}

fn limits(item: &LimitRangeItem, path: &Path<'_>, causes: &mut Causes) {
    let of_pods = item.type_ == "Pod";
    let name = |list: &List, field: &str, causes: &mut Causes| {
        let at = path.child(field);
        for name in list.iter().flat_map(BTreeMap::keys) {
            match item.type_.as_str() {
                "Pod" | "Container" => container_resource_name(name, &at.key(name), causes),
                _ => resource_name(name, &at.key(name), causes),
            }
        }
    };
    name(&item.max, "max", causes);
    name(&item.min, "min", causes);
    let none = None;
    let (mut default, mut default_request) = (&item.default, &item.default_request);
    if of_pods {
        for (list, field) in [(&mut default, "default"), (&mut default_request, "defaultRequest")] {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                causes.forbidden(&path.child(field), detail);
            }
            *list = &none;
        }
    }
    name(default, "default", causes);
    name(default_request, "defaultRequest", causes);
    let storage = |list: &List| list.as_ref().is_some_and(|list| list.contains_key("storage"));
    if item.type_ == "PersistentVolumeClaim" && !storage(&item.min) && !storage(&item.max) {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        causes.required(&path.child("limits"), detail);
    }
    name(&item.max_limit_request_ratio, "maxLimitRequestRatio", causes);
    let lists = [&item.max, &item.min, default, default_request, &item.max_limit_request_ratio];
    let resources: BTreeSet<&String> =
        lists.iter().flat_map(|list| list.iter().flat_map(BTreeMap::keys)).collect();
    for resource in resources {
        let amount = |list: &List| {
            let quantity = list.as_ref().and_then(|list| list.get(resource))?;
            Amount::parse(&quantity.0).ok()
        };
        let [max, min, default, request, ratio] = lists.map(amount);
        Bounds { resource, max, min, default, request, ratio }.check(path, causes);
    }
}

/// What an item says of one resource.
struct Bounds<'a> {
    resource: &'a str,
    max: Option<Amount>,
    min: Option<Amount>,
    default: Option<Amount>,
    request: Option<Amount>,
    ratio: Option<Amount>,
}

impl Bounds<'_> {
    fn check(&self, path: &Path<'_>, causes: &mut Causes) {
        let resource = self.resource;
        let mut order = |field: &str,
                         shown: Option<Amount>,
                         low: (&str, Option<Amount>),
                         high: (&str, Option<Amount>)| {
            let (Some(shown), (low_name, Some(low)), (high_name, Some(high))) = (shown, low, high)
            else {
                return;
            };
            if low.nano() > high.nano() {
                let detail =
                    format!("{low_name} value {low} is greater than {high_name} value {high}");
                let at = path.child(field);
                causes.invalid(&at.key(resource), shown.to_string(), &detail);
            }
        };
        let (min, max) = (self.min, self.max);
        let (default, request) = (self.default, self.request);
        order("min", min, ("min", min), ("max", max));
        order("defaultRequest", request, ("min", min), ("default request", request));
        order("defaultRequest", request, ("default request", request), ("max", max));
        order("defaultRequest", request, ("default request", request), ("default limit", default));
        order("default", min, ("min", min), ("default", default));
        order("default", max, ("default", default), ("max", max));
        self.check_ratio(path, causes);
        let overcommits = !resource.contains('/') && !resource.starts_with("hugepages-");
        if let (Some(default), Some(request)) = (default, request)
            && !overcommits
            && default.nano() != request.nano()
        {
            let detail = format!(
                "default value {default} must equal to defaultRequest value {request} in {resource}"
            );
            let at = path.child("defaultRequest");
            causes.invalid(&at.key(resource), request.to_string(), &detail);
        }
    }

    fn check_ratio(&self, path: &Path<'_>, causes: &mut Causes) {
        let Some(ratio) = self.ratio else { return };
        let at = path.child("maxLimitRequestRatio");
        let at = at.key(self.resource);
        if ratio.nano() < Amount::whole(1).nano() {
            causes.invalid(&at, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (self.min, self.max) {
            let most = super::ratio(max, min);
            if super::ratio(ratio, Amount::whole(1)) > most {
                let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
                causes.invalid(&at, ratio.to_string(), &detail);
            }
        }
    }
}
