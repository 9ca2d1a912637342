use crate::framework::{ClusterEvent, Plugin};

/// Places the pods of a group together or not at all: see [`crate::group`]. It looks at no node by
/// itself; the scheduler asks for it when the turn of a pod comes.
pub struct Coscheduling;

impl Plugin for Coscheduling {
    fn name(&self) -> &'static str {
        "Coscheduling"
    }

    fn events(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::PeerCame]
    }
}
