//! `hyperkube`: every component of the cluster in one static binary.
//!
//! The first argument, or the name of the link it is called by, chooses the component. This
//! crate parses arguments, wires the crates together and handles signals; it decides nothing.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use daemon::Threads;

mod apiserver_proxy;
mod cluster_dns;
mod daemon;
mod extenders;
mod flags;
mod flanneld;
mod health_server;
mod hollow_nodes;
mod host_probe;
mod kube_apiserver;
mod kube_controller_manager;
mod kube_proxy;
mod kube_scheduler;
mod kubelet;
mod kubelet_config_file;
mod recording;
mod scheduler_config_file;
mod signer;
mod version_note;

/// Every component of a Kubernetes cluster in one binary.
#[derive(Parser)]
#[command(
    name = "hyperkube",
    version = version_note::version(),
    after_help = "The component can also be chosen by the name of a link to this binary:\n\n  \
        ln -s hyperkube kube-scheduler && ./kube-scheduler --help"
)]
struct Hyperkube {
    #[command(subcommand)]
    component: Component,
}

#[derive(Subcommand)]
enum Component {
    /// Serves the Kubernetes API on etcd.
    KubeApiserver(kube_apiserver::Flags),
    /// Runs the controllers.
    KubeControllerManager(kube_controller_manager::Flags),
    /// Assigns pods to nodes.
    KubeScheduler(kube_scheduler::Flags),
    /// Runs the pods of a node in Docker.
    Kubelet(kubelet::Flags),
    /// Makes services reachable on a node.
    #[command(alias = "proxy")]
    KubeProxy(kube_proxy::Flags),
    /// Connects the pod networks of all nodes.
    Flanneld(flanneld::Flags),
    /// Balances a host's connections over all API servers, TLS and all.
    ApiserverProxy(apiserver_proxy::Flags),
    /// Answers a node's pods what names of the cluster, and others, stand for.
    ClusterDns(cluster_dns::Flags),
    /// Runs many nodes without machines, for tests at scale.
    #[command(long_about = hollow_nodes::ABOUT, after_help = hollow_nodes::EXAMPLES)]
    HollowNodes(hollow_nodes::Flags),
    /// Measures disk and network of a host, for kprov.
    HostProbe(host_probe::Flags),
}

const COMPONENTS: [&str; 9] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "flanneld",
    "apiserver-proxy",
    "cluster-dns",
    "hollow-nodes",
];

/// `kube-scheduler ARGS` becomes `hyperkube kube-scheduler ARGS`.
fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.into_iter().collect();
    let name = arguments
        .first()
        .and_then(|first| Path::new(first).file_name())
        .and_then(|name| COMPONENTS.iter().find(|c| name == **c));
    if let Some(name) = name {
        arguments.insert(1, OsString::from(*name));
    }
    arguments
}

fn main() -> ExitCode {
    let parsed = Hyperkube::parse_from(arguments(std::env::args_os()));
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no other provider is installed before main");
    use Threads::{One, Two};
    match parsed.component {
        Component::KubeApiserver(flags) => {
            daemon::run(&flags.log, Two, kube_apiserver::run(&flags))
        }
        Component::KubeControllerManager(flags) => {
            daemon::run(&flags.log, Two, kube_controller_manager::run(&flags))
        }
        Component::KubeScheduler(flags) => {
            daemon::run(&flags.log, Two, kube_scheduler::run(&flags))
        }
        Component::Kubelet(flags) => daemon::run(&flags.log, Two, kubelet::run(&flags)),
        Component::KubeProxy(flags) => daemon::run(&flags.log, One, kube_proxy::run(&flags)),
        Component::Flanneld(flags) => daemon::run(&flags.log, One, flanneld::run(&flags)),
        Component::ApiserverProxy(flags) => {
            daemon::run(&flags.log, One, apiserver_proxy::run(&flags))
        }
        Component::ClusterDns(flags) => daemon::run(&flags.log, One, cluster_dns::run(&flags)),
        Component::HollowNodes(flags) => daemon::run(&flags.log, Two, hollow_nodes::run(&flags)),
        Component::HostProbe(flags) => host_probe::run(&flags),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn links_choose_the_component() {
        let check = |given: &[&str], expected: &[&str]| {
            let given = given.iter().map(OsString::from);
            assert_eq!(arguments(given), expected.iter().map(OsString::from).collect::<Vec<_>>());
        };
        check(
            &["/usr/local/bin/kubelet", "--v=2"],
            &["/usr/local/bin/kubelet", "kubelet", "--v=2"],
        );
        check(&["hyperkube", "kubelet"], &["hyperkube", "kubelet"]);
        check(&[], &[]);
    }

    #[test]
    fn hollow_nodes_say_whose_rights_they_need() {
        let mut command = Hyperkube::command();
        let hollow = command.find_subcommand_mut("hollow-nodes").unwrap();
        let help = hollow.render_long_help().to_string();
        assert!(help.contains("system:masters") && help.contains("--count 1000"), "{help}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Hyperkube::command().debug_assert();
    }
}
