use serde_json::json;

use super::*;
use crate::checks::made_up::{Case, one_with, placed, plan, pod, pod_key};
use crate::plan::PlannedFault;
use crate::span::Span;

fn list(kind: Kind, objects: Vec<Object>, revision: Revision) -> WatchEvent {
    WatchEvent::Replaced { kind, objects, revision }
}

#[test]
fn p2_deliveries_add_up() {
    let mut case = Case::new(Replay::default());
    let (manager, kubelet) = (case.manager(), case.kubelet());
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(1)));
    case.deliver(kubelet, &list(Kind::Pod, Vec::new(), Revision(1)));
    case.put(None, &pod("a", &json!({})));
    let b = case.put(None, &placed("b", "n1", "Pending"));
    let c = case.put(None, &placed("c", "n2", "Pending"));
    case.show(manager, &pod_key("a"));
    case.deliver(manager, &WatchEvent::Changed(b.clone()));
    // A kubelet is told of its own pods alone.
    case.deliver(kubelet, &WatchEvent::Changed(b));
    case.advance(60);
    // What is missing, and what was written just now, which is on its way.
    case.put(None, &pod("a", &json!({"metadata": {"labels": {"x": "y"}}})));
    one_with(&case.at_rest(), &["controller-manager-0", "pods", "missing: pods/d/c", "gone: none"]);
    case.deliver(manager, &WatchEvent::Changed(c));
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.advance(60);
    one_with(&case.at_rest(), &["another revision: pods/d/a"]);
    case.show(manager, &pod_key("a"));
    case.delete(None, &pod_key("b"));
    case.advance(60);
    assert_eq!(case.at_rest().len(), 2, "both think that it is there");
    let gone = WatchEvent::Deleted { key: pod_key("b"), revision: case.revision() };
    case.deliver(manager, &gone);
    case.deliver(kubelet, &gone);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.cluster.at_rest = false;
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(1)));
    assert_eq!(case.at_rest(), Vec::<String>::new(), "that is judged by P27");
}

#[test]
fn p4_caches_lose_nothing() {
    let mut case = Case::new(CachesAreRight::default());
    case.put(None, &pod("a", &json!({})));
    case.put(None, &pod("b", &json!({})));
    let (manager, other) = (case.manager(), case.other_manager());
    for process in [manager, other] {
        case.show(process, &pod_key("a"));
        case.show(process, &pod_key("b"));
    }
    case.advance(60);
    assert_eq!(case.at_rest(), Vec::<String>::new());
    case.cluster.known.remove(&(other, pod_key("b")));
    one_with(&case.at_rest(), &["controller-manager-1", "missing: pods/d/b"]);
    case.show(other, &pod_key("b"));
    case.delete(None, &pod_key("a"));
    case.cluster.known.remove(&(manager, pod_key("a")));
    case.advance(60);
    one_with(&case.at_rest(), &["controller-manager-1", "long gone: pods/d/a"]);
}

#[test]
fn p5_nobody_goes_back() {
    let mut case = Case::new(NeverBack::new(&plan()));
    let manager = case.manager();
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(5)));
    case.deliver(manager, &list(Kind::Node, Vec::new(), Revision(2)));
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(5)));
    case.is_right();
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(4)));
    case.is_wrong(&["controller-manager-0", "pods of revision 4", "seen 5"]);
    case.tell(&Occurrence::Started(manager));
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(4)));
    case.is_wrong(&["revision 4"]);
}

#[test]
fn p5_a_new_life_may_begin_with_what_is_old_when_a_server_lags() {
    let mut lagging = plan();
    lagging.faults.push(PlannedFault {
        at: Span::ZERO,
        lasts: None,
        fault: Fault::LaggingServer { api_server: 0, lag: Span::secs(60) },
    });
    let mut case = Case::new(NeverBack::new(&lagging));
    let manager = case.manager();
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(9)));
    case.tell(&Occurrence::Started(manager));
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(4)));
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(6)));
    case.is_right();
    case.deliver(manager, &list(Kind::Pod, Vec::new(), Revision(5)));
    case.is_wrong(&["revision 5", "seen 6"]);
}
