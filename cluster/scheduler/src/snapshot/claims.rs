//! The nodes on which claims are in use.

use std::collections::BTreeMap;

use api::Key;

/// How many pods use each claim on each node. Pods with claims are not many.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimUsers(BTreeMap<Key, BTreeMap<u32, u32>>);

impl ClaimUsers {
    /// Notes that a pod came to a node with these claims.
    pub(super) fn add(&mut self, claims: &[Key], node: u32) {
        for claim in claims {
            *self.0.entry(claim.clone()).or_default().entry(node).or_default() += 1;
        }
    }

    /// Notes that one left.
    pub(super) fn remove(&mut self, claims: &[Key], node: u32) {
        for claim in claims {
            let Some(nodes) = self.0.get_mut(claim) else { continue };
            if let Some(pods) = nodes.get_mut(&node) {
                *pods -= 1;
                if *pods == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.0.remove(claim);
            }
        }
    }

    /// The nodes with pods that use the claim.
    pub(super) fn of(&self, claim: &Key) -> impl Iterator<Item = u32> {
        self.0.get(claim).into_iter().flat_map(|nodes| nodes.keys().copied())
    }
}
