//! [`Watcher`]: looks at the scheduler from outside: metrics, differences between its decisions
//! and the reference's, and explanations for whoever asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use api::{Key, Kind};
use client::{Clock, Observe};
use http::StatusCode;
use machine::Recorded;
use scheduler::Scheduler;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::leader_metric;
use crate::health_server::{Asked, Health, JSON, Page};

/// Where explanations are served.
const EXPLAIN: &str = "/debug/explain";
/// Questions that wait; more are turned away.
const QUESTIONS_MAX: usize = 4;
/// Nodes of either kind that an explanation lists; the others are counted.
const NODES_MAX: usize = 50;
/// For each second that explanations take, so many go to decisions.
const REST: u32 = 4;

struct Question {
    pod: Key,
    json: bool,
    reply: oneshot::Sender<Page>,
}

/// What the scheduler's endpoint tells.
pub(super) struct Vitals {
    lease: String,
    leads: AtomicBool,
    pending: AtomicUsize,
    compares: bool,
    compared: AtomicU64,
    different: AtomicU64,
    questions: mpsc::Sender<Question>,
}

/// Looks at the scheduler for [`Vitals`].
pub(super) struct Watcher {
    vitals: Arc<Vitals>,
    clock: Clock,
    questions: mpsc::Receiver<Question>,
    question: Option<Question>,
    /// No explanation before this.
    rests_until: Instant,
    /// Differences that were logged.
    logged: usize,
}

/// Makes both ends; `compares` tells whether decisions are compared.
pub(super) fn pair(lease: &str, compares: bool) -> (Arc<Vitals>, Watcher) {
    let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
    let vitals = Arc::new(Vitals {
        lease: lease.to_owned(),
        leads: AtomicBool::new(false),
        pending: AtomicUsize::new(0),
        compares,
        compared: AtomicU64::new(0),
        different: AtomicU64::new(0),
        questions: sender,
    });
    let watcher = Watcher {
        vitals: Arc::clone(&vitals),
        clock: Clock::new(),
        questions,
        question: None,
        rests_until: Instant::now(),
        logged: 0,
    };
    (vitals, watcher)
}

impl Health for Vitals {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> String {
        let mut text = leader_metric(&self.lease, self.leads.load(Ordering::Relaxed));
        let mut add = |name: &str, kind: &str, value: u64| {
            text.push_str(&format!("# TYPE {name} {kind}\n{name} {value}\n"));
        };
        let pending = self.pending.load(Ordering::Relaxed);
        add("scheduler_pending_pods", "gauge", u64::try_from(pending).unwrap_or(u64::MAX));
        if self.compares {
            let (compared, different) =
                (self.compared.load(Ordering::Relaxed), self.different.load(Ordering::Relaxed));
            add("kprov_scheduler_compared_decisions_total", "counter", compared);
            add("kprov_scheduler_different_decisions_total", "counter", different);
        }
        text
    }

    fn ask(&self, path: &str, query: &str) -> Option<Asked> {
        if path != EXPLAIN {
            return None;
        }
        Some(parse(query).and_then(|(pod, json)| {
            let (reply, later) = oneshot::channel();
            let busy = "too many questions at a time: ask again";
            self.questions
                .try_send(Question { pod, json, reply })
                .map_err(|_| Page::plain(StatusCode::SERVICE_UNAVAILABLE, busy))?;
            Ok(later)
        }))
    }
}

/// The pod that is asked about, and whether the answer shall be JSON.
fn parse(query: &str) -> Result<(Key, bool), Page> {
    let usage = || {
        let text = format!("ask with {EXPLAIN}?pod=NAMESPACE/NAME[&output=text|json]\n");
        Page::plain(StatusCode::BAD_REQUEST, text)
    };
    let (mut pod, mut json) = (None, false);
    for field in query.split('&').filter(|field| !field.is_empty()) {
        match field.split_once('=') {
            Some(("pod", name)) => pod = Some(name.replace("%2F", "/").replace("%2f", "/")),
            Some(("output", "json")) => json = true,
            Some(("output", "text")) => json = false,
            _ => return Err(usage()),
        }
    }
    let pod = pod.ok_or_else(usage)?;
    let (namespace, name) = pod.split_once('/').ok_or_else(usage)?;
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(usage());
    }
    Ok((Key::new(Kind::Pod, namespace, name), json))
}

impl Watcher {
    fn tell_differences(&mut self, scheduler: &Scheduler) {
        let Some(shadow) = scheduler.shadow() else { return };
        self.vitals.compared.store(shadow.compared(), Ordering::Relaxed);
        self.vitals.different.store(shadow.different(), Ordering::Relaxed);
        for difference in shadow.differences().iter().skip(self.logged) {
            tracing::error!(
                pod = %difference.pod.path(),
                at = %difference.time,
                "a decision differs from the reference's: {difference}"
            );
            self.logged += 1;
        }
    }

    fn explain(&mut self, scheduler: &Scheduler, now: api::Time) {
        if self.question.is_none() {
            self.question = self.questions.try_recv().ok();
        }
        let begin = Instant::now();
        if begin < self.rests_until {
            return;
        }
        let Some(Question { pod, json, reply }) = self.question.take() else { return };
        // Whoever asked may have gone away.
        if !reply.is_closed() {
            let _ = reply.send(page(scheduler, &pod, json, scheduler.is_leader(now)));
        }
        self.rests_until = Instant::now() + rest(begin.elapsed());
    }
}

const fn rest(took: Duration) -> Duration {
    took.saturating_mul(REST)
}

fn page(scheduler: &Scheduler, pod: &Key, json: bool, leads: bool) -> Page {
    let mut explanation = match scheduler.explain(pod) {
        Ok(explanation) => explanation,
        Err(why) => return Page::plain(StatusCode::NOT_FOUND, format!("{}: {why}\n", pod.path())),
    };
    explanation.shorten(NODES_MAX);
    if json {
        let value = serde_json::json!({"leads": leads, "explanation": explanation});
        return Page { code: StatusCode::OK, kind: JSON, text: format!("{value}\n") };
    }
    let mut text = explanation.to_text(&explanation.headline(), NODES_MAX);
    if !leads {
        text.push_str("\nThis scheduler does not lead: another one decides.\n");
    }
    Page::plain(StatusCode::OK, text)
}

impl Observe<Recorded<Scheduler>> for Watcher {
    fn observe(&mut self, scheduler: &Recorded<Scheduler>) {
        let scheduler = scheduler.machine();
        let now = self.clock.now();
        self.vitals.leads.store(scheduler.is_leader(now), Ordering::Relaxed);
        self.vitals.pending.store(scheduler.pending(), Ordering::Relaxed);
        self.tell_differences(scheduler);
        self.explain(scheduler, now);
    }

    async fn wanted(&mut self) {
        if self.question.is_none() {
            self.question = self.questions.recv().await;
        }
        if self.question.is_none() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(self.rests_until).await;
    }
}

#[cfg(test)]
mod tests;
