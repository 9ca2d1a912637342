//! From what hosts have back to what the operator had: inventory, certificates, keys.
//!
//! Pure: texts of hosts in, texts of the operator's machine out. What only the operator ever had is
//! said: comments and groups of the inventory, further flags of components, the key of etcd's
//! authority.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use crate::compose::ROTATION_NOTE;
use crate::etcd::births::Births;
use crate::inventory::API_SERVER_PORT;
use crate::pki::{Adopted, LeafKind};
use crate::record::Record;
use crate::secret::Secret;

const ETCD_ENV: &str = "/etc/etcd/etcd.env";
const API_SERVER_ENV: &str = "/etc/kubernetes/kube-apiserver.env";
const CONTROLLER_MANAGER_ENV: &str = "/etc/kubernetes/kube-controller-manager.env";
const KUBELET_ENV: &str = "/etc/kubernetes/kubelet.env";
/// Where a balancer on the host is told of the masters.
const UPSTREAMS: &str = "/etc/kubernetes/apiserver-proxy.upstreams";
/// What asks a balancer on the host itself.
const LOOPBACK: &str = "127.0.0.1";
const KUBELET_YAML: &str = "/etc/kubernetes/kubelet.yaml";
const FLANNELD_ENV: &str = "/etc/kubernetes/flanneld.env";
const KUBE_PROXY_YAML: &str = "/etc/kubernetes/kube-proxy.yaml";
const TOKENS: &str = "/etc/kubernetes/token.csv";
const PKI: &str = "/etc/kubernetes/pki";

/// What one host has.
#[derive(Debug)]
pub struct Seen {
    /// The address it was reached at.
    pub address: String,
    /// What kprov owns there.
    pub record: Record,
    /// The texts of its files, by path.
    pub texts: BTreeMap<String, String>,
}

/// How hosts are reached, for the inventory.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The user to log in as.
    pub user: String,
    /// The port of sshd.
    pub port: u16,
    /// The private key file, as it was named.
    pub key: Option<String>,
}

/// What can be made of the hosts.
#[derive(Debug)]
pub struct Rebuilt {
    /// The cluster's name.
    pub cluster: String,
    /// The inventory (TOML).
    pub inventory: String,
    /// Certificates and keys.
    pub adopted: Adopted,
    /// What the members of etcd were told.
    pub births: Births,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Why nothing can be made of the hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// They are not one cluster's.
    #[error("{one} belongs to the cluster {first}, {other} to {second}")]
    TwoClusters {
        /// A host.
        one: String,
        /// Its cluster.
        first: String,
        /// Another host.
        other: String,
        /// Its cluster.
        second: String,
    },
    /// Something that only hosts of one role have is on none of them.
    #[error("none of the hosts has {what}")]
    Missing {
        /// What and where.
        what: String,
    },
    /// Two authorities are trusted, and only the operator knew how far that has come.
    #[error("{host} is in the middle of a rotation of authorities")]
    Rotating {
        /// The host.
        host: String,
    },
}

/// The files to read from a host.
#[must_use]
pub fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        ETCD_ENV,
        API_SERVER_ENV,
        CONTROLLER_MANAGER_ENV,
        KUBELET_ENV,
        UPSTREAMS,
        KUBELET_YAML,
        FLANNELD_ENV,
        KUBE_PROXY_YAML,
        TOKENS,
        ROTATION_NOTE,
        "/etc/etcd/pki/ca.crt",
    ]
    .map(str::to_owned)
    .into();
    paths.extend(["ca.crt", "ca.key", "etcd-ca.crt", "sa.key"].map(|name| format!("{PKI}/{name}")));
    for stem in LeafKind::ALL.into_iter().filter_map(LeafKind::path) {
        paths.extend([format!("{stem}.crt"), format!("{stem}.key")]);
    }
    paths
}

/// Makes inventory and keys of what the hosts have.
///
/// # Errors
/// When the hosts are of several clusters, or none of them is a master and none has etcd.
pub fn rebuild(seen: &[Seen], reached: &Reached) -> Result<Rebuilt, ImportError> {
    let first = seen.first().ok_or(ImportError::Missing { what: "anything".to_owned() })?;
    for other in seen {
        if other.record.cluster != first.record.cluster {
            return Err(ImportError::TwoClusters {
                one: first.address.clone(),
                first: first.record.cluster.clone(),
                other: other.address.clone(),
                second: other.record.cluster.clone(),
            });
        }
        if other.texts.contains_key(ROTATION_NOTE) {
            return Err(ImportError::Rotating { host: other.record.host.clone() });
        }
    }
    let environments: BTreeMap<_, _> = (seen.iter())
        .filter_map(|host| Some((host.record.host.clone(), host.texts.get(ETCD_ENV)?.clone())))
        .collect();
    let mut notes = vec![
        "comments, groups, artifacts and further flags of components were only in the inventory"
            .to_owned(),
        "the key of etcd's authority is on no host: `kprov certs rotate-ca --authority etcd` \
         replaces that authority before its certificates are due"
            .to_owned(),
    ];
    notes.extend(unseen(seen));
    Ok(Rebuilt {
        cluster: first.record.cluster.clone(),
        inventory: inventory(seen, reached),
        adopted: adopted(seen)?,
        births: Births::from_environments(&environments),
        notes,
    })
}

fn adopted(seen: &[Seen]) -> Result<Adopted, ImportError> {
    let any = |path: &str| {
        let found = seen.iter().find_map(|host| host.texts.get(path).cloned());
        found.ok_or_else(|| ImportError::Missing { what: path.to_owned() })
    };
    let tokens = any(TOKENS)?;
    let token = tokens.split(',').next().unwrap_or_default();
    let etcd_ca = any("/etc/etcd/pki/ca.crt").or_else(|_| any(&format!("{PKI}/etcd-ca.crt")))?;
    let mut leaves = BTreeMap::new();
    for host in seen {
        for kind in LeafKind::ALL {
            let Some(stem) = kind.path() else { continue };
            let text = |end: &str| host.texts.get(&format!("{stem}.{end}")).cloned();
            if let (Some(cert), Some(key)) = (text("crt"), text("key")) {
                leaves.insert(kind.id(&host.record.host), (cert, Secret::new(key)));
            }
        }
    }
    Ok(Adopted {
        cluster_ca: (any(&format!("{PKI}/ca.crt"))?, Secret::new(any(&format!("{PKI}/ca.key"))?)),
        etcd_ca,
        service_account_key: Secret::new(any(&format!("{PKI}/sa.key"))?),
        bootstrap_token: Secret::new(format!("{token}\n")),
        leaves,
    })
}

/// Hosts that others speak of and that nobody named.
fn unseen(seen: &[Seen]) -> Option<String> {
    let known: BTreeSet<&str> = seen.iter().map(|host| host.address.as_str()).collect();
    let mut spoken = BTreeSet::new();
    for host in seen {
        let text = |path: &str| host.texts.get(path).map_or("", String::as_str);
        let etcd = crate::etcd::births::told_by(text(ETCD_ENV)).unwrap_or_default();
        let etcd = etcd.split(',').filter_map(|pair| pair.split_once('='));
        let asked = api_of(text(KUBELET_ENV)).filter(|url| external(url).is_none());
        let urls = etcd.map(|(_, url)| url).chain(asked);
        let addresses = urls.filter_map(|url| url.strip_prefix("https://")?.split(':').next());
        let listed = text(UPSTREAMS).lines().filter(|line| !line.starts_with('#'));
        let listed = listed.filter_map(|line| line.split(':').next());
        spoken.extend(addresses.chain(listed).map(str::to_owned));
    }
    spoken.retain(|address| address != LOOPBACK && !known.contains(address.as_str()));
    let names = spoken.into_iter().collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("masters or members of etcd that were not named: {names}"))
}

/// The base address by which a kubelet reaches the API.
fn api_of(kubelet: &str) -> Option<&str> {
    flag(kubelet, "api-servers")
}

/// `NAME:PORT` of a balancer of the operator's own. One that looks like a master, an address with
/// the port of an API server, cannot be told from a master that was not named.
fn external(url: &str) -> Option<&str> {
    let at = url.strip_prefix("https://")?;
    let (name, port) = at.rsplit_once(':')?;
    let master = name.parse::<std::net::Ipv4Addr>().is_ok() && port == API_SERVER_PORT.to_string();
    (!master && name != LOOPBACK).then_some(at)
}

fn inventory(seen: &[Seen], reached: &Reached) -> String {
    let mut out = "# Made by kprov import.\n\n[cluster]\n".to_owned();
    let any =
        |path: &str| seen.iter().find_map(|host| host.texts.get(path)).map_or("", String::as_str);
    let (api, manager) = (any(API_SERVER_ENV), any(CONTROLLER_MANAGER_ENV));
    let (kubelet, flanneld) = (any(KUBELET_ENV), any(FLANNELD_ENV));
    let config = yaml(any(KUBELET_YAML));
    let text = |key: &str, value: Option<&str>| {
        value.map(|value| format!("{key} = {}\n", quoted(value))).unwrap_or_default()
    };
    let bare = |key: &str, value: Option<&str>| {
        value.map(|value| format!("{key} = {value}\n")).unwrap_or_default()
    };
    out += &text("name", Some(&seen[0].record.cluster));
    out += &text("domain", config["clusterDomain"].as_str());
    out += &text("pod_cidr", flag(manager, "cluster-cidr").or_else(|| flag(flanneld, "network")));
    out += &text("service_cidr", flag(api, "service-cluster-ip-range"));
    out += &text("dns_address", config["clusterDNS"][0].as_str());
    out += &bare("node_cidr_mask", flag(manager, "node-cidr-mask-size"));
    out += &text("node_ports", flag(api, "service-node-port-range"));
    out += &text("pause_image", flag(kubelet, "pod-infra-container-image"));
    out += "\n[network]\n";
    out += &text("backend", flag(flanneld, "backend"));
    out += &bare("mtu", flag(flanneld, "mtu"));
    out += &bare("masquerade", flag(flanneld, "ip-masq"));
    let mode = yaml(any(KUBE_PROXY_YAML))["mode"].as_str().map(str::to_owned);
    out += &text("proxy_mode", mode.as_deref().filter(|mode| !mode.is_empty()));
    let mut asked = seen.iter().filter_map(|host| api_of(host.texts.get(KUBELET_ENV)?));
    if let Some(balancer) = asked.find_map(external) {
        out += "\n[load_balancer]\n";
        out += &text("address", Some(balancer));
    }
    out += "\n[ssh]\n";
    out += &text("user", Some(&reached.user));
    out += &bare("port", Some(&reached.port.to_string()));
    out += &text("key", reached.key.as_deref());
    let mut hosts: Vec<_> = seen.iter().collect();
    hosts.sort_by(|a, b| a.record.host.cmp(&b.record.host));
    for host in hosts {
        out += &host_section(host);
    }
    out
}

fn host_section(host: &Seen) -> String {
    let roles = [("etcd", "etcd"), ("kube-apiserver", "master"), ("kubelet", "node")];
    let has = |unit: &str| host.record.unit(&format!("{unit}.service")).is_some();
    let roles = roles.iter().filter(|(unit, _)| has(unit)).map(|(_, role)| quoted(role));
    let roles = roles.collect::<Vec<_>>().join(", ");
    let (name, address) = (quoted(&host.record.host), quoted(&host.address));
    let mut out = format!("\n[[hosts]]\nname = {name}\naddress = {address}\nroles = [{roles}]\n");
    let text = |path: &str| host.texts.get(path).map_or("", String::as_str);
    let kubelet = text(KUBELET_ENV);
    if let Some(max_pods) = yaml(text(KUBELET_YAML))["maxPods"].as_u64() {
        let _ = writeln!(out, "max_pods = {max_pods}");
    }
    if let Some(taints) = flag(kubelet, "register-with-taints") {
        let taints = taints.split(',').map(quoted).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "taints = [{taints}]");
    }
    if let Some(labels) = flag(kubelet, "node-labels") {
        let pairs = labels.split(',').filter_map(|label| label.split_once('='));
        let pairs = pairs.map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
        let _ = writeln!(out, "labels = {{ {} }}", pairs.collect::<Vec<_>>().join(", "));
    }
    out
}

/// The value of a flag in an environment file of a component.
fn flag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let flags = text.split(|c: char| c.is_whitespace() || c == '"' || c == '\\');
    flags
        .filter_map(|word| word.strip_prefix("--")?.split_once('='))
        .find_map(|(flag, value)| (flag == name).then_some(value))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or(Value::Null)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::artifacts::Artifacts;
    use crate::inventory::{Inventory, Role};
    use crate::pki::{self, Access};
    use crate::record::OwnedUnit;
    use crate::render::Templates;
    use crate::state::{Blob, Content, HostState};

    fn load(dir: &Path, name: &str, text: &str) -> Inventory {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        crate::inventory::load(&path).unwrap_or_else(|e| panic!("{}\n{text}", e.render(false, 100)))
    }

    fn states(inventory: &Inventory, state_dir: &Path, births: &Births) -> Vec<HostState> {
        let now = jiff::Timestamp::now();
        let pki = pki::ensure(inventory, state_dir, now).unwrap();
        let blob = |name: &str| Blob {
            sha256: crate::digest::Digest::of(name.as_bytes()),
            len: 1,
            source: name.into(),
            architecture: None,
            version: None,
        };
        let artifacts = Artifacts {
            hyperkube: blob("hyperkube"),
            etcd: blob("etcd"),
            images: Vec::new(),
            repository_keys: BTreeMap::new(),
        };
        let templates = Templates::embedded().unwrap();
        crate::compose::desired(inventory, &pki, births, &templates, &artifacts).unwrap()
    }

    /// A host that is as `state` says.
    fn seen(state: &HostState, inventory: &Inventory) -> Seen {
        let mut record = Record::new(&state.cluster, &state.host);
        record.units = (state.units.iter())
            .map(|unit| OwnedUnit {
                name: unit.name.clone(),
                existed: false,
                active: false,
                enabled: false,
            })
            .collect();
        let text = |content: &Content| match content {
            Content::Text(text) => Some(text.clone()),
            Content::Secret(secret) => Some(secret.expose().to_owned()),
            Content::Blob(_) => None,
        };
        let asked = paths();
        let texts = state.files.iter().filter(|file| asked.contains(&file.path));
        let texts = texts.filter_map(|file| Some((file.path.clone(), text(&file.content)?)));
        let address = inventory.host(&state.host).unwrap().address.to_string();
        Seen { address, record, texts: texts.collect() }
    }

    const SOURCE: &str = "[cluster]\nname = \"c\"\nservice_cidr = \"10.96.0.0/16\"\n\
        pod_cidr = \"10.10.0.0/16\"\ndomain = \"k.example\"\n[network]\nbackend = \"host-gw\"\n\
        proxy_mode = \"iptables\"\n[groups.m]\nhosts = [\"m-[1-3]\"]\naddress_first = \"10.0.0.1\"\n\
        roles = [\"etcd\", \"master\"]\n[[hosts]]\nname = \"n-1\"\naddress = \"10.0.1.1\"\n\
        roles = [\"node\"]\nmax_pods = 40\ntaints = [\"a=b:NoSchedule\"]\nlabels = { rack = \"r1\" }\n";

    fn reached() -> Reached {
        Reached { user: "root".to_owned(), port: 22, key: None }
    }

    #[test]
    fn a_lost_state_directory_is_made_again_and_an_apply_changes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let inventory = load(dir, "c.toml", SOURCE);
        let births = Births::of(&inventory);
        let before = states(&inventory, &dir.join("old"), &births);
        let hosts: Vec<_> = before.iter().map(|state| seen(state, &inventory)).collect();
        let rebuilt = rebuild(&hosts, &reached()).unwrap();
        assert_eq!((rebuilt.cluster.as_str(), rebuilt.notes.len()), ("c", 2));
        let again = load(dir, "again.toml", &rebuilt.inventory);
        let new = dir.join("new");
        let access = Access { dir: &new, passphrase: None };
        pki::adopt(&access, &rebuilt.adopted, jiff::Timestamp::now()).unwrap();
        // The operator's own certificate is the only one that no host has.
        let pki = pki::ensure(&again, &new, jiff::Timestamp::now()).unwrap();
        let issued: Vec<_> = pki.issued.iter().map(|issued| issued.id.as_str()).collect();
        assert_eq!(issued, ["admin"]);
        assert_eq!(rebuilt.births, births);
        assert_eq!(states(&again, &new, &rebuilt.births), before);
        assert_eq!(again.with_role(Role::Etcd).count(), 3);

        // etcd's authority signs no more, until another one takes its place.
        let all = |_, _: &str| true;
        let error = pki::renew(&again, &access, jiff::Timestamp::now(), &all).unwrap_err();
        assert!(error.to_string().contains("the key of the etcd authority is lost"), "{error}");
        let now = jiff::Timestamp::now();
        pki::begin(&again, &access, pki::Which::Etcd, now).unwrap();
        assert!(pki::ensure(&again, &new, now).unwrap().issued.is_empty());
        while pki::advance(&access).unwrap().is_some() {
            pki::ensure(&again, &new, now).unwrap();
        }
        pki::renew(&again, &access, now, &all).unwrap();
        // And what was filled once is not filled again.
        assert!(pki::adopt(&access, &rebuilt.adopted, now).is_err());
    }

    #[test]
    fn what_is_missing_or_mixed_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let inventory = load(scratch.path(), "c.toml", SOURCE);
        let states = states(&inventory, &scratch.path().join("s"), &Births::of(&inventory));
        let host = |at: usize| seen(&states[at], &inventory);
        let said = |hosts: &[Seen]| rebuild(hosts, &reached()).unwrap_err().to_string();
        assert_eq!(said(&[host(3)]), "none of the hosts has /etc/kubernetes/token.csv");
        let mut other = host(1);
        other.record.cluster = "d".to_owned();
        let two = "10.0.0.1 belongs to the cluster c, 10.0.0.2 to d";
        assert_eq!(said(&[host(0), other]), two);
        let mut rotating = host(0);
        rotating.texts.insert(ROTATION_NOTE.to_owned(), "{}".to_owned());
        assert_eq!(said(&[rotating]), "m-1 is in the middle of a rotation of authorities");
        let alone = rebuild(&[host(0)], &reached()).unwrap();
        let note = "masters or members of etcd that were not named: 10.0.0.2, 10.0.0.3";
        assert_eq!(alone.notes.last().unwrap(), note);
    }

    #[test]
    fn flags_are_read_from_environment_files() {
        let text = "# x\nA_OPTS=\"\\\n--a=1 \\\n--b=x=y\"\n";
        assert_eq!(
            (flag(text, "a"), flag(text, "b"), flag(text, "c")),
            (Some("1"), Some("x=y"), None)
        );
    }
}
