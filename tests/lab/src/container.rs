//! One host as a container: what Docker is asked for, and the files it starts with.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HostConfig,
    HostConfigCgroupnsModeEnum, Mount, MountType, MountVolumeOptions, NetworkingConfig,
};
use tar::{Builder, EntryType, Header};

/// Where a host keeps what must not lie on the container's own layered file system.
const VOLUMES: [&str; 3] = ["/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet"];
/// Devices that some programs want; a machine may lack them.
const DEVICES: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];
const TMPFS: [&str; 3] = ["/run", "/run/lock", "/tmp"];
/// Units that start Docker at boot, with the target that wants each.
const DOCKER_UNITS: [(&str, &str); 3] = [
    ("multi-user.target.wants", "containerd.service"),
    ("multi-user.target.wants", "docker.service"),
    ("sockets.target.wants", "docker.socket"),
];
/// The user that the image's recipe makes first.
const USER_ID: u64 = 1000;
/// A fixed date keeps snapshots of two labs comparable.
const MTIME: u64 = 1_577_836_800;

/// What is particular to one host.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) image: &'a str,
    pub(crate) network: &'a str,
    pub(crate) labels: &'a HashMap<String, String>,
}

/// The request that makes a host.
pub(crate) fn body(spec: &Spec<'_>) -> ContainerCreateBody {
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(spec.address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    };
    ContainerCreateBody {
        hostname: Some(spec.name.to_owned()),
        image: Some(spec.image.to_owned()),
        cmd: Some(vec!["/usr/sbin/lab-init".to_owned()]),
        labels: Some(spec.labels.clone()),
        // systemd shuts down in order on this signal.
        stop_signal: Some("SIGRTMIN+3".to_owned()),
        host_config: Some(host_config(spec)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(spec.network.to_owned(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &Spec<'_>) -> HostConfig {
    let devices = DEVICES.into_iter().filter(|device| Path::new(device).exists());
    let device = |path: &str| DeviceMapping {
        path_on_host: Some(path.to_owned()),
        path_in_container: Some(path.to_owned()),
        cgroup_permissions: Some("rwm".to_owned()),
    };
    let volume = |target: &str| Mount {
        target: Some(target.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            labels: Some(spec.labels.clone()),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    };
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    HostConfig {
        network_mode: Some(spec.network.to_owned()),
        // Everything but the one that a machine may not have itself; `privileged` would ask
        // for that one too.
        cap_add: words(&["ALL"]),
        cap_drop: words(&["SYS_RESOURCE"]),
        security_opt: words(&["seccomp=unconfined", "apparmor=unconfined"]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        device_cgroup_rules: words(&["a *:* rwm"]),
        devices: Some(devices.map(device).collect()),
        tmpfs: Some(TMPFS.map(|path| (path.to_owned(), "exec".to_owned())).into()),
        mounts: Some(VOLUMES.map(volume).to_vec()),
        ..HostConfig::default()
    }
}

/// The files that a new host starts with.
#[derive(Debug)]
pub(crate) struct FirstFiles<'a> {
    pub(crate) name: &'a str,
    /// Names and addresses of all hosts.
    pub(crate) hosts: &'a [(String, Ipv4Addr)],
    pub(crate) public_key: &'a str,
    /// The outer machine's `/etc/resolv.conf`.
    pub(crate) resolv_conf: &'a str,
    pub(crate) docker_at_boot: bool,
}

impl FirstFiles<'_> {
    /// Packs the files, to be unpacked at the root.
    ///
    /// # Errors
    /// None in practice: the archive is in memory.
    pub(crate) fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = Archive(Builder::new(Vec::new()));
        archive.file("etc/hostname", 0o644, 0, &format!("{}\n", self.name))?;
        archive.file("etc/hosts", 0o644, 0, &self.hosts_file())?;
        archive.file("etc/resolv.conf", 0o644, 0, &name_servers(self.resolv_conf))?;
        for (home, owner) in [("root", 0), ("home/kprov", USER_ID)] {
            archive.directory(&format!("{home}/.ssh"), 0o700, owner)?;
            let keys = format!("{home}/.ssh/authorized_keys");
            archive.file(&keys, 0o600, owner, self.public_key)?;
        }
        if self.docker_at_boot {
            for (target, unit) in DOCKER_UNITS {
                archive.link(
                    &format!("etc/systemd/system/{target}/{unit}"),
                    &format!("/lib/systemd/system/{unit}"),
                )?;
            }
        }
        archive.0.into_inner()
    }

    fn hosts_file(&self) -> String {
        let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
        for (name, address) in self.hosts {
            text.push_str(&format!("{address} {name}\n"));
        }
        text
    }
}

/// The name servers that a host of another network stack can reach as well.
fn name_servers(resolv_conf: &str) -> String {
    resolv_conf
        .lines()
        .filter(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("nameserver")
                && words
                    .next()
                    .and_then(|address| address.parse::<IpAddr>().ok())
                    .is_some_and(|address| !address.is_loopback())
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn header(kind: EntryType, mode: u32, owner: u64, bytes: usize) -> io::Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(MTIME);
        header.set_size(u64::try_from(bytes).map_err(io::Error::other)?);
        Ok(header)
    }

    fn file(&mut self, path: &str, mode: u32, owner: u64, text: &str) -> io::Result<()> {
        let mut header = Self::header(EntryType::Regular, mode, owner, text.len())?;
        self.0.append_data(&mut header, path, text.as_bytes())
    }

    fn directory(&mut self, path: &str, mode: u32, owner: u64) -> io::Result<()> {
        let mut header = Self::header(EntryType::Directory, mode, owner, 0)?;
        self.0.append_data(&mut header, format!("{path}/"), io::empty())
    }

    fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = Self::header(EntryType::Symlink, 0o777, 0, 0)?;
        self.0.append_link(&mut header, path, target)
    }
}

/// A tar of one file, to be unpacked at the root of a host.
pub(crate) fn one_file(path: &str, mode: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut header = Archive::header(EntryType::Regular, mode, 0, bytes.len())?;
    archive.append_data(&mut header, path.trim_start_matches('/'), bytes)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(docker_at_boot: bool) -> Vec<String> {
        let files = FirstFiles {
            name: "node-1",
            hosts: &[("node-1".to_owned(), Ipv4Addr::new(10, 99, 0, 11))],
            public_key: "ssh-ed25519 AAAA\n",
            resolv_conf: "",
            docker_at_boot,
        };
        let bytes = files.archive().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn docker_starts_at_boot_where_asked() {
        let unit = "etc/systemd/system/multi-user.target.wants/docker.service".to_owned();
        assert!(paths(true).contains(&unit));
        assert!(!paths(false).contains(&unit));
        assert!(paths(false).contains(&"home/kprov/.ssh/authorized_keys".to_owned()));
    }

    #[test]
    fn local_name_servers_are_left_out() {
        let text = "search a\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\n";
        assert_eq!(name_servers(text), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn a_host_gets_its_address_and_volumes_with_labels() {
        let labels = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let spec = Spec {
            name: "node-1",
            address: Ipv4Addr::new(10, 99, 0, 11),
            image: "image",
            network: "net",
            labels: &labels,
        };
        let body = body(&spec);
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        let ipam = endpoints["net"].ipam_config.clone().unwrap();
        assert_eq!(ipam.ipv4_address.as_deref(), Some("10.99.0.11"));
        for mount in body.host_config.unwrap().mounts.unwrap() {
            assert_eq!(mount.volume_options.unwrap().labels, Some(labels.clone()));
        }
    }
}
