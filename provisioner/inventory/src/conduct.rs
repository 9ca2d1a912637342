//! How an apply goes about its work: batches of nodes, hooks around phases, addons at the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::{HookPlace, HookSection, Phase, Scalar};
use super::{Host, resolve::Resolver, suggest};

/// How changes reach nodes that are at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// How many nodes change at the same time.
    pub batch: BatchSize,
    /// How many nodes change before all others; none when there are no others.
    pub canary: usize,
    /// How many times in a row a health gate must pass after something that ran was restarted.
    pub passes: u32,
}

impl Rollout {
    /// Everything at once, each gate once: what a reset and a new cluster need.
    pub const AT_ONCE: Self = Self { batch: BatchSize::Percent(100), canary: 0, passes: 1 };
}

impl Default for Rollout {
    /// A canary, then quarters; three good answers in a row are no accident.
    fn default() -> Self {
        Self { batch: BatchSize::Percent(25), canary: 1, passes: 3 }
    }
}

/// A number of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// So many.
    Count(usize),
    /// So many of a hundred, 1 to 100.
    Percent(usize),
}

impl BatchSize {
    /// How many of `hosts` that is, rounded up; at least one.
    #[must_use]
    pub fn of(self, hosts: usize) -> usize {
        match self {
            Self::Count(count) => count.max(1),
            Self::Percent(percent) => (hosts * percent).div_ceil(100).max(1),
        }
    }

    /// Reads `3` or `25%`.
    ///
    /// # Errors
    /// What it should have been.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let read = |digits: &str| digits.parse::<usize>().ok().filter(|number| *number > 0);
        let size = match text.strip_suffix('%') {
            Some(digits) => read(digits).filter(|percent| *percent <= 100).map(Self::Percent),
            None => read(text).filter(|count| *count <= 5_000).map(Self::Count),
        };
        size.ok_or("a number of hosts from 1 on, or a part such as 25%")
    }
}

/// A command around a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What it is called in reports.
    pub name: String,
    /// Before the phase or after it.
    pub moment: HookMoment,
    /// The phase.
    pub phase: Phase,
    /// Where it runs.
    pub on: HookPlace,
    /// On hosts: the chosen ones; empty for all that the phase changes.
    pub hosts: BTreeSet<String>,
    /// The command for a POSIX shell.
    pub command: String,
    /// When it is killed.
    pub timeout: Duration,
}

impl Hook {
    /// When and where it runs, for people.
    #[must_use]
    pub fn when(&self) -> String {
        let moment = match self.moment {
            HookMoment::Before => "before",
            HookMoment::After => "after",
        };
        let place = match (self.on, self.hosts.len()) {
            (HookPlace::Operator, _) => "here".to_owned(),
            (HookPlace::Hosts, 0) => "on the hosts that change".to_owned(),
            (HookPlace::Hosts, count) => format!("on {count} hosts"),
        };
        let phase = self.phase.as_str();
        format!("{moment} {phase}, {place}, for {} s at most", self.timeout.as_secs())
    }
}

/// On which side of a phase a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookMoment {
    /// Before its first host is touched.
    Before,
    /// After its last host has gone well.
    After,
}

/// Where a part of the cluster comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonSource {
    /// What it is called in reports.
    pub name: String,
    /// Files of manifests, in order.
    pub manifests: Vec<PathBuf>,
    /// How long its workloads may take to be ready; `None` to wait for none.
    pub wait: Option<Duration>,
}

pub(super) fn addons(resolver: &mut Resolver<'_>) -> Vec<AddonSource> {
    let sections = &resolver.document.addons;
    let mut addons: Vec<AddonSource> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let index = index.to_string();
        // What is missing was reported by the schema.
        let Some(name) = section.name.clone() else { continue };
        if let Err(why) = super::rules::dns_label(&name) {
            let message = format!("the addon's name `{name}` is no DNS label");
            resolver.error(&["addons", &index, "name"], message, &why, "");
        }
        if addons.iter().any(|addon| addon.name == name) {
            let message = format!("two addons are called `{name}`");
            resolver.error(&["addons", &index, "name"], message, "used again here", "");
        }
        let mut manifests = Vec::new();
        for (number, text) in section.manifests.iter().enumerate() {
            let path = resolver.surroundings.path(text);
            if !(resolver.surroundings.is_file)(&path) {
                let message = format!("the file {} does not exist", path.display());
                let at = ["addons", &index, "manifests", &number.to_string()];
                resolver.error(&at, message, "no such file", "");
            }
            manifests.push(path);
        }
        if section.wait == Some(false) && section.timeout_s.is_some() {
            let message = format!("the addon `{name}` waits for nothing and has a time to wait");
            let help = "leave `timeout_s` out";
            resolver.error(&["addons", &index, "timeout_s"], message, "no effect", help);
        }
        let longest = Duration::from_secs(section.timeout_s.unwrap_or(120).into());
        let wait = section.wait.unwrap_or(true).then_some(longest);
        addons.push(AddonSource { name, manifests, wait });
    }
    addons
}

pub(super) fn rollout(resolver: &mut Resolver<'_>) -> Rollout {
    let section = &resolver.document.rollout;
    let usual = Rollout::default();
    let batch = match &section.batch {
        None => usual.batch,
        Some(value @ (Scalar::Number(_) | Scalar::Text(_) | Scalar::Truth(_))) => {
            BatchSize::parse(&value.to_string()).unwrap_or_else(|wanted| {
                let message = format!("`{value}` is no size of a batch");
                resolver.error(&["rollout", "batch"], message, wanted, "try `batch = \"25%\"`");
                usual.batch
            })
        }
    };
    Rollout {
        batch,
        canary: section.canary.map_or(usual.canary, usize::from),
        passes: section.passes.map_or(usual.passes, u32::from).max(1),
    }
}

pub(super) fn hooks(resolver: &mut Resolver<'_>, hosts: &[Host], broken: bool) -> Vec<Hook> {
    let sections = &resolver.document.hooks;
    let hooks = sections.iter().enumerate();
    let known: Vec<&str> = if broken { Vec::new() } else { names(hosts) };
    hooks.filter_map(|(index, section)| hook(resolver, index, section, &known)).collect()
}

fn names(hosts: &[Host]) -> Vec<&str> {
    hosts.iter().map(|host| host.name.as_str()).collect()
}

/// Reads one hook; `known` is empty when the hosts are not known for sure.
fn hook(
    resolver: &mut Resolver<'_>,
    index: usize,
    section: &HookSection,
    known: &[&str],
) -> Option<Hook> {
    let index = index.to_string();
    let at = ["hooks", index.as_str()];
    // What is missing was reported by the schema.
    let (name, command) = (section.name.clone()?, section.command.clone()?);
    let (moment, phase) = match (section.before, section.after) {
        (Some(phase), None) => (HookMoment::Before, phase),
        (None, Some(phase)) => (HookMoment::After, phase),
        (before, _) => {
            let label = if before.is_some() { "both are given" } else { "neither is given" };
            let message = format!("the hook `{name}` needs either `before` or `after`");
            resolver.error(&at, message, label, "before = \"apply\"");
            return None;
        }
    };
    if command.trim().is_empty() {
        let message = format!("the hook `{name}` has no command");
        resolver.error(&[at[0], at[1], "command"], message, "empty", "command = \"true\"");
    }
    let on = section.on.unwrap_or(HookPlace::Operator);
    if on == HookPlace::Operator && !section.hosts.is_empty() {
        let message = format!("the hook `{name}` names hosts and runs on the operator's machine");
        let help = "say `on = \"hosts\"`, or leave `hosts` out";
        resolver.error(&[at[0], at[1], "hosts"], message, "no effect", help);
    }
    let mut chosen = BTreeSet::new();
    for (number, pattern) in section.hosts.iter().enumerate() {
        let number = number.to_string();
        let place = [at[0], at[1], "hosts", &number];
        match super::expand_hosts(pattern) {
            Ok(names) => {
                let unknown = names.iter().find(|n| !known.contains(&n.as_str()));
                if let (Some(unknown), false) = (unknown, known.is_empty()) {
                    let message = format!("the hook `{name}` names an unknown host `{unknown}`");
                    let help = suggest::nearest(unknown, known.iter().copied())
                        .map_or(String::new(), |near| format!("did you mean `{near}`?"));
                    resolver.error(&place, message, "no such host", &help);
                }
                chosen.extend(names);
            }
            Err(error) => resolver.error(&place, error, "not a host range", "as in `node-[01-40]`"),
        }
    }
    let timeout = Duration::from_secs(section.timeout_s.unwrap_or(60).into());
    Some(Hook { name, moment, phase, on, hosts: chosen, command, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_batches_are_numbers_or_parts() {
        let check = |text: &str, hosts: usize, expected: Option<usize>| {
            assert_eq!(BatchSize::parse(text).ok().map(|size| size.of(hosts)), expected, "{text}");
        };
        check("3", 40, Some(3));
        check("25%", 40, Some(10));
        check("25%", 41, Some(11));
        check("1%", 3, Some(1));
        check("100%", 7, Some(7));
        check("0", 7, None);
        check("0%", 7, None);
        check("101%", 7, None);
        check("a quarter", 7, None);
        check("true", 7, None);
    }
}
