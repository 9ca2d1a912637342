use std::num::NonZeroU32;

use api::{Revision, Time, codec};
use machine::{ApiEffect, ApiInput, Machine, RngTree, WatchEvent};
use scheduler::{Desk, SchedulerConfig};
use serde_json::{Value, json};

use super::*;

const NOW: Time = Time::from_secs(100);

/// A scheduler that knows these objects.
fn scheduler(nodes: usize, pods: &[Value], compare: bool) -> Recorded<Scheduler> {
    let desk = Desk::new(&SchedulerConfig::default()).unwrap();
    let mut scheduler = Scheduler::new(desk, None, &RngTree::new(1));
    scheduler.compare_decisions(NonZeroU32::new(1).filter(|_| compare));
    let node = |i: usize| {
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("n{i:03}"), "resourceVersion": "1"},
            "status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "10"}}})
    };
    let nodes: Vec<Value> = (0..nodes).map(node).collect();
    let decode = |value: &Value| codec::decode_any(value.to_string().as_bytes()).unwrap();
    for kind in Scheduler::KINDS {
        let values = match kind {
            Kind::Node => nodes.as_slice(),
            Kind::Pod => pods,
            _ => &[],
        };
        let objects = values.iter().map(decode).collect();
        let event = WatchEvent::Replaced { kind: *kind, objects, revision: Revision(1) };
        let mut out: Vec<ApiEffect> = Vec::new();
        scheduler.step(NOW, ApiInput::Watch(event), &mut out);
    }
    Recorded::silent(scheduler)
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": "1"},
        "spec": {"schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

/// Asks, lets the watcher look once, and gives the page.
fn ask(scheduler: &Recorded<Scheduler>, query: &str) -> Page {
    let (vitals, mut watcher) = pair("kube-scheduler", false);
    match vitals.ask(EXPLAIN, query).unwrap() {
        Ok(mut later) => {
            watcher.observe(scheduler);
            later.try_recv().unwrap()
        }
        Err(page) => page,
    }
}

#[tokio::test]
async fn explains_pods_that_have_a_node_and_pods_that_have_none() {
    let scheduler = scheduler(3, &[pod("a", "1"), pod("big", "3")], false);
    let placed = ask(&scheduler, "pod=d/a");
    assert_eq!(placed.code, StatusCode::OK);
    let text = &placed.text;
    assert!(text.starts_with("d/a is on n0"), "{text}");
    assert!(text.contains("3 of 3 nodes were looked at") && text.contains("NodeResourcesFit"));
    assert!(!text.contains("does not lead"), "{text}");
    let pending = ask(&scheduler, "pod=d%2Fbig&output=json");
    assert_eq!((pending.code, pending.kind), (StatusCode::OK, JSON));
    let value: Value = serde_json::from_str(&pending.text).unwrap();
    assert_eq!(value["leads"], true);
    let explanation = &value["explanation"];
    let message = explanation["message"].as_str().unwrap();
    assert!(message.starts_with("0/3 nodes are available: 3 Insufficient cpu."), "{message}");
    assert_eq!(explanation["rejected"][0]["reasons"], json!(["Insufficient cpu"]));
    assert_eq!(ask(&scheduler, "pod=d/other").code, StatusCode::NOT_FOUND);
    for wrong in ["", "pod=", "pod=d", "pod=d/", "pod=/a", "pod=d/a/b", "pod=d/a&output=xml", "x"] {
        assert_eq!(ask(&scheduler, wrong).code, StatusCode::BAD_REQUEST, "{wrong:?}");
    }
}

#[tokio::test]
async fn large_clusters_are_summed_up() {
    let scheduler = scheduler(300, &[pod("big", "3")], false);
    let page = ask(&scheduler, "pod=d/big&output=json");
    let value: Value = serde_json::from_str(&page.text).unwrap();
    let explanation = &value["explanation"];
    assert_eq!(explanation["rejected"].as_array().unwrap().len(), NODES_MAX);
    assert_eq!(explanation["omitted"]["rejected"], 300 - NODES_MAX);
    assert_eq!(explanation["causes"][0]["nodes"], 300);
    let text = ask(&scheduler, "pod=d/big").text;
    assert!(text.contains(&format!(" and {} more", 300 - NODES_MAX)), "{text}");
}

#[tokio::test]
async fn questions_are_bounded_and_answered_between_steps() {
    let scheduler = scheduler(1, &[pod("a", "1")], false);
    let (vitals, mut watcher) = pair("kube-scheduler", false);
    let asked = |vitals: &Vitals| vitals.ask(EXPLAIN, "pod=d/a").unwrap();
    let mut waiting: Vec<_> = (0..QUESTIONS_MAX).map(|_| asked(&vitals).unwrap()).collect();
    assert_eq!(asked(&vitals).unwrap_err().code, StatusCode::SERVICE_UNAVAILABLE);
    for later in &mut waiting {
        // Nothing happens to the machine.
        watcher.wanted().await;
        watcher.observe(&scheduler);
        assert_eq!(later.try_recv().unwrap().code, StatusCode::OK);
    }
    // One who asked and went away costs nothing, and a question is not lost with a call that is.
    drop(asked(&vitals));
    let mut later = asked(&vitals).unwrap();
    for _ in 0..2 {
        let _ = futures::poll!(std::pin::pin!(watcher.wanted()));
        watcher.rests_until = Instant::now();
        watcher.observe(&scheduler);
    }
    assert_eq!(later.try_recv().unwrap().code, StatusCode::OK);
    // Decisions come first for a while after an explanation that took long.
    let mut later = asked(&vitals).unwrap();
    watcher.rests_until = Instant::now() + Duration::from_secs(3600);
    watcher.observe(&scheduler);
    assert!(later.try_recv().is_err());
    assert_eq!(rest(Duration::from_secs(2)), Duration::from_secs(8));
    assert!(vitals.ask("/debug/other", "").is_none());
}

#[tokio::test]
async fn comparisons_are_counted() {
    let scheduler = scheduler(2, &[pod("a", "1"), pod("b", "1")], true);
    let (vitals, mut watcher) = pair("kube-scheduler", true);
    watcher.observe(&scheduler);
    let metrics = vitals.metrics();
    assert!(metrics.contains("\nkprov_scheduler_compared_decisions_total 2\n"), "{metrics}");
    assert!(metrics.contains("\nkprov_scheduler_different_decisions_total 0\n"), "{metrics}");
    assert!(metrics.contains("\nscheduler_pending_pods 2\n"), "{metrics}");
    let (vitals, _) = pair("kube-scheduler", false);
    assert!(!vitals.metrics().contains("kprov_"));
}
