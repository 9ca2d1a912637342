//! How long pods waited: the share of them that was bound, or ran, within a time.

use std::fmt::Write;

use super::axis::{Axis, Scale};
use super::chart::{BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH};
use super::figures::{Unit, nanos};
use super::page::escape;
use crate::outcome::{LatencyCurve, Outcome, Percentiles};

/// Labels of times below the picture that have room.
const LABELS_MAX: usize = 8;

/// The figure: title, note, legend and picture.
pub(super) fn figure(outcome: &Outcome) -> String {
    let lines = [
        ("bound", "c1", &outcome.scheduling_curve, &outcome.scheduling),
        ("running", "c2", &outcome.start_curve, &outcome.start),
    ];
    let mut html = "<figure class=\"card\" id=\"distribution\"><figcaption>\
                    <h3>Latency distribution</h3><p class=\"note\">The share of the pods that was \
                    bound, or whose containers ran, within a time from their creation. \
                    Logarithmic.</p><ul class=\"legend\">"
        .to_owned();
    for (name, colour, _, found) in lines {
        let summary = summary(found);
        let _ =
            write!(html, "<li class=\"{colour}\"><i></i>{name} <b>{}</b></li>", escape(&summary));
    }
    html.push_str("</ul></figcaption>");
    picture(&lines.map(|(name, colour, curve, _)| (name, colour, curve)), &mut html);
    html.push_str("</figure>");
    html
}

fn summary(found: &Percentiles) -> String {
    if found.count == 0 {
        return String::new();
    }
    format!("p50 {}, p99 {}", nanos(found.p50_ns), nanos(found.p99_ns))
}

fn picture(lines: &[(&str, &str, &LatencyCurve); 2], svg: &mut String) {
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let seconds = |ns: u64| (ns.max(1)) as f64 / 1e9;
    let values = lines.iter().flat_map(|(_, _, curve)| &curve.0).map(|point| seconds(point.1));
    let x = Axis::of_values(values, Scale::Log, 0.0, LEFT, width);
    let bottom = TOP + height;
    let share = |permille: u16| bottom - height * f64::from(permille) / 1_000.0;
    let _ = write!(
        svg,
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-labelledby=\"distribution-title distribution-text\">\
         <title id=\"distribution-title\">Latency distribution</title>\
         <desc id=\"distribution-text\">{}</desc>",
        escape(&description(lines))
    );
    for percent in [0_u16, 25, 50, 75, 100] {
        let y = share(percent * 10);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
             <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{percent} %</text>",
            LEFT - 8.0,
            y + 4.0,
            right = WIDTH - RIGHT,
        );
    }
    let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom:.1}H{}\"/>", WIDTH - RIGHT);
    let apart = x.ticks.len().div_ceil(LABELS_MAX).max(1);
    for tick in x.ticks.iter().step_by(apart) {
        let (at, label) = (x.place(*tick), Unit::Seconds.write(*tick));
        let _ = write!(
            svg,
            "<text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 18.0,
            escape(&label)
        );
    }
    if lines.iter().all(|(_, _, curve)| curve.0.is_empty()) {
        let (x, y) = (LEFT + width / 2.0, TOP + height / 2.0);
        let _ = write!(svg, "<text class=\"empty\" x=\"{x}\" y=\"{y}\">no data</text>");
    }
    for (_, colour, curve) in lines {
        let mut d = String::new();
        for (permille, ns) in &curve.0 {
            let verb = if d.is_empty() { 'M' } else { 'L' };
            let _ = write!(d, "{verb}{:.1} {:.1}", x.place(seconds(*ns)), share(*permille));
        }
        let _ = write!(svg, "<path class=\"curve line {colour}\" d=\"{d}\"/>");
    }
    svg.push_str("</svg>");
}

fn description(lines: &[(&str, &str, &LatencyCurve); 2]) -> String {
    let of = |(name, _, curve): &(&str, &str, &LatencyCurve)| {
        let longest = curve.0.last().map(|point| format!("all {name} within {}", nanos(point.1)));
        longest.unwrap_or_else(|| format!("none {name}"))
    };
    lines.iter().map(of).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_rise_from_left_to_right_to_all_pods() {
        let curve = LatencyCurve(vec![(0, 1_000_000), (500, 2_000_000), (1_000, 900_000_000)]);
        let outcome = Outcome { scheduling_curve: curve, ..Outcome::default() };
        let html = figure(&outcome);
        // From 1 ms to 1 s there are three powers of ten, 482 wide.
        assert!(html.contains("d=\"M62.0 202.0L110.4 107.0L536.6 12.0\""), "{html}");
        assert!(html.contains("<desc id=\"distribution-text\">all bound within 900 ms; none"));
        assert!(!html.contains("no data"), "{html}");
        assert!(figure(&Outcome::default()).contains("no data"));
    }
}
