//! [`Consultation`]: a decision about a pod in which extenders have a say.
//!
//! The steps are those of Kubernetes: filters of plugins, then of extenders, one after the other;
//! scores of plugins and extenders; if no node is left, who could be displaced, with the extenders'
//! consent. Each question to an extender is a call like any other, and while its answer is not
//! there, nobody else is decided about: an extender keeps accounts of its own, and shall see one
//! pod after the other. Bindings, answers and what happens in the cluster go on meanwhile.
//!
//! A node that was chosen must still do when the last answer is there. If the process ends, or
//! loses its lease, the consultation ends with it: it has changed nothing.
//!
//! Source: kubernetes 1.33, `findNodesThatPassExtenders`, `prioritizeNodes`, `callExtenders`.

mod displacing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, ExtenderVerb, Key, Kind, Name, Object, Pod, Reply, Request, Time, codec};
use machine::{ApiEffect, CallId, Record, Regarding};

use super::{Decision, Flight, Scheduler, same_question, status_patch, unscheduled};
use crate::cycle::{self, Diagnosis, Field, Rejection, Search};
use crate::desk::ProfileId;
use crate::extender::wire::{self, Filtered, Nodes};
use crate::extender::{ExtenderConfig, Extenders, NAME};
use crate::framework::{SCORE_MAX, Score};
use crate::pod_info::PodInfo;
use crate::preemption::{self, Eviction};
use crate::survey::Survey;

/// Extenders score from zero to this.
const EXTENDER_SCORE_MAX: Score = 10;

/// Whoever carries out calls answers each within its time. If it does not, others shall not wait for
/// ever: so much longer.
const GRACE: Duration = Duration::from_secs(5);

/// What is told of an extender that did not answer.
const TIMEOUT: &str = "context deadline exceeded";

/// An answer that is not understood yet, or why there is none.
type Answer = Result<String, String>;

/// A decision of which an extender's answer is awaited.
#[derive(Clone)]
pub(super) struct Consultation {
    pod: PodInfo,
    profile: ProfileId,
    /// The numbers of the extenders that are interested in the pod, in their order.
    extenders: Vec<u32>,
    stage: Stage,
    /// The first extender that is not yet asked in this stage.
    position: usize,
    /// The names of the nodes that are left, in the order in which they were found.
    nodes: Vec<String>,
    /// How many nodes plugins have looked at.
    evaluated: usize,
    /// Why plugins and extenders have refused nodes so far.
    diagnosis: Diagnosis,
    /// The nodes that were refused for a reason that evictions may remove.
    potential: Vec<String>,
    /// Which nodes could be cleared, and of whom.
    candidates: Vec<Eviction>,
    /// How many events there had been when nodes were looked at.
    happenings: u64,
    /// Calls without an answer, and whom they are to.
    open: BTreeMap<CallId, u32>,
    answers: Vec<(u32, Answer)>,
    /// When nobody waits for answers any longer.
    pub(super) deadline: Time,
}

/// What extenders are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Whether the node that was cleared for the pod will do.
    Nominated,
    /// Which nodes will do.
    Filter,
    /// How good they are.
    Prioritize,
    /// Who may be displaced.
    Preempt,
}

/// What a failed call comes to.
pub(super) fn complaint(error: ApiError) -> String {
    match error {
        ApiError::Status(status) => status.to_string(),
        ApiError::Unreachable(why) | ApiError::Unknown(why) => why,
    }
}

impl Scheduler {
    /// Decides about a pod together with extenders, if some are interested in it; tells whether
    /// that is so.
    pub(super) fn consult_about(
        &mut self,
        now: Time,
        key: &Key,
        profile: ProfileId,
        out: &mut Vec<ApiEffect>,
    ) -> bool {
        let all = Arc::clone(self.desk.extenders());
        let object = self.cache.object(key).and_then(Object::get::<Pod>);
        let mut extenders = object.map(|pod| all.interested(pod)).unwrap_or_default();
        extenders.retain(|number| {
            let config = &all.get(*number).config;
            [&config.filter_verb, &config.prioritize_verb, &config.preempt_verb]
                .iter()
                .any(|verb| !verb.is_empty())
        });
        let Some(pod) = self.pending.get(key).filter(|_| !extenders.is_empty()) else {
            return false;
        };
        let pod = match self.with_volumes(pod, profile, &BTreeSet::new()) {
            Ok(with_volumes) => with_volumes.unwrap_or_else(|| pod.clone()),
            Err(diagnosis) => {
                self.refuse(now, key, profile, diagnosis, out);
                return true;
            }
        };
        let consultation = Box::new(Consultation {
            pod,
            profile,
            extenders,
            stage: Stage::Nominated,
            position: 0,
            nodes: Vec::new(),
            evaluated: 1,
            diagnosis: Diagnosis::default(),
            potential: Vec::new(),
            candidates: Vec::new(),
            happenings: self.queue.happenings(),
            open: BTreeMap::new(),
            answers: Vec::new(),
            deadline: Time::ZERO,
        });
        match self.nominated_fit(&consultation) {
            Some(node) => {
                let nodes = vec![node];
                self.filter_on(now, Box::new(Consultation { nodes, ..*consultation }), out);
            }
            None => self.search(now, consultation, out),
        }
        true
    }

    /// The node that was cleared for the pod, if plugins let it have it.
    fn nominated_fit(&self, consultation: &Consultation) -> Option<String> {
        let question = consultation.pod.question();
        let id = self.snapshot.nominated_node(question.key)?;
        let profile = self.desk.profile(consultation.profile);
        let mut survey = Survey::of(&profile.relating, &self.snapshot, question);
        let row = self.snapshot.row(id);
        cycle::reject_with_nominated(profile, &self.snapshot, question, &mut survey, row)
            .is_none()
            .then(|| row.name.clone())
    }

    /// Has plugins look for nodes, and extenders at what they find.
    fn search(&mut self, now: Time, mut this: Box<Consultation>, out: &mut Vec<ApiEffect>) {
        let (snapshot, question) = (&self.snapshot, this.pod.question());
        let profile = self.desk.profile(this.profile);
        let field = match Field::of(profile, snapshot, question.class) {
            Ok(field) => field,
            Err(diagnosis) => {
                return self.refuse(now, &this.pod.key, this.profile, diagnosis, out);
            }
        };
        let mut survey = Survey::of(&profile.relating, snapshot, question);
        let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
        let mut potential = Vec::new();
        let start = self.chooser.start;
        let name = |id: u32| snapshot.row(id).name.clone();
        let search = cycle::search(
            profile,
            snapshot,
            question,
            &field,
            &mut survey,
            start,
            |id, rejection| {
                diagnosis.count(&rejection, 1);
                if rejection.resolvable {
                    potential.push(name(id));
                }
            },
        );
        this.nodes = search.feasible.iter().map(|id| name(*id)).collect();
        let next = (start + search.evaluated).checked_rem(snapshot.len()).unwrap_or(0);
        this.evaluated = search.evaluated;
        this.diagnosis = diagnosis;
        this.potential = potential;
        this.happenings = self.queue.happenings();
        this.stage = Stage::Filter;
        this.position = 0;
        self.chooser.start = next;
        self.filter_on(now, this, out);
    }

    /// Asks the next extender that filters; if there is none, the next step is taken.
    fn filter_on(&mut self, now: Time, mut this: Box<Consultation>, out: &mut Vec<ApiEffect>) {
        let all = Arc::clone(self.desk.extenders());
        if !this.nodes.is_empty()
            && let Some(number) = this.next_that(&all, |config| !config.filter_verb.is_empty())
        {
            let body = self.about_nodes(&this, &all.get(number).config);
            self.ask(now, &mut this, number, ExtenderVerb::Filter, body, out);
            self.consultation = Some(this);
            return;
        }
        match (this.nodes.len(), this.stage) {
            (0, Stage::Nominated) => self.search(now, this, out),
            (0, _) => self.displace(now, this, out),
            (1, _) => self.choose_among(now, &this, &BTreeMap::new(), out),
            _ => self.prioritize(now, this, out),
        }
    }

    /// Asks all extenders that score, at once.
    fn prioritize(&mut self, now: Time, mut this: Box<Consultation>, out: &mut Vec<ApiEffect>) {
        let all = Arc::clone(self.desk.extenders());
        this.stage = Stage::Prioritize;
        this.position = 0;
        while let Some(number) = this.next_that(&all, |config| !config.prioritize_verb.is_empty()) {
            let body = self.about_nodes(&this, &all.get(number).config);
            self.ask(now, &mut this, number, ExtenderVerb::Prioritize, body, out);
        }
        if this.open.is_empty() {
            self.choose_among(now, &this, &BTreeMap::new(), out);
        } else {
            self.consultation = Some(this);
        }
    }

    fn about_nodes(&self, this: &Consultation, config: &ExtenderConfig) -> String {
        let nodes = if config.node_cache_capable {
            Nodes::Names(this.nodes.clone())
        } else {
            let key = |name: &String| Key::new(Kind::Node, "", name);
            let found = this.nodes.iter().filter_map(|name| self.cache.object(&key(name)));
            Nodes::Whole(found.map(codec::encode).collect())
        };
        wire::about_nodes(self.pod_json(&this.pod.key), nodes)
    }

    /// A pod as the API knows it.
    fn pod_json(&self, key: &Key) -> Vec<u8> {
        self.cache.object(key).map_or_else(|| b"null".to_vec(), codec::encode)
    }

    fn ask(
        &mut self,
        now: Time,
        this: &mut Consultation,
        extender: u32,
        verb: ExtenderVerb,
        body: String,
        out: &mut Vec<ApiEffect>,
    ) {
        let timeout = self.desk.extenders().get(extender).timeout();
        let id = self.calls.call(Request::Extend { extender, verb, body }, out);
        this.deadline = this.deadline.max(now + timeout + GRACE);
        this.open.insert(id, extender);
        self.flights.insert(id, Flight::Consult);
    }

    /// Takes an answer of an extender; what follows from it is for the next decision.
    pub(super) fn consulted(&mut self, id: CallId, result: Result<Reply, ApiError>) {
        let Some(this) = &mut self.consultation else { return };
        let Some(extender) = this.open.remove(&id) else { return };
        let answer = match result {
            Ok(Reply::Text(text)) => Ok(text),
            Ok(_) => Err("an answer that is no text".to_owned()),
            Err(error) => Err(complaint(error)),
        };
        this.answers.push((extender, answer));
    }

    /// Goes on with the decision, if what it waits for is there.
    pub(super) fn consult(&mut self, now: Time, out: &mut Vec<ApiEffect>) {
        let Some(mut this) = self.consultation.take() else { return };
        if !self.is_current(&this) {
            self.drop_consultation(now, *this);
            return;
        }
        if now >= this.deadline {
            for (id, extender) in std::mem::take(&mut this.open) {
                self.flights.remove(&id);
                this.answers.push((extender, Err(TIMEOUT.to_owned())));
            }
        }
        if !this.open.is_empty() {
            self.consultation = Some(this);
            return;
        }
        this.deadline = Time::ZERO;
        let answers = std::mem::take(&mut this.answers);
        match this.stage {
            Stage::Nominated | Stage::Filter => self.take_filtered(now, this, answers, out),
            Stage::Prioritize => self.take_scores(now, &this, &answers, out),
            Stage::Preempt => self.take_victims(now, this, answers, out),
        }
    }

    /// Whether the pod still waits for this decision.
    fn is_current(&self, this: &Consultation) -> bool {
        let known = self.pending.get(&this.pod.key);
        known.is_some_and(|pod| same_question(pod, &this.pod))
            && self.queue.is_popped(&this.pod.key)
    }

    /// Ends a consultation without a decision, if there is one.
    pub(super) fn end_consultation(&mut self, now: Time) {
        if let Some(this) = self.consultation.take() {
            self.drop_consultation(now, *this);
        }
    }

    fn drop_consultation(&mut self, now: Time, this: Consultation) {
        for id in this.open.keys() {
            self.flights.remove(id);
        }
        if self.queue.is_popped(&this.pod.key) {
            self.queue.try_again(this.pod.key, now);
        }
    }

    fn take_filtered(
        &mut self,
        now: Time,
        mut this: Box<Consultation>,
        answers: Vec<(u32, Answer)>,
        out: &mut Vec<ApiEffect>,
    ) {
        let all = Arc::clone(self.desk.extenders());
        for (number, answer) in answers {
            let config = &all.get(number).config;
            let answer = answer.and_then(|text| wire::filtered(&text, config.node_cache_capable));
            match answer.and_then(|filtered| this.keep(filtered, &config.url_prefix)) {
                Ok(()) => {}
                Err(_) if config.ignorable => {}
                // What it has against one node tells nothing of the others.
                Err(_) if this.stage == Stage::Nominated => return self.search(now, this, out),
                Err(why) => return self.fail(now, &this.pod.key, this.profile, &why, out),
            }
        }
        self.filter_on(now, this, out);
    }

    fn take_scores(
        &mut self,
        now: Time,
        this: &Consultation,
        answers: &[(u32, Answer)],
        out: &mut Vec<ApiEffect>,
    ) {
        let mut scores: BTreeMap<String, Score> = BTreeMap::new();
        for (number, answer) in answers {
            // Without its scores those of the others count.
            let Ok(answer) = answer else { continue };
            let Ok(list) = wire::prioritized(answer) else { continue };
            let weight = self.desk.extenders().get(*number).config.weight;
            let scale = weight.saturating_mul(SCORE_MAX / EXTENDER_SCORE_MAX);
            for (node, score) in list {
                let sum = scores.entry(node).or_default();
                *sum = sum.saturating_add(score.saturating_mul(scale));
            }
        }
        self.choose_among(now, this, &scores, out);
    }

    /// Chooses one of the nodes that are left, if one of them still does.
    fn choose_among(
        &mut self,
        now: Time,
        this: &Consultation,
        extended: &BTreeMap<String, Score>,
        out: &mut Vec<ApiEffect>,
    ) {
        let (key, profile) = (&this.pod.key, this.profile);
        let Some(pod) = self.pending.get(key) else { return };
        let with_volumes = match self.with_volumes(pod, profile, &BTreeSet::new()) {
            Ok(with_volumes) => with_volumes,
            Err(diagnosis) => return self.refuse(now, key, profile, diagnosis, out),
        };
        let question = with_volumes.as_ref().unwrap_or(pod).question();
        let (made, snapshot) = (self.desk.profile(profile), &self.snapshot);
        let mut survey = Survey::of(&made.relating, snapshot, question);
        let mut feasible: Vec<u32> =
            this.nodes.iter().filter_map(|name| snapshot.known(name)).collect();
        feasible.retain(|id| {
            let row = snapshot.row(*id);
            cycle::reject_with_nominated(made, snapshot, question, &mut survey, row).is_none()
        });
        let search = Search { feasible, evaluated: this.evaluated };
        let rng = &mut self.chooser.rng;
        match cycle::pick_extended(made, snapshot, question, &survey, &search, extended, rng) {
            Some(choice) => {
                if let Some(decisions) = &mut self.decisions {
                    let result = Ok(choice.clone());
                    decisions.push(Decision { time: now, pod: key.clone(), result });
                }
                self.place_alone(now, key.clone(), profile, choice.node, with_volumes, out);
            }
            // What was left is taken, or gone.
            None => self.queue.try_again(key.clone(), now),
        }
    }

    /// Notes that no node will do for the pod.
    fn conclude(&mut self, now: Time, this: Consultation, out: &mut Vec<ApiEffect>) {
        let Consultation { pod, profile, diagnosis, happenings, .. } = this;
        let failed = matches!(diagnosis.preemption, preemption::Preemption::Failed(_));
        let changed = self.queue.happenings() != happenings;
        self.refuse(now, &pod.key, profile, diagnosis, out);
        if failed {
            self.queue.retry(pod.key, now);
        } else if changed {
            // What happened meanwhile may have helped.
            self.queue.try_again(pod.key, now);
        }
    }

    /// Tells that an attempt has failed; it is not known whether a node will do. The pod is tried
    /// again after its pause.
    pub(super) fn fail(
        &mut self,
        now: Time,
        key: &Key,
        profile: ProfileId,
        why: &str,
        out: &mut Vec<ApiEffect>,
    ) {
        self.queue.retry(key.clone(), now);
        let Some(pod) = self.pending.get_mut(key) else { return };
        let known = std::mem::replace(&mut pod.complaint, why.to_owned()) == why;
        let uid = pod.uid.clone();
        let regarding = Regarding::object(key, &uid);
        let reason = Name::new_static("FailedScheduling");
        let record = Record { regarding, warning: true, reason, message: why.to_owned() };
        self.record(now, profile, record, out);
        if !known {
            let condition = unscheduled(now, "SchedulerError", why);
            let request = status_patch(key, &uid, None, Some(condition));
            let id = self.calls.call(request, out);
            self.flights.insert(id, Flight::Status(key.clone()));
        }
    }
}

impl Consultation {
    /// The number of the next extender of that kind.
    fn next_that(&mut self, all: &Extenders, is: impl Fn(&ExtenderConfig) -> bool) -> Option<u32> {
        while let Some(number) = self.extenders.get(self.position) {
            self.position += 1;
            if is(&all.get(*number).config) {
                return Some(*number);
            }
        }
        None
    }

    /// Keeps the nodes that an extender leaves over.
    fn keep(&mut self, filtered: Filtered, url: &str) -> Result<(), String> {
        let Filtered { nodes, mut failed, mut unresolvable } = filtered;
        let asked: BTreeSet<&str> = self.nodes.iter().map(String::as_str).collect();
        if let Some(other) = nodes.iter().find(|node| !asked.contains(node.as_str())) {
            return Err(format!(
                "extender {url:?} claims a filtered node {other:?} which is not found in the input \
                 node list"
            ));
        }
        let kept: BTreeSet<String> = nodes.into_iter().collect();
        let (left, lost) =
            std::mem::take(&mut self.nodes).into_iter().partition(|node| kept.contains(node));
        self.nodes = left;
        let lost: Vec<String> = lost;
        for node in lost {
            let never = unresolvable.remove(&node);
            let resolvable = never.is_none() && failed.contains_key(&node);
            let reasons = never.or_else(|| failed.remove(&node)).into_iter().collect();
            self.diagnosis.count(&Rejection { plugin: NAME, reasons, resolvable }, 1);
            if resolvable {
                self.potential.push(node);
            }
        }
        Ok(())
    }
}
