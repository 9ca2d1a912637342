//! Files that are no snapshots, and the way through a real etcd: data in, snapshot out, restored,
//! defragmented, with a member more.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::etcd::gateway::Gateway;
use crate::host::{Host, HttpsEndpoint, local};
use crate::inventory::Inventory;
use crate::pki::{self, LeafKind, Pki};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn with_digest(bytes: &[u8]) -> File {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    file(&[bytes, &digest].concat())
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let said = |mut file: File| rebear(&mut file).unwrap_err().to_string();
    assert!(said(file(b"short")).contains("is damaged"));
    assert!(said(file(&[7; 1024 + 32])).contains("is damaged"));
    assert!(said(with_digest(&[0; 4096])).contains("page size"));
    let mut page = vec![0; 8192];
    page[24..28].copy_from_slice(&4096_u32.to_le_bytes());
    assert!(said(with_digest(&page)).contains("no whole head"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64,
        ..ProptestConfig::default() })]
    #[test]
    fn no_file_makes_the_reader_panic_or_run_for_ever(
        mut bytes in prop::collection::vec(any::<u8>(), 8192),
        root in 0_u64..4,
    ) {
        // Two good heads, so that what follows them is read.
        for (at, txid) in [(0, 1_u64), (4096, 2)] {
            let mut meta = [0_u8; 64];
            meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
            meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
            meta[8..12].copy_from_slice(&4096_u32.to_le_bytes());
            meta[16..24].copy_from_slice(&root.to_le_bytes());
            meta[48..56].copy_from_slice(&txid.to_le_bytes());
            let sum = fnv64a(&meta[..56]);
            meta[56..].copy_from_slice(&sum.to_le_bytes());
            bytes[at + 16..at + 80].copy_from_slice(&meta);
        }
        let _ = rebear(&mut with_digest(&bytes));
    }
}

const ETCD: &str = "/usr/bin/etcd";

/// A member of etcd on loopback, with certificates as hosts have them; it ends with the value.
struct Server {
    child: Child,
    client: u16,
    peer: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    fn start(dir: &Path, name: &str, ports: (u16, u16), cluster: &str, state: &str) -> Self {
        let (client, peer) = ports;
        // Only a member that begins with a restored database is in a hurry.
        let eager = if state == "restored" { "10" } else { "100000" };
        let state = if state == "restored" { "new" } else { state };
        let pki = dir.join("state/pki");
        let at = |name: &str| pki.join(name).display().to_string();
        let child = Command::new(ETCD)
            .args(["--name", name, "--logger", "zap", "--initial-cluster-token", "c"])
            .arg(format!("--data-dir={}", dir.join(name).display()))
            .arg(format!("--listen-client-urls=https://127.0.0.1:{client}"))
            .arg(format!("--advertise-client-urls=https://127.0.0.1:{client}"))
            .arg(format!("--listen-peer-urls=https://127.0.0.1:{peer}"))
            .arg(format!("--initial-advertise-peer-urls=https://127.0.0.1:{peer}"))
            .arg(format!("--initial-cluster={cluster}"))
            .arg(format!("--initial-cluster-state={state}"))
            .args(["--client-cert-auth", "--peer-client-cert-auth"])
            .args(["--snapshot-count", eager])
            .args(["--trusted-ca-file", &at("etcd-ca.crt")])
            .args(["--cert-file", &at("etcd-server.h.crt"), "--key-file", &at("etcd-server.h.key")])
            .args(["--peer-trusted-ca-file", &at("etcd-ca.crt")])
            .args(["--peer-cert-file", &at("etcd-peer.h.crt")])
            .args(["--peer-key-file", &at("etcd-peer.h.key")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{ETCD} (package etcd-server): {error}"));
        Self { child, client, peer }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.peer)
    }

    fn endpoint(&self, pki: &Pki, path: &str) -> HttpsEndpoint {
        let leaf = pki.leaf(LeafKind::EtcdHealth, "h").unwrap();
        HttpsEndpoint {
            address: "127.0.0.1".to_owned(),
            port: self.client,
            path: path.to_owned(),
            ca: pki.etcd_trust.clone(),
            client: Some((leaf.cert.clone(), leaf.key.clone())),
        }
    }

    /// Waits until the member has a leader.
    fn wait(&self, host: &mut dyn Host, pki: &Pki) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let status = Gateway::at(host, self.endpoint(pki, "")).status();
            match status {
                Ok(status) if status.leader != 0 => return,
                other => assert!(Instant::now() < until, "{other:?}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn call(&self, host: &mut dyn Host, pki: &Pki, path: &str, body: &Value) -> Value {
        let patience = Duration::from_secs(10);
        let answer = host.post(&self.endpoint(pki, path), &body.to_string(), patience).unwrap();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// Certificates of every host name the loopback address, too.
fn inventory(dir: &Path) -> Inventory {
    let path = dir.join("c.toml");
    let text = "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"h\"\naddress = \"10.9.9.9\"\n\
                roles = [\"etcd\", \"master\", \"node\"]\n";
    std::fs::write(&path, text).unwrap();
    crate::inventory::load(&path).unwrap()
}

#[test]
fn a_real_member_is_snapshot_restored_defragmented_and_joined() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let inventory = inventory(dir);
    let pki = pki::ensure(&inventory, &dir.join("state"), jiff::Timestamp::now()).unwrap();
    let mut host = local::open("h").unwrap();
    let host = host.as_mut();
    let text = |text: &str| BASE64_STANDARD.encode(text);

    let ports = (free_port(), free_port());
    let told = format!("one=https://127.0.0.1:{}", ports.1);
    let one = Server::start(dir, "one", ports, &told, "new");
    one.wait(host, &pki);
    for number in 0..50 {
        let body = json!({ "key": text(&format!("k{number}")), "value": text(&"v".repeat(5000)) });
        one.call(host, &pki, "/v3/kv/put", &body);
    }
    let mut snapshot = tempfile::tempfile_in(dir).unwrap();
    let bytes = Gateway::at(host, one.endpoint(&pki, "")).snapshot(&mut snapshot).unwrap();
    assert_eq!(bytes, snapshot.metadata().unwrap().len());
    assert_eq!(verify(&mut snapshot).unwrap(), bytes - DIGEST_BYTES);
    // What is written after it is not in it.
    one.call(host, &pki, "/v3/kv/put", &json!({ "key": text("late"), "value": text("x") }));
    let defragmented = Gateway::at(host, one.endpoint(&pki, "")).defragment();
    assert_eq!(defragmented, Ok(()));
    let before = Gateway::at(host, one.endpoint(&pki, "")).status().unwrap();
    drop(one);

    // Another cluster begins with it: other name, other address.
    let reborn = rebear(&mut snapshot).unwrap();
    assert!(reborn.consistent_index > 50 && reborn.members == 1, "{reborn:?}");
    let place = dir.join("two/member/snap");
    std::fs::create_dir_all(&place).unwrap();
    snapshot.seek(SeekFrom::Start(0)).unwrap();
    let mut database = File::create(place.join("db")).unwrap();
    io::copy(&mut snapshot, &mut database).unwrap();
    let ports = (free_port(), free_port());
    let told = format!("two=https://127.0.0.1:{}", ports.1);
    let two = Server::start(dir, "two", ports, &told, "restored");
    two.wait(host, &pki);
    let all = json!({ "key": text("\0"), "range_end": text("\0"), "count_only": true });
    let count = two.call(host, &pki, "/v3/kv/range", &all);
    assert_eq!(count["count"], "50", "{count}");
    let after = Gateway::at(host, two.endpoint(&pki, "")).status().unwrap();
    assert_ne!(before.header.cluster_id, after.header.cluster_id);
    let members = Gateway::at(host, two.endpoint(&pki, "")).members().unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    // It takes new entries, and keeps them over a restart.
    for number in 0..20 {
        let body = json!({ "key": text(&format!("new{number}")), "value": text("x") });
        two.call(host, &pki, "/v3/kv/put", &body);
    }
    drop(two);
    let two = Server::start(dir, "two", ports, &told, "new");
    two.wait(host, &pki);
    assert_eq!(two.call(host, &pki, "/v3/kv/range", &all)["count"], "70");

    // A second member learns, gets its vote, and goes again. What it gets is the whole database.
    let ports = (free_port(), free_port());
    let url = format!("https://127.0.0.1:{}", ports.1);
    let id = Gateway::at(host, two.endpoint(&pki, "")).add_learner(&url).unwrap();
    let told = format!("three={url},two={}", two.url());
    let three = Server::start(dir, "three", ports, &told, "existing");
    three.wait(host, &pki);
    let status = Gateway::at(host, three.endpoint(&pki, "")).status().unwrap();
    assert!(status.is_learner, "{status:?}");
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = Gateway::at(host, two.endpoint(&pki, "")).promote(id) {
        assert!(error.reason.contains("in sync with leader") && Instant::now() < until, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    // It has heard of its vote when it answers for the others.
    let members = loop {
        match Gateway::at(host, three.endpoint(&pki, "")).members() {
            Ok(members) => break members,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(members.len() == 2 && members.iter().all(|member| !member.is_learner), "{members:?}");
    assert!(Gateway::at(host, three.endpoint(&pki, "")).is_healthy());
    assert_eq!(three.call(host, &pki, "/v3/kv/range", &all)["count"], "70");
    // etcd refuses until its members have been connected for a while.
    while let Err(error) = Gateway::at(host, two.endpoint(&pki, "")).remove(id) {
        assert!(error.reason.contains("unhealthy cluster") && Instant::now() < until, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(Gateway::at(host, two.endpoint(&pki, "")).members().unwrap().len(), 1);
    assert!(Gateway::at(host, two.endpoint(&pki, "")).is_healthy());

    // Its certificate is seen without being judged, and refused where it is.
    let shown = host.served(&two.endpoint(&pki, "")).unwrap();
    let seen = crate::pki::Description::of_der(&shown[0]).unwrap();
    let kept = pki.leaf(LeafKind::EtcdServer, "h").unwrap();
    assert_eq!(Some(seen), crate::pki::Description::of_pem(&kept.cert));
    let leaf = pki.leaf(LeafKind::EtcdPeer, "h").unwrap();
    let mut to_peers = two.endpoint(&pki, "/version");
    to_peers.port = two.peer;
    to_peers.client = Some((leaf.cert.clone(), leaf.key.clone()));
    assert_eq!(host.get(&to_peers).unwrap().status, 200);
    let mut strange = two.endpoint(&pki, "/health");
    strange.ca = pki.cluster_trust.clone();
    assert!(host.get(&strange).is_err());
}
