//! One seed, a generator of its own for every component and purpose, so that a draw more in one
//! place changes nothing elsewhere.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Derives named generators from one seed.
#[derive(Clone, Copy, Debug)]
pub struct RngTree {
    seed: u64,
}

impl RngTree {
    /// The root of all generators of a run.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A subtree, for example for one component.
    pub fn child(&self, name: &str) -> Self {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        Self { seed: api::hash::fnv64(&bytes) }
    }

    /// The generator for one purpose.
    pub fn rng(&self, purpose: &str) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(api::hash::fnv64(purpose.as_bytes()));
        rng
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn streams_are_stable_and_independent() {
        let draw = |tree: RngTree, purpose: &str| tree.rng(purpose).next_u64();
        let root = RngTree::new(7);
        assert_eq!(draw(root, "a"), draw(RngTree::new(7), "a"));
        assert_ne!(draw(root, "a"), draw(root, "b"));
        assert_ne!(draw(root.child("x"), "a"), draw(root.child("y"), "a"));
    }
}
