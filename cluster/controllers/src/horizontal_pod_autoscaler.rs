//! `HorizontalPodAutoscaler`: as many pods as their use asks for.
//!
//! Every fifteen seconds the controller asks for the use of the pods, works out how many there
//! should be, and tells their owner. What it recommended before and what it changed is remembered
//! for as long as the process lives; without that it is more careful, not wrong.
//!
//! Source: kubernetes 1.33, `pkg/controller/podautoscaler/horizontal.go`.

mod ambiguity;
mod change;
mod conditions;
mod limits;
mod metrics;
mod target;
mod usage;

use std::time::Duration;

use api::{ApiError, Key, Kind, Object, Pod, Request, Time, meta};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricStatus,
};
use machine::{Answer, Aspects, Cache, Delta, Index, Memory, Plan, Reconciler};

use self::target::Target;
use crate::labels::Labelled;
use crate::{announce, ownership};

/// How often autoscalers are looked at.
const SYNC: Duration = Duration::from_secs(15);

/// When the autoscaler was looked at last.
const SYNCED: &str = "synced";

/// Scales what autoscalers name.
pub struct HorizontalPodAutoscalers;

impl Reconciler for HorizontalPodAutoscalers {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[
            Kind::HorizontalPodAutoscaler,
            Kind::Deployment,
            Kind::ReplicaSet,
            Kind::ReplicationController,
            Kind::StatefulSet,
            Kind::Pod,
        ]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Labelled<Pod>>::default()]
    }

    /// What it looks at changes all the time: it looks when it is time to.
    fn heeds(&self, kind: Kind) -> Aspects {
        if kind == Kind::HorizontalPodAutoscaler { Aspects::ALL } else { Aspects::NONE }
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind != Kind::HorizontalPodAutoscaler {
            return Vec::new();
        }
        let spec = |object: &Option<Object>| {
            let autoscaler = object.as_ref().and_then(Object::get::<HorizontalPodAutoscaler>);
            autoscaler.map(|a| (a.metadata.uid.clone(), a.spec.clone()))
        };
        if spec(&delta.old) == spec(&delta.new) { Vec::new() } else { vec![delta.key.clone()] }
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        self.reconcile_with(cache, key, now, &mut Memory::default())
    }

    fn reconcile_with(&self, cache: &Cache, key: &Key, now: Time, memory: &mut Memory) -> Plan {
        let mut plan = Plan::nothing();
        let mut answers = std::mem::take(&mut memory.answers);
        // One that came while another process acted says nothing of the present.
        answers.retain(|answer| now.since(answer.at) < SYNC);
        let found = cache.object(key).and_then(Object::get::<HorizontalPodAutoscaler>);
        let Some((autoscaler, spec)) = found
            .filter(|autoscaler| !meta::is_terminating(&autoscaler.metadata))
            .and_then(|autoscaler| Some((autoscaler, autoscaler.spec.as_ref()?)))
        else {
            memory.notes.clear();
            return plan;
        };
        let due = memory.last(SYNCED).map(|(last, _)| last + SYNC);
        if let Some(due) = due.filter(|due| *due > now && answers.is_empty()) {
            plan.revisit_in(due.since(now));
            return plan;
        }
        let mut pass = Pass::new(cache, autoscaler, spec, now);
        let questions = pass.questions();
        if !answers.iter().map(|answer| &answer.request).eq(&questions) {
            plan.requests = questions;
            return plan;
        }
        memory.notes.insert(SYNCED, vec![(now, 0)]);
        pass.run(&answers, memory, &mut plan);
        plan.revisit_in(SYNC);
        plan
    }

    fn note_refusal(
        &self,
        cache: &Cache,
        key: &Key,
        request: &Request,
        error: &ApiError,
        now: Time,
    ) -> Option<Request> {
        if request.writes() == Some(Kind::HorizontalPodAutoscaler) {
            return None;
        }
        let autoscaler = cache.object(key)?.get::<HorizontalPodAutoscaler>()?;
        let mut pass = Pass::new(cache, autoscaler, autoscaler.spec.as_ref()?, now);
        let text = format!("the HPA controller was unable to update the target scale: {error}");
        pass.condition(conditions::ABLE, false, "FailedUpdateScale", text);
        pass.report()
    }
}

/// One look at one autoscaler.
struct Pass<'a> {
    cache: &'a Cache,
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    target: Result<Target<'a>, String>,
    /// As it shall be.
    status: HorizontalPodAutoscalerStatus,
    now: Time,
}

impl<'a> Pass<'a> {
    fn new(
        cache: &'a Cache,
        autoscaler: &'a HorizontalPodAutoscaler,
        spec: &'a HorizontalPodAutoscalerSpec,
        now: Time,
    ) -> Self {
        let target = Target::find(cache, namespace(autoscaler), &spec.scale_target_ref);
        let status = autoscaler.status.clone().unwrap_or_default();
        Self { cache, autoscaler, spec, target, status, now }
    }

    fn min(&self) -> i32 {
        self.spec.min_replicas.unwrap_or(1)
    }

    /// What has to be asked before the number of pods can be worked out.
    fn questions(&self) -> Vec<Request> {
        let Ok(target) = &self.target else { return Vec::new() };
        let within = (self.min()..=self.spec.max_replicas).contains(&target.replicas);
        let asks = self.spec.metrics.iter().flatten().any(metrics::is_of_resource);
        match &target.selector {
            Ok(selector) if within && asks && target.replicas > 0 => vec![Request::List {
                kind: Kind::PodMetrics,
                namespace: namespace(self.autoscaler).into(),
                selector: selector.to_text(),
            }],
            _ => Vec::new(),
        }
    }

    fn run(&mut self, answers: &[Answer], memory: &mut Memory, plan: &mut Plan) {
        let (replicas, current) = match &self.target {
            Ok(target) => (target.replicas, target.replicas),
            Err(why) => {
                let why = why.clone();
                self.warn("FailedGetScale", why.clone(), plan);
                let text = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                self.condition(conditions::ABLE, false, "FailedGetScale", text);
                plan.requests.extend(self.report());
                return;
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        self.condition(conditions::ABLE, true, "SucceededGetScale", text.to_owned());
        change::settle(memory, self.spec, replicas, self.now);
        limits::begin(memory, replicas, self.now);
        let mut statuses = None;
        let wanted = if replicas == 0 && self.min() != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            self.condition(conditions::ACTIVE, false, "ScalingDisabled", text.to_owned());
            None
        } else if replicas > self.spec.max_replicas {
            Some((
                self.spec.max_replicas,
                "Current number of replicas above Spec.MaxReplicas".into(),
            ))
        } else if replicas < self.min() {
            Some((self.min(), "Current number of replicas below Spec.MinReplicas".into()))
        } else {
            let Some(wanted) = self.by_metrics(answers, memory, &mut statuses, plan) else {
                self.observed(current, None, statuses);
                plan.requests.extend(self.report());
                return;
            };
            Some(wanted).filter(|(wanted, _)| *wanted != replicas)
        };
        match wanted {
            Some((wanted, reason)) => {
                self.rescale(wanted, &reason, memory, plan);
                self.status.last_scale_time = Some(self.now.to_meta());
                self.observed(current, Some(wanted), statuses);
            }
            None => self.observed(current, Some(replicas), statuses),
        }
        plan.requests.extend(self.report());
    }

    /// The number of pods that the metrics ask for, within all limits, and why; `None` when it
    /// cannot be told.
    fn by_metrics(
        &mut self,
        answers: &[Answer],
        memory: &mut Memory,
        statuses: &mut Option<Vec<MetricStatus>>,
        plan: &mut Plan,
    ) -> Option<(i32, String)> {
        let replicas = self.target.as_ref().ok()?.replicas;
        let answer = answers.first().map(|answer| &answer.result);
        let (wanted, metric) = match self.propose(answer, statuses, plan) {
            Ok(proposal) => (proposal.replicas, proposal.metric),
            Err(error) => {
                self.warn("FailedComputeMetricsReplicas", error, plan);
                return None;
            }
        };
        let reason = match wanted.max(0) {
            wanted if wanted > replicas => format!("{metric} above target"),
            wanted if wanted < replicas => "All metrics below target".to_owned(),
            _ => String::new(),
        };
        let wanted = match &self.spec.behavior {
            None => self.limit_plainly(wanted, replicas, memory),
            Some(behavior) => self.limit_by(behavior, wanted, replicas, memory),
        };
        Some((wanted, reason))
    }

    /// Notes in the status what there is and what is wanted; what is wanted stays if it is not
    /// known.
    fn observed(&mut self, current: i32, wanted: Option<i32>, metrics: Option<Vec<MetricStatus>>) {
        self.status.current_replicas = Some(current);
        self.status.desired_replicas = wanted.unwrap_or(self.status.desired_replicas);
        self.status.current_metrics = metrics.filter(|metrics| !metrics.is_empty());
    }

    fn warn(&self, reason: &str, message: String, plan: &mut Plan) {
        plan.events.push(announce::warning(self.autoscaler, reason, message));
    }

    /// The write of the status, if it is not as it should be.
    fn report(&self) -> Option<Request> {
        if self.autoscaler.status.as_ref() == Some(&self.status) {
            return None;
        }
        let mut autoscaler = self.autoscaler.clone();
        autoscaler.status = Some(self.status.clone());
        Some(ownership::update_status(autoscaler))
    }
}

fn namespace(autoscaler: &HorizontalPodAutoscaler) -> &str {
    autoscaler.metadata.namespace.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
