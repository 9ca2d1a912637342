use super::*;

/// Revisions as `number image`, the oldest first.
fn revisions(fixture: &Fixture<StatefulSets>) -> Vec<String> {
    let mut all: Vec<ControllerRevision> = fixture
        .store
        .kind(Kind::ControllerRevision)
        .filter_map(|o| o.get::<ControllerRevision>().cloned())
        .collect();
    all.sort_by_key(|r| r.revision);
    all.iter()
        .map(|r| {
            let data = &r.data.as_ref().unwrap().0;
            let image = &data["spec"]["template"]["spec"]["containers"][0]["image"];
            format!("{} {}", r.revision, image.as_str().unwrap())
        })
        .collect()
}

#[test]
fn a_revision_is_the_patch_that_brings_the_template_back() {
    let mut set = ordered(1);
    set["metadata"]["annotations"] = json!({"a": "b"});
    let fixture = fixture(set);
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.requests.len(), 1);
    let Request::Create(object) = &plan.requests[0] else { panic!("a creation") };
    let value = codec::to_value(object);
    let name = value["metadata"]["name"].as_str().unwrap();
    let hash = name.strip_prefix("web-").unwrap();
    assert_eq!(
        value["metadata"]["labels"],
        json!({"app": "web", "controller.kubernetes.io/hash": hash})
    );
    assert_eq!(value["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(value["metadata"]["ownerReferences"][0]["name"], "web");
    assert_eq!(value["revision"], 1);
    // As Go spells it.
    assert_eq!(
        value["data"].to_string(),
        concat!(
            r#"{"spec":{"template":{"$patch":"replace","#,
            r#""metadata":{"creationTimestamp":null,"labels":{"app":"web"}},"#,
            r#""spec":{"containers":[{"image":"v1","name":"c","resources":{}}]}}}}"#
        )
    );
}

#[test]
fn a_rollback_finds_its_revision_again() {
    let mut fixture = fixture(ordered(2));
    roll_out(&mut fixture);
    let first = status(&fixture)["currentRevision"].clone();
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["1 v1", "2 v2"]);
    // What does not change the template makes no revision.
    edit(&mut fixture, |spec| spec["replicas"] = 3.into());
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["1 v1", "2 v2"]);
    set_image(&mut fixture, "v1");
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["2 v2", "3 v1"]);
    assert_eq!(status(&fixture)["currentRevision"], first);
    assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1", "web-2 v1"]);
}

#[test]
fn a_rollout_that_is_taken_back_leaves_what_it_did_not_reach() {
    let mut fixture = fixture(ordered(3));
    roll_out(&mut fixture);
    let uids = |fixture: &Fixture<StatefulSets>| -> Vec<String> {
        pods_in(fixture).iter().map(|p| p.metadata.uid.clone().unwrap()).collect()
    };
    let before = uids(&fixture);
    set_image(&mut fixture, "v2");
    for _ in 0..2 {
        fixture.settle(&key());
        let highest = pods_in(&fixture)[2].clone();
        obey_one(&mut fixture, &highest);
    }
    assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1", "web-2 v2"]);
    set_image(&mut fixture, "v1");
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["web-0 v1", "web-1 v1", "web-2 v1"]);
    assert_eq!(uids(&fixture)[..2], before[..2]);
}

#[test]
fn old_revisions_are_forgotten_unless_something_has_them() {
    let mut set = web(1, "OrderedReady", json!({"type": "OnDelete"}));
    set["spec"]["revisionHistoryLimit"] = 1.into();
    let mut fixture = fixture(set);
    roll_out(&mut fixture);
    for image in ["v2", "v3", "v4"] {
        set_image(&mut fixture, image);
        roll_out(&mut fixture);
    }
    // The pod is still of the first, and so is what the status calls current.
    assert_eq!(show(&fixture), ["web-0 v1"]);
    assert_eq!(revisions(&fixture), ["1 v1", "3 v3", "4 v4"]);
    edit(&mut fixture, |spec| spec["updateStrategy"] = rolling(0));
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["3 v3", "4 v4"]);
    edit(&mut fixture, |spec| spec["revisionHistoryLimit"] = 0.into());
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["4 v4"]);
}

#[test]
fn another_template_of_the_same_name_is_a_collision() {
    let mut fixture = fixture(ordered(1));
    let Request::Create(object) = fixture.reconcile(&key()).requests[0].clone() else {
        panic!("a creation")
    };
    let mut other = codec::to_value(&object);
    other["metadata"]["ownerReferences"][0]["uid"] = "another".into();
    other["data"] = json!({"spec": {}});
    fixture.put(other);
    roll_out(&mut fixture);
    assert_eq!(status(&fixture)["collisionCount"], 1);
    assert_eq!(fixture.store.kind(Kind::ControllerRevision).count(), 2);
    assert_eq!(show(&fixture), ["web-0 v1"]);
}

#[test]
fn orphaned_revisions_are_adopted() {
    let mut fixture = fixture(ordered(1));
    roll_out(&mut fixture);
    let revision = fixture.store.kind(Kind::ControllerRevision).next().unwrap().key();
    change(&mut fixture, &revision, |v| v["metadata"]["ownerReferences"] = json!([]));
    let done = fixture.settle(&key());
    assert_eq!(done, [format!("update controllerrevisions/n/{}", revision.name)]);
}

#[test]
fn no_pod_is_made_of_a_revision_that_cannot_be_read() {
    let mut fixture = fixture(web(2, "Parallel", rolling(2)));
    roll_out(&mut fixture);
    let revision = fixture.store.kind(Kind::ControllerRevision).next().unwrap().key();
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    change(&mut fixture, &revision, |v| v["data"] = json!({"spec": {"template": 7}}));
    fixture.remove(&pod_key(0));
    let done = fixture.settle(&key());
    assert_eq!(done, ["update statefulsets/n/web status"]);
    assert_eq!(show(&fixture), ["web-1 v1"]);
}
