//! The store behind the API servers: `registry::admit` on `registry::memory::Memory`.

mod specs;

use std::sync::Arc;

use api::{Key, Kind, Object, Revision, Shared, Status, Time};
use k8s_openapi::api::core::v1::PodSpec;
use machine::RngTree;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use registry::memory::{Change, Commit, Compacted, Memory, Refusal};
use registry::{Caller, Claims, Mutation, Operation, Options, Stamp, View};

use self::specs::Specs;

/// Writes after which history is forgotten, and how much of it stays: enough for any watch that
/// was interrupted for a while.
const COMPACT_EVERY: u64 = 64;
const HISTORY: u64 = 8_192;
/// How often a write is decided anew because an address was taken.
const ATTEMPTS_MAX: u32 = 16;

/// The objects of the cluster.
#[derive(Clone)]
pub(super) struct Store {
    memory: Memory<Object, Key>,
    specs: Specs,
    options: Options,
    rng: ChaCha8Rng,
}

/// What a write has left behind.
pub(super) struct Written {
    pub(super) key: Key,
    pub(super) old: Option<Object>,
    /// `None` when the object is gone.
    pub(super) new: Option<Object>,
    /// What the caller is answered with.
    pub(super) answer: Object,
    /// The revision of the write; `None` when nothing had to be written.
    pub(super) revision: Option<Revision>,
}

impl Store {
    pub(super) fn new(rng: RngTree) -> Self {
        let cidr = "10.96.0.0/12".parse().expect("a constant range");
        Self {
            memory: Memory::new(),
            specs: Specs::default(),
            options: Options { service_cidr: cidr, ..Options::default() },
            rng: rng.rng("stamps"),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.memory.revision()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Object> {
        self.memory.get_ref(key).map(|(_, object)| object)
    }

    pub(super) fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let from = Key::cluster(kind, "");
        self.memory.iter_within(&from, move |key| key.kind == kind).map(|(_, _, object)| object)
    }

    /// All objects of a kind as they were at a revision.
    pub(super) fn objects_at(&self, kind: Kind, at: Revision) -> Result<Vec<Object>, Compacted> {
        let from = Key::cluster(kind, "");
        let past = self.memory.past_within(&from, |key| key.kind == kind, at)?;
        Ok(past.map(|(_, _, object)| object.clone()).collect())
    }

    pub(super) fn changes(
        &self,
        after: Revision,
    ) -> Result<impl Iterator<Item = &Change<Object, Key>>, Compacted> {
        self.memory.changes(after)
    }

    /// Decides and carries out one write.
    pub(super) fn write(
        &mut self,
        operation: &Operation,
        caller: &Caller,
        now: Time,
    ) -> Result<Written, Status> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut entropy = [0; 16];
            self.rng.fill_bytes(&mut entropy);
            let stamp = Stamp { now, entropy };
            let key = operation.key();
            let current = key.as_ref().and_then(|key| self.get(key)).cloned();
            let mutation = registry::admit(
                operation,
                current.as_ref(),
                &StoreView(self),
                caller,
                &self.options,
                stamp,
            )?;
            match self.commit(operation, mutation, key, current) {
                Ok(written) => return Ok(written),
                Err(Refusal::Taken(_)) if attempt < ATTEMPTS_MAX => {}
                Err(Refusal::Taken(_)) => {
                    return Err(Status::internal("no address was found that is free"));
                }
                Err(Refusal::Conflict(_)) => {
                    let kind = operation.kind();
                    let name = operation.key().map(|k| k.name.to_string()).unwrap_or_default();
                    return Err(match operation {
                        Operation::Create { .. } => Status::already_exists(kind, &name),
                        _ => Status::modified(kind, &name),
                    });
                }
            }
        }
    }

    fn commit(
        &mut self,
        operation: &Operation,
        mutation: Mutation,
        key: Option<Key>,
        old: Option<Object>,
    ) -> Result<Written, Refusal<Object>> {
        let (mut object, claims, removed) = match mutation {
            Mutation::Put { object, claims } => (object, claims, false),
            Mutation::Remove { last, claims } => (last, claims, true),
            Mutation::Unchanged(object) => {
                let key = object.key();
                return Ok(Written {
                    key,
                    old: Some(object.clone()),
                    new: Some(object.clone()),
                    answer: object,
                    revision: None,
                });
            }
        };
        // A key that is not known yet is one of an object that gets a name: it is not there.
        let key = key.unwrap_or_else(|| object.key());
        let expected = object.revision();
        let revision = Revision(self.memory.revision().0 + 1);
        object.meta_mut().resource_version = Some(revision.to_string());
        if let (Object::Pod(pod), None) = (&mut object, &old) {
            self.specs.share(operation, Arc::make_mut(pod));
        }
        let value = (!removed).then(|| object.clone());
        let Claims { take, free } = claims;
        let commit = Commit { key: key.clone(), expected, value: value.clone(), take, free };
        self.memory.commit(commit)?;
        if revision.0.is_multiple_of(COMPACT_EVERY) {
            self.memory.compact(Revision(revision.0.saturating_sub(HISTORY)));
        }
        Ok(Written { key, old, new: value, answer: object, revision: Some(revision) })
    }
}

/// What admission may look at.
struct StoreView<'a>(&'a Store);

impl View for StoreView<'_> {
    fn get(&self, key: &Key) -> Option<Object> {
        self.0.get(key).cloned()
    }

    fn made_of(&self, spec: &Shared<PodSpec>) -> Option<Shared<PodSpec>> {
        self.0.specs.made_of(spec)
    }

    fn list(&self, kind: Kind, namespace: &str) -> Vec<Object> {
        let from = Key::new(kind, namespace, "");
        let within =
            |key: &Key| key.kind == kind && (namespace.is_empty() || key.namespace == namespace);
        self.0.memory.iter_within(&from, within).map(|(_, _, object)| object.clone()).collect()
    }
}
