//! Results on standard output, reports on standard error.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{Color, Exit, Format, Global};
use crate::execute::chain;
use crate::inventory::Diagnostics;
use crate::preflight::Problem;

/// Where a command's words go.
pub(super) struct Console {
    format: Format,
    pub(super) verbose: u8,
    color: bool,
}

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// The inventory has errors.
    Inventory(Box<Diagnostics>),
    /// Hosts are unreachable or unfit.
    Unfit(Vec<Problem>),
    /// The command line asks for what there is not: what, and what there is.
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        advice: String,
    },
    /// A failure with an exit code of its own.
    Coded {
        /// The code.
        exit: Exit,
        /// The failure, with its causes.
        message: String,
        /// What to do about it.
        advice: String,
    },
    /// Anything else: what failed, why, and what to do.
    Other {
        /// The failure, with its causes.
        message: String,
        /// What to do about it.
        advice: String,
    },
}

impl Failure {
    pub(super) fn new(error: &dyn std::error::Error, advice: impl Into<String>) -> Self {
        Self::Other { message: chain(error), advice: advice.into() }
    }

    /// What failed, without what to do about it.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Inventory(_) => "the inventory has errors".to_owned(),
            Self::Unfit(problems) => {
                let lines = problems.iter().map(|p| format!("{}: {}", p.host, p.message));
                lines.collect::<Vec<_>>().join("; ")
            }
            Self::Usage { message, .. }
            | Self::Coded { message, .. }
            | Self::Other { message, .. } => message.clone(),
        }
    }
}

impl Console {
    pub(super) fn new(global: &Global, no_color: bool) -> Self {
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !no_color && console::Term::stderr().features().is_attended(),
        };
        console::set_colors_enabled(color);
        console::set_colors_enabled_stderr(color);
        Self { format: global.output, verbose: global.verbose, color }
    }

    /// One that tests may use: no colours, JSON.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self { format: Format::Json, verbose: 0, color: false }
    }

    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes a result as it is.
    pub(super) fn text(&self, text: &str) -> Result<Exit, Failure> {
        let mut out = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write!(out, "{text}{end}").and_then(|()| out.flush()) {
            Ok(()) => Ok(Exit::Ok),
            // Somebody who reads only the head of a result is content.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
            Err(error) => Err(Failure::new(&error, "check where standard output goes")),
        }
    }

    /// Writes a result as JSON, or its text.
    pub(super) fn result(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<Exit, Failure> {
        if self.is_json() {
            let json = serde_json::to_string_pretty(value);
            return self.text(&json.expect("results have only string keys"));
        }
        let text = text();
        if text.is_empty() { Ok(Exit::Ok) } else { self.text(&text) }
    }

    /// Writes a line to standard error.
    pub(super) fn note(&self, text: &str) {
        _ = writeln!(io::stderr(), "{text}");
    }

    /// Writes the findings of an inventory.
    pub(super) fn diagnostics(&self, diagnostics: &Diagnostics) {
        if diagnostics.problems.is_empty() {
            return;
        }
        if self.is_json() {
            let findings = diagnostics.findings();
            _ = self.result(&serde_json::json!({ "findings": findings }), String::new);
        } else {
            let width = usize::from(console::Term::stderr().size().1).clamp(60, 120);
            self.note(diagnostics.render(self.color, width).trim_end());
        }
    }

    /// Reports a failure and gives its exit code.
    pub(super) fn failure(&self, failure: &Failure) -> Exit {
        match failure {
            Failure::Inventory(diagnostics) => {
                self.diagnostics(diagnostics);
                Exit::BadInventory
            }
            Failure::Unfit(problems) => {
                if self.is_json() {
                    let value = serde_json::json!({ "problems": problems });
                    _ = self.result(&value, String::new);
                }
                self.note(&unfit(problems));
                Exit::Unfit
            }
            Failure::Usage { message, advice } => {
                self.failed(message, advice);
                Exit::BadInventory
            }
            Failure::Coded { exit, message, advice } => {
                self.failed(message, advice);
                *exit
            }
            Failure::Other { message, advice } => {
                self.failed(message, advice);
                Exit::Failed
            }
        }
    }

    fn failed(&self, message: &str, advice: &str) {
        if self.is_json() {
            let value = serde_json::json!({ "error": message, "advice": advice });
            _ = self.result(&value, String::new);
        }
        let mark = console::style("error:").for_stderr().red().bold();
        self.note(&format!("{mark} {message}\n  what to do: {advice}"));
    }
}

/// All problems by host, and that nothing has happened.
pub(super) fn unfit(problems: &[Problem]) -> String {
    let mut out = String::new();
    let mut host = None;
    for problem in problems {
        if host != Some(&problem.host) {
            host = Some(&problem.host);
            out.push_str(&format!("{}\n", console::style(&problem.host).for_stderr().bold()));
        }
        let mark = console::style("error:").for_stderr().red().bold();
        let message = problem.message.replace('\n', "\n  ");
        out.push_str(&format!("  {mark} {message}\n    what to do: {}\n", problem.advice));
    }
    out.push_str("nothing was changed on any host");
    out
}

/// A duration for people.
pub(super) fn seconds(duration: std::time::Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
