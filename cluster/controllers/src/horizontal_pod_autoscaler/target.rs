//! What an autoscaler scales.

use api::selector::Selector;
use api::{Key, Kind, Object, Revision, Status};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machine::Cache;

/// The scale of an object.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) key: Key,
    pub(super) revision: Revision,
    /// The number of pods it shall have.
    pub(super) replicas: i32,
    /// Its pods; why they cannot be told, when they cannot.
    pub(super) selector: Result<Selector, String>,
    /// Labels that all of them have.
    pub(super) labels: Option<&'a std::collections::BTreeMap<String, String>>,
}

impl<'a> Target<'a> {
    /// Finds the object, or says why it cannot be scaled.
    pub(super) fn find(
        cache: &'a Cache,
        namespace: &str,
        reference: &CrossVersionObjectReference,
    ) -> Result<Self, String> {
        let api_version = reference.api_version.as_deref().unwrap_or_default();
        if api_version.matches('/').count() > 1 {
            return Err(format!("unexpected GroupVersion string: {api_version}"));
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        // Any version of the group will do.
        let kind = Kind::stored().find(|k| k.name() == reference.kind && k.info().group == group);
        let Some(kind) = kind else {
            return Err(format!("no matches for kind {:?} in group {group:?}", reference.kind));
        };
        if !kind.info().subresources.contains(&"scale") {
            return Err(Status::no_route().message);
        }
        let key = Key::new(kind, namespace, &reference.name);
        let object =
            cache.object(&key).ok_or_else(|| Status::not_found(kind, &reference.name).message)?;
        Ok(Self::of(key, object))
    }

    fn of(key: Key, object: &'a Object) -> Self {
        let (replicas, selector) = match object {
            Object::Deployment(o) => of_deployment(o),
            Object::ReplicaSet(o) => of_replica_set(o),
            Object::StatefulSet(o) => of_stateful_set(o),
            Object::ReplicationController(o) => return Self::of_controller(key, o),
            _ => (None, None),
        };
        let parsed = match selector {
            None => Err("selector is required".to_owned()),
            Some(selector) => Selector::of_label_selector(selector).map_err(|error| {
                format!(
                    "couldn't convert selector into a corresponding internal selector object: \
                     {error}"
                )
            }),
        };
        let parsed = parsed.and_then(|selector| match selector.is_everything() {
            true => Err("selector is required".to_owned()),
            false => Ok(selector),
        });
        let labels = selector.and_then(|s| s.match_labels.as_ref());
        let revision = object.revision();
        Self { key, revision, replicas: replicas.unwrap_or(1), selector: parsed, labels }
    }

    fn of_controller(key: Key, controller: &'a ReplicationController) -> Self {
        let spec = controller.spec.as_ref();
        let labels = spec.and_then(|s| s.selector.as_ref()).filter(|labels| !labels.is_empty());
        let selector = labels.map(Selector::of_map).ok_or_else(|| "selector is required".into());
        let revision = controller.metadata.resource_version.as_deref().and_then(Revision::parse);
        let replicas = spec.and_then(|s| s.replicas).unwrap_or(1);
        Self { key, revision: revision.unwrap_or_default(), replicas, selector, labels }
    }
}

type Parts<'a> = (Option<i32>, Option<&'a LabelSelector>);

fn of_deployment(deployment: &Deployment) -> Parts<'_> {
    let spec = deployment.spec.as_ref();
    (spec.and_then(|s| s.replicas), spec.map(|s| &s.selector))
}

fn of_replica_set(set: &ReplicaSet) -> Parts<'_> {
    let spec = set.spec.as_ref();
    (spec.and_then(|s| s.replicas), spec.map(|s| &s.selector))
}

fn of_stateful_set(set: &StatefulSet) -> Parts<'_> {
    let spec = set.spec.as_ref();
    (spec.and_then(|s| s.replicas), spec.map(|s| &s.selector))
}
