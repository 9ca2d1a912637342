//! From what hosts have back to what the operator had: inventory, certificates, keys.
//!
//! Pure: texts of hosts in, texts of the operator's machine out. What only the operator ever had is
//! said: comments and groups of the inventory, further flags of components, the key of etcd's
//! authority.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::compose::ROTATION_NOTE;
use crate::etcd::births::Births;
use crate::inventory::API_SERVER_PORT;
use crate::layout::Layout;
use crate::pki::{Adopted, LeafKind};
use crate::record::Record;
use crate::secret::Secret;

/// What asks a balancer on the host itself.
const LOOPBACK: &str = "127.0.0.1";

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

impl Seen {
    /// Whether the host runs a component as a pod of its kubelet.
    fn has_pod(&self, component: &str) -> bool {
        self.texts.contains_key(&manifest(self.record.layout, component))
    }

    /// The text of a component's environment file, or of its manifest; empty where there is none.
    fn environment(&self, component: &str) -> &str {
        let layout = self.record.layout;
        let text = self.texts.get(&layout.environment(component));
        let text = text.or_else(|| self.texts.get(&manifest(layout, component)));
        text.map_or("", String::as_str)
    }
}

/// How hosts are reached, for the inventory.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The user to log in as, if named.
    pub user: Option<String>,
    /// The port of sshd, if named.
    pub port: Option<u16>,
    /// The private key file, as it was named.
    pub key: Option<String>,
    /// The hosts to go through, from the operator's machine on.
    pub jumps: Vec<String>,
}

impl Reached {
    /// The inventory's section on it.
    fn section(&self) -> String {
        let mut out = "\n[ssh]\n".to_owned();
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(out, "{key} = {value}");
            }
        };
        line("user", self.user.as_deref().map(quoted));
        line("port", self.port.map(|port| port.to_string()));
        line("key", self.key.as_deref().map(quoted));
        let jumps = self.jumps.iter().map(|jump| quoted(jump)).collect::<Vec<_>>().join(", ");
        line("jump", (!jumps.is_empty()).then(|| format!("[{jumps}]")));
        out
    }
}

/// An inventory of hosts of which nothing is known yet but where they are: it is read as any
/// other, and says how to reach them.
#[must_use]
pub fn to_reach(addresses: &[Ipv4Addr], reached: &Reached) -> String {
    let mut out = "[cluster]\nname = \"import\"\n".to_owned() + &reached.section();
    for (i, address) in addresses.iter().enumerate() {
        let roles = if i == 0 { "\"etcd\", \"master\"" } else { "\"node\"" };
        let name = quoted(&format!("host-{}", i + 1));
        let _ =
            write!(out, "\n[[hosts]]\nname = {name}\naddress = \"{address}\"\nroles = [{roles}]\n");
    }
    out
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
    let mut paths: BTreeSet<String> = [ROTATION_NOTE.to_owned()].into();
    for layout in Layout::ALL {
        let Places { ca, etcd_ca, etcd_ca_of_clients, tokens, service_account_key, .. } =
            Places::new(layout);
        paths.extend(ca);
        paths.extend([etcd_ca, etcd_ca_of_clients, tokens, service_account_key]);
        paths.extend(ENVIRONMENTS.map(|component| layout.environment(component)));
        paths.extend(ENVIRONMENTS.map(|component| manifest(layout, component)));
        paths.extend([layout.kubelet_configuration(), kube_proxy_configuration(layout)]);
        paths.insert(upstreams(layout));
        paths.extend(LeafKind::ALL.into_iter().filter_map(|kind| kind.paths(layout)).flatten());
    }
    paths.into_iter().collect()
}

/// The components whose environment files say what the inventory said.
const ENVIRONMENTS: [&str; 5] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kubelet", "flanneld"];

/// Where the flags of a component are that is a pod.
fn manifest(layout: Layout, component: &str) -> String {
    format!("{}/{component}.yaml", layout.manifests())
}

/// Where a balancer on the host is told of the masters.
fn upstreams(layout: Layout) -> String {
    format!("{}/apiserver-proxy.upstreams", layout.settings())
}

fn kube_proxy_configuration(layout: Layout) -> String {
    format!("{}/kube-proxy.yaml", layout.settings())
}

/// Where keys and authorities lie.
struct Places {
    ca: [String; 2],
    etcd_ca: String,
    etcd_ca_of_clients: String,
    tokens: String,
    service_account_key: String,
}

impl Places {
    fn new(layout: Layout) -> Self {
        let [etcd_ca, _] = layout.certificate(layout.etcd_certificates(), "ca");
        let [etcd_ca_of_clients, _] = layout.certificate(layout.certificates(), "etcd-ca");
        Self {
            ca: layout.certificate(layout.certificates(), "ca"),
            etcd_ca,
            etcd_ca_of_clients,
            tokens: format!("{}/token.csv", layout.settings()),
            service_account_key: format!("{}/sa.key", layout.certificates()),
        }
    }
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
        .filter_map(|host| {
            let text = host.texts.get(&host.record.layout.environment("etcd"))?;
            Some((host.record.host.clone(), text.clone()))
        })
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
    let Places { ca: [ca, ca_key], etcd_ca, etcd_ca_of_clients, tokens, service_account_key } =
        Places::new(seen[0].record.layout);
    let tokens = any(&tokens)?;
    let token = tokens.split(',').next().unwrap_or_default();
    let etcd_ca = any(&etcd_ca).or_else(|_| any(&etcd_ca_of_clients))?;
    let mut leaves = BTreeMap::new();
    for host in seen {
        for kind in LeafKind::ALL {
            let Some([cert, key]) = kind.paths(host.record.layout) else { continue };
            let text = |path: &str| host.texts.get(path).cloned();
            if let (Some(cert), Some(key)) = (text(&cert), text(&key)) {
                leaves.insert(kind.id(&host.record.host), (cert, Secret::new(key)));
            }
        }
    }
    Ok(Adopted {
        cluster_ca: (any(&ca)?, Secret::new(any(&ca_key)?)),
        etcd_ca,
        service_account_key: Secret::new(any(&service_account_key)?),
        bootstrap_token: Secret::new(format!("{token}\n")),
        leaves,
    })
}

/// Hosts that others speak of and that nobody named.
fn unseen(seen: &[Seen]) -> Option<String> {
    let known: BTreeSet<&str> = seen.iter().map(|host| host.address.as_str()).collect();
    let mut spoken = BTreeSet::new();
    for host in seen {
        let text = |component: &str| host.environment(component);
        let etcd = crate::etcd::births::told_by(text("etcd")).unwrap_or_default();
        let etcd = etcd.split(',').filter_map(|pair| pair.split_once('='));
        let asked = api_of(text("kubelet")).filter(|url| external(url).is_none());
        let urls = etcd.map(|(_, url)| url).chain(asked);
        let addresses = urls.filter_map(|url| url.strip_prefix("https://")?.split(':').next());
        let listed = host.texts.get(&upstreams(host.record.layout)).map_or("", String::as_str);
        let listed = listed.lines().filter(|line| !line.starts_with('#'));
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
    let layout = seen[0].record.layout;
    let any =
        |path: &str| seen.iter().find_map(|host| host.texts.get(path)).map_or("", String::as_str);
    let of = |component: &str| {
        seen.iter().map(|host| host.environment(component)).find(|text| !text.is_empty())
    };
    let of = |component: &str| of(component).unwrap_or_default();
    let (api, manager) = (of("kube-apiserver"), of("kube-controller-manager"));
    let (kubelet, flanneld) = (of("kubelet"), of("flanneld"));
    let config = yaml(any(&layout.kubelet_configuration()));
    let text = |key: &str, value: Option<&str>| {
        value.map(|value| format!("{key} = {}\n", quoted(value))).unwrap_or_default()
    };
    let bare = |key: &str, value: Option<&str>| {
        value.map(|value| format!("{key} = {value}\n")).unwrap_or_default()
    };
    out += &text("name", Some(&seen[0].record.cluster));
    out += &text("layout", (!layout.is_default()).then(|| layout.as_str()));
    let pods = seen.iter().any(|host| host.has_pod("kube-apiserver"));
    out += &text("masters", pods.then_some("static-pods"));
    out += &text("domain", config["clusterDomain"].as_str());
    out += &text("pod_cidr", flag(manager, "cluster-cidr").or_else(|| flag(flanneld, "network")));
    out += &text("service_cidr", flag(api, "service-cluster-ip-range"));
    let dns = flag(manager, "cluster-dns").is_some_and(|address| address != "none");
    out += &bare("dns", (!dns).then_some("false"));
    out += &text("dns_address", config["clusterDNS"][0].as_str());
    out += &bare("node_cidr_mask", flag(manager, "node-cidr-mask-size"));
    out += &text("node_ports", flag(api, "service-node-port-range"));
    out += &text("pause_image", flag(kubelet, "pod-infra-container-image"));
    out += "\n[network]\n";
    out += &text("backend", flag(flanneld, "backend"));
    out += &text("pod_bridge", flag(flanneld, "pod-bridge"));
    out += &bare("mtu", flag(flanneld, "mtu"));
    out += &bare("masquerade", flag(flanneld, "ip-masq"));
    let mode = yaml(any(&kube_proxy_configuration(layout)))["mode"].as_str().map(str::to_owned);
    out += &text("proxy_mode", mode.as_deref().filter(|mode| !mode.is_empty()));
    let mut asked = seen.iter().filter_map(|host| api_of(host.environment("kubelet")));
    if let Some(balancer) = asked.find_map(external) {
        out += "\n[load_balancer]\n";
        out += &text("address", Some(balancer));
    }
    out += &reached.section();
    let mut hosts: Vec<_> = seen.iter().collect();
    hosts.sort_by(|a, b| a.record.host.cmp(&b.record.host));
    for host in hosts {
        out += &host_section(host);
    }
    out
}

fn host_section(host: &Seen) -> String {
    let roles = [("etcd", "etcd"), ("kube-apiserver", "master"), ("kubelet", "node")];
    let has =
        |unit: &str| host.record.unit(&format!("{unit}.service")).is_some() || host.has_pod(unit);
    let roles = roles.iter().filter(|(unit, _)| has(unit)).map(|(_, role)| quoted(role));
    let roles = roles.collect::<Vec<_>>().join(", ");
    let (name, address) = (quoted(&host.record.host), quoted(&host.address));
    let mut out = format!("\n[[hosts]]\nname = {name}\naddress = {address}\nroles = [{roles}]\n");
    let text = |path: &str| host.texts.get(path).map_or("", String::as_str);
    let kubelet = host.environment("kubelet");
    if let Some(max_pods) =
        yaml(text(&host.record.layout.kubelet_configuration()))["maxPods"].as_u64()
    {
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
            hyperkube_image: Some(crate::state::ImageState {
                reference: "kprov.local/hyperkube:1".to_owned(),
                id: "sha256:1".to_owned(),
                archive: blob("hyperkube image"),
            }),
            etcd: blob("etcd"),
            images: Vec::new(),
            packages: Vec::new(),
            repository_keys: BTreeMap::new(),
        };
        let templates = Templates::embedded().unwrap();
        crate::compose::desired(inventory, &pki, births, &templates, &artifacts).unwrap()
    }

    /// A host that is as `state` says.
    fn seen(state: &HostState, inventory: &Inventory) -> Seen {
        let mut record = Record::new(&state.cluster, &state.host);
        record.layout = state.layout;
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
        Reached { user: Some("root".to_owned()), port: None, key: None, jumps: Vec::new() }
    }

    #[test]
    fn what_reaches_the_hosts_is_in_the_inventory() {
        let scratch = tempfile::tempdir().unwrap();
        let key = scratch.path().join("id");
        std::fs::write(&key, "").unwrap();
        let reached = Reached {
            user: Some("op".to_owned()),
            port: Some(2222),
            key: Some(key.display().to_string()),
            jumps: vec!["in@edge:2200".to_owned(), "10.9.0.1".to_owned()],
        };
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let inventory = load(scratch.path(), "reach.toml", &to_reach(&addresses, &reached));
        assert_eq!(inventory.hosts.iter().map(|host| host.address).collect::<Vec<_>>(), addresses);
        for host in &inventory.hosts {
            assert_eq!((host.ssh.user.as_str(), host.ssh.port, host.ssh.sudo), ("op", 2222, true));
            assert_eq!(host.ssh.keys, std::slice::from_ref(&key));
            let jumps = host.ssh.jumps.iter().map(|jump| (&*jump.user, &*jump.address, jump.port));
            let through: Vec<_> = jumps.collect();
            assert_eq!(through, [("in", "edge", 2200), ("op", "10.9.0.1", 22)]);
        }
        assert_eq!(
            Reached { user: None, port: None, key: None, jumps: vec![] }.section(),
            "\n[ssh]\n"
        );
    }

    #[test]
    fn a_lost_state_directory_is_made_again_and_an_apply_changes_nothing() {
        for layout in Layout::ALL {
            let name = format!("name = \"c\"\nlayout = \"{}\"", layout.as_str());
            check_rebuilt(&SOURCE.replace("name = \"c\"", &name));
        }
        let bridge = "pod_bridge = \"docker0\"\nbackend";
        check_rebuilt(&SOURCE.replace("backend", bridge));
        let pods = SOURCE.replace("name = \"c\"", "name = \"c\"\nmasters = \"static-pods\"");
        check_rebuilt(&pods.replace("\"master\"]", "\"master\", \"node\"]"));
    }

    fn check_rebuilt(source: &str) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let inventory = load(dir, "c.toml", source);
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
