//! Groups of pods that are placed together or not at all.
//!
//! When the turn of a pod comes of whose group too few pods have a node, nodes are chosen for as
//! many as are missing, one after the other, each as if those before it were there already. If all
//! find one, all are bound; else everything is as before, and they wait for what may help those
//! that found none. No group holds nodes for pods that it waits for, so no two can wait for each
//! other.
//!
//! Pods of lower priority are displaced only if the whole group finds a place by it; the places
//! are then cleared for all of its pods.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Key, Name, Time};
use machine::ApiEffect;

use super::groups::Permit;
use super::{Decision, Scheduler};
use crate::cycle::{Choice, Diagnosis};
use crate::desk::ProfileId;
use crate::framework::ClusterEvent;
use crate::group::{GroupName, MIN_AVAILABLE_MAX};
use crate::pod_info::{Load, PodInfo, Standing};
use crate::preemption::{Eviction, Preemption, Victim};
use crate::relations::Presence;
use crate::volumes::Binding;

/// The plugin that does this.
pub(super) const PLUGIN: &str = "Coscheduling";
const WAITING: &str = "pods of the group wait for terminating pods on their nominated nodes.";

/// A pod of a group, and the node that it can have.
struct Placement {
    pod: PodInfo,
    node: String,
    /// The decision; if it is none, others have to go first.
    result: Result<Choice, Diagnosis>,
}

/// What came of trying to place a group.
#[derive(Default)]
struct Trial {
    placed: Vec<Placement>,
    refused: Vec<(Key, Diagnosis)>,
    /// Volumes that its pods are given.
    given: BTreeSet<String>,
    /// What was done to the snapshot, in order.
    done: Vec<Done>,
    /// How many decisions it took.
    decisions: usize,
}

/// A change of the snapshot that was made to see what would be.
enum Done {
    Placed(Key),
    Removed(Box<Removed>),
    Withdrawn(Key, Name),
}

/// A pod as it was on its node.
struct Removed {
    key: Key,
    uid: String,
    presence: Presence,
    load: Arc<Load>,
    node: String,
    standing: Standing,
}

impl Trial {
    /// Whether others could make way for pods that were refused.
    fn may_displace(&self) -> bool {
        let found = |diagnosis: &Diagnosis| matches!(diagnosis.preemption, Preemption::Found(_));
        self.refused.iter().any(|(_, diagnosis)| found(diagnosis))
    }

    /// Whether pods are on their way out for one that was refused.
    fn waits(&self, scheduler: &Scheduler) -> bool {
        let nominated = |key: &Key| scheduler.snapshot.nominations().of(key).is_some();
        self.refused.iter().any(|(key, diagnosis)| {
            matches!(diagnosis.preemption, Preemption::Ineligible(_)) && nominated(key)
        })
    }

    /// The diagnosis of the last pod that nothing tells apart from this in a decision.
    fn known(&self, scheduler: &Scheduler, pod: &PodInfo) -> Option<Diagnosis> {
        let class = pod.class_id?;
        let alike = |key: &Key| {
            let other = scheduler.pending.get(key);
            other.is_some_and(|o| o.class_id == Some(class) && o.kin.id == pod.kin.id)
        };
        let nominated = scheduler.snapshot.nominations().of(&pod.key).is_some();
        let found = self.refused.iter().rev().find(|(key, _)| !nominated && alike(key));
        found.map(|(_, diagnosis)| diagnosis.clone())
    }
}

impl Scheduler {
    /// Decides about the group of a pod whose turn it is, if too few of the group have a node;
    /// gives how many decisions that took. `None` if the pod is to be decided about alone.
    pub(super) fn decide_together(
        &mut self,
        now: Time,
        key: &Key,
        profile: ProfileId,
        out: &mut Vec<ApiEffect>,
    ) -> Option<usize> {
        self.desk.profile(profile).coscheduling?;
        let group = self.pending.get(key)?.kin.identity.group.as_ref()?;
        let name = group.name.clone();
        if let Err(why) = &group.min_available {
            let why = format!("pod group \"{name}\" cannot be placed: {why}");
            self.refuse(now, key, profile, self.refused_together(why), out);
            return Some(1);
        }
        if self.groups.permits.contains_key(&name) {
            self.set_aside(key);
            return Some(1);
        }
        let members = self.members(&name, profile);
        let wanted = members.iter().filter_map(|(_, min)| *min).max()?;
        let there = self.snapshot.placed_of(&name) + self.groups.succeeded_of.of(&name);
        let missing = wanted.saturating_sub(there);
        if missing == 0 {
            return None;
        }
        if members.len() < missing {
            let why = format!(
                "pod group \"{name}\" needs {wanted} pods together, of which {there} have a node \
                 and {} wait for one",
                members.len()
            );
            self.refuse(now, key, profile, self.refused_together(why), out);
            return Some(1);
        }
        for (member, _) in &members {
            if let Some(campaign) = self.campaigns.get_mut(member) {
                // What was asked for is not yet seen. When it is, the group is tried again.
                campaign.woken = true;
                self.set_aside(key);
                return Some(1);
            }
        }
        let members: Vec<Key> = members.into_iter().map(|(member, _)| member).collect();
        Some(self.place(now, &name, profile, &members, missing, out))
    }

    /// The pods of a group that can be tried, in their turn, with what each says of how many have
    /// to be together.
    fn members(&self, group: &GroupName, profile: ProfileId) -> Vec<(Key, Option<usize>)> {
        let members = self.groups.members.get(group).into_iter().flatten();
        let mut members: Vec<_> = members
            .filter(|key| !self.assumed.contains(*key))
            .filter_map(|key| {
                let pod = self.pending.get(key)?;
                let same = self.desk.find(&pod.scheduler) == Some(profile);
                let min = pod.kin.identity.group.as_ref()?.min_available.as_ref().ok().copied();
                same.then_some((self.queue.turn(key)?, (key.clone(), min)))
            })
            .collect();
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        members.truncate(MIN_AVAILABLE_MAX);
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Nobody is to be looked at for a pod.
    fn refused_together(&self, why: String) -> Diagnosis {
        Diagnosis::refused(PLUGIN, self.snapshot.len(), why)
    }

    /// Has a pod wait until its group is tried again for another's sake.
    fn set_aside(&mut self, key: &Key) {
        let kin = self.pending.get(key).map_or(0, |pod| pod.kin.id);
        let events = BTreeSet::from([
            ClusterEvent::NodeAdded,
            ClusterEvent::PodGone,
            ClusterEvent::PeerCame,
        ]);
        self.queue.unschedulable(key.clone(), events, kin);
    }

    /// Lets the pods of a group be tried again that were set aside.
    pub(super) fn wake_group(&mut self, now: Time, group: &GroupName) {
        for key in self.groups.members.get(group).into_iter().flatten() {
            self.queue.wake(key, now);
        }
    }

    fn place(
        &mut self,
        now: Time,
        group: &GroupName,
        profile: ProfileId,
        members: &[Key],
        missing: usize,
        out: &mut Vec<ApiEffect>,
    ) -> usize {
        let mut trial = self.try_members(now, profile, members, missing, false);
        self.take_back(std::mem::take(&mut trial.done));
        let mut decisions = trial.decisions;
        if trial.placed.len() < missing && trial.may_displace() && !trial.waits(self) {
            let bold = self.try_members(now, profile, members, missing, true);
            decisions += bold.decisions;
            let Trial { placed, refused, done, .. } = bold;
            self.take_back(done);
            if placed.len() == missing {
                trial.placed = placed;
                trial.refused = refused;
            }
        }
        for key in trial.placed.iter().map(|p| &p.pod.key).chain(trial.refused.iter().map(|r| &r.0))
        {
            self.queue.begin(key, now);
        }
        if trial.placed.len() < missing {
            self.refuse_group(now, group, profile, trial, missing, out);
        } else if trial.placed.iter().any(|placement| placement.result.is_err()) {
            self.make_way(now, group, profile, trial, out);
        } else {
            self.bind_together(now, group, profile, trial.placed, out);
        }
        decisions
    }

    /// Chooses nodes for pods until so many have one. The snapshot is left as it would be then.
    fn try_members(
        &mut self,
        now: Time,
        profile: ProfileId,
        members: &[Key],
        missing: usize,
        displace: bool,
    ) -> Trial {
        let mut trial = Trial::default();
        for key in members {
            if trial.placed.len() == missing {
                break;
            }
            let Some(pod) = self.pending.get(key).cloned() else { continue };
            if let Some(diagnosis) = trial.known(self, &pod) {
                trial.refused.push((key.clone(), diagnosis));
                continue;
            }
            trial.decisions += 1;
            let pod = match self.with_volumes(&pod, profile, &trial.given) {
                Ok(with_volumes) => with_volumes.unwrap_or(pod),
                Err(diagnosis) => {
                    trial.refused.push((key.clone(), diagnosis));
                    continue;
                }
            };
            let result =
                self.chooser.choose(now, &mut self.desk, &mut self.snapshot, profile, &pod);
            let node = match &result {
                Ok(choice) => choice.node.clone(),
                Err(Diagnosis { preemption: Preemption::Found(eviction), .. }) if displace => {
                    for victim in &eviction.victims {
                        self.try_without(victim, &mut trial.done);
                    }
                    eviction.node.clone()
                }
                Err(diagnosis) => {
                    trial.refused.push((key.clone(), diagnosis.clone()));
                    continue;
                }
            };
            self.try_with(&pod, &node, &mut trial);
            trial.placed.push(Placement { pod, node, result });
        }
        trial
    }

    fn try_with(&mut self, pod: &PodInfo, node: &str, trial: &mut Trial) {
        let key = &pod.key;
        if let Some(id) = self.snapshot.known(node)
            && let Ok(bindings) = pod.class.volumes.on(self.snapshot.row(id))
        {
            trial.given.extend(bindings.into_iter().filter_map(|(_, binding)| match binding {
                Binding::Volume(name) => Some(name),
                Binding::Provision => None,
            }));
        }
        if let Some(nomination) = self.snapshot.withdraw(key) {
            trial.done.push(Done::Withdrawn(key.clone(), nomination.node));
        }
        self.snapshot.add_pod(key, &pod.uid, &Presence::of(&pod.kin), &pod.class.load, node);
        self.snapshot.set_standing(key, Standing::new(pod.priority));
        self.assumed.insert(key.clone());
        trial.done.push(Done::Placed(key.clone()));
    }

    fn try_without(&mut self, victim: &Victim, done: &mut Vec<Done>) {
        let Some(pod) = self.snapshot.pod(&victim.key) else { return };
        let removed = Removed {
            key: victim.key.clone(),
            uid: pod.uid.to_owned(),
            load: Arc::clone(pod.load),
            node: pod.node.to_owned(),
            standing: pod.standing,
            presence: pod.presence,
        };
        self.snapshot.remove_pod(&victim.key);
        done.push(Done::Removed(Box::new(removed)));
    }

    /// Leaves the snapshot as it was before so much was done to it.
    fn take_back(&mut self, done: Vec<Done>) {
        for step in done.into_iter().rev() {
            match step {
                Done::Placed(key) => {
                    self.assumed.remove(&key);
                    self.snapshot.remove_pod(&key);
                }
                Done::Removed(pod) => {
                    let Removed { key, uid, presence, load, node, standing } = *pod;
                    self.snapshot.add_pod(&key, &uid, &presence, &load, &node);
                    self.snapshot.set_standing(&key, standing);
                }
                Done::Withdrawn(key, node) => {
                    if let Some(pod) = self.pending.get(&key) {
                        self.snapshot.nominate(pod, &node);
                    }
                }
            }
        }
    }

    /// Has all pods of a group wait that were tried.
    fn refuse_group(
        &mut self,
        now: Time,
        group: &GroupName,
        profile: ProfileId,
        trial: Trial,
        missing: usize,
        out: &mut Vec<ApiEffect>,
    ) {
        let why = format!(
            "pod group \"{group}\": {} of {missing} pods that are placed together find a node",
            trial.placed.len()
        );
        let waits = trial.waits(self);
        let plugins: BTreeSet<&'static str> =
            trial.refused.iter().flat_map(|(_, diagnosis)| diagnosis.plugins.clone()).collect();
        let placed = trial.placed.into_iter().map(|placement| {
            (
                placement.pod.key,
                Diagnosis { plugins: plugins.clone(), ..self.refused_together(why.clone()) },
            )
        });
        let placed: Vec<_> = placed.collect();
        for (key, mut diagnosis) in placed.into_iter().chain(trial.refused) {
            // Nobody goes for a group that finds no place even so.
            diagnosis.preemption = match diagnosis.preemption {
                Preemption::Ineligible(why) => Preemption::Ineligible(why),
                _ if waits => Preemption::Ineligible(WAITING),
                Preemption::Found(_) => Preemption::Untried,
                other => other,
            };
            diagnosis.plugins.extend(&plugins);
            diagnosis.plugins.insert(PLUGIN);
            diagnosis.refusal = Some(match diagnosis.refusal.take() {
                Some(own) if own != why => format!("{own}, {why}"),
                _ => why.clone(),
            });
            self.refuse(now, &key, profile, diagnosis, out);
        }
    }

    /// Has others go, so that all pods of a group find a place.
    fn make_way(
        &mut self,
        now: Time,
        group: &GroupName,
        profile: ProfileId,
        trial: Trial,
        out: &mut Vec<ApiEffect>,
    ) {
        let going: usize = trial
            .placed
            .iter()
            .filter_map(|placement| match &placement.result {
                Err(Diagnosis { preemption: Preemption::Found(e), .. }) => Some(e.victims.len()),
                _ => None,
            })
            .sum();
        let why = format!("pod group \"{group}\" waits for {going} pods to leave their nodes");
        for Placement { pod, node, result } in trial.placed {
            let diagnosis = result.err().unwrap_or_else(|| Diagnosis {
                preemption: Preemption::Found(Box::new(Eviction {
                    node,
                    victims: Vec::new(),
                    violations: 0,
                })),
                ..self.refused_together(why.clone())
            });
            self.refuse(now, &pod.key, profile, diagnosis, out);
        }
        for (key, _) in trial.refused {
            self.set_aside(&key);
        }
    }

    /// Assumes all pods on their nodes, and binds them when the claims of all are bound.
    fn bind_together(
        &mut self,
        now: Time,
        group: &GroupName,
        profile: ProfileId,
        placed: Vec<Placement>,
        out: &mut Vec<ApiEffect>,
    ) {
        let waiting: BTreeSet<Key> = placed
            .iter()
            .filter(|placement| !placement.pod.class.volumes.is_bound())
            .map(|placement| placement.pod.key.clone())
            .collect();
        if !waiting.is_empty() {
            let patience = self.desk.profile(profile).coscheduling.unwrap_or_default();
            let members = placed.iter().map(|p| (p.pod.key.clone(), p.node.clone())).collect();
            let deadline = now + patience;
            let waiting = waiting.clone();
            let permit = Permit { profile, members, waiting, deadline, broken: false };
            self.groups.permits.insert(group.clone(), permit);
        }
        for Placement { pod, node, result } in placed {
            let key = pod.key.clone();
            self.assume(now, &key, &node);
            if let Some(decisions) = &mut self.decisions {
                decisions.push(Decision { time: now, pod: key.clone(), result });
            }
            if waiting.contains(&key) {
                self.reserve(now, &pod, profile, node, out);
            } else if waiting.is_empty() {
                self.bind(key, profile, node, out);
            }
        }
    }
}
