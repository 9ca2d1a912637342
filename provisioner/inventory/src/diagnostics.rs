//! What is wrong with an inventory, for people (a snippet with a label and a suggestion) and for
//! programs (JSON).

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use crate::snippet::{Snippet, Source};

/// What is said at a place when there is nothing to add to the message.
const UNLABELLED: &str = "here";

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The inventory cannot be used.
    Error,
    /// The inventory is used as it is, but the operator should know.
    Warning,
}

/// One finding in an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the inventory can still be used.
    pub severity: Severity,
    /// What is wrong, one sentence without a final stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where, as bytes of the source; `None` when it concerns the file as a whole.
    pub span: Option<Range<usize>>,
    /// What to say at `span`.
    pub label: String,
    /// Other places that take part, each with its own label.
    pub related: Vec<(Range<usize>, String)>,
}

impl Problem {
    /// Makes an error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            span: None,
            label: UNLABELLED.to_owned(),
            related: Vec::new(),
        }
    }

    /// Makes a warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Sets the place and what is said there.
    #[must_use]
    pub fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    /// Sets the suggestion.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that takes part.
    #[must_use]
    pub fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }
}

impl Problem {
    fn snippet(&self) -> Snippet<'_> {
        let first = self.span.iter().map(|span| (span.clone(), self.label.as_str()));
        let rest = self.related.iter().map(|(span, label)| (span.clone(), label.as_str()));
        let labels = if self.span.is_some() { first.chain(rest).collect() } else { Vec::new() };
        Snippet {
            severity: self.severity,
            message: &self.message,
            help: self.help.as_deref(),
            labels,
        }
    }
}

/// All findings in one inventory file, in the order of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file as the operator named it.
    pub path: PathBuf,
    /// The text of the file.
    pub source: Arc<str>,
    /// The findings, sorted by place.
    pub problems: Vec<Problem>,
}

/// One finding as programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `error` or `warning`.
    pub severity: Severity,
    /// The file as the operator named it.
    pub file: String,
    /// 1-based line of the first character; 1 when the whole file is meant.
    pub line: usize,
    /// 1-based column (in characters) of the first character.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What is said at the place.
    pub label: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostics {
    /// Collects `problems` of one file, sorted by place. Problems of the same kind at the same
    /// place, as a host range of forty gives them, become one.
    pub fn new(path: &Path, source: Arc<str>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| p.span.as_ref().map_or((0, 0), |s| (s.start, s.end)));
        Self { path: path.to_owned(), source, problems: collapse(problems) }
    }

    /// Tells whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// Draws every finding with its snippet, `width` columns wide, coloured if `color`.
    pub fn render(&self, color: bool, width: usize) -> String {
        let snippets: Vec<Snippet<'_>> = self.problems.iter().map(Problem::snippet).collect();
        self.source().draw(&snippets, color, width)
    }

    /// Counts the findings, as in `3 errors and 1 warning in inventory/lab.toml`.
    pub fn summary(&self) -> String {
        self.source().summary(self.problems.iter().map(|p| p.severity))
    }

    fn source(&self) -> Source<'_> {
        Source { path: &self.path, text: &self.source }
    }

    /// Returns the findings as programs read them.
    pub fn findings(&self) -> Vec<Finding> {
        self.problems
            .iter()
            .map(|p| {
                let (line, column) = match &p.span {
                    Some(span) => self.source().line_column(span.start),
                    None => (1, 1),
                };
                Finding {
                    severity: p.severity,
                    file: self.path.display().to_string(),
                    line,
                    column,
                    message: p.message.clone(),
                    label: p.label.clone(),
                    help: p.help.clone(),
                }
            })
            .collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.findings() {
            let Finding { file, line, column, message, .. } = finding;
            writeln!(f, "{file}:{line}:{column}: {message}")?;
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

fn collapse(problems: Vec<Problem>) -> Vec<Problem> {
    let mut kept: Vec<(Problem, usize)> = Vec::new();
    for problem in problems {
        let same = |(other, _): &&mut (Problem, usize)| {
            problem.span.is_some()
                && problem.label != UNLABELLED
                && (&problem.span, &problem.label, &problem.related)
                    == (&other.span, &other.label, &other.related)
        };
        match kept.iter_mut().rev().take_while(|(o, _)| o.span == problem.span).find(same) {
            Some((other, _)) if other.message == problem.message => {}
            Some((_, more)) => *more += 1,
            None => kept.push((problem, 0)),
        }
    }
    let count = |(mut problem, more): (Problem, usize)| {
        if more > 0 {
            problem.message.push_str(&format!(", and {more} more like it"));
        }
        problem
    };
    kept.into_iter().map(count).collect()
}
