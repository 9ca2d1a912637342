//! What a run leaves on the operator's machine: a log a host, and a trace.
//!
//! `STATE_DIR/logs/TIME-COMMAND/` has `HOST.log` for each host that had something to do and
//! `trace.json`; the oldest runs go when there are too many.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::execute::{Observer, Progress, chain};
use crate::trace::{FORMAT, Span, SpanKind, Trace};

/// The folder within the state directory.
pub const DIRECTORY: &str = "logs";

/// The name of the trace within a run's folder.
pub const TRACE: &str = "trace.json";

/// Runs that are kept: enough to see when something began.
pub const RUNS_MAX: usize = 20;

/// A host's log is cut here.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// A trace has no more spans than this; the run is not held up by its own diary.
const SPANS_MAX: usize = 2_000_000;

/// The diary of one run. Failures to write it are told once and change nothing else.
pub struct RunLog {
    directory: PathBuf,
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    logs: BTreeMap<String, Log>,
    open: BTreeMap<String, Span>,
    phase: Option<Span>,
    trace: Trace,
    spans: usize,
}

struct Log {
    file: File,
    written: u64,
}

impl RunLog {
    /// Begins the diary of a run that began at `began`, `at` by the calendar, and removes the
    /// oldest.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn begin(
        state_dir: &Path,
        cluster: &str,
        command: &str,
        began: Instant,
        at: jiff::Timestamp,
    ) -> io::Result<Self> {
        let logs = state_dir.join(DIRECTORY);
        let name = format!("{}-{command}", at.strftime("%Y%m%dT%H%M%S%.3fZ"));
        let directory = logs.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        for old in runs(state_dir)?.iter().rev().skip(RUNS_MAX) {
            fs::remove_dir_all(logs.join(old))?;
        }
        let trace = Trace {
            format: FORMAT,
            cluster: cluster.to_owned(),
            command: command.to_owned(),
            began: at.to_string(),
            ..Trace::default()
        };
        let (logs, open) = (BTreeMap::new(), BTreeMap::new());
        let inner = Mutex::new(Inner { logs, open, phase: None, trace, spans: 0 });
        Ok(Self { directory, began, inner })
    }

    /// Where the diary is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Notes a span of `host` that lies in the past.
    pub fn span(&self, host: &str, kind: SpanKind, name: &str, begin: Instant, end: Instant) {
        let span =
            Span { name: name.to_owned(), kind, begin_us: self.at(begin), end_us: self.at(end) };
        self.inner().trace.hosts.entry(host.to_owned()).or_default().push(span);
    }

    /// Notes a phase that lies in the past.
    pub fn past_phase(&self, name: &str, begin: Instant, end: Instant) {
        let (name, kind) = (name.to_owned(), SpanKind::Phase);
        let span = Span { name, kind, begin_us: self.at(begin), end_us: self.at(end) };
        self.inner().trace.phases.push(span);
    }

    /// Closes what is open and writes the trace.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&self) -> io::Result<()> {
        let now = self.at(Instant::now());
        let mut inner = self.inner();
        let hosts: Vec<_> = inner.open.keys().cloned().collect();
        hosts.iter().for_each(|host| inner.close(host, now));
        inner.close_phase(now);
        inner.trace.total_us = now;
        let text = serde_json::to_string(&inner.trace).expect("a trace has only string keys");
        private(&self.directory.join(TRACE))?.write_all(text.as_bytes())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// The names of the runs that are kept, oldest first.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn runs(state_dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(state_dir.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Nothing else is ours to remove.
        if name.len() > 20 && name.as_bytes()[8] == b'T' && name.contains("Z-") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Inner {
    fn close(&mut self, host: &str, now: u64) {
        let Some(mut span) = self.open.remove(host) else { return };
        span.end_us = now;
        if self.spans < SPANS_MAX {
            self.spans += 1;
            self.trace.hosts.entry(host.to_owned()).or_default().push(span);
        }
    }

    fn open(&mut self, host: &str, kind: SpanKind, name: String, now: u64) {
        self.close(host, now);
        self.open.insert(host.to_owned(), Span { name, kind, begin_us: now, end_us: now });
    }

    fn close_phase(&mut self, now: u64) {
        if let Some(mut phase) = self.phase.take() {
            phase.end_us = now;
            self.trace.phases.push(phase);
        }
    }

    fn write(&mut self, directory: &Path, host: &str, line: &str) -> io::Result<()> {
        let log = match self.logs.entry(host.to_owned()) {
            Entry::Occupied(log) => log.into_mut(),
            Entry::Vacant(place) => {
                let file = private(&directory.join(format!("{host}.log")))?;
                place.insert(Log { file, written: 0 })
            }
        };
        let full = log.written >= LOG_BYTES_MAX;
        let line = if full { "the log is full\n" } else { line };
        if log.written < u64::MAX {
            log.file.write_all(line.as_bytes())?;
            log.written = if full { u64::MAX } else { log.written + line.len() as u64 };
        }
        Ok(())
    }
}

impl Observer for RunLog {
    fn event(&self, host: &str, event: &Progress<'_>) {
        let now = self.at(Instant::now());
        let mut inner = self.inner();
        let text = match event {
            Progress::Sending { sent, total } => {
                let sending = inner.open.get(host).is_some_and(|s| s.kind == SpanKind::Send);
                if !sending {
                    inner.open(host, SpanKind::Send, "send".to_owned(), now);
                }
                if sent < total {
                    return;
                }
                format!("sent {total} bytes")
            }
            Progress::Step(step) => {
                inner.open(host, SpanKind::Step, (*step).to_owned(), now);
                (*step).to_owned()
            }
            Progress::Gate(unit) => {
                let name = format!("wait until {unit} is healthy");
                inner.open(host, SpanKind::Gate, name.clone(), now);
                name
            }
            Progress::Hook(hook) => {
                inner.open(host, SpanKind::Hook, format!("hook {hook}"), now);
                format!("hook {hook}")
            }
            Progress::Output(line) => format!("| {line}"),
            Progress::Note(note) => format!("note: {note}"),
            Progress::Idle => {
                inner.close(host, now);
                return;
            }
            Progress::Done => {
                inner.close(host, now);
                "done".to_owned()
            }
            Progress::Failed(error) => {
                inner.close(host, now);
                format!("failed: {}", chain(error))
            }
        };
        let line = format!("+{}.{:03} {text}\n", now / 1_000_000, now / 1000 % 1000);
        if let Err(error) = inner.write(&self.directory, host, &line) {
            tracing::debug!(host, %error, "cannot write the log");
        }
    }

    fn phase(&self, name: &str) {
        let now = self.at(Instant::now());
        let mut inner = self.inner();
        inner.close_phase(now);
        let (name, kind) = (name.to_owned(), SpanKind::Phase);
        inner.phase = Some(Span { name, kind, begin_us: now, end_us: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_a_log_and_the_run_a_trace_and_old_runs_go() {
        let scratch = tempfile::tempdir().unwrap();
        let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        for second in 0..25 {
            let at = start + jiff::SignedDuration::from_secs(second);
            RunLog::begin(scratch.path(), "lab", "apply", Instant::now(), at).unwrap();
        }
        fs::create_dir(scratch.path().join("logs/mine")).unwrap();
        let at = start + jiff::SignedDuration::from_secs(60);
        let log = RunLog::begin(scratch.path(), "lab", "apply", Instant::now(), at).unwrap();
        log.phase("node on 2 hosts");
        log.event("n1", &Progress::Step("install /etc/a"));
        log.event("n1", &Progress::Output("from a hook"));
        log.event("n2", &Progress::Sending { sent: 3, total: 3 });
        log.event("n1", &Progress::Idle);
        log.event("n1", &Progress::Done);
        log.finish().unwrap();
        let kept = runs(scratch.path()).unwrap();
        assert_eq!(kept.len(), RUNS_MAX);
        assert_eq!(kept.last().unwrap(), "20270115T080100.000Z-apply");
        assert!(scratch.path().join("logs/mine").exists());
        let text = fs::read_to_string(log.directory().join("n1.log")).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["install /etc/a", "| from a hook", "done"]);
        let trace = Trace::read(&log.directory().join(TRACE)).unwrap();
        let names = |spans: &[Span]| spans.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&trace.phases), ["node on 2 hosts"]);
        assert_eq!(names(&trace.hosts["n1"]), ["install /etc/a"]);
        assert_eq!(names(&trace.hosts["n2"]), ["send"]);
    }

    #[test]
    fn a_log_ends_where_it_is_full() {
        let scratch = tempfile::tempdir().unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let log = RunLog::begin(scratch.path(), "lab", "apply", Instant::now(), now).unwrap();
        let line = "x".repeat(1 << 20);
        for _ in 0..8 {
            log.event("n1", &Progress::Output(&line));
        }
        let text = fs::read_to_string(log.directory().join("n1.log")).unwrap();
        assert!(text.len() as u64 <= LOG_BYTES_MAX + (2 << 20));
        assert!(text.ends_with("the log is full\n") && text.matches("full").count() == 1);
    }
}
