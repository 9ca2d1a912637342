//! What is wrong with a scenario, for people: a snippet with a label and a suggestion.

use std::fmt::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};

/// What is said at a place when there is nothing to add to the message.
const UNLABELLED: &str = "here";

/// One finding in a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the scenario can be run in spite of it.
    pub warning: bool,
    /// What is wrong, without a final stop.
    pub message: String,
    /// Where, in bytes of the file; empty at its start when it concerns the file as a whole.
    pub place: Range<usize>,
    /// What is said at the place.
    pub label: String,
    /// Another place that takes part, and what is said there.
    pub related: Option<(Range<usize>, String)>,
    /// What to do about it; empty when there is nothing to add.
    pub help: String,
}

impl Problem {
    /// Something for which the scenario is refused.
    pub fn error(place: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            message: message.into(),
            place,
            label: UNLABELLED.to_owned(),
            related: None,
            help: String::new(),
        }
    }

    /// Something that people should know.
    pub fn warning(place: Range<usize>, message: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(place, message) }
    }

    /// Sets what is said at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Adds another place that takes part.
    #[must_use]
    pub fn also(mut self, place: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some((place, label.into()));
        self
    }
}

/// All findings in one file, in its order.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file as it was named.
    pub path: PathBuf,
    /// Its text.
    pub source: Arc<str>,
    /// The findings.
    pub problems: Vec<Problem>,
}

impl Diagnostics {
    /// Collects the findings in a file.
    pub fn new(path: &Path, source: Arc<str>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| (p.place.start, p.place.end));
        // One wrong template may be noticed by everything that uses it.
        problems.dedup();
        Self { path: path.to_owned(), source, problems }
    }

    /// Whether the scenario is refused.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| !p.warning)
    }

    /// Draws the findings with their snippets, `width` columns wide, in colour if wanted.
    pub fn render(&self, color: bool, width: usize) -> String {
        let theme =
            if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width)
            .with_links(false)
            .with_context_lines(1);
        let source = NamedSource::new(self.path.display().to_string(), self.source.to_string());
        let mut out = String::new();
        for problem in &self.problems {
            let drawn = Drawn { problem, source: &source, length: self.source.len() };
            if handler.render_report(&mut out, &drawn).is_err() {
                out.push_str(&problem.message);
            }
            out.push('\n');
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// Counts the findings, as in `2 errors and 1 warning in soak.toml`.
    pub fn summary(&self) -> String {
        let warnings = self.problems.iter().filter(|p| p.warning).count();
        let errors = self.problems.len() - warnings;
        let count = |n: usize, word: &str| match n {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        };
        let what = match (errors, warnings) {
            (errors, 0) => count(errors, "error"),
            (0, warnings) => count(warnings, "warning"),
            (errors, warnings) => {
                format!("{} and {}", count(errors, "error"), count(warnings, "warning"))
            }
        };
        format!("{what} in {}", self.path.display())
    }

    /// The 1-based line and column (in characters) of a finding.
    pub fn line_column(&self, problem: &Problem) -> (usize, usize) {
        let before = self.source.get(..problem.place.start).unwrap_or(&self.source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }
}

impl fmt::Display for Diagnostics {
    /// A line for each finding: file, line, column, message, what is said there, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            let (line, column) = self.line_column(problem);
            let kind = if problem.warning { "warning: " } else { "" };
            write!(f, "{}:{line}:{column}: {kind}{}", self.path.display(), problem.message)?;
            if problem.label != UNLABELLED {
                write!(f, " [{}]", problem.label)?;
            }
            if !problem.help.is_empty() {
                write!(f, " ({})", problem.help)?;
            }
            f.write_char('\n')?;
        }
        f.write_str(&self.summary())
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Diagnostics {}

/// A finding as miette draws it.
struct Drawn<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
    length: usize,
}

impl Drawn<'_> {
    fn label(&self, place: &Range<usize>, label: &str) -> LabeledSpan {
        let start = place.start.min(self.length);
        let end = place.end.clamp(start, self.length);
        LabeledSpan::new_with_span(Some(label.to_owned()), (start, end - start))
    }
}

impl fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl miette::Diagnostic for Drawn<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        let warning = self.problem.warning;
        Some(if warning { miette::Severity::Warning } else { miette::Severity::Error })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = &self.problem.help;
        (!help.is_empty()).then(|| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        (self.length > 0).then_some(self.source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let mut first = self.label(&self.problem.place, &self.problem.label);
        let related = self.problem.related.as_ref();
        // The place that is named above the snippet.
        if related.is_some() {
            first = LabeledSpan::new_primary_with_span(
                Some(self.problem.label.clone()),
                *first.inner(),
            );
        }
        let related = related.map(|(place, label)| self.label(place, label));
        Some(Box::new(std::iter::once(first).chain(related)))
    }
}
