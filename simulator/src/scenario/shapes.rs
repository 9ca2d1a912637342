//! What nodes and pods are like, as the file says it.

use std::collections::BTreeMap;

use registry::priority_class::USER_VALUE_MAX;

use super::diagnostics::Problem;
use super::names;
use super::section::{COUNT, CPU, MEMORY, Section, Value};
use crate::plan::{Neighbours, NodeShape, PodTemplate, Spread};
use crate::span::Span;

/// A million CPUs; the registry's own arithmetic goes much further.
pub(crate) const CPU_MILLI_MAX: u64 = 1_000_000_000;
/// A rollout must make progress within ten minutes, and takes longer than that for each pod.
const MIN_READY_MAX: Span = Span::secs(599);
/// An exbibyte.
pub(crate) const MEMORY_MAX: u64 = 1 << 60;

/// Things that have names in the file and numbers in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue<T> {
    entries: Vec<(String, T)>,
}

impl<T> Default for Catalogue<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T: PartialEq> Catalogue<T> {
    /// The things in the order of their numbers.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The thing of a number.
    pub fn value(&self, index: u32) -> Option<&T> {
        Some(&self.entries.get(usize::try_from(index).ok()?)?.1)
    }

    /// The names; empty for what the file does not name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Adds a named thing and gives it the next number.
    pub(crate) fn add(&mut self, name: &str, value: T) -> u32 {
        self.entries.push((name.to_owned(), value));
        u32::try_from(self.entries.len() - 1).expect("a file has fewer lines")
    }

    /// The number of something without a name: that of its equal, or else a new one.
    pub(crate) fn intern(&mut self, value: T) -> u32 {
        match self.entries.iter().position(|(_, other)| *other == value) {
            Some(index) => u32::try_from(index).expect("a file has fewer lines"),
            None => self.add("", value),
        }
    }

    /// The number of a name in the file.
    pub(crate) fn index(&self, what: &str, value: &Value<'_>) -> Option<u32> {
        let known: Vec<&str> = self.names().filter(|name| !name.is_empty()).collect();
        let at = value.position(what, known.iter().copied())?;
        let name = known[at];
        u32::try_from(self.names().position(|n| n == name)?).ok()
    }
}

/// Reads a table of named things, `[templates.web]`.
pub(crate) fn catalogue<T: PartialEq>(
    root: &Section<'_>,
    key: &'static str,
    read: impl Fn(&Section<'_>) -> T,
) -> Catalogue<T> {
    let mut catalogue = Catalogue::default();
    let Some(table) = root.section(key) else { return catalogue };
    for (name, _, value) in table.entries() {
        let Some(section) = value.section() else { continue };
        catalogue.add(name, read(&section));
        section.finish();
    }
    catalogue
}

/// The keys of a node's shape.
pub(crate) fn node_shape(section: &Section<'_>) -> NodeShape {
    let default = NodeShape::default();
    NodeShape {
        cpu_milli: bounded(section, "cpu", CPU_MILLI_MAX).unwrap_or(default.cpu_milli),
        memory_bytes: bounded(section, "memory", MEMORY_MAX).unwrap_or(default.memory_bytes),
        pods: section.whole("pods", 1..=10_000).unwrap_or(default.pods),
        zone: section.get("zone").and_then(|v| v.label_value()).map_or(default.zone, str::to_owned),
        labels: section.labels("labels"),
        taints: section.taints("taints"),
        extended: extended(section),
    }
}

/// The keys that say how large a host is; `base` has what is absent.
pub(crate) fn hardware(section: &Section<'_>, base: &NodeShape) -> NodeShape {
    NodeShape {
        cpu_milli: bounded(section, "cpu", CPU_MILLI_MAX).unwrap_or(base.cpu_milli),
        memory_bytes: bounded(section, "memory", MEMORY_MAX).unwrap_or(base.memory_bytes),
        extended: if section.has("extended") { extended(section) } else { base.extended.clone() },
        ..NodeShape::default()
    }
}

/// CPU or memory.
fn bounded(section: &Section<'_>, key: &'static str, most: u64) -> Option<u64> {
    let value = section.get(key)?;
    let amount = value.amount(if key == "cpu" { &CPU } else { &MEMORY })?;
    if amount > most {
        let label = if key == "cpu" { "more than 1000000 CPUs" } else { "more than 1Ei" };
        value.report(format!("`{}` is out of range", value.path()), label, "");
        return None;
    }
    Some(amount)
}

fn extended(section: &Section<'_>) -> BTreeMap<String, u64> {
    let Some(table) = section.section("extended") else { return BTreeMap::new() };
    let amount = |(name, place, value): (&str, _, Value<'_>)| {
        resource_fault(section, name, place);
        Some((name.to_owned(), value.amount(&COUNT)?))
    };
    table.entries().into_iter().filter_map(amount).collect()
}

/// Reports a name that no extended resource can have.
pub(crate) fn resource_fault(section: &Section<'_>, name: &str, place: std::ops::Range<usize>) {
    let fault = match names::qualified_fault(name) {
        Some(fault) => fault,
        None if !name.contains('/') || name.contains("kubernetes.io/") => {
            "must have a domain of its own, as in \"nvidia.com/gpu\""
        }
        None => return,
    };
    let message = format!("`{name}` cannot be the name of a resource");
    section.report(Problem::error(place, message).label(fault));
}

/// The keys of a pod's template, its size included; `base` has what is absent.
pub(crate) fn pod_template(section: &Section<'_>, base: &PodTemplate) -> PodTemplate {
    let mut template = pod_manners(section, base);
    if let Some(cpu) = bounded(section, "cpu", CPU_MILLI_MAX) {
        template.cpu_milli = cpu;
    }
    if let Some(memory) = bounded(section, "memory", MEMORY_MAX) {
        template.memory_bytes = memory;
    }
    if section.has("extended") {
        template.extended = extended(section);
    }
    let _ = section.get("extended");
    if let Some(runs) = section.time("runs") {
        template.runs = Some(runs);
    }
    template
}

/// The keys of a pod's template that do not say how much it needs and how long it runs.
pub(crate) fn pod_manners(section: &Section<'_>, base: &PodTemplate) -> PodTemplate {
    let mut template = base.clone();
    let text = |key| section.text(key).map(str::to_owned);
    if let Some(image) = section.get("image") {
        template.image = image_of(&image).unwrap_or(template.image);
    }
    template.labels.extend(section.labels("labels"));
    if let Some(priority) = section.whole("priority", i32::MIN..=USER_VALUE_MAX) {
        template.priority = priority;
    }
    template.node_selector.extend(section.labels("node_selector"));
    template.tolerations.extend(section.sections("tolerations").iter().filter_map(toleration));
    if let Some(port) = section.whole("host_port", 0..=u16::MAX) {
        template.host_port = port;
    }
    if let Some(code) = section.whole("exit_code", 0..=255) {
        template.exit_code = code;
    }
    if let Some(after) = section.time("ready_after") {
        template.ready_after = after;
    }
    if let Some(min) = section.time("min_ready") {
        if min > MIN_READY_MAX || !min.0.is_multiple_of(Span::secs(1).0) {
            let problem =
                Problem::error(section.place_of("min_ready"), "`min_ready` cannot be that");
            section.report(problem.label("must be whole seconds, and at most 599s"));
        }
        template.min_ready = min;
    }
    if let Some(policy) = section.get("restart_policy") {
        const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
        match policy.text() {
            Some(text) if POLICIES.contains(&text) => text.clone_into(&mut template.restart_policy),
            Some(text) => policy.no_choice(text, POLICIES),
            None => {}
        }
    }
    if let Some(seconds) = section.whole("grace_seconds", 0..=86_400) {
        template.grace_seconds = seconds;
    }
    if let Some(scheduler) = text("scheduler") {
        template.scheduler = scheduler;
    }
    if let Some(gated) = section.truth("gated") {
        template.gated = gated;
    }
    if let Some(preempts) = section.truth("preempts") {
        template.preempts = preempts;
    }
    if let Some(bytes) = bounded(section, "storage", MEMORY_MAX) {
        template.storage = bytes;
    }
    template.near.extend(section.sections("near").iter().map(neighbours));
    template.apart.extend(section.sections("apart").iter().map(neighbours));
    template.spread.extend(section.sections("spread").iter().map(spread));
    template
}

/// The label of nodes whose values are domains; each node is one when it is absent.
fn topology(section: &Section<'_>, default: String) -> String {
    section.get("topology").and_then(|v| v.label_key()).map_or(default, str::to_owned)
}

fn neighbours(section: &Section<'_>) -> Neighbours {
    let default = Neighbours::default();
    let neighbours = Neighbours {
        labels: section.labels("labels"),
        topology: topology(section, default.topology),
        weight: section.whole("weight", 1..=100).unwrap_or(default.weight),
    };
    section.finish();
    neighbours
}

fn spread(section: &Section<'_>) -> Spread {
    let default = Spread::default();
    let spread = Spread {
        labels: section.labels("labels"),
        topology: topology(section, default.topology),
        max_skew: section.whole("max_skew", 1..=1_000_000).unwrap_or(default.max_skew),
        soft: section.truth("soft").unwrap_or(default.soft),
    };
    section.finish();
    spread
}

fn image_of(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.is_empty() || text.chars().any(char::is_whitespace) {
        value.report(format!("`{text}` is no image"), "must be as in \"web:1\"", "");
        return None;
    }
    Some(text.to_owned())
}

fn toleration(section: &Section<'_>) -> Option<(String, String, String, Option<i64>)> {
    let key = section.get("key").and_then(|v| v.label_key()).unwrap_or_default().to_owned();
    let value = section.get("value").and_then(|v| v.label_value()).unwrap_or_default().to_owned();
    let effect = match section.get("effect") {
        None => "",
        Some(effect) => match effect.text()? {
            text if names::EFFECTS.contains(&text) => text,
            text => {
                effect.no_choice(text, names::EFFECTS);
                return None;
            }
        },
    };
    let seconds = section.whole("seconds", 0..=i64::from(u32::MAX));
    if section.has("seconds") && effect != "NoExecute" {
        let problem = Problem::error(section.place_of("seconds"), "`seconds` has no effect");
        let help = "add effect = \"NoExecute\"";
        section.report(problem.label("for NoExecute only").help(help));
    }
    section.finish();
    Some((key, value, effect.to_owned(), seconds))
}
