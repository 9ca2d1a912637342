//! A pod's host name, `/etc/hosts` and `/etc/resolv.conf`.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/network/dns/dns.go`, `pkg/kubelet/kubelet_pods.go`.

use std::borrow::Cow;

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
    let end = name.char_indices().nth(63).map_or(name.len(), |(at, _)| at);
    name[..end].trim_end_matches(['-', '.']).to_owned()
}

/// The content of `/etc/hosts`; `None` to keep the node's.
pub(crate) fn hosts_file(pod: &Pod, ip: &str, config: &KubeletConfig) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.host_network == Some(true) {
        return None;
    }
    let host = hostname(pod, config);
    let mut text = String::with_capacity(320);
    text.push_str(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => {
            let domain = &config.cluster_domain;
            text.push_str(&format!("{ip}\t{host}.{subdomain}.{namespace}.svc.{domain}\t{host}\n"));
        }
        None => text.extend([ip, "\t", &*host, "\n"]),
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
struct Resolver<'a> {
    nameservers: Vec<Cow<'a, str>>,
    searches: Vec<Cow<'a, str>>,
    options: Vec<Cow<'a, str>>,
}

impl<'a> Resolver<'a> {
    fn parse(text: &'a str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.nameservers.extend(words.next().map(Cow::Borrowed));
                }
                Some("search" | "domain") => {
                    resolver.searches = words.map(Cow::Borrowed).collect();
                }
                Some("options") => resolver.options.extend(words.map(Cow::Borrowed)),
                _ => {}
            }
        }
        resolver
    }

    fn render(mut self) -> String {
        let mut searches: Vec<Cow<'_, str>> = Vec::with_capacity(self.searches.len());
        for search in self.searches.drain(..) {
            // No more than these are looked through.
            if searches.len() < SEARCHES_MAX && !searches.contains(&search) {
                searches.push(search);
            }
        }
        self.nameservers.truncate(NAMESERVERS_MAX);
        let mut text = String::with_capacity(256);
        for server in &self.nameservers {
            text.extend(["nameserver ", &**server, "\n"]);
        }
        for (word, values) in [("search", &searches), ("options", &self.options)] {
            if !values.is_empty() {
                text.push_str(word);
                values.iter().for_each(|value| text.extend([" ", &**value]));
                text.push('\n');
            }
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
            let mut searches: Vec<Cow<'_, str>> = vec![
                [namespace, ".svc.", &**domain].concat().into(),
                ["svc.", &**domain].concat().into(),
                domain.into(),
            ];
            searches.append(&mut resolver.searches);
            resolver = Resolver {
                nameservers: config.cluster_dns.iter().map(Cow::from).collect(),
                searches,
                options: vec!["ndots:5".into()],
            };
        }
        _ => {}
    }
    if let Some(own) = &spec.dns_config {
        resolver.nameservers.extend(own.nameservers.iter().flatten().map(Cow::from));
        resolver.searches.extend(own.searches.iter().flatten().map(Cow::from));
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            resolver.options.retain(|o| o.split(':').next() != Some(name));
            resolver.options.push(match &option.value {
                Some(value) => format!("{name}:{value}").into(),
                None => name.into(),
            });
        }
    }
    resolver.render()
}
