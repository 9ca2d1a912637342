//! Searching sorted lists from where something is expected.
//!
//! A search by halves looks at memory in six places to find one of a hundred. Where keys are
//! random, as UIDs and hashes are, their values tell about where in the list they are, and the few
//! steps from there are through memory that lies together.

use std::cmp::Ordering;

/// So many neighbours of where it should be are looked at before the list is halved.
const NEIGHBOURS: usize = 16;

/// The place of what `order` says is equal, or where it would be: as `binary_search_by`, but from
/// `guess` on, at most the length of the list.
///
/// # Panics
/// `guess` is beyond the end of the list.
pub fn search_from<T>(
    sorted: &[T],
    guess: usize,
    order: impl Fn(&T) -> Ordering,
) -> Result<usize, usize> {
    let (before, after) = sorted.split_at(guess);
    let mut steps = 0;
    for element in after.iter().take(NEIGHBOURS) {
        match order(element) {
            Ordering::Less => steps += 1,
            Ordering::Equal => return Ok(guess + steps),
            Ordering::Greater if steps > 0 => return Err(guess + steps),
            Ordering::Greater => break,
        }
    }
    if steps > 0 {
        let first = guess + steps;
        let found = sorted[first..].binary_search_by(order);
        return found.map(|at| first + at).map_err(|at| first + at);
    }
    for (passed, element) in before.iter().rev().take(NEIGHBOURS).enumerate() {
        match order(element) {
            Ordering::Greater => {}
            Ordering::Equal => return Ok(guess - passed - 1),
            Ordering::Less => return Err(guess - passed),
        }
    }
    before[..guess.saturating_sub(NEIGHBOURS)].binary_search_by(order)
}

/// Where among `len` random hashes this one is expected.
pub fn expected_at(hash: u64, len: usize) -> usize {
    let wide = u128::from(hash) * u128::try_from(len).unwrap_or(0);
    usize::try_from(wide >> u64::BITS).map_or(len, |at| at.min(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_are_expected_by_their_size() {
        assert_eq!(expected_at(0, 100), 0);
        assert_eq!(expected_at(u64::MAX / 2, 100), 49);
        assert_eq!(expected_at(u64::MAX, 100), 99);
        assert_eq!(expected_at(u64::MAX, 0), 0);
    }

    proptest! {
        #[test]
        fn places_are_those_of_a_search_by_halves(
            mut numbers in prop::collection::vec(0_u64..200, 0..80),
            wanted in 0_u64..200,
            guess in 0_usize..81,
        ) {
            numbers.sort_unstable();
            numbers.dedup();
            let guess = guess.min(numbers.len());
            let found = search_from(&numbers, guess, |number| number.cmp(&wanted));
            prop_assert_eq!(found, numbers.binary_search(&wanted));
        }
    }
}
