//! What is told about runs: JSON for machines, CSV for tables, text for terminals, and HTML pages
//! of one file each that need nothing from elsewhere.

mod axis;
#[cfg(test)]
mod browser;
mod chart;
mod comparison_page;
mod csv;
#[cfg(test)]
pub(crate) mod demo;
mod figures;
mod finding;
mod heat_map;
mod latency_chart;
mod page;
mod rollout_chart;
mod run_page;
mod soak;
mod soak_page;
mod text;

pub use self::comparison_page::html as comparison_html;
pub use self::csv::{
    CsvTable, comparison as comparison_csv, explanation as explanation_csv, tables as csv,
};
pub use self::finding::text as finding_text;
pub use self::run_page::html;
pub use self::soak::{Soak, SoakRun};
pub use self::text::text;
use crate::compare::MetricUnit;
use crate::outcome::Outcome;

/// A figure of a comparison as people read it.
pub(crate) fn written(unit: MetricUnit, value: f64) -> String {
    let unit = match unit {
        MetricUnit::Seconds => figures::Unit::Seconds,
        MetricUnit::Percent => figures::Unit::Percent,
        MetricUnit::Count => figures::Unit::Count,
    };
    unit.write(value)
}

/// The outcome as one JSON object on one line.
pub fn json(outcome: &Outcome) -> String {
    serde_json::to_string(outcome).expect("an outcome has no maps with keys that are no text")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn rows_that_were_skipped_are_told_everywhere() {
        let whole = demo::outcome(7);
        let why = "`cpu_milli` is no whole number".to_owned();
        let part = Outcome { skipped_rows: [(why, 3)].into(), ..whole.clone() };
        let pairs = [(whole.clone(), part.clone())];
        let comparison = |pairs: &[(Outcome, Outcome)]| crate::compare::Comparison::of(pairs);
        let page = |pairs: &[(Outcome, Outcome)]| comparison_html(&comparison(pairs), pairs);
        for (told, quiet, says) in [
            (text(&part, false), text(&whole, false), "skipped rows    3 of the trace"),
            (html(&part), html(&whole), "Rows of the trace skipped</span>3<"),
            (json(&part), json(&whole), "\"skipped_rows\":{\"`cpu_milli` is no whole number\":3}"),
            (page(&pairs), page(&[(whole.clone(), whole.clone())]), "A 0, B 3<"),
            (comparison(&pairs).json(), comparison(&[]).json(), "whole number\":3}"),
        ] {
            assert!(told.contains(says) && !quiet.contains(says), "{says}");
        }
    }

    #[test]
    fn json_has_what_is_measured() {
        let outcome = demo::outcome(7);
        let value: Value = serde_json::from_str(&json(&outcome)).unwrap();
        for key in ["wall_seconds", "virtual_seconds", "events", "pods_bound", "peak_memory_bytes"]
        {
            assert!(value[key].is_number(), "{key}");
        }
        assert!(value["violations"].is_array() && value["effect_log_hash"].is_string());
        assert_eq!(serde_json::from_value::<Outcome>(value).unwrap(), outcome);
        assert!(!json(&outcome).contains('\n'));
    }
}
