//! Pods that were lost or came back, and who could know.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Request, Revision, Subresource};

use super::numbers::{SetRow, Sets};
use super::plans::{DeploymentPlans, PodPlans, name_of};
use crate::check::{Cluster, Occurrence, Role};
use crate::checks::brood::{Life, Lives, replicas};
use crate::world::ProcessId;

/// How far pods were seen, by UID of the replica set.
pub(super) type Seen = BTreeMap<String, Revision>;

/// Reports of one replica set that are remembered.
pub(super) const REPORTS_MAX: usize = 64;

/// Pods that were lost, and how much of that was known to a deployment's controller when it took
/// pods from a replica set: it counts what replica sets report, and those report what their
/// controller had seen of the pods. The same of pods that became available: whoever takes a pod
/// that is not available from a replica set may find none there any more.
#[derive(Clone, Default)]
pub(super) struct Losses {
    /// How far pods were seen for a report, by the call that is under way.
    pub(super) asked: BTreeMap<(ProcessId, Key, String), Revision>,
    /// The same for what was written, by revision of the report.
    pub(super) reports: BTreeMap<String, BTreeMap<Revision, Revision>>,
    pub(super) plans: DeploymentPlans<Seen>,
    /// What was known when a replica set was last made smaller, by its UID.
    pub(super) shrunk: BTreeMap<String, Seen>,
    /// Pods that were available and are not any more: of which replica set, and since when.
    pub(super) lost: BTreeMap<Key, (String, Revision)>,
    /// Pods that became available: of which replica set, and since when.
    pub(super) gained: BTreeMap<Key, (String, Revision)>,
}

impl Losses {
    /// Takes in what happened, before the plans for pods do.
    pub(super) fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        sets: &Sets,
        pods: &PodPlans,
        lives: &Lives,
    ) {
        self.plans.observe(cluster, occurrence, lives);
        match occurrence {
            Occurrence::Called { by, request: Request::Update { object, subresource } }
                if cluster.role(*by) == Role::ControllerManager =>
            {
                let life = lives.of(*by);
                match (object.kind(), subresource) {
                    (Kind::ReplicaSet, Some(Subresource::Status)) => {
                        let seen = pods.seen(cluster.now(), life, object.uid());
                        self.asked.insert(name_of(*by, object), seen);
                    }
                    (Kind::ReplicaSet, None) => self.resizes(cluster, life, object, sets),
                    _ => {}
                }
            }
            Occurrence::Answered {
                by: Some(by), request: Request::Update { object, .. }, ..
            } => {
                self.asked.remove(&name_of(*by, object));
            }
            Occurrence::Committed { by, key, old, new, request, revision }
                if key.kind == Kind::ReplicaSet =>
            {
                self.reported(*by, request, *revision);
                if let (Some(old), None) = (old, new) {
                    self.forget(old);
                }
            }
            _ => {}
        }
    }

    /// A deployment's controller asks for another number of pods, or the like.
    pub(super) fn resizes(&mut self, cluster: &dyn Cluster, by: Life, set: &Object, sets: &Sets) {
        let Some((deployment, _)) = sets.deployment_of.get(set.uid()) else { return };
        let key = set.key();
        let knew = self.plans.knew(cluster.now(), by, deployment, &key, || {
            let seen = |(uid, row): (&String, &SetRow)| {
                let known = cluster.known(by.0, &row.key).filter(|o| o.uid() == uid);
                let report = known
                    .and_then(|set| self.reports.get(uid)?.range(..=set.revision()).next_back());
                (uid.clone(), report.map(|(_, seen)| *seen).unwrap_or_default())
            };
            sets.rows(deployment).map(seen).collect()
        });
        if replicas(set) < cluster.known(by.0, &key).and_then(replicas) {
            self.shrunk.insert(set.uid().to_owned(), knew.clone());
        }
    }

    pub(super) fn reported(
        &mut self,
        by: Option<ProcessId>,
        request: &Request,
        revision: Revision,
    ) {
        let Request::Update { object: set, subresource: Some(Subresource::Status) } = request
        else {
            return;
        };
        let Some(seen) = by.and_then(|by| self.asked.remove(&name_of(by, set))) else { return };
        let reports = self.reports.entry(set.uid().to_owned()).or_default();
        reports.insert(revision, seen);
        if reports.len() > REPORTS_MAX {
            reports.pop_first();
        }
    }

    /// Forgets a replica set that is gone.
    pub(super) fn forget(&mut self, set: &Object) {
        let key = set.key();
        self.asked.retain(|(_, of, _), _| *of != key);
        self.reports.remove(set.uid());
        self.shrunk.remove(set.uid());
        self.lost.retain(|_, (of, _)| of != set.uid());
        self.gained.retain(|_, (of, _)| of != set.uid());
    }

    /// How many pods were lost without being known to be when a replica set was made smaller, and
    /// how many of its own were not known to be available.
    pub(super) fn unknown(&self, set: &str) -> i64 {
        let Some(seen) = self.shrunk.get(set) else { return 0 };
        let unknown = |(of, at): &&(String, Revision)| seen.get(of).is_some_and(|seen| at > seen);
        let gained = self.gained.values().filter(|(of, _)| of == set).filter(unknown);
        let count = self.lost.values().filter(unknown).count() + gained.count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}
