//! Soak: many seeds of one scenario, on all cores, until a time or a number is reached.

#![expect(
    clippy::disallowed_types,
    reason = "runs are independent of each other; the clock only says when to stop"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::check::Violation;
use crate::plan::Plan;
use crate::world::{GaveUp, World};

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// What did not hold; empty for a good seed.
    pub violations: Vec<Violation>,
    /// Why the run was given up, if it was.
    pub gave_up: Option<GaveUp>,
    /// Why the cluster did not come to rest, if it did not.
    pub unrest: Option<String>,
    /// Events of the run.
    pub events: u64,
    /// The hash over its effects.
    pub effect_log_hash: String,
}

impl SeedResult {
    /// Whether something is wrong with the seed.
    pub fn failed(&self) -> bool {
        self.failure().is_some()
    }

    /// What is wrong with the seed first of all, if anything is.
    pub fn failure(&self) -> Option<String> {
        let violation = self.violations.first().map(|v| v.message.clone());
        violation.or_else(|| self.stuck())
    }

    /// Why the run did not get to its end, if it did not.
    pub fn stuck(&self) -> Option<String> {
        match &self.gave_up {
            Some(GaveUp::NoProgress(who)) => {
                Some(format!("no progress: {who} hears of something without end"))
            }
            _ => self.unrest.clone(),
        }
    }
}

/// When a soak ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first seed.
    pub first_seed: u64,
    /// How many seeds at most.
    pub seeds: u64,
    /// How long at most.
    pub time: Duration,
    /// How many at a time.
    pub threads: usize,
    /// Run each seed twice and compare the hashes.
    pub twice: bool,
}

/// Runs one plan to its end.
pub fn run_plan(plan: Plan) -> Result<SeedResult, crate::world::PlanError> {
    let seed = plan.seed;
    let mut world = World::new(plan)?;
    world.run();
    Ok(SeedResult {
        seed,
        violations: world.violations().to_vec(),
        gave_up: world.gave_up().cloned(),
        unrest: world.unrest(),
        events: world.events(),
        effect_log_hash: world.effect_log_hash(),
    })
}

/// Runs seed after seed; `each` is told of every result, in the order in which they finish.
///
/// # Errors
/// The first error of `expand`, as text: the scenario cannot be run.
pub fn soak(
    expand: &(dyn Fn(u64) -> Result<Plan, String> + Sync),
    limits: Limits,
    each: &mut (dyn FnMut(SeedResult) + Send),
) -> Result<u64, String> {
    let next = AtomicU64::new(limits.first_seed);
    let end = limits.first_seed.saturating_add(limits.seeds);
    let deadline = Instant::now() + limits.time;
    let each = Mutex::new(each);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..limits.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || Instant::now() >= deadline {
                        return;
                    }
                    match one(expand, seed, limits.twice) {
                        Ok(result) => {
                            let mut each = each.lock().unwrap_or_else(|e| e.into_inner());
                            each(result);
                        }
                        Err(error) => {
                            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                            next.store(end, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(next.into_inner().min(end) - limits.first_seed),
    }
}

fn one(
    expand: &(dyn Fn(u64) -> Result<Plan, String> + Sync),
    seed: u64,
    twice: bool,
) -> Result<SeedResult, String> {
    let mut plan = expand(seed)?;
    // What is compared is compared whole.
    plan.settings.hash_contents |= twice;
    let again = twice.then(|| plan.clone());
    let mut result = run_plan(plan).map_err(|e| e.to_string())?;
    if let Some(again) = again {
        let second = run_plan(again).map_err(|e| e.to_string())?;
        if second.effect_log_hash != result.effect_log_hash {
            result.violations.push(Violation {
                property: "P51".to_owned(),
                at: crate::world::START,
                event: 0,
                message: format!(
                    "two runs of seed {seed} differ: {} and {}",
                    result.effect_log_hash, second.effect_log_hash
                ),
            });
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn a_run_that_does_not_come_to_rest_has_failed() {
        for (settle, expected) in [
            (
                "5m",
                Some(
                    "the cluster did not come to rest within settings.settle (5m): 1 operation \
                     still waits: scale Deployment/default/wbe at 10s",
                ),
            ),
            // Users give up after ten minutes.
            ("15m", None),
        ] {
            let text = format!(
                "settings.settle = \"{settle}\"\n[[nodes]]\nname = \"a\"\n[[operations]]\n\
                 at = \"10s\"\ndo = \"scale\"\ntarget = \"Deployment\"\nname = \"wbe\"\n\
                 replicas = 1\n"
            );
            let scenario = Scenario::parse(Path::new("t.toml"), &text)
                .unwrap_or_else(|problems| panic!("{}", problems.render(false, 100)));
            let result = run_plan(scenario.expand(1).unwrap()).unwrap();
            assert!(result.violations.is_empty(), "{:?}", result.violations);
            assert_eq!(result.failure().as_deref(), expected, "{settle}");
            assert_eq!(result.failed(), expected.is_some(), "{settle}");
        }
    }
}
