use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, merge, object, one_with};

fn cron(spec: &Value) -> Value {
    let mut value = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "d", "uid": "u-c", "generation": 1},
        "spec": {"schedule": "* * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}}});
    merge(&mut value, &json!({"spec": spec}));
    value
}

fn cron_key() -> Key {
    Key::new(Kind::CronJob, "d", "c")
}

/// The job for a second of the run, that has ended or not.
fn job(secs: u64, end: Option<&str>) -> Value {
    let time = START + Duration::from_secs(secs);
    let conditions = end.map_or(json!([]), |end| json!([{"type": end, "status": "True"}]));
    json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": format!("c-{}", secs / 60), "namespace": "d",
            "uid": format!("u-{}", secs / 60),
            "annotations": {"batch.kubernetes.io/cronjob-scheduled-timestamp": time.to_meta()},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "c",
                "uid": "u-c", "controller": true}]},
        "spec": {"template": {"spec": {"containers": []}}}, "status": {"conditions": conditions}})
}

fn case(spec: &Value) -> (Case<OnSchedule>, ProcessId) {
    let mut case = Case::new(OnSchedule::default());
    let manager = case.manager();
    case.tell(&Occurrence::Started(manager));
    case.put(None, &cron(spec));
    case.show(manager, &cron_key());
    case.advance(60);
    (case, manager)
}

fn make(case: &mut Case<OnSchedule>, by: ProcessId, secs: u64) {
    let job = job(secs, None);
    case.call(by, &Request::Create(object(&job)));
    case.put(Some(by), &job);
}

#[test]
fn p39_each_time_has_one_job() {
    let (mut case, manager) = case(&json!({}));
    make(&mut case, manager, 60);
    case.advance(60);
    make(&mut case, manager, 120);
    case.is_right();
    let key = object(&job(60, None)).key();
    case.delete(Some(manager), &key);
    make(&mut case, manager, 60);
    case.is_wrong(&["jobs/d/c-1 is a second job for 1m"]);
    // Nobody knows what becomes of a call that has no answer.
    case.delete(Some(manager), &key);
    case.call(manager, &Request::Create(object(&job(60, None))));
    case.advance(10);
    case.put(Some(manager), &job(60, None));
    case.is_right();
}

#[test]
fn p39_what_was_made_too_early_may_be_made_again_once() {
    let (mut case, manager) = case(&json!({}));
    make(&mut case, manager, 120);
    case.is_wrong(&["jobs/d/c-2 is made before its time, 2m"]);
    let key = object(&job(120, None)).key();
    case.delete(Some(manager), &key);
    case.advance(60);
    make(&mut case, manager, 120);
    case.is_right();
    case.delete(Some(manager), &key);
    make(&mut case, manager, 120);
    case.is_wrong(&["jobs/d/c-2 is a second job for 2m"]);
}

#[test]
fn p39_no_job_for_other_times() {
    let (mut case, manager) = case(&json!({"schedule": "*/2 * * * *"}));
    make(&mut case, manager, 60);
    case.is_wrong(&["jobs/d/c-1 is made for 1m, which is no time of \"*/2 * * * *\""]);
    make(&mut case, manager, 120);
    case.is_wrong(&["jobs/d/c-2 is made before its time, 2m"]);
}

#[test]
fn p39_not_too_late_and_not_while_suspended() {
    let (mut case, manager) = case(&json!({"startingDeadlineSeconds": 30}));
    case.advance(80);
    make(&mut case, manager, 60);
    case.is_right();
    case.advance(80);
    make(&mut case, manager, 120);
    case.is_wrong(&["jobs/d/c-2 is made 100 s late, 30 are allowed"]);
    case.put(None, &cron(&json!({"suspend": true})));
    case.show(manager, &cron_key());
    case.advance(61);
    make(&mut case, manager, 240);
    case.is_wrong(&["jobs/d/c-4 is made while cronjobs/d/c is suspended"]);
}

#[test]
fn p39_one_at_a_time_if_that_is_said() {
    let (mut case, manager) = case(&json!({"concurrencyPolicy": "Forbid"}));
    make(&mut case, manager, 60);
    case.advance(60);
    make(&mut case, manager, 120);
    // It had made the other one itself, whatever it knows.
    case.is_wrong(&["jobs/d/c-2 was made beside jobs/d/c-1"]);
    case.put(None, &job(60, Some("Complete")));
    case.put(None, &job(120, Some("Failed")));
    case.advance(60);
    make(&mut case, manager, 180);
    case.is_right();
    let other = case.other_manager();
    case.tell(&Occurrence::Started(other));
    case.show(other, &cron_key());
    case.show(other, &object(&job(180, None)).key());
    case.advance(60);
    make(&mut case, other, 240);
    case.is_wrong(&["jobs/d/c-4 is made while jobs/d/c-3 runs"]);
}

#[test]
fn p39_what_is_reported_is_what_is_there() {
    let (mut case, manager) = case(&json!({"successfulJobsHistoryLimit": 1, "suspend": true}));
    for minute in 1..=2 {
        case.put(Some(manager), &job(60 * minute, Some("Complete")));
    }
    let status = |last: &str| {
        let mut value = cron(&json!({"successfulJobsHistoryLimit": 1, "suspend": true}));
        value["status"] = json!({"lastScheduleTime": last});
        value
    };
    case.put(None, &status("2026-01-01T00:02:00Z"));
    one_with(&case.at_rest(), &["cronjobs/d/c keeps 2 jobs at rest that are Complete, of 1"]);
    case.put(None, &job(60, None));
    one_with(&case.at_rest(), &["cronjobs/d/c lists 0 active jobs at rest, and 1 run"]);
    case.delete(None, &object(&job(60, None)).key());
    assert_eq!(case.at_rest(), Vec::<String>::new());
    let mut early = status("2026-01-01T00:01:00Z");
    case.put(None, &early);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    early["spec"]["suspend"] = json!(false);
    case.put(None, &early);
    one_with(&case.at_rest(), &["has a job for a later time than the last that it reports"]);
}

#[test]
fn p39_every_time_is_met_when_nothing_is_wrong() {
    let (mut case, manager) = case(&json!({}));
    case.tell(&Occurrence::Healed);
    // Healed after one minute: the third to the fifth count.
    case.advance(240);
    let mut suspended = cron(&json!({"suspend": true}));
    suspended["metadata"]["generation"] = json!(2);
    suspended["status"] = json!({"lastScheduleTime": "2026-01-01T00:05:00Z"});
    case.put(None, &suspended);
    one_with(&case.at_rest(), &["cronjobs/d/c has made no job for 3m"]);
    for minute in 3..=4 {
        case.put(Some(manager), &job(60 * minute, Some("Complete")));
    }
    assert_eq!(case.at_rest(), Vec::<String>::new());
}

#[test]
fn p39_times_before_one_that_was_noted_are_not_met() {
    let (mut case, manager) = case(&json!({}));
    case.tell(&Occurrence::Healed);
    make(&mut case, manager, 240);
    case.is_wrong(&["jobs/d/c-4 is made before its time, 4m"]);
    case.advance(300);
    let mut suspended = cron(&json!({"suspend": true}));
    suspended["metadata"]["generation"] = json!(2);
    suspended["status"] = json!({"lastScheduleTime": "2026-01-01T00:05:00Z"});
    case.put(Some(manager), &job(240, Some("Complete")));
    case.put(None, &suspended);
    one_with(&case.at_rest(), &["cronjobs/d/c has made no job for 5m"]);
    case.put(Some(manager), &job(300, Some("Complete")));
    assert_eq!(case.at_rest(), Vec::<String>::new());
}
