//! Cron jobs and autoscalers as they stand in a file.

use super::{Keys, cpu, word};
use crate::plan::{Autoscaler, Concurrency, CronJob, Load, Target};
use crate::workload::arrivals::Diurnal;

/// What of a cron job is no name.
pub(super) fn cron_job(keys: &mut Keys, cron: &CronJob) {
    let CronJob {
        name: _,
        template: _,
        schedule,
        concurrency,
        suspended,
        deadline_seconds,
        successful_kept,
        failed_kept,
        completions,
        parallelism,
        backoff_limit,
        ttl_seconds,
    } = cron;
    keys.text("schedule", schedule);
    keys.differing("concurrency", concurrency, &Concurrency::Allow, word(concurrency));
    keys.differing("suspended", suspended, &false, suspended);
    keys.optional("deadline_seconds", *deadline_seconds);
    keys.differing("successful_kept", successful_kept, &3, successful_kept);
    keys.differing("failed_kept", failed_kept, &1, failed_kept);
    keys.differing("completions", completions, &1, completions);
    keys.differing("parallelism", parallelism, &1, parallelism);
    keys.differing("backoff_limit", backoff_limit, &6, backoff_limit);
    keys.optional("ttl_seconds", *ttl_seconds);
}

/// What of an autoscaler is no name.
pub(super) fn autoscaler(keys: &mut Keys, autoscaler: &Autoscaler) {
    let Autoscaler { name: _, target, min_replicas, max_replicas, cpu_percent, load } = autoscaler;
    keys.differing("target", target, &Target::Deployment, word(target));
    keys.differing("min_replicas", min_replicas, &1, min_replicas);
    keys.put("max_replicas", max_replicas);
    keys.differing("cpu_percent", cpu_percent, &80, cpu_percent);
    let Load { steps, diurnal } = load;
    let steps: Vec<String> =
        steps.iter().map(|(from, milli)| format!("[\"{from}\", {}]", cpu(*milli))).collect();
    keys.put("load", format_args!("[{}]", steps.join(", ")));
    if let Some(Diurnal { period, peak, percent }) = diurnal {
        let mut day = Keys::default();
        day.time("period", *period);
        day.time("peak", *peak);
        day.put("percent", percent);
        keys.put("diurnal", day.inline());
    }
}
