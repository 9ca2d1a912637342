//! Deployments and their replica sets as far as numbers go.

use std::collections::BTreeMap;

use api::{Key, Kind, Object};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::check::Cluster;
use crate::checks::brood::{Broods, replicas};
use crate::oracle;

/// How many pods there may and must be while a deployment rolls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) replicas: i64,
    /// With the surge, rounded up.
    pub(super) most: i64,
    /// Available ones, unavailability rounded down.
    pub(super) least: i64,
}

impl Bounds {
    /// The bounds of a rolling update; `None` for other strategies.
    pub(super) fn of(deployment: &Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()).is_some_and(|t| t != "RollingUpdate") {
            return None;
        }
        let replicas = i64::from(spec.replicas.unwrap_or(1).max(0));
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let resolve = |given: Option<&IntOrString>, up: i64| match given {
            Some(IntOrString::Int(n)) => i64::from(*n),
            Some(IntOrString::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                (replicas * percent + up) / 100
            }
            None => (replicas * 25 + up) / 100,
        };
        let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), 99);
        let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), 0);
        // With neither nothing could ever move: one may then be unavailable.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        let least = (replicas - unavailable).max(0);
        Some(Self { replicas, most: replicas + surge, least })
    }
}

/// One replica set of a deployment, as far as numbers go.
#[derive(Clone)]
pub(super) struct SetRow {
    pub(super) key: Key,
    pub(super) replicas: i64,
    /// Whether its controller has seen its present size.
    pub(super) observed: bool,
    /// Available pods, as its controller reports them.
    pub(super) available: i64,
}

/// The replica sets of each deployment, by UIDs.
#[derive(Clone, Default)]
pub(super) struct Sets {
    pub(super) of: BTreeMap<String, BTreeMap<String, SetRow>>,
    pub(super) deployment_of: BTreeMap<String, (String, Key)>,
}

impl Sets {
    /// Takes in a write of a replica set; returns the UID of its deployment.
    pub(super) fn committed(
        &mut self,
        old: Option<&Object>,
        new: Option<&Object>,
    ) -> Option<String> {
        let latest = new.or(old)?;
        let set = latest.get::<ReplicaSet>()?;
        let owner = oracle::controller(&set.metadata).map(str::to_owned);
        let gone = new.is_none() || owner.is_none();
        let known = self.deployment_of.get(latest.uid()).map(|(uid, _)| uid.clone());
        if let Some(before) = known.filter(|uid| gone || owner.as_ref() != Some(uid)) {
            self.deployment_of.remove(latest.uid());
            if let Some(sets) = self.of.get_mut(&before) {
                sets.remove(latest.uid());
            }
        }
        let deployment = owner.filter(|_| new.is_some())?;
        let owners = set.metadata.owner_references.iter().flatten();
        let name = owners.into_iter().find(|o| o.uid == deployment).map(|o| o.name.clone())?;
        let key = latest.key();
        let owner_key = Key::new(Kind::Deployment, &key.namespace, &name);
        let status = set.status.as_ref();
        let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
        let row = SetRow {
            key,
            replicas: replicas(latest).unwrap_or(0),
            observed: observed >= set.metadata.generation.unwrap_or(0),
            available: status.and_then(|s| s.available_replicas).unwrap_or(0).into(),
        };
        self.of.entry(deployment.clone()).or_default().insert(latest.uid().to_owned(), row);
        self.deployment_of.insert(latest.uid().to_owned(), (deployment.clone(), owner_key));
        Some(deployment)
    }

    pub(super) fn rows(&self, deployment: &str) -> impl Iterator<Item = (&String, &SetRow)> {
        self.of.get(deployment).into_iter().flatten()
    }

    /// What the replica sets of a deployment ask for together.
    pub(super) fn sum(&self, deployment: &str) -> i64 {
        self.rows(deployment).map(|(_, row)| row.replicas).sum()
    }

    pub(super) fn pods(&self, deployment: &str, broods: &Broods) -> i64 {
        self.rows(deployment).map(|(uid, _)| broods.size(uid)).sum()
    }

    /// How many pods there will be when all replica sets have what they ask for, if none of them
    /// gives up a pod meanwhile.
    pub(super) fn pods_to_come(&self, deployment: &str, broods: &Broods) -> i64 {
        self.rows(deployment).map(|(uid, row)| broods.size(uid).max(row.replicas)).sum()
    }

    /// How many pods the replica sets have that they do not ask for.
    pub(super) fn surplus(&self, deployment: &str, broods: &Broods) -> i64 {
        self.rows(deployment).map(|(uid, row)| (broods.size(uid) - row.replicas).max(0)).sum()
    }

    /// Whether some replica set reports more available pods than it has.
    pub(super) fn boasts(&self, cluster: &dyn Cluster, deployment: &str, broods: &Broods) -> bool {
        self.rows(deployment).any(|(uid, row)| {
            let ready = |k: &&Key| oracle::pod(cluster.object(k)).is_some_and(oracle::is_ready);
            let ready = broods.of(uid).filter(ready).count();
            row.available > i64::try_from(ready).unwrap_or(i64::MAX)
        })
    }

    pub(super) fn available(
        &self,
        cluster: &dyn Cluster,
        deployment: &str,
        broods: &Broods,
    ) -> i64 {
        let keys = self.rows(deployment).flat_map(|(uid, _)| broods.of(uid));
        let ready = keys.filter(|k| oracle::pod(cluster.object(k)).is_some_and(oracle::is_ready));
        i64::try_from(ready.count()).unwrap_or(i64::MAX)
    }
}

/// The deployment of that key and UID, if it is not going.
pub(super) fn living<'a>(cluster: &'a dyn Cluster, key: &Key, uid: &str) -> Option<&'a Deployment> {
    let object = cluster.object(key).filter(|o| o.uid() == uid)?;
    object.get().filter(|d: &&Deployment| !oracle::is_going(&d.metadata))
}

/// Whether the deployment's controller has seen what is asked for now.
pub(super) fn is_observed(deployment: &Deployment) -> bool {
    let observed = deployment.status.as_ref().and_then(|s| s.observed_generation);
    observed.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}
