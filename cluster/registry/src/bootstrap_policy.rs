//! The roles and bindings that every cluster starts with.
//!
//! Source: kubernetes 1.33, `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, cut to the kinds
//! that are served; `system:flannel` is the overlay's own.

use std::collections::BTreeMap;

use api::{ApiObject, Object};
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
    Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];
const GROUP: &str = "rbac.authorization.k8s.io";

/// What people work with in a namespace: core resources and those of `apps`.
const CORE: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/attach",
    "pods/exec",
    "pods/portforward",
    "pods/eviction",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
];
const CORE_READ: &[&str] = &[
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "pods/log",
    "pods/status",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
    "serviceaccounts",
    "services",
    "services/status",
];
const APPS: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
];
const APPS_READ: &[&str] = &[
    "controllerrevisions",
    "daemonsets",
    "daemonsets/status",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];

/// The roles for people, and which other each is part of. Whoever serves more kinds adds to them
/// by labels.
const AGGREGATED: [(&str, &str); 3] = [("admin", ""), ("edit", "admin"), ("view", "edit")];

/// The label of what is part of a role.
fn part_of(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

/// The roles for people, and those that they are made of.
fn aggregated() -> Vec<Object> {
    let mut objects = Vec::new();
    for (name, whole) in AGGREGATED {
        let parts = BTreeMap::from([(part_of(name), "true".to_owned())]);
        let selector = LabelSelector { match_labels: Some(parts.clone()), ..Default::default() };
        let selectors = Some(vec![selector]);
        let mut role = ClusterRole {
            aggregation_rule: Some(AggregationRule { cluster_role_selectors: selectors }),
            ..ClusterRole::default()
        };
        role.metadata.name = Some(name.to_owned());
        role.metadata.labels = labels();
        if !whole.is_empty() {
            let labels = role.metadata.labels.get_or_insert_default();
            labels.insert(part_of(whole), "true".to_owned());
        }
        objects.push(role.into_object());
        let rules = match name {
            "admin" => administering(),
            "edit" => editing(),
            _ => viewing(),
        };
        let mut part = cluster_role(&format!("system:aggregate-to-{name}"), rules);
        part.meta_mut().labels.get_or_insert_default().extend(parts);
        objects.push(part);
    }
    objects
}

/// Every role and binding, in the order in which they are created.
pub fn bootstrap_policy() -> Vec<Object> {
    let mut objects: Vec<Object> =
        roles().into_iter().map(|(name, rules)| cluster_role(name, rules)).collect();
    objects.extend(aggregated());
    objects.extend(bindings().map(|(name, role, kind, subject)| bind(name, role, kind, subject)));
    for (controller, rules) in controller_roles() {
        let role = format!("system:controller:{controller}");
        objects.push(cluster_role(&role, rules));
        objects.push(bind_to(&role, &role, service_account(controller)));
    }
    objects.extend(namespaced_roles());
    objects
}

/// What single controllers may do when they run under service accounts of their own, by the names
/// of these.
fn controller_roles() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let both = &["apps", "extensions"];
    let revisions = &["create", "delete", "get", "list", "patch", "update", "watch"];
    let daemon_set = vec![
        rule(both, &["daemonsets"], READ),
        rule(both, &["daemonsets/status"], &["update"]),
        rule(both, &["daemonsets/finalizers"], &["update"]),
        rule(&[""], &["nodes"], &["list", "watch"]),
        rule(&[""], &["pods"], &["create", "delete", "list", "patch", "watch"]),
        rule(&[""], &["pods/binding"], &["create"]),
        rule(&["apps"], &["controllerrevisions"], revisions),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    let stateful_set = vec![
        rule(&[""], &["pods"], &["list", "watch"]),
        rule(&["apps"], &["statefulsets"], READ),
        rule(&["apps"], &["statefulsets/status"], &["update"]),
        rule(&["apps"], &["statefulsets/finalizers"], &["update"]),
        rule(&[""], &["pods"], &["create", "delete", "get", "patch", "update"]),
        rule(&["apps"], &["controllerrevisions"], revisions),
        rule(
            &[""],
            &["persistentvolumeclaims"],
            &["create", "delete", "get", "list", "update", "watch"],
        ),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    let cron_job = vec![
        rule(&["batch"], &["cronjobs"], &["get", "list", "update", "watch"]),
        rule(
            &["batch"],
            &["jobs"],
            &["create", "delete", "get", "list", "patch", "update", "watch"],
        ),
        rule(&["batch"], &["cronjobs/status"], &["update"]),
        rule(&["batch"], &["cronjobs/finalizers"], &["update"]),
        rule(&[""], &["pods"], &["delete", "list"]),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    let aggregation = vec![rule(
        &[GROUP],
        &["clusterroles"],
        &["escalate", "get", "list", "patch", "update", "watch"],
    )];
    let mirroring = vec![
        rule(&[""], &["services", "endpoints"], READ),
        rule(&[""], &["services/finalizers", "endpoints/finalizers"], &["update"]),
        rule(
            &["discovery.k8s.io"],
            &["endpointslices"],
            &["create", "delete", "get", "list", "update", "watch"],
        ),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    let resource_quota = vec![
        rule(ALL, ALL, &["list", "watch"]),
        rule(&[""], &["resourcequotas/status"], &["update"]),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    let autoscaler = vec![
        rule(&["autoscaling"], &["horizontalpodautoscalers"], READ),
        rule(&["autoscaling"], &["horizontalpodautoscalers/status"], &["update"]),
        rule(&["*"], &["*/scale"], &["get", "patch", "update"]),
        rule(both, &["deployments", "replicasets", "statefulsets"], READ),
        rule(&[""], &["pods"], &["list", "watch"]),
        rule(&[""], &["replicationcontrollers"], READ),
        rule(&["metrics.k8s.io"], &["pods"], &["list"]),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    let legacy_tokens = vec![
        rule(&[""], &["configmaps", "pods", "serviceaccounts"], READ),
        rule(&[""], &["secrets"], &["delete", "get", "list", "patch", "update", "watch"]),
    ];
    let mut roles = vec![
        ("certificate-controller", certifying()),
        ("legacy-service-account-token-cleaner", legacy_tokens),
        ("clusterrole-aggregation-controller", aggregation),
        ("cronjob-controller", cron_job),
        ("daemon-set-controller", daemon_set),
        ("endpointslicemirroring-controller", mirroring),
        ("resourcequota-controller", resource_quota),
        ("horizontal-pod-autoscaler", autoscaler),
        ("statefulset-controller", stateful_set),
    ];
    roles.extend(storage_roles());
    roles
}

fn storage_roles() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let events = || rule(&["", "events.k8s.io"], &["events"], EVENTS);
    let binder = vec![
        rule(
            &[""],
            &["persistentvolumes"],
            &["create", "delete", "get", "list", "update", "watch"],
        ),
        rule(&[""], &["persistentvolumes/status"], &["update"]),
        rule(&[""], &["persistentvolumeclaims"], &["get", "list", "update", "watch"]),
        rule(&[""], &["persistentvolumeclaims/status"], &["update"]),
        rule(&[""], &["pods"], READ),
        rule(&["storage.k8s.io"], &["storageclasses"], READ),
        // Kubelets learn from their nodes which folders shall go.
        rule(&[""], &["nodes"], &["get", "list", "update", "watch"]),
        events(),
    ];
    let ephemeral = vec![
        rule(&[""], &["pods"], READ),
        rule(&[""], &["pods/finalizers"], &["update"]),
        rule(&[""], &["persistentvolumeclaims"], &["create", "get", "list", "watch"]),
        events(),
    ];
    let change = &["get", "list", "update", "watch"];
    let claim_protection = vec![
        rule(&[""], &["persistentvolumeclaims"], change),
        rule(&[""], &["pods"], READ),
        events(),
    ];
    let volume_protection = vec![rule(&[""], &["persistentvolumes"], change), events()];
    vec![
        ("persistent-volume-binder", binder),
        ("ephemeral-volume-controller", ephemeral),
        ("pvc-protection-controller", claim_protection),
        ("pv-protection-controller", volume_protection),
    ]
}

/// What single controllers may do in one namespace, and who that is.
fn namespaced_roles() -> Vec<Object> {
    let secrets = |verbs: &[&str]| vec![rule(&[""], &["secrets"], verbs)];
    let cluster_info = PolicyRule {
        resource_names: strings(&["cluster-info"]),
        ..rule(&[""], &["configmaps"], &["update", "patch"])
    };
    let services = vec![rule(&[""], &["services"], &["create"])];
    let (signer, cleaner) = (service_account("bootstrap-signer"), service_account("token-cleaner"));
    // Changing and deleting are among the controller manager's rights everywhere.
    let manager = Subject {
        api_group: Some(GROUP.to_owned()),
        kind: "User".to_owned(),
        name: "system:kube-controller-manager".to_owned(),
        namespace: None,
    };
    let info = vec![rule(&[""], &["configmaps"], READ), cluster_info];
    let clean = secrets(&["get", "list", "watch", "delete"]);
    let roles = [
        ("kube-public", "bootstrap-signer", signer.clone(), info),
        ("kube-system", "bootstrap-signer", signer, secrets(READ)),
        ("kube-system", "token-cleaner", cleaner, clean),
        ("kube-system", "cluster-dns-controller", manager, services),
    ];
    let mut objects = Vec::new();
    for (namespace, controller, subject, rules) in roles {
        let metadata = ObjectMeta {
            name: Some(format!("system:controller:{controller}")),
            namespace: Some(namespace.to_owned()),
            labels: labels(),
            ..ObjectMeta::default()
        };
        let role_ref = RoleRef {
            api_group: GROUP.to_owned(),
            kind: "Role".to_owned(),
            name: format!("system:controller:{controller}"),
        };
        let subjects = Some(vec![subject]);
        objects.push(Role { metadata: metadata.clone(), rules: Some(rules) }.into_object());
        objects.push(RoleBinding { metadata, role_ref, subjects }.into_object());
    }
    objects
}

/// Approving, signing and forgetting requests for certificates.
fn certifying() -> Vec<PolicyRule> {
    const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
    let group = &["certificates.k8s.io"];
    let signers = |verb: &str, names: &[&str]| PolicyRule {
        resource_names: strings(names),
        ..rule(group, &["signers"], &[verb])
    };
    let requests = &["certificatesigningrequests"];
    let parts = &["certificatesigningrequests/approval", "certificatesigningrequests/status"];
    let ours = [
        "kubernetes.io/kube-apiserver-client",
        KUBELET,
        "kubernetes.io/kubelet-serving",
        "kubernetes.io/legacy-unknown",
    ];
    vec![
        rule(group, requests, &["delete", "get", "list", "watch"]),
        rule(group, parts, &["update"]),
        signers("approve", &[KUBELET]),
        signers("sign", &ours),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ]
}

fn service_account(name: &str) -> Subject {
    Subject {
        api_group: None,
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some("kube-system".to_owned()),
    }
}

fn strings(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|s| (*s).to_owned()).collect())
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: strings(groups),
        resources: strings(resources),
        verbs: strings(verbs).unwrap_or_default(),
        ..PolicyRule::default()
    }
}

fn paths(urls: &[&str]) -> PolicyRule {
    PolicyRule {
        non_resource_urls: strings(urls),
        verbs: vec!["get".to_owned()],
        ..PolicyRule::default()
    }
}

fn viewing() -> Vec<PolicyRule> {
    vec![
        rule(&[""], CORE_READ, READ),
        rule(&["apps"], APPS_READ, READ),
        rule(
            &["autoscaling"],
            &["horizontalpodautoscalers", "horizontalpodautoscalers/status"],
            READ,
        ),
        rule(&["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"], READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(&["metrics.k8s.io"], &["nodes", "pods"], READ),
        rule(&["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"], READ),
    ]
}

fn editing() -> Vec<PolicyRule> {
    vec![
        rule(&[""], CORE, WRITE),
        rule(&[""], &["pods/attach", "pods/exec", "pods/portforward"], &["get"]),
        rule(&[""], &["secrets"], &["get", "list", "watch"]),
        rule(&[""], &["secrets"], WRITE),
        rule(&[""], &["serviceaccounts/token"], &["create"]),
        rule(&[""], &["serviceaccounts"], &["impersonate"]),
        rule(&["apps"], APPS, WRITE),
        rule(&["policy"], &["poddisruptionbudgets"], WRITE),
        rule(&["autoscaling"], &["horizontalpodautoscalers"], WRITE),
        rule(&["batch"], &["cronjobs", "jobs"], WRITE),
        rule(&["coordination.k8s.io"], &["leases"], READ),
        rule(&["coordination.k8s.io"], &["leases"], WRITE),
    ]
}

fn administering() -> Vec<PolicyRule> {
    vec![
        rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
        rule(&[GROUP], &["rolebindings", "roles"], READ),
        rule(&[GROUP], &["rolebindings", "roles"], WRITE),
    ]
}

const EVENTS: &[&str] = &["create", "patch", "update"];

fn review(rules: &mut Vec<PolicyRule>) {
    rules.push(rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]));
    rules.push(rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]));
}

fn electing(lease: &str) -> Vec<PolicyRule> {
    let leases = &["leases"];
    let mut rules = vec![
        rule(&["coordination.k8s.io"], leases, &["create"]),
        PolicyRule {
            resource_names: strings(&[lease]),
            ..rule(&["coordination.k8s.io"], leases, &["get", "update", "patch"])
        },
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ];
    review(&mut rules);
    rules
}

fn scheduling() -> Vec<PolicyRule> {
    let mut rules = electing("kube-scheduler");
    rules.extend([
        rule(&[""], &["nodes", "namespaces", "services", "replicationcontrollers"], READ),
        rule(&["apps"], &["replicasets", "statefulsets"], READ),
        rule(&[""], &["pods"], &["get", "list", "watch", "delete"]),
        rule(&[""], &["bindings", "pods/binding"], &["create"]),
        rule(&[""], &["pods/status"], &["patch", "update"]),
        rule(&["policy"], &["poddisruptionbudgets"], READ),
    ]);
    rules
}

/// All controllers run under one identity; together they need to read, change and delete
/// everything (garbage collection, namespaces) and to create what controllers create.
fn controlling() -> Vec<PolicyRule> {
    let mut rules = electing("kube-controller-manager");
    let change = &["get", "list", "watch", "update", "patch", "delete", "deletecollection"];
    rules.extend([
        rule(ALL, ALL, change),
        rule(
            &[""],
            &[
                "configmaps",
                "endpoints",
                "persistentvolumeclaims",
                "persistentvolumes",
                "pods",
                "secrets",
                "serviceaccounts",
                "serviceaccounts/token",
            ],
            &["create"],
        ),
        rule(&["apps"], &["controllerrevisions", "replicasets"], &["create"]),
        rule(&["batch"], &["jobs"], &["create"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["create"]),
        rule(&["certificates.k8s.io"], &["signers"], &["approve", "sign"]),
        // Roles that are made of others hold what these hold.
        rule(&[GROUP], &["clusterroles"], &["escalate"]),
    ]);
    rules
}

/// What the scheduler does about the volumes of pods.
fn scheduling_volumes() -> Vec<PolicyRule> {
    let change = &["get", "list", "patch", "update", "watch"];
    vec![
        rule(&[""], &["persistentvolumes"], change),
        rule(&["storage.k8s.io"], &["csinodes", "storageclasses"], READ),
        rule(&[""], &["persistentvolumeclaims"], change),
    ]
}

fn proxying() -> Vec<PolicyRule> {
    vec![
        rule(&[""], &["endpoints", "services"], &["list", "watch"]),
        rule(&[""], &["nodes"], READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"]),
        rule(&["", "events.k8s.io"], &["events"], EVENTS),
    ]
}

/// What names are made of.
fn naming() -> Vec<PolicyRule> {
    vec![
        rule(&[""], &["endpoints", "namespaces", "services"], &["list", "watch"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"]),
    ]
}

fn roles() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let csr = "certificates.k8s.io";
    let mut delegating = Vec::new();
    review(&mut delegating);
    vec![
        (
            "cluster-admin",
            vec![rule(ALL, ALL, ALL), PolicyRule { verbs: vec!["*".to_owned()], ..paths(&["*"]) }],
        ),
        (
            "system:discovery",
            vec![paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ])],
        ),
        (
            "system:public-info-viewer",
            vec![paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        (
            "system:basic-user",
            vec![
                rule(
                    &["authorization.k8s.io"],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"],
                ),
                rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ],
        ),
        (
            "system:monitoring",
            vec![paths(&[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/readyz",
                "/readyz/*",
            ])],
        ),
        ("system:auth-delegator", delegating),
        (
            "system:node-bootstrapper",
            vec![rule(
                &[csr],
                &["certificatesigningrequests"],
                &["create", "get", "list", "watch"],
            )],
        ),
        (
            "system:kubelet-api-admin",
            vec![
                rule(&[""], &["nodes"], &["get", "list", "watch", "proxy"]),
                rule(&[""], &["nodes/proxy", "nodes/log", "nodes/stats", "nodes/metrics"], ALL),
            ],
        ),
        ("system:kube-scheduler", scheduling()),
        ("system:kube-controller-manager", controlling()),
        ("system:node-proxier", proxying()),
        ("system:volume-scheduler", scheduling_volumes()),
        ("system:flannel", vec![rule(&[""], &["nodes"], READ)]),
        ("system:kube-dns", naming()),
    ]
}

fn bindings() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    [
        ("cluster-admin", "cluster-admin", "Group", "system:masters"),
        ("system:basic-user", "system:basic-user", "Group", "system:authenticated"),
        ("system:discovery", "system:discovery", "Group", "system:authenticated"),
        ("system:public-info-viewer", "system:public-info-viewer", "Group", "system:authenticated"),
        ("system:monitoring", "system:monitoring", "Group", "system:monitoring"),
        ("kubelet-bootstrap", "system:node-bootstrapper", "Group", "system:bootstrappers"),
        ("system:kube-scheduler", "system:kube-scheduler", "User", "system:kube-scheduler"),
        (
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            "User",
            "system:kube-controller-manager",
        ),
        ("system:node-proxier", "system:node-proxier", "User", "system:kube-proxy"),
        ("system:volume-scheduler", "system:volume-scheduler", "User", "system:kube-scheduler"),
        ("system:flannel", "system:flannel", "User", "system:flannel"),
        ("system:kube-dns", "system:kube-dns", "User", "system:kube-dns"),
    ]
    .into_iter()
}

fn labels() -> Option<BTreeMap<String, String>> {
    Some(BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())]))
}

fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> Object {
    let mut role = ClusterRole { rules: Some(rules), ..ClusterRole::default() };
    role.metadata.name = Some(name.to_owned());
    role.metadata.labels = labels();
    role.into_object()
}

fn bind(name: &str, role: &str, kind: &str, subject: &str) -> Object {
    let subject = Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: subject.to_owned(),
        namespace: None,
    };
    bind_to(name, role, subject)
}

fn bind_to(name: &str, role: &str, subject: Subject) -> Object {
    let mut binding = ClusterRoleBinding {
        role_ref: RoleRef {
            api_group: GROUP.to_owned(),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![subject]),
        ..ClusterRoleBinding::default()
    };
    binding.metadata.name = Some(name.to_owned());
    binding.metadata.labels = labels();
    binding.into_object()
}

#[cfg(test)]
mod tests;
