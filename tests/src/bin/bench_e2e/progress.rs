//! [`Progress`]: how far pods are, by one watch of them that decodes next to nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use client::Client;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

/// No event for this long means that nothing more happens.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    #[serde(borrow)]
    object: Seen<'a>,
}

#[derive(Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(default)]
    name: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(default)]
    node_name: &'a str,
}

#[derive(Default, Deserialize)]
struct Status<'a> {
    #[serde(default)]
    phase: &'a str,
}

/// When the last of so many pods came so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Milestones {
    /// Created.
    pub(crate) created: Instant,
    /// Bound to a node.
    pub(crate) bound: Instant,
    /// Reported to run.
    pub(crate) running: Instant,
}

/// A watch of the pods of a namespace.
pub(crate) struct Progress {
    body: Incoming,
    buffer: BytesMut,
    counts: Counts,
}

/// What is known of pods, and how many are how far.
#[derive(Default)]
struct Counts {
    /// Created 0, bound 1, running 2.
    stages: HashMap<String, usize>,
    reached: [usize; 3],
}

impl Counts {
    /// Takes a line of the watch.
    fn take(&mut self, line: &[u8]) -> Result<()> {
        let event: Event<'_> = serde_json::from_slice(line).context("an event of the watch")?;
        let Event { type_, object: Seen { metadata, spec, status } } = event;
        match type_ {
            "ADDED" | "MODIFIED" => {}
            "BOOKMARK" => return Ok(()),
            other => bail!("the watch says {other}"),
        }
        let stage = match (status.phase, spec.node_name) {
            ("Running", _) => 2,
            (_, "") => 0,
            _ => 1,
        };
        let known = self.stages.get_mut(metadata.name);
        let from = known.as_ref().map_or(0, |s| **s + 1);
        (from..=stage).for_each(|s| self.reached[s] += 1);
        match known {
            Some(known) => *known = stage.max(*known),
            None => {
                self.stages.insert(metadata.name.to_owned(), stage);
            }
        }
        Ok(())
    }
}

impl Progress {
    /// Watches the pods of `namespace` from now on; there are none yet.
    pub(crate) async fn watch(client: &Client, namespace: &str) -> Result<Self> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?watch=true&timeoutSeconds=3600");
        let answer = client.send(Method::GET, &path, "", "application/json", Bytes::new()).await?;
        ensure!(answer.status() == 200, "the watch was answered with {}", answer.status());
        let (buffer, counts) = (BytesMut::new(), Counts::default());
        Ok(Self { body: answer.into_body(), buffer, counts })
    }

    /// Reads on until so many pods run.
    pub(crate) async fn until_running(&mut self, pods: usize) -> Result<Milestones> {
        let mut at = [None; 3];
        while at[2].is_none() {
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            let Ok(frame) = frame else {
                let [created, bound, running] = self.counts.reached;
                bail!(
                    "nothing more happens: of {pods} pods {created} were created, {bound} bound, \
                     {running} run"
                );
            };
            let frame = frame.context("the watch ended")?.context("the watch broke")?;
            let Ok(data) = frame.into_data() else { continue };
            self.buffer.extend_from_slice(&data);
            while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                self.counts.take(&self.buffer.split_to(end + 1))?;
            }
            let now = Instant::now();
            for (at, reached) in at.iter_mut().zip(self.counts.reached) {
                if reached >= pods {
                    at.get_or_insert(now);
                }
            }
        }
        let [Some(created), Some(bound), Some(running)] = at else {
            bail!("pods run that were never created");
        };
        Ok(Milestones { created, bound, running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_counts_once_a_stage() {
        let mut counts = Counts::default();
        let mut take = |type_: &str, name: &str, node: &str, phase: &str| {
            let line = format!(
                r#"{{"type":"{type_}","object":{{"metadata":{{"name":"{name}"}},
                "spec":{{"nodeName":"{node}","x":[1]}},"status":{{"phase":"{phase}"}}}}}}"#
            );
            counts.take(line.as_bytes()).map(|()| counts.reached)
        };
        assert_eq!(take("ADDED", "a", "", "Pending").unwrap(), [1, 0, 0]);
        assert_eq!(take("MODIFIED", "a", "", "Pending").unwrap(), [1, 0, 0]);
        assert_eq!(take("MODIFIED", "a", "n", "Pending").unwrap(), [1, 1, 0]);
        assert_eq!(take("MODIFIED", "a", "n", "Running").unwrap(), [1, 1, 1]);
        assert_eq!(take("MODIFIED", "a", "n", "Running").unwrap(), [1, 1, 1]);
        assert_eq!(take("ADDED", "b", "n", "Running").unwrap(), [2, 2, 2]);
        assert!(take("DELETED", "b", "n", "Running").is_err(), "nobody deletes pods here");
    }
}
