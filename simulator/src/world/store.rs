//! The store behind the API servers: `registry::admit` on `registry::memory::Memory`.

mod specs;

use std::sync::Arc;

use api::{Key, Kind, Object, Revision, Shared, Status, Time};
use k8s_openapi::api::core::v1::PodSpec;
use machine::RngTree;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use registry::memory::{Beside, Change, Commit, Compacted, Memory, Refusal};
use registry::{Caller, Claims, Mutation, Operation, Options, Stamp, View};

use self::specs::Specs;
use super::bugs::Serving;

/// How many writes are remembered where somebody reads the past: enough for a server that lags.
const HISTORY: u64 = 8_192;
/// How often a write is decided anew because an address was taken.
const ATTEMPTS_MAX: u32 = 16;

/// One write, as it is remembered.
pub(super) type Write = Change<Object, Arc<Key>>;

/// The objects of the cluster.
#[derive(Clone)]
pub(super) struct Store {
    memory: Memory<Object, Arc<Key>>,
    /// How many objects of each kind there are: admission asks for kinds of which there are none.
    counts: [u32; Kind::ALL.len()],
    specs: Specs,
    options: Options,
    serving: Serving,
    rng: ChaCha8Rng,
    /// How many writes are remembered. What nobody will read is forgotten at once: its memory is
    /// then used again while it is at hand.
    history: u64,
}

/// What a write has left behind.
pub(super) struct Written {
    pub(super) key: Arc<Key>,
    pub(super) old: Option<Object>,
    /// `None` when the object is gone.
    pub(super) new: Option<Object>,
    /// What the caller is answered with.
    pub(super) answer: Object,
    /// Quotas that were charged for it, as they were and as they are.
    pub(super) charged: Vec<(Arc<Key>, Object, Object)>,
    /// The revision of the write; `None` when nothing had to be written.
    pub(super) revision: Option<Revision>,
}

impl Store {
    pub(super) fn new(rng: RngTree, reads_past: bool, serving: Serving) -> Self {
        let cidr = "10.96.0.0/12".parse().expect("a constant range");
        Self {
            memory: Memory::new(),
            counts: [0; Kind::ALL.len()],
            specs: Specs::default(),
            options: Options { service_cidr: cidr, ..Options::default() },
            serving,
            rng: rng.rng("stamps"),
            history: if reads_past { HISTORY } else { 0 },
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.memory.revision()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Object> {
        self.memory.get_ref(key).map(|(_, _, object)| object)
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

    /// What was written after a revision, with what was there before.
    pub(super) fn changes(
        &self,
        after: Revision,
    ) -> Result<impl Iterator<Item = (&Write, Option<&Object>)>, Compacted> {
        self.memory.changes_and_before(after)
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
            let key = operation.key();
            let stamp = Stamp { now, entropy: self.serving.draws(key.as_ref(), entropy) };
            let held = key.as_ref().and_then(|key| self.memory.get_ref(key));
            let (known, current) =
                held.map(|(known, _, object)| (known.clone(), object.clone())).unzip();
            let seen = current.as_ref().and_then(|object| self.serving.sees(operation, object));
            let asked = self.serving.is_asked(operation, current.as_ref());
            let mutation = registry::admit(
                asked.as_ref().unwrap_or(operation),
                seen.as_ref().or(current.as_ref()),
                &StoreView(self),
                caller,
                &self.options,
                stamp,
            )?;
            match self.commit(operation, mutation, known, current) {
                Ok(written) => return Ok(written),
                Err(Refusal::Taken(_)) if attempt < ATTEMPTS_MAX => {}
                Err(Refusal::Taken(_)) => {
                    return Err(Status::internal("no address was found that is free"));
                }
                // The view is the store: a quota cannot have moved.
                Err(Refusal::Moved | Refusal::Conflict(_)) => {
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
        known: Option<Arc<Key>>,
        old: Option<Object>,
    ) -> Result<Written, Refusal<Object>> {
        let (mut object, claims, charges, removed) = match mutation {
            Mutation::Put { object, claims, charges } => (object, claims, charges, false),
            Mutation::Remove { last, claims } => (last, claims, Vec::new(), true),
            Mutation::Unchanged(object) => {
                let key = known.unwrap_or_else(|| Arc::new(object.key()));
                return Ok(Written {
                    key,
                    old: Some(object.clone()),
                    new: Some(object.clone()),
                    answer: object,
                    charged: Vec::new(),
                    revision: None,
                });
            }
        };
        let key = known.unwrap_or_else(|| Arc::new(object.key()));
        let expected = object.revision();
        let revision = Revision(self.memory.revision().0 + 1);
        object.meta_mut().resource_version = Some(revision.to_string());
        // What a limit range of one namespace makes of a spec, none of another one does.
        if let (Object::Pod(pod), None) = (&mut object, &old)
            && StoreView(self).list(Kind::LimitRange, &key.namespace).is_empty()
        {
            self.specs.share(operation, Arc::make_mut(pod));
        }
        let value = (!removed).then(|| object.clone());
        let Claims { take, free } = claims;
        let mut charged = Vec::new();
        let mut besides = Vec::new();
        for mut quota in self.serving.charges(charges) {
            let expected = quota.revision();
            quota.meta_mut().resource_version = Some(revision.to_string());
            let Some((key, _, old)) = self.memory.get_ref(&quota.key()) else { continue };
            besides.push(Beside { key: key.clone(), expected, value: quota.clone() });
            charged.push((key.clone(), old.clone(), quota));
        }
        let value_now = value.clone();
        let commit = Commit { key: key.clone(), expected, value: value_now, take, free, besides };
        self.memory.commit(commit)?;
        let count = &mut self.counts[key.kind as usize];
        match (&old, removed) {
            (None, false) => *count += 1,
            (Some(_), true) => *count -= 1,
            _ => {}
        }
        if key.kind == Kind::PriorityClass {
            // Specs have their priorities from the classes.
            self.specs.forget_made();
        }
        self.memory.compact(Revision(revision.0.saturating_sub(self.history)));
        Ok(Written { key, old, new: value, answer: object, charged, revision: Some(revision) })
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
        if self.0.counts[kind as usize] == 0 || self.0.serving.misses(kind) {
            return Vec::new();
        }
        let from = Key::new(kind, namespace, "");
        let within = |key: &Arc<Key>| {
            key.kind == kind && (namespace.is_empty() || key.namespace == namespace)
        };
        self.0.memory.iter_within(&from, within).map(|(_, _, object)| object.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
