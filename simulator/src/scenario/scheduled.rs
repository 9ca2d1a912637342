//! Cron jobs and autoscalers, as the file says it.

use api::cron::Schedule;

use super::diagnostics::Problem;
use super::events::REPLICAS_MAX;
use super::section::{CPU, Section, TIME, Value};
use crate::plan::{Autoscaler, Concurrency, CronJob, Load, Target};
use crate::span::Span;
use crate::workload::arrivals;

/// A schedule of five fields.
pub(crate) fn schedule(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if let Err(error) = Schedule::parse(text, None) {
        let help = "write minute, hour, day, month and weekday: \"*/5 * * * *\"";
        value.report(format!("`{}` cannot be `{text}`", value.path()), &error.to_string(), help);
        return None;
    }
    if text.trim_start().starts_with(['@', 'T', 'C']) {
        let message = format!("`{}` cannot be `{text}`", value.path());
        value.report(message, "not five fields", "times are in UTC: \"*/5 * * * *\"");
        return None;
    }
    Some(text.to_owned())
}

/// What of a cron job is said in operations and workloads alike.
pub(crate) fn cron_job(
    section: &Section<'_>,
    name: Option<String>,
    template: Option<u32>,
) -> Option<CronJob> {
    let schedule = section.need("schedule").and_then(|v| schedule(&v));
    let concurrency = section.get("concurrency").map(|v| v.choice::<Concurrency>());
    let number = |key, default| section.whole(key, 0..=REPLICAS_MAX).unwrap_or(default);
    let cron = CronJob {
        name: String::new(),
        template: 0,
        schedule: String::new(),
        concurrency: Concurrency::Allow,
        suspended: section.truth("suspended").unwrap_or(false),
        deadline_seconds: section.whole("deadline_seconds", 10..=REPLICAS_MAX),
        successful_kept: number("successful_kept", 3),
        failed_kept: number("failed_kept", 1),
        completions: number("completions", 1),
        parallelism: number("parallelism", 1),
        backoff_limit: number("backoff_limit", 6),
        ttl_seconds: section.whole("ttl_seconds", 0..=REPLICAS_MAX),
    };
    let concurrency = match concurrency {
        None => Concurrency::Allow,
        Some(concurrency) => concurrency?,
    };
    Some(CronJob { name: name?, template: template?, schedule: schedule?, concurrency, ..cron })
}

/// The load of an autoscaler: `load`, one amount of CPU or `[from, amount]` again and again, and
/// `diurnal`.
pub(crate) fn load(section: &Section<'_>) -> Option<Load> {
    let value = section.need("load");
    let diurnal = section.section("diurnal").map(|s| arrivals::diurnal(&s));
    let value = value?;
    let steps = if value.is_list() {
        let steps = value.pairs(&CPU, |from| from.amount(&TIME))?;
        let rises = steps.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if steps.is_empty() || !rises {
            let message = format!("`{}`: the moments must rise", value.path());
            value.report(message, "not in order", "as in [[\"0s\", \"500m\"], [\"2m\", \"3\"]]");
            return None;
        }
        steps
    } else {
        vec![(Span::ZERO, value.amount(&CPU)?)]
    };
    let diurnal = match diurnal {
        None => None,
        Some(diurnal) => Some(diurnal?),
    };
    Some(Load { steps, diurnal })
}

/// The bounds of an autoscaler: at least, at most, and how many percent of the requested CPU.
pub(crate) fn bounds(section: &Section<'_>) -> Option<(u32, u32, u32)> {
    let least = section.whole("min_replicas", 1..=REPLICAS_MAX).unwrap_or(1);
    let most = section.need("max_replicas").and_then(|v| v.whole(1..=REPLICAS_MAX));
    let percent = section.whole("cpu_percent", 1..=10_000).unwrap_or(80);
    let most = most?;
    if least > most {
        let message = format!("`{}`: the least is more than the most", section.path());
        let problem = Problem::error(section.place_of("min_replicas"), message);
        section.report(problem.label(format!("more than {most}")));
        return None;
    }
    Some((least, most, percent))
}

/// The keys of an autoscaler.
pub(crate) fn autoscaler(section: &Section<'_>, name: Option<String>) -> Option<Autoscaler> {
    let target = section.get("target").map(|v| (v.clone(), v.choice::<Target>()));
    let (bounds, load) = (bounds(section), load(section));
    let target = match target {
        None => Target::Deployment,
        Some((value, target)) => {
            let target = target?;
            if !SCALED.contains(&target) {
                let message = format!("`{}` cannot be scaled", value.path());
                value.report(message, "has no number of pods", "");
                return None;
            }
            target
        }
    };
    let (min_replicas, max_replicas, cpu_percent) = bounds?;
    Some(Autoscaler { name: name?, target, min_replicas, max_replicas, cpu_percent, load: load? })
}

/// What autoscalers can scale.
const SCALED: [Target; 4] =
    [Target::Deployment, Target::ReplicaSet, Target::ReplicationController, Target::StatefulSet];
