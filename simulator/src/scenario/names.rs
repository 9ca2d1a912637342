//! What Kubernetes accepts as names, labels and taints, so that a scenario is refused before the
//! API server of the simulation refuses what it asks for.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/validation/validation.go`.

use std::collections::BTreeMap;

use super::section::{Section, Value};

/// The effects of taints.
pub(crate) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// What is wrong with the name of an object, if anything; `namespace/name` is one too.
pub(crate) fn object_fault(name: &str) -> Option<&'static str> {
    name.splitn(2, '/').find_map(subdomain_fault)
}

/// What is wrong with a name of letters, digits, `-` and `.`, if anything.
fn subdomain_fault(name: &str) -> Option<&'static str> {
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > 253 {
        return Some("must have 1 to 253 characters");
    }
    if !name.chars().all(|c| outer(c) || c == '-' || c == '.') {
        return Some("may have lower-case letters, digits, `-` and `.` only");
    }
    if !name.split('.').all(|part| part.starts_with(outer) && part.ends_with(outer)) {
        return Some("must begin and end with a letter or digit");
    }
    None
}

fn label_value_fault(value: &str) -> Option<&'static str> {
    let outer = |c: char| c.is_ascii_alphanumeric();
    if value.is_empty() {
        return None;
    }
    if value.len() > 63 {
        return Some("must have at most 63 characters");
    }
    if !value.chars().all(|c| outer(c) || "-_.".contains(c)) {
        return Some("may have letters, digits, `-`, `_` and `.` only");
    }
    if !value.starts_with(outer) || !value.ends_with(outer) {
        return Some("must begin and end with a letter or digit");
    }
    None
}

/// What is wrong with the key of a label, taint or resource, if anything.
pub(crate) fn qualified_fault(key: &str) -> Option<&'static str> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if name.is_empty() {
        return Some("must have a name of 1 to 63 characters");
    }
    prefix.and_then(subdomain_fault).or_else(|| label_value_fault(name))
}

impl<'a> Value<'a> {
    /// The name of an object.
    pub(crate) fn name(&self) -> Option<&'a str> {
        self.checked(object_fault)
    }

    /// The key of a label.
    pub(crate) fn label_key(&self) -> Option<&'a str> {
        self.checked(qualified_fault)
    }

    /// The value of a label.
    pub(crate) fn label_value(&self) -> Option<&'a str> {
        self.checked(label_value_fault)
    }

    fn checked(&self, fault: fn(&str) -> Option<&'static str>) -> Option<&'a str> {
        let text = self.text()?;
        match fault(text) {
            None => Some(text),
            Some(fault) => {
                self.report(format!("`{}` cannot be `{text}`", self.path()), fault, "");
                None
            }
        }
    }

    /// A taint, `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
    fn taint(&self) -> Option<(String, String, String)> {
        let text = self.text()?;
        let Some((key, effect)) = text.rsplit_once(':') else {
            let help = format!("such as \"{text}:NoSchedule\"");
            self.report(format!("`{text}` is no taint"), "no `:EFFECT`", help);
            return None;
        };
        let (key, value) = key.split_once('=').unwrap_or((key, ""));
        if !EFFECTS.contains(&effect) {
            self.no_choice(effect, EFFECTS);
            return None;
        }
        if let Some(fault) = qualified_fault(key).or_else(|| label_value_fault(value)) {
            self.report(format!("`{text}` is no taint"), fault, "");
            return None;
        }
        Some((key.to_owned(), value.to_owned(), effect.to_owned()))
    }
}

impl Section<'_> {
    /// A table of labels; empty when it is absent.
    pub(crate) fn labels(&self, key: &'static str) -> BTreeMap<String, String> {
        let Some(section) = self.section(key) else { return BTreeMap::new() };
        let entries = section.entries();
        let label = |(name, _, value): &(&str, _, Value<'_>)| {
            if let Some(fault) = qualified_fault(name) {
                value.report(format!("`{name}` cannot be the key of a label"), fault, "");
                return None;
            }
            Some(((*name).to_owned(), value.label_value()?.to_owned()))
        };
        entries.iter().filter_map(label).collect()
    }

    /// A list of taints; empty when it is absent.
    pub(crate) fn taints(&self, key: &'static str) -> Vec<(String, String, String)> {
        let items = self.get(key).and_then(|value| value.list()).unwrap_or_default();
        items.iter().filter_map(Value::taint).collect()
    }
}
