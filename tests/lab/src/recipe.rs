//! What a host's root file system is made of.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::host_kind::HostKind;

/// The release whose packages hosts are made of where the machine itself is no Debian.
const SUITE_DEFAULT: &str = "bookworm";

/// Packages of a host, with recommended packages left out.
const PACKAGES: [&str; 17] = [
    "apt",
    "ca-certificates",
    "curl",
    "dbus",
    "docker.io",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "nftables",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tar",
    "util-linux",
];

/// What the kinds of hosts have besides; sorted.
const UBUNTU_PACKAGES: [&str; 4] = ["ifupdown", "netbase", "ufw", "uuid-runtime"];
const CENTOS7_PACKAGES: [&str; 3] = ["createrepo-c", "dnf", "rpm"];
const CENTOS9_PACKAGES: [&str; 4] = ["createrepo-c", "dnf", "firewalld", "rpm"];

const DRESS: &str = include_str!("recipe/dress.sh");
const CUSTOMIZE: &str = include_str!("recipe/customize.sh");
const INIT: &str = include_str!("recipe/init.sh");

/// Everything that decides what is in a host's image; its hash names the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Debian release.
    pub suite: String,
    /// Packages, sorted.
    pub packages: Vec<String>,
    /// Script that runs on the new root before it is packed.
    pub customize: String,
    /// What the host is dressed as after that, and the script that does it; none for Debian.
    pub dress: Option<(HostKind, String)>,
    /// First process of a host.
    pub init: String,
}

impl Recipe {
    /// The recipe of a bare host of this kind. See [`Recipe::debian`].
    pub fn of(kind: HostKind, os_release: &str) -> Self {
        let mut recipe = Self::debian(os_release);
        let more: &[&str] = match kind {
            HostKind::Debian => return recipe,
            HostKind::Ubuntu => &UBUNTU_PACKAGES,
            HostKind::Centos7 => &CENTOS7_PACKAGES,
            HostKind::Centos9 => &CENTOS9_PACKAGES,
        };
        recipe.packages.extend(more.iter().map(|name| (*name).to_owned()));
        recipe.packages.sort();
        recipe.dress = Some((kind, DRESS.to_owned()));
        recipe
    }

    /// The recipe of a bare Debian host, of the machine's own release where it is a Debian.
    ///
    /// `os_release` is the text of `/etc/os-release`.
    pub fn debian(os_release: &str) -> Self {
        let field = |name: &str| {
            os_release
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim_matches('"').to_owned())
        };
        let suite = match (field("ID").as_deref(), field("VERSION_CODENAME")) {
            (Some("debian"), Some(codename)) if !codename.is_empty() => codename,
            _ => SUITE_DEFAULT.to_owned(),
        };
        Self {
            suite,
            packages: PACKAGES.map(str::to_owned).to_vec(),
            customize: CUSTOMIZE.to_owned(),
            dress: None,
            init: INIT.to_owned(),
        }
    }

    /// The first twelve hexadecimal digits of the recipe's SHA-256.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        // Lengths keep a text that moves from one field to the next from hashing the same.
        for text in [&self.suite, &self.packages.join(" "), &self.customize, &self.init] {
            hasher.update(text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        }
        if let Some((kind, script)) = &self.dress {
            for text in [kind.name(), script] {
                hasher.update(text.len().to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hex(&hasher.finalize())[..12].to_owned()
    }

    /// The name and tag of the image.
    pub fn image(&self) -> String {
        format!("kprov-lab/host:{}", self.hash())
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_machines_own_where_it_is_debian() {
        let check = |os_release: &str, suite: &str| {
            assert_eq!(Recipe::debian(os_release).suite, suite, "{os_release}");
        };
        check("ID=debian\nVERSION_CODENAME=trixie\n", "trixie");
        check("ID=\"debian\"\nVERSION_CODENAME=\"bookworm\"\n", "bookworm");
        check("ID=ubuntu\nVERSION_CODENAME=noble\n", "bookworm");
        check("", "bookworm");
    }

    #[test]
    fn every_part_of_the_recipe_changes_the_hash() {
        let recipe = Recipe::debian("");
        assert_eq!(recipe.hash(), Recipe::debian("").hash());
        assert_eq!(recipe.hash().len(), 12);
        let mut changed = vec![recipe.clone(); 4];
        changed[0].suite.push('x');
        changed[1].packages.push("vim".to_owned());
        changed[2].customize.push('#');
        changed[3].init.push('#');
        changed.extend(HostKind::ALL.map(|kind| Recipe::of(kind, "")));
        let mut hashes: Vec<_> = changed.iter().map(Recipe::hash).collect();
        hashes.push(recipe.hash());
        hashes.sort();
        hashes.dedup();
        // The plain recipe is that of the first kind.
        assert_eq!(hashes.len(), 4 + HostKind::ALL.len());
    }

    #[test]
    fn packages_are_sorted() {
        for kind in HostKind::ALL {
            assert!(Recipe::of(kind, "").packages.is_sorted(), "{kind}");
        }
    }
}
