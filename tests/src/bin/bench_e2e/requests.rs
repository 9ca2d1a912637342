//! What the API server was asked, by its own metrics.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::Client;
use http::Method;

/// Answers by verb and resource (with a subresource), and code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests(BTreeMap<(String, u16), u64>);

impl Requests {
    /// All since the start of the server.
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let answer = client.call(Method::GET, "/metrics", "", Bytes::new()).await;
        let (code, body) = answer.context("cannot read the metrics of the API server")?;
        ensure!(code == 200, "the metrics of the API server: code {code}");
        Ok(Self::parse(&String::from_utf8_lossy(&body)))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|l| l.strip_prefix("apiserver_request_total{"));
        Self(lines.filter_map(line).collect())
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let grown = self
            .0
            .iter()
            .map(|(k, n)| (k.clone(), n - before.0.get(k).copied().unwrap_or_default().min(*n)));
        Self(grown.filter(|(_, n)| *n > 0).collect())
    }

    /// How many of them were answered with success.
    pub(crate) fn succeeded(&self, what: &str) -> u64 {
        let same = self.0.iter().filter(|((name, code), _)| name == what && *code < 300);
        same.map(|(_, n)| n).sum()
    }

    /// Each with its number, the most frequent first.
    pub(crate) fn lines(&self) -> Vec<(String, u64)> {
        let mut lines: Vec<(String, u64)> = self
            .0
            .iter()
            .map(|((name, code), n)| {
                (if *code < 300 { name.clone() } else { format!("{name} ({code})") }, *n)
            })
            .collect();
        lines.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        lines
    }
}

/// A line of the metric behind its opening brace.
fn line(text: &str) -> Option<((String, u16), u64)> {
    let (labels, count) = text.split_once("} ")?;
    let labels: BTreeMap<&str, &str> = labels
        .split(',')
        .filter_map(|l| Some((l.split_once('=')?.0, l.split_once('=')?.1.trim_matches('"'))))
        .collect();
    let mut name = format!("{} {}", labels.get("verb")?, labels.get("resource")?);
    if let Some(subresource) = labels.get("subresource").filter(|s| !s.is_empty()) {
        name.push('/');
        name.push_str(subresource);
    }
    Some(((name, labels.get("code")?.parse().ok()?), count.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_compared() {
        let text = |creates: u64| {
            format!(
                "# TYPE apiserver_request_total counter\n\
                 apiserver_request_total{{verb=\"create\",resource=\"pods\",\
                 subresource=\"binding\",code=\"201\"}} {creates}\n\
                 apiserver_request_total{{verb=\"get\",resource=\"pods\",\
                 subresource=\"\",code=\"404\"}} 3\n\
                 apiserver_storage_revision 77\n"
            )
        };
        let (before, after) = (Requests::parse(&text(5)), Requests::parse(&text(12)));
        let grown = after.since(&before);
        assert_eq!(grown.lines(), [("create pods/binding".to_owned(), 7)]);
        assert_eq!((grown.succeeded("create pods/binding"), grown.succeeded("get pods")), (7, 0));
        let all = after.lines();
        assert_eq!(all[1], ("get pods (404)".to_owned(), 3));
    }
}
