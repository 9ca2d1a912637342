//! A violation, explained to people.

use std::fmt::Write;

use super::page::escape;
use crate::finding::Finding;
use crate::scenario::write::settings_line;

/// Lines of a plan that are printed; what has more is for a file.
const PLAN_LINES: usize = 80;

/// For a terminal: the seed, what came of it, the smallest plan and what concerns the violation.
pub fn text(finding: &Finding) -> String {
    let mut text = String::new();
    let Finding { property, seed, options, smallest, message, timeline, lines_left_out } = finding;
    let _ = writeln!(text, "\n  {property} does not hold with seed {seed}, which stands for");
    let _ = writeln!(text, "    {}", options.drawn());
    let _ = writeln!(text, "    {}", settings_line(&options.settings));
    if let Some(smallest) = smallest {
        let _ = writeln!(text, "\n  {}:\n", found(smallest.runs, smallest.complete));
        let lines: Vec<&str> = smallest.scenario.lines().collect();
        for line in lines.iter().take(PLAN_LINES) {
            let _ = writeln!(text, "{}", format!("    {line}").trim_end());
        }
        if lines.len() > PLAN_LINES {
            let more = lines.len() - PLAN_LINES;
            let _ = writeln!(text, "    … {more} more lines: `--keep FOLDER` writes it to a file");
        }
    }
    if timeline.is_empty() {
        let _ = writeln!(text, "\n  The run is too long to be told here: {message}");
        return text;
    }
    let of = if smallest.is_some() { "in a run of that plan" } else { "in the run" };
    let _ = writeln!(text, "\n  What concerns it {of} (seconds, who, what, at which revision):\n");
    for line in timeline {
        let _ = writeln!(text, "{line}");
    }
    if *lines_left_out > 0 {
        let _ = writeln!(text, "  … without {lines_left_out} other lines; `ksim replay` has all");
    }
    text
}

/// For a page.
pub(super) fn html(finding: &Finding) -> String {
    let Finding { property, seed, options, smallest, timeline, .. } = finding;
    let mut html = format!(
        "<div class=\"card finding\"><h3>{} with seed {seed}</h3><p>{}</p><p class=\"note\">{}</p>",
        escape(property),
        escape(&options.drawn()),
        escape(&settings_line(&options.settings)),
    );
    let mut folded = |title: &str, text: &str| {
        let _ = write!(
            html,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(title),
            escape(text)
        );
    };
    if let Some(smallest) = smallest {
        folded(&found(smallest.runs, smallest.complete), &smallest.scenario);
    }
    if !timeline.is_empty() {
        folded("What concerns it, line by line", &timeline.join("\n"));
    }
    html.push_str("</div>");
    html
}

fn found(runs: u32, complete: bool) -> String {
    let noun = if runs == 1 { "run" } else { "runs" };
    let end = if complete { "" } else { ", and there may be smaller ones" };
    format!("The smallest plan that shows it, found in {runs} {noun}{end}")
}
