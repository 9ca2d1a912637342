use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, merge, object, one_with, owned, pod_key};
use crate::world::ProcessId;

fn job(spec: &Value, status: &Value) -> Value {
    let mut value = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "d", "uid": "u-j"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 1,
            "template": {"spec": {"containers": [], "restartPolicy": "Never"}}},
        "status": status});
    merge(&mut value, &json!({"spec": spec}));
    value
}

fn job_key() -> Key {
    Key::new(Kind::Job, "d", "j")
}

fn tracked(name: &str, phase: &str, index: Option<i64>) -> Value {
    let mut value = owned(name, "n1", phase, "Job", "j");
    merge(&mut value, &json!({"metadata": {"finalizers": ["batch.kubernetes.io/job-tracking"]}}));
    if let Some(index) = index {
        let key = "batch.kubernetes.io/job-completion-index";
        merge(&mut value, &json!({"metadata": {"annotations": {key: index.to_string()}}}));
    }
    value
}

fn case(spec: &Value) -> (Case<CountsOnce>, ProcessId) {
    let mut case = Case::new(CountsOnce::default());
    let manager = case.manager();
    case.tell(&Occurrence::Started(manager));
    case.put(None, &job(spec, &json!({})));
    case.show(manager, &job_key());
    (case, manager)
}

fn make(case: &mut Case<CountsOnce>, by: ProcessId, name: &str) {
    let pod = tracked(name, "Pending", None);
    case.call(by, &Request::Create(object(&pod)));
    case.put(Some(by), &pod);
}

#[test]
fn p38_no_more_at_a_time_than_allowed() {
    let (mut case, manager) = case(&json!({"parallelism": 2, "completions": 5}));
    make(&mut case, manager, "a");
    make(&mut case, manager, "b");
    case.is_right();
    make(&mut case, manager, "c");
    case.is_wrong(&["pods/d/c is active pod number 3 of a job that may have 2"]);
    // Two processes may not have more together, either.
    let other = case.other_manager();
    case.tell(&Occurrence::Started(other));
    case.show(other, &job_key());
    make(&mut case, other, "x");
    case.is_wrong(&["pods/d/x is active pod number 4"]);
}

#[test]
fn p38_what_another_makes_meanwhile_is_seen_by_nobody() {
    let (mut case, manager) = case(&json!({"parallelism": 1, "completions": 3}));
    make(&mut case, manager, "a");
    case.put(None, &tracked("a", "Succeeded", None));
    let other = case.other_manager();
    case.tell(&Occurrence::Started(other));
    case.show(other, &job_key());
    let pods = [tracked("b", "Pending", None), tracked("c", "Pending", None)];
    // What was lost moves names on, and both did not hear of it in the same way.
    for (by, pod) in [manager, other].into_iter().zip(&pods) {
        case.call(by, &Request::Create(object(pod)));
    }
    for (by, pod) in [manager, other].into_iter().zip(&pods) {
        case.put(Some(by), pod);
    }
    case.is_right();
    case.show(other, &Key::new(Kind::Pod, "d", "b"));
    make(&mut case, other, "d");
    case.is_wrong(&["pods/d/d is active pod number 3 of a job that may have 1"]);
}

#[test]
fn p38_each_end_counts_once() {
    let (mut case, _) = case(&json!({"completions": 3, "parallelism": 3}));
    case.put(None, &tracked("a", "Succeeded", None));
    case.put(None, &tracked("b", "Failed", None));
    let status = |succeeded: i64, failed: i64, listed: &[&str]| {
        job(
            &json!({"completions": 3, "parallelism": 3}),
            &json!({"succeeded": succeeded, "failed": failed,
                "uncountedTerminatedPods": {"succeeded": listed}}),
        )
    };
    case.put(None, &status(0, 0, &["u-a"]));
    case.put(None, &status(1, 1, &[]));
    case.is_right();
    case.put(None, &status(1, 1, &["u-a"]));
    case.is_wrong(&["jobs/d/j counts 2 successes, and 1 pods succeeded"]);
    case.put(None, &status(1, 2, &[]));
    case.is_wrong(&["jobs/d/j counts 2 failures, and 1 pods have failed"]);
}

#[test]
fn p38_indexes_are_completed_by_pods_and_stay() {
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
    let (mut case, _) = case(&spec);
    let status = |succeeded: i64, indexes: &str| {
        job(&spec, &json!({"succeeded": succeeded, "completedIndexes": indexes}))
    };
    case.put(None, &tracked("a", "Succeeded", Some(0)));
    case.put(None, &tracked("b", "Succeeded", Some(2)));
    // A second success of an index counts for nothing.
    case.put(None, &tracked("c", "Succeeded", Some(2)));
    case.put(None, &status(1, "0"));
    case.put(None, &status(2, "0,2"));
    case.is_right();
    case.put(None, &status(3, "0-2"));
    case.is_wrong(&["jobs/d/j has index 1 complete, which no pod has completed"]);
    case.put(None, &status(1, "2"));
    case.is_wrong(&["jobs/d/j had index 0 complete and has it no more"]);
    case.put(None, &status(2, "2"));
    case.is_wrong(&["jobs/d/j counts 2 successes and names 1 indexes"]);
}

fn ended(kind: &str, reason: &str, succeeded: i64, failed: i64) -> Value {
    job(
        &json!({}),
        &json!({"succeeded": succeeded, "failed": failed,
            "conditions": [{"type": kind, "status": "True", "reason": reason}]}),
    )
}

#[test]
fn p38_an_end_is_deserved_and_stays() {
    let (mut case, manager) = case(&json!({}));
    case.put(None, &ended("Complete", "CompletionsReached", 0, 0));
    case.is_wrong(&["jobs/d/j is complete with 0 of 1 successes"]);
    // Who has not heard of it may be late.
    make(&mut case, manager, "a");
    case.is_right();
    case.delete(None, &pod_key("a"));
    case.show(manager, &Key::new(Kind::Job, "d", "j"));
    case.advance(61);
    make(&mut case, manager, "b");
    case.is_wrong(&["pods/d/b is made for a job that has ended as Complete"]);
    // What was planned before is still carried out, and nothing else.
    let (mut planned, manager) = self::case(&json!({"parallelism": 2}));
    make(&mut planned, manager, "a");
    planned.advance(1);
    planned.put(None, &ended("Failed", "DeadlineExceeded", 0, 1));
    planned.show(manager, &Key::new(Kind::Job, "d", "j"));
    make(&mut planned, manager, "b");
    planned.is_right();
    planned.advance(61);
    make(&mut planned, manager, "c");
    let found = planned.found();
    assert!(found.contains(&"pods/d/c is made for a job that has ended as Failed".to_owned()));
    case.put(None, &job(&json!({}), &json!({})));
    case.is_wrong(&["jobs/d/j had ended as Complete and is running now"]);
    // One failure more than the limit, not the limit.
    case.put(None, &tracked("a", "Failed", None));
    case.put(None, &ended("Failed", "BackoffLimitExceeded", 0, 1));
    case.is_wrong(&["jobs/d/j has failed after 1 failures of 1"]);
    case.put(None, &job(&json!({}), &json!({})));
    assert_eq!(case.found().len(), 1);
    case.put(None, &tracked("b", "Failed", None));
    case.put(None, &ended("Failed", "BackoffLimitExceeded", 0, 2));
    case.is_right();
}

#[test]
fn p38_at_rest_all_is_counted_or_runs() {
    let (mut case, manager) = case(&json!({}));
    one_with(&case.at_rest(), &["jobs/d/j has 0 pods at rest and wants 1"]);
    make(&mut case, manager, "a");
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &tracked("a", "Succeeded", None));
    case.put(None, &ended("Complete", "CompletionsReached", 1, 0));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    // What was deleted before it ended is to be counted as well.
    let (mut case, _) = self::case(&json!({}));
    let mut going = tracked("b", "Running", None);
    merge(&mut going, &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    case.put(None, &going);
    case.delete(None, &pod_key("b"));
    case.put(None, &tracked("a", "Succeeded", None));
    case.put(None, &ended("Complete", "CompletionsReached", 1, 0));
    one_with(&case.at_rest(), &["jobs/d/j counts 1 ends, and 2 were to be counted"]);
}
