//! The event queue alone: the hold model (take one, add one) at a number of pending events.

#![expect(clippy::disallowed_types, reason = "a benchmark measures time")]

use std::time::Instant;

use clap::Args as ClapArgs;
use machine::RngTree;
use rand::RngExt;

use super::{Exit, output};
use crate::queue::Queue;

/// Arguments of the benchmark.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Pending events.
    #[arg(long, default_value_t = 1_000_000)]
    pending: u64,
    /// Events to take.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let mut rng = RngTree::new(1).rng("delays");
        let delays: Vec<u64> =
            (0..65_536).map(|_| rng.random_range(1_u64..2_000_000_000)).collect();
        let mut queue = Queue::new();
        for i in 0..self.pending {
            queue.push(api::Time(delays[(i % 65_536) as usize]), 0, i);
        }
        let started = Instant::now();
        let mut sum = 0_u64;
        for i in 0..self.events {
            let Some((time, event)) = queue.pop() else { break };
            sum = sum.wrapping_mul(31).wrapping_add(event ^ time.0);
            let delay = delays[(i.wrapping_mul(7) % 65_536) as usize];
            queue.push(api::Time(time.0 + delay), 0, event);
        }
        let seconds = started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let rate = self.events as f64 / seconds;
        output::print(
            &serde_json::json!({
                "pending": self.pending, "events": self.events, "wall_seconds": seconds,
                "events_per_second": rate, "order_hash": format!("{sum:016x}"),
            })
            .to_string(),
        )?;
        Ok(Exit::Fine)
    }
}
