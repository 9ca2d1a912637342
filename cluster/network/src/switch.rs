//! The tunnels of Open vSwitch, as data: what its database should hold, the one transaction that
//! gets it there, and the flows by which the switch forwards.
//!
//! The switch learns nothing and floods nothing. A frame of this host goes into the tunnel of the
//! node that its hardware address names, a frame from a tunnel goes to this host, and nothing else
//! is forwarded: what comes in by one tunnel never leaves by another, so that a full mesh of them
//! has no loops. Without flows, which a restart of the switch forgets, it forwards nothing at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::overlay_rules::Mac;

#[cfg(test)]
mod tests;

/// The bridge of the tunnels. Its own port of that name is a port of the bridge of pods.
pub const BRIDGE: &str = "obr0";
/// The bridge by which packets of tunnels leave a switch that is a program: it sends and receives
/// them on ports of its own only, and the host's address stays where it is.
pub const UPLINK: &str = "obu0";
/// The port of that bridge behind which the kernel is.
pub const UPLINK_PORT: &str = "obu1";
/// What tunnels have as their own address there; the kernel turns it into the host's.
pub const INNER: Ipv4Addr = Ipv4Addr::new(169, 254, 47, 1);
/// The kernel's address on the other side.
pub const INNER_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 47, 2);
/// The length of the prefix of the network that both are in.
pub const INNER_PREFIX: u8 = 30;
/// The hardware address of [`UPLINK`], which the kernel is told instead of asking for it.
pub const UPLINK_MAC: Mac = Mac([0x0a, 0x58, 169, 254, 47, 1]);

/// What marks rows of the database as ours, in `external_ids`.
const MARK: (&str, &str) = ("kprov", "overlay");
/// What the names of tunnels begin with.
const TUNNEL: &str = "gre";
/// How many tunnels a bridge can have, by the numbers of OpenFlow 1.0.
const TUNNELS_MAX: u16 = 0xff00 - 1;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// The kernel, by its module `openvswitch`.
    System,
    /// `ovs-vswitchd` itself, where the kernel has no such module. Slower by far.
    Netdev,
}

impl Datapath {
    /// The `datapath_type` of a bridge.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Netdev => "netdev",
        }
    }
}

/// A tunnel to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// This host's address as the other one knows it; `None` where the kernel puts it in.
    pub local: Option<Ipv4Addr>,
    /// The other host.
    pub remote: Ipv4Addr,
}

/// What the switch holds of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    /// Who forwards for [`BRIDGE`]; `None` where there is no such bridge.
    pub datapath: Option<Datapath>,
    /// Whether there is the bridge [`UPLINK`].
    pub uplink: bool,
    /// Tunnels by number: that of number 0 is the port `gre0`, which flows know as port 1.
    pub tunnels: BTreeMap<u16, Tunnel>,
    /// Numbers whose names others have taken.
    pub taken: BTreeSet<u16>,
    /// What the switch says it could not set up.
    pub troubles: Vec<String>,
}

/// Why the answer of `ovs-vsctl` is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not what was asked for.
    #[error("ovs-vsctl answered what is no list of bridges and interfaces")]
    Unreadable,
    /// A bridge has our name and not our mark.
    #[error(
        "there is a bridge {0} of Open vSwitch that kprov has not made; remove it \
         (`ovs-vsctl del-br {0}`) or use another backend"
    )]
    Foreign(String),
}

/// What `ovs-vsctl` must be asked for [`Switch::read`].
pub const QUESTION: [&str; 8] = [
    "--format=json",
    "--columns=name,external_ids,datapath_type,fail_mode",
    "list",
    "Bridge",
    "--",
    "--columns=name,external_ids,options,error",
    "list",
    "Interface",
];

impl Switch {
    /// Reads the answer to [`QUESTION`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(answer: &str) -> Result<Self, ReadError> {
        let mut tables = serde_json::Deserializer::from_str(answer).into_iter::<Value>();
        let mut table = || rows(tables.next()?.ok()?);
        let bridges = table().ok_or(ReadError::Unreadable)?;
        let interfaces = table().ok_or(ReadError::Unreadable)?;
        let mut switch = Self::default();
        for row in bridges {
            let [name, marks, datapath, fail_mode] = row;
            let name = name.as_str().unwrap_or_default();
            if ![BRIDGE, UPLINK].contains(&name) {
                continue;
            }
            if entry(&marks, MARK.0) != Some(MARK.1) {
                return Err(ReadError::Foreign(name.to_owned()));
            }
            if name == UPLINK {
                switch.uplink = true;
            } else if fail_mode == "secure" {
                let of_program = datapath.as_str() == Some(Datapath::Netdev.name());
                switch.datapath =
                    Some(if of_program { Datapath::Netdev } else { Datapath::System });
            }
        }
        for row in interfaces {
            let [name, marks, options, error] = row;
            let is_ours = entry(&marks, MARK.0) == Some(MARK.1)
                || [BRIDGE, UPLINK, UPLINK_PORT].iter().any(|ours| name == *ours);
            if let (true, Some(error), Some(name)) = (is_ours, error.as_str(), name.as_str()) {
                switch.troubles.push(format!("{name}: {error}"));
            }
            let number = name.as_str().and_then(|name| name.strip_prefix(TUNNEL)?.parse().ok());
            let Some(number) = number else { continue };
            let address = |key| entry(&options, key).and_then(|text| text.parse().ok());
            match address("remote_ip") {
                Some(remote) if is_ours => {
                    let tunnel = Tunnel { local: address("local_ip"), remote };
                    switch.tunnels.insert(number, tunnel);
                }
                _ => _ = switch.taken.insert(number),
            }
        }
        Ok(switch)
    }

    /// What should be there instead: a tunnel to each of `peers` from the host `own`. Tunnels that
    /// stay keep their numbers; new ones get the lowest that are free.
    pub fn desired(&self, datapath: Datapath, own: Ipv4Addr, peers: &BTreeSet<Ipv4Addr>) -> Self {
        let local = (datapath == Datapath::System).then_some(own);
        let mut missing = peers.clone();
        let mut tunnels = BTreeMap::new();
        for (number, there) in &self.tunnels {
            if missing.remove(&there.remote) {
                tunnels.insert(*number, Tunnel { local, remote: there.remote });
            }
        }
        let mut free = (0..TUNNELS_MAX).filter(|n| !self.taken.contains(n));
        for remote in missing {
            let Some(number) = free.find(|number| !tunnels.contains_key(number)) else { break };
            tunnels.insert(number, Tunnel { local, remote });
        }
        Self {
            datapath: Some(datapath),
            uplink: datapath == Datapath::Netdev,
            tunnels,
            taken: self.taken.clone(),
            troubles: Vec::new(),
        }
    }

    /// The arguments by which `ovs-vsctl` turns this into `desired`, all at once or not at all;
    /// none where nothing changes.
    pub fn transaction(&self, desired: &Self) -> Vec<String> {
        let mut commands: Vec<String> = Vec::new();
        let mark = format!("external_ids:{}={}", MARK.0, MARK.1);
        if self.uplink && !desired.uplink {
            commands.push(format!("--if-exists del-br {UPLINK}"));
        }
        if let Some(datapath) = desired.datapath.filter(|_| self.datapath != desired.datapath) {
            commands.push(format!("--may-exist add-br {BRIDGE}"));
            let datapath = datapath.name();
            // Secure: without flows it forwards nothing, instead of flooding.
            commands.push(format!(
                "set Bridge {BRIDGE} datapath_type={datapath} fail_mode=secure {mark}"
            ));
        }
        if desired.uplink && !self.uplink {
            let datapath = Datapath::Netdev.name();
            commands.push(format!("--may-exist add-br {UPLINK}"));
            commands.push(format!(
                "set Bridge {UPLINK} datapath_type={datapath} \
                 other_config:hwaddr=\"{UPLINK_MAC}\" {mark}"
            ));
            commands.push(format!("--may-exist add-port {UPLINK} {UPLINK_PORT}"));
            commands.push(format!("set Interface {UPLINK_PORT} type=internal"));
        }
        for number in self.tunnels.keys().filter(|n| !desired.tunnels.contains_key(n)) {
            commands.push(format!("--if-exists del-port {BRIDGE} {TUNNEL}{number}"));
        }
        for (number, tunnel) in &desired.tunnels {
            if self.tunnels.get(number) == Some(tunnel) {
                continue;
            }
            let local = match tunnel.local {
                Some(local) => format!("options:local_ip={local} "),
                None => String::new(),
            };
            let (remote, port) = (tunnel.remote, port_of(*number));
            commands.push(format!("--may-exist add-port {BRIDGE} {TUNNEL}{number}"));
            commands.push(format!(
                "set Interface {TUNNEL}{number} type=gre {local}options:remote_ip={remote} \
                 ofport_request={port} {mark}"
            ));
        }
        let text = commands.join(" -- ");
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// The flows of [`BRIDGE`], as `ovs-ofctl replace-flows` reads them.
    pub fn flows(&self) -> String {
        let mut text = String::new();
        for (number, tunnel) in &self.tunnels {
            let (port, mac) = (port_of(*number), Mac::of_host(tunnel.remote));
            let _ = writeln!(text, "priority=2,in_port=LOCAL,dl_dst={mac},actions=output:{port}");
            let _ = writeln!(text, "priority=1,in_port={port},actions=LOCAL");
        }
        text
    }

    /// The hosts at the other ends.
    pub fn remotes(&self) -> BTreeSet<Ipv4Addr> {
        self.tunnels.values().map(|tunnel| tunnel.remote).collect()
    }
}

/// The arguments by which `ovs-vsctl` removes all of it, tunnels included.
pub const REMOVAL: [&str; 7] =
    ["--if-exists", "del-br", BRIDGE, "--", "--if-exists", "del-br", UPLINK];

/// The number by which flows know a tunnel.
const fn port_of(number: u16) -> u16 {
    number + 1
}

/// The hosts to which packets of tunnels leave by [`UPLINK`], from `ovs-appctl ovs/route/show`.
pub fn routed(answer: &str) -> BTreeSet<Ipv4Addr> {
    let of_line = |line: &str| {
        let words: Vec<&str> = line.strip_prefix("User: ")?.split_whitespace().collect();
        let by_uplink = words.windows(2).any(|pair| pair == ["dev", UPLINK]);
        words.first()?.strip_suffix("/32")?.parse().ok().filter(|_| by_uplink)
    };
    answer.lines().filter_map(of_line).collect()
}

/// The rows of a table of `ovs-vsctl`, in the columns that were asked for.
fn rows(table: Value) -> Option<Vec<[Value; 4]>> {
    let Value::Object(mut table) = table else { return None };
    let Some(Value::Array(rows)) = table.remove("data") else { return None };
    let four = |row| match row {
        Value::Array(cells) => <[Value; 4]>::try_from(cells).ok(),
        _ => None,
    };
    rows.into_iter().map(four).collect()
}

/// The text of a map of OVSDB (RFC 7047: `["map", [[key, value], …]]`) under `key`.
fn entry<'a>(map: &'a Value, key: &str) -> Option<&'a str> {
    let pairs = map.get(1)?.as_array()?;
    pairs.iter().find(|pair| pair[0] == key)?.get(1)?.as_str()
}
