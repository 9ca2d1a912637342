//! Drains of nodes, as `kubectl drain` does them: the node is cordoned, its pods are evicted by the
//! API server one by one, and what a budget refuses is tried again until it is allowed or the time
//! is over.
//!
//! An eviction is not one write: the budget is spent first, and the pod is marked and deleted a
//! moment later. Others write in between.

use api::{Key, Kind, Object, Patch, PatchKind, Pod, Reason, Request, Status, Subresource};
use rand_chacha::ChaCha8Rng;
use registry::evict::{self, Decision, OnConflict};
use registry::{DeleteOptions, Operation as Write};
use serde_json::json;

use super::operations::{admin, merge};
use super::{World, at};
use crate::bug::Bug;
use crate::check::Occurrence;
use crate::oracle;
use crate::span::Span;

/// What kubectl waits after a refusal, and between two looks at what is to go.
const REFUSED: Span = Span::secs(5);
const LOOK: Span = Span::secs(1);

/// A node that is being drained.
#[derive(Clone)]
pub(super) struct Drain {
    until: api::Time,
    leaving: Vec<Leaving>,
    rng: ChaCha8Rng,
}

/// A pod that is to leave it.
#[derive(Clone)]
struct Leaving {
    key: Key,
    uid: String,
    stage: Stage,
    due: api::Time,
}

#[derive(Clone)]
enum Stage {
    /// Its eviction is to be asked for.
    Waits,
    /// The eviction was granted: it is to be deleted.
    Granted(DeleteOptions, OnConflict),
    /// It is being deleted.
    Goes,
    /// Nothing is left to do.
    Done,
}

/// Whether the pod is of a daemon set: the next one would be there at once.
fn is_daemon(pod: &Pod) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|o| o.controller == Some(true) && o.kind == "DaemonSet")
}

fn deletion(key: &Key, options: &DeleteOptions) -> Request {
    let DeleteOptions { uid, revision, grace_seconds, propagation } = options.clone();
    Request::Delete { key: key.clone(), uid, revision, grace_seconds, propagation }
}

impl World {
    /// Whether a node is being drained.
    pub(super) fn drains(&self) -> bool {
        !self.drains.is_empty()
    }

    /// Begins to drain a node, or goes on with it.
    pub(super) fn drain(&mut self, index: u32, node: &str, timeout: Span) {
        let began = at(self.plan.operations[index as usize].at);
        let mut drain = match self.drains.remove(&index) {
            Some(drain) => drain,
            None => Drain {
                until: began + timeout.duration(),
                leaving: Vec::new(),
                rng: self.rng.child("drains").rng(&index.to_string()),
            },
        };
        if drain.leaving.is_empty() {
            let key = Key::cluster(Kind::Node, node);
            let cordoned = match self.store.get(&key) {
                Some(_) => self.as_admin(&merge(key, json!({"spec": {"unschedulable": true}}))),
                None => Err(Status::not_found(Kind::Node, node)),
            };
            match cordoned {
                Ok(()) => drain.leaving = self.pods_to_evict(node),
                // The node is not there yet, or nobody can write.
                Err(_) if self.now < drain.until => {
                    self.drains.insert(index, drain);
                    self.try_again(index, LOOK);
                    return;
                }
                Err(status) => {
                    self.give_up(index, &status.message);
                    return;
                }
            }
        }
        let now = self.now;
        let Drain { leaving, rng, .. } = &mut drain;
        for pod in leaving.iter_mut().filter(|pod| pod.due <= now) {
            self.evict(pod, rng);
        }
        leaving.retain(|pod| !matches!(pod.stage, Stage::Done));
        let Some(next) = drain.leaving.iter().map(|pod| pod.due).min() else { return };
        if now < drain.until {
            let after = next.since(now);
            self.drains.insert(index, drain);
            self.try_again(index, Span(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)));
        } else {
            let left = drain.leaving.len();
            self.give_up(index, &format!("not gone after {timeout}: {left} of the pods"));
        }
    }

    fn pods_to_evict(&self, node: &str) -> Vec<Leaving> {
        let of_node = |object: &&Object| {
            object.get::<Pod>().is_some_and(|p| oracle::node_of(p) == Some(node) && !is_daemon(p))
        };
        let pods = self.store.objects(Kind::Pod).filter(of_node);
        pods.map(|pod| Leaving {
            key: pod.key(),
            uid: pod.uid().to_owned(),
            stage: Stage::Waits,
            due: self.now,
        })
        .collect()
    }

    /// The next step of the eviction of one pod.
    fn evict(&mut self, pod: &mut Leaving, rng: &mut ChaCha8Rng) {
        let Some(object) = self.store.get(&pod.key).filter(|o| o.uid() == pod.uid).cloned() else {
            pod.stage = Stage::Done;
            return;
        };
        if self.store_down {
            pod.due = self.now + LOOK.duration();
            return;
        }
        let (stage, after) = match std::mem::replace(&mut pod.stage, Stage::Done) {
            Stage::Waits => match self.grant(&object) {
                Ok(Decision { options, on_conflict, .. }) => {
                    let moment = self.plan.settings.network.service.sample(rng);
                    (Stage::Granted(options, on_conflict), moment)
                }
                Err(status) if status.reason == Reason::TooManyRequests => (Stage::Waits, REFUSED),
                // Whatever else is wrong stays so.
                Err(_) => return,
            },
            Stage::Granted(options, on_conflict) => match self.disrupt(&pod.key, options) {
                Ok(()) => (Stage::Goes, LOOK),
                Err(status) if status.reason == Reason::Conflict => match on_conflict {
                    OnConflict::Refuse => return,
                    OnConflict::DecideAnew => (Stage::Waits, Span::ZERO),
                    OnConflict::Answer(_) => (Stage::Waits, REFUSED),
                },
                Err(_) => return,
            },
            Stage::Goes => (Stage::Goes, LOOK),
            Stage::Done => return,
        };
        pod.stage = stage;
        // Never twice in a moment, or it would never be over.
        pod.due = self.now + after.max(Span::micros(1)).duration();
    }

    /// Asks whether a pod may be evicted, and spends its budget.
    fn grant(&mut self, object: &Object) -> Result<Decision, Status> {
        let key = object.key();
        let of_namespace = |o: &&Object| o.key().namespace == key.namespace;
        let budgets: Vec<Object> =
            self.store.objects(Kind::PodDisruptionBudget).filter(of_namespace).cloned().collect();
        let options = DeleteOptions::default();
        let decided = evict::decide(&admin(), object, &budgets, &options, self.now);
        match &decided {
            Err(status) => {
                let request = deletion(&key, &options);
                self.tell(&Occurrence::Answered {
                    by: None,
                    request: &request,
                    refusal: Some(status),
                });
            }
            Ok(decision) => {
                self.tell(&Occurrence::EvictionGranted { pod: &key });
                let spends = self.plan.settings.bug != Some(Bug::AllowanceNotSpent);
                if let Some(budget) = decision.spend.as_ref().filter(|_| spends) {
                    let subresource = Some(Subresource::Status);
                    self.as_admin(&Request::Update { object: budget.clone(), subresource })?;
                }
            }
        }
        decided
    }

    /// Marks a pod and deletes it.
    fn disrupt(&mut self, key: &Key, mut options: DeleteOptions) -> Result<(), Status> {
        let body = json!({"status": {"conditions": [{"type": "DisruptionTarget"}]}});
        let request = Request::Patch {
            key: key.clone(),
            subresource: Some(Subresource::Status),
            patch: Patch { kind: PatchKind::Strategic, body: body.into() },
        };
        let mark = Write::Disrupt { pod: key.clone(), options: options.clone() };
        self.write(None, &request, &mark, &admin())?;
        if options.revision.is_some() {
            // The mark is ours; nothing else may have changed.
            options.revision = self.store.get(key).map(Object::revision);
        }
        let delete = Write::Delete { key: key.clone(), options: options.clone() };
        self.write(None, &deletion(key, &options), &delete, &admin())?;
        Ok(())
    }
}
