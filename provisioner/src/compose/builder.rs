//! A host's state while it grows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::ComposeError;
use crate::{
    artifacts::Artifacts,
    digest::Digest,
    etcd::births::Births,
    inventory::{
        API_PROXY_PORT, API_SERVER_PORT, Host, Inventory, MasterForm, NodeApproval, PodBridge, Role,
    },
    layout::Layout,
    pki::{Credential, LeafKind, Pki},
    render::Templates,
    secret::Secret,
    skew::HYPERKUBE,
    state::{
        Blob, Content, DirectoryState, FileState, Gate, HostState, LinkState, Mode, Owner, PortUse,
        Protocol, Stage, StaticPodsGate, UnitState,
    },
};

/// Ports that kprov gives to components.
pub(super) mod port {
    pub(crate) const ETCD_CLIENT: u16 = 2379;
    pub(crate) const ETCD_PEER: u16 = 2380;
    /// As the controller of the service `kube-dns` expects it.
    pub(crate) const CLUSTER_DNS: u16 = 10053;
    pub(crate) const CLUSTER_DNS_METRICS: u16 = 10244;
    pub(crate) const API_PROXY_METRICS: u16 = 10245;
    pub(crate) const FLANNELD_HEALTHZ: u16 = 10246;
    pub(crate) const FLANNELD_METRICS: u16 = 10247;
    pub(crate) const KUBELET_HEALTHZ: u16 = 10248;
    pub(crate) const KUBELET: u16 = 10250;
    pub(crate) const KUBE_PROXY_METRICS: u16 = 10249;
    pub(crate) const KUBE_PROXY_HEALTHZ: u16 = 10256;
    pub(crate) const CONTROLLER_MANAGER: u16 = 10257;
    pub(crate) const SCHEDULER: u16 = 10259;
}

/// A program under systemd.
pub(super) struct Component {
    /// Its name: that of its unit, its environment file and its templates.
    pub(super) name: &'static str,
    pub(super) stage: Stage,
    pub(super) health: Gate,
    pub(super) ports: &'static [u16],
    /// What it reads besides its unit, its environment file and its program.
    pub(super) inputs: Vec<String>,
}

/// The master's components as pods of its kubelet.
pub(super) struct StaticPods {
    /// Their manifests.
    pub(super) manifests: Vec<String>,
    /// How to know that they work: the first one's health is the API server's.
    pub(super) gate: StaticPodsGate,
}

/// The annotation of a static pod that is another one with each change of what the pod is or reads.
pub(crate) const INPUTS: &str = "kprov.io/inputs";

/// The state of one host, and all that goes into it.
pub(super) struct Builder<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) pki: &'a Pki,
    pub(super) artifacts: &'a Artifacts,
    pub(super) host: &'a Host,
    pub(super) state: HostState,
    /// What the kubelet answers for where it runs the master's components.
    pub(super) static_pods: Option<StaticPods>,
    templates: &'a Templates,
    values: Map<String, Value>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        inventory: &'a Inventory,
        pki: &'a Pki,
        births: &Births,
        templates: &'a Templates,
        artifacts: &'a Artifacts,
        host: &'a Host,
    ) -> Self {
        let mut state = HostState::new(&inventory.cluster.name, &host.name);
        state.authority = Digest::of(pki.cluster_ca.cert.as_bytes()).to_string();
        state.former_authority = pki.former_authority.clone();
        state.layout = inventory.cluster.layout;
        let values = values(inventory, pki, births, host);
        Self { inventory, pki, artifacts, host, state, static_pods: None, templates, values }
    }

    /// Sorts what carries no order, so that the state depends on content alone.
    pub(super) fn finish(mut self) -> HostState {
        self.state.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.state.links.sort_by(|a, b| a.path.cmp(&b.path));
        self.state.directories.sort_by(|a, b| a.path.cmp(&b.path));
        self.state.ports.sort();
        self.state
    }

    pub(super) fn layout(&self) -> Layout {
        self.inventory.cluster.layout
    }

    /// Adds the certificate `name` of an authority, or of several, to those of Kubernetes.
    pub(super) fn trust(&mut self, name: &str, cert: &str) -> String {
        let [path, _] = self.layout().certificate(self.layout().certificates(), name);
        self.text(&path, cert.to_owned())
    }

    /// The base address of the API for this host's components.
    pub(super) fn server(&self) -> String {
        self.inventory.api_for(self.host)
    }

    /// Where all API servers listen, this host's first choice first.
    pub(super) fn masters(&self) -> impl Iterator<Item = String> {
        nearest_first(self.inventory, Role::Master, self.host)
            .map(|master| format!("{}:{API_SERVER_PORT}", master.address))
    }

    pub(super) fn directory(&mut self, path: &str, mode: Mode) {
        if !self.state.directories.iter().any(|d| d.path == path) {
            let path = path.to_owned();
            self.state.directories.push(DirectoryState { path, mode, owner: Owner::root() });
        }
    }

    /// Adds a file once; roles share some.
    fn file(&mut self, path: &str, mode: Mode, content: Content) -> String {
        if self.state.file(path).is_none() {
            let owner = Owner::root();
            self.state.files.push(FileState { path: path.to_owned(), mode, owner, content });
        }
        path.to_owned()
    }

    pub(super) fn text(&mut self, path: &str, text: String) -> String {
        self.file(path, Mode::PUBLIC, Content::Text(text))
    }

    pub(super) fn secret(&mut self, path: &str, secret: Secret) -> String {
        self.file(path, Mode::PRIVATE, Content::Secret(secret))
    }

    /// Adds the build `blob` of a program, and a link to it by which it is called; returns both
    /// paths. Each unit has a link of its own, so that it gets another build in its own turn.
    pub(super) fn program(
        &mut self,
        folder: &str,
        program: &str,
        blob: &Blob,
        called: &str,
    ) -> [String; 2] {
        let build = blob.program();
        let kept = self.file(&build.path(program), Mode::EXECUTABLE, Content::Blob(blob.clone()));
        self.state.programs.insert(program.to_owned(), build);
        let path = format!("{folder}/{called}");
        if !self.state.links.iter().any(|link| link.path == path) {
            self.state.links.push(LinkState { path: path.clone(), target: kept.clone() });
        }
        [kept, path]
    }

    /// Adds hyperkube, called by `name` and by its own; returns the paths that a unit uses.
    pub(super) fn hyperkube(&mut self, name: &str) -> [String; 2] {
        let artifacts = self.artifacts;
        let folder = self.layout().programs();
        self.program(folder, HYPERKUBE, &artifacts.hyperkube, HYPERKUBE);
        self.program(folder, HYPERKUBE, &artifacts.hyperkube, name)
    }

    /// Adds the certificate and key of `kind` where hosts keep them; returns both paths.
    pub(super) fn leaf(&mut self, kind: LeafKind) -> Result<[String; 2], ComposeError> {
        let credential = self.credential(kind)?;
        let none = || ComposeError::NoCertificate { id: kind.id("") };
        let [at, key_at] = kind.paths(self.layout()).ok_or_else(none)?;
        let (cert, key) = (credential.cert.clone(), credential.key.clone());
        Ok([self.text(&at, cert), self.secret(&key_at, key)])
    }

    fn credential(&self, kind: LeafKind) -> Result<&'a Credential, ComposeError> {
        let host = &self.host.name;
        self.pki.leaf(kind, host).ok_or_else(|| ComposeError::NoCertificate { id: kind.id(host) })
    }

    /// Fills a template in with the host's values and `more`.
    pub(super) fn render(
        &self,
        template: &str,
        path: &str,
        more: &Value,
    ) -> Result<String, ComposeError> {
        let mut values = self.values.clone();
        if let Value::Object(more) = more {
            values.extend(more.clone());
        }
        self.templates.render(template, &values).map_err(|source| ComposeError::Render {
            host: self.host.name.clone(),
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Adds the kubeconfig `NAME.kubeconfig` of `user`, who shows the certificate at `leaf`.
    pub(super) fn kubeconfig(
        &mut self,
        name: &str,
        user: &str,
        leaf: &[String; 2],
    ) -> Result<String, ComposeError> {
        let path = format!("{}/{name}.kubeconfig", self.layout().settings());
        let more = json!({
            "server": self.server(),
            "user": user,
            "certificate": leaf[0],
            "key": leaf[1],
        });
        let text = self.render("component.kubeconfig", &path, &more)?;
        Ok(self.text(&path, text))
    }

    /// Adds a component of a master in the form that the inventory asks for.
    pub(super) fn master_component(&mut self, component: Component) -> Result<(), ComposeError> {
        match self.inventory.cluster.masters {
            MasterForm::Units => self.component(component),
            MasterForm::StaticPods => self.static_pod(component),
        }
    }

    /// Adds a component: its environment file, its unit, its ports.
    pub(super) fn component(&mut self, component: Component) -> Result<(), ComposeError> {
        let Component { name, stage, health, ports, mut inputs } = component;
        let layout = self.layout();
        let extra = self.inventory.components.args.get(name).cloned().unwrap_or_default();
        let env = layout.environment(name);
        let variable = layout.variable(name);
        let more = json!({ "extra": extra, "variable": variable });
        let text = self.render(&format!("{name}.env"), &env, &more)?;
        let env = self.text(&env, text);
        let shared = self.shared_environment(name)?;
        let mut variables = layout.shared_variables(name, |flag| extra.contains_key(flag));
        variables.push(&variable);
        let flags: Vec<String> = variables.iter().map(|name| format!("${name}")).collect();
        let unit = format!("{name}.service");
        let path = format!("/etc/systemd/system/{unit}");
        let more = json!({ "unit": {
            "environment": env,
            "shared": shared,
            "flags": flags.join(" "),
            "restart": layout.restart(),
        }});
        let text = self.render(&unit, &path, &more)?;
        let path = self.text(&path, text);
        for port in ports {
            let unit = unit.clone();
            self.state.ports.push(PortUse { protocol: Protocol::Tcp, port: *port, unit });
        }
        inputs.extend(shared.into_iter().chain([env, path]));
        let inputs: BTreeSet<String> = inputs.into_iter().collect();
        self.state.units.push(UnitState { name: unit, enabled: true, stage, inputs, health });
        Ok(())
    }

    /// Adds a component of a master as a pod of the master's kubelet: the same program with the
    /// same flags, from a manifest that is another one when anything that the program reads is.
    fn static_pod(&mut self, component: Component) -> Result<(), ComposeError> {
        let Component { name, health, ports, inputs, .. } = component;
        for port in ports {
            let unit = "kubelet.service".to_owned();
            self.state.ports.push(PortUse { protocol: Protocol::Tcp, port: *port, unit });
        }
        let Gate::Https(gate) = &health else { return Ok(()) };
        let layout = self.layout();
        let extra = self.inventory.components.args.get(name).cloned().unwrap_or_default();
        let path = format!("{}/{name}.yaml", layout.manifests());
        // A pod has no file of variables beside its own.
        let alone = if layout == Layout::Classic { layout } else { Layout::Fhs };
        let more = json!({ "extra": extra, "variable": "", "layout": alone.as_str() });
        let text = self.render(&format!("{name}.env"), &path, &more)?;
        let flags: Vec<&str> = text
            .lines()
            .map(|line| line.trim_end_matches([' ', '\\', '"']))
            .filter(|line| line.starts_with("--"))
            .collect();
        let mut read = String::new();
        for input in inputs.iter().collect::<BTreeSet<_>>() {
            let digest = self.state.file(input).map(|file| file.content.digest().to_string());
            read.push_str(&format!("{input}\t{}\n", digest.unwrap_or_default()));
        }
        let image = self.artifacts.hyperkube_image.as_ref();
        let manifest = |inputs: &str| {
            let more = json!({
                "name": name,
                "image": image.map(|image| image.reference.as_str()),
                "flags": flags,
                "annotation": INPUTS,
                "inputs": inputs,
                "port": gate.port,
                "path": if gate.path == "/readyz" { "/livez" } else { &gate.path },
            });
            self.render("static-pod.yaml", &path, &more)
        };
        // It stands for the rest of the manifest, too, so that it tells one pod from the next.
        let inputs = Digest::of(format!("{}{read}", manifest("")?).as_bytes()).short();
        let text = manifest(&inputs)?;
        let path = self.text(&path, text);
        self.state.images.extend(image.cloned());
        self.state.images.dedup();
        let pods = self.static_pods.get_or_insert_with(|| StaticPods {
            manifests: Vec::new(),
            gate: StaticPodsGate { api: gate.clone(), pods: BTreeMap::new() },
        });
        pods.manifests.push(path);
        pods.gate.pods.insert(format!("{name}-{}", self.host.name), inputs);
        Ok(())
    }

    /// Adds the file of variables that components share, where the layout has one.
    fn shared_environment(&mut self, component: &str) -> Result<Option<String>, ComposeError> {
        let path = self.layout().shared_environment().filter(|_| component != "etcd");
        let Some(path) = path else { return Ok(None) };
        let master = self.host.has(Role::Master);
        let text = self.render("shared.env", &path, &json!({ "master": master }))?;
        Ok(Some(self.text(&path, text)))
    }
}

/// What every template may use.
fn values(inventory: &Inventory, pki: &Pki, births: &Births, host: &Host) -> Map<String, Value> {
    let (initial_cluster, initial_state) = births.told_to(&host.name);
    let Inventory { cluster, network, components, .. } = inventory;
    let labels: Vec<String> = host.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let taints: Vec<String> = host.taints.iter().map(ToString::to_string).collect();
    let values = json!({
        "layout": cluster.layout.as_str(),
        "paths": paths(cluster.layout),
        "leaf": leaves(cluster.layout),
        "cluster": {
            "name": cluster.name,
            "domain": cluster.domain,
            "pod_cidr": cluster.pod_cidr.to_string(),
            "service_cidr": cluster.service_cidr.to_string(),
            "dns": cluster.dns,
            "dns_address": cluster.dns_address.to_string(),
            "node_cidr_mask": cluster.node_cidr_mask,
            "node_ports": format!("{}-{}", cluster.node_ports.0, cluster.node_ports.1),
            "pause_image": cluster.pause_image,
            "approves_nodes": cluster.node_approval == NodeApproval::Automatic,
        },
        "host": {
            "name": host.name,
            "address": host.address.to_string(),
            "labels": labels,
            "taints": taints,
            "max_pods": host.max_pods,
        },
        "network": {
            "backend": network.backend.as_str(),
            "mtu": network.mtu,
            "masquerade": network.masquerade,
            "proxy_mode": network.proxy_mode.as_config(),
            "ovs_datapath": network.ovs_datapath.as_str(),
            "pod_bridge": network.pod_bridge.as_str(),
            "docker0": network.pod_bridge == PodBridge::Docker0,
        },
        "etcd": {
            "servers": etcd_servers(inventory, host),
            "initial_cluster": initial_cluster,
            "initial_state": initial_state,
        },
        "ports": {
            "api_proxy": API_PROXY_PORT,
            "api_proxy_metrics": port::API_PROXY_METRICS,
            "api_server": API_SERVER_PORT,
            "controller_manager": port::CONTROLLER_MANAGER,
            "scheduler": port::SCHEDULER,
            "kubelet": port::KUBELET,
            "kubelet_healthz": port::KUBELET_HEALTHZ,
            "kube_proxy_healthz": port::KUBE_PROXY_HEALTHZ,
            "kube_proxy_metrics": port::KUBE_PROXY_METRICS,
            "cluster_dns": port::CLUSTER_DNS,
            "cluster_dns_metrics": port::CLUSTER_DNS_METRICS,
            "flanneld_healthz": port::FLANNELD_HEALTHZ,
            "flanneld_metrics": port::FLANNELD_METRICS,
        },
        "rotation": {
            "kubelet_renewal": pki.rotated,
            "other_service_account_key": pki.service_account_other.is_some(),
        },
        "api_server": inventory.api_for(host),
        "shutdown_delay_s": shutdown_delay_s(inventory),
        "static_pods": cluster.masters == MasterForm::StaticPods && host.has(Role::Master),
        "log_level": components.log_level,
        "open_files": components.open_files,
    });
    match values {
        Value::Object(values) => values,
        _ => Map::new(),
    }
}

/// How long a stopping API server stays for those who are still sent to it, in seconds: two rounds
/// of a balancer's questions, and some. One without another beside it need not wait.
fn shutdown_delay_s(inventory: &Inventory) -> u64 {
    if inventory.with_role(Role::Master).count() > 1 { 5 } else { 0 }
}

/// Where things are on hosts, but for certificates of components.
fn paths(layout: Layout) -> Value {
    let certificate = |name| layout.certificate(layout.certificates(), name);
    let [ca, ca_key] = certificate("ca");
    let [etcd_ca_of_clients, _] = certificate("etcd-ca");
    let [etcd_ca, _] = layout.certificate(layout.etcd_certificates(), "ca");
    json!({
        "etcd_programs": layout.etcd_programs(),
        "etcd_data": layout.etcd_data(),
        "etcd_ca": etcd_ca,
        "etcd_ca_of_clients": etcd_ca_of_clients,
        "programs": layout.programs(),
        "settings": layout.settings(),
        "certificates": layout.certificates(),
        "ca": ca,
        "ca_key": ca_key,
        "kubelet_kubeconfig": layout.kubelet_kubeconfig(),
        "kubelet_certificates": layout.kubelet_certificates(),
        "kubelet_configuration": layout.kubelet_configuration(),
        "manifests": layout.manifests(),
    })
}

/// Certificates and keys of components by kind, `apiserver_etcd_client` for instance.
fn leaves(layout: Layout) -> Value {
    let one = |kind: LeafKind| {
        let [cert, key] = kind.paths(layout)?;
        Some((kind.word().replace('-', "_"), json!({ "cert": cert, "key": key })))
    };
    LeafKind::ALL.into_iter().filter_map(one).collect::<Map<_, _>>().into()
}

fn etcd_servers(inventory: &Inventory, host: &Host) -> Vec<String> {
    nearest_first(inventory, Role::Etcd, host)
        .map(|h| format!("https://{}:{}", h.address, port::ETCD_CLIENT))
        .collect()
}

/// The host's first choice first: itself where it has the role, else one that its name alone
/// decides, so that no other host's coming or going moves it.
fn nearest_first<'a>(
    inventory: &'a Inventory,
    role: Role,
    host: &Host,
) -> impl Iterator<Item = &'a Host> {
    let servers: Vec<&Host> = inventory.with_role(role).collect();
    let own = servers.iter().position(|s| s.name == host.name);
    let first = own.unwrap_or_else(|| spread(&host.name, servers.len()));
    let (before, after) = servers.split_at(first);
    let turned: Vec<&Host> = after.iter().chain(before).copied().collect();
    turned.into_iter()
}

/// A number below `count` that depends on `name` alone.
fn spread(name: &str, count: usize) -> usize {
    let digits = Digest::of(name.as_bytes()).short();
    usize::from_str_radix(&digits, 16).unwrap_or(0).checked_rem(count).unwrap_or(0)
}
