//! One container, small: a node may have hundreds and a simulation millions.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use api::Time;
use kubelet::naming;
use kubelet::runtime::ContainerState;

use super::behaviour::Behaviour;

/// Labels that the kubelet gives to containers: each is stored as its place in this list.
const KEYS: [&str; 10] = [
    naming::OWNER,
    naming::POD_NAME,
    naming::POD_NAMESPACE,
    naming::POD_UID,
    naming::CONTAINER_NAME,
    naming::RESTART_COUNT,
    naming::CONTAINER_HASH,
    naming::SANDBOX_ID,
    naming::TERMINATION_MESSAGE_PATH,
    naming::TERMINATION_GRACE,
];
/// Stands before a label whose key is written out.
const OTHER: char = '\u{1f}';
/// Ends keys and values; no label has it.
const END: char = '\0';

/// A container as the runtime keeps it.
#[derive(Clone)]
pub(super) struct Container {
    pub(super) number: u32,
    pub(super) image: u32,
    /// IPv4 address; zero when it shares another's.
    pub(super) ip: u32,
    pub(super) exit_code: i32,
    pub(super) state: ContainerState,
    pub(super) oom_killed: bool,
    /// All labels, packed.
    pub(super) labels: Box<str>,
    /// `None`: it runs until it is stopped.
    pub(super) behaviour: Option<Box<Behaviour>>,
    pub(super) created_at: Time,
    pub(super) started_at: Time,
    pub(super) finished_at: Time,
}

/// A container, for those who check what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerSummary<'a> {
    /// UID of its pod.
    pub pod_uid: &'a str,
    /// Its name in the pod; [`naming::SANDBOX`] for the pause container.
    pub container: &'a str,
    /// Whether it runs.
    pub state: ContainerState,
    /// When it was started; the epoch if never.
    pub started_at: Time,
}

impl Container {
    pub(super) fn new(
        number: u32,
        labels: Box<str>,
        image: u32,
        ip: u32,
        behaviour: Option<Box<Behaviour>>,
        now: Time,
    ) -> Self {
        Self {
            number,
            image,
            ip,
            exit_code: 0,
            state: ContainerState::Created,
            oom_killed: false,
            labels,
            behaviour,
            created_at: now,
            started_at: Time::ZERO,
            finished_at: Time::ZERO,
        }
    }

    pub(super) fn holds_address(&self) -> bool {
        self.ip != 0 && self.state != ContainerState::Exited
    }

    /// The address while it has one.
    pub(super) fn address(&self) -> String {
        if self.ip != 0 && self.state == ContainerState::Running {
            Ipv4Addr::from(self.ip).to_string()
        } else {
            String::new()
        }
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        unpack(&self.labels).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    pub(super) fn summary(&self) -> ContainerSummary<'_> {
        let label = |key: &str| unpack(&self.labels).find(|l| l.0 == key).map_or("", |l| l.1);
        ContainerSummary {
            pod_uid: label(naming::POD_UID),
            container: label(naming::CONTAINER_NAME),
            state: self.state,
            started_at: self.started_at,
        }
    }
}

/// All labels in one text.
pub(super) fn pack(labels: &BTreeMap<String, String>) -> Box<str> {
    let mut text = String::new();
    for (key, value) in labels {
        match KEYS.iter().zip('\u{1}'..).find(|(known, _)| *known == key) {
            Some((_, place)) => text.push(place),
            None => {
                text.push(OTHER);
                text.push_str(key);
                text.push(END);
            }
        }
        text.push_str(value);
        text.push(END);
    }
    text.into_boxed_str()
}

fn unpack(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = text.split_terminator(END);
    std::iter::from_fn(move || {
        let part = parts.next()?;
        let place = part.chars().next()?;
        let rest = &part[place.len_utf8()..];
        if place == OTHER {
            return Some((rest, parts.next()?));
        }
        KEYS.iter().zip('\u{1}'..).find(|(_, p)| *p == place).map(|(key, _)| (*key, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_packing() {
        let mut labels: BTreeMap<String, String> =
            KEYS.iter().map(|k| ((*k).to_owned(), format!("value of {k}"))).collect();
        labels.insert("other.example/key".to_owned(), "äöü".to_owned());
        labels.insert(naming::RESTART_COUNT.to_owned(), String::new());
        let text = pack(&labels);
        let back: BTreeMap<String, String> =
            unpack(&text).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(back, labels);
        assert!(text.len() < 400, "{}", text.len());
    }
}
