//! Namespaces with quotas and limit ranges, for other workloads to live in.

use std::collections::BTreeMap;

use machine::RngTree;
use rand::RngExt;

use super::{Arrivals, Draft};
use crate::distribution::Distribution;
use crate::plan::{LimitRange, Operation, Quota};
use crate::scenario::diagnostics::Problem;
use crate::scenario::limits;
use crate::scenario::section::{COUNT, Section};
use crate::span::Span;

/// What the quota and the limit range of a namespace are called.
const NAME: &str = "limits";

/// Namespaces, all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// When they are created.
    pub arrivals: Arrivals,
    /// How much of each resource the quota of each allows, if it has one.
    pub quota: Option<BTreeMap<String, String>>,
    /// The limit range of each, if it has one.
    pub limits: Option<LimitRange>,
    /// When the quota of one of them allows another number of pods.
    pub changes: Option<(Arrivals, Distribution<u64>)>,
}

pub(super) fn read(section: &Section<'_>) -> Option<Namespaces> {
    let arrivals = Arrivals::read(section, Some(Distribution::default()));
    let quota = section.has("quota").then(|| limits::hard(section, "quota"));
    let _ = section.get("quota");
    let limits = section.section("limits").map(|section| {
        let range = limits::limit_range(&section, Some(NAME.to_owned()));
        section.finish();
        range
    });
    let changes = section.section("changes").map(|section| {
        let arrivals = Arrivals::read(&section, None);
        let pods = section.need("pods").and_then(|v| v.distribution(&COUNT));
        section.finish();
        arrivals.zip(pods)
    });
    if changes.is_some() && quota.is_none() {
        let message = format!("`{}.changes` has no quota to change", section.path());
        let problem = Problem::error(section.place_of("changes"), message);
        section.report(problem.label("without `quota`").help("give `quota = { pods = 10 }`"));
        return None;
    }
    // An absent value is right, a wrong one is not.
    Some(Namespaces {
        arrivals: arrivals?,
        quota: quota.map_or(Some(None), |quota| quota.map(Some))?,
        limits: limits.map_or(Some(None), |limits| limits.map(Some))?,
        changes: changes.map_or(Some(None), |changes| changes.map(Some))?,
    })
}

impl Namespaces {
    fn streams(&self) -> impl Iterator<Item = &Arrivals> {
        self.changes.iter().map(|(arrivals, _)| arrivals).chain([&self.arrivals])
    }

    pub(super) fn endless(&self) -> bool {
        self.streams().any(Arrivals::endless)
    }

    pub(super) fn expected(&self, end: Option<Span>) -> u64 {
        self.streams().fold(0_u64, |n, s| n.saturating_add(s.expected(end).saturating_mul(3)))
    }

    pub(super) fn expand(&self, name: &str, tree: RngTree, draft: &mut Draft) {
        let mut arrivals = tree.rng("arrivals");
        let mut made: Vec<(Span, String)> = Vec::new();
        for (i, at) in self.arrivals.times(draft.end, &mut arrivals).enumerate() {
            let namespace = format!("{name}-{i}");
            draft.operation(at, Operation::CreateNamespace { name: namespace.clone() });
            if let Some(hard) = &self.quota {
                draft.operation(at, Operation::CreateQuota(quota(&namespace, hard.clone())));
            }
            if let Some(limits) = &self.limits {
                let name = format!("{namespace}/{NAME}");
                let range = LimitRange { name, ..limits.clone() };
                draft.operation(at, Operation::CreateLimitRange(Box::new(range)));
            }
            made.push((at, namespace));
        }
        let (Some((stream, pods)), Some(hard)) = (&self.changes, &self.quota) else { return };
        let (mut times, mut which, mut numbers) =
            (tree.rng("changes"), tree.rng("changed"), tree.rng("changed to"));
        let moments: Vec<Span> = stream.times(draft.end, &mut times).collect();
        for at in moments {
            let there = made.partition_point(|(created, _)| *created < at);
            if there == 0 {
                continue;
            }
            let (_, namespace) = &made[which.random_range(0..there)];
            let mut hard = hard.clone();
            hard.insert("pods".to_owned(), pods.sample(&mut numbers).to_string());
            draft.operation(at, Operation::SetQuota(quota(namespace, hard)));
        }
    }
}

fn quota(namespace: &str, hard: BTreeMap<String, String>) -> Box<Quota> {
    Box::new(Quota { name: format!("{namespace}/{NAME}"), hard })
}
