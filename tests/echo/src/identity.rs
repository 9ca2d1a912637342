//! Who answers: the pod's name and the program's version.

use std::net::IpAddr;

/// What every answer begins with.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pod: String,
    version: String,
}

impl Identity {
    /// Reads `POD_NAME`, else `HOSTNAME`, and `VERSION` from the environment.
    pub(crate) fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let pod = environment("POD_NAME").or_else(|| environment("HOSTNAME"));
        Self {
            pod: pod.unwrap_or_else(|| "unknown".to_owned()),
            version: environment("VERSION").unwrap_or_else(|| "0".to_owned()),
        }
    }

    /// Writes `pod=NAME ip=ADDRESS version=V`, with the address that the request came in on.
    pub(crate) fn line(&self, address: IpAddr) -> String {
        format!("pod={} ip={} version={}", self.pod, plain(address), self.version)
    }
}

/// An IPv4 address seen through an IPv6 socket, written as the IPv4 address that it is.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}
