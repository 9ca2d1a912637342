//! The resources that scores look at.

use crate::node_info::NodeInfo;
use crate::plugin_args::{ResourceSpec, cpu_and_memory};
use crate::pod_info::{Load, PodClass};
use crate::resources::Resources;

#[derive(Clone, Debug)]
enum Resource {
    Cpu,
    Memory,
    EphemeralStorage,
    /// Any other that nodes have in amounts.
    Extended(String),
}

/// A resource, and how much it counts.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    resource: Resource,
    pub(super) weight: i64,
}

/// What is asked for, and what there is, of one resource of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amounts {
    /// By the node's pods and the one that looks for a node.
    pub(super) requested: i64,
    /// Above zero.
    pub(super) allocatable: i64,
}

/// Which requests count.
#[derive(Clone, Copy, Debug)]
pub(super) enum Requests {
    /// As pods make them.
    AsMade,
    /// Containers that ask for nothing count for something.
    WithFloor,
}

impl Requests {
    fn of_node(self, node: &NodeInfo) -> &Resources {
        match self {
            Self::AsMade => &node.requested,
            Self::WithFloor => &node.scored,
        }
    }

    pub(super) const fn of_pod(self, load: &Load) -> &Resources {
        match self {
            Self::AsMade => &load.requests,
            Self::WithFloor => &load.scored,
        }
    }
}

impl Weighted {
    /// The resources that are listed; CPU and memory if none is.
    pub(super) fn list(given: &[ResourceSpec]) -> Vec<Self> {
        let default = cpu_and_memory();
        let specs = if given.is_empty() { &default } else { given };
        specs
            .iter()
            .map(|spec| Self {
                resource: match spec.name.as_str() {
                    "cpu" => Resource::Cpu,
                    "memory" => Resource::Memory,
                    "ephemeral-storage" => Resource::EphemeralStorage,
                    other => Resource::Extended(other.to_owned()),
                },
                weight: spec.weight(),
            })
            .collect()
    }

    /// How much of it there is in `resources`.
    pub(super) fn of(&self, resources: &Resources) -> i64 {
        match &self.resource {
            Resource::Cpu => resources.cpu.0,
            Resource::Memory => resources.memory.0,
            Resource::EphemeralStorage => resources.ephemeral_storage.0,
            Resource::Extended(name) => resources.extended.get(name).copied().unwrap_or(0),
        }
    }

    /// The amounts of this resource; `None` if it does not count: the node has none of it, or
    /// it is an extended one that the pod does not ask for.
    pub(super) fn amounts(
        &self,
        pod: &PodClass,
        node: &NodeInfo,
        requests: Requests,
    ) -> Option<Amounts> {
        let wanted = self.of(requests.of_pod(&pod.load));
        let allocatable = self.of(&node.allocatable);
        let bypassed = wanted == 0 && matches!(self.resource, Resource::Extended(_));
        if bypassed || allocatable <= 0 {
            return None;
        }
        let used = match self.resource {
            Resource::Cpu | Resource::Memory => self.of(requests.of_node(node)),
            _ => self.of(&node.requested),
        };
        Some(Amounts { requested: used.saturating_add(wanted), allocatable })
    }
}
