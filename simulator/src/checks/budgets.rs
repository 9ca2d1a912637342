//! Disruption budgets: P44.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Request, Subresource, Time};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::brood::replicas;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, sets};
use crate::plan::{Component, Fault, Plan};
use crate::world::ProcessId;

/// What a controller manager knew when it counted the pods of a budget.
#[derive(Clone, Default)]
struct Counted {
    /// UIDs of the pods that were there to rely on.
    healthy: BTreeSet<String>,
    /// How many of them must stay.
    desired: i64,
}

/// P44: evictions never leave a budget with fewer pods than it asks for.
///
/// What is lost by another cause is nobody's fault, and the controller learns of it late: so a
/// grant is judged by the pods that the controller knew when it last counted them, less those whose
/// eviction was granted. One that was granted counts for two minutes: a pod that is still there
/// then stays.
#[derive(Clone)]
pub(super) struct BudgetsHold {
    /// What was known to whom wrote the status, for each budget that a write of is under way.
    asked: BTreeMap<(ProcessId, Key), Counted>,
    counted: BTreeMap<Key, Counted>,
    /// Pods whose eviction was granted, by UID, and when.
    granted: BTreeMap<String, Time>,
    /// How far the clocks of controller managers may be ahead.
    skew: Duration,
}

impl BudgetsHold {
    pub(super) fn new(plan: &Plan) -> Self {
        let ahead = |fault: &Fault| match fault {
            Fault::ClockSkew { component: Component::ControllerManager(_), ahead } => ahead.0,
            _ => 0,
        };
        let skew = plan.faults.iter().map(|f| ahead(&f.fault)).max().unwrap_or(0);
        Self {
            asked: BTreeMap::new(),
            counted: BTreeMap::new(),
            granted: BTreeMap::new(),
            skew: Duration::from_nanos(skew),
        }
    }

    fn is_granted(&self, uid: &str, now: Time) -> bool {
        self.granted.get(uid).is_some_and(|at| sets::is_still_believed(*at, now + self.skew))
    }

    /// Judges that the API server lets a pod be evicted.
    fn grants(&mut self, cluster: &dyn Cluster, key: &Key) -> Option<String> {
        let object = cluster.object(key)?;
        let pod = object.get::<Pod>()?;
        let labels = pod.metadata.labels.as_ref();
        let budgets = cluster.objects(Kind::PodDisruptionBudget);
        let mine = budgets.filter(|o| o.key().namespace == key.namespace).find(|o| {
            let budget = o.get::<PodDisruptionBudget>();
            budget.is_some_and(|budget| selects(budget, labels))
        });
        // What does not run yet, or no more, nobody relies on.
        let counts = oracle::phase(pod) == "Running" && oracle::is_active(pod);
        let budget = mine.filter(|_| counts && oracle::is_ready(pod))?;
        let now = cluster.now();
        // A pod that is gone may still be among those that were counted.
        self.granted.retain(|_, at| sets::is_still_believed(*at, now));
        self.granted.insert(object.uid().to_owned(), now);
        let counted = self.counted.get(&budget.key())?;
        let left = counted.healthy.iter().filter(|uid| !self.is_granted(uid, now)).count();
        let (left, desired) = (i64::try_from(left).unwrap_or(i64::MAX), counted.desired);
        (left < desired).then(|| {
            let budget = budget.key();
            format!("{key} may be evicted, which leaves {budget} {left} healthy pods of {desired}")
        })
    }
}

fn selects(budget: &PodDisruptionBudget, labels: Option<&BTreeMap<String, String>>) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|selector| oracle::selects(selector, labels))
}

/// How many pods the owner of a pod asks for, under the UID of whoever says it.
fn scale<'a>(find: &dyn Fn(&Key) -> Option<&'a Object>, pod: &Pod) -> Option<(&'a str, i64)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let owner = |meta: &ObjectMeta| {
        let mut owners = meta.owner_references.iter().flatten();
        let owner = owners.find(|o| o.controller == Some(true))?;
        let kind = Kind::of_manifest(&owner.api_version, &owner.kind)?;
        find(&Key::new(kind, namespace, &owner.name)).filter(|o| o.uid() == owner.uid)
    };
    let object = owner(&pod.metadata)?;
    let asks = |n: Option<i32>| i64::from(n.unwrap_or(1));
    match object {
        Object::StatefulSet(_) => {
            let set = object.get::<StatefulSet>()?;
            Some((object.uid(), asks(set.spec.as_ref()?.replicas)))
        }
        Object::ReplicaSet(set) => match owner(&set.metadata) {
            Some(above) => {
                let deployment = above.get::<Deployment>()?;
                Some((above.uid(), asks(deployment.spec.as_ref()?.replicas)))
            }
            None => Some((object.uid(), replicas(object)?)),
        },
        _ => Some((object.uid(), replicas(object)?)),
    }
}

/// What a budget asks for, and its pods; `None` when nobody can tell what it asks for.
struct Demand<'a> {
    pods: Vec<&'a Pod>,
    expected: i64,
    desired: i64,
}

impl<'a> Demand<'a> {
    fn of(
        budget: &PodDisruptionBudget,
        pods: impl Iterator<Item = &'a Object>,
        find: &dyn Fn(&Key) -> Option<&'a Object>,
    ) -> Option<Self> {
        let namespace = &budget.metadata.namespace;
        let pods: Vec<&Pod> = pods
            .filter_map(Object::get::<Pod>)
            .filter(|pod| pod.metadata.namespace == *namespace)
            .filter(|pod| selects(budget, pod.metadata.labels.as_ref()))
            .collect();
        let spec = budget.spec.as_ref()?;
        let of_owners = || {
            let mut owners: BTreeMap<&str, i64> = BTreeMap::new();
            for pod in &pods {
                let (uid, replicas) = scale(find, pod)?;
                owners.insert(uid, replicas);
            }
            Some(owners.into_values().sum::<i64>())
        };
        let (expected, desired) = match (&spec.min_available, &spec.max_unavailable) {
            (_, Some(most)) => {
                let expected = of_owners()?;
                (expected, (expected - sets::share(most, expected)).max(0))
            }
            (Some(least @ IntOrString::Int(_)), None) => {
                (i64::try_from(pods.len()).unwrap_or(i64::MAX), sets::share(least, 0))
            }
            (Some(least), None) => {
                let expected = of_owners()?;
                (expected, sets::share(least, expected))
            }
            (None, None) => return None,
        };
        Some(Self { pods, expected, desired })
    }

    /// The pods that can be relied on.
    fn healthy(&self, budget: &PodDisruptionBudget) -> Vec<&'a Pod> {
        let status = budget.status.as_ref();
        let noted = status.and_then(|s| s.disrupted_pods.as_ref());
        let goes = |pod: &Pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            oracle::is_going(&pod.metadata) || noted.is_some_and(|n| n.contains_key(name))
        };
        self.pods.iter().copied().filter(|pod| oracle::is_ready(pod) && !goes(pod)).collect()
    }
}

/// The budget whose status is to be written.
fn status_of(request: &Request) -> Option<Key> {
    let key = match request {
        Request::Update { object, subresource: Some(Subresource::Status) } => object.key(),
        Request::Patch { key, subresource: Some(Subresource::Status), .. } => key.clone(),
        _ => return None,
    };
    (key.kind == Kind::PodDisruptionBudget).then_some(key)
}

impl Check for BudgetsHold {
    fn property(&self) -> &'static str {
        "P44"
    }

    fn statement(&self) -> &'static str {
        "evictions leave every budget the pods that it asks for"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::EvictionGranted { pod } => found.extend(self.grants(cluster, pod)),
            Occurrence::Called { by, request } if cluster.role(*by) == Role::ControllerManager => {
                let Some(key) = status_of(request) else { return };
                // What it has counted is what it knows, whatever it makes of it.
                let find = |key: &Key| cluster.known(*by, key);
                let known = find(&key).and_then(Object::get::<PodDisruptionBudget>);
                let pods = cluster.all_known(*by, Kind::Pod).unwrap_or_default();
                let Some(budget) = known else { return };
                let Some(demand) = Demand::of(budget, pods.into_iter(), &find) else { return };
                let stays = |pod: &&Pod| oracle::is_ready(pod) && !oracle::is_going(&pod.metadata);
                let healthy = demand.pods.iter().copied().filter(stays);
                let healthy = healthy.filter_map(|pod| pod.metadata.uid.clone()).collect();
                let counted = Counted { healthy, desired: demand.desired };
                self.asked.insert((*by, key), counted);
            }
            Occurrence::Committed { key, new: None, .. } => {
                self.counted.remove(*key);
            }
            Occurrence::Committed { by: Some(by), key, new: Some(_), .. }
                if key.kind == Kind::PodDisruptionBudget =>
            {
                if let Some(counted) = self.asked.remove(&(*by, (*key).clone())) {
                    self.counted.insert((*key).clone(), counted);
                }
            }
            Occurrence::Answered { by: Some(by), request, refusal: Some(_) } => {
                if let Some(key) = status_of(request) {
                    self.asked.remove(&(*by, key));
                }
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let find = |key: &Key| cluster.object(key);
        for object in cluster.objects(Kind::PodDisruptionBudget) {
            let Some(budget) = object.get::<PodDisruptionBudget>() else { continue };
            let (Some(status), Some(demand)) =
                (&budget.status, Demand::of(budget, cluster.objects(Kind::Pod), &find))
            else {
                continue;
            };
            let healthy = i64::try_from(demand.healthy(budget).len()).unwrap_or(i64::MAX);
            let spare = if demand.expected > 0 { (healthy - demand.desired).max(0) } else { 0 };
            for (what, says, is) in [
                ("healthy pods", status.current_healthy, healthy),
                ("wanted pods", status.desired_healthy, demand.desired),
                ("disruptions", status.disruptions_allowed, spare),
            ] {
                if i64::from(says) != is {
                    let key = object.key();
                    found.push(format!("{key} reports {says} {what} at rest, and {is} is right"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
