//! Pods that are placed together: P16.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Name, Object, Pod, Request, Time};

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;

/// Namespace and name of a group.
type Group = (Name, String);

/// P16: the first pods of a group to be bound are bound at one moment, as many as have to be
/// together.
///
/// Which of them are bound later, or again because a node was lost, is not judged: groups that were
/// whole once are made whole pod by pod.
#[derive(Clone, Default)]
pub(super) struct PlacedTogether {
    /// UIDs of the pods of each group that somebody wanted to bind, ever.
    seen: BTreeMap<Group, BTreeSet<String>>,
    /// The groups of which pods are being bound at this moment, and how many there have to be.
    now: BTreeMap<Group, usize>,
    at: Time,
}

/// The group of a pod, and how many of it have to be together.
fn group_of(key: &Key, pod: &Pod) -> Option<(Group, usize)> {
    let (name, min) = oracle::group(pod)?;
    Some(((key.namespace.clone(), name.to_owned()), min))
}

impl PlacedTogether {
    /// Judges the moment that is over.
    fn judge(&mut self, found: &mut Vec<String>) {
        for (group, min) in std::mem::take(&mut self.now) {
            let bound = self.seen.get(&group).map_or(0, BTreeSet::len);
            if bound < min {
                let (namespace, name) = group;
                found.push(format!(
                    "{bound} pods of the group {namespace}/{name} are bound, which needs {min} \
                     together"
                ));
            }
        }
    }
}

impl Check for PlacedTogether {
    fn property(&self) -> &'static str {
        "P16"
    }

    fn statement(&self) -> &'static str {
        "pods of a group get their nodes together, or none of them does"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        if cluster.now() != self.at {
            self.judge(found);
            self.at = cluster.now();
        }
        let Occurrence::Called { by, request: Request::Bind { pod: key, uid, .. } } = occurrence
        else {
            return;
        };
        if cluster.role(*by) != Role::Scheduler {
            return;
        }
        let pod = cluster.object(key).and_then(Object::get::<Pod>);
        if let Some((group, min)) = pod.and_then(|pod| group_of(key, pod)) {
            self.seen.entry(group.clone()).or_default().insert(uid.clone());
            let wanted = self.now.entry(group).or_default();
            *wanted = min.max(*wanted);
        }
    }

    fn at_rest(&mut self, _cluster: &dyn Cluster, found: &mut Vec<String>) {
        self.judge(found);
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use serde_json::json;

    use super::*;
    use crate::checks::made_up::{self, Case};
    use crate::plan::{
        Component, Fault, NodeShape, Operation, Outcome, Plan, PlannedFault, PlannedOperation,
        PodTemplate,
    };
    use crate::span::Span;
    use crate::world::World;

    const GROUP: &str = "scheduling.x-k8s.io/pod-group";
    const MIN: &str = "scheduling.x-k8s.io/pod-group-min-available";

    #[test]
    fn p16_half_a_group_is_bound() {
        let mut case = Case::new(PlacedTogether::default());
        let scheduler = case.scheduler();
        for name in ["a", "b", "c"] {
            let labels = json!({"metadata": {"labels": {GROUP: "g", MIN: "2"}}});
            case.put(None, &made_up::pod(name, &labels));
        }
        let bind = |name: &str| Request::Bind {
            pod: made_up::pod_key(name),
            uid: format!("u-{name}"),
            node: "n1".to_owned(),
        };
        case.call(scheduler, &bind("a"));
        case.is_right();
        case.advance(1);
        case.call(scheduler, &bind("b"));
        case.is_wrong(&["1 pods of the group d/g are bound", "needs 2"]);
        // Now there are enough, and more may come one by one.
        case.advance(1);
        case.call(scheduler, &bind("c"));
        case.is_right();
        assert_eq!(case.at_rest(), [""; 0]);
    }

    /// Two groups of four, with room for six.
    fn two_groups() -> Plan {
        let mut plan = made_up::plan();
        plan.shapes = vec![NodeShape { cpu_milli: 3_000, ..NodeShape::default() }];
        plan.settings.scheduler.enabled = vec!["Coscheduling".to_owned()];
        for (number, group) in ["x", "y"].into_iter().enumerate() {
            let labels = [(GROUP, group), (MIN, "4")];
            plan.templates.push(PodTemplate {
                image: group.to_owned(),
                cpu_milli: 900,
                labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                ..PodTemplate::default()
            });
            let template = u32::try_from(number).unwrap();
            let name = group.to_owned();
            let operation = Operation::CreateReplicaSet { name, template, replicas: 4 };
            plan.operations.push(PlannedOperation { at: Span::secs(30), operation });
        }
        plan.settings.safety = Span::secs(60);
        plan
    }

    /// How many pods of each group have a node.
    fn bound(world: &World) -> BTreeMap<String, usize> {
        let pods = world.objects(Kind::Pod).filter_map(Object::get::<Pod>);
        let mut bound = BTreeMap::new();
        for pod in pods.filter(|pod| oracle::node_of(pod).is_some()) {
            let group = pod.metadata.labels.as_ref().and_then(|labels| labels.get(GROUP));
            *bound.entry(group.cloned().unwrap_or_default()).or_default() += 1;
        }
        bound
    }

    #[test]
    fn p16_of_two_groups_one_is_placed_as_a_whole() {
        let mut world = World::new(two_groups()).unwrap();
        world.run();
        assert_eq!(world.violations(), []);
        assert!(bound(&world).into_values().eq([4]), "{:?}", bound(&world));
    }

    /// While pods of one group wait for another attempt to bind them, the other group must not get
    /// what they need.
    #[test]
    fn p16_a_group_of_which_bindings_fail_is_made_whole() {
        let mut failed = 0;
        for seed in 1..=6 {
            let mut plan = two_groups();
            plan.seed = seed;
            for scheduler in 0..2 {
                plan.faults.push(PlannedFault {
                    at: Span::secs(29),
                    // Too short for another process to lead.
                    lasts: Some(Span::secs(5)),
                    fault: Fault::CallTimeout {
                        component: Component::Scheduler(scheduler),
                        percent: 50,
                        outcome: if seed % 2 == 0 { Outcome::Refused } else { Outcome::Lost },
                    },
                });
            }
            let mut world = World::new(plan).unwrap();
            // A moment after the pods are there.
            while world.elapsed() < Span::secs(31) && world.step() {}
            failed += usize::from(bound(&world).into_values().any(|bound| bound < 4));
            world.run();
            assert_eq!(world.violations(), [], "seed {seed}");
            assert!(bound(&world).into_values().eq([4]), "seed {seed}: {:?}", bound(&world));
        }
        assert!(failed > 2, "bindings failed in {failed} runs");
    }
}
