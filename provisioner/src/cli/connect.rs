//! From an inventory to connected hosts with facts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Source, Surroundings};
use crate::execute::{Hosts, in_parallel};
use crate::facts::{Facts, FactsError, FactsQuery, LockRequest};
use crate::host::known_hosts::KnownHosts;
use crate::host::ssh::{self, Target, Timing};
use crate::host::{Host, HostError, local};
use crate::inventory::{self, HostKeyPolicy};
use crate::preflight::{self, Problem};
use crate::secret::Secret;

/// The check that a host fails which shows another key than before.
pub(super) const HOST_KEY: &str = "host-key";
/// The check that a dead host fails; a host that answers and refuses fails others.
pub(super) const UNREACHABLE: &str = "unreachable";

/// What came of connecting to all hosts.
pub(super) struct Connected {
    pub(super) hosts: Hosts,
    pub(super) facts: BTreeMap<String, Facts>,
    /// Of those that did not answer.
    pub(super) problems: Vec<Problem>,
    /// From when to when each host was asked.
    pub(super) times: BTreeMap<String, (Instant, Instant)>,
}

impl Connected {
    /// Takes in others.
    pub(super) fn extend(&mut self, others: Self) {
        self.hosts.extend(others.hosts);
        self.facts.extend(others.facts);
        self.problems.extend(others.problems);
        self.times.extend(others.times);
    }
}

/// How to ask for facts.
pub(super) struct Asking<'a> {
    pub(super) lock: Option<&'a LockRequest>,
    pub(super) force_unlock: bool,
    pub(super) source: &'a Source,
    pub(super) surroundings: &'a Surroundings,
    pub(super) state_dir: &'a Path,
}

/// What is asked of every host that is only looked at.
pub(super) fn every_host(inventory: &inventory::Inventory) -> Vec<(&inventory::Host, FactsQuery)> {
    inventory.hosts.iter().map(|host| (host, FactsQuery::default())).collect()
}

/// Connects to hosts and asks each for its facts, all in parallel.
pub(super) fn connect(
    hosts: Vec<(&inventory::Host, FactsQuery)>,
    asking: &Asking<'_>,
) -> Connected {
    let mut known: BTreeMap<PathBuf, Result<KnownHosts, String>> = BTreeMap::new();
    for (host, _) in &hosts {
        let file = known_hosts_file(host, asking.state_dir);
        let open = |file: &Path| KnownHosts::open(file).map_err(|e| crate::execute::chain(&e));
        known.entry(file.clone()).or_insert_with(|| open(&file));
    }
    if !asking.source.local {
        ask_passphrases(&hosts, asking.surroundings);
        if asking.source.ask_sudo_password && hosts.iter().any(|(host, _)| host.ssh.sudo) {
            ask_sudo_password(asking.surroundings);
        }
    }
    let answers = in_parallel(hosts, asking.source.parallel, |(host, query)| {
        let began = Instant::now();
        let answer = match &known[&known_hosts_file(host, asking.state_dir)] {
            Ok(known) => one(host, known, &query, asking).map_err(|error| match &error {
                // Nobody else has our name: an entry before this one has led here.
                HostError::Facts(FactsError::Locked { owner })
                    if asking.lock.is_some_and(|lock| owner.starts_with(&lock.owner)) =>
                {
                    preflight::twin(&host.name, "another entry of the inventory")
                }
                error => problem(&host.name, error),
            }),
            Err(error) => Err(Problem {
                host: host.name.clone(),
                check: "known-hosts",
                message: error.clone(),
                advice: "check that the file can be read".to_owned(),
            }),
        };
        (host.name.clone(), answer, (began, Instant::now()))
    });
    let (hosts, facts, times) = (Hosts::new(), BTreeMap::new(), BTreeMap::new());
    let mut connected = Connected { hosts, facts, problems: Vec::new(), times };
    let mut timings = Vec::new();
    for (name, answer, time) in answers {
        connected.times.insert(name.clone(), time);
        match answer {
            Ok((host, facts, timing)) => {
                timings.push((name.clone(), timing));
                connected.hosts.insert(name.clone(), host);
                connected.facts.insert(name, facts);
            }
            Err(problem) => connected.problems.push(problem),
        }
    }
    for remark in ssh::remarks(&timings) {
        tracing::warn!("{remark}");
    }
    connected
}

/// Asks for the passphrase of each key file that has one, once, before any host is asked. Without
/// a terminal the logins that need them fail, and say so.
fn ask_passphrases(hosts: &[(&inventory::Host, FactsQuery)], surroundings: &Surroundings) {
    let keys = hosts.iter().flat_map(|(host, _)| {
        let jumps = host.ssh.jumps.iter().flat_map(|jump| &jump.keys);
        jumps.chain(&host.ssh.keys)
    });
    let terminal = console::Term::stderr();
    for key in surroundings.jumps.locked(keys) {
        let passphrase = match &surroundings.ssh_passphrase {
            Some(given) => given.clone(),
            None if terminal.features().is_attended() => {
                let prompt = format!("passphrase of {}: ", key.display());
                let asked = terminal.write_str(&prompt).and_then(|()| terminal.read_secure_line());
                let Ok(asked) = asked else { continue };
                Secret::new(asked)
            }
            None => continue,
        };
        surroundings.jumps.keep_passphrase(key, passphrase);
    }
}

/// Asks for the password of sudo, once a run. Without a terminal hosts that need it fail, and say so.
fn ask_sudo_password(surroundings: &Surroundings) {
    let terminal = console::Term::stderr();
    if surroundings.sudo_password.get().is_some() || !terminal.features().is_attended() {
        return;
    }
    let asked = terminal.write_str("password of sudo on the hosts: ");
    if let Ok(password) = asked.and_then(|()| terminal.read_secure_line()) {
        surroundings.sudo_password.get_or_init(|| Secret::new(password));
    }
}

fn one(
    host: &inventory::Host,
    known: &KnownHosts,
    query: &FactsQuery,
    asking: &Asking<'_>,
) -> Result<(Box<dyn Host>, Facts, Timing), HostError> {
    let (mut connection, timing) = match asking.source.local {
        true => (local::open(&host.name).map_err(HostError::Local)?, Timing::default()),
        false => {
            let password = asking.surroundings.sudo_password.get();
            let target = Target { sudo_password: password.cloned(), ..target(host) };
            ssh::connect(&target, known, &asking.surroundings.jumps)?
        }
    };
    let facts = match connection.facts(query, asking.lock) {
        Err(HostError::Facts(FactsError::Locked { owner }))
            if asking.force_unlock
                && asking.lock.is_none_or(|lock| !owner.starts_with(&lock.owner)) =>
        {
            connection.break_lock()?;
            tracing::warn!(host = host.name, owner, "took the lock away");
            connection.facts(query, asking.lock)?
        }
        answer => answer?,
    };
    Ok((connection, facts, timing))
}

/// Where and how to log in.
pub(super) fn target(host: &inventory::Host) -> Target {
    Target {
        name: host.name.clone(),
        address: ssh_address(host),
        port: host.ssh.port,
        user: host.ssh.user.clone(),
        keys: host.ssh.keys.clone(),
        agent: host.ssh.agent,
        sudo: host.ssh.sudo,
        sudo_password: None,
        policy: host.ssh.host_key_policy,
        host_key: host.ssh.host_key.clone(),
        jumps: host.ssh.jumps.clone(),
        connect_timeout: host.ssh.connect_timeout,
    }
}

/// Where the host's sshd is.
fn ssh_address(host: &inventory::Host) -> String {
    host.ssh.address.clone().unwrap_or_else(|| host.address.to_string())
}

/// Forgets the key of a host whose place another machine has taken. A file that the inventory names
/// is the operator's own, and one who compares keys by hand goes on doing so.
pub(super) fn forget_key(host: &inventory::Host, state_dir: &Path) -> Result<(), HostError> {
    if host.ssh.known_hosts.is_some() || host.ssh.host_key_policy == HostKeyPolicy::Strict {
        return Ok(());
    }
    let known = KnownHosts::open(&known_hosts_file(host, state_dir))?;
    known.forget(&ssh_address(host), host.ssh.port)
}

fn known_hosts_file(host: &inventory::Host, state_dir: &Path) -> PathBuf {
    host.ssh.known_hosts.clone().unwrap_or_else(|| state_dir.join("known_hosts"))
}

/// A failed connection is one more reason not to begin.
fn problem(host: &str, error: &HostError) -> Problem {
    let check = match error {
        HostError::Unreachable { .. } | HostError::Handshake { .. } | HostError::Lost { .. } => {
            UNREACHABLE
        }
        HostError::HostKeyChanged { .. }
        | HostError::HostKeyUnknown { .. }
        | HostError::HostKeyNotPinned { .. } => HOST_KEY,
        // Whatever is wrong with it, the hosts behind it may be well: they are not dead.
        HostError::Jump { .. } => "jump-host",
        HostError::Passphrase { .. } => "passphrase",
        HostError::KnownHosts { .. } => "known-hosts",
        HostError::Authentication { .. } => "authentication",
        HostError::Sudo { .. }
        | HostError::SudoPassword { .. }
        | HostError::Facts(FactsError::NotRoot { .. }) => "sudo",
        HostError::Facts(FactsError::Locked { .. } | FactsError::Busy) => "locked",
        _ => "facts",
    };
    let (host, message) = (host.to_owned(), crate::execute::chain(error));
    Problem { host, check, message, advice: error.advice() }
}
