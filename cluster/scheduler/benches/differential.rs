//! Takes as many random decisions as one likes by the fast way and by the plain one, and tells
//! whether they differ: `differential DECISIONS [FIRST_SEED]` prints its figures as one line of
//! JSON.

#![expect(clippy::print_stdout, reason = "figures are the result")]
#![expect(clippy::disallowed_types, reason = "a benchmark measures time")]

#[path = "../tests/differential/run.rs"]
mod run;
#[path = "../tests/differential/shapes.rs"]
mod shapes;

use std::time::Instant;

use serde_json::json;

/// So many decisions of a seed: after that its cluster hardly shows anything new.
const OF_A_SEED: u64 = 2_000;

fn main() {
    // Cargo adds flags of its own.
    let numbers = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let mut numbers = numbers.map(|arg| arg.parse::<u64>().expect("arguments are numbers"));
    let wanted = numbers.next().unwrap_or(100_000);
    let first = numbers.next().unwrap_or(1);
    let start = Instant::now();
    let (mut seed, mut decisions, mut bound, mut displaced) = (first, 0, 0, 0);
    let mut differences = Vec::new();
    while decisions < wanted {
        let outcome = run::run(seed, OF_A_SEED.min(wanted - decisions));
        decisions += outcome.decisions;
        bound += outcome.bound;
        displaced += outcome.displaced;
        if outcome.different > 0 {
            differences.push(json!({"seed": seed, "different": outcome.different,
                "first": outcome.differences.first()}));
        }
        seed += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let figures = json!({
        "decisions": decisions,
        "first_seed": first,
        "last_seed": seed - 1,
        "bound": bound,
        "displaced": displaced,
        "seconds": seconds,
        "decisions_per_second": decisions as f64 / seconds,
        "differences": differences,
    });
    println!("{figures}");
}
