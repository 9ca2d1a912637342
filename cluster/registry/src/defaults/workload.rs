//! Defaults of replication controllers, replica sets, deployments, daemon sets and stateful sets.

use api::quantity::QuantityError;
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetUpdateStrategy, Deployment, DeploymentStrategy, ReplicaSet, StatefulSet,
    StatefulSetSpec,
};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::template;
use super::{drop_blank, drop_empty_map, drop_false, storage, text};

/// Old replica sets or controller revisions that are kept for a rollback.
const REVISION_HISTORY: i32 = 10;
/// Seconds after which a rollout without progress has failed.
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

pub(super) fn replication_controller(rc: &mut ReplicationController) -> Result<(), QuantityError> {
    let spec = rc.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    drop_zero(&mut spec.min_ready_seconds);
    drop_empty_map(&mut spec.selector);
    if let Some(pod) = &mut spec.template {
        template(pod)?;
        let labels = pod.metadata.as_ref().and_then(|m| m.labels.as_ref());
        if spec.selector.is_none() {
            spec.selector = labels.cloned();
        }
        if rc.metadata.labels.is_none() {
            rc.metadata.labels = labels.cloned();
        }
    }
    rc.status.get_or_insert_default();
    Ok(())
}

pub(super) fn replica_set(set: &mut ReplicaSet) -> Result<(), QuantityError> {
    let spec = set.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    drop_zero(&mut spec.min_ready_seconds);
    template(spec.template.get_or_insert_default())?;
    set.status.get_or_insert_default();
    Ok(())
}

pub(super) fn deployment(deployment: &mut Deployment) -> Result<(), QuantityError> {
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY);
    spec.progress_deadline_seconds.get_or_insert(PROGRESS_DEADLINE_SECONDS);
    drop_zero(&mut spec.min_ready_seconds);
    drop_false(&mut spec.paused);
    strategy(spec.strategy.get_or_insert_default());
    template(&mut spec.template)?;
    deployment.status.get_or_insert_default();
    Ok(())
}

fn strategy(strategy: &mut DeploymentStrategy) {
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        let quarter = || IntOrString::String("25%".to_owned());
        rolling.max_surge.get_or_insert_with(quarter);
        rolling.max_unavailable.get_or_insert_with(quarter);
    }
}

pub(super) fn daemon_set(set: &mut DaemonSet) -> Result<(), QuantityError> {
    let spec = set.spec.get_or_insert_default();
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY);
    drop_zero(&mut spec.min_ready_seconds);
    update_strategy(spec.update_strategy.get_or_insert_default());
    template(&mut spec.template)?;
    set.status.get_or_insert_default();
    Ok(())
}

fn update_strategy(strategy: &mut DaemonSetUpdateStrategy) {
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        rolling.max_surge.get_or_insert(IntOrString::Int(0));
    }
}

pub(super) fn stateful_set(set: &mut StatefulSet) -> Result<(), QuantityError> {
    let spec = set.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY);
    text(&mut spec.pod_management_policy, "OrderedReady");
    drop_zero(&mut spec.min_ready_seconds);
    drop_blank(&mut spec.service_name);
    if spec.volume_claim_templates.as_ref().is_some_and(Vec::is_empty) {
        spec.volume_claim_templates = None;
    }
    spec.volume_claim_templates.iter_mut().flatten().try_for_each(storage::claim)?;
    if let Some(ordinals) = &mut spec.ordinals {
        ordinals.start.get_or_insert(0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    text(&mut retention.when_deleted, "Retain");
    text(&mut retention.when_scaled, "Retain");
    partition(spec);
    template(&mut spec.template)?;
    // Unlike other kinds, this one tells that none is available.
    set.status.get_or_insert_default().available_replicas.get_or_insert(0);
    Ok(())
}

/// Only who names no strategy gets the parameters of the default one.
fn partition(spec: &mut StatefulSetSpec) {
    let strategy = spec.update_strategy.get_or_insert_default();
    if strategy.type_.as_ref().is_none_or(String::is_empty) {
        strategy.rolling_update.get_or_insert_default();
    }
    text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate")
        && let Some(rolling) = &mut strategy.rolling_update
    {
        rolling.partition.get_or_insert(0);
    }
}

fn drop_zero(number: &mut Option<i32>) {
    if *number == Some(0) {
        *number = None;
    }
}
