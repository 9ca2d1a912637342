//! Whatever happens: no panic, the same inputs give the same effects, and what is deleted ends.

use proptest::prelude::*;
use serde_json::json;

use super::World;
use super::world::Exit;
use crate::runtime::{NodeInput, RuntimeEvent, RuntimeInput};

#[derive(Clone, Debug)]
pub(super) enum Act {
    Create(u8, u8),
    Delete(u8),
    Vanish(u8),
    Kill(usize),
    Exits(u8, u8),
    Sick(bool),
    Restart,
    Docker(bool),
    Wait(u8),
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..4_u8, 0..6_u8).prop_map(|(n, k)| Act::Create(n, k)),
        (0..4_u8).prop_map(Act::Delete),
        (0..4_u8).prop_map(Act::Vanish),
        (0..8_usize).prop_map(Act::Kill),
        (0..20_u8, 0..2_u8).prop_map(|(t, c)| Act::Exits(t, c)),
        any::<bool>().prop_map(Act::Sick),
        Just(Act::Restart),
        any::<bool>().prop_map(Act::Docker),
        (0..60_u8).prop_map(Act::Wait),
    ]
}

fn spec(kind: u8) -> serde_json::Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 5,
        "containers": [{"name": "app", "image": "web:1"}]});
    match kind {
        1 => spec["restartPolicy"] = json!("Never"),
        2 => spec["restartPolicy"] = json!("OnFailure"),
        3 => {
            spec["initContainers"] = json!([{"name": "init", "image": "web:1"}]);
        }
        4 => {
            spec["containers"][0]["livenessProbe"] =
                json!({"tcpSocket": {"port": 1}, "periodSeconds": 2});
        }
        5 => spec["containers"][0]["image"] = json!("gone:1"),
        _ => {}
    }
    spec
}

fn play(acts: &[Act]) -> World {
    play_with(acts, |_| false)
}

/// Plays `acts`; `closed_form` says by the number of each act who does the periodic duties in it.
pub(super) fn play_with(acts: &[Act], closed_form: impl Fn(usize) -> bool) -> World {
    let mut w = World::new();
    w.exits.insert("init".into(), Exit { after_secs: 1, code: 0 });
    let mut serial = 0;
    for (place, act) in acts.iter().enumerate() {
        w.closed_form = closed_form(place);
        match act {
            Act::Create(n, kind) => {
                let name = format!("p{n}");
                if !w.exists(&name) {
                    serial += 1;
                    let mut spec = spec(*kind);
                    spec["nodeName"] = json!("n1");
                    w.create(&json!({"apiVersion": "v1", "kind": "Pod",
                        "metadata": {"name": name, "uid": format!("u{serial}")}, "spec": spec}));
                }
            }
            Act::Delete(n) => {
                let name = format!("p{n}");
                if w.exists(&name) {
                    w.delete(&name);
                }
            }
            Act::Vanish(n) => {
                let name = format!("p{n}");
                if w.exists(&name) {
                    w.vanish(&name);
                }
            }
            Act::Kill(i) => {
                if let Some(id) = w.containers.keys().nth(*i).cloned() {
                    w.end_and_tell(&id, 137, i % 2 == 0);
                }
            }
            Act::Exits(after, code) => {
                let exit = Exit { after_secs: u64::from(*after), code: i32::from(*code) };
                w.exits.insert("app".into(), exit);
            }
            Act::Sick(true) => {
                w.sick.insert("app".into());
            }
            Act::Sick(false) => w.sick.clear(),
            Act::Restart => w.restart_kubelet(),
            Act::Docker(up) => {
                let event = if *up {
                    RuntimeEvent::Connected
                } else {
                    RuntimeEvent::Disconnected { reason: "x".into() }
                };
                w.feed(NodeInput::Runtime(RuntimeInput::Event(event)));
            }
            Act::Wait(secs) => w.run_for(u64::from(*secs)),
        }
    }
    w
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_is_left_and_nothing_is_random(acts in proptest::collection::vec(act(), 1..25)) {
        let first = play(&acts);
        let mut second = play(&acts);
        prop_assert_eq!(&first.log, &second.log);
        // In the end everything is deleted, and nothing stays.
        second.feed(NodeInput::Runtime(RuntimeInput::Event(RuntimeEvent::Connected)));
        for n in 0..4 {
            let name = format!("p{n}");
            if second.exists(&name) {
                second.delete(&name);
            }
        }
        second.run_for(400);
        for n in 0..4 {
            let name = format!("p{n}");
            prop_assert!(!second.exists(&name));
        }
        prop_assert!(second.containers.is_empty(), "{:?}", second.containers);
    }
}
