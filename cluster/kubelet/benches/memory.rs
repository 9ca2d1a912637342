//! What a kubelet and its pods take of memory: the column of what is freed with the kubelet. API
//! objects belong to the node as well and do not count. Run with
//! `cargo bench -p kubelet --bench memory`.

#[path = "fixture/node.rs"]
#[expect(dead_code, reason = "pods are only started here")]
mod node;

use divan::{AllocProfiler, Bencher};
use machine::Machine;

use node::Node;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::Divan::from_args().sample_count(20).sample_size(1).main();
}

/// A registered kubelet with that many running pods.
#[divan::bench(args = [0, 1, 100])]
fn running_pods(bencher: Bencher, pods: usize) {
    let mut node = Node::new();
    for n in 0..pods {
        node.start(&format!("pod-{n}"));
    }
    node.run_for(60);
    bencher
        .with_inputs(|| {
            let mut kubelet = node::kubelet();
            let mut effects = Vec::new();
            for (now, input) in node.inputs.clone() {
                kubelet.step(now, input, &mut effects);
                effects.clear();
            }
            kubelet
        })
        .bench_local_values(drop);
}
