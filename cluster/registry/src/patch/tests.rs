use super::*;
use api::{PatchBody, PodStatusChange, Shared};
use k8s_openapi::api::core::v1::{PodCondition, PodIP, PodStatus};
use proptest::prelude::*;
use serde_json::json;

#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn check(kind: Kind, dialect: PatchKind, current: Value, body: Value, expected: Value) {
    let patch = Patch { kind: dialect, body: body.into() };
    let patched = apply(kind, current.clone(), &patch).unwrap();
    assert_eq!(patched, expected, "{:#}", patch.body.json());
}

fn refused(kind: Kind, dialect: PatchKind, current: &Value, body: Value, code: u16, message: &str) {
    let status =
        apply(kind, current.clone(), &Patch { kind: dialect, body: body.into() }).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (code, message));
}

fn strategic(kind: Kind, current: Value, body: Value, expected: Value) {
    check(kind, PatchKind::Strategic, current, body, expected);
}

/// Inside `spec` of a pod.
#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn pod(current: Value, body: Value, expected: Value) {
    let spec = |v: Value| json!({"metadata": {"name": "p"}, "spec": v});
    strategic(Kind::Pod, spec(current), json!({"spec": body}), spec(expected));
}

#[test]
fn json_patch_follows_the_rfc() {
    check(
        Kind::ConfigMap,
        PatchKind::Json,
        json!({"data": {"a": "1", "b": "2"}, "list": [1, 3]}),
        json!([
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "replace", "path": "/data/a", "value": "9"},
            {"op": "remove", "path": "/data/b"},
            {"op": "add", "path": "/list/1", "value": 2},
            {"op": "add", "path": "/list/-", "value": 4},
            {"op": "copy", "from": "/data/a", "path": "/data/c~1d"},
            {"op": "move", "from": "/list/0", "path": "/data/e"},
        ]),
        json!({"data": {"a": "9", "c/d": "9", "e": 1}, "list": [2, 3, 4]}),
    );
}

#[test]
fn json_patches_that_do_not_fit_are_refused() {
    let current = json!({"data": {"a": "1"}});
    let unfit = "the server rejected our request due to an error in our request";
    let check = |body: Value, code: u16, message: &str| {
        refused(Kind::ConfigMap, PatchKind::Json, &current, body, code, message);
    };
    check(json!([{"op": "test", "path": "/data/a", "value": "2"}]), 422, unfit);
    check(json!([{"op": "remove", "path": "/data/x"}]), 422, unfit);
    check(json!([{"op": "replace", "path": "/x/y", "value": 1}]), 422, unfit);
    check(json!([{"op": "replace", "path": "", "value": 1}]), 422, unfit);
    check(json!({"data": {}}), 400, "Invalid JSON Patch");
    let op = json!({"op": "add", "path": "/data/a", "value": "1"});
    let many = "The allowed maximum operations in a JSON patch is 10000, got 10001";
    check(Value::from(vec![op; 10_001]), 413, many);
}

#[test]
fn json_patches_cannot_explode() {
    let copy = |n: usize| json!({"op": "copy", "from": "/data", "path": format!("/data/{n}")});
    let bomb: Vec<Value> = (0..40).map(copy).collect();
    let current = json!({"data": {"a": "x".repeat(1000)}});
    let body = Value::from(bomb);
    assert_eq!(
        apply(
            Kind::ConfigMap,
            current.clone(),
            &Patch { kind: PatchKind::Json, body: body.into() }
        )
        .unwrap_err()
        .code,
        422
    );
    let nest = |_| {
        [
            json!({"op": "add", "path": "/t", "value": {}}),
            json!({"op": "move", "from": "/data", "path": "/t/data"}),
            json!({"op": "move", "from": "/t", "path": "/data"}),
        ]
    };
    let body = (0..3000).flat_map(nest).collect::<Value>();
    assert_eq!(
        apply(
            Kind::ConfigMap,
            current.clone(),
            &Patch { kind: PatchKind::Json, body: body.into() }
        )
        .unwrap_err()
        .code,
        422
    );
}

#[test]
fn merge_patch_follows_the_rfc() {
    check(
        Kind::Pod,
        PatchKind::Merge,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [1, 2]}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"x": {"y": null}}},
            "spec": {"containers": [3]}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {"x": {}}},
            "spec": {"containers": [3]}}),
    );
    refused(Kind::Pod, PatchKind::Merge, &json!({}), json!([1]), 400, "Invalid JSON Patch");
}

#[test]
fn lists_merge_by_their_key() {
    pod(
        json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]}),
        json!({"containers": [{"name": "b", "image": "y:2"}]}),
        json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}),
    );
    // What is new comes before what only the server has.
    pod(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "c", "image": null}]}),
        json!({"containers": [{"name": "c"}, {"name": "a"}]}),
    );
    pod(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}],
            "ports": [{"containerPort": 80}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}],
            "ports": [{"containerPort": 80, "name": "web"}], "command": ["sh"]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}],
            "ports": [{"containerPort": 80, "name": "web"}], "command": ["sh"]}]}),
    );
    // Lists without a key are replaced, and so is what only looks like a merge list.
    pod(
        json!({"tolerations": [{"key": "a"}], "hostAliases": [{"ip": "1.1.1.1"}]}),
        json!({"tolerations": [{"key": "b"}], "hostAliases": [{"ip": "2.2.2.2"}]}),
        json!({"tolerations": [{"key": "b"}],
            "hostAliases": [{"ip": "2.2.2.2"}, {"ip": "1.1.1.1"}]}),
    );
    strategic(
        Kind::Node,
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X"}]},
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]},
            "spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}}),
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X"}]},
            "spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}}),
    );
    strategic(
        Kind::Service,
        json!({"spec": {"ports": [{"port": 80, "targetPort": 1}]}}),
        json!({"spec": {"ports": [{"port": 443}, {"port": 80, "targetPort": 2}]}}),
        json!({"spec": {"ports": [{"port": 443}, {"port": 80, "targetPort": 2}]}}),
    );
}

#[test]
fn elements_are_deleted_and_lists_replaced() {
    pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"$patch": "delete", "name": "a"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    pod(
        json!({"containers": [{"name": "a", "image": "x"}]}),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    pod(
        json!({"securityContext": {"runAsUser": 1}, "nodeSelector": {"a": "b"}}),
        json!({"securityContext": {"$patch": "replace", "runAsGroup": 2},
            "nodeSelector": {"$patch": "delete"}}),
        json!({"securityContext": {"runAsGroup": 2}, "nodeSelector": {}}),
    );
    pod(
        json!({"nodeName": "n", "hostname": "h"}),
        json!({"nodeName": null}),
        json!({"hostname": "h"}),
    );
    // Directives never reach the object, also where there was nothing to direct.
    pod(
        json!({}),
        json!({"volumes": [
                {"name": "v", "$retainKeys": ["name"]}, {"$patch": "delete", "name": "w"}],
            "$setElementOrder/volumes": [{"name": "v"}], "securityContext": {"$patch": "delete"}}),
        json!({"volumes": [{"name": "v"}]}),
    );
}

#[test]
fn primitive_lists_merge_and_shrink() {
    strategic(
        Kind::Pod,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {"finalizers": ["c", "b"]}}),
    );
    strategic(
        Kind::Pod,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$setElementOrder/finalizers": ["b", "x", "a"], "finalizers": ["x"]}}),
        json!({"metadata": {"finalizers": ["b", "x", "a"]}}),
    );
}

#[test]
fn the_order_that_apply_sends_is_kept() {
    // `kubectl apply` after swapping two containers and adding one between them.
    pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "sidecar"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "z"}]}),
        json!({"containers": [{"name": "b"}, {"name": "c", "image": "z"}, {"name": "a"},
            {"name": "sidecar"}]}),
    );
    pod(
        json!({"containers": [{"name": "sidecar"}, {"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "sidecar"}, {"name": "a"}, {"name": "b"}]}),
    );
}

#[test]
fn what_kubectl_apply_sends() {
    // Of kubectl 1.33, after a new image for `a` and a new name for `b`.
    let template = |containers: Value| {
        let pod = json!({"spec": {"containers": containers}});
        json!({"spec": {"replicas": 1, "template": pod}})
    };
    strategic(
        Kind::Deployment,
        template(json!([
            {"name": "a", "image": "x:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "b", "image": "y:1"},
        ])),
        json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            "containers": [
                {"image": "x:2", "name": "a"},
                {"image": "y:1", "name": "c"},
                {"$patch": "delete", "name": "b"},
            ],
        }}}}),
        template(json!([
            {"name": "a", "image": "x:2", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "c", "image": "y:1"},
        ])),
    );
}

#[test]
fn retained_keys_clear_the_others() {
    strategic(
        Kind::Deployment,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    pod(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"],
            "secret": {"secretName": "s"}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
    );
}

#[test]
fn malformed_strategic_patches_are_refused() {
    let current =
        json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}});
    let check = |body: Value, message: &str| {
        refused(Kind::Pod, PatchKind::Strategic, &current, body, 400, message);
    };
    check(json!([]), "Invalid JSON Patch");
    check(json!({"$patch": "no"}), r#"unknown patch type: "no""#);
    check(
        json!({"spec": {"containers": [{"image": "x"}]}}),
        r#"map: {"image":"x"} does not contain declared merge key: name"#,
    );
    check(
        json!({"spec": {"$retainKeys": ["x"], "nodeName": "n"}}),
        "invalid patch format of retainKeys",
    );
    check(
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
        "invalid patch format of primitive list",
    );
    check(
        json!({"spec": {"$setElementOrder/containers": 1}}),
        "invalid patch format of setElementOrder list",
    );
    check(json!({"spec": {"containers": [["x"]]}}), "lists of lists are not supported");
    check(json!({"spec": {"containers": ["x"]}}), "list element types are not identical");
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), "[ab]".prop_map(Value::from)]
}

/// JSON that often hits the fields and directives that matter.
fn document() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("spec"),
        Just("metadata"),
        Just("containers"),
        Just("finalizers"),
        Just("volumes"),
        Just("name"),
        Just("labels"),
        Just("$patch"),
        Just("$retainKeys"),
        Just("$setElementOrder/containers"),
        Just("$setElementOrder/finalizers"),
        Just("$deleteFromPrimitiveList/finalizers"),
        Just("$setElementOrder"),
    ];
    let directive = prop_oneof![Just("delete"), Just("replace"), Just("merge")];
    prop_oneof![8 => scalar(), 1 => directive.prop_map(Value::from)].prop_recursive(
        5,
        40,
        5,
        move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        },
    )
}

/// A well-formed pod patch.
fn pod_patch() -> impl Strategy<Value = Value> {
    let container =
        ("[abc]", prop::option::of("[xy]"), any::<bool>()).prop_map(|(name, image, gone)| {
            if gone {
                json!({"name": name, "$patch": "delete"})
            } else {
                json!({"name": name, "image": image})
            }
        });
    let containers = prop::collection::vec(container, 0..4);
    let finalizers = prop::collection::vec("[abc]", 0..4);
    let gone = prop::collection::vec("[abc]", 0..2);
    (containers, finalizers, gone).prop_map(|(containers, finalizers, gone)| {
        let kept: Vec<_> = finalizers.iter().filter(|f| !gone.contains(f)).collect();
        json!({"spec": {"containers": containers},
            "metadata": {"finalizers": kept, "$deleteFromPrimitiveList/finalizers": gone}})
    })
}

proptest! {
    #[test]
    fn never_panics(current in document(), body in document(), dialect in 0..3) {
        let kind = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic];
        let kind = kind[usize::try_from(dialect).unwrap()];
        let _ = apply(Kind::Pod, current.clone(), &Patch { kind, body: body.into() });
    }

    #[test]
    fn no_directive_survives(current in pod_patch(), body in document()) {
        let start = Patch { kind: PatchKind::Strategic, body: current.into() };
        let start = apply(Kind::Pod, json!({}), &start).unwrap();
        if let Ok(out) = apply(Kind::Pod, start.clone(), &Patch { kind: PatchKind::Strategic, body: body.into() }) {
            let text = out.to_string();
            prop_assert!(!text.contains(r#""$patch":"#), "{}", text);
            prop_assert!(!text.contains("$retainKeys"), "{}", text);
        }
    }

    #[test]
    fn twice_is_once(current in pod_patch(), body in pod_patch()) {
        let strategic = |body: Value| Patch { kind: PatchKind::Strategic, body: body.into() };
        let start = apply(Kind::Pod, json!({}), &strategic(current)).unwrap();
        let once = apply(Kind::Pod, start.clone(), &strategic(body.clone())).unwrap();
        let twice = apply(Kind::Pod, once.clone(), &strategic(body)).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn merging_twice_is_once(current in document(), body in document()) {
        let patch = Patch { kind: PatchKind::Merge, body: body.into() };
        if let Ok(once) = apply(Kind::Pod, current.clone(), &patch) {
            prop_assert_eq!(apply(Kind::Pod, once.clone(), &patch).unwrap(), once);
        }
    }
}

/// Conditions of a pod, each type once, in any order.
fn conditions() -> impl Strategy<Value = Vec<PodCondition>> {
    let types = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let text = || prop::option::of("[ab]");
    let condition = ("[TF]", text(), text(), prop::option::of(0_i64..3));
    let all = types.map(|type_| {
        prop::option::of(condition.clone().prop_map(
            move |(status, reason, message, generation)| PodCondition {
                type_: type_.to_owned(),
                status,
                reason,
                message,
                observed_generation: generation,
                ..PodCondition::default()
            },
        ))
    });
    all.prop_map(|all| all.into_iter().flatten().collect())
        .prop_flat_map(|all: Vec<_>| Just(all).prop_shuffle())
}

fn statuses() -> impl Strategy<Value = PodStatus> {
    let ip = || prop::option::of("10[.]0[.]0[.][1-3]");
    (conditions(), ip(), prop::option::of("[PR]")).prop_map(|(conditions, ip, phase)| PodStatus {
        conditions: Some(conditions).filter(|all| !all.is_empty()),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        phase,
        ..PodStatus::default()
    })
}

/// What a kubelet that knows `from` does to `current` when it wants `to`.
fn reported(current: &PodStatus, from: &PodStatus, to: &PodStatus) -> PodStatus {
    let change = PodStatusChange {
        uid: None,
        from: Some(Shared::new(from.clone())),
        to: Shared::new(to.clone()),
    };
    let patch = Patch { kind: PatchKind::Strategic, body: PatchBody::PodStatus(Box::new(change)) };
    let patched = apply(Kind::Pod, json!({"status": current}), &patch).unwrap();
    serde_json::from_value(patched["status"].clone()).unwrap()
}

proptest! {
    #[test]
    fn what_a_kubelet_reports_is_what_it_wants(from in statuses(), to in statuses()) {
        let mut got = reported(&from, &from, &to);
        got.conditions = got.conditions.filter(|all| !all.is_empty());
        prop_assert_eq!(got, to);
    }

    #[test]
    fn what_others_wrote_meanwhile_stays(from in statuses(), to in statuses(), at in 0_usize..5) {
        let theirs = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        };
        let mut current = from.clone();
        let conditions = current.conditions.get_or_insert_default();
        conditions.insert(at.min(conditions.len()), theirs.clone());
        let mut got = reported(&current, &from, &to).conditions.unwrap_or_default();
        prop_assert!(got.contains(&theirs), "{:?}", got);
        got.retain(|condition| *condition != theirs);
        prop_assert_eq!(got, to.conditions.unwrap_or_default());
    }
}
