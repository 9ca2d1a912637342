//! What a job goes through from its creation to its end.

use super::crud::minimal;
use super::*;

#[test]
fn a_job_is_known_by_its_uid() {
    let mut world = World::new();
    let made = world.create(minimal(Kind::Job)).unwrap();
    let uid = made["metadata"]["uid"].clone();
    let wanted = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    assert_eq!(made["spec"]["selector"], wanted);
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["status"], json!({}));
    assert_eq!(made["spec"]["completionMode"], "NonIndexed");
    // It has the labels of its pods, and its selector stays.
    assert_eq!(made["metadata"]["labels"], made["spec"]["template"]["metadata"]["labels"]);
    let error =
        world.update(&with(made.clone(), "/spec/selector/matchLabels", json!({"a": "b"})), None);
    let error = error.unwrap_err();
    assert_eq!(error.code, 422);
    assert!(error.causes.iter().any(|c| c.field == "spec.selector"), "{error}");
    let stopped = world.update(&with(made, "/spec/suspend", json!(true)), None).unwrap();
    assert_eq!(stopped["metadata"]["generation"], 2);
}

#[test]
fn a_job_ends_step_by_step() {
    let mut world = World::new();
    let made = world.create(minimal(Kind::Job)).unwrap();
    let report = |world: &mut World, status: Value| {
        let job = world.get(&key(Kind::Job, "x")).map(|o| codec::to_value(&o)).unwrap();
        let mut job = with(job, "/status", status);
        // The status is reported, the spec is not.
        job["spec"]["parallelism"] = 7.into();
        let written = world.update(&job, Some(Subresource::Status))?;
        assert_eq!(written["spec"], made["spec"]);
        assert_eq!(written["metadata"]["generation"], 1);
        Ok::<Value, Status>(written)
    };
    let time = "2023-11-14T22:13:20Z";
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "CompletionsReached",
            "lastProbeTime": time, "lastTransitionTime": time})
    };
    let mut status = json!({"startTime": time, "active": 1, "ready": 0, "terminating": 0,
        "uncountedTerminatedPods": {}});
    report(&mut world, status.clone()).unwrap();
    status["uncountedTerminatedPods"] = json!({"succeeded": ["p"]});
    status["conditions"] = json!([condition("SuccessCriteriaMet")]);
    status["active"] = Value::Null;
    report(&mut world, status.clone()).unwrap();
    status["conditions"] = json!([condition("SuccessCriteriaMet"), condition("Complete")]);
    status["completionTime"] = time.into();
    let error = report(&mut world, status.clone()).unwrap_err();
    assert_eq!(error.causes.len(), 1, "{error}");
    assert_eq!(error.causes[0].field, "status.uncountedTerminatedPods");
    status["uncountedTerminatedPods"] = json!({});
    status["succeeded"] = 1.into();
    report(&mut world, status.clone()).unwrap();
    status["conditions"] = json!([]);
    status["completionTime"] = Value::Null;
    let error = report(&mut world, status).unwrap_err();
    assert!(error.message.contains("cannot disable the terminal Complete=True condition"));
}

#[test]
fn a_job_leaves_its_pods_behind_unless_told_otherwise() {
    let mut world = World::new();
    world.create(minimal(Kind::Job)).unwrap();
    let going = world.delete(&key(Kind::Job, "x"), DeleteOptions::default()).unwrap();
    assert_eq!(going["metadata"]["finalizers"], json!(["orphan"]));
}
