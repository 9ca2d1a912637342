//! Rollouts of deployments: a bar each, from beginning to completion.

use std::fmt::Write;

use super::axis::Axis;
use super::chart::time_ticks;
use super::figures::{nanos, span};
use super::heat_map::shortened;
use super::page::escape;
use crate::outcome::Rollout;
use crate::span::Span;

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 190.0;
/// The room for the figures to the right of the bars.
const RIGHT: f64 = 250.0;
const TOP: f64 = 6.0;
const ROW: f64 = 24.0;
/// Bars that are shown of many rollouts.
const SHOWN_MAX: usize = 40;

/// The figure: title, legend and picture. `end` is that of the run.
pub(super) fn figure(rollouts: &[Rollout], end: Span) -> String {
    let shown = telling(rollouts);
    let completed: Vec<Span> = rollouts.iter().filter_map(duration).collect();
    let mut html = "<figure class=\"card\" id=\"rollouts\"><figcaption>\
                    <h3>Rollouts of deployments</h3><p class=\"note\">"
        .to_owned();
    if !rollouts.is_empty() {
        let _ = write!(html, "{} of {} completed", completed.len(), rollouts.len());
        if let Some(longest) = completed.iter().max() {
            let _ = write!(html, ", the longest after {}", span(*longest));
        }
        html.push_str(". Behind each bar: how long it took and the fewest available replicas.");
    }
    if shown.len() < rollouts.len() {
        let _ = write!(html, " Shown are the {} worst.", shown.len());
    }
    html.push_str("</p><ul class=\"legend\">");
    for (colour, meaning) in [
        ("c1", "new deployment"),
        ("c3", "three quarters or more available"),
        ("c2", "half or more available"),
        ("c5", "fewer, or not completed"),
    ] {
        let _ = write!(html, "<li class=\"{colour}\"><i></i>{meaning}</li>");
    }
    html.push_str("</ul></figcaption>");
    html.push_str(&svg(&shown, end));
    html.push_str("</figure>");
    html
}

fn svg(rollouts: &[&Rollout], end: Span) -> String {
    let rows = rollouts.len();
    let bottom = TOP + if rows == 0 { 60.0 } else { ROW * rows as f64 };
    let x = Axis::of_times(Span::ZERO, end.max(Span(1)), LEFT, WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.1}\" role=\"img\" \
         aria-labelledby=\"rollouts-title rollouts-text\"><title id=\"rollouts-title\">Rollouts \
         of deployments</title><desc id=\"rollouts-text\">{rows} rollouts.</desc>",
        bottom + 30.0
    );
    if rows == 0 {
        let _ = write!(
            svg,
            "<text class=\"empty\" x=\"{}\" y=\"{}\">no rollouts</text>",
            WIDTH / 2.0,
            TOP + 35.0
        );
        svg.push_str("</svg>");
        return svg;
    }
    for tick in &x.ticks {
        let at = x.place(*tick);
        let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom:.1}\"/>");
    }
    for (row, rollout) in rollouts.iter().enumerate() {
        bar(rollout, TOP + row as f64 * ROW, end, &x, &mut svg);
    }
    time_ticks(&x, bottom, &mut svg);
    svg.push_str("</svg>");
    svg
}

fn bar(rollout: &Rollout, top: f64, end: Span, x: &Axis, svg: &mut String) {
    let from = x.place(rollout.began.as_secs_f64());
    let to = x.place(rollout.completed.unwrap_or(end).as_secs_f64());
    // Short rollouts must be seen too.
    let width = (to - from).max(3.0);
    let text = top + ROW / 2.0 + 4.0;
    let name = format!("{} #{}", rollout.deployment, rollout.generation);
    let took = match duration(rollout) {
        Some(took) => nanos(took.0),
        None => "not completed".to_owned(),
    };
    let fewest = if is_new(rollout) {
        format!("{} new", rollout.replicas)
    } else {
        format!("{} of {} available", rollout.available_min, rollout.replicas)
    };
    let _ = write!(
        svg,
        "<g><title>{}: {took}, {fewest}</title>\
         <text class=\"name\" x=\"{:.1}\" y=\"{text:.1}\">{}</text>\
         <rect class=\"bar {}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\" \
         rx=\"3\"/>\
         <text class=\"value\" x=\"{:.1}\" y=\"{text:.1}\">{took}</text>\
         <text x=\"{:.1}\" y=\"{text:.1}\">{fewest}</text></g>",
        escape(&name),
        LEFT - 10.0,
        escape(&shortened(&name)),
        colour(rollout),
        top + 4.0,
        ROW - 8.0,
        WIDTH - RIGHT + 18.0,
        WIDTH - RIGHT + 122.0,
    );
}

/// How long the rollout took.
pub(super) fn duration(rollout: &Rollout) -> Option<Span> {
    rollout.completed.map(|completed| Span(completed.0.saturating_sub(rollout.began.0)))
}

/// Whether the deployment was created by it: nothing was available before.
pub(super) const fn is_new(rollout: &Rollout) -> bool {
    rollout.generation <= 1
}

/// Percent of the wanted replicas that were always available.
pub(super) fn available_percent(rollout: &Rollout) -> i64 {
    let wanted = i64::from(rollout.replicas.max(1));
    (i64::from(rollout.available_min) * 100 / wanted).min(100)
}

fn colour(rollout: &Rollout) -> &'static str {
    match available_percent(rollout) {
        _ if rollout.completed.is_none() => "c5",
        _ if is_new(rollout) => "c1",
        75.. => "c3",
        50.. => "c2",
        _ => "c5",
    }
}

/// The rollouts that are worth looking at, in the order in which they began: those that were not
/// completed, then those with the fewest available, then the longest.
fn telling(rollouts: &[Rollout]) -> Vec<&Rollout> {
    let mut all: Vec<&Rollout> = rollouts.iter().collect();
    all.sort_by_key(|r| {
        let available = if is_new(r) { 100 } else { available_percent(r) };
        let longest_first = std::cmp::Reverse(duration(r));
        (r.completed.is_some(), available, longest_first)
    });
    all.truncate(SHOWN_MAX);
    all.sort_by_key(|r| (r.began, &r.deployment));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(name: usize, began: u64, completed: Option<u64>, available: i32) -> Rollout {
        Rollout {
            deployment: format!("n/app-{name}"),
            generation: 2,
            began: Span::secs(began),
            completed: completed.map(Span::secs),
            available_min: available,
            replicas: 4,
        }
    }

    #[test]
    fn a_bar_reaches_from_the_beginning_to_the_completion() {
        let rollouts = [rollout(0, 0, Some(50), 3), rollout(1, 50, None, 1)];
        let html = figure(&rollouts, Span::secs(100));
        // 190 to 910 are 0 to 100 s.
        assert!(html.contains("class=\"bar c3\" x=\"190.0\" y=\"10.0\" width=\"360.0\""), "{html}");
        assert!(html.contains("class=\"bar c5\" x=\"550.0\" y=\"34.0\" width=\"360.0\""), "{html}");
        assert!(html.contains("1 of 2 completed, the longest after 50s"), "{html}");
        assert!(html.contains(">3 of 4 available<") && html.contains(">not completed<"), "{html}");
        assert!(figure(&[], Span::ZERO).contains("no rollouts"));
    }

    #[test]
    fn the_worst_of_many_are_shown() {
        let mut rollouts: Vec<Rollout> =
            (0..100).map(|i| rollout(i, i as u64, Some(200), 4)).collect();
        rollouts[70].completed = None;
        rollouts[99].available_min = 0;
        let shown = telling(&rollouts);
        assert_eq!(shown.len(), SHOWN_MAX);
        let names: Vec<&str> = shown.iter().map(|r| r.deployment.as_str()).collect();
        assert_eq!(names[0], "n/app-0");
        assert_eq!(names[SHOWN_MAX - 2..], ["n/app-70", "n/app-99"]);
        assert!(figure(&rollouts, Span::secs(200)).contains("Shown are the 40 worst."));
    }
}
