//! "Did you mean": the known name that is nearest to what was written.

/// Says `did you mean …?`, or what is known when nothing is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    // A third of the letters may be wrong.
    let limit = word.chars().count().max(3).div_ceil(3);
    let near = known
        .iter()
        .map(|candidate| (distance(&letters(word), &letters(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min();
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => any_of(&known),
    }
}

/// Names for a sentence; the first ones of many.
fn any_of(known: &[&str]) -> String {
    /// More are not read.
    const SHOWN: usize = 24;
    let quoted: Vec<String> = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "there is none".to_owned(),
        [only] => format!("there is only {only}"),
        some if known.len() > SHOWN => {
            format!("one of {} and {} more", some.join(", "), known.len() - SHOWN)
        }
        [rest @ .., last] => format!("one of {} or {last}", rest.join(", ")),
    }
}

/// The letters of a word without what people mix up.
fn letters(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// How many letters must be inserted, taken out or replaced.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_others_listed() {
        let known = ["create-pod", "scale", "delete"];
        for (word, expected) in [
            ("create_pod", "did you mean `create-pod`?"),
            ("scal", "did you mean `scale`?"),
            ("dleete", "did you mean `delete`?"),
            ("restart", "one of `create-pod`, `scale` or `delete`"),
        ] {
            assert_eq!(did_you_mean(word, known), expected, "{word}");
        }
        assert_eq!(did_you_mean("x", []), "there is none");
        let many: Vec<String> = (0..30).map(|i| format!("node-{i}")).collect();
        let said = did_you_mean("elsewhere", many.iter().map(String::as_str));
        assert!(said.ends_with("`node-23` and 6 more"), "{said}");
    }
}
