//! `CronJob`: jobs at the times of a schedule.
//!
//! A job is named after the minute at which it was due, so that a time that is met twice makes no
//! second job. The time is noted as soon as the job is made; which jobs run is told by the jobs
//! themselves, and the list of them in the status follows.
//!
//! Source: kubernetes 1.33, `pkg/controller/cronjob/cronjob_controllerv2.go`.

mod children;
mod start;

use std::time::Duration;

use api::cron::Schedule;
use api::hash::fnv64;
use api::{Key, Kind, Object, Request, Time, cron, meta};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use machine::{Cache, Delta, Memory, Plan, Reconciler};

use crate::{announce, ownership};

/// Says of a job for which time it was made, and so that it was made here.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A job is started so much after its time: clocks differ.
const DELAY: Duration = Duration::from_millis(100);

/// Starts jobs when they are due.
pub struct CronJobs;

impl Reconciler for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::CronJob, Kind::Job]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::CronJob {
            return vec![delta.key.clone()];
        }
        let job = |object: &Option<Object>| object.as_ref().and_then(Object::share::<Job>);
        let (old, new) = (job(&delta.old), job(&delta.new));
        if let (Some(old), Some(new)) = (&old, &new)
            && children::relevant(old) == children::relevant(new)
        {
            return Vec::new();
        }
        let owner = |job: Option<&Job>| {
            let owner = meta::controller_of(&job?.metadata).filter(|o| o.kind == "CronJob")?;
            Some(Key::new(Kind::CronJob, &delta.key.namespace, &owner.name))
        };
        let mut keys: Vec<Key> =
            [owner(old.as_deref()), owner(new.as_deref())].into_iter().flatten().collect();
        keys.dedup();
        keys
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = cache.object(key) else {
            memory.notes.clear();
            return plan;
        };
        let Some(cron_job) = object.get::<CronJob>() else { return plan };
        let Some(spec) = cron_job.spec.as_ref() else { return plan };
        let status = cron_job.status.clone().unwrap_or_default();
        let mut pass = Pass { cache, cron_job, spec, status, now };
        pass.run(&mut plan, memory);
        // Jobs as they were before the status was written would seem to be missing.
        if !plan.requests.is_empty() && cache.revision(Kind::Job) < object.revision() {
            plan = Plan::nothing();
            plan.request(Request::ReadRevision(Kind::Job));
        }
        plan
    }
}

/// One look at one cron job.
struct Pass<'a> {
    cache: &'a Cache,
    cron_job: &'a CronJob,
    spec: &'a CronJobSpec,
    /// As it shall be.
    status: CronJobStatus,
    now: Time,
}

impl Pass<'_> {
    fn run(&mut self, plan: &mut Plan, memory: &mut Memory) {
        self.observe(plan);
        if !meta::is_terminating(&self.cron_job.metadata)
            && self.spec.suspend != Some(true)
            && let Some(schedule) = self.schedule(plan)
        {
            self.start_when_due(&schedule, plan, memory);
        }
        self.clean_up(plan);
        if self.cron_job.status.as_ref() != Some(&self.status) {
            let mut cron_job = self.cron_job.clone();
            cron_job.status = Some(self.status.clone());
            plan.request(ownership::update_status(cron_job));
        }
    }

    /// The schedule; `None` for one that nobody can follow, of which people are told. It is looked
    /// at again when it changes.
    fn schedule(&self, plan: &mut Plan) -> Option<Schedule> {
        let zone = self.spec.time_zone.as_deref();
        if let Some(zone) = zone.filter(|zone| cron::zone(zone).is_none()) {
            let text = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
            plan.events.push(announce::warning(self.cron_job, "UnknownTimeZone", text));
            return None;
        }
        let text = &self.spec.schedule;
        match Schedule::parse(text, zone) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let text = format!("unparseable schedule: {text:?} : {error}");
                plan.events.push(announce::warning(self.cron_job, "UnparseableSchedule", text));
                None
            }
        }
    }

    /// From when on times count that were not met: since the last one that was, or since the cron
    /// job is there. A time of a schedule that is younger than it is not made up for.
    fn since(&self, memory: &mut Memory) -> Time {
        let met = self.status.last_schedule_time.as_ref().map(Time::from_meta);
        let since = met.unwrap_or_else(|| meta::created_at(&self.cron_job.metadata));
        let zone = self.spec.time_zone.as_deref().unwrap_or_default();
        let schedule = fnv64(format!("{zone}\0{}", self.spec.schedule).as_bytes()).cast_signed();
        let known = memory.notes.entry("schedule").or_default();
        match known.first() {
            None => known.push((Time::ZERO, schedule)),
            Some((_, before)) if *before != schedule => *known = vec![(self.now, schedule)],
            Some(_) => {}
        }
        known.first().map_or(since, |(changed, _)| since.max(*changed))
    }

    fn name(&self) -> &str {
        self.cron_job.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.cron_job.metadata.namespace.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
