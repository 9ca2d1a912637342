//! Where the hosts of a cluster were last reached.
//!
//! A host that leaves the inventory leaves its address with it. This file of the state directory
//! keeps both, so that the host can still be drained and reset.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::inventory::{Host, HostKeyPolicy, Inventory, Jump, Role, Ssh, System};

/// The file within the state directory.
pub const FILE: &str = "hosts.json";

/// The format that this version writes; a newer one is refused.
const FORMAT: u32 = 1;

/// The hosts of a cluster as they were last reached, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastKnown {
    format: u32,
    hosts: BTreeMap<String, KnownHost>,
    /// Whether addons were brought in, so that what has left the inventory is looked for.
    #[serde(default)]
    pub addons: bool,
}

/// How a host was last reached, and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownHost {
    address: Ipv4Addr,
    roles: BTreeSet<String>,
    user: String,
    port: u16,
    /// Where its sshd is, if not at the address.
    #[serde(default)]
    ssh_address: Option<String>,
    #[serde(default)]
    keys: Vec<PathBuf>,
    #[serde(default)]
    agent: bool,
    #[serde(default)]
    host_key: Option<String>,
    #[serde(default)]
    jumps: Vec<Jump>,
    sudo: bool,
    strict: bool,
    known_hosts: Option<PathBuf>,
    connect_timeout_s: u64,
}

/// Why the hosts of old are not known.
#[derive(Debug, thiserror::Error)]
pub enum LastKnownError {
    /// The file cannot be read or written.
    #[error("cannot {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its content is not ours.
    #[error("{} is damaged or of a newer kprov: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl LastKnown {
    /// Reads the file of `state_dir`; without one, no host is known.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn read(state_dir: &Path) -> Result<Self, LastKnownError> {
        let path = state_dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { format: FORMAT, hosts: BTreeMap::new(), addons: false });
            }
            Err(source) => return Err(LastKnownError::File { act: "read", path, source }),
        };
        let why = match serde_json::from_str::<Self>(&text) {
            Ok(known) if known.format == FORMAT => return Ok(known),
            Ok(known) => format!("format {}", known.format),
            Err(error) => error.to_string(),
        };
        Err(LastKnownError::Content { path, why })
    }

    /// Writes the file, as a whole or not at all; one that would not change is left alone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state_dir: &Path) -> Result<(), LastKnownError> {
        let path = state_dir.join(FILE);
        let text = serde_json::to_string_pretty(self).expect("hosts have only string keys");
        let now = fs::read_to_string(&path).ok();
        if now.as_ref() == Some(&text) || (now.is_none() && self.hosts.is_empty() && !self.addons) {
            return Ok(());
        }
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| LastKnownError::File { act: "write", path: path.clone(), source })
    }

    /// Remembers a host as the inventory has it.
    pub fn remember(&mut self, host: &Host) {
        let absolute = |keys: &[PathBuf]| -> Vec<PathBuf> {
            keys.iter().filter_map(|key| std::path::absolute(key).ok()).collect()
        };
        let jumps = host.ssh.jumps.iter();
        let jumps = jumps.map(|jump| Jump { keys: absolute(&jump.keys), ..jump.clone() });
        let known_hosts = host.ssh.known_hosts.as_ref().map(std::path::absolute);
        let known = KnownHost {
            address: host.address,
            roles: host.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            user: host.ssh.user.clone(),
            port: host.ssh.port,
            ssh_address: host.ssh.address.clone(),
            keys: absolute(&host.ssh.keys),
            agent: host.ssh.agent,
            host_key: host.ssh.host_key.as_ref().map(ToString::to_string),
            jumps: jumps.collect(),
            sudo: host.ssh.sudo,
            strict: host.ssh.host_key_policy == HostKeyPolicy::Strict,
            known_hosts: known_hosts.and_then(Result::ok),
            connect_timeout_s: host.ssh.connect_timeout.as_secs(),
        };
        self.hosts.insert(host.name.clone(), known);
    }

    /// Forgets a host that is ours no more.
    pub fn forget(&mut self, name: &str) {
        self.hosts.remove(name);
    }

    /// The known hosts that `inventory` no longer has, sorted by name. One whose address has gone
    /// to a host of another name is not among them: it was renamed, or its machine is in use.
    #[must_use]
    pub fn departed(&self, inventory: &Inventory) -> Vec<Host> {
        let in_use = |host: &KnownHost| {
            inventory.hosts.iter().any(|h| (h.address, h.ssh.port) == (host.address, host.port))
        };
        (self.hosts.iter())
            .filter(|(name, host)| inventory.host(name).is_none() && !in_use(host))
            .map(|(name, host)| host.host(name))
            .collect()
    }
}

impl KnownHost {
    fn host(&self, name: &str) -> Host {
        let all = [Role::Etcd, Role::Master, Role::Node];
        Host {
            name: name.to_owned(),
            address: self.address,
            roles: all.into_iter().filter(|role| self.roles.contains(role.as_str())).collect(),
            groups: BTreeSet::new(),
            labels: BTreeMap::new(),
            taints: BTreeSet::new(),
            ssh: Ssh {
                user: self.user.clone(),
                port: self.port,
                address: self.ssh_address.clone(),
                keys: self.keys.clone(),
                agent: self.agent,
                host_key: self.host_key.as_ref().and_then(|key| key.parse().ok()),
                jumps: self.jumps.clone(),
                sudo: self.sudo,
                host_key_policy: match self.strict {
                    true => HostKeyPolicy::Strict,
                    false => HostKeyPolicy::AcceptNew,
                },
                known_hosts: self.known_hosts.clone(),
                connect_timeout: Duration::from_secs(self.connect_timeout_s),
            },
            system: System::untouched(),
            max_pods: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(nodes: &str) -> Inventory {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("c.toml");
        let text = format!(
            "[cluster]\nname = \"c\"\n[ssh]\nuser = \"ops\"\n\
             jump = [\"in@edge:2200\"]\n\
             [[hosts]]\nname = \"m\"\naddress = \"10.0.0.1\"\nroles = [\"etcd\", \"master\"]\n\
             {nodes}"
        );
        fs::write(&path, text).unwrap();
        crate::inventory::load(&path).unwrap()
    }

    fn node(name: &str, address: &str) -> String {
        format!("[[hosts]]\nname = \"{name}\"\naddress = \"{address}\"\nroles = [\"node\"]\n")
    }

    #[test]
    fn a_host_that_left_is_known_until_it_is_forgotten() {
        let before = inventory(&(node("a", "10.0.0.2") + &node("b", "10.0.0.3")));
        let scratch = tempfile::tempdir().unwrap();
        let mut known = LastKnown::read(scratch.path()).unwrap();
        assert_eq!(known.departed(&before), []);
        before.hosts.iter().for_each(|host| known.remember(host));
        known.write(scratch.path()).unwrap();
        let mut known = LastKnown::read(scratch.path()).unwrap();
        let after = inventory(&node("b", "10.0.0.3"));
        let gone = known.departed(&after);
        assert_eq!(gone.len(), 1);
        let was = before.host("a").unwrap();
        assert_eq!((&gone[0].name, gone[0].address), (&was.name, was.address));
        assert_eq!((&gone[0].roles, &gone[0].ssh), (&was.roles, &was.ssh));
        // A host of another name at the same address is the same machine: only `b` has left.
        let renamed = known.departed(&inventory(&node("c", "10.0.0.2")));
        assert_eq!(renamed.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["b"]);
        known.forget("a");
        assert_eq!(known.departed(&after), []);
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        for text in ["{", "{\"format\": 2, \"hosts\": {}}"] {
            fs::write(scratch.path().join(FILE), text).unwrap();
            assert!(LastKnown::read(scratch.path()).is_err(), "{text}");
        }
    }
}
