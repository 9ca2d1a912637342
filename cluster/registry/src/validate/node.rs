//! Nodes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use super::affinity::taint_effect;
use super::container::quantity_value;
use crate::field::{Causes, Path};
use crate::names;

pub(super) fn node(node: &Node, causes: &mut Causes) {
    let path = Path::new("spec");
    if let Some(spec) = &node.spec {
        let mut seen = BTreeSet::new();
        for (i, taint) in spec.taints.iter().flatten().enumerate() {
            let at = path.child("taints");
            let at = at.index(i);
            causes.invalid_each(&at.child("key"), &taint.key, names::qualified_name(&taint.key));
            let value = taint.value.as_deref().unwrap_or_default();
            let messages = names::label_value(value);
            if !messages.is_empty() {
                causes.invalid(&at.child("value"), value, &messages.join(";"));
            }
            taint_effect(&taint.effect, &at.child("effect"), causes);
            if !seen.insert((&taint.key, &taint.effect)) {
                causes.duplicate_with(&at, taint, "taints must be unique by key and effect pair");
            }
        }
        for (i, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            if cidr.parse::<IpNet>().is_err() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                causes.invalid(&path.child("podCIDRs").index(i), cidr, detail);
            }
        }
    }
    let path = Path::new("status");
    let Some(status) = &node.status else { return };
    for (list, field) in [(&status.capacity, "capacity"), (&status.allocatable, "allocatable")] {
        for (name, quantity) in list.iter().flatten() {
            quantity_value(name, quantity, &path.child(field).key(name), causes);
        }
    }
}

pub(super) fn update(new: &Node, old: &Node, causes: &mut Causes) {
    let addresses = new.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            let at = Path::new("status");
            let at = at.child("addresses");
            let at = at.index(i);
            causes.duplicate(&at, address);
        }
    }
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let path = Path::new("spec");
    let had = old.pod_cidrs.as_ref().is_some_and(|l| !l.is_empty());
    if had && new.pod_cidrs != old.pod_cidrs {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        causes.forbidden(&path.child("podCIDRs"), detail);
    }
    let had = old.provider_id.as_deref().is_some_and(|id| !id.is_empty());
    if had && new.provider_id != old.provider_id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        causes.forbidden(&path.child("providerID"), detail);
    }
}
