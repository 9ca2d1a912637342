//! Tells a run to the operator and to its logs at the same time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::output::{Console, Failure};
use super::prepare::Prepared;
use crate::digest::Digest;
use crate::execute::{Observer, Progress, chain};
use crate::host::{Host, StepEvent};
use crate::plan::Upload;
use crate::progress::Display;
use crate::run_log::RunLog;
use crate::step::Step;
use crate::trace::SpanKind;

/// The display and the log of one run.
pub(super) struct Diary {
    display: Display,
    log: Option<RunLog>,
}

impl Diary {
    /// Begins both; a log that cannot be written is a warning and no more.
    pub(super) fn begin(
        state_dir: &Path,
        prepared: &Prepared,
        command: &str,
        began: Instant,
        hosts: &[String],
        console: &Console,
    ) -> Self {
        let cluster = &prepared.inventory.cluster.name;
        let diary = Self::new(state_dir, cluster, command, began, hosts, console);
        if let Some(log) = &diary.log {
            let asked = prepared.times.values().map(|(begin, _)| *begin).min();
            let answered = prepared.times.values().map(|(_, end)| *end).max();
            if let (Some(asked), Some(answered)) = (asked, answered) {
                log.past_phase("compose", began, asked);
                log.past_phase("connect and facts", asked, answered);
            }
            for (host, (begin, end)) in &prepared.times {
                log.span(host, SpanKind::Connect, "connect and facts", *begin, *end);
            }
        }
        diary
    }

    pub(super) fn new(
        state_dir: &Path,
        cluster: &str,
        command: &str,
        began: Instant,
        hosts: &[String],
        console: &Console,
    ) -> Self {
        // The beginning by the calendar, as near as can be told now.
        let now = jiff::Timestamp::now();
        let at = jiff::SignedDuration::try_from(began.elapsed());
        let at = at.ok().and_then(|since| now.checked_sub(since).ok()).unwrap_or(now);
        let log = RunLog::begin(state_dir, cluster, &command.replace(' ', "-"), began, at);
        let log = log.inspect_err(|error| {
            console.note(&format!("warning: no logs of this run are kept: {error}"));
        });
        Self { display: Display::new(hosts, console.is_json()), log: log.ok() }
    }

    /// Shows one line for the run as a whole.
    pub(super) fn say(&self, text: &str) {
        self.display.say(text);
    }

    /// A phase that no execution runs begins.
    pub(super) fn said(&self, phase: &str) {
        self.phase(phase);
    }

    /// Ends both, and says where the logs are.
    pub(super) fn finish(&self) -> Option<PathBuf> {
        self.display.finish();
        let log = self.log.as_ref()?;
        if let Err(error) = log.finish() {
            tracing::warn!(%error, "cannot write the trace");
        }
        Some(log.directory().to_owned())
    }
}

/// Steps that a command of its own runs.
impl Diary {
    /// Sends bytes to a host, runs steps there, and tells of all.
    pub(super) fn run(
        &self,
        host: &mut dyn Host,
        uploads: &BTreeMap<Digest, Upload>,
        steps: &[Step],
    ) -> Result<(), Failure> {
        let name = host.name().to_owned();
        let total = uploads.values().map(Upload::len).sum();
        let sending = &mut |sent: u64| {
            self.event(&name, &Progress::Sending { sent: sent.min(total), total });
        };
        let sent = match uploads.is_empty() {
            true => Ok(()),
            false => host.push(uploads, sending),
        };
        let ran = sent.and_then(|()| {
            host.run(steps, &mut |event| match event {
                StepEvent::Begin(step) => self.event(&name, &Progress::Step(&step.describe())),
                StepEvent::Note(note) => self.event(&name, &Progress::Note(note)),
            })
        });
        match ran {
            Ok(()) => {
                self.event(&name, &Progress::Idle);
                Ok(())
            }
            Err(error) => {
                let (message, advice) = (format!("{name}: {}", chain(&error)), error.advice());
                self.event(&name, &Progress::Failed(&error.into()));
                Err(Failure::Other { message, advice })
            }
        }
    }

    /// Ends both after a failure, and tells where the logs are.
    pub(super) fn close(&self, console: &Console) {
        if let Some(log) = self.finish() {
            console.note(&format!("logs: {}", log.display()));
        }
    }

    /// Ends both with what came of `work`.
    pub(super) fn end<T>(&self, console: &Console, work: Result<T, Failure>) -> Result<T, Failure> {
        match &work {
            Ok(_) => _ = self.finish(),
            Err(_) => self.close(console),
        }
        work
    }
}

impl Observer for Diary {
    fn event(&self, host: &str, event: &Progress<'_>) {
        self.display.event(host, event);
        if let Some(log) = &self.log {
            log.event(host, event);
        }
    }

    fn phase(&self, name: &str) {
        if let Some(log) = &self.log {
            log.phase(name);
        }
    }
}
