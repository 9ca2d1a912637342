use serde_json::{Value, json};

use super::*;

fn spec(value: Value) -> PodSpec {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_pod_asks_for_its_containers_or_its_initialisation() {
    let cpu = |amount: &str| json!({"requests": {"cpu": amount, "x/gpu": "1"}});
    let check = |init: Value, overhead: Value, expected: i64| {
        let spec = spec(json!({"overhead": overhead, "initContainers": init, "containers": [
            {"name": "a", "resources": cpu("200m")}, {"name": "b", "resources": cpu("100m")}]}));
        let amounts = requests(&spec);
        assert_eq!((amounts.of("cpu"), amounts.of("pods")), (expected, 1), "{spec:?}");
    };
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": cpu("50m")});
    let step = json!({"name": "i", "resources": cpu("1")});
    check(json!([]), Value::Null, 300);
    check(json!([]), json!({"cpu": "5m"}), 305);
    check(json!([sidecar]), Value::Null, 350);
    check(json!([step]), Value::Null, 1000);
    check(json!([sidecar, step]), Value::Null, 1050);
    check(json!([step, sidecar]), json!({"cpu": "10m"}), 1010);
}

#[test]
fn what_nobody_asks_for_is_never_short() {
    let of = |list: &[(&str, i128)]| {
        let mut amounts = Amounts::default();
        list.iter().for_each(|(name, amount)| *amounts.entry(name) = *amount);
        amounts
    };
    let limits = of(&[("cpu", 1000), ("pods", 2)]);
    assert_eq!(of(&[("cpu", 1000), ("memory", 0)]).beyond(&limits), None);
    assert_eq!(of(&[("cpu", 1001)]).beyond(&limits), Some(("cpu", 1001, 1000)));
    assert_eq!(of(&[("memory", 1)]).beyond(&limits), Some(("memory", 1, 0)));
    assert_eq!(of(&[("x.y/gpu", 1)]).beyond(&limits), Some(("x.y/gpu", 1, 0)));
    let mut sum = of(&[("cpu", 500)]);
    sum.add(&of(&[("cpu", 300), ("x", 1)]), 1);
    sum.add(&of(&[("cpu", 500)]), -1);
    assert_eq!((sum.of("cpu"), sum.of("x"), sum.of("y")), (300, 1, 0));
}

#[test]
fn tolerations_cover_taints() {
    let taint: Taint =
        serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
    let check = |toleration: Value, covers: bool| {
        let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
        assert_eq!(tolerates(&parsed, &taint), covers, "{toleration}");
    };
    check(json!({"operator": "Exists"}), true);
    check(json!({"key": "k", "operator": "Exists"}), true);
    check(json!({"key": "k", "value": "v"}), true);
    check(json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true);
    check(json!({"key": "k"}), false);
    check(json!({"key": "k", "value": "w"}), false);
    check(json!({"key": "j", "operator": "Exists"}), false);
    check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
    check(json!({"value": "v"}), false);
    check(json!({"key": "k", "operator": "Like", "value": "v"}), false);
}

#[test]
fn pods_leave_when_the_first_toleration_ends() {
    let taint = |key: &str| Taint {
        key: key.to_owned(),
        effect: "NoExecute".to_owned(),
        ..Taint::default()
    };
    let check = |tolerations: Value, arrived: u64, expected: Option<u64>| {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
                .unwrap();
        let (a, b) = (taint("a"), taint("b"));
        let taints = [(&a, Time::from_secs(100)), (&b, Time::from_secs(200))];
        let due = must_leave_at(&pod, &taints, Time::from_secs(arrived));
        assert_eq!(due, expected.map(Time::from_secs), "{tolerations}");
    };
    let tolerate = |key: &str, secs: Option<i64>| json!({"key": key, "operator": "Exists", "tolerationSeconds": secs});
    check(json!([]), 0, Some(0));
    check(json!([tolerate("a", None)]), 0, Some(0));
    check(json!([tolerate("a", None), tolerate("b", None)]), 0, None);
    check(json!([tolerate("a", Some(300)), tolerate("b", Some(50))]), 0, Some(250));
    check(json!([tolerate("a", Some(300)), tolerate("b", None)]), 500, Some(800));
    check(json!([tolerate("a", Some(-1)), tolerate("b", None)]), 0, Some(100));
}

#[test]
fn selectors_select() {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let check = |selector: Value, matches: bool| {
        let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
        assert_eq!(selects(&parsed, Some(&labels)), matches, "{selector}");
    };
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    check(json!({}), true);
    check(json!({"matchLabels": {"a": "b"}}), true);
    check(json!({"matchLabels": {"a": "c"}}), false);
    check(expression("a", "In", &["b", "c"]), true);
    check(expression("a", "NotIn", &["b"]), false);
    check(expression("x", "NotIn", &["b"]), true);
    check(expression("a", "Exists", &[]), true);
    check(expression("a", "DoesNotExist", &[]), false);
    check(expression("a", "Like", &[]), false);
}

#[test]
fn lists_in_messages_are_short() {
    assert_eq!(some_of(Vec::<i32>::new()), "none");
    assert_eq!(some_of([1, 2]), "1, 2");
    assert_eq!(some_of(1..=6), "1, 2, 3, 4 and 2 more");
}
