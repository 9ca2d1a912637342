//! Amounts of resources, parsed once.

use std::collections::BTreeMap;

use api::quantity::{Bytes, MilliCpu, Quantity as Amount};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// CPU, memory, local storage and extended resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// Processor time.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Local storage.
    pub ephemeral_storage: Bytes,
    /// Extended resources by name, whole units.
    pub extended: BTreeMap<String, i64>,
}

/// What a container that asks for nothing counts as when nodes are scored: else a node full of
/// such pods would look empty.
///
/// Source: kubernetes 1.33, `pkg/scheduler/util/pod_resources.go`.
const CPU_UNASKED: MilliCpu = MilliCpu(100);
const MEMORY_UNASKED: Bytes = Bytes(200 << 20);

impl Resources {
    /// Parses a resource list; what is no quantity counts as nothing (validation refuses it).
    pub fn of_list(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(amount) = Amount::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => resources.cpu = amount.cpu(),
                "memory" => resources.memory = amount.bytes(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.bytes(),
                "pods" => {}
                _ => {
                    resources.extended.insert(name.clone(), amount.value());
                }
            }
        }
        resources
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Self) {
        self.cpu.0 = self.cpu.0.saturating_add(other.cpu.0);
        self.memory.0 = self.memory.0.saturating_add(other.memory.0);
        self.ephemeral_storage.0 =
            self.ephemeral_storage.0.saturating_add(other.ephemeral_storage.0);
        for (name, amount) in &other.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let most = self.extended.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }
}

/// A sum of amounts that can be undone, however large they are: pods may ask for more than numbers
/// hold, and one that did and is gone must leave no trace.
///
/// It reads as [`Resources`], where what is too much for a number is the largest one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    shown: Resources,
    /// By how much the true sums are larger than what is shown; hardly ever there.
    beyond: Option<Box<Beyond>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Beyond {
    cpu: i128,
    memory: i128,
    ephemeral_storage: i128,
    extended: BTreeMap<String, i128>,
}

impl std::ops::Deref for Sum {
    type Target = Resources;

    fn deref(&self) -> &Resources {
        &self.shown
    }
}

impl Sum {
    /// Adds each amount.
    pub fn add(&mut self, other: &Resources) {
        let (shown, beyond) = (&mut self.shown, &mut self.beyond);
        if let Some(lost) = plus(&mut shown.cpu.0, other.cpu.0) {
            beyond.get_or_insert_default().cpu += lost;
        }
        if let Some(lost) = plus(&mut shown.memory.0, other.memory.0) {
            beyond.get_or_insert_default().memory += lost;
        }
        let (storage, more) = (&mut shown.ephemeral_storage.0, other.ephemeral_storage.0);
        if let Some(lost) = plus(storage, more) {
            beyond.get_or_insert_default().ephemeral_storage += lost;
        }
        for (name, amount) in &other.extended {
            let Some(sum) = shown.extended.get_mut(name) else {
                shown.extended.insert(name.clone(), *amount);
                continue;
            };
            if let Some(lost) = plus(sum, *amount) {
                let beyond = beyond.get_or_insert_default();
                *beyond.extended.entry(name.clone()).or_default() += lost;
            }
        }
    }

    /// Subtracts amounts that were added.
    pub fn subtract(&mut self, other: &Resources) {
        let shown = &mut self.shown;
        // All of it comes off what is shown, but for what is beyond.
        let mut none = Beyond::default();
        let beyond = self.beyond.as_deref_mut().unwrap_or(&mut none);
        minus(&mut shown.cpu.0, &mut beyond.cpu, other.cpu.0);
        minus(&mut shown.memory.0, &mut beyond.memory, other.memory.0);
        let (storage, less) = (&mut shown.ephemeral_storage.0, other.ephemeral_storage.0);
        minus(storage, &mut beyond.ephemeral_storage, less);
        for (name, amount) in &other.extended {
            let sum = shown.extended.entry(name.clone()).or_default();
            let mut nothing = 0;
            let beyond = beyond.extended.get_mut(name).unwrap_or(&mut nothing);
            minus(sum, beyond, *amount);
        }
        shown.extended.retain(|_, amount| *amount != 0);
        beyond.extended.retain(|_, amount| *amount != 0);
        if *beyond == Beyond::default() {
            self.beyond = None;
        }
    }
}

/// Adds; returns what is more than a number holds.
fn plus(sum: &mut i64, amount: i64) -> Option<i128> {
    if let Some(total) = sum.checked_add(amount) {
        *sum = total;
        return None;
    }
    let lost = i128::from(*sum) + i128::from(amount) - i128::from(i64::MAX);
    *sum = i64::MAX;
    Some(lost)
}

/// Subtracts from what is beyond a sum, and what is left from the sum.
fn minus(sum: &mut i64, beyond: &mut i128, amount: i64) {
    let over = i64::try_from(*beyond).unwrap_or(i64::MAX).min(amount);
    *beyond -= i128::from(over);
    *sum = sum.saturating_sub(amount - over);
}

/// What a pod asks for: the sum of its containers, or the largest step of its initialisation,
/// plus its overhead.
///
/// Source: kubernetes 1.33, `k8s.io/component-helpers/resource`.
pub fn requests(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        Resources::of_list(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
    })
}

/// As [`requests`], with a floor for containers that ask for nothing.
pub fn scored_requests(spec: &PodSpec) -> Resources {
    total(spec, |container| {
        let list = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut resources = Resources::of_list(list);
        let asks = |name: &str| list.is_some_and(|l| l.contains_key(name));
        if !asks("cpu") {
            resources.cpu = CPU_UNASKED;
        }
        if !asks("memory") {
            resources.memory = MEMORY_UNASKED;
        }
        resources
    })
}

fn total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut step = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&step);
            sidecars.add(&step);
            peak.raise_to(&sidecars);
        } else {
            step.add(&sidecars);
            peak.raise_to(&step);
        }
    }
    sum.raise_to(&peak);
    sum.add(&Resources::of_list(spec.overhead.as_ref()));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Pods come and go in any order: what is left is the sum of those that are left.
        #[test]
        fn a_sum_can_be_undone(
            amounts in proptest::collection::vec(
                proptest::prop_oneof![0..1_000_i64, proptest::strategy::Just(i64::MAX),
                    i64::MAX - 10..i64::MAX],
                1..8),
            gone in proptest::collection::vec(proptest::bool::ANY, 8),
        ) {
            let of = |amount: i64| Resources {
                cpu: MilliCpu(amount),
                memory: Bytes(amount),
                ephemeral_storage: Bytes(amount),
                extended: BTreeMap::from([("x/y".to_owned(), amount)]),
            };
            let (mut sum, mut left, mut exact) = (Sum::default(), Sum::default(), 0_i128);
            amounts.iter().for_each(|amount| sum.add(&of(*amount)));
            for (amount, gone) in amounts.iter().zip(gone) {
                if gone {
                    sum.subtract(&of(*amount));
                } else {
                    left.add(&of(*amount));
                    exact += i128::from(*amount);
                }
            }
            let shown = i64::try_from(exact).unwrap_or(i64::MAX);
            proptest::prop_assert_eq!(sum.memory, Bytes(shown));
            left.shown.extended.retain(|_, amount| *amount != 0);
            proptest::prop_assert_eq!(sum, left);
        }
    }

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn sums_containers_and_takes_the_peak_of_initialisation() {
        let pod = |init: serde_json::Value| {
            spec(serde_json::json!({
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "100m", "x/y": "2"}}}],
                "initContainers": init}))
        };
        let none = requests(&pod(serde_json::json!([])));
        assert_eq!((none.cpu, none.memory), (MilliCpu(300), Bytes(1 << 30)));
        assert_eq!(none.extended["x/y"], 2);
        let init = serde_json::json!([
            {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "1"}}}]);
        assert_eq!(requests(&pod(init)).cpu, MilliCpu(1050));
        let scored = scored_requests(&pod(serde_json::json!([])));
        assert_eq!(scored.memory, Bytes((1 << 30) + (200 << 20)));
    }
}
