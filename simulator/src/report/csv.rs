//! Tables for other programs: RFC 4180, one file each, times in seconds since the run's start.

use scheduler::Explanation;
use serde_json::Value;

use super::figures::exact_seconds;
use crate::compare::Comparison;
use crate::outcome::{Outcome, Rollout, Sample};
use crate::world::START;

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvTable {
    /// What it holds, to name a file after it: `samples`, `rollouts`, `heat`, `violations`.
    pub name: &'static str,
    /// A line of headings and a line for each row.
    pub text: String,
}

/// All tables of an outcome; the first is that of the samples. Tables without rows have their
/// headings.
pub fn tables(outcome: &Outcome) -> [CsvTable; 4] {
    [samples(&outcome.samples), rollouts(&outcome.rollouts), heat(outcome), violations(outcome)]
}

fn samples(samples: &[Sample]) -> CsvTable {
    let headings = [
        "at_seconds",
        "nodes",
        "nodes_ready",
        "nodes_used",
        "cpu_allocatable_milli",
        "cpu_requested_milli",
        "cpu_stranded_milli",
        "memory_allocatable_bytes",
        "memory_requested_bytes",
        "gpus_allocatable",
        "gpus_requested",
        "pending",
        "running",
        "evicted",
        "writes",
        "scheduling_p50_seconds",
        "scheduling_p99_seconds",
    ];
    let nanos = |nanos| exact_seconds(crate::span::Span(nanos));
    let rows = samples.iter().map(|s| {
        let mut row = vec![exact_seconds(s.at)];
        let counts = [
            s.nodes,
            s.nodes_ready,
            s.nodes_used,
            s.cpu_allocatable_milli,
            s.cpu_requested_milli,
            s.cpu_stranded_milli,
            s.memory_allocatable_bytes,
            s.memory_requested_bytes,
            s.gpus_allocatable,
            s.gpus_requested,
            s.pending,
            s.running,
            s.evicted,
            s.writes,
        ];
        row.extend(counts.map(|count| count.to_string()));
        row.extend([nanos(s.scheduling_p50_ns), nanos(s.scheduling_p99_ns)]);
        row
    });
    table("samples", &headings, rows)
}

fn rollouts(rollouts: &[Rollout]) -> CsvTable {
    let headings = [
        "deployment",
        "generation",
        "began_seconds",
        "completed_seconds",
        "available_min",
        "replicas",
    ];
    let rows = rollouts.iter().map(|r| {
        vec![
            r.deployment.clone(),
            r.generation.to_string(),
            exact_seconds(r.began),
            r.completed.map(exact_seconds).unwrap_or_default(),
            r.available_min.to_string(),
            r.replicas.to_string(),
        ]
    });
    table("rollouts", &headings, rows)
}

fn heat(outcome: &Outcome) -> CsvTable {
    let map = &outcome.heat;
    let rows = map.times.iter().zip(&map.cpu_percent).flat_map(|(at, column)| {
        let cells = map.nodes.iter().zip(column).filter(|(_, percent)| **percent != u8::MAX);
        cells.map(|(node, percent)| vec![exact_seconds(*at), node.clone(), percent.to_string()])
    });
    table("heat", &["at_seconds", "node", "cpu_percent"], rows)
}

fn violations(outcome: &Outcome) -> CsvTable {
    let rows = outcome.violations.iter().map(|v| {
        let at = crate::span::Span(v.at.0.saturating_sub(START.0));
        vec![v.property.clone(), exact_seconds(at), v.event.to_string(), v.message.clone()]
    });
    table("violations", &["property", "at_seconds", "event", "message"], rows)
}

/// The differences of a comparison, one a row, in the units that `unit` names.
pub fn comparison(comparison: &Comparison) -> CsvTable {
    let headings = [
        "metric",
        "unit",
        "more_is_better",
        "pairs",
        "mean_a",
        "mean_b",
        "difference",
        "interval_low",
        "interval_high",
        "verdict",
    ];
    let word = |value: serde_json::Result<Value>| {
        value.ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let rows = comparison.differences.iter().map(|d| {
        let measured = |value: f64| if d.pairs == 0 { String::new() } else { value.to_string() };
        let bound = |of: fn((f64, f64)) -> f64| d.interval.map(of).map(|v| v.to_string());
        vec![
            d.metric.clone(),
            word(serde_json::to_value(d.unit)),
            d.more_is_better.to_string(),
            d.pairs.to_string(),
            measured(d.mean_a),
            measured(d.mean_b),
            measured(d.difference),
            bound(|(low, _)| low).unwrap_or_default(),
            bound(|(_, high)| high).unwrap_or_default(),
            word(serde_json::to_value(d.verdict)),
        ]
    });
    table("comparison", &headings, rows)
}

/// Why a pod is where it is: each node with its verdict, its score and that of each plugin.
pub fn explanation(explanation: &Explanation, chosen: Option<&str>) -> CsvTable {
    let mut plugins: Vec<&str> = Vec::new();
    for score in explanation.feasible.iter().flat_map(|node| &node.scores) {
        if !plugins.contains(&score.plugin.as_str()) {
            plugins.push(&score.plugin);
        }
    }
    let headings: Vec<&str> = ["node", "verdict", "rejected_by", "reasons", "score"]
        .into_iter()
        .chain(plugins.clone())
        .collect();
    let feasible = explanation.feasible.iter().map(|node| {
        let verdict = match Some(node.node.as_str()) == chosen {
            true => "chosen",
            false => "feasible",
        };
        let mut row = vec![node.node.clone(), verdict.to_owned(), String::new(), String::new()];
        row.push(node.total.to_string());
        row.extend(plugins.iter().map(|plugin| {
            let score = node.scores.iter().find(|s| s.plugin == *plugin);
            score.map(|s| s.weighted.to_string()).unwrap_or_default()
        }));
        row
    });
    let rejected = explanation.rejected.iter().map(|node| {
        let reasons = node.reasons.join("; ");
        let mut row = vec![node.node.clone(), "rejected".to_owned(), node.plugin.clone(), reasons];
        row.resize(5 + plugins.len(), String::new());
        row
    });
    table("explanation", &headings, feasible.chain(rejected))
}

fn table(
    name: &'static str,
    headings: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> CsvTable {
    let mut text = headings.join(",");
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    CsvTable { name, text }
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Violation;
    use crate::outcome::HeatMap;
    use crate::span::Span;

    #[test]
    fn tables_are_what_spreadsheets_read() {
        let sample = Sample { at: Span::millis(1_500), nodes: 3, ..Sample::default() };
        let outcome = Outcome {
            samples: vec![Sample { scheduling_p99_ns: 2_500_000, ..sample }],
            heat: HeatMap {
                nodes: vec!["a".to_owned(), "b".to_owned()],
                times: vec![Span::ZERO],
                cpu_percent: vec![vec![40, 255]],
            },
            violations: vec![Violation {
                property: "P9".to_owned(),
                at: START + Span::secs(2).duration(),
                event: 17,
                message: "a \"pod\", bound twice".to_owned(),
            }],
            ..Outcome::default()
        };
        let [samples, rollouts, heat, violations] = tables(&outcome);
        let lines: Vec<&str> = samples.text.lines().collect();
        assert_eq!(lines[1], "1.5,3,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0.0025");
        assert_eq!(lines[0].split(',').count(), lines[1].split(',').count());
        assert_eq!(rollouts.text.lines().count(), 1);
        assert_eq!(heat.text, "at_seconds,node,cpu_percent\n0,a,40\n");
        assert_eq!(violations.text.lines().last(), Some("P9,2,17,\"a \"\"pod\"\", bound twice\""));
    }
}
