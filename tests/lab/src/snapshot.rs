//! What a host is at one moment, comparable with what it is at another.

use std::collections::BTreeMap;
use std::fmt;

use crate::lab::{Lab, LabError};

const COLLECT: &str = include_str!("snapshot/collect.sh");

/// Files with modes, owners and hashes, units, kernel settings, links, routes, firewall rules,
/// mounts, containers and images of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Section name → its lines, in the order in which they mean something.
    sections: BTreeMap<String, Vec<String>>,
}

/// One line that only one of two snapshots has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The section, as `files`.
    pub section: String,
    /// Whether the line was added; else it was removed.
    pub added: bool,
    /// The line.
    pub line: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.added { '+' } else { '-' };
        write!(f, "{sign} {}: {}", self.section, self.line)
    }
}

impl Lab {
    /// Takes a snapshot of a host.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn snapshot(&self, host: &str) -> Result<Snapshot, LabError> {
        self.run(host, &["sh", "-c", COLLECT]).await.map(|text| Snapshot::parse(&text))
    }

    /// When each unit of a host was started and as which process: two equal answers mean that
    /// nothing was restarted in between.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn activations(&self, host: &str) -> Result<BTreeMap<String, String>, LabError> {
        let script = "systemctl show --property=Id,MainPID,NRestarts,ActiveEnterTimestampMonotonic \
                      '*.service'";
        let text = self.run(host, &["sh", "-c", script]).await?;
        Ok(parse_activations(&text))
    }
}

impl Snapshot {
    /// Reads what the collecting script prints, or what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Self {
        let mut sections = BTreeMap::<String, Vec<String>>::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("== ") {
                name.clone_into(&mut current);
                sections.entry(current.clone()).or_default();
            } else if !line.is_empty() {
                sections.entry(current.clone()).or_default().push(line.to_owned());
            }
        }
        Self { sections }
    }

    /// The lines of a section; none if there is no such section.
    pub fn section(&self, name: &str) -> &[String] {
        self.sections.get(name).map_or(&[], Vec::as_slice)
    }

    /// What `later` has and this has not, and the other way round.
    ///
    /// Empty exactly if the two are equal: a mere change of order shows as the whole section.
    pub fn diff(&self, later: &Self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<&String> =
            self.sections.keys().chain(later.sections.keys()).collect();
        let mut found = Vec::new();
        for name in names {
            let (before, after) = (self.section(name), later.section(name));
            if before == after {
                if self.sections.contains_key(name) != later.sections.contains_key(name) {
                    let added = later.sections.contains_key(name);
                    found.push(difference(name, added, "(an empty section)"));
                }
                continue;
            }
            let removed = without(before, after);
            let added = without(after, before);
            let reordered = removed.is_empty() && added.is_empty();
            let (removed, added) = if reordered {
                (before.iter().collect(), after.iter().collect())
            } else {
                (removed, added)
            };
            found.extend(removed.into_iter().map(|line| difference(name, false, line)));
            found.extend(added.into_iter().map(|line| difference(name, true, line)));
        }
        found
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, lines) in &self.sections {
            writeln!(f, "== {name}")?;
            for line in lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

fn difference(section: &str, added: bool, line: &str) -> Difference {
    Difference { section: section.to_owned(), added, line: line.to_owned() }
}

/// The lines of `all` that `other` has not, each as often as it is missing.
fn without<'a>(all: &'a [String], other: &[String]) -> Vec<&'a String> {
    let mut left = BTreeMap::<&str, usize>::new();
    for line in other {
        *left.entry(line).or_default() += 1;
    }
    all.iter()
        .filter(|line| match left.get_mut(line.as_str()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .collect()
}

fn parse_activations(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for unit in text.split("\n\n") {
        let (ids, rest): (Vec<&str>, Vec<&str>) =
            unit.lines().partition(|line| line.starts_with("Id="));
        if let Some(id) = ids.first() {
            found.insert(id.trim_start_matches("Id=").to_owned(), rest.join(" "));
        }
    }
    found
}

#[cfg(test)]
mod tests;
