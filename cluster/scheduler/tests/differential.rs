//! The fast way of deciding against the plain one, on whole schedulers with random clusters.
//!
//! `cargo xtask bench-sched --differential N` does the same for as many decisions as one likes.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "differential/other_clusters.rs"]
mod other_clusters;
#[path = "differential/run.rs"]
mod run;
#[path = "differential/shapes.rs"]
mod shapes;

/// Seeds that once showed a difference, or are kept for another reason.
const SEEDS: &str = include_str!("differential/seeds.txt");
/// So many decisions of each are taken twice.
const DECISIONS: u64 = 400;

/// The seeds of a file: one a line, up to a `#`.
fn seeds() -> impl Iterator<Item = u64> {
    let texts = SEEDS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    texts.filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

#[test]
fn every_kept_seed_decides_as_the_reference_does() {
    let (mut decisions, mut bound, mut displaced) = (0, 0, 0);
    for seed in seeds() {
        let outcome = run::run(seed, DECISIONS);
        assert_eq!(outcome.different, 0, "seed {seed}: {:#?}", outcome.differences);
        decisions += outcome.decisions;
        bound += outcome.bound;
        displaced += outcome.displaced;
    }
    assert!(
        decisions > 5_000 && bound > 1_000 && displaced > 20,
        "{decisions} {bound} {displaced}"
    );
}

#[test]
fn a_seed_does_the_same_each_time() {
    let once = || format!("{:?}", run::run(7, DECISIONS));
    assert_eq!(once(), once());
}
