use super::*;

/// Revisions as `number image`, the oldest first.
fn revisions(fixture: &Fixture<DaemonSets>) -> Vec<String> {
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
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a"]);
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.requests.len(), 1);
    let Request::Create(object) = &plan.requests[0] else { panic!("a creation") };
    let value = codec::to_value(object);
    let name = value["metadata"]["name"].as_str().unwrap();
    let hash = name.strip_prefix("agent-").unwrap();
    assert_eq!(value["metadata"]["labels"], json!({"app": "agent", HASH: hash}));
    assert_eq!(value["metadata"]["annotations"], json!({GENERATION: "1"}));
    assert_eq!(value["metadata"]["ownerReferences"][0]["name"], "agent");
    assert_eq!(value["revision"], 1);
    // As Go spells it.
    assert_eq!(
        value["data"].to_string(),
        concat!(
            r#"{"spec":{"template":{"$patch":"replace","#,
            r#""metadata":{"creationTimestamp":null,"labels":{"app":"agent"}},"#,
            r#""spec":{"containers":[{"image":"v1","name":"c","resources":{}}]}}}}"#
        )
    );
    // The same template always has the same name.
    let again = self::fixture(daemon("v1", one_by_one()), &[]).reconcile(&key());
    assert_eq!(creates(&again), [format!("controllerrevisions/n/{name}")]);
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["1 v1"]);
}

#[test]
fn revisions_are_numbered_and_what_comes_back_is_the_newest() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a", "b"]);
    roll_out(&mut fixture);
    set_image(&mut fixture, "v2");
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["1 v1", "2 v2"]);
    // What does not change the template makes no revision.
    edit(&mut fixture, |spec| spec["minReadySeconds"] = 0.into());
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["1 v1", "2 v2"]);
    set_image(&mut fixture, "v1");
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["2 v2", "3 v1"]);
    assert_eq!(show(&fixture), ["a v1", "b v1"]);
}

#[test]
fn old_revisions_are_forgotten_unless_pods_have_them() {
    let mut set = daemon("v1", json!({"type": "OnDelete"}));
    set["spec"]["revisionHistoryLimit"] = 1.into();
    let mut fixture = fixture(set, &["a"]);
    roll_out(&mut fixture);
    for image in ["v2", "v3", "v4"] {
        set_image(&mut fixture, image);
        roll_out(&mut fixture);
    }
    // The pod is still of the first.
    assert_eq!(show(&fixture), ["a v1"]);
    assert_eq!(revisions(&fixture), ["1 v1", "4 v4"]);
    let pod = pods_in(&fixture)[0].metadata.name.clone().unwrap();
    fixture.remove(&Key::new(Kind::Pod, "n", &pod));
    roll_out(&mut fixture);
    assert_eq!(show(&fixture), ["a v4"]);
    edit(&mut fixture, |spec| spec["revisionHistoryLimit"] = 0.into());
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["4 v4"]);
}

#[test]
fn another_template_of_the_same_name_is_a_collision() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a"]);
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
    assert_eq!(show(&fixture), ["a v1"]);
}

#[test]
fn revisions_are_adopted_labelled_and_merged() {
    let mut fixture = fixture(daemon("v1", one_by_one()), &["a", "b"]);
    roll_out(&mut fixture);
    let original = codec::to_value(fixture.store.kind(Kind::ControllerRevision).next().unwrap());
    let old_name = original["metadata"]["name"].as_str().unwrap().to_owned();
    // A twin without owner and hash that is newer.
    let mut twin = original;
    twin["metadata"] = json!({"name": "twin", "namespace": "n", "labels": {"app": "agent"}});
    twin["revision"] = 7.into();
    assert_eq!(fixture.put(twin), [key()]);
    let before = show(&fixture);
    let done = fixture.settle(&key());
    assert_eq!(
        done[..2],
        ["update controllerrevisions/n/twin", "update controllerrevisions/n/twin"]
    );
    assert!(done[2].starts_with("update pods/n/") && done[3].starts_with("update pods/n/"));
    assert_eq!(done[4..], [format!("delete controllerrevisions/n/{old_name}")]);
    assert_eq!(show(&fixture), before);
    assert_eq!(meta::label(&pods_in(&fixture)[0].metadata, HASH), Some("twin"));
    roll_out(&mut fixture);
    assert_eq!(revisions(&fixture), ["7 v1"]);
}
