//! What the pods of a workload use of the CPU: [`Load`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Operation, Plan, Target};
use crate::span::Span;
use crate::workload::arrivals::Diurnal;

/// CPU that the ready pods of one workload use together: what users ask of a service, which
/// shares it among its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Thousandths of a CPU from a moment on, in the order of the moments; nothing before.
    pub steps: Vec<(Span, u64)>,
    /// How it rises and falls with the time of day.
    pub diurnal: Option<Diurnal>,
}

impl Load {
    /// Thousandths of a CPU at a moment from the start of the run.
    pub fn at(&self, at: Span) -> u64 {
        let begun = self.steps.partition_point(|(from, _)| *from <= at);
        let Some((_, milli)) = begun.checked_sub(1).and_then(|i| self.steps.get(i)) else {
            return 0;
        };
        self.diurnal.map_or(*milli, |diurnal| {
            let product = u128::from(*milli) * u128::from(diurnal.rate(at)) / 1_000;
            u64::try_from(product).unwrap_or(u64::MAX)
        })
    }

    /// The most that it is, or may be, between two moments.
    pub fn most(&self, from: Span, until: Span) -> u64 {
        let begun = self.steps.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        let steps = self.steps.iter().skip(begun).take_while(|(at, _)| *at <= until);
        let most = steps.map(|(_, milli)| *milli).max().unwrap_or(0);
        let percent = self.diurnal.map_or(0, |diurnal| u128::from(diurnal.percent));
        u64::try_from(u128::from(most) * (100 + percent) / 100).unwrap_or(u64::MAX)
    }
}

/// Loads by namespace and name of the workload whose pods, labelled `app=NAME`, share them.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    of: BTreeMap<(String, String), Load>,
    /// From then on every load stays what it is.
    until: Span,
}

impl Loads {
    /// The loads of a plan: those of its autoscalers, which stay as they are when the operations
    /// end.
    pub fn of(plan: &Plan) -> Self {
        let mut of = BTreeMap::new();
        for planned in &plan.operations {
            if let Operation::CreateAutoscaler(autoscaler) = &planned.operation {
                let (namespace, name) =
                    autoscaler.name.split_once('/').unwrap_or(("default", &autoscaler.name));
                let key = (namespace.to_owned(), name.to_owned());
                // A second one of a name is refused.
                of.entry(key).or_insert_with(|| autoscaler.load.clone());
            }
        }
        Self { of, until: plan.heals_at() }
    }

    /// The load of a workload.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Load> {
        self.of.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The moment by which loads go: it stands still when the operations end.
    pub fn moment(&self, elapsed: Span) -> Span {
        elapsed.min(self.until)
    }
}

/// An autoscaler of the workload of its own name, and the load that makes it work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoscaler {
    /// Its name, and that of what it scales.
    pub name: String,
    /// The kind of what it scales.
    pub target: Target,
    /// The least number of pods.
    pub min_replicas: u32,
    /// The largest number of pods.
    pub max_replicas: u32,
    /// How much of the requested CPU pods shall use, in percent.
    pub cpu_percent: u32,
    /// What they use.
    pub load: Load,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_goes_in_steps_and_with_the_day() {
        let load = Load {
            steps: vec![(Span::secs(10), 1_000), (Span::secs(20), 3_000), (Span::secs(30), 500)],
            diurnal: None,
        };
        let at = [0, 10, 19, 20, 31].map(|secs| load.at(Span::secs(secs)));
        assert_eq!(at, [0, 1_000, 1_000, 3_000, 500]);
        let most = |from: u64, until: u64| load.most(Span::secs(from), Span::secs(until));
        assert_eq!([most(0, 5), most(12, 15), most(12, 25), most(30, 90)], [0, 1_000, 3_000, 500]);
        let (period, peak) = (Span::secs(100), Span::secs(50));
        let diurnal = Some(Diurnal { period, peak, percent: 50 });
        let load = Load { steps: vec![(Span::ZERO, 1_000)], diurnal };
        assert_eq!((load.at(peak), load.at(period)), (1_500, 500));
        assert_eq!(load.most(Span::ZERO, Span::ZERO), 1_500);
    }
}
