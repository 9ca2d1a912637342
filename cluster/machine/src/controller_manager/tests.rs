//! The queue under a lagging watch and lost calls: replicas of the toy in the design, on the
//! real cache and the real work queue.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApiError, ApiObject, Pod, Reply, Request, Revision, meta};
use k8s_openapi::api::apps::v1::ReplicaSet;
use rand::{Rng, RngExt};

use super::*;
use crate::{Delta, Plan, RngTree};

struct Replicas;

impl Reconciler for Replicas {
    fn name(&self) -> &'static str {
        "replicas"
    }
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ReplicaSet, Kind::Pod]
    }
    fn keys_for(&self, _: &Cache, delta: &Delta) -> Vec<api::Key> {
        match delta.latest() {
            api::Object::ReplicaSet(_) => vec![delta.key.clone()],
            other => meta::controller_of(other.meta())
                .map(|o| api::Key::new(Kind::ReplicaSet, &delta.key.namespace, &o.name))
                .into_iter()
                .collect(),
        }
    }
    fn reconcile(&self, cache: &Cache, key: &api::Key, _: Time) -> Plan {
        let mut plan = Plan::nothing();
        let Some(set) = cache.get::<ReplicaSet>(&key.namespace, &key.name) else { return plan };
        let uid = set.metadata.uid.as_deref().unwrap();
        let pods: Vec<&Pod> = cache.owned(uid).collect();
        let want = usize::try_from(set.spec.as_ref().unwrap().replicas.unwrap()).unwrap();
        let used: Vec<_> = pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
        let epoch = cache.tombstone(uid);
        let names = (0..).map(|i| {
            let seed = format!("{uid}/{epoch}/{i}");
            format!("web-{}", api::hash::letters(api::hash::fnv64(seed.as_bytes()), 5))
        });
        for name in names.filter(|n| !used.contains(n)).take(want.saturating_sub(pods.len())) {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name);
            pod.metadata.namespace = Some("d".into());
            pod.metadata.owner_references = Some(vec![meta::controller_reference(set)]);
            plan.request(Request::Create(pod.into_object()));
        }
        for pod in pods.iter().skip(want) {
            plan.request(Request::Delete {
                key: api::Key::new(Kind::Pod, "d", pod.metadata.name.as_deref().unwrap()),
                uid: pod.metadata.uid.clone(),
                revision: None,
                grace_seconds: None,
                propagation: None,
            });
        }
        plan
    }
}

struct World {
    now: Time,
    seq: u64,
    queue: BTreeMap<(Time, u64), ApiInput>,
    store: BTreeMap<api::Key, api::Object>,
    revision: u64,
    rng: rand_chacha::ChaCha8Rng,
    pods_max: usize,
    watch_due: BTreeMap<Kind, Time>,
    log: Vec<String>,
}

impl World {
    fn push(&mut self, at: Time, input: ApiInput) {
        self.seq += 1;
        self.queue.insert((at, self.seq), input);
    }

    fn pods(&self) -> usize {
        self.store.keys().filter(|k| k.kind == Kind::Pod).count()
    }

    fn watch(&mut self, kind: Kind, event: WatchEvent) {
        let lag = Duration::from_millis(self.rng.random_range(0..500));
        let due = self.watch_due.get(&kind).copied().unwrap_or_default().max(self.now + lag);
        self.watch_due.insert(kind, due);
        self.push(due, ApiInput::Watch(event));
    }

    fn commit(&mut self, mut object: api::Object) -> Result<Reply, ApiError> {
        let key = object.key();
        if self.store.contains_key(&key) {
            return Err(api::Status::already_exists(key.kind, &key.name).into());
        }
        self.revision += 1;
        object.meta_mut().resource_version = Some(self.revision.to_string());
        object.meta_mut().uid = Some(format!("u{}", self.revision));
        self.store.insert(key.clone(), object.clone());
        self.pods_max = self.pods_max.max(self.pods());
        self.watch(key.kind, WatchEvent::Changed(object.clone()));
        Ok(Reply::Object(object))
    }

    fn delete(&mut self, key: api::Key) -> Result<Reply, ApiError> {
        if self.store.remove(&key).is_none() {
            return Err(api::Status::not_found(key.kind, &key.name).into());
        }
        self.revision += 1;
        let revision = Revision(self.revision);
        self.watch(key.kind, WatchEvent::Deleted { key, revision });
        Ok(Reply::Done(revision))
    }

    fn carry_out(&mut self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Create(object) => self.commit(object),
            Request::Delete { key, .. } => self.delete(key),
            Request::ReadRevision(kind) => {
                let revision = Revision(self.revision);
                self.watch(kind, WatchEvent::Progress { kind, revision });
                Ok(Reply::Done(revision))
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn run(&mut self, machine: &mut ControllerManager) {
        let mut out = Vec::new();
        for _ in 0..100_000 {
            let next = self.queue.first_key_value().map(|(k, _)| k.0);
            let input = match (next, machine.wake_at()) {
                (None, None) => return,
                (Some(t), w) if w.is_none_or(|w| t <= w) => {
                    self.now = t;
                    self.queue.pop_first().unwrap().1
                }
                (_, w) => {
                    self.now = self.now.max(w.unwrap());
                    ApiInput::Wake
                }
            };
            machine.step(self.now, input, &mut out);
            for effect in std::mem::take(&mut out) {
                self.log.push(serde_json::to_string(&(self.now, &effect)).unwrap());
                let ApiEffect::Call { id, request } = effect else { continue };
                let lost = || Err(ApiError::Unknown("lost".into()));
                let result = match self.rng.random_range(0..10) {
                    0 => lost(),
                    1 => {
                        let _ = self.carry_out(request);
                        lost()
                    }
                    _ => self.carry_out(request),
                };
                let at = self.now + Duration::from_millis(self.rng.random_range(0..20));
                self.push(at, ApiInput::Reply { id, result });
            }
        }
        panic!("no convergence");
    }
}

fn run(seed: u64, read_your_writes: bool) -> (usize, usize, Vec<String>) {
    let mut rng = RngTree::new(seed).rng("world");
    rng.next_u64();
    let mut world = World {
        now: Time::ZERO,
        seq: 0,
        queue: BTreeMap::new(),
        store: BTreeMap::new(),
        revision: 0,
        rng,
        pods_max: 0,
        watch_due: BTreeMap::new(),
        log: Vec::new(),
    };
    let mut machine = ControllerManager::new(vec![Box::new(Replicas)], None);
    if !read_your_writes {
        machine = machine.without_read_your_writes();
    }
    for kind in [Kind::ReplicaSet, Kind::Pod] {
        let list = WatchEvent::Replaced { kind, objects: vec![], revision: Revision(0) };
        world.push(Time::ZERO, ApiInput::Watch(list));
    }
    let set: ReplicaSet = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "d"}, "spec": {"replicas": 5, "selector": {}}
    }))
    .unwrap();
    world.commit(set.into_object()).unwrap();
    world.run(&mut machine);
    // Losses are made good too, and one that is seen while another is.
    let victims: Vec<_> = world.store.keys().filter(|k| k.kind == Kind::Pod).cloned().collect();
    for victim in victims.into_iter().take(2) {
        world.delete(victim).unwrap();
    }
    world.run(&mut machine);
    (world.pods(), world.pods_max, world.log)
}

#[test]
fn lagging_watches_and_lost_calls_never_over_create() {
    for seed in 0..300 {
        let (pods, max, log) = run(seed, true);
        assert_eq!((pods, max), (5, 5), "seed {seed}: {log:#?}");
        assert_eq!(run(seed, true).2, log, "seed {seed} is not reproducible");
    }
}

#[test]
fn without_the_barrier_too_many_are_created() {
    let runs: Vec<_> = (0..300).map(|seed| run(seed, false)).collect();
    assert!(runs.iter().any(|(_, max, _)| *max > 5));
    for (pods, _, log) in runs {
        assert_eq!(pods, 5);
        assert!(!log.iter().any(|line| line.contains("ReadRevision")));
    }
}

/// Answers the elector's calls as a store without a lease does; returns the creations of pods.
fn elect(machine: &mut ControllerManager, now: Time, out: &mut Vec<ApiEffect>) -> Vec<CallId> {
    let mut pods = Vec::new();
    while let Some(effect) = out.pop() {
        let ApiEffect::Call { id, request } = effect else { continue };
        let result = match request {
            Request::Get(key) => Err(api::Status::not_found(key.kind, &key.name).into()),
            Request::Create(lease) | Request::Update { object: lease, .. }
                if lease.kind() == Kind::Lease =>
            {
                Ok(Reply::Object(lease))
            }
            Request::Create(_) => {
                pods.push(id);
                continue;
            }
            other => panic!("unexpected {other:?}"),
        };
        machine.step(now, ApiInput::Reply { id, result }, out);
    }
    pods
}

#[test]
fn who_does_not_lead_any_more_does_not_carry_on_with_a_plan() {
    for (silent_secs, expected) in [(1, 2), (11, 0)] {
        let elector = LeaderElector::new("x", "a");
        let mut machine = ControllerManager::new(vec![Box::new(Replicas)], Some(elector));
        let mut now = Time::from_secs(100);
        let mut out = Vec::new();
        let set: ReplicaSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "u"},
            "spec": {"replicas": 5, "selector": {}}
        }))
        .unwrap();
        for (kind, objects) in
            [(Kind::ReplicaSet, vec![set.into_object()]), (Kind::Pod, Vec::new())]
        {
            let list = WatchEvent::Replaced { kind, objects, revision: Revision(1) };
            machine.step(now, ApiInput::Watch(list), &mut out);
        }
        let first = elect(&mut machine, now, &mut out);
        assert_eq!(first.len(), 1);
        // Nothing happens for a while, and the answer is the first that is heard then.
        now = now + Duration::from_secs(silent_secs);
        let result = Ok(Reply::Done(Revision(1)));
        machine.step(now, ApiInput::Reply { id: first[0], result }, &mut out);
        let creates = |e: &&ApiEffect| matches!(e, ApiEffect::Call { request: Request::Create(o), .. } if o.kind() == Kind::Pod);
        assert_eq!(out.iter().filter(creates).count(), expected, "after {silent_secs} s");
        // When it leads again, it plans anew.
        if expected == 0 {
            assert_eq!(elect(&mut machine, now, &mut out).len(), 1);
        }
    }
}

/// Asks for a list whenever it is looked at, and remembers how often it was answered.
struct Asking;

fn question() -> Request {
    Request::List { kind: Kind::PodMetrics, namespace: "d".into(), selector: "a=b".into() }
}

impl Reconciler for Asking {
    fn name(&self) -> &'static str {
        "asking"
    }
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ReplicaSet]
    }
    fn keys_for(&self, _: &Cache, delta: &Delta) -> Vec<api::Key> {
        vec![delta.key.clone()]
    }
    fn reconcile(&self, cache: &Cache, key: &api::Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut crate::Memory::default())
    }
    fn reconcile_with(
        &self,
        cache: &Cache,
        key: &api::Key,
        now: Time,
        memory: &mut crate::Memory,
    ) -> Plan {
        let mut plan = Plan::nothing();
        if cache.object(key).is_none() {
            *memory = crate::Memory::default();
            return plan;
        }
        let answers = std::mem::take(&mut memory.answers);
        for answer in &answers {
            assert_eq!((answer.at, &answer.request), (now, &question()));
            let was_had = i64::from(answer.result.is_ok());
            memory.notes.entry("answers").or_default().push((now, was_had));
        }
        if answers.is_empty() {
            plan.request(question());
        } else if memory.notes["answers"].len() == 2 {
            // What was remembered is all that tells the two looks apart.
            plan.request(Request::Get(key.clone()));
        } else {
            plan.revisit_in(Duration::from_secs(1));
        }
        plan
    }
}

#[test]
fn lists_are_answered_to_who_remembers_asking() {
    let mut machine = ControllerManager::new(vec![Box::new(Asking)], None);
    let mut step = |now: u64, input: ApiInput| {
        let mut out = Vec::new();
        machine.step(Time::from_secs(now), input, &mut out);
        let calls = out.into_iter().map(|effect| match effect {
            ApiEffect::Call { id, request } => (id, request),
            other => panic!("unexpected {other:?}"),
        });
        calls.collect::<Vec<_>>()
    };
    let mut set = ReplicaSet::default();
    set.metadata.name = Some("a".into());
    set.metadata.namespace = Some("d".into());
    let key = api::Key::new(Kind::ReplicaSet, "d", "a");
    let objects = vec![set.into_object()];
    let list = WatchEvent::Replaced { kind: Kind::ReplicaSet, objects, revision: Revision(1) };
    let asked = step(1, ApiInput::Watch(list));
    assert_eq!(asked[0].1, question());
    // A list that cannot be had is an answer, and nothing to be tried again.
    let result = Err(ApiError::Unreachable("no".into()));
    assert_eq!(step(2, ApiInput::Reply { id: asked[0].0, result }), []);
    let asked = step(3, ApiInput::Wake);
    assert_eq!(asked[0].1, question());
    let result = Ok(Reply::Objects(Vec::new()));
    let got = step(4, ApiInput::Reply { id: asked[0].0, result });
    assert_eq!(got[0].1, Request::Get(key.clone()));
    // Nothing is remembered of what is gone.
    let gone = WatchEvent::Deleted { key: key.clone(), revision: Revision(2) };
    assert_eq!(step(5, ApiInput::Watch(gone)), []);
    let result = Err(api::Status::not_found(Kind::ReplicaSet, "a").into());
    let read = step(5, ApiInput::Reply { id: got[0].0, result });
    assert_eq!(read[0].1, Request::ReadRevision(Kind::ReplicaSet));
}

/// Makes a pod for each set of replicas, and hears of quotas.
#[derive(Clone)]
struct Hearing;

impl Reconciler for Hearing {
    fn name(&self) -> &'static str {
        "hearing"
    }
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ReplicaSet]
    }
    fn hears_of(&self) -> &'static [Kind] {
        &[Kind::ResourceQuota]
    }
    fn keys_for(&self, cache: &Cache, _: &Delta) -> Vec<api::Key> {
        cache.objects(Kind::ReplicaSet).map(api::Object::key).collect()
    }
    fn reconcile(&self, cache: &Cache, key: &api::Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut crate::Memory::default())
    }
    fn reconcile_with(
        &self,
        _: &Cache,
        key: &api::Key,
        _: Time,
        memory: &mut crate::Memory,
    ) -> Plan {
        let mut plan = Plan::nothing();
        // Whoever has what it wants asks again if it is looked at once more.
        let (next, content) = match (&*key.name, &*memory.text) {
            ("lucky", "asked") => ("content", true),
            _ => ("asked", false),
        };
        memory.text = next.into();
        if content {
            return plan;
        }
        let mut pod = Pod::default();
        pod.metadata.name = Some(key.name.to_string());
        pod.metadata.namespace = Some("d".into());
        plan.request(Request::Create(pod.into_object()));
        plan
    }
}

#[test]
fn what_is_only_heard_of_wakes_those_who_were_refused() {
    let mut machine = ControllerManager::new(vec![Box::new(Hearing)], None);
    machine = machine.without_read_your_writes();
    let mut step = |input: ApiInput| {
        let mut out = Vec::new();
        machine.step(Time::from_secs(1), input, &mut out);
        let calls = out.into_iter().filter_map(|effect| match effect {
            ApiEffect::Call { id, request: Request::Create(pod) } => Some((id, pod.key().name)),
            _ => None,
        });
        calls.collect::<Vec<_>>()
    };
    let set = |name: &str| {
        let mut set = ReplicaSet::default();
        (set.metadata.name, set.metadata.namespace) = (Some(name.into()), Some("d".into()));
        set.into_object()
    };
    let objects = vec![set("lucky"), set("refused")];
    let list = WatchEvent::Replaced { kind: Kind::ReplicaSet, objects, revision: Revision(1) };
    // The quotas were not listed, and nobody waits for them.
    let asked = step(ApiInput::Watch(list));
    assert_eq!(asked.len(), 2);
    for (id, name) in asked {
        let refusal = api::Status::forbidden(Kind::Pod, &name, "exceeded quota");
        let result = match &*name {
            "lucky" => Ok(Reply::Done(Revision(2))),
            _ => Err(refusal.into()),
        };
        assert_eq!(step(ApiInput::Reply { id, result }), []);
    }
    let mut quota = k8s_openapi::api::core::v1::ResourceQuota::default();
    quota.metadata.name = Some("q".into());
    quota.metadata.namespace = Some("d".into());
    quota.metadata.resource_version = Some("3".into());
    let again = step(ApiInput::Watch(WatchEvent::Changed(quota.into_object())));
    assert_eq!(again.iter().map(|(_, name)| &**name).collect::<Vec<_>>(), ["refused"]);
}
