//! Bugs of API servers: what admission is told in the place of what there is, and what becomes of
//! its decision.

use std::sync::Arc;

use api::{Kind, Object};
use registry::Operation;

use crate::bug::Bug;

/// Stands between the store and admission.
#[derive(Clone, Copy, Default)]
pub(in crate::world) struct Serving(Option<Bug>);

impl Serving {
    pub(in crate::world) const fn with(bug: Option<Bug>) -> Self {
        Self(bug)
    }

    /// The object of an operation as admission sees it in the place of what is there, if it does:
    /// who does not compare what a binding replaces binds a pod that has a node.
    pub(in crate::world) fn sees(self, operation: &Operation, current: &Object) -> Option<Object> {
        if self.0 != Some(Bug::BindingUncompared) || !matches!(operation, Operation::Bind { .. }) {
            return None;
        }
        let mut seen = current.clone();
        if let Object::Pod(pod) = &mut seen {
            Arc::make_mut(pod).node_name = None;
        }
        Some(seen)
    }

    /// Whether admission has not heard of objects of the kind.
    pub(in crate::world) fn misses(self, kind: Kind) -> bool {
        self.0 == Some(Bug::LimitRangesUnseen) && kind == Kind::LimitRange
    }

    /// The quotas that are charged for a write: none, if their controller alone counts.
    pub(in crate::world) fn charges(self, charges: Vec<Object>) -> Vec<Object> {
        if self.0 == Some(Bug::ChargesForgotten) { Vec::new() } else { charges }
    }
}
