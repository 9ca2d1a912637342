//! [`Timeline`]: what happened in a run, one line each, for people.

mod concern;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use api::{Key, Kind, Object, Request};
use machine::WatchEvent;

use crate::check::{Occurrence, Violation};
use crate::world::{ProcessId, START, World};

/// Lines that are kept; older ones are forgotten.
const LINES_MAX: usize = 200_000;

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    lines: VecDeque<Line>,
    /// Lines that were forgotten.
    dropped: u64,
    /// Who owned what, as it was written last: of what there is, and of what is gone as long as a
    /// line may tell of it.
    owners: BTreeMap<Key, Owners>,
    /// What had owners and is gone, in order, with how many lines there had been.
    gone: VecDeque<(u64, Key)>,
}

/// Who owns an object.
#[derive(Clone, Debug)]
struct Owners {
    of: Vec<Key>,
    /// How many lines there had been when it was gone, if it is.
    gone_after: Option<u64>,
}

/// A line and what it is about.
#[derive(Clone, Debug)]
struct Line {
    text: String,
    about: About,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    /// An object that was written.
    Object(Key),
    /// A list of a kind, by a component.
    List(Kind),
    /// A process that started or died.
    Process,
    /// What somebody was refused.
    Refusal,
    /// The world as a whole: faults, and what was found.
    World,
}

impl Timeline {
    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.text.as_str())
    }

    /// How many lines were forgotten.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notes what has just happened. Heartbeats are left out.
    pub fn observe(&mut self, world: &World, occurrence: &Occurrence<'_>) {
        if let Some((text, about)) = told(world, occurrence) {
            self.add(world.elapsed().as_secs_f64(), &text, about);
        }
        if let Occurrence::Committed { key, new, .. } = occurrence {
            self.owned(key, new.map(concern::owners));
        }
    }

    /// Notes who owns an object, or that it is gone.
    fn owned(&mut self, key: &Key, owners: Option<Vec<Key>>) {
        match owners {
            Some(of) if of.is_empty() => {}
            Some(of) => {
                self.owners.insert(key.clone(), Owners { of, gone_after: None });
            }
            None => {
                let lines = self.dropped + self.lines.len() as u64;
                if let Some(owners) = self.owners.get_mut(key) {
                    owners.gone_after = Some(lines);
                    self.gone.push_back((lines, key.clone()));
                }
            }
        }
    }

    /// Forgets the owners of what went before the first line that is left.
    fn forget_gone(&mut self) {
        while let Some((lines, key)) = self.gone.pop_front_if(|(lines, _)| *lines <= self.dropped) {
            // Another one of its name may have come.
            if self.owners.get(&key).is_some_and(|owners| owners.gone_after == Some(lines)) {
                self.owners.remove(&key);
            }
        }
    }

    /// Notes a violation.
    pub fn violated(&mut self, violation: &Violation) {
        let at = violation.at.since(START).as_secs_f64();
        let text = format!("VIOLATION of {}: {}", violation.property, violation.message);
        self.add(at, &text, About::World);
    }

    fn add(&mut self, at: f64, text: &str, about: About) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
            self.forget_gone();
        }
        self.lines.push_back(Line { text: format!("{at:>12.6}  {text}"), about });
    }
}

fn who(world: &World, process: Option<ProcessId>) -> String {
    process.map_or_else(|| "user".to_owned(), |p| world.component(p).to_string())
}

fn told(world: &World, occurrence: &Occurrence<'_>) -> Option<(String, About)> {
    Some(match occurrence {
        Occurrence::Committed { by, request, key, old, new, revision } => {
            if matches!(key.kind, Kind::Lease | Kind::Event) {
                return None;
            }
            let verb = match (old, new) {
                (None, _) => "creates",
                (_, None) => "removes",
                _ => verb(request),
            };
            let mut line = format!("{:<24} {verb} {key} @{revision}", who(world, *by));
            if let Some(detail) = new.and_then(detail) {
                let _ = write!(line, " {detail}");
            }
            (line, About::Object((*key).clone()))
        }
        Occurrence::EvictionGranted { pod } => {
            (format!("{:<24} may evict {pod}", "user"), About::Object((*pod).clone()))
        }
        Occurrence::Answered { by, request, refusal } => {
            let Some(status) = refusal else { return None };
            if request.writes() == Some(Kind::Lease) {
                return None;
            }
            let line = format!("{:<24} is refused: {}", who(world, *by), status.message);
            (line, About::Refusal)
        }
        Occurrence::Delivered { to, event } => match event {
            WatchEvent::Replaced { kind, objects, revision } => {
                let (who, count) = (who(world, Some(*to)), objects.len());
                let line = format!("{who:<24} lists {count} {} @{revision}", kind.plural());
                (line, About::List(*kind))
            }
            _ => return None,
        },
        Occurrence::Started(process) => {
            (format!("{:<24} starts", who(world, Some(*process))), About::Process)
        }
        Occurrence::Crashed(process) => {
            (format!("{:<24} dies", who(world, Some(*process))), About::Process)
        }
        Occurrence::FaultBegan(fault) => (format!("fault begins: {fault:?}"), About::World),
        Occurrence::FaultEnded(fault) => (format!("fault ends: {fault:?}"), About::World),
        Occurrence::Healed => ("all faults are healed".to_owned(), About::World),
        Occurrence::Called { .. } | Occurrence::Recorded { .. } => return None,
    })
}

fn verb(request: &Request) -> &'static str {
    match request {
        Request::Create(_) => "creates",
        Request::Update { .. } => "updates",
        Request::Patch { .. } => "patches",
        Request::Delete { .. } => "deletes",
        Request::Bind { .. } => "binds",
        Request::Get(_)
        | Request::List { .. }
        | Request::ReadRevision(_)
        | Request::Sign(_)
        | Request::Extend { .. } => "touches",
    }
}

/// What matters of an object.
fn detail(object: &Object) -> Option<String> {
    match object {
        Object::Pod(pod) => {
            let node = pod.node_name.as_deref().unwrap_or("no node");
            let status = pod.status.as_ref();
            let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("?");
            let ready = status
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
            let ending = if pod.metadata.deletion_timestamp.is_some() { ", ending" } else { "" };
            let ready = if ready { ", ready" } else { "" };
            let why = status.and_then(|s| s.message.as_deref().or(s.reason.as_deref()));
            let why = why.map(|w| format!(": {w}")).unwrap_or_default();
            Some(format!("({phase}{ready}{ending} on {node}{why})"))
        }
        Object::ReplicaSet(set) => {
            let wanted = set.spec.as_ref()?.replicas.unwrap_or(1);
            let has = set.status.as_ref().map_or(0, |s| s.replicas);
            Some(format!("({has} of {wanted} replicas)"))
        }
        Object::Deployment(deployment) => {
            let wanted = deployment.spec.as_ref()?.replicas.unwrap_or(1);
            let status = deployment.status.as_ref();
            let available = status.and_then(|s| s.available_replicas).unwrap_or(0);
            Some(format!("({available} of {wanted} available)"))
        }
        Object::StatefulSet(set) => {
            let wanted = set.spec.as_ref()?.replicas.unwrap_or(1);
            let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
            Some(format!("({ready} of {wanted} ready)"))
        }
        Object::DaemonSet(set) => {
            let status = set.status.as_ref()?;
            let (ready, wanted) = (status.number_ready, status.desired_number_scheduled);
            Some(format!("({ready} of {wanted} ready)"))
        }
        Object::Job(job) => {
            let status = job.status.as_ref()?;
            let number = |n: Option<i32>| n.unwrap_or(0);
            let (active, succeeded) = (number(status.active), number(status.succeeded));
            let failed = number(status.failed);
            Some(format!("({active} active, {succeeded} succeeded, {failed} failed)"))
        }
        Object::PodDisruptionBudget(budget) => {
            let status = budget.status.as_ref()?;
            let (healthy, desired) = (status.current_healthy, status.desired_healthy);
            let allowed = status.disruptions_allowed;
            Some(format!("({healthy} of {desired} healthy, {allowed} may go)"))
        }
        Object::Node(node) => {
            let ready = node.status.as_ref()?.conditions.as_ref()?;
            let ready = ready.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
            Some(format!("(ready {})", ready.unwrap_or("?")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timeline in which so many more lines are told.
    fn go_on(timeline: &mut Timeline, lines: usize) {
        (0..lines).for_each(|_| timeline.add(0.0, "", About::World));
    }

    #[test]
    fn owners_are_forgotten_with_the_last_line_about_what_is_gone() {
        let key = |name: &str| Key::new(Kind::Pod, "default", name);
        let owners = || Some(vec![Key::new(Kind::ReplicaSet, "default", "web")]);
        let mut timeline = Timeline::default();
        for name in ["stays", "goes", "comes-back"] {
            timeline.owned(&key(name), owners());
        }
        go_on(&mut timeline, 3);
        timeline.owned(&key("goes"), None);
        timeline.owned(&key("comes-back"), None);
        timeline.owned(&key("comes-back"), owners());
        timeline.owned(&key("had-none"), None);
        go_on(&mut timeline, LINES_MAX - 1);
        assert_eq!((timeline.dropped(), timeline.owners.len()), (2, 3));
        go_on(&mut timeline, 1);
        let left: Vec<&str> = timeline.owners.keys().map(|key| &*key.name).collect();
        assert_eq!((left, timeline.gone.len()), (vec!["comes-back", "stays"], 0));
        // It goes again.
        timeline.owned(&key("comes-back"), None);
        go_on(&mut timeline, LINES_MAX);
        assert_eq!((timeline.owners.len(), timeline.gone.len()), (1, 0));
    }
}
