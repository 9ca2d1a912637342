//! What is wrong with a scenario, for people: a snippet with a label and a suggestion.

use std::fmt::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inventory::Severity;
use inventory::snippet::{Snippet, Source};

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

    const fn severity(&self) -> Severity {
        if self.warning { Severity::Warning } else { Severity::Error }
    }

    fn snippet(&self) -> Snippet<'_> {
        let first = std::iter::once((self.place.clone(), self.label.as_str()));
        let related = self.related.iter().map(|(place, label)| (place.clone(), label.as_str()));
        Snippet {
            severity: self.severity(),
            message: &self.message,
            help: Some(self.help.as_str()).filter(|help| !help.is_empty()),
            labels: first.chain(related).collect(),
        }
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
        let snippets: Vec<Snippet<'_>> = self.problems.iter().map(Problem::snippet).collect();
        self.source().draw(&snippets, color, width)
    }

    /// Counts the findings, as in `2 errors and 1 warning in soak.toml`.
    pub fn summary(&self) -> String {
        self.source().summary(self.problems.iter().map(Problem::severity))
    }

    /// The 1-based line and column (in characters) of a finding.
    pub fn line_column(&self, problem: &Problem) -> (usize, usize) {
        self.source().line_column(problem.place.start)
    }

    fn source(&self) -> Source<'_> {
        Source { path: &self.path, text: &self.source }
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
