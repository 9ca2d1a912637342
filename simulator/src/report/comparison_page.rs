//! The HTML page of a comparison.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::axis::{Axis, Scale};
use super::chart::{Chart, Series};
use super::figures::{Unit, grouped};
use super::page::{escape, page};
use crate::compare::{Comparison, Difference, Verdict};
use crate::outcome::{Outcome, Sample};
use crate::span::Span;

/// The picture of the intervals.
const WIDTH: f64 = 1160.0;
const MIDDLE: f64 = 700.0;
const HALF: f64 = 400.0;
const ROW: f64 = 30.0;
const TOP: f64 = 26.0;

/// A and B on one page: what differs, how surely, and how a run of each went over time (the
/// first pair).
pub fn html(comparison: &Comparison, pairs: &[(Outcome, Outcome)]) -> String {
    let noun = if comparison.pairs == 1 { "pair" } else { "pairs" };
    let rows = |skipped: &BTreeMap<String, u64>| skipped.values().sum::<u64>();
    let skipped = match (rows(&comparison.skipped_rows_a), rows(&comparison.skipped_rows_b)) {
        (0, 0) => String::new(),
        (a, b) => format!(
            "<li class=\"bad\"><span>Rows of the traces skipped</span>A {}, B {}</li>",
            grouped(a),
            grouped(b)
        ),
    };
    let mut body = format!(
        "<header><p class=\"kind\">Comparison</p><h1>{a} and {b}</h1><ul class=\"facts\">\
         <li><span>A</span>{a}</li><li><span>B</span>{b}</li>\
         <li>{} {noun} of runs with the same seeds</li>{skipped}</ul></header>",
        comparison.pairs,
        a = escape(&comparison.a),
        b = escape(&comparison.b),
    );
    body.push_str("<h2>Differences</h2>");
    body.push_str(&intervals(&comparison.differences));
    table(&comparison.differences, &mut body);
    if let Some((a, b)) = pairs.first() {
        let _ = write!(body, "<h2>The pair of seed {}</h2><div class=\"charts\">", a.seed);
        let times: Vec<Span> = a.samples.iter().map(|s| s.at).collect();
        for chart in charts(a, b, &times) {
            body.push_str(&chart.figure());
        }
        body.push_str("</div>");
    }
    body.push_str("<footer>Made by ksim.</footer>");
    page(&format!("{} and {}", comparison.a, comparison.b), &body)
}

/// The mean differences with their intervals, in percent of A so that they share an axis.
fn intervals(differences: &[Difference]) -> String {
    let shown: Vec<&Difference> =
        differences.iter().filter(|d| d.pairs > 0 && d.mean_a.abs() > 0.0).collect();
    let percent = |d: &Difference, value: f64| value * 100.0 / d.mean_a.abs();
    let reach = shown.iter().flat_map(|d| {
        let (low, high) = d.interval.unwrap_or((d.difference, d.difference));
        [percent(d, low).abs(), percent(d, high).abs()]
    });
    // A metric that has more than doubled would leave no room for the others.
    let reach = reach.fold(1.0, f64::max).min(100.0);
    let axis = Axis::of_values([reach].into_iter(), Scale::Linear, 0.0, 0.0, HALF);
    let place = |value: f64| MIDDLE + axis.place(value.abs()).copysign(value);
    let bottom = TOP + ROW * shown.len().max(1) as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.1}\" role=\"img\" aria-labelledby=\"intervals-title\">\
         <title id=\"intervals-title\">Mean differences of B from A with their intervals</title>\
         <text class=\"y\" x=\"{:.1}\" y=\"14\">← less than A</text>\
         <text x=\"{:.1}\" y=\"14\">more than A →</text>",
        bottom + 26.0,
        MIDDLE - 14.0,
        MIDDLE + 14.0,
    );
    let both = axis.ticks.iter().skip(1).flat_map(|tick| [-tick, *tick]);
    for tick in both.chain([0.0]) {
        let at = place(tick);
        let class = if tick == 0.0 { "axis" } else { "grid" };
        let sign = if tick > 0.0 { "+" } else { "" };
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/>\
             <text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{sign}{}</text>",
            bottom + 19.0,
            Unit::Percent.write(tick),
        );
    }
    for (row, difference) in shown.iter().enumerate() {
        let y = TOP + ROW * (row as f64 + 0.5);
        let (low, high) =
            difference.interval.unwrap_or((difference.difference, difference.difference));
        let [low, middle, high] =
            [low, difference.difference, high].map(|value| place(percent(difference, value)));
        let colour = colour(difference.verdict);
        let _ = write!(
            svg,
            "<g><title>{title}: {}</title><text class=\"name value\" x=\"{:.1}\" y=\"{:.1}\">{title}</text>\
             <path class=\"line {colour}\" d=\"M{low:.1} {y:.1}H{high:.1}\"/>\
             <circle class=\"{colour}\" cx=\"{middle:.1}\" cy=\"{y:.1}\" r=\"5\"/></g>",
            difference.verdict.words(),
            MIDDLE - HALF - 24.0,
            y + 4.0,
            title = escape(&difference.title),
        );
    }
    svg.push_str("</svg>");
    let mut html = "<figure class=\"card\" id=\"intervals\"><figcaption><h3>B, seen from A</h3>\
                    <p class=\"note\">Mean difference of the pairs and its 95 % confidence \
                    interval, in percent of A.</p><ul class=\"legend\">"
        .to_owned();
    for verdict in [Verdict::Better, Verdict::Worse, Verdict::NoDifferenceSeen] {
        let _ = write!(html, "<li class=\"{}\"><i></i>{}</li>", colour(verdict), verdict.words());
    }
    let _ = write!(html, "</ul></figcaption>{svg}</figure>");
    html
}

const fn colour(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "c3",
        Verdict::Worse => "c5",
        Verdict::NoDifferenceSeen | Verdict::OnePair | Verdict::NotMeasured => "c6",
    }
}

fn table(differences: &[Difference], body: &mut String) {
    body.push_str(
        "<section class=\"card panel\" style=\"margin-top:16px\"><div class=\"scroll\"><table>\
         <thead><tr><th scope=\"col\">Metric</th><th scope=\"col\" class=\"figure\">A</th>\
         <th scope=\"col\" class=\"figure\">B</th><th scope=\"col\" class=\"figure\">B − A</th>\
         <th scope=\"col\" class=\"figure\">95 % interval</th><th scope=\"col\">B is</th></tr>\
         </thead><tbody>",
    );
    for difference in differences {
        let _ = write!(body, "<tr><td>{}</td>", escape(&difference.title));
        for cell in difference.cells() {
            let _ = write!(body, "<td class=\"figure\">{}</td>", escape(&cell));
        }
        let class = match difference.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            _ => "note",
        };
        let _ = write!(body, "<td class=\"{class}\">{}</td></tr>", difference.verdict.words());
    }
    body.push_str("</tbody></table></div></section>");
}

fn charts<'a>(a: &Outcome, b: &Outcome, times: &'a [Span]) -> Vec<Chart<'a>> {
    let chart = |id, title, note, unit, of: &dyn Fn(&Sample) -> Option<f64>| Chart {
        id,
        title,
        note,
        unit,
        scale: if unit == Unit::Seconds { Scale::Log } else { Scale::Linear },
        reaches: (unit == Unit::Percent).then_some(100.0),
        times,
        series: [("A", "c1", a), ("B", "c2", b)]
            .map(|(name, colour, outcome)| Series {
                name,
                colour,
                summary: outcome
                    .mean(of)
                    .map(|mean| format!("mean {}", unit.write(mean)))
                    .unwrap_or_default(),
                values: outcome.samples.iter().map(of).collect(),
                filled: false,
            })
            .to_vec(),
    };
    let count = |count: u64| Some(count as f64);
    let seconds = |nanos: u64| Some(nanos).filter(|n| *n > 0).map(|n| n as f64 / 1e9);
    vec![
        chart("cpu", "CPU requested", "", Unit::Percent, &Sample::cpu_percent),
        chart("stranded", "CPU stranded", "Of no use to the most wanted pod.", Unit::Cpus, &|s| {
            Some(s.cpu_stranded_milli as f64 / 1_000.0)
        }),
        chart("pending", "Pending pods", "", Unit::Count, &|s| count(s.pending)),
        chart("used", "Nodes in use", "", Unit::Count, &|s| count(s.nodes_used)),
        chart("latency", "Scheduling latency, p99", "Logarithmic.", Unit::Seconds, &|s| {
            seconds(s.scheduling_p99_ns)
        }),
        chart("evictions", "Evictions", "In all so far.", Unit::Count, &|s| count(s.evicted)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::demo;

    #[test]
    fn every_metric_is_in_the_table_and_those_with_figures_in_the_picture() {
        let pairs: Vec<_> = (1..=5).map(|s| (demo::outcome(s), demo::denser(s))).collect();
        let comparison = Comparison::of(&pairs);
        let page = html(&comparison, &pairs);
        assert_eq!(page.matches("<tr><td>").count(), comparison.differences.len());
        let with_figures = comparison.differences.iter().filter(|d| d.mean_a > 0.0).count();
        assert_eq!(page.matches("<circle ").count(), with_figures);
        assert!(page.contains(">better</td>") && page.contains(">worse</td>"), "{page}");
        assert_eq!(page.matches("<path class=\"line c1\"").count(), 6);
    }

    #[test]
    fn an_interval_lies_where_its_values_are() {
        let difference = Difference {
            metric: "m".to_owned(),
            title: "M".to_owned(),
            unit: crate::compare::MetricUnit::Count,
            more_is_better: false,
            pairs: 3,
            mean_a: 200.0,
            mean_b: 210.0,
            difference: 10.0,
            interval: Some((0.0, 20.0)),
            verdict: Verdict::NoDifferenceSeen,
        };
        // The axis reaches to 10 %; 5 % lie halfway.
        let html = intervals(&[difference]);
        assert!(
            html.contains("d=\"M700.0 41.0H1100.0\"") && html.contains("cx=\"900.0\""),
            "{html}"
        );
        let nothing = super::html(&Comparison::of(&[]), &[]);
        assert!(!nothing.split("<script>").next().unwrap().contains("NaN"));
    }
}
