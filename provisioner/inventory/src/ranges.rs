//! Host ranges: `node-[01-40]`, `rack-[a,b]-[1-3]`.

use thiserror::Error;

/// How many names one pattern may stand for. A cluster has at most 5,000 nodes, and a slip such as
/// `[1-99999999]` must not eat the memory.
pub(crate) const NAMES_MAX: usize = 5_000;

/// Why a host pattern cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum RangeError {
    /// A `[` without its `]`, or the other way round.
    #[error("`[` and `]` do not match in `{0}`")]
    Unbalanced(String),
    /// Nothing between the brackets, or an empty item in the list.
    #[error("empty range in `{0}`")]
    Empty(String),
    /// Letters in a range, or more than one dash.
    #[error("`{0}` is neither a word nor a range of numbers such as `01-40`")]
    NotNumbers(String),
    /// The end comes before the beginning.
    #[error("the range `{0}` runs backwards")]
    Backwards(String),
    /// More names than [`NAMES_MAX`].
    #[error("`{0}` stands for more than {NAMES_MAX} hosts")]
    TooMany(String),
}

/// Expands a host pattern into names, in order.
///
/// # Errors
/// When brackets do not match, a range is no range of numbers, or there are too many names.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, RangeError> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find(['[', ']']) {
        let (literal, tail) = rest.split_at(open);
        let Some((inside, after)) = tail.strip_prefix('[').and_then(|t| t.split_once(']')) else {
            return Err(RangeError::Unbalanced(pattern.to_owned()));
        };
        if inside.contains('[') {
            return Err(RangeError::Unbalanced(pattern.to_owned()));
        }
        let items = choices(inside, pattern)?;
        if names.len().saturating_mul(items.len()) > NAMES_MAX {
            return Err(RangeError::TooMany(pattern.to_owned()));
        }
        names = names
            .iter()
            .flat_map(|name| items.iter().map(move |item| format!("{name}{literal}{item}")))
            .collect();
        rest = after;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

fn choices(inside: &str, pattern: &str) -> Result<Vec<String>, RangeError> {
    let mut items = Vec::new();
    for item in inside.split(',').map(str::trim) {
        if item.is_empty() {
            return Err(RangeError::Empty(pattern.to_owned()));
        }
        let Some((first, last)) = item.split_once('-') else {
            items.push(item.to_owned());
            continue;
        };
        let parse = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = if digits { text.parse::<usize>().ok() } else { None };
            number.ok_or_else(|| RangeError::NotNumbers(item.to_owned()))
        };
        let (from, to) = (parse(first)?, parse(last)?);
        if to < from {
            return Err(RangeError::Backwards(item.to_owned()));
        }
        if to - from >= NAMES_MAX {
            return Err(RangeError::TooMany(pattern.to_owned()));
        }
        // `01-40` keeps its zeros; `1-40` has none to keep.
        let width = if first.starts_with('0') || last.starts_with('0') { first.len() } else { 0 };
        items.extend((from..=to).map(|n| format!("{n:0width$}")));
        if items.len() > NAMES_MAX {
            return Err(RangeError::TooMany(pattern.to_owned()));
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, expected: &[&str]) {
        assert_eq!(expand(pattern).unwrap(), expected, "{pattern}");
    }

    #[test]
    fn patterns_become_names() {
        check("node-1", &["node-1"]);
        check("node-[1-3]", &["node-1", "node-2", "node-3"]);
        check("node-[08-11]", &["node-08", "node-09", "node-10", "node-11"]);
        check("n[1,3,5-6]", &["n1", "n3", "n5", "n6"]);
        check("rack-[a,b]-[1-2]", &["rack-a-1", "rack-a-2", "rack-b-1", "rack-b-2"]);
        check("[01-02].example", &["01.example", "02.example"]);
    }

    #[test]
    fn bad_patterns_are_refused() {
        let fails = |pattern: &str, expected: &str| {
            assert_eq!(expand(pattern).unwrap_err().to_string(), expected, "{pattern}");
        };
        fails("node-[1-3", "`[` and `]` do not match in `node-[1-3`");
        fails("node-1-3]", "`[` and `]` do not match in `node-1-3]`");
        fails("node-[[1-3]]", "`[` and `]` do not match in `node-[[1-3]]`");
        fails("node-[]", "empty range in `node-[]`");
        fails("node-[1,,3]", "empty range in `node-[1,,3]`");
        fails("node-[a-c]", "`a-c` is neither a word nor a range of numbers such as `01-40`");
        fails("node-[9-1]", "the range `9-1` runs backwards");
        fails("n[1-99999999]", "`n[1-99999999]` stands for more than 5000 hosts");
        fails("n[1-100][1-100]", "`n[1-100][1-100]` stands for more than 5000 hosts");
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_or_refused(pattern in ".{0,40}") {
            if let Ok(names) = expand(&pattern) {
                prop_assert!(!names.is_empty() && names.len() <= NAMES_MAX);
            }
        }

        #[test]
        fn a_numeric_range_has_one_name_a_number(from in 0_usize..500, count in 1_usize..200) {
            let names = expand(&format!("h-[{from}-{}]", from + count - 1)).unwrap();
            prop_assert_eq!(names.len(), count);
            let expected = format!("h-{}", from + count - 1);
            prop_assert_eq!(names.last(), Some(&expected));
        }

        #[test]
        fn padded_ranges_have_names_of_one_length(to in 1_usize..999) {
            let names = expand(&format!("h-[001-{to:03}]")).unwrap();
            prop_assert!(names.iter().all(|n| n.len() == "h-001".len()));
        }
    }
}
