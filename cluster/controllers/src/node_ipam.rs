//! Gives each node a range of pod addresses of its own.
//!
//! All nodes share one key: a range is chosen knowing every other choice, including those whose
//! outcome had to be read back.
//!
//! Source: kubernetes 1.33, `pkg/controller/nodeipam/ipam/range_allocator.go`.

mod ranges;

use api::{ApiObject, Key, Kind, Object, Request, Time};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use machine::{Cache, Delta, Index, Plan, Reconciler};

use self::ranges::{Ranges, ranges};
use crate::announce;

/// No more nodes get their range in one pass.
const BURST_MAX: usize = 100;

/// Assigns the lowest free range of the cluster's pod addresses to each new node.
pub struct NodeIpam {
    cluster: IpNet,
    mask_bits: u8,
}

impl NodeIpam {
    /// Makes an allocator of ranges of `mask_bits` bits in `cluster`.
    pub const fn new(cluster: IpNet, mask_bits: u8) -> Self {
        Self { cluster, mask_bits }
    }
}

impl Reconciler for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Node]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Ranges>::default()]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let has_range = |object: &Object| object.get().is_some_and(|n| !ranges(n).is_empty());
        // A node that goes frees its range for one that waits.
        let concerns = delta.new.as_ref().is_none_or(|new| !has_range(new));
        if concerns { vec![Key::cluster(Kind::Node, "")] } else { Vec::new() }
    }

    fn reconcile(&self, cache: &Cache, _key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let index = cache.index::<Ranges>();
        let mut free = index.free(self.cluster, self.mask_bits);
        for node in index.without().filter_map(|key| cache.object(key)?.get::<Node>()) {
            let Some(range) = free.next() else {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                plan.events.push(announce::normal(node, "CIDRNotAvailable", message));
                break;
            };
            let mut node = node.clone();
            let spec = node.spec.get_or_insert_default();
            spec.pod_cidr = Some(range.to_string());
            spec.pod_cidrs = Some(vec![range.to_string()]);
            plan.request(Request::Update { object: node.into_object(), subresource: None });
            if plan.requests.len() >= BURST_MAX {
                break;
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::Fixture;

    /// Nodes as `name` or `name=range`; expects the new assignments.
    fn check(cluster: &str, mask_bits: u8, nodes: &[&str], expected: &[&str]) {
        let mut fixture = Fixture::new(NodeIpam::new(cluster.parse().unwrap(), mask_bits));
        for node in nodes {
            let (name, range) = node.split_once('=').unwrap_or((node, ""));
            let mut value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            if !range.is_empty() {
                value["spec"] = json!({"podCIDR": range, "podCIDRs": [range]});
            }
            fixture.put(value);
        }
        let plan = fixture.reconcile(&Key::cluster(Kind::Node, ""));
        let assigned: Vec<String> = plan
            .requests
            .iter()
            .map(|request| match request {
                Request::Update { object, .. } => {
                    let node: &Node = object.get().unwrap();
                    format!("{}={}", node.metadata.name.as_ref().unwrap(), ranges(node)[0])
                }
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(assigned, expected);
    }

    #[test]
    fn the_lowest_free_range_is_taken() {
        check("10.244.0.0/16", 24, &["b", "a"], &["a=10.244.0.0/24", "b=10.244.1.0/24"]);
        check("10.244.0.0/16", 24, &["a=10.244.0.0/24", "b"], &["b=10.244.1.0/24"]);
        check("10.244.0.0/16", 24, &["a=10.244.1.0/24", "b"], &["b=10.244.0.0/24"]);
        // A range of another size covers several.
        check("10.244.0.0/16", 24, &["a=10.244.0.0/23", "b"], &["b=10.244.2.0/24"]);
        check("10.244.0.0/16", 24, &["a=10.244.0.128/25", "b"], &["b=10.244.1.0/24"]);
        // Host bits and nonsense.
        check("10.244.0.0/16", 24, &["a=10.244.0.7/24", "b=x", "c"], &["c=10.244.1.0/24"]);
        check("fd00::/48", 64, &["a"], &["a=fd00::/64"]);
        // Nothing left, or nothing to divide.
        check("10.244.0.0/24", 24, &["a=10.244.0.0/24", "b"], &[]);
        check("10.244.0.0/24", 16, &["a"], &[]);
    }
}
