//! Deletes jobs some time after they have finished, if they say so.
//!
//! Source: kubernetes 1.33, `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`.

use std::time::Duration;

use api::{Key, Kind, Object, Propagation, Request, Time, meta};
use k8s_openapi::api::batch::v1::Job;
use machine::{Cache, Delta, Plan, Reconciler};

/// Deletes finished jobs when their time has come.
pub struct TtlAfterFinished;

impl Reconciler for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Job]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let job = delta.new.as_ref().and_then(Object::get::<Job>);
        job.and_then(expiry).map(|_| delta.key.clone()).into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(job) = cache.object(key).and_then(Object::get::<Job>) else { return plan };
        match expiry(job) {
            Some(due) if due > now => plan.revisit_in(due.since(now)),
            // At this very revision: whoever has just asked for more time gets it.
            Some(_) => plan.request(Request::Delete {
                key: key.clone(),
                uid: job.metadata.uid.clone(),
                revision: cache.object(key).map(Object::revision),
                grace_seconds: None,
                propagation: Some(Propagation::Foreground),
            }),
            None => {}
        }
        plan
    }
}

/// When the job may go; never, unless it has finished, says so, and is not going already.
fn expiry(job: &Job) -> Option<Time> {
    let kept = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if meta::is_terminating(&job.metadata) {
        return None;
    }
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let end = conditions
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let end = Time::from_meta(end.last_transition_time.as_ref()?);
    Some(end + Duration::from_secs(u64::try_from(kept).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, summary};

    fn check(ttl: Option<i32>, condition: &str, after_secs: u64, goes: bool) {
        let mut fixture = Fixture::new(TtlAfterFinished);
        let time = fixture.now().to_meta();
        let job = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "namespace": "n", "uid": "u"},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
            "status": {"conditions": [
                {"type": condition, "status": "True", "lastTransitionTime": time}]}});
        fixture.put(job);
        fixture.advance(Duration::from_secs(after_secs));
        let plan = fixture.reconcile(&Key::new(Kind::Job, "n", "j"));
        let expected: &[&str] = if goes { &["delete jobs/n/j Foreground"] } else { &[] };
        assert_eq!(summary(&plan), expected, "{ttl:?} {condition} after {after_secs}");
        let waits = plan.revisit.is_some();
        let finished = matches!(condition, "Complete" | "Failed");
        assert_eq!(waits, ttl.is_some() && finished && !goes, "{ttl:?} {condition}");
    }

    #[test]
    fn finished_jobs_are_kept_as_long_as_they_say() {
        check(Some(100), "Complete", 99, false);
        check(Some(100), "Complete", 100, true);
        check(Some(0), "Failed", 0, true);
        check(None, "Complete", 99_999, false);
        check(Some(0), "Suspended", 99_999, false);
        check(Some(0), "FailureTarget", 99_999, false);
    }

    #[test]
    fn only_jobs_that_may_go_are_looked_at() {
        let mut fixture = Fixture::new(TtlAfterFinished);
        let time = fixture.now().to_meta();
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "namespace": "n"},
            "spec": {"ttlSecondsAfterFinished": 1, "template": {}}, "status": {}});
        assert!(fixture.put(job.clone()).is_empty());
        job["status"]["conditions"] =
            json!([{"type": "Complete", "status": "True", "lastTransitionTime": time}]);
        assert_eq!(fixture.put(job.clone()).len(), 1);
        job["metadata"]["deletionTimestamp"] = json!(time);
        assert!(fixture.put(job.clone()).is_empty());
        job["spec"]["ttlSecondsAfterFinished"] = Value::Null;
        assert!(fixture.put(job).is_empty());
    }
}
