//! What is wrong with values, worded as Kubernetes words it.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/validation/field`.

use std::fmt::Debug;

/// Everything that is wrong, in the order it was found.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// A required field is absent.
    pub(crate) fn required(&mut self, path: &str, detail: &str) {
        self.add(path, "Required value", detail);
    }

    /// A value is malformed or out of bounds.
    pub(crate) fn invalid(&mut self, path: &str, value: impl Debug, detail: &str) {
        self.add(path, &format!("Invalid value: {value:?}"), detail);
    }

    /// One `invalid` for each complaint.
    pub(crate) fn invalid_each(&mut self, path: &str, value: &str, complaints: Vec<String>) {
        for complaint in complaints {
            self.invalid(path, value, &complaint);
        }
    }

    /// A value is none of those that exist.
    pub(crate) fn not_supported(&mut self, path: &str, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        self.add(path, &format!("Unsupported value: {value:?}"), &detail);
    }

    /// A value must be unique and is not.
    pub(crate) fn duplicate(&mut self, path: &str, value: &str) {
        self.add(path, &format!("Duplicate value: {value:?}"), "");
    }

    /// A value is not permitted here.
    pub(crate) fn forbidden(&mut self, path: &str, detail: &str) {
        self.add(path, "Forbidden", detail);
    }

    /// Something that has no path is wrong.
    pub(crate) fn say(&mut self, what: String) {
        self.0.push(what);
    }

    /// Whether nothing is wrong.
    pub(crate) fn result(self) -> Result<(), Vec<String>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }

    fn add(&mut self, path: &str, what: &str, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.0.push(format!("{path}: {what}{colon}{detail}"));
    }
}
