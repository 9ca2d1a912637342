//! Jobs: work that comes to an end.

use machine::RngTree;
use rand::RngExt;

use super::sets::pods_of;
use super::{Arrivals, Draft, Sizes, pods};
use crate::distribution::Distribution;
use crate::plan::{Operation, PodTemplate};
use crate::scenario::diagnostics::Problem;
use crate::scenario::events::REPLICAS_MAX;
use crate::scenario::section::{COUNT, Section, TIME};
use crate::scenario::shapes::{self, Catalogue};

/// Jobs that come at a rate and finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// When they come.
    pub arrivals: Arrivals,
    /// What their pods are like.
    pub template: PodTemplate,
    /// How much their pods ask for.
    pub sizes: Sizes,
    /// How long the pods of a job run.
    pub runs: Distribution,
    /// How many pods of a job must succeed.
    pub completions: Distribution<u64>,
    /// How many of them run at a time.
    pub parallelism: Distribution<u64>,
    /// How many jobs of a hundred have indexes.
    pub indexed_percent: u8,
    /// How many jobs of a hundred fail, with all their pods.
    pub failing_percent: u8,
    /// How many failures are too many by one.
    pub backoff_limit: u32,
    /// How long they stay when they have finished; for ever when absent.
    pub ttl_seconds: Option<u32>,
}

pub(super) fn read(section: &Section<'_>, templates: &Catalogue<PodTemplate>) -> Option<Jobs> {
    let (base, named) = pods::base(section, templates)?;
    let sizes = Sizes::read(section, Sizes::of(&base));
    let arrivals = Arrivals::read(section, None);
    let runs = section.distribution("runs", &TIME).or(base.runs.map(Distribution::Constant));
    if runs.is_none() && !section.has("runs") {
        let problem = Problem::error(section.place(), "pods of a job must come to an end");
        section.report(problem.label("needs `runs`"));
    }
    let mut template = shapes::pod_manners(section, &base);
    if !named && !section.has("restart_policy") {
        "Never".clone_into(&mut template.restart_policy);
    }
    if template.restart_policy == "Always" {
        let message = "pods of a job cannot have the restart policy `Always`";
        let problem = Problem::error(section.place_of("restart_policy"), message);
        section.report(problem.label("must be `Never` or `OnFailure`"));
    }
    let number = |key| {
        let numbers = section.distribution(key, &COUNT).unwrap_or(Distribution::Constant(1));
        if numbers.upper() > u64::from(REPLICAS_MAX) {
            let message = format!("`{}.{key}`: more pods than can be simulated", section.path());
            let label = format!("more than {REPLICAS_MAX}");
            section.report(Problem::error(section.place_of(key), message).label(label));
        }
        numbers
    };
    let (completions, parallelism) = (number("completions"), number("parallelism"));
    let percent = |key| section.whole(key, 0..=100_u8).unwrap_or(0);
    let (indexed_percent, failing_percent) = (percent("indexed"), percent("failing"));
    let backoff_limit = section.whole("backoff_limit", 0..=REPLICAS_MAX).unwrap_or(6);
    let ttl_seconds = section.whole("ttl_seconds", 0..=REPLICAS_MAX);
    Some(Jobs {
        arrivals: arrivals?,
        template,
        sizes,
        runs: runs?,
        completions,
        parallelism,
        indexed_percent,
        failing_percent,
        backoff_limit,
        ttl_seconds,
    })
}

impl Jobs {
    pub(super) fn expected(&self, end: Option<crate::span::Span>) -> u64 {
        let of_each = self.completions.mean().saturating_add(1);
        self.arrivals.expected(end).saturating_mul(of_each)
    }

    pub(super) fn expand(&self, name: &str, tree: RngTree, draft: &mut Draft) {
        let sizes = self.sizes.draw(&self.template, &mut tree.rng("sizes"));
        let (mut arrivals, mut choice, mut lives) =
            (tree.rng("arrivals"), tree.rng("choice"), tree.rng("runs"));
        let (mut numbers, mut kinds) = (tree.rng("numbers"), tree.rng("kinds"));
        for (i, at) in self.arrivals.times(draft.end, &mut arrivals).enumerate() {
            let mut template = sizes[choice.random_range(0..sizes.len())].clone();
            template.runs = Some(self.runs.sample(&mut lives));
            let indexed = kinds.random_range(0..100) < self.indexed_percent;
            if kinds.random_range(0..100) < self.failing_percent {
                template.exit_code = 1;
            }
            let completions = pods_of(self.completions.sample(&mut numbers));
            let operation = Operation::CreateJob {
                name: format!("{name}-{i}"),
                template: draft.template(template),
                completions: Some(completions),
                parallelism: pods_of(self.parallelism.sample(&mut numbers)),
                indexed,
                backoff_limit: self.backoff_limit,
                ttl_seconds: self.ttl_seconds,
            };
            draft.operation(at, operation);
        }
    }
}
