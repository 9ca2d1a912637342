//! Findings in a text file as people see them: a snippet with labels, what to do, and at the end how
//! many there are. What a finding is, and which of them are told, its finder decides.

use std::{fmt, ops::Range, path::Path};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};

use crate::Severity;

/// A file with findings.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file as it was named.
    pub path: &'a Path,
    /// Its text.
    pub text: &'a str,
}

/// A finding.
#[derive(Debug, Clone)]
pub struct Snippet<'a> {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: &'a str,
    /// What to do about it, if there is something to add.
    pub help: Option<&'a str>,
    /// Places, as bytes of the text, and what is said there; the first is the one that is named
    /// above the snippet. None when the file as a whole is meant.
    pub labels: Vec<(Range<usize>, &'a str)>,
}

impl Source<'_> {
    /// Draws every finding, `width` columns wide, coloured if `color`, and counts them.
    pub fn draw(&self, findings: &[Snippet<'_>], color: bool, width: usize) -> String {
        let theme =
            if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width)
            .with_links(false)
            .with_context_lines(1);
        let source = NamedSource::new(self.path.display().to_string(), self.text.to_owned());
        let mut out = String::new();
        for snippet in findings {
            let drawn = Drawn { snippet, source: &source, length: self.text.len() };
            if handler.render_report(&mut out, &drawn).is_err() {
                out.push_str(snippet.message);
            }
            out.push('\n');
        }
        out.push_str(&self.summary(findings.iter().map(|snippet| snippet.severity)));
        out.push('\n');
        out
    }

    /// Counts findings, as in `3 errors and 1 warning in inventory/lab.toml`.
    pub fn summary(&self, findings: impl IntoIterator<Item = Severity>) -> String {
        let (mut errors, mut warnings) = (0_usize, 0_usize);
        for severity in findings {
            match severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
        }
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let what = match (errors, warnings) {
            (errors, 0) => count(errors, "error"),
            (0, warnings) => count(warnings, "warning"),
            (errors, warnings) => {
                format!("{} and {}", count(errors, "error"), count(warnings, "warning"))
            }
        };
        format!("{what} in {}", self.path.display())
    }

    /// The 1-based line and column (in characters) of the byte `offset`.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }
}

/// A finding as miette draws it.
struct Drawn<'a> {
    snippet: &'a Snippet<'a>,
    source: &'a NamedSource<String>,
    length: usize,
}

impl Drawn<'_> {
    fn span(&self, place: &Range<usize>) -> (usize, usize) {
        let start = place.start.min(self.length);
        let end = place.end.clamp(start, self.length);
        (start, end - start)
    }
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.snippet.message)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.snippet.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl miette::Diagnostic for Drawn<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.snippet.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.snippet.help.map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        let has_place = self.length > 0 && !self.snippet.labels.is_empty();
        has_place.then_some(self.source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (first, rest) = self.snippet.labels.split_first()?;
        let text = |label: &str| Some(label.to_owned());
        let first = LabeledSpan::new_primary_with_span(text(first.1), self.span(&first.0));
        let rest = rest
            .iter()
            .map(move |(place, label)| LabeledSpan::new_with_span(text(label), self.span(place)));
        Some(Box::new(std::iter::once(first).chain(rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ä = 1\nb = \"zwei\"\n";

    fn source(text: &str) -> Source<'_> {
        Source { path: Path::new("a.toml"), text }
    }

    #[test]
    fn findings_are_drawn_with_their_places_and_counted() {
        let wrong = Snippet {
            severity: Severity::Error,
            message: "`b` is no number",
            help: Some("write 2"),
            labels: vec![(11..17, "this is text"), (0..2, "as here")],
        };
        let whole =
            Snippet { severity: Severity::Warning, message: "odd", help: None, labels: vec![] };
        insta::assert_snapshot!(source(TEXT).draw(&[wrong, whole], false, 80), @r#"
          × `b` is no number
           ╭─[a.toml:2:5]
         1 │ ä = 1
           · ┬
           · ╰── as here
         2 │ b = "zwei"
           ·     ───┬──
           ·        ╰── this is text
           ╰────
          help: write 2

          ⚠ odd

        1 error and 1 warning in a.toml
        "#);
    }

    #[test]
    fn places_are_counted_in_characters() {
        for (offset, expected) in [(0, (1, 1)), (2, (1, 2)), (7, (2, 1)), (999, (3, 1))] {
            assert_eq!(source(TEXT).line_column(offset), expected, "{offset}");
        }
        // A file without a text has no place to show.
        let empty = source("");
        assert_eq!(empty.line_column(5), (1, 1));
        let snippet = Snippet {
            severity: Severity::Error,
            message: "cannot read",
            help: None,
            labels: vec![(0..0, "here")],
        };
        assert!(!empty.draw(&[snippet], false, 80).contains("here"));
    }
}
