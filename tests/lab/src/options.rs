//! What a lab is asked to be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host_kind::HostKind;
use crate::subnet::Subnet;

/// Longest wait for a host to boot and answer, under heavy load.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Parameters of one lab; several labs of different names may be up at once.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Name of the lab, part of its containers' names.
    pub name: String,
    /// Prefix of the hosts' names, which end in `-1`, `-2`, …
    pub prefix: String,
    /// Number of hosts.
    pub hosts: usize,
    /// What the hosts are dressed as, in their order; the last one holds for all that follow, and
    /// none at all means Debian.
    pub kinds: Vec<HostKind>,
    /// Range of the hosts' addresses; `None` means `10.99.0.0/24` for the lab named `default`
    /// and the next free `10.99.N.0/24` for others.
    pub subnet: Option<Subnet>,
    /// Directory for the key pair, the outer daemon's data and the test images.
    pub dir: PathBuf,
    /// Directory for what several checkouts share: the hosts' root file systems.
    pub cache: PathBuf,
    /// Address of the outer Docker; `None` means one that runs, else one started under `dir`.
    pub docker_host: Option<String>,
    /// Whether the hosts start their own Docker at boot.
    pub docker_at_boot: bool,
    /// Whether hosts that are already there are removed first.
    pub fresh: bool,
    /// Whether dropping the [`Lab`](crate::Lab) removes it.
    pub remove_on_drop: bool,
    /// Longest wait for a host to be ready.
    pub ready_timeout: Duration,
}

impl LabOptions {
    /// The defaults: three hosts `node-1…3`, Docker started at boot, in the checkout's `.lab`.
    ///
    /// Of the environment, `LAB_DIR`, `LAB_CACHE`, `XDG_CACHE_HOME`, `HOME` and `DOCKER_HOST`
    /// are looked up through `environment`.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let path =
            |name: &str| environment(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let root = workspace_root();
        let cache = path("LAB_CACHE").unwrap_or_else(|| {
            path("XDG_CACHE_HOME")
                .or_else(|| path("HOME").map(|home| home.join(".cache")))
                .unwrap_or_else(|| root.join(".lab/cache"))
                .join("kprov-lab")
        });
        Self {
            name: "default".to_owned(),
            prefix: "node".to_owned(),
            hosts: 3,
            kinds: Vec::new(),
            subnet: None,
            dir: path("LAB_DIR").unwrap_or_else(|| root.join(".lab")),
            cache,
            docker_host: environment("DOCKER_HOST").filter(|text| !text.is_empty()),
            docker_at_boot: true,
            fresh: false,
            remove_on_drop: false,
            ready_timeout: READY_TIMEOUT,
        }
    }

    /// A lab for a test: its own name, made anew, and removed when it goes out of scope.
    pub fn for_test(name: &str, hosts: usize) -> Self {
        Self {
            name: name.to_owned(),
            hosts,
            fresh: true,
            remove_on_drop: true,
            ..Self::from_environment(&|name| std::env::var(name).ok())
        }
    }

    /// The name of the host with this index, counted from 0.
    pub fn host_name(&self, index: usize) -> String {
        format!("{}-{}", self.prefix, index + 1)
    }

    /// What the host with this index is dressed as.
    pub fn kind(&self, index: usize) -> HostKind {
        self.kinds.get(index).or(self.kinds.last()).copied().unwrap_or_default()
    }

    /// Path of the private key that opens every host.
    pub fn key_path(&self) -> PathBuf {
        self.dir.join("id_ed25519")
    }

    /// Directory of the test images, see [`crate::test_images`].
    pub fn images_dir(&self) -> PathBuf {
        self.dir.join("images")
    }
}

/// The checkout that this crate was built from.
pub fn workspace_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("the manifest lies two directories below the root").to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_moves_directories() {
        let none = LabOptions::from_environment(&|_| None);
        assert_eq!(none.dir, workspace_root().join(".lab"));
        assert_eq!(none.host_name(0), "node-1");
        assert!(none.docker_host.is_none());

        let some = LabOptions::from_environment(&|name| match name {
            "LAB_DIR" => Some("/srv/lab".to_owned()),
            "HOME" => Some("/home/a".to_owned()),
            "DOCKER_HOST" => Some(String::new()),
            _ => None,
        });
        assert_eq!(some.key_path(), Path::new("/srv/lab/id_ed25519"));
        assert_eq!(some.cache, Path::new("/home/a/.cache/kprov-lab"));
        assert!(some.docker_host.is_none(), "an empty variable is an unset one");
    }

    #[test]
    fn the_last_kind_holds_for_all_that_follow() {
        let mut options = LabOptions::from_environment(&|_| None);
        assert_eq!(options.kind(2), HostKind::Debian);
        options.kinds = vec![HostKind::Ubuntu, HostKind::Centos9];
        assert_eq!(options.kind(0), HostKind::Ubuntu);
        assert_eq!(options.kind(5), HostKind::Centos9);
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(workspace_root().join("tests/lab/Cargo.toml").exists());
    }
}
