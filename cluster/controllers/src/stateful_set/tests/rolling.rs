use super::*;

/// The changes of pods that a rollout makes, in order.
fn changes(fixture: &mut Fixture<StatefulSets>) -> Vec<String> {
    let mut done = Vec::new();
    for _ in 0..60 {
        done.extend(step(fixture));
        obey(fixture);
    }
    done
}

#[test]
fn from_the_highest_down_one_at_a_time() {
    for set in [ordered(3), parallel(3), web(3, "OrderedReady", json!({"type": "RollingUpdate"}))] {
        let mut fixture = fixture(set);
        roll_out(&mut fixture);
        let before = status(&fixture)["currentRevision"].clone();
        set_image(&mut fixture, "v2");
        assert_eq!(
            changes(&mut fixture),
            [
                "delete web-2",
                "create web-2",
                "delete web-1",
                "create web-1",
                "delete web-0",
                "create web-0"
            ]
        );
        assert_eq!(show(&fixture), ["web-0 v2", "web-1 v2", "web-2 v2"]);
        let status = status(&fixture);
        assert_ne!(status["currentRevision"], before);
        let revision = status["updateRevision"].clone();
        assert_eq!(
            status,
            json!({"replicas": 3, "readyReplicas": 3, "availableReplicas": 3,
                "currentReplicas": 3, "updatedReplicas": 3, "currentRevision": revision,
                "updateRevision": revision, "observedGeneration": 2, "collisionCount": 0})
        );
    }
}

#[test]
fn a_rollout_waits_for_what_it_replaced() {
    let mut fixture = fixture(ordered(2));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1 going"]);
    fixture.remove(&pod_key(1));
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["web-0 v1", "web-1 v2 new"]);
    let status = status(&fixture);
    assert_eq!((&status["currentReplicas"], &status["updatedReplicas"]), (&json!(1), &json!(1)));
    assert_ne!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn pods_below_the_partition_stay_as_they_were() {
    let mut fixture = fixture(web(3, "OrderedReady", rolling(2)));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    let expected = ["web-0 v1", "web-1 v1", "web-2 v2"];
    assert_eq!(show(&fixture), expected);
    let told = status(&fixture);
    assert_eq!((&told["currentReplicas"], &told["updatedReplicas"]), (&json!(2), &json!(1)));
    // Also when they must be made good.
    for ordinal in 0..3 {
        fixture.remove(&pod_key(ordinal));
        roll_out(&mut fixture);
        assert_eq!(show(&fixture), expected);
    }
    edit(&mut fixture, |spec| spec["updateStrategy"] = rolling(0));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v2", "web-1 v2", "web-2 v2"]);
    assert_eq!(status(&fixture)["currentRevision"], status(&fixture)["updateRevision"]);
}

#[test]
fn the_partition_counts_from_the_first_ordinal() {
    let mut set = web(3, "Parallel", rolling(1));
    set["spec"]["ordinals"] = json!({"start": 5});
    let mut fixture = fixture(set);
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-5 v1", "web-6 v2", "web-7 v2"]);
}

#[test]
fn without_parameters_what_was_not_reached_comes_back_as_it_was() {
    let mut fixture = fixture(web(3, "OrderedReady", json!({"type": "RollingUpdate"})));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    fixture.settle(&key());
    fixture.remove(&pod_key(2));
    fixture.remove(&pod_key(0));
    fixture.settle(&key());
    assert_eq!(show(&fixture), ["web-0 v1 new", "web-1 v1"]);
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v2", "web-1 v2", "web-2 v2"]);
}

#[test]
fn on_delete_nobody_but_the_user_deletes() {
    let mut fixture = fixture(web(2, "OrderedReady", json!({"type": "OnDelete"})));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1"]);
    fixture.remove(&pod_key(0));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v2", "web-1 v1"]);
    assert_eq!(status(&fixture)["updatedReplicas"], 1);
    assert_eq!(status(&fixture)["currentReplicas"], 1);
}

#[test]
fn an_old_pod_that_has_ended_is_deleted_once() {
    let mut fixture = fixture(parallel(2));
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    step(&mut fixture);
    end(&mut fixture, 1, "Failed");
    assert_eq!(step(&mut fixture), ["delete web-1"]);
}

#[test]
fn scaling_comes_before_a_rollout() {
    let mut fixture = fixture(ordered(2));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| {
        spec["replicas"] = 3.into();
        spec["template"]["spec"]["containers"][0]["image"] = "v2".into();
    });
    assert_eq!(
        changes(&mut fixture),
        ["create web-2", "delete web-1", "create web-1", "delete web-0", "create web-0"]
    );
}
