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

/// Runs a world until it ends or is as wanted; `title` says which of several runs it is.
pub(super) fn run_until(
    world: &mut World,
    quiet: bool,
    title: &str,
    done: &mut dyn FnMut(&World) -> bool,
) -> Duration {
    let started = Instant::now();
    if !is_seen(quiet) {
        while !done(world) && world.step() {}
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
            if done(world) || !world.step() {
                bar.finish_and_clear();
                return started.elapsed();
            }
        }
        if shown.elapsed() >= PERIOD {
            shown = Instant::now();
            let real = started.elapsed().as_secs_f64().max(1e-3);
            bar.set_position(world.elapsed().0.min(end.0));
            bar.set_message(format!("{title}{}", line(world, real, end)));
        }
    }
}

/// A sign of life of what has no length that is known before, if somebody looks.
pub(super) fn spinner(quiet: bool) -> ProgressBar {
    if !is_seen(quiet) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(PERIOD);
    bar
}

/// Whether somebody looks at standard error.
fn is_seen(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
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
