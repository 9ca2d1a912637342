//! Cron jobs against a store, step by step.

#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod crashes;

use api::codec;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, short};

fn key() -> Key {
    Key::new(Kind::CronJob, "n", "c")
}

/// A cron job with defaults and these fields of the spec.
fn cron_job(fields: Value) -> Value {
    let mut value = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "n", "uid": "u",
            "creationTimestamp": "2001-09-09T01:46:40Z"},
        "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
                "spec": {"backoffLimit": 2, "template": {"spec": {"containers": []}}}}},
        "status": {}});
    for (name, field) in fields.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    value
}

/// A cron job under the controller, with hands on its jobs.
struct Bench {
    fixture: Fixture<CronJobs>,
    memory: Memory,
    events: Vec<String>,
    revisit: Option<Duration>,
}

impl Bench {
    fn new(fields: Value) -> Self {
        let mut fixture = Fixture::new(CronJobs);
        fixture.put(cron_job(fields));
        Self { fixture, memory: Memory::default(), events: Vec::new(), revisit: None }
    }

    /// Carries plans out until there is nothing left to do; returns what was done to jobs.
    fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        self.revisit = None;
        for _ in 0..20 {
            self.fixture.progress();
            let (cache, now) = (&self.fixture.cache, self.fixture.now());
            let plan = CronJobs.reconcile_with(cache, &key(), now, &mut self.memory);
            let told = |record: &machine::Record| format!("{} {}", record.reason, record.message);
            self.events.extend(plan.events.iter().map(told));
            self.events.extend(plan.announcements.values().flat_map(|a| &a.done).map(told));
            if plan.requests.is_empty() {
                self.revisit = plan.revisit;
                done.retain(|line: &String| !line.ends_with(" status"));
                return done;
            }
            done.extend(plan.requests.iter().map(short));
            plan.requests.into_iter().for_each(|request| self.fixture.request(request));
        }
        panic!("does not settle: {done:#?}");
    }

    fn after(&mut self, secs: u64) -> Vec<String> {
        self.fixture.advance(Duration::from_secs(secs));
        self.settle()
    }

    fn jobs(&self) -> Vec<Value> {
        self.fixture.store.kind(Kind::Job).map(codec::to_value).collect()
    }

    fn end(&mut self, job: &Value, condition: &str) {
        let now = self.fixture.now().to_meta();
        let mut job = job.clone();
        job["status"] = json!({"startTime": now, "conditions":
            [{"type": condition, "status": "True", "lastTransitionTime": now}]});
        if condition == "Complete" {
            job["status"]["completionTime"] = json!(now);
        }
        self.fixture.put(job);
    }

    fn edit(&mut self, fields: Value) {
        let mut value = codec::to_value(self.fixture.store.get(&key()).unwrap());
        for (name, field) in fields.as_object().unwrap() {
            value["spec"][name] = field.clone();
        }
        self.fixture.put(value);
    }

    fn status(&self) -> Value {
        codec::to_value(self.fixture.store.get(&key()).unwrap())["status"].clone()
    }

    fn active(&self) -> Vec<String> {
        let status = self.status();
        let active = status["active"].as_array().cloned().unwrap_or_default();
        active.iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect()
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

const NOTHING: [String; 0] = [];

#[test]
fn a_job_is_started_at_each_time() {
    let mut bench = Bench::new(json!({}));
    assert_eq!(bench.settle(), NOTHING);
    assert_eq!(bench.revisit, Some(Duration::from_millis(200_100)));
    assert_eq!(bench.after(199), NOTHING);
    assert_eq!(bench.after(2), ["create jobs/n/c-16666670"]);
    assert_eq!(bench.told(), ["SuccessfulCreate Created job c-16666670"]);
    assert_eq!(bench.revisit, Some(Duration::from_millis(299_100)));
    let job = bench.jobs().remove(0);
    assert_eq!(
        (&job["metadata"]["labels"], &job["metadata"]["annotations"]),
        (&json!({"a": "b"}), &json!({"x": "y", SCHEDULED: "2001-09-09T01:50:00Z"}))
    );
    assert_eq!(
        job["metadata"]["ownerReferences"],
        json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "u",
            "controller": true, "blockOwnerDeletion": true}])
    );
    assert_eq!(job["spec"]["backoffLimit"], 2);
    let status = bench.status();
    assert_eq!(status["lastScheduleTime"], "2001-09-09T01:50:00Z");
    assert_eq!(status["active"][0]["uid"], job["metadata"]["uid"]);
    assert_eq!(status["active"][0]["kind"], "Job");
    bench.end(&job, "Complete");
    assert_eq!(bench.settle(), NOTHING);
    assert_eq!(
        bench.told(),
        ["SawCompletedJob Saw completed job: c-16666670, condition: Complete"]
    );
    assert_eq!(
        bench.status(),
        json!({"lastScheduleTime": "2001-09-09T01:50:00Z",
        "lastSuccessfulTime": "2001-09-09T01:50:01Z"})
    );
    assert_eq!(bench.after(299), ["create jobs/n/c-16666675"]);
}

#[test]
fn of_those_that_ended_the_last_are_kept() {
    let mut bench = Bench::new(json!({}));
    bench.settle();
    let mut deleted = Vec::new();
    for i in 0..8 {
        deleted.extend(bench.after(if i == 0 { 201 } else { 300 }));
        let jobs = bench.jobs();
        let running = jobs.iter().find(|job| job["status"].is_null()).unwrap();
        bench.end(running, if i % 2 == 0 { "Complete" } else { "Failed" });
        deleted.extend(bench.settle());
    }
    deleted.retain(|line| line.starts_with("delete"));
    assert_eq!(
        deleted,
        ["75", "85", "70", "95"].map(|n| format!("delete jobs/n/c-166666{n} Background"))
    );
    assert_eq!(bench.jobs().len(), 4);
    assert!(bench.told().contains(&"SuccessfulDelete Deleted job c-16666670".to_owned()));
    bench.edit(json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0}));
    assert_eq!(bench.settle().len(), 4);
    assert_eq!(bench.jobs().len(), 0);
}

#[test]
fn what_a_running_job_means_is_told_by_the_policy() {
    let mut bench = Bench::new(json!({"concurrencyPolicy": "Allow"}));
    bench.settle();
    bench.after(201);
    assert_eq!(bench.after(300), ["create jobs/n/c-16666675"]);
    assert_eq!(bench.active(), ["c-16666670", "c-16666675"]);

    let mut bench = Bench::new(json!({"concurrencyPolicy": "Forbid"}));
    bench.settle();
    bench.after(201);
    bench.told();
    assert_eq!(bench.after(300), NOTHING);
    assert_eq!(bench.after(1), NOTHING);
    assert_eq!(
        bench.told(),
        ["JobAlreadyActive Not starting job because prior execution is running and concurrency \
          policy is Forbid"]
    );
    assert_eq!(bench.revisit, Some(Duration::from_millis(298_100)));
    // It is made up for as soon as that is possible.
    let job = bench.jobs().remove(0);
    bench.end(&job, "Failed");
    assert_eq!(bench.settle(), ["create jobs/n/c-16666675"]);

    let mut bench = Bench::new(json!({"concurrencyPolicy": "Replace"}));
    bench.settle();
    bench.after(201);
    bench.told();
    assert_eq!(
        bench.after(300),
        ["delete jobs/n/c-16666670 Background", "create jobs/n/c-16666675"]
    );
    assert_eq!(
        bench.told(),
        ["SuccessfulDelete Deleted job c-16666670", "SuccessfulCreate Created job c-16666675"]
    );
    assert_eq!(bench.active(), ["c-16666675"]);
}

#[test]
fn times_that_were_missed() {
    // The last one is made up for.
    let mut bench = Bench::new(json!({}));
    assert_eq!(bench.after(3600), ["create jobs/n/c-16666725"]);
    assert_eq!(bench.told(), ["SuccessfulCreate Created job c-16666725"]);
    // And it is said that there were many.
    assert_eq!(bench.after(200_000), ["create jobs/n/c-16670060"]);
    assert_eq!(
        bench.told(),
        [
            "TooManyMissedTimes too many missed start times. Set or decrease \
          .spec.startingDeadlineSeconds or check clock skew",
            "SuccessfulCreate Created job c-16670060"
        ]
    );
    // With a deadline it may be too late.
    let mut bench = Bench::new(json!({"startingDeadlineSeconds": 30}));
    assert_eq!(bench.after(300), NOTHING);
    assert_eq!(bench.after(1), NOTHING);
    let missed =
        "MissSchedule Missed scheduled time to start a job: Sun, 09 Sep 2001 01:50:00 +0000";
    assert_eq!(bench.told(), [missed]);
    assert_eq!(bench.after(209), ["create jobs/n/c-16666675"]);
    assert_eq!(bench.told().len(), 1);
}

#[test]
fn who_is_suspended_starts_nothing() {
    let mut bench = Bench::new(json!({"suspend": true}));
    assert_eq!(bench.after(100_000), NOTHING);
    assert_eq!((bench.revisit, bench.told()), (None, vec![]));
    bench.edit(json!({"suspend": false}));
    assert_eq!(bench.settle().len(), 1);
}

#[test]
fn a_new_schedule_begins_when_it_is_there() {
    let mut bench = Bench::new(json!({"schedule": "0 0 1 1 *"}));
    bench.settle();
    assert_eq!(bench.after(100_000), NOTHING);
    bench.edit(json!({"schedule": "0 * * * *"}));
    // 05:33:20: the full hour is over, the next one is not.
    assert_eq!(bench.settle(), NOTHING);
    assert_eq!(bench.revisit, Some(Duration::from_millis(1_600_100)));
    bench.edit(json!({"schedule": "35 7 * * *", "timeZone": "Europe/Berlin"}));
    assert_eq!(bench.settle(), NOTHING);
    assert_eq!(bench.after(101), ["create jobs/n/c-16668335"]);
    let job = bench.jobs().remove(0);
    assert_eq!(job["metadata"]["annotations"][SCHEDULED], "2001-09-10T07:35:00+02:00");
}

#[test]
fn what_nobody_can_follow_is_told_and_left_alone() {
    let check = |fields: Value, expected: &str| {
        let mut bench = Bench::new(fields);
        assert_eq!(bench.after(100_000), NOTHING);
        assert_eq!((bench.revisit, bench.told()), (None, vec![expected.to_owned()]));
    };
    check(
        json!({"schedule": "0 0 30 2 *"}),
        "InvalidSchedule invalid schedule: 0 0 30 2 * : time difference between two schedules is \
         less than 1 second",
    );
    check(
        json!({"schedule": "* * *"}),
        "UnparseableSchedule unparseable schedule: \"* * *\" : expected exactly 5 fields, found \
         3: [* * *]",
    );
    check(
        json!({"timeZone": "Mars/Olympus"}),
        "UnknownTimeZone invalid timeZone: \"Mars/Olympus\": unknown time zone Mars/Olympus",
    );
    // Numbers that no clock shows.
    let mut bench = Bench::new(json!({"startingDeadlineSeconds": i64::MAX}));
    assert_eq!(bench.after(201), ["create jobs/n/c-16666670"]);
    let mut bench = Bench::new(json!({"schedule": "@every 2540400h"}));
    assert_eq!(bench.after(201), NOTHING);
    assert!(bench.revisit.is_some());
}

#[test]
fn jobs_of_others_are_seen() {
    let mut bench = Bench::new(json!({"concurrencyPolicy": "Forbid"}));
    bench.settle();
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "u",
        "controller": true}]);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "by-hand", "namespace": "n", "ownerReferences": owner,
            "annotations": {"cronjob.kubernetes.io/instantiate": "manual"}},
        "spec": {"template": {}}});
    assert_eq!(bench.fixture.put(job.clone()), [key()]);
    assert_eq!(bench.settle(), NOTHING);
    let unexpected =
        "UnexpectedJob Saw a job that the controller did not create or forgot: by-hand";
    assert_eq!((bench.told(), bench.active()), (vec![unexpected.to_owned()], vec![]));
    bench.end(&job, "Complete");
    bench.settle();
    assert_eq!(bench.status()["lastSuccessfulTime"], "2001-09-09T01:46:40Z");
    // A name that is taken is left alone; the next one is another.
    let mut taken = job;
    taken["metadata"] = json!({"name": "c-16666670", "namespace": "n"});
    assert_eq!(bench.fixture.put(taken), []);
    assert_eq!(bench.after(201), NOTHING);
    assert_eq!(bench.after(300), ["create jobs/n/c-16666675"]);
    // One that somebody deletes is missed.
    bench.told();
    bench.fixture.remove(&Key::new(Kind::Job, "n", "c-16666675"));
    assert_eq!(bench.settle(), NOTHING);
    assert_eq!(bench.told(), ["MissingJob Active job went missing: c-16666675"]);
    assert_eq!(bench.active(), NOTHING);
}

#[test]
fn a_cron_job_that_goes_only_watches() {
    let mut bench = Bench::new(json!({}));
    bench.settle();
    bench.after(201);
    let mut going = codec::to_value(bench.fixture.store.get(&key()).unwrap());
    going["metadata"]["deletionTimestamp"] = json!(bench.fixture.now().to_meta());
    going["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    bench.fixture.put(going);
    assert_eq!(bench.after(300), NOTHING);
    let job = bench.jobs().remove(0);
    bench.end(&job, "Failed");
    assert_eq!(bench.settle(), NOTHING);
    assert_eq!((bench.active(), bench.revisit), (vec![], None));
}

#[test]
fn jobs_that_the_cache_does_not_show_yet_are_not_missed() {
    let mut bench = Bench::new(json!({}));
    bench.settle();
    bench.after(201);
    // A process that has seen the cron job, and no job yet.
    let mut late = Fixture::new(CronJobs);
    let object = bench.fixture.store.get(&key()).unwrap().clone();
    late.deliver_event(machine::WatchEvent::Changed(object));
    let plan = late.reconcile(&key());
    assert_eq!(plan.requests, [Request::ReadRevision(Kind::Job)]);
    assert_eq!(plan.events, []);
}
