//! Quotas and limit ranges, as the file says it.

use std::collections::BTreeMap;

use api::quantity::Quantity;

use super::diagnostics::Problem;
use super::section::{COUNT, Section};
use crate::plan::{LimitRange, Quota};

/// Amounts of resources by name; `None` when one of them is none.
fn quantities(section: &Section<'_>, key: &'static str) -> Option<BTreeMap<String, String>> {
    let Some(table) = section.section(key) else {
        return (!section.has(key)).then(BTreeMap::new);
    };
    let mut amounts = BTreeMap::new();
    let mut wrong = false;
    for (name, place, value) in table.entries() {
        if let Some(fault) = super::names::qualified_fault(name) {
            let message = format!("`{name}` cannot be the name of a resource");
            section.report(Problem::error(place, message).label(fault));
            wrong = true;
            continue;
        }
        let text = if value.is_text() {
            value.text().map(str::to_owned)
        } else {
            value.amount(&COUNT).map(|n| n.to_string())
        };
        let Some(text) = text else {
            wrong = true;
            continue;
        };
        match Quantity::parse(&text) {
            Ok(amount) if !amount.is_negative() => {
                amounts.insert(name.to_owned(), text);
            }
            Ok(_) => {
                let message = format!("`{}` cannot be `{text}`", value.path());
                value.report(message, "less than nothing", "");
                wrong = true;
            }
            Err(error) => {
                let message = format!("`{}` cannot be `{text}`", value.path());
                value.report(message, &error.to_string(), "write 10, \"500m\" or \"2Gi\"");
                wrong = true;
            }
        }
    }
    (!wrong).then_some(amounts)
}

/// How much of each resource there may be.
pub(crate) fn hard(section: &Section<'_>, key: &'static str) -> Option<BTreeMap<String, String>> {
    let hard = quantities(section, key)?;
    if hard.is_empty() {
        let message = format!("`{}` limits nothing", section.path());
        let problem = Problem::error(section.place_of(key), message);
        let help = "name resources: { pods = 10, \"requests.cpu\" = \"4\" }";
        section.report(problem.label("no resource").help(help));
        return None;
    }
    Some(hard)
}

/// The keys of a quota.
pub(crate) fn quota(section: &Section<'_>, name: Option<String>) -> Option<Quota> {
    let hard = hard(section, "hard");
    Some(Quota { name: name?, hard: hard? })
}

/// The keys of a limit range.
pub(crate) fn limit_range(section: &Section<'_>, name: Option<String>) -> Option<LimitRange> {
    let [default_request, default, min, max] =
        ["default_request", "default", "min", "max"].map(|key| quantities(section, key));
    let (default_request, default, min, max) = (default_request?, default?, min?, max?);
    if [&default_request, &default, &min, &max].iter().all(|amounts| amounts.is_empty()) {
        let message = format!("`{}` limits nothing", section.path());
        let problem = Problem::error(section.place(), message).label("no bounds, no defaults");
        let help = "give `default_request`, `default`, `min` or `max`, as { cpu = \"100m\" }";
        section.report(problem.help(help));
        return None;
    }
    let above = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
        let amount = |text: &String| Quantity::parse(text).map(Quantity::nano).ok();
        a.iter().find(|(name, a)| b.get(*name).is_some_and(|b| amount(a) > amount(b)))?;
        Some(())
    };
    for (low, high, (what, than)) in [
        (&min, &max, ("min", "max")),
        (&default_request, &default, ("default_request", "default")),
        (&default, &max, ("default", "max")),
        (&min, &default_request, ("min", "default_request")),
    ] {
        if above(low, high).is_some() {
            let message = format!("`{}.{what}` is above `{than}`", section.path());
            section.report(Problem::error(section.place_of(what), message).label("too much"));
            return None;
        }
    }
    Some(LimitRange { name: name?, default_request, default, min, max })
}
