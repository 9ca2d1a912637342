//! The controller beside API servers that charge, with caches that lag, writes that come late and
//! restarts between any two steps.

use std::collections::VecDeque;

use api::{Revision, codec};
use machine::WatchEvent;
use proptest::prelude::*;

use super::*;

const NOW: Time = Time::from_secs(1_000_000_000);
const MOST: u64 = 4;

/// The store, what watches have not told yet, and one controller.
struct World {
    revision: u64,
    pods: BTreeSet<u8>,
    quota: ResourceQuota,
    news: [VecDeque<WatchEvent>; 2],
    cache: Cache,
    dirty: bool,
    /// Writes under way.
    sent: VecDeque<Request>,
}

impl World {
    fn new() -> Self {
        let hard = json!({"pods": MOST.to_string()});
        let cache = Cache::with_indexes([]);
        let mut world = Self {
            revision: 1,
            pods: BTreeSet::new(),
            quota: serde_json::from_value(quota(hard)).unwrap(),
            news: Default::default(),
            cache,
            dirty: true,
            sent: VecDeque::new(),
        };
        world.tell_quota();
        world
    }

    fn used(&self) -> u64 {
        let used = self.quota.status.as_ref().and_then(|s| s.used.as_ref());
        used.map_or(0, |used| used["pods"].0.parse().unwrap())
    }

    fn tell_quota(&mut self) {
        self.quota.metadata.resource_version = Some(self.revision.to_string());
        let event = WatchEvent::Changed(Object::ResourceQuota(self.quota.clone().into()));
        self.news[0].push_back(event);
    }

    /// Creates a pod as API servers do, charging the quota in the same transaction.
    fn create(&mut self, name: u8) {
        let known = self.quota.status.as_ref().is_some_and(|s| s.used.is_some());
        if self.pods.contains(&name) || (known && self.used() >= MOST) {
            return;
        }
        self.revision += 1;
        if known {
            let used = self.used() + 1;
            let status = self.quota.status.get_or_insert_default();
            let used = json!({"pods": used.to_string()});
            status.used = Some(serde_json::from_value(used).unwrap());
            self.tell_quota();
        }
        self.pods.insert(name);
        let mut made = pod(&format!("p{name}"), "1");
        made["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let made = codec::decode_any(made.to_string().as_bytes()).unwrap();
        self.news[1].push_back(WatchEvent::Changed(made));
    }

    fn delete(&mut self, name: u8) {
        if self.pods.remove(&name) {
            self.revision += 1;
            let key = Key::new(Kind::Pod, "n", &format!("p{name}"));
            let revision = Revision(self.revision);
            self.news[1].push_back(WatchEvent::Deleted { key, revision });
        }
    }

    fn hear(&mut self, stream: usize) {
        let Some(event) = self.news[stream].pop_front() else { return };
        let mut dirty = false;
        self.cache.apply_each(NOW, event, |cache, delta| {
            dirty |= !ResourceQuotas.keys_for(cache, &delta).is_empty();
        });
        self.dirty |= dirty;
    }

    fn reconcile(&mut self) {
        if self.dirty && self.sent.is_empty() {
            self.dirty = false;
            self.sent.extend(ResourceQuotas.reconcile(&self.cache, &key(), NOW).requests);
        }
    }

    /// A write arrives, and is refused if the quota was written since.
    fn arrive(&mut self) {
        let Some(request) = self.sent.pop_front() else { return };
        self.dirty = true;
        match request {
            Request::ReadRevision(kind) => {
                let revision = Revision(self.revision);
                let stream = usize::from(kind == Kind::Pod);
                self.news[stream].push_back(WatchEvent::Progress { kind, revision });
            }
            Request::Update { object, .. } => {
                let written = object.get::<ResourceQuota>().unwrap();
                if written.metadata.resource_version == self.quota.metadata.resource_version {
                    self.quota = written.clone();
                    self.revision += 1;
                    self.tell_quota();
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Another instance takes over: what it has is what the store has.
    fn restart(&mut self) {
        self.sent.clear();
        self.dirty = true;
    }

    /// Whether nothing that exists is missing from what is used, once anything is.
    fn is_sound(&self) -> bool {
        let known = self.quota.status.as_ref().is_some_and(|s| s.used.is_some());
        !known || self.used() >= self.pods.len() as u64
    }
}

proptest! {
    #[test]
    fn no_charge_is_undone_and_all_is_given_back(
        steps in prop::collection::vec((0_u8..12, 0_u8..6), 1..80),
    ) {
        let mut world = World::new();
        for (step, name) in steps {
            match step {
                0..3 => world.create(name),
                3 => world.delete(name),
                4..6 => world.hear(0),
                6..8 => world.hear(1),
                8..10 => world.reconcile(),
                10 => world.arrive(),
                _ => world.restart(),
            }
        }
        // Then all arrives.
        for _ in 0..40 {
            world.hear(0);
            world.hear(1);
            world.reconcile();
            world.arrive();
        }
        for stream in [0, 1] {
            while !world.news[stream].is_empty() {
                world.hear(stream);
            }
        }
        for _ in 0..20 {
            world.reconcile();
            world.arrive();
            world.hear(0);
            world.hear(1);
        }
        prop_assert!(world.is_sound());
        prop_assert_eq!(world.used(), world.pods.len() as u64);
        prop_assert!(!world.dirty, "it comes to rest");
        // From here on every step is sound.
        for i in 0..12 {
            world.create(i);
            prop_assert!(world.is_sound());
            world.hear(usize::from(i % 2));
            world.reconcile();
            world.arrive();
            prop_assert!(world.is_sound());
            prop_assert!(world.used() <= MOST.max(world.pods.len() as u64));
        }
    }
}
