//! How a host's operating system is prepared: settings of `[system]`, nearest first.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{
    diagnostics::Problem,
    document::{DockerSection, FirewallPolicy, HostSettings, RepositorySection, SwapPolicy},
    resolve::Resolver,
};

/// How a host's operating system is prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// What is done about the host's firewall.
    pub firewall: FirewallPolicy,
    /// Whether swap is switched off.
    pub swap_off: bool,
    /// Whether `/etc/hosts` names all hosts of the cluster.
    pub hosts_file: bool,
    /// Further packages of the distribution.
    pub packages: BTreeSet<String>,
    /// Where a Docker engine comes from when there is none.
    pub docker: DockerSource,
    /// Limits of people who log in.
    pub limits: Limits,
}

impl System {
    /// Of a host on which nothing is to be prepared.
    #[must_use]
    pub fn untouched() -> Self {
        Self {
            firewall: FirewallPolicy::None,
            swap_off: false,
            hosts_file: false,
            packages: BTreeSet::new(),
            docker: DockerSource { install: false, packages: BTreeSet::new(), repository: None },
            limits: Limits::default(),
        }
    }
}

/// Where a Docker engine comes from when a host has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSource {
    /// Whether kprov installs it.
    pub install: bool,
    /// Its packages; empty for those of the distribution or of the repository.
    pub packages: BTreeSet<String>,
    /// A repository besides those that the host has.
    pub repository: Option<Repository>,
}

/// A repository of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is.
    pub url: String,
    /// Suite and components, for `apt`.
    pub suite: Vec<String>,
    /// File of the key that signs it; `None` for one that is trusted without.
    pub key: Option<PathBuf>,
}

/// Limits of people and programs that log in, not of units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files of a process.
    pub open_files: Option<u32>,
    /// Processes of a user.
    pub processes: Option<u32>,
}

/// What a name of a package is made of, in all distributions; versions may follow a `=` or `-`.
fn is_package(name: &str) -> bool {
    let shaped = |c: char| c.is_ascii_alphanumeric() || "+-.=:~_".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(shaped)
}

/// Checks the settings of one section where they are written.
pub(super) fn check(resolver: &mut Resolver<'_>, path: &[&str], settings: &HostSettings) {
    let system = &settings.system;
    let lists = [
        (vec!["system", "packages"], system.packages.as_ref()),
        (vec!["system", "docker", "packages"], system.docker.packages.as_ref()),
    ];
    for (key, names) in lists {
        for (index, name) in names.into_iter().flatten().enumerate() {
            if !is_package(name) {
                let index = index.to_string();
                let path = [path, &key, &[index.as_str()]].concat();
                resolver.error(&path, format!("`{name}` is no package name"), "not a name", "");
            }
        }
    }
    if let Some(repository) = &system.docker.repository {
        check_repository(
            resolver,
            &[path, &["system", "docker", "repository"]].concat(),
            repository,
        );
    }
}

fn check_repository(resolver: &mut Resolver<'_>, path: &[&str], section: &RepositorySection) {
    let at = |key: &'static str| [path, &[key]].concat();
    match &section.url {
        None => {
            let message = "the repository has no `url`".to_owned();
            resolver.error(path, message, "needs `url`", "such as `https://packages.example/el9`");
        }
        Some(url) => {
            let known = ["https://", "http://", "file:///"].iter().any(|s| url.starts_with(s));
            if !known || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
                let message = format!("`{url}` is no address of a repository");
                resolver.error(&at("url"), message, "not https://, http:// or file:///", "");
            }
        }
    }
    for (index, word) in section.suite.iter().enumerate() {
        if word.is_empty() || word.chars().any(|c| c.is_whitespace() || "[]#".contains(c)) {
            let index = index.to_string();
            let path = [path, &["suite", index.as_str()]].concat();
            let message = format!("`{word}` is neither a suite nor a component");
            resolver.error(&path, message, "not a word", "suite = [\"bookworm\", \"stable\"]");
        }
    }
    match (&section.key, section.unsigned.unwrap_or(false)) {
        (Some(key), false) => {
            let file = resolver.surroundings.path(key);
            if !(resolver.surroundings.is_file)(&file) {
                let message = format!("the key file {} does not exist", file.display());
                resolver.error(&at("key"), message, "no such file", "the provider publishes it");
            }
        }
        (Some(_), true) => {
            let message = "the repository has a key and is `unsigned`".to_owned();
            resolver.error(&at("unsigned"), message, "which one?", "leave one of them out");
        }
        (None, false) => {
            let message = "the repository has no `key`".to_owned();
            let help = "key = \"FILE\"; or `unsigned = true`, if whoever can change the \
                        repository may be root on the hosts";
            resolver.error(path, message, "nothing proves its packages", help);
        }
        (None, true) => {
            let place = resolver.places.value(&at("unsigned"));
            let problem = Problem::warning("packages of the repository are not verified");
            let problem = problem.at(place, "anyone who can change it is root on the hosts");
            resolver.problems.push(problem.help("give its `key`"));
        }
    }
}

/// The settings of a host, from its layers, nearest first.
pub(super) fn resolve(resolver: &Resolver<'_>, layers: &[HostSettings]) -> System {
    let first = |swap: SwapPolicy| swap == SwapPolicy::Off;
    let docker = |get: &dyn Fn(&DockerSection) -> bool| {
        layers.iter().map(|l| &l.system.docker).find(|section| get(section))
    };
    let repository = docker(&|d| d.repository.is_some()).and_then(|d| d.repository.as_ref());
    let packages = docker(&|d| d.packages.is_some()).and_then(|d| d.packages.clone());
    let limits = |get: fn(&HostSettings) -> Option<u32>| layers.iter().find_map(get);
    System {
        firewall: layers.iter().find_map(|l| l.system.firewall).unwrap_or(FirewallPolicy::Auto),
        swap_off: layers.iter().find_map(|l| l.system.swap).is_some_and(first),
        hosts_file: layers.iter().find_map(|l| l.system.hosts_file).unwrap_or(false),
        packages: (layers.iter().find_map(|l| l.system.packages.clone()))
            .unwrap_or_default()
            .into_iter()
            .collect(),
        docker: DockerSource {
            install: docker(&|d| d.install.is_some()).and_then(|d| d.install).unwrap_or(true),
            packages: packages.unwrap_or_default().into_iter().collect(),
            repository: repository.map(|section| Repository {
                url: section.url.clone().unwrap_or_default(),
                suite: section.suite.clone(),
                key: section.key.as_deref().map(|key| resolver.surroundings.path(key)),
            }),
        },
        limits: Limits {
            open_files: limits(|l| l.system.limits.open_files),
            processes: limits(|l| l.system.limits.processes),
        },
    }
}
