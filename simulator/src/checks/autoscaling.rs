//! Autoscaling of pods: P45.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Key, Kind, Object, PatchBody, Pod, Request, Subresource, Time};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::clocks::Clocks;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle;
use crate::plan::{Loads, Plan};
use crate::span::Span;
use crate::world::{ProcessId, START};

/// Recommendations count for so long: the highest of them holds.
const STABILIZATION: Duration = Duration::from_secs(300);
/// Older answers are not acted upon.
const ANSWERS_MAX: Duration = Duration::from_secs(60);

/// P45: an autoscaler asks for a number of pods between its bounds, for no more than the load is
/// worth, and at rest for just as many.
///
/// The most that the load is worth is known, whatever pods a rollout adds: what all pods use
/// together is the load, and what they use is compared with what pods request. It is that of the
/// last five minutes, since the highest recommendation of that time holds.
#[derive(Clone)]
pub(super) struct ScalesAsUsed {
    loads: Loads,
    clocks: Clocks,
    /// The least that a pod of each workload has ever requested, in thousandths of a CPU.
    requests: BTreeMap<(String, String), i64>,
}

/// What an autoscaler wants.
struct Wants {
    least: i64,
    most: i64,
    /// Percent of what is requested, of CPU.
    percent: Option<i64>,
}

fn wants(autoscaler: &HorizontalPodAutoscaler) -> Option<Wants> {
    let spec = autoscaler.spec.as_ref()?;
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    let percent = match metrics {
        [only] if only.type_ == "Resource" => only.resource.as_ref().and_then(|source| {
            let percent = source.target.average_utilization?;
            (source.name == "cpu").then_some(i64::from(percent))
        }),
        _ => None,
    };
    let least = i64::from(spec.min_replicas.unwrap_or(1));
    Some(Wants { least, most: i64::from(spec.max_replicas), percent })
}

/// The object that an autoscaler scales.
fn target(key: &Key, autoscaler: &HorizontalPodAutoscaler) -> Option<Key> {
    let reference = &autoscaler.spec.as_ref()?.scale_target_ref;
    let kind = Kind::of_manifest(reference.api_version.as_deref()?, &reference.kind)?;
    Some(Key::new(kind, &key.namespace, &reference.name))
}

/// How many pods an object asks for.
fn replicas(object: &Object) -> Option<i64> {
    let number = match object {
        Object::Deployment(o) => o.spec.as_ref()?.replicas,
        Object::ReplicaSet(o) => o.spec.as_ref()?.replicas,
        Object::StatefulSet(o) => o.spec.as_ref()?.replicas,
        Object::ReplicationController(o) => o.spec.as_ref()?.replicas,
        _ => return None,
    };
    Some(i64::from(number.unwrap_or(1)))
}

fn app(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("app").map(String::as_str)
}

/// A quotient, rounded up.
const fn up(a: i64, b: i64) -> i64 {
    if b <= 0 { i64::MAX } else { a.saturating_add(b - 1) / b }
}

impl ScalesAsUsed {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { loads: Loads::of(plan), clocks: Clocks::default(), requests: BTreeMap::new() }
    }

    fn elapsed(at: Time) -> Span {
        Span(at.0.saturating_sub(START.0))
    }

    /// The most pods that the load was worth lately; `None` where nobody knows the load.
    fn worth(&self, now: Time, scaled: &Key, percent: i64) -> Option<i64> {
        let load = self.loads.get(&scaled.namespace, &scaled.name)?;
        let workload = (scaled.namespace.to_string(), scaled.name.to_string());
        let request = self.requests.get(&workload).copied().filter(|r| *r > 0)?;
        let window = STABILIZATION + ANSWERS_MAX + self.clocks.most();
        let window = Span(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX));
        let until = Self::elapsed(now);
        let from = Span(until.0.saturating_sub(window.0));
        let most = load.most(self.loads.moment(from), self.loads.moment(until));
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Some(up(most.saturating_mul(100), request.saturating_mul(percent)))
    }

    /// A controller manager says how many pods something shall have.
    fn scales(
        &self,
        cluster: &dyn Cluster,
        by: ProcessId,
        scaled: &Key,
        wanted: i64,
        found: &mut Vec<String>,
    ) {
        let known = cluster.all_known(by, Kind::HorizontalPodAutoscaler).unwrap_or_default();
        let of = known.into_iter().find_map(|object| {
            let autoscaler = object.get::<HorizontalPodAutoscaler>()?;
            let key = object.key();
            (target(&key, autoscaler)? == *scaled).then_some((key, autoscaler))
        });
        // What it names may have been another when it was looked at.
        let Some((key, autoscaler)) = of else { return };
        let Some(Wants { least, most, percent }) = wants(autoscaler) else { return };
        if !(least..=most).contains(&wanted) {
            found.push(format!(
                "{key} asks for {wanted} pods of {scaled}, and may ask for {least} to {most}"
            ));
        }
        let has = cluster.known(by, scaled).and_then(replicas).unwrap_or(0);
        let worth = percent.and_then(|percent| self.worth(cluster.now(), scaled, percent));
        if let Some(worth) = worth.map(|worth| worth.max(least))
            && wanted > worth
            && wanted > has
        {
            found.push(format!(
                "{key} asks for {wanted} pods of {scaled} instead of {has}, and the load is worth \
                 {worth}"
            ));
        }
    }

    /// The number at rest, if it is not the right one: with a tenth more or less nothing changes.
    ///
    /// `says` is what the autoscaler reports that it wants.
    fn unsettled(
        &self,
        cluster: &dyn Cluster,
        scaled: &Key,
        wants: &Wants,
        says: Option<i64>,
    ) -> Option<String> {
        let has = cluster.object(scaled).and_then(replicas)?;
        if has == 0 {
            // Who wants no pods at all is not scaled.
            return None;
        }
        let Wants { least, most, percent } = *wants;
        if !(least..=most).contains(&has) {
            return Some(format!("asks for {has} pods, and its bounds are {least} and {most}"));
        }
        let load = self.loads.get(&scaled.namespace, &scaled.name)?;
        let load = load.at(self.loads.moment(Self::elapsed(cluster.now())));
        let pods = cluster.objects(Kind::Pod).filter_map(Object::get::<Pod>);
        let pods: Vec<&Pod> = pods
            .filter(|p| p.metadata.namespace.as_deref() == Some(&*scaled.namespace))
            .filter(|p| app(p) == Some(&*scaled.name))
            .collect();
        // What of pods that are not ready, or too many, is the business of others.
        if i64::try_from(pods.len()) != Ok(has) || !pods.iter().all(|p| oracle::is_ready(p)) {
            return None;
        }
        if let Some(says) = says.filter(|says| *says != has) {
            return Some(format!("reports {says} wanted pods at rest, and {has} are"));
        }
        let requested: i64 =
            pods.iter().filter_map(|p| Some(oracle::requests(p.spec.as_ref()?).of("cpu"))).sum();
        let percent = percent.filter(|_| requested > 0)?;
        let used = i64::try_from(load).unwrap_or(i64::MAX).saturating_mul(100) / requested;
        let tolerable = used.saturating_sub(percent).abs().saturating_mul(10) <= percent;
        let right = if tolerable { has } else { up(used.saturating_mul(has), percent) };
        let right = right.clamp(least, most);
        // Shares are whole percents of each pod's use: one more or less.
        let is_near = up(used.saturating_add(1).saturating_mul(has), percent).clamp(least, most)
            == has
            || up(used.saturating_sub(1).saturating_mul(has), percent).clamp(least, most) == has;
        (right != has && !is_near)
            .then(|| format!("asks for {has} pods at rest, and {right} are right at {used} %"))
    }
}

impl Check for ScalesAsUsed {
    fn property(&self) -> &'static str {
        "P45"
    }

    fn statement(&self) -> &'static str {
        "an autoscaler keeps its bounds, asks for no more than the load is worth, and comes to rest"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.clocks.observe(occurrence);
        match occurrence {
            Occurrence::Committed { key, old: None, new: Some(Object::Pod(pod)), .. } => {
                let (Some(app), Some(spec)) = (app(pod), &pod.spec) else { return };
                let request = oracle::requests(spec).of("cpu");
                let workload = (key.namespace.to_string(), app.to_owned());
                let least = self.requests.entry(workload).or_insert(request);
                *least = request.min(*least);
            }
            Occurrence::Called {
                by,
                request: Request::Patch { key, subresource: Some(Subresource::Scale), patch },
            } if cluster.role(*by) == Role::ControllerManager => {
                let PatchBody::Json(body) = &patch.body else { return };
                if let Some(wanted) = body["spec"]["replicas"].as_i64() {
                    self.scales(cluster, *by, key, wanted, found);
                }
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        let all = cluster.objects(Kind::HorizontalPodAutoscaler);
        for object in all.filter(|o| !oracle::is_going(o.meta())) {
            let Some(autoscaler) = object.get::<HorizontalPodAutoscaler>() else { continue };
            let key = object.key();
            let (Some(scaled), Some(wants)) = (target(&key, autoscaler), wants(autoscaler)) else {
                continue;
            };
            let says = autoscaler.status.as_ref().map(|s| i64::from(s.desired_replicas));
            if let Some(wrong) = self.unsettled(cluster, &scaled, &wants, says) {
                found.push(format!("{key} {wrong}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
