//! What makes a host unfit, found before anything changes: a pure function of state and facts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compose::DOCKER_ON_FLANNEL;
use crate::distribution::{Architecture, Distribution, PackageManager, SUPPORTED};
use crate::facts::{DockerFact, ENGINE, Facts, ModuleFact, PathFact};
use crate::firewall::FirewallKind;
use crate::inventory::{FirewallPolicy, PodBridge};
use crate::plan::{self, HostPlan};
use crate::record::Record;
use crate::state::{Content, HostState, PortUse};

/// A clock further off than this makes certificates look not yet valid, in milliseconds.
pub const CLOCK_SKEW_MAX_MS: i64 = 30_000;

/// Room that must be left on a file system after the files are in place, in bytes.
const DISK_SPARE: u64 = 64 << 20;

/// The checks that an operator may leave out. Those that keep clusters, keys and data apart are not
/// among them.
pub const SKIPPABLE: [&str; 12] = [
    "arch",
    "clock",
    "connectivity",
    "disk",
    "docker",
    "fsync",
    "kernel",
    "memory",
    "os",
    "packages",
    "port",
    "program",
];

/// One reason not to touch a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The host.
    pub host: String,
    /// Which check found it, as a word that scripts can match.
    pub check: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub advice: String,
}

/// Checks one host; `plan` says what would be sent to it.
#[must_use]
pub fn check(state: &HostState, facts: &Facts, plan: &HostPlan) -> Vec<Problem> {
    let mut found = Found { host: &state.host, problems: Vec::new() };
    system(facts, &mut found);
    owner(state, facts, &mut found);
    programs(state, facts, &mut found);
    packages(state, facts, &mut found);
    docker(state, facts, &mut found);
    pod_bridge_settings(state, facts, &mut found);
    firewall(state, facts, &mut found);
    paths(state, facts, &mut found);
    disk(facts, plan, &mut found);
    memory(state, facts, &mut found);
    kernel(state, facts, &mut found);
    for port in &state.ports {
        port_free(port, facts, &mut found);
    }
    clock(facts, &mut found);
    found.problems
}

/// Finds entries of the inventory that lead to one machine, whatever their addresses are.
#[must_use]
pub fn twins(facts: &BTreeMap<String, Facts>) -> Vec<Problem> {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut problems = Vec::new();
    for (host, facts) in facts {
        let Some(machine) = &facts.machine else { continue };
        if let Some(other) = first.get(machine.as_str()) {
            problems.push(twin(host, other));
        } else {
            first.insert(machine, host);
        }
    }
    problems
}

/// The problem that `host` and `other` are one machine.
#[must_use]
pub fn twin(host: &str, other: &str) -> Problem {
    Problem {
        host: host.to_owned(),
        check: "name",
        message: format!("it is the same machine as {other}"),
        advice:
            "correct the address of one of them, or HostName in ssh's configuration, or take it \
                 out of the inventory"
                .to_owned(),
    }
}

const KUBELET: &str = "kubelet.service";

struct Found<'a> {
    host: &'a str,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, check: &'static str, message: String, advice: impl Into<String>) {
        let (host, advice) = (self.host.to_owned(), advice.into());
        self.problems.push(Problem { host, check, message, advice });
    }
}

fn system(facts: &Facts, found: &mut Found<'_>) {
    if !facts.systemd {
        let message = "systemd is not running as the init process".to_owned();
        found.add("systemd", message, "use a host that boots with systemd");
    }
    if let Err(error) = Distribution::of(&facts.os) {
        let advice = format!(
            "supported: {SUPPORTED}; give the host one of them, or leave it out of the inventory"
        );
        found.add("os", error.to_string(), advice);
    }
    if Architecture::of_name(&facts.arch).is_none() {
        let message = format!("the processor architecture {} is not supported", facts.arch);
        let known = Architecture::ALL.map(Architecture::name).join(", ");
        found.add("arch", message, format!("supported: {known}"));
    }
    for program in &facts.missing_programs {
        // Without systemd its own message says enough; a firewall alone needs the other.
        if program != "systemctl" && program != "systemd-run" {
            let package = match program.as_str() {
                "flock" => "util-linux",
                "ss" => "iproute2 (iproute on CentOS)",
                "awk" => "mawk or gawk",
                "tar" | "gzip" => program,
                _ => "coreutils",
            };
            let message = format!("the program {program} is missing");
            found.add("program", message, format!("install the package {package}"));
        }
    }
}

/// A member of etcd that finds no data would begin a cluster of its own.
fn layout(state: &HostState, record: &Record, found: &mut Found<'_>) {
    let (was, wanted) = (record.layout, state.layout);
    // A host that is only looked at, or emptied, wants no layout.
    if state.units.is_empty() || was.keeps_data_like(wanted) {
        return;
    }
    let message = format!(
        "it was set up with `layout = \"{}\"`, and the inventory says \"{}\"",
        was.as_str(),
        wanted.as_str()
    );
    let advice = format!(
        "say `layout = \"{}\"` in [cluster]: a running cluster's certificates and data do not move. \
         To have the other one: `kprov backup`, `kprov reset`, change the layout, `kprov restore`",
        was.as_str()
    );
    found.add("layout", message, advice);
}

/// Pods stay on the bridge that they were started on, and two bridges cannot share a range.
fn same_pod_bridge(state: &HostState, record: &Record, found: &mut Found<'_>) {
    let was = match record.paths.contains_key(DOCKER_ON_FLANNEL) {
        true => PodBridge::Docker0,
        false if record.open_vswitch => PodBridge::Kbr0,
        false => PodBridge::Cni0,
    };
    let wanted = match state.file(DOCKER_ON_FLANNEL) {
        Some(_) => PodBridge::Docker0,
        None if state.open_vswitch => PodBridge::Kbr0,
        None => PodBridge::Cni0,
    };
    let is_node = state.units.iter().any(|unit| unit.name == KUBELET);
    if !is_node || record.unit(KUBELET).is_none() || record.generation == 0 || was == wanted {
        return;
    }
    let (was, wanted) = (was.as_str(), wanted.as_str());
    let message = format!("its pods are on {was}, and the inventory says {wanted}");
    let backend = if was == PodBridge::Kbr0.as_str() { "backend = \"ovs-gre\"`, `" } else { "" };
    let advice = format!(
        "say `{backend}pod_bridge = \"{was}\"` in [network], or `kprov reset --hosts {}` first",
        state.host
    );
    found.add("pod-bridge", message, advice);
}

/// Docker does not start when an option says what its file says as well.
fn pod_bridge_settings(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    if state.file(DOCKER_ON_FLANNEL).is_none() || facts.engine_settings.is_empty() {
        return;
    }
    let settings: Vec<_> = facts.engine_settings.iter().map(String::as_str).collect();
    let message = format!(
        "/etc/docker/daemon.json sets {}, which `pod_bridge = \"docker0\"` leaves to flanneld",
        settings.join(", ")
    );
    found.add("pod-bridge", message, "remove that from the file, or leave `pod_bridge` out");
}

/// Two of a kind cannot hold one port, and all masters would go down at once.
fn masters(state: &HostState, record: &Record, found: &mut Found<'_>) {
    let unit = "kube-apiserver.service";
    let is_pod = |path: &String| path.ends_with("/manifests/kube-apiserver.yaml");
    let (units, pods) = (record.unit(unit).is_some(), record.paths.keys().any(is_pod));
    let wants_pods = state.files.iter().any(|file| is_pod(&file.path));
    let wants_units = state.units.iter().any(|wanted| wanted.name == unit);
    let (was, wanted) = match (units, pods) {
        (true, false) if wants_pods => ("units", "static-pods"),
        (false, true) if wants_units => ("static-pods", "units"),
        _ => return,
    };
    let message = format!("its master's components are {was}, and the inventory says \"{wanted}\"");
    let advice = format!(
        "say `masters = \"{was}\"` in [cluster], or `kprov reset --hosts {}` first",
        state.host
    );
    found.add("masters", message, advice);
}

fn owner(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    if let Some(error) = &facts.record_error {
        let message = format!("kprov's record on the host cannot be used: {error}");
        found.add("record", message, "use the kprov version that wrote it");
    }
    let Some(record) = &facts.record else { return };
    layout(state, record, found);
    same_pod_bridge(state, record, found);
    masters(state, record, found);
    if record.cluster != state.cluster {
        let message = format!("it belongs to the cluster {}", record.cluster);
        let advice = "remove it from this inventory, or reset it with its own first";
        found.add("cluster", message, advice);
    } else if !record.authority.is_empty()
        && !state.authority.is_empty()
        && record.authority != state.authority
        && Some(&record.authority) != state.former_authority.as_ref()
    {
        let message = format!(
            "it belongs to a cluster {} of another certificate authority ({}, here {})",
            record.cluster,
            short(&record.authority),
            short(&state.authority)
        );
        let advice = "use the --state-dir the cluster was made with (`.kprov/CLUSTER` beside its \
                      inventory), or reset the host with that one first";
        found.add("authority", message, advice);
    } else if record.host != state.host {
        let message = format!("it was set up under the name {}", record.host);
        let advice = "two entries of the inventory may lead to one machine; \
                      to rename a host, reset it under its old name first";
        found.add("name", message, advice);
    }
}

/// As much of a fingerprint as tells two apart.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

fn docker(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    if !state.docker && state.images.is_empty() {
        return;
    }
    match &facts.docker {
        DockerFact::Absent => engine(state, facts, found),
        // The plan starts one that is stopped; one that runs and does not answer is broken.
        DockerFact::Stopped if facts.is_active(ENGINE) => {
            let message = "Docker runs but does not answer".to_owned();
            found.add("docker", message, "on the host: systemctl restart docker; docker version");
        }
        DockerFact::Stopped | DockerFact::Running { .. } => {}
    }
}

/// An engine that is missing comes from packages, or the operator is told how.
fn engine(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    let Ok(distribution) = Distribution::of(&facts.os) else { return };
    let message = "Docker is not installed".to_owned();
    if !state.engine.install {
        let package = distribution.engine_packages().first().unwrap_or(&"docker-ce");
        let manager = distribution.manager(&facts.managers);
        let manager = manager.map_or("the package manager", PackageManager::program);
        let advice = format!(
            "on the host: {manager} install {package}; or leave `docker.install = false` out of \
             [system] in the inventory"
        );
        found.add("docker", message, advice);
    } else if plan::engine_packages(state, facts, distribution).is_empty() {
        let name = &facts.os.pretty_name;
        let message = format!("{message}, and {name} has no package of it");
        let advice = "name a repository that has one in the inventory: \
                      docker = { repository = { url = \"…\", key = \"…\" } } in [system]";
        found.add("docker", message, advice);
    }
}

/// Packages need the package manager of the host's own distribution.
fn packages(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    if let Ok(distribution) = Distribution::of(&facts.os)
        && plan::lacks_switch(state, facts)
        && distribution.switch_packages().is_empty()
    {
        let name = &facts.os.pretty_name;
        let message = format!("Open vSwitch is not installed, and {name} has no package of it");
        let advice = "install openvswitch by hand (CentOS has it in the repository of its NFV \
                      group), or use `backend = \"vxlan\"` in [network]";
        found.add("packages", message, advice);
    }
    let Some(installation) = plan::installation(state, facts) else { return };
    if installation.manager.is_none() {
        let names: Vec<_> = installation.packages.iter().map(String::as_str).collect();
        let message = format!("it has no program that installs packages: {}", names.join(", "));
        let advice = "supported are apt-get on Debian's family, dnf and yum on Red Hat's; or \
                      install them by hand";
        found.add("packages", message, advice);
    }
}

/// A program for other processors would fail at its start, after everything else was changed.
fn programs(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    let Some(own) = Architecture::of_name(&facts.arch) else { return };
    for file in &state.files {
        let Content::Blob(blob) = &file.content else { continue };
        let Some(other) = blob.architecture.filter(|other| *other != own) else { continue };
        let path = &file.path;
        let message = format!("{path} would be a program for {other}, and the host is {own}");
        let advice = format!("name a build for {own} in [artifacts] of the inventory");
        found.add("arch", message, advice);
    }
}

fn firewall(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    let kind = facts.firewall.as_ref().map(|firewall| firewall.kind);
    if state.firewall.policy == FirewallPolicy::Disable && kind == Some(FirewallKind::Nftables) {
        let message = "nftables cannot be switched off without the rules of others, such as those \
                       of Docker"
            .to_owned();
        let advice = "use `firewall = \"auto\"`, or remove its rules by hand and use \"none\"";
        found.add("firewall", message, advice);
    }
    if state.firewall.policy == FirewallPolicy::Auto
        && facts.firewall.is_some()
        && !state.firewall.openings.is_empty()
        && facts.missing_programs.contains("systemd-run")
    {
        let message = "the program systemd-run is missing, without which no change of a firewall \
                       is safe"
            .to_owned();
        found.add("firewall", message, "install a systemd with it, or use `firewall = \"none\"`");
    }
}

fn paths(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    let files = state.files.iter().map(|file| &file.path);
    for path in files.chain(state.links.iter().map(|link| &link.path)) {
        let what = match facts.paths.get(path) {
            Some(PathFact::Directory { .. }) => "a directory",
            Some(PathFact::Other) => "a device, socket or pipe",
            _ => continue,
        };
        let message = format!("{path} should be a file and is {what}");
        found.add("path", message, "move it away");
    }
    for directory in &state.directories {
        let what = match facts.paths.get(&directory.path) {
            Some(PathFact::File { .. }) => "a file",
            Some(PathFact::Link { .. }) => "a link",
            Some(PathFact::Other) => "a device, socket or pipe",
            Some(PathFact::Directory { .. }) | None => continue,
        };
        let message = format!("{} should be a directory and is {what}", directory.path);
        found.add("path", message, "move it away");
    }
}

/// Every byte lies in the staging area and at its place for a while.
fn disk(facts: &Facts, plan: &HostPlan, found: &mut Found<'_>) {
    use crate::step::Step;
    let mut needed = std::collections::BTreeMap::new();
    let mut need = |path: &str, bytes: u64| {
        if let Some((mount, free)) = facts.free_at(path) {
            let entry = needed.entry(mount.to_owned()).or_insert((free, 0_u64));
            entry.1 += bytes;
        }
    };
    need(crate::record::DIRECTORY, plan.upload_bytes());
    for step in plan.batches.values().flat_map(|batch| &batch.steps) {
        match step {
            Step::Install { path, sha256, .. } => {
                need(path, plan.uploads.get(sha256).map_or(0, crate::plan::Upload::len));
            }
            Step::LoadImage { archive, .. } => {
                let len = plan.uploads.get(archive).map_or(0, crate::plan::Upload::len);
                need("/var/lib/docker", len);
            }
            _ => {}
        }
    }
    for (mount, (free, bytes)) in needed {
        if bytes > 0 && free < bytes + DISK_SPARE {
            let (free, bytes) = (crate::plan::size(free), crate::plan::size(bytes + DISK_SPARE));
            let message = format!("{mount} has {free} free, and {bytes} are needed");
            found.add("disk", message, format!("free some space on {mount}"));
        }
    }
}

/// What a host needs for what it is to run, and a little for itself.
fn memory(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    let runs = |unit: &str| state.units.iter().any(|wanted| wanted.name == unit);
    // What the components of an idle cluster were seen to take, twice, and 128 MiB for the host.
    let parts = [("etcd.service", 128), ("kube-apiserver.service", 384), (KUBELET, 256)];
    let needed = parts.iter().filter(|(unit, _)| runs(unit)).map(|(_, mib)| mib).sum::<u64>();
    let needed = (needed + 128) << 20;
    let Some(there) = facts.memory.filter(|there| *there < needed && needed > 128 << 20) else {
        return;
    };
    let (there, needed) = (plan::size(there), plan::size(needed));
    let message = format!("it has {there} of memory, and {needed} are needed for its roles");
    found.add("memory", message, "give it more memory, or fewer roles");
}

/// A kernel with all of its modules at hand that does not know one has no such feature; without the
/// tree (in a container, say) nobody can tell.
fn kernel(state: &HostState, facts: &Facts, found: &mut Found<'_>) {
    if !facts.module_tree || facts.container.is_some() {
        return;
    }
    let needs = [
        ("vxlan", "use `backend = \"host-gw\"` in [network]"),
        ("openvswitch", "leave `ovs_datapath = \"system\"` out of [network]"),
        ("overlay", "without it Docker has no fast storage for containers"),
        ("br_netfilter", "without it services do not work between pods of one node"),
    ];
    for (module, otherwise) in needs.iter().filter(|(module, _)| state.modules.contains(*module)) {
        if facts.modules.get(*module) == Some(&ModuleFact::Unknown) {
            let message = format!("its kernel {} has no {module}", facts.kernel);
            let advice = format!(
                "install the kernel's further modules (linux-modules-extra on Ubuntu, \
                 kernel-modules on CentOS), or {otherwise}"
            );
            let advice = match *module {
                "vxlan" | "openvswitch" => advice,
                _ => advice.replace(", or ", "; "),
            };
            found.add("kernel", message, advice);
        }
    }
}

fn port_free(port: &PortUse, facts: &Facts, found: &mut Found<'_>) {
    let same = |l: &&crate::facts::Listener| (l.protocol, l.port) == (port.protocol, port.port);
    let ours = |unit: &str| {
        unit == port.unit || facts.record.as_ref().is_some_and(|r| r.unit(unit).is_some())
    };
    for listener in facts.listeners.iter().filter(same) {
        if listener.unit.as_deref().is_some_and(ours) {
            continue;
        }
        // A container is no unit: one of our kubelet's that runs our program.
        let program = listener.program.as_deref() == Some("hyperkube");
        let known = facts.record.as_ref().is_some_and(|record| record.unit(KUBELET).is_some());
        if listener.unit.is_none() && program && port.unit == KUBELET && known {
            continue;
        }
        let who = match (&listener.program, &listener.unit) {
            (Some(program), Some(unit)) => format!("{program} ({unit})"),
            (Some(name), None) | (None, Some(name)) => name.clone(),
            (None, None) => "the kernel or an unknown program".to_owned(),
        };
        let (protocol, number) = (port.protocol, port.port);
        let message = format!("port {number}/{protocol} of {} is in use by {who}", port.unit);
        found.add("port", message, format!("stop it, or give {} another port", port.unit));
        return;
    }
}

fn clock(facts: &Facts, found: &mut Found<'_>) {
    let skew = facts.clock_skew_ms;
    if skew.abs() > CLOCK_SKEW_MAX_MS {
        let seconds = skew.abs() / 1000;
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let message = format!(
            "its clock is {seconds} s {direction} this machine's; {} s are allowed",
            CLOCK_SKEW_MAX_MS / 1000
        );
        found.add("clock", message, "set the clocks (chrony or systemd-timesyncd), then try again");
    }
}

#[cfg(test)]
mod tests;
