//! What differs between kinds in the flow of a write, as one table.
//!
//! Source: kubernetes 1.33, the `strategy.go` of each kind under `pkg/registry`.

use api::{Kind, Object, Propagation, Subresource};

use crate::names::NameRule;

/// The facts of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strategy {
    /// Which names its objects may have.
    pub(crate) names: NameRule,
    /// Whether an update without a `resourceVersion` overwrites whatever is there.
    pub(crate) unconditional_update: bool,
    /// Whether an update of an object that does not exist creates it.
    pub(crate) create_on_update: bool,
    /// What happens to the objects it owns when the caller does not say; `None` for kinds that
    /// never own anything.
    pub(crate) propagation: Option<Propagation>,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub(crate) generation: bool,
}

/// The facts of a kind.
pub(crate) const fn of(kind: Kind) -> Strategy {
    let base = Strategy {
        names: NameRule::Subdomain,
        unconditional_update: true,
        create_on_update: false,
        propagation: Some(Propagation::Background),
        generation: false,
    };
    match kind {
        Kind::Namespace => Strategy { names: NameRule::Label, ..base },
        Kind::Service => Strategy { names: NameRule::Label1035, create_on_update: true, ..base },
        Kind::Endpoints => Strategy { create_on_update: true, ..base },
        Kind::Event => Strategy { create_on_update: true, propagation: None, ..base },
        Kind::Lease => Strategy { create_on_update: true, unconditional_update: false, ..base },
        Kind::PodDisruptionBudget => {
            Strategy { generation: true, unconditional_update: false, ..base }
        }
        Kind::ServiceAccount | Kind::CsiNode => Strategy { unconditional_update: false, ..base },
        // The generation of a priority class is that of its creation for ever.
        Kind::Pod
        | Kind::ReplicaSet
        | Kind::Deployment
        | Kind::DaemonSet
        | Kind::CronJob
        | Kind::EndpointSlice
        | Kind::PriorityClass => Strategy { generation: true, ..base },
        // Its name begins those of hosts.
        Kind::StatefulSet => Strategy { names: NameRule::Label, generation: true, ..base },
        Kind::ReplicationController | Kind::Job => {
            Strategy { generation: true, propagation: Some(Propagation::Orphan), ..base }
        }
        Kind::CertificateSigningRequest => Strategy { names: NameRule::PathSegment, ..base },
        Kind::Role | Kind::RoleBinding | Kind::ClusterRole | Kind::ClusterRoleBinding => {
            Strategy { names: NameRule::PathSegment, create_on_update: true, ..base }
        }
        _ => base,
    }
}

/// Whether the kind has this subresource for writing.
pub(crate) fn serves(kind: Kind, subresource: Subresource) -> bool {
    kind.info().subresources.contains(&subresource.path())
}

/// Whether anything changed that `metadata.generation` counts.
pub(crate) fn desired_state_changed(new: &Object, old: &Object) -> bool {
    match (new, old) {
        (Object::Pod(new), Object::Pod(old)) => {
            new.spec != old.spec || new.node_name != old.node_name
        }
        (Object::ReplicationController(new), Object::ReplicationController(old)) => {
            new.spec != old.spec
        }
        (Object::ReplicaSet(new), Object::ReplicaSet(old)) => new.spec != old.spec,
        (Object::PodDisruptionBudget(new), Object::PodDisruptionBudget(old)) => {
            new.spec != old.spec
        }
        // A deployment's annotations steer its rollouts.
        (Object::Deployment(new), Object::Deployment(old)) => {
            new.spec != old.spec || new.metadata.annotations != old.metadata.annotations
        }
        (Object::DaemonSet(new), Object::DaemonSet(old)) => new.spec != old.spec,
        (Object::Job(new), Object::Job(old)) => new.spec != old.spec,
        (Object::CronJob(new), Object::CronJob(old)) => new.spec != old.spec,
        (Object::StatefulSet(new), Object::StatefulSet(old)) => new.spec != old.spec,
        (Object::EndpointSlice(new), Object::EndpointSlice(old)) => {
            new.endpoints != old.endpoints
                || new.ports != old.ports
                || new.address_type != old.address_type
                || new.metadata.labels != old.metadata.labels
        }
        _ => false,
    }
}
