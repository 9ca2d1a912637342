//! Inventories for labs of any size.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::{HostKind, Lab, workspace_root};

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Stores the cluster's state.
    Etcd,
    /// Runs the control plane.
    Master,
    /// Runs pods.
    Node,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Master => "master",
            Self::Node => "node",
        }
    }
}

/// An inventory for a lab's hosts.
#[derive(Clone, Debug)]
pub struct Inventory {
    name: String,
    roles: Vec<Vec<Role>>,
    /// Labels of each host.
    pub labels: Vec<Vec<(String, String)>>,
    /// What the hosts are dressed as; see [`lab::LabOptions::kinds`].
    pub kinds: Vec<HostKind>,
    /// Lines of each host's own section besides.
    pub settings: Vec<String>,
    /// The hyperkube to put on hosts; the one of `make build` when there is none.
    pub hyperkube: Option<PathBuf>,
    /// Lines of the section `[cluster]` besides.
    pub cluster: String,
    /// Lines appended to the file before its hosts.
    pub extra: String,
}

impl Inventory {
    /// One master that is also etcd and a node, the other hosts are nodes.
    pub fn single_master(name: &str, hosts: usize) -> Self {
        let mut roles = vec![vec![Role::Node]; hosts];
        roles[0] = vec![Role::Etcd, Role::Master, Role::Node];
        Self::new(name, roles)
    }

    /// Three masters with etcd, and nodes.
    pub fn three_masters(name: &str, nodes: usize) -> Self {
        let mut roles = vec![vec![Role::Etcd, Role::Master]; 3];
        roles.extend(vec![vec![Role::Node]; nodes]);
        Self::new(name, roles)
    }

    /// Hosts with these roles.
    pub fn new(name: &str, roles: Vec<Vec<Role>>) -> Self {
        let labels = vec![Vec::new(); roles.len()];
        let settings = vec![String::new(); roles.len()];
        let (kinds, cluster, extra) = (Vec::new(), String::new(), String::new());
        let name = name.to_owned();
        Self { name, roles, labels, kinds, settings, hyperkube: None, cluster, extra }
    }

    /// Adds a host with one role.
    pub fn add(&mut self, role: Role) {
        self.roles.push(vec![role]);
        self.labels.push(Vec::new());
        self.settings.push(String::new());
    }

    /// Leaves the last host out, which stays in the lab.
    pub fn remove_last(&mut self) {
        self.roles.pop();
        self.labels.pop();
        self.settings.pop();
    }

    /// Makes the host at this index what these roles say.
    pub fn set_roles(&mut self, index: usize, roles: &[Role]) {
        self.roles[index] = roles.to_vec();
    }

    /// Whether the host at this index has the role.
    pub fn has(&self, index: usize, role: Role) -> bool {
        self.roles.get(index).is_some_and(|roles| roles.contains(&role))
    }

    /// The name of cluster and lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many hosts it names.
    pub fn len(&self) -> usize {
        self.roles.len()
    }

    /// Whether it names no host.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    /// Writes the file into `folder`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, lab: &Lab, folder: &Path) -> Result<PathBuf> {
        let root = workspace_root();
        let images = lab.options().images_dir();
        let built = root.join("target/release/hyperkube");
        let hyperkube = self.hyperkube.clone().unwrap_or(built);
        let image = |name: &str| format!("{:?}", images.join(name).display().to_string());
        let mut text = format!(
            "[cluster]\nname = {:?}\nimages = [{}, {}, {}]\n{}\n\
             [ssh]\nuser = \"kprov\"\nkey = {:?}\n\n\
             [artifacts]\nhyperkube = {{ file = {:?} }}\netcd = {{ file = \"/usr/bin/etcd\" }}\n",
            self.name,
            image("echo-1.tar"),
            image("echo-2.tar"),
            image("busybox-1.tar"),
            self.cluster,
            lab.ssh_key().display().to_string(),
            hyperkube.display().to_string(),
        );
        text.push_str(&self.extra);
        let hosts = lab.hosts().iter().zip(&self.roles).zip(&self.labels).zip(&self.settings);
        for (((host, roles), labels), settings) in hosts {
            let roles: Vec<String> = roles.iter().map(|r| format!("{:?}", r.name())).collect();
            write!(
                text,
                "\n[[hosts]]\nname = {:?}\naddress = \"{}\"\nroles = [{}]\n",
                host.name,
                host.address,
                roles.join(", ")
            )?;
            if !labels.is_empty() {
                let pairs: Vec<String> =
                    labels.iter().map(|(k, v)| format!("{k:?} = {v:?}")).collect();
                writeln!(text, "labels = {{ {} }}", pairs.join(", "))?;
            }
            text.push_str(settings);
        }
        let path = folder.join("inventory.toml");
        std::fs::write(&path, text)?;
        Ok(path)
    }
}
