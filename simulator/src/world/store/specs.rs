//! [`Specs`]: one spec for all pods whose specs are equal.

use std::collections::BTreeMap;

use api::hash::fnv64;
use api::{Memo, Pod, Shared};
use k8s_openapi::api::core::v1::PodSpec;
use registry::Operation;

/// Specs that no pod has are not looked for below this number.
const SWEEP_MIN: usize = 1_024;
/// The specs of the pods in the store. The pods of a template differ by their names and nodes,
/// not by their specs, which are the largest part of them.
#[derive(Clone, Default)]
pub(super) struct Specs {
    /// By what tells specs apart in practice.
    known: BTreeMap<u64, Vec<Shared<PodSpec>>>,
    count: usize,
    /// So many may there be before unused ones are looked for.
    sweep_at: usize,
    /// What became of the specs that pods were created from.
    made: Memo<PodSpec, Shared<PodSpec>>,
}

impl Specs {
    /// Forgets what specs became: the next pods may become something else.
    pub(super) fn forget_made(&mut self) {
        self.made = Memo::default();
    }

    /// What a spec became when a pod was last created from it.
    pub(super) fn made_of(&self, given: &Shared<PodSpec>) -> Option<Shared<PodSpec>> {
        self.made.get(given).cloned()
    }

    /// Gives a new pod the spec of those that have an equal one.
    pub(super) fn share(&mut self, operation: &Operation, pod: &mut Pod) {
        let Some(spec) = &mut pod.spec else { return };
        let Operation::Create { object } = operation else { return };
        let given = object.get::<Pod>().and_then(|pod| pod.spec.as_ref());
        if given.is_some_and(|g| self.made_of(g).is_some_and(|known| known.is_same(spec))) {
            return;
        }
        self.intern(spec);
        if let Some(given) = given.filter(|given| is_lasting(given, spec)) {
            self.made.insert(given, spec.clone());
        }
    }

    fn intern(&mut self, spec: &mut Shared<PodSpec>) {
        let digest = digest(spec);
        let alike = self.known.get(&digest).map(Vec::as_slice).unwrap_or_default();
        if let Some(known) = alike.iter().find(|known| *known == spec) {
            spec.clone_from(known);
            return;
        }
        self.sweep();
        self.known.entry(digest).or_default().push(spec.clone());
        self.count += 1;
    }

    fn sweep(&mut self) {
        if self.count < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        // It holds specs, too.
        self.forget_made();
        self.known.retain(|_, alike| {
            alike.retain(Shared::is_shared);
            !alike.is_empty()
        });
        self.count = self.known.values().map(Vec::len).sum();
        self.sweep_at = 2 * self.count;
    }
}

/// Whether the next pod from the given spec will have an equal one: not if anything was added that
/// is the pod's own, or its account's, which may change.
fn is_lasting(given: &PodSpec, became: &PodSpec) -> bool {
    given.volumes == became.volumes && given.image_pull_secrets == became.image_pull_secrets
}

/// Equal specs have equal digests.
fn digest(spec: &PodSpec) -> u64 {
    let mut bytes = Vec::with_capacity(256);
    let mut text = |text: &str| {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    };
    for container in &spec.containers {
        text(&container.name);
        text(container.image.as_deref().unwrap_or_default());
        container.args.iter().flatten().for_each(|argument| text(argument));
        let requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
        for (name, amount) in requests {
            text(name);
            text(&amount.0);
        }
    }
    for (key, value) in spec.node_selector.iter().flatten() {
        text(key);
        text(value);
    }
    // Of two pods with a token each has a volume with a name of its own.
    spec.volumes.iter().flatten().for_each(|volume| text(&volume.name));
    fnv64(&bytes)
}

#[cfg(test)]
mod tests {
    use api::ApiObject;

    use super::*;

    fn pod(image: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": image}]},
        }))
        .expect("a pod")
    }

    fn create(specs: &mut Specs, pod: &mut Pod) {
        specs.share(&Operation::Create { object: pod.clone().into_object() }, pod);
    }

    #[test]
    fn equal_specs_are_one_for_as_long_as_a_pod_has_them() {
        let mut specs = Specs::default();
        let (mut a, mut b, mut c) = (pod("x"), pod("x"), pod("y"));
        for pod in [&mut a, &mut b, &mut c] {
            create(&mut specs, pod);
        }
        let same = |a: &Pod, b: &Pod| {
            a.spec.as_ref().zip(b.spec.as_ref()).is_some_and(|(a, b)| a.is_same(b))
        };
        assert!(same(&a, &b) && !same(&a, &c));
        for i in 0..3 * SWEEP_MIN {
            create(&mut specs, &mut pod(&i.to_string()));
        }
        assert!(specs.count <= SWEEP_MIN, "{}", specs.count);
        let mut d = pod("y");
        create(&mut specs, &mut d);
        assert!(same(&c, &d));
    }
    #[test]
    fn what_a_spec_became_is_known_unless_it_is_the_pods_own() {
        let mut specs = Specs::default();
        let given = pod("x");
        let spec = given.spec.clone().expect("it has one");
        let operation = Operation::Create { object: given.clone().into_object() };
        let mut made = given.clone();
        made.spec.as_mut().expect("it has one").priority = Some(0);
        specs.share(&operation, &mut made);
        assert_eq!(specs.made_of(&spec), made.spec);
        assert_eq!(specs.made_of(&Shared::new(spec.into_inner())), None);
        let mut own = pod("y");
        let operation = Operation::Create { object: own.clone().into_object() };
        let given = own.spec.clone().expect("it has one");
        own.spec.as_mut().expect("it has one").volumes = Some(Vec::new());
        specs.share(&operation, &mut own);
        assert_eq!(specs.made_of(&given), None);
    }
}
