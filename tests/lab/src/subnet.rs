//! Ranges of IPv4 addresses, and the fixed addresses inside a lab's range.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// Offset of the first host's address: `.11` in a /24, so that `node-1` is easy to tell.
const FIRST_HOST: u32 = 11;

/// A range of IPv4 addresses, as `10.99.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    base: Ipv4Addr,
    bits: u8,
}

/// Says why a text is no [`Subnet`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not a range of addresses such as 10.99.0.0/24")]
pub struct ParseSubnetError {
    text: String,
}

impl Subnet {
    /// Makes the range of `bits` leading bits that `address` lies in.
    ///
    /// # Panics
    /// If `bits` is more than 32.
    pub const fn new(address: Ipv4Addr, bits: u8) -> Self {
        assert!(bits <= 32, "an IPv4 address has 32 bits");
        Self { base: Ipv4Addr::from_bits(address.to_bits() & mask(bits)), bits }
    }

    /// The address of the outer machine in this range.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().saturating_add(1))
    }

    /// The address of the host with this index, counted from 0; `None` beyond the range.
    pub fn host(self, index: usize) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).ok()?.checked_add(FIRST_HOST)?;
        let address = Ipv4Addr::from_bits(self.base.to_bits().checked_add(offset)?);
        // The last address of a range is its broadcast address.
        let last = self.base.to_bits() | !mask(self.bits);
        (self.contains(address) && address.to_bits() != last).then_some(address)
    }

    /// Whether the address lies in this range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.bits) == self.base.to_bits()
    }

    /// Whether any address lies in both ranges.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The range for the `index`th lab on a machine: `10.99.INDEX.0/24`.
    pub const fn of_lab(index: u8) -> Self {
        Self::new(Ipv4Addr::new(10, 99, index, 0), 24)
    }

    /// The first lab range, `default` lab aside, that overlaps none of `taken`.
    pub fn first_free(taken: &[Self]) -> Option<Self> {
        (1..=u8::MAX)
            .map(Self::of_lab)
            .find(|range| !taken.iter().any(|other| other.overlaps(*range)))
    }
}

const fn mask(bits: u8) -> u32 {
    if bits == 0 { 0 } else { u32::MAX << (32 - bits) }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSubnetError { text: text.to_owned() };
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(wrong)?;
        Ok(Self::new(address, bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_have_fixed_addresses() {
        let lab = Subnet::of_lab(0);
        assert_eq!(lab.to_string(), "10.99.0.0/24");
        assert_eq!(lab.gateway(), Ipv4Addr::new(10, 99, 0, 1));
        assert_eq!(lab.host(0), Some(Ipv4Addr::new(10, 99, 0, 11)));
        assert_eq!(lab.host(243), Some(Ipv4Addr::new(10, 99, 0, 254)));
        assert_eq!(lab.host(244), None, "the broadcast address is no host's");
        assert_eq!(lab.host(usize::MAX), None);
        assert_eq!(subnet("10.99.0.0/16").host(300), Some(Ipv4Addr::new(10, 99, 1, 55)));
    }

    #[test]
    fn texts_are_ranges_or_refused() {
        assert_eq!(subnet("10.99.3.7/24"), Subnet::of_lab(3));
        assert_eq!(subnet("1.2.3.4/0").to_string(), "0.0.0.0/0");
        for text in ["", "10.99.0.0", "10.99.0.0/33", "10.99.0/24", "a/24", "10.99.0.0/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlaps_are_found_in_both_directions() {
        let check = |a: &str, b: &str, expected| {
            assert_eq!(subnet(a).overlaps(subnet(b)), expected, "{a} {b}");
            assert_eq!(subnet(b).overlaps(subnet(a)), expected, "{b} {a}");
        };
        check("10.99.0.0/24", "10.99.0.128/25", true);
        check("10.99.0.0/24", "10.99.1.0/24", false);
        check("0.0.0.0/0", "10.99.1.0/24", true);
    }

    #[test]
    fn the_first_free_range_is_taken() {
        let taken = [Subnet::of_lab(1), subnet("10.99.2.0/23"), subnet("172.17.0.0/16")];
        assert_eq!(Subnet::first_free(&taken), Some(Subnet::of_lab(4)));
        assert_eq!(Subnet::first_free(&[subnet("10.0.0.0/8")]), None);
    }
}
