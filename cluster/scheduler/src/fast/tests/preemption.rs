//! [`Fast`] against the reference, on random clusters in which pods displace others.

use std::collections::BTreeSet;

use api::Time;

use super::*;
use crate::preemption::{Candidates, Eviction, Preemption};

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    /// What happens where nobody displaces others, too.
    Plain(super::Event),
    /// So many pods ask for a node, one after the other.
    Pods { count: u8, shape: usize, owner: u8, rank: Rank },
    /// Every so many-th pod that waits for a node that is cleared for it asks again.
    Again { every: u8 },
    /// Every so many-th pod that waits gives up, or forgets the node alone.
    GiveUp { every: u8, wholly: bool },
    /// Every so many-th pod that has to go does so.
    Leave { every: u8 },
    /// Every so many-th pod starts.
    Start { every: u8, at: u8 },
    /// A budget of the pods of one namespace and label comes or changes.
    Budget { namespace: u8, app: u8, allowed: u8, disrupted: u8 },
    /// A budget goes.
    BudgetGone { namespace: u8, app: u8 },
}

/// What a pod is besides its shape.
#[derive(Clone, Copy, Debug)]
struct Rank {
    priority: u8,
    never: bool,
}

fn event() -> impl Strategy<Value = Event> {
    use super::Event as Plain;
    let any_shape = || any::<u8>().prop_map(usize::from);
    let rank = (0..5_u8, proptest::bool::weighted(0.1))
        .prop_map(|(priority, never)| Rank { priority, never });
    prop_oneof![
        2 => (0..40_u8, 1..20_u8, any_shape())
            .prop_map(|(first, count, shape)| Event::Plain(Plain::Nodes { first, count, shape })),
        1 => (0..40_u8, 1..4_u8)
            .prop_map(|(first, count)| Event::Plain(Plain::NodesGone { first, count })),
        1 => (2..8_u8).prop_map(|every| Event::Plain(Plain::PodsGone { every })),
        1 => (2..8_u8, 0..3_u8)
            .prop_map(|(every, app)| Event::Plain(Plain::Relabelled { every, app })),
        12 => (1..40_u8, any_shape(), 0..5_u8, rank)
            .prop_map(|(count, shape, owner, rank)| Event::Pods { count, shape, owner, rank }),
        4 => (1..4_u8).prop_map(|every| Event::Again { every }),
        1 => (1..4_u8, any::<bool>()).prop_map(|(every, wholly)| Event::GiveUp { every, wholly }),
        4 => (1..4_u8).prop_map(|every| Event::Leave { every }),
        3 => (1..8_u8, 0..4_u8).prop_map(|(every, at)| Event::Start { every, at }),
        6 => (0..3_u8, 0..4_u8, 0..3_u8, 0..9_u8).prop_map(
            |(namespace, app, allowed, disrupted)| Event::Budget {
                namespace,
                app,
                allowed,
                disrupted,
            },
        ),
        1 => (0..3_u8, 0..4_u8).prop_map(|(namespace, app)| Event::BudgetGone { namespace, app }),
    ]
}

/// A cluster in which every decision is taken twice, and pods displace others.
struct Displacing {
    both: Both,
    /// Pods that no node takes, or not yet.
    waiting: Vec<(Pod, PodInfo)>,
    /// Pods that have to go.
    leaving: BTreeSet<Key>,
    displaced: usize,
    /// One in so many is not seen to be on its way.
    unseen: usize,
}

impl Displacing {
    fn new(shapes: Shapes, config: &ProfileConfig, limits: Limits, candidates: Candidates) -> Self {
        let mut both = Both::new(shapes, config, limits);
        both.profile.preemption = Some(candidates);
        let (waiting, leaving) = (Vec::new(), BTreeSet::new());
        Self { both, waiting, leaving, displaced: 0, unseen: 3 }
    }

    fn pod(&mut self, shape: usize, owner: u8, rank: Rank) -> (Pod, PodInfo) {
        let both = &mut self.both;
        both.made += 1;
        let shape = &both.shapes.pods[shape % both.shapes.pods.len()];
        let mut value = serde_json::to_value(pod(shape, owner, both.made)).unwrap();
        // Large enough for nodes to be full.
        let cpu = format!("{}m", 130 * (1 + 3 * u32::from(shape.cpu)));
        value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
        value["spec"]["priority"] = json!(i32::from(rank.priority) - 1);
        if rank.never {
            value["spec"]["preemptionPolicy"] = json!("Never");
        }
        let pod: Pod = serde_json::from_value(value).unwrap();
        let info = both.info(&pod);
        (pod, info)
    }

    /// Takes a decision, and does as the scheduler does then.
    fn decide(&mut self, pod: Pod, info: PodInfo) -> Result<(), TestCaseError> {
        match self.both.choose(&info)? {
            Ok(choice) => {
                self.both.put(pod, &choice.node);
                self.both.snapshot.withdraw(&info.key);
            }
            Err(diagnosis) => {
                match diagnosis.preemption {
                    Preemption::Found(eviction) => {
                        self.displaced += 1;
                        self.clear(&info, &eviction);
                    }
                    Preemption::Ineligible(_) | Preemption::Failed(_) => {}
                    Preemption::Hopeless(_) | Preemption::Untried => {
                        self.both.snapshot.withdraw(&info.key);
                    }
                }
                self.waiting.push((pod, info));
            }
        }
        Ok(())
    }

    fn clear(&mut self, pod: &PodInfo, eviction: &Eviction) {
        let snapshot = &mut self.both.snapshot;
        snapshot.nominate(pod, &eviction.node);
        let nominated = snapshot.nominations().on(&eviction.node);
        let lower = nominated.filter(|(_, n)| n.class.priority < pod.priority);
        for loser in lower.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            snapshot.withdraw(&loser);
        }
        for victim in &eviction.victims {
            let standing = snapshot.pod(&victim.key).unwrap().standing;
            let displaced = !self.displaced.is_multiple_of(self.unseen);
            snapshot.set_standing(&victim.key, Standing { displaced, ..standing });
            self.leaving.insert(victim.key.clone());
        }
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Plain(event) => self.both.happen(event)?,
            Event::Pods { count, shape, owner, rank } => {
                for _ in 0..*count {
                    let (pod, info) = self.pod(*shape, *owner, *rank);
                    self.decide(pod, info)?;
                }
            }
            Event::Again { every } => {
                for (pod, info) in take_every(&mut self.waiting, *every) {
                    self.decide(pod, info)?;
                }
            }
            Event::GiveUp { every, wholly } => {
                let mut given_up = take_every(&mut self.waiting, *every);
                for (_, info) in &given_up {
                    self.both.snapshot.withdraw(&info.key);
                }
                if !wholly {
                    self.waiting.append(&mut given_up);
                }
            }
            Event::Leave { every } => {
                let mut leaving: Vec<Key> = self.leaving.iter().cloned().collect();
                for key in take_every(&mut leaving, *every) {
                    self.leaving.remove(&key);
                    self.both.snapshot.remove_pod(&key);
                    self.both.pods.retain(|(other, ..)| *other != key);
                }
            }
            Event::Start { every, at } => {
                let started = Time::from_secs(10 + u64::from(*at));
                for (key, ..) in self.both.pods.iter().step_by(usize::from(*every)) {
                    if let Some(standing) = self.both.snapshot.pod(key).map(|pod| pod.standing) {
                        self.both.snapshot.set_standing(key, Standing { started, ..standing });
                    }
                }
            }
            Event::Budget { namespace, app, allowed, disrupted } => {
                let pods = self.both.pods.iter().take(usize::from(*disrupted));
                let disrupted: serde_json::Map<String, Value> = pods
                    .map(|(key, ..)| (key.name.to_string(), json!("1970-01-01T00:00:09Z")))
                    .collect();
                // One of them is about all of the namespace, in the eyes of others.
                let labels = if *app < 3 { json!({"app": format!("a{app}")}) } else { json!({}) };
                let budget = json!({
                    "metadata": {"name": format!("b{app}"),
                        "namespace": NAMESPACES[usize::from(*namespace)]},
                    "spec": {"selector": {"matchLabels": labels}},
                    "status": {"disruptionsAllowed": allowed, "currentHealthy": 1,
                        "desiredHealthy": 1, "expectedPods": 1, "disruptedPods": disrupted}});
                self.both.snapshot.set_budget(&serde_json::from_value(budget).unwrap());
            }
            Event::BudgetGone { namespace, app } => {
                let namespace = NAMESPACES[usize::from(*namespace)];
                self.both.snapshot.remove_budget(namespace, &format!("b{app}"));
            }
        }
        Ok(())
    }
}

fn take_every<T>(list: &mut Vec<T>, every: u8) -> Vec<T> {
    let mut i = 0;
    let every = usize::from(every);
    list.extract_if(.., |_| {
        i += 1;
        i % every == 0
    })
    .collect()
}

fn candidates() -> impl Strategy<Value = Candidates> {
    (0..60_usize, 0..12_usize)
        .prop_map(|(percentage, absolute)| Candidates { percentage, absolute })
}

fn run(
    shapes: Shapes,
    profile: &ProfileConfig,
    limits: Limits,
    candidates: Candidates,
    events: &[Event],
) -> Result<(), TestCaseError> {
    let mut cluster = Displacing::new(shapes, profile, limits, candidates);
    cluster.both.happen(&super::Event::Nodes { first: 0, count: 20, shape: 0 })?;
    for event in events {
        cluster.happen(event)?;
    }
    cluster.both.check()
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn displaces_as_the_reference_does(
        shapes in shapes(),
        profile in profile(),
        limits in limits(),
        candidates in candidates(),
        events in proptest::collection::vec(event(), 1..60),
    ) {
        run(shapes, &profile, limits, candidates, &events)?;
    }

    #[test]
    fn displaces_pods_with_relations_as_the_reference_does(
        shapes in shapes_with_relations(),
        profile in profile(),
        limits in limits(),
        candidates in candidates(),
        events in proptest::collection::vec(event(), 1..50),
    ) {
        run(shapes, &profile, limits, candidates, &events)?;
    }
}

/// Such events do displace pods: in a full cluster each pod of a high priority gets a node by it,
/// with the limits of production.
#[test]
fn a_full_cluster_is_taken_over() {
    let nodes = (0..3).map(|zone| NodeShape { zone, ..plain_node() }).collect();
    let shapes = Shapes { nodes, pods: vec![plain_pod()] };
    let (config, candidates) = (ProfileConfig::default(), Candidates::default());
    let mut cluster = Displacing::new(shapes, &config, LIMITS, candidates);
    cluster.unseen = usize::MAX;
    let pods = |count, priority| {
        let rank = Rank { priority, never: false };
        Event::Pods { count, shape: 0, owner: 2, rank }
    };
    for shape in 0..3 {
        let first = 80 * u8::try_from(shape).unwrap();
        cluster.both.happen(&super::Event::Nodes { first, count: 80, shape }).unwrap();
    }
    for _ in 0..15 {
        cluster.happen(&pods(96, 0)).unwrap();
    }
    assert_eq!((cluster.both.pods.len(), cluster.displaced), (240 * 6, 0));
    for _ in 0..4 {
        cluster.happen(&pods(30, 2)).unwrap();
        cluster.happen(&Event::Leave { every: 2 }).unwrap();
        cluster.happen(&Event::Again { every: 1 }).unwrap();
    }
    cluster.happen(&Event::Leave { every: 1 }).unwrap();
    cluster.happen(&Event::Again { every: 1 }).unwrap();
    assert_eq!((cluster.displaced, cluster.waiting.len()), (120, 0));
    assert_eq!(cluster.both.pods.len(), 240 * 6);
    assert_eq!(cluster.both.fast.prices.amount().0, 1);
}

/// What a budget allows changes without a change of any node.
#[test]
fn prices_follow_what_budgets_allow() {
    let pods = [0, 1].map(|app| PodShape { app, ..plain_pod() });
    let shapes = Shapes { nodes: vec![plain_node()], pods: pods.into() };
    let (config, candidates) = (ProfileConfig::default(), Candidates::default());
    let mut cluster = Displacing::new(shapes, &config, LIMITS, candidates);
    cluster.both.happen(&super::Event::Nodes { first: 0, count: 20, shape: 0 }).unwrap();
    let rank = |priority| Rank { priority, never: false };
    // Those of one label on every other node.
    for number in 0..120 {
        let (pod, _) = cluster.pod(number % 2, 0, rank(0));
        cluster.both.put(pod, &format!("n{:03}", number % 20));
    }
    // Prices that are kept from before there was any budget are of no use then.
    let (_, first) = cluster.pod(0, 0, rank(2));
    assert!(cluster.both.choose(&first).unwrap().is_err());
    let mut violations = Vec::new();
    for i in 0..24 {
        for app in 0..2 {
            let allowed = 9 * u8::from(i % 3 != app);
            let budget = Event::Budget { namespace: 0, app, allowed, disrupted: 0 };
            cluster.happen(&budget).unwrap();
        }
        let (_, info) = cluster.pod(0, 0, rank(2));
        let diagnosis = cluster.both.choose(&info).unwrap().unwrap_err();
        let Preemption::Found(eviction) = diagnosis.preemption else { panic!("{diagnosis:?}") };
        violations.push(eviction.violations);
    }
    assert_eq!(violations, [0; 24]);
}
