//! Random clusters and rollouts, with kubelets that take their time and controllers that crash.

use std::collections::BTreeSet;

use machine::WatchEvent;
use proptest::prelude::*;

use super::*;

/// Nodes as numbers: what they are like.
fn node_of(index: usize, like: u8) -> Value {
    let name = format!("node-{index}");
    match like {
        0 => tainted(&name, "x", "NoSchedule"),
        1 => tainted(&name, "x", "NoExecute"),
        2 => tainted(&name, "node.kubernetes.io/unschedulable", "NoSchedule"),
        3 => tainted(&name, "node.kubernetes.io/not-ready", "NoExecute"),
        _ => node(&name),
    }
}

/// The same objects seen by a process that has just started.
fn restarted(from: &Fixture<DaemonSets>) -> Fixture<DaemonSets> {
    let mut fixture = Fixture::new(DaemonSets);
    fixture.store.now = from.store.now;
    fixture.store.revision = from.store.revision;
    fixture.store.objects = from.store.objects.clone();
    for object in from.store.objects.values() {
        fixture.deliver_event(WatchEvent::Changed(object.clone()));
    }
    fixture
}

/// The nodes that shall run a pod.
fn eligible(fixture: &Fixture<DaemonSets>) -> BTreeSet<String> {
    let demand = Demand::of(fixture.cache.get("n", "agent").unwrap());
    let nodes = fixture.cache.list::<Node>().filter(|node| demand.fit(node).run);
    nodes.filter_map(|node| node.metadata.name.clone()).collect()
}

/// Eligible nodes without an available pod.
fn unavailable(fixture: &Fixture<DaemonSets>) -> usize {
    let served: BTreeSet<String> = pods_in(fixture)
        .iter()
        .filter(|pod| pods::is_ready(pod) && !meta::is_terminating(&pod.metadata))
        .map(|pod| pod.node().to_owned())
        .collect();
    eligible(fixture).difference(&served).count()
}

/// Carries out the plan until there is none, checking each step.
fn act(fixture: &mut Fixture<DaemonSets>, bound: usize) -> Result<(), TestCaseError> {
    for _ in 0..50 {
        let plan = fixture.reconcile(&key());
        if plan.requests.is_empty() {
            return Ok(());
        }
        for request in plan.requests {
            fixture.request(request);
            prop_assert!(unavailable(fixture) <= bound, "{} {:?}", bound, show(fixture));
        }
    }
    Err(TestCaseError::fail("does not settle"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rollouts_keep_their_promise_and_end(
        likes in proptest::collection::vec(0..9_u8, 1..9),
        surges in any::<bool>(),
        amount in prop_oneof![(1..4_i32).prop_map(|n| json!(n)),
            (1..101_u8).prop_map(|n| json!(format!("{n}%")))],
        steps in proptest::collection::vec((0..8_usize, 0..12_u8), 0..60),
    ) {
        let strategy = if surges {
            rolling(json!(0), amount.clone())
        } else {
            rolling(amount.clone(), json!(0))
        };
        let mut fixture = fixture(daemon("v1", strategy), &[]);
        for (index, like) in likes.iter().enumerate() {
            fixture.put(node_of(index, *like));
        }
        roll_out(&mut fixture);
        let wanted = eligible(&fixture);
        prop_assert_eq!(unavailable(&fixture), 0);
        let total = i32::try_from(wanted.len()).unwrap();
        let value = serde_json::from_value(amount).unwrap();
        let bound = crate::deployment::strategy::scaled(&value, total, true);
        let bound = if surges { 0 } else { usize::try_from(bound).unwrap() };

        let mut image = 1;
        set_image(&mut fixture, "v2");
        for (at, what) in steps {
            let pods = pods_in(&fixture);
            match what {
                0 => fixture = restarted(&fixture),
                1 if image < 4 => {
                    image += 1;
                    set_image(&mut fixture, &format!("v{}", image % 3));
                }
                2..6 => act(&mut fixture, bound)?,
                _ if pods.is_empty() => {}
                _ => obey_one(&mut fixture, &pods[at % pods.len()]),
            }
            prop_assert!(unavailable(&fixture) <= bound);
        }
        let mut other = restarted(&fixture);
        roll_out(&mut fixture);
        roll_out(&mut other);
        let shown = show(&fixture);
        let image = pods_in(&fixture).first().map(|_| shown[0].split(' ').nth(1).unwrap().to_owned());
        let expected: Vec<String> =
            wanted.iter().map(|node| format!("{node} {}", image.clone().unwrap())).collect();
        prop_assert_eq!(&shown, &expected);
        // Whoever takes over ends where the other would have.
        prop_assert_eq!(show(&other), shown);
        prop_assert_eq!(status(&other), status(&fixture));
    }

    /// Nodes change and pods end at any time: in the end each node has what it shall have.
    #[test]
    fn in_the_end_each_node_has_its_pod(
        steps in proptest::collection::vec((0..6_usize, 0..9_u8, 0..9_u8), 0..60),
        surge in 0..2_i32,
    ) {
        let strategy = rolling(json!(1 - surge), json!(surge));
        let mut fixture = fixture(daemon("v1", strategy), &[]);
        for (at, what, like) in steps {
            let pods = pods_in(&fixture);
            match what {
                0 | 1 => drop(fixture.put(node_of(at, like))),
                2 if fixture.store.kind(Kind::Node).count() > 0 => {
                    let name = fixture.store.kind(Kind::Node).next().unwrap().key();
                    fixture.remove(&name);
                    // The pod garbage collector removes what was bound to it.
                    for pod in pods.iter().filter(|pod| pod.node() == &*name.name) {
                        let key = Key::new(Kind::Pod, "n", pod.metadata.name.as_deref().unwrap());
                        fixture.remove(&key);
                    }
                }
                3 => set_image(&mut fixture, &format!("v{}", like % 3)),
                4 if !pods.is_empty() => {
                    let pod = &pods[at % pods.len()];
                    let key = Key::new(Kind::Pod, "n", pod.metadata.name.as_deref().unwrap());
                    change_pod(&mut fixture, &key, |v| v["status"] = json!({"phase": "Failed"}));
                }
                5 => drop(fixture.settle(&key())),
                6 => fixture = restarted(&fixture),
                _ if pods.is_empty() => fixture.advance(Duration::from_secs(1)),
                _ => obey_one(&mut fixture, &pods[at % pods.len()]),
            }
        }
        // Whatever failed before, its time comes.
        for _ in 0..20 {
            fixture.settle(&key());
            obey(&mut fixture);
            fixture.advance(Duration::from_secs(60));
        }
        roll_out(&mut fixture);
        let wanted = eligible(&fixture);
        let demand = Demand::of(fixture.cache.get("n", "agent").unwrap());
        let mut nodes: Vec<String> = Vec::new();
        for pod in pods_in(&fixture) {
            let node: &Node = fixture.cache.get("", pod.node()).unwrap();
            prop_assert!(demand.fit(node).stay && !pods::is_terminal(&pod));
            nodes.push(pod.node().to_owned());
        }
        let distinct: BTreeSet<String> = nodes.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), nodes.len(), "two on one node: {:?}", show(&fixture));
        prop_assert!(wanted.is_subset(&distinct), "{:?} {:?}", wanted, distinct);
    }
}
