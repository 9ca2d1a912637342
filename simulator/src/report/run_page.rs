//! The HTML page of one run.

use std::fmt::Write;

use super::axis::Scale;
use super::chart::{Chart, Series};
use super::figures::{Unit, grouped, span};
use super::page::{Card, cards, escape, page, table};
use super::text::{ENDS, cells};
use super::{heat_map, latency_chart, rollout_chart};
use crate::outcome::{Outcome, Sample};
use crate::span::Span;
use crate::world::START;

/// Violations that are shown in full.
const VIOLATIONS_SHOWN: usize = 100;

/// The run on one page: key figures, charts over time, latencies, nodes, rollouts, violations.
pub fn html(outcome: &Outcome) -> String {
    let mut body = header(outcome);
    body.push_str(&cards(&key_figures(outcome)));
    if !outcome.violations.is_empty() {
        violations(outcome, &mut body);
    }
    body.push_str("<h2>Cluster</h2><div class=\"charts\">");
    let times: Vec<Span> = outcome.samples.iter().map(|s| s.at).collect();
    for chart in charts(outcome, &times) {
        body.push_str(&chart.figure());
    }
    body.push_str(&latency(outcome, &times).figure());
    body.push_str("</div><h2>Pods</h2><div class=\"charts\">");
    body.push_str(&latency_chart::figure(outcome));
    latencies(outcome, &mut body);
    ends(outcome, &mut body);
    body.push_str("</div><h2>Nodes</h2>");
    body.push_str(&heat_map::figure(&outcome.heat, outcome.nodes));
    body.push_str("<h2>Rollouts</h2>");
    let end = times.last().copied().unwrap_or_default();
    let end = outcome.rollouts.iter().filter_map(|r| r.completed).fold(end, Span::max);
    body.push_str(&rollout_chart::figure(&outcome.rollouts, end));
    body.push_str(
        "<footer>Made by ksim. The same scenario and seed give the same effects, and so the same \
         hash, on every machine.</footer>",
    );
    page(&format!("{} · seed {}", outcome.name, outcome.seed), &body)
}

fn header(outcome: &Outcome) -> String {
    let mut html = "<header><p class=\"kind\">Simulation</p>".to_owned();
    let name = if outcome.name.is_empty() { "without a name" } else { &outcome.name };
    let _ = write!(html, "<h1>{}</h1><ul class=\"facts\">", escape(name));
    let count = outcome.violations.len();
    html.push_str(&match count {
        0 => "<li class=\"good\">no violations</li>".to_owned(),
        1 => "<li class=\"bad\">1 violation</li>".to_owned(),
        _ => format!("<li class=\"bad\">{count} violations</li>"),
    });
    let rest = match outcome.settled_after {
        Some(after) => format!("{} after the last fault", span(after)),
        None => "not reached".to_owned(),
    };
    if outcome.rows_skipped() > 0 {
        let rows = grouped(outcome.rows_skipped());
        let _ = write!(html, "<li class=\"bad\"><span>Rows of the trace skipped</span>{rows}</li>");
    }
    if outcome.operations_given_up > 0 {
        let count = grouped(outcome.operations_given_up);
        let _ = write!(html, "<li class=\"bad\"><span>Operations given up</span>{count}</li>");
    }
    let _ = write!(
        html,
        "<li><span>Seed</span><code>{}</code></li><li><span>Rest</span>{}</li>\
         <li><span>Effects</span><code>{}</code></li></ul></header>",
        outcome.seed,
        escape(&rest),
        escape(&outcome.effect_log_hash)
    );
    html
}

fn key_figures(outcome: &Outcome) -> Vec<Card> {
    let percent = |value: Option<f64>| value.map_or("–".to_owned(), |v| Unit::Percent.write(v));
    let latency = |found: &crate::outcome::Percentiles| {
        let [p50, _, p99, _] = cells(found);
        (p99, format!("median {p50}"))
    };
    let (scheduling, scheduling_detail) = latency(&outcome.scheduling);
    let (start, start_detail) = latency(&outcome.start);
    let busiest = outcome.busiest().map_or(0, |s| s.nodes_used);
    let at_end = |end: &str| outcome.pods_at_end.get(end).copied().unwrap_or(0);
    let card = |name, value, detail| Card { name, value, detail };
    let mut figures = vec![
        card(
            "Pods",
            grouped(outcome.pods_created),
            format!(
                "{} bound, {} pending at the end",
                grouped(outcome.pods_bound),
                grouped(at_end("pending"))
            ),
        ),
        card("Nodes", grouped(outcome.nodes), format!("{} in use at the peak", grouped(busiest))),
        card(
            "CPU requested",
            percent(outcome.peak(Sample::cpu_percent)),
            format!("at the peak, mean {}", percent(outcome.mean(Sample::cpu_percent))),
        ),
        card("Scheduling, p99", scheduling, scheduling_detail),
        card("Start, p99", start, start_detail),
        card("Evictions", grouped(outcome.pods_evicted), "pods taken from their nodes".to_owned()),
        card(
            "Virtual time",
            Unit::Seconds.write(outcome.virtual_seconds),
            format!("{} events", grouped(outcome.events)),
        ),
    ];
    if outcome.wall_seconds > 0.0 {
        let rate = outcome.events as f64 / outcome.wall_seconds;
        let memory = match outcome.peak_memory_bytes {
            0 => String::new(),
            bytes => format!(", {}", Unit::Bytes.write(bytes as f64)),
        };
        let detail = format!("{}{memory}", Unit::PerSecond.write(rate).replace("/s", " events/s"));
        figures.push(card("Real time", Unit::Seconds.write(outcome.wall_seconds), detail));
    }
    figures
}

fn series(
    (name, colour): (&'static str, &'static str),
    summary: String,
    values: Vec<Option<f64>>,
) -> Series {
    Series { name, colour, summary, values, filled: false }
}

fn mean_and_peak(outcome: &Outcome, unit: Unit, of: impl Fn(&Sample) -> Option<f64>) -> String {
    match (outcome.mean(&of), outcome.peak(&of)) {
        (Some(mean), Some(peak)) => {
            format!("mean {} · peak {}", unit.write(mean), unit.write(peak))
        }
        _ => String::new(),
    }
}

fn charts<'a>(outcome: &Outcome, times: &'a [Span]) -> Vec<Chart<'a>> {
    let line = |name, colour, unit, of: &dyn Fn(&Sample) -> Option<f64>| {
        let values = outcome.samples.iter().map(of).collect();
        series((name, colour), mean_and_peak(outcome, unit, of), values)
    };
    let filled = |line: Series| Series { filled: true, ..line };
    let chart = |id, title, note, unit, series| Chart {
        id,
        title,
        note,
        unit,
        scale: Scale::Linear,
        reaches: None,
        times,
        series,
    };
    let cpus = |milli: u64| Some(milli as f64 / 1_000.0);
    let count = |count: u64| Some(count as f64);
    let free = |s: &Sample| cpus(s.cpu_allocatable_milli.saturating_sub(s.cpu_requested_milli));
    let (evictions, writes) = (since_last(outcome, |s| s.evicted), writes_per_second(outcome));
    let evicted = format!("{} in all", grouped(outcome.pods_evicted));
    let written = format!("{} in all", grouped(outcome.writes));
    vec![
        Chart {
            reaches: Some(100.0),
            ..chart(
                "utilisation",
                "Utilisation",
                "What pods on nodes request, of what the nodes offer.",
                Unit::Percent,
                requested(outcome, &line),
            )
        },
        chart(
            "stranded",
            "Fragmentation",
            "Free CPU, and the part of it on nodes where the most wanted pod finds no room.",
            Unit::Cpus,
            vec![
                line("free", "c6", Unit::Cpus, &free),
                filled(line("stranded", "c5", Unit::Cpus, &|s| cpus(s.cpu_stranded_milli))),
            ],
        ),
        chart(
            "pending",
            "Pending pods",
            "Pods without a node.",
            Unit::Count,
            vec![filled(line("pending", "c2", Unit::Count, &|s| count(s.pending)))],
        ),
        chart(
            "running",
            "Running pods",
            "",
            Unit::Count,
            vec![filled(line("running", "c3", Unit::Count, &|s| count(s.running)))],
        ),
        chart(
            "nodes",
            "Node readiness",
            "Nodes with at least one pod are in use.",
            Unit::Count,
            vec![
                line("registered", "c6", Unit::Count, &|s| count(s.nodes)),
                line("ready", "c3", Unit::Count, &|s| count(s.nodes_ready)),
                line("in use", "c4", Unit::Count, &|s| count(s.nodes_used)),
            ],
        ),
        chart(
            "evictions",
            "Evictions",
            "Pods taken from their nodes since the sample before.",
            Unit::Count,
            vec![filled(series(("evictions", "c5"), evicted, evictions))],
        ),
        chart(
            "writes",
            "Writes to the store",
            "",
            Unit::PerSecond,
            vec![filled(series(("writes", "c4"), written, writes))],
        ),
    ]
}

/// A line for each resource that the nodes offer.
fn requested(
    outcome: &Outcome,
    line: &impl Fn(&'static str, &'static str, Unit, &dyn Fn(&Sample) -> Option<f64>) -> Series,
) -> Vec<Series> {
    let cpu = line("CPU", "c1", Unit::Percent, &Sample::cpu_percent);
    let mut lines = vec![
        Series { filled: true, ..cpu },
        line("memory", "c2", Unit::Percent, &Sample::memory_percent),
    ];
    if outcome.peak(Sample::gpu_percent).is_some() {
        lines.push(line("GPUs", "c3", Unit::Percent, &Sample::gpu_percent));
    }
    lines
}

/// How much a running total grew from sample to sample.
fn since_last(outcome: &Outcome, of: impl Fn(&Sample) -> u64) -> Vec<Option<f64>> {
    let mut before = 0;
    let grown = outcome.samples.iter().map(|sample| {
        let total = of(sample);
        let grown = total.saturating_sub(before);
        before = total;
        Some(grown as f64)
    });
    grown.collect()
}

fn writes_per_second(outcome: &Outcome) -> Vec<Option<f64>> {
    let mut rates = Vec::with_capacity(outcome.samples.len());
    rates.extend(outcome.samples.first().map(|_| None));
    rates.extend(outcome.samples.windows(2).map(|pair| {
        let seconds = pair[1].at.as_secs_f64() - pair[0].at.as_secs_f64();
        let writes = pair[1].writes.saturating_sub(pair[0].writes);
        (seconds > 0.0).then(|| writes as f64 / seconds)
    }));
    rates
}

fn latency<'a>(outcome: &Outcome, times: &'a [Span]) -> Chart<'a> {
    let line = |name, colour, of: fn(&Sample) -> u64| {
        // Zero means that no pod was bound since the last sample.
        let seconds = |s: &Sample| Some(of(s)).filter(|n| *n > 0).map(|n| n as f64 / 1e9);
        let values: Vec<Option<f64>> = outcome.samples.iter().map(seconds).collect();
        let peak = outcome.peak(seconds).map(|p| format!("peak {}", Unit::Seconds.write(p)));
        series((name, colour), peak.unwrap_or_default(), values)
    };
    Chart {
        id: "latency",
        title: "Scheduling latency",
        note: "From creation to binding, of the pods bound since the sample before. Logarithmic.",
        unit: Unit::Seconds,
        scale: Scale::Log,
        reaches: None,
        times,
        series: vec![
            line("p50", "c1", |s| s.scheduling_p50_ns),
            line("p99", "c2", |s| s.scheduling_p99_ns),
        ],
    }
}

fn latencies(outcome: &Outcome, body: &mut String) {
    let row = |name: &str, found: &crate::outcome::Percentiles| {
        let mut row = vec![name.to_owned(), grouped(found.count)];
        row.extend(cells(found));
        row
    };
    let rows = [row("bound", &outcome.scheduling), row("running", &outcome.start)];
    body.push_str(
        "<section class=\"card panel\" id=\"percentiles\"><h3>Latency percentiles</h3>\
         <p class=\"note\">From a pod's creation until it is bound, or its containers run.</p>",
    );
    body.push_str(&table(&["Until", ">Pods", ">p50", ">p90", ">p99", ">max"], &rows));
    body.push_str("</section>");
}

fn ends(outcome: &Outcome, body: &mut String) {
    body.push_str(
        "<section class=\"card panel\" id=\"pods\"><h3>Where the pods are at the end</h3>\
         <p class=\"note\">Every pod that was created is in exactly one place.</p>",
    );
    let rows = ENDS.map(|end| {
        let count = outcome.pods_at_end.get(end).copied().unwrap_or(0);
        let percent = count as f64 * 100.0 / outcome.pods_created.max(1) as f64;
        vec![end.to_owned(), grouped(count), Unit::Percent.write(percent)]
    });
    body.push_str(&table(&["Place", ">Pods", ">Of all"], &rows));
    body.push_str("</section>");
}

fn violations(outcome: &Outcome, body: &mut String) {
    body.push_str("<h2>Violations</h2><section id=\"violations\">");
    for violation in outcome.violations.iter().take(VIOLATIONS_SHOWN) {
        let at = Span(violation.at.0.saturating_sub(START.0));
        let _ = write!(
            body,
            "<div class=\"card violation\"><h3>{}</h3><span class=\"note\">after {}, event {}\
             </span><p>{}</p></div>",
            escape(&violation.property),
            span(at),
            grouped(violation.event),
            escape(&violation.message)
        );
    }
    let more = outcome.violations.len().saturating_sub(VIOLATIONS_SHOWN);
    if more > 0 {
        let _ = write!(body, "<p class=\"note\">… and {more} more.</p>");
    }
    if let Some(finding) = &outcome.finding {
        body.push_str(&super::finding::html(finding));
    }
    body.push_str("</section>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::demo;

    #[test]
    fn every_chart_has_as_many_points_as_there_are_samples() {
        let outcome = demo::outcome(7);
        let page = html(&outcome);
        let lines: Vec<&str> = page.split("<path class=\"line ").skip(1).collect();
        assert_eq!(lines.len(), 13);
        for line in lines {
            let d = line.split('"').nth(2).unwrap();
            let points = d.matches(['M', 'L']).count();
            // Rates have no value at the first sample, latencies none where nothing was bound.
            let least = outcome.samples.len() * 3 / 4;
            assert!((least..=outcome.samples.len()).contains(&points), "{points}: {line}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_escapes_what_it_is_given() {
        let mut outcome = demo::outcome(8);
        outcome.name = "<script>alert(1)</script>".to_owned();
        let page = html(&outcome);
        assert!(page.contains("&lt;script&gt;alert(1)"));
        assert!(!page.contains("alert(1)</script>"));
        let links = page.replace("http://www.w3.org/2000/svg", "");
        for elsewhere in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!links.contains(elsewhere), "{elsewhere}");
        }
        assert!(page.contains("2 violations") && page.contains("bound to both"), "{page}");
    }

    #[test]
    fn nothing_at_all_is_a_page_too() {
        let page = html(&Outcome::default());
        for nonsense in ["NaN", "inf", "-0."] {
            let drawn = page.split("<script>").next().unwrap();
            assert!(!drawn.contains(nonsense), "{nonsense}");
        }
        assert_eq!(page.matches(">no data<").count(), 10);
        assert!(page.contains("no rollouts"));
    }
}
