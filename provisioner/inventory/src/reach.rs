//! How hosts are reached: the inventory's settings over those of ssh's own configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::diagnostics::Problem;
use super::document::{HostKeyPolicy, HostSettings, SshSection};
use super::resolve::Resolver;
use super::ssh_config::{HostConfig, SshConfig};
use crate::host_key::HostKey;

/// More jumps in a row are a circle.
const JUMPS_MAX: usize = 8;

/// The word for no configuration of ssh's own.
const NONE: &str = "none";

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Name or address where its sshd is, if not at the host's address.
    pub address: Option<String>,
    /// User to log in as.
    pub user: String,
    /// TCP port of sshd.
    pub port: u16,
    /// Private key files to try, in order.
    pub keys: Vec<PathBuf>,
    /// Whether to try all keys of the SSH agent.
    pub agent: bool,
    /// Whether commands run through sudo.
    pub sudo: bool,
    /// What to do about a host key not seen before.
    pub host_key_policy: HostKeyPolicy,
    /// The only key that the host may show.
    pub host_key: Option<HostKey>,
    /// Known host keys; `None` stands for `known_hosts` in the state directory.
    pub known_hosts: Option<PathBuf>,
    /// The hosts to go through, from the operator's machine on.
    pub jumps: Vec<Jump>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
}

/// A host that connections go through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Jump {
    /// Name or address, as the one before it knows it.
    pub address: String,
    /// TCP port of its sshd.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// Private key files to try, in order.
    pub keys: Vec<PathBuf>,
    /// Whether to try all keys of the SSH agent.
    pub agent: bool,
}

/// Checks settings of SSH where they are written.
pub(super) fn check(resolver: &mut Resolver<'_>, path: &[&str], ssh: &SshSection) {
    let at = |key: &'static str| [path, &["ssh", key]].concat();
    if let Some(key) = &ssh.key {
        let file = resolver.surroundings.path(key);
        if !(resolver.surroundings.is_file)(&file) {
            let message = format!("the key file {} does not exist", file.display());
            let help = format!("`ssh-keygen -t ed25519 -f {}` makes one", file.display());
            resolver.error(&at("key"), message, "no such file", &help);
        }
        if ssh.agent == Some(true) {
            let message = "`key` and `agent` are both given".to_owned();
            let help = "leave one of them out: a key with a passphrase is taken from the agent \
                        where that has it";
            resolver.error(&at("agent"), message, "which one?", help);
        }
    }
    if let Some(user) = &ssh.user
        && !is_user(user)
    {
        resolver.error(&at("user"), format!("`{user}` is no user name"), "not a name", "");
    }
    for (key, zero) in
        [("port", ssh.port == Some(0)), ("connect_timeout_s", ssh.connect_timeout_s == Some(0))]
    {
        if zero {
            resolver.error(&at(key), format!("`{key}` cannot be 0"), "must be at least 1", "");
        }
    }
    for (index, text) in ssh.jump.iter().flatten().enumerate() {
        if let Err(why) = parse_jump(text) {
            let (index, message) = (index.to_string(), format!("`{text}` is no jump host"));
            let path = [&at("jump")[..], &[&index]].concat();
            resolver.error(&path, message, why, "`USER@NAME:PORT`; user and port may be left out");
        }
    }
    if ssh.jump.as_ref().is_some_and(|jumps| jumps.len() > JUMPS_MAX) {
        let message = format!("more than {JUMPS_MAX} jump hosts");
        resolver.error(&at("jump"), message, "too many", "");
    }
}

fn is_user(user: &str) -> bool {
    !(user.is_empty() || user.starts_with('-') || user.contains([' ', ':', '@', '/']))
}

/// Takes `USER@NAME:PORT` apart.
fn parse_jump(text: &str) -> Result<(Option<&str>, &str, Option<u16>), &'static str> {
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, text),
    };
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| "not a port")?)),
        None => (rest, None),
    };
    if user.is_some_and(|user| !is_user(user)) {
        return Err("not a user name");
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(is_name) {
        return Err("not a name or an IPv4 address");
    }
    if port == Some(0) {
        return Err("not a port");
    }
    Ok((user, name, port))
}

/// Makes the hosts' settings; keeps what it has read of ssh's own configuration.
#[derive(Default)]
pub(super) struct Reach {
    configs: BTreeMap<PathBuf, SshConfig>,
    /// Said already: once is enough for a thousand hosts.
    told: BTreeSet<String>,
}

impl Reach {
    /// How the host `name` is reached; `layers` are its settings, nearest first.
    pub(super) fn of(
        &mut self,
        resolver: &mut Resolver<'_>,
        layers: &[HostSettings],
        (name, address): (&str, Ipv4Addr),
        host_key: Option<HostKey>,
    ) -> Ssh {
        let home = resolver.surroundings.home.clone();
        let address = address.to_string();
        let config = self.config(resolver, layers);
        let own = config.of(&[name, &address], &address, "root", home.as_deref());
        let user = first(layers, |s| s.user.clone()).or_else(|| own.user.clone());
        let user = user.unwrap_or_else(|| "root".to_owned());
        let (keys, agent) = auth(resolver, layers, &own);
        let jumps = first(layers, |s| s.jump.clone());
        if jumps.is_none() && own.proxy_command {
            let message = format!("`ProxyCommand` of ssh's configuration is not used for `{name}`");
            self.warn(resolver, message, "use ProxyJump there, or `jump` in [ssh]");
        }
        let given = jumps.is_some();
        let jumps = jumps.or_else(|| own.proxy_jump.clone()).unwrap_or_default();
        let jumps = self.jumps(resolver, &config, &jumps, given, (&user, &keys, agent));
        let known_hosts =
            first(layers, |s| s.known_hosts.as_deref().map(|k| resolver.surroundings.path(k)));
        Ssh {
            address: own.host_name.filter(|host| *host != address),
            sudo: first(layers, |s| s.sudo).unwrap_or(user != "root"),
            user,
            port: first(layers, |s| s.port).or(own.port).unwrap_or(22),
            keys,
            agent,
            host_key_policy: first(layers, |s| s.host_key_policy)
                .unwrap_or(HostKeyPolicy::AcceptNew),
            host_key,
            known_hosts: known_hosts.or(own.user_known_hosts_file),
            jumps,
            connect_timeout: Duration::from_secs(
                first(layers, |s| s.connect_timeout_s).unwrap_or(10).into(),
            ),
        }
    }

    /// The configuration that the layers name, or the one in its usual place.
    fn config(&mut self, resolver: &mut Resolver<'_>, layers: &[HostSettings]) -> SshConfig {
        let named = first(layers, |s| s.config.clone());
        if named.as_deref() == Some(NONE) {
            return SshConfig::default();
        }
        let usual = || resolver.surroundings.home.as_ref().map(|home| home.join(".ssh/config"));
        let path = match &named {
            Some(named) => resolver.surroundings.path(named),
            None => match usual().filter(|path| (resolver.surroundings.is_file)(path)) {
                Some(path) => path,
                None => return SshConfig::default(),
            },
        };
        if let Some(config) = self.configs.get(&path) {
            return config.clone();
        }
        let config = match (resolver.surroundings.ssh_config)(&path) {
            Ok(config) => config,
            Err(error) => {
                let message =
                    format!("cannot read ssh's configuration {}: {error}", path.display());
                let problem = Problem::error(message);
                resolver.problems.push(problem.help("`config = \"none\"` in [ssh] does without"));
                SshConfig::default()
            }
        };
        for note in &config.notes {
            self.warn(resolver, note.clone(), "kprov knows Host, Include and `Match all`");
        }
        self.configs.insert(path, config.clone());
        config
    }

    /// The jumps in full; `given` when the inventory names them. As with ssh itself, the first one may be behind others by its own
    /// configuration.
    fn jumps(
        &mut self,
        resolver: &mut Resolver<'_>,
        config: &SshConfig,
        names: &[String],
        given: bool,
        (user, keys, agent): (&str, &[PathBuf], bool),
    ) -> Vec<Jump> {
        let home = resolver.surroundings.home.clone();
        let own = |name: &str, user: &str| config.of(&[name], name, user, home.as_deref());
        let mut names = names.to_vec();
        while let Some((_, first, _)) = names.first().and_then(|text| parse_jump(text).ok()) {
            let before = own(first, user).proxy_jump.unwrap_or_default();
            if before.is_empty() {
                break;
            }
            names.splice(0..0, before);
            if names.len() > JUMPS_MAX {
                let message = "the jump hosts of ssh's configuration go in a circle".to_owned();
                self.error(resolver, message, "see ProxyJump there, or say `jump` in [ssh]");
                return Vec::new();
            }
        }
        let mut jumps = Vec::new();
        for text in &names {
            let Ok((own_user, name, port)) = parse_jump(text) else {
                // What the inventory says was told at its place.
                if given {
                    return Vec::new();
                }
                let message = format!("`{text}` of ssh's configuration is no jump host");
                self.error(resolver, message, "`USER@NAME:PORT`; user and port may be left out");
                return Vec::new();
            };
            let own = own(name, own_user.unwrap_or(user));
            let (keys, agent) = match existing(resolver, &own) {
                own_keys if own_keys.is_empty() => (keys.to_vec(), agent),
                own_keys => (own_keys, !own.identities_only),
            };
            jumps.push(Jump {
                address: own.host_name.unwrap_or_else(|| name.to_owned()),
                port: port.or(own.port).unwrap_or(22),
                user: own_user.map(str::to_owned).or(own.user).unwrap_or_else(|| user.to_owned()),
                keys,
                agent,
            });
        }
        jumps
    }

    fn error(&mut self, resolver: &mut Resolver<'_>, message: String, help: &str) {
        if self.told.insert(message.clone()) {
            resolver.problems.push(Problem::error(message).help(help));
        }
    }

    fn warn(&mut self, resolver: &mut Resolver<'_>, message: String, help: &str) {
        if self.told.insert(message.clone()) {
            resolver.problems.push(Problem::warning(message).help(help));
        }
    }
}

/// `key` and `agent` exclude each other: the nearest layer that has one of them decides. Where none
/// has, ssh's own configuration does.
fn auth(
    resolver: &Resolver<'_>,
    layers: &[HostSettings],
    own: &HostConfig,
) -> (Vec<PathBuf>, bool) {
    let given = layers.iter().find_map(|l| match (&l.ssh.key, l.ssh.agent) {
        (Some(key), _) => Some((vec![resolver.surroundings.path(key)], false)),
        (None, Some(true)) => Some((Vec::new(), true)),
        (None, _) => None,
    });
    given.unwrap_or_else(|| {
        let keys = existing(resolver, own);
        let agent = keys.is_empty() || !own.identities_only;
        (keys, agent)
    })
}

/// A configuration may name keys that are on other machines of the operator's.
fn existing(resolver: &Resolver<'_>, own: &HostConfig) -> Vec<PathBuf> {
    let files = own.identity_files.iter();
    files.filter(|file| (resolver.surroundings.is_file)(file)).cloned().collect()
}

/// The nearest setting.
fn first<T>(layers: &[HostSettings], get: impl Fn(&SshSection) -> Option<T>) -> Option<T> {
    layers.iter().find_map(|l| get(&l.ssh))
}
