//! Bugs of API servers: what admission is told in the place of what there is, and what becomes of
//! its decision.

use std::sync::Arc;

use api::{Key, Kind, Object, hash};
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
    /// who does not compare what a binding replaces binds a pod that has a node, and who knows of no
    /// finalizers removes what they hold.
    pub(in crate::world) fn sees(self, operation: &Operation, current: &Object) -> Option<Object> {
        match (self.0?, operation) {
            (Bug::BindingUncompared, Operation::Bind { .. }) => {
                let mut seen = current.clone();
                if let Object::Pod(pod) = &mut seen {
                    Arc::make_mut(pod).node_name = None;
                }
                Some(seen)
            }
            (Bug::FinalizersIgnored, Operation::Delete { options, .. })
                if options.grace_seconds == Some(0) =>
            {
                let mut seen = current.clone();
                seen.meta_mut().finalizers = None;
                Some(seen)
            }
            _ => None,
        }
    }

    /// The operation that admission is asked for in the place of another, if it is: an update counts
    /// as derived from what there is.
    pub(in crate::world) fn is_asked(
        self,
        operation: &Operation,
        current: Option<&Object>,
    ) -> Option<Operation> {
        if self.0 != Some(Bug::UpdatesUncompared) {
            return None;
        }
        let mut asked = operation.clone();
        let Operation::Update { object, .. } = &mut asked else { return None };
        let revision = current?.meta().resource_version.clone();
        object.meta_mut().resource_version = revision;
        Some(asked)
    }

    /// What names and UIDs are drawn from: from the name, if it is to say who an object is.
    pub(in crate::world) fn draws(self, key: Option<&Key>, entropy: [u8; 16]) -> [u8; 16] {
        match key {
            Some(key) if self.0 == Some(Bug::UidsReused) => {
                let word = hash::fold(key).to_le_bytes();
                std::array::from_fn(|i| word[i % word.len()])
            }
            _ => entropy,
        }
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
