//! Which hosts a command is about.

use std::collections::BTreeSet;

use clap::Args;

use super::output::Failure;
use crate::inventory::{self, Inventory, Role};

/// Limits to some hosts of the inventory.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Choice {
    /// Only these hosts: names, ranges such as `node-[01-03]`, patterns such as `node-*`.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Only hosts of these groups or roles (etcd, master, node).
    #[arg(long, visible_alias = "tags", value_name = "NAME", value_delimiter = ',')]
    groups: Vec<String>,
}

impl Choice {
    /// Exactly the hosts of these names.
    pub(super) fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self { hosts: names.into_iter().collect(), groups: Vec::new() }
    }

    /// Whether anything is left out.
    pub(super) fn is_limited(&self) -> bool {
        !self.hosts.is_empty() || !self.groups.is_empty()
    }

    /// The names of the chosen hosts; with both limits those that fit both.
    pub(super) fn choose(&self, inventory: &Inventory) -> Result<BTreeSet<String>, Failure> {
        let mut chosen: BTreeSet<String> =
            inventory.hosts.iter().map(|host| host.name.clone()).collect();
        if !self.hosts.is_empty() {
            let mut named = BTreeSet::new();
            for pattern in &self.hosts {
                named.extend(hosts_of(pattern, &chosen)?);
            }
            chosen = named;
        }
        if !self.groups.is_empty() {
            let mut grouped = BTreeSet::new();
            for group in &self.groups {
                grouped.extend(members_of(group, inventory)?);
            }
            chosen.retain(|name| grouped.contains(name));
            if chosen.is_empty() {
                return Err(Failure::Usage {
                    message: "no host fits both --hosts and --groups".to_owned(),
                    advice: "leave one of the two out".to_owned(),
                });
            }
        }
        Ok(chosen)
    }
}

fn hosts_of(pattern: &str, known: &BTreeSet<String>) -> Result<BTreeSet<String>, Failure> {
    if pattern.contains('*') {
        let matching: BTreeSet<_> =
            known.iter().filter(|name| matches(pattern, name)).cloned().collect();
        if matching.is_empty() {
            let message = format!("no host of the inventory fits `{pattern}`");
            return Err(Failure::Usage { message, advice: suggestion(pattern, known) });
        }
        return Ok(matching);
    }
    let names = inventory::expand_hosts(pattern).map_err(|message| Failure::Usage {
        message,
        advice: "a pattern is a name, `node-[01-03]` or `node-*`".to_owned(),
    })?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        let message = format!("the inventory has no host `{unknown}`");
        return Err(Failure::Usage { message, advice: suggestion(unknown, known) });
    }
    Ok(names.into_iter().collect())
}

fn members_of(group: &str, inventory: &Inventory) -> Result<BTreeSet<String>, Failure> {
    let roles = [Role::Etcd, Role::Master, Role::Node];
    let role = roles.into_iter().find(|role| role.as_str() == group);
    let members: BTreeSet<_> = (inventory.hosts.iter())
        .filter(|host| host.groups.contains(group) || role.is_some_and(|role| host.has(role)))
        .map(|host| host.name.clone())
        .collect();
    if members.is_empty() {
        let known: BTreeSet<String> = (inventory.hosts.iter())
            .flat_map(|host| host.groups.iter().cloned())
            .chain(roles.map(|role| role.as_str().to_owned()))
            .collect();
        let message = format!("no host is in the group `{group}`");
        return Err(Failure::Usage { message, advice: suggestion(group, &known) });
    }
    Ok(members)
}

/// The host of this very name.
pub(super) fn known_host<'a>(
    name: &str,
    inventory: &'a Inventory,
) -> Result<&'a inventory::Host, Failure> {
    inventory.host(name).ok_or_else(|| {
        let known = inventory.hosts.iter().map(|host| host.name.clone()).collect();
        let message = format!("the inventory has no host `{name}`");
        Failure::Usage { message, advice: suggestion(name, &known) }
    })
}

/// The nearest name, or all of a few, or some of many.
fn suggestion(word: &str, known: &BTreeSet<String>) -> String {
    /// A longer list would be no help.
    const NAMES_MAX: usize = 12;
    let names: Vec<_> = known.iter().map(String::as_str).collect();
    let text = inventory::did_you_mean(word, &names);
    match text.strip_prefix("one of ") {
        Some(_) if names.len() > NAMES_MAX => {
            let some = names[..NAMES_MAX].join(", ");
            format!("there are {some} and {} more", names.len() - NAMES_MAX)
        }
        _ => text,
    }
}

/// Whether `name` fits `pattern`, in which `*` stands for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(head) else { return false };
    // Ends of characters only: names of hosts are ASCII, patterns may be anything.
    (0..=tail.len()).any(|at| tail.get(at..).is_some_and(|tail| matches(rest, tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = r#"
[cluster]
name = "c"
[groups.masters]
hosts = ["m-[1-3]"]
address_first = "10.0.0.1"
roles = ["etcd", "master"]
[groups.workers]
hosts = ["w-[01-12]"]
address_first = "10.0.1.1"
roles = ["node"]
"#;

    fn check(hosts: &[&str], groups: &[&str]) -> Result<String, String> {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("c.toml");
        std::fs::write(&path, INVENTORY).unwrap();
        let inventory = inventory::load(&path).unwrap();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let choice = Choice { hosts: texts(hosts), groups: texts(groups) };
        match choice.choose(&inventory) {
            Ok(names) => Ok(names.into_iter().collect::<Vec<_>>().join(" ")),
            Err(Failure::Usage { message, advice }) => Err(format!("{message}: {advice}")),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn hosts_are_chosen_by_name_range_pattern_group_and_role() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(check(&["m-1", "w-[03-04]"], &[]), ok("m-1 w-03 w-04"));
        assert_eq!(check(&["w-*1"], &[]), ok("w-01 w-11"));
        assert_eq!(check(&["*-0*"], &["workers"]).unwrap().split(' ').count(), 9);
        assert_eq!(check(&[], &["masters"]), ok("m-1 m-2 m-3"));
        assert_eq!(check(&[], &["etcd"]), ok("m-1 m-2 m-3"));
        assert_eq!(check(&[], &[]).unwrap().split(' ').count(), 15);
    }

    #[test]
    fn unknown_names_are_errors_with_a_suggestion() {
        let err = |text: &str| Err(text.to_owned());
        let host = "the inventory has no host `m-4`: did you mean `m-1`?";
        assert_eq!(check(&["m-4"], &[]), err(host));
        let group = "no host is in the group `worker`: did you mean `workers`?";
        assert_eq!(check(&[], &["worker"]), err(group));
        let far = check(&["elsewhere"], &[]).unwrap_err();
        assert!(far.ends_with("and 3 more"), "{far}");
        assert!(check(&["x-*"], &[]).unwrap_err().starts_with("no host of the inventory fits"));
        assert!(check(&["w-[1"], &[]).is_err());
        let both = check(&["m-1"], &["workers"]).unwrap_err();
        assert!(both.starts_with("no host fits both"), "{both}");
    }
}
