use super::*;
use crate::Caller;
use crate::authorize::{Attributes, Authorizer};

/// The rules of a role for people, as its parts make them.
fn rules_for(role: &str) -> Vec<PolicyRule> {
    let objects = aggregated();
    let roles: Vec<&ClusterRole> = objects.iter().filter_map(Object::get).collect();
    let label = part_of(role);
    let parts = roles.iter().filter(|part| {
        part.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(&label))
    });
    parts
        .flat_map(|part| match &part.aggregation_rule {
            None => part.rules.clone().unwrap_or_default(),
            Some(_) => rules_for(part.metadata.name.as_deref().unwrap()),
        })
        .collect()
}

#[test]
fn roles_for_people_are_made_of_parts() {
    let objects = aggregated();
    let roles: Vec<&ClusterRole> = objects.iter().filter_map(Object::get).collect();
    let shown: Vec<String> = roles
        .iter()
        .map(|role| {
            let labels = role.metadata.labels.iter().flatten();
            let labels: Vec<&str> = labels.filter_map(|(k, _)| k.strip_prefix(GROUP)).collect();
            let name = role.metadata.name.as_deref().unwrap();
            format!("{name} {} {}", labels.join(" "), role.aggregation_rule.is_some())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "admin  true",
            "system:aggregate-to-admin /aggregate-to-admin false",
            "edit /aggregate-to-admin true",
            "system:aggregate-to-edit /aggregate-to-edit false",
            "view /aggregate-to-edit true",
            "system:aggregate-to-view /aggregate-to-view false",
        ]
    );
}

#[test]
fn budgets_are_seen_by_viewers_and_kept_by_editors() {
    let may = |role: &str, verb: &str, resource: &str| {
        let has = |list: &Option<Vec<String>>, wanted: &str| {
            list.iter().flatten().any(|entry| entry == wanted)
        };
        rules_for(role).iter().any(|rule| {
            has(&rule.api_groups, "policy")
                && has(&rule.resources, resource)
                && rule.verbs.iter().any(|v| v == verb)
        })
    };
    for role in ["view", "edit", "admin"] {
        let writes = role != "view";
        assert!(may(role, "watch", "poddisruptionbudgets"), "{role}");
        assert!(may(role, "get", "poddisruptionbudgets/status"), "{role}");
        assert_eq!(may(role, "create", "poddisruptionbudgets"), writes, "{role}");
        assert!(!may(role, "update", "poddisruptionbudgets/status"), "{role}");
    }
}

#[test]
fn each_component_may_do_its_work_and_no_more() {
    let mut authorizer = Authorizer::default();
    for object in bootstrap_policy() {
        authorizer.apply(&object.key(), Some(&object));
    }
    let requests = "certificatesigningrequests.certificates.k8s.io";
    let asked = |namespace: &str, user: &str, group: &str, verb: &str, resource: &str| {
        let caller = Caller {
            name: user.into(),
            groups: vec![group.into(), "system:authenticated".into()],
            ..Caller::default()
        };
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            ..Attributes::default()
        };
        authorizer.authorize(&caller, &asked).allowed
    };
    let check = |user: &str, group: &str, verb: &str, resource: &str, expected: bool| {
        let allowed = asked("d", user, group, verb, resource);
        assert_eq!(allowed, expected, "{user} {verb} {resource}");
    };
    let check_in = |namespace: &str, user: &str, verb: &str, resource: &str, expected: bool| {
        let allowed = asked(namespace, user, "", verb, resource);
        assert_eq!(allowed, expected, "{namespace} {user} {verb} {resource}");
    };
    check("system:kube-scheduler", "", "create", "pods/binding", true);
    check("system:kube-scheduler", "", "create", "pods", false);
    check("system:kube-scheduler", "", "delete", "pods", true);
    check("system:kube-scheduler", "", "patch", "pods/status", true);
    check("system:kube-scheduler", "", "watch", "poddisruptionbudgets.policy", true);
    check("system:kube-scheduler", "", "update", "poddisruptionbudgets.policy", false);
    check("system:kube-scheduler", "", "get", "secrets", false);
    for kind in ["namespaces", "services", "replicasets.apps", "statefulsets.apps"] {
        check("system:kube-scheduler", "", "watch", kind, true);
        check("system:kube-scheduler", "", "update", kind, false);
    }
    check("system:kube-controller-manager", "", "delete", "deployments.apps", true);
    check("system:kube-controller-manager", "", "create", "pods", true);
    check("system:kube-controller-manager", "", "create", "nodes", false);
    let revisions = "controllerrevisions.apps";
    check("system:kube-controller-manager", "", "create", revisions, true);
    let daemons = "system:serviceaccount:kube-system:daemon-set-controller";
    check(daemons, "", "update", "daemonsets/status.apps", true);
    check(daemons, "", "create", revisions, true);
    check(daemons, "", "create", "pods", true);
    check(daemons, "", "delete", "nodes", false);
    let stateful = "system:serviceaccount:kube-system:statefulset-controller";
    check(stateful, "", "update", "statefulsets/status.apps", true);
    check(stateful, "", "create", revisions, true);
    check(stateful, "", "update", "pods", true);
    check(stateful, "", "update", "statefulsets.apps", false);
    let of = |controller: &str| format!("system:serviceaccount:kube-system:{controller}");
    let quotas = of("resourcequota-controller");
    check(&quotas, "", "list", "deployments.apps", true);
    check(&quotas, "", "update", "resourcequotas/status", true);
    check(&quotas, "", "update", "resourcequotas", false);
    let roles = of("clusterrole-aggregation-controller");
    check(&roles, "", "escalate", "clusterroles.rbac.authorization.k8s.io", true);
    check(&roles, "", "update", "roles.rbac.authorization.k8s.io", false);
    let mirroring = of("endpointslicemirroring-controller");
    check(&mirroring, "", "create", "endpointslices.discovery.k8s.io", true);
    check(&mirroring, "", "update", "endpoints", false);
    let certificates = of("certificate-controller");
    check(&certificates, "", "delete", requests, true);
    check(&certificates, "", "create", requests, false);
    // Only where the tokens are, and what is signed with them.
    check(&of("token-cleaner"), "", "delete", "secrets", false);
    check_in("kube-system", &of("token-cleaner"), "delete", "secrets", true);
    check_in("kube-system", &of("bootstrap-signer"), "delete", "secrets", false);
    check_in("kube-system", &of("bootstrap-signer"), "watch", "secrets", true);
    check_in("kube-public", &of("bootstrap-signer"), "watch", "configmaps", true);
    check_in("kube-public", &of("bootstrap-signer"), "watch", "secrets", false);
    check("system:kube-controller-manager", "", "create", "jobs.batch", true);
    let cron_jobs = "system:serviceaccount:kube-system:cronjob-controller";
    check(cron_jobs, "", "create", "jobs.batch", true);
    check(cron_jobs, "", "update", "cronjobs/status.batch", true);
    check(cron_jobs, "", "create", "cronjobs.batch", false);
    let autoscaler = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    check(autoscaler, "", "list", "pods.metrics.k8s.io", true);
    check(autoscaler, "", "patch", "deployments/scale.apps", true);
    check(autoscaler, "", "patch", "deployments.apps", false);
    check("system:kube-controller-manager", "", "list", "pods.metrics.k8s.io", true);
    check("system:kube-proxy", "", "watch", "endpointslices.discovery.k8s.io", true);
    check("system:kube-proxy", "", "list", "pods", false);
    check("system:flannel", "", "watch", "nodes", true);
    check("system:flannel", "", "update", "nodes", false);
    check("system:kube-dns", "", "watch", "endpointslices.discovery.k8s.io", true);
    check("system:kube-dns", "", "watch", "pods", false);
    check("system:kube-controller-manager", "", "create", "services", false);
    check_in("kube-system", "system:kube-controller-manager", "create", "services", true);
    check("kubelet-bootstrap", "system:bootstrappers", "create", requests, true);
    check("kubelet-bootstrap", "system:bootstrappers", "list", "nodes", false);
    check("somebody", "", "create", "selfsubjectaccessreviews.authorization.k8s.io", true);
    let budgets = "poddisruptionbudgets.policy";
    check("system:kube-controller-manager", "", "update", budgets, true);
    check("somebody", "", "list", "pods", false);
}
