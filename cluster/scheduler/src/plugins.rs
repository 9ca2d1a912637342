//! The plugins, one file each, in the order in which they filter.

mod balanced_allocation;
mod coscheduling;
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod node_volume_limits;
mod resource;
mod taint_toleration;
mod topology_spread;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

#[cfg(test)]
mod tests;

pub use balanced_allocation::BalancedAllocation;
pub use coscheduling::Coscheduling;
pub use fit::Fit;
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub(crate) use inter_pod_affinity::scaled;
pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_unschedulable::NodeUnschedulable;
pub use node_volume_limits::NodeVolumeLimits;
pub use taint_toleration::TaintToleration;
pub use topology_spread::TopologySpread;
pub(crate) use topology_spread::{of_count, spread_scores, weight_of};
pub use volume_binding::VolumeBinding;
pub use volume_restrictions::VolumeRestrictions;
pub use volume_zone::VolumeZone;

use crate::framework::Plugin;
use crate::plugin_args::PluginArgs;

/// All plugins, in the order in which Kubernetes asks their filters; the arguments must be valid.
///
/// Those that look at other pods come last. Whoever keeps answers may ask by properties before by
/// load: the plugins for which that is another order have nothing against a pod without claims.
pub fn plugins(args: &PluginArgs) -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(NodeUnschedulable),
        Box::new(NodeName),
        Box::new(TaintToleration),
        Box::new(NodeAffinity::new(&args.node_affinity)),
        Box::new(NodePorts),
        Box::new(Fit::new(&args.fit)),
        Box::new(VolumeRestrictions),
        Box::new(NodeVolumeLimits),
        Box::new(VolumeBinding),
        Box::new(VolumeZone),
        Box::new(TopologySpread::new(&args.topology_spread)),
        Box::new(InterPodAffinity::new(&args.inter_pod_affinity)),
        Box::new(BalancedAllocation::new(&args.balanced_allocation)),
        Box::new(ImageLocality),
        Box::new(Coscheduling),
    ]
}
