//! Runs of nodes in the order, as blocks of bits.

/// Nodes of one block.
pub(super) const BLOCK: usize = 64;

/// A run of nodes that may go on from the last to the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Its first node.
    pub(super) start: usize,
    /// How many nodes it has.
    pub(super) evaluated: usize,
    /// How many nodes there are.
    pub(super) total: usize,
}

impl Window {
    /// The window's blocks in order, with its nodes in each.
    pub(super) fn masks(self) -> impl Iterator<Item = (usize, u64)> {
        let end = self.start + self.evaluated;
        masks(self.start, end.min(self.total)).chain(masks(0, end.saturating_sub(self.total)))
    }
}

/// The blocks of the places `from..to`, with the bits of these places.
pub(super) fn masks(from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    (from / BLOCK..to.div_ceil(BLOCK)).filter(move |_| from < to).map(move |block| {
        let first = from.saturating_sub(block * BLOCK);
        let last = (to - block * BLOCK).min(BLOCK);
        (block, (u64::MAX << first) & (u64::MAX >> (BLOCK - last)))
    })
}

/// A place's block, and its bit there.
pub(super) const fn place(at: usize) -> (usize, u64) {
    (at / BLOCK, 1 << (at % BLOCK))
}

/// The places of the bits that are set.
pub(super) fn bits(block: usize, mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let bit = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            block * BLOCK + bit
        })
    })
}

/// The number of the `n`th bit that is set, from zero; there must be one.
pub(super) fn nth_bit(mask: u64, n: usize) -> usize {
    bits(0, mask).nth(n).expect("the caller counted the bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_each_place_once() {
        for total in [1, 63, 64, 65, 130] {
            for start in 0..total {
                for evaluated in 1..=total {
                    let window = Window { start, evaluated, total };
                    let places: Vec<usize> =
                        window.masks().flat_map(|(block, mask)| bits(block, mask)).collect();
                    let expected = (0..evaluated).map(|i| (start + i) % total);
                    assert!(places.iter().copied().eq(expected), "{window:?}: {places:?}");
                }
            }
        }
        assert_eq!((nth_bit(0b1010_0100, 0), nth_bit(0b1010_0100, 2)), (2, 7));
    }
}
