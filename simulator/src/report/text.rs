//! The summary of a run for a terminal.

use std::fmt::Write;

use super::figures::{Unit, grouped, nanos, span};
use super::rollout_chart::{available_percent, duration, is_new};
use crate::outcome::{Outcome, Percentiles, Sample};
use crate::span::Span;
use crate::world::START;

/// Violations that are printed in full.
const VIOLATIONS_SHOWN: usize = 20;
const LABEL: usize = 16;
/// Operations that were given up are printed with their reason.
const GIVEN_UP_SHOWN: usize = 5;

/// A concise summary with a newline at its end. Colours are escape sequences (ECMA-48), only for
/// terminals that want them.
pub fn text(outcome: &Outcome, colours: bool) -> String {
    let mut text = String::new();
    let paint = Paint { colours };
    let _ = writeln!(
        text,
        "{}  seed {}  effects {}",
        paint.bold(&outcome.name),
        outcome.seed,
        outcome.effect_log_hash
    );
    for (label, line) in lines(outcome) {
        let _ = writeln!(text, "  {label:<LABEL$}{line}");
    }
    given_up(outcome, &mut text);
    latencies(outcome, &mut text);
    verdict(outcome, &paint, &mut text);
    if let Some(finding) = &outcome.finding {
        text.push_str(&super::finding_text(finding));
    }
    text
}

/// Letters in colours, or not.
struct Paint {
    colours: bool,
}

impl Paint {
    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn good(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn lines(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("virtual time", time(outcome)),
        ("events", events(outcome)),
        ("nodes", nodes(outcome)),
        (
            "pods",
            format!(
                "{} created, {} bound, {} started",
                grouped(outcome.pods_created),
                grouped(outcome.pods_bound),
                grouped(outcome.pods_started)
            ),
        ),
        ("at the end", ends(outcome)),
    ];
    if outcome.rows_skipped() > 0 {
        let line = format!("{} of the trace make no sense", grouped(outcome.rows_skipped()));
        lines.push(("skipped rows", line));
    }
    if let Some(line) = utilisation(outcome) {
        lines.push(("requested", line));
    }
    if outcome.pods_evicted > 0 {
        lines.push(("evictions", grouped(outcome.pods_evicted)));
    }
    if !outcome.rollouts.is_empty() {
        lines.push(("rollouts", rollouts(outcome)));
    }
    lines
}

fn time(outcome: &Outcome) -> String {
    let mut line = Unit::Seconds.write(outcome.virtual_seconds);
    if outcome.wall_seconds > 0.0 {
        let factor = outcome.virtual_seconds / outcome.wall_seconds;
        let _ = write!(
            line,
            " in {} ({}× real time)",
            Unit::Seconds.write(outcome.wall_seconds),
            Unit::Count.write(factor)
        );
    }
    if outcome.peak_memory_bytes > 0 {
        let _ = write!(line, ", {} memory", Unit::Bytes.write(outcome.peak_memory_bytes as f64));
    }
    line
}

fn events(outcome: &Outcome) -> String {
    let mut line = grouped(outcome.events);
    if outcome.wall_seconds > 0.0 {
        let rate = Unit::PerSecond.write(outcome.events as f64 / outcome.wall_seconds);
        let _ = write!(line, " ({rate})");
    }
    let _ = write!(line, ", {} writes", grouped(outcome.writes));
    line
}

fn nodes(outcome: &Outcome) -> String {
    let mut line = grouped(outcome.nodes);
    if let Some(busiest) = outcome.busiest() {
        let _ = write!(line, ", {} in use when it was busiest", grouped(busiest.nodes_used));
    }
    line
}

/// Where the pods are, in the order in which they get there.
pub(super) const ENDS: [&str; 6] =
    ["pending", "bound", "running", "succeeded", "failed", "deleted"];

fn ends(outcome: &Outcome) -> String {
    let counts = ENDS.iter().filter_map(|end| Some((end, *outcome.pods_at_end.get(*end)?)));
    let counts = counts.filter(|(_, count)| *count > 0);
    let texts: Vec<String> = counts.map(|(end, n)| format!("{} {end}", grouped(n))).collect();
    if texts.is_empty() { "no pods".to_owned() } else { texts.join(", ") }
}

fn utilisation(outcome: &Outcome) -> Option<String> {
    let figures = |of: fn(&Sample) -> Option<f64>| {
        let write = |value: Option<f64>| value.map(|v| Unit::Percent.write(v));
        Some((write(outcome.mean(of))?, write(outcome.peak(of))?))
    };
    let (cpu, cpu_peak) = figures(Sample::cpu_percent)?;
    let (memory, memory_peak) = figures(Sample::memory_percent)?;
    let (stranded, _) = figures(Sample::stranded_percent)?;
    let gpus = figures(Sample::gpu_percent);
    let gpus = gpus.map(|(gpus, peak)| format!(", GPUs {gpus} (peak {peak})")).unwrap_or_default();
    Some(format!(
        "CPU {cpu} (peak {cpu_peak}), memory {memory} (peak {memory_peak}){gpus}, stranded CPU \
         {stranded}"
    ))
}

fn rollouts(outcome: &Outcome) -> String {
    let all = &outcome.rollouts;
    let took: Vec<Span> = all.iter().filter_map(duration).collect();
    let mut line = format!("{}, {} completed", grouped(all.len() as u64), took.len());
    if let Some(longest) = took.iter().max() {
        let _ = write!(line, ", longest {}", span(*longest));
    }
    let worst = all.iter().filter(|r| !is_new(r)).min_by_key(|r| available_percent(r));
    if let Some(worst) = worst {
        let _ = write!(line, ", fewest available {} of {}", worst.available_min, worst.replicas);
    }
    line
}

fn given_up(outcome: &Outcome, text: &mut String) {
    let count = outcome.operations_given_up;
    if count == 0 {
        return;
    }
    let noun = if count == 1 { "operation was" } else { "operations were" };
    let _ = writeln!(text, "  {} {noun} given up:", grouped(count));
    for operation in outcome.given_up.iter().take(GIVEN_UP_SHOWN) {
        let _ = writeln!(text, "    {operation}");
    }
    if count > GIVEN_UP_SHOWN as u64 {
        let _ = writeln!(text, "    … and {} more", grouped(count - GIVEN_UP_SHOWN as u64));
    }
}

fn latencies(outcome: &Outcome, text: &mut String) {
    let _ = writeln!(
        text,
        "\n  {:<LABEL$}{:>12}{:>10}{:>10}{:>10}{:>10}",
        "from creation", "pods", "p50", "p90", "p99", "max"
    );
    for (label, found) in [("to binding", outcome.scheduling), ("to running", outcome.start)] {
        let cells = cells(&found).map(|cell| format!("{cell:>10}")).concat();
        let _ = writeln!(text, "  {label:<LABEL$}{:>12}{cells}", grouped(found.count));
    }
}

/// Median, quantiles and maximum as people read them.
pub(super) fn cells(found: &Percentiles) -> [String; 4] {
    let values = [found.p50_ns, found.p90_ns, found.p99_ns, found.max_ns];
    values.map(|value| if found.count == 0 { "–".to_owned() } else { nanos(value) })
}

fn verdict(outcome: &Outcome, paint: &Paint, text: &mut String) {
    text.push('\n');
    let rest = match outcome.settled_after {
        Some(after) => format!("at rest {} after the faults were healed", span(after)),
        None => "did not come to rest".to_owned(),
    };
    let count = outcome.violations.len();
    if count == 0 {
        let _ = writeln!(text, "  {}; {rest}", paint.good("no violations"));
        return;
    }
    let noun = if count == 1 { "violation" } else { "violations" };
    let _ = writeln!(text, "  {}; {rest}", paint.bad(&format!("{count} {noun}")));
    for violation in outcome.violations.iter().take(VIOLATIONS_SHOWN) {
        let at = Span(violation.at.0.saturating_sub(START.0));
        let _ = writeln!(
            text,
            "  {} after {} (event {}): {}",
            paint.bold(&violation.property),
            span(at),
            violation.event,
            violation.message
        );
    }
    if count > VIOLATIONS_SHOWN {
        let _ = writeln!(text, "  … and {} more", count - VIOLATIONS_SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::demo;

    #[test]
    fn a_summary_is_a_screen_of_text() {
        insta::assert_snapshot!(text(&demo::outcome(7), false));
    }

    #[test]
    fn nothing_at_all_is_summed_up_too() {
        let text = text(&Outcome::default(), false);
        assert!(text.contains("no pods") && text.contains("no violations"), "{text}");
        assert!(!text.contains("NaN") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn operations_that_were_given_up_are_named_but_for_many() {
        let named = |i: u64| format!("scale Deployment/default/web-{i} at 30s: not found");
        let of = |count: u64| Outcome {
            operations_given_up: count,
            given_up: (0..count).map(named).collect(),
            ..demo::outcome(7)
        };
        for (count, lines) in [
            (0, vec![]),
            (
                1,
                vec![
                    "  1 operation was given up:",
                    "    scale Deployment/default/web-0 at 30s: not found",
                ],
            ),
            (7, vec!["  7 operations were given up:", "    … and 2 more"]),
        ] {
            let text = text(&of(count), false);
            assert_eq!(text.contains("given up"), count > 0, "{text}");
            assert!(lines.iter().all(|line| text.lines().any(|l| l == *line)), "{text}");
        }
    }

    #[test]
    fn colours_change_nothing_else() {
        let outcome = demo::outcome(8);
        let painted = text(&outcome, true);
        assert!(painted.contains("\u{1b}[1;31m2 violations\u{1b}[0m"), "{painted}");
        let mut plain = painted;
        for code in ["1", "32", "1;31", "0"] {
            plain = plain.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(plain, text(&outcome, false));
    }
}
