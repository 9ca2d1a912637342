//! From the file as written to the model: defaults filled in, every rule checked.
//!
//! Nothing stops at the first mistake. A part that is wrong is reported and replaced by its
//! default, so that what depends on it is still checked.

use std::{net::Ipv4Addr, ops::Range, path::Path};

use ipnet::Ipv4Net;
use toml::{Spanned, de::DeTable};

use super::{
    API_PROXY_PORT, API_SERVER_PORT, ArtifactSource, Backend, Cluster, Components, Diagnostics,
    GivenAuthority, Host, Inventory, KeyAlgorithm, Layout, LoadBalancer, MasterForm, Network,
    NodeApproval, OvsDatapath, PkiSettings, PodBridge, ProxyMode, Role, Surroundings, conduct,
    diagnostics::Problem,
    document::{ArtifactSection, AuthoritySection, BalancerKind, Document},
    hosts, nth_address,
    place::Places,
    rules,
};

/// Port range of the outgoing connections of a Linux host, where not set otherwise.
const EPHEMERAL_PORTS: (u16, u16) = (32_768, 60_999);

/// Makes the model of `document`, which was read from `table`.
///
/// Rules about what is missing are skipped when the file's syntax is `broken`: what is not there
/// may only have been lost.
pub(super) fn resolve(
    path: &Path,
    document: &Document,
    table: &Spanned<DeTable<'_>>,
    surroundings: &Surroundings<'_>,
    broken: bool,
    problems: &mut Vec<Problem>,
) -> Option<Inventory> {
    let places = Places::new(table);
    let mut resolver = Resolver { document, places: &places, surroundings, problems };
    let cluster = resolver.cluster();
    let network = resolver.network();
    let hyperkube = resolver.artifact("hyperkube", document.artifacts.hyperkube.as_ref());
    let etcd = resolver.artifact("etcd", document.artifacts.etcd.as_ref());
    let pki = resolver.pki();
    let components = resolver.components();
    let hosts = hosts::resolve(&mut resolver, &cluster, broken);
    let masters = hosts.iter().filter(|host| host.has(Role::Master)).count();
    let load_balancer = resolver.load_balancer(masters);
    resolver.static_pods(&cluster, &network, &hosts);
    resolver.node_approval(&cluster, &network);
    let rollout = conduct::rollout(&mut resolver);
    let hooks = conduct::hooks(&mut resolver, &hosts, broken);
    let addons = conduct::addons(&mut resolver);
    Some(Inventory {
        path: path.to_owned(),
        cluster,
        network,
        load_balancer,
        hyperkube,
        etcd,
        pki,
        components,
        rollout,
        hooks,
        addons,
        hosts,
        warnings: Diagnostics::new(path, "".into(), Vec::new()),
    })
}

/// What every check needs.
pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) places: &'a Places<'a>,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Resolver<'_> {
    /// Reports a mistake at the value of `path`.
    pub(super) fn error(&mut self, path: &[&str], message: String, label: &str, help: &str) {
        let problem = Problem::error(message).at(self.places.value(path), label);
        let problem = if help.is_empty() { problem } else { problem.help(help) };
        self.problems.push(problem);
    }

    fn warn(&mut self, path: &[&str], message: String, label: &str, help: &str) {
        let place = self.places.value(path);
        self.problems.push(Problem::warning(message).at(place, label).help(help));
    }

    fn cluster(&mut self) -> Cluster {
        let section = &self.document.cluster;
        let name = section.name.clone().unwrap_or_default();
        if section.name.is_some()
            && let Err(why) = rules::dns_label(&name)
        {
            let help = rules::as_dns_label(&name).map_or(String::new(), |n| format!("try `{n}`"));
            let message = format!("the cluster's name `{name}` is no DNS label");
            self.error(&["cluster", "name"], message, &why, &help);
        }
        let domain = section.domain.as_deref().unwrap_or("cluster.local");
        if let Err(why) = rules::dns_subdomain(domain) {
            let help = match domain.strip_suffix('.') {
                Some(plain) => format!("try `{plain}`"),
                None => String::new(),
            };
            let message = format!("`{domain}` is no DNS domain");
            self.error(&["cluster", "domain"], message, &why, &help);
        }
        let pod_cidr = self.range("pod_cidr", section.pod_cidr.as_deref(), "10.244.0.0/16");
        let service_cidr =
            self.range("service_cidr", section.service_cidr.as_deref(), "10.254.0.0/16");
        self.ranges_apart(pod_cidr, service_cidr);
        let dns_address = self.dns_address(service_cidr);
        let node_cidr_mask = section.node_cidr_mask.unwrap_or(24);
        self.node_mask(pod_cidr, node_cidr_mask);
        let node_ports = self.node_ports();
        let pause_image = self.pause_image();
        Cluster {
            name,
            layout: section.layout.unwrap_or_default(),
            masters: section.masters.unwrap_or(MasterForm::Units),
            node_approval: section.node_approval.unwrap_or_default(),
            domain: domain.to_owned(),
            pod_cidr,
            service_cidr,
            dns: section.dns.unwrap_or(true),
            dns_address,
            node_cidr_mask,
            node_ports,
            pause_image,
            images: section.images.iter().map(|i| self.surroundings.path(i)).collect(),
        }
    }

    fn range(&mut self, key: &str, text: Option<&str>, default: &str) -> Ipv4Net {
        let fallback: Ipv4Net = default.parse().expect("a default range is well-formed");
        let Some(text) = text else { return fallback };
        let path = ["cluster", key];
        match text.parse::<Ipv4Net>() {
            Ok(range) if range.addr() != range.network() => {
                let message = format!("`{text}` is an address within a range, not a range");
                self.error(&path, message, "has host bits", &format!("try `{}`", range.trunc()));
                range.trunc()
            }
            Ok(range) => range,
            Err(_) => {
                let message = format!("`{text}` is no IPv4 range");
                let help = format!("a range is ADDRESS/LENGTH, such as `{default}`");
                self.error(&path, message, "not ADDRESS/LENGTH", &help);
                fallback
            }
        }
    }

    fn ranges_apart(&mut self, pods: Ipv4Net, services: Ipv4Net) {
        if !(12..=28).contains(&services.prefix_len()) {
            let message = format!("the service range {services} is too large or too small");
            self.error(
                &["cluster", "service_cidr"],
                message,
                "must be /12 to /28",
                "a /16 holds 65,534 services",
            );
        }
        if pods.contains(&services) || services.contains(&pods) {
            let message = format!("the pod range {pods} and the service range {services} overlap");
            let services_at = self.places.value(&["cluster", "service_cidr"]);
            let pods_at = self.places.value(&["cluster", "pod_cidr"]);
            // When both come from the same place, one of them is a default.
            let same = services_at == pods_at;
            let problem = Problem::error(message)
                .at(pods_at, format!("pods: {pods}"))
                .help("pods and services need ranges of their own: 10.244.0.0/16, 10.254.0.0/16");
            self.problems.push(if same {
                problem
            } else {
                problem.also(services_at, format!("services: {services}"))
            });
        }
    }

    fn dns_address(&mut self, services: Ipv4Net) -> Ipv4Addr {
        let fallback = nth_address(services, 10);
        let path = ["cluster", "dns_address"];
        let Some(text) = self.document.cluster.dns_address.as_deref() else { return fallback };
        let Ok(address) = text.parse::<Ipv4Addr>() else {
            let message = format!("`{text}` is no IPv4 address");
            self.error(&path, message, "not an address", &format!("try `{fallback}`"));
            return fallback;
        };
        let reason = if !services.contains(&address) {
            format!("is outside of the service range {services}")
        } else if address == nth_address(services, 1) {
            "is the service address of the API server".to_owned()
        } else if address == services.network() || address == services.broadcast() {
            "is no address of a service".to_owned()
        } else {
            return address;
        };
        let message = format!("the DNS address {address} {reason}");
        self.error(&path, message, "not usable", &format!("try `{fallback}`"));
        fallback
    }

    fn node_mask(&mut self, pods: Ipv4Net, mask: u8) {
        if mask < pods.prefix_len() || mask > 30 {
            let message = format!("a /{mask} a node cannot be cut from the pod range {pods}");
            let label = format!("must be {} to 30", pods.prefix_len());
            self.error(
                &["cluster", "node_cidr_mask"],
                message,
                &label,
                "24 gives each node 254 addresses",
            );
        }
    }

    fn node_ports(&mut self) -> (u16, u16) {
        let fallback = (30_000, 32_767);
        let path = ["cluster", "node_ports"];
        let Some(text) = self.document.cluster.node_ports.as_deref() else { return fallback };
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
        });
        match parsed {
            Some((first, last)) if first > 0 && first <= last => {
                if first <= EPHEMERAL_PORTS.1 && last >= EPHEMERAL_PORTS.0 {
                    let message = format!(
                        "node ports {first}-{last} overlap the ports of outgoing connections"
                    );
                    let label =
                        format!("hosts use {}-{} by default", EPHEMERAL_PORTS.0, EPHEMERAL_PORTS.1);
                    self.warn(&path, message, &label, "the usual range is `30000-32767`");
                }
                (first, last)
            }
            _ => {
                let message = format!("`{text}` is no range of ports");
                self.error(&path, message, "not FIRST-LAST", "try `30000-32767`");
                fallback
            }
        }
    }

    fn pause_image(&mut self) -> String {
        let image = self.document.cluster.pause_image.as_deref();
        let image = image.unwrap_or(super::PAUSE_IMAGE);
        let shaped = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if image.is_empty() || !image.chars().all(shaped) {
            let message = format!("`{image}` is no image name");
            let help = "such as `registry.example/pause:3.10`";
            self.error(&["cluster", "pause_image"], message, "not NAME:TAG", help);
        }
        image.to_owned()
    }

    fn network(&mut self) -> Network {
        let section = &self.document.network;
        let backend = section.backend.unwrap_or(Backend::Vxlan);
        // What is left of an Ethernet frame.
        let usual = 1_500 - backend.overhead();
        let mtu = section.mtu.unwrap_or(usual);
        if mtu < 576 {
            let message = format!("an MTU of {mtu} is less than IPv4 asks for");
            self.error(
                &["network", "mtu"],
                message,
                "must be at least 576",
                &format!("try {usual}"),
            );
        }
        let pod_bridge = self.pod_bridge(backend);
        if pod_bridge == PodBridge::Docker0 {
            let message = "pods share Docker's own bridge".to_owned();
            let label = "Docker is restarted once on each node, and what runs in it as well";
            let help =
                "without `pod_bridge`, pods have a bridge of their own and Docker is left alone";
            self.warn(&["network", "pod_bridge"], message, label, help);
        }
        Network {
            backend,
            ovs_datapath: section.ovs_datapath.unwrap_or(OvsDatapath::Auto),
            pod_bridge,
            mtu,
            masquerade: section.masquerade.unwrap_or(true),
            proxy_mode: section.proxy_mode.unwrap_or(ProxyMode::Auto),
        }
    }

    /// The tunnels of Open vSwitch end at a bridge of their own, and only they do.
    fn pod_bridge(&mut self, backend: Backend) -> PodBridge {
        let section = &self.document.network;
        let by_tunnels = backend == Backend::OvsGre;
        let usual = if by_tunnels { PodBridge::Kbr0 } else { PodBridge::Cni0 };
        let bridge = section.pod_bridge.unwrap_or(usual);
        if by_tunnels != (bridge == PodBridge::Kbr0) {
            let (name, other) = (bridge.as_str(), backend.as_str());
            let message = format!("pods cannot be on `{name}` with `backend = \"{other}\"`");
            let label = format!("with `{other}` they are not on `{name}`");
            let help = match by_tunnels {
                true => "leave it out: the tunnels of Open vSwitch end at `kbr0`",
                false => "use `backend = \"ovs-gre\"`, or leave `pod_bridge` out",
            };
            self.error(&["network", "pod_bridge"], message, &label, help);
        }
        if section.ovs_datapath.is_some() && !by_tunnels {
            let message = "`ovs_datapath` is for `backend = \"ovs-gre\"`".to_owned();
            let help = "leave it out, or use that backend";
            self.error(&["network", "ovs_datapath"], message, "has no meaning here", help);
        }
        bridge
    }

    fn load_balancer(&mut self, masters: usize) -> LoadBalancer {
        let section = &self.document.load_balancer;
        let path = ["load_balancer", "address"];
        match (section.kind, section.address.as_deref()) {
            (None, None) if masters < 2 => LoadBalancer::None,
            (None | Some(BalancerKind::Local), None) => LoadBalancer::Local,
            (Some(BalancerKind::Local), Some(_)) => {
                let message = "the load balancer is local and has an address".to_owned();
                let help = format!("it is 127.0.0.1:{API_PROXY_PORT} on each host: leave it out");
                self.error(&path, message, "only for `external`", &help);
                LoadBalancer::Local
            }
            (Some(BalancerKind::External), None) => {
                let message = "the external load balancer has no `address`".to_owned();
                let help = "address = \"api.example.com:6443\"";
                self.error(&["load_balancer"], message, "needs `address`", help);
                LoadBalancer::None
            }
            (_, Some(address)) => {
                let (name, port) = match address.rsplit_once(':') {
                    Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0)),
                    None => (address, Some(API_SERVER_PORT)),
                };
                let named = name.parse::<Ipv4Addr>().is_ok() || rules::dns_subdomain(name).is_ok();
                if !named || port.is_none() {
                    let message = format!("`{address}` is no NAME:PORT");
                    let help = "a DNS name or an IPv4 address, without https://";
                    self.error(&path, message, "not NAME:PORT", help);
                }
                let port = port.unwrap_or(API_SERVER_PORT);
                LoadBalancer::External { name: name.to_owned(), port }
            }
        }
    }

    /// Docker starts on its range; a node that people have not let in has none.
    fn node_approval(&mut self, cluster: &Cluster, network: &Network) {
        if cluster.node_approval == NodeApproval::Manual && network.pod_bridge == PodBridge::Docker0
        {
            let message = "Docker cannot wait for people who let its node in".to_owned();
            let help = "leave out `pod_bridge = \"docker0\"`, or `node_approval = \"manual\"`";
            let path = ["cluster", "node_approval"];
            self.error(&path, message, "not with `pod_bridge = \"docker0\"`", help);
        }
    }

    /// Masters that are pods need a kubelet, and one that can start without them.
    fn static_pods(&mut self, cluster: &Cluster, network: &Network, hosts: &[Host]) {
        if cluster.masters != MasterForm::StaticPods {
            return;
        }
        let path = ["cluster", "masters"];
        let bare = hosts.iter().filter(|host| host.has(Role::Master) && !host.has(Role::Node));
        let bare: Vec<_> = bare.map(|host| host.name.as_str()).collect();
        if !bare.is_empty() {
            let message = format!("masters that are pods need a kubelet: {}", bare.join(", "));
            let help = "give them the role `node`, too; a taint keeps other pods away";
            self.error(&path, message, "needs the role `node`", help);
        }
        if network.pod_bridge == PodBridge::Docker0 {
            let message = "Docker cannot wait for a range that comes from a pod".to_owned();
            let help = "leave out `pod_bridge = \"docker0\"`, or `masters = \"static-pods\"`";
            self.error(&path, message, "not with `pod_bridge = \"docker0\"`", help);
        }
    }

    fn artifact(&mut self, name: &str, section: Option<&ArtifactSection>) -> ArtifactSource {
        let beside = ArtifactSource::Beside(name.to_owned());
        let Some(section) = section else { return beside };
        let path = ["artifacts", name];
        match (&section.file, &section.url) {
            (Some(file), None) => ArtifactSource::File {
                path: self.surroundings.path(file),
                package: section.package.clone(),
            },
            (None, Some(url)) => self.fetched(name, url, section.sha256.as_deref()),
            (Some(_), Some(_)) => {
                let message = format!("`{name}` comes from a file and from a URL");
                self.error(&path, message, "two sources", "leave out `file` or `url`");
                beside
            }
            (None, None) => {
                let help = format!("{name} = {{ file = \"/usr/bin/{name}\" }}");
                self.error(&path, format!("`{name}` comes from nowhere"), "no `file`", &help);
                beside
            }
        }
    }

    fn fetched(&mut self, name: &str, url: &str, sha256: Option<&str>) -> ArtifactSource {
        let beside = ArtifactSource::Beside(name.to_owned());
        if !url.starts_with("https://") {
            let message = format!("`{name}` is not fetched over HTTPS");
            self.error(&["artifacts", name, "url"], message, "not https://", "use https://");
        }
        let path = ["artifacts", name, "sha256"];
        match sha256.map(str::parse) {
            Some(Ok(sha256)) => ArtifactSource::Url { url: url.to_owned(), sha256 },
            Some(Err(error)) => {
                let message = format!("`{name}` has no usable `sha256`");
                self.error(&path, message, &format!("{error}"), "`sha256sum FILE` prints it");
                beside
            }
            None => {
                let message = format!("`{name}` is fetched without `sha256`");
                self.error(&path, message, "no `sha256`", "`sha256sum FILE` prints it");
                beside
            }
        }
    }

    fn pki(&mut self) -> PkiSettings {
        let section = &self.document.pki;
        for (index, name) in section.api_server_names.iter().enumerate() {
            let host = name.strip_prefix("*.").unwrap_or(name);
            if name.parse::<Ipv4Addr>().is_err() && rules::dns_subdomain(host).is_err() {
                let index = index.to_string();
                let message = format!("`{name}` is neither a DNS name nor an IPv4 address");
                self.error(&["pki", "api_server_names", &index], message, "no name", "");
            }
        }
        let settings = PkiSettings {
            algorithm: section.algorithm.unwrap_or(KeyAlgorithm::EcdsaP256),
            ca_days: section.ca_days.unwrap_or(3_650),
            leaf_days: section.leaf_days.unwrap_or(365),
            api_server_names: section.api_server_names.clone(),
            warn_days: section.warn_days.unwrap_or(30),
            ca: self.authority(section.ca.as_ref()),
            etcd_ca: self.authority(section.etcd_ca.as_ref()),
        };
        if settings.leaf_days > settings.ca_days {
            let message = "certificates would outlive their authority".to_owned();
            let label = format!("longer than {} days", settings.ca_days);
            self.error(&["pki", "leaf_days"], message, &label, "lower it, or raise `ca_days`");
        }
        settings
    }

    /// That both files are named is the schema's rule.
    fn authority(&self, section: Option<&AuthoritySection>) -> Option<GivenAuthority> {
        let section = section?;
        let path = |text: &Option<String>| Some(self.surroundings.path(text.as_deref()?));
        Some(GivenAuthority { cert: path(&section.cert)?, key: path(&section.key)? })
    }

    fn components(&mut self) -> Components {
        let section = &self.document.components;
        let named = [
            ("etcd", &section.etcd),
            ("apiserver-proxy", &section.apiserver_proxy),
            ("cluster-dns", &section.cluster_dns),
            ("flanneld", &section.flanneld),
            ("kube-apiserver", &section.kube_apiserver),
            ("kube-controller-manager", &section.kube_controller_manager),
            ("kube-proxy", &section.kube_proxy),
            ("kube-scheduler", &section.kube_scheduler),
            ("kubelet", &section.kubelet),
        ];
        let mut args = std::collections::BTreeMap::new();
        for (component, section) in named {
            for (flag, value) in &section.args {
                let path = ["components", component, "args", flag.as_str()];
                self.flag(&path, flag, &value.to_string());
            }
            let flags = section.args.iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
            args.insert(component.to_owned(), flags);
        }
        // The classic guide's figures go with its files.
        let classic = self.document.cluster.layout == Some(Layout::Classic);
        let (log_level, open_files) = if classic { (4, 65_536) } else { (2, 16_384) };
        Components {
            log_level: section.log_level.unwrap_or(log_level),
            open_files: section.open_files.unwrap_or(open_files),
            args,
        }
    }

    fn flag(&mut self, path: &[&str], flag: &str, value: &str) {
        let place: Range<usize> = self.places.key(path);
        let name = flag.trim_start_matches('-');
        let shaped = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if flag.starts_with('-') || flag.is_empty() || !flag.chars().all(shaped) {
            let problem = Problem::error(format!("`{flag}` is no flag name"))
                .at(place, "only lower-case letters, digits and `-`");
            let help = format!("flags are written without leading dashes: `{name}`");
            self.problems.push(problem.help(help));
        }
        // The value becomes one line of an environment file, which systemd splits at blanks.
        if value.chars().any(|c| c.is_control() || c.is_whitespace() || "\"'\\$".contains(c)) {
            let message = format!("the value of `{flag}` cannot stand in an environment file");
            let label = "blanks, quotes, `\\` and `$` are not possible";
            self.error(path, message, label, "");
        }
    }
}
