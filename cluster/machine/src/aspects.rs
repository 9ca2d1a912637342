//! [`Aspects`]: what a change of an object is about.

use std::ops::BitOr;

use api::{Object, Pod, meta};
use k8s_openapi::api::core::v1::PodCondition;

/// A set of things in which two states of an object may differ. Most changes of pods, which are
/// most changes of a cluster, are about one or two of them, and no business of who heeds others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aspects(u8);

impl Aspects {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The object comes or goes, or another one has its name.
    pub const EXISTENCE: Self = Self(1);
    /// Metadata, but for `resourceVersion` and `managedFields`.
    pub const META: Self = Self(1 << 1);
    /// The spec of a pod, but for its node.
    pub const SPEC: Self = Self(1 << 2);
    /// The node of a pod.
    pub const NODE: Self = Self(1 << 3);
    /// The phase of a pod.
    pub const PHASE: Self = Self(1 << 4);
    /// The condition `Ready` of a pod.
    pub const READINESS: Self = Self(1 << 5);
    /// What else is in the status of a pod, and all of other objects that is not metadata.
    pub const REST: Self = Self(1 << 6);
    /// Everything.
    pub const ALL: Self = Self(u8::MAX);

    /// Whether who heeds these must be told of a change in which those differ. Who heeds everything
    /// is told even of a write that made no difference.
    pub const fn hear(self, those: Self) -> bool {
        self.0 == Self::ALL.0 || self.0 & those.0 != 0
    }

    /// These, and `others` if `condition` holds.
    const fn with(self, others: Self, condition: bool) -> Self {
        if condition { Self(self.0 | others.0) } else { self }
    }

    /// In what two states of an object may differ: in nothing else they do. Objects that are not
    /// pods are not looked at.
    pub fn between(old: Option<&Object>, new: Option<&Object>) -> Self {
        match (old, new) {
            (Some(Object::Pod(old)), Some(Object::Pod(new)))
                if old.metadata.uid == new.metadata.uid =>
            {
                of_pod(old, new)
            }
            _ => Self::ALL,
        }
    }
}

impl BitOr for Aspects {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// In what two states of one pod differ.
fn of_pod(old: &Pod, new: &Pod) -> Aspects {
    let same_spec = match (&old.spec, &new.spec) {
        (Some(old), Some(new)) => old.is_same(new),
        (None, None) => true,
        _ => false,
    };
    let differ = Aspects::NONE
        .with(Aspects::META, !meta::is_same_but_version(&old.metadata, &new.metadata))
        .with(Aspects::SPEC, !same_spec)
        .with(Aspects::NODE, old.node_name != new.node_name);
    let same_status = match (&old.status, &new.status) {
        (Some(old), Some(new)) => old.is_same(new),
        (None, None) => true,
        _ => false,
    };
    if same_status {
        return differ;
    }
    differ
        .with(Aspects::REST, true)
        .with(Aspects::PHASE, phase(old) != phase(new))
        .with(Aspects::READINESS, readiness(old) != readiness(new))
}

fn phase(pod: &Pod) -> Option<&String> {
    pod.status.as_ref()?.phase.as_ref()
}

fn readiness(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
}

#[cfg(test)]
mod tests {
    use api::{Kind, codec};
    use serde_json::{Value, json};

    use super::*;

    /// A pod and what became of it by a merge patch, sharing what the patch leaves alone.
    fn between(patch: &Value) -> Aspects {
        let before = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1",
                "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]},
        });
        let mut after = before.clone();
        merge(&mut after, patch);
        let pod = |value: &Value| codec::decode_value(Kind::Pod, value).unwrap();
        let (old, mut new) = (pod(&before), pod(&after));
        let (Object::Pod(was), Object::Pod(is)) = (&old, &mut new) else { panic!("pods") };
        let is = std::sync::Arc::make_mut(is);
        if is.spec == was.spec {
            is.spec = was.spec.clone();
        }
        if is.status == was.status {
            is.status = was.status.clone();
        }
        Aspects::between(Some(&old), Some(&new))
    }

    fn merge(into: &mut Value, patch: &Value) {
        match patch {
            Value::Object(fields) if into.is_object() => {
                fields.iter().for_each(|(name, field)| merge(&mut into[name], field));
            }
            _ => *into = patch.clone(),
        }
    }

    #[test]
    fn changes_of_pods_are_told_apart() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let scheduled = json!([{"type": "Ready", "status": "False"},
            {"type": "PodScheduled", "status": "True"}]);
        for (patch, expected) in [
            (json!({"metadata": {"resourceVersion": "2"}}), Aspects::NONE),
            (json!({"metadata": {"labels": {"app": "db"}}}), Aspects::META),
            (json!({"metadata": {"deletionGracePeriodSeconds": 0}}), Aspects::META),
            (json!({"spec": {"schedulerName": "x"}}), Aspects::SPEC),
            (json!({"spec": {"nodeName": "a"}}), Aspects::NODE),
            (json!({"status": {"podIP": "10.0.0.1"}}), Aspects::REST),
            (json!({"status": {"phase": "Running"}}), Aspects::PHASE | Aspects::REST),
            (json!({"status": {"conditions": ready}}), Aspects::READINESS | Aspects::REST),
            (json!({"status": {"conditions": scheduled}}), Aspects::REST),
            (json!({"status": null}), Aspects::PHASE | Aspects::READINESS | Aspects::REST),
            (json!({"metadata": {"uid": "v"}}), Aspects::ALL),
        ] {
            assert_eq!(between(&patch), expected, "{patch}");
        }
    }

    #[test]
    fn who_comes_or_goes_or_is_no_pod_may_differ_in_all() {
        let value = json!({"metadata": {"name": "x"}});
        let pod = codec::decode_value(Kind::Pod, &value).unwrap();
        let node = codec::decode_value(Kind::Node, &value).unwrap();
        assert_eq!(Aspects::between(None, Some(&pod)), Aspects::ALL);
        assert_eq!(Aspects::between(Some(&pod), None), Aspects::ALL);
        assert_eq!(Aspects::between(Some(&node), Some(&node)), Aspects::ALL);
        assert!(!Aspects::NONE.hear(Aspects::ALL));
        assert!(Aspects::ALL.hear(Aspects::NONE) && !Aspects::META.hear(Aspects::NONE));
        assert!((Aspects::META | Aspects::NODE).hear(Aspects::NODE | Aspects::REST));
    }
}
