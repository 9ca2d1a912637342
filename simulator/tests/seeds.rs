//! Every seed that ever failed is run again: `seeds.txt`.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use simulator::scenario::Scenario;
use simulator::soak::run_plan;

/// A line of the file: `SCENARIO SEED # why`.
#[derive(Debug, PartialEq, Eq)]
struct Seed {
    scenario: String,
    seed: u64,
    why: String,
}

/// The seeds of a text; lines that are empty or say something to people alone are left out.
fn parse(text: &str) -> Result<Vec<Seed>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let seed = |line: &str| {
        let (run, why) = line.split_once('#')?;
        let (scenario, seed) = run.trim().split_once(' ')?;
        let (scenario, seed) = (scenario.to_owned(), seed.trim().parse().ok()?);
        let why = why.trim().to_owned();
        (!why.is_empty()).then_some(Seed { scenario, seed, why })
    };
    lines.map(|line| seed(line).ok_or_else(|| format!("not SCENARIO SEED # WHY: {line}"))).collect()
}

#[test]
fn lines_are_read_or_refused() {
    let seed = Seed { scenario: "a-5".to_owned(), seed: 7, why: "it broke".to_owned() };
    assert_eq!(parse("# to people\n\n a-5  7 # it broke\n"), Ok(vec![seed]));
    for wrong in ["a-5 7", "a-5 7 #", "a-5 # why", "7 # why", "a-5 x # why"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

/// Runs a seed twice: it must be right, and the runs equal to the last effect (P51).
fn wrong(folder: &Path, Seed { scenario, seed, why }: &Seed) -> Option<String> {
    let path = folder.join(format!("scenarios/{scenario}.toml"));
    let read = Scenario::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut plan = read.expand(*seed).unwrap_or_else(|problems| panic!("{problems:?}"));
    plan.settings.hash_contents = true;
    let result = run_plan(plan.clone()).expect("a plan that can be run");
    if let Some(failure) = result.failure() {
        return Some(format!("{scenario} {seed} ({why}): {failure} {:#?}", result.violations));
    }
    let again = run_plan(plan).expect("a plan that can be run").effect_log_hash;
    let hash = result.effect_log_hash;
    (hash != again).then(|| format!("{scenario} {seed}: two runs differ: {hash} and {again}"))
}

#[test]
fn what_once_failed_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(folder.join("seeds.txt")).expect("the list is there");
    let seeds = parse(&text).expect("the list can be read");
    assert!(!seeds.is_empty());
    // Runs are independent of each other: as many at a time as there are cores.
    let next = AtomicUsize::new(0);
    let one_by_one = || {
        let mut found = Vec::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(wrong(folder, seed));
        }
        found
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one_by_one)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("no run panics")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
