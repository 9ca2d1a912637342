//! Autoscalers of sets, and the loads that make them work.

use machine::RngTree;

use super::{Arrivals, Draft};
use crate::distribution::Distribution;
use crate::plan::{Autoscaler, Load, Operation, Target};
use crate::scenario::scheduled;
use crate::scenario::section::{CPU, Section};
use crate::span::Span;
use crate::workload::arrivals::{self, Diurnal};

/// An autoscaler for each set, with a load of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscale {
    /// The least number of pods.
    pub min_replicas: u32,
    /// The largest number of pods.
    pub max_replicas: u32,
    /// How much of the requested CPU pods shall use, in percent.
    pub cpu_percent: u32,
    /// How much CPU the pods of a set use together.
    pub load: Distribution<u64>,
    /// When that becomes another amount.
    pub changes: Option<Arrivals>,
    /// How it rises and falls with the time of day.
    pub diurnal: Option<Diurnal>,
}

pub(super) fn read(section: &Section<'_>) -> Option<Autoscale> {
    let bounds = scheduled::bounds(section);
    let load = section.need("load").and_then(|v| v.distribution(&CPU));
    let changes = section.section("changes").map(|section| {
        let arrivals = Arrivals::read(&section, None);
        section.finish();
        arrivals
    });
    let diurnal = section.section("diurnal").map(|s| arrivals::diurnal(&s));
    section.finish();
    let (min_replicas, max_replicas, cpu_percent) = bounds?;
    Some(Autoscale {
        min_replicas,
        max_replicas,
        cpu_percent,
        load: load?,
        // An absent value is right, a wrong one is not.
        changes: changes.map_or(Some(None), |changes| changes.map(Some))?,
        diurnal: diurnal.map_or(Some(None), |diurnal| diurnal.map(Some))?,
    })
}

impl Autoscale {
    /// Adds the autoscaler of one set to a plan.
    pub(super) fn create(
        &self,
        name: &str,
        target: Target,
        at: Span,
        tree: RngTree,
        draft: &mut Draft,
    ) {
        let tree = tree.child("load").child(name);
        let (mut times, mut amounts) = (tree.rng("changes"), tree.rng("amounts"));
        let mut steps = vec![(Span::ZERO, self.load.sample(&mut amounts))];
        let changes = self.changes.iter();
        for moment in changes.flat_map(|s| s.times(draft.end, &mut times).collect::<Vec<_>>()) {
            let milli = self.load.sample(&mut amounts);
            // Two changes of one moment are one.
            if steps.last().is_some_and(|(last, _)| *last < moment) {
                steps.push((moment, milli));
            }
        }
        let autoscaler = Autoscaler {
            name: name.to_owned(),
            target,
            min_replicas: self.min_replicas,
            max_replicas: self.max_replicas,
            cpu_percent: self.cpu_percent,
            load: Load { steps, diurnal: self.diurnal },
        };
        draft.operation(at, Operation::CreateAutoscaler(Box::new(autoscaler)));
    }
}
