//! A kubelet whose periodic duties someone else does for it does everything else as ever.

use std::time::Duration;

use api::{Key, Kind};
use k8s_openapi::api::core::v1::Node;
use machine::Machine;
use proptest::prelude::*;
use serde_json::json;

use super::World;
use super::properties::{act, play_with};
use crate::runtime::{NodeInput, RuntimeEvent, RuntimeInput};

/// The effects that are no periodic duty, without what depends on how many writes and calls there
/// were: revisions and identifiers of calls.
fn lasting(w: &World) -> Vec<String> {
    let periodic = |line: &str| {
        ["ReadFacts", "request: List", "Lease", "kind: Node"].iter().any(|p| line.contains(p))
    };
    w.log.iter().filter(|line| !periodic(line)).map(|line| without_counters(line)).collect()
}

fn without_counters(line: &str) -> String {
    let mut text = line.to_owned();
    for (start, end) in [("CallId(", ")"), ("Revision(", ")"), ("resource_version: Some(\"", "\"")]
    {
        let mut parts = text.split(start);
        let mut rest = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            rest.push_str(part.split_once(end).map_or(part, |(_, tail)| tail));
        }
        text = rest;
    }
    text
}

fn ready(w: &World) -> String {
    let node = w.objects[&Key::cluster(Kind::Node, "n1")].get::<Node>().unwrap();
    let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    conditions.iter().find(|c| c.type_ == "Ready").unwrap().status.clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pods_do_not_see_who_does_the_duties(acts in proptest::collection::vec(act(), 1..25)) {
        let mut open = play_with(&acts, |_| false);
        open.run_for(700);
        for every in [1, 2] {
            let mut closed = play_with(&acts, |place| place % every == 0);
            closed.run_for(700);
            prop_assert_eq!(lasting(&open), lasting(&closed));
            prop_assert_eq!(ready(&open), ready(&closed));
        }
    }
}

#[test]
fn a_settled_kubelet_without_pods_waits_for_nothing() {
    let mut w = World::cold();
    assert!(!w.kubelet.is_settled());
    assert_eq!(w.kubelet.work_at(), w.kubelet.wake_at());
    w.boot();
    w.run_for(30);
    assert!(w.kubelet.is_settled());
    assert_eq!(w.kubelet.work_at(), None);
    let effects = w.log.len();
    w.closed_form = true;
    w.run_for(3_600);
    assert_eq!(w.log.len(), effects);
    // A pod comes and goes, and no duty is repeated for it.
    w.pod("web", json!({"containers": [{"name": "app", "image": "web:1"}]}));
    w.run_for(1);
    assert_eq!(w.line("web"), "Running ready=True app=running");
    let noise = |line: &String| line.contains("ReadFacts") || line.contains("Lease(");
    assert!(!w.log[effects..].iter().any(noise), "{:#?}", &w.log[effects..]);
    // Then it does them itself again, from the lease that it is given.
    w.closed_form = false;
    let lease = w.objects[&Key::new(Kind::Lease, "kube-node-lease", "n1")].clone();
    w.kubelet.duties_done(w.now, Some(&lease));
    let next = w.kubelet.wake_at().unwrap();
    assert!(next > w.now && next <= w.now + Duration::from_secs(10));
    let effects = w.log.len();
    w.run_for(10);
    let renewed: Vec<&String> = w.log[effects..].iter().filter(|l| l.contains("Lease(")).collect();
    assert_eq!(renewed.len(), 1);
    let revision = lease.revision().0;
    assert!(renewed[0].contains(&format!("resource_version: Some(\"{revision}\")")));
}

#[test]
fn duties_keep_their_phase() {
    let mut open = World::new();
    let mut closed = World::new();
    for w in [&mut open, &mut closed] {
        w.run_for(20);
    }
    closed.closed_form = true;
    open.run_for(995);
    closed.run_for(995);
    closed.closed_form = false;
    let lease = closed.objects[&Key::new(Kind::Lease, "kube-node-lease", "n1")].clone();
    closed.kubelet.duties_done(closed.now, Some(&lease));
    let times = |w: &mut World| -> Vec<String> {
        let from = w.log.len();
        w.run_for(60);
        let lines =
            w.log[from..].iter().filter(|l| l.contains("ReadFacts") || l.contains("Lease("));
        lines.map(|l| l.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(times(&mut open), times(&mut closed));
}

#[test]
fn trouble_unsettles() {
    let event = |e| NodeInput::Runtime(RuntimeInput::Event(e));
    let mut w = World::new();
    w.run_for(30);
    assert!(w.kubelet.is_settled());
    w.feed(event(RuntimeEvent::Disconnected { reason: "gone".into() }));
    assert!(!w.kubelet.is_settled());
    assert_eq!(w.kubelet.work_at(), w.kubelet.wake_at());
    w.feed(event(RuntimeEvent::Connected));
    w.run_for(30);
    assert!(w.kubelet.is_settled());
    // So does a kubelet that comes back.
    w.restart_kubelet();
    w.run_for(30);
    assert!(w.kubelet.is_settled());
    assert_eq!(ready(&w), "True");
}
