//! What kubelets count, and what two counts tell.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Time;
use serde::Deserialize;
use tokio::time::Instant;

/// Something that counts the CPU time that it used, and the memory that it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    cpu_ns: u64,
    memory: u64,
}

/// What something uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) nano_cores: u64,
    /// In bytes.
    pub(super) memory: u64,
}

/// The counts of a node and of its pods.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) taken: Instant,
    at: Time,
    node: Count,
    /// Containers by the UID of their pod and their name.
    pods: BTreeMap<String, BTreeMap<String, Count>>,
}

/// What a node and its pods use.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rates {
    /// The end of the span.
    pub(super) at: Time,
    span: Duration,
    pub(super) node: Used,
    /// Containers by the UID of their pod and their name, of pods all of which is known.
    pub(super) pods: BTreeMap<String, BTreeMap<String, Used>>,
}

#[derive(Deserialize)]
struct Summary {
    node: Part,
    #[serde(default)]
    pods: Vec<PodPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodPart {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<Part>,
}

#[derive(Deserialize)]
struct PodRef {
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    name: String,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

impl Part {
    fn count(&self) -> Option<Count> {
        let cpu_ns = self.cpu.as_ref()?.usage_core_nano_seconds?;
        let memory = self.memory.as_ref()?.working_set_bytes?;
        Some(Count { cpu_ns, memory })
    }
}

impl Counts {
    /// Reads the summary of a kubelet.
    pub(super) fn parse(json: &[u8], taken: Instant, at: Time) -> Result<Self, serde_json::Error> {
        let summary: Summary = serde_json::from_slice(json)?;
        let pods = summary.pods.iter().filter_map(|pod| {
            let all: Option<BTreeMap<String, Count>> =
                pod.containers.iter().map(|c| Some((c.name.clone(), c.count()?))).collect();
            Some((pod.pod_ref.uid.clone(), all.filter(|all| !all.is_empty())?))
        });
        let node = summary.node.count().unwrap_or_default();
        Ok(Self { taken, at, node, pods: pods.collect() })
    }

    /// What was used between the count before and this one.
    pub(super) fn since(&self, before: Option<&Self>) -> Rates {
        let span = before.map_or(Duration::ZERO, |b| self.taken.duration_since(b.taken));
        let rate = |now: Count, before: Count| {
            // A counter that starts anew says nothing of the time before.
            let used = u128::from(now.cpu_ns.checked_sub(before.cpu_ns)?);
            let nano_cores = (used * 1_000_000_000).checked_div(span.as_nanos())?;
            let nano_cores = u64::try_from(nano_cores).ok()?;
            Some(Used { nano_cores, memory: now.memory })
        };
        let pods = self.pods.iter().filter_map(|(uid, now)| {
            let before = before?.pods.get(uid)?;
            let all: Option<BTreeMap<String, Used>> = now
                .iter()
                .map(|(name, count)| Some((name.clone(), rate(*count, *before.get(name)?)?)))
                .collect();
            Some((uid.clone(), all?))
        });
        let node = before.and_then(|b| rate(self.node, b.node));
        Rates { at: self.at, span, node: node.unwrap_or_default(), pods: pods.collect() }
    }
}

impl Rates {
    /// The span as Go writes it: `15.2s`, `1m0.5s`.
    pub(super) fn window(&self) -> String {
        let (minutes, secs) = (self.span.as_secs() / 60, self.span.as_secs() % 60);
        let minutes = if minutes > 0 { format!("{minutes}m") } else { String::new() };
        let fraction = format!("{:03}", self.span.subsec_millis());
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{minutes}{secs}{dot}{fraction}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(cpu_ns: u64, containers: &str) -> Vec<u8> {
        let part = |name: &str| {
            format!(
                r#"{{"name":"{name}","cpu":{{"time":"t","usageCoreNanoSeconds":{cpu_ns}}},
                "memory":{{"workingSetBytes":7}}}}"#
            )
        };
        let all: Vec<String> = containers.split_whitespace().map(part).collect();
        format!(
            r#"{{"node":{},"pods":[{{"podRef":{{"name":"p","namespace":"n","uid":"u"}},
            "containers":[{}]}}]}}"#,
            part(""),
            all.join(",")
        )
        .into_bytes()
    }

    #[test]
    fn two_counts_make_a_rate() {
        let start = Instant::now();
        let count = |cpu_ns: u64, containers: &str, ms: u64| {
            let at = start + Duration::from_millis(ms);
            Counts::parse(&summary(cpu_ns, containers), at, Time::from_secs(9)).unwrap()
        };
        let before = count(1_000_000_000, "a", 0);
        let rates = count(2_000_000_000, "a", 2_500).since(Some(&before));
        let used = Used { nano_cores: 400_000_000, memory: 7 };
        assert_eq!((rates.node, rates.pods["u"]["a"]), (used, used));
        assert_eq!((rates.at, rates.window().as_str()), (Time::from_secs(9), "2.5s"));
        // A pod of which one container is new or has started anew is not known.
        assert_eq!(count(2_000_000_000, "a b", 2_500).since(Some(&before)).pods, BTreeMap::new());
        assert_eq!(count(5, "a", 2_500).since(Some(&before)).pods, BTreeMap::new());
        // Two counts at once tell nothing, and neither does one.
        assert_eq!(count(2_000_000_000, "a", 0).since(Some(&before)).pods, BTreeMap::new());
        assert_eq!(before.since(None).pods, BTreeMap::new());
        assert!(Counts::parse(b"[]", start, Time::ZERO).is_err());
    }

    #[test]
    fn windows_are_written_as_go_writes_them() {
        let check = |ms: u64, text: &str| {
            let span = Duration::from_millis(ms);
            let rates =
                Rates { at: Time::ZERO, span, node: Used::default(), pods: BTreeMap::new() };
            assert_eq!(rates.window(), text);
        };
        check(15_000, "15s");
        check(15_020, "15.02s");
        check(60_500, "1m0.5s");
        check(0, "0s");
    }
}
