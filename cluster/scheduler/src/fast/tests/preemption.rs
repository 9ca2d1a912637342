//! [`Fast`] against the reference, on random clusters in which pods displace others.

use std::collections::BTreeSet;

use api::Time;

use super::*;
use crate::preemption::{Candidates, Preemption};

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    /// So many nodes of one shape join, or change into it, from a number on.
    Nodes { first: u8, count: u8, shape: usize },
    /// Nodes leave.
    NodesGone { first: u8, count: u8 },
    /// So many pods ask for a node, one after the other.
    Pods { count: u8, shape: usize, pod: Rank },
    /// Every so many-th pod that waits for a node that is cleared for it asks again.
    Again { every: u8 },
    /// Every so many-th pod that waits gives up, or forgets the node alone.
    GiveUp { every: u8, wholly: bool },
    /// Every so many-th pod that has to go does so.
    Leave { every: u8 },
    /// Every so many-th pod ends.
    PodsGone { every: u8 },
    /// Every so many-th pod starts.
    Start { every: u8, at: u8 },
    /// A budget of the pods of one controller comes or changes.
    Budget { app: u8, allowed: u8, disrupted: u8 },
    /// A budget goes.
    BudgetGone { app: u8 },
    /// Every so many-th pod becomes one of another controller's, by its labels.
    Relabel { every: u8, app: u8 },
}

/// What a pod is besides its shape.
#[derive(Clone, Copy, Debug)]
struct Rank {
    priority: u8,
    never: bool,
    app: u8,
}

fn event() -> impl Strategy<Value = Event> {
    let any_shape = || any::<u8>().prop_map(usize::from);
    let rank = (0..5_u8, proptest::bool::weighted(0.1), 0..5_u8)
        .prop_map(|(priority, never, app)| Rank { priority, never, app });
    prop_oneof![
        2 => (0..40_u8, 1..20_u8, any_shape())
            .prop_map(|(first, count, shape)| Event::Nodes { first, count, shape }),
        1 => (0..40_u8, 1..4_u8).prop_map(|(first, count)| Event::NodesGone { first, count }),
        12 => (1..40_u8, any_shape(), rank)
            .prop_map(|(count, shape, pod)| Event::Pods { count, shape, pod }),
        4 => (1..4_u8).prop_map(|every| Event::Again { every }),
        1 => (1..4_u8, any::<bool>()).prop_map(|(every, wholly)| Event::GiveUp { every, wholly }),
        4 => (1..4_u8).prop_map(|every| Event::Leave { every }),
        1 => (2..8_u8).prop_map(|every| Event::PodsGone { every }),
        3 => (1..8_u8, 0..4_u8).prop_map(|(every, at)| Event::Start { every, at }),
        3 => (0..5_u8, 0..4_u8, 0..9_u8)
            .prop_map(|(app, allowed, disrupted)| Event::Budget { app, allowed, disrupted }),
        1 => (0..5_u8).prop_map(|app| Event::BudgetGone { app }),
        1 => (2..8_u8, 0..5_u8).prop_map(|(every, app)| Event::Relabel { every, app }),
    ]
}

type Labels = BTreeMap<String, String>;

fn labels(app: u8) -> Labels {
    // Those of the first have none: no budget is about them.
    let labels = (app > 0).then(|| ("app".to_owned(), format!("a{app}")));
    labels.into_iter().collect()
}

/// A cluster in which every decision is taken twice, and pods displace others.
struct Displacing {
    both: Both,
    /// Pods that no node takes, or not yet.
    waiting: Vec<PodInfo>,
    /// Pods that have to go.
    leaving: BTreeSet<Key>,
    labels: BTreeMap<Key, Labels>,
    displaced: usize,
    /// One in so many is not seen to be on its way.
    unseen: usize,
}

impl Displacing {
    fn new(shapes: Shapes, config: &ProfileConfig, limits: Limits, candidates: Candidates) -> Self {
        let mut both = Both::new(shapes, config, limits);
        both.profile.preemption = Some(candidates);
        Self {
            both,
            waiting: Vec::new(),
            leaving: BTreeSet::new(),
            labels: BTreeMap::new(),
            displaced: 0,
            unseen: 3,
        }
    }

    fn pod(&mut self, shape: usize, rank: Rank) -> PodInfo {
        let both = &mut self.both;
        both.made += 1;
        let shape = &both.shapes.pods[shape % both.shapes.pods.len()];
        let mut value = serde_json::to_value(pod(shape, rank.app, both.made)).unwrap();
        // Large enough for nodes to be full.
        let cpu = format!("{}m", 130 * (1 + 3 * u32::from(shape.cpu)));
        value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
        value["spec"]["priority"] = json!(i32::from(rank.priority) - 1);
        if rank.never {
            value["spec"]["preemptionPolicy"] = json!("Never");
        }
        let pod: Pod = serde_json::from_value(value).unwrap();
        let info = PodInfo::of(&pod, &mut both.classes).unwrap();
        self.labels.insert(info.key.clone(), labels(rank.app));
        info
    }

    /// Takes a decision, and does as the scheduler does then.
    fn decide(&mut self, pod: PodInfo) -> Result<(), TestCaseError> {
        match self.both.choose(&pod)? {
            Ok(choice) => {
                self.both.put(&pod, &choice.node);
                self.both.snapshot.set_labels(&pod.key, self.labels.get(&pod.key));
                self.both.snapshot.withdraw(&pod.key);
            }
            Err(diagnosis) => {
                match diagnosis.preemption {
                    Preemption::Found(eviction) => {
                        self.displaced += 1;
                        self.clear(&pod, &eviction);
                    }
                    Preemption::Ineligible(_) => {}
                    Preemption::Hopeless(_) | Preemption::Untried => {
                        self.both.snapshot.withdraw(&pod.key);
                    }
                }
                self.waiting.push(pod);
            }
        }
        Ok(())
    }

    fn clear(&mut self, pod: &PodInfo, eviction: &crate::preemption::Eviction) {
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

    fn take_every<T>(list: &mut Vec<T>, every: u8) -> Vec<T> {
        let mut i = 0;
        let every = usize::from(every);
        list.extract_if(.., |_| {
            i += 1;
            i % every == 0
        })
        .collect()
    }

    fn relabel_all(&mut self) {
        for key in &self.both.pods {
            self.both.snapshot.set_labels(key, self.labels.get(key));
        }
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Nodes { first, count, shape } => {
                let (first, count, shape) = (*first, *count, *shape);
                self.both.happen(&super::Event::Nodes { first, count, shape })?;
            }
            Event::NodesGone { first, count } => {
                self.both.happen(&super::Event::NodesGone { first: *first, count: *count })?;
            }
            Event::Pods { count, shape, pod } => {
                for _ in 0..*count {
                    let pod = self.pod(*shape, *pod);
                    self.decide(pod)?;
                }
            }
            Event::Again { every } => {
                for pod in Self::take_every(&mut self.waiting, *every) {
                    self.decide(pod)?;
                }
            }
            Event::GiveUp { every, wholly } => {
                let mut given_up = Self::take_every(&mut self.waiting, *every);
                for pod in &given_up {
                    self.both.snapshot.withdraw(&pod.key);
                }
                if !wholly {
                    self.waiting.append(&mut given_up);
                }
            }
            Event::Leave { every } => {
                let mut leaving: Vec<Key> = self.leaving.iter().cloned().collect();
                for key in Self::take_every(&mut leaving, *every) {
                    self.leaving.remove(&key);
                    self.both.snapshot.remove_pod(&key);
                    self.both.pods.retain(|other| *other != key);
                }
            }
            Event::PodsGone { every } => {
                self.both.happen(&super::Event::PodsGone { every: *every })?;
            }
            Event::Start { every, at } => {
                let started = Time::from_secs(10 + u64::from(*at));
                for key in self.both.pods.iter().step_by(usize::from(*every)) {
                    if let Some(standing) = self.both.snapshot.pod(key).map(|pod| pod.standing) {
                        self.both.snapshot.set_standing(key, Standing { started, ..standing });
                    }
                }
            }
            Event::Budget { app, allowed, disrupted } => {
                let names: Vec<&Key> =
                    self.both.pods.iter().take(usize::from(*disrupted)).collect();
                let disrupted: serde_json::Map<String, Value> = names
                    .iter()
                    .map(|key| (key.name.to_string(), json!("1970-01-01T00:00:09Z")))
                    .collect();
                let budget = json!({"metadata": {"name": format!("b{app}"), "namespace": "d"},
                    "spec": {"selector": {"matchLabels": labels(*app)}},
                    "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted}});
                if self.both.snapshot.set_budget(&serde_json::from_value(budget).unwrap()) {
                    self.relabel_all();
                }
            }
            Event::BudgetGone { app } => {
                if self.both.snapshot.remove_budget("d", &format!("b{app}")) {
                    self.relabel_all();
                }
            }
            Event::Relabel { every, app } => {
                for key in self.both.pods.iter().step_by(usize::from(*every)) {
                    self.labels.insert(key.clone(), labels(*app));
                    self.both.snapshot.set_labels(key, self.labels.get(key));
                }
            }
        }
        Ok(())
    }
}

fn candidates() -> impl Strategy<Value = Candidates> {
    (0..60_usize, 0..12_usize)
        .prop_map(|(percentage, absolute)| Candidates { percentage, absolute })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn displaces_as_the_reference_does(
        shapes in shapes(),
        config in profile(),
        limits in limits(),
        candidates in candidates(),
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut cluster = Displacing::new(shapes, &config, limits, candidates);
        cluster.happen(&Event::Nodes { first: 0, count: 20, shape: 0 })?;
        for event in &events {
            cluster.happen(event)?;
        }
        cluster.both.check()?;
    }
}

/// The rows of pods of the property do displace others: in a full cluster each of a high priority
/// gets a node by it, with the limits of production.
#[test]
fn a_full_cluster_is_taken_over() {
    let nodes = (0..3).map(|zone| NodeShape { zone, ..plain_node() }).collect();
    let shapes = Shapes { nodes, pods: vec![plain_pod()] };
    let (config, candidates) = (ProfileConfig::default(), Candidates::default());
    let mut cluster = Displacing::new(shapes, &config, LIMITS, candidates);
    cluster.unseen = usize::MAX;
    let rank = |priority| Rank { priority, never: false, app: 2 };
    for shape in 0..3 {
        let first = 80 * u8::try_from(shape).unwrap();
        cluster.happen(&Event::Nodes { first, count: 80, shape }).unwrap();
    }
    for _ in 0..15 {
        cluster.happen(&Event::Pods { count: 96, shape: 0, pod: rank(0) }).unwrap();
    }
    assert_eq!((cluster.both.pods.len(), cluster.displaced), (240 * 6, 0));
    for _ in 0..4 {
        cluster.happen(&Event::Pods { count: 30, shape: 0, pod: rank(2) }).unwrap();
        cluster.happen(&Event::Leave { every: 2 }).unwrap();
        cluster.happen(&Event::Again { every: 1 }).unwrap();
    }
    cluster.happen(&Event::Leave { every: 1 }).unwrap();
    cluster.happen(&Event::Again { every: 1 }).unwrap();
    assert_eq!((cluster.displaced, cluster.waiting.len()), (120, 0));
    assert_eq!(cluster.both.pods.len(), 240 * 6);
    assert_eq!(cluster.both.fast.prices.len(), 1);
}
