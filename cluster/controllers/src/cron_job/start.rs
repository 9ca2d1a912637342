//! Starting a job when it is due.

use api::cron::Schedule;
use api::{ApiObject, Request, Time, cron, meta};
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machine::{Announcement, Memory, Plan};

use super::{DELAY, Pass, SCHEDULED};
use crate::announce;

/// More times than this that were not met are a sign that clocks are wrong, or that nobody looked
/// for long.
const MISSED_MAX: usize = 100;

impl Pass<'_> {
    /// Starts the job of the last time that was not met, if there is one and its time is not over,
    /// and comes back at the next.
    pub(super) fn start_when_due(
        &mut self,
        schedule: &Schedule,
        plan: &mut Plan,
        memory: &mut Memory,
    ) {
        let since = self.since(memory);
        if schedule.next(since).is_none() {
            let text = format!(
                "invalid schedule: {} : time difference between two schedules is less than 1 \
                 second",
                self.spec.schedule
            );
            plan.events.push(announce::warning(self.cron_job, "InvalidSchedule", text));
            return;
        }
        let last = schedule.last(since, self.now);
        if let Some(next) = schedule.next(last.unwrap_or(since)) {
            plan.revisit_in((next + DELAY).since(self.now));
        }
        let Some(due) = last else { return };
        let from = since.max(self.deadline());
        if due > from {
            self.start(schedule, from, due, plan, memory);
        } else if is_news(memory, "missed", due) {
            let text = format!("Missed scheduled time to start a job: {}", in_words(due));
            plan.events.push(announce::warning(self.cron_job, "MissSchedule", text));
        }
    }

    /// What was due by then is too late to be started.
    fn deadline(&self) -> Time {
        match self.spec.starting_deadline_seconds.map(u64::try_from) {
            Some(Ok(secs)) => {
                let nanos = secs.saturating_mul(1_000_000_000);
                Time(self.now.0.saturating_sub(nanos))
            }
            Some(Err(_)) => self.now,
            None => Time::ZERO,
        }
    }

    fn start(
        &mut self,
        schedule: &Schedule,
        from: Time,
        due: Time,
        plan: &mut Plan,
        memory: &mut Memory,
    ) {
        let name = format!("{}-{}", self.name(), due.as_secs() / 60);
        if let Some(job) = self.cache.get::<Job>(self.namespace(), &name) {
            let owner = meta::controller_of(&job.metadata).map(|owner| &owner.uid);
            // A job of somebody else has the name: the next one will have another. That the job of a
            // minute is there need not be noted again with each second of it that a schedule names.
            let met = self.status.last_schedule_time.as_ref().map(Time::from_meta);
            let noted = met.is_some_and(|met| met.as_secs() / 60 == due.as_secs() / 60);
            if owner == self.cron_job.metadata.uid.as_ref() && !noted {
                self.status.last_schedule_time = Some(due.to_meta());
            }
            return;
        }
        let is_active = self.status.active.is_some();
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if is_active => {
                if is_news(memory, "blocked", due) {
                    let text = "Not starting job because prior execution is running and \
                                concurrency policy is Forbid";
                    let event =
                        announce::normal(self.cron_job, "JobAlreadyActive", text.to_owned());
                    plan.events.push(event);
                }
                return;
            }
            Some("Replace") if is_active => self.end_active(plan),
            _ => {}
        }
        if missed_many(schedule, from, self.now) {
            let text = "too many missed start times. Set or decrease \
                        .spec.startingDeadlineSeconds or check clock skew";
            let event = announce::warning(self.cron_job, "TooManyMissedTimes", text.to_owned());
            plan.events.push(event);
        }
        let announcement = Announcement {
            done: Some(announce::normal(
                self.cron_job,
                "SuccessfulCreate",
                format!("Created job {name}"),
            )),
            refused: Some(announce::warning(
                self.cron_job,
                "FailedCreate",
                "Error creating job: ".to_owned(),
            )),
        };
        plan.request_announced(Request::Create(self.job(name, due).into_object()), announcement);
        self.status.last_schedule_time = Some(due.to_meta());
    }

    fn job(&self, name: String, due: Time) -> Job {
        let template = &self.spec.job_template;
        let meta = template.metadata.as_ref();
        let zone = self.spec.time_zone.as_deref().and_then(cron::zone).unwrap_or(TimeZone::UTC);
        let mut annotations = meta.and_then(|m| m.annotations.clone()).unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), in_zone(due, zone));
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.cron_job.metadata.namespace.clone(),
                labels: meta.and_then(|m| m.labels.clone()),
                annotations: Some(annotations),
                owner_references: Some(vec![meta::controller_reference(self.cron_job)]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    }
}

/// Whether the time is told for the first time under that name.
fn is_news(memory: &mut Memory, name: &'static str, due: Time) -> bool {
    let told = memory.notes.insert(name, vec![(due, 0)]);
    told.is_none_or(|told| told.first().is_none_or(|(before, _)| *before != due))
}

fn missed_many(schedule: &Schedule, from: Time, now: Time) -> bool {
    let mut times = std::iter::successors(schedule.next(from), |time| schedule.next(*time));
    times.nth(MISSED_MAX).is_some_and(|time| time <= now)
}

/// The time with the offset of the zone, as RFC 3339 has it.
fn in_zone(time: Time, zone: TimeZone) -> String {
    let local = time.timestamp().to_zoned(zone);
    let form = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    local.strftime(form).to_string()
}

/// The time as events write it: `Mon, 02 Jan 2006 15:04:05 +0000`.
fn in_words(time: Time) -> String {
    time.timestamp().to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}
