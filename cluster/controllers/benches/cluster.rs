//! What the controller manager costs in clusters of many nodes and pods.
//!
//! A world without delays is played once and what the controller manager was told is written
//! down; only telling it all that once more is timed. Run with `cargo bench -p controllers`.

#[path = "cluster/world.rs"]
mod world;

use divan::Bencher;
use divan::counter::ItemsCount;
use machine::{ControllerManager, Machine};

use self::world::{Told, World};

fn main() {
    divan::main();
}

/// Times the telling of all but the first `prelude`; `items` is what came of it.
fn replay(bencher: Bencher<'_, '_>, prelude: usize, items: usize, told: &[Told]) {
    let (prelude, told) = told.split_at(prelude);
    bencher
        .counter(ItemsCount::new(items))
        .with_inputs(|| {
            let mut manager = world::manager();
            tell(&mut manager, prelude);
            manager
        })
        .bench_local_values(|mut manager| {
            tell(&mut manager, told);
            manager
        });
}

fn tell(manager: &mut ControllerManager, told: &[Told]) {
    let mut out = Vec::new();
    for (now, input) in told {
        manager.step(*now, input.clone(), &mut out);
        out.clear();
    }
}

/// Nodes register, report ready and get their range; an item is a node.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 1, sample_size = 1)]
fn nodes_join(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut world = World::new();
    world.add_nodes(nodes);
    replay(bencher, 0, nodes, &world.told);
}

/// Pods of nobody are created, bound, run and are deleted, on 1,000 nodes; an item is a watch
/// event of a pod.
#[divan::bench(args = [10_000, 100_000], sample_count = 3, sample_size = 1)]
fn bare_pods(bencher: Bencher<'_, '_>, pods: usize) {
    let mut world = World::new();
    world.add_nodes(1_000);
    let before = world.told.len();
    world.bare_pods(pods);
    let events = world.told.len() - before;
    replay(bencher, before, events, &world.told);
}

/// Replica sets of 100 pods come up, pod by pod, and are deleted with all they own; an item is a
/// pod.
#[divan::bench(args = [10, 100], sample_count = 3, sample_size = 1)]
fn replica_sets(bencher: Bencher<'_, '_>, sets: usize) {
    let mut world = World::new();
    world.add_nodes(100);
    let before = world.told.len();
    world.replica_sets(sets, 100);
    replay(bencher, before, sets * 100, &world.told);
}

/// One deployment comes up, pod by pod; an item is a pod.
#[divan::bench(args = [100, 1_000], sample_count = 3, sample_size = 1)]
fn one_deployment(bencher: Bencher<'_, '_>, replicas: usize) {
    let mut world = World::new();
    world.add_nodes(100);
    let before = world.told.len();
    world.deployments(1, replicas, false);
    world.run_pods(1);
    replay(bencher, before, replicas, &world.told);
}

/// Deployments of 100 pods with a service each come up, 25 pods at a time; an item is a pod.
#[divan::bench(args = [20, 100, 2_000], sample_count = 1, sample_size = 1)]
fn deployments_with_services(bencher: Bencher<'_, '_>, deployments: usize) {
    let mut world = World::new();
    world.add_nodes(1_000);
    let before = world.told.len();
    world.deployments(deployments, 100, true);
    world.run_pods(25);
    replay(bencher, before, deployments * 100, &world.told);
}

/// One node in ten falls silent, the others renew their leases for two minutes; an item is a
/// node.
#[divan::bench(args = [1_000, 3_000, 100_000], sample_count = 1, sample_size = 1)]
fn silent_nodes(bencher: Bencher<'_, '_>, nodes: usize) {
    let mut world = World::new();
    world.add_nodes(nodes);
    let before = world.told.len();
    world.renew_leases(nodes, nodes / 10, 120);
    replay(bencher, before, nodes, &world.told);
}
