//! The addresses that a node gives to its pods.

use std::net::Ipv4Addr;

/// A range of addresses, handed out in turn.
#[derive(Clone)]
pub(super) struct Addresses {
    /// The first two bytes of the range that is used while none is known.
    prefix: u8,
    /// First and last address for pods, if the node's range is known.
    range: Option<(u32, u32)>,
    /// What was given last: an address that was given back rests for as long as possible.
    last: u32,
    /// Taken ones, in order.
    taken: Vec<u32>,
}

impl Addresses {
    pub(super) const fn new(prefix: u8) -> Self {
        Self { prefix, range: None, last: 0, taken: Vec::new() }
    }

    fn bounds(&self) -> (u32, u32) {
        let base = u32::from(Ipv4Addr::new(10, self.prefix, 0, 0));
        self.range.unwrap_or((base + 2, base + 0xfffe))
    }

    /// Sets the range, `10.244.1.0/24`: its first address is the bridge's.
    ///
    /// # Errors
    /// It is no range of IPv4, or too small for a pod.
    pub(super) fn set_range(&mut self, cidr: &str) -> Result<(), String> {
        let bounds = || {
            let (base, length) = cidr.split_once('/')?;
            let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
            let length: u32 = length.parse().ok().filter(|l| (1..=29).contains(l))?;
            let host = u32::MAX >> length;
            Some(((base & !host) + 2, (base | host) - 1))
        };
        let range = bounds().ok_or_else(|| format!("invalid CIDR address: {cidr}"))?;
        self.range = Some(range);
        Ok(())
    }

    pub(super) fn forget_range(&mut self) {
        self.range = None;
    }

    /// Takes an address; zero is none.
    pub(super) fn take(&mut self, ip: u32) {
        if ip == 0 {
            return;
        }
        self.last = ip;
        if let Err(at) = self.taken.binary_search(&ip) {
            if self.taken.len() == self.taken.capacity() {
                self.taken.reserve_exact(2 + self.taken.len() / 4);
            }
            self.taken.insert(at, ip);
        }
    }

    /// An address is no more taken.
    pub(super) fn free(&mut self, ip: u32) {
        if let Ok(at) = self.taken.binary_search(&ip) {
            self.taken.remove(at);
        }
    }

    /// The next address that is not taken.
    pub(super) fn next(&self) -> Option<u32> {
        let (first, last) = self.bounds();
        let start = if (first..last).contains(&self.last) { self.last + 1 } else { first };
        (start..=last).chain(first..start).find(|ip| self.taken.binary_search(ip).is_err())
    }
}
