use api::{ApiObject, Pod, codec};
use registry::DeleteOptions;
use serde_json::{Value, json};

use super::*;

fn run(store: &mut Store, operation: &Operation) -> Object {
    let caller = Caller {
        name: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..Caller::default()
    };
    store.write(operation, &caller, Time::from_secs(1)).expect("it is allowed").answer
}

fn create(store: &mut Store, manifest: &Value) {
    let object = codec::decode_any(manifest.to_string().as_bytes()).expect("an object");
    run(store, &Operation::Create { object });
}

/// A store with what pods without tokens need.
fn store() -> Store {
    let mut store = Store::new(RngTree::new(1), false, Serving::default());
    for manifest in [
        json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}}),
        json!({"kind": "ServiceAccount", "apiVersion": "v1",
            "metadata": {"name": "default", "namespace": "default"}}),
    ] {
        create(&mut store, &manifest);
    }
    store
}

fn class(name: &str, value: i32, is_default: bool) -> Value {
    json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
        "metadata": {"name": name}, "value": value, "globalDefault": is_default})
}

fn remove_class(store: &mut Store, name: &str) {
    let key = Key::cluster(Kind::PriorityClass, name);
    run(store, &Operation::Delete { key, options: DeleteOptions::default() });
}

/// Pods of one template, which share its spec as it is given and as it is stored.
struct Template {
    given: Shared<PodSpec>,
    made: usize,
}

impl Template {
    fn new(class: &str) -> Self {
        let spec = json!({"automountServiceAccountToken": false, "priorityClassName": class,
            "containers": [{"name": "a", "image": "x"}]});
        Self { given: Shared::new(serde_json::from_value(spec).expect("a spec")), made: 0 }
    }

    /// Class and priority of two new pods.
    fn check(&mut self, store: &mut Store, class: &str, priority: i32) {
        let mut next = || {
            self.made += 1;
            let name = format!("{}-{}", self.made, store.revision());
            let mut pod = Pod { spec: Some(self.given.clone()), ..Pod::default() };
            pod.metadata.name = Some(name);
            pod.metadata.namespace = Some("default".to_owned());
            let made = run(store, &Operation::Create { object: pod.into_object() });
            made.get::<Pod>().and_then(|pod| pod.spec.clone()).expect("it has a spec")
        };
        let (first, second) = (next(), next());
        assert!(first.is_same(&second), "what became of the first is known");
        let found = first.priority_class_name.as_deref().unwrap_or_default();
        assert_eq!((found, first.priority), (class, Some(priority)));
    }
}

#[test]
fn what_became_of_specs_is_forgotten_when_classes_change() {
    let mut store = store();
    let mut plain = Template::new("");
    plain.check(&mut store, "", 0);
    create(&mut store, &class("gold", 7, true));
    plain.check(&mut store, "gold", 7);
    let mut golden = Template::new("gold");
    golden.check(&mut store, "gold", 7);
    // Another class of that name, which is not the default.
    remove_class(&mut store, "gold");
    plain.check(&mut store, "", 0);
    create(&mut store, &class("gold", 8, false));
    plain.check(&mut store, "", 0);
    golden.check(&mut store, "gold", 8);
    // It becomes the default by an update.
    let key = Key::cluster(Kind::PriorityClass, "gold");
    let body = json!({"globalDefault": true}).into();
    let patch = api::Patch { kind: api::PatchKind::Merge, body };
    run(&mut store, &Operation::Patch { key, subresource: None, patch, strict: true });
    plain.check(&mut store, "gold", 8);
}
