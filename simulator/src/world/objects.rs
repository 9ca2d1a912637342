//! API objects as users and kubelets of the simulated cluster make them.

pub(super) mod limits;
pub(super) mod scheduled;

use std::collections::BTreeMap;

use api::{ApiObject, Object, Pod, Shared};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec,
    DeploymentStrategy, ReplicaSet, ReplicaSetSpec, RollingUpdateDaemonSet,
    RollingUpdateDeployment, RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, ExecAction, Namespace, PodAffinity, PodAffinityTerm,
    PodAntiAffinity, PodSchedulingGate, PodSpec, PodTemplateSpec, Probe, ReplicationController,
    ReplicationControllerSpec, ResourceRequirements, Service, ServicePort, ServiceSpec, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubelet::KubeletConfig;

use crate::plan::{Budget, Neighbours, NodeShape, Operation, PodTemplate};
use crate::span::Span;

type Labels = BTreeMap<String, String>;

/// `namespace/name`, or a name in the namespace `default`.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("default", name))
}

fn named(name: &str) -> ObjectMeta {
    let (namespace, name) = split(name);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

/// A bare pod of a spec that was made from the template.
pub(super) fn pod(name: &str, template: &PodTemplate, spec: Shared<PodSpec>) -> Object {
    let mut metadata = named(name);
    metadata.labels = some_map(template.labels.clone());
    Pod { metadata, spec: Some(spec), ..Pod::default() }.into_object()
}

/// How long its pods must be ready, as workloads say it.
fn min_ready_seconds(template: &PodTemplate) -> Option<i32> {
    let seconds = i32::try_from(template.min_ready.duration().as_secs()).ok();
    seconds.filter(|seconds| *seconds > 0)
}

/// A deployment of pods labelled `app=NAME`.
pub(super) fn deployment(
    name: &str,
    template: &PodTemplate,
    replicas: u32,
    max_surge: &str,
    max_unavailable: &str,
) -> Object {
    let app = app_label(name);
    Deployment {
        metadata: named(name),
        spec: Some(DeploymentSpec {
            replicas: i32::try_from(replicas).ok(),
            selector: selector(&app),
            template: pod_template(template, app),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(int_or_percent(max_surge)),
                    max_unavailable: Some(int_or_percent(max_unavailable)),
                }),
            }),
            min_ready_seconds: min_ready_seconds(template),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// A replica set of pods labelled `app=NAME`.
pub(super) fn replica_set(name: &str, template: &PodTemplate, replicas: u32) -> Object {
    let app = app_label(name);
    ReplicaSet {
        metadata: named(name),
        spec: Some(ReplicaSetSpec {
            replicas: i32::try_from(replicas).ok(),
            selector: selector(&app),
            template: Some(pod_template(template, app)),
            min_ready_seconds: min_ready_seconds(template),
        }),
        status: None,
    }
    .into_object()
}

/// A replication controller of pods labelled `app=NAME`.
pub(super) fn replication_controller(name: &str, template: &PodTemplate, replicas: u32) -> Object {
    let app = app_label(name);
    ReplicationController {
        metadata: named(name),
        spec: Some(ReplicationControllerSpec {
            replicas: i32::try_from(replicas).ok(),
            selector: Some(app.clone()),
            template: Some(pod_template(template, app)),
            min_ready_seconds: min_ready_seconds(template),
        }),
        status: None,
    }
    .into_object()
}

/// A stateful set of pods labelled `app=NAME`.
pub(super) fn stateful_set(
    name: &str,
    template: &PodTemplate,
    replicas: u32,
    parallel: bool,
    partition: u32,
) -> Object {
    let app = app_label(name);
    let policy = if parallel { "Parallel" } else { "OrderedReady" };
    StatefulSet {
        metadata: named(name),
        spec: Some(StatefulSetSpec {
            replicas: i32::try_from(replicas).ok(),
            selector: selector(&app),
            template: limits::with_claims(pod_template(template, app)),
            volume_claim_templates: limits::claim_templates(template.storage),
            pod_management_policy: Some(policy.to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateStatefulSetStrategy {
                    partition: i32::try_from(partition).ok(),
                    ..RollingUpdateStatefulSetStrategy::default()
                }),
            }),
            min_ready_seconds: min_ready_seconds(template),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// A daemon set of pods labelled `app=NAME`.
pub(super) fn daemon_set(
    name: &str,
    template: &PodTemplate,
    max_surge: &str,
    max_unavailable: &str,
) -> Object {
    let app = app_label(name);
    DaemonSet {
        metadata: named(name),
        spec: Some(DaemonSetSpec {
            selector: selector(&app),
            template: pod_template(template, app),
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_surge: Some(int_or_percent(max_surge)),
                    max_unavailable: Some(int_or_percent(max_unavailable)),
                }),
            }),
            min_ready_seconds: min_ready_seconds(template),
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// A job of pods labelled `app=NAME`; `None` for other operations.
pub(super) fn job(operation: &Operation, template: &PodTemplate) -> Option<Object> {
    let Operation::CreateJob {
        name,
        template: _,
        completions,
        parallelism,
        indexed,
        backoff_limit,
        ttl_seconds,
    } = operation
    else {
        return None;
    };
    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let job = Job {
        metadata: named(name),
        spec: Some(JobSpec {
            completions: completions.map(number),
            parallelism: Some(number(*parallelism)),
            completion_mode: indexed.then(|| "Indexed".to_owned()),
            backoff_limit: Some(number(*backoff_limit)),
            ttl_seconds_after_finished: ttl_seconds.map(number),
            template: pod_template(template, app_label(name)),
            ..JobSpec::default()
        }),
        status: None,
    };
    Some(job.into_object())
}

/// A disruption budget for the pods labelled `app=APP`.
pub(super) fn budget(budget: &Budget) -> Object {
    let Budget { name, app, min_available, max_unavailable } = budget;
    PodDisruptionBudget {
        metadata: named(name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: min_available.as_deref().map(int_or_percent),
            max_unavailable: max_unavailable.as_deref().map(int_or_percent),
            selector: Some(selector(&app_label(app))),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// A service for the pods labelled `app=APP`.
pub(super) fn service(name: &str, app: &str) -> Object {
    Service {
        metadata: named(name),
        spec: Some(ServiceSpec {
            selector: Some(app_label(app)),
            ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
    .into_object()
}

/// A namespace.
pub(super) fn namespace(name: &str) -> Object {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }.into_object()
}

/// The class of the pods of a template; none for what pods without a class have.
pub(super) fn class_name(template: &PodTemplate) -> Option<String> {
    let size = template.priority.unsigned_abs();
    let name = match template.priority {
        0 if template.preempts => return None,
        0.. => format!("priority-{size}"),
        _ => format!("priority-minus-{size}"),
    };
    Some(if template.preempts { name } else { format!("{name}-never") })
}

/// The priority class of that name of the pods of a template.
pub(super) fn priority_class(name: &str, template: &PodTemplate) -> Object {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let value = template.priority;
    let preemption_policy = (!template.preempts).then(|| "Never".to_owned());
    PriorityClass { metadata, value, preemption_policy, ..PriorityClass::default() }.into_object()
}

/// The pods of a workload.
pub(super) fn pod_template(template: &PodTemplate, app: Labels) -> PodTemplateSpec {
    let mut labels = template.labels.clone();
    labels.extend(app);
    PodTemplateSpec {
        spec: Some(spec(template, None, &labels)),
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
    }
}

/// The label by which a workload of that name knows its pods.
pub(super) fn app_label(name: &str) -> Labels {
    Labels::from([("app".to_owned(), split(name).1.to_owned())])
}

fn selector(labels: &Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() }
}

fn int_or_percent(text: &str) -> IntOrString {
    text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int)
}

fn some_map(map: Labels) -> Option<Labels> {
    Some(map).filter(|m| !m.is_empty())
}

/// What the modelled runtime is told about a container goes through its arguments, the way
/// everything else does.
fn arguments(template: &PodTemplate, runs: Option<Span>) -> Option<Vec<String>> {
    let mut arguments = Vec::new();
    if let Some(runs) = runs.or(template.runs) {
        arguments.push(format!("--run={runs}"));
    }
    if template.exit_code != 0 {
        arguments.push(format!("--exit={}", template.exit_code));
    }
    if template.ready_after > Span::ZERO {
        arguments.push(format!("--ready-after={}", template.ready_after));
    }
    Some(arguments).filter(|a| !a.is_empty())
}

/// Those of the labels that pods are known by: their own when none are named.
fn of_these(labels: &Labels, own: &Labels) -> Option<LabelSelector> {
    Some(selector(if labels.is_empty() { own } else { labels }))
}

/// Terms that must hold, and those that should.
fn terms(
    all: &[Neighbours],
    own: &Labels,
) -> (Option<Vec<PodAffinityTerm>>, Option<Vec<WeightedPodAffinityTerm>>) {
    let term = |n: &Neighbours| PodAffinityTerm {
        label_selector: of_these(&n.labels, own),
        topology_key: n.topology.clone(),
        ..PodAffinityTerm::default()
    };
    let required: Vec<_> = all.iter().filter(|n| n.weight == 0).map(term).collect();
    let preferred = all.iter().filter(|n| n.weight > 0);
    let preferred: Vec<_> = preferred
        .map(|n| WeightedPodAffinityTerm { pod_affinity_term: term(n), weight: n.weight.into() })
        .collect();
    (Some(required).filter(|t| !t.is_empty()), Some(preferred).filter(|t| !t.is_empty()))
}

fn affinity(template: &PodTemplate, own: &Labels) -> Option<Affinity> {
    let PodTemplate { near, apart, .. } = template;
    if near.is_empty() && apart.is_empty() {
        return None;
    }
    let (required, preferred) = terms(near, own);
    let pod_affinity = (!near.is_empty()).then_some(PodAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    });
    let (required, preferred) = terms(apart, own);
    let pod_anti_affinity = (!apart.is_empty()).then_some(PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    });
    Some(Affinity { node_affinity: None, pod_affinity, pod_anti_affinity })
}

fn spread(template: &PodTemplate, own: &Labels) -> Option<Vec<TopologySpreadConstraint>> {
    let constraints = template.spread.iter().map(|s| TopologySpreadConstraint {
        label_selector: of_these(&s.labels, own),
        max_skew: i32::try_from(s.max_skew).unwrap_or(i32::MAX),
        topology_key: s.topology.clone(),
        when_unsatisfiable: if s.soft { "ScheduleAnyway" } else { "DoNotSchedule" }.to_owned(),
        ..TopologySpreadConstraint::default()
    });
    Some(constraints.collect::<Vec<_>>()).filter(|c| !c.is_empty())
}

/// What the pods of a template are like that have these labels; it is for `runs`, if that is
/// given, that they run.
pub(super) fn spec(template: &PodTemplate, runs: Option<Span>, own: &Labels) -> PodSpec {
    let mut requests = BTreeMap::new();
    if template.cpu_milli > 0 {
        requests.insert("cpu".to_owned(), Quantity(format!("{}m", template.cpu_milli)));
    }
    if template.memory_bytes > 0 {
        requests.insert("memory".to_owned(), Quantity(template.memory_bytes.to_string()));
    }
    for (name, amount) in &template.extended {
        requests.insert(name.clone(), Quantity(amount.to_string()));
    }
    // Other resources cannot be overcommitted: their limit is their request.
    let limits = template.extended.iter();
    let limits: BTreeMap<_, _> =
        limits.map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect();
    let port = i32::from(template.host_port);
    let container = Container {
        name: "app".to_owned(),
        image: Some(template.image.clone()),
        args: arguments(template, runs),
        resources: Some(ResourceRequirements {
            requests: Some(requests).filter(|r| !r.is_empty()),
            limits: Some(limits).filter(|l| !l.is_empty()),
            ..ResourceRequirements::default()
        }),
        ports: (port > 0).then(|| {
            vec![ContainerPort {
                container_port: port,
                host_port: Some(port),
                ..ContainerPort::default()
            }]
        }),
        readiness_probe: (template.ready_after > Span::ZERO).then(|| Probe {
            exec: Some(ExecAction { command: Some(vec!["ready".to_owned()]) }),
            period_seconds: Some(1),
            ..Probe::default()
        }),
        volume_mounts: (template.storage > 0).then(|| vec![limits::mount()]),
        ..Container::default()
    };
    let tolerations = template.tolerations.iter().map(|(key, value, effect, seconds)| Toleration {
        key: Some(key.clone()).filter(|k| !k.is_empty()),
        operator: Some(if value.is_empty() { "Exists" } else { "Equal" }.to_owned()),
        value: Some(value.clone()).filter(|v| !v.is_empty()),
        effect: Some(effect.clone()).filter(|e| !e.is_empty()),
        toleration_seconds: *seconds,
    });
    PodSpec {
        containers: vec![container],
        volumes: (template.storage > 0).then(|| vec![limits::of_pod(template.storage)]),
        // Admission refuses a priority without its class.
        priority_class_name: class_name(template),
        affinity: affinity(template, own),
        topology_spread_constraints: spread(template, own),
        node_selector: some_map(template.node_selector.clone()),
        tolerations: Some(tolerations.collect::<Vec<_>>()).filter(|t| !t.is_empty()),
        restart_policy: Some(template.restart_policy.clone()),
        termination_grace_period_seconds: Some(i64::from(template.grace_seconds)),
        scheduler_name: Some(template.scheduler.clone()).filter(|s| !s.is_empty()),
        scheduling_gates: template
            .gated
            .then(|| vec![PodSchedulingGate { name: "kprov.io/held".to_owned() }]),
        automount_service_account_token: Some(false),
        // A variable for every service in every container is what large clusters switch off.
        enable_service_links: Some(false),
        ..PodSpec::default()
    }
}

/// What the kubelet of a node is configured with.
pub(super) fn kubelet_config(name: &str, index: u32, shape: &NodeShape) -> KubeletConfig {
    let zone = Some(&shape.zone).filter(|zone| !zone.is_empty());
    let zone = zone.map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.clone()));
    let node_labels = shape.labels.clone().into_iter().chain(zone).collect();
    let [_, b, c, d] = index.to_be_bytes();
    KubeletConfig {
        node_name: name.to_owned(),
        node_ip: format!("172.{}.{c}.{d}", 16 + u16::from(b)),
        node_labels,
        register_taints: shape.taints.clone(),
        cluster_dns: vec!["10.96.0.10".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        max_pods: shape.pods,
        pause_image: "pause".to_owned(),
        root_dir: "/var/lib/kubelet".to_owned(),
        port: 10250,
        version: api::version::GIT_VERSION.to_owned(),
        reserved_cpu_milli: 0,
        reserved_memory_bytes: 0,
    }
}
