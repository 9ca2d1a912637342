//! One suite that every store must pass.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "conformance/etcd_process.rs"]
mod etcd_process;

use std::path::Path;

use api::Revision;
use bytes::Bytes;
use store::{
    Beside, Commit, CommitError, Etcd, EtcdOptions, Memory, Range, Store, StoreError, Watch,
};

use etcd_process::{Certificates, EtcdProcess, free_port};

#[tokio::test]
async fn memory_conforms() {
    conforms(&Memory::new()).await;
}

#[tokio::test]
async fn etcd_conforms() {
    let etcd = EtcdProcess::start().await;
    conforms(&etcd.store().await).await;
}

#[tokio::test]
async fn etcd_over_mutual_tls_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = EtcdProcess::start_with(Some(certificates(directory.path()))).await;
    conforms(&etcd.store().await).await;
    let endpoints = vec![etcd.endpoint()];
    let stranger = Etcd::connect(EtcdOptions { endpoints, tls: None }).await;
    let refused = match stranger {
        Ok(stranger) => stranger.current_revision().await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "without a certificate nobody gets in");
}

/// One certificate, for the member and its client, signed by an authority of its own.
fn certificates(directory: &Path) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "etcd-ca");
    let authority_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Certificates {
        ca: write("ca.crt", ca.pem()),
        certificate: write("etcd.crt", leaf.pem()),
        key: write("etcd.key", key.serialize_pem()),
    }
}

/// Three members of one cluster.
async fn three_members() -> [EtcdProcess; 3] {
    let ports = [0, 1, 2].map(|_| (free_port(), free_port()));
    let names = ["m0", "m1", "m2"];
    let peer = |i: usize| format!("{}=http://127.0.0.1:{}", names[i], ports[i].1);
    let cluster = [0, 1, 2].map(peer).join(",");
    let members =
        [0, 1, 2].map(|i| EtcdProcess::launch(names[i], ports[i].0, ports[i].1, None, &cluster));
    members[0].ready().await;
    members
}

#[tokio::test]
async fn two_members_of_three_carry_on() {
    let mut members = three_members().await;
    let endpoints = members.iter().map(EtcdProcess::endpoint).collect();
    let store = Etcd::connect(EtcdOptions { endpoints, tls: None }).await.unwrap();
    for round in 0..3_u32 {
        let key = format!("/registry/pods/a/{round}");
        let revision = store.commit(put(&key, 0, "1")).await.unwrap();
        let mut watch = store.watch(revision).await.unwrap();
        members[round as usize].kill();
        let mut tries = 0;
        let second = loop {
            tries += 1;
            assert!(tries < 10, "no member takes the write");
            match store.commit(put(&key, revision.0, "2")).await {
                Ok(second) => break second,
                Err(CommitError::Conflict(Some(found))) if &found.value[..] == b"2" => {
                    break found.revision;
                }
                Err(error) => assert!(matches!(
                    error,
                    CommitError::Unknown(_) | CommitError::Store(StoreError::Unavailable(_))
                )),
            }
        };
        assert!(store.current_revision().await.unwrap() >= second);
        // The watch may have been with the member that died; the next one is not.
        let told = loop {
            match watch.next().await {
                Ok(Some(batch)) => break batch,
                Ok(None) | Err(_) => {
                    if let Ok(again) = store.watch(revision).await {
                        watch = again;
                    }
                }
            }
        };
        assert_eq!((&*told.changes[0].key, told.revision), (&*key, second));
        members[round as usize].restart().await;
    }
}

#[tokio::test]
async fn a_dead_etcd_is_unavailable_and_comes_back() {
    let mut etcd = EtcdProcess::start().await;
    let store = etcd.store().await;
    let revision = store.commit(put("/registry/pods/a/b", 0, "1")).await.unwrap();
    let mut watch = store.watch(revision).await.unwrap();
    etcd.kill();
    let error = store.commit(put("/registry/pods/a/b", revision.0, "2")).await.unwrap_err();
    assert!(
        matches!(error, CommitError::Store(StoreError::Unavailable(_)) | CommitError::Unknown(_)),
        "{error}"
    );
    assert!(watch.next().await.is_err() || watch.next().await.unwrap().is_none());
    etcd.restart().await;
    let found = store.get("/registry/pods/a/b").await.unwrap().unwrap();
    store.commit(put("/registry/pods/a/b", found.revision.0, "3")).await.unwrap();
    let mut watch = store.watch(revision).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(&*batch.changes[0].key, "/registry/pods/a/b");
}

fn put(key: &str, expected: u64, value: &str) -> Commit {
    Commit {
        key: key.into(),
        expected: Revision(expected),
        value: Some(Bytes::from(value.to_owned())),
        take: Vec::new(),
        free: Vec::new(),
        besides: Vec::new(),
    }
}

fn delete(key: &str, expected: u64) -> Commit {
    Commit { value: None, ..put(key, expected, "") }
}

async fn conforms(store: &dyn Store) {
    compare_and_swap(store).await;
    claims(store).await;
    besides(store).await;
    pages(store).await;
    watching(store).await;
    racing(store).await;
    compaction(store).await;
}

async fn compare_and_swap(store: &dyn Store) {
    assert_eq!(store.get("/registry/pods/ns/a").await.unwrap(), None);
    let first = store.commit(put("/registry/pods/ns/a", 0, "1")).await.unwrap();
    assert!(store.current_revision().await.unwrap() >= first);
    let Err(CommitError::Conflict(Some(found))) =
        store.commit(put("/registry/pods/ns/a", 0, "2")).await
    else {
        panic!("a key that exists cannot be created")
    };
    assert_eq!((&found.value[..], found.revision), (&b"1"[..], first));
    let second = store.commit(put("/registry/pods/ns/a", first.0, "2")).await.unwrap();
    assert!(second > first);
    let error = store.commit(delete("/registry/pods/ns/a", first.0)).await.unwrap_err();
    assert!(matches!(error, CommitError::Conflict(Some(_))));
    store.commit(delete("/registry/pods/ns/a", second.0)).await.unwrap();
    assert_eq!(store.get("/registry/pods/ns/a").await.unwrap(), None);
    let error = store.commit(put("/registry/pods/ns/a", second.0, "3")).await.unwrap_err();
    assert!(matches!(error, CommitError::Conflict(None)));
}

async fn claims(store: &dyn Store) {
    let claim = |name: &str| Commit {
        take: vec!["clusterip/10.0.0.7".to_owned()],
        ..put(&format!("/registry/services/ns/{name}"), 0, "s")
    };
    let revision = store.commit(claim("a")).await.unwrap();
    let error = store.commit(claim("b")).await.unwrap_err();
    assert!(matches!(&error, CommitError::Taken(key) if key == "clusterip/10.0.0.7"), "{error}");
    assert_eq!(store.get("/registry/services/ns/b").await.unwrap(), None);
    let free = Commit {
        free: vec!["clusterip/10.0.0.7".to_owned()],
        ..delete("/registry/services/ns/a", revision.0)
    };
    store.commit(free).await.unwrap();
    store.commit(claim("b")).await.unwrap();
}

async fn besides(store: &dyn Store) {
    let quota = "/registry/resourcequotas/ns/q";
    let first = store.commit(put(quota, 0, "0")).await.unwrap();
    let charged = |name: &str, expected: Revision, used: &str| {
        let beside = Beside { key: quota.into(), expected, value: Bytes::from(used.to_owned()) };
        let key = format!("/registry/secrets/ns/{name}");
        Commit { besides: vec![beside], ..put(&key, 0, "s") }
    };
    let mut watch = store.watch(first).await.unwrap();
    let second = store.commit(charged("x", first, "1")).await.unwrap();
    let error = store.commit(charged("y", first, "2")).await.unwrap_err();
    assert!(matches!(error, CommitError::Moved), "{error}");
    assert_eq!(store.get("/registry/secrets/ns/y").await.unwrap(), None);
    // What is wrong with the key itself is told first.
    let error = store.commit(charged("x", first, "2")).await.unwrap_err();
    assert!(matches!(&error, CommitError::Conflict(Some(_))), "{error}");
    let held = store.get(quota).await.unwrap().unwrap();
    assert_eq!((&held.value[..], held.revision), (&b"1"[..], second));
    let batch = watch.next().await.unwrap().unwrap();
    let mut told: Vec<_> = batch.changes.iter().map(|c| (&*c.key, c.revision)).collect();
    told.sort_unstable();
    assert_eq!(told, [(quota, second), ("/registry/secrets/ns/x", second)]);
}

async fn pages(store: &dyn Store) {
    for name in ["a", "b", "c", "d", "e"] {
        store.commit(put(&format!("/registry/nodes/{name}"), 0, name)).await.unwrap();
    }
    let prefix = "/registry/nodes/";
    let first = store.range(Range { prefix, from: "", limit: 2, at: None }).await.unwrap();
    assert!(first.more);
    store.commit(put("/registry/nodes/bb", 0, "late")).await.unwrap();
    let mut names: Vec<_> = first.records.iter().map(|r| r.key.clone()).collect();
    let from = format!("{}\0", names[1]);
    let range = Range { prefix, from: &from, limit: 9, at: Some(first.revision) };
    let rest = store.range(range).await.unwrap();
    assert!(!rest.more);
    names.extend(rest.records.into_iter().map(|r| r.key));
    let expected: Vec<_> = ["a", "b", "c", "d", "e"].map(|n| format!("{prefix}{n}")).into();
    assert_eq!(names, expected);
}

async fn read_until(watch: &mut Watch, revision: Revision) -> Vec<(String, bool, Revision)> {
    let mut seen = Vec::new();
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        seen.extend(
            batch.changes.into_iter().map(|c| (c.key.to_string(), c.value.is_some(), c.revision)),
        );
        if batch.revision >= revision {
            return seen;
        }
    }
}

async fn watching(store: &dyn Store) {
    let start = store.current_revision().await.unwrap();
    let mut live = store.watch(start).await.unwrap();
    let a = store.commit(put("/registry/secrets/ns/a", 0, "1")).await.unwrap();
    let claim = Commit { take: vec!["x".to_owned()], ..put("/registry/secrets/ns/b", 0, "1") };
    let b = store.commit(claim).await.unwrap();
    let gone = store.commit(delete("/registry/secrets/ns/a", a.0)).await.unwrap();
    let name = |n: &str| format!("/registry/secrets/ns/{n}");
    let expected = [(name("a"), true, a), (name("b"), true, b), (name("a"), false, gone)];
    assert_eq!(read_until(&mut live, gone).await, expected);
    let mut late = store.watch(a).await.unwrap();
    assert_eq!(read_until(&mut late, gone).await, expected[1..]);
    let mark = store.mark().await.unwrap();
    let seen = read_until(&mut live, mark).await;
    assert!(seen.iter().all(|(key, ..)| key == "/registry/.progress"), "{seen:?}");
    assert!(mark >= gone);
}

/// P3: of two writers that read the same revision exactly one wins.
async fn racing(store: &dyn Store) {
    let mut revision = store.commit(put("/registry/pods/ns/race", 0, "0")).await.unwrap();
    for round in 0..20 {
        let write = |who: &str| put("/registry/pods/ns/race", revision.0, &format!("{who}{round}"));
        let (one, two) = futures::join!(store.commit(write("a")), store.commit(write("b")));
        let winners: Vec<_> = [one, two].into_iter().filter_map(Result::ok).collect();
        assert_eq!(winners.len(), 1);
        assert!(winners[0] > revision);
        revision = winners[0];
    }
}

async fn compaction(store: &dyn Store) {
    let old = store.current_revision().await.unwrap();
    let new = store.commit(put("/registry/pods/ns/compact", 0, "1")).await.unwrap();
    store.compact(new).await.unwrap();
    store.compact(new).await.unwrap();
    let range = Range { prefix: "/registry/", from: "", limit: 0, at: Some(old) };
    assert!(matches!(store.range(range).await, Err(StoreError::Compacted)));
    let error = match store.watch(Revision(old.0 - 1)).await {
        Err(error) => error,
        Ok(mut watch) => watch.next().await.unwrap_err(),
    };
    assert!(matches!(error, StoreError::Compacted), "{error}");
}
