#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

use api::{ApiError, Status, codec};
use machine::Reconciler;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, creates, summary};

fn deployment(replicas: Value, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1,
            "annotations": {"team": "a", "kubectl.kubernetes.io/last-applied-configuration": "x"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn key() -> Key {
    Key::new(Kind::Deployment, "n", "web")
}

fn fixture(value: Value) -> Fixture<Deployments> {
    let mut fixture = Fixture::new(Deployments);
    fixture.put(value);
    fixture
}

/// Changes the deployment's spec as a user does.
fn edit(fixture: &mut Fixture<Deployments>, change: impl FnOnce(&mut Value)) {
    let mut value = codec::to_value(&fixture.store.objects[&key()]);
    change(&mut value["spec"]);
    let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
    value["metadata"]["generation"] = (generation + 1).into();
    fixture.put(value);
}

/// Plays the replica set controller: all pods of every set exist and are available.
fn obey(fixture: &mut Fixture<Deployments>) {
    let sets: Vec<Value> = fixture.store.kind(Kind::ReplicaSet).map(codec::to_value).collect();
    for mut set in sets {
        let replicas = set["spec"]["replicas"].clone();
        set["status"] = json!({"replicas": replicas, "readyReplicas": replicas,
            "availableReplicas": replicas, "observedGeneration": set["metadata"]["generation"]});
        fixture.put(set);
    }
}

/// Sets as `image replicas revision`, the oldest first.
fn sets(fixture: &Fixture<Deployments>) -> Vec<String> {
    let mut sets: Vec<Value> = fixture.store.kind(Kind::ReplicaSet).map(codec::to_value).collect();
    let number = |v: &Value| v["metadata"]["uid"].as_str().unwrap()[4..].parse::<u32>().unwrap();
    sets.sort_by_key(number);
    let show = |s: &Value| {
        let revision = s["metadata"]["annotations"][REVISION].as_str().unwrap().to_owned();
        let image = s["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
        format!("{image} {} {revision}", s["spec"]["replicas"])
    };
    sets.iter().map(show).collect()
}

fn condition(fixture: &Fixture<Deployments>, kind: &str) -> String {
    let value = codec::to_value(&fixture.store.objects[&key()]);
    let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("status"), text("reason"))
}

fn roll_out(fixture: &mut Fixture<Deployments>) {
    for _ in 0..20 {
        fixture.settle(&key());
        obey(fixture);
    }
    fixture.settle(&key());
}

#[test]
fn the_first_set() {
    let mut fixture = fixture(deployment(json!(3), "v1"));
    let plan = fixture.reconcile(&key());
    assert_eq!(plan.requests.len(), 2);
    let Request::Create(created) = &plan.requests[0] else { panic!("a creation comes first") };
    let set = codec::to_value(created);
    let name = set["metadata"]["name"].as_str().unwrap().to_owned();
    let hash = name.strip_prefix("web-").unwrap().to_owned();
    for labels in [
        &set["metadata"]["labels"],
        &set["spec"]["selector"]["matchLabels"],
        &set["spec"]["template"]["metadata"]["labels"],
    ] {
        assert_eq!(*labels, json!({"app": "web", "pod-template-hash": hash}));
    }
    assert_eq!(
        set["metadata"]["annotations"],
        json!({"team": "a", "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4"})
    );
    let told = plan.announcements[&0].done.as_ref().unwrap();
    assert_eq!(told.message, format!("Scaled up replica set {name} from 0 to 3"));
    fixture.settle(&key());
    assert_eq!(condition(&fixture, "Progressing"), "True NewReplicaSetCreated");
    assert_eq!(condition(&fixture, "Available"), "False MinimumReplicasUnavailable");
    roll_out(&mut fixture);
    assert_eq!(condition(&fixture, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(condition(&fixture, "Available"), "True MinimumReplicasAvailable");
    assert_eq!(sets(&fixture), ["v1 3 1"]);
    let value = codec::to_value(&fixture.store.objects[&key()]);
    assert_eq!(value["metadata"]["annotations"][REVISION], "1");
    assert_eq!(value["status"]["observedGeneration"], 1);
    assert_eq!(value["status"]["updatedReplicas"], 3);
    // The same template always has the same name.
    let again = self::fixture(deployment(json!(3), "v1")).reconcile(&key());
    assert_eq!(creates(&again), [format!("replicasets/n/{name}")]);
}

#[test]
fn rolling_step_by_step() {
    let mut fixture = fixture(deployment(json!(3), "v1"));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    let mut steps = Vec::new();
    for _ in 0..8 {
        fixture.settle(&key());
        steps.push(sets(&fixture).join(", "));
        obey(&mut fixture);
    }
    steps.dedup();
    assert_eq!(
        steps,
        // One above, one unavailable: the new set starts with one, the old one loses one at once.
        ["v1 2 1, v2 1 2", "v1 1 1, v2 2 2", "v1 0 1, v2 3 2"]
    );
    // Back to the first template: its set is reused and becomes the newest revision.
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v1".into());
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 3 3", "v2 0 2"]);
    let first = fixture.store.kind(Kind::ReplicaSet).find(|s| s.uid().ends_with("-2"));
    let history = meta::annotation(
        first.or_else(|| fixture.store.kind(Kind::ReplicaSet).next()).unwrap().meta(),
        "deployment.kubernetes.io/revision-history",
    );
    assert!(history.is_none() || history == Some("1"));
}

#[test]
fn only_so_much_history_is_kept() {
    let mut fixture = fixture(deployment(json!(1), "v1"));
    roll_out(&mut fixture);
    for image in ["v2", "v3", "v4", "v5"] {
        edit(&mut fixture, |spec| {
            spec["template"]["spec"]["containers"][0]["image"] = image.into()
        });
        roll_out(&mut fixture);
    }
    assert_eq!(sets(&fixture), ["v3 0 3", "v4 0 4", "v5 1 5"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut fixture = fixture(deployment(json!(3), "v1"));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| {
        spec["paused"] = true.into();
        spec["template"]["spec"]["containers"][0]["image"] = "v2".into();
    });
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 3 1"]);
    assert_eq!(condition(&fixture, "Progressing"), "Unknown DeploymentPaused");
    edit(&mut fixture, |spec| spec["replicas"] = 5.into());
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 5 1"]);
    edit(&mut fixture, |spec| spec["paused"] = false.into());
    fixture.settle(&key());
    assert!(condition(&fixture, "Progressing").starts_with("True "));
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 5 2"]);
}

#[test]
fn scaling_spreads_in_proportion() {
    // A rollout that hangs: the new pods never become available.
    let mut fixture = fixture(deployment(json!(10), "v1"));
    edit(&mut fixture, |spec| {
        spec["strategy"]["rollingUpdate"] = json!({"maxSurge": 3, "maxUnavailable": 2});
    });
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    for _ in 0..4 {
        fixture.settle(&key());
        // Only the old set obeys fully.
        let sets: Vec<Value> = fixture.store.kind(Kind::ReplicaSet).map(codec::to_value).collect();
        for mut set in sets {
            let replicas = set["spec"]["replicas"].clone();
            let old = set["spec"]["template"]["spec"]["containers"][0]["image"] == "v1";
            let available = if old { replicas.clone() } else { Value::Null };
            set["status"] = json!({"replicas": replicas, "availableReplicas": available,
                "observedGeneration": set["metadata"]["generation"]});
            fixture.put(set);
        }
    }
    assert_eq!(sets(&fixture), ["v1 8 1", "v2 5 2"]);
    edit(&mut fixture, |spec| spec["replicas"] = 15.into());
    fixture.settle(&key());
    // 18 in all, as the documentation of Kubernetes has it.
    assert_eq!(sets(&fixture), ["v1 11 1", "v2 7 2"]);
}

/// Changes the status of the set with that image.
fn report(fixture: &mut Fixture<Deployments>, image: &str, status: Value) {
    let of_image = |v: &Value| v["spec"]["template"]["spec"]["containers"][0]["image"] == *image;
    let sets: Vec<Value> = fixture.store.kind(Kind::ReplicaSet).map(codec::to_value).collect();
    let mut set = sets.into_iter().find(of_image).unwrap();
    for (field, value) in status.as_object().unwrap() {
        set["status"][field] = value.clone();
    }
    fixture.put(set);
}

#[test]
fn scaling_up_waits_for_pods_that_are_to_go() {
    let mut fixture = fixture(deployment(json!(9), "v1"));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    fixture.settle(&key());
    obey(&mut fixture);
    fixture.settle(&key());
    obey(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 7 1", "v2 2 2"]);
    // The old set reports a pod more than it is to have: the number of pods counts, not what is
    // asked for.
    report(&mut fixture, "v1", json!({"replicas": 8}));
    edit(&mut fixture, |spec| spec["replicas"] = 14.into());
    fixture.settle(&key());
    assert_eq!(sets(&fixture), ["v1 7 1", "v2 2 2"]);
    // It has not seen yet what is asked for: it may have any number.
    report(&mut fixture, "v1", json!({"replicas": 7, "observedGeneration": 0}));
    fixture.settle(&key());
    assert_eq!(sets(&fixture), ["v1 7 1", "v2 2 2"]);
    // Then each set gets its share: 12 and 3, of which the rollout takes one that is not there yet.
    obey(&mut fixture);
    fixture.settle(&key());
    assert_eq!(sets(&fixture), ["v1 11 1", "v2 3 2"]);
    // To give up pods nobody waits: 4 and 2, and the rollout takes two more.
    edit(&mut fixture, |spec| spec["replicas"] = 5.into());
    fixture.settle(&key());
    assert_eq!(sets(&fixture), ["v1 2 1", "v2 2 2"]);
}

#[test]
fn nothing_shrinks_while_pods_are_added() {
    let mut fixture = fixture(deployment(json!(10), "v1"));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    fixture.settle(&key());
    // In the middle of the rollout it was scaled down to 8, which one set has not seen: of 9 pods
    // that there may be one is missing.
    let sets_before: Vec<Value> =
        fixture.store.kind(Kind::ReplicaSet).map(codec::to_value).collect();
    for mut set in sets_before {
        let old = set["spec"]["template"]["spec"]["containers"][0]["image"] == "v1";
        let (replicas, desired, most) = if old { (5, "8", "9") } else { (3, "10", "11") };
        set["spec"]["replicas"] = replicas.into();
        set["metadata"]["annotations"][sets::DESIRED_REPLICAS] = desired.into();
        set["metadata"]["annotations"][sets::MAX_REPLICAS] = most.into();
        fixture.put(set);
    }
    obey(&mut fixture);
    edit(&mut fixture, |spec| spec["replicas"] = 8.into());
    fixture.settle(&key());
    // The old one gets it, and the rollout takes two of it that need not be there.
    assert_eq!(sets(&fixture), ["v1 4 1", "v2 3 2"]);
}

#[test]
fn who_is_alone_waits_for_others_to_be_empty() {
    let mut fixture = fixture(deployment(json!(3), "v1"));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 3 2"]);
    // It keeps what it has too many itself.
    report(&mut fixture, "v1", json!({"replicas": 1}));
    report(&mut fixture, "v2", json!({"replicas": 4, "observedGeneration": 0}));
    edit(&mut fixture, |spec| spec["replicas"] = 6.into());
    fixture.settle(&key());
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 3 2"]);
    report(&mut fixture, "v1", json!({"replicas": 0}));
    fixture.settle(&key());
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 6 2"]);
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let mut fixture = fixture(deployment(json!(1), "v1"));
    let name = creates(&fixture.reconcile(&key()))[0].rsplit('/').next().unwrap().to_owned();
    fixture.put(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": "other"}}}}));
    let done = fixture.settle(&key());
    assert_eq!(done[0], "update deployments/n/web status");
    assert_eq!(codec::to_value(&fixture.store.objects[&key()])["status"]["collisionCount"], 1);
    let made = done.iter().filter(|s| s.starts_with("create replicasets/n/web-")).count();
    assert!(made == 1 && !done.contains(&format!("create replicasets/n/{name}")), "{done:?}");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut fixture = fixture(deployment(json!(2), "v1"));
    edit(&mut fixture, |spec| spec["strategy"] = json!({"type": "Recreate"}));
    roll_out(&mut fixture);
    let uid = fixture.store.kind(Kind::ReplicaSet).next().unwrap().uid().to_owned();
    let name = fixture.store.kind(Kind::ReplicaSet).next().unwrap().key().name;
    fixture.put(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "old", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": &*name,
                "uid": uid, "controller": true}]},
        "spec": {"containers": []}}));
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 0 1"]);
    assert_eq!(fixture.remove(&Key::new(Kind::Pod, "n", "old")), [key()]);
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 2 2"]);
}

#[test]
fn odd_deployments() {
    let check = |change: fn(&mut Value), expected: &[&str]| {
        let mut value = deployment(json!(1), "v1");
        change(&mut value);
        let fixture = fixture(value);
        assert_eq!(summary(&fixture.reconcile(&key())), expected);
    };
    check(|v| v["spec"] = Value::Null, &[]);
    check(|v| v["spec"]["selector"] = json!({}), &["update deployments/n/web status"]);
    check(
        |v| v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
        &["update deployments/n/web status"],
    );
}

#[test]
fn a_refused_set_is_reported() {
    let fixture = fixture(deployment(json!(1), "v1"));
    let plan = fixture.reconcile(&key());
    let error = ApiError::from(Status::forbidden(Kind::ReplicaSet, "web-x", "exceeded quota"));
    let note =
        Deployments.note_refusal(&fixture.cache, &key(), &plan.requests[0], &error, fixture.now());
    let Some(Request::Update { object, .. }) = note else { panic!("a status is written") };
    let condition = codec::to_value(&object)["status"]["conditions"][0].clone();
    assert_eq!(condition["reason"], "ReplicaSetCreateError");
    assert_eq!(condition["status"], "False");
}

/// Asks for an earlier revision, and gives what people are told of it at once.
fn roll_back(fixture: &mut Fixture<Deployments>, revision: &str) -> Vec<String> {
    let mut value = codec::to_value(&fixture.store.objects[&key()]);
    value["metadata"]["annotations"]["deprecated.deployment.rollback.to"] = revision.into();
    fixture.put(value);
    let plan = fixture.reconcile(&key());
    let done = plan.announcements.values().filter_map(|announcement| announcement.done.as_ref());
    let told = done.map(|r| format!("{} {}", r.reason, r.message)).collect();
    roll_out(fixture);
    told
}

#[test]
fn an_annotation_takes_a_deployment_back() {
    let mut fixture = fixture(deployment(json!(2), "v1"));
    roll_out(&mut fixture);
    let unchanged = roll_back(&mut fixture, "1");
    let message = "The rollback revision contains the same template as current deployment \"web\"";
    assert_eq!(unchanged, [format!("DeploymentRollbackTemplateUnchanged {message}")]);
    let none = roll_back(&mut fixture, "0");
    let not_found = "DeploymentRollbackRevisionNotFound";
    assert_eq!(none, [format!("{not_found} Unable to find last revision.")]);
    for image in ["v2", "v3"] {
        edit(&mut fixture, |spec| {
            spec["template"]["spec"]["containers"][0]["image"] = image.into();
        });
        roll_out(&mut fixture);
    }
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 0 2", "v3 2 3"]);
    let unknown = roll_back(&mut fixture, "7");
    assert_eq!(unknown, [format!("{not_found} Unable to find the revision to rollback to.")]);
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 0 2", "v3 2 3"]);

    let last = roll_back(&mut fixture, "0");
    assert_eq!(last, ["DeploymentRollback Rolled back deployment \"web\" to revision 2"]);
    assert_eq!(sets(&fixture), ["v1 0 1", "v2 2 4", "v3 0 3"]);
    let first = roll_back(&mut fixture, "1");
    assert_eq!(first, ["DeploymentRollback Rolled back deployment \"web\" to revision 1"]);
    assert_eq!(sets(&fixture), ["v1 2 5", "v2 0 4", "v3 0 3"]);

    let value = codec::to_value(&fixture.store.objects[&key()]);
    let labels = &value["spec"]["template"]["metadata"]["labels"];
    assert_eq!(*labels, json!({"app": "web"}));
    let annotations = &value["metadata"]["annotations"];
    assert_eq!(
        *annotations,
        json!({"team": "a", "deployment.kubernetes.io/revision": "5",
        "kubectl.kubernetes.io/last-applied-configuration": "x"})
    );
}

#[test]
fn who_cannot_go_back_now_or_is_asked_for_nonsense_stays() {
    let mut fixture = fixture(deployment(json!(2), "v1"));
    roll_out(&mut fixture);
    edit(&mut fixture, |spec| spec["template"]["spec"]["containers"][0]["image"] = "v2".into());
    // The set of the present template is made first, and has a number.
    let told = roll_back(&mut fixture, "1");
    assert_eq!(
        told.last().unwrap(),
        "DeploymentRollback Rolled back deployment \"web\" to revision 1"
    );
    assert_eq!(sets(&fixture), ["v1 2 3", "v2 0 2"]);
    assert_eq!(roll_back(&mut fixture, "first"), [""; 0]);
    edit(&mut fixture, |spec| spec["paused"] = true.into());
    assert_eq!(roll_back(&mut fixture, "2"), [""; 0]);
    assert_eq!(sets(&fixture), ["v1 2 3", "v2 0 2"]);
    edit(&mut fixture, |spec| spec["paused"] = false.into());
    roll_out(&mut fixture);
    assert_eq!(sets(&fixture), ["v1 0 3", "v2 2 4"]);
}
