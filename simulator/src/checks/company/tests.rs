use serde_json::{Value, json};

use super::*;
use crate::checks::made_up::{Case, merge, node, placed, pod, pod_key};

const ZONE: &str = "zone";

fn zoned(name: &str, zone: &str) -> Value {
    node(name, &json!({"metadata": {"labels": {ZONE: zone}}}))
}

/// A pod of an app that asks for a term of that kind about pods of another app.
fn asking(name: &str, app: &str, kind: &str, about: &str) -> Value {
    let term = json!({"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": about}}});
    let spec = match kind {
        "spread" => {
            let mut constraint = term;
            merge(&mut constraint, &json!({"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}));
            json!({"topologySpreadConstraints": [constraint]})
        }
        kind => {
            json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
        }
    };
    pod(name, &json!({"metadata": {"labels": {"app": app}}, "spec": spec}))
}

fn of_app(name: &str, app: &str, node: &str) -> Value {
    let mut value = placed(name, node, "Running");
    merge(&mut value, &json!({"metadata": {"labels": {"app": app}}}));
    value
}

/// Three nodes in two zones, and pods, all of which the scheduler was shown.
fn case(check: KeepsCompany, pods: &[Value]) -> (Case<KeepsCompany>, ProcessId) {
    let mut case = Case::new(check);
    let scheduler = case.scheduler();
    let nodes = [zoned("n1", "a"), zoned("n2", "a"), zoned("n3", "b")];
    for value in nodes.iter().chain(pods) {
        let key = case.put(None, value).key();
        case.show(scheduler, &key);
    }
    (case, scheduler)
}

fn bind(case: &mut Case<KeepsCompany>, by: ProcessId, name: &str, node: &str) {
    let uid = format!("u-{name}");
    case.call(by, &Request::Bind { pod: pod_key(name), uid, node: node.to_owned() });
}

#[test]
fn p12_apart_in_both_directions() {
    let pods = [
        of_app("web", "web", "n1"),
        asking("shy", "shy", "podAntiAffinity", "web"),
        pod("plain", &json!({"metadata": {"labels": {"app": "web"}}})),
    ];
    let (mut case, scheduler) = case(KeepsCompany::apart(), &pods);
    bind(&mut case, scheduler, "shy", "n2");
    case.is_wrong(&["scheduler-0 binds pods/d/shy to n2 although it must be apart from web"]);
    bind(&mut case, scheduler, "shy", "n3");
    case.is_right();
    // What it has bound and knows to be bound counts; and what must be apart keeps others away.
    let mut bound = asking("shy", "shy", "podAntiAffinity", "web");
    bound["spec"]["nodeName"] = json!("n3");
    case.put(None, &bound);
    bind(&mut case, scheduler, "plain", "n3");
    case.is_wrong(&["binds pods/d/plain to n3 although it must be apart from shy"]);
    bind(&mut case, scheduler, "plain", "n1");
    case.is_right();
}

#[test]
fn p13_near_or_the_first_of_its_kind() {
    let pods = [
        of_app("db", "db", "n3"),
        asking("web", "web", "podAffinity", "db"),
        asking("lonely", "lonely", "podAffinity", "nobody"),
        asking("first", "group", "podAffinity", "group"),
        asking("second", "group", "podAffinity", "group"),
    ];
    let (mut case, scheduler) = case(KeepsCompany::near(), &pods);
    bind(&mut case, scheduler, "web", "n3");
    case.is_right();
    bind(&mut case, scheduler, "web", "n1");
    case.is_wrong(&[
        "binds pods/d/web to n1 although no pod that it must be near to is in its zone",
    ]);
    bind(&mut case, scheduler, "lonely", "n1");
    case.is_wrong(&["binds pods/d/lonely to n1"]);
    bind(&mut case, scheduler, "first", "n1");
    case.is_right();
    bind(&mut case, scheduler, "second", "n3");
    case.is_wrong(&["binds pods/d/second to n3"]);
    bind(&mut case, scheduler, "second", "n2");
    case.is_right();
}

#[test]
fn p13_a_refusal_counts_when_the_scheduler_has_heard_of_it() {
    let db = pod("db", &json!({"metadata": {"labels": {"app": "db"}}}));
    let pods = [db, asking("web", "web", "podAffinity", "db")];
    let (mut case, scheduler) = case(KeepsCompany::near(), &pods);
    bind(&mut case, scheduler, "db", "n3");
    let uid = "u-db".to_owned();
    let request = Request::Bind { pod: pod_key("db"), uid, node: "n3".to_owned() };
    let refusal = api::Status::not_found(Kind::Pod, "db");
    let answer =
        Occurrence::Answered { by: Some(scheduler), request: &request, refusal: Some(&refusal) };
    case.tell(&answer);
    bind(&mut case, scheduler, "web", "n3");
    case.is_right();
    case.advance(30);
    bind(&mut case, scheduler, "web", "n3");
    case.is_wrong(&["binds pods/d/web to n3 although no pod that it must be near to"]);
}

#[test]
fn p15_spread_over_domains() {
    let pods = [
        of_app("one", "web", "n1"),
        of_app("two", "web", "n2"),
        of_app("three", "web", "n3"),
        asking("four", "web", "spread", "web"),
        asking("five", "web", "spread", "web"),
    ];
    let (mut case, scheduler) = case(KeepsCompany::spread(), &pods);
    bind(&mut case, scheduler, "four", "n1");
    case.is_wrong(&[
        "binds pods/d/four to n1 although the skew of zone is then 2, and 1 is the most",
    ]);
    bind(&mut case, scheduler, "four", "n3");
    // The outcome of that is not known yet: the next one may be where it likes.
    bind(&mut case, scheduler, "five", "n2");
    case.is_right();
    // What is being deleted does not count.
    let (mut case, scheduler) = self::case(KeepsCompany::spread(), &pods);
    let mut going = of_app("two", "web", "n2");
    merge(&mut going, &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    case.put(None, &going);
    case.show(scheduler, &pod_key("two"));
    bind(&mut case, scheduler, "four", "n1");
    case.is_right();
    // A node without the label is no place for it.
    let (mut case, scheduler) = self::case(KeepsCompany::spread(), &pods);
    let key = case.put(None, &node("n4", &json!({}))).key();
    case.show(scheduler, &key);
    bind(&mut case, scheduler, "five", "n4");
    case.is_wrong(&["binds pods/d/five to n4 although the node has no label zone"]);
}
