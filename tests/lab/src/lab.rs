//! A lab: its hosts, and how they come and go.

mod error;
mod range;
mod ready;
mod remove;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use bollard::Docker;
use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, Ipam, IpamConfig, Network, NetworkCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptions,
    ListNetworksOptionsBuilder, StartContainerOptions, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::future::try_join_all;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::container::{self, FirstFiles, Spec};
use crate::dockerd::Dockerd;
use crate::host_image;
use crate::key_pair;
use crate::options::LabOptions;
use crate::recipe::{Recipe, hex};
use crate::subnet::Subnet;

use range::range_of;

pub use error::LabError;
pub use range::TakenRange;

/// The lab's name, on everything that belongs to it.
const LABEL_LAB: &str = "kprov.lab";
/// The lab's directory: two checkouts may share one Docker.
const LABEL_DIR: &str = "kprov.lab.dir";
const LABEL_HOST: &str = "kprov.lab.host";
const LABEL_ADDRESS: &str = "kprov.lab.address";
const LABEL_INDEX: &str = "kprov.lab.index";

/// Hosts on a network of their own. See [`Lab::up`].
#[derive(Debug)]
pub struct Lab {
    options: LabOptions,
    daemon: Dockerd,
    subnet: Subnet,
    hosts: Vec<Host>,
    /// Whether dropping this value still has to remove the hosts.
    remove_on_drop: bool,
}

/// One host of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Name, also its host name.
    pub name: String,
    /// Fixed address.
    pub address: Ipv4Addr,
    /// Name of its container in the outer Docker.
    pub container: String,
    /// Counted from 0; decides the address.
    #[serde(skip)]
    pub index: usize,
    /// State when the lab was last looked at.
    pub state: HostState,
}

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// Its processes run.
    Running,
    /// Its processes are stopped where they are.
    Paused,
    /// It is shut down or was killed.
    Stopped,
}

impl Lab {
    /// Brings a lab up and returns when every host is booted and answers on its ssh port.
    ///
    /// What is there already is kept: missing hosts are added, stopped ones started. With
    /// [`LabOptions::fresh`] the lab is removed first.
    ///
    /// # Errors
    /// No outer Docker, no image, a range that is taken, or a host that is not ready in time.
    pub async fn up(options: LabOptions) -> Result<Self, LabError> {
        let io = |act: String| move |source| LabError::io(act, source);
        std::fs::create_dir_all(&options.dir)
            .map_err(io(format!("create {}", options.dir.display())))?;
        // Two labs of one directory share its key, its daemon and the choice of a range.
        let locking = host_image::lock(&options.dir.join("lock")).await;
        let lock = locking.map_err(io(format!("lock {}", options.dir.display())))?;
        let public_key = key_pair::ensure(&options.key_path())
            .await
            .map_err(io(format!("make {}", options.key_path().display())))?;
        let daemon = Dockerd::ensure(&options).await?;
        let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let mut images = BTreeMap::new();
        for kind in (0..options.hosts).map(|index| options.kind(index)) {
            if !images.contains_key(kind.name()) {
                let recipe = Recipe::of(kind, &os_release);
                let image = host_image::ensure(&daemon.docker, &recipe, &options.cache).await?;
                images.insert(kind.name(), image);
            }
        }
        if options.fresh {
            remove::remove(&daemon.docker, &options).await?;
        }
        let subnet = ensure_network(&daemon.docker, &options).await?;
        drop(lock);

        let remove_on_drop = options.remove_on_drop;
        let mut lab = Self { options, daemon, subnet, hosts: Vec::new(), remove_on_drop };
        lab.refresh().await?;
        lab.add_missing(&images, &public_key).await?;
        lab.refresh().await?;
        try_join_all(lab.hosts.iter().map(|host| lab.wait_ready(host))).await?;
        Ok(lab)
    }

    /// Finds a lab that is up.
    ///
    /// # Errors
    /// [`LabError::NoLab`] if there is none of this name.
    pub async fn open(options: LabOptions) -> Result<Self, LabError> {
        let missing = || LabError::NoLab { name: options.name.clone() };
        let daemon = Dockerd::find(&options).await?.ok_or_else(missing)?;
        let network = find_network(&daemon.docker, &options).await?;
        let subnet = network.as_ref().and_then(range_of).ok_or_else(missing)?;
        let mut lab = Self { options, daemon, subnet, hosts: Vec::new(), remove_on_drop: false };
        lab.refresh().await?;
        Ok(lab)
    }

    /// The hosts, in the order of their addresses.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name.
    ///
    /// # Errors
    /// [`LabError::NoHost`] if there is none.
    pub fn host(&self, name: &str) -> Result<&Host, LabError> {
        self.hosts.iter().find(|host| host.name == name).ok_or_else(|| LabError::NoHost {
            name: name.to_owned(),
            known: self.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// What the lab was asked to be.
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// The range of the hosts' addresses.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Path of the private key that opens every host, for `root` and for `kprov`.
    pub fn ssh_key(&self) -> PathBuf {
        self.options.key_path()
    }

    /// The outer Docker.
    pub fn daemon(&self) -> &Dockerd {
        &self.daemon
    }

    /// Looks at the hosts and their states again.
    ///
    /// # Errors
    /// A Docker that does not answer.
    pub async fn refresh(&mut self) -> Result<(), LabError> {
        let listed = list_containers(&self.daemon.docker, &self.options).await?;
        let mut hosts: Vec<Host> = listed.iter().filter_map(host_of).collect();
        hosts.sort_by_key(|host| host.index);
        self.hosts = hosts;
        Ok(())
    }

    /// Adds hosts until there are `count`, and waits for the new ones.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub async fn grow(self, count: usize) -> Result<Self, LabError> {
        let mut options = self.options.clone();
        options.hosts = count;
        options.fresh = false;
        let mut this = self;
        this.remove_on_drop = false;
        Self::up(options).await
    }

    /// Puts new machines in the place of these hosts, with their names and addresses and nothing
    /// else of them, and waits until they are ready.
    ///
    /// # Errors
    /// An unknown host, or as [`up`](Self::up).
    pub async fn reinstall(self, hosts: &[&str]) -> Result<Self, LabError> {
        for name in hosts {
            remove::remove_host(&self.daemon.docker, self.host(name)?).await?;
        }
        let count = self.options.hosts;
        self.grow(count).await
    }

    /// Writes a file on a host; its directory must exist. Not for `/run` and `/tmp`.
    ///
    /// # Errors
    /// An unknown host, or a file that cannot be written.
    pub async fn put(
        &self,
        host: &str,
        path: &str,
        mode: u32,
        bytes: &[u8],
    ) -> Result<(), LabError> {
        let host = self.host(host)?;
        let act = format!("write {path} on {}", host.name);
        let tar = container::one_file(path, mode, bytes)
            .map_err(|source| LabError::io(act.clone(), source))?;
        upload(&self.daemon.docker, &host.container, tar)
            .await
            .map_err(|source| LabError::docker(act, source))
    }

    /// The public host keys of a host's sshd, one `TYPE KEY` a line, sorted.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn host_keys(&self, host: &str) -> Result<Vec<String>, LabError> {
        let script = "cut -d' ' -f1,2 /etc/ssh/ssh_host_*_key.pub | sort";
        let keys = self.run(host, &["sh", "-c", script]).await?;
        Ok(keys.lines().map(str::to_owned).collect())
    }

    /// The fingerprints of a host's sshd keys, as `SHA256:…`, in the order of
    /// [`host_keys`](Self::host_keys).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn host_key_fingerprints(&self, host: &str) -> Result<Vec<String>, LabError> {
        let keys = self.host_keys(host).await?.join("\n");
        let script = "printf '%s\\n' \"$1\" | ssh-keygen -l -f - | cut -d' ' -f2";
        let prints = self.run(host, &["sh", "-c", script, "sh", &keys]).await?;
        Ok(prints.lines().map(str::to_owned).collect())
    }

    /// The name of the lab's bridge on the outer machine.
    pub fn bridge(&self) -> String {
        bridge_name(&self.options)
    }

    /// `images` has the image of each kind of host, by the kind's name.
    async fn add_missing(
        &self,
        images: &BTreeMap<&str, String>,
        public_key: &str,
    ) -> Result<(), LabError> {
        let missing = |index: &usize| !self.hosts.iter().any(|host| host.index == *index);
        let wanted: Vec<usize> = (0..self.options.hosts).filter(missing).collect();
        let mut all: Vec<(String, Ipv4Addr)> = Vec::new();
        for index in 0..self.options.hosts {
            let address = self
                .subnet
                .host(index)
                .ok_or(LabError::RangeFull { subnet: self.subnet, hosts: self.options.hosts })?;
            all.push((self.options.host_name(index), address));
        }
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let adding = wanted.into_iter().map(|index| {
            let kind = self.options.kind(index);
            let files = FirstFiles {
                name: &all[index].0,
                hosts: &all,
                public_key,
                resolv_conf: &resolv_conf,
                docker_at_boot: self.options.docker_at_boot && kind.has_docker(),
            };
            self.add(index, all[index].1, &images[kind.name()], files)
        });
        let starting = self
            .hosts
            .iter()
            .filter(|host| host.state == HostState::Stopped)
            .map(|host| self.start_container(&host.name, &host.container));
        tokio::try_join!(try_join_all(adding), try_join_all(starting))?;
        Ok(())
    }

    async fn add(
        &self,
        index: usize,
        address: Ipv4Addr,
        image: &str,
        files: FirstFiles<'_>,
    ) -> Result<(), LabError> {
        let name = files.name;
        let act = format!("create host {name}");
        let mut labels = labels(&self.options);
        labels.insert(LABEL_HOST.to_owned(), name.to_owned());
        labels.insert(LABEL_ADDRESS.to_owned(), address.to_string());
        labels.insert(LABEL_INDEX.to_owned(), index.to_string());
        let network = network_name(&self.options);
        let spec = Spec { name, address, image, network: &network, labels: &labels };
        let container = container_name(&self.options, name);
        let options = CreateContainerOptionsBuilder::new().name(&container).build();
        let docker = &self.daemon.docker;
        docker
            .create_container(Some(options), container::body(&spec))
            .await
            .map_err(|source| LabError::docker(act.clone(), source))?;
        let tar = files.archive().map_err(|source| LabError::io(act.clone(), source))?;
        upload(docker, &container, tar).await.map_err(|source| LabError::docker(act, source))?;
        self.start_container(name, &container).await
    }

    async fn start_container(&self, name: &str, container: &str) -> Result<(), LabError> {
        let starting = self.daemon.docker.start_container(container, None::<StartContainerOptions>);
        starting.await.map_err(|source| LabError::docker(format!("start host {name}"), source))
    }
}

async fn upload(
    docker: &Docker,
    container: &str,
    tar: Vec<u8>,
) -> Result<(), bollard::errors::Error> {
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    docker.upload_to_container(container, Some(options), bollard::body_full(Bytes::from(tar))).await
}

/// Makes the lab's network unless it is there, and returns its range.
async fn ensure_network(docker: &Docker, options: &LabOptions) -> Result<Subnet, LabError> {
    let failed = |source| LabError::docker("create the lab's network".to_owned(), source);
    if let Some(subnet) = find_network(docker, options).await?.as_ref().and_then(range_of) {
        return Ok(subnet);
    }
    let all = docker.list_networks(None::<ListNetworksOptions>).await.map_err(failed)?;
    let mut taken: Vec<TakenRange> = all.iter().filter_map(TakenRange::of_network).collect();
    // What another Docker left behind, killed as it was, is known to the kernel alone. A second
    // interface of the same range would never be reached.
    let interfaces = TakenRange::of_interfaces();
    taken.extend(
        interfaces.map_err(|source| {
            LabError::io("list the addresses of this machine".to_owned(), source)
        })?,
    );
    let ranges: Vec<Subnet> = taken.iter().map(|taken| taken.range).collect();
    let wanted = match options.subnet {
        Some(subnet) => subnet,
        None if options.name == "default" => Subnet::of_lab(0),
        None => Subnet::first_free(&ranges).ok_or(LabError::NoRange)?,
    };
    if let Some(other) = taken.into_iter().find(|other| other.range.overlaps(wanted)) {
        return Err(LabError::RangeTaken { wanted, other });
    }
    let request = NetworkCreateRequest {
        name: network_name(options),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(wanted.to_string()),
                gateway: Some(wanted.gateway().to_string()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        options: Some(HashMap::from([(
            "com.docker.network.bridge.name".to_owned(),
            bridge_name(options),
        )])),
        labels: Some(labels(options)),
        ..NetworkCreateRequest::default()
    };
    docker.create_network(request).await.map_err(failed)?;
    Ok(wanted)
}

async fn find_network(docker: &Docker, options: &LabOptions) -> Result<Option<Network>, LabError> {
    let query = ListNetworksOptionsBuilder::new().filters(&filters(options)).build();
    let found = docker.list_networks(Some(query)).await;
    let found = found.map_err(|source| LabError::docker("list networks".to_owned(), source))?;
    Ok(found.into_iter().next())
}

async fn list_containers(
    docker: &Docker,
    options: &LabOptions,
) -> Result<Vec<ContainerSummary>, LabError> {
    let query = ListContainersOptionsBuilder::new().all(true).filters(&filters(options)).build();
    let listed = docker.list_containers(Some(query)).await;
    listed.map_err(|source| LabError::docker("list the hosts".to_owned(), source))
}

fn host_of(container: &ContainerSummary) -> Option<Host> {
    let labels = container.labels.as_ref()?;
    let state = match container.state {
        Some(ContainerSummaryStateEnum::RUNNING) => HostState::Running,
        Some(ContainerSummaryStateEnum::PAUSED) => HostState::Paused,
        _ => HostState::Stopped,
    };
    Some(Host {
        name: labels.get(LABEL_HOST)?.clone(),
        address: labels.get(LABEL_ADDRESS)?.parse().ok()?,
        container: container.names.as_ref()?.first()?.trim_start_matches('/').to_owned(),
        index: labels.get(LABEL_INDEX)?.parse().ok()?,
        state,
    })
}

/// The labels of everything that belongs to a lab.
fn labels(options: &LabOptions) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_LAB.to_owned(), options.name.clone()),
        (LABEL_DIR.to_owned(), options.dir.display().to_string()),
    ])
}

fn filters(options: &LabOptions) -> HashMap<String, Vec<String>> {
    let wanted = labels(options).into_iter().map(|(name, value)| format!("{name}={value}"));
    HashMap::from([("label".to_owned(), wanted.collect())])
}

fn network_name(options: &LabOptions) -> String {
    format!("kprov-lab-{}", options.name)
}

fn container_name(options: &LabOptions, host: &str) -> String {
    format!("kprov-lab-{}-{host}", options.name)
}

/// A name of at most 15 bytes that no two labs of a machine share.
fn bridge_name(options: &LabOptions) -> String {
    let text = format!("{}\0{}", options.dir.display(), options.name);
    format!("lab{}", &hex(&Sha256::digest(text.as_bytes()))[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str) -> LabOptions {
        LabOptions { name: name.to_owned(), ..LabOptions::from_environment(&|_| None) }
    }

    #[test]
    fn labs_share_no_names() {
        let [one, two] = ["default", "ha"].map(options);
        assert_ne!(bridge_name(&one), bridge_name(&two));
        assert!(bridge_name(&one).len() <= 15, "the kernel's limit");
        assert_ne!(network_name(&one), network_name(&two));
        assert_eq!(container_name(&two, "node-1"), "kprov-lab-ha-node-1");
    }

    #[test]
    fn a_container_without_our_labels_is_no_host() {
        let mut labels = labels(&options("default"));
        let mut container = ContainerSummary {
            names: Some(vec!["/kprov-lab-default-node-1".to_owned()]),
            state: Some(ContainerSummaryStateEnum::PAUSED),
            labels: Some(labels.clone()),
            ..ContainerSummary::default()
        };
        assert_eq!(host_of(&container), None);
        labels.insert(LABEL_HOST.to_owned(), "node-1".to_owned());
        labels.insert(LABEL_ADDRESS.to_owned(), "10.99.0.11".to_owned());
        labels.insert(LABEL_INDEX.to_owned(), "0".to_owned());
        container.labels = Some(labels);
        let host = host_of(&container).unwrap();
        assert_eq!((host.name.as_str(), host.state), ("node-1", HostState::Paused));
        assert_eq!(host.container, "kprov-lab-default-node-1");
    }
}
