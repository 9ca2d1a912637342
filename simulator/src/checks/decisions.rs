//! Which of the nodes that fit a pod goes to: P20.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::world::ProcessId;

pub(super) const PROPERTY: &str = "P20";

/// Up to so many nodes every decision is compared: it costs no more than looking at each node
/// once.
const NODES_FEW: usize = 100;

/// One decision in how many is compared in a cluster of that size. In a large one as many as
/// there are nodes, so that a decision costs one node more to look at, whatever the size.
pub(super) fn one_compared_in(nodes: usize) -> NonZeroU32 {
    let one_in = if nodes <= NODES_FEW { 1 } else { u32::try_from(nodes).unwrap_or(u32::MAX) };
    NonZeroU32::new(one_in).unwrap_or(NonZeroU32::MIN)
}

/// P20: a pod goes to one of the best of the nodes that were looked at.
///
/// Which those are is what the scheduler's plain way of deciding says, which asks every plugin
/// about every node and remembers nothing: with the same nodes, start and random numbers, node,
/// reasons, next start and random numbers are the same. The scheduler compares the two itself
/// ([`scheduler::Shadow`]), since nobody else has its view at that moment.
#[derive(Clone, Default)]
pub(super) struct BestIsChosen {
    /// How many differences of each scheduler's life were told.
    told: BTreeMap<ProcessId, usize>,
}

impl BestIsChosen {
    fn look(&mut self, cluster: &dyn Cluster, process: ProcessId, found: &mut Vec<String>) {
        let Some((_, differences)) = cluster.compared(process) else { return };
        let told = self.told.entry(process).or_default();
        for difference in &differences[(*told).min(differences.len())..] {
            found.push(format!("{} decides that {difference}", cluster.component(process)));
        }
        *told = differences.len();
    }
}

impl Check for BestIsChosen {
    fn property(&self) -> &'static str {
        PROPERTY
    }

    fn statement(&self) -> &'static str {
        "a pod goes to one of the best of the nodes that the scheduler looked at"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.told.remove(process);
            }
            // A decision is followed by one of the two.
            Occurrence::Called { by, .. } | Occurrence::Recorded { by, .. }
                if cluster.role(*by) == Role::Scheduler =>
            {
                self.look(cluster, *by, found);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use api::{Key, Kind, Request};
    use scheduler::Choice;
    use scheduler::shadow::Difference;

    use super::*;
    use crate::checks::made_up::{self, Case};
    use crate::plan::{Operation, PlannedOperation, PodTemplate};
    use crate::span::Span;
    use crate::world::World;

    #[test]
    fn p20_differences_are_told_once() {
        let mut case = Case::new(BestIsChosen::default());
        let (scheduler, manager) = (case.scheduler(), case.manager());
        let call = Request::Get(Key::cluster(Kind::Node, "n1"));
        case.call(scheduler, &call);
        case.is_right();
        let choice = Choice { node: "n1".to_owned(), score: 700, feasible: 2, evaluated: 2 };
        case.cluster.differences.push(Difference {
            time: case.cluster.now(),
            pod: made_up::pod_key("a"),
            expected: Ok(Choice { node: "n2".to_owned(), score: 701, ..choice.clone() }),
            found: Ok(choice),
        });
        case.call(manager, &call);
        case.is_right();
        case.call(scheduler, &call);
        case.is_wrong(&["scheduler-0", "d/a goes to n1 (score 700", "reference to n2 (score 701"]);
        case.call(scheduler, &call);
        case.is_right();
        // Another life has its own.
        case.tell(&Occurrence::Started(scheduler));
        case.call(scheduler, &call);
        case.is_wrong(&["scheduler-0"]);
    }

    #[test]
    fn p20_every_decision_of_a_small_cluster_is_compared() {
        let mut plan = made_up::plan();
        plan.templates.push(PodTemplate::default());
        let operation =
            Operation::CreateReplicaSet { name: "r".to_owned(), template: 0, replicas: 5 };
        plan.operations.push(PlannedOperation { at: Span::secs(30), operation });
        plan.settings.safety = Span::secs(60);
        for (unchecked, expected) in [(vec![], (2, (5, 0))), (vec![PROPERTY], (0, (0, 0)))] {
            plan.settings.unchecked = unchecked.into_iter().map(str::to_owned).collect();
            let mut world = World::new(plan.clone()).unwrap();
            world.run();
            assert_eq!(world.violations(), []);
            let schedulers = world.processes().take(2);
            let compared: Vec<(u64, usize)> = schedulers
                .filter_map(|scheduler| Cluster::compared(&world, scheduler))
                .map(|(count, differences)| (count, differences.len()))
                .collect();
            let sum = compared.iter().fold((0, 0), |sum, (n, d)| (sum.0 + n, sum.1 + d));
            assert_eq!((compared.len(), sum), expected);
        }
    }

    #[test]
    fn in_large_clusters_a_decision_costs_one_node_more() {
        let one_in = |nodes| one_compared_in(nodes).get();
        assert_eq!([0, 1, 100, 101, 10_000].map(one_in), [1, 1, 1, 101, 10_000]);
    }
}
