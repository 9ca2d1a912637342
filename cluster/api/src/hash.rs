//! Hashes that come out the same on every machine and in every run of one version; all but
//! [`fold`] in every version, so that names may be made of them.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;

/// FNV-1a over the bytes, 64 bits.
pub const fn fnv64(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash ^= bytes[i] as u64;
        hash = hash.wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

/// FNV-1 over the bytes, 32 bits: what Kubernetes hashes pod templates with, followed by
/// [`safe_encode`] of its decimal form.
pub fn fnv32a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.into_iter().fold(0x811c_9dc5, step)
}

/// The digits of `value` to the base 16, at least `width` (at most 16) of them.
pub fn hex(value: u64, width: usize) -> String {
    let mut digits = [b'0'; 16];
    let mut left = value;
    let mut first = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        if left == 0 {
            break;
        }
        *digit = b"0123456789abcdef"[usize::from(left.to_le_bytes()[0] & 15)];
        left >>= 4;
        first = at;
    }
    let first = first.min(digits.len() - width.clamp(1, digits.len()));
    String::from_utf8_lossy(&digits[first..]).into_owned()
}

/// A fast hash, for looking things up within one process: another version may give another.
pub fn fold(value: &impl Hash) -> u64 {
    FixedState::with_seed(0).hash_one(value)
}

/// The alphabet of generated names: no vowels and no look-alikes, so that no words form.
pub const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Spells `value` in `len` letters of [`ALPHABET`].
pub fn letters(mut value: u64, len: usize) -> String {
    // The low bits of FNV are weak; fold the high half in before taking remainders.
    value ^= value >> 32;
    (0..len)
        .map(|_| {
            let i = usize::try_from(value % 27).expect("below 27");
            value /= 27;
            char::from(ALPHABET[i])
        })
        .collect()
}

/// Maps each character of a decimal number into the alphabet, as Kubernetes spells hashes in
/// names and labels (`pod-template-hash`).
///
/// Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/rand`.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        assert_eq!(fnv64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv32a(b"a"), 0xe40c_292c);
        for value in [0, 1, 15, 16, 0xabc, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(hex(value, 0), format!("{value:x}"));
            assert_eq!(hex(value, 8), format!("{value:08x}"));
            assert_eq!(hex(value, 16), format!("{value:016x}"));
        }
        assert_eq!(letters(fnv64(b"a"), 5).len(), 5);
    }
}
