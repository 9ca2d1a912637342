//! The HTML page of a soak: many seeds at a glance.

use std::fmt::Write;

use super::figures::{Unit, grouped, span};
use super::page::{Card, cards, escape, page, table};
use super::soak::{Soak, SoakRun};

/// The grid of runs.
const COLUMNS: usize = 58;
const CELL: usize = 20;
/// Runs that are drawn; failing ones are listed in any case.
const CELLS_MAX: usize = 2_900;
/// Failing seeds that are listed.
const FAILURES_SHOWN: usize = 200;

impl Soak {
    /// The runs on one page: how many, which failed and why.
    pub fn html(&self) -> String {
        let name = self.runs.first().map_or("no runs", |run| run.name.as_str());
        let failed = self.failures().count();
        let mut body = format!("<header><p class=\"kind\">Soak</p><h1>{}</h1>", escape(name));
        body.push_str("<ul class=\"facts\">");
        body.push_str(&match failed {
            0 => "<li class=\"good\">no violations</li>".to_owned(),
            1 => "<li class=\"bad\">1 failing seed</li>".to_owned(),
            _ => format!("<li class=\"bad\">{failed} failing seeds</li>"),
        });
        body.push_str("</ul></header>");
        body.push_str(&cards(&key_figures(self)));
        body.push_str("<h2>Runs</h2>");
        body.push_str(&grid(&self.runs));
        if failed > 0 {
            failures(self, &mut body);
        }
        body.push_str("<footer>Made by ksim. A seed replays its run exactly.</footer>");
        page(&format!("{name} · {} seeds", self.runs.len()), &body)
    }
}

fn key_figures(soak: &Soak) -> Vec<Card> {
    let sum = |of: fn(&SoakRun) -> f64| soak.runs.iter().map(of).sum::<f64>();
    let failed = soak.failures().count() as u64;
    let events: u64 = soak.runs.iter().map(|run| run.events).sum();
    let wall = sum(|run| run.wall_seconds);
    let unsettled = soak.runs.iter().filter(|run| run.settled_after.is_none()).count() as u64;
    let card = |name, value, detail| Card { name, value, detail };
    let hourly = if wall > 0.0 {
        let rate = soak.runs.len() as f64 * 3_600.0 / wall;
        format!("{} an hour and core", Unit::Count.write(rate))
    } else {
        String::new()
    };
    vec![
        card("Runs", grouped(soak.runs.len() as u64), hourly),
        card("Failed", grouped(failed), "runs with violations".to_owned()),
        card(
            "Virtual time",
            Unit::Seconds.write(sum(|run| run.virtual_seconds)),
            format!("{} events", grouped(events)),
        ),
        card(
            "Slowest to rest",
            soak.slowest_to_settle().map_or("–".to_owned(), span),
            match unsettled {
                0 => "after the last fault".to_owned(),
                count => format!("{} did not come to rest", grouped(count)),
            },
        ),
    ]
}

/// A square a run.
fn grid(runs: &[SoakRun]) -> String {
    let shown = &runs[..runs.len().min(CELLS_MAX)];
    let mut html = "<figure class=\"card\" id=\"runs\"><figcaption><h3>One square a seed</h3>\
                    <ul class=\"legend\"><li class=\"c7\"><i></i>as it should be</li>\
                    <li class=\"c2\"><i></i>did not come to rest</li>\
                    <li class=\"c5\"><i></i>violations</li></ul></figcaption>"
        .to_owned();
    let rows = shown.len().div_ceil(COLUMNS).max(1);
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"runs-title\">\
         <title id=\"runs-title\">{} runs</title>",
        COLUMNS * CELL,
        rows * CELL,
        shown.len()
    );
    for (at, run) in shown.iter().enumerate() {
        let (x, y) = (at % COLUMNS * CELL + 1, at / COLUMNS * CELL + 1);
        let colour = match run {
            run if !run.violations.is_empty() => "c5",
            SoakRun { settled_after: None, .. } => "c2",
            _ => "c7",
        };
        let side = CELL - 3;
        let _ = write!(
            html,
            "<rect class=\"bar {colour}\" x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" \
             rx=\"3\"><title>seed {}</title></rect>",
            run.seed
        );
    }
    html.push_str("</svg></figure>");
    if shown.len() < runs.len() {
        let _ = write!(html, "<p class=\"note\">… and {} more.</p>", runs.len() - shown.len());
    }
    html
}

fn failures(soak: &Soak, body: &mut String) {
    body.push_str("<h2>Violations</h2><section class=\"card panel\">");
    let counts = soak.failures_by_property();
    let rows: Vec<Vec<String>> = counts
        .iter()
        .map(|(property, count)| vec![(*property).to_owned(), grouped(*count)])
        .collect();
    body.push_str(&table(&["Property", ">Failing seeds"], &rows));
    body.push_str("</section><h2>Failing seeds</h2><section class=\"card panel\">");
    let rows: Vec<Vec<String>> = soak
        .failures()
        .take(FAILURES_SHOWN)
        .filter_map(|run| {
            let first = run.violations.first()?;
            let more = match run.violations.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let message = format!("{}{more}", first.message);
            Some(vec![run.seed.to_string(), first.property.clone(), message])
        })
        .collect();
    body.push_str(&table(&[">Seed", "Property", "First violation"], &rows));
    body.push_str("</section>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::demo;

    #[test]
    fn each_run_has_its_square() {
        let outcomes: Vec<_> = (0..70).map(demo::outcome).collect();
        let page = Soak::of(&outcomes).html();
        assert_eq!(page.matches("<rect class=\"bar c7\"").count(), 35);
        assert_eq!(page.matches("<rect class=\"bar c5\"").count(), 35);
        assert!(page.contains("x=\"1\" y=\"21\""), "the 59th begins a new row");
        assert!(page.contains("35 failing seeds") && page.contains("(and 1 more)"));
        assert!(Soak::default().html().contains("no runs"));
    }
}
