//! Which distribution a host looks like.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A distribution that a host can be dressed as. Underneath, all are the same Debian: release files,
/// package managers, firewalls and service names differ, kernel and programs do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// Debian as it is, with Docker installed.
    #[default]
    Debian,
    /// Ubuntu 22.04 with ufw, and a local `apt` repository that has Docker.
    Ubuntu,
    /// CentOS 7 with `yum` and iptables-services, and Docker in its own repository.
    Centos7,
    /// CentOS Stream 9 with `dnf` and firewalld, and a repository that its `dnf` does not know,
    /// which has Docker.
    Centos9,
}

impl HostKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Debian, Self::Ubuntu, Self::Centos7, Self::Centos9];

    /// The name on the command line and of the image.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
            Self::Centos7 => "centos7",
            Self::Centos9 => "centos9",
        }
    }

    /// Whether its image has Docker; on the others it is a package that can be installed.
    #[must_use]
    pub fn has_docker(self) -> bool {
        self == Self::Debian
    }

    /// The address of the repository that has Docker, as the host reaches it.
    pub const REPOSITORY: &'static str = "file:///srv/packages";
}

impl fmt::Display for HostKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no [`HostKind`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no image {name}; there are {}", known())]
pub struct NoSuchKind {
    name: String,
}

fn known() -> String {
    HostKind::ALL.map(HostKind::name).join(", ")
}

impl FromStr for HostKind {
    type Err = NoSuchKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| NoSuchKind { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_name() {
        for kind in HostKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "suse".parse::<HostKind>().unwrap_err().to_string();
        assert_eq!(error, "there is no image suse; there are debian, ubuntu, centos7, centos9");
    }
}
