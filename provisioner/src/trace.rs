//! The timeline of a run: what each host did when, and what the run waited for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Rows of a picture; more would be no picture.
const ROWS_MAX: usize = 200;

/// Spans that an answer names for each phase.
const LONGEST_SHOWN: usize = 3;

/// What happened when, in microseconds since the beginning of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// [`FORMAT`].
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The command, such as `apply`.
    pub command: String,
    /// When the run began, RFC 3339.
    pub began: String,
    /// How long it took.
    pub total_us: u64,
    /// The phases of the run as a whole, in order.
    pub phases: Vec<Span>,
    /// What each host did; `operator` stands for this machine.
    pub hosts: BTreeMap<String, Vec<Span>>,
}

/// A time in which one thing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What was done.
    pub name: String,
    /// Which kind of thing.
    pub kind: SpanKind,
    /// From here.
    pub begin_us: u64,
    /// To here.
    pub end_us: u64,
}

impl Span {
    fn len_us(&self) -> u64 {
        self.end_us.saturating_sub(self.begin_us)
    }
}

/// Kinds of spans, by what would make them shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// A phase of the whole run.
    Phase,
    /// Connecting and asking for facts.
    Connect,
    /// Sending bytes.
    Send,
    /// A step on the host.
    Step,
    /// Waiting for health.
    Gate,
    /// A command of the operator's.
    Hook,
}

impl SpanKind {
    fn color(self) -> &'static str {
        match self {
            Self::Phase => "#cfd8dc",
            Self::Connect => "#90a4ae",
            Self::Send => "#5c9ded",
            Self::Step => "#66bb6a",
            Self::Gate => "#ffb74d",
            Self::Hook => "#ba68c8",
        }
    }
}

/// What a phase waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// The phase.
    pub phase: String,
    /// Its length in milliseconds.
    pub ms: u64,
    /// The host that was busy to its end; none when no host was.
    pub host: Option<String>,
    /// The longest things that this host did in it, with their milliseconds.
    pub longest: Vec<(String, u64)>,
}

/// Why a trace cannot be shown.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the trace {path}: {why}")]
pub struct TraceError {
    /// The file.
    pub path: String,
    /// Why.
    pub why: String,
}

impl Trace {
    /// Reads the trace of a run.
    ///
    /// # Errors
    /// When there is none, or it is of another version.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let failed = |why: String| TraceError { path: path.display().to_string(), why };
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let trace: Self = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        match trace.format {
            FORMAT => Ok(trace),
            other => Err(failed(format!("its format is {other}, this kprov knows {FORMAT}"))),
        }
    }

    /// For each phase, the host that it ended with and what that host did longest.
    #[must_use]
    pub fn bounds(&self) -> Vec<Bound> {
        self.phases.iter().map(|phase| self.bound(phase)).collect()
    }

    fn bound(&self, phase: &Span) -> Bound {
        let within = |span: &&Span| span.begin_us < phase.end_us && span.end_us > phase.begin_us;
        let last = (self.hosts.iter())
            .filter_map(|(host, spans)| {
                let end = spans.iter().filter(within).map(|span| span.end_us).max()?;
                Some((end.min(phase.end_us), host, spans))
            })
            .max_by_key(|(end, host, _)| (*end, std::cmp::Reverse(*host)));
        let mut longest = Vec::new();
        if let Some((_, _, spans)) = last {
            let clipped =
                |span: &Span| span.end_us.min(phase.end_us) - span.begin_us.max(phase.begin_us);
            longest = spans
                .iter()
                .filter(within)
                .map(|span| (span.name.clone(), clipped(span)))
                .collect();
            longest.sort_by_key(|(_, len)| std::cmp::Reverse(*len));
            longest.truncate(LONGEST_SHOWN);
            longest.iter_mut().for_each(|(_, len)| *len /= 1000);
        }
        Bound {
            phase: phase.name.clone(),
            ms: phase.len_us() / 1000,
            host: last.map(|(_, host, _)| host.clone()),
            longest,
        }
    }

    /// The bounds as lines of text, the longest phase marked.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "{} of {} at {}: {} s\n",
            self.command,
            self.cluster,
            self.began,
            seconds(self.total_us / 1000)
        );
        let bounds = self.bounds();
        let most = bounds.iter().map(|bound| bound.ms).max().unwrap_or(0);
        for bound in &bounds {
            let mark = if bound.ms == most && most > 0 { '>' } else { ' ' };
            let _ = write!(out, "{mark} {:>9} s  {}", seconds(bound.ms), bound.phase);
            if let Some(host) = &bound.host {
                let _ = write!(out, ", waiting for {host}");
            }
            out.push('\n');
            for (name, ms) in bound.longest.iter().filter(|(_, ms)| *ms > 0) {
                let _ = writeln!(out, "    {:>9} s    {name}", seconds(*ms));
            }
        }
        out
    }

    /// A picture as one HTML file without references: a row a host, the slowest first where there
    /// are many.
    #[must_use]
    pub fn html(&self) -> String {
        const LEFT: u64 = 180;
        const WIDTH: u64 = 1000;
        const ROW: usize = 18;
        let mut rows: Vec<(&String, &Vec<Span>)> = self.hosts.iter().collect();
        let busy = |spans: &[Span]| spans.iter().map(Span::len_us).sum::<u64>();
        if rows.len() > ROWS_MAX {
            rows.sort_by_key(|(_, spans)| std::cmp::Reverse(busy(spans)));
            rows.truncate(ROWS_MAX);
        }
        let at = |us: u64| LEFT + us * WIDTH / self.total_us.max(1);
        let height = (rows.len() + 2) * ROW;
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>kprov {0} {1}</title>\n\
             <style>body{{font:13px sans-serif;margin:1em}}text{{font:11px sans-serif}}\
             pre{{background:#f5f5f5;padding:1em}}</style>\n\
             <h1>kprov {0}: {1}</h1>\n<p>{2}, {3} s, {4} of {5} hosts</p>\n\
             <svg width=\"{6}\" height=\"{height}\">\n",
            escaped(&self.command),
            escaped(&self.cluster),
            escaped(&self.began),
            seconds(self.total_us / 1000),
            rows.len(),
            self.hosts.len(),
            LEFT + WIDTH + 10,
        );
        let mut row = |y: usize, name: &str, spans: &[Span]| {
            let _ = writeln!(out, "<text x=\"4\" y=\"{}\">{}</text>", y + 12, escaped(name));
            for span in spans {
                let (x, end) = (at(span.begin_us), at(span.end_us));
                let _ = writeln!(
                    out,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"14\" fill=\"{}\">\
                     <title>{}: {} s</title></rect>",
                    end.saturating_sub(x).max(1),
                    span.kind.color(),
                    escaped(&span.name),
                    seconds(span.len_us() / 1000)
                );
            }
        };
        row(ROW, "phases", &self.phases);
        for (number, (host, spans)) in rows.iter().enumerate() {
            row((number + 2) * ROW, host, spans);
        }
        let kinds = [
            (SpanKind::Connect, "connect"),
            (SpanKind::Send, "send"),
            (SpanKind::Step, "step"),
            (SpanKind::Gate, "health"),
            (SpanKind::Hook, "hook"),
        ];
        out.push_str("</svg>\n<p>");
        for (kind, name) in kinds {
            let color = kind.color();
            let _ = write!(out, "<span style=\"background:{color}\">&nbsp;{name}&nbsp;</span> ");
        }
        let _ = write!(out, "</p>\n<pre>{}</pre>\n</html>\n", escaped(&self.text()));
        out
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, kind: SpanKind, begin_ms: u64, end_ms: u64) -> Span {
        let name = name.to_owned();
        Span { name, kind, begin_us: begin_ms * 1000, end_us: end_ms * 1000 }
    }

    fn trace() -> Trace {
        let a = vec![
            span("send", SpanKind::Send, 0, 400),
            span("start <etcd>", SpanKind::Step, 500, 1900),
        ];
        let b = vec![span("send", SpanKind::Send, 0, 500), span("x", SpanKind::Step, 500, 600)];
        Trace {
            format: FORMAT,
            cluster: "lab".to_owned(),
            command: "apply".to_owned(),
            began: "2026-01-01T00:00:00Z".to_owned(),
            total_us: 2_000_000,
            phases: vec![
                span("send", SpanKind::Phase, 0, 500),
                span("etcd on 2 hosts", SpanKind::Phase, 500, 2000),
            ],
            hosts: [("a".to_owned(), a), ("b".to_owned(), b)].into(),
        }
    }

    #[test]
    fn each_phase_names_the_host_that_it_waited_for() {
        insta::assert_snapshot!(trace().text(), @r"
        apply of lab at 2026-01-01T00:00:00Z: 2.000 s
              0.500 s  send, waiting for b
                0.500 s    send
        >     1.500 s  etcd on 2 hosts, waiting for a
                1.400 s    start <etcd>
        ");
    }

    #[test]
    fn the_picture_is_whole_in_itself_and_escapes_names() {
        let html = trace().html();
        assert_eq!(html.matches("<rect").count(), 6);
        assert!(html.contains("start &lt;etcd&gt;: 1.400 s"), "{html}");
        assert!(!html.contains("http") && !html.contains("<script"), "{html}");
        // Very many hosts are cut to the slowest.
        let mut many = trace();
        for number in 0..1000 {
            let spans = vec![span("s", SpanKind::Step, 0, number)];
            many.hosts.insert(format!("h{number}"), spans);
        }
        let html = many.html();
        assert!(html.contains("200 of 1002 hosts") && html.contains(">h999<"));
        assert!(!html.contains(">h1<"));
    }
}
