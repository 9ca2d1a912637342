//! Pods with claims.

use super::*;

fn class(bench: &mut Bench, provisioner: &str, mode: &str) {
    bench.change(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "s"}, "provisioner": provisioner, "volumeBindingMode": mode}));
}

fn claim_json(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "s",
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}})
}

fn claim(bench: &mut Bench, name: &str) {
    bench.change(claim_json(name));
}

fn bound_claim(bench: &mut Bench, name: &str, volume: &str) {
    let mut claim = claim_json(name);
    claim["spec"]["volumeName"] = json!(volume);
    claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    claim["status"]["phase"] = json!("Bound");
    bench.change(claim);
}

/// A volume on the host; it names the claim, unless that is empty.
fn volume(bench: &mut Bench, name: &str, host: &str, claim: &str) {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname",
        "operator": "In", "values": [host]}]}]);
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "storageClassName": "s", "local": {"path": "/x"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}},
        "status": {"phase": "Available"}});
    if !claim.is_empty() {
        volume["spec"]["claimRef"] =
            json!({"namespace": "d", "name": claim, "uid": format!("u-{claim}")});
        volume["status"]["phase"] = json!("Bound");
    }
    bench.change(volume);
}

fn pod_on(bench: &mut Bench, name: &str, claim: &str, node: &str) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"containers": [], "volumes":
            [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    bench.change(pod);
}

fn pod(bench: &mut Bench, name: &str, claim: &str) {
    pod_on(bench, name, claim, "");
}

/// Two nodes, and a class of which volumes are made when they are needed.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.node("n1", "1");
    bench.node("n2", "1");
    class(&mut bench, "kprov.io/local", "WaitForFirstConsumer");
    bench
}

/// The messages of the events since the last question, and nothing else.
fn told(bench: &mut Bench) -> Vec<String> {
    let told = std::mem::take(&mut bench.out).into_iter().filter_map(|effect| match effect {
        ApiEffect::Record(report) => Some(report.record.message.clone()),
        ApiEffect::Call { .. } => None,
    });
    told.collect()
}

/// The updates called for since the last question.
fn updates(bench: &mut Bench) -> Vec<(CallId, Value)> {
    let updates = std::mem::take(&mut bench.out).into_iter().filter_map(|effect| match effect {
        ApiEffect::Call { id, request: Request::Update { object, .. } } => {
            Some((id, codec::to_value(&object)))
        }
        _ => None,
    });
    updates.collect()
}

/// Carries an update out, and lets the watch tell of it.
fn carry_out(bench: &mut Bench, (id, value): (CallId, Value)) {
    let revision = bench.revision + 1;
    bench.reply(id, Ok(Reply::Done(Revision(revision))));
    bench.change(value);
}

fn why(bench: &mut Bench, reason: &str, preemption: &str) {
    let expected = format!(
        "0/2 nodes are available: {reason}. preemption: 0/2 nodes are \
                            available: {preemption}."
    );
    assert_eq!(told(bench), [expected]);
}

const NO_HELP: &str = "2 Preemption is not helpful for scheduling";

#[test]
fn pods_whose_claims_are_not_ready_wait() {
    let mut bench = bench();
    pod(&mut bench, "p", "c");
    why(&mut bench, "persistentvolumeclaim \"c\" not found", NO_HELP);
    // It is tried again when the claim is there.
    class(&mut bench, "kprov.io/local", "Immediate");
    claim(&mut bench, "c");
    bench.settle();
    pod(&mut bench, "q", "c");
    why(&mut bench, "pod has unbound immediate PersistentVolumeClaims", NO_HELP);
    let mut lost = claim_json("l");
    lost["status"]["phase"] = json!("Lost");
    lost["spec"]["volumeName"] = json!("gone");
    bench.change(lost);
    std::mem::take(&mut bench.out);
    pod(&mut bench, "r", "l");
    let reason = "persistentvolumeclaim \"l\" bound to non-existent persistentvolume \"gone\"";
    why(&mut bench, reason, NO_HELP);
    let mut going = claim_json("g");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    bench.change(going);
    std::mem::take(&mut bench.out);
    pod(&mut bench, "s", "g");
    why(&mut bench, "persistentvolumeclaim \"g\" is being deleted", NO_HELP);
    let own = json!([{"name": "own", "ephemeral": {}}]);
    bench.change(json!({"apiVersion": "v1", "kind": "Pod", "metadata":
        {"name": "t", "namespace": "d", "uid": "u"}, "spec": {"containers": [], "volumes": own}}));
    let reason = "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                  \"t-own\"";
    why(&mut bench, reason, NO_HELP);
}

#[test]
fn pods_go_where_their_volumes_are() {
    let mut bench = bench();
    volume(&mut bench, "v", "n2", "c");
    bound_claim(&mut bench, "c", "v");
    pod(&mut bench, "p", "c");
    assert_eq!(bench.settle(), [("p".to_owned(), "n2".to_owned())]);
    volume(&mut bench, "w", "n3", "e");
    bound_claim(&mut bench, "e", "w");
    std::mem::take(&mut bench.out);
    pod(&mut bench, "q", "e");
    why(&mut bench, "2 node(s) had volume node affinity conflict", NO_HELP);
    bench.node("n3", "1");
    assert_eq!(bench.settle(), [("q".to_owned(), "n3".to_owned())]);
    bound_claim(&mut bench, "f", "nowhere");
    std::mem::take(&mut bench.out);
    pod(&mut bench, "r", "f");
    let reason = "3 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    assert!(told(&mut bench)[0].contains(reason));
}

#[test]
fn zones_of_volumes_are_kept() {
    let mut bench = bench();
    for (name, zone) in [("n1", "a"), ("n2", "b")] {
        bench.change(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": "1", "memory": "8Gi", "pods": "10"}}}));
    }
    let mut volume = |zone: &str| {
        bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata":
            {"name": "v", "labels": {"failure-domain.beta.kubernetes.io/zone": zone}},
            "spec": {"claimRef": {"namespace": "d", "name": "c", "uid": "u-c"}}}));
    };
    volume("x__y");
    bound_claim(&mut bench, "c", "v");
    pod(&mut bench, "p", "c");
    why(&mut bench, "2 node(s) had no available volume zone", NO_HELP);
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata":
        {"name": "v", "labels": {"failure-domain.beta.kubernetes.io/zone": "x__b"}},
        "spec": {"claimRef": {"namespace": "d", "name": "c", "uid": "u-c"}}}));
    assert_eq!(bench.settle(), [("p".to_owned(), "n2".to_owned())]);
}

/// A bound claim that one pod may use.
fn claim_of_one_pod(bench: &mut Bench, name: &str) {
    let mut only = claim_json(name);
    only["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    only["spec"]["volumeName"] = json!(format!("v-{name}"));
    only["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    only["status"]["phase"] = json!("Bound");
    bench.change(only);
}

/// A volume that can be had anywhere, for the claim.
fn volume_anywhere(bench: &mut Bench, claim: &str) {
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": format!("v-{claim}")},
        "spec": {"accessModes": ["ReadWriteOncePod"], "capacity": {"storage": "1Gi"},
            "storageClassName": "s", "csi": {"driver": "d", "volumeHandle": claim},
            "claimRef": {"namespace": "d", "name": claim, "uid": format!("u-{claim}")}},
        "status": {"phase": "Bound"}}));
}

/// A pod of this priority with volumes.
fn with_volumes(name: &str, priority: i32, volumes: &Value, node: &str) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"priority": priority, "containers": [], "volumes": volumes}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

fn displaced(bench: &mut Bench) -> Vec<String> {
    let deleted = std::mem::take(&mut bench.out).into_iter().filter_map(|effect| match effect {
        ApiEffect::Call { id, request: Request::Delete { key, .. } } => Some((id, key)),
        ApiEffect::Call { id, request: Request::Patch { key, .. } } => Some((id, key)),
        _ => None,
    });
    deleted.map(|(_, key)| key.name.to_string()).collect()
}

const ONE_POD: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

#[test]
fn who_uses_a_claim_for_one_pod_is_displaced_for_a_more_important_one() {
    let mut bench = bench();
    claim_of_one_pod(&mut bench, "c");
    volume_anywhere(&mut bench, "c");
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    bench.change(with_volumes("user", 1, &volumes, "n2"));
    bench.change(with_volumes("other", 1, &json!([]), "n1"));
    // One of another namespace with a claim of the same name has nothing to do with it.
    let mut stranger = with_volumes("stranger", 1, &volumes, "n1");
    stranger["metadata"]["namespace"] = json!("e");
    bench.change(stranger);
    // An equal may not.
    bench.change(with_volumes("equal", 1, &volumes, ""));
    why(&mut bench, &format!("2 {ONE_POD}"), "2 No preemption victims found for incoming pod");
    bench.delete("equal");
    bench.settle();
    std::mem::take(&mut bench.out);
    // Only where the user is, somebody has to go; and nobody else.
    bench.change(with_volumes("high", 9, &volumes, ""));
    let explained = bench.scheduler.explain(&Key::new(Kind::Pod, "d", "high")).unwrap();
    let displaced_pods = explained.displaced.unwrap();
    assert_eq!(
        (displaced_pods.node.as_str(), &displaced_pods.pods[..]),
        ("n2", &["d/user".into()][..])
    );
    assert!(displaced(&mut bench).contains(&"user".to_owned()));
}

#[test]
fn a_claim_for_one_pod_is_in_use_as_soon_as_one_is_assumed_to_have_it() {
    let mut bench = bench();
    claim_of_one_pod(&mut bench, "c");
    volume_anywhere(&mut bench, "c");
    pod(&mut bench, "first", "c");
    assert_eq!(bench.bindings().len(), 1);
    pod(&mut bench, "late", "c");
    assert!(told(&mut bench)[0].contains(ONE_POD));
}

#[test]
fn where_two_use_a_claim_for_one_pod_one_who_goes_does_not_help() {
    let mut bench = bench();
    claim_of_one_pod(&mut bench, "c");
    volume_anywhere(&mut bench, "c");
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    // Whoever names the node himself is not judged.
    bench.change(with_volumes("one", 1, &volumes, "n1"));
    bench.change(with_volumes("two", 1, &volumes, "n2"));
    bench.change(with_volumes("high", 9, &volumes, ""));
    why(&mut bench, &format!("2 {ONE_POD}"), &format!("2 {ONE_POD}"));
}

#[test]
fn a_disk_is_had_once_on_a_node() {
    let mut bench = bench();
    bench.scheduler.compare_decisions(std::num::NonZeroU32::new(1));
    let disk = |name: &str| json!([{"name": "v", "gcePersistentDisk": {"pdName": name}}]);
    bench.change(with_volumes("a", 1, &disk("d1"), "n1"));
    bench.change(with_volumes("b", 1, &disk("d1"), ""));
    assert_eq!(names(&bench.bindings()), [("b", "n2")]);
    bench.change(with_volumes("c", 1, &disk("d1"), ""));
    let expected = "2 node(s) had no available disk";
    why(&mut bench, expected, "2 No preemption victims found for incoming pod");
    // Another disk is free, and a node that joins has none in use.
    bench.change(with_volumes("d", 1, &disk("d2"), ""));
    assert_eq!(bench.bindings().len(), 1);
    bench.node("n3", "1");
    assert_eq!(bench.settle(), [("c".to_owned(), "n3".to_owned())]);
    // For a more important pod one user goes.
    bench.change(with_volumes("high", 9, &disk("d1"), ""));
    assert!(displaced(&mut bench).len() == 2, "a mark and the nomination");
    let shadow = bench.scheduler.shadow().unwrap();
    assert_eq!(
        (shadow.different(), shadow.compared() > 4),
        (0, true),
        "{:?}",
        shadow.differences()
    );
}

#[test]
fn a_claim_for_one_pod_keeps_others_away() {
    let mut bench = bench();
    claim_of_one_pod(&mut bench, "c");
    volume(&mut bench, "v-c", "n1", "c");
    pod_on(&mut bench, "p", "c", "n1");
    std::mem::take(&mut bench.out);
    pod(&mut bench, "q", "c");
    let message = told(&mut bench);
    let reason = "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the \
                  same name and ReadWriteOncePod access mode.";
    assert!(message[0].starts_with(reason), "{message:?}");
    bench.delete("p");
    assert_eq!(bench.settle(), [("q".to_owned(), "n1".to_owned())]);
}

#[test]
fn a_volume_is_made_before_the_pod_is_bound() {
    let mut bench = bench();
    claim(&mut bench, "c");
    pod(&mut bench, "p", "c");
    let mut asked = updates(&mut bench);
    assert_eq!(asked.len(), 1);
    let node = asked[0].1["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].clone();
    let node = node.as_str().unwrap().to_owned();
    carry_out(&mut bench, asked.remove(0));
    assert_eq!(bench.settle(), []);
    volume(&mut bench, "v", &node, "c");
    assert_eq!(bench.settle(), []);
    bound_claim(&mut bench, "c", "v");
    assert_eq!(bench.settle(), [("p".to_owned(), node)]);
}

#[test]
fn a_scheduler_that_takes_over_goes_on() {
    let mut bench = bench();
    let mut begun = claim_json("c");
    begun["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "n2"});
    bench.change(begun);
    pod(&mut bench, "p", "c");
    assert_eq!(updates(&mut bench), []);
    volume(&mut bench, "v", "n2", "c");
    bound_claim(&mut bench, "c", "v");
    assert_eq!(bench.settle(), [("p".to_owned(), "n2".to_owned())]);
}

#[test]
fn two_pods_do_not_get_one_volume() {
    let mut bench = bench();
    class(&mut bench, "kubernetes.io/no-provisioner", "WaitForFirstConsumer");
    claim(&mut bench, "c");
    claim(&mut bench, "e");
    volume(&mut bench, "v", "n1", "");
    std::mem::take(&mut bench.out);
    pod(&mut bench, "p", "c");
    let mut given = updates(&mut bench);
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].1["spec"]["claimRef"]["uid"], "u-c");
    let annotations = &given[0].1["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    // The watch does not tell of it yet.
    pod(&mut bench, "q", "e");
    why(&mut bench, "2 node(s) didn't find available persistent volumes to bind", NO_HELP);
    carry_out(&mut bench, given.remove(0));
    bound_claim(&mut bench, "c", "v");
    assert_eq!(bench.settle(), [("p".to_owned(), "n1".to_owned())]);
    volume(&mut bench, "w", "n2", "");
    bench.now = bench.scheduler.wake_at().unwrap();
    bench.step(ApiInput::Wake);
    let mut given = updates(&mut bench);
    assert_eq!(given[0].1["metadata"]["name"], "w");
    carry_out(&mut bench, given.remove(0));
    bound_claim(&mut bench, "e", "w");
    assert_eq!(bench.settle(), [("q".to_owned(), "n2".to_owned())]);
}

#[test]
fn what_fails_is_tried_anew() {
    let failed =
        |why: &str| format!("running PreBind plugin \"VolumeBinding\": binding volumes: {why}");
    // The write is refused.
    let mut bench = bench();
    claim(&mut bench, "c");
    pod(&mut bench, "p", "c");
    let (id, _) = updates(&mut bench).remove(0);
    let conflict = api::Status::modified(Kind::PersistentVolumeClaim, "c");
    let why = ApiError::from(conflict.clone()).to_string();
    bench.reply(id, Err(conflict.into()));
    assert_eq!(told(&mut bench), [failed(&why)]);
    bench.now = bench.scheduler.wake_at().unwrap();
    bench.step(ApiInput::Wake);
    let mut asked = updates(&mut bench);
    assert_eq!(asked.len(), 1);
    // Who makes volumes cannot make one there.
    carry_out(&mut bench, asked.remove(0));
    claim(&mut bench, "c");
    assert_eq!(told(&mut bench), [failed("provisioning failed for PVC \"c\"")]);
    bench.now = bench.scheduler.wake_at().unwrap();
    bench.step(ApiInput::Wake);
    let asked = updates(&mut bench).remove(0);
    carry_out(&mut bench, asked);
    // Nothing happens.
    std::mem::take(&mut bench.out);
    bench.now = bench.now + Duration::from_secs(599);
    bench.step(ApiInput::Wake);
    assert_eq!(told(&mut bench), [""; 0]);
    bench.now = bench.now + Duration::from_secs(1);
    bench.step(ApiInput::Wake);
    assert_eq!(told(&mut bench), [failed("context deadline exceeded")]);
    // The claim is deleted.
    bench.now = bench.scheduler.wake_at().unwrap();
    bench.step(ApiInput::Wake);
    std::mem::take(&mut bench.out);
    bench.revision += 1;
    let key = Key::new(Kind::PersistentVolumeClaim, "d", "c");
    let revision = Revision(bench.revision);
    bench.step(ApiInput::Watch(WatchEvent::Deleted { key, revision }));
    assert_eq!(told(&mut bench), [failed("persistentvolumeclaim \"c\" not found")]);
}

#[test]
fn classes_name_the_places_where_volumes_are_made() {
    let mut bench = bench();
    bench.change(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "s"}, "provisioner": "a.io/b",
        "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies":
            [{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["n2"]}]}]}));
    claim(&mut bench, "c");
    pod(&mut bench, "p", "c");
    let asked = updates(&mut bench);
    let annotations = &asked[0].1["metadata"]["annotations"];
    assert_eq!(annotations["volume.kubernetes.io/selected-node"], "n2");
}

#[test]
fn a_pod_that_goes_gives_its_place_back() {
    let mut bench = bench();
    claim(&mut bench, "c");
    pod(&mut bench, "p", "c");
    assert_eq!(bench.scheduler.snapshot().nodes().map(|n| n.pods).sum::<i64>(), 1);
    bench.delete("p");
    assert_eq!(bench.scheduler.snapshot().nodes().map(|n| n.pods).sum::<i64>(), 0);
    assert_eq!(bench.scheduler.wake_at(), None);
}

#[test]
fn a_pod_that_shall_go_is_not_bound_when_its_claims_are() {
    let mut bench = bench();
    claim(&mut bench, "c");
    pod(&mut bench, "p", "c");
    let mut asked = updates(&mut bench);
    let node = asked[0].1["metadata"]["annotations"]["volume.kubernetes.io/selected-node"].clone();
    carry_out(&mut bench, asked.remove(0));
    bench.change(json!({"apiVersion": "v1", "kind": "Pod", "metadata":
        {"name": "p", "namespace": "d", "uid": "u-p",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x.io/y"]},
        "spec": {"containers": [], "volumes":
            [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}));
    assert_eq!(bench.scheduler.snapshot().nodes().map(|n| n.pods).sum::<i64>(), 0);
    volume(&mut bench, "v", node.as_str().unwrap(), "c");
    bound_claim(&mut bench, "c", "v");
    assert_eq!((bench.settle(), bench.scheduler.wake_at()), (vec![], None));
}

/// How many volumes of a driver a node takes.
fn limit(bench: &mut Bench, node: &str, driver: &str, count: u32) {
    bench.change(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": node}, "spec": {"drivers": [
            {"name": driver, "nodeID": node, "allocatable": {"count": count}},
            {"name": "unlimited.x", "nodeID": node}]}}));
}

/// A claim with a volume of a driver.
fn attached(bench: &mut Bench, claim: &str, driver: &str, handle: &str) {
    let volume = format!("v-{claim}");
    bench.change(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata":
        {"name": volume}, "spec": {"csi": {"driver": driver, "volumeHandle": handle},
            "claimRef": {"namespace": "d", "name": claim, "uid": format!("u-{claim}")}}}));
    bound_claim(bench, claim, &volume);
}

fn too_many(nodes: usize) -> String {
    format!("0/2 nodes are available: {nodes} node(s) exceed max volume count. preemption: ")
}

#[test]
fn a_node_takes_so_many_volumes_of_a_driver() {
    let mut bench = bench();
    for name in ["n1", "n2"] {
        limit(&mut bench, name, "disk.x", 1);
    }
    for (claim, driver, handle) in
        [("a", "disk.x", "1"), ("b", "disk.x", "2"), ("c", "disk.x", "3"), ("same", "disk.x", "1")]
    {
        attached(&mut bench, claim, driver, handle);
    }
    attached(&mut bench, "free", "unlimited.x", "1");
    pod_on(&mut bench, "p", "a", "n1");
    pod(&mut bench, "q", "b");
    assert_eq!(bench.settle(), [("q".to_owned(), "n2".to_owned())]);
    // Two claims of one volume are one volume; other drivers do not matter.
    pod(&mut bench, "r", "same");
    assert_eq!(bench.settle(), [("r".to_owned(), "n1".to_owned())]);
    pod(&mut bench, "s", "free");
    assert_eq!(bench.settle().len(), 1);
    pod(&mut bench, "t", "c");
    let message = told(&mut bench).concat();
    assert!(message.starts_with(&too_many(2)), "{message}");
    // As long as another pod there uses the volume nothing is free.
    bench.delete("p");
    bench.settle();
    assert!(bench.scheduler.snapshot().pod(&Key::new(Kind::Pod, "d", "t")).is_none());
    std::mem::take(&mut bench.out);
    bench.delete("r");
    assert_eq!(bench.settle(), [("t".to_owned(), "n1".to_owned())]);
}

#[test]
fn a_pod_is_tried_again_when_a_node_takes_more_volumes() {
    let mut bench = bench();
    for name in ["n1", "n2"] {
        limit(&mut bench, name, "disk.x", 0);
    }
    attached(&mut bench, "a", "disk.x", "1");
    std::mem::take(&mut bench.out);
    pod(&mut bench, "p", "a");
    assert!(told(&mut bench).concat().starts_with(&too_many(2)));
    // A node that sets no limit for the driver takes any number.
    limit(&mut bench, "n1", "other.x", 5);
    assert_eq!(bench.settle(), [("p".to_owned(), "n1".to_owned())]);
    attached(&mut bench, "b", "disk.x", "2");
    std::mem::take(&mut bench.out);
    limit(&mut bench, "n1", "disk.x", 1);
    pod(&mut bench, "q", "b");
    assert!(told(&mut bench).concat().starts_with(&too_many(2)));
    // Fewer is no reason to look again.
    limit(&mut bench, "n1", "disk.x", 0);
    assert_eq!(bench.scheduler.wake_at(), None);
    limit(&mut bench, "n2", "disk.x", 1);
    assert_eq!(bench.settle(), [("q".to_owned(), "n2".to_owned())]);
}

#[test]
fn volumes_that_are_not_made_yet_count_for_the_driver_of_their_class() {
    let mut bench = bench();
    class(&mut bench, "disk.x", "WaitForFirstConsumer");
    limit(&mut bench, "n1", "disk.x", 1);
    limit(&mut bench, "n2", "disk.x", 0);
    claim(&mut bench, "a");
    claim(&mut bench, "b");
    pod(&mut bench, "p", "a");
    let asked = updates(&mut bench).remove(0);
    assert_eq!(asked.1["metadata"]["annotations"]["volume.kubernetes.io/selected-node"], "n1");
    carry_out(&mut bench, asked);
    std::mem::take(&mut bench.out);
    pod(&mut bench, "q", "b");
    assert!(told(&mut bench).concat().starts_with(&too_many(2)));
    // A pod of the claim itself would bring no new volume.
    attached(&mut bench, "a", "disk.x", "1");
    assert_eq!(bench.settle(), [("p".to_owned(), "n1".to_owned())]);
    pod(&mut bench, "r", "a");
    assert_eq!(bench.settle(), [("r".to_owned(), "n1".to_owned())]);
}

#[test]
fn pods_are_displaced_for_their_volumes() {
    let mut bench = bench();
    limit(&mut bench, "n1", "disk.x", 1);
    limit(&mut bench, "n2", "disk.x", 0);
    attached(&mut bench, "a", "disk.x", "1");
    attached(&mut bench, "b", "disk.x", "2");
    pod_on(&mut bench, "low", "a", "n1");
    bench.pod("bystander", "100m", "n1");
    std::mem::take(&mut bench.out);
    bench.change(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "high", "namespace": "d", "uid": "u-high"},
        "spec": {"priority": 5, "containers": [], "volumes":
            [{"name": "v", "persistentVolumeClaim": {"claimName": "b"}}]}}));
    let marked = bench.out.iter().filter_map(|effect| match effect {
        ApiEffect::Call { request: Request::Patch { key, .. }, .. } => Some(key.name.to_string()),
        _ => None,
    });
    assert_eq!(marked.collect::<Vec<_>>(), ["high", "low"]);
}
