//! Which API server a new connection goes to, and when those to a dead one are ended.
//!
//! [`Balancer`] is told what was observed of each upstream and keeps their order of preference;
//! the crate `node` dials, watches and counts.

use std::net::SocketAddr;

/// Questions in a row without an answer after which an upstream is dead. One may be lost on a busy
/// host; a connection that hangs for longer holds up a watch.
const SILENCES_MAX: u32 = 3;

/// What one look at an upstream gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It says that it is ready.
    Ready,
    /// It answers, and says that it is not: it starts, stops, or has lost its store.
    NotReady,
    /// Nothing came in time, or it could not be reached.
    Silent,
}

/// How an upstream is, as far as it is known; better ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It was ready when it was last looked at.
    Ready,
    /// Nobody has looked yet.
    Unknown,
    /// It answers but is not ready, or has just failed once.
    Unready,
    /// It did not answer several times in a row.
    Dead,
}

impl Condition {
    /// The word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::Unready => "unready",
            Self::Dead => "dead",
        }
    }
}

/// One API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is.
    pub condition: Condition,
    silences: u32,
}

/// All API servers, the most preferred first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balancer {
    upstreams: Vec<Upstream>,
}

impl Balancer {
    /// The upstreams in their order of preference.
    #[must_use]
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// Takes another list over, the most preferred first; what is known of those that stay is
    /// kept. An address that is named twice counts once.
    pub fn replace(&mut self, addresses: &[SocketAddr]) {
        let mut next: Vec<Upstream> = Vec::with_capacity(addresses.len());
        for address in addresses {
            if next.iter().any(|upstream| upstream.address == *address) {
                continue;
            }
            let known = self.upstreams.iter().find(|upstream| upstream.address == *address);
            let new = Upstream { address: *address, condition: Condition::Unknown, silences: 0 };
            next.push(known.cloned().unwrap_or(new));
        }
        self.upstreams = next;
    }

    /// Takes note of a look at `address`. Says whether its established connections are to be
    /// ended: that is so at the moment at which it is found dead.
    pub fn observe(&mut self, address: SocketAddr, observation: Observation) -> bool {
        let Some(upstream) = self.find(address) else { return false };
        let was = upstream.condition;
        match observation {
            Observation::Ready => (upstream.condition, upstream.silences) = (Condition::Ready, 0),
            Observation::NotReady => {
                (upstream.condition, upstream.silences) = (Condition::Unready, 0);
            }
            Observation::Silent => {
                upstream.silences = upstream.silences.saturating_add(1);
                let dead = upstream.silences >= SILENCES_MAX;
                upstream.condition = if dead { Condition::Dead } else { Condition::Unready };
            }
        }
        upstream.condition == Condition::Dead && was != Condition::Dead
    }

    /// Takes note that a connection to `address` could not be made: others are tried first until
    /// it was looked at again. Established connections may be well, so that is no silence.
    pub fn refused(&mut self, address: SocketAddr) {
        if let Some(upstream) = self.find(address) {
            upstream.condition = upstream.condition.max(Condition::Unready);
        }
    }

    /// The upstreams that a new connection tries, in this order. All of them: what is known may be
    /// out of date, and a refused connection is no better than a tried one.
    #[must_use]
    pub fn order(&self) -> Vec<SocketAddr> {
        let mut order: Vec<&Upstream> = self.upstreams.iter().collect();
        order.sort_by_key(|upstream| upstream.condition);
        order.into_iter().map(|upstream| upstream.address).collect()
    }

    /// Whether any upstream is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.condition == Condition::Ready)
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Upstream> {
        self.upstreams.iter_mut().find(|upstream| upstream.address == address)
    }
}

/// Reads a list of upstreams: an `ADDRESS:PORT` a line, the most preferred first; blank lines and
/// those that begin with `#` say nothing.
///
/// # Errors
/// The first line that is none, with its number, or that there is no line at all.
pub fn parse_upstreams(text: &str) -> Result<Vec<SocketAddr>, String> {
    let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let mut addresses = Vec::new();
    for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        let address =
            line.parse().map_err(|_| format!("line {number}: {line:?} is no ADDRESS:PORT"))?;
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err("it names no API server".to_owned());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6443))
    }

    fn three() -> Balancer {
        let mut balancer = Balancer::default();
        balancer.replace(&[at(1), at(2), at(3)]);
        balancer
    }

    fn order(balancer: &Balancer) -> Vec<SocketAddr> {
        balancer.order()
    }

    #[test]
    fn the_preferred_one_is_taken_while_it_is_ready() {
        let mut balancer = three();
        assert_eq!(order(&balancer), [at(1), at(2), at(3)]);
        balancer.observe(at(3), Observation::Ready);
        assert_eq!(order(&balancer), [at(3), at(1), at(2)]);
        balancer.observe(at(2), Observation::Ready);
        balancer.observe(at(1), Observation::Ready);
        assert_eq!(order(&balancer), [at(1), at(2), at(3)]);
        balancer.observe(at(1), Observation::NotReady);
        assert_eq!(order(&balancer), [at(2), at(3), at(1)]);
        balancer.refused(at(2));
        assert_eq!(order(&balancer), [at(3), at(1), at(2)]);
        balancer.observe(at(2), Observation::Ready);
        assert_eq!(order(&balancer), [at(2), at(3), at(1)]);
    }

    #[test]
    fn connections_end_once_when_a_server_is_silent_for_long() {
        let mut balancer = three();
        balancer.observe(at(1), Observation::Ready);
        let silent = |balancer: &mut Balancer| balancer.observe(at(1), Observation::Silent);
        assert_eq!([(); 4].map(|()| silent(&mut balancer)), [false, false, true, false]);
        assert_eq!(balancer.upstreams()[0].condition, Condition::Dead);
        balancer.observe(at(1), Observation::NotReady);
        assert!(!silent(&mut balancer) && !silent(&mut balancer) && silent(&mut balancer));
        // A refused connection does not bring a dead one back.
        balancer.refused(at(1));
        assert_eq!(order(&balancer), [at(2), at(3), at(1)]);
        assert!(!balancer.observe(at(9), Observation::Silent), "nobody knows it");
    }

    #[test]
    fn another_list_keeps_what_is_known() {
        let mut balancer = three();
        balancer.observe(at(2), Observation::Ready);
        balancer.replace(&[at(4), at(2), at(4)]);
        assert_eq!(order(&balancer), [at(2), at(4)]);
        assert!(balancer.is_ready());
        balancer.replace(&[at(4)]);
        assert!(!balancer.is_ready());
    }

    #[test]
    fn lists_are_read() {
        let read = |text: &str| parse_upstreams(text);
        assert_eq!(read("# ours\n10.0.0.1:6443\n\n 10.0.0.2:6443 \n"), Ok(vec![at(1), at(2)]));
        assert_eq!(
            read("10.0.0.1:6443\nmaster\n").unwrap_err(),
            "line 2: \"master\" is no ADDRESS:PORT"
        );
        assert_eq!(read("# none\n").unwrap_err(), "it names no API server");
    }

    proptest! {
        #[test]
        fn every_upstream_is_tried_and_ready_ones_first(
            looks in prop::collection::vec((1u8..=4, 0u8..4), 0..60)
        ) {
            let mut balancer = three();
            for (number, look) in looks {
                match look {
                    0 => _ = balancer.observe(at(number), Observation::Ready),
                    1 => _ = balancer.observe(at(number), Observation::NotReady),
                    2 => _ = balancer.observe(at(number), Observation::Silent),
                    _ => balancer.refused(at(number)),
                }
                let mut all = balancer.order();
                let first = all[0];
                let ready = |a: SocketAddr| balancer.upstreams().iter()
                    .any(|u| u.address == a && u.condition == Condition::Ready);
                prop_assert_eq!(ready(first), balancer.is_ready());
                all.sort();
                prop_assert_eq!(all, vec![at(1), at(2), at(3)]);
            }
        }
    }
}
