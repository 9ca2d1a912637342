//! What users do: the plan's operations, carried out as the administrator.
//!
//! A user's client reads, changes and writes at one moment, so it never conflicts; what is
//! refused because the cluster is not ready for it is tried again for a while.

use std::sync::Arc;

use api::{
    ApiObject, Key, Kind, Object, Patch, PatchKind, Propagation, Reason, Request, Shared, Status,
    Time,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, PodSpec, PodTemplateSpec};
use kubelet::container_runtime::ContainerRuntime;
use registry::priority_class::{USER_VALUE_MAX, system_classes};
use registry::{Caller, Operation as Write};
use serde_json::{Value, json};

use super::{Event, Phase, PlanError, World, at, objects, priority};
use crate::plan::{Operation, Plan, Target};
use crate::span::Span;

/// How often, and how far apart, an operation is tried that the cluster is not ready for.
const RETRIES: u32 = 600;
const RETRY: Span = Span::secs(1);

/// Operations that were given up are named in the outcome; more are counted only.
const GIVEN_UP_NAMED: usize = 20;

/// Operations that users stopped trying.
#[derive(Clone, Default)]
pub(super) struct GivenUp {
    pub(super) count: u64,
    /// What, when and why.
    pub(super) first: Vec<String>,
}

/// Namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

const fn kind_of(target: Target) -> Kind {
    match target {
        Target::Pod => Kind::Pod,
        Target::Deployment => Kind::Deployment,
        Target::ReplicaSet => Kind::ReplicaSet,
        Target::ReplicationController => Kind::ReplicationController,
        Target::StatefulSet => Kind::StatefulSet,
        Target::DaemonSet => Kind::DaemonSet,
        Target::Job => Kind::Job,
        Target::CronJob => Kind::CronJob,
        Target::HorizontalPodAutoscaler => Kind::HorizontalPodAutoscaler,
        Target::ResourceQuota => Kind::ResourceQuota,
        Target::LimitRange => Kind::LimitRange,
        Target::PersistentVolumeClaim => Kind::PersistentVolumeClaim,
        Target::PodDisruptionBudget => Kind::PodDisruptionBudget,
        Target::Service => Kind::Service,
        Target::Namespace => Kind::Namespace,
        Target::Node => Kind::Node,
    }
}

fn key(target: Target, name: &str) -> Key {
    let kind = kind_of(target);
    if kind.namespaced() {
        let (namespace, name) = objects::split(name);
        Key::new(kind, namespace, name)
    } else {
        Key::cluster(kind, name)
    }
}

pub(super) fn admin() -> Caller {
    Caller {
        name: "kubernetes-admin".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..Caller::default()
    }
}

/// Checks that operations refer to templates that exist, and that there can be classes of their
/// priorities.
pub(super) fn validate(plan: &Plan) -> Result<(), PlanError> {
    let templates = plan.templates.len();
    for (index, template) in plan.templates.iter().enumerate() {
        let (priority, max) = (template.priority, USER_VALUE_MAX);
        if priority > max {
            return Err(PlanError::Range(format!(
                "the pod template with index {index} has priority {priority}, above {max}, the \
                 highest that is not the system's"
            )));
        }
    }
    for planned in &plan.operations {
        let Some(template) = planned.operation.template() else { continue };
        if template as usize >= templates {
            let name = template.to_string();
            return Err(PlanError::Unknown { what: "the pod template with index", name });
        }
    }
    Ok(())
}

pub(super) fn merge(key: Key, body: Value) -> Request {
    Request::Patch {
        key,
        subresource: None,
        patch: Patch { kind: PatchKind::Merge, body: body.into() },
    }
}

/// The object with other pods; `None` if it has none, or none that may change.
fn with_template(object: &Object, pods: PodTemplateSpec) -> Option<Object> {
    fn changed<T: ApiObject + Clone>(
        object: &Object,
        change: impl FnOnce(&mut T) -> Option<()>,
    ) -> Option<Object> {
        let mut typed = object.get::<T>()?.clone();
        change(&mut typed)?;
        Some(typed.into_object())
    }
    match object.kind() {
        Kind::Deployment => changed::<Deployment>(object, |o| {
            o.spec.as_mut()?.template = pods;
            Some(())
        }),
        Kind::StatefulSet => changed::<StatefulSet>(object, |o| {
            o.spec.as_mut()?.template = pods;
            Some(())
        }),
        Kind::DaemonSet => changed::<DaemonSet>(object, |o| {
            o.spec.as_mut()?.template = pods;
            Some(())
        }),
        _ => None,
    }
}

impl World {
    /// What every cluster starts with.
    pub(super) fn bootstrap(&mut self) {
        for name in NAMESPACES {
            let request = Request::Create(objects::namespace(name));
            self.as_admin(&request).expect("the namespaces of an empty store can be created");
        }
        for class in system_classes() {
            let request = Request::Create(class);
            self.as_admin(&request).expect("the classes of an empty store can be created");
        }
    }

    /// Carries out what is due.
    pub(super) fn operate(&mut self) {
        let plan = Arc::clone(&self.plan);
        while let Some(planned) = plan.operations.get(self.next_operation) {
            let due = at(planned.at);
            if due > self.now {
                self.queue.push(due, priority::OPERATION, Event::Operation);
                return;
            }
            let index = u32::try_from(self.next_operation).expect("fewer operations than numbers");
            self.next_operation += 1;
            self.carry_out(index);
        }
    }

    /// Carries out one operation, or sees to it that it is tried again.
    pub(super) fn carry_out(&mut self, index: u32) {
        let plan = Arc::clone(&self.plan);
        let operation = &plan.operations[index as usize].operation;
        if let Operation::Drain { node, timeout } = operation {
            self.drain(index, node, *timeout);
            return;
        }
        let result = match (self.ensure_class(operation), self.request_of(operation)) {
            (Ok(()), Some(request)) => self.as_admin(&request),
            (Err(status), _) => Err(status),
            // What it is about is not there, perhaps not yet.
            (_, None) => {
                let (target, name) = operation.subject();
                Err(Status::not_found(kind_of(target), name))
            }
        };
        let Err(status) = result else {
            self.retries.remove(&index);
            return;
        };
        let tries = self.retries.entry(index).or_default();
        *tries += 1;
        let hopeless =
            matches!(status.reason, Reason::Invalid | Reason::BadRequest | Reason::AlreadyExists);
        // What is to be deleted and is not there is as it should be.
        let gone =
            matches!(operation, Operation::Delete { .. }) && status.reason == Reason::NotFound;
        if hopeless || gone || *tries > RETRIES {
            self.retries.remove(&index);
            if !gone {
                self.give_up(index, &status.message);
            }
            return;
        }
        self.try_again(index, RETRY);
    }

    /// Remembers that a user has stopped trying.
    pub(super) fn give_up(&mut self, index: u32, why: &str) {
        self.given_up.count += 1;
        if self.given_up.first.len() < GIVEN_UP_NAMED {
            self.given_up.first.push(format!("{}: {why}", self.plan.titled(index)));
        }
    }

    /// Why the cluster did not come to rest in the time that the scenario gives; `None` if it did,
    /// or the run ended otherwise.
    pub fn unrest(&self) -> Option<String> {
        /// More are counted only.
        const NAMED: usize = 3;
        if self.phase != Phase::Rest || self.settled() {
            return None;
        }
        let settle = self.plan.settings.settle;
        let message = format!("the cluster did not come to rest within settings.settle ({settle})");
        let waiting: Vec<u32> = self.retries.keys().chain(self.drains.keys()).copied().collect();
        if waiting.is_empty() {
            let why = self.work_under_way().or_else(|| self.last_writer());
            return Some(why.map_or(message.clone(), |why| format!("{message}: {why}")));
        }
        let named = waiting.iter().take(NAMED).map(|index| self.plan.titled(*index));
        let named: Vec<String> = named.collect();
        let more = if waiting.len() > NAMED { ", …" } else { "" };
        let (named, count) = (named.join(", "), waiting.len());
        let noun = if count == 1 { "operation still waits" } else { "operations still wait" };
        Some(format!("{message}: {count} {noun}: {named}{more}"))
    }

    /// Containers that something is still to become of, if there are any.
    fn work_under_way(&self) -> Option<String> {
        let soon = self.now + Span::secs(1).duration();
        let hosts = |of: fn(&ContainerRuntime, Time) -> bool| -> Vec<&str> {
            let busy = self.hosts.iter().filter(|host| of(&host.runtime, soon));
            busy.map(|host| &*host.name).collect()
        };
        let named = |hosts: &[&str]| match hosts {
            [one] => (*one).to_owned(),
            [one, rest @ ..] => format!("{one} and {} other nodes", rest.len()),
            [] => String::new(),
        };
        let (ending, working) =
            (hosts(ContainerRuntime::exits_after), hosts(ContainerRuntime::works_after));
        if !ending.is_empty() {
            let on = named(&ending);
            return Some(format!("containers on {on} run on and will end by themselves, later"));
        }
        (!working.is_empty()).then(|| {
            format!("the container runtime of {} still fetches or starts", named(&working))
        })
    }

    /// Who wrote last, and what.
    fn last_writer(&self) -> Option<String> {
        let (by, key) = self.last_written.as_ref()?;
        let who = by.map_or_else(|| "a user".to_owned(), |by| self.component(by).to_string());
        let ago = Span(u64::try_from(self.now.since(self.last_write).as_nanos()).unwrap_or(0));
        Some(format!("the last to write was {who}, {key}, {ago} before the end"))
    }

    /// Sees to it that an operation is tried again.
    pub(super) fn try_again(&mut self, index: u32, after: Span) {
        let due = self.now + after.duration();
        self.queue.push(due, priority::OPERATION, Event::Retry { operation: index });
    }

    pub(super) fn as_admin(&mut self, request: &Request) -> Result<(), Status> {
        if self.store_down {
            return Err(Status::new(Reason::ServiceUnavailable, "the store has no leader"));
        }
        let operation = Write::of_request(request).ok_or_else(Status::no_route)?;
        self.write(None, request, &operation, &admin()).map(|_| ())
    }

    /// Creates the priority class of the pods that the operation makes, and the storage class of
    /// their volumes, unless they are there.
    fn ensure_class(&mut self, operation: &Operation) -> Result<(), Status> {
        let Some(template) = operation.template() else { return Ok(()) };
        let plan = Arc::clone(&self.plan);
        let template = &plan.templates[template as usize];
        let storage = Key::cluster(Kind::StorageClass, objects::limits::CLASS);
        if template.storage > 0 && self.store.get(&storage).is_none() {
            self.as_admin(&Request::Create(objects::limits::storage_class()))?;
        }
        let Some(name) = objects::class_name(template) else { return Ok(()) };
        if self.store.get(&Key::cluster(Kind::PriorityClass, &name)).is_some() {
            return Ok(());
        }
        self.as_admin(&Request::Create(objects::priority_class(&name, template)))
    }

    /// The same as long as the same is asked for, as for pods from one file.
    fn spec_of_template(&mut self, index: u32, runs: Option<Span>) -> Shared<PodSpec> {
        if let Some((known, spec)) = self.specs.get(&index)
            && *known == runs
        {
            return spec.clone();
        }
        let template = &self.plan.templates[index as usize];
        let spec = Shared::new(objects::spec(template, runs, &template.labels));
        self.specs.insert(index, (runs, spec.clone()));
        spec
    }

    /// What a user's client sends; `None` when what it is about does not exist.
    fn request_of(&mut self, operation: &Operation) -> Option<Request> {
        let plan = Arc::clone(&self.plan);
        let template = |index: u32| &plan.templates[index as usize];
        let present = |key: &Key| self.store.get(key);
        Some(match operation {
            Operation::CreatePod { name, template: index, runs } => {
                let spec = self.spec_of_template(*index, *runs);
                Request::Create(objects::pod(name, template(*index), spec))
            }
            Operation::CreateDeployment {
                name,
                template: index,
                replicas,
                max_surge,
                max_unavailable,
            } => Request::Create(objects::deployment(
                name,
                template(*index),
                *replicas,
                max_surge,
                max_unavailable,
            )),
            Operation::CreateReplicaSet { name, template: index, replicas } => {
                Request::Create(objects::replica_set(name, template(*index), *replicas))
            }
            Operation::CreateReplicationController { name, template: index, replicas } => {
                Request::Create(objects::replication_controller(name, template(*index), *replicas))
            }
            Operation::CreateStatefulSet {
                name,
                template: index,
                replicas,
                parallel,
                partition,
            } => Request::Create(objects::stateful_set(
                name,
                template(*index),
                *replicas,
                *parallel,
                *partition,
            )),
            Operation::CreateDaemonSet { name, template: index, max_surge, max_unavailable } => {
                let template = template(*index);
                Request::Create(objects::daemon_set(name, template, max_surge, max_unavailable))
            }
            Operation::CreateJob { template: index, .. } => {
                Request::Create(objects::job(operation, template(*index))?)
            }
            Operation::CreateCronJob(cron) => {
                Request::Create(objects::scheduled::cron_job(cron, template(cron.template)))
            }
            Operation::SuspendCronJob { name, suspended } => {
                let key = key(Target::CronJob, name);
                present(&key)?;
                merge(key, json!({"spec": {"suspend": suspended}}))
            }
            Operation::CreateAutoscaler(autoscaler) => {
                let target = kind_of(autoscaler.target);
                Request::Create(objects::scheduled::autoscaler(autoscaler, target))
            }
            Operation::CreateQuota(quota) => Request::Create(objects::limits::quota(quota)),
            Operation::SetQuota(quota) => {
                let key = key(Target::ResourceQuota, &quota.name);
                present(&key)?;
                merge(key, json!({"spec": {"hard": quota.hard}}))
            }
            Operation::CreateLimitRange(range) => {
                Request::Create(objects::limits::limit_range(range))
            }
            Operation::SetClaimPolicy { name, delete_with_set, delete_when_scaled } => {
                let key = key(Target::StatefulSet, name);
                present(&key)?;
                let word = |delete: &bool| if *delete { "Delete" } else { "Retain" };
                let policy = json!({"whenDeleted": word(delete_with_set),
                    "whenScaled": word(delete_when_scaled)});
                merge(key, json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}}))
            }
            Operation::CreateBudget(budget) => Request::Create(objects::budget(budget)),
            Operation::CreateService { name, app } => Request::Create(objects::service(name, app)),
            Operation::CreateNamespace { name } => Request::Create(objects::namespace(name)),
            Operation::Scale { target, name, replicas } => {
                let key = key(*target, name);
                present(&key)?;
                merge(key, json!({"spec": {"replicas": replicas}}))
            }
            Operation::SetTemplate { target, name, template: index } => {
                let object = present(&key(*target, name))?;
                let pods = objects::pod_template(template(*index), objects::app_label(name));
                let pods = match target {
                    Target::StatefulSet => objects::limits::with_claims(pods),
                    _ => pods,
                };
                Request::Update { object: with_template(object, pods)?, subresource: None }
            }
            Operation::SetPartition { name, partition } => {
                let key = key(Target::StatefulSet, name);
                present(&key)?;
                let rolling = json!({"rollingUpdate": {"partition": partition}});
                merge(key, json!({"spec": {"updateStrategy": rolling}}))
            }
            Operation::Pause { name, paused } => {
                let key = key(Target::Deployment, name);
                present(&key)?;
                merge(key, json!({"spec": {"paused": paused}}))
            }
            Operation::Delete { target, name, orphan, foreground } => {
                let key = key(*target, name);
                present(&key)?;
                Request::Delete {
                    key,
                    uid: None,
                    revision: None,
                    grace_seconds: None,
                    propagation: Some(match (orphan, foreground) {
                        (true, _) => Propagation::Orphan,
                        (false, true) => Propagation::Foreground,
                        (false, false) => Propagation::Background,
                    }),
                }
            }
            Operation::Cordon { node, unschedulable } => {
                let key = Key::cluster(Kind::Node, node);
                present(&key)?;
                merge(key, json!({"spec": {"unschedulable": unschedulable}}))
            }
            // Not one request but many.
            Operation::Drain { .. } => return None,
            Operation::Taint { node, key: taint, effect } => {
                let key = Key::cluster(Kind::Node, node);
                let mut node = present(&key)?.get::<Node>()?.clone();
                let spec = node.spec.get_or_insert_default();
                let taints = spec.taints.get_or_insert_default();
                taints.retain(|t| t.key != *taint);
                if !effect.is_empty() {
                    taints.push(k8s_openapi::api::core::v1::Taint {
                        key: taint.clone(),
                        effect: effect.clone(),
                        ..Default::default()
                    });
                }
                Request::Update { object: node.into_object(), subresource: None }
            }
            Operation::Label { target, name, key: label, value } => {
                let key = key(*target, name);
                present(&key)?;
                let value = if value.is_empty() { Value::Null } else { value.as_str().into() };
                merge(key, json!({"metadata": {"labels": {label: value}}}))
            }
        })
    }

    /// Users suspend all cron jobs: what goes by the clock would never come to rest.
    pub(super) fn suspend_cron_jobs(&mut self) {
        let keys: Vec<Key> = self.store.objects(Kind::CronJob).map(Object::key).collect();
        for key in keys {
            // A cron job that is suspended already changes nothing.
            let _ = self.as_admin(&merge(key, json!({"spec": {"suspend": true}})));
        }
    }

    /// Somebody writes all objects of a kind: whoever has read one must read it again.
    pub(super) fn touch_all(&mut self, target: Target) {
        let kind = kind_of(target);
        let keys: Vec<Key> = self.store.objects(kind).map(Object::key).collect();
        for key in keys {
            let value = self.store.revision().to_string();
            let body = json!({"metadata": {"annotations": {"kprov.io/touched": value}}});
            // A user's write that is refused is the user's matter.
            let _ = self.as_admin(&merge(key, body));
        }
    }
}

#[cfg(test)]
mod tests;
