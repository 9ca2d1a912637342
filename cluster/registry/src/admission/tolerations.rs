//! DefaultTolerationSeconds and TaintNodesByCondition: pods outlive a short absence of their
//! node, and nothing is scheduled to a node before it was ready once.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/defaulttolerationseconds` and
//! `plugin/pkg/admission/nodetaint`.

use std::sync::Arc;

use api::Object;
use k8s_openapi::api::core::v1::{Taint, Toleration};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Seconds a pod stays on a node that is gone.
const SECONDS: i64 = 300;

/// Whether the toleration covers the `NoExecute` taint of that key.
fn covers(toleration: &Toleration, key: &str) -> bool {
    let own = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (own.is_empty() || own == key) && (effect.is_empty() || effect == "NoExecute")
}

pub(super) fn tolerate(object: &mut Object) {
    let Object::Pod(pod) = object else { return };
    let has = |key: &str| {
        let spec = pod.spec.as_ref();
        spec.and_then(|s| s.tolerations.as_ref()).into_iter().flatten().any(|t| covers(t, key))
    };
    let missing: Vec<&str> = [NOT_READY, UNREACHABLE].into_iter().filter(|k| !has(k)).collect();
    if missing.is_empty() {
        return;
    }
    let spec = Arc::make_mut(pod).spec.get_or_insert_default();
    spec.tolerations.get_or_insert_default().extend(missing.into_iter().map(|key| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(SECONDS),
        value: None,
    }));
}

/// The node lifecycle controller takes the taint away once the node is ready.
pub(super) fn taint_new_node(object: &mut Object) {
    let Object::Node(node) = object else { return };
    let taint =
        Taint { key: NOT_READY.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let taints = Arc::make_mut(node).spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|t| t.key == taint.key && t.effect == taint.effect) {
        taints.push(taint);
    }
}
