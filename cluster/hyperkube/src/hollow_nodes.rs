//! `hollow-nodes`.

use anyhow::{Context, ensure};
use api::Span;
use api::quantity::Quantity;
use clap::Args;
use kubelet::container_runtime::NodeShape;
use node::hollow::{self, Delays, HollowConfig, NODES_MAX};

use crate::daemon;
use crate::flags::{Api, Log};
use crate::kubelet::{label, taint};

/// Disk of each node, bytes.
const DISK_BYTES: u64 = 500 << 30;
/// With less memory a node would be under pressure from its start, bytes.
const MEMORY_MIN_BYTES: i64 = 256 << 20;
/// With a number behind it, a longer one may be no name of a node.
const PREFIX_MAX: usize = 200;

/// Arguments of hollow-nodes.
#[derive(Args)]
#[command(
    long_about = "Runs many nodes without machines, to test control planes, schedulers and \
        controllers at scale: each is the kubelet of this binary, whose containers exist on paper \
        only. They are started after a delay and run until their pod is deleted; arguments of a \
        container such as --run=60s --exit=1 let it end by itself.\n\n\
        All nodes use the one kubeconfig, which must be an administrator's (group \
        system:masters): they register nodes and write leases, statuses and events of all nodes. \
        They carry the label kprov.io/hollow=true. When this command ends, nodes and pods stay in \
        the API, and the nodes become NotReady. Logs, exec and port-forward have no answer.",
    after_help = "Examples:\n\n  \
        hyperkube hollow-nodes --kubeconfig admin.conf --count 1000\n  \
        hyperkube hollow-nodes --kubeconfig admin.conf --count 50 --name-prefix gpu- --cpu 64 \
        --memory 512Gi \\\n      --node-labels pool=gpu --register-with-taints gpu=yes:NoSchedule\n  \
        kubectl delete nodes --selector kprov.io/hollow=true"
)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    api: Api,
    /// How many nodes.
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    count: u32,
    /// A node's name is this and its number.
    #[arg(long, value_name = "TEXT", default_value = "hollow-", value_parser = prefix)]
    name_prefix: String,
    /// The number of the first node: several processes run different ones.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    first: u32,
    /// CPUs of each node.
    #[arg(long, value_name = "CPUS", default_value = "4",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    cpu: u32,
    /// Memory of each node.
    #[arg(long, value_name = "QUANTITY", default_value = "32Gi", value_parser = memory)]
    memory: u64,
    /// Pods that fit on each node.
    #[arg(long, value_name = "PODS", default_value = "110",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pods: u32,
    /// Further labels of the nodes, `key=value,…`.
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// Taints the nodes register with, `key=value:effect,…`.
    #[arg(long, value_name = "TAINTS", value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<(String, String, String)>,
    /// How long each container takes to start, a pod's pause container too.
    #[arg(long, value_name = "TIME", default_value = "50ms")]
    container_start: Span,
    /// How long each container takes to end when it is asked to.
    #[arg(long, value_name = "TIME", default_value = "50ms")]
    container_stop: Span,
    /// How long each image takes to fetch, once a node.
    #[arg(long, value_name = "TIME", default_value = "100ms")]
    image_pull: Span,
    /// The nodes are started one after the other within this time.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    start_within: Span,
}

/// A text that is a name of a node when a number is behind it.
fn prefix(text: &str) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let labels: Vec<&str> = text.split('.').collect();
    let right = labels.iter().enumerate().all(|(i, label)| {
        let last = i + 1 == labels.len();
        label.chars().all(|c| letter(c) || c == '-')
            && label.chars().next().map_or(last, letter)
            && (last || label.ends_with(letter))
    });
    if right && text.len() <= PREFIX_MAX {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} with a number is no name of a node: lower case letters, digits, '-' and '.', \
         at most {PREFIX_MAX}"
    ))
}

fn memory(text: &str) -> Result<u64, String> {
    let quantity = Quantity::parse(text).map_err(|e| format!("{text:?}: {e}"))?;
    let bytes = quantity.value();
    if bytes < MEMORY_MIN_BYTES {
        return Err(format!("{text:?} is too little: a node needs at least 256Mi"));
    }
    u64::try_from(bytes).map_err(|e| e.to_string())
}

impl Flags {
    fn config(&self) -> anyhow::Result<HollowConfig> {
        ensure!(
            self.first.checked_add(self.count).is_some_and(|end| end <= NODES_MAX),
            "--first={} and --count={} together are above {NODES_MAX}",
            self.first,
            self.count
        );
        Ok(HollowConfig {
            name_prefix: self.name_prefix.clone(),
            first: self.first,
            count: self.count,
            shape: NodeShape { cpus: self.cpu, memory_bytes: self.memory, disk_bytes: DISK_BYTES },
            max_pods: self.pods,
            labels: self.node_labels.clone(),
            taints: self.register_with_taints.clone(),
            delays: Delays {
                start: self.container_start.duration(),
                stop: self.container_stop.duration(),
                pull: self.image_pull.duration(),
            },
            start_within: self.start_within.duration(),
        })
    }
}

/// Runs until a signal; nodes and pods stay in the API.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let config = flags.config()?;
    let [client, watches] = [flags.api.client("hollow-nodes")?, flags.api.client("hollow-nodes")?];
    hollow::run(config, client, watches, shutdown, daemon::ready)
        .await
        .context("the hollow nodes cannot run")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn config(arguments: &[&str]) -> Result<HollowConfig, String> {
        let line = ["hollow-nodes", "--kubeconfig=k"].iter().chain(arguments);
        let line = Line::try_parse_from(line).map_err(|e| e.to_string())?;
        line.flags.config().map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_a_node_of_some_size() {
        let config = config(&["--count=1000"]).unwrap();
        assert_eq!((&*config.name_prefix, config.first, config.count), ("hollow-", 0, 1000));
        assert_eq!(config.shape.cpus, 4);
        assert_eq!((config.shape.memory_bytes, config.max_pods), (32 << 30, 110));
        assert_eq!(config.delays.start.as_millis(), 50);
    }

    #[test]
    fn nodes_are_shaped_as_asked() {
        let config = config(&[
            "--count=2",
            "--first=7",
            "--name-prefix=gpu-",
            "--memory=1.5Gi",
            "--cpu=64",
            "--pods=10",
            "--node-labels=pool=gpu,zone=a",
            "--register-with-taints=gpu=yes:NoSchedule",
            "--container-start=1.5s",
            "--image-pull=0s",
        ])
        .unwrap();
        assert_eq!(config.shape.memory_bytes, 3 << 29);
        assert_eq!((config.first, config.labels.len(), config.taints.len()), (7, 2, 1));
        assert_eq!(config.delays.start.as_millis(), 1500);
        assert!(config.delays.pull.is_zero());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |arguments: &[&str], part: &str| {
            let error = config(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments:?}: {error}");
        };
        check(&[], "--count");
        check(&["--count=0"], "0 is not in 1..");
        check(&["--count=2", "--first=131070"], "together are above 131070");
        check(&["--count=2", "--first=4294967295"], "together are above");
        check(&["--count=1", "--memory=1Mi"], "too little");
        check(&["--count=1", "--memory=much"], "\"much\"");
        check(&["--count=1", "--cpu=0"], "--cpu");
        check(&["--count=1", "--container-start=5"], "no length of time");
        check(&["--count=1", "--register-with-taints=x:Never"], "no taint");
        for bad in ["Node-", "a_", "-a", "a..b", "a-.b", "a/", &"a".repeat(201)] {
            check(&["--count=1", &format!("--name-prefix={bad}")], "no name of a node");
        }
        for good in ["n", "rack-1.n-", "rack1.", "", "9"] {
            assert_eq!(prefix(good).as_deref(), Ok(good));
        }
    }
}
