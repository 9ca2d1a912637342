//! Cron jobs.

use super::crud::minimal;
use super::*;

/// Creates the cron job with one change and compares what the server says of it.
#[expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]
fn check(pointer: &str, value: Value, expected: &str) {
    let cron_job = with(minimal(Kind::CronJob), pointer, value.clone());
    let error = World::new().create(cron_job).unwrap_err();
    let expected = format!("CronJob.batch \"x\" is invalid: {expected}");
    assert_eq!(error.message, expected, "{pointer} {value}");
}

#[test]
fn defaults() {
    let mut world = World::new();
    let mut made = world.create(minimal(Kind::CronJob)).unwrap();
    let template = made["spec"].as_object_mut().unwrap().remove("jobTemplate").unwrap();
    assert_eq!(
        made["spec"],
        json!({"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1})
    );
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({})));
    // Pods have their defaults, jobs get them when they are made.
    let job = template["spec"].as_object().unwrap();
    assert_eq!(job.keys().collect::<Vec<_>>(), ["template"]);
    assert_eq!(job["template"]["spec"]["terminationGracePeriodSeconds"], 30);
}

#[test]
fn generations_and_status() {
    let mut world = World::new();
    world.create(with(minimal(Kind::CronJob), "/status/active", json!([{"name": "j"}]))).unwrap();
    let key = key(Kind::CronJob, "x");
    let time = "2023-11-14T22:10:00Z";
    let body = json!({"spec": {"suspend": true},
        "status": {"active": [{"name": "j"}], "lastScheduleTime": time}});
    let reported = world.patch_at(&key, Some(Subresource::Status), body).unwrap();
    assert_eq!(
        (&reported["spec"]["suspend"], &reported["metadata"]["generation"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(reported["status"]["active"], json!([{"name": "j"}]));
    let patched = world.patch(&key, json!({"spec": {"suspend": true}, "status": null})).unwrap();
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(patched["status"]["lastScheduleTime"], time);
    // Its jobs go with it, unless told otherwise.
    world.delete(&key, DeleteOptions::default()).unwrap();
    assert!(world.get(&key).is_none());
}

#[test]
fn schedules_that_are_refused() {
    let check = |schedule: &str, expected: &str| {
        check("/spec/schedule", json!(schedule), &format!("spec.schedule: {expected}"));
    };
    check("", "Required value");
    check("* * *", "Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]");
    check("61 * * * *", "Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61");
    check("@now", "Invalid value: \"@now\": unrecognized descriptor: @now");
    for prefix in ["TZ", "CRON_TZ"] {
        let schedule = format!("{prefix}=UTC * * * * *");
        check(
            &schedule,
            &format!(
                "Invalid value: {schedule:?}: cannot use TZ or CRON_TZ in schedule, use timeZone \
                 field instead"
            ),
        );
    }
    for schedule in ["@hourly", "@every 90s", "0 0 30 2 *", "5,35 */2 1-7 jan-MAR mon"] {
        World::new()
            .create(with(minimal(Kind::CronJob), "/spec/schedule", json!(schedule)))
            .unwrap();
    }
}

#[test]
fn time_zones_that_are_refused() {
    let check = |zone: &str, expected: &str| {
        let expected = format!("spec.timeZone: Invalid value: {zone:?}: {expected}");
        check("/spec/timeZone", json!(zone), &expected);
    };
    check("", "timeZone must be nil or non-empty string");
    for zone in ["Mars/Olympus", "europe/berlin", "../Berlin", "a//b", "-a", "Etc/Überall"] {
        check(zone, &format!("unknown time zone {zone}"));
    }
    check(
        "Local",
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
    );
    // Only a change of the zone is looked at.
    let mut world = World::new();
    world.create(with(minimal(Kind::CronJob), "/spec/timeZone", json!("Asia/Tokyo"))).unwrap();
    let key = key(Kind::CronJob, "x");
    world.patch(&key, json!({"spec": {"timeZone": "Europe/Berlin"}})).unwrap();
    let error = world.patch(&key, json!({"spec": {"timeZone": "Berlin"}})).unwrap_err();
    assert!(error.message.ends_with("unknown time zone Berlin"), "{error}");
}

#[test]
fn what_else_is_refused() {
    check(
        "/spec/concurrencyPolicy",
        json!("Queue"),
        "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \
         \"Forbid\", \"Replace\"",
    );
    let limits =
        ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    for field in limits {
        check(
            &format!("/spec/{field}"),
            json!(-1),
            &format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0"),
        );
    }
    check(
        "/spec/jobTemplate/spec/manualSelector",
        json!(true),
        "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \
         \"nil\", \"false\"",
    );
    check(
        "/spec/jobTemplate/spec/selector",
        json!({"matchLabels": {"a": "b"}}),
        "spec.jobTemplate.spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]\
         string{\"a\":\"b\"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: `selector` \
         will be auto-generated",
    );
    check(
        "/spec/jobTemplate/spec/template/spec/restartPolicy",
        json!("Always"),
        "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \
         \"OnFailure\", \"Never\"",
    );
    let long = "a".repeat(53);
    let named = with(minimal(Kind::CronJob), "/metadata/name", json!(long));
    let error = World::new().create(named).unwrap_err();
    assert_eq!(
        error.message,
        format!(
            "CronJob.batch \"{long}\" is invalid: metadata.name: Invalid value: \"{long}\": must \
             be no more than 52 characters"
        )
    );
}
