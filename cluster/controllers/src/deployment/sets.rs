//! The replica sets of a deployment: which one has the template of today, and what is changed of
//! each.

use std::cmp::Reverse;

use api::hash::{fnv32a, safe_encode};
use api::{Object, Time, codec, meta};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::Value;

/// The label that tells the pods of one replica set from those of another.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// How many replicas the deployment asked for when the set was last scaled.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";

/// The same with the surge.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// One replica set and what shall become of it.
pub(crate) struct Set<'a> {
    pub(crate) set: std::borrow::Cow<'a, ReplicaSet>,
    /// The number of replicas it shall have.
    pub(crate) replicas: i32,
    original: i32,
    changed: bool,
}

impl<'a> Set<'a> {
    pub(crate) fn new(set: &'a ReplicaSet) -> Self {
        let replicas = set.spec.as_ref().map_or(0, |s| s.replicas.unwrap_or(1).max(0));
        let set = std::borrow::Cow::Borrowed(set);
        Self { set, replicas, original: replicas, changed: false }
    }

    /// A set that the plan creates: it needs no update.
    pub(crate) fn created(set: ReplicaSet) -> Self {
        let replicas = set.spec.as_ref().map_or(0, |s| s.replicas.unwrap_or(1).max(0));
        let set = std::borrow::Cow::Owned(set);
        Self { set, replicas, original: replicas, changed: false }
    }

    pub(crate) fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) const fn original_replicas(&self) -> i32 {
        self.original
    }

    /// The object, to be changed.
    pub(crate) fn edit(&mut self) -> &mut ReplicaSet {
        self.changed = true;
        self.set.to_mut()
    }

    /// Sets the number of replicas and notes what it was derived from.
    pub(crate) fn scale(&mut self, replicas: i32, desired: i32, surge: i32) {
        let (wanted, most) = (desired.to_string(), desired.saturating_add(surge).to_string());
        let stale = meta::annotation(&self.set.metadata, DESIRED_REPLICAS) != Some(&wanted)
            || meta::annotation(&self.set.metadata, MAX_REPLICAS) != Some(&most);
        if self.replicas == replicas && !stale {
            return;
        }
        self.replicas = replicas;
        let set = self.edit();
        set.spec.get_or_insert_default().replicas = Some(replicas);
        note_replicas(set, &wanted, &most);
    }

    /// The changed object, once.
    pub(crate) fn take_update(&mut self) -> Option<ReplicaSet> {
        std::mem::take(&mut self.changed).then(|| self.set.as_ref().clone())
    }

    fn number_annotation(&self, name: &str) -> Option<i32> {
        meta::annotation(&self.set.metadata, name)?.parse().ok()
    }

    pub(crate) fn desired_annotation(&self) -> Option<i32> {
        self.number_annotation(DESIRED_REPLICAS)
    }

    pub(crate) fn max_annotation(&self) -> Option<i32> {
        self.number_annotation(MAX_REPLICAS)
    }

    pub(crate) fn revision(&self) -> i64 {
        meta::annotation(&self.set.metadata, super::REVISION)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// Pods that exist, as reported.
    pub(crate) fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |s| s.replicas.max(0))
    }

    pub(crate) fn ready(&self) -> i32 {
        self.set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0).max(0)
    }

    /// Pods that are available, as reported.
    pub(crate) fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0).max(0)
    }

    /// Pods that will still be available when the set has shrunk to its number of replicas: the
    /// report may be older than the last scaling.
    pub(crate) fn available_at_least(&self) -> i32 {
        self.available().min(self.replicas)
    }

    /// Whether the report is about the present number of replicas.
    pub(crate) fn is_settled(&self) -> bool {
        let observed = self.set.status.as_ref().and_then(|s| s.observed_generation);
        observed.unwrap_or(0) >= self.set.metadata.generation.unwrap_or(0)
    }

    pub(crate) fn age(&self) -> (Time, &str) {
        (meta::created_at(&self.set.metadata), self.name())
    }
}

/// Notes the deployment's numbers on a replica set.
pub(crate) fn note_replicas(set: &mut ReplicaSet, desired: &str, most: &str) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.to_owned(), desired.to_owned());
    annotations.insert(MAX_REPLICAS.to_owned(), most.to_owned());
}

/// The replica sets of a deployment.
pub(crate) struct Sets<'a> {
    /// The one with the deployment's template.
    pub(crate) new: Option<Set<'a>>,
    /// All others, the oldest first.
    pub(crate) old: Vec<Set<'a>>,
}

impl<'a> Sets<'a> {
    /// Sorts the sets by age; the oldest with the deployment's template is the new one.
    pub(crate) fn new(template: &PodTemplateSpec, owned: Vec<&'a ReplicaSet>) -> Self {
        let mut old: Vec<Set<'_>> = owned.into_iter().map(Set::new).collect();
        old.sort_by(|a, b| a.age().cmp(&b.age()));
        let position = old.iter().position(|s| {
            s.set.spec.as_ref().and_then(|s| s.template.as_ref()).is_some_and(|t| same(template, t))
        });
        let new = position.map(|i| old.remove(i));
        Self { new, old }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Set<'a>> {
        self.old.iter().chain(&self.new)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Set<'a>> {
        // What grows comes first: if the rest is not carried out, nothing was taken away.
        self.new.iter_mut().chain(&mut self.old)
    }

    pub(crate) fn active_mut(&mut self) -> Vec<&mut Set<'a>> {
        self.old.iter_mut().chain(&mut self.new).filter(|s| s.replicas > 0).collect()
    }

    pub(crate) fn replicas(&self) -> i32 {
        self.all().map(|s| s.replicas).fold(0, i32::saturating_add)
    }

    pub(crate) fn max_old_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or(0)
    }
}

/// From the largest to the smallest; among equals the newest first or last.
pub(crate) fn sort_by_size(sets: &mut [&mut Set<'_>], newest_first: bool) {
    if newest_first {
        sets.sort_by_cached_key(|s| {
            let (created, name) = s.age();
            (Reverse(s.replicas), Reverse(created), Reverse(name.to_owned()))
        });
    } else {
        sets.sort_by_cached_key(|s| {
            let (created, name) = s.age();
            (Reverse(s.replicas), created, name.to_owned())
        });
    }
}

/// Whether two templates are the same but for the hash label. What one leaves out and the other
/// leaves empty is the same.
pub(super) fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone();
        if let Some(labels) = metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(TEMPLATE_HASH);
        }
        metadata
    };
    let (plain_a, plain_b) = (plain(a), plain(b));
    // Mostly they are, to the letter; then the large part need not be copied.
    if plain_a == plain_b && a.spec == b.spec {
        return true;
    }
    // A rollout mostly changes an image.
    if let (Some(a), Some(b)) = (&a.spec, &b.spec)
        && other_images(a, b)
    {
        return false;
    }
    let json = |metadata, of: &PodTemplateSpec| {
        template_json(PodTemplateSpec { metadata, spec: of.spec.clone() })
    };
    json(plain_a, a) == json(plain_b, b)
}

/// Whether two specs have the same number of containers, of which one has another image.
fn other_images(a: &PodSpec, b: &PodSpec) -> bool {
    fn image(container: &Container) -> Option<&str> {
        container.image.as_deref().filter(|image| !image.is_empty())
    }
    a.containers.len() == b.containers.len()
        && a.containers.iter().zip(&b.containers).any(|(a, b)| image(a) != image(b))
}

/// The hash that names what is made of a template. Each collision changes it, and with it the name
/// and the label.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = template_json(template.clone()).to_string();
    let collisions = collisions.filter(|n| *n != 0);
    let seed = collisions.map_or(json.clone(), |n| format!("{json}{n}"));
    safe_encode(&fnv32a(seed.as_bytes()).to_string())
}

/// The template as JSON without anything empty.
pub(crate) fn template_json(template: PodTemplateSpec) -> Value {
    let mut set = ReplicaSet::default();
    set.spec.get_or_insert_default().template = Some(template);
    let mut value = codec::to_value(&Object::ReplicaSet(std::sync::Arc::new(set)));
    let mut template = value["spec"]["template"].take();
    prune(&mut template);
    template
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, v| !is_empty(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
