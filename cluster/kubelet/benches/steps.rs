//! What the kubelet's steps cost: a pod's whole life, news of no concern, a heartbeat. Run with
//! `cargo bench -p kubelet --bench steps`.
//!
//! Only the kubelet is measured: its inputs are recorded beforehand from a node with a small API
//! and a runtime that answers at once.

#[path = "fixture/node.rs"]
mod node;

use divan::{Bencher, counter::ItemsCount};
use kubelet::{Kubelet, NodeEffect};
use machine::Machine;

use node::{Input, Node};

/// Pods whose lives are measured in one go.
const LIVES: usize = 50;

fn main() {
    divan::Divan::from_args().sample_count(100).sample_size(1).main();
}

fn replay(kubelet: &mut Kubelet, inputs: Vec<Input>, out: &mut Vec<NodeEffect>) {
    for (now, input) in inputs {
        kubelet.step(now, input, out);
        out.clear();
    }
}

/// A kubelet that was given all but the last `rest` inputs of the node's history, and those.
fn split(node: &Node, rest: usize) -> (Kubelet, Vec<Input>, Vec<NodeEffect>) {
    let mut kubelet = node::kubelet();
    let mut effects = Vec::with_capacity(64);
    let at = node.inputs.len() - rest;
    replay(&mut kubelet, node.inputs[..at].to_vec(), &mut effects);
    (kubelet, node.inputs[at..].to_vec(), effects)
}

/// Measures the inputs that `history` adds to a node with that many running pods.
fn measure(bencher: Bencher, others: usize, items: usize, history: impl Fn(&mut Node)) {
    let mut node = Node::new();
    for n in 0..others {
        node.start(&format!("other-{n}"));
    }
    node.run_for(2);
    let before = node.inputs.len();
    history(&mut node);
    let rest = node.inputs.len() - before;
    bencher.counter(ItemsCount::new(items)).with_inputs(|| split(&node, rest)).bench_local_values(
        |(mut kubelet, inputs, mut effects)| {
            replay(&mut kubelet, inputs, &mut effects);
            (kubelet, effects)
        },
    );
}

/// A pod is started, runs and is deleted.
#[divan::bench(args = [0, 100])]
fn pods_deleted(bencher: Bencher, others: usize) {
    measure(bencher, others, LIVES, |node| {
        for n in 0..LIVES {
            let name = format!("pod-{n}");
            node.start(&name);
            node.run_for(1);
            node.delete(&name);
            node.run_for(1);
            assert!(!node.exists(&name), "{name}");
        }
    });
}

/// A pod is started, runs and ends by itself; it stays in the API.
#[divan::bench(args = [0, 100])]
fn pods_ended(bencher: Bencher, others: usize) {
    measure(bencher, others, LIVES, |node| {
        for n in 0..LIVES {
            let name = format!("pod-{n}");
            node.start(&name);
            node.run_for(1);
            node.end(&name);
            node.run_for(1);
            assert_eq!(node.phase(&name), "Succeeded");
        }
    });
}

/// A service changes.
#[divan::bench(args = [0, 100])]
fn services(bencher: Bencher, others: usize) {
    measure(bencher, others, 1_000, |node| {
        for n in 0..1_000_u64 {
            node.service(n % 10);
        }
    });
}

/// A minute of an idle node: facts, leases.
#[divan::bench(args = [0, 100])]
fn idle_minutes(bencher: Bencher, others: usize) {
    measure(bencher, others, 10, |node| node.run_for(600));
}
