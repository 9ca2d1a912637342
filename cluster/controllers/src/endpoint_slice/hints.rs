//! Hints: for clients of which zone an endpoint is meant.
//!
//! With `trafficDistribution: PreferClose` each endpoint is for its own zone. With the annotation
//! `service.kubernetes.io/topology-mode: Auto` each zone gets as large a part of the endpoints as
//! it has of the allocatable processor time, as far as no endpoint would be overloaded; else there
//! are no hints.
//!
//! Source: kubernetes 1.33, `k8s.io/endpointslice/topologycache` and `trafficdist`; KEP-2433.

use std::collections::BTreeMap;

use api::meta;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use machine::{Cache, Memory, Record};

use super::ZONE;
use crate::announce;

const MODE: &str = "service.kubernetes.io/topology-mode";
/// What the annotation was called before; it still counts, and first.
const MODE_BEFORE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes that run the control plane serve no clients.
const EXCLUDED: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// An endpoint may get a fifth more than its share. Ratios are in whole numbers, so that all
/// machines agree: a zone needs at least its share divided by 6/5.
const OVERLOAD: (u128, u128) = (5, 6);

/// Whether the endpoints of a service are shared out by processor time.
pub(super) fn are_shared_out(service: &Service) -> bool {
    let mode = meta::annotation(&service.metadata, MODE_BEFORE)
        .or_else(|| meta::annotation(&service.metadata, MODE));
    matches!(mode, Some("Auto" | "auto"))
}

/// What a node contributes: its zone and its processor time in thousandths. `None` for nodes that
/// serve no clients; an empty zone or no time when nobody knows.
pub(super) fn share(node: &Node) -> Option<(&str, u64)> {
    let labels = node.metadata.labels.as_ref();
    let excluded = EXCLUDED.iter().any(|l| labels.is_some_and(|labels| labels.contains_key(*l)));
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if excluded || !ready {
        return None;
    }
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let cpu = allocatable.and_then(|list| list.get("cpu"));
    let milli = cpu.and_then(|text| Quantity::parse(&text.0).ok()).map_or(0, Quantity::milli);
    let zone = meta::label(&node.metadata, ZONE).unwrap_or_default();
    Some((zone, u64::try_from(milli).unwrap_or(0)))
}

/// What became of endpoints that shall be shared out: why they could not, if so.
pub(super) type Outcome = Result<(), String>;

const ENABLED: &str = "Topology Aware Hints has been enabled";
const DISABLED: &str = "Topology Aware Hints has been disabled";
const NO_ZONE: &str = "One or more endpoints do not have a zone specified";
const NO_NODES: &str = "Insufficient Node information: allocatable CPU or zone not specified on \
                        one or more nodes";
const TOO_FEW: &str = "Insufficient number of endpoints";
const OVERLOADED: &str = "Unable to allocate minimum required endpoints to each zone without \
                          exceeding overload threshold";

/// What people are told of the hints of a service, when that has changed, by family; remembered is
/// what was told last. A process that starts finds slices with hints, and says nothing; what keeps
/// endpoints from being shared out it says again, as Kubernetes does.
pub(super) fn told(
    service: &Service,
    outcomes: &[(&str, Outcome)],
    existing: &[&EndpointSlice],
    memory: &mut Memory,
) -> Vec<Record> {
    let now: Vec<(&str, &str)> = outcomes
        .iter()
        .map(|(family, outcome)| (*family, outcome.as_ref().err().map_or(ENABLED, String::as_str)))
        .collect();
    let lines: Vec<String> = now.iter().map(|(family, said)| format!("{family} {said}")).collect();
    let before = std::mem::replace(&mut memory.text, lines.join("\n").into());
    let before: BTreeMap<&str, &str> =
        before.lines().filter_map(|line| line.split_once(' ')).collect();
    let hinted = |family: &str| {
        let mut slices = existing.iter().filter(|slice| slice.address_type == family);
        slices.any(|slice| slice.endpoints.iter().any(|e| e.hints.is_some()))
    };
    let record = |family: &str, message: &str| {
        let message = format!("{message}, addressType: {family}");
        if message.starts_with(ENABLED) {
            announce::normal(service, "TopologyAwareHintsEnabled", message)
        } else {
            announce::warning(service, "TopologyAwareHintsDisabled", message)
        }
    };
    let news = now.iter().filter(|(family, said)| match before.get(family) {
        Some(before) => before != said,
        None => *said != ENABLED || !hinted(family),
    });
    let gone = before.iter().filter(|(family, said)| {
        **said == ENABLED && !now.iter().any(|(other, _)| other == *family)
    });
    let gone = gone.map(|(family, _)| record(family, DISABLED));
    news.map(|(family, said)| record(family, said)).chain(gone).collect()
}

/// Gives the endpoints their hints; tells what became of those that shall be shared out.
pub(super) fn hint<'a>(
    cache: &Cache,
    service: &Service,
    endpoints: impl Iterator<Item = &'a mut Endpoint>,
) -> Option<Outcome> {
    let spec = service.spec.as_ref();
    let shared_out = are_shared_out(service);
    let close = spec.and_then(|s| s.traffic_distribution.as_deref()) == Some("PreferClose");
    if !shared_out && !close {
        return None;
    }
    let mut ready: Vec<&mut Endpoint> = endpoints.filter(|e| is_ready(e)).collect();
    if !shared_out {
        for endpoint in ready {
            if let Some(zone) = endpoint.zone.clone() {
                meant_for(endpoint, zone);
            }
        }
        return None;
    }
    let zones = ready.iter().map(|e| e.zone.clone().filter(|zone| !zone.is_empty())).collect();
    let allotted = match allot(cache, zones) {
        Ok(allotted) => allotted,
        Err(why) => return Some(Err(why)),
    };
    for (endpoint, zone) in ready.iter_mut().zip(allotted) {
        meant_for(endpoint, zone);
    }
    Some(Ok(()))
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false)
}

fn meant_for(endpoint: &mut Endpoint, zone: String) {
    let for_zones = Some(vec![ForZone { name: zone }]);
    endpoint.hints = Some(EndpointHints { for_zones, ..EndpointHints::default() });
}

/// For which zone each of the endpoints is that are in these zones.
///
/// # Errors
/// Why they cannot be shared out.
fn allot(cache: &Cache, zones: Vec<Option<String>>) -> Result<Vec<String>, String> {
    let mut time: BTreeMap<&str, u64> = BTreeMap::new();
    for (zone, milli) in cache.list::<Node>().filter_map(share) {
        if zone.is_empty() || milli == 0 {
            return Err(NO_NODES.to_owned());
        }
        *time.entry(zone).or_default() += milli;
    }
    let total: u128 = time.values().map(|milli| u128::from(*milli)).sum();
    let count = zones.len() as u128;
    if time.len() < 2 {
        return Err(NO_NODES.to_owned());
    }
    let counted = |why: &str| format!("{why} ({count} endpoints, {} zones)", time.len());
    if time.len() > zones.len() {
        return Err(counted(TOO_FEW));
    }
    // All in units of one endpoint divided by `total`.
    let mut least_of_all = 0;
    let mut balance: BTreeMap<&str, i128> = BTreeMap::new();
    for (zone, milli) in &time {
        let share = u128::from(*milli) * count;
        let least = (share * OVERLOAD.0).div_ceil(total * OVERLOAD.1);
        least_of_all += least;
        let desired = share.max(least * total);
        balance.insert(zone, -i128::try_from(desired).expect("processor time is far below"));
    }
    if least_of_all > count {
        return Err(counted(OVERLOADED));
    }
    let zones: Option<Vec<String>> = zones.into_iter().collect();
    let mut zones = zones.ok_or_else(|| NO_ZONE.to_owned())?;
    let one = i128::try_from(total).expect("processor time is far below");
    for zone in &zones {
        // What is in a zone without nodes that serve stays there.
        if let Some(balance) = balance.get_mut(zone.as_str()) {
            *balance += one;
        }
    }
    let (mut giving, mut receiving): (BTreeMap<String, u32>, BTreeMap<String, u32>) =
        Default::default();
    loop {
        // Of equals the first by name.
        let most = balance.iter().map(|(zone, b)| (*b, *zone));
        let (give, from) = most.clone().rev().max_by_key(|(b, _)| *b).expect("two zones at least");
        let (take, to) = most.min_by_key(|(b, _)| *b).expect("two zones at least");
        let take = -take;
        if give * 2 < one || take * 2 < one || (give < one && take < one) {
            break;
        }
        *giving.entry(from.to_owned()).or_default() += 1;
        *receiving.entry(to.to_owned()).or_default() += 1;
        *balance.entry(from).or_default() -= one;
        *balance.entry(to).or_default() += one;
    }
    for zone in &mut zones {
        let Some(left) = giving.get_mut(zone).filter(|left| **left > 0) else { continue };
        let Some((to, wanted)) = receiving.iter_mut().find(|(_, wanted)| **wanted > 0) else {
            break;
        };
        *left -= 1;
        *wanted -= 1;
        zone.clone_from(to);
    }
    Ok(zones)
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::endpoint_slice::EndpointSlices;
    use crate::fixture::Fixture;

    /// Nodes as `zone:cpu`; zones of endpoints by letter.
    fn check(nodes: &[&str], endpoints: &str, expected: Result<&str, &str>) {
        let mut fixture = Fixture::new(EndpointSlices);
        for (i, node) in nodes.iter().enumerate() {
            let (zone, cpu) = node.split_once(':').unwrap();
            fixture.put(json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": format!("n{i}"), "labels": {ZONE: zone}},
                "status": {"allocatable": {"cpu": cpu},
                    "conditions": [{"type": "Ready", "status": "True"}]}}));
        }
        let zones = endpoints.chars().map(|zone| Some(String::from(zone))).collect();
        let found = allot(&fixture.cache, zones).map(|zones| zones.concat());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{nodes:?} {endpoints}");
    }

    #[test]
    fn zones_get_the_endpoints_that_their_nodes_are_worth() {
        let even = ["a:1", "b:1", "c:500m", "c:500m"];
        check(&even, "abcabc", Ok("abcabc"));
        check(&even, "aaaaaa", Ok("bbccaa"));
        check(&even, "aaabbc", Ok("caabbc"));
        check(&["a:3", "b:1"], "aabb", Ok("aaab"));
        // An endpoint in a zone without nodes stays where it is.
        check(&["a:1", "b:1"], "aabbzz", Ok("aabbzz"));
    }

    #[test]
    fn what_cannot_be_shared_out_is_left_alone() {
        check(&["a:1"], "aaa", Err(NO_NODES));
        check(
            &["a:1", "b:1", "c:1"],
            "ab",
            Err("Insufficient number of endpoints (2 endpoints, 3 zones)"),
        );
        check(&["a:1", ":1"], "aaa", Err(NO_NODES));
        check(&["a:1", "b:0"], "aab", Err(NO_NODES));
        let overloaded = |count: usize| format!("{OVERLOADED} ({count} endpoints, 2 zones)");
        // A zone would get too little whatever is done.
        check(&["a:3", "b:1"], "aaabb", Err(&overloaded(5)));
        check(&["a:1", "b:1"], "aabbz", Err(&overloaded(5)));
        check(&["a:9", "b:1"], "ab", Err(&overloaded(2)));
    }

    proptest! {
        /// However the endpoints lie, no zone ends further from its share than it was.
        #[test]
        fn each_zone_comes_closer_to_its_share(
            cpus in prop::collection::vec(1_u64..20, 2..5),
            endpoints in prop::collection::vec(0_usize..5, 2..40),
        ) {
            let letters = ["a", "b", "c", "d"];
            let nodes: Vec<String> =
                cpus.iter().zip(letters).map(|(cpu, zone)| format!("{zone}:{cpu}")).collect();
            let mut fixture = Fixture::new(EndpointSlices);
            for (i, node) in nodes.iter().enumerate() {
                let (zone, cpu) = node.split_once(':').unwrap();
                fixture.put(json!({"apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": format!("n{i}"), "labels": {ZONE: zone}},
                    "status": {"allocatable": {"cpu": cpu},
                        "conditions": [{"type": "Ready", "status": "True"}]}}));
            }
            let zones: Vec<String> =
                endpoints.iter().map(|i| letters[i % cpus.len()].to_owned()).collect();
            let named = zones.iter().cloned().map(Some).collect();
            let Ok(allotted) = allot(&fixture.cache, named) else { return Ok(()) };
            prop_assert_eq!(allotted.len(), zones.len());
            let (total, count) = (cpus.iter().sum::<u64>() as f64, zones.len() as f64);
            for (zone, cpu) in letters.iter().zip(&cpus) {
                let share = *cpu as f64 * count / total;
                let desired = share.max((share / 1.2 - 1e-9).ceil());
                let of = |all: &[String]| all.iter().filter(|z| z == zone).count() as f64;
                let (before, after) = (of(&zones) - desired, of(&allotted) - desired);
                prop_assert!(after.abs() <= before.abs() + 1e-6, "{zone}: {before} {after}");
            }
        }
    }
}
