//! Who may be displaced, with the consent of extenders.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ExtenderVerb, Time, codec};
use machine::ApiEffect;

use super::{Answer, Consultation, Scheduler, Stage};
use crate::extender::NAME;
use crate::extender::wire::{self, Going, Victims};
use crate::preemption::{self, Eviction, Preemption, Victim};
use crate::survey::Survey;

const NO_CANDIDATE: &str = "no candidate node for preemption";

impl Scheduler {
    /// Looks for pods that could go, where no node is left.
    pub(super) fn displace(
        &mut self,
        now: Time,
        mut this: Box<Consultation>,
        out: &mut Vec<ApiEffect>,
    ) {
        let all = Arc::clone(self.desk.extenders());
        let consents = |number: &u32| !all.get(*number).config.preempt_verb.is_empty();
        let asks = this.extenders.iter().any(consents);
        let (snapshot, question) = (&self.snapshot, this.pod.question());
        let profile = self.desk.profile(this.profile);
        let mut survey = Survey::of(&profile.relating, snapshot, question);
        let potential: Vec<u32> =
            this.potential.iter().filter_map(|name| snapshot.known(name)).collect();
        let rng = &mut self.chooser.rng;
        if !asks {
            this.diagnosis.preemption =
                preemption::preempt(profile, snapshot, question, &mut survey, &potential, rng);
            return self.conclude(now, *this, out);
        }
        match preemption::candidates(profile, snapshot, question, &mut survey, &potential, rng) {
            Ok(candidates) => {
                this.candidates = candidates;
                this.stage = Stage::Preempt;
                this.position = 0;
                self.ask_consent(now, this, out);
            }
            Err(preemption) => {
                this.diagnosis.preemption = preemption;
                self.conclude(now, *this, out);
            }
        }
    }

    /// Asks the next extender that has a say; if there is none, the cheapest node is cleared.
    fn ask_consent(&mut self, now: Time, mut this: Box<Consultation>, out: &mut Vec<ApiEffect>) {
        let all = Arc::clone(self.desk.extenders());
        if !this.candidates.is_empty()
            && let Some(number) = this.next_that(&all, |config| !config.preempt_verb.is_empty())
        {
            let by_uid = all.get(number).config.node_cache_capable;
            let going = this.candidates.iter().map(|candidate| self.going(candidate, by_uid));
            let body = wire::about_victims(self.pod_json(&this.pod.key), going.collect(), by_uid);
            self.ask(now, &mut this, number, ExtenderVerb::Preempt, body, out);
            self.consultation = Some(this);
            return;
        }
        if this.candidates.is_empty() {
            this.diagnosis.preemption = Preemption::Ineligible(NO_CANDIDATE);
            // It may consent another time.
            this.diagnosis.plugins.insert(NAME);
            return self.conclude(now, *this, out);
        }
        match preemption::best(&self.snapshot, &this.candidates) {
            Some(eviction) => {
                this.diagnosis.preemption = Preemption::Found(Box::new(eviction));
                self.conclude(now, *this, out);
            }
            // All have gone by themselves.
            None => self.queue.try_again(this.pod.key, now),
        }
    }

    fn going(&self, candidate: &Eviction, by_uid: bool) -> Going {
        let pod = |victim: &Victim| {
            let object = self.cache.object(&victim.key).filter(|o| o.uid() == victim.uid)?;
            Some((victim.uid.clone(), (!by_uid).then(|| codec::encode(object))))
        };
        Going {
            node: candidate.node.clone(),
            violations: candidate.violations,
            pods: candidate.victims.iter().filter_map(pod).collect(),
        }
    }

    pub(super) fn take_victims(
        &mut self,
        now: Time,
        mut this: Box<Consultation>,
        answers: Vec<(u32, Answer)>,
        out: &mut Vec<ApiEffect>,
    ) {
        let all = Arc::clone(self.desk.extenders());
        for (number, answer) in answers {
            let config = &all.get(number).config;
            let victims = answer.and_then(|text| wire::victims(&text));
            let left = victims.and_then(|nodes| {
                self.consented(&this, nodes, &config.url_prefix, config.ignorable)
            });
            match left {
                Ok(candidates) => this.candidates = candidates,
                Err(_) if config.ignorable => {}
                Err(why) => {
                    this.diagnosis.preemption = Preemption::Failed(why);
                    return self.conclude(now, *this, out);
                }
            }
        }
        self.ask_consent(now, this, out);
    }

    /// The nodes that may be cleared as an extender says, in the order in which they were found.
    fn consented(
        &self,
        this: &Consultation,
        mut nodes: BTreeMap<String, Victims>,
        url: &str,
        ignorable: bool,
    ) -> Result<Vec<Eviction>, String> {
        let mut left = Vec::new();
        let mut take = |node: &str, victims: Victims, known: &[Victim]| {
            if victims.uids.is_empty() {
                return if ignorable {
                    Ok(())
                } else {
                    Err(format!("expected at least one victim pod on node {node:?}"))
                };
            }
            let mut chosen = Vec::new();
            for uid in &victims.uids {
                chosen.extend(self.victim(this, node, uid, known, url)?);
            }
            let violations = victims.violations;
            left.push(Eviction { node: node.to_owned(), victims: chosen, violations });
            Ok(())
        };
        for Eviction { node, victims: known, .. } in &this.candidates {
            if let Some(victims) = nodes.remove(node) {
                take(node, victims, known)?;
            }
        }
        for (node, victims) in nodes {
            take(&node, victims, &[])?;
        }
        Ok(left)
    }

    /// The pod that an extender names; `None` if it was asked about it and it has gone since.
    fn victim(
        &self,
        this: &Consultation,
        node: &str,
        uid: &str,
        known: &[Victim],
        url: &str,
    ) -> Result<Option<Victim>, String> {
        let claim =
            || format!("extender: {url} claims to preempt pod (UID: {uid}) on node: {node}, but");
        let id = self.snapshot.known(node);
        let mut pods = id.into_iter().flat_map(|id| self.snapshot.pods_on(id));
        match pods.find(|placed| *placed.uid == *uid) {
            Some(placed) if placed.standing.priority < this.pod.priority => {
                Ok(Some(Victim { key: placed.key.clone(), uid: uid.to_owned() }))
            }
            Some(_) => Err(format!("{} the priority of the pod is not lower", claim())),
            None if known.iter().any(|victim| victim.uid == uid) => Ok(None),
            None => Err(format!("{} the pod is not found on that node", claim())),
        }
    }
}
