//! A pod's host name, `/etc/hosts` and `/etc/resolv.conf`.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/network/dns/dns.go`, `pkg/kubelet/kubelet_pods.go`.

use api::Pod;

use crate::KubeletConfig;

/// More is not read by resolvers.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The host name inside the pod.
pub(crate) fn hostname(pod: &Pod, config: &KubeletConfig) -> String {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network) == Some(true) {
        return config.node_name.clone();
    }
    let name = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty());
    let name = name.or(pod.metadata.name.as_deref()).unwrap_or_default();
    // The kernel takes 64 bytes; Kubernetes cuts at 63 and drops what may not stand at the end.
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The content of `/etc/hosts`; `None` to keep the node's.
pub(crate) fn hosts_file(pod: &Pod, ip: &str, config: &KubeletConfig) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) {
        return None;
    }
    let host = hostname(pod, config);
    let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        .to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => {
            let domain = &config.cluster_domain;
            text.push_str(&format!("{ip}\t{host}.{subdomain}.{namespace}.svc.{domain}\t{host}\n"));
        }
        None => text.push_str(&format!("{ip}\t{host}\n")),
    }
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    Some(text)
}

#[derive(Default)]
struct Resolver {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.nameservers.extend(words.next().map(str::to_owned));
                }
                Some("search" | "domain") => {
                    resolver.searches = words.map(str::to_owned).collect();
                }
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    fn render(mut self) -> String {
        let mut seen = std::collections::BTreeSet::new();
        self.searches.retain(|s| seen.insert(s.clone()));
        self.searches.truncate(SEARCHES_MAX);
        self.nameservers.truncate(NAMESERVERS_MAX);
        let mut text = String::new();
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// The content of `/etc/resolv.conf`.
pub(crate) fn resolver_file(pod: &Pod, config: &KubeletConfig, host: &str) -> String {
    let Some(spec) = &pod.spec else { return host.to_owned() };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let mut resolver = Resolver::parse(host);
    match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => resolver = Resolver::default(),
        "ClusterFirst" | "ClusterFirstWithHostNet"
            if !config.cluster_dns.is_empty()
                && (!host_network
                    || spec.dns_policy.as_deref() == Some("ClusterFirstWithHostNet")) =>
        {
            let domain = &config.cluster_domain;
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.append(&mut resolver.searches);
            resolver = Resolver {
                nameservers: config.cluster_dns.clone(),
                searches,
                options: vec!["ndots:5".to_owned()],
            };
        }
        _ => {}
    }
    if let Some(own) = &spec.dns_config {
        resolver.nameservers.extend(own.nameservers.iter().flatten().cloned());
        resolver.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            resolver.options.retain(|o| o.split(':').next() != Some(name));
            resolver.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    resolver.render()
}
