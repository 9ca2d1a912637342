//! Cron jobs: work that comes at the times of schedules.

use machine::RngTree;
use rand::RngExt;

use super::sets::{one_of, pods_of};
use super::{Arrivals, Draft, Sizes, pods};
use crate::distribution::Distribution;
use crate::plan::{Concurrency, CronJob, Operation, PodTemplate, Target};
use crate::scenario::diagnostics::Problem;
use crate::scenario::events::REPLICAS_MAX;
use crate::scenario::scheduled::schedule;
use crate::scenario::section::{COUNT, Section, TIME};
use crate::scenario::shapes::{self, Catalogue};
use crate::span::Span;

/// Cron jobs that are created, suspended, let go on and deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronJobs {
    /// When they are created.
    pub arrivals: Arrivals,
    /// What their pods are like.
    pub template: PodTemplate,
    /// How much their pods ask for.
    pub sizes: Sizes,
    /// How long their pods run.
    pub runs: Distribution,
    /// The schedules, one of which each has.
    pub schedules: Vec<String>,
    /// What becomes of times at which the last job still runs: one of these.
    pub concurrency: Vec<Concurrency>,
    /// How many pods of a job must succeed.
    pub completions: Distribution<u64>,
    /// How many cron jobs of a hundred have jobs that fail.
    pub failing_percent: u8,
    /// How many failures of a job are too many by one.
    pub backoff_limit: u32,
    /// How late jobs may be made; at any time when absent.
    pub deadline_seconds: Option<u32>,
    /// How many jobs that succeeded are kept.
    pub successful_kept: u32,
    /// How many jobs that failed are kept.
    pub failed_kept: u32,
    /// How long jobs stay when they have finished; as long as they are kept when absent.
    pub ttl_seconds: Option<u32>,
    /// When one of them is suspended, or goes on if it is.
    pub suspensions: Option<Arrivals>,
    /// When one of them is deleted.
    pub deletions: Option<Arrivals>,
}

pub(super) fn read(section: &Section<'_>, templates: &Catalogue<PodTemplate>) -> Option<CronJobs> {
    let (base, named) = pods::base(section, templates)?;
    let sizes = Sizes::read(section, Sizes::of(&base));
    let arrivals = Arrivals::read(section, Some(Distribution::default()));
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
    let schedules = section.need("schedules").and_then(|value| {
        let items = value.list()?;
        // All mistakes are told, not only the first.
        let read: Vec<Option<String>> = items.iter().map(schedule).collect();
        if items.is_empty() {
            value.report(format!("`{}` is empty", value.path()), "no schedule", "");
            return None;
        }
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let concurrency = match section.get("concurrency") {
        None => Some(vec![Concurrency::Allow]),
        Some(value) => value.list().and_then(|items| {
            if items.is_empty() {
                value.report(format!("`{}` is empty", value.path()), "no policy", "");
                return None;
            }
            items.iter().map(|item| item.choice()).collect()
        }),
    };
    let completions = section.distribution("completions", &COUNT);
    let completions = completions.unwrap_or(Distribution::Constant(1));
    if completions.upper() > u64::from(REPLICAS_MAX) {
        let message = format!("`{}.completions`: more pods than can be simulated", section.path());
        let label = format!("more than {REPLICAS_MAX}");
        section.report(Problem::error(section.place_of("completions"), message).label(label));
    }
    let number = |key, default| section.whole(key, 0..=REPLICAS_MAX).unwrap_or(default);
    let stream = |key| {
        let section = section.section(key)?;
        let arrivals = Arrivals::read(&section, None);
        section.finish();
        arrivals
    };
    let failing_percent = section.whole("failing", 0..=100_u8).unwrap_or(0);
    let (backoff_limit, deadline_seconds) =
        (number("backoff_limit", 6), section.whole("deadline_seconds", 10..=REPLICAS_MAX));
    let (successful_kept, failed_kept) = (number("successful_kept", 3), number("failed_kept", 1));
    let ttl_seconds = section.whole("ttl_seconds", 0..=REPLICAS_MAX);
    let (suspensions, deletions) = (stream("suspensions"), stream("deletions"));
    Some(CronJobs {
        arrivals: arrivals?,
        template,
        sizes,
        runs: runs?,
        schedules: schedules?,
        concurrency: concurrency?,
        completions,
        failing_percent,
        backoff_limit,
        deadline_seconds,
        successful_kept,
        failed_kept,
        ttl_seconds,
        suspensions,
        deletions,
    })
}

impl CronJobs {
    fn streams(&self) -> impl Iterator<Item = &Arrivals> {
        [&self.suspensions, &self.deletions].into_iter().flatten().chain([&self.arrivals])
    }

    pub(super) fn endless(&self) -> bool {
        self.streams().any(Arrivals::endless)
    }

    /// A job each minute, at most.
    pub(super) fn expected(&self, end: Option<Span>) -> u64 {
        let minutes = end.map_or(1, |end| end.0 / Span::secs(60).0 + 1);
        let of_each = self.completions.mean().saturating_add(1).saturating_mul(minutes);
        let operations = self.streams().fold(0_u64, |n, s| n.saturating_add(s.expected(end)));
        self.arrivals.expected(end).saturating_mul(of_each).saturating_add(operations)
    }

    pub(super) fn expand(&self, name: &str, tree: RngTree, draft: &mut Draft) {
        let sizes = self.sizes.draw(&self.template, &mut tree.rng("sizes"));
        let (mut arrivals, mut choice, mut lives) =
            (tree.rng("arrivals"), tree.rng("choice"), tree.rng("runs"));
        let (mut numbers, mut kinds) = (tree.rng("numbers"), tree.rng("kinds"));
        let mut made: Vec<(Span, String)> = Vec::new();
        for (i, at) in self.arrivals.times(draft.end, &mut arrivals).enumerate() {
            let mut template = sizes[choice.random_range(0..sizes.len())].clone();
            template.runs = Some(self.runs.sample(&mut lives));
            if kinds.random_range(0..100) < self.failing_percent {
                template.exit_code = 1;
            }
            let schedule = self.schedules[kinds.random_range(0..self.schedules.len())].clone();
            let concurrency = self.concurrency[kinds.random_range(0..self.concurrency.len())];
            let cron = CronJob {
                name: format!("{name}-{i}"),
                template: draft.template(template),
                schedule,
                concurrency,
                suspended: false,
                deadline_seconds: self.deadline_seconds,
                successful_kept: self.successful_kept,
                failed_kept: self.failed_kept,
                completions: pods_of(self.completions.sample(&mut numbers)),
                parallelism: 1,
                backoff_limit: self.backoff_limit,
                ttl_seconds: self.ttl_seconds,
            };
            made.push((at, cron.name.clone()));
            draft.operation(at, Operation::CreateCronJob(Box::new(cron)));
        }
        self.change(&made, tree, draft);
    }

    /// Deletes, suspends and resumes some of them.
    fn change(&self, made: &[(Span, String)], tree: RngTree, draft: &mut Draft) {
        let created: Vec<Span> = made.iter().map(|(at, _)| *at).collect();
        let moments = |stream: &Option<Arrivals>, purpose: &str| -> Vec<Span> {
            let mut rng = tree.rng(purpose);
            stream.iter().flat_map(|s| s.times(draft.end, &mut rng).collect::<Vec<_>>()).collect()
        };
        let (deletions, suspensions) =
            (moments(&self.deletions, "deletions"), moments(&self.suspensions, "suspensions"));
        let mut deleted: Vec<Option<Span>> = vec![None; made.len()];
        let mut rng = tree.rng("deleted");
        for at in deletions {
            let Some(i) = one_of(&created, at, &mut rng).filter(|i| deleted[*i].is_none()) else {
                continue;
            };
            deleted[i] = Some(at);
            let (target, name) = (Target::CronJob, made[i].1.clone());
            let operation = Operation::Delete { target, name, orphan: false, foreground: false };
            draft.operation(at, operation);
        }
        let mut suspended = vec![false; made.len()];
        let mut rng = tree.rng("suspended");
        for at in suspensions {
            let exists = |i: &usize| deleted[*i].is_none_or(|end| at < end);
            let Some(i) = one_of(&created, at, &mut rng).filter(exists) else { continue };
            suspended[i] = !suspended[i];
            let (name, suspended) = (made[i].1.clone(), suspended[i]);
            draft.operation(at, Operation::SuspendCronJob { name, suspended });
        }
    }
}
