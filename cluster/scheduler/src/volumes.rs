//! What the volumes of a pod ask of its node.
//!
//! It is worked out of claims, volumes and classes each time the pod is up for a decision, and
//! plugins look at it as at the rest of the pod's class.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/framework/plugins/{volumebinding,volumezone,
//! volumerestrictions,nodevolumelimits}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::volume::{
    self, READ_WRITE_ONCE_POD, SELECTED_NODE, candidates, claim_of, claim_phase, volume_name,
};
use api::{Key, Kind, Object, Pod, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::StorageClass;
use machine::Cache;

use crate::attachments::{Attachment, Attachments};
use crate::node_info::NodeInfo;
use crate::pod_info::NodeTerm;

/// The class of volumes that nobody makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Labels of volumes that tell the zone or region of a node that can have them.
const ZONES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
/// What stands between the zones of a volume that is in several.
const ZONE_DELIMITER: &str = "__";

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    /// The claim's name.
    pub name: String,
    /// Whether it is the pod's own.
    pub ephemeral: bool,
}

impl ClaimUse {
    /// The claims of a pod, in the order of its volumes.
    pub(crate) fn of(pod: &Pod) -> Vec<Self> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        volumes
            .iter()
            .filter_map(|v| {
                let ephemeral = v.persistent_volume_claim.is_none();
                Some(Self { name: claim_of(v, name)?, ephemeral })
            })
            .collect()
    }
}

/// What the volumes of a pod ask of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volumes {
    /// Where those can be had that its claims are bound to.
    bound: Vec<Place>,
    /// Claims that are bound when the pod has a node, the smallest first.
    unbound: Vec<Unbound>,
    /// A label, and the values of which a node must have one.
    zones: Vec<(String, BTreeSet<String>)>,
    /// Whether a claim is bound to a volume that is not there.
    lost: bool,
    /// Claims that only one pod may use.
    exclusive: Vec<Exclusive>,
    /// Those of drivers; `None` if there are none, or no node limits their number.
    attached: Option<Attached>,
}

/// A claim that only one pod may use.
#[derive(Clone, Debug, PartialEq)]
struct Exclusive {
    claim: Key,
    /// The nodes with pods that use it, by name.
    nodes: BTreeSet<String>,
}

/// The volumes of drivers that a pod brings along.
#[derive(Clone, Debug, PartialEq)]
struct Attached {
    /// Its own.
    own: BTreeSet<Attachment>,
    /// Those of all claims.
    all: Arc<Attachments>,
}

/// On which nodes a volume can be had: on all, or on those that match a term.
type Place = Option<Vec<NodeTerm>>;

/// A claim that is bound when its pod has a node.
#[derive(Clone, Debug, PartialEq)]
struct Unbound {
    claim: Key,
    /// The only node for which it may still be provisioned.
    selected: Option<String>,
    /// Volumes that would serve, best first.
    candidates: Vec<(String, Place)>,
    /// Whether somebody makes volumes of its class, and in which topologies.
    made: Option<Vec<TopologySelectorTerm>>,
}

/// What is done for a claim when its pod goes to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// The volume is given to it.
    Volume(String),
    /// A volume is made for it there.
    Provision,
}

/// Why a pod cannot be scheduled whatever the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

/// Why a node cannot have a pod's volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// A volume that is bound is elsewhere.
    Affinity,
    /// No volume is free for a claim, and none can be made.
    Binding,
    /// A volume that is bound is not there.
    Missing,
}

impl Volumes {
    /// What a pod asks for; `users` tells the nodes with pods that use a claim, `taken` of volumes
    /// that were given to other pods' claims.
    pub(crate) fn of(
        cache: &Cache,
        pod: &Key,
        uid: &str,
        claims: &[ClaimUse],
        users: &dyn Fn(&Key) -> BTreeSet<String>,
        taken: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Refusal> {
        let mut all = Self::default();
        let mut immediate = false;
        let mut delayed = Vec::new();
        for used in claims {
            let claim = find(cache, pod, uid, used)?;
            let spec = claim.spec.as_ref();
            let modes = spec.and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
            if modes.iter().any(|mode| mode == READ_WRITE_ONCE_POD) {
                let claim = Key::new(Kind::PersistentVolumeClaim, &pod.namespace, &used.name);
                all.exclusive.push(Exclusive { nodes: users(&claim), claim });
            }
            if volume::is_fully_bound(claim) {
                match cache.get::<PersistentVolume>("", volume_name(claim)) {
                    Some(found) => all.add_bound(found),
                    None => all.lost = true,
                }
                continue;
            }
            let name = volume::class_of_claim(claim).unwrap_or_default();
            let class = cache.get::<StorageClass>("", name);
            match class.filter(|class| volume::waits_for_consumer(class)) {
                Some(class) if volume_name(claim).is_empty() => delayed.push((claim, class)),
                _ => immediate = true,
            }
        }
        if immediate {
            return Err(Refusal("pod has unbound immediate PersistentVolumeClaims".to_owned()));
        }
        delayed.sort_by_key(|(claim, _)| (volume::requested(claim), claim.metadata.name.clone()));
        all.unbound =
            delayed.into_iter().map(|(c, class)| unbound(cache, c, class, taken)).collect();
        Ok(all)
    }

    fn add_bound(&mut self, found: &PersistentVolume) {
        self.bound.push(place(found));
        let labels = found.metadata.labels.as_ref();
        for key in ZONES {
            let Some(value) = labels.and_then(|labels| labels.get(key)) else { continue };
            let zones = value.split(ZONE_DELIMITER).map(|z| z.trim().to_owned()).collect();
            self.zones.push((key.to_owned(), zones));
        }
    }

    /// Whether nothing is left to be bound.
    pub(crate) fn is_bound(&self) -> bool {
        self.unbound.is_empty()
    }

    /// Whether another pod uses a claim that only one pod may use. Those that shall leave the node
    /// are not on it any more.
    pub(crate) fn are_in_use(&self, node: &NodeInfo) -> bool {
        self.exclusive.iter().any(|Exclusive { claim, nodes }| {
            node.claims.contains_key(claim) || nodes.iter().any(|other| *other != node.name)
        })
    }

    /// Those, with what its claims stand for.
    pub(crate) fn limited(self, claims: &[Key], all: Arc<Attachments>) -> Self {
        let own: BTreeSet<_> = claims.iter().filter_map(|claim| all.of(claim)).cloned().collect();
        let attached = (!own.is_empty()).then_some(Attached { own, all });
        Self { attached, ..self }
    }

    /// Whether the node would have more volumes of some driver than it takes. A volume counts once,
    /// however many pods there use it.
    pub(crate) fn are_too_many(&self, node: &NodeInfo) -> bool {
        let Some(Attached { own, all }) = &self.attached else { return false };
        let limited = |a: &&Attachment| node.volume_limits.contains_key(&a.driver);
        let new: Vec<&Attachment> = own.iter().filter(limited).collect();
        if new.is_empty() {
            return false;
        }
        let there: BTreeSet<&Attachment> =
            node.claims.keys().filter_map(|claim| all.of(claim)).collect();
        let new: Vec<&Attachment> = new.into_iter().filter(|a| !there.contains(a)).collect();
        let exceeds = |(driver, limit): (&String, &usize)| {
            let new = new.iter().filter(|a| a.driver == *driver).count();
            let there = there.iter().filter(|a| a.driver == *driver).count();
            new > 0 && there + new > *limit
        };
        node.volume_limits.iter().any(exceeds)
    }

    /// Whether the node is in the zones of all volumes; one that tells no zone is in any.
    pub(crate) fn is_in_zone(&self, node: &NodeInfo) -> bool {
        if !ZONES.iter().any(|key| node.labels.contains_key(*key)) {
            return true;
        }
        self.zones.iter().all(|(key, zones)| {
            // Old and new labels mean the same.
            let value = node.labels.get(key).or_else(|| node.labels.get(&renamed(key)));
            value.is_some_and(|value| zones.contains(value))
        })
    }

    /// What is done for each claim that is not bound when the pod goes to the node.
    pub(crate) fn on(&self, node: &NodeInfo) -> Result<Vec<(Key, Binding)>, Conflict> {
        if self.lost {
            return Err(Conflict::Missing);
        }
        if !self.bound.iter().all(|place| is_there(place, node)) {
            return Err(Conflict::Affinity);
        }
        let mut given: BTreeSet<&str> = BTreeSet::new();
        let mut bindings = Vec::new();
        for unbound in &self.unbound {
            let binding = unbound.on(node, &given).ok_or(Conflict::Binding)?;
            if let Some((name, binding)) = binding {
                given.insert(name);
                bindings.push((unbound.claim.clone(), binding));
            } else {
                bindings.push((unbound.claim.clone(), Binding::Provision));
            }
        }
        Ok(bindings)
    }
}

impl Unbound {
    /// The volume that is given to the claim on the node; `Some(None)` if one is made.
    fn on<'a>(
        &'a self,
        node: &NodeInfo,
        given: &BTreeSet<&str>,
    ) -> Option<Option<(&'a str, Binding)>> {
        if let Some(selected) = &self.selected {
            // Somebody is making a volume for that node.
            return (*selected == node.name).then_some(None);
        }
        let free = |(name, place): &&(String, Place)| {
            !given.contains(name.as_str()) && is_there(place, node)
        };
        if let Some((name, _)) = self.candidates.iter().find(free) {
            return Some(Some((name, Binding::Volume(name.clone()))));
        }
        let terms = self.made.as_ref()?;
        let here = terms.is_empty() || terms.iter().any(|term| is_in(term, node));
        here.then_some(None)
    }
}

/// The claim, if the pod may use it.
fn find<'a>(
    cache: &'a Cache,
    pod: &Key,
    uid: &str,
    used: &ClaimUse,
) -> Result<&'a PersistentVolumeClaim, Refusal> {
    let name = &used.name;
    let Some(claim) = cache.get::<PersistentVolumeClaim>(&pod.namespace, name) else {
        return Err(Refusal(if used.ephemeral {
            format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                 {name:?}"
            )
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        }));
    };
    if claim_phase(claim) == "Lost" {
        let lost = volume_name(claim);
        return Err(Refusal(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {lost:?}"
        )));
    }
    if meta::is_terminating(&claim.metadata) {
        return Err(Refusal(format!("persistentvolumeclaim {name:?} is being deleted")));
    }
    let owner = meta::controller_of(&claim.metadata).map(|owner| owner.uid.as_str());
    if used.ephemeral && owner != Some(uid) {
        let namespace = &pod.namespace;
        return Err(Refusal(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
            pod.name
        )));
    }
    Ok(claim)
}

fn unbound(
    cache: &Cache,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    taken: &dyn Fn(&str) -> bool,
) -> Unbound {
    let volumes = cache.list::<PersistentVolume>();
    let found = candidates(claim, volumes, false, taken);
    let candidates: Vec<(String, Place)> = found
        .iter()
        .map(|found| (found.metadata.name.clone().unwrap_or_default(), place(found)))
        .collect();
    // A volume that names the claim already is the only one.
    let reserved = found.iter().any(|found| volume::is_bound_to(found, claim));
    let makes = !reserved && class.provisioner != NO_PROVISIONER;
    let selected = meta::annotation(&claim.metadata, SELECTED_NODE).filter(|_| !reserved);
    let key = Key::new(
        Kind::PersistentVolumeClaim,
        claim.metadata.namespace.as_deref().unwrap_or_default(),
        claim.metadata.name.as_deref().unwrap_or_default(),
    );
    Unbound {
        claim: key,
        selected: selected.map(str::to_owned),
        candidates,
        made: makes.then(|| class.allowed_topologies.clone().unwrap_or_default()),
    }
}

/// Where a volume can be had. A term that cannot be understood matches nothing.
fn place(found: &PersistentVolume) -> Place {
    let wanted = found.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    Some(wanted.node_selector_terms.iter().filter_map(NodeTerm::parse).collect())
}

fn is_there(place: &Place, node: &NodeInfo) -> bool {
    place.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
}

fn is_in(term: &TopologySelectorTerm, node: &NodeInfo) -> bool {
    term.match_label_expressions
        .iter()
        .flatten()
        .all(|wanted| node.labels.get(&wanted.key).is_some_and(|v| wanted.values.contains(v)))
}

/// What an old label of zones is called today.
fn renamed(key: &str) -> String {
    key.replace("failure-domain.beta.kubernetes.io", "topology.kubernetes.io")
}

/// What changed of claims, volumes and classes: the writes by which a pod's claims get their
/// volumes on a node.
pub(crate) fn writes(
    cache: &Cache,
    node: &str,
    bindings: &[(Key, Binding)],
) -> Option<Vec<Object>> {
    let mut objects = Vec::new();
    for (key, binding) in bindings {
        let claim = cache.object(key)?.get::<PersistentVolumeClaim>()?;
        match binding {
            Binding::Volume(name) => {
                let found = cache.get::<PersistentVolume>("", name)?;
                objects.extend(given(found, claim));
            }
            Binding::Provision => {
                if meta::annotation(&claim.metadata, SELECTED_NODE) != Some(node) {
                    let mut claim = claim.clone();
                    let annotations = claim.metadata.annotations.get_or_insert_default();
                    annotations.insert(SELECTED_NODE.to_owned(), node.to_owned());
                    objects.push(Object::PersistentVolumeClaim(Arc::new(claim)));
                }
            }
        }
    }
    Some(objects)
}

/// The volume as it is when it names the claim; `None` if it does.
fn given(found: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Object> {
    let held = volume::claim_ref(found);
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    if held.is_some_and(|held| volume::uid_of(held) == uid) {
        return None;
    }
    let mut found = found.clone();
    if held.is_none() {
        let annotations: &mut BTreeMap<_, _> = found.metadata.annotations.get_or_insert_default();
        annotations.insert(volume::BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    found.spec.get_or_insert_default().claim_ref = Some(volume::reference(claim));
    Some(Object::PersistentVolume(Arc::new(found)))
}
