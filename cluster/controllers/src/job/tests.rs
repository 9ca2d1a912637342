//! Jobs against a store, step by step.

use std::time::Duration;

use api::codec;
use serde_json::{Value, json};

use super::pod::{COMPLETION_INDEX, FAILURE_COUNT, TRACKING};
use super::*;
use crate::fixture::{Fixture, short, summary};

mod exactly_once;

const UID: &str = "batch.kubernetes.io/controller-uid";

fn key() -> Key {
    Key::new(Kind::Job, "n", "j")
}

/// A job with defaults and these fields of the spec.
fn job(fields: &Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "suspend": false,
            "completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {UID: "u"}},
            "template": {"metadata": {"labels": {UID: "u"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {}});
    for (name, value) in fields.as_object().unwrap() {
        job["spec"][name] = value.clone();
    }
    job
}

/// A job under the controller, with hands on its pods.
struct Bench(Fixture<Jobs>);

impl Bench {
    fn new(fields: &Value) -> Self {
        let mut bench = Self(Fixture::new(Jobs));
        bench.0.put(job(fields));
        bench
    }

    /// Carries plans out until there is nothing left to do; returns what was done to the pods.
    fn settle(&mut self) -> Vec<String> {
        let mut done = self.0.settle(&key());
        for pod in self.pods() {
            let key = Key::new(Kind::Pod, "n", pod["metadata"]["name"].as_str().unwrap());
            done.extend(self.0.settle(&key));
        }
        done.retain(|line| !line.starts_with("read ") && !line.ends_with(" status"));
        done.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    fn pods(&self) -> Vec<Value> {
        self.0.store.kind(Kind::Pod).map(codec::to_value).collect()
    }

    /// The pods that have not ended, by name.
    fn active(&self) -> Vec<Value> {
        let is_active = |pod: &Value| {
            !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
                && pod["metadata"]["deletionTimestamp"].is_null()
        };
        self.pods().into_iter().filter(is_active).collect()
    }

    fn status(&self) -> Value {
        codec::to_value(self.0.store.get(&key()).unwrap())["status"].clone()
    }

    /// The conditions that are true, with their reasons.
    fn conditions(&self) -> Vec<String> {
        let status = self.status();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        all.iter()
            .filter(|c| c["status"] == "True")
            .map(|c| format!("{} {}", text(c, "type"), text(c, "reason")).trim().to_owned())
            .collect()
    }

    /// Active, succeeded and failed pods, as the status tells.
    fn counts(&self) -> [i64; 3] {
        let status = self.status();
        ["active", "succeeded", "failed"].map(|field| status[field].as_i64().unwrap_or(0))
    }

    fn change(&mut self, pod: &Value, change: impl FnOnce(&mut Value)) {
        let mut pod = pod.clone();
        change(&mut pod);
        self.0.put(pod);
    }

    /// Ends a pod, now, with that exit code.
    fn end(&mut self, pod: &Value, exit_code: i32) {
        let now = self.0.now().to_meta();
        self.change(pod, |pod| {
            let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
            pod["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c",
                "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": exit_code, "finishedAt": now}}}]});
        });
    }

    /// Ends the first active pod.
    fn end_one(&mut self, exit_code: i32) {
        let pod = self.active().first().cloned().expect("an active pod");
        self.end(&pod, exit_code);
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut job = codec::to_value(self.0.store.get(&key()).unwrap());
        change(&mut job["spec"]);
        self.0.put(job);
    }

    fn advance(&mut self, secs: u64) {
        self.0.advance(Duration::from_secs(secs));
    }

    fn tracked(&self) -> usize {
        let is_tracked =
            |p: &&Value| p["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        self.pods().iter().filter(is_tracked).count()
    }

    /// The indexes of the active pods.
    fn indexes(&self) -> Vec<String> {
        let index = |pod: &Value| {
            pod["metadata"]["annotations"][COMPLETION_INDEX].as_str().unwrap_or("?").to_owned()
        };
        let mut indexes: Vec<String> = self.active().iter().map(index).collect();
        indexes.sort();
        indexes
    }
}

#[test]
fn a_job_is_complete_when_its_pod_succeeds() {
    let mut bench = Bench::new(&json!({}));
    assert_eq!(bench.settle(), ["create"]);
    assert_eq!(bench.counts(), [1, 0, 0]);
    assert_eq!(bench.status()["startTime"], "2001-09-09T01:46:40Z");
    let pod = bench.pods().remove(0);
    assert_eq!(pod["metadata"]["finalizers"], json!([TRACKING]));
    assert_eq!(pod["metadata"]["generateName"], "j-");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
    bench.end(&pod, 0);
    // First the status lists the pod, then the finalizer goes, then the pod is a number.
    let plan = bench.0.reconcile(&key());
    assert_eq!(summary(&plan), ["update jobs/n/j status"]);
    plan.requests.into_iter().for_each(|request| bench.0.request(request));
    assert_eq!(
        bench.status()["uncountedTerminatedPods"]["succeeded"],
        json!([pod["metadata"]["uid"]])
    );
    assert_eq!(bench.conditions(), ["SuccessCriteriaMet CompletionsReached"]);
    assert_eq!(bench.settle(), ["update"]);
    assert_eq!(bench.counts(), [0, 1, 0]);
    assert_eq!(
        bench.conditions(),
        ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"]
    );
    let status = bench.status();
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert_eq!(status["completionTime"], "2001-09-09T01:46:40Z");
    assert_eq!(status["conditions"][1]["message"], "Reached expected number of succeeded pods");
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn no_job_ends_before_it_starts() {
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    // Whoever started it had a clock that was half an hour ahead.
    let mut job = codec::to_value(bench.0.store.get(&key()).unwrap());
    job["status"]["startTime"] = "2001-09-09T02:16:40Z".into();
    bench.0.put(job);
    bench.end_one(0);
    bench.settle();
    assert_eq!(bench.conditions().len(), 2);
    assert_eq!(bench.status()["completionTime"], "2001-09-09T02:16:40Z");
}

#[test]
fn the_end_is_told() {
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    bench.end_one(0);
    let mut told = Vec::new();
    for _ in 0..9 {
        let plan = bench.0.reconcile(&key());
        told.extend(plan.announcements.into_values().filter_map(|a| a.done));
        plan.requests.into_iter().for_each(|request| bench.0.request(request));
    }
    let told: Vec<(String, String)> =
        told.into_iter().map(|r| (r.reason.into(), r.message)).collect();
    assert_eq!(told, [("Completed".to_owned(), "Job completed".to_owned())]);
}

#[test]
fn no_more_pods_run_than_are_needed() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 3}));
    assert_eq!(bench.settle(), ["create"; 2]);
    bench.end_one(0);
    assert_eq!(bench.settle(), ["create", "update"]);
    assert_eq!(bench.counts(), [2, 1, 0]);
    bench.end_one(0);
    assert_eq!(bench.settle(), ["update"]);
    assert_eq!(bench.counts(), [1, 2, 0]);
    bench.end_one(0);
    bench.settle();
    assert_eq!(bench.counts(), [0, 3, 0]);
    assert!(bench.conditions().contains(&"Complete CompletionsReached".to_owned()));
}

#[test]
fn pods_that_nobody_needed_are_told_of() {
    let told = |completions: i32, phases: &[&str]| -> Vec<String> {
        let mut bench = Bench::new(&json!({"completions": completions}));
        for (i, phase) in phases.iter().enumerate() {
            bench.0.put(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("p{i}"), "namespace": "n", "uid": format!("p{i}"),
                    "labels": {UID: "u"}, "finalizers": [TRACKING], "ownerReferences": [{
                        "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u",
                        "controller": true}]},
                "spec": {"containers": []}, "status": {"phase": phase}}));
        }
        bench.0.progress();
        bench.0.reconcile(&key()).events.into_iter().map(|e| e.reason.into()).collect()
    };
    assert_eq!(told(2, &["Running", "Succeeded"]), Vec::<String>::new());
    assert_eq!(told(1, &["Running", "Succeeded"]), ["TooManyActivePods"]);
    assert_eq!(told(1, &["Succeeded", "Succeeded"]), ["TooManySucceededPods"]);
    let both = ["TooManyActivePods", "TooManySucceededPods"];
    assert_eq!(told(1, &["Running", "Succeeded", "Succeeded"]), both);
}

#[test]
fn without_a_number_of_completions_one_success_suffices() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": null}));
    assert_eq!(bench.settle(), ["create"; 2]);
    bench.end_one(0);
    assert_eq!(bench.settle(), ["update"]);
    assert!(bench.conditions().is_empty(), "the other pod still runs");
    bench.end_one(1);
    bench.settle();
    assert_eq!(bench.counts(), [0, 1, 1]);
    assert!(bench.conditions().contains(&"Complete CompletionsReached".to_owned()));
}

#[test]
fn pods_are_removed_when_fewer_are_wanted() {
    let mut bench = Bench::new(&json!({"parallelism": 3, "completions": 9}));
    bench.settle();
    bench.edit(|spec| spec["parallelism"] = 1.into());
    // First nobody counts them any more.
    assert_eq!(bench.settle(), ["update", "update", "delete", "delete"]);
    assert_eq!(bench.counts(), [1, 0, 0]);
    assert_eq!(bench.pods().len(), 1);
}

#[test]
fn a_pod_that_nobody_counts_is_tracked_again() {
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    let pod = bench.pods().remove(0);
    bench.change(&pod, |pod| pod["metadata"]["finalizers"] = Value::Null);
    assert_eq!(bench.settle(), ["update"]);
    assert_eq!(bench.tracked(), 1);
}

#[test]
fn failures_are_followed_by_growing_pauses() {
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    for (failures, pause) in [(1, 10), (2, 20), (3, 40), (4, 80)] {
        bench.end_one(1);
        bench.settle();
        assert_eq!(bench.counts(), [0, 0, failures]);
        let plan = bench.0.reconcile(&key());
        assert_eq!(plan.revisit, Some(Duration::from_secs(pause)));
        bench.advance(pause - 1);
        assert!(bench.settle().is_empty());
        bench.advance(1);
        assert_eq!(bench.settle(), ["create"]);
    }
    // A success ends the series.
    let mut bench = Bench::new(&json!({"completions": 9}));
    bench.settle();
    bench.end_one(1);
    bench.advance(10);
    bench.settle();
    bench.end_one(0);
    assert_eq!(bench.settle(), ["create", "update"]);
}

#[test]
fn failed_pods_that_are_deleted_are_remembered() {
    let mut bench = Bench::new(&json!({}));
    let mut memory = Memory::default();
    let look = |bench: &Bench, memory: &mut Memory| {
        let plan = Jobs.reconcile_with(&bench.0.cache, &key(), bench.0.now(), memory);
        let creates = plan.requests.iter().any(|r| matches!(r, Request::Create(_)));
        (plan.revisit.map(|d| d.as_secs()), creates)
    };
    let clear = |bench: &mut Bench| {
        for pod in bench.pods() {
            let name = pod["metadata"]["name"].as_str().unwrap();
            bench.0.remove(&Key::new(Kind::Pod, "n", name));
        }
        bench.0.progress();
    };
    bench.settle();
    for pause in [10, 20, 40] {
        bench.end_one(1);
        bench.settle();
        assert_eq!(look(&bench, &mut memory), (Some(pause), false));
        clear(&mut bench);
        assert_eq!(look(&bench, &mut memory), (Some(pause), false), "the pods are gone");
        bench.advance(pause);
        assert_eq!(look(&bench, &mut memory), (None, true));
        bench.settle();
    }
    // Another process knows of nothing.
    bench.end_one(1);
    bench.settle();
    look(&bench, &mut memory);
    clear(&mut bench);
    assert_eq!(look(&bench, &mut Memory::default()), (None, true));
    assert_eq!(look(&bench, &mut memory), (Some(80), false));
    // Another job of that name has failures of its own.
    let mut other = memory.clone();
    let mut twin = job(&json!({}));
    twin["metadata"]["uid"] = "other".into();
    let mut fresh = Bench(Fixture::new(Jobs));
    fresh.0.put(twin);
    fresh.0.progress();
    assert_eq!(look(&fresh, &mut other), (None, true));
    assert!(other.is_empty());
    // A success ends the series, also when its pod is deleted.
    bench.edit(|spec| spec["completions"] = 9.into());
    bench.advance(80);
    bench.settle();
    bench.end_one(0);
    look(&bench, &mut memory);
    bench.settle();
    assert_eq!(look(&bench, &mut memory), (None, false));
    bench.end_one(1);
    bench.settle();
    assert_eq!(look(&bench, &mut memory).0, None, "it failed as the other one succeeded");
    bench.0.remove(&key());
    look(&bench, &mut memory);
    assert!(memory.is_empty());
}

#[test]
fn a_job_fails_after_too_many_failures() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 2, "backoffLimit": 1}));
    bench.settle();
    bench.end_one(1);
    bench.settle();
    bench.advance(10);
    assert_eq!(bench.settle(), ["create"]);
    bench.end_one(1);
    bench.settle();
    // The other pod goes with the job, and has failed with it.
    assert_eq!(bench.counts(), [0, 0, 3]);
    assert_eq!(
        bench.conditions(),
        ["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"]
    );
    let status = bench.status();
    assert_eq!(status["conditions"][0]["message"], "Job has reached the specified backoff limit");
    assert_eq!(status["completionTime"], Value::Null);
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn restarts_count_where_containers_are_restarted() {
    let mut bench = Bench::new(&json!({"backoffLimit": 2}));
    bench.edit(|spec| spec["template"]["spec"]["restartPolicy"] = "OnFailure".into());
    bench.settle();
    let restarted = |bench: &mut Bench, count: i32| {
        let pod = bench.active().remove(0);
        bench.change(&pod, |pod| {
            pod["status"] = json!({"phase": "Running", "containerStatuses": [{"name": "c",
                "image": "", "imageID": "", "ready": true, "restartCount": count}]});
        });
        bench.settle();
    };
    restarted(&mut bench, 1);
    assert!(bench.conditions().is_empty());
    restarted(&mut bench, 2);
    assert!(bench.conditions().contains(&"Failed BackoffLimitExceeded".to_owned()));
}

#[test]
fn a_job_fails_when_it_takes_too_long() {
    let mut bench = Bench::new(&json!({"activeDeadlineSeconds": 60}));
    bench.settle();
    assert_eq!(bench.0.reconcile(&key()).revisit, Some(Duration::from_secs(60)));
    bench.advance(59);
    assert!(bench.settle().is_empty());
    bench.advance(1);
    bench.settle();
    assert_eq!(bench.conditions(), ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]);
    assert_eq!(bench.counts(), [0, 0, 1]);
    assert!(bench.pods().is_empty());
}

#[test]
fn a_suspended_job_runs_no_pods() {
    let mut bench = Bench::new(&json!({"suspend": true, "activeDeadlineSeconds": 60}));
    assert!(bench.settle().is_empty());
    assert_eq!(bench.conditions(), ["Suspended JobSuspended"]);
    assert_eq!(bench.status()["startTime"], Value::Null);
    bench.advance(100);
    bench.edit(|spec| spec["suspend"] = false.into());
    assert_eq!(bench.settle(), ["create"]);
    assert!(bench.conditions().is_empty());
    assert_eq!(bench.status()["conditions"][0]["reason"], "JobResumed");
    assert_eq!(bench.status()["startTime"], "2001-09-09T01:48:20Z");
    bench.edit(|spec| spec["suspend"] = true.into());
    assert_eq!(bench.settle(), ["update", "delete"]);
    assert_eq!(bench.counts(), [0, 0, 0]);
    assert_eq!(bench.conditions(), ["Suspended JobSuspended"]);
    bench.advance(100);
    assert!(bench.settle().is_empty(), "the deadline does not run");
    bench.edit(|spec| spec["suspend"] = false.into());
    assert_eq!(bench.settle(), ["create"]);
    assert_eq!(bench.status()["startTime"], "2001-09-09T01:50:00Z");
}

#[test]
fn deleted_pods_have_failed() {
    let going = |bench: &mut Bench| {
        let pod = bench.active().remove(0);
        bench.change(&pod, |pod| {
            pod["spec"]["nodeName"] = "a".into();
            pod["metadata"]["deletionTimestamp"] = json!(Time::from_secs(1).to_meta());
        });
        bench.settle()
    };
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    // It is not waited for, and was deleted long ago.
    assert_eq!(going(&mut bench), ["create", "update"]);
    assert_eq!(bench.counts(), [1, 0, 1]);
    assert_eq!(bench.status()["terminating"], 1);
    let mut bench = Bench::new(&json!({"podReplacementPolicy": "Failed"}));
    bench.settle();
    assert!(going(&mut bench).is_empty());
    assert_eq!(bench.counts(), [0, 0, 0]);
    let pod = bench.pods().remove(0);
    bench.end(&pod, 1);
    bench.settle();
    assert_eq!(bench.counts(), [1, 0, 1]);
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 2}));
    bench.settle();
    let keys = bench.0.remove(&key());
    assert_eq!(keys.len(), 3, "the job and its pods: {keys:?}");
    assert_eq!(bench.tracked(), 2);
    for key in &keys[..] {
        bench.0.settle(key);
    }
    assert_eq!(bench.tracked(), 0);
    // A pod of another controller is none of its business.
    let mut pod = bench.pods().remove(0);
    pod["metadata"]["finalizers"] = json!([TRACKING]);
    pod["metadata"]["ownerReferences"][0]["apiVersion"] = "example.com/v1".into();
    assert!(!bench.0.put(pod).iter().any(|key| key.kind == Kind::Pod));
}

#[test]
fn an_unknown_job_may_only_not_be_known_yet() {
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    let pod = bench.pods().remove(0);
    let mut fresh = Bench(Fixture::new(Jobs));
    fresh.0.store.revision = 100;
    fresh.0.put(pod.clone());
    let key = Key::new(Kind::Pod, "n", pod["metadata"]["name"].as_str().unwrap());
    assert_eq!(summary(&fresh.0.reconcile(&key)), ["read Job"]);
    fresh.0.progress();
    assert_eq!(summary(&fresh.0.reconcile(&key)), [format!("update {key}")]);
}

#[test]
fn a_job_that_goes_keeps_no_pod() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 2}));
    bench.settle();
    bench.end_one(0);
    let mut job = codec::to_value(bench.0.store.get(&key()).unwrap());
    job["metadata"]["deletionTimestamp"] = json!(Time::from_secs(1).to_meta());
    job["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    bench.0.put(job);
    assert_eq!(bench.settle(), ["update", "update"]);
    assert_eq!(bench.counts(), [1, 1, 0]);
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn jobs_of_others_are_left_alone() {
    let mut bench = Bench::new(&json!({"managedBy": "example.com/kueue"}));
    assert!(bench.settle().is_empty());
    let mut bench = Bench::new(&json!({"managedBy": MANAGER}));
    assert_eq!(bench.settle(), ["create"]);
}

#[test]
fn orphans_that_match_are_adopted() {
    let mut bench = Bench::new(&json!({"manualSelector": true}));
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "old", "namespace": "n", "uid": "p", "labels": {UID: "u"}},
        "spec": {"containers": []}, "status": {"phase": "Running"}});
    assert_eq!(bench.0.put(pod), [key()]);
    assert_eq!(bench.settle(), ["update"]);
    let pod = bench.pods().remove(0);
    assert_eq!(pod["metadata"]["finalizers"], json!([TRACKING]));
    assert_eq!(bench.counts(), [1, 0, 0]);
    // And released when they match no more.
    bench.change(&pod, |pod| pod["metadata"]["labels"][UID] = "x".into());
    assert_eq!(bench.settle(), ["update", "create"]);
    assert_eq!(bench.tracked(), 1);
}

#[test]
fn indexed_pods_know_their_index() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 3,
        "completionMode": "Indexed"}));
    assert_eq!(bench.settle(), ["create"; 2]);
    assert_eq!(bench.indexes(), ["0", "1"]);
    let pod = bench.pods().remove(0);
    assert_eq!(pod["metadata"]["labels"][COMPLETION_INDEX], "0");
    assert_eq!(pod["spec"]["hostname"], "j-0");
    assert_eq!(pod["metadata"]["generateName"], "j-0-");
    assert_eq!(
        pod["spec"]["containers"][0]["env"],
        json!([{"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef":
            {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}}])
    );
    bench.end(&pod, 0);
    bench.settle();
    assert_eq!(bench.status()["completedIndexes"], "0");
    assert_eq!(bench.indexes(), ["1", "2"]);
    bench.end_one(1);
    bench.settle();
    bench.advance(10);
    bench.settle();
    assert_eq!(bench.indexes(), ["1", "2"]);
    bench.end_one(0);
    bench.settle();
    bench.end_one(0);
    bench.settle();
    assert_eq!(bench.status()["completedIndexes"], "0-2");
    assert_eq!(bench.counts(), [0, 3, 1]);
    assert!(bench.conditions().contains(&"Complete CompletionsReached".to_owned()));
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn indexes_come_and_go_with_completions() {
    let mut bench = Bench::new(&json!({"parallelism": 4, "completions": 4,
        "completionMode": "Indexed"}));
    bench.settle();
    let last = bench.pods().pop().unwrap();
    let index = last["metadata"]["annotations"][COMPLETION_INDEX].clone();
    assert_eq!(index, "3");
    bench.end(&last, 0);
    bench.settle();
    assert_eq!(bench.status()["completedIndexes"], "3");
    bench.edit(|spec| {
        spec["parallelism"] = 2.into();
        spec["completions"] = 2.into();
    });
    bench.settle();
    assert_eq!(bench.indexes(), ["0", "1"]);
    assert_eq!(bench.counts(), [2, 0, 0]);
    assert_eq!(bench.status()["completedIndexes"], Value::Null);
}

#[test]
fn each_index_may_have_its_own_limit() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 2,
        "completionMode": "Indexed", "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}));
    bench.settle();
    let [zero, one] = [0, 1].map(|i| bench.pods()[i].clone());
    assert_eq!(zero["metadata"]["annotations"][FAILURE_COUNT], "0");
    bench.end(&zero, 1);
    bench.settle();
    assert_eq!(bench.tracked(), 2, "it is kept for its successor");
    assert_eq!(bench.0.reconcile(&key()).revisit, Some(Duration::from_secs(10)));
    bench.advance(10);
    bench.settle();
    assert_eq!(bench.indexes(), ["0", "1"]);
    let again = |p: &Value| p["metadata"]["annotations"][FAILURE_COUNT] == "1";
    let zero = bench.active().into_iter().find(again).expect("a second try");
    assert_eq!(bench.counts(), [2, 0, 1]);
    bench.end(&zero, 1);
    bench.settle();
    assert_eq!(bench.status()["failedIndexes"], "0");
    assert_eq!(bench.indexes(), ["1"]);
    bench.end(&one, 0);
    bench.settle();
    assert_eq!(bench.counts(), [0, 1, 2]);
    assert_eq!(bench.conditions(), ["FailureTarget FailedIndexes", "Failed FailedIndexes"]);
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn an_index_ends_once() {
    let mut bench = Bench::new(&json!({"parallelism": 2, "completions": 2,
        "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX}));
    bench.settle();
    let zero = bench.pods().remove(0);
    let mut double = zero.clone();
    double["metadata"]["name"] = "double".into();
    double["metadata"]["uid"] = "double".into();
    bench.end(&zero, 1);
    bench.end(&double, 0);
    bench.settle();
    // A success counts, rather than a failure at the same time.
    assert_eq!(bench.status()["completedIndexes"], "0");
    assert_eq!(bench.status()["failedIndexes"], "");
    let one = bench.active().remove(0);
    let mut double = one.clone();
    double["metadata"]["name"] = "double-1".into();
    double["metadata"]["uid"] = "double-1".into();
    bench.end(&one, 1);
    bench.settle();
    bench.end(&double, 0);
    bench.settle();
    assert_eq!(bench.status()["completedIndexes"], "0");
    assert_eq!(bench.status()["failedIndexes"], "1");
}

#[test]
fn too_many_failed_indexes_fail_the_job() {
    let mut bench = Bench::new(&json!({"parallelism": 3, "completions": 9, "maxFailedIndexes": 1,
        "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX}));
    bench.settle();
    bench.end_one(1);
    bench.settle();
    assert!(bench.conditions().is_empty());
    bench.end_one(1);
    bench.settle();
    assert!(bench.conditions().contains(&"Failed MaxFailedIndexesExceeded".to_owned()));
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn a_policy_decides_what_failures_mean() {
    let rule = |action: &str, code: i32| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    let policy = json!({"rules": [rule("Ignore", 2), rule("FailJob", 3)]});
    let fields = json!({"podFailurePolicy": policy, "podReplacementPolicy": "Failed",
        "backoffLimit": 0, "completions": 2, "parallelism": 2});
    let mut bench = Bench::new(&fields);
    bench.settle();
    bench.end_one(2);
    bench.settle();
    assert_eq!(bench.counts(), [1, 0, 0], "it is not counted");
    assert_eq!(bench.tracked(), 1);
    bench.advance(10);
    assert_eq!(bench.settle(), ["create"]);
    let pod = bench.active().remove(0);
    bench.end(&pod, 3);
    bench.settle();
    let name = pod["metadata"]["name"].as_str().unwrap();
    assert_eq!(bench.conditions(), ["FailureTarget PodFailurePolicy", "Failed PodFailurePolicy"]);
    assert_eq!(
        bench.status()["conditions"][1]["message"],
        format!(
            "Container c for pod n/{name} failed with exit code 3 matching FailJob rule at \
                 index 1"
        )
    );
    assert_eq!(bench.counts(), [0, 0, 2]);
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn some_successes_may_suffice() {
    let mut bench = Bench::new(&json!({"parallelism": 3, "completions": 3,
        "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}}));
    bench.settle();
    let zero = bench.pods().remove(0);
    bench.end(&zero, 0);
    let done = bench.settle();
    assert_eq!(done.iter().filter(|d| *d == "delete").count(), 2);
    assert_eq!(bench.conditions(), ["SuccessCriteriaMet SuccessPolicy", "Complete SuccessPolicy"]);
    assert_eq!(bench.status()["conditions"][1]["message"], "Matched rules at index 0");
    // What was not needed any more has not failed.
    assert_eq!(bench.counts(), [0, 1, 0]);
    assert_eq!(bench.tracked(), 0);
}

#[test]
fn pods_as_they_were_are_not_acted_on() {
    let mut bench = Bench::new(&json!({}));
    bench.settle();
    bench.end_one(0);
    bench.edit(|spec| spec["parallelism"] = 1.into());
    // The job was written after the last that is known of pods.
    assert_eq!(summary(&bench.0.reconcile(&key())), ["read Pod"]);
    bench.0.progress();
    assert_eq!(summary(&bench.0.reconcile(&key())), ["update jobs/n/j status"]);
}

#[test]
fn a_huge_job_is_done_bit_by_bit() {
    let mut bench = Bench::new(&json!({"parallelism": 1200, "completions": 100_000}));
    let mut passes = 0;
    while bench.0.cache.count_in(Kind::Pod, "n") < 1_200 {
        bench.0.progress();
        let plan = bench.0.reconcile(&key());
        assert!(plan.requests.len() <= BURST_MAX + 1);
        plan.requests.into_iter().for_each(|request| bench.0.request(request));
        passes += 1;
        assert!(passes < 10);
    }
    for pod in bench.pods() {
        bench.end(&pod, 0);
    }
    for _ in 0..40 {
        bench.0.progress();
        let plan = bench.0.reconcile(&key());
        let created = plan.requests.iter().filter(|r| matches!(r, Request::Create(_))).count();
        assert!(created <= BURST_MAX);
        let rest = plan.requests.into_iter().filter(|r| !short(r).starts_with("create"));
        rest.for_each(|request| bench.0.request(request));
        let uncounted = &bench.status()["uncountedTerminatedPods"]["succeeded"];
        assert!(uncounted.as_array().map_or(0, Vec::len) <= 500);
    }
    assert_eq!(bench.counts()[1], 1_200);
    assert_eq!(bench.tracked(), 0);
}
