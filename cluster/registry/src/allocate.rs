//! Cluster addresses and node ports of services.
//!
//! Which are free is read from the services there are; that two writers do not take the same
//! one is the store's part ([`Claims`]).
//! Source: kubernetes 1.33, `pkg/registry/core/service`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::{Kind, Object, Reason, Status};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use crate::field::{Causes, Path};
use crate::names;
use crate::operation::{Claims, Options, Stamp, View};

/// A service without a cluster address.
const HEADLESS: &str = "None";
/// How many addresses are looked at before the range counts as full.
const ADDRESS_TRIES_MAX: u128 = 1 << 16;

/// The unique keys in the store that an object holds.
pub(crate) fn keys(object: &Object) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    if let Some(spec) = object.get::<Service>().and_then(|s| s.spec.as_ref()) {
        keys.extend(addresses(spec).map(|ip| format!("clusterip/{ip}")));
        // A node port is taken for every protocol at once.
        keys.extend(node_ports(spec).map(|port| format!("nodeport/{port}")));
    }
    keys
}

/// The keys that change hands when `new` replaces `old`.
pub(crate) fn claims(new: &Object, old: Option<&Object>) -> Claims {
    let had = old.map(keys).unwrap_or_default();
    let has = keys(new);
    Claims {
        take: has.difference(&had).cloned().collect(),
        free: had.difference(&has).cloned().collect(),
    }
}

fn addresses(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let listed = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter());
    let usable = |ip: &&String| !ip.is_empty() && ip.as_str() != HEADLESS;
    let uses = has_address(spec);
    listed.filter(usable).filter(move |_| uses).map(String::as_str)
}

fn node_ports(spec: &ServiceSpec) -> impl Iterator<Item = i32> {
    let uses = has_node_ports(spec);
    let ports = spec.ports.iter().flatten().filter_map(|p| p.node_port);
    ports.filter(move |port| uses && *port != 0)
}

/// Whether services of this type have a cluster address (`None` counts as one).
pub(crate) fn has_address(spec: &ServiceSpec) -> bool {
    matches!(spec.type_.as_deref(), Some("ClusterIP" | "NodePort" | "LoadBalancer"))
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => {
            spec.allocate_load_balancer_node_ports != Some(false)
                || spec.ports.iter().flatten().any(|p| p.node_port.is_some_and(|n| n != 0))
        }
        _ => false,
    }
}

/// Gives a service what it needs and does not have yet.
///
/// # Errors
/// What it asks for is taken or out of range, or nothing is left.
pub(crate) fn service(
    service: &mut Service,
    old: Option<&Service>,
    view: &dyn View,
    options: &Options,
    stamp: Stamp,
) -> Result<(), Status> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let spec = service.spec.get_or_insert_default();
    if let Some(old) = old.and_then(|o| o.spec.as_ref()) {
        drop_inapplicable(spec, old);
        keep_allocated(spec, old);
    }
    level_addresses(spec, old.and_then(|o| o.spec.as_ref()));
    let others = Taken::of(view, &service.metadata.uid);
    let spec = service.spec.get_or_insert_default();
    families(spec, options, &name)?;
    address(spec, &others, options, stamp, &name)?;
    ports(spec, &others, options, stamp, &name)
}

/// What other services hold.
struct Taken {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<i32>,
}

impl Taken {
    fn of(view: &dyn View, except_uid: &Option<String>) -> Self {
        let mut taken = Self { addresses: BTreeSet::new(), ports: BTreeSet::new() };
        for object in view.list(Kind::Service, "") {
            let Some(service) = object.get::<Service>() else { continue };
            if service.metadata.uid == *except_uid {
                continue;
            }
            if let Some(spec) = &service.spec {
                taken.addresses.extend(addresses(spec).filter_map(names::ip));
                taken.ports.extend(node_ports(spec));
            }
        }
        taken
    }
}

/// Drops what the old type needed and the new one does not, if the caller left it alone.
fn drop_inapplicable(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_address(old) && !has_address(spec) {
        if spec.cluster_ip == old.cluster_ip {
            spec.cluster_ip = None;
            if spec.cluster_ips == old.cluster_ips {
                spec.cluster_ips = None;
            }
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
        if spec.internal_traffic_policy == old.internal_traffic_policy {
            spec.internal_traffic_policy = None;
        }
    }
    let old_ports: BTreeSet<i32> = node_ports(old).collect();
    let now: BTreeSet<i32> = spec.ports.iter().flatten().filter_map(|p| p.node_port).collect();
    if has_node_ports(old) && !matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        if now == old_ports {
            for port in spec.ports.iter_mut().flatten() {
                port.node_port = None;
            }
        }
        let external = spec.external_ips.is_some();
        if !external && spec.external_traffic_policy == old.external_traffic_policy {
            spec.external_traffic_policy = None;
        }
    }
    if old.type_.as_deref() == Some("LoadBalancer")
        && spec.type_.as_deref() != Some("LoadBalancer")
        && spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports
    {
        spec.allocate_load_balancer_node_ports = None;
    }
}

/// Callers that do not know what was allocated keep it.
fn keep_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if has_address(old) && has_address(spec) {
        if spec.cluster_ip.is_none() && spec.cluster_ips.is_none() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if spec.cluster_ips.is_none() && spec.cluster_ip == old.cluster_ip {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
        if spec.ip_families.is_none() {
            spec.ip_families.clone_from(&old.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if has_node_ports(old) && has_node_ports(spec) {
        let before: BTreeSet<i32> = node_ports(old).collect();
        let used: BTreeSet<i32> = node_ports(spec).filter(|p| before.contains(p)).collect();
        let known: BTreeMap<&Option<String>, Option<i32>> =
            old.ports.iter().flatten().map(|p| (&p.name, p.node_port)).collect();
        for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.is_none()) {
            let held = known.get(&port.name).copied().flatten();
            port.node_port = held.filter(|p| !used.contains(p));
        }
    }
}

/// `clusterIP` is the first of `clusterIPs`; old clients know only the former.
fn level_addresses(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    match (&spec.cluster_ip, &spec.cluster_ips) {
        (Some(ip), None) => spec.cluster_ips = Some(vec![ip.clone()]),
        (None, Some(ips)) if old.is_none() => spec.cluster_ip = ips.first().cloned(),
        (Some(ip), Some(ips)) => {
            let Some(old) = old else { return };
            // A client changed one of the two: the other follows.
            if spec.cluster_ip != old.cluster_ip
                && spec.cluster_ips == old.cluster_ips
                && ips.first() != Some(ip)
            {
                spec.cluster_ips = Some(vec![ip.clone()]);
            }
        }
        _ => {}
    }
}

fn families(spec: &mut ServiceSpec, options: &Options, name: &str) -> Result<(), Status> {
    if !has_address(spec) {
        return Ok(());
    }
    let own = if options.service_cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    let other = if own == "IPv4" { "IPv6" } else { "IPv4" };
    let headless = spec.cluster_ip.as_deref() == Some(HEADLESS);
    if headless && spec.selector.is_none() {
        // Nothing is allocated or selected, so nothing speaks against both.
        let policy = spec.ip_family_policy.get_or_insert_with(|| "RequireDualStack".to_owned());
        let dual = policy != "SingleStack";
        let list = spec.ip_families.get_or_insert_with(|| vec![own.to_owned()]);
        if dual && list.len() == 1 {
            let second = if list[0] == own { other } else { own };
            list.push(second.to_owned());
        }
        return Ok(());
    }
    let mut causes = Causes::default();
    let path = Path::new("spec");
    if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
        let at = path.child("ipFamilyPolicy");
        causes.invalid(
            &at,
            "RequireDualStack",
            "this cluster is not configured for dual-stack services",
        );
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        if family != own {
            let detail = "not configured on this cluster";
            causes.invalid(&path.child("ipFamilies").index(i), family, detail);
        }
    }
    causes.into_result(Kind::Service, name)?;
    spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
    spec.ip_families.get_or_insert_with(|| vec![own.to_owned()]);
    Ok(())
}

fn address(
    spec: &mut ServiceSpec,
    taken: &Taken,
    options: &Options,
    stamp: Stamp,
    name: &str,
) -> Result<(), Status> {
    if !has_address(spec) {
        return Ok(());
    }
    let listed = spec.cluster_ips.clone().unwrap_or_default();
    if let Some(wanted) = listed.first() {
        let Some(ip) = wanted.parse::<IpAddr>().ok().filter(|_| wanted != HEADLESS) else {
            // Headless, or malformed and refused by validation.
            return Ok(());
        };
        let refuse = |why: &str| {
            let mut causes = Causes::default();
            let detail = format!("failed to allocate IP {wanted}: {why}");
            causes.invalid(&Path::new("spec").child("clusterIPs"), &listed, &detail);
            causes.into_result(Kind::Service, name)
        };
        if !Range::of(options.service_cidr).contains(ip) {
            return refuse(&format!(
                "provided IP is not in the valid range. The range of valid IPs is {}",
                options.service_cidr
            ));
        }
        if taken.addresses.contains(&ip) {
            return refuse("provided IP is already allocated");
        }
        return Ok(());
    }
    let Some(ip) = Range::of(options.service_cidr).pick(&taken.addresses, stamp) else {
        return Err(Status::new(
            Reason::InternalError,
            "Internal error occurred: failed to allocate a serviceIP: range is full",
        ));
    };
    spec.cluster_ip = Some(ip.to_string());
    spec.cluster_ips = Some(vec![ip.to_string()]);
    Ok(())
}

/// The addresses of a range that services may have.
struct Range {
    first: u128,
    /// How many there are.
    size: u128,
    /// Where dynamic allocation begins, so that requested addresses (DNS) rarely collide.
    offset: u128,
    v4: bool,
}

impl Range {
    fn of(cidr: IpNet) -> Self {
        let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
        // Larger IPv6 ranges are used up to 2⁶⁴ addresses.
        let all = 1_u128 << bits.min(64);
        let v4 = cidr.network().is_ipv4();
        let base = match cidr.network() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        // The network's own address, and broadcast in IPv4, are no hosts.
        let size = all.saturating_sub(if v4 { 2 } else { 1 });
        let offset = (size / 16).clamp(16, 256);
        let offset = if offset >= size { 0 } else { offset };
        Self { first: base + 1, size, offset, v4 }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        let value = match ip {
            IpAddr::V4(ip) if self.v4 => u128::from(u32::from(ip)),
            IpAddr::V6(ip) if !self.v4 => u128::from(ip),
            _ => return false,
        };
        value.checked_sub(self.first).is_some_and(|i| i < self.size)
    }

    fn at(&self, index: u128) -> IpAddr {
        let value = self.first + index;
        if self.v4 {
            let narrow = u32::try_from(value).expect("a range of IPv4 ends before 2³²");
            IpAddr::V4(Ipv4Addr::from(narrow))
        } else {
            IpAddr::V6(Ipv6Addr::from(value))
        }
    }

    /// A free address: the upper part of the range first, from a place the entropy says.
    fn pick(&self, taken: &BTreeSet<IpAddr>, stamp: Stamp) -> Option<IpAddr> {
        let start = u128::from(stamp.bits("cluster address"));
        let upper = (self.offset, self.size.saturating_sub(self.offset));
        let lower = (0, self.offset);
        [upper, lower].into_iter().filter(|(_, n)| *n > 0).find_map(|(from, n)| {
            (0..n.min(ADDRESS_TRIES_MAX))
                .map(|i| self.at(from + (start + i) % n))
                .find(|ip| !taken.contains(ip))
        })
    }
}

fn ports(
    spec: &mut ServiceSpec,
    taken: &Taken,
    options: &Options,
    stamp: Stamp,
    name: &str,
) -> Result<(), Status> {
    if !has_node_ports(spec) {
        return Ok(());
    }
    let requested: Vec<(i32, i32)> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| Some((p.port, p.node_port.filter(|n| *n != 0)?)))
        .collect();
    check_requested(spec, taken, options, name)?;
    let mut mine: BTreeMap<i32, i32> = requested.iter().copied().collect();
    let mut used: BTreeSet<i32> = requested.iter().map(|(_, node)| *node).collect();
    for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
        if port.node_port.is_some() {
            continue;
        }
        // The same port over another protocol gets the same node port.
        if let Some(shared) = mine.get(&port.port) {
            port.node_port = Some(*shared);
            continue;
        }
        let stamp_bits = stamp.bits(&format!("node port {i}"));
        let node = pick_port(options, taken, &used, stamp_bits).ok_or_else(|| {
            let why = "failed to allocate a nodePort: range is full";
            Status::new(Reason::InternalError, format!("Internal error occurred: {why}"))
        })?;
        port.node_port = Some(node);
        mine.insert(port.port, node);
        used.insert(node);
    }
    Ok(())
}

fn check_requested(
    spec: &ServiceSpec,
    taken: &Taken,
    options: &Options,
    name: &str,
) -> Result<(), Status> {
    let mut causes = Causes::default();
    let is_requested = |p: &&ServicePort| p.node_port.is_some_and(|n| n != 0);
    for (i, port) in spec.ports.iter().flatten().enumerate().filter(|(_, p)| is_requested(p)) {
        let node = port.node_port.unwrap_or(0);
        let path = Path::new("spec");
        let path = path.child("ports");
        let path = path.index(i);
        let path = path.child("nodePort");
        let range = &options.node_ports;
        if !u16::try_from(node).is_ok_and(|n| range.contains(&n)) {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            );
            causes.invalid(&path, node, &detail);
        } else if taken.ports.contains(&node) {
            causes.invalid(&path, node, "provided port is already allocated");
        }
    }
    causes.into_result(Kind::Service, name)
}

/// A free node port: the upper part of the range first, from a place the entropy says.
fn pick_port(options: &Options, taken: &Taken, used: &BTreeSet<i32>, bits: u64) -> Option<i32> {
    let first = i32::from(*options.node_ports.start());
    let size = i32::from(*options.node_ports.end()) - first + 1;
    let offset = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size) };
    [(offset, size - offset), (0, offset)].into_iter().filter(|(_, n)| *n > 0).find_map(
        |(from, n)| {
            let start = i32::try_from(bits % u64::from(n.unsigned_abs())).unwrap_or(0);
            (0..n)
                .map(|i| first + from + (start + i) % n)
                .find(|port| !taken.ports.contains(port) && !used.contains(port))
        },
    )
}
