//! How far a run has come.

#![expect(clippy::disallowed_types, reason = "people want to know how long it still takes")]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::span::Span;
use crate::world::World;

/// Events between two looks at the clock.
const EVENTS: u64 = 65_536;
/// How often the bar moves.
const PERIOD: Duration = Duration::from_millis(200);

/// Runs a world to its end and shows how far it has come, if somebody looks.
pub(super) fn run(world: &mut World, quiet: bool) -> Duration {
    let started = Instant::now();
    if quiet || !std::io::stderr().is_terminal() {
        world.run();
        return started.elapsed();
    }
    let end = world.plan().heals_at();
    let bar = ProgressBar::with_draw_target(Some(end.0), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut shown = Instant::now();
    loop {
        for _ in 0..EVENTS {
            if !world.step() {
                bar.finish_and_clear();
                return started.elapsed();
            }
        }
        if shown.elapsed() >= PERIOD {
            shown = Instant::now();
            let real = started.elapsed().as_secs_f64().max(1e-3);
            bar.set_position(world.elapsed().0.min(end.0));
            bar.set_message(line(world, real, end));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn line(world: &World, real: f64, end: Span) -> String {
    let elapsed = world.elapsed();
    let events = world.events() as f64 / real / 1e6;
    let pods = world.pods_bound() as f64 / real;
    let done = elapsed.as_secs_f64() / end.as_secs_f64().max(1e-9);
    let left = if done >= 1.0 {
        "settling".to_owned()
    } else {
        format!("{:.0} s left", real / done.max(1e-6) - real)
    };
    let virtual_time = Span(elapsed.0 / 1_000_000_000 * 1_000_000_000);
    format!("virtual {virtual_time}, {events:.2} M events/s, {pods:.0} pods/s, {left}")
}
