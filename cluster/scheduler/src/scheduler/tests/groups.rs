//! Pods that are placed together or not at all.

use super::*;
use crate::group::{GROUP, MIN_AVAILABLE};
use crate::profile::ProfileConfig;

fn config() -> SchedulerConfig {
    let profile =
        ProfileConfig { enabled: vec!["Coscheduling".to_owned()], ..ProfileConfig::default() };
    SchedulerConfig { profiles: vec![profile], ..SchedulerConfig::default() }
}

impl Bench {
    /// A pod of a group, of which so many are placed together.
    fn member(&mut self, name: &str, group: &str, min: &str, spec: &Value) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"),
                "labels": {GROUP: group, MIN_AVAILABLE: min}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        self.change(pod);
    }

    /// The pods bound since the last question.
    fn bound(&mut self) -> Vec<String> {
        let mut bound: Vec<String> = self.settle().into_iter().map(|(pod, _)| pod).collect();
        bound.sort();
        bound
    }

    fn messages(&self) -> Vec<String> {
        let records = self.out.iter().filter_map(|effect| match effect {
            ApiEffect::Record(report) => Some(report.record.message.clone()),
            ApiEffect::Call { .. } => None,
        });
        records.collect()
    }

    /// How many pods have a node or shall have one.
    fn placed(&self) -> i64 {
        self.scheduler.snapshot().nodes().map(|node| node.pods).sum()
    }

    /// The pods that were asked to be deleted since the last question. All that is asked for is
    /// done, and they are on their way out.
    fn gone_for_others(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        while !self.out.is_empty() {
            for effect in std::mem::take(&mut self.out) {
                let ApiEffect::Call { id, request } = effect else { continue };
                let (key, patch) = match request {
                    Request::Patch { key, patch, .. } => (key, Some(patch)),
                    Request::Delete { key, .. } => (key, None),
                    _ => continue,
                };
                let mut pod = codec::to_value(self.scheduler.cache.object(&key).unwrap());
                if let Some(patch) = patch {
                    for (field, value) in patch.body.json()["status"].as_object().unwrap() {
                        pod["status"][field] = value.clone();
                    }
                } else {
                    pod["metadata"]["deletionTimestamp"] = json!(self.now.to_meta());
                    gone.push(key.name.to_string());
                }
                let revision = Revision(self.revision + 1);
                self.reply(id, Ok(Reply::Done(revision)));
                self.change(pod);
            }
        }
        gone.sort();
        gone
    }
}

fn plain() -> Value {
    json!({})
}

#[test]
fn a_group_is_placed_when_enough_of_it_are_there() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "2");
    bench.node("n2", "2");
    bench.member("a", "g", "3", &plain());
    bench.member("b", "g", "3", &plain());
    let told = bench.messages().concat();
    let expected = "pod group \"d/g\" needs 3 pods together, of which 0 have a node and 2 wait";
    assert!(told.contains(expected), "{told}");
    assert_eq!((bench.bound(), bench.placed()), (vec![], 0));
    bench.member("c", "g", "3", &plain());
    assert_eq!(bench.bound(), ["a", "b", "c"]);
    // Those that come later are like any others.
    bench.member("d", "g", "3", &plain());
    assert_eq!(bench.bound(), ["d"]);
}

#[test]
fn groups_are_nothing_where_the_plugin_is_not_enabled() {
    let mut bench = Bench::new();
    bench.node("n1", "2");
    bench.member("a", "g", "3", &plain());
    bench.member("b", "g", "none", &plain());
    assert_eq!(bench.bound(), ["a", "b"]);
}

#[test]
fn labels_that_say_nothing_are_told() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "2");
    bench.member("a", "g", "few", &plain());
    let told = bench.messages().concat();
    let expected = "0/1 nodes are available: pod group \"d/g\" cannot be placed: the label \
                    scheduling.x-k8s.io/pod-group-min-available is \"few\", not a number from 1 to \
                    1024. preemption: 0/1 nodes are available: 1 Preemption is not helpful for \
                    scheduling.";
    assert_eq!((told.as_str(), bench.bound()), (expected, vec![]));
}

#[test]
fn a_group_without_room_holds_nothing_and_tells_why() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "1");
    bench.node("n2", "1");
    for name in ["a", "b", "c"] {
        bench.member(name, "g", "3", &plain());
    }
    let told = bench.messages();
    let of_group = "pod group \"d/g\": 2 of 3 pods that are placed together find a node";
    let of_group = |told: &&String| told.contains(of_group);
    assert_eq!(told.iter().filter(of_group).count(), 3, "{told:?}");
    assert!(told.iter().any(|told| told.contains("2 Insufficient cpu")), "{told:?}");
    assert_eq!((bench.bound(), bench.placed()), (vec![], 0));
    // Others may have what it cannot use.
    bench.pod("other", "1", "");
    assert_eq!(bench.bound(), ["other"]);
    bench.delete("other");
    bench.node("n3", "1");
    assert_eq!(bench.bound(), ["a", "b", "c"]);
}

/// Each group needs more than half of what there is.
#[test]
fn two_groups_never_hold_half_each() {
    let mut bench = Bench::with(&config());
    for name in ["n1", "n2", "n3"] {
        bench.node(name, "2");
    }
    for number in 0..4 {
        for group in ["x", "y"] {
            bench.member(&format!("{group}{number}"), group, "4", &plain());
            assert!(matches!(bench.placed(), 0 | 4));
        }
    }
    assert_eq!(
        (bench.bound(), bench.placed()),
        (["x0", "x1", "x2", "x3"].map(str::to_owned).to_vec(), 4)
    );
    // Half of the first is not enough for the second, and it takes nothing meanwhile.
    bench.delete("x0");
    assert_eq!((bench.bound(), bench.placed()), (vec![], 3));
    bench.delete("x1");
    assert_eq!(bench.bound(), ["y0", "y1", "y2", "y3"]);
}

#[test]
fn pods_of_a_whole_group_are_replaced_one_by_one() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "4");
    for name in ["a", "b", "c"] {
        bench.member(name, "g", "3", &plain());
    }
    assert_eq!(bench.bound(), ["a", "b", "c"]);
    bench.delete("a");
    bench.member("d", "g", "3", &plain());
    assert_eq!(bench.bound(), ["d"]);
    // One that has done what it was for counts as long as it is there.
    bench.change(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "b", "namespace": "d", "uid": "u-b",
            "labels": {GROUP: "g", MIN_AVAILABLE: "3"}},
        "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Succeeded"}}));
    bench.delete("c");
    bench.member("e", "g", "3", &plain());
    assert_eq!(bench.bound(), ["e"]);
    bench.delete("b");
    bench.delete("d");
    bench.member("f", "g", "3", &plain());
    assert_eq!(bench.bound(), [""; 0]);
}

/// Somebody else gives a pod of the group a node.
#[test]
fn those_with_a_node_count() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "4");
    bench.member("a", "g", "2", &plain());
    assert_eq!(bench.bound(), [""; 0]);
    bench.member("b", "g", "2", &json!({"nodeName": "n1"}));
    assert_eq!(bench.bound(), ["a"]);
}

#[test]
fn others_are_displaced_only_if_the_whole_group_finds_a_place() {
    let mut bench = Bench::with(&config());
    for name in ["n1", "n2"] {
        bench.node(name, "2");
    }
    for (name, node) in [("l1", "n1"), ("l2", "n1"), ("l3", "n2"), ("l4", "n2")] {
        bench.pod(name, "1", node);
    }
    let high = json!({"priority": 5});
    for number in 0..5 {
        bench.member(&format!("a{number}"), "big", "5", &high);
    }
    assert_eq!((bench.gone_for_others(), bench.bound()), (vec![], vec![]));
    for number in 0..5 {
        bench.delete(&format!("a{number}"));
    }
    for name in ["b1", "b2", "b3"] {
        bench.member(name, "fits", "3", &high);
    }
    let gone = bench.gone_for_others();
    assert_eq!(gone.len(), 3, "{gone:?}");
    for (number, name) in gone.iter().enumerate() {
        assert_eq!(bench.bound(), [""; 0], "after {number}");
        bench.delete(name);
    }
    assert_eq!(bench.bound(), ["b1", "b2", "b3"]);
}

#[test]
fn what_is_cleared_for_a_group_is_kept_for_all_of_it() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "1");
    bench.node("n2", "1");
    bench.pod("low", "1", "n1");
    for name in ["a", "b"] {
        bench.member(name, "g", "2", &json!({"priority": 5}));
    }
    assert_eq!(bench.gone_for_others(), ["low"]);
    // The other node is free, and not for this one.
    bench.pod("late", "1", "");
    assert_eq!(bench.bound(), [""; 0]);
    bench.delete("low");
    assert_eq!(bench.bound(), ["a", "b"]);
}

#[test]
fn a_whole_group_is_not_torn_apart_if_others_can_go() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "1");
    bench.node("n2", "1");
    bench.node("n3", "1");
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        bench.member(name, "g", "2", &json!({"nodeName": node}));
    }
    bench.change(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "alone", "namespace": "d", "uid": "u-alone"},
        "spec": {"priority": 1, "nodeName": "n3",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}));
    bench.change(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "high", "namespace": "d", "uid": "u-high"},
        "spec": {"priority": 5,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}));
    assert_eq!(bench.gone_for_others(), ["alone"]);
}

fn claims(bench: &mut Bench) {
    bench.change(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "s"}, "provisioner": "kprov.io/local",
        "volumeBindingMode": "WaitForFirstConsumer"}));
    for name in ["a", "b"] {
        bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "s",
                "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}}));
    }
}

fn with_claim(name: &str) -> Value {
    json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]})
}

#[test]
fn a_group_waits_for_all_of_its_claims_for_a_limited_time() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "4");
    claims(&mut bench);
    bench.member("a", "g", "3", &with_claim("a"));
    bench.member("b", "g", "3", &with_claim("b"));
    bench.member("c", "g", "3", &plain());
    assert_eq!(bench.placed(), 3);
    let updates: Vec<CallId> = bench
        .out
        .iter()
        .filter_map(|effect| match effect {
            ApiEffect::Call { id, request: Request::Update { .. } } => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!((updates.len(), bench.bindings().len()), (2, 0));
    for id in updates {
        let revision = Revision(bench.revision);
        bench.reply(id, Ok(Reply::Done(revision)));
    }
    // One claim is bound, the other is not.
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata":
        {"name": "v"}, "spec": {"claimRef": {"namespace": "d", "name": "a", "uid": "u-a"}}}));
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "a", "namespace": "d", "uid": "u-a",
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "volumeName": "v"},
        "status": {"phase": "Bound"}}));
    assert_eq!((bench.bindings().len(), bench.placed()), (0, 3));
    bench.now = bench.now + Duration::from_secs(60);
    bench.step(ApiInput::Wake);
    let told = bench.messages();
    let expected = "rejected due to timeout after waiting 60s at plugin Coscheduling: pod group \
                    \"d/g\" waits for the claims of 1 pods";
    assert_eq!(told, [expected; 3]);
    assert_eq!((bench.bindings().len(), bench.placed()), (0, 0));
}

#[test]
fn a_group_gives_its_places_back_when_it_loses_a_pod() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "4");
    claims(&mut bench);
    bench.member("a", "g", "2", &with_claim("a"));
    bench.member("c", "g", "2", &plain());
    assert_eq!((bench.bindings().len(), bench.placed()), (0, 2));
    bench.delete("a");
    assert_eq!(
        (bench.messages(), bench.placed()),
        (vec!["pod group \"d/g\" has lost a pod".to_owned()], 0)
    );
    assert_eq!(bench.bound(), [""; 0]);
}

#[test]
fn a_group_is_bound_when_all_of_its_claims_are() {
    let mut bench = Bench::with(&config());
    bench.node("n1", "4");
    claims(&mut bench);
    bench.member("a", "g", "2", &with_claim("a"));
    bench.member("c", "g", "2", &plain());
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata":
        {"name": "v"}, "spec": {"claimRef": {"namespace": "d", "name": "a", "uid": "u-a"}}}));
    let update = bench.out.iter().find_map(|effect| match effect {
        ApiEffect::Call { id, request: Request::Update { .. } } => Some(*id),
        _ => None,
    });
    let revision = Revision(bench.revision);
    bench.reply(update.unwrap(), Ok(Reply::Done(revision)));
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "a", "namespace": "d", "uid": "u-a",
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "s", "volumeName": "v"},
        "status": {"phase": "Bound"}}));
    assert_eq!(bench.bound(), ["a", "c"]);
}

impl Bench {
    /// A group of two that is bound, but for `b`: the answer to its binding is `error`.
    fn torn(error: ApiError) -> Self {
        let mut bench = Self::with(&config());
        bench.node("n1", "2");
        bench.member("a", "g", "2", &plain());
        bench.member("b", "g", "2", &plain());
        let bindings = bench.bindings();
        assert_eq!(names(&bindings), [("a", "n1"), ("b", "n1")]);
        bench.reply(bindings[0].0, Ok(Reply::Done(Revision(bench.revision))));
        bench.member("a", "g", "2", &json!({"nodeName": "n1"}));
        bench.out.clear();
        bench.reply(bindings[1].0, Err(error));
        bench
    }

    /// The store's answer to the question whether `b` was bound: it was not.
    fn tell_unbound(&mut self) {
        let look_up = self.out.iter().find_map(|effect| match effect {
            ApiEffect::Call { id, request: Request::Get(_) } => Some(*id),
            _ => None,
        });
        let pod = self.scheduler.cache.object(&Key::new(Kind::Pod, "d", "b")).unwrap().clone();
        self.reply(look_up.unwrap(), Ok(Reply::Object(pod)));
    }
}

#[test]
fn a_group_stays_whole_when_a_binding_fails() {
    for lost in [false, true] {
        let error = if lost { ApiError::Unknown } else { ApiError::Unreachable };
        let mut bench = Bench::torn(error("down".into()));
        if lost {
            bench.tell_unbound();
        }
        // What comes while the pod pauses finds no room, nor does what is told of the pod matter.
        bench.pod("other", "1", "");
        bench.member("b", "g", "2", &json!({"terminationGracePeriodSeconds": 5}));
        assert_eq!(bench.settle(), [("b".to_owned(), "n1".to_owned())], "{lost}");
        bench.member("b", "g", "2", &json!({"nodeName": "n1"}));
        assert!(bench.scheduler.groups.kept.is_empty());
        assert_eq!((bench.bound(), bench.placed()), (vec![], 2));
    }
}

#[test]
fn a_place_is_kept_from_nobody_more_important() {
    let mut bench = Bench::torn(ApiError::Unreachable("down".into()));
    bench.change(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "high", "namespace": "d", "uid": "u-high"},
        "spec": {"priority": 9,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}));
    assert_eq!(bench.bound(), ["high"]);
    // Nothing is kept any more of what was lost.
    assert!(bench.scheduler.groups.kept.is_empty());
    assert!(bench.scheduler.snapshot().nominations().on("n1").next().is_none());
    bench.node("n2", "1");
    assert_eq!(bench.settle(), [("b".to_owned(), "n2".to_owned())]);
}

#[test]
fn a_kept_place_on_a_node_that_is_gone_is_none() {
    let mut bench = Bench::torn(ApiError::Unreachable("down".into()));
    bench.node("n2", "2");
    bench.revision += 1;
    let (key, revision) = (Key::cluster(Kind::Node, "n1"), Revision(bench.revision));
    bench.step(ApiInput::Watch(WatchEvent::Deleted { key, revision }));
    assert_eq!(bench.settle(), [("b".to_owned(), "n2".to_owned())]);
}

#[test]
fn places_are_kept_for_what_a_group_needs_alone() {
    // Whoever is of no group, or of one that is whole without it, gives its place back.
    let mut bench = Bench::with(&config());
    bench.node("n1", "2");
    bench.member("a", "g", "1", &json!({"nodeName": "n1"}));
    bench.member("b", "g", "1", &plain());
    let bindings = bench.bindings();
    assert_eq!(names(&bindings), [("b", "n1")]);
    bench.reply(bindings[0].0, Err(ApiError::Unreachable("down".into())));
    bench.pod("other", "1", "");
    assert_eq!(names(&bench.bindings()), [("other", "n1")]);
}
