//! Quoting for the POSIX shell.

/// Quotes `text` as exactly one word of a POSIX shell command.
#[must_use]
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Quotes every text and joins them by blanks.
pub(crate) fn words<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32,
            ..ProptestConfig::default() })]
        #[test]
        fn the_shell_reads_the_same_words(texts in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let command = format!("printf '%s\\0' {}", words(texts.iter().map(String::as_str)));
            let output = Command::new("sh").args(["-c", &command]).output().unwrap();
            let expected: String = texts.iter().map(|text| format!("{text}\0")).collect();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        }
    }
}
