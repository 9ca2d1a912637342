//! A plan as people read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use similar::TextDiff;

use super::{Action, Change, HostPlan, Plan, UnitAction};
use crate::firewall::FirewallChange;
use crate::state::{Content, HostState, Stage};

/// A text that differs between host and desired state.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ContentDiff {
    /// Where.
    pub path: String,
    /// Unified diff with three lines of context.
    pub diff: String,
}

/// Texts that are on a host now, by path: what diffs are made from.
pub type DiffSource = BTreeMap<String, String>;

/// A file longer than this is not shown as a diff.
const DIFF_BYTES_MAX: u64 = 64 * 1024;

impl HostPlan {
    /// The paths whose present text is needed to show diffs: changed, text, not secret, not huge.
    #[must_use]
    pub fn diffable(&self) -> Vec<String> {
        let path = |change: &Change| match change {
            Change::File { path, action: Action::Update, secret: false, len }
                if *len <= DIFF_BYTES_MAX =>
            {
                Some(path.clone())
            }
            _ => None,
        };
        self.changes.iter().filter_map(path).collect()
    }

    /// The diffs of all changed texts that `now` has; with `whole`, also those of texts that are
    /// new. Secrets have none, by type.
    #[must_use]
    pub fn diffs(&self, desired: &HostState, now: &DiffSource, whole: bool) -> Vec<ContentDiff> {
        let diff = |(path, old): (String, Option<&String>)| {
            let Content::Text(new) = &desired.file(&path)?.content else { return None };
            let old = old.map_or("", String::as_str);
            let diff = TextDiff::from_lines(old, new.as_str());
            let diff = diff.unified_diff().context_radius(3).to_string();
            Some(ContentDiff { path, diff })
        };
        let changed = self.diffable().into_iter().filter_map(|path| {
            let old = now.get(&path)?;
            Some((path, Some(old)))
        });
        let created = self.changes.iter().filter_map(|change| match change {
            Change::File { path, action: Action::Create, secret: false, len } => {
                (whole && *len <= DIFF_BYTES_MAX).then(|| (path.clone(), None))
            }
            _ => None,
        });
        changed.chain(created).filter_map(diff).collect()
    }
}

/// The plan as lines of text, with `diffs` by host below the files that they belong to.
#[must_use]
pub fn summary(plan: &Plan, diffs: &BTreeMap<String, Vec<ContentDiff>>) -> String {
    let mut out = String::new();
    for host in &plan.hosts {
        let generation = host.generation;
        if host.is_empty() {
            let _ = writeln!(out, "{}: up to date", host.host);
        } else {
            let _ = writeln!(out, "{}: generation {generation}", host.host);
        }
        let none = Vec::new();
        let diffs = diffs.get(&host.host).unwrap_or(&none);
        for change in &host.changes {
            let _ = writeln!(out, "  {}", change_line(change));
            if let Change::File { path, .. } = change
                && let Some(diff) = diffs.iter().find(|diff| diff.path == *path)
            {
                for line in diff.diff.lines() {
                    let _ = writeln!(out, "      {line}");
                }
            }
        }
        for warning in &host.warnings {
            let _ = writeln!(out, "  ! {warning}");
        }
    }
    out
}

/// The order in which nodes at work change, where there are several parts.
#[must_use]
pub fn rollout_summary(plan: &Plan) -> String {
    let mut out = String::new();
    let parts = plan.waves.iter().filter(|wave| wave.stage == Stage::Node);
    for wave in parts {
        if let Some(part) = wave.part {
            let _ = writeln!(out, "{part}: {}", wave.hosts.join(" "));
        }
    }
    out
}

/// One change as one line: a sign (`+` new, `~` changed, `-` gone), then what.
#[must_use]
pub fn change_line(change: &Change) -> String {
    let sign = |action: &Action| if *action == Action::Create { '+' } else { '~' };
    match change {
        Change::Directory { path, action } => format!("{} directory {path}", sign(action)),
        Change::File { path, action: Action::Attributes, .. } => {
            format!("~ file {path} (mode or owner)")
        }
        Change::File { path, action: Action::Update, secret: true, .. } => {
            format!("~ file {path} (secret changed)")
        }
        Change::File { path, action, secret: true, .. } => {
            format!("{} file {path} (secret)", sign(action))
        }
        Change::File { path, action, len, .. } => {
            format!("{} file {path} ({})", sign(action), size(*len))
        }
        Change::Program { name, from: None, to } => format!("+ program {name} {}", to.label()),
        Change::Program { name, from: Some(from), to } => {
            format!("~ program {name} {} -> {}", from.label(), to.label())
        }
        Change::Link { path, target, action } => {
            format!("{} link {path} -> {target}", sign(action))
        }
        Change::Remove { path, restores: true } => format!("- restore {path}"),
        Change::Remove { path, restores: false } => format!("- remove {path}"),
        Change::Sysctl { key, from: Some(from), to } => format!("~ sysctl {key}: {from} -> {to}"),
        Change::Sysctl { key, from: None, to } => format!("+ sysctl {key} = {to}"),
        Change::Module { module } => format!("+ module {module}"),
        Change::Image { reference, len } => format!("+ image {reference} ({})", size(*len)),
        Change::Unit { unit, action, because } => unit_line(unit, *action, because),
        Change::Packages { manager, packages } => {
            format!("+ packages {} (with {manager})", listed(packages))
        }
        Change::Swap { on: false, swaps } => format!("~ swap off: {}", listed(swaps)),
        Change::Swap { on: true, swaps } => format!("- swap on again: {}", listed(swaps)),
        Change::Block { path, new } => {
            format!("{} block of {path}", if *new { '+' } else { '~' })
        }
        Change::Label { path } => format!("~ label of {path}"),
        Change::Firewall { what } => firewall_lines(what),
        Change::FirewallConfirmation => "~ confirm the firewall".to_owned(),
        Change::Record => "~ record of owned objects".to_owned(),
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Every rule is shown: what a firewall lets through is what people want to see before it happens.
fn firewall_lines(change: &FirewallChange) -> String {
    match change {
        FirewallChange::Rules { kind, open, close } => {
            let open = open.iter().map(|rule| format!("+ {kind}: {rule}"));
            let close = close.iter().map(|rule| format!("- {kind}: {rule}"));
            open.chain(close).collect::<Vec<_>>().join("\n  ")
        }
        FirewallChange::Switch { kind, on: true } => format!("- {kind} on again"),
        FirewallChange::Switch { kind, on: false } => format!("~ {kind} OFF"),
    }
}

fn unit_line(unit: &str, action: UnitAction, because: &BTreeSet<String>) -> String {
    let text = match action {
        UnitAction::Start => "+ start",
        UnitAction::Restart => "~ restart",
        UnitAction::Stop => "- stop",
        UnitAction::Enable => "+ enable",
        UnitAction::Disable => "- disable",
    };
    if action != UnitAction::Restart {
        return format!("{text} {unit}");
    }
    let mut because = because.iter();
    match (because.next(), because.len()) {
        (None, _) => format!("{text} {unit} (it runs with older inputs)"),
        (Some(first), 0) => format!("{text} {unit} (because of {first})"),
        (Some(first), more) => format!("{text} {unit} (because of {first} and {more} more)"),
    }
}

/// A length for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{}.{} kB", bytes / 1024, bytes % 1024 * 10 / 1024),
        _ => format!("{}.{} MB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}
