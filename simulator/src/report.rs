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
mod heat_map;
mod page;
mod rollout_chart;
mod run_page;
mod soak;
mod soak_page;
mod text;

pub use self::comparison_page::html as comparison_html;
pub use self::csv::{CsvTable, tables as csv};
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
