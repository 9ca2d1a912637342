//! A scheduler that displaces pods, call by call.

#![expect(clippy::needless_pass_by_value, reason = "manifests read better without borrows")]

use api::Status;
use api::status::Reason;

use super::*;

/// A pod of that priority that asks for so many processors; `status` may be null.
fn pod(name: &str, cpu: u32, priority: i32, node: &str, status: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"priority": priority, "containers":
            [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]},
        "status": status});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// A pod that a scheduler has marked; terminating, if `deleted`.
fn marked(name: &str, cpu: u32, node: &str, deleted: bool) -> Value {
    let mut pod = pod(
        name,
        cpu,
        0,
        node,
        json!({"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": "default-scheduler: preempting to accommodate a higher priority pod"}]}),
    );
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:40Z");
    }
    pod
}

fn refused(reason: Reason) -> Result<Reply, ApiError> {
    Err(Status::new(reason, "no").into())
}

impl Bench {
    /// Nodes of four processors, and on each a pod `low-NODE` that takes all of it.
    fn full(nodes: &[&str]) -> Self {
        let mut bench = Self::new();
        for node in nodes {
            bench.node(node, "4");
            bench.change(pod(&format!("low-{node}"), 4, 0, node, Value::Null));
        }
        bench.out.clear();
        bench
    }

    /// What was done since the last question, in words, and the calls among it.
    fn done(&mut self) -> (Vec<String>, Vec<CallId>) {
        let mut ids = Vec::new();
        let words = std::mem::take(&mut self.out).into_iter().map(|effect| match effect {
            ApiEffect::Record(report) => {
                let record = report.record;
                let about = record.regarding.name;
                format!("{} {about}: {}", record.reason, record.message)
            }
            ApiEffect::Call { id, request } => {
                ids.push(id);
                match request {
                    Request::Patch { key, patch, .. } => {
                        let body = patch.body.json();
                        assert_eq!(body["metadata"]["uid"], json!(format!("u-{}", key.name)));
                        let status = body["status"].as_object().unwrap().clone();
                        let condition = &body["status"]["conditions"][0];
                        let mut words = vec![format!("patch {}", key.name)];
                        if condition.is_object() {
                            let (kind, why) = (&condition["type"], &condition["reason"]);
                            words.push(format!("{kind} {why}").replace('"', ""));
                        }
                        if let Some(node) = status.get("nominatedNodeName") {
                            words.push(format!("node {node}").replace('"', ""));
                        }
                        words.join(", ")
                    }
                    Request::Delete { key, uid, .. } => {
                        format!("delete {} {}", key.name, uid.unwrap_or_default())
                    }
                    Request::Bind { pod, node, .. } => format!("bind {} {node}", pod.name),
                    Request::Get(key) => format!("get {}", key.name),
                    other => format!("{other:?}"),
                }
            }
        });
        (words.collect(), ids)
    }

    /// Expects exactly this to have been done; gives the calls among it.
    #[track_caller]
    fn expect(&mut self, expected: &[&str]) -> Vec<CallId> {
        let (words, ids) = self.done();
        assert_eq!(words, expected);
        ids
    }

    fn fine(&mut self, id: CallId) {
        self.reply(id, Ok(Reply::Done(Revision(1))));
    }

    /// The API has noted that a node is cleared for `high`.
    fn noted(&mut self, id: CallId, node: &str) {
        self.change(pod("high", 4, 9, "", json!({"nominatedNodeName": node})));
        self.fine(id);
    }

    /// Lets the pods that back off have their turn.
    fn wait(&mut self) {
        if let Some(at) = self.scheduler.wake_at() {
            self.now = self.now.max(at);
            self.step(ApiInput::Wake);
        }
    }

    /// A pod `high` displaces what is on `n1`, of which all is answered well and seen.
    fn displaced(&mut self) {
        self.change(pod("high", 4, 9, "", Value::Null));
        let (_, ids) = self.done();
        self.noted(ids[0], "n1");
        self.fine(ids[1]);
        let (_, ids) = self.done();
        self.reply(ids[0], Ok(Reply::Done(Revision(self.revision + 1))));
        self.change(marked("low-n1", 4, "n1", true));
        self.out.clear();
    }
}

const UNFIT: &str = "FailedScheduling high: 0/1 nodes are available: 1 Insufficient cpu.";
const NOMINATES: &str = "patch high, PodScheduled Unschedulable, node n1";
const MARKS: &str = "patch low-n1, DisruptionTarget PreemptionByScheduler";

#[test]
fn marks_deletes_waits_and_binds() {
    let mut bench = Bench::full(&["n1"]);
    bench.change(pod("high", 4, 9, "", Value::Null));
    let effects = bench.out.clone();
    let ids = bench.expect(&[UNFIT, NOMINATES, MARKS]);
    let mark = effects.iter().find_map(|effect| match effect {
        ApiEffect::Call { id, request: Request::Patch { patch, .. } } if *id == ids[1] => {
            Some(patch.body.json()["status"]["conditions"][0].clone())
        }
        _ => None,
    });
    insta::assert_snapshot!(mark.unwrap(), @r#"{"lastTransitionTime":"1970-01-01T00:01:40Z","message":"default-scheduler: preempting to accommodate a higher priority pod","reason":"PreemptionByScheduler","status":"True","type":"DisruptionTarget"}"#);
    bench.fine(ids[1]);
    let deletion = bench.expect(&["delete low-n1 u-low-n1"]);
    bench.fine(ids[0]);
    bench.expect(&[]);
    bench.reply(deletion[0], Ok(Reply::Done(Revision(50))));
    bench.expect(&["Preempted low-n1: Preempted by pod u-high on node n1"]);
    // Nobody takes the place that becomes free, whether the API tells for whom or not.
    bench.change(pod("high", 4, 9, "", json!({"nominatedNodeName": "n1"})));
    bench.delete("low-n1");
    bench.change(pod("mid", 4, 9, "", Value::Null));
    let (words, _) = bench.done();
    assert!(words.iter().all(|w| !w.starts_with("bind")), "{words:?}");
    bench.revision = 50;
    bench.change(pod("high", 4, 9, "", json!({"nominatedNodeName": "n1"})));
    bench.wait();
    let (words, _) = bench.done();
    assert!(words.contains(&"bind high n1".to_owned()), "{words:?}");
}

#[test]
fn what_is_not_marked_is_not_deleted() {
    for (answer, again) in [
        (refused(Reason::Forbidden), true),
        (refused(Reason::Conflict), true),
        (Err(ApiError::Unknown("lost".into())), true),
        (Err(ApiError::Unreachable("down".into())), true),
        (refused(Reason::NotFound), false),
    ] {
        let mut bench = Bench::full(&["n1"]);
        bench.change(pod("high", 4, 9, "", Value::Null));
        let ids = bench.expect(&[UNFIT, NOMINATES, MARKS]);
        bench.noted(ids[0], "n1");
        bench.reply(ids[1], answer);
        bench.expect(&[]);
        // It tries again after a while, if anybody is there.
        bench.wait();
        let (words, _) = bench.done();
        assert_eq!(words.contains(&MARKS.to_owned()), again, "{words:?}");
    }
}

#[test]
fn marked_pods_are_not_marked_again() {
    let mut bench = Bench::full(&["n1"]);
    bench.change(marked("low-n1", 4, "n1", false));
    bench.change(pod("high", 4, 9, "", Value::Null));
    bench.expect(&[UNFIT, NOMINATES, "delete low-n1 u-low-n1"]);
}

#[test]
fn a_lost_deletion_is_looked_up() {
    let stored = |value: Value| {
        let mut value = value;
        value["metadata"]["resourceVersion"] = json!("40");
        Ok(Reply::Object(codec::decode_any(value.to_string().as_bytes()).unwrap()))
    };
    let mut other = marked("low-n1", 4, "n1", false);
    other["metadata"]["uid"] = json!("another");
    for (answer, again) in [
        (stored(marked("low-n1", 4, "n1", true)), false),
        (stored(other), false),
        (refused(Reason::NotFound), false),
        (stored(marked("low-n1", 4, "n1", false)), true),
        (Err(ApiError::Unknown("lost".into())), true),
    ] {
        let mut bench = Bench::full(&["n1"]);
        bench.change(marked("low-n1", 4, "n1", false));
        bench.change(pod("high", 4, 9, "", Value::Null));
        let (_, ids) = bench.done();
        bench.noted(ids[0], "n1");
        bench.reply(ids[1], Err(ApiError::Unknown("lost".into())));
        let ids = bench.expect(&["get low-n1"]);
        bench.reply(ids[0], answer);
        let (words, _) = bench.done();
        assert_eq!(words.iter().any(|w| w.starts_with("Preempted ")), !again, "{words:?}");
        // Until its end is seen nothing is decided.
        bench.wait();
        let (words, _) = bench.done();
        assert_eq!(words.contains(&"delete low-n1 u-low-n1".to_owned()), again, "{words:?}");
    }
}

#[test]
fn several_pods_take_several_nodes() {
    let mut bench = Bench::full(&["n1", "n2", "n3"]);
    for name in ["a", "b", "c", "d"] {
        bench.change(pod(name, 4, 9, "", Value::Null));
    }
    let (words, _) = bench.done();
    let marked: BTreeSet<&String> =
        words.iter().filter(|w| w.contains("DisruptionTarget")).collect();
    assert_eq!(marked.len(), 3, "{words:?}");
    // To the last the places count as taken, though those who shall go are still there.
    let failed = "FailedScheduling d: 0/3 nodes are available: 3 Insufficient cpu. preemption: \
                  0/3 nodes are available: 3 Insufficient cpu.";
    assert!(words.contains(&failed.to_owned()), "{words:?}");
}

#[test]
fn decides_no_more_before_it_has_seen_what_it_did() {
    let mut bench = Bench::full(&["n1", "n2"]);
    bench.change(pod("other", 1, 0, "n9", Value::Null));
    bench.change(pod("high", 4, 9, "", Value::Null));
    let (words, ids) = bench.done();
    let victim = if words[2].contains("low-n1") { "n1" } else { "n2" };
    bench.noted(ids[0], victim);
    bench.fine(ids[1]);
    let (_, ids) = bench.done();
    bench.reply(ids[0], Ok(Reply::Done(Revision(60))));
    bench.out.clear();
    // Something frees a place, for which it would be tried, and would not fit.
    bench.delete("other");
    bench.now = bench.now + Duration::from_secs(60);
    bench.step(ApiInput::Wake);
    bench.expect(&[]);
    // Then the end of the victim is seen, and it is tried for what happened meanwhile.
    bench.revision = 60;
    bench.change(marked(&format!("low-{victim}"), 4, victim, true));
    bench.wait();
    let (words, _) = bench.done();
    let waits = "preemption: not eligible due to a terminating pod on the nominated node.";
    assert!(words[0].ends_with(waits), "{words:?}");
    bench.delete(&format!("low-{victim}"));
    bench.wait();
    let (words, _) = bench.done();
    assert!(words.contains(&format!("bind high {victim}")), "{words:?}");
}

#[test]
fn a_higher_pod_takes_the_node_of_a_lower_one() {
    let mut bench = Bench::full(&["n1"]);
    bench.displaced();
    bench.change(pod("high", 4, 9, "", json!({"nominatedNodeName": "n1"})));
    bench.change(pod("higher", 4, 10, "", Value::Null));
    let (words, _) = bench.done();
    assert!(words.contains(&"patch high, node null".to_owned()), "{words:?}");
    assert!(words.contains(&"delete low-n1 u-low-n1".to_owned()), "{words:?}");
    bench.change(pod("high", 4, 9, "", Value::Null));
    bench.delete("low-n1");
    let nomination = bench.scheduler.snapshot.nominated_node(&Key::new(Kind::Pod, "d", "high"));
    assert_eq!(nomination, None);
}

#[test]
fn a_new_process_finds_all_it_needs() {
    // Of the one before: `high` was promised `n1`, and the pod there has gone.
    let mut bench = Bench::new();
    bench.node("n1", "4");
    bench.scheduler.cache = Cache::default();
    bench.change(pod("low", 2, 0, "", Value::Null));
    bench.change(pod("high", 4, 9, "", json!({"nominatedNodeName": "n1"})));
    bench.expect(&[]);
    for kind in Scheduler::KINDS {
        let objects = bench.scheduler.cache.objects(*kind).cloned().collect();
        let revision = Revision(bench.revision);
        bench.step(ApiInput::Watch(WatchEvent::Replaced { kind: *kind, objects, revision }));
    }
    let (words, _) = bench.done();
    assert_eq!(words[0], "bind high n1");
    assert!(words[1].starts_with("FailedScheduling low: 0/1 nodes"), "{words:?}");
}

#[test]
fn a_promise_that_is_of_no_use_is_taken_back() {
    let mut bench = Bench::full(&["n1"]);
    bench.displaced();
    bench.change(pod("high", 4, 9, "", json!({"nominatedNodeName": "n1"})));
    // The node is given to a pod that need not go.
    bench.change(pod("guest", 1, 10, "n1", Value::Null));
    bench.delete("low-n1");
    bench.wait();
    let (words, ids) = bench.done();
    assert!(words.contains(&NOMINATES.replace("n1", "null")), "{words:?}");
    // A failure to say so is made up for.
    bench.reply(*ids.last().unwrap(), Err(ApiError::Unreachable("down".into())));
    bench.node("n1", "2");
    bench.delete("guest");
    bench.wait();
    let (words, _) = bench.done();
    assert!(words.contains(&NOMINATES.replace("n1", "null")), "{words:?}");
}

#[test]
fn pods_that_wait_for_a_promised_place_learn_that_it_is_free() {
    let mut bench = Bench::new();
    bench.node("n1", "4");
    bench.change(pod("gated", 4, 9, "", json!({"nominatedNodeName": "n1"})));
    let (_, ids) = bench.done();
    assert_eq!(ids.len(), 1);
    // Its binding fails, it keeps its promise, and the other must wait.
    bench.reply(ids[0], Err(ApiError::Unreachable("down".into())));
    bench.change(pod("low", 4, 0, "", Value::Null));
    let (words, _) = bench.done();
    assert!(words[0].starts_with("FailedScheduling low"), "{words:?}");
    bench.delete("gated");
    bench.wait();
    bench.expect(&["bind low n1"]);
}

#[test]
fn budgets_and_labels_are_known_in_any_order() {
    let budget = |allowed: i32, app: &str| {
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "d", "uid": "u-b"},
            "spec": {"selector": {"matchLabels": {"app": app}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                "expectedPods": 1}})
    };
    let labelled = |node: &str, app: &str| {
        let mut pod =
            pod(&format!("low-{node}"), 4, if node == "n1" { 0 } else { 1 }, node, Value::Null);
        pod["metadata"]["labels"] = json!({"app": app});
        pod
    };
    let victim = |bench: &mut Bench| {
        bench.change(pod("high", 4, 9, "", Value::Null));
        let (words, _) = bench.done();
        words.into_iter().find(|w| w.contains("DisruptionTarget")).unwrap()
    };
    let marks = |node: &str| MARKS.replace("n1", node);
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut bench = Bench::full(&["n1", "n2"]);
        for step in order {
            bench.change(match step {
                0 => budget(0, "web"),
                1 => labelled("n1", "web"),
                _ => labelled("n2", "db"),
            });
        }
        assert_eq!(victim(&mut bench), marks("n2"));
    }
    // Later changes count, too.
    let changes: [&dyn Fn(&mut Bench); 4] = [
        &|bench| bench.change(budget(1, "web")),
        &|bench| bench.change(budget(0, "db")),
        &|bench| bench.change(labelled("n1", "other")),
        &|bench| {
            let key = Key::new(Kind::PodDisruptionBudget, "d", "b");
            let revision = Revision(bench.revision + 1);
            bench.step(ApiInput::Watch(WatchEvent::Deleted { key, revision }));
        },
    ];
    for change in changes {
        let mut bench = Bench::full(&["n1", "n2"]);
        bench.change(budget(0, "web"));
        bench.change(labelled("n1", "web"));
        bench.change(labelled("n2", "db"));
        change(&mut bench);
        assert_eq!(victim(&mut bench), marks("n1"));
    }
}
