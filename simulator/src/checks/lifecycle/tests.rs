use std::collections::BTreeSet;

use api::{PatchKind, Subresource};
use serde_json::json;

use super::*;
use crate::checks::made_up::{Case, node, one_with, placed, plan, pod, pod_key};
use crate::plan::{Fault, PlannedFault};
use crate::span::Span;

#[test]
fn p36_one_of_a_name_runs() {
    let history = |still_runs: bool, node_gone: bool| {
        let mut case = Case::new(OneOfAName::default());
        case.put(None, &node("n1", &json!({})));
        case.put(None, &placed("a", "n1", "Running"));
        case.delete(None, &pod_key("a"));
        if still_runs {
            case.cluster.running.insert("n1".to_owned(), BTreeSet::from(["u-a".to_owned()]));
        }
        if node_gone {
            case.delete(None, &Key::cluster(Kind::Node, "n1"));
        }
        let mut second = placed("a", "n2", "Pending");
        second["metadata"]["uid"] = json!("u-second");
        case.put(None, &second);
        second["status"]["phase"] = json!("Running");
        case.put(None, &second);
        case
    };
    history(true, false).is_wrong(&["pods/d/a runs on n2", "still runs on n1"]);
    history(false, false).is_right();
    history(true, true).is_right();
}

#[test]
fn p54_every_pod_is_in_one_place() {
    let mut case = Case::new(Conserved::new(&plan()));
    case.put(None, &pod("a", &json!({})));
    case.put(None, &placed("a", "n1", "Pending"));
    case.put(None, &placed("a", "n1", "Running"));
    case.put(None, &placed("a", "n1", "Succeeded"));
    case.put(None, &placed("b", "n1", "Running"));
    case.delete(None, &pod_key("b"));
    case.is_right();
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.put(None, &placed("a", "n1", "Running"));
    case.is_wrong(&["pods/d/a had ended as Succeeded and is Running now"]);
    case.put(None, &pod("c", &json!({"status": {"phase": "Running"}})));
    case.is_wrong(&["pods/d/c is in no place", "node none"]);
    case.delete(None, &pod_key("c"));
    case.is_right();
    // A pod that nobody created.
    case.tell(&Occurrence::Committed {
        by: None,
        request: &crate::checks::made_up::deletion(&pod_key("x")),
        key: &pod_key("x"),
        old: Some(&crate::checks::made_up::object(&placed("x", "n1", "Running"))),
        new: None,
        revision: api::Revision(99),
    });
    one_with(&case.at_rest(), &["3 pods were created, 3 are gone and 1 are there"]);
}

#[test]
fn p54_a_status_may_be_overtaken() {
    let status = |phase: &str| Request::Patch {
        key: pod_key("a"),
        subresource: Some(Subresource::Status),
        patch: Patch {
            kind: PatchKind::Merge,
            body: json!({"metadata": {"uid": "u-a"}, "status": {"phase": phase}}).into(),
        },
    };
    let history = |written: &[&str], faulty: bool| {
        let mut plan = plan();
        plan.faults.extend(faulty.then_some(PlannedFault {
            at: Span::ZERO,
            lasts: None,
            fault: Fault::StoreDown,
        }));
        let mut case = Case::with_plan(Conserved::new(&plan), plan);
        let kubelet = case.kubelet();
        case.put(None, &placed("a", "n1", "Pending"));
        for phase in written {
            case.call(kubelet, &status(phase));
        }
        case.put(Some(kubelet), &placed("a", "n1", "Succeeded"));
        case.put(Some(kubelet), &placed("a", "n1", "Running"));
        case
    };
    history(&["Running", "Succeeded"], true).is_right();
    history(&["Succeeded", "Running"], true).is_wrong(&["had ended as Succeeded"]);
    history(&["Running", "Succeeded"], false).is_wrong(&["had ended as Succeeded"]);
}
