//! A plan as the text of a scenario file: one line for each node, operation and fault, and only
//! what differs from the defaults.

mod scheduled;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};

use super::nodes::NUMBER;
use crate::distribution::{Amount, Distribution};
use crate::plan::{
    BY_NODE, Budget, DRAIN_TIMEOUT, Direction, Fault, LimitRange, Neighbours, Network, NodeShape,
    Operation, Plan, PlannedFault, PlannedNode, PlannedOperation, PodTemplate, Runtime,
    SchedulerSettings, Settings, Spread, Target,
};
use crate::span::Span;

/// Writes a scenario file that expands to `plan`.
pub(crate) fn plan(plan: &Plan) -> String {
    let Plan { name, seed, settings, shapes, nodes, templates, operations, faults } = plan;
    let shape_names = distinct(shapes.iter().map(shape_name));
    let template_names = distinct(templates.iter().map(|t| bare(&t.image)));
    let mut out = format!("name = {}\nseed = {seed}\n", text(name));
    let lines = nodes_lines(nodes, &shape_names);
    list(&mut out, "nodes", lines);
    list(&mut out, "operations", operations.iter().map(|o| operation(o, &template_names)));
    list(&mut out, "faults", faults.iter().map(fault));
    table(&mut out, "settings", &settings_keys(settings));
    for (key, keys) in [
        ("settings.network", network(&settings.network)),
        ("settings.runtime", runtime(&settings.runtime)),
        ("settings.scheduler", scheduler(&settings.scheduler)),
    ] {
        if !keys.is_empty() {
            table(&mut out, key, &keys);
        }
    }
    for (name, shape) in shape_names.iter().zip(shapes) {
        table(&mut out, &format!("shapes.{name}"), &shape_keys(shape));
    }
    for (name, template) in template_names.iter().zip(templates) {
        table(&mut out, &format!("templates.{name}"), &template_keys(template));
    }
    out
}

/// Keys with their values as they stand in a file, in order.
#[derive(Default)]
struct Keys(Vec<String>);

impl Keys {
    fn put(&mut self, key: &str, value: impl Display) {
        self.0.push(format!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.put(key, text(value));
    }

    fn time(&mut self, key: &str, value: Span) {
        self.put(key, format_args!("\"{value}\""));
    }

    /// A key that is left out when its value is the default.
    fn differing<T: PartialEq>(&mut self, key: &str, value: &T, default: &T, shown: impl Display) {
        if value != default {
            self.put(key, shown);
        }
    }

    /// A key that is left out when it has no value.
    fn optional(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn labels(&mut self, key: &str, labels: &BTreeMap<String, String>) {
        if !labels.is_empty() {
            let labels = labels.iter().map(|(k, v)| format!("{} = {}", key_of(k), text(v)));
            self.put(key, inline(labels));
        }
    }

    fn numbers(&mut self, key: &str, numbers: &BTreeMap<String, impl Display>) {
        if !numbers.is_empty() {
            self.put(key, inline(numbers.iter().map(|(k, v)| format!("{} = {v}", key_of(k)))));
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn inline(self) -> String {
        inline(self.0)
    }
}

fn inline(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<String> = parts.into_iter().collect();
    format!("{{ {} }}", parts.join(", "))
}

fn list(out: &mut String, key: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "\n{key} = [");
    for line in lines {
        let _ = writeln!(out, "  {line},");
    }
    out.push_str("]\n");
}

fn table(out: &mut String, header: &str, keys: &Keys) {
    let _ = writeln!(out, "\n[{header}]");
    for line in &keys.0 {
        let _ = writeln!(out, "{line}");
    }
}

/// A text in quotes.
pub(crate) fn text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn key_of(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { text(key) }
}

fn texts<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| text(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A text as a key without quotes.
fn bare(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// Names of which no two are equal.
fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut next: BTreeMap<String, u32> = BTreeMap::new();
    names
        .map(|name| {
            let mut candidate = name.clone();
            while !taken.insert(candidate.clone()) {
                let number = next.entry(name.clone()).or_insert(1);
                *number += 1;
                candidate = format!("{name}-v{number}");
            }
            candidate
        })
        .collect()
}

fn shape_name(shape: &NodeShape) -> String {
    let cpu = cpu(shape.cpu_milli).replace('"', "");
    let size = format!("{cpu}cpu-{}", memory(shape.memory_bytes).replace('"', ""));
    let size = bare(&size).to_ascii_lowercase();
    if shape.zone.is_empty() { size } else { format!("{size}-{}", bare(&shape.zone)) }
}

/// CPUs as people write them.
pub(crate) fn cpu(milli: u64) -> String {
    if milli.is_multiple_of(1_000) {
        format!("\"{}\"", milli / 1_000)
    } else {
        format!("\"{milli}m\"")
    }
}

/// Memory as people write it.
pub(crate) fn memory(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = |(_, bits): &&(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *bits;
    match units.iter().find(fits) {
        Some((unit, bits)) => format!("\"{}{unit}\"", bytes >> bits),
        None => format!("\"{bytes}\""),
    }
}

/// A distribution of lengths of time.
pub(crate) fn spread(distribution: &Distribution) -> String {
    distribution_of(distribution, |span| format!("\"{span}\""))
}

fn distribution_of<T: Amount>(of: &Distribution<T>, shown: impl Fn(T) -> String) -> String {
    let pairs = |pairs: Vec<String>| format!("[{}]", pairs.join(", "));
    match of {
        Distribution::Constant(value) => shown(*value),
        Distribution::Uniform { min, max } => {
            format!("{{ min = {}, max = {} }}", shown(*min), shown(*max))
        }
        Distribution::Skewed { median, p99 } => {
            format!("{{ median = {}, p99 = {} }}", shown(*median), shown(*p99))
        }
        Distribution::Exponential { mean } => format!("{{ mean = {} }}", shown(*mean)),
        Distribution::Pareto { min, max, shape } => {
            format!("{{ min = {}, max = {}, shape = {shape} }}", shown(*min), shown(*max))
        }
        Distribution::Empirical { quantiles } => {
            let quantiles = quantiles.iter().map(|(p, v)| format!("[{p}, {}]", shown(*v)));
            format!("{{ quantiles = {} }}", pairs(quantiles.collect()))
        }
        Distribution::Choices { choices } => {
            let choices = choices.iter().map(|(w, v)| format!("[{w}, {}]", shown(*v)));
            format!("{{ choices = {} }}", pairs(choices.collect()))
        }
    }
}

/// Nodes whose names go on counting stand in one line.
fn nodes_lines(nodes: &[PlannedNode], shapes: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = nodes;
    while let Some(first) = rest.first() {
        let run = run_of(rest);
        let mut keys = Keys::default();
        match numbered(&first.name) {
            Some((prefix, number)) if run > 1 => {
                keys.put("count", run);
                keys.text("name", &format!("{prefix}{NUMBER}"));
                keys.differing("first", &number, &0, number);
            }
            _ => keys.text("name", &first.name),
        }
        if let Some(shape) = usize::try_from(first.shape).ok().and_then(|i| shapes.get(i)) {
            keys.text("shape", shape);
        }
        keys.differing("joins", &first.joins, &Span::ZERO, format_args!("\"{}\"", first.joins));
        lines.push(keys.inline());
        rest = &rest[run..];
    }
    lines
}

/// How many of the first nodes differ only in rising numbers.
fn run_of(nodes: &[PlannedNode]) -> usize {
    let Some(first) = nodes.first() else { return 0 };
    let Some((prefix, number)) = numbered(&first.name) else { return 1 };
    let follows = |(i, node): &(u64, &PlannedNode)| {
        (node.shape, node.joins) == (first.shape, first.joins)
            && node.name == format!("{prefix}{}", number + i)
    };
    (0..).zip(nodes).take_while(follows).count()
}

/// A name and the number at its end.
fn numbered(name: &str) -> Option<(&str, u64)> {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[prefix.len()..];
    let number: u64 = digits.parse().ok()?;
    let plain = digits == number.to_string() && number < 1_000_000 && !prefix.contains(NUMBER);
    plain.then_some((prefix, number))
}

fn operation(planned: &PlannedOperation, templates: &[String]) -> String {
    let PlannedOperation { at, operation } = planned;
    let mut keys = Keys::default();
    keys.time("at", *at);
    keys.text("do", operation.word());
    let template = |keys: &mut Keys, index: u32| {
        if let Some(name) = usize::try_from(index).ok().and_then(|i| templates.get(i)) {
            keys.text("template", name);
        }
    };
    match operation {
        Operation::CreatePod { name, template: index, runs } => {
            keys.text("name", name);
            template(&mut keys, *index);
            if let Some(runs) = runs {
                keys.time("runs", *runs);
            }
        }
        Operation::CreateDeployment {
            name,
            template: index,
            replicas,
            max_surge,
            max_unavailable,
        } => {
            keys.text("name", name);
            template(&mut keys, *index);
            keys.put("replicas", replicas);
            for (key, value) in [("max_surge", max_surge), ("max_unavailable", max_unavailable)] {
                keys.differing(key, &value.as_str(), &"25%", text(value));
            }
        }
        Operation::CreateReplicaSet { name, template: index, replicas } => {
            keys.text("name", name);
            template(&mut keys, *index);
            keys.put("replicas", replicas);
        }
        Operation::CreateReplicationController { name, template: index, replicas } => {
            keys.text("name", name);
            template(&mut keys, *index);
            keys.put("replicas", replicas);
        }
        Operation::CreateStatefulSet { name, template: index, replicas, parallel, partition } => {
            keys.text("name", name);
            template(&mut keys, *index);
            keys.put("replicas", replicas);
            keys.differing("parallel", parallel, &false, parallel);
            keys.differing("partition", partition, &0, partition);
        }
        Operation::CreateDaemonSet { name, template: index, max_surge, max_unavailable } => {
            keys.text("name", name);
            template(&mut keys, *index);
            keys.text("max_surge", max_surge);
            keys.text("max_unavailable", max_unavailable);
        }
        Operation::CreateJob {
            name,
            template: index,
            completions,
            parallelism,
            indexed,
            backoff_limit,
            ttl_seconds,
        } => {
            keys.text("name", name);
            template(&mut keys, *index);
            keys.optional("completions", *completions);
            keys.differing("parallelism", parallelism, &1, parallelism);
            keys.differing("indexed", indexed, &false, indexed);
            keys.differing("backoff_limit", backoff_limit, &6, backoff_limit);
            keys.optional("ttl_seconds", *ttl_seconds);
        }
        Operation::CreateCronJob(cron) => {
            keys.text("name", &cron.name);
            template(&mut keys, cron.template);
            scheduled::cron_job(&mut keys, cron);
        }
        Operation::SuspendCronJob { name, suspended } => {
            keys.text("name", name);
            keys.differing("suspended", suspended, &true, suspended);
        }
        Operation::CreateAutoscaler(autoscaler) => {
            keys.text("name", &autoscaler.name);
            scheduled::autoscaler(&mut keys, autoscaler);
        }
        Operation::CreateQuota(quota) | Operation::SetQuota(quota) => {
            keys.text("name", &quota.name);
            keys.labels("hard", &quota.hard);
        }
        Operation::CreateLimitRange(range) => {
            let LimitRange { name, default_request, default, min, max } = range.as_ref();
            keys.text("name", name);
            keys.labels("default_request", default_request);
            keys.labels("default", default);
            keys.labels("min", min);
            keys.labels("max", max);
        }
        Operation::SetClaimPolicy { name, delete_with_set, delete_when_scaled } => {
            keys.text("name", name);
            keys.differing("delete_with_set", delete_with_set, &false, delete_with_set);
            keys.differing("delete_when_scaled", delete_when_scaled, &false, delete_when_scaled);
        }
        Operation::CreateBudget(budget) => {
            let Budget { name, app, min_available, max_unavailable } = budget.as_ref();
            keys.text("name", name);
            keys.text("app", app);
            keys.optional("min_available", min_available.as_deref().map(text));
            keys.optional("max_unavailable", max_unavailable.as_deref().map(text));
        }
        Operation::CreateService { name, app } => {
            keys.text("name", name);
            keys.text("app", app);
        }
        Operation::CreateNamespace { name } => keys.text("name", name),
        Operation::Scale { target, name, replicas } => {
            keys.put("target", word(target));
            keys.text("name", name);
            keys.put("replicas", replicas);
        }
        Operation::SetTemplate { target, name, template: index } => {
            keys.differing("target", target, &Target::Deployment, word(target));
            keys.text("name", name);
            template(&mut keys, *index);
        }
        Operation::SetPartition { name, partition } => {
            keys.text("name", name);
            keys.put("partition", partition);
        }
        Operation::Pause { name, paused } => {
            keys.text("name", name);
            keys.differing("paused", paused, &true, paused);
        }
        Operation::Delete { target, name, orphan, foreground } => {
            keys.put("target", word(target));
            keys.text("name", name);
            keys.differing("orphan", orphan, &false, orphan);
            keys.differing("foreground", foreground, &false, foreground);
        }
        Operation::Cordon { node, unschedulable: _ } => {
            keys.text("node", node);
        }
        Operation::Drain { node, timeout } => {
            keys.text("node", node);
            keys.differing("timeout", timeout, &DRAIN_TIMEOUT, format_args!("\"{timeout}\""));
        }
        Operation::Taint { node, key, effect } => {
            keys.text("node", node);
            keys.text("key", key);
            keys.text("effect", effect);
        }
        Operation::Label { target, name, key, value } => {
            keys.put("target", word(target));
            keys.text("name", name);
            keys.text("key", key);
            keys.text("value", value);
        }
    }
    keys.inline()
}

/// A word of an enumeration in quotes.
fn word(value: &impl serde::Serialize) -> String {
    let value = toml::Value::try_from(value).expect("an enumeration without contents is a text");
    value.to_string()
}

fn fault(planned: &PlannedFault) -> String {
    let PlannedFault { at, lasts, fault } = planned;
    let mut keys = Keys::default();
    keys.time("at", *at);
    if let Some(lasts) = lasts {
        keys.time("lasts", *lasts);
    }
    let of = |keys: &mut Keys, what: &str, component: &dyn Display| {
        keys.text("fault", what);
        keys.text("component", &component.to_string());
    };
    let on = |keys: &mut Keys, what: &str, node: &str| {
        keys.text("fault", what);
        keys.text("node", node);
    };
    let link = |keys: &mut Keys, api_server: &Option<u16>| {
        if let Some(server) = api_server {
            keys.put("api_server", server);
        }
    };
    match fault {
        Fault::HostCrash { node } => on(&mut keys, "host-crash", node),
        Fault::Crash { component } => of(&mut keys, "crash", component),
        Fault::CrashAtCall { component, call } => {
            of(&mut keys, "crash-at-call", component);
            keys.put("call", call);
        }
        Fault::Pause { component } => of(&mut keys, "pause", component),
        Fault::Partition { component, api_server, direction } => {
            of(&mut keys, "partition", component);
            link(&mut keys, api_server);
            keys.differing("direction", direction, &Direction::Both, word(direction));
        }
        Fault::Delay { component, api_server, extra } => {
            of(&mut keys, "delay", component);
            link(&mut keys, api_server);
            keys.put("extra", spread(extra));
        }
        Fault::CallTimeout { component, percent, outcome } => {
            of(&mut keys, "call-timeout", component);
            keys.put("percent", percent);
            keys.put("outcome", word(outcome));
        }
        Fault::Duplicate { component, api_server, percent } => {
            of(&mut keys, "duplicate", component);
            link(&mut keys, api_server);
            keys.put("percent", percent);
        }
        Fault::Loss { component, api_server, direction, percent } => {
            of(&mut keys, "loss", component);
            link(&mut keys, api_server);
            keys.differing("direction", direction, &Direction::Both, word(direction));
            keys.put("percent", percent);
        }
        Fault::Reorder { component, api_server, percent, by } => {
            of(&mut keys, "reorder", component);
            link(&mut keys, api_server);
            keys.put("percent", percent);
            keys.time("by", *by);
        }
        Fault::WatchStall { component } => of(&mut keys, "watch-stall", component),
        Fault::WatchGap { component } => of(&mut keys, "watch-gap", component),
        Fault::WatchExpired { component } => of(&mut keys, "watch-expired", component),
        Fault::WatchBreak { component } => of(&mut keys, "watch-break", component),
        Fault::WatchCoalescing { component, period } => {
            of(&mut keys, "watch-coalescing", component);
            keys.time("period", *period);
        }
        Fault::StaleReads { api_server, lag } => {
            keys.text("fault", "stale-reads");
            keys.put("api_server", api_server);
            keys.time("lag", *lag);
        }
        Fault::LaggingServer { api_server, lag } => {
            keys.text("fault", "lagging-server");
            keys.put("api_server", api_server);
            keys.time("lag", *lag);
        }
        Fault::StoreDown => keys.text("fault", "store-down"),
        Fault::ConflictStorm { target, period } => {
            keys.text("fault", "conflict-storm");
            keys.put("target", word(target));
            keys.time("period", *period);
        }
        Fault::ClockSkew { component, ahead } => {
            of(&mut keys, "clock-skew", component);
            keys.time("ahead", *ahead);
        }
        Fault::ClockBehind { component, behind } => {
            of(&mut keys, "clock-behind", component);
            keys.time("behind", *behind);
        }
        Fault::RuntimeErrors { node, percent } => {
            on(&mut keys, "runtime-errors", node);
            keys.put("percent", percent);
        }
        Fault::RuntimeDown { node } => on(&mut keys, "runtime-down", node),
        Fault::SlowDisk { node, factor } => {
            on(&mut keys, "slow-disk", node);
            keys.put("factor", factor);
        }
    }
    keys.inline()
}

fn settings_keys(settings: &Settings) -> Keys {
    let default = Settings::default();
    let Settings {
        safety,
        settle,
        quiet,
        api_servers,
        schedulers,
        controller_managers,
        leader_election,
        network: _,
        runtime: _,
        scheduler: _,
        lazy_heartbeats,
        store_events,
        hash_contents,
        bug,
        unchecked,
    } = settings;
    let mut keys = Keys::default();
    keys.time("safety", *safety);
    keys.time("settle", *settle);
    keys.time("quiet", *quiet);
    for (key, value) in [
        ("api_servers", api_servers),
        ("schedulers", schedulers),
        ("controller_managers", controller_managers),
    ] {
        keys.differing(key, value, &1, value);
    }
    for (key, value, default) in [
        ("leader_election", leader_election, default.leader_election),
        ("lazy_heartbeats", lazy_heartbeats, default.lazy_heartbeats),
        ("store_events", store_events, default.store_events),
        ("hash_contents", hash_contents, default.hash_contents),
    ] {
        keys.differing(key, value, &default, value);
    }
    if let Some(bug) = bug {
        keys.put("bug", word(bug));
    }
    if !unchecked.is_empty() {
        keys.put("unchecked", texts(unchecked));
    }
    keys
}

/// Settings in a line, those that differ from the defaults.
pub(crate) fn settings_line(settings: &Settings) -> String {
    let mut parts = settings_keys(settings).0;
    for (prefix, keys) in [
        ("network", network(&settings.network)),
        ("runtime", runtime(&settings.runtime)),
        ("scheduler", scheduler(&settings.scheduler)),
    ] {
        parts.extend(keys.0.into_iter().map(|key| format!("{prefix}.{key}")));
    }
    parts.join(", ")
}

fn network(network: &Network) -> Keys {
    let Network { control_plane, nodes, store, service } = network;
    let default = Network::default();
    let mut keys = Keys::default();
    for (key, value, default) in [
        ("control_plane", control_plane, default.control_plane),
        ("nodes", nodes, default.nodes),
        ("store", store, default.store),
        ("service", service, default.service),
    ] {
        keys.differing(key, value, &default, spread(value));
    }
    keys
}

fn runtime(runtime: &Runtime) -> Keys {
    let Runtime { sandbox_start, container_start, stop, pull, other } = runtime;
    let default = Runtime::default();
    let mut keys = Keys::default();
    for (key, value, default) in [
        ("sandbox_start", sandbox_start, default.sandbox_start),
        ("container_start", container_start, default.container_start),
        ("stop", stop, default.stop),
        ("pull", pull, default.pull),
        ("other", other, default.other),
    ] {
        keys.differing(key, value, &default, spread(value));
    }
    keys
}

fn scheduler(settings: &SchedulerSettings) -> Keys {
    let SchedulerSettings {
        percentage_of_nodes_to_score,
        fit_strategy,
        weights,
        disabled,
        enabled,
    } = settings;
    let mut keys = Keys::default();
    if let Some(percentage) = percentage_of_nodes_to_score {
        keys.put("percentage_of_nodes_to_score", percentage);
    }
    if let Some(strategy) = fit_strategy {
        keys.text("fit_strategy", strategy);
    }
    keys.numbers("weights", weights);
    if !disabled.is_empty() {
        keys.put("disabled", texts(disabled));
    }
    if !enabled.is_empty() {
        keys.put("enabled", texts(enabled));
    }
    keys
}

fn shape_keys(shape: &NodeShape) -> Keys {
    let NodeShape { cpu_milli, memory_bytes, pods, zone, labels, taints, extended } = shape;
    let mut keys = Keys::default();
    keys.put("cpu", cpu(*cpu_milli));
    keys.put("memory", memory(*memory_bytes));
    keys.put("pods", pods);
    keys.differing("zone", &zone.as_str(), &"", text(zone));
    keys.labels("labels", labels);
    if !taints.is_empty() {
        let taints: Vec<String> = taints
            .iter()
            .map(|(key, value, effect)| match value.as_str() {
                "" => format!("{key}:{effect}"),
                value => format!("{key}={value}:{effect}"),
            })
            .collect();
        keys.put("taints", texts(&taints));
    }
    keys.numbers("extended", extended);
    keys
}

fn template_keys(template: &PodTemplate) -> Keys {
    let PodTemplate {
        image,
        labels,
        cpu_milli,
        memory_bytes,
        extended,
        priority,
        node_selector,
        tolerations,
        host_port,
        runs,
        exit_code,
        ready_after,
        min_ready,
        restart_policy,
        grace_seconds,
        scheduler,
        gated,
        preempts,
        storage,
        near,
        apart,
        spread,
    } = template;
    let default = PodTemplate::default();
    let mut keys = Keys::default();
    keys.text("image", image);
    keys.labels("labels", labels);
    keys.put("cpu", cpu(*cpu_milli));
    keys.put("memory", memory(*memory_bytes));
    keys.numbers("extended", extended);
    keys.differing("priority", priority, &0, priority);
    keys.labels("node_selector", node_selector);
    if !tolerations.is_empty() {
        let tolerations: Vec<String> = tolerations.iter().map(toleration).collect();
        keys.put("tolerations", format_args!("[{}]", tolerations.join(", ")));
    }
    keys.differing("host_port", host_port, &0, host_port);
    if let Some(runs) = runs {
        keys.time("runs", *runs);
    }
    keys.differing("exit_code", exit_code, &0, exit_code);
    keys.differing("ready_after", ready_after, &Span::ZERO, format_args!("\"{ready_after}\""));
    keys.differing("min_ready", min_ready, &Span::ZERO, format_args!("\"{min_ready}\""));
    keys.differing("restart_policy", restart_policy, &default.restart_policy, text(restart_policy));
    keys.differing("grace_seconds", grace_seconds, &default.grace_seconds, grace_seconds);
    keys.differing("scheduler", scheduler, &default.scheduler, text(scheduler));
    keys.differing("gated", gated, &false, gated);
    keys.differing("preempts", preempts, &true, preempts);
    keys.differing("storage", storage, &0, memory(*storage));
    for (key, all) in [("near", near), ("apart", apart)] {
        if !all.is_empty() {
            let all: Vec<String> = all.iter().map(neighbours).collect();
            keys.put(key, format_args!("[{}]", all.join(", ")));
        }
    }
    if !spread.is_empty() {
        let all: Vec<String> = spread.iter().map(constraint).collect();
        keys.put("spread", format_args!("[{}]", all.join(", ")));
    }
    keys
}

/// Keys that stand in one line, if there are any.
fn inline_or_nothing(keys: Keys) -> String {
    if keys.is_empty() { "{}".to_owned() } else { keys.inline() }
}

fn neighbours(neighbours: &Neighbours) -> String {
    let Neighbours { labels, topology, weight } = neighbours;
    let mut keys = Keys::default();
    keys.labels("labels", labels);
    keys.differing("topology", &topology.as_str(), &BY_NODE, text(topology));
    keys.differing("weight", weight, &0, weight);
    inline_or_nothing(keys)
}

fn constraint(constraint: &Spread) -> String {
    let Spread { labels, topology, max_skew, soft } = constraint;
    let mut keys = Keys::default();
    keys.labels("labels", labels);
    keys.differing("topology", &topology.as_str(), &BY_NODE, text(topology));
    keys.differing("max_skew", max_skew, &1, max_skew);
    keys.differing("soft", soft, &false, soft);
    inline_or_nothing(keys)
}

fn toleration(toleration: &(String, String, String, Option<i64>)) -> String {
    let (key, value, effect, seconds) = toleration;
    let mut keys = Keys::default();
    for (name, text) in [("key", key), ("value", value), ("effect", effect)] {
        if !text.is_empty() {
            keys.text(name, text);
        }
    }
    if let Some(seconds) = seconds {
        keys.put("seconds", seconds);
    }
    inline_or_nothing(keys)
}
