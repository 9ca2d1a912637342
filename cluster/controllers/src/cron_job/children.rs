//! The jobs of a cron job: which run, which have ended, and which are kept.

use std::collections::BTreeSet;

use api::{Object, Propagation, Request, Time, meta};
use k8s_openapi::api::batch::v1::Job;
use machine::{Announcement, Plan};

use super::{Pass, SCHEDULED};
use crate::announce;

/// No more jobs are deleted in one pass.
const BURST_MAX: usize = 500;

/// What of a job may change the plan of its cron job.
pub(super) fn relevant(job: &Job) -> impl PartialEq + '_ {
    let (meta, status) = (&job.metadata, job.status.as_ref());
    (
        (meta.uid.as_ref(), meta::controller_of(meta), meta::is_terminating(meta)),
        (finished(job), status.and_then(|s| s.completion_time.as_ref())),
        status.and_then(|s| s.start_time.as_ref()),
    )
}

/// How the job ended, if it did: `Complete` or `Failed`.
fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let mut ends = conditions.iter().filter(|c| matches!(&*c.type_, "Complete" | "Failed"));
    ends.find(|c| c.status == "True").map(|c| &*c.type_)
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

impl<'a> Pass<'a> {
    /// The jobs that the cron job controls, by name.
    fn jobs(&self) -> impl Iterator<Item = &'a Job> + use<'a> {
        let uid = self.cron_job.metadata.uid.as_deref().unwrap_or_default();
        let namespace = self.cron_job.metadata.namespace.as_ref();
        self.cache.owned::<Job>(uid).filter(move |job| {
            job.metadata.namespace.as_ref() == namespace
                && meta::controller_of(&job.metadata).is_some_and(|owner| owner.uid == uid)
        })
    }

    /// Brings the status up to date with the jobs there are.
    pub(super) fn observe(&mut self, plan: &mut Plan) {
        let mut active = self.status.active.take().unwrap_or_default();
        let mut there = BTreeSet::new();
        for job in self.jobs() {
            there.insert(job.metadata.uid.as_ref());
            let listed = active.iter().position(|a| a.uid == job.metadata.uid);
            match (finished(job), listed) {
                (Some(condition), listed) => {
                    if let Some(i) = listed {
                        active.remove(i);
                        let text =
                            format!("Saw completed job: {}, condition: {condition}", name(job));
                        plan.events.push(announce::normal(self.cron_job, "SawCompletedJob", text));
                    }
                    if condition == "Complete" {
                        let end = job.status.as_ref().and_then(|s| s.completion_time.clone());
                        let last = self.status.last_successful_time.take();
                        self.status.last_successful_time = last.max(end);
                    }
                }
                (None, Some(_)) => {}
                // One that is made here is listed as soon as it is seen.
                (None, None) if meta::annotation(&job.metadata, SCHEDULED).is_some() => {
                    if !meta::is_terminating(&job.metadata) {
                        active.push(announce::reference(job));
                    }
                }
                (None, None) => {
                    let text = format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        name(job)
                    );
                    plan.events.push(announce::warning(self.cron_job, "UnexpectedJob", text));
                }
            }
        }
        active.retain(|reference| {
            let is_there = there.contains(&reference.uid.as_ref());
            if !is_there {
                let name = reference.name.as_deref().unwrap_or_default();
                let text = format!("Active job went missing: {name}");
                plan.events.push(announce::normal(self.cron_job, "MissingJob", text));
            }
            is_there
        });
        self.status.active = (!active.is_empty()).then_some(active);
    }

    /// Deletes the jobs that run.
    pub(super) fn end_active(&mut self, plan: &mut Plan) {
        let active = self.status.active.take().unwrap_or_default();
        let listed = |job: &&Job| active.iter().any(|a| a.uid == job.metadata.uid);
        for job in self.jobs().filter(listed) {
            self.delete(job, plan);
        }
    }

    /// Deletes the oldest of the jobs that have ended, until there are no more than are kept.
    pub(super) fn clean_up(&self, plan: &mut Plan) {
        for (condition, kept) in [
            ("Complete", self.spec.successful_jobs_history_limit),
            ("Failed", self.spec.failed_jobs_history_limit),
        ] {
            let Some(kept) = kept else { continue };
            let kept = usize::try_from(kept).unwrap_or(0);
            // Those that go already need not be told again.
            let mut ended: Vec<&Job> = self
                .jobs()
                .filter(|job| finished(job) == Some(condition))
                .filter(|job| !meta::is_terminating(&job.metadata))
                .collect();
            ended.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|s| s.start_time.as_ref());
                (start.is_none(), start.map(Time::from_meta), name(job))
            });
            let surplus = ended.len().saturating_sub(kept).min(BURST_MAX);
            for job in &ended[..surplus] {
                self.delete(job, plan);
            }
        }
    }

    fn delete(&self, job: &Job, plan: &mut Plan) {
        let text = format!("Deleted job {}", name(job));
        let announcement = Announcement {
            done: Some(announce::normal(self.cron_job, "SuccessfulDelete", text)),
            refused: Some(announce::warning(
                self.cron_job,
                "FailedDelete",
                "Deleted job: ".to_owned(),
            )),
        };
        let request = Request::Delete {
            key: Object::Job(job.clone().into()).key(),
            uid: job.metadata.uid.clone(),
            revision: None,
            grace_seconds: None,
            propagation: Some(Propagation::Background),
        };
        plan.request_announced(request, announcement);
    }
}
