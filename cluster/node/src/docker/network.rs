//! The pod network: one Docker network on the bridge `cni0`, with the node's share of the pod
//! range as its subnet; or the daemon's own on `docker0`, which only the daemon's start can set.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::InspectNetworkOptions;
use ipnet::Ipv4Net;
use kubelet::{RuntimeError, RuntimeErrorKind};

use crate::overlay::Kernel;

use super::{PodBridge, Runtime, error};

impl Runtime {
    /// Makes the network, or makes it anew when the node's range changed. The daemon's own is only
    /// looked at.
    pub(super) async fn ensure_network(&self, pod_cidr: &str) -> Result<(), RuntimeError> {
        let (name, bridge) = (self.bridge.network(), self.bridge.device());
        let cidr: Ipv4Net = pod_cidr.parse().map_err(|_| RuntimeError {
            kind: RuntimeErrorKind::Other,
            message: format!("{pod_cidr:?} is no IPv4 range"),
        })?;
        let gateway = cidr.hosts().next().unwrap_or(cidr.addr()).to_string();
        let found = self.docker.inspect_network(name, None::<InspectNetworkOptions>).await;
        match found {
            Ok(network) => {
                let subnets = network.ipam.and_then(|i| i.config).unwrap_or_default();
                if subnets.iter().any(|c| c.subnet.as_deref() == Some(pod_cidr)) {
                    allow_hairpin(bridge).await;
                    return Ok(());
                }
                if self.bridge == PodBridge::Docker0 {
                    let there: Vec<_> = subnets.into_iter().filter_map(|c| c.subnet).collect();
                    let message = format!(
                        "docker0 is on {}, and this node's pod range is {pod_cidr}: Docker has to \
                         be started with the DOCKER_NETWORK_OPTIONS of {}",
                        there.join(", "),
                        crate::overlay::SUBNET_FILE
                    );
                    return Err(RuntimeError { kind: RuntimeErrorKind::Other, message });
                }
                tracing::warn!(pod_cidr, "the node's pod range changed: the network is remade");
                self.docker
                    .remove_network(name)
                    .await
                    .map_err(|e| error::at(&e, RuntimeErrorKind::Other))?;
            }
            Err(error) if error::code(&error) == Some(404) => {}
            Err(error) => return Err(error::plain(&error)),
        }
        let options = [
            ("com.docker.network.bridge.name", bridge.to_owned()),
            // The overlay masquerades, and only what leaves the cluster.
            ("com.docker.network.bridge.enable_ip_masquerade", "false".to_owned()),
            ("com.docker.network.bridge.enable_icc", "true".to_owned()),
            ("com.docker.network.driver.mtu", self.mtu.to_string()),
        ];
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                driver: Some("default".to_owned()),
                config: Some(vec![IpamConfig {
                    subnet: Some(pod_cidr.to_owned()),
                    gateway: Some(gateway),
                    ..IpamConfig::default()
                }]),
                options: None,
            }),
            options: Some(options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            labels: Some(HashMap::from([(kubelet::naming::OWNER.to_owned(), "true".to_owned())])),
            ..NetworkCreateRequest::default()
        };
        let made = self.docker.create_network(request).await;
        made.map(|_| ()).map_err(|e| error::at(&e, RuntimeErrorKind::Create))
    }
}

/// Lets pods reach themselves through a service: frames may leave by the port they came from.
/// (Over netlink: `/sys` may be read-only.)
pub(super) async fn allow_hairpin(bridge: &str) {
    let set = async { Kernel::connect()?.ensure_hairpin(bridge).await };
    if let Err(error) = set.await {
        tracing::warn!(error = %error::chain(&error), bridge, "hairpin mode was not set");
    }
}
