//! What is measured between hosts before a cluster is there: every port that one host needs of
//! another, with packets as long as the overlay sends, and how fast etcd's disk is.
//!
//! `hyperkube host-probe` does the measuring, on the hosts, in three round trips a host however many
//! ports and hosts there are; here is what is asked, and what the answers mean. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::firewall::Opening;
use crate::inventory::FirewallPolicy;
use crate::preflight::Problem;
use crate::state::{HostState, Protocol};

/// A slower disk makes members of etcd miss each other's heartbeats, which come every 100 ms.
pub const FSYNC_P99_MAX_US: u64 = 100_000;
/// A slower disk than this is worth a warning. Source: etcd, hardware recommendations.
pub const FSYNC_P99_GOOD_US: u64 = 10_000;

/// Names in one message; of the others, how many.
const NAMED_MAX: usize = 5;

/// A port of a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's address.
    pub address: Ipv4Addr,
    /// Port number.
    pub port: u16,
}

/// As `host-probe` takes it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.protocol, self.address, self.port)
    }
}

/// What one host has to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// What it listens on, for others.
    pub listen: BTreeSet<Endpoint>,
    /// What it must reach.
    pub reach: BTreeSet<Endpoint>,
}

/// The tasks of all hosts of `desired`: each opening of a firewall is a port that somebody needs.
#[must_use]
pub fn tasks(desired: &[HostState]) -> BTreeMap<String, Task> {
    let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
    for state in desired {
        let Some(address) = state.firewall.address else { continue };
        for opening in &state.firewall.openings {
            let Opening::Port { protocol, port, from } = opening else { continue };
            let endpoint = Endpoint { protocol: *protocol, address, port: *port };
            let needs = |other: &&HostState| {
                let own = other.firewall.address;
                let among = |own| from.as_ref().is_none_or(|f| f.iter().any(|r| r.contains(own)));
                other.host != state.host && own.as_ref().is_some_and(among)
            };
            for other in desired.iter().filter(needs) {
                tasks.entry(other.host.clone()).or_default().reach.insert(endpoint.clone());
                tasks.entry(state.host.clone()).or_default().listen.insert(endpoint.clone());
            }
        }
    }
    tasks
}

/// What `host-probe listen` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Listening {
    /// Where it listens.
    pub listening: BTreeSet<String>,
    /// Where somebody else does.
    pub taken: BTreeSet<String>,
}

/// One answer of `host-probe reach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The endpoint, as it was asked for.
    pub endpoint: String,
    /// How it went.
    pub result: Outcome,
    /// Where packets have to be shorter: how long they may be, if that was learnt.
    pub mtu: Option<u32>,
    /// Why it failed.
    pub error: Option<String>,
}

/// How asking an endpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It answered.
    Open,
    /// The host, or something before it, said no.
    Refused,
    /// Nothing came back.
    Timeout,
    /// Short packets arrive, those of the overlay's length do not.
    TooLong,
    /// There is no way.
    Failed,
}

/// What `host-probe disk` answers, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// How many writes were measured.
    pub writes: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// None took longer.
    pub max_us: u64,
}

/// All that was measured, by host.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// What hosts listened on.
    pub listening: BTreeMap<String, Listening>,
    /// What hosts reached.
    pub reached: BTreeMap<String, Vec<Reached>>,
    /// How fast the disks of members of etcd are.
    pub disks: BTreeMap<String, Disk>,
}

/// What stands in the way, and what an apply will clear away itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Reasons not to begin.
    pub problems: Vec<Problem>,
    /// Worth knowing, one line each.
    pub notes: Vec<String>,
    /// How many endpoints each host reaches, of how many; those that could not be judged are not
    /// counted.
    pub reached: BTreeMap<String, (usize, usize)>,
}

/// An endpoint that did not answer as it should.
#[derive(Default)]
struct Bad<'a> {
    /// Who found it so.
    from: Vec<&'a str>,
    /// The shortest length that was learnt.
    mtu: Option<u32>,
    error: &'a str,
}

/// Judges what was measured. `packet` is the length of the overlay's packets in bytes.
#[must_use]
pub fn judge(
    measured: &Measured,
    desired: &[HostState],
    facts: &BTreeMap<String, Facts>,
    packet: u16,
) -> Judgement {
    let mut judgement = Judgement::default();
    let owner: BTreeMap<_, _> = desired
        .iter()
        .filter_map(|state| Some((state.firewall.address?.to_string(), state)))
        .collect();
    let mut bad: BTreeMap<(&str, Outcome), Bad<'_>> = BTreeMap::new();
    for (from, answers) in &measured.reached {
        for answer in answers {
            let Some(state) = address_of(&answer.endpoint).and_then(|a| owner.get(a)) else {
                continue;
            };
            let listening = measured.listening.get(&state.host);
            let own = listening.is_some_and(|l| l.listening.contains(&answer.endpoint));
            // Where the kernel or a component has the port, a datagram gets no echo.
            let mute = answer.endpoint.starts_with("udp:") && !own;
            let nobody = !own && listening.is_none_or(|l| !l.taken.contains(&answer.endpoint));
            if mute || (nobody && answer.result == Outcome::Refused) {
                continue;
            }
            let count = judgement.reached.entry(from.clone()).or_default();
            count.1 += 1;
            if answer.result == Outcome::Open {
                count.0 += 1;
                continue;
            }
            let key = (answer.endpoint.as_str(), answer.result);
            let bad = bad.entry(key).or_default();
            bad.from.push(from);
            bad.mtu = bad.mtu.into_iter().chain(answer.mtu).min();
            bad.error = answer.error.as_deref().unwrap_or(bad.error);
        }
    }
    for ((endpoint, outcome), Bad { from, mtu, error }) in bad {
        let Some(state) = address_of(endpoint).and_then(|a| owner.get(a)) else { continue };
        let from = listed(&from);
        let port = port_of(endpoint);
        let opens = state.firewall.policy != FirewallPolicy::None
            && facts.get(&state.host).is_some_and(|facts| facts.firewall.is_some());
        if opens && outcome != Outcome::TooLong {
            judgement.notes.push(format!(
                "{}: {port} is closed for {from} by a firewall that an apply opens",
                state.host
            ));
            continue;
        }
        let (how, advice) = why(outcome, mtu, error, packet);
        judgement.problems.push(Problem {
            host: state.host.clone(),
            check: "connectivity",
            message: format!("{port} cannot be used from {from}: {how}"),
            advice,
        });
    }
    for (host, disk) in &measured.disks {
        let p99_ms = disk.p99_us as f64 / 1000.0;
        if disk.p99_us > FSYNC_P99_MAX_US {
            judgement.problems.push(Problem {
                host: host.clone(),
                check: "fsync",
                message: format!(
                    "1 of 100 small writes takes {p99_ms:.1} ms to be on the disk of etcd; {} ms \
                     are the most that works",
                    FSYNC_P99_MAX_US / 1000
                ),
                advice: "give etcd's directory a faster disk, one that nobody else writes to"
                    .to_owned(),
            });
        } else if disk.p99_us > FSYNC_P99_GOOD_US {
            judgement.notes.push(format!(
                "{host}: 1 of 100 small writes takes {p99_ms:.1} ms to be on the disk of etcd; \
                 below {} ms is good",
                FSYNC_P99_GOOD_US / 1000
            ));
        }
    }
    judgement
}

fn why(outcome: Outcome, mtu: Option<u32>, error: &str, packet: u16) -> (String, String) {
    match outcome {
        Outcome::Open => (String::new(), String::new()),
        Outcome::Refused => (
            "the connection is refused".to_owned(),
            "see what stands between the hosts: the port was listened on".to_owned(),
        ),
        Outcome::Timeout => (
            "no answer".to_owned(),
            "open the port in what stands between the hosts: security groups, routers, firewalls \
             of the provider"
                .to_owned(),
        ),
        Outcome::Failed => (error.to_owned(), "check addresses and routes".to_owned()),
        Outcome::TooLong => {
            let learnt = mtu.map_or_else(String::new, |mtu| format!("; {mtu} bytes are the most"));
            let overlay = 50;
            let advice = match mtu {
                Some(mtu) => format!(
                    "say `mtu = {}` in [network], or let longer packets pass",
                    mtu.saturating_sub(overlay)
                ),
                None => "say a smaller `mtu` in [network], or let longer packets pass".to_owned(),
            };
            (format!("packets of {packet} bytes do not arrive{learnt}"), advice)
        }
    }
}

/// The address within `PROTOCOL:ADDRESS:PORT`.
fn address_of(endpoint: &str) -> Option<&str> {
    endpoint.split(':').nth(1)
}

/// `PORT/PROTOCOL`.
fn port_of(endpoint: &str) -> String {
    let mut parts = endpoint.split(':');
    let protocol = parts.next().unwrap_or_default();
    format!("{}/{protocol}", parts.next_back().unwrap_or_default())
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
