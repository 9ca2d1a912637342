//! Jobs and cron jobs.

use super::*;

fn job_template(spec: Value) -> Value {
    let mut pod = template("job");
    pod["spec"]["restartPolicy"] = "Never".into();
    let mut job = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "suspend": false,
        "completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed",
        "template": pod});
    for (field, value) in spec.as_object().unwrap() {
        job[field] = value.clone();
    }
    job
}

fn job(world: &mut World, spec: Value) -> Key {
    let mut spec = job_template(spec);
    spec["selector"] = selector("job");
    world.create(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta("job"),
        "spec": spec}))
}

fn cron_job(world: &mut World, spec: Value) -> Key {
    let mut template = job_template(json!({}));
    // The API gives each job a selector of its own.
    template["selector"] = selector("job");
    let mut object = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta("cron"),
        "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": template}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    world.create(object)
}

#[test]
fn jobs_that_fail_come_to_an_end_or_try_ever_more_rarely() {
    let check = |spec: Value, fate: Fate, per_hour: usize, condition: &str, failed: Option<i64>| {
        let mut world = World::new(1, 2, 0);
        world.fate = fate;
        let key = job(&mut world, spec.clone());
        world.calm(per_hour);
        let kind = if condition.contains("Completions") { "Complete" } else { "Failed" };
        assert_eq!(world.condition(&key, kind), condition, "{spec}");
        if let Some(failed) = failed {
            assert_eq!(world.value(&key)["status"]["failed"].as_i64().unwrap_or(0), failed);
        }
    };
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 5,
            "backoffLimit": i32::MAX});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    check(json!({"backoffLimit": 0}), Fate::Fails, 0, "True BackoffLimitExceeded", Some(1));
    // Every ten minutes another pod, with half a dozen writes about each.
    check(json!({"backoffLimit": i32::MAX}), Fate::Fails, 6 * 10, "", None);
    check(json!({"completions": 0}), Fate::Fails, 0, "True CompletionsReached", Some(0));
    check(json!({"parallelism": 0}), Fate::Fails, 0, "", Some(0));
    check(json!({"activeDeadlineSeconds": 0}), Fate::Runs, 0, "True DeadlineExceeded", None);
    check(json!({"activeDeadlineSeconds": i64::MAX}), Fate::Runs, 0, "", Some(0));
    check(
        indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0})),
        Fate::Fails,
        0,
        "True MaxFailedIndexesExceeded",
        Some(5),
    );
    check(
        indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 5})),
        Fate::Fails,
        0,
        "True FailedIndexes",
        Some(5),
    );
    check(
        indexed(json!({"backoffLimitPerIndex": i32::MAX, "maxFailedIndexes": 0})),
        Fate::Fails,
        5 * 6 * 10,
        "",
        None,
    );
}

#[test]
fn a_huge_job_that_nobody_lets_in() {
    for mode in ["Indexed", "NonIndexed"] {
        let mut world = World::new(2, 2, 0);
        world.api = Api::RefusesPods;
        job(
            &mut world,
            json!({"completionMode": mode, "completions": i32::MAX, "parallelism": i32::MAX}),
        );
        world.calm(60);
        world.told("FailedCreate Error creating: ");
    }
}

#[test]
fn pods_that_somebody_deletes_again_and_again_do_not_hurry_a_job() {
    let mut world = World::new(3, 2, 0);
    world.fate = Fate::Fails;
    job(&mut world, json!({"backoffLimit": i32::MAX}));
    let creations =
        |world: &World| world.log.iter().filter(|line| line.contains("create pods/")).count();
    for _ in 0..360 {
        world.run_secs(10);
        let ended: Vec<Key> = world
            .store
            .kind(Kind::Pod)
            .filter(|o| o.get::<Pod>().is_some_and(pods::is_terminal))
            .map(Object::key)
            .collect();
        for key in ended {
            let _ = world.carry_out(Request::Delete {
                key,
                uid: None,
                revision: None,
                grace_seconds: Some(0),
                propagation: None,
            });
        }
    }
    // 10, 20, 40, 80, 160, 320 seconds, and ten minutes each.
    let made = creations(&world);
    assert!((7..=12).contains(&made), "{made} pods in an hour: {:#?}", world.log);
}

#[test]
fn schedules_that_never_come_or_cannot_be_followed() {
    let check = |spec: Value, told: &str| {
        let mut world = World::new(4, 2, 0);
        cron_job(&mut world, spec);
        world.calm(0);
        world.told(told);
        assert_eq!(world.count(Kind::Job, "default"), 0);
        // Once, and again only when something changes.
        let count = world.events.iter().filter(|event| event.contains(told)).count();
        assert!(count <= 2, "{:#?}", world.events);
    };
    check(json!({"schedule": "0 0 31 2 *"}), "InvalidSchedule invalid schedule: 0 0 31 2 *");
    check(json!({"schedule": "0 0 30 2,2 *"}), "InvalidSchedule");
    check(json!({"schedule": ""}), "UnparseableSchedule unparseable schedule: \"\"");
    check(json!({"schedule": "60 * * * *"}), "UnparseableSchedule");
    check(json!({"timeZone": "Mars/Olympus"}), "UnknownTimeZone invalid timeZone");
    check(json!({"timeZone": "../etc/passwd"}), "UnknownTimeZone invalid timeZone");
}

#[test]
fn a_schedule_of_seconds_starts_one_job_a_minute() {
    let mut world = World::new(4, 2, 0);
    world.fate = Fate::Succeeds;
    cron_job(&mut world, json!({"schedule": "@every 1s"}));
    world.calm(60 * 30);
    let created = world.log.iter().filter(|line| line.contains("create jobs/")).count();
    assert!((149..=151).contains(&created), "{created}");
}

#[test]
fn a_deadline_of_no_time_is_never_met() {
    let mut world = World::new(5, 2, 0);
    cron_job(&mut world, json!({"schedule": "* * * * *", "startingDeadlineSeconds": 0}));
    world.calm(0);
    assert_eq!(world.count(Kind::Job, "default"), 0);
    world.told("MissSchedule Missed scheduled time to start a job: ");
}

#[test]
fn years_of_missed_times_make_one_job() {
    let mut world = World::new(6, 2, 0);
    world.fate = Fate::Succeeds;
    let key = cron_job(&mut world, json!({"schedule": "* * * * *", "suspend": true}));
    world.settle();
    world.edit(&key, |v| {
        v["metadata"]["creationTimestamp"] = "1990-01-01T00:00:00Z".into();
        v["status"]["lastScheduleTime"] = "1990-01-01T00:00:00Z".into();
        v["spec"]["suspend"] = false.into();
    });
    world.run_secs(20);
    world.told("TooManyMissedTimes too many missed start times");
    let created = |world: &World| world.log.iter().filter(|l| l.contains("create jobs/")).count();
    assert!((1..=2).contains(&created(&world)), "{:#?}", world.log);
    // It follows its schedule from then on, and keeps its history short.
    world.run_secs(3600);
    assert!((60..=63).contains(&created(&world)), "{}", created(&world));
    assert!(world.count(Kind::Job, "default") <= 3 + 2, "{:#?}", world.log);
}

#[test]
fn jobs_that_never_end_do_not_pile_up_where_that_is_forbidden() {
    for policy in ["Forbid", "Replace"] {
        let mut world = World::new(7, 0, 0);
        cron_job(&mut world, json!({"schedule": "* * * * *", "concurrencyPolicy": policy}));
        // Replacing takes a dozen requests a minute.
        world.calm(if policy == "Forbid" { 0 } else { 60 * 30 });
        assert!(world.count(Kind::Job, "default") <= 2, "{:#?}", world.log);
        if policy == "Forbid" {
            world.told("JobAlreadyActive Not starting job because prior execution is running");
        }
    }
}

#[test]
fn histories_of_none_and_times_to_live_of_none() {
    let mut world = World::new(8, 2, 0);
    world.fate = Fate::Succeeds;
    cron_job(&mut world, json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0}));
    let key = job(&mut world, json!({"ttlSecondsAfterFinished": 0}));
    // A job every five minutes.
    world.calm(12 * 30);
    assert!(world.store.get(&key).is_none());
    assert!(world.count(Kind::Job, "default") <= 1, "{:#?}", world.log);
    assert!(world.store.kind(Kind::Pod).count() <= 1);
}
