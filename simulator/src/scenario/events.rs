//! `[[operations]]` and `[[faults]]`: single things that happen at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::diagnostics::Problem;
use super::names::EFFECTS;
use super::nodes::NodeGroup;
use super::section::{Section, TIME, Value};
use super::shapes::Catalogue;
use super::suggest::did_you_mean;
use super::{limits, scheduled};
use crate::distribution::Distribution;
use crate::plan::{
    Budget, Component, DRAIN_TIMEOUT, Fault, Operation, PlannedFault, PlannedOperation,
    PodTemplate, Settings, Target,
};
use crate::span::Span;
use crate::trace::Trace;
use crate::workload::Workload;

/// More pods of one owner than any cluster holds.
pub(crate) const REPLICAS_MAX: u32 = 20_000_000;
/// Names of nodes that a suggestion is looked for in.
const SUGGESTED: u64 = 200;

/// What operations.
const OPERATIONS: [&str; 27] = [
    "create-pod",
    "create-deployment",
    "create-replica-set",
    "create-replication-controller",
    "create-stateful-set",
    "create-daemon-set",
    "create-job",
    "create-cron-job",
    "suspend-cron-job",
    "create-autoscaler",
    "create-quota",
    "set-quota",
    "create-limit-range",
    "set-claim-policy",
    "create-budget",
    "create-service",
    "create-namespace",
    "scale",
    "set-template",
    "set-partition",
    "pause",
    "delete",
    "cordon",
    "uncordon",
    "drain",
    "taint",
    "label",
];

/// What faults.
pub(crate) const FAULTS: [&str; 24] = [
    "host-crash",
    "crash",
    "crash-at-call",
    "pause",
    "partition",
    "delay",
    "call-timeout",
    "duplicate",
    "loss",
    "reorder",
    "watch-stall",
    "watch-gap",
    "watch-expired",
    "watch-break",
    "watch-coalescing",
    "lagging-server",
    "stale-reads",
    "store-down",
    "conflict-storm",
    "clock-skew",
    "clock-behind",
    "runtime-errors",
    "runtime-down",
    "slow-disk",
];

const NO_PERIOD: &str = "a fault that repeats without time between rounds";

/// What events may refer to.
pub(crate) struct Known<'a> {
    pub(crate) templates: &'a Catalogue<PodTemplate>,
    pub(crate) nodes: &'a [NodeGroup],
    pub(crate) settings: &'a Settings,
    /// Traces with nodes of their own.
    pub(crate) traces: &'a [&'a Arc<Trace>],
    /// Whether some nodes are not known, since what the file says of them is wrong.
    pub(crate) more_nodes: bool,
}

impl Known<'_> {
    /// The name of a node that exists.
    pub(crate) fn node(&self, value: &Value<'_>) -> Option<String> {
        let name = value.text()?;
        self.node_exists(name, value).then(|| name.to_owned())
    }

    fn node_exists(&self, name: &str, value: &Value<'_>) -> bool {
        let traced = |trace: &&Arc<Trace>| trace.nodes.iter().any(|node| node.name == name);
        let found = self.more_nodes
            || self.nodes.iter().any(|group| group.contains(name))
            || self.traces.iter().any(traced);
        if !found {
            let names: Vec<String> = self
                .nodes
                .iter()
                .flat_map(|g| (0..g.count.min(SUGGESTED)).map(|n| g.name_of(n)))
                .collect();
            let help = did_you_mean(name, names.iter().map(String::as_str));
            value.report(format!("there is no node `{name}`"), "not known", help);
        }
        found
    }

    /// A process that exists.
    pub(crate) fn component(&self, value: &Value<'_>) -> Option<Component> {
        let component: Component = value.parsed()?;
        let settings = self.settings;
        let (what, index, count) = match &component {
            Component::Kubelet(node) => {
                return self.node_exists(node, value).then(|| component.clone());
            }
            Component::ApiServer(i) => ("api_servers", *i, settings.api_servers),
            Component::Scheduler(i) => ("schedulers", *i, settings.schedulers),
            Component::ControllerManager(i) => {
                ("controller_managers", *i, settings.controller_managers)
            }
        };
        if index >= count {
            let help = format!("`settings.{what}` is {count}; the first one has the number 0");
            value.report(format!("there is no component `{component}`"), "not known", help);
            return None;
        }
        Some(component)
    }

    /// A process that exists and calls API servers.
    pub(crate) fn caller(&self, value: &Value<'_>) -> Option<Component> {
        let component = self.component(value)?;
        if matches!(component, Component::ApiServer(_)) {
            let message = format!("to `{component}` nothing happens but `crash`");
            let help = "`lagging-server` and what happens to messages take `api_server = N`; all \
                        else happens to those who call";
            value.report(message, "an API server", help);
            return None;
        }
        Some(component)
    }

    fn api_server(&self, value: &Value<'_>) -> Option<u16> {
        let index = value.whole(0..=u16::MAX)?;
        let count = self.settings.api_servers;
        if index >= count {
            let help = format!("`settings.api_servers` is {count}; the first one is number 0");
            value.report(format!("there is no API server {index}"), "not known", help);
            return None;
        }
        Some(index)
    }
}

/// Reads one `[[operations]]`.
pub(crate) fn operation(section: &Section<'_>, known: &Known<'_>) -> Option<PlannedOperation> {
    let at = section.need("at").and_then(|v| v.amount(&TIME));
    let what = section.need("do")?;
    let kind = what.text()?;
    if !OPERATIONS.contains(&kind) {
        what.no_choice(kind, OPERATIONS);
        return None;
    }
    let operation = parts(section, kind, known);
    section.finish();
    Some(PlannedOperation { at: at?, operation: operation? })
}

fn parts(section: &Section<'_>, kind: &str, known: &Known<'_>) -> Option<Operation> {
    // Everything is asked for before anything is given up, so that all mistakes are told.
    let name = || section.need("name").and_then(|v| v.name()).map(str::to_owned);
    let template = || known.templates.index("template", &section.need("template")?);
    let replicas = || section.need("replicas")?.whole(0..=REPLICAS_MAX);
    let target = || section.need("target")?.choice::<Target>();
    let node = || known.node(&section.need("node")?);
    Some(match kind {
        "create-pod" => {
            let (name, template, runs) = (name(), template(), section.time("runs"));
            Operation::CreatePod { name: name?, template: template?, runs }
        }
        "create-deployment" => {
            let (name, template, replicas) = (name(), template(), replicas());
            let max_surge = share(section, "max_surge", QUARTER);
            let max_unavailable = share(section, "max_unavailable", QUARTER);
            Operation::CreateDeployment {
                name: name?,
                template: template?,
                replicas: replicas?,
                max_surge: max_surge?,
                max_unavailable: max_unavailable?,
            }
        }
        "create-replica-set" => {
            let (name, template, replicas) = (name(), template(), replicas());
            Operation::CreateReplicaSet { name: name?, template: template?, replicas: replicas? }
        }
        "create-replication-controller" => {
            let (name, template, replicas) = (name(), template(), replicas());
            let (name, template, replicas) = (name?, template?, replicas?);
            Operation::CreateReplicationController { name, template, replicas }
        }
        "create-stateful-set" => {
            let (name, template, replicas) = (name(), template(), replicas());
            let parallel = section.truth("parallel").unwrap_or(false);
            let partition = section.whole("partition", 0..=REPLICAS_MAX).unwrap_or(0);
            let (name, template, replicas) = (name?, template?, replicas?);
            Operation::CreateStatefulSet { name, template, replicas, parallel, partition }
        }
        "create-daemon-set" => {
            let (name, template) = (name(), template());
            let (max_surge, max_unavailable) = daemon_bounds(section);
            Operation::CreateDaemonSet {
                name: name?,
                template: template?,
                max_surge: max_surge?,
                max_unavailable: max_unavailable?,
            }
        }
        "create-job" => {
            let (name, template) = (name(), template());
            let indexed = section.truth("indexed").unwrap_or(false);
            let completions = section.whole("completions", 0..=REPLICAS_MAX);
            let parallelism = section.whole("parallelism", 0..=REPLICAS_MAX).unwrap_or(1);
            let backoff_limit = section.whole("backoff_limit", 0..=REPLICAS_MAX).unwrap_or(6);
            let ttl_seconds = section.whole("ttl_seconds", 0..=REPLICAS_MAX);
            if indexed && !section.has("completions") {
                let problem = Problem::error(section.place(), "an indexed job lacks `completions`");
                section.report(problem.label("how many indexes?"));
            }
            must_end(section, template, known);
            Operation::CreateJob {
                name: name?,
                template: template?,
                completions,
                parallelism,
                indexed,
                backoff_limit,
                ttl_seconds,
            }
        }
        "create-cron-job" => {
            let (name, template) = (name(), template());
            must_end(section, template, known);
            Operation::CreateCronJob(Box::new(scheduled::cron_job(section, name, template)?))
        }
        "suspend-cron-job" => {
            let (name, suspended) = (name(), section.truth("suspended").unwrap_or(true));
            Operation::SuspendCronJob { name: name?, suspended }
        }
        "create-autoscaler" => {
            Operation::CreateAutoscaler(Box::new(scheduled::autoscaler(section, name())?))
        }
        "create-quota" => Operation::CreateQuota(Box::new(limits::quota(section, name())?)),
        "set-quota" => Operation::SetQuota(Box::new(limits::quota(section, name())?)),
        "create-limit-range" => {
            Operation::CreateLimitRange(Box::new(limits::limit_range(section, name())?))
        }
        "set-claim-policy" => {
            let truth = |key| section.truth(key).unwrap_or(false);
            let (name, delete_with_set) = (name(), truth("delete_with_set"));
            let delete_when_scaled = truth("delete_when_scaled");
            Operation::SetClaimPolicy { name: name?, delete_with_set, delete_when_scaled }
        }
        "create-budget" => {
            let (name, app) = (name(), section.need("app").and_then(|v| v.label_value()));
            let (min_available, max_unavailable) = budget_bounds(section)?;
            let (name, app) = (name?, app?.to_owned());
            Operation::CreateBudget(Box::new(Budget { name, app, min_available, max_unavailable }))
        }
        "create-service" => {
            let (name, app) = (name(), section.need("app").and_then(|v| v.label_value()));
            Operation::CreateService { name: name?, app: app?.to_owned() }
        }
        "create-namespace" => Operation::CreateNamespace { name: name()? },
        "scale" => {
            let (target, name, replicas) = (target(), name(), replicas());
            Operation::Scale { target: target?, name: name?, replicas: replicas? }
        }
        "set-template" => {
            let (name, template) = (name(), template());
            let target = section.get("target").map(|value| value.choice());
            let target = transposed(target)?.unwrap_or(Target::Deployment);
            Operation::SetTemplate { target, name: name?, template: template? }
        }
        "set-partition" => {
            let (name, partition) = (name(), section.need("partition")?.whole(0..=REPLICAS_MAX));
            Operation::SetPartition { name: name?, partition: partition? }
        }
        "pause" => {
            let (name, paused) = (name(), section.truth("paused").unwrap_or(true));
            Operation::Pause { name: name?, paused }
        }
        "delete" => {
            let (target, name) = (target(), name());
            let truth = |key| section.truth(key).unwrap_or(false);
            let (orphan, foreground) = (truth("orphan"), truth("foreground"));
            if orphan && foreground {
                let place = section.place_of("foreground");
                let problem = Problem::error(place, "`orphan` and `foreground` exclude each other");
                section.report(problem.label("which one?"));
            }
            Operation::Delete { target: target?, name: name?, orphan, foreground }
        }
        "cordon" => Operation::Cordon { node: node()?, unschedulable: true },
        "uncordon" => Operation::Cordon { node: node()?, unschedulable: false },
        "drain" => {
            let (node, timeout) = (node(), section.time("timeout").unwrap_or(DRAIN_TIMEOUT));
            Operation::Drain { node: node?, timeout }
        }
        "taint" => {
            let (node, key) = (node(), section.need("key").and_then(|v| v.label_key()));
            let effect = effect(section);
            Operation::Taint { node: node?, key: key?.to_owned(), effect: effect? }
        }
        _ => {
            let (target, name) = (target(), name());
            let key = section.need("key").and_then(|v| v.label_key());
            let value = section.need("value").and_then(|v| v.label_value());
            let (target, name) = (target?, name?);
            Operation::Label { target, name, key: key?.to_owned(), value: value?.to_owned() }
        }
    })
}

/// Reports pods of a job that are started again for ever.
fn must_end(section: &Section<'_>, template: Option<u32>, known: &Known<'_>) {
    let ends = template.and_then(|index| known.templates.value(index));
    if ends.is_some_and(|t| t.restart_policy == "Always") {
        let message = "pods of a job cannot have the restart policy `Always`";
        let problem = Problem::error(section.place_of("template"), message);
        let help = "give the template restart_policy = \"Never\" or \"OnFailure\"";
        section.report(problem.help(help));
    }
}

/// What Kubernetes takes for both bounds of a deployment's rollout.
pub(crate) const QUARTER: &str = "25%";

/// `max_surge` and `max_unavailable` of a daemon set, of which one must be zero.
pub(crate) fn daemon_bounds(section: &Section<'_>) -> (Option<String>, Option<String>) {
    let max_surge = share(section, "max_surge", "0");
    let zero = |s: &str| s == "0" || s == "0%";
    // Without a surge one may be missing, as in Kubernetes.
    let default = if max_surge.as_deref().is_some_and(|s| !zero(s)) { "0" } else { "1" };
    let max_unavailable = share(section, "max_unavailable", default);
    if let (Some(surge), Some(unavailable)) = (&max_surge, &max_unavailable)
        && zero(surge) == zero(unavailable)
    {
        let message = "of a daemon set's surge and unavailable pods exactly one must be zero";
        let problem = Problem::error(section.place_of("max_unavailable"), message);
        section.report(problem.label("which one?"));
    }
    (max_surge, max_unavailable)
}

/// `min_available` or `max_unavailable` of a budget.
pub(crate) fn budget_bounds(section: &Section<'_>) -> Option<(Option<String>, Option<String>)> {
    let bound = |key| section.has(key).then(|| share(section, key, "1"));
    let (least, most) = (bound("min_available"), bound("max_unavailable"));
    // Both are known here, given or not.
    let _ = (section.get("min_available"), section.get("max_unavailable"));
    if least.is_some() == most.is_some() {
        let message = "a budget needs either `min_available` or `max_unavailable`";
        let problem = Problem::error(section.place(), message);
        section.report(problem.label("which one?"));
        return None;
    }
    Some((transposed(least)?, transposed(most)?))
}

/// A number or a percentage.
pub(crate) fn share(section: &Section<'_>, key: &'static str, default: &str) -> Option<String> {
    let Some(value) = section.get(key) else { return Some(default.to_owned()) };
    let text = value.text()?;
    let number = text.strip_suffix('%').unwrap_or(text);
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let fits = number.parse::<u32>().is_ok_and(|n| n <= 100 || !text.ends_with('%'));
    if !digits || !fits {
        let help = "write a number of pods, \"2\", or a percentage, \"25%\"";
        value.report(format!("`{}` cannot be `{text}`", value.path()), "not understood", help);
        return None;
    }
    Some(text.to_owned())
}

/// The effect of a taint; nothing takes the taint away.
fn effect(section: &Section<'_>) -> Option<String> {
    let value = section.need("effect")?;
    let text = value.text()?;
    if !text.is_empty() && !EFFECTS.contains(&text) {
        value.no_choice(text, EFFECTS);
        return None;
    }
    Some(text.to_owned())
}

/// Reads one `[[faults]]`.
pub(crate) fn fault(section: &Section<'_>, known: &Known<'_>) -> Option<PlannedFault> {
    let at = section.need("at").and_then(|v| v.amount(&TIME));
    let lasts = lasts(section, at);
    let what = section.need("fault")?;
    let kind = what.text()?;
    if !FAULTS.contains(&kind) {
        what.no_choice(kind, FAULTS);
        return None;
    }
    let fault = wrong(section, kind, known);
    section.finish();
    Some(PlannedFault { at: at?, lasts, fault: fault? })
}

/// `lasts`, or `until` less `at`.
fn lasts(section: &Section<'_>, at: Option<Span>) -> Option<Span> {
    let lasts = section.time("lasts");
    let Some(value) = section.get("until") else { return lasts };
    let until = value.amount(&TIME)?;
    if section.has("lasts") {
        let message = "`lasts` and `until` exclude each other";
        value.report(message, "which one?", "leave one of them out");
    }
    let at = at?;
    if until < at {
        let message = format!("the fault ends at {until}, before it begins at {at}");
        value.report(message, "too early", "");
        return None;
    }
    lasts.or(Some(Span(until.0 - at.0)))
}

fn wrong(section: &Section<'_>, kind: &str, known: &Known<'_>) -> Option<Fault> {
    let node = || known.node(&section.need("node")?);
    let component = || known.component(&section.need("component")?);
    let caller = || known.caller(&section.need("component")?);
    let percent = || section.need("percent")?.whole(0..=100_u8);
    let time = |key| section.need(key)?.amount(&TIME);
    let period = || {
        let period = time("period");
        if period == Some(Span::ZERO) {
            let problem = Problem::error(section.place_of("period"), NO_PERIOD);
            section.report(problem.label("would never get on"));
        }
        period
    };
    let link = || transposed(section.get("api_server").map(|value| known.api_server(&value)));
    let direction = || {
        let direction = section.get("direction").map(|value| value.choice());
        transposed(direction).map(Option::unwrap_or_default)
    };
    Some(match kind {
        "host-crash" => Fault::HostCrash { node: node()? },
        "crash" => Fault::Crash { component: component()? },
        "crash-at-call" => {
            let (component, call) = (caller(), section.need("call")?.whole(1..=u32::MAX));
            Fault::CrashAtCall { component: component?, call: call? }
        }
        "pause" => Fault::Pause { component: caller()? },
        "partition" => {
            let (component, api_server, direction) = (caller(), link(), direction());
            Fault::Partition {
                component: component?,
                api_server: api_server?,
                direction: direction?,
            }
        }
        "delay" => {
            let (component, api_server) = (caller(), link());
            let extra: Option<Distribution> = section.need("extra")?.distribution(&TIME);
            Fault::Delay { component: component?, api_server: api_server?, extra: extra? }
        }
        "call-timeout" => {
            let (component, percent) = (caller(), percent());
            let outcome = section.need("outcome")?.choice();
            Fault::CallTimeout { component: component?, percent: percent?, outcome: outcome? }
        }
        "duplicate" => {
            let (component, api_server, percent) = (caller(), link(), percent());
            let (component, api_server, percent) = (component?, api_server?, percent?);
            Fault::Duplicate { component, api_server, percent }
        }
        "loss" => {
            let (component, api_server) = (caller(), link());
            let (direction, percent) = (direction(), percent());
            Fault::Loss {
                component: component?,
                api_server: api_server?,
                direction: direction?,
                percent: percent?,
            }
        }
        "reorder" => {
            let (component, api_server) = (caller(), link());
            let (percent, by) = (percent(), time("by"));
            Fault::Reorder {
                component: component?,
                api_server: api_server?,
                percent: percent?,
                by: by?,
            }
        }
        "watch-stall" => Fault::WatchStall { component: caller()? },
        "watch-gap" => Fault::WatchGap { component: caller()? },
        "watch-expired" => Fault::WatchExpired { component: caller()? },
        "lagging-server" => {
            let server = section.need("api_server").and_then(|value| known.api_server(&value));
            let lag = time("lag");
            Fault::LaggingServer { api_server: server?, lag: lag? }
        }
        "watch-break" => Fault::WatchBreak { component: caller()? },
        "watch-coalescing" => {
            let (component, period) = (caller(), period());
            Fault::WatchCoalescing { component: component?, period: period? }
        }
        "stale-reads" => {
            let server = section.need("api_server").and_then(|value| known.api_server(&value));
            let lag = time("lag");
            Fault::StaleReads { api_server: server?, lag: lag? }
        }
        "store-down" => Fault::StoreDown,
        "conflict-storm" => {
            let target = section.need("target")?.choice();
            let period = period();
            Fault::ConflictStorm { target: target?, period: period? }
        }
        "clock-skew" => {
            let (component, ahead) = (caller(), time("ahead"));
            Fault::ClockSkew { component: component?, ahead: ahead? }
        }
        "clock-behind" => {
            let (component, behind) = (caller(), time("behind"));
            Fault::ClockBehind { component: component?, behind: behind? }
        }
        "runtime-errors" => {
            let (node, percent) = (node(), percent());
            Fault::RuntimeErrors { node: node?, percent: percent? }
        }
        "runtime-down" => Fault::RuntimeDown { node: node()? },
        _ => {
            let (node, factor) = (node(), section.need("factor")?.whole(1..=1_000_000));
            Fault::SlowDisk { node: node?, factor: factor? }
        }
    })
}

/// An absent value is right, a wrong one is not.
fn transposed<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        other => Some(other.flatten()),
    }
}

/// Operations with their places in the file.
type Placed = (std::ops::Range<usize>, PlannedOperation);

/// Reports what users create twice: it may be meant, since the API server refuses it.
pub(crate) fn doubtful(operations: &[Placed]) -> Vec<Problem> {
    let mut order: Vec<&Placed> = operations.iter().collect();
    order.sort_by_key(|(_, planned)| planned.at);
    let mut alive: BTreeMap<(Target, &str), bool> = BTreeMap::new();
    let mut problems = Vec::new();
    for (place, planned) in order {
        let (target, name) = subject(&planned.operation);
        if matches!(planned.operation, Operation::Delete { .. }) {
            alive.insert((target, name), false);
        } else if planned.operation.creates() && alive.insert((target, name), true) == Some(true) {
            let message = format!("{target:?} `{name}` is created a second time");
            problems
                .push(Problem::warning(place.clone(), message).label("will be refused: it exists"));
        }
    }
    problems
}

/// What an operation is about, with one name for each thing.
fn subject(operation: &Operation) -> (Target, &str) {
    let (target, name) = operation.subject();
    (target, name.strip_prefix("default/").unwrap_or(name))
}

/// Reports what users do to things that nobody in the scenario makes: it may be meant, too.
pub(crate) fn unmade(operations: &[Placed], workloads: &[Workload]) -> Vec<Problem> {
    let traced = workloads.iter().filter_map(Workload::trace).flat_map(|t| &t.operations);
    let all = operations.iter().map(|(_, planned)| planned).chain(traced);
    let made: BTreeSet<(Target, &str)> =
        all.map(|o| &o.operation).filter(|o| o.creates()).map(subject).collect();
    let begins = |name: &str, owner: &str| {
        let owner = owner.strip_prefix("default/").unwrap_or(owner);
        name.strip_prefix(owner).is_some_and(|rest| rest.starts_with(['-', '/']))
    };
    let is_made = |target: Target, name: &str| match target {
        // Nodes are looked up already, and what is there from the beginning is known to all.
        Target::Node => true,
        Target::Namespace if name == "default" || name.starts_with("kube-") => true,
        // Controllers make these for what users make.
        Target::PersistentVolumeClaim => true,
        Target::Pod | Target::Job | Target::ReplicaSet => {
            made.iter().any(|(_, owner)| begins(name, owner))
        }
        _ => false,
    };
    let problem = |(place, planned): &Placed| {
        let (target, name) = subject(&planned.operation);
        if planned.operation.creates()
            || made.contains(&(target, name))
            || is_made(target, name)
            || workloads.iter().any(|workload| begins(name, &workload.name))
        {
            return None;
        }
        let message = format!("nobody creates {target:?} `{name}`");
        let alike = made.iter().filter(|(t, _)| *t == target).map(|(_, name)| *name);
        let label = match planned.operation {
            Operation::Delete { .. } => "has nothing to delete",
            _ => "will be given up",
        };
        Some(Problem::warning(place.clone(), message).label(label).help(did_you_mean(name, alike)))
    };
    operations.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kinds_are_those_of_plans() {
        let tag = |value: serde_json::Value, key: &str| value[key].as_str().unwrap().to_owned();
        let operation = Operation::CreateReplicationController {
            name: "a".to_owned(),
            template: 0,
            replicas: 0,
        };
        let name = tag(serde_json::to_value(operation).unwrap(), "do");
        assert!(OPERATIONS.contains(&name.as_str()), "{name}");
        let budget = Budget {
            name: "a".to_owned(),
            app: "a".to_owned(),
            min_available: None,
            max_unavailable: None,
        };
        let operation = Operation::CreateBudget(Box::new(budget));
        let name = tag(serde_json::to_value(operation).unwrap(), "do");
        assert!(OPERATIONS.contains(&name.as_str()), "{name}");
        let fault = Fault::LaggingServer { api_server: 0, lag: Span::ZERO };
        let name = tag(serde_json::to_value(fault).unwrap(), "fault");
        assert!(FAULTS.contains(&name.as_str()), "{name}");
    }
}
