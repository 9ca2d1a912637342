//! Hosts: ranges expanded, settings of groups and defaults merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::Range,
};

use super::{
    Cluster, Host, Role, Taint,
    diagnostics::Problem,
    document::{Document, GroupSection, HostSection, HostSettings},
    fleet, ranges,
    reach::{self, Reach},
    resolve::Resolver,
    rules::{self, TaintError},
    suggest, system,
};
use crate::host_key::HostKey;

/// Makes the hosts of the inventory, sorted by name, and reports what is wrong with them.
///
/// When the file's syntax is `broken`, nothing is said about what is missing.
pub(super) fn resolve(resolver: &mut Resolver<'_>, cluster: &Cluster, broken: bool) -> Vec<Host> {
    check_settings(resolver);
    let mut gathered = Gathered::default();
    gather(resolver, &mut gathered);
    let entries = std::mem::take(&mut gathered.entries);
    fleet::members(resolver, &entries, &gathered.members, broken);
    fleet::names(resolver, &entries);
    fleet::addresses(resolver, &entries, cluster);
    let mut reach = Reach::default();
    let mut hosts: Vec<Host> =
        (entries.iter()).filter_map(|e| host(resolver, &mut reach, e, &gathered.members)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    if !broken {
        fleet::roles(resolver, &hosts, entries.len() == hosts.len());
    }
    fleet::pod_range(resolver, &hosts, cluster);
    hosts
}

/// A host as one section of the file names it.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) name_at: Range<usize>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) address_at: Range<usize>,
    /// Index into `hosts`; `None` for a host that exists through its group only.
    index: Option<usize>,
    group: Option<String>,
}

/// The groups of each name, with the place that says so.
pub(super) type Members = BTreeMap<String, BTreeMap<String, Range<usize>>>;

#[derive(Default)]
struct Gathered {
    entries: Vec<Entry>,
    members: Members,
}

fn gather(resolver: &mut Resolver<'_>, gathered: &mut Gathered) {
    let document = resolver.document;
    for (name, group) in &document.groups {
        gather_group(resolver, name, group, gathered);
    }
    for (index, host) in document.hosts.iter().enumerate() {
        let step = index.to_string();
        let Some(name) = &host.name else { continue };
        let path = ["hosts", step.as_str(), "address"];
        let address = host.address.as_deref().and_then(|a| parse_address(resolver, &path, a));
        gathered.entries.push(Entry {
            name: name.clone(),
            name_at: resolver.places.value(&["hosts", &step, "name"]),
            address,
            address_at: resolver.places.value(&path),
            index: Some(index),
            group: None,
        });
    }
}

fn gather_group(
    resolver: &mut Resolver<'_>,
    group: &str,
    section: &GroupSection,
    gathered: &mut Gathered,
) {
    let path = ["groups", group, "address_first"];
    let first = section.address_first.as_deref();
    let mut next = first.and_then(|a| parse_address(resolver, &path, a));
    let address_at = resolver.places.value(&path);
    for (index, pattern) in section.hosts.iter().enumerate() {
        let index = index.to_string();
        let name_at = resolver.places.value(&["groups", group, "hosts", &index]);
        let names = match ranges::expand(pattern) {
            Ok(names) => names,
            Err(error) => {
                let problem = Problem::error(error.to_string()).at(name_at, "not a host range");
                resolver.problems.push(problem.help("as in `node-[01-40]` or `db-[a,b]`"));
                continue;
            }
        };
        for name in names {
            let of = gathered.members.entry(name.clone()).or_default();
            of.insert(group.to_owned(), name_at.clone());
            if first.is_none() {
                continue;
            }
            gathered.entries.push(Entry {
                name,
                name_at: name_at.clone(),
                address: next,
                address_at: address_at.clone(),
                index: None,
                group: Some(group.to_owned()),
            });
            next = match next.map(|a| u32::from(a).checked_add(1)) {
                Some(None) => {
                    let message = format!("group `{group}` runs out of addresses");
                    resolver.error(&path, message, "too near to the last address", "");
                    None
                }
                next => next.flatten().map(Ipv4Addr::from),
            };
        }
    }
}

fn parse_address(resolver: &mut Resolver<'_>, path: &[&str], text: &str) -> Option<Ipv4Addr> {
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let help = if text.parse::<std::net::Ipv6Addr>().is_ok() {
            "IPv6 addresses are not supported"
        } else {
            "an address is four numbers, such as `10.0.0.11`; names are not looked up"
        };
        resolver.error(path, format!("`{text}` is no IPv4 address"), "not an address", help);
        return None;
    };
    let odd = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast();
    if odd {
        let message = format!("{address} cannot be the address of a host");
        resolver.error(path, message, "other hosts cannot reach it", "");
        return None;
    }
    Some(address)
}

/// Checks labels, taints and SSH settings where they are written: once, not once a host.
fn check_settings(resolver: &mut Resolver<'_>) {
    let document = resolver.document;
    check_section(resolver, &[], &outermost(document));
    check_section(resolver, &["defaults"], &document.defaults);
    for (name, group) in &document.groups {
        check_section(resolver, &["groups", name], &group.settings());
    }
    for (index, host) in document.hosts.iter().enumerate() {
        check_section(resolver, &["hosts", &index.to_string()], &host.settings());
    }
}

fn check_section(resolver: &mut Resolver<'_>, path: &[&str], settings: &HostSettings) {
    for (key, value) in &settings.labels {
        let path = [path, &["labels", key]].concat();
        if let Err(why) = rules::node_label_key(key) {
            let place = resolver.places.key(&path);
            let problem = Problem::error(format!("`{key}` cannot be a label of a node"));
            resolver.problems.push(problem.at(place, why));
        }
        if let Err(why) = rules::label_value(value) {
            let message = format!("`{value}` cannot be the value of a label");
            resolver.error(&path, message, &why, "");
        }
    }
    for (index, text) in settings.taints.iter().enumerate() {
        let index = index.to_string();
        let path = [path, &["taints", &index]].concat();
        let message = format!("`{text}` is no taint");
        match rules::taint(text) {
            Ok(_) => {}
            Err(TaintError::NoEffect) => {
                let help = format!("such as `{text}:NoSchedule`");
                resolver.error(&path, message, "no `:EFFECT`", &help);
            }
            Err(TaintError::Effect(effect)) => {
                let help = suggest::did_you_mean(&effect, &rules::EFFECTS);
                resolver.error(&path, message, &format!("no effect `{effect}`"), &help);
            }
            Err(TaintError::Name(why)) => resolver.error(&path, message, &why, ""),
        }
    }
    reach::check(resolver, path, &settings.ssh);
    system::check(resolver, path, settings);
}

/// What stands at the top of the file and holds for every host.
fn outermost(document: &Document) -> HostSettings {
    let (ssh, system) = (document.ssh.clone(), document.system.clone());
    HostSettings { ssh, system, ..HostSettings::default() }
}

/// Makes the host of `entry`; `None` when too little of it is known.
fn host(
    resolver: &mut Resolver<'_>,
    reach: &mut Reach,
    entry: &Entry,
    members: &Members,
) -> Option<Host> {
    let document = resolver.document;
    let groups: Vec<(&str, &GroupSection)> = members
        .get(&entry.name)
        .into_iter()
        .flat_map(BTreeMap::keys)
        .filter_map(|g| document.groups.get_key_value(g).map(|(k, v)| (k.as_str(), v)))
        .collect();
    let own = entry.index.and_then(|i| document.hosts.get(i)).map(HostSection::settings);
    // Nearest first.
    let mut layers: Vec<HostSettings> = own.into_iter().collect();
    layers.extend(groups.iter().map(|(_, g)| g.settings()));
    layers.push(document.defaults.clone());
    layers.push(outermost(document));

    check_label_conflicts(resolver, entry, &groups);
    let roles = roles(resolver, entry, &layers, groups.len())?;
    if !roles.contains(&Role::Node) {
        check_idle_settings(resolver, entry);
    }
    let mut labels = BTreeMap::new();
    let mut taints: BTreeMap<(String, String), Taint> = BTreeMap::new();
    for layer in layers.iter().rev() {
        labels.extend(layer.labels.clone());
        for taint in layer.taints.iter().filter_map(|t| rules::taint(t).ok()) {
            taints.insert((taint.key.clone(), taint.effect.clone()), taint);
        }
    }
    let address = entry.address?;
    let host_key = host_key(resolver, entry);
    let ssh = reach.of(resolver, &layers, (&entry.name, address), host_key);
    Some(Host {
        name: entry.name.clone(),
        address,
        roles,
        groups: groups.iter().map(|(name, _)| (*name).to_owned()).collect(),
        labels,
        taints: taints.into_values().collect(),
        ssh,
        system: system::resolve(resolver, &layers),
        max_pods: layers.iter().find_map(|l| l.max_pods).unwrap_or(110),
    })
}

/// The key that the host's section names, as the only one that it may show.
fn host_key(resolver: &mut Resolver<'_>, entry: &Entry) -> Option<HostKey> {
    let index = entry.index?;
    let text = resolver.document.hosts.get(index)?.host_key.as_deref()?;
    match text.parse() {
        Ok(key) => Some(key),
        Err(why) => {
            let path = ["hosts", &index.to_string(), "host_key"];
            let help = "as in /etc/ssh/ssh_host_ed25519_key.pub on the host: `ssh-ed25519 AAAA…`";
            resolver.error(&path, "`host_key` is no public key".to_owned(), why, help);
            None
        }
    }
}

/// The host's own roles; else those of all its groups; else the defaults.
fn roles(
    resolver: &mut Resolver<'_>,
    entry: &Entry,
    layers: &[HostSettings],
    groups: usize,
) -> Option<BTreeSet<Role>> {
    let own = usize::from(entry.index.is_some());
    let (own, rest) = layers.split_at(own);
    let (of_groups, rest) = rest.split_at(groups);
    let union = |layers: &[HostSettings]| -> Option<BTreeSet<Role>> {
        let given: Vec<&Vec<Role>> = layers.iter().filter_map(|l| l.roles.as_ref()).collect();
        (!given.is_empty()).then(|| given.into_iter().flatten().copied().collect())
    };
    let roles = union(own).or_else(|| union(of_groups)).or_else(|| union(rest));
    match roles {
        Some(roles) if !roles.is_empty() => Some(roles),
        _ => {
            let index = entry.index.map(|i| i.to_string());
            let section = match (&index, &entry.group) {
                (Some(index), _) => ["hosts", index],
                (None, group) => ["groups", group.as_deref().unwrap_or_default()],
            };
            // Roles that are there but unusable were reported with their own place.
            if !reported(resolver, &section, roles.is_some()) {
                resolver.problems.push(
                    Problem::error(format!("`{}` has no roles", entry.name))
                        .at(entry.name_at.clone(), "does nothing")
                        .help("roles = [\"node\"]: any of `etcd`, `master` and `node`"),
                );
            }
            None
        }
    }
}

/// Tells whether the file has roles in `section` that the reader of the file left out: all of
/// them, or, if it `kept` the list, all items.
fn reported(resolver: &Resolver<'_>, section: &[&str; 2], kept: bool) -> bool {
    let [kind, name] = *section;
    let list = [kind, name, "roles"];
    if kept {
        resolver.places.value(&[kind, name, "roles", "0"]) != resolver.places.value(&list)
    } else {
        resolver.places.value(&list) != resolver.places.value(section)
    }
}

/// Tells the operator of a host without a node that has settings for one.
fn check_idle_settings(resolver: &mut Resolver<'_>, entry: &Entry) {
    let Some(index) = entry.index else { return };
    let Some(section) = resolver.document.hosts.get(index) else { return };
    let index = index.to_string();
    for (key, set) in [
        ("labels", !section.labels.is_empty()),
        ("taints", !section.taints.is_empty()),
        ("max_pods", section.max_pods.is_some()),
    ] {
        if set {
            let place = resolver.places.key(&["hosts", &index, key]);
            let message = format!("`{key}` of `{}` has no effect", entry.name);
            let problem = Problem::warning(message).at(place, "only nodes have it");
            resolver.problems.push(problem.help("give the host the role `node`, or leave it out"));
        }
    }
}

/// Two groups that disagree on a label have no order in which one could win.
fn check_label_conflicts(
    resolver: &mut Resolver<'_>,
    entry: &Entry,
    groups: &[(&str, &GroupSection)],
) {
    let mut seen: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (group, section) in groups {
        for (key, value) in &section.labels {
            match seen.insert(key, (group, value)) {
                Some((other, different)) if different != value => {
                    let place = resolver.places.value(&["groups", group, "labels", key]);
                    let first = resolver.places.value(&["groups", other, "labels", key]);
                    resolver.problems.push(
                        Problem::error(format!(
                            "groups `{other}` and `{group}` disagree on the label `{key}`"
                        ))
                        .at(place, format!("`{value}` here"))
                        .also(first, format!("`{different}` here"))
                        .help(format!("`{}` is in both; set it on the host", entry.name)),
                    );
                }
                _ => {}
            }
        }
    }
}

impl HostSection {
    fn settings(&self) -> HostSettings {
        HostSettings {
            roles: self.roles.clone(),
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            ssh: self.ssh.clone(),
            system: self.system.clone(),
            max_pods: self.max_pods,
        }
    }
}

impl GroupSection {
    fn settings(&self) -> HostSettings {
        HostSettings {
            roles: self.roles.clone(),
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            ssh: self.ssh.clone(),
            system: self.system.clone(),
            max_pods: self.max_pods,
        }
    }
}
