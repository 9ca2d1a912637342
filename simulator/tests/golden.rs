//! What a few small runs did, to the last byte of the last effect, as committed: a change of what
//! components do shows in review, and every build, with optimization or without, does the same
//! (P51). After a change that is meant: `INSTA_UPDATE=always cargo nextest run -p simulator
//! --test golden`, and commit what it writes.

use std::path::Path;

use simulator::scenario::Scenario;
use simulator::world::World;

/// Scenarios with their seeds: faults of all kinds, and each of the larger controllers once.
const RUNS: [(&str, u64); 7] = [
    ("faulty-5", 1),
    ("bugs/collision-unresolved", 1),
    ("bugs/daemon-pods-doubled", 1),
    ("bugs/ending-pods-counted", 1),
    ("bugs/job-pods-doubled", 1),
    ("bugs/several-active-schedulers", 1),
    ("bugs/stale-endpoints-compared", 1),
];

/// Hash, events and writes of a run without its bug.
fn told(name: &str, seed: u64) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
    let scenario = Scenario::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut plan = scenario.expand(seed).unwrap_or_else(|problems| panic!("{problems:?}"));
    plan.settings.hash_contents = true;
    plan.settings.bug = None;
    let mut world = World::new(plan).expect("a plan that can be run");
    world.run();
    let outcome = world.outcome();
    let (hash, events, writes) = (outcome.effect_log_hash, outcome.events, outcome.writes);
    format!("{name} {seed}: {hash}, {events} events, {writes} writes\n")
}

#[test]
fn runs_have_the_effects_that_were_committed() {
    let lines: String = RUNS.iter().map(|(name, seed)| told(name, *seed)).collect();
    insta::assert_snapshot!("effects", lines);
}
