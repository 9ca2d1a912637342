//! Progress for people: live lines on a terminal, plain ones elsewhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::execute::{Observer, Progress};
use crate::plan::size;

/// Shows what happens on each host, on standard error.
pub enum Display {
    /// Nothing at all.
    Silent,
    /// One line for every event that matters.
    Plain,
    /// One line a host that changes in place.
    Live {
        /// Holds the lines together.
        lines: MultiProgress,
        /// By host.
        bars: BTreeMap<String, ProgressBar>,
    },
}

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

impl Display {
    /// Chooses by where standard error goes; `quiet` shows nothing.
    #[must_use]
    pub fn new(hosts: &[String], quiet: bool) -> Self {
        if quiet {
            return Self::Silent;
        }
        if !console::Term::stderr().features().is_attended() {
            return Self::Plain;
        }
        let width = hosts.iter().map(String::len).max().unwrap_or(0);
        let template = format!("{{spinner}} {{prefix:{width}}} {{wide_msg}}");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let lines = MultiProgress::new();
        let bar = |host: &String| {
            let bar = lines.add(ProgressBar::new_spinner().with_style(style.clone()));
            bar.set_prefix(host.clone());
            bar.enable_steady_tick(TICK);
            (host.clone(), bar)
        };
        let bars = hosts.iter().map(bar).collect();
        Self::Live { lines, bars }
    }

    /// Shows one line for the run as a whole.
    pub fn say(&self, text: &str) {
        match self {
            Self::Silent => {}
            // What cannot be told need not be told: the run goes on without its reader.
            Self::Plain => _ = writeln!(std::io::stderr(), "{text}"),
            Self::Live { lines, .. } => _ = lines.println(text),
        }
    }

    /// Removes live lines.
    pub fn finish(&self) {
        if let Self::Live { lines, bars } = self {
            bars.values().for_each(ProgressBar::finish_and_clear);
            _ = lines.clear();
        }
    }
}

impl Observer for Display {
    fn event(&self, host: &str, event: &Progress<'_>) {
        match self {
            Self::Silent => {}
            Self::Plain => {
                if let Some(text) = plain(event) {
                    self.say(&format!("{host}: {text}"));
                }
            }
            Self::Live { bars, .. } => {
                let Some(bar) = bars.get(host) else { return };
                let text = live(event);
                match event {
                    Progress::Done | Progress::Failed(_) => bar.finish_with_message(text),
                    _ => bar.set_message(text),
                }
            }
        }
    }
}

/// What a log should keep: starts, waits, notes and ends, not each of a hundred files.
fn plain(event: &Progress<'_>) -> Option<String> {
    match event {
        Progress::Sending { sent, total } => {
            (sent >= total).then(|| format!("sent {}", size(*total)))
        }
        Progress::Step(step)
            if !["start ", "stop ", "load "].iter().any(|w| step.starts_with(w)) =>
        {
            None
        }
        Progress::Idle => None,
        // The caller reports failures in full.
        Progress::Failed(_) => Some("failed".to_owned()),
        other => Some(live(other)),
    }
}

fn live(event: &Progress<'_>) -> String {
    match event {
        Progress::Sending { sent, total } => format!("sending {} of {}", size(*sent), size(*total)),
        Progress::Step(step) => (*step).to_owned(),
        Progress::Gate(unit) => format!("wait until {unit} is healthy"),
        Progress::Note(note) => format!("note: {note}"),
        Progress::Hook(hook) => format!("hook {hook}"),
        Progress::Output(line) => format!("| {line}"),
        Progress::Idle => "wait for the other hosts".to_owned(),
        Progress::Done => "done".to_owned(),
        Progress::Failed(error) => {
            format!("failed: {}", error.to_string().lines().next().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_progress_leaves_small_steps_out() {
        let check = |event: Progress<'_>, expected: Option<&str>| {
            assert_eq!(plain(&event).as_deref(), expected);
        };
        check(Progress::Step("install /etc/a"), None);
        check(Progress::Step("start etcd.service"), Some("start etcd.service"));
        check(Progress::Sending { sent: 5, total: 2048 }, None);
        check(Progress::Sending { sent: 2048, total: 2048 }, Some("sent 2.0 kB"));
        check(Progress::Done, Some("done"));
    }
}
