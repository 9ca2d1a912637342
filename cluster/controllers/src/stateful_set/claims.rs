//! The claims of a stateful set: one of each template for each ordinal, which outlive the pods.
//!
//! A claim is made before its pod and never changed, but for its owner: by the set's policy it goes
//! with the set, or with the pod of an ordinal that is no longer wanted. Only one that says so is
//! owned by either.
//!
//! Source: kubernetes 1.33, `pkg/controller/statefulset/stateful_set_utils.go`.

use api::{ApiObject, Key, Kind, Object, Pod, Request, meta};
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use machine::{Announcement, Cache, Delta, Plan};

use super::Pass;
use crate::announce;

/// Whether a pod may be made, as far as its claims go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// All of its claims are there.
    Ready,
    /// Claims are being made, or those of an earlier pod are still to go.
    Wait,
}

/// The templates of a set, with their names.
fn templates(spec: &StatefulSetSpec) -> impl Iterator<Item = (&str, &PersistentVolumeClaim)> {
    let templates = spec.volume_claim_templates.iter().flatten();
    templates.filter_map(|t| Some((t.metadata.name.as_deref()?, t)))
}

/// The claim of a template for a pod.
fn name(template: &str, pod: &str) -> String {
    format!("{template}-{pod}")
}

/// The volumes of a pod of the set: those of its claims, and of the template what has other names.
pub(super) fn volumes(set: &StatefulSet, pod: &str, of_template: &mut Option<Vec<Volume>>) {
    let Some(spec) = &set.spec else { return };
    let mut volumes: Vec<Volume> = Vec::new();
    for (template, _) in templates(spec) {
        volumes.retain(|volume| volume.name != template);
        volumes.push(Volume {
            name: template.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name(template, pod),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        return;
    }
    let others = of_template.take().into_iter().flatten();
    let others: Vec<Volume> =
        others.filter(|own| volumes.iter().all(|claim| claim.name != own.name)).collect();
    volumes.extend(others);
    *of_template = Some(volumes);
}

/// The stateful sets of which the claim may be one, when it went, began to go or changed owners.
pub(super) fn affected(cache: &Cache, delta: &Delta) -> Vec<Key> {
    let facts = |object: &Option<Object>| {
        let meta = object.as_ref().map(Object::meta)?;
        Some((meta::is_terminating(meta), meta.owner_references.clone()))
    };
    if facts(&delta.old) == facts(&delta.new) {
        return Vec::new();
    }
    let sets = cache.list_in::<StatefulSet>(&delta.key.namespace);
    let may_be = |set: &&StatefulSet| {
        let own = set.metadata.name.as_deref().unwrap_or_default();
        set.spec.iter().flat_map(templates).any(|(template, _)| {
            let rest = delta.key.name.strip_prefix(template).and_then(|r| r.strip_prefix('-'));
            let ordinal = rest.and_then(|r| r.strip_prefix(own)).and_then(|r| r.strip_prefix('-'));
            ordinal.is_some_and(|digits| digits.parse::<u32>().is_ok())
        })
    };
    sets.filter(may_be)
        .filter_map(|set| set.metadata.name.as_deref())
        .map(|set| Key::new(Kind::StatefulSet, &delta.key.namespace, set))
        .collect()
}

/// Whether the claim goes with another pod of that name than the one that is there.
fn is_of_earlier(claim: &PersistentVolumeClaim, pod: &str, present: Option<&String>) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|o| o.kind == Pod::KIND.name() && o.name == pod && Some(&o.uid) != present)
}

impl Pass<'_> {
    /// Makes the claims that a pod lacks. Those that are going, or that go with an earlier pod of
    /// that name, must be gone first.
    pub(super) fn provide(&self, ordinal: i64, plan: &mut Plan) -> Readiness {
        let present = self.pods.get(&ordinal).and_then(|pod| pod.metadata.uid.as_ref());
        let pod = format!("{}-{ordinal}", self.name());
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let mut readiness = Readiness::Ready;
        for (template, wanted) in templates(self.spec) {
            let name = name(template, &pod);
            match self.cache.get::<PersistentVolumeClaim>(namespace, &name) {
                Some(claim) if meta::is_terminating(&claim.metadata) => {
                    let why = format!(
                        "create Pod {pod} in StatefulSet {} failed error: pvc {name} is to be \
                         deleted",
                        self.name()
                    );
                    plan.events.push(announce::warning(self.set, "FailedCreate", why));
                    readiness = Readiness::Wait;
                }
                Some(claim) if is_of_earlier(claim, &pod, present) => readiness = Readiness::Wait,
                Some(_) => {}
                None => {
                    let claim = self.claim(wanted, &name, ordinal);
                    let announcement = self.claim_announcement(&name, &pod);
                    plan.request_announced(Request::Create(claim.into_object()), announcement);
                    readiness = Readiness::Wait;
                }
            }
        }
        readiness
    }

    fn claim(
        &self,
        template: &PersistentVolumeClaim,
        name: &str,
        ordinal: i64,
    ) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim { status: None, ..template.clone() };
        let meta = &mut claim.metadata;
        meta.name = Some(name.to_owned());
        meta.namespace.clone_from(&self.set.metadata.namespace);
        let labels = self.spec.selector.match_labels.iter().flatten();
        let own = meta.labels.get_or_insert_default();
        own.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
        let owner = self.owner(ordinal, None);
        meta.owner_references = owner.map(|owner| vec![owner]);
        claim
    }

    fn claim_announcement(&self, claim: &str, pod: &str) -> Announcement {
        let what = format!("create Claim {claim} Pod {pod} in StatefulSet {}", self.name());
        let done = announce::normal(self.set, "SuccessfulCreate", format!("{what} success"));
        let refused = announce::warning(self.set, "FailedCreate", format!("{what} failed error: "));
        Announcement { done: Some(done), refused: Some(refused) }
    }

    fn policy(&self) -> (bool, bool) {
        let retain = StatefulSetPersistentVolumeClaimRetentionPolicy::default();
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let policy = policy.unwrap_or(&retain);
        let deletes = |word: &Option<String>| word.as_deref() == Some("Delete");
        (deletes(&policy.when_deleted), deletes(&policy.when_scaled))
    }

    /// With whom the claim of an ordinal goes, by the policy.
    fn owner(&self, ordinal: i64, pod: Option<&Pod>) -> Option<OwnerReference> {
        let (with_set, with_pod) = self.policy();
        let unwanted = !self.range().contains(&ordinal);
        if with_pod && unwanted {
            return pod
                .map(meta::controller_reference)
                .map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner });
        }
        with_set.then(|| meta::controller_reference(self.set))
    }

    /// Gives the claims of a pod the owner that the policy says. Whether they had it: a pod that is
    /// not wanted does not go before.
    pub(super) fn own_claims(&self, ordinal: i64, pod: &Pod, plan: &mut Plan) -> bool {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let wanted = self.owner(ordinal, Some(pod));
        let before = plan.requests.len();
        for (template, _) in templates(self.spec) {
            let name = name(template, pod_name);
            let Some(claim) = self.cache.get::<PersistentVolumeClaim>(namespace, &name) else {
                continue;
            };
            let ours = |owner: &OwnerReference| self.is_ours(owner, pod_name);
            let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
            let other = owners.iter().find(|o| o.controller == Some(true) && !ours(o));
            if other.is_some() {
                let why = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a \
                     managing controller, the retention policy is ignored for this claim"
                );
                plan.events.push(announce::warning(self.set, "ConflictingController", why));
                continue;
            }
            let is = owners.iter().filter(|owner| ours(owner));
            if is.eq(wanted.iter()) || meta::is_terminating(&claim.metadata) {
                continue;
            }
            let mut claim = claim.clone();
            let mut kept: Vec<OwnerReference> =
                owners.iter().filter(|owner| !ours(owner)).cloned().collect();
            kept.extend(wanted.clone());
            claim.metadata.owner_references = (!kept.is_empty()).then_some(kept);
            plan.request(Request::Update { object: claim.into_object(), subresource: None });
        }
        plan.requests.len() == before
    }

    /// Whether the owner is the set or a pod of that name, of now or before.
    fn is_ours(&self, owner: &OwnerReference, pod: &str) -> bool {
        let set = owner.kind == StatefulSet::KIND.name() && owner.name == self.name();
        set || owner.kind == Pod::KIND.name() && owner.name == pod
    }
}
