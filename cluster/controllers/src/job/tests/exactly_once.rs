//! Each pod is counted once, whatever happens between any two writes.

use std::collections::{BTreeMap, BTreeSet};

use api::Subresource;
use machine::{Cache, WatchEvent};
use proptest::prelude::*;

use super::super::intervals::Intervals;
use super::*;
use crate::fixture::Store;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The controller looks at the job, or at pods, and carries out so many writes.
    Act { pods: bool, writes: usize },
    /// So many events of a kind arrive.
    Hear { pods: bool, events: usize },
    /// Another process goes on, which knows only the first events, in percent.
    Restart { jobs: usize, pods: usize },
    /// Something happens to the pod of that number.
    Pod { which: usize, fate: u8 },
    /// Somebody suspends the job or lets it go on.
    Suspend(bool),
    /// Time goes by.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0..4_usize).prop_map(|(pods, writes)| Step::Act { pods, writes }),
        6 => (any::<bool>(), 1..6_usize).prop_map(|(pods, events)| Step::Hear { pods, events }),
        1 => (0..=100_usize, 0..=100_usize).prop_map(|(jobs, pods)| Step::Restart { jobs, pods }),
        5 => (0..9_usize, 0..4_u8).prop_map(|(which, fate)| Step::Pod { which, fate }),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => Just(Step::Wait),
    ]
}

/// The store, and a process that knows of it what it has heard.
struct World {
    store: Store,
    cache: Cache,
    log: BTreeMap<Kind, Vec<WatchEvent>>,
    heard: BTreeMap<Kind, usize>,
    /// The UIDs of pods that must be counted as succeeded, with their indexes.
    succeeded: BTreeMap<String, Option<i32>>,
    /// The UIDs of pods that must be counted as failed.
    failed: BTreeSet<String>,
}

impl World {
    fn new(fields: &Value) -> Self {
        let cache = Cache::with_indexes(Jobs.indexes());
        let store = Store { now: crate::fixture::START, ..Store::default() };
        let (log, heard) = (BTreeMap::new(), BTreeMap::new());
        let (succeeded, failed) = (BTreeMap::new(), BTreeSet::new());
        let mut world = Self { store, cache, log, heard, succeeded, failed };
        let object = codec::decode_value(Kind::Job, &job(fields)).unwrap();
        world.send(Request::Create(object));
        world
    }

    fn keep_news(&mut self) {
        for (kind, event) in std::mem::take(&mut self.store.news) {
            self.log.entry(kind).or_default().push(event);
        }
    }

    fn hear(&mut self, kind: Kind, events: usize) {
        let heard = self.heard.entry(kind).or_default();
        for event in self.log.get(&kind).into_iter().flatten().skip(*heard).take(events) {
            self.cache.apply(self.store.now, event.clone());
            *heard += 1;
        }
    }

    fn restart(&mut self, percent: [usize; 2]) {
        self.cache = Cache::with_indexes(Jobs.indexes());
        self.heard.clear();
        for (kind, percent) in [Kind::Job, Kind::Pod].into_iter().zip(percent) {
            let all = self.log.get(&kind).map_or(0, Vec::len);
            self.hear(kind, all * percent / 100);
        }
    }

    fn job_is_finished(&self) -> bool {
        self.store.get(&key()).and_then(Object::get::<Job>).is_some_and(is_finished)
    }

    /// Whether the pod was counted as failed when it was deleted, before it succeeded.
    fn counts_as_failed(&self, uid: &String) -> bool {
        let job = self.store.get(&key()).and_then(Object::get::<Job>);
        let status = job.and_then(|job| job.status.as_ref());
        let uncounted = status.and_then(|s| s.uncounted_terminated_pods.as_ref());
        uncounted.and_then(|u| u.failed.as_ref()).is_some_and(|failed| failed.contains(uid))
    }

    /// Carries a request out, if the API does.
    fn send(&mut self, request: Request) {
        if let Request::Update { object, subresource: None } = &request
            && let Some(new) = object.get::<Pod>()
            && let Some(old) = self.store.get(&object.key()).and_then(Object::get::<Pod>)
            && old.metadata.resource_version == new.metadata.resource_version
            && pod::is_tracked(old)
            && !pod::is_tracked(new)
            && !pods::is_active(old)
            && !self.job_is_finished()
        {
            let uid = pod::uid(old).to_owned();
            if pods::phase(old) == "Succeeded" && !self.counts_as_failed(&uid) {
                self.succeeded.insert(uid, pod::completion_index(old));
            } else {
                self.failed.insert(uid);
            }
        }
        if let Request::Update { object, subresource: Some(Subresource::Status) } = &request {
            assert_ne!(object.kind(), Kind::Pod, "a pod's status is not the job's business");
        }
        // A refusal is what the controller must live with.
        let _ = self.store.request(request);
        self.keep_news();
    }

    fn act(&mut self, pods: bool, writes: usize) {
        let keys: Vec<Key> = if pods {
            self.cache.objects(Kind::Pod).map(Object::key).collect()
        } else {
            vec![key()]
        };
        for key in keys {
            let plan = Jobs.reconcile(&self.cache, &key, self.store.now);
            for request in plan.requests.into_iter().take(writes) {
                self.send(request);
            }
        }
    }

    fn fate(&mut self, which: usize, fate: u8) {
        let all: Vec<Key> = self.store.kind(Kind::Pod).map(Object::key).collect();
        let Some(key) = all.get(which % all.len().max(1)) else { return };
        let pod = self.store.get(key).and_then(Object::get::<Pod>).unwrap();
        let (terminal, going) = (pods::is_terminal(pod), meta::is_terminating(&pod.metadata));
        let (tracked, bound) = (pod::is_tracked(pod), !pod.node().is_empty());
        let phase = ["Succeeded", "Failed"].get(usize::from(fate));
        match phase {
            Some(phase) if !terminal => {
                let end = |v: &mut Value| v["status"]["phase"] = (*phase).into();
                self.store.edit(key, None, end).unwrap();
            }
            Some(_) => {}
            // Somebody binds or deletes it.
            None if !bound && fate == 2 => {
                self.store.edit(key, None, |v| v["spec"]["nodeName"] = "a".into()).unwrap();
            }
            None if going && !tracked => {
                let (key, uid) = (key.clone(), pod.metadata.uid.clone());
                let grace_seconds = Some(0);
                let gone =
                    Request::Delete { key, uid, revision: None, grace_seconds, propagation: None };
                self.store.request(gone).unwrap();
            }
            None => {
                let delete = crate::ownership::delete(pod);
                self.store.request(delete).unwrap();
            }
        }
        self.keep_news();
    }

    fn run(&mut self, step: &Step) {
        let kind = |pods: bool| if pods { Kind::Pod } else { Kind::Job };
        match step {
            Step::Act { pods, writes } => self.act(*pods, *writes),
            Step::Hear { pods, events } => self.hear(kind(*pods), *events),
            Step::Restart { jobs, pods } => self.restart([*jobs, *pods]),
            Step::Pod { which, fate } => self.fate(*which, *fate),
            Step::Suspend(yes) => {
                self.store.edit(&key(), None, |v| v["spec"]["suspend"] = (*yes).into()).unwrap();
                self.keep_news();
            }
            Step::Wait => self.store.now = self.store.now + Duration::from_secs(700),
        }
    }

    /// Lets everything end well.
    fn finish(&mut self) {
        for _ in 0..400 {
            self.hear(Kind::Job, usize::MAX);
            self.hear(Kind::Pod, usize::MAX);
            let before = self.store.revision;
            self.act(false, usize::MAX);
            self.act(true, usize::MAX);
            let idle = self.store.revision == before;
            let tracked = |o: &Object| o.get::<Pod>().is_some_and(pod::is_tracked);
            if idle && self.job_is_finished() && !self.store.kind(Kind::Pod).any(tracked) {
                return;
            }
            if idle {
                self.store.now = self.store.now + Duration::from_secs(700);
                let count = self.store.kind(Kind::Pod).count();
                for which in 0..count {
                    self.fate(which, 0);
                }
            }
            // Kubelets take what is to go.
            let gone =
                |o: &&Object| meta::is_terminating(o.meta()) && o.meta().finalizers.is_none();
            let gone: Vec<Key> = self.store.kind(Kind::Pod).filter(gone).map(Object::key).collect();
            for key in gone {
                let (uid, revision) = (None, None);
                let (grace_seconds, propagation) = (Some(0), None);
                let delete = Request::Delete { key, uid, revision, grace_seconds, propagation };
                self.store.request(delete).unwrap();
            }
            self.keep_news();
        }
        panic!("the job does not end: {:#}", codec::to_value(self.store.get(&key()).unwrap()));
    }
}

fn check(fields: &Value, steps: &[Step]) {
    let mut world = World::new(fields);
    for step in steps {
        world.run(step);
    }
    world.run(&Step::Suspend(false));
    world.finish();
    let job = world.store.get(&key()).and_then(Object::get::<Job>).unwrap();
    let (spec, status) = (job.spec.as_ref().unwrap(), job.status.as_ref().unwrap());
    let number = |n: Option<i32>| usize::try_from(n.unwrap_or(0)).unwrap();
    assert_eq!(number(status.failed), world.failed.len(), "{status:?}");
    let succeeded = if is_indexed(spec) {
        let text = status.failed_indexes.as_deref().unwrap_or_default();
        let failed = Intervals::parse(text, i32::MAX);
        let indexes = world.succeeded.into_values().flatten();
        let indexes: BTreeSet<i32> = indexes.filter(|index| !failed.contains(*index)).collect();
        indexes.len()
    } else {
        world.succeeded.len()
    };
    assert_eq!(number(status.succeeded), succeeded, "{status:?}");
    if has_condition(status, "Complete") {
        assert!(status.succeeded >= spec.completions, "{status:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn of_any_order(
        steps in proptest::collection::vec(step(), 0..80),
        parallelism in 1..4_i32,
        completions in 1..5_i32,
        limit in 0..5_i32,
        indexed in any::<bool>(),
        each in proptest::option::of(0..2_i32),
    ) {
        let mut fields = json!({"parallelism": parallelism, "completions": completions,
            "backoffLimit": limit});
        if indexed {
            fields["completionMode"] = "Indexed".into();
            if let Some(each) = each {
                fields["backoffLimitPerIndex"] = each.into();
            }
        }
        check(&fields, &steps);
    }
}
