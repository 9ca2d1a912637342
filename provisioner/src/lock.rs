//! Who holds a host, and who may write to it.
//!
//! The lock of a host lives in a process there that ends with the connection, so a killed operator
//! never leaves a stale one; see the facts script. The [`Lease`] fences what a lock cannot: each
//! run that writes has a generation higher than all before it, noted on a majority of the masters
//! before the first write and carried by every write. A host refuses the writes of a lower
//! generation than it has seen, so a run that was thought dead and wakes up can do no harm.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::execute::{Hosts, chain, in_parallel};
use crate::facts::{Facts, LockRequest};
use crate::inventory::{Inventory, Role};
use crate::preflight::Problem;

/// Names this run: person, machine, process and start.
#[must_use]
pub fn request(now: jiff::Timestamp, person: &str, command: &str) -> LockRequest {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = match machine.trim() {
        "" => "an unnamed machine",
        name => name,
    };
    let process = std::process::id();
    let now = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let owner = format!("{person}@{machine} (kprov {command}, process {process}, since {now})");
    // The host keeps it as one line of a file.
    LockRequest { owner: owner.replace(['\n', '\r'], " ") }
}

/// The holder of a host's lock, as its owner line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The whole line.
    pub line: String,
    /// Person and machine.
    pub owner: String,
    /// The command, such as `kprov apply`.
    pub command: String,
    /// How long it has held the lock, in seconds.
    pub age_s: Option<i64>,
}

impl Holder {
    /// Takes an owner line apart; what does not fit stays empty.
    #[must_use]
    pub fn parse(line: &str, now: jiff::Timestamp) -> Self {
        let (owner, rest) = line.split_once(" (").unwrap_or((line, ""));
        let command = rest.split(',').next().unwrap_or_default();
        let since = rest
            .split_once("since ")
            .and_then(|(_, text)| text.split(')').next()?.parse::<jiff::Timestamp>().ok());
        let (owner, command) = (owner.to_owned(), command.trim_end_matches(')').to_owned());
        let age_s = since.map(|since| now.duration_since(since).as_secs());
        Self { line: line.to_owned(), owner, command, age_s }
    }
}

/// The right to write, by a number that only rises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Higher than that of every run before.
    pub generation: u64,
    /// The hosts that note it before the first write: masters whose lock this run holds.
    pub witnesses: BTreeSet<String>,
    /// How many of those must have noted it.
    pub needed: usize,
}

impl Lease {
    /// A lease on a majority of the masters of `inventory`, for a run that holds the locks of the
    /// hosts of `facts`.
    ///
    /// # Errors
    /// When too few masters are held.
    pub fn of_masters(
        inventory: &Inventory,
        facts: &BTreeMap<String, Facts>,
    ) -> Result<Self, Problem> {
        let masters: BTreeSet<_> =
            inventory.with_role(Role::Master).map(|host| host.name.clone()).collect();
        Self::of_majority(&masters, facts).map_err(|message| Problem {
            host: masters.first().cloned().unwrap_or_default(),
            check: "lease",
            message,
            advice: "bring the masters back, or see why they refuse".to_owned(),
        })
    }

    /// The same, with the names of the masters.
    ///
    /// # Errors
    /// When too few masters are held, in one line.
    pub fn of_majority(
        masters: &BTreeSet<String>,
        facts: &BTreeMap<String, Facts>,
    ) -> Result<Self, String> {
        let witnesses: BTreeSet<_> =
            masters.iter().filter(|name| facts.contains_key(*name)).cloned().collect();
        let needed = masters.len() / 2 + 1;
        if witnesses.len() < needed {
            let away: Vec<_> = masters.difference(&witnesses).map(String::as_str).collect();
            return Err(format!(
                "a run needs {needed} of {} masters to hold the lease, and {} cannot be had",
                masters.len(),
                away.join(", ")
            ));
        }
        Ok(Self { generation: Self::next(facts), witnesses, needed })
    }

    /// A lease on the hosts of `facts` alone: a reset must work when no master is left.
    #[must_use]
    pub fn of_these(facts: &BTreeMap<String, Facts>) -> Self {
        Self { generation: Self::next(facts), witnesses: BTreeSet::new(), needed: 0 }
    }

    fn next(facts: &BTreeMap<String, Facts>) -> u64 {
        facts.values().map(|facts| facts.fence).max().unwrap_or(0) + 1
    }

    /// Has the witnesses note the generation, and all of `hosts` carry it from here on.
    ///
    /// # Errors
    /// When too few witnesses have noted it, in one line: nothing may be written then.
    pub fn claim(&self, hosts: &mut Hosts, at_once: usize) -> Result<(), String> {
        hosts.values_mut().for_each(|host| host.set_generation(self.generation));
        let witnesses: Vec<_> =
            hosts.iter_mut().filter(|(name, _)| self.witnesses.contains(*name)).collect();
        let answers = in_parallel(witnesses, at_once, |(name, host)| {
            // A run of no steps does what every write does first: it shows its generation.
            host.run(&[], &mut |_| {}).map_err(|error| format!("{name}: {}", chain(&error)))
        });
        let noted = answers.iter().filter(|answer| answer.is_ok()).count();
        if noted >= self.needed {
            return Ok(());
        }
        let errors: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        Err(format!(
            "the lease was noted on {noted} masters, and {} are needed: {}",
            self.needed,
            errors.join("; ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_one_line_that_names_the_run() {
        let request = request(jiff::Timestamp::UNIX_EPOCH, "ann", "apply");
        assert!(
            request.owner.starts_with("ann@") && request.owner.contains("(kprov apply, process"),
            "{}",
            request.owner
        );
        assert!(request.owner.contains("since 1970-01-01T00:00:00.000Z"), "{}", request.owner);
        assert!(!request.owner.contains('\n'));
    }

    #[test]
    fn a_holder_is_read_from_its_line() {
        let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let line = request(start, "ann", "apply").owner;
        let holder = Holder::parse(&line, start + jiff::SignedDuration::from_secs(90));
        assert!(holder.owner.starts_with("ann@"), "{holder:?}");
        assert_eq!((holder.command.as_str(), holder.age_s), ("kprov apply", Some(90)));
        let odd = Holder::parse("somebody", start);
        assert_eq!((odd.owner.as_str(), odd.command.as_str(), odd.age_s), ("somebody", "", None));
    }
}
