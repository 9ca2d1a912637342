//! Finding UIDs in sorted lists.

use std::cmp::Ordering;

use crate::sorted;

/// The first bytes of a UID as a number, in the order of text. Kept beside the UID, it tells
/// nearly all of them apart without a look at memory elsewhere.
pub fn beginning(uid: &str) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(uid.bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(first)
}

/// The place of a UID that begins so in a list that is sorted by UID, or where it would be;
/// `order` says how an element is to the UID. `beginning_of` must be that of the element's UID.
///
/// UIDs are random: one that begins with `8` is in the middle. Of a hundred, it is about four
/// places from where it should be.
pub fn place<T>(
    sorted: &[T],
    beginning: u64,
    beginning_of: impl Fn(&T) -> u64,
    order: impl Fn(&T) -> Ordering,
) -> Result<usize, usize> {
    let order = |element: &T| beginning_of(element).cmp(&beginning).then_with(|| order(element));
    sorted::search_from(sorted, expected(beginning, sorted.len()), order)
}

/// Where among `len` random UIDs one that begins so is expected; anywhere, if it is no UID.
fn expected(beginning: u64, len: usize) -> usize {
    // The value of the digits, each in its byte, and then put together.
    let digits =
        (beginning & 0x0f0f_0f0f_0f0f_0f0f) + 9 * ((beginning >> 6) & 0x0101_0101_0101_0101);
    let pairs = (digits | digits >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    let value = (fours | fours >> 16) & 0xffff_ffff;
    let wide = u64::try_from(len).unwrap_or(u64::from(u32::MAX));
    usize::try_from(value.saturating_mul(wide) >> 32).map_or(len, |at| at.min(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uids_are_expected_by_their_digits() {
        let at = |uid: &str| expected(beginning(uid), 1 << 16);
        assert_eq!(at("00000000-0000"), 0);
        assert_eq!(at("80000000-0000"), 0x8000);
        assert_eq!(at("abcdef01-0000"), 0xabcd);
        assert_eq!(at("ffffffff-0000"), 0xffff);
        for none in ["", "zz", "\u{ff}\u{ff}\u{ff}\u{ff}"] {
            assert!(expected(beginning(none), 3) <= 3);
        }
    }

    proptest! {
        #[test]
        fn places_are_those_of_a_search_by_halves(
            mut uids in prop::collection::vec("[0-9a-f]{0,10}|[g-z]{1,9}|0000000[0-9]x?", 0..80),
            wanted in "[0-9a-f]{0,10}|[g-z]{1,9}|0000000[0-9]x?",
        ) {
            uids.sort();
            uids.dedup();
            for wanted in uids.iter().chain([&wanted]) {
                let found = place(
                    &uids,
                    beginning(wanted),
                    |uid| beginning(uid),
                    |uid| uid.as_str().cmp(wanted),
                );
                prop_assert_eq!(found, uids.binary_search(wanted));
            }
        }
    }
}
