//! Jobs at the times of schedules: P39.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{Key, Kind, Object, Request, Time};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use machine::WatchEvent;

use super::brood::{Life, Lives, PATIENCE};
use super::clocks::Clocks;
use super::quotas::is_short_of;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, schedules, sets};
use crate::span::Span;
use crate::world::{CRON_JOBS_GO_ON, ProcessId, START};

/// A plan is carried out in batches, each after the answers to the last, in less time than this.
const PLAN_MAX: Duration = Duration::from_secs(60);
/// So long after the faults are healed every time of a schedule is met again.
const RECOVERY: Duration = Duration::from_secs(120);
/// A job is there so much later than its time at most, when nothing is wrong.
const PROMPT: Duration = Duration::from_secs(10);

/// A job that was asked for.
#[derive(Clone)]
struct Asked {
    by: Life,
    at: Time,
}

/// The jobs of one cron job.
#[derive(Clone, Default)]
struct Made {
    /// For which times jobs were ever made.
    times: BTreeSet<Time>,
    /// For which of them by a process whose clock was ahead, before the time had come.
    early: BTreeSet<Time>,
    /// The latest of these, whatever became of it.
    latest_early: Option<Time>,
    /// Who asked for each job that is there.
    by: BTreeMap<Key, Life>,
}

/// P39: a cron job makes one job for each time of its schedule, none for other times, and none
/// while it is suspended, too late or, if that is forbidden, while another one runs; it keeps as many
/// as it says.
///
/// That another job runs is judged by what the asking process knows, and by what it has made in the
/// same life. A creation that is carried out after nobody waits for its answer any more is excused,
/// and one more where the first was made before its time, by a clock that was ahead: when that was
/// not noted and the job has gone, nothing tells of it once the time comes. That holds for Kubernetes,
/// too.
/// That each time is met is judged when faults are healed and users have not suspended cron jobs
/// yet, unless a quota has no room, or a job was made for a later time, by a clock that was ahead: that
/// is noted as the last time that was met.
#[derive(Clone, Default)]
pub(super) struct OnSchedule {
    clocks: Clocks,
    lives: Lives,
    asked: BTreeMap<Key, Asked>,
    made: BTreeMap<String, Made>,
    /// Since when each process knows that a cron job is suspended.
    suspended: BTreeMap<(ProcessId, Key), Time>,
    /// When the faults were healed.
    healed: Option<Time>,
    /// Cron jobs, by UID, that somebody has changed since, and when.
    changed: BTreeMap<String, Time>,
}

/// The name and UID of the cron job of a job.
fn owner(object: &Object) -> Option<(&str, &str)> {
    let owners = object.meta().owner_references.iter().flatten();
    let mut owners = owners.filter(|o| o.controller == Some(true) && o.kind == "CronJob");
    owners.next().map(|o| (o.name.as_str(), o.uid.as_str()))
}

fn runs(object: &Object) -> bool {
    object.get::<Job>().is_some_and(|job| sets::end_of(job).is_none())
}

fn is_suspended(cron: &CronJob) -> bool {
    cron.spec.as_ref().is_some_and(|s| s.suspend == Some(true))
}

fn policy(cron: &CronJob) -> &str {
    cron.spec.as_ref().and_then(|s| s.concurrency_policy.as_deref()).unwrap_or("Allow")
}

fn in_words(at: Time) -> String {
    Span(at.0.saturating_sub(START.0)).to_string()
}

impl OnSchedule {
    fn delivered(&mut self, now: Time, to: ProcessId, event: &WatchEvent) {
        let mut seen = |object: &Object| {
            let key = (to, object.key());
            if object.get::<CronJob>().is_some_and(is_suspended) {
                self.suspended.entry(key).or_insert(now);
            } else {
                self.suspended.remove(&key);
            }
        };
        match event {
            WatchEvent::Changed(object) if object.kind() == Kind::CronJob => seen(object),
            WatchEvent::Replaced { kind: Kind::CronJob, objects, .. } => {
                objects.iter().for_each(seen);
            }
            _ => {}
        }
    }

    /// A controller manager asks for a job of a cron job.
    fn called(
        &mut self,
        cluster: &dyn Cluster,
        by: ProcessId,
        object: &Object,
        found: &mut Vec<String>,
    ) {
        let Some((name, uid)) = owner(object) else { return };
        let key = object.key();
        self.asked.insert(key.clone(), Asked { by: self.lives.of(by), at: cluster.now() });
        let of = Key::new(Kind::CronJob, &key.namespace, name);
        let known = cluster.known(by, &of).filter(|o| o.uid() == uid);
        let Some(cron) = known.and_then(Object::get::<CronJob>) else { return };
        let Some(spec) = &cron.spec else { return };
        let Some(time) = schedules::scheduled_at(object.meta()) else {
            found.push(format!("{key} of {of} does not say for which time it is made"));
            return;
        };
        if schedules::is_due(&spec.schedule, time) == Some(false) {
            let (at, schedule) = (in_words(time), &spec.schedule);
            found.push(format!("{key} is made for {at}, which is no time of {schedule:?}"));
        }
        let (now, ahead) = (cluster.now(), self.clocks.ahead(cluster, by));
        if time > now + ahead {
            found.push(format!("{key} is made before its time, {}", in_words(time)));
        }
        let deadline = spec.starting_deadline_seconds.and_then(|secs| u64::try_from(secs).ok());
        if let Some(secs) = deadline
            && time + Duration::from_secs(secs) + PLAN_MAX + self.clocks.behind(cluster, by) < now
        {
            let late = now.since(time).as_secs();
            found.push(format!("{key} is made {late} s late, {secs} are allowed"));
        }
        let since = self.suspended.get(&(by, of.clone()));
        if since.is_some_and(|since| now.since(*since) > PLAN_MAX) {
            found.push(format!("{key} is made while {of} is suspended"));
        }
        if policy(cron) == "Forbid" {
            let jobs = cluster.all_known(by, Kind::Job).unwrap_or_default();
            let mut others = jobs.into_iter().filter(|job| {
                job.key() != key
                    && owner(job).is_some_and(|(_, of)| of == uid)
                    && schedules::scheduled_at(job.meta()).is_some()
                    && runs(job)
            });
            if let Some(other) = others.next() {
                found.push(format!("{key} is made while {} runs", other.key()));
            }
        }
    }

    /// A job of a cron job is there.
    fn committed(
        &mut self,
        cluster: &dyn Cluster,
        key: &Key,
        object: &Object,
        found: &mut Vec<String>,
    ) {
        let Some((name, uid)) = owner(object) else { return };
        let Some(time) = schedules::scheduled_at(object.meta()) else { return };
        let asked = self.asked.remove(key);
        let made = self.made.entry(uid.to_owned()).or_default();
        let again = !made.times.insert(time) && !made.early.remove(&time);
        if time > cluster.now() {
            made.early.insert(time);
            made.latest_early = made.latest_early.max(Some(time));
        }
        let Some(asked) = asked else { return };
        if cluster.now().since(asked.at) > PATIENCE {
            return;
        }
        if again {
            found.push(format!("{key} is a second job for {}", in_words(time)));
        }
        let of = cluster.object(&Key::new(Kind::CronJob, &key.namespace, name));
        let cron = of.filter(|o| o.uid() == uid).and_then(Object::get::<CronJob>);
        if cron.is_some_and(|cron| policy(cron) == "Forbid") {
            let same = |other: &&Key| {
                made.by.get(*other) == Some(&asked.by) && cluster.object(other).is_some_and(runs)
            };
            if let Some(other) = made.by.keys().find(same) {
                found.push(format!("{key} was made beside {other}, by whom had made that"));
            }
        }
        made.by.insert(key.clone(), asked.by);
    }

    /// The times that should have been met between the end of the faults and the day that users
    /// suspended all cron jobs.
    fn unmet(&self, cluster: &dyn Cluster, object: &Object, cron: &CronJob) -> Option<Time> {
        let healed = self.healed?;
        let (spec, uid) = (cron.spec.as_ref()?, object.uid());
        let until = self.changed.get(uid).copied()?;
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        let pods = spec.job_template.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        let suspends = until >= healed + CRON_JOBS_GO_ON.duration();
        if !suspends
            || policy(cron) == "Forbid"
            || pods.is_some_and(|pods| is_short_of(cluster, namespace, pods))
        {
            return None;
        }
        let made = self.made.get(uid);
        // Who has noted a time that is still to come makes nothing before it.
        let noted = made.and_then(|made| made.latest_early);
        let begun = healed + RECOVERY;
        let mut minute = Time::from_secs(begun.as_secs().div_ceil(60) * 60);
        while minute + PROMPT < until {
            if schedules::is_due(&spec.schedule, minute) == Some(true)
                && noted.is_none_or(|noted| noted < minute)
                && !made.is_some_and(|made| made.times.contains(&minute))
            {
                return Some(minute);
            }
            minute = minute + Duration::from_secs(60);
        }
        None
    }

    fn reports(cluster: &dyn Cluster, object: &Object, cron: &CronJob, found: &mut Vec<String>) {
        let (key, uid) = (object.key(), object.uid());
        let Some(spec) = &cron.spec else { return };
        let all = cluster.objects(Kind::Job);
        let own: Vec<&Object> = all
            .filter(|job| owner(job).is_some_and(|(_, of)| of == uid))
            .filter(|job| schedules::scheduled_at(job.meta()).is_some())
            .collect();
        let running: BTreeSet<&str> =
            own.iter().filter(|job| runs(job)).map(|job| job.uid()).collect();
        let status = cron.status.clone().unwrap_or_default();
        let listed = status.active.iter().flatten();
        let listed: BTreeSet<&str> = listed.filter_map(|r| r.uid.as_deref()).collect();
        if listed != running {
            let (says, is) = (listed.len(), running.len());
            found.push(format!("{key} lists {says} active jobs at rest, and {is} run"));
        }
        let last = own.iter().filter_map(|job| schedules::scheduled_at(job.meta())).max();
        let says = status.last_schedule_time.as_ref().map(Time::from_meta);
        // Who is suspended takes no notice of a job whose creation had no answer.
        if last > says && !is_suspended(cron) {
            found.push(format!("{key} has a job for a later time than the last that it reports"));
        }
        for (end, kept, usual) in [
            ("Complete", spec.successful_jobs_history_limit, 3),
            ("Failed", spec.failed_jobs_history_limit, 1),
        ] {
            let kept = usize::try_from(kept.unwrap_or(usual)).unwrap_or(0);
            let ended = own.iter().filter_map(|job| job.get::<Job>().and_then(sets::end_of));
            let ended = ended.filter(|(how, _)| *how == end).count();
            if ended > kept {
                found.push(format!("{key} keeps {ended} jobs at rest that are {end}, of {kept}"));
            }
        }
    }
}

impl Check for OnSchedule {
    fn property(&self) -> &'static str {
        "P39"
    }

    fn statement(&self) -> &'static str {
        "a cron job makes one job for each time of its schedule, and none when it must not"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.clocks.observe(occurrence);
        self.lives.observe(occurrence);
        match occurrence {
            Occurrence::Delivered { to, event } if cluster.role(*to) == Role::ControllerManager => {
                self.delivered(cluster.now(), *to, event);
            }
            Occurrence::Started(process) => self.suspended.retain(|(of, _), _| of != process),
            Occurrence::Called { by, request: Request::Create(object @ Object::Job(_)) } => {
                self.called(cluster, *by, object, found);
            }
            Occurrence::Answered { request: Request::Create(object @ Object::Job(_)), .. } => {
                self.asked.remove(&object.key());
            }
            Occurrence::Committed { key, old, new, by, request, .. } => match key.kind {
                Kind::Job => match (old, new) {
                    (None, Some(object)) if matches!(request, Request::Create(_)) => {
                        self.committed(cluster, key, object, found);
                    }
                    (Some(object), None) => {
                        if let Some((_, uid)) = owner(object)
                            && let Some(made) = self.made.get_mut(uid)
                        {
                            made.by.remove(*key);
                        }
                    }
                    _ => {}
                },
                Kind::CronJob => match (old, new) {
                    (Some(before), Some(after))
                        if by.is_none() && before.meta().generation != after.meta().generation =>
                    {
                        self.changed.insert(after.uid().to_owned(), cluster.now());
                    }
                    (Some(before), None) => {
                        self.made.remove(before.uid());
                    }
                    _ => {}
                },
                _ => {}
            },
            Occurrence::Healed => self.healed = Some(cluster.now()),
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for object in cluster.objects(Kind::CronJob).filter(|o| !oracle::is_going(o.meta())) {
            let Some(cron) = object.get::<CronJob>() else { continue };
            if let Some(time) = self.unmet(cluster, object, cron) {
                let key = object.key();
                found.push(format!("{key} has made no job for {}", in_words(time)));
            }
            Self::reports(cluster, object, cron, found);
        }
    }
}

#[cfg(test)]
mod tests;
