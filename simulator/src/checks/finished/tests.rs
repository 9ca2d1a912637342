use api::{Key, Kind, Request, Revision};
use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::Case;
use crate::plan::{Component, Fault};
use crate::span::Span;

/// A job that ended when the run began, and is kept for a minute.
fn job(end: Option<&str>) -> Value {
    let conditions = end.map_or(json!([]), |end| {
        json!([{"type": end, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    });
    json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "d", "uid": "u-j"},
        "spec": {"ttlSecondsAfterFinished": 60, "template": {"spec": {"containers": []}}},
        "status": {"conditions": conditions}})
}

fn key() -> Key {
    Key::new(Kind::Job, "d", "j")
}

fn deletion(revision: Option<Revision>) -> Request {
    Request::Delete { key: key(), uid: None, revision, grace_seconds: None, propagation: None }
}

#[test]
fn p58_a_job_is_kept_until_its_time_has_come() {
    let mut case = Case::new(KeptAsLong::default());
    let manager = case.manager();
    case.put(None, &job(Some("Complete")));
    case.show(manager, &key());
    case.advance(59);
    case.call(manager, &deletion(Some(Revision(2))));
    case.is_wrong(&["jobs/d/j is deleted 1 s before its time"]);
    // Who deletes it for another reason may.
    case.call(manager, &deletion(None));
    case.is_right();
    case.advance(1);
    case.call(manager, &deletion(Some(Revision(2))));
    case.is_right();
}

#[test]
fn p58_a_job_that_has_not_ended_stays() {
    let mut case = Case::new(KeptAsLong::default());
    let manager = case.manager();
    case.put(None, &job(None));
    case.show(manager, &key());
    case.advance(500);
    case.call(manager, &deletion(Some(Revision(2))));
    case.is_wrong(&["jobs/d/j is deleted, and it has not finished"]);
    assert_eq!(case.at_rest(), Vec::<String>::new());
}

#[test]
fn p58_a_clock_that_is_ahead_is_believed() {
    let mut case = Case::new(KeptAsLong::default());
    let manager = case.manager();
    case.put(None, &job(Some("Failed")));
    case.show(manager, &key());
    let component = Component::ControllerManager(0);
    case.fault(&Fault::ClockSkew { component, ahead: Span::secs(30) }, true);
    case.advance(31);
    case.call(manager, &deletion(Some(Revision(2))));
    case.is_right();
}

#[test]
fn p58_no_job_stays_for_longer() {
    let mut case = Case::new(KeptAsLong::default());
    case.put(None, &job(Some("Complete")));
    case.advance(119);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.advance(10);
    crate::checks::made_up::one_with(&case.at_rest(), &["jobs/d/j should have gone 69 s ago"]);
}
