//! The two shapes of environment files: a variable that holds a program's flags, one a line, and
//! a variable a line.

/// Joins flags, one a line, to a value that systemd reads as one line.
///
/// `extra` flags take the place of flags of the same name, or follow at the end.
pub(super) fn options(text: &str, extra: &[(String, String)]) -> String {
    let flag = |name: &str| format!("--{name}");
    let lines = merged(text, extra.iter().map(|(name, value)| (flag(name), value.as_str())));
    format!("\\\n{}", lines.join(" \\\n"))
}

/// Puts variables one a line. `extra` are flags: `max-wals` stands for the variable
/// `PREFIX_MAX_WALS`.
pub(super) fn settings(text: &str, prefix: &str, extra: &[(String, String)]) -> String {
    let variable = |name: &str| format!("{prefix}{}", name.to_ascii_uppercase().replace('-', "_"));
    let lines = merged(text, extra.iter().map(|(name, value)| (variable(name), value.as_str())));
    lines.join("\n")
}

/// The lines of `text` that are not blank, with the values of `extra` put in.
fn merged<'a>(text: &str, extra: impl Iterator<Item = (String, &'a str)>) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    for (name, value) in extra {
        let line = format!("{name}={value}");
        let same = |l: &&mut String| l.split('=').next() == Some(name.as_str());
        match lines.iter_mut().find(same) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn flags_become_one_continued_line() {
        assert_eq!(options("\n--a=1\n\n--b=2\n", &[]), "\\\n--a=1 \\\n--b=2");
        assert_eq!(options("\n", &[]), "\\\n");
    }

    #[test]
    fn extra_flags_replace_or_follow() {
        let extra = extra(&[("v", "4"), ("z", "x=y")]);
        assert_eq!(options("--v=2\n--vmodule=a", &extra), "\\\n--v=4 \\\n--vmodule=a \\\n--z=x=y");
    }

    #[test]
    fn extra_settings_are_named_like_variables() {
        let extra = extra(&[("max-wals", "9"), ("name", "b")]);
        assert_eq!(settings("\nE_NAME=a\n", "E_", &extra), "E_NAME=b\nE_MAX_WALS=9");
    }
}
