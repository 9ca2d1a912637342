//! LimitRanger: pods, their containers and claims ask for as much as the limit ranges of their
//! namespace allow, and containers for as much as these say if they do not say themselves.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/limitranger`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::quantity::Quantity as Amount;
use api::quota::{Amounts, requests_and_limits};
use api::{Kind, Object, Status, meta};
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, PodSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::forbidden;
use crate::admit::Context;

/// Tells what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// The type of the limits of claims.
const CLAIM: &str = "PersistentVolumeClaim";

/// The limit ranges that hold for an object.
fn ranges(context: Context<'_>, object: &Object) -> Vec<Arc<LimitRange>> {
    if !matches!(object.kind(), Kind::Pod | Kind::PersistentVolumeClaim) {
        return Vec::new();
    }
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let all = context.view.list(Kind::LimitRange, namespace);
    all.iter().filter_map(Object::share::<LimitRange>).collect()
}

fn items(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|s| &s.limits)
}

/// Whether limit ranges have a say in what becomes of a new object.
pub(crate) fn concerns(context: Context<'_>, object: &Object) -> bool {
    !ranges(context, object).is_empty()
}

/// Completes a new pod.
pub(crate) fn create(context: Context<'_>, object: &mut Object) {
    for range in ranges(context, object) {
        let of_containers = || items(&range).filter(|item| item.type_ == "Container");
        let mut defaults = Defaults::default();
        for item in of_containers() {
            defaults.requests.extend(item.default_request.iter().flatten());
            defaults.limits.extend(item.default.iter().flatten());
        }
        let Object::Pod(pod) = &mut *object else { return };
        let pod = Arc::make_mut(pod);
        let Some(spec) = &mut pod.spec else { return };
        let mut notes = Vec::new();
        for container in &mut spec.containers {
            defaults.complete(container, "container", &mut notes);
        }
        for container in spec.init_containers.iter_mut().flatten() {
            defaults.complete(container, "init container", &mut notes);
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.insert(ANNOTATION.to_owned(), note);
        }
    }
}

/// What containers get that do not say.
#[derive(Default)]
struct Defaults<'a> {
    requests: BTreeMap<&'a String, &'a Quantity>,
    limits: BTreeMap<&'a String, &'a Quantity>,
}

impl Defaults<'_> {
    fn complete(&self, container: &mut Container, what: &str, notes: &mut Vec<String>) {
        let resources = container.resources.get_or_insert_default();
        for (list, defaults, part) in [
            (&mut resources.requests, &self.requests, "request"),
            (&mut resources.limits, &self.limits, "limit"),
        ] {
            let absent = |name: &&String| list.as_ref().is_none_or(|l| !l.contains_key(*name));
            let set: Vec<&String> = defaults.keys().copied().filter(absent).collect();
            if set.is_empty() {
                continue;
            }
            let names: Vec<&str> = set.iter().map(|name| name.as_str()).collect();
            notes.push(format!("{} {part} for {what} {}", names.join(", "), container.name));
            let list = list.get_or_insert_default();
            list.extend(set.iter().map(|name| ((*name).clone(), defaults[name].clone())));
        }
    }
}

/// Checks a new pod, or a claim, that is complete.
pub(super) fn check(
    context: Context<'_>,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let checked = match (object, old) {
        (Object::PersistentVolumeClaim(_), Some(old)) => !meta::is_terminating(old.meta()),
        (Object::Pod(_) | Object::PersistentVolumeClaim(_), None) => true,
        _ => false,
    };
    if !checked {
        return Ok(());
    }
    for range in ranges(context, object) {
        let mut wrong = Vec::new();
        for item in items(&range) {
            match object {
                Object::Pod(pod) => {
                    pod.spec.iter().for_each(|spec| pod_within(spec, item, &mut wrong));
                }
                Object::PersistentVolumeClaim(claim) if item.type_ == CLAIM => {
                    claim_within(claim, item, &mut wrong);
                }
                _ => {}
            }
        }
        let mut seen = BTreeSet::new();
        wrong.retain(|why| seen.insert(why.clone()));
        match wrong.as_slice() {
            [] => {}
            [one] => return Err(forbidden(object, one)),
            many => return Err(forbidden(object, &format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}

/// Of claims only what they ask for is looked at.
fn claim_within(claim: &PersistentVolumeClaim, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let requests = Amounts::of_list(resources.and_then(|r| r.requests.as_ref()));
    let asked = Asked { of: CLAIM, requests, limits: Amounts::default() };
    for (name, least) in Amounts::of_list(item.min.as_ref()).iter() {
        wrong.extend(asked.below(name, least));
    }
    for (name, most) in Amounts::of_list(item.max.as_ref()).iter() {
        wrong.extend(asked.asks_for_more(name, most));
    }
}

fn pod_within(spec: &PodSpec, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    match item.type_.as_str() {
        "Container" => {
            let list = |list: Option<&BTreeMap<String, Quantity>>| Amounts::of_list(list);
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let resources = container.resources.as_ref();
                let asked = Asked {
                    of: &item.type_,
                    requests: list(resources.and_then(|r| r.requests.as_ref())),
                    limits: list(resources.and_then(|r| r.limits.as_ref())),
                };
                asked.check(item, wrong);
            }
        }
        "Pod" => {
            let (requests, limits) = requests_and_limits(spec);
            Asked { of: &item.type_, requests, limits }.check(item, wrong);
        }
        _ => {}
    }
}

/// What a pod or container asks for.
struct Asked<'a> {
    of: &'a str,
    requests: Amounts,
    limits: Amounts,
}

impl Asked<'_> {
    fn check(&self, item: &LimitRangeItem, wrong: &mut Vec<String>) {
        for (name, least) in Amounts::of_list(item.min.as_ref()).iter() {
            wrong.extend(self.below(name, least));
        }
        for (name, most) in Amounts::of_list(item.max.as_ref()).iter() {
            wrong.extend(self.above(name, most));
        }
        for (name, most) in Amounts::of_list(item.max_limit_request_ratio.as_ref()).iter() {
            wrong.extend(self.beyond_ratio(name, most));
        }
    }

    fn below(&self, name: &str, least: Amount) -> Option<String> {
        let rule = format!("minimum {name} usage per {} is {least}", self.of);
        let Some(request) = self.requests.get(name) else {
            return Some(format!("{rule}.  No request is specified"));
        };
        if request.nano() < least.nano() {
            return Some(format!("{rule}, but request is {request}"));
        }
        let limit = self.limits.get(name).filter(|limit| limit.nano() < least.nano())?;
        Some(format!("{rule}, but limit is {limit}"))
    }

    fn asks_for_more(&self, name: &str, most: Amount) -> Option<String> {
        let rule = format!("maximum {name} usage per {} is {most}", self.of);
        match self.requests.get(name) {
            None => Some(format!("{rule}.  No request is specified")),
            Some(request) if request.nano() > most.nano() => {
                Some(format!("{rule}, but request is {request}"))
            }
            Some(_) => None,
        }
    }

    fn above(&self, name: &str, most: Amount) -> Option<String> {
        let rule = format!("maximum {name} usage per {} is {most}", self.of);
        let Some(limit) = self.limits.get(name) else {
            return Some(format!("{rule}.  No limit is specified"));
        };
        if limit.nano() > most.nano() {
            return Some(format!("{rule}, but limit is {limit}"));
        }
        let request = self.requests.get(name).filter(|request| request.nano() > most.nano())?;
        Some(format!("{rule}, but request is {request}"))
    }

    fn beyond_ratio(&self, name: &str, most: Amount) -> Option<String> {
        let rule = format!("{name} max limit to request ratio per {} is {most}", self.of);
        let Some(request) = self.requests.get(name).filter(|q| !q.is_zero()) else {
            return Some(format!("{rule}, but no request is specified or request is 0"));
        };
        let Some(limit) = self.limits.get(name).filter(|q| !q.is_zero()) else {
            return Some(format!("{rule}, but no limit is specified or limit is 0"));
        };
        let ratio = crate::validate::ratio(limit, request);
        (ratio > crate::validate::ratio(most, Amount::whole(1)))
            .then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
    }
}
