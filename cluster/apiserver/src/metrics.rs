//! `/metrics`: counts and durations of requests, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::Kind;

use crate::server::Server;

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 60.0];

/// Verb, resource, subresource and code of an answer.
type Label = (&'static str, &'static str, &'static str, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// What was answered since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    answers: Mutex<BTreeMap<Label, u64>>,
    durations: Mutex<BTreeMap<&'static str, Durations>>,
}

impl Metrics {
    /// Notes one answer.
    pub(crate) fn note(
        &self,
        verb: &'static str,
        (resource, subresource): (&'static str, &'static str),
        code: u16,
        took: Duration,
    ) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((verb, resource, subresource, code)).or_default() += 1;
        drop(answers);
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let of_verb = durations.entry(verb).or_default();
        let seconds = took.as_secs_f64();
        of_verb.count += 1;
        of_verb.seconds += seconds;
        for (count, bound) in of_verb.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
    }

    /// The whole text.
    pub(crate) fn render(&self, server: &Server) -> String {
        let mut out = String::new();
        self.render_requests(&mut out).expect("a string takes all that is written");
        render_state(&mut out, server).expect("a string takes all that is written");
        out
    }

    fn render_requests(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# TYPE apiserver_request_total counter")?;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for ((verb, resource, subresource, code), count) in answers.iter() {
            writeln!(
                out,
                "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",\
                 subresource=\"{subresource}\",code=\"{code}\"}} {count}"
            )?;
        }
        writeln!(out, "# TYPE apiserver_request_duration_seconds histogram")?;
        let durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "apiserver_request_duration_seconds";
        for (verb, of_verb) in durations.iter() {
            for (bound, count) in BUCKETS.iter().zip(of_verb.buckets) {
                writeln!(out, "{name}_bucket{{verb=\"{verb}\",le=\"{bound}\"}} {count}")?;
            }
            writeln!(out, "{name}_bucket{{verb=\"{verb}\",le=\"+Inf\"}} {}", of_verb.count)?;
            writeln!(out, "{name}_sum{{verb=\"{verb}\"}} {}", of_verb.seconds)?;
            writeln!(out, "{name}_count{{verb=\"{verb}\"}} {}", of_verb.count)?;
        }
        Ok(())
    }
}

fn render_state(out: &mut String, server: &Server) -> std::fmt::Result {
    writeln!(out, "# TYPE apiserver_storage_objects gauge")?;
    let state = server.hub.read();
    for kind in Kind::stored() {
        let count = state.window.count(kind);
        writeln!(
            out,
            "apiserver_storage_objects{{resource=\"{}\"}} {count}",
            kind.group_resource()
        )?;
    }
    writeln!(out, "# TYPE apiserver_storage_revision gauge")?;
    writeln!(out, "apiserver_storage_revision {}", state.window.revision())?;
    drop(state);
    writeln!(out, "# TYPE apiserver_longrunning_requests gauge")?;
    let watches = server.draining.receiver_count();
    writeln!(out, "apiserver_longrunning_requests {watches}")?;
    if let Some(bytes) = resident_bytes() {
        writeln!(out, "# TYPE process_resident_memory_bytes gauge")?;
        writeln!(out, "process_resident_memory_bytes {bytes}")?;
    }
    Ok(())
}

/// Memory of this process, as the kernel counts it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}
