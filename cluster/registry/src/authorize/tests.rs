use api::codec;
use serde_json::{Value, json};

use super::*;

fn object(value: &Value) -> Object {
    codec::decode_any(value.to_string().as_bytes()).unwrap()
}

fn authorizer(objects: &[Value]) -> Authorizer {
    let mut authorizer = Authorizer::default();
    for value in objects {
        let object = object(value);
        authorizer.apply(&object.key(), Some(&object));
    }
    authorizer
}

fn caller(name: &str, groups: &[&str]) -> Caller {
    Caller {
        name: name.into(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        ..Caller::default()
    }
}

/// `verb [group/]resource[/sub] [namespace] [name]`, `-` for none.
fn asked(text: &str) -> Attributes {
    let words: Vec<&str> = text.split(' ').collect();
    let word =
        |i: usize| words.get(i).copied().filter(|w| *w != "-").unwrap_or_default().to_owned();
    let mut attributes =
        Attributes { verb: word(0), namespace: word(2), name: word(3), ..Attributes::default() };
    if words[1].starts_with('/') {
        attributes.path = word(1);
        return attributes;
    }
    let (resource, sub) = words[1].split_once('/').unwrap_or((words[1], ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    attributes.resource = resource.to_owned();
    attributes.group = group.to_owned();
    attributes.subresource = sub.to_owned();
    attributes
}

#[test]
fn rbac() {
    let group = "rbac.authorization.k8s.io";
    let authorizer = authorizer(&[
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "reader"}, "rules": [
                {"apiGroups": ["", "apps"], "resources": ["pods", "deployments", "pods/log"],
                 "verbs": ["get", "list"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"],
                 "verbs": ["get"]},
                {"nonResourceURLs": ["/healthz", "/api*"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "b", "namespace": "shop"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "User", "name": "ann", "apiGroup": group},
                         {"kind": "ServiceAccount", "name": "bot", "namespace": "other"}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "c"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "Group", "name": "readers", "apiGroup": group}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "dangling"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "gone"},
            "subjects": [{"kind": "User", "name": "eve", "apiGroup": group}]}),
    ]);
    let check = |who: &Caller, text: &str, expected: bool| {
        let decision = authorizer.authorize(who, &asked(text));
        assert_eq!(decision.allowed, expected, "{who:?} {text}: {decision:?}");
    };
    let ann = caller("ann", &[]);
    check(&ann, "get pods shop a", true);
    check(&ann, "get pods/log shop a", true);
    check(&ann, "get pods/exec shop a", false);
    check(&ann, "get pods other a", false);
    check(&ann, "list pods", false);
    check(&ann, "create pods shop", false);
    check(&ann, "list deployments.apps shop", true);
    check(&ann, "get secrets shop one", true);
    check(&ann, "get secrets shop two", false);
    check(&ann, "list secrets shop", false);
    check(&ann, "get /healthz", false);
    check(&caller("bob", &["readers"]), "list pods", true);
    check(&caller("bob", &["readers"]), "get /apis/apps", true);
    check(&caller("bob", &["readers"]), "get /version", false);
    check(&caller("system:serviceaccount:other:bot", &[]), "get pods shop a", true);
    check(&caller("root", &["system:masters"]), "delete nodes - n", true);
    let eve = authorizer.authorize(&caller("eve", &[]), &asked("get pods shop a"));
    assert_eq!(eve.reason, r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#);
    assert_eq!(authorizer.rules(&ann, "shop").count(), 3);
}

#[test]
fn a_removed_binding_grants_nothing() {
    let group = "rbac.authorization.k8s.io";
    let mut authorizer = authorizer(&[
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "r", "namespace": "d"},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "b", "namespace": "d"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "ann", "apiGroup": group}]}),
    ]);
    let ann = caller("ann", &[]);
    assert!(authorizer.authorize(&ann, &asked("delete pods d a")).allowed);
    authorizer.apply(&Key::new(Kind::RoleBinding, "d", "b"), None);
    assert!(!authorizer.authorize(&ann, &asked("delete pods d a")).allowed);
    assert!(authorizer.bindings_of.is_empty());
}

#[test]
fn nodes_see_what_their_pods_need() {
    let mut authorizer = authorizer(&[json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "d"},
        "spec": {"nodeName": "n1", "serviceAccountName": "default",
            "volumes": [{"name": "v", "secret": {"secretName": "s"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "ca"}}]}}],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "env"}}]}]}})]);
    let node = |n: &str| caller(&format!("system:node:{n}"), &["system:nodes"]);
    let check = |authorizer: &Authorizer, n: &str, text: &str, expected: bool| {
        let decision = authorizer.authorize(&node(n), &asked(text));
        assert_eq!(decision.allowed, expected, "{n} {text}: {decision:?}");
    };
    check(&authorizer, "n1", "get secrets d s", true);
    check(&authorizer, "n2", "get secrets d s", false);
    check(&authorizer, "n1", "get secrets d other", false);
    check(&authorizer, "n1", "list secrets d", false);
    check(&authorizer, "n1", "get configmaps d ca", true);
    check(&authorizer, "n1", "get configmaps d env", true);
    check(&authorizer, "n1", "create serviceaccounts/token d default", true);
    check(&authorizer, "n2", "create serviceaccounts/token d default", false);
    check(&authorizer, "n1", "get pods d a", true);
    check(&authorizer, "n2", "get pods d a", false);
    check(&authorizer, "n1", "list pods", false);
    check(&authorizer, "n1", "update leases.coordination.k8s.io kube-node-lease n1", true);
    check(&authorizer, "n1", "update leases.coordination.k8s.io kube-node-lease n2", false);
    check(&authorizer, "n1", "patch nodes/status - n1", true);
    check(&authorizer, "n1", "patch nodes/status - n2", false);
    check(&authorizer, "n1", "create deployments.apps d", false);
    check(&authorizer, "n1", "create csinodes.storage.k8s.io", true);
    check(&authorizer, "n1", "update csinodes.storage.k8s.io - n1", true);
    check(&authorizer, "n1", "update csinodes.storage.k8s.io - n2", false);
    check(&authorizer, "n1", "list csinodes.storage.k8s.io", false);
    check(&authorizer, "n1", "get csinodes/status.storage.k8s.io - n1", false);
    let mut watch = asked("watch pods");
    watch.fields = FieldSelector::parse("spec.nodeName=n1").unwrap();
    assert!(authorizer.authorize(&node("n1"), &watch).allowed);
    assert!(!authorizer.authorize(&node("n2"), &watch).allowed);
    authorizer.apply(&Key::new(Kind::Pod, "d", "a"), None);
    check(&authorizer, "n1", "get secrets d s", false);
}

#[test]
fn nodes_see_the_claims_of_their_pods_and_the_volumes_of_these() {
    let volume = |claim: Value| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"claimRef": claim}})
    };
    let mut authorizer = authorizer(&[
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "d"},
            "spec": {"nodeName": "n1", "containers": [], "volumes": [
                {"name": "x", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}}),
        volume(json!({"namespace": "d", "name": "c"})),
    ]);
    let check = |authorizer: &Authorizer, n: &str, text: &str, expected: bool| {
        let node = caller(&format!("system:node:{n}"), &["system:nodes"]);
        let decision = authorizer.authorize(&node, &asked(text));
        assert_eq!(decision.allowed, expected, "{n} {text}: {decision:?}");
    };
    check(&authorizer, "n1", "get persistentvolumeclaims d c", true);
    check(&authorizer, "n1", "get persistentvolumeclaims d a-own", true);
    check(&authorizer, "n1", "get persistentvolumes - v", true);
    check(&authorizer, "n2", "get persistentvolumes - v", false);
    check(&authorizer, "n2", "get persistentvolumeclaims d c", false);
    check(&authorizer, "n1", "update persistentvolumeclaims d c", false);
    check(&authorizer, "n1", "list persistentvolumes", false);
    let other = object(&volume(json!({"namespace": "d", "name": "other"})));
    authorizer.apply(&other.key(), Some(&other));
    check(&authorizer, "n1", "get persistentvolumes - v", false);
    authorizer.apply(&other.key(), None);
}

#[test]
fn refusals_read_as_those_of_kubernetes() {
    let check = |text: &str, expected: &str| {
        let status = asked(text).forbidden(&caller("ann", &[]), "");
        assert_eq!((status.code, status.message.as_str()), (403, expected));
    };
    check(
        "list pods shop",
        r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "shop""#,
    );
    check(
        "delete deployments.apps shop web",
        r#"deployments.apps "web" is forbidden: User "ann" cannot delete resource "deployments" in API group "apps" in the namespace "shop""#,
    );
    check(
        "list nodes",
        r#"nodes is forbidden: User "ann" cannot list resource "nodes" in API group "" at the cluster scope"#,
    );
    check("get /metrics", r#"forbidden: User "ann" cannot get path "/metrics""#);
}
