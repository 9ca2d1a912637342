//! Where a value stands in the file.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Finds places by path; a list index is a step of digits.
pub(crate) struct Places<'a> {
    root: &'a Spanned<DeTable<'a>>,
}

impl<'a> Places<'a> {
    pub(crate) fn new(root: &'a Spanned<DeTable<'a>>) -> Self {
        Self { root }
    }

    /// The place of the value at `path`, or of the nearest thing around it that exists.
    pub(crate) fn value(&self, path: &[&str]) -> Range<usize> {
        self.walk(path).0
    }

    /// The place of the last key of `path`, or of the nearest thing around it that exists.
    pub(crate) fn key(&self, path: &[&str]) -> Range<usize> {
        let (value, key) = self.walk(path);
        key.unwrap_or(value)
    }

    fn walk(&self, path: &[&str]) -> (Range<usize>, Option<Range<usize>>) {
        let mut place = self.root.span();
        let mut key = None;
        let mut table = Some(self.root.get_ref());
        let mut array = None;
        for step in path {
            let next = match (table, array) {
                (Some(t), _) => {
                    let found = t.get_key_value(*step);
                    key = found.map(|(k, _)| k.span());
                    found.map(|(_, v)| v)
                }
                (None, Some(a)) => {
                    key = None;
                    let array: &toml::de::DeArray<'_> = a;
                    step.parse::<usize>().ok().and_then(|i| array.get(i))
                }
                (None, None) => None,
            };
            let Some(next) = next else { return (place, key) };
            place = next.span();
            (table, array) = match next.get_ref() {
                DeValue::Table(t) => (Some(t), None),
                DeValue::Array(a) => (None, Some(a)),
                _ => (None, None),
            };
        }
        (place, key)
    }
}
