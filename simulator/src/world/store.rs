//! The store behind the API servers: `registry::admit` on `registry::memory::Memory`.

use std::sync::Arc;

use api::{Key, Kind, Object, Revision, Status, Time};
use machine::RngTree;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use registry::memory::{Change, Commit, Compacted, Memory, Refusal};
use registry::window::{PREFIX, store_key};
use registry::{Caller, Claims, Mutation, Operation, Options, Stamp, View};

/// Writes after which history is forgotten, and how much of it stays: enough for any watch that
/// was interrupted for a while.
const COMPACT_EVERY: u64 = 64;
const HISTORY: u64 = 8_192;
/// How often a write is decided anew because an address was taken.
const ATTEMPTS_MAX: u32 = 16;

/// The objects of the cluster.
#[derive(Clone)]
pub(super) struct Store {
    memory: Memory<Object>,
    /// What keys of a kind start with, at the index of the kind.
    prefixes: Vec<String>,
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
            prefixes: Kind::ALL
                .iter()
                .map(|kind| format!("{PREFIX}{}/", kind.group_resource()))
                .collect(),
            options: Options { service_cidr: cidr, ..Options::default() },
            rng: rng.rng("stamps"),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.memory.revision()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Object> {
        self.memory.get_ref(&store_key(key)).map(|(_, object)| object)
    }

    pub(super) fn objects(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.memory.iter_from(&self.prefixes[kind as usize], "").map(|(_, _, object)| object)
    }

    /// All objects of a kind as they were at a revision.
    pub(super) fn objects_at(&self, kind: Kind, at: Revision) -> Result<Vec<Object>, Compacted> {
        let page = self.memory.range(&self.prefixes[kind as usize], "", 0, Some(at))?;
        Ok(page.records.into_iter().map(|record| record.value).collect())
    }

    pub(super) fn changes(
        &self,
        after: Revision,
    ) -> Result<impl Iterator<Item = &Change<Object>>, Compacted> {
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
            let path = operation.key().map(|key| store_key(&key));
            let current = path.as_ref().and_then(|p| self.memory.get_ref(p)).map(|(_, o)| o);
            let mutation = registry::admit(
                operation,
                current,
                &StoreView(self),
                caller,
                &self.options,
                stamp,
            )?;
            match self.commit(mutation, path) {
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
        mutation: Mutation,
        path: Option<Arc<str>>,
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
        let key = object.key();
        let path = path.unwrap_or_else(|| store_key(&key));
        let old = self.memory.get_ref(&path).map(|(_, object)| object.clone());
        let expected = object.revision();
        let revision = Revision(self.memory.revision().0 + 1);
        object.meta_mut().resource_version = Some(revision.to_string());
        let value = (!removed).then(|| object.clone());
        let Claims { take, free } = claims;
        self.memory.commit(Commit { key: path, expected, value: value.clone(), take, free })?;
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

    fn list(&self, kind: Kind, namespace: &str) -> Vec<Object> {
        let prefix = &self.0.prefixes[kind as usize];
        let prefix =
            if namespace.is_empty() { prefix.clone() } else { format!("{prefix}{namespace}/") };
        self.0.memory.iter_from(&prefix, "").map(|(_, _, object)| object.clone()).collect()
    }
}
