//! The controllers of the cluster, each a pure [`Reconciler`], one file a controller.
//!
//! The main entry is [`all`]. Nothing here waits, reads a clock or talks to anybody: a
//! `machine::ControllerManager` feeds each reconciler from one cache and carries its plans to the
//! API. Signing certificates is asked of the shell, which holds the key.

mod announce;
mod bootstrap_tokens;
mod claim_users;
mod finalizer;
mod labels;
mod ownership;
mod pods;
mod quota_room;
mod readiness;
mod replicas;
mod revisions;
mod selectors;
mod service_pods;

pub mod bootstrap_signer;
pub mod cluster_dns;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod csr_approver;
pub mod csr_cleaner;
pub mod csr_signer;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod garbage_collector;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod lease_collector;
pub mod legacy_token_cleaner;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod persistent_volume_binder;
pub mod persistent_volume_claim_protection;
pub mod persistent_volume_protection;
pub mod pod_gc;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_quota;
pub mod root_ca;
pub mod service_account;
pub mod service_account_token;
pub mod stateful_set;
pub mod taint_eviction;
pub mod token_cleaner;
pub mod ttl_after_finished;

use ipnet::IpNet;
use machine::Reconciler;

/// Kubernetes' default of `--unhealthy-zone-threshold`.
const UNHEALTHY_ZONE_THRESHOLD_PERCENT: u8 = 55;

/// What the controllers must be told about the cluster.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// The addresses of all pods; without them nodes get no range.
    pub cluster_cidr: Option<IpNet>,
    /// Bits of each node's range within `cluster_cidr`.
    pub node_cidr_mask_size: u8,
    /// The CA of the API server as PEM, published in every namespace; not published when absent.
    pub root_ca_pem: Option<String>,
    /// Whether people approve the first certificate of a node.
    #[serde(default)]
    pub nodes_approved_by_hand: bool,
    /// What becomes of the service of the cluster's DNS; nothing when absent.
    #[serde(default)]
    pub cluster_dns: Option<cluster_dns::ClusterDns>,
}

/// Every controller, ready for a `ControllerManager`.
pub fn all(config: Config) -> Vec<Box<dyn Reconciler>> {
    let mut all: Vec<Box<dyn Reconciler>> = vec![
        Box::new(deployment::Deployments),
        Box::new(replica_set::ReplicaSets::new()),
        Box::new(replication_controller::ReplicationControllers::new()),
        Box::new(daemon_set::DaemonSets),
        Box::new(job::Jobs),
        Box::new(cron_job::CronJobs),
        Box::new(horizontal_pod_autoscaler::HorizontalPodAutoscalers),
        Box::new(ttl_after_finished::TtlAfterFinished),
        Box::new(stateful_set::StatefulSets),
        Box::new(endpoints::Endpoints),
        Box::new(endpoint_slice::EndpointSlices),
        Box::new(endpoint_slice_mirroring::EndpointSliceMirroring),
        Box::new(namespace::Namespaces),
        Box::new(service_account::ServiceAccounts),
        Box::new(node_lifecycle::NodeLifecycle::new(UNHEALTHY_ZONE_THRESHOLD_PERCENT)),
        Box::new(taint_eviction::TaintEviction),
        Box::new(disruption::Disruptions),
        Box::new(pod_gc::PodGc),
        Box::new(garbage_collector::GarbageCollector),
        Box::new(resource_quota::ResourceQuotas),
        Box::new(cluster_role_aggregation::ClusterRoleAggregation),
        Box::new(lease_collector::LeaseCollector),
        Box::new(token_cleaner::TokenCleaner),
        Box::new(legacy_token_cleaner::LegacyTokenCleaner),
        Box::new(bootstrap_signer::BootstrapSigner),
        Box::new(persistent_volume_binder::PersistentVolumeBinder),
        Box::new(persistent_volume_protection::PersistentVolumeProtection),
        Box::new(persistent_volume_claim_protection::PersistentVolumeClaimProtection),
        Box::new(ephemeral_volume::EphemeralVolumes),
        Box::new(csr_approver::CsrApprover::new(config.nodes_approved_by_hand)),
        Box::new(csr_signer::CsrSigner),
        Box::new(csr_cleaner::CsrCleaner),
    ];
    if let Some(cluster) = config.cluster_cidr {
        all.push(Box::new(node_ipam::NodeIpam::new(cluster, config.node_cidr_mask_size)));
    }
    if let Some(ca_pem) = config.root_ca_pem {
        all.push(Box::new(service_account_token::ServiceAccountTokens::new(ca_pem.clone())));
        all.push(Box::new(root_ca::RootCa::new(ca_pem)));
    }
    if let Some(dns) = config.cluster_dns {
        all.push(Box::new(dns));
    }
    all
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod world;
