//! Questions and orders to a member of etcd, as JSON over HTTPS.
//!
//! Source: etcd 3.4, `etcdserver/etcdserverpb/rpc.proto`; numbers of 64 bits travel as text.

use std::io::{self, Write};
use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::execute::chain;
use crate::host::{Host, HttpsEndpoint};
use crate::inventory;
use crate::pki::{LeafKind, Pki};

/// Longest wait for an answer to a question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for the end of a defragmentation, during which a member answers nothing.
const DEFRAGMENTATION: Duration = Duration::from_secs(600);
/// Port of every member's client side.
const CLIENT_PORT: u16 = 2379;
/// Port of every member's side towards the others.
const PEER_PORT: u16 = 2380;

/// Where a member listens to the others.
#[must_use]
pub fn peer_url(host: &inventory::Host) -> String {
    format!("https://{}:{PEER_PORT}", host.address)
}

/// A member that answers, through the host that it runs on.
pub struct Gateway<'a> {
    host: &'a mut dyn Host,
    endpoint: HttpsEndpoint,
}

/// A member as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberEntry {
    /// Its number.
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    #[serde(default)]
    pub name: String,
    /// Where it listens to the others.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Whether it has no vote yet.
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberStatus {
    /// The server's version.
    #[serde(default)]
    pub version: String,
    /// Bytes of its database file.
    #[serde(default, rename = "dbSize", deserialize_with = "number")]
    pub db_size: u64,
    /// Bytes of it that are in use.
    #[serde(default, rename = "dbSizeInUse", deserialize_with = "number")]
    pub db_size_in_use: u64,
    /// The leader's number; 0 when there is none.
    #[serde(default, deserialize_with = "number")]
    pub leader: u64,
    /// The last entry of its log.
    #[serde(default, rename = "raftIndex", deserialize_with = "number")]
    pub raft_index: u64,
    /// Whether it has no vote yet.
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
    /// Who answered.
    #[serde(default)]
    pub header: Header,
}

/// Who answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// The member's number.
    #[serde(default, deserialize_with = "number")]
    pub member_id: u64,
    /// The cluster's number.
    #[serde(default, deserialize_with = "number")]
    pub cluster_id: u64,
    /// The store's revision.
    #[serde(default, deserialize_with = "number")]
    pub revision: u64,
}

#[derive(Deserialize)]
struct MemberList {
    #[serde(default)]
    members: Vec<MemberEntry>,
}

#[derive(Deserialize)]
struct Kept {
    #[serde(default)]
    kvs: Vec<KeptValue>,
}

#[derive(Deserialize)]
struct KeptValue {
    /// In base64; left out when it is empty.
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Added {
    member: MemberEntry,
}

/// Why an order was not carried out, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("etcd at {endpoint} did not {act}: {reason}")]
pub struct GatewayError {
    /// Address and port.
    pub endpoint: String,
    /// What was asked for.
    pub act: &'static str,
    /// In etcd's words, or why there is no answer.
    pub reason: String,
}

impl<'a> Gateway<'a> {
    /// The member on `member`, whose connection `host` is. `None` without its certificates.
    pub fn new(host: &'a mut dyn Host, member: &inventory::Host, pki: &Pki) -> Option<Self> {
        let leaf = pki.leaf(LeafKind::EtcdHealth, &member.name)?;
        let endpoint = HttpsEndpoint {
            address: member.address.to_string(),
            port: CLIENT_PORT,
            path: String::new(),
            ca: pki.etcd_trust.clone(),
            client: Some((leaf.cert.clone(), leaf.key.clone())),
        };
        Some(Self { host, endpoint })
    }

    /// The member at an endpoint of its own.
    pub fn at(host: &'a mut dyn Host, endpoint: HttpsEndpoint) -> Self {
        Self { host, endpoint }
    }

    /// Whether the member is healthy: it has a leader and can commit.
    pub fn is_healthy(&mut self) -> bool {
        let endpoint = HttpsEndpoint { path: "/health".to_owned(), ..self.endpoint.clone() };
        self.host.get(&endpoint).is_ok_and(|answer| answer.status == 200)
    }

    /// All members, as this one knows them.
    ///
    /// # Errors
    /// When there is no good answer.
    pub fn members(&mut self) -> Result<Vec<MemberEntry>, GatewayError> {
        let answer = self.call("list its members", "/v3/cluster/member/list", &json!({}))?;
        let list: MemberList = self.read("list its members", &answer)?;
        Ok(list.members)
    }

    /// What the member says about itself.
    ///
    /// # Errors
    /// When there is no good answer.
    pub fn status(&mut self) -> Result<MemberStatus, GatewayError> {
        let answer = self.call("tell its status", "/v3/maintenance/status", &json!({}))?;
        self.read("tell its status", &answer)
    }

    /// Adds a member without a vote; gives its number.
    ///
    /// # Errors
    /// When etcd refuses it.
    pub fn add_learner(&mut self, peer_url: &str) -> Result<u64, GatewayError> {
        let body = json!({ "peerURLs": [peer_url], "isLearner": true });
        let answer = self.call("add a member", "/v3/cluster/member/add", &body)?;
        let added: Added = self.read("add a member", &answer)?;
        Ok(added.member.id)
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    /// When etcd refuses it: it does as long as the learner's log is behind.
    pub fn promote(&mut self, id: u64) -> Result<(), GatewayError> {
        let body = json!({ "ID": id.to_string() });
        self.call("promote a member", "/v3/cluster/member/promote", &body).map(drop)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// When etcd refuses it.
    pub fn remove(&mut self, id: u64) -> Result<(), GatewayError> {
        let body = json!({ "ID": id.to_string() });
        self.call("remove a member", "/v3/cluster/member/remove", &body).map(drop)
    }

    /// What the cluster keeps under `key`, as a majority of its members knows it; `None` when there
    /// is no such key.
    ///
    /// # Errors
    /// When there is no good answer.
    pub fn value(&mut self, key: &str) -> Result<Option<Vec<u8>>, GatewayError> {
        let act = "read a key";
        let answer =
            self.call(act, "/v3/kv/range", &json!({ "key": BASE64_STANDARD.encode(key) }))?;
        let kept: Kept = self.read(act, &answer)?;
        let Some(kept) = kept.kvs.into_iter().next() else { return Ok(None) };
        let value = BASE64_STANDARD.decode(kept.value);
        let value = value.map_err(|error| self.error(act, format!("no base64: {error}")))?;
        Ok(Some(value))
    }

    /// Keeps `value` under `key`.
    ///
    /// # Errors
    /// When etcd does not.
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), GatewayError> {
        let [key, value] = [key, value].map(|text| BASE64_STANDARD.encode(text));
        let body = json!({ "key": key, "value": value });
        self.call("write a key", "/v3/kv/put", &body).map(drop)
    }

    /// Gives the disk space back that deleted entries have left; the member answers nothing else
    /// meanwhile.
    ///
    /// # Errors
    /// When it fails.
    pub fn defragment(&mut self) -> Result<(), GatewayError> {
        let act = "defragment its database";
        self.call_for(act, "/v3/maintenance/defragment", &json!({}), DEFRAGMENTATION).map(drop)
    }

    /// Writes the member's database, and the digest that etcd puts behind it, to `out`; gives the
    /// number of bytes.
    ///
    /// # Errors
    /// When the stream breaks off or `out` fails.
    pub fn snapshot(&mut self, out: &mut dyn Write) -> Result<u64, GatewayError> {
        let endpoint = self.path("/v3/maintenance/snapshot");
        let mut blobs = Blobs { out, line: Vec::new(), bytes: 0, remaining: None };
        let sent = self.host.download(&endpoint, "{}", &mut blobs);
        let (bytes, remaining) = (blobs.bytes, blobs.remaining);
        let failed = |reason| self.error("send a snapshot", reason);
        sent.map_err(|error| failed(chain(&error)))?;
        match remaining {
            Some(0) => Ok(bytes),
            _ => Err(failed("the snapshot broke off".to_owned())),
        }
    }

    fn path(&self, path: &str) -> HttpsEndpoint {
        HttpsEndpoint { path: path.to_owned(), ..self.endpoint.clone() }
    }

    fn error(&self, act: &'static str, reason: String) -> GatewayError {
        let endpoint = format!("{}:{}", self.endpoint.address, self.endpoint.port);
        GatewayError { endpoint, act, reason }
    }

    fn call(
        &mut self,
        act: &'static str,
        path: &str,
        body: &Value,
    ) -> Result<Vec<u8>, GatewayError> {
        self.call_for(act, path, body, PATIENCE)
    }

    fn call_for(
        &mut self,
        act: &'static str,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<Vec<u8>, GatewayError> {
        let endpoint = self.path(path);
        match self.host.post(&endpoint, &body.to_string(), patience) {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => Err(self.error(act, reason(answer.status, &answer.body))),
            Err(error) => Err(self.error(act, chain(&error))),
        }
    }

    fn read<T: for<'de> Deserialize<'de>>(
        &self,
        act: &'static str,
        body: &[u8],
    ) -> Result<T, GatewayError> {
        let read = serde_json::from_slice(body);
        read.map_err(|error| self.error(act, format!("its answer is not understood: {error}")))
    }
}

/// etcd's own words out of the body of an error.
fn reason(status: u16, body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let text = |key: &str| value.as_ref()?.get(key)?.as_str().map(str::to_owned);
    let words = text("message").or_else(|| text("error"));
    words.unwrap_or_else(|| format!("{status} {}", String::from_utf8_lossy(body).trim()))
}

/// A number that JSON carries as text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Takes a stream of JSON lines apart, each with a piece of the database.
struct Blobs<'a> {
    out: &'a mut dyn Write,
    line: Vec<u8>,
    bytes: u64,
    remaining: Option<u64>,
}

/// A piece is 32 KiB in etcd, a third longer in base64; no line is longer than this.
const LINE_BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct Line {
    result: Option<Piece>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Piece {
    #[serde(default, deserialize_with = "number")]
    remaining_bytes: u64,
    #[serde(default)]
    blob: String,
}

impl Blobs<'_> {
    fn piece(&mut self, line: &[u8]) -> io::Result<()> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let line: Line = serde_json::from_slice(line).map_err(|e| invalid(e.to_string()))?;
        if let Some(error) = line.error {
            return Err(invalid(error["message"].as_str().unwrap_or("unknown").to_owned()));
        }
        let piece = line.result.ok_or_else(|| invalid("a piece without content".to_owned()))?;
        let blob = BASE64_STANDARD.decode(piece.blob).map_err(|e| invalid(e.to_string()))?;
        self.out.write_all(&blob)?;
        self.bytes += blob.len() as u64;
        self.remaining = Some(piece.remaining_bytes);
        Ok(())
    }
}

impl Write for Blobs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.piece(&line)?;
        }
        if self.line.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMachine;

    fn endpoint() -> HttpsEndpoint {
        HttpsEndpoint {
            address: "10.0.0.1".to_owned(),
            port: 2379,
            path: String::new(),
            ca: String::new(),
            client: None,
        }
    }

    fn answering(path: &str, body: &str) -> FakeMachine {
        let machine = FakeMachine::new("m-1");
        machine.state().answers.insert(format!("10.0.0.1:2379{path}"), body.to_owned());
        machine
    }

    #[test]
    fn members_are_read_with_their_long_numbers() {
        let body = r#"{"header":{"cluster_id":"1","member_id":"2","raft_term":"3"},"members":[
            {"ID":"18446744073709551615","name":"m-1","peerURLs":["https://10.0.0.1:2380"],
             "clientURLs":["https://10.0.0.1:2379"]},
            {"ID":"7","peerURLs":["https://10.0.0.2:2380"],"isLearner":true}]}"#;
        let machine = answering("/v3/cluster/member/list", body);
        let mut host = machine.connect();
        let members = Gateway::at(host.as_mut(), endpoint()).members().unwrap();
        assert_eq!((members[0].id, members[0].name.as_str()), (u64::MAX, "m-1"));
        assert!(members[1].is_learner && members[1].name.is_empty());
    }

    #[test]
    fn a_snapshot_is_put_together_and_one_that_breaks_off_is_none() {
        let line = |remaining: u64, bytes: &[u8]| {
            let blob = BASE64_STANDARD.encode(bytes);
            format!("{{\"result\":{{\"remaining_bytes\":\"{remaining}\",\"blob\":\"{blob}\"}}}}\n")
        };
        let path = "/v3/maintenance/snapshot";
        let take = |body: &str| {
            let machine = answering(path, body);
            let (mut host, mut out) = (machine.connect(), Vec::new());
            let taken = Gateway::at(host.as_mut(), endpoint()).snapshot(&mut out);
            taken.map(|bytes| (bytes, out))
        };
        let whole = format!("{}{}", line(2, b"abc"), line(0, b"de"));
        assert_eq!(take(&whole), Ok((5, b"abcde".to_vec())));
        let error = take(&line(2, b"abc")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "etcd at 10.0.0.1:2379 did not send a snapshot: the snapshot broke off"
        );
        assert!(take("{\"error\":{\"message\":\"no space\"}}\n").is_err());
    }

    #[test]
    fn refusals_are_told_in_etcds_words() {
        let body = br#"{"error":"etcdserver: x","message":"etcdserver: can only promote a learner member which is in sync with leader","code":9}"#;
        let words = reason(400, body);
        assert!(words.ends_with("in sync with leader"), "{words}");
        assert_eq!(reason(503, b"no json\n"), "503 no json");
    }
}
