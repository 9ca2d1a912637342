use serde_json::json;

use super::*;
use crate::checks::made_up::{Case, deletion, plan, pod_key};

fn case() -> Case<OneLeader> {
    Case::new(OneLeader::new(&plan()))
}

/// The lease of the controller managers passes to a process under a name.
fn takes(case: &mut Case<OneLeader>, by: ProcessId, holder: &str) {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "kube-controller-manager", "namespace": "kube-system", "uid": "u-l"},
        "spec": {"holderIdentity": holder}});
    case.put(Some(by), &lease);
}

fn act(case: &mut Case<OneLeader>, by: ProcessId) {
    case.call(by, &deletion(&pod_key("a")));
}

#[test]
fn p46_only_the_holder_acts() {
    let mut case = case();
    let (one, other) = (case.manager(), case.other_manager());
    act(&mut case, one);
    case.is_wrong(&["controller-manager-0 acts", "held by nobody"]);
    takes(&mut case, one, "one");
    act(&mut case, one);
    // Reading and standing for election is free.
    case.call(other, &Request::Get(pod_key("a")));
    let lease = Key::new(Kind::Lease, "kube-system", "kube-controller-manager");
    case.call(other, &deletion(&lease));
    // So is what kubelets do.
    let kubelet = case.kubelet();
    act(&mut case, kubelet);
    case.is_right();
    takes(&mut case, other, "other");
    act(&mut case, other);
    case.is_right();
    act(&mut case, one);
    case.is_wrong(&["controller-manager-0 acts while the lease is held by other", "is one"]);
    // Another life is another candidate.
    case.tell(&Occurrence::Crashed(other));
    case.tell(&Occurrence::Started(other));
    act(&mut case, other);
    case.is_wrong(&["controller-manager-1 acts", "none yet"]);
}

#[test]
fn p46_clocks_beyond_the_bound_are_excused() {
    let skew = |secs| Fault::ClockSkew {
        component: Component::ControllerManager(1),
        ahead: Span::secs(secs),
    };
    let history = |fault: &Fault| {
        let mut case = case();
        let (one, other) = (case.manager(), case.other_manager());
        takes(&mut case, one, "one");
        case.fault(fault, true);
        takes(&mut case, other, "other");
        act(&mut case, one);
        (case, one)
    };
    history(&skew(4)).0.is_wrong(&["held by other"]);
    let (mut case, one) = history(&skew(20));
    case.is_right();
    case.fault(&skew(20), false);
    case.advance(40);
    act(&mut case, one);
    case.is_right();
    case.advance(20);
    act(&mut case, one);
    case.is_wrong(&["held by other"]);
}

#[test]
fn p46_a_clock_that_was_behind_is_right_at_once() {
    let behind = |secs| Fault::ClockBehind {
        component: Component::ControllerManager(1),
        behind: Span::secs(secs),
    };
    let mut case = case();
    let (one, other) = (case.manager(), case.other_manager());
    takes(&mut case, one, "one");
    case.fault(&behind(20), true);
    takes(&mut case, other, "other");
    act(&mut case, one);
    case.fault(&behind(20), false);
    case.advance(29);
    act(&mut case, one);
    case.is_right();
    case.advance(2);
    act(&mut case, one);
    case.is_wrong(&["held by other"]);
}

#[test]
fn p46_without_election_everybody_acts() {
    let mut alone = plan();
    alone.settings.leader_election = false;
    let mut case = Case::new(OneLeader::new(&alone));
    let manager = case.manager();
    act(&mut case, manager);
    case.is_right();
}
