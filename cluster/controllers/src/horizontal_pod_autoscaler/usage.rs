//! The use of pods, and how many of them it takes.
//!
//! Pods that are not ready or of which nothing is known are reckoned with in the way that changes
//! least. Shares are compared as whole numbers: what is within the tolerance does not depend on
//! how fractions are rounded.
//!
//! Source: kubernetes 1.33, `pkg/controller/podautoscaler/replica_calculator.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::metrics::PodMetrics;
use api::quantity::Quantity as Amount;
use api::{ApiError, Object, Pod, Reply, Time, meta};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::metrics::listed;
use crate::pods;

/// A change of less than a tenth is none.
const TOLERANCE_DIVISOR: i128 = 10;
/// After its start a pod that is not ready does not count.
const INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that was not ready so soon after its start has never been.
const FIRST_READINESS: Duration = Duration::from_secs(30);

/// What one pod used.
#[derive(Clone, Copy, Debug)]
struct Sample {
    milli: i64,
    at: Time,
    window: Duration,
}

/// What pods used of a resource, by their names.
#[derive(Clone, Debug)]
pub(super) struct Samples(BTreeMap<String, Sample>);

impl Samples {
    /// Reads an answer; of all containers if none is named.
    pub(super) fn of(
        answer: Option<&Result<Reply, ApiError>>,
        resource: &str,
        container: &str,
    ) -> Result<Self, String> {
        let reply = match answer {
            None => return Err("nobody was asked".to_owned()),
            Some(Ok(reply)) => reply,
            Some(Err(error)) => {
                return Err(format!("unable to fetch metrics from resource metrics API: {error}"));
            }
        };
        let all: Vec<&PodMetrics> = listed(reply).iter().filter_map(Object::get).collect();
        if all.is_empty() {
            return Err("no metrics returned from resource metrics API".to_owned());
        }
        let mut samples = BTreeMap::new();
        for pod in all {
            if let Some(milli) = milli_of(pod, resource, container)? {
                let at = Time::from_meta(&pod.timestamp);
                let sample = Sample { milli, at, window: pod.window() };
                samples.insert(pod.metadata.name.clone().unwrap_or_default(), sample);
            }
        }
        Ok(Self(samples))
    }
}

/// What the pod used; `None` when that is not known of all its containers.
fn milli_of(pod: &PodMetrics, resource: &str, container: &str) -> Result<Option<i64>, String> {
    let amount = |usage: &BTreeMap<String, Quantity>| {
        usage.get(resource).and_then(|q| Amount::parse(&q.0).ok()).map(Amount::milli)
    };
    if container.is_empty() {
        let all: Option<Vec<i64>> = pod.containers.iter().map(|c| amount(&c.usage)).collect();
        let sum = |all: Vec<i64>| all.into_iter().fold(0, i64::saturating_add);
        return Ok(all.filter(|all| !all.is_empty()).map(sum));
    }
    match pod.containers.iter().find(|c| c.name == container) {
        Some(found) => Ok(amount(&found.usage)),
        None => Err(format!(
            "failed to get container metrics: container {container} not present in metrics for \
             pod {}/{}",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default()
        )),
    }
}

/// The pods of a target and which use of them is looked at.
pub(super) struct Use<'a> {
    pub(super) pods: &'a [&'a Pod],
    pub(super) resource: &'a str,
    /// Empty for all containers.
    pub(super) container: &'a str,
    /// How many pods there shall be at present.
    pub(super) replicas: i32,
    pub(super) now: Time,
}

/// What the use asks for.
pub(super) struct Found {
    pub(super) replicas: i32,
    /// Percent of what was requested.
    pub(super) percent: Option<i32>,
    /// What a pod used on average.
    pub(super) average_milli: i64,
}

/// Pods by what is known of them.
#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

/// The use as a fraction of what it should be.
#[derive(Clone, Copy)]
struct Ratio {
    used: i128,
    wanted: i128,
}

impl Ratio {
    fn is_tolerable(self) -> bool {
        (self.used - self.wanted).abs() * TOLERANCE_DIVISOR <= self.wanted
    }

    fn is_above(self) -> bool {
        self.used > self.wanted
    }

    fn is_below(self) -> bool {
        self.used < self.wanted
    }

    /// So many times the number, rounded up.
    fn times(self, count: usize) -> i32 {
        let count = i128::try_from(count).unwrap_or(i128::MAX);
        let product = self.used.saturating_mul(count);
        let quotient = product.saturating_add(self.wanted - 1).div_euclid(self.wanted);
        i32::try_from(quotient).unwrap_or(i32::MAX)
    }
}

impl<'a> Use<'a> {
    /// As many pods as keep the average use of one at that value.
    pub(super) fn by_value(&self, samples: &Samples, value: &Quantity) -> Result<Found, String> {
        let wanted = Amount::parse(&value.0).map_err(|error| error.to_string())?.milli();
        if wanted <= 0 {
            return Err(format!("the target value {} is not positive", value.0));
        }
        let (groups, mut used) = self.known(samples)?;
        let ratio = |used: &BTreeMap<&str, i64>| {
            let average = average(used);
            (Ratio { used: i128::from(average), wanted: i128::from(wanted) }, average)
        };
        let (now, average_milli) = ratio(&used);
        let replicas = match self.at_once(now, &groups) {
            Some(replicas) => replicas,
            None => {
                // Pods of which nothing is known use nothing, or just what they should.
                let assumed = if now.is_below() { wanted } else { 0 };
                used.extend(groups.missing.iter().map(|name| (*name, assumed)));
                self.with_unready(now, &groups, &mut used);
                self.carefully(now, ratio(&used).0, used.len())
            }
        };
        Ok(Found { replicas, percent: None, average_milli })
    }

    /// As many pods as keep their use at that share of what they request.
    pub(super) fn by_share(&self, samples: &Samples, percent: i32) -> Result<Found, String> {
        let (groups, mut used) = self.known(samples)?;
        let requests = self.requests()?;
        let ratio = |used: &BTreeMap<&str, i64>| {
            let known = used.iter().filter_map(|(name, milli)| {
                Some((i128::from(*milli), i128::from(*requests.get(name)?)))
            });
            let (total, requested) = known.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let share = i32::try_from(total * 100 / requested).unwrap_or(i32::MAX);
            Ok((Ratio { used: i128::from(share), wanted: i128::from(percent.max(1)) }, share))
        };
        let (now, share) = ratio(&used)?;
        let average_milli = average(&used);
        let replicas = match self.at_once(now, &groups) {
            Some(replicas) => replicas,
            None => {
                // Pods of which nothing is known use all that they request, or nothing.
                if now.is_below() || now.is_above() {
                    let share = if now.is_below() { i128::from(percent.max(100)) } else { 0 };
                    for name in &groups.missing {
                        let request = i128::from(requests.get(name).copied().unwrap_or(0));
                        let assumed = i64::try_from(request * share / 100).unwrap_or(i64::MAX);
                        used.insert(name, assumed);
                    }
                }
                self.with_unready(now, &groups, &mut used);
                self.carefully(now, ratio(&used)?.0, used.len())
            }
        };
        Ok(Found { replicas, percent: Some(share), average_milli })
    }

    /// Sorts the pods, and keeps the use of those that count.
    fn known(&self, samples: &Samples) -> Result<(Groups<'a>, BTreeMap<&'a str, i64>), String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let groups = self.groups(samples);
        let mut used = BTreeMap::new();
        for pod in self.pods {
            let name = name(pod);
            if let Some(sample) = samples.0.get(name)
                && !groups.ignored.contains(name)
                && !groups.unready.contains(name)
            {
                used.insert(name, sample.milli);
            }
        }
        if used.is_empty() {
            let why = "did not receive metrics for targeted pods (pods might be unready)";
            return Err(why.to_owned());
        }
        Ok((groups, used))
    }

    fn groups(&self, samples: &Samples) -> Groups<'a> {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = name(pod);
            let phase = pods::phase(pod);
            if meta::is_terminating(&pod.metadata) || phase == "Failed" {
                groups.ignored.insert(name);
                continue;
            }
            match samples.0.get(name) {
                _ if phase == "Pending" => groups.unready.insert(name),
                None => groups.missing.insert(name),
                Some(sample) if self.resource == "cpu" && self.is_unready(pod, sample) => {
                    groups.unready.insert(name)
                }
                Some(_) => {
                    groups.ready += 1;
                    continue;
                }
            };
        }
        groups
    }

    /// Whether the use of CPU may be that of a start.
    fn is_unready(&self, pod: &Pod, sample: &Sample) -> bool {
        let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(Time::from_meta);
        let (Some(ready), Some(start)) = (pods::condition(pod, "Ready"), start) else {
            return true;
        };
        let since = ready.last_transition_time.as_ref().map(Time::from_meta).unwrap_or_default();
        let not_ready = ready.status == "False";
        if start + INITIALIZATION > self.now {
            return not_ready || sample.at < since + sample.window;
        }
        not_ready && start + FIRST_READINESS > since
    }

    /// What the pods request, by name.
    fn requests(&self) -> Result<BTreeMap<&'a str, i64>, String> {
        let mut requests = BTreeMap::new();
        for pod in self.pods {
            let Some(spec) = &pod.spec else { continue };
            let stays = |c: &&k8s_openapi::api::core::v1::Container| {
                c.restart_policy.as_deref() == Some("Always")
            };
            let init = spec.init_containers.iter().flatten().filter(stays);
            let mut sum: i64 = 0;
            for c in spec.containers.iter().chain(init) {
                if !self.container.is_empty() && c.name != self.container {
                    continue;
                }
                let resources = c.resources.as_ref().and_then(|r| r.requests.as_ref());
                let request = resources.and_then(|r| r.get(self.resource));
                let Some(request) = request.and_then(|q| Amount::parse(&q.0).ok()) else {
                    return Err(format!(
                        "missing request for {} in container {} of Pod {}",
                        self.resource,
                        c.name,
                        name(pod)
                    ));
                };
                sum = sum.saturating_add(request.milli());
            }
            requests.insert(name(pod), sum);
        }
        Ok(requests)
    }

    /// The number, if all is known of the pods that matters.
    fn at_once(&self, now: Ratio, groups: &Groups<'_>) -> Option<i32> {
        let reckons_unready = now.is_above() && !groups.unready.is_empty();
        if reckons_unready || !groups.missing.is_empty() {
            return None;
        }
        Some(if now.is_tolerable() { self.replicas } else { now.times(groups.ready) })
    }

    /// Pods that are not ready take nothing away from those that are.
    fn with_unready<'b>(&self, now: Ratio, groups: &Groups<'b>, used: &mut BTreeMap<&'b str, i64>) {
        if now.is_above() {
            used.extend(groups.unready.iter().map(|name| (*name, 0)));
        }
    }

    /// The number with assumptions about the pods of which nothing is known: they never change
    /// the direction.
    fn carefully(&self, known: Ratio, assumed: Ratio, count: usize) -> i32 {
        let turned =
            known.is_below() && assumed.is_above() || known.is_above() && assumed.is_below();
        if assumed.is_tolerable() || turned {
            return self.replicas;
        }
        let replicas = assumed.times(count);
        let against = assumed.is_below() && replicas > self.replicas
            || assumed.is_above() && replicas < self.replicas;
        if against { self.replicas } else { replicas }
    }
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// What one uses on average; nothing without any.
fn average(used: &BTreeMap<&str, i64>) -> i64 {
    let total: i128 = used.values().map(|milli| i128::from(*milli)).sum();
    let count = i128::try_from(used.len()).unwrap_or(1).max(1);
    i64::try_from(total / count).unwrap_or(i64::MAX)
}
