//! Rules that concern several hosts at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    Cluster, Host, Role,
    diagnostics::Problem,
    document::Document,
    hosts::{Entry, Members},
    resolve::Resolver,
    rules, suggest,
};

/// Groups name hosts that exist.
pub(super) fn members(
    resolver: &mut Resolver<'_>,
    entries: &[Entry],
    members: &Members,
    broken: bool,
) {
    if broken {
        return;
    }
    let known: BTreeSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    for (name, groups) in members {
        if known.contains(name.as_str()) {
            continue;
        }
        for (group, place) in groups {
            let help = match suggest::nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "give it a `[[hosts]]` entry, or the group an `address_first`".to_owned(),
            };
            resolver.problems.push(
                Problem::error(format!("group `{group}` has an unknown host `{name}`"))
                    .at(place.clone(), "no such host")
                    .help(help),
            );
        }
    }
}

pub(super) fn names(resolver: &mut Resolver<'_>, entries: &[Entry]) {
    let mut seen: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in entries {
        if let Err(why) = rules::dns_label(&entry.name) {
            let problem = Problem::error(format!("the name `{}` is no DNS label", entry.name))
                .at(entry.name_at.clone(), why);
            resolver.problems.push(match rules::as_dns_label(&entry.name) {
                Some(label) => problem.help(format!("try `{label}`")),
                None => problem,
            });
        }
        if let Some(first) = seen.insert(&entry.name, entry) {
            resolver.problems.push(
                Problem::error(format!("two hosts are called `{}`", entry.name))
                    .at(entry.name_at.clone(), "used again here")
                    .also(first.name_at.clone(), "first used here")
                    .help("every host has a name of its own"),
            );
        }
    }
}

pub(super) fn addresses(resolver: &mut Resolver<'_>, entries: &[Entry], cluster: &Cluster) {
    let mut seen: BTreeMap<Ipv4Addr, &Entry> = BTreeMap::new();
    for entry in entries {
        let Some(address) = entry.address else { continue };
        for (what, range) in [("pod", cluster.pod_cidr), ("service", cluster.service_cidr)] {
            if range.contains(&address) {
                let key = format!("{what}_cidr");
                let place = resolver.places.value(&["cluster", &key]);
                let message = format!(
                    "the address {address} of `{}` is inside of the {what} range {range}",
                    entry.name
                );
                let problem = Problem::error(message)
                    .at(entry.address_at.clone(), format!("inside of {range}"))
                    .help(format!("choose another `cluster.{key}`"));
                let explicit = resolver.document.cluster_has(&key);
                let named = format!("the {what} range");
                resolver.problems.push(if explicit { problem.also(place, named) } else { problem });
            }
        }
        if let Some(first) = seen.insert(address, entry) {
            resolver.problems.push(
                Problem::error(format!(
                    "`{}` and `{}` have the same address {address}",
                    first.name, entry.name
                ))
                .at(entry.address_at.clone(), "used again here")
                .also(first.address_at.clone(), "first used here"),
            );
        }
    }
}

/// Rules on how many hosts have which role.
pub(super) fn roles(resolver: &mut Resolver<'_>, hosts: &[Host], complete: bool) {
    let count = |role: Role| hosts.iter().filter(|h| h.has(role)).count();
    let end = resolver.places.value(&["hosts"]);
    let mut report = |problem: Problem, label: &str, help: String| {
        resolver.problems.push(problem.at(end.clone(), label).help(help));
    };
    if !complete {
        return;
    }
    if hosts.is_empty() {
        let problem = Problem::error("the inventory has no hosts");
        report(problem, "no hosts", "add a `[[hosts]]` section".to_owned());
        return;
    }
    if count(Role::Master) == 0 {
        let help = "one master is enough to start with; three survive the loss of one";
        let problem = Problem::error("no host has the role `master`");
        report(problem, "none is a master", help.to_owned());
    }
    match count(Role::Etcd) {
        0 => {
            let help = "give it to the master, or to three masters";
            let problem = Problem::error("no host has the role `etcd`");
            report(problem, "none keeps the data", help.to_owned());
        }
        n if n % 2 == 0 => {
            let message = format!("{n} hosts have the role `etcd`: the number must be odd");
            let (less, more) = (n - 1, n + 1);
            let help =
                format!("{n} members survive no more losses than {less}: use {less} or {more}");
            report(Problem::error(message), "an even number", help);
        }
        _ => {}
    }
    if count(Role::Node) == 0 {
        let problem = Problem::warning("no host has the role `node`");
        report(problem, "none runs pods", "without a node no pod can run".to_owned());
    }
}

pub(super) fn pod_range(resolver: &mut Resolver<'_>, hosts: &[Host], cluster: &Cluster) {
    let nodes = hosts.iter().filter(|h| h.has(Role::Node)).count();
    let (prefix, mask) = (cluster.pod_cidr.prefix_len(), cluster.node_cidr_mask);
    if mask < prefix || mask > 30 {
        return; // reported already
    }
    let fit = 1_usize << (mask - prefix);
    if nodes > fit {
        let message = format!(
            "the pod range {} is too small: it holds {fit} nodes with a /{mask} each, not {nodes}",
            cluster.pod_cidr
        );
        resolver.error(
            &["cluster", "pod_cidr"],
            message,
            &format!("holds {fit} nodes"),
            "use a larger `pod_cidr`, or a higher `node_cidr_mask`",
        );
    }
    // The network's own address, the bridge's and the broadcast are no pods'.
    let addresses = (1_usize << (32 - mask)) - 3;
    if let Some(host) =
        hosts.iter().find(|h| h.has(Role::Node) && usize::from(h.max_pods) > addresses)
    {
        let place = resolver.places.value(&["cluster", "node_cidr_mask"]);
        resolver.problems.push(
            Problem::warning(format!(
                "`{}` may run {} pods, but a /{mask} has addresses for {addresses}",
                host.name, host.max_pods
            ))
            .at(place, "few addresses")
            .help("lower `max_pods` or `node_cidr_mask`"),
        );
    }
}

impl Document {
    /// Tells whether the range is written in the file rather than a default.
    fn cluster_has(&self, key: &str) -> bool {
        match key {
            "pod_cidr" => self.cluster.pod_cidr.is_some(),
            _ => self.cluster.service_cidr.is_some(),
        }
    }
}
