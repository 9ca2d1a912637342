//! From metrics to a number of pods.

use api::selector::Selector;
use api::{ApiError, Object, Pod, Reply};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machine::Plan;

use super::usage::{Samples, Use};
use super::{Pass, conditions, namespace};
use crate::labels::Labelled;

type Asked<'a> = Option<&'a Result<Reply, ApiError>>;

/// What the metrics ask for.
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// The metric that asks for most.
    pub(super) metric: String,
}

/// What one metric asks for.
struct One {
    replicas: i32,
    metric: String,
    status: MetricStatus,
}

/// Why a metric asks for nothing: the reason and what is told of it, and what the attempt is
/// called as a whole.
struct Failure {
    reason: &'static str,
    error: String,
    whole: String,
}

/// Whether the metric is told of by the API that tells the use of pods.
pub(super) fn is_of_resource(metric: &MetricSpec) -> bool {
    matches!(metric.type_.as_str(), "Resource" | "ContainerResource")
}

impl<'a> Pass<'a> {
    /// The highest number that a metric asks for. With a metric that cannot be had the number is
    /// not lowered.
    pub(super) fn propose(
        &mut self,
        answer: Asked<'_>,
        statuses: &mut Option<Vec<MetricStatus>>,
        plan: &mut Plan,
    ) -> Result<Proposal, String> {
        let (selector, pods) = self.pods(plan)?;
        let replicas = self.target.as_ref().map_or(0, |t| t.replicas);
        let metrics = self.spec.metrics.as_deref().unwrap_or_default();
        let mut highest: Option<One> = None;
        let mut failures: Vec<Failure> = Vec::new();
        for metric in metrics {
            let found = self.one(metric, replicas, &selector, &pods, answer);
            let status = match found {
                Ok(one) => {
                    let status = one.status.clone();
                    if highest.as_ref().is_none_or(|h| h.replicas == 0 || one.replicas > h.replicas)
                    {
                        highest = Some(one);
                    }
                    status
                }
                Err(failure) => {
                    self.warn(failure.reason, failure.error.clone(), plan);
                    failures.push(failure);
                    MetricStatus::default()
                }
            };
            statuses.get_or_insert_default().push(status);
        }
        let error = failures.first().map(|first| {
            let (count, all) = (failures.len(), metrics.len());
            format!(
                "invalid metrics ({count} invalid out of {all}), first error is: {}",
                first.whole
            )
        });
        match (highest, failures.first()) {
            (Some(highest), first) if first.is_none() || highest.replicas >= replicas => {
                let text = format!(
                    "the HPA was able to successfully calculate a replica count from {}",
                    highest.metric
                );
                self.condition(conditions::ACTIVE, true, "ValidMetricFound", text);
                Ok(Proposal { replicas: highest.replicas, metric: highest.metric })
            }
            (_, Some(first)) => {
                let text =
                    format!("the HPA was unable to compute the replica count: {}", first.error);
                self.condition(conditions::ACTIVE, false, first.reason, text);
                Err(error.unwrap_or_default())
            }
            // The server gives every autoscaler a metric.
            (_, None) => Err("no metrics to scale by".to_owned()),
        }
    }

    /// The pods that are counted, if no other autoscaler counts them.
    fn pods(&mut self, plan: &mut Plan) -> Result<(Selector, Vec<&'a Pod>), String> {
        let Ok(target) = &self.target else { return Err(String::new()) };
        let labels = target.labels;
        let selector = match &target.selector {
            Ok(selector) => selector.clone(),
            Err(why) => {
                let why = why.clone();
                let missing = why == "selector is required";
                let event = if missing { "SelectorRequired" } else { "InvalidSelector" };
                self.warn(event, why.clone(), plan);
                let text =
                    if missing { "the HPA target's scale is missing a selector" } else { &why };
                self.condition(conditions::ACTIVE, false, "InvalidSelector", text.to_owned());
                return Err(why);
            }
        };
        let namespace = namespace(self.autoscaler);
        let mut pods: Vec<&Pod> = match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) => Labelled::find(self.cache, namespace, labels),
            None => self.cache.list_in(namespace).collect(),
        };
        pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref()));
        if let Some(rivals) = self.rivals(&pods) {
            let text = format!(
                "pods by selector {} are controlled by multiple HPAs: {rivals}",
                selector.to_text()
            );
            self.warn("AmbiguousSelector", text.clone(), plan);
            self.condition(conditions::ACTIVE, false, "AmbiguousSelector", text.clone());
            return Err(text);
        }
        Ok((selector, pods))
    }

    fn one(
        &self,
        metric: &MetricSpec,
        replicas: i32,
        selector: &Selector,
        pods: &[&Pod],
        answer: Asked<'_>,
    ) -> Result<One, Failure> {
        match metric.type_.as_str() {
            "Resource" => {
                let Some(source) = &metric.resource else { return Err(unknown(metric)) };
                let (name, target) = (source.name.as_str(), &source.target);
                let found = self.of_resource(replicas, pods, name, "", target, answer);
                let (replicas, current) = found.map_err(|error| Failure {
                    reason: "FailedGetResourceMetric",
                    whole: format!("failed to get {name} resource metric value: {error}"),
                    error,
                })?;
                let status = ResourceMetricStatus { name: name.to_owned(), current };
                let status = MetricStatus {
                    type_: metric.type_.clone(),
                    resource: Some(status),
                    ..MetricStatus::default()
                };
                Ok(One { replicas, metric: called(name, "resource", target), status })
            }
            "ContainerResource" => {
                let Some(source) = &metric.container_resource else { return Err(unknown(metric)) };
                let (name, target) = (source.name.as_str(), &source.target);
                let container = source.container.as_str();
                let found = self.of_resource(replicas, pods, name, container, target, answer);
                let (replicas, current) = found.map_err(|error| Failure {
                    reason: "FailedGetContainerResourceMetric",
                    whole: format!("failed to get {name} container metric value: {error}"),
                    error,
                })?;
                let status = ContainerResourceMetricStatus {
                    container: container.to_owned(),
                    name: name.to_owned(),
                    current,
                };
                let status = MetricStatus {
                    type_: metric.type_.clone(),
                    container_resource: Some(status),
                    ..MetricStatus::default()
                };
                Ok(One { replicas, metric: called(name, "container resource", target), status })
            }
            _ => Err(self.not_served(metric, selector)),
        }
    }

    /// How many pods a resource asks for, and what is used of it.
    fn of_resource(
        &self,
        replicas: i32,
        pods: &[&Pod],
        resource: &str,
        container: &str,
        target: &MetricTarget,
        answer: Asked<'_>,
    ) -> Result<(i32, MetricValueStatus), String> {
        let by_share = target.average_value.is_none();
        let found = Samples::of(answer, resource, container)
            .map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))
            .and_then(|samples| {
                let used = Use { pods, resource, container, replicas, now: self.now };
                match (&target.average_value, target.average_utilization) {
                    (Some(value), _) => used.by_value(&samples, value),
                    (None, Some(percent)) => used.by_share(&samples, percent),
                    (None, None) => Err("invalid resource metric source: neither an average \
                        utilization target nor an average value (usage) target was set"
                        .to_owned()),
                }
            });
        let found = found.map_err(|why| {
            let what = if by_share { "utilization" } else { "usage" };
            format!("failed to get {resource} {what}: {why}")
        })?;
        let average = api::quantity::Quantity::from_milli(found.average_milli).to_string();
        let current = MetricValueStatus {
            average_utilization: found.percent,
            average_value: Some(Quantity(average)),
            value: None,
        };
        Ok((found.replicas, current))
    }

    /// What is said of metrics that no API here tells of.
    fn not_served(&self, metric: &MetricSpec, selector: &Selector) -> Failure {
        let custom = "unable to fetch metrics from custom metrics API: no custom metrics API \
                      (custom.metrics.k8s.io) registered";
        let of = |name: Option<&String>| {
            format!("unable to get metric {}: {custom}", name.map_or("", |name| name.as_str()))
        };
        let (reason, error, whole) = match metric.type_.as_str() {
            "Pods" => {
                let error = of(metric.pods.as_ref().map(|p| &p.metric.name));
                ("FailedGetPodsMetric", error, "failed to get pods metric value")
            }
            "Object" => {
                let error = of(metric.object.as_ref().map(|o| &o.metric.name));
                ("FailedGetObjectMetric", error, "failed to get object metric value")
            }
            "External" => {
                let name = metric.external.as_ref().map_or("", |e| e.metric.name.as_str());
                let namespace = namespace(self.autoscaler);
                let error = format!(
                    "unable to get external metric {namespace}/{name}/{}: unable to fetch metrics \
                     from external metrics API: no external metrics API \
                     (external.metrics.k8s.io) registered",
                    selector.to_text()
                );
                ("FailedGetExternalMetric", error, "failed to get external metric value")
            }
            _ => return unknown(metric),
        };
        Failure { reason, whole: format!("{whole}: {error}"), error }
    }
}

fn unknown(metric: &MetricSpec) -> Failure {
    let error = format!("unknown metric source type {:?}", metric.type_);
    Failure { reason: "InvalidMetricSourceType", whole: error.clone(), error }
}

/// What a metric is called in events.
fn called(resource: &str, of: &str, target: &MetricTarget) -> String {
    if target.average_value.is_some() {
        return format!("{resource} {of}");
    }
    format!("{resource} {of} utilization (percentage of request)")
}

/// The objects of an answer.
pub(super) fn listed(reply: &Reply) -> &[Object] {
    match reply {
        Reply::Objects(objects) => objects,
        Reply::Object(_) | Reply::Done(_) | Reply::Text(_) => &[],
    }
}
