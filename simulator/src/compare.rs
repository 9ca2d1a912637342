//! [`Comparison`]: two configurations on the same traces with the same seeds.
//!
//! Since both runs of a pair see the same arrivals and draw the same random numbers, what one
//! pair differs by is the configurations' doing, and the differences vary far less than the
//! figures. Floats are fine here: they are shown, and decide nothing.

mod student;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, Percentiles, Sample};

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricUnit {
    /// Seconds.
    Seconds,
    /// Hundredths of a whole.
    Percent,
    /// Pieces.
    Count,
}

/// What is measured of a run to compare it with another.
struct Metric {
    name: &'static str,
    title: &'static str,
    unit: MetricUnit,
    more_is_better: bool,
    /// Whether it is told only where it was measured.
    rare: bool,
    /// `None` where the run has no such figure.
    of: fn(&Outcome) -> Option<f64>,
}

/// What A and B are judged by.
const METRICS: [Metric; 14] = [
    metric("scheduling_p50", "Scheduling latency, p50", MetricUnit::Seconds, |o| {
        latency(&o.scheduling, o.scheduling.p50_ns)
    }),
    metric("scheduling_p99", "Scheduling latency, p99", MetricUnit::Seconds, |o| {
        latency(&o.scheduling, o.scheduling.p99_ns)
    }),
    metric("start_p99", "Start latency, p99", MetricUnit::Seconds, |o| {
        latency(&o.start, o.start.p99_ns)
    }),
    metric("pending_mean", "Pending pods, mean", MetricUnit::Count, |o| {
        o.mean(|s| Some(s.pending as f64))
    }),
    metric("pending_max", "Pending pods, most", MetricUnit::Count, |o| {
        o.peak(|s| Some(s.pending as f64))
    }),
    Metric {
        more_is_better: true,
        ..metric("cpu_mean", "CPU requested, mean", MetricUnit::Percent, |o| {
            o.mean(Sample::cpu_percent)
        })
    },
    Metric {
        more_is_better: true,
        ..metric("cpu_peak", "CPU requested, peak", MetricUnit::Percent, |o| {
            o.peak(Sample::cpu_percent)
        })
    },
    Metric {
        more_is_better: true,
        rare: true,
        ..metric("gpus_mean", "GPUs requested, mean", MetricUnit::Percent, |o| {
            o.mean(Sample::gpu_percent)
        })
    },
    metric("stranded_mean", "CPU stranded, mean", MetricUnit::Percent, |o| {
        o.mean(Sample::stranded_percent)
    }),
    metric("nodes_used_at_peak", "Nodes in use at the CPU peak", MetricUnit::Count, |o| {
        o.busiest().map(|s| s.nodes_used as f64)
    }),
    metric("evictions", "Evictions", MetricUnit::Count, |o| Some(o.pods_evicted as f64)),
    metric("pods_pending_at_end", "Pods without a node at the end", MetricUnit::Count, |o| {
        o.pods_at_end.get("pending").map(|count| *count as f64)
    }),
    metric("violations", "Violations", MetricUnit::Count, |o| Some(o.violations.len() as f64)),
    metric("wall", "Real time of the run", MetricUnit::Seconds, |o| {
        Some(o.wall_seconds).filter(|seconds| *seconds > 0.0)
    }),
];

const fn metric(
    name: &'static str,
    title: &'static str,
    unit: MetricUnit,
    of: fn(&Outcome) -> Option<f64>,
) -> Metric {
    Metric { name, title, unit, more_is_better: false, rare: false, of }
}

fn latency(found: &Percentiles, nanos: u64) -> Option<f64> {
    (found.count > 0).then(|| nanos as f64 / 1e9)
}

/// What B is, seen from A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// With 95 % confidence B is better.
    Better,
    /// With 95 % confidence B is worse.
    Worse,
    /// The interval contains zero: the pairs do not tell A and B apart.
    NoDifferenceSeen,
    /// One pair says nothing of how much pairs vary.
    OnePair,
    /// No pair has this figure.
    NotMeasured,
}

impl Verdict {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceSeen => "no difference seen",
            Self::OnePair => "one pair: no interval",
            Self::NotMeasured => "not measured",
        }
    }
}

/// One metric of A and B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The metric's name for programs, for example `scheduling_p99`.
    pub metric: String,
    /// The metric's name for people.
    pub title: String,
    /// What the figures count.
    pub unit: MetricUnit,
    /// Whether larger figures are better.
    pub more_is_better: bool,
    /// Pairs in which both runs have the figure.
    pub pairs: usize,
    /// The mean of A.
    pub mean_a: f64,
    /// The mean of B.
    pub mean_b: f64,
    /// The mean of B − A over the pairs.
    pub difference: f64,
    /// The 95 % confidence interval of the mean of B − A; `None` with fewer than two pairs.
    pub interval: Option<(f64, f64)>,
    /// What follows from it.
    pub verdict: Verdict,
}

/// Two configurations on the same traces with the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The name of A.
    pub a: String,
    /// The name of B.
    pub b: String,
    /// Runs of each.
    pub pairs: usize,
    /// Rows of A's traces that make no sense and were left out, by what is wrong with them.
    #[serde(default)]
    pub skipped_rows_a: BTreeMap<String, u64>,
    /// The same of B.
    #[serde(default)]
    pub skipped_rows_b: BTreeMap<String, u64>,
    /// Every metric, in a fixed order; those of what few clusters have only where it was measured.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Compares runs of A with runs of B. Each pair must have the same trace and the same seed.
    pub fn of(pairs: &[(Outcome, Outcome)]) -> Self {
        let name = |of: fn(&(Outcome, Outcome)) -> &Outcome| {
            pairs.first().map(|pair| of(pair).name.clone()).unwrap_or_default()
        };
        Self {
            a: name(|pair| &pair.0),
            b: name(|pair| &pair.1),
            pairs: pairs.len(),
            skipped_rows_a: pairs.first().map(|p| p.0.skipped_rows.clone()).unwrap_or_default(),
            skipped_rows_b: pairs.first().map(|p| p.1.skipped_rows.clone()).unwrap_or_default(),
            differences: METRICS.iter().filter_map(|metric| metric.compare(pairs)).collect(),
        }
    }

    /// The same, with names for the configurations instead of the scenario's.
    #[must_use]
    pub fn named(self, a: &str, b: &str) -> Self {
        Self { a: a.to_owned(), b: b.to_owned(), ..self }
    }

    /// The comparison as one JSON object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("no maps with keys that are no text")
    }

    /// A table for a terminal, with a newline at its end.
    pub fn text(&self) -> String {
        let noun = if self.pairs == 1 { "pair" } else { "pairs" };
        let mut text = format!(
            "A: {}\nB: {}\n{} {noun} of runs with the same seeds\n\n",
            self.a, self.b, self.pairs
        );
        let _ = writeln!(
            text,
            "{:<32}{:>12}{:>12}{:>12}  {:<24}B is",
            "", "A", "B", "B − A", "95 % interval"
        );
        for difference in &self.differences {
            let [a, b, apart, interval] = difference.cells();
            let _ = writeln!(
                text,
                "{:<32}{a:>12}{b:>12}{apart:>12}  {interval:<24}{}",
                difference.title,
                difference.verdict.words()
            );
        }
        text
    }
}

impl Metric {
    /// `None` for what is rare and was not measured.
    fn compare(&self, pairs: &[(Outcome, Outcome)]) -> Option<Difference> {
        let figures = pairs.iter().filter_map(|(a, b)| (self.of)(a).zip((self.of)(b)));
        let figures: Vec<(f64, f64)> = figures.collect();
        if self.rare && figures.is_empty() {
            return None;
        }
        let differences: Vec<f64> = figures.iter().map(|(a, b)| b - a).collect();
        let difference = mean(differences.iter().copied());
        let interval = student::half_width(&differences)
            .map(|half_width| (difference - half_width, difference + half_width));
        let verdict = match (figures.len(), interval) {
            (0, _) => Verdict::NotMeasured,
            (_, None) => Verdict::OnePair,
            (_, Some((low, high))) if low <= 0.0 && high >= 0.0 => Verdict::NoDifferenceSeen,
            _ if (difference > 0.0) == self.more_is_better => Verdict::Better,
            _ => Verdict::Worse,
        };
        Some(Difference {
            metric: self.name.to_owned(),
            title: self.title.to_owned(),
            unit: self.unit,
            more_is_better: self.more_is_better,
            pairs: figures.len(),
            mean_a: mean(figures.iter().map(|(a, _)| *a)),
            mean_b: mean(figures.iter().map(|(_, b)| *b)),
            difference,
            interval,
            verdict,
        })
    }
}

impl Difference {
    /// Mean of A, mean of B, their difference and its interval as people read them.
    pub fn cells(&self) -> [String; 4] {
        if self.pairs == 0 {
            return ["–", "–", "–", ""].map(str::to_owned);
        }
        let write = |value| crate::report::written(self.unit, value);
        let signed = |value: f64| {
            let text = write(value);
            if value > 0.0 && !text.starts_with("0 ") && text != "0" {
                format!("+{text}")
            } else {
                text
            }
        };
        let interval = self.interval;
        let interval = interval.map(|(low, high)| format!("{} … {}", signed(low), signed(high)));
        [
            write(self.mean_a),
            write(self.mean_b),
            signed(self.difference),
            interval.unwrap_or_default(),
        ]
    }
}

/// Zero of nothing.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests;
