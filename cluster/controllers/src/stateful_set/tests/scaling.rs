use super::*;

const NOTHING: [&str; 0] = [];

/// Carries out all that leads up to the next change of a pod; returns that.
fn next(fixture: &mut Fixture<StatefulSets>) -> Vec<String> {
    for _ in 0..5 {
        let done = step(fixture);
        if !done.is_empty() {
            return done;
        }
    }
    Vec::new()
}

#[test]
fn in_order_each_waits_for_the_one_before() {
    let mut fixture = fixture(ordered(3));
    assert_eq!(next(&mut fixture), ["create web-0"]);
    assert_eq!(next(&mut fixture), NOTHING);
    // Running is not enough.
    change(&mut fixture, &pod_key(0), |v| v["status"] = json!({"phase": "Running"}));
    assert_eq!(next(&mut fixture), NOTHING);
    obey(&mut fixture);
    assert_eq!(next(&mut fixture), ["create web-1"]);
    obey(&mut fixture);
    assert_eq!(next(&mut fixture), ["create web-2"]);
    roll_out(&mut fixture);
    // From the highest down, one at a time.
    edit(&mut fixture, |spec| spec["replicas"] = 1.into());
    assert_eq!(next(&mut fixture), ["delete web-2"]);
    assert_eq!(next(&mut fixture), NOTHING);
    obey(&mut fixture);
    assert_eq!(next(&mut fixture), ["delete web-1"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v1"]);
}

#[test]
fn in_order_each_must_have_been_ready_for_long_enough() {
    let mut set = ordered(2);
    set["spec"]["minReadySeconds"] = 30.into();
    let mut fixture = fixture(set);
    next(&mut fixture);
    obey(&mut fixture);
    fixture.settle(&key());
    assert_eq!(status(&fixture)["readyReplicas"], 1);
    assert_eq!(status(&fixture)["availableReplicas"], 0);
    fixture.advance(Duration::from_secs(20));
    assert_eq!(fixture.reconcile(&key()).revisit, Some(Duration::from_secs(10)));
    fixture.advance(Duration::from_secs(10));
    assert_eq!(next(&mut fixture), ["create web-1"]);
    assert_eq!(status(&fixture)["availableReplicas"], 1);
}

#[test]
fn in_parallel_all_come_and_go_at_once() {
    let mut fixture = fixture(parallel(3));
    assert_eq!(next(&mut fixture), ["create web-0", "create web-1", "create web-2"]);
    edit(&mut fixture, |spec| spec["replicas"] = 1.into());
    obey(&mut fixture);
    assert_eq!(next(&mut fixture), ["delete web-2", "delete web-1"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v1"]);
}

#[test]
fn nobody_makes_more_than_a_burst_at_once() {
    let mut fixture = fixture(parallel(i32::MAX));
    // The revision comes first.
    assert_eq!(step(&mut fixture), NOTHING);
    let plan = fixture.reconcile(&key());
    assert_eq!(creates(&plan).len(), BURST_MAX);
}

#[test]
fn what_has_ended_is_replaced_under_its_name() {
    for phase in ["Failed", "Succeeded"] {
        for set in [ordered(2), parallel(2)] {
            let mut fixture = fixture(set);
            roll_out(&mut fixture);
            end(&mut fixture, 0, phase);
            assert_eq!(next(&mut fixture), ["delete web-0"]);
            // It still holds its name.
            assert_eq!(next(&mut fixture), NOTHING);
            obey(&mut fixture);
            assert_eq!(next(&mut fixture), ["create web-0"]);
            roll_out(&mut fixture);
            assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1"]);
        }
    }
}

#[test]
fn a_pod_that_is_being_deleted_is_waited_for() {
    let mut fixture = fixture(ordered(2));
    roll_out(&mut fixture);
    let deletion = ownership::delete(&pods_in(&fixture)[0]);
    fixture.request(deletion);
    edit(&mut fixture, |spec| spec["replicas"] = 3.into());
    assert_eq!(next(&mut fixture), NOTHING);
    obey(&mut fixture);
    assert_eq!(next(&mut fixture), ["create web-0"]);
    obey(&mut fixture);
    assert_eq!(next(&mut fixture), ["create web-2"]);
}

#[test]
fn in_order_the_ill_keep_others_from_going() {
    let mut fixture = fixture(ordered(3));
    roll_out(&mut fixture);
    let fall_ill = |fixture: &mut Fixture<StatefulSets>, ordinal| {
        change(fixture, &pod_key(ordinal), |v| v["status"]["conditions"] = json!([]));
    };
    // One that is wanted.
    fall_ill(&mut fixture, 0);
    edit(&mut fixture, |spec| spec["replicas"] = 1.into());
    assert_eq!(next(&mut fixture), NOTHING);
    obey(&mut fixture);
    // Only the lowest of those that are not wanted may go as it is.
    fall_ill(&mut fixture, 1);
    fall_ill(&mut fixture, 2);
    assert_eq!(next(&mut fixture), NOTHING);
    let highest = pods_in(&fixture)[2].clone();
    obey_one(&mut fixture, &highest);
    assert_eq!(next(&mut fixture), ["delete web-2"]);
    fixture.remove(&pod_key(2));
    assert_eq!(next(&mut fixture), ["delete web-1"]);
}

#[test]
fn pods_that_have_ended_do_not_keep_each_other() {
    let mut fixture = fixture(ordered(3));
    roll_out(&mut fixture);
    end(&mut fixture, 1, "Failed");
    end(&mut fixture, 2, "Failed");
    edit(&mut fixture, |spec| spec["replicas"] = 1.into());
    assert_eq!(next(&mut fixture), ["delete web-2"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v1"]);
}

#[test]
fn ordinals_start_where_they_shall() {
    let mut set = ordered(2);
    set["spec"]["ordinals"] = json!({"start": 3});
    let mut fixture = fixture(set);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-3 v1", "web-4 v1"]);
    edit(&mut fixture, |spec| spec["ordinals"] = json!({"start": 2}));
    assert_eq!(next(&mut fixture), ["create web-2"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-2 v1", "web-3 v1"]);
}

#[test]
fn events_are_worded_as_people_know_them() {
    let mut fixture = fixture(ordered(1));
    // The revision comes first.
    assert_eq!(step(&mut fixture), NOTHING);
    let plan = fixture.reconcile(&key());
    let told = |plan: &Plan| {
        let announcement = plan.announcements[&0].clone();
        let both = [announcement.done.unwrap(), announcement.refused.unwrap()];
        both.map(|r| format!("{} {} {}", r.warning, r.reason, r.message))
    };
    assert_eq!(
        told(&plan),
        [
            "false SuccessfulCreate create Pod web-0 in StatefulSet web successful",
            "true FailedCreate create Pod web-0 in StatefulSet web failed error: "
        ]
    );
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["replicas"] = 0.into());
    assert_eq!(
        told(&fixture.reconcile(&key())),
        [
            "false SuccessfulDelete delete Pod web-0 in StatefulSet web successful",
            "true FailedDelete delete Pod web-0 in StatefulSet web failed error: "
        ]
    );
}

#[test]
fn a_refusal_is_followed_by_the_status() {
    let mut fixture = fixture(ordered(1));
    // The revision comes first.
    assert_eq!(step(&mut fixture), NOTHING);
    let refused = fixture.reconcile(&key()).requests[0].clone();
    let error: ApiError = api::Status::forbidden(Kind::Pod, "web-0", "no").into();
    let note =
        StatefulSets.note_refusal(&fixture.cache, &key(), &refused, &error, fixture.now()).unwrap();
    fixture.request(note);
    assert_eq!(status(&fixture)["observedGeneration"], 1);
}

#[test]
fn one_that_goes_only_reports() {
    let mut fixture = fixture(ordered(2));
    roll_out(&mut fixture);
    change(&mut fixture, &key(), |v| {
        v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        v["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    });
    fixture.remove(&pod_key(1));
    assert_eq!(fixture.settle(&key()), ["update statefulsets/n/web status"]);
    assert_eq!(status(&fixture)["replicas"], 1);
}
