//! Certificates as openssl and x509-parser see them; reuse, renewal and refusal.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn days(count: i64) -> Timestamp {
    Timestamp::from_second(NOW + count * 86_400).unwrap()
}

/// Three masters with etcd, and a node; `more` is added to the section `[pki]`.
fn inventory(more: &str) -> Inventory {
    load(&format!(
        "[cluster]\nname = \"c\"\n[groups.m]\nhosts = [\"m-[1-3]\"]\naddress_first = \"10.0.0.1\"\n\
         roles = [\"etcd\", \"master\"]\n[groups.n]\nhosts = [\"n-1\"]\n\
         address_first = \"10.0.1.1\"\nroles = [\"node\"]\n[pki]\n{more}\n"
    ))
}

/// One host with all roles, for keys that take long to make.
fn one_host(more: &str) -> Inventory {
    load(&format!(
        "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"h\"\naddress = \"10.0.0.1\"\n\
         roles = [\"etcd\", \"master\", \"node\"]\n[pki]\n{more}\n"
    ))
}

fn load(text: &str) -> Inventory {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    fs::write(&path, text).unwrap();
    crate::inventory::load(&path).unwrap()
}

fn parsed<T>(cert: &str, with: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let der = pem::parse(cert).unwrap().into_contents();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    with(&certificate)
}

/// Subject, usages and names of a certificate on one line.
fn describe(cert: &str) -> String {
    parsed(cert, |c| {
        let usage = c.extended_key_usage().unwrap().unwrap().value;
        let server = if usage.server_auth { " server" } else { "" };
        let client = if usage.client_auth { " client" } else { "" };
        let names: Vec<String> = leaf::names(c).into_iter().collect();
        format!("{}{server}{client} [{}]", c.subject(), names.join(" "))
    })
}

#[test]
fn every_component_has_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(&inventory("api_server_names = [\"lb.example\"]"), dir.path(), now()).unwrap();
    let lines: Vec<String> = pki
        .leaves()
        .filter(|(id, _)| !id.ends_with(".m-2") && !id.ends_with(".m-3"))
        .map(|(id, credential)| format!("{id}: {}", describe(&credential.cert)))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    let authorities = [&pki.cluster_ca, &pki.etcd_ca]
        .map(|ca| parsed(&ca.cert, |c| format!("{} ca={}", c.subject(), c.is_ca())));
    assert_eq!(authorities, ["O=k8s, OU=System, CN=kubernetes ca=true", "CN=etcd CA ca=true"]);
}

#[test]
fn openssl_verifies_every_chain() {
    for algorithm in ["ecdsa-p256", "rsa-2048"] {
        let dir = tempfile::tempdir().unwrap();
        let inventory = one_host(&format!("algorithm = \"{algorithm}\""));
        let pki = ensure(&inventory, dir.path(), now()).unwrap();
        let at = |name: &str| dir.path().join("pki").join(name);
        let verify = |ca: &str, leaf: &str, purpose: &str| {
            Command::new("openssl")
                .args(["verify", "-x509_strict", "-attime", &NOW.to_string()])
                .args(["-purpose", purpose, "-CAfile"])
                .arg(at(ca))
                .arg(at(leaf))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("openssl is installed")
                .success()
        };
        for (id, credential) in pki.leaves() {
            let etcd = id.contains("etcd");
            let (own, other) = if etcd { ("etcd-ca", "ca") } else { ("ca", "etcd-ca") };
            let file = format!("{id}.crt");
            let said = describe(&credential.cert);
            for (purpose, usage) in [("sslserver", " server"), ("sslclient", " client")] {
                let wanted = said.contains(usage);
                assert_eq!(verify(&format!("{own}.crt"), &file, purpose), wanted, "{id} {purpose}");
                assert!(!verify(&format!("{other}.crt"), &file, purpose), "{id} by {other}");
            }
        }
        if algorithm == "ecdsa-p256" {
            let key = openssl_text(&["pkey", "-noout", "-text", "-in"], &at("sa.key"));
            assert!(key.contains("prime256v1"), "{key}");
        }
    }
}

fn openssl_text(args: &[&str], file: &Path) -> String {
    let output = Command::new("openssl").args(args).arg(file).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_are_closed_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(&inventory(""), dir.path(), now()).unwrap();
    assert_eq!(first.issued.len(), 2 + first.leaves().count());
    assert!(first.issued.iter().all(|i| i.reason == Reason::New));
    let pki = dir.path().join("pki");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(dir.path()), mode(&pki)), (0o700, 0o700));
    for entry in fs::read_dir(&pki).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    // A copy came with open permissions: they are closed again.
    fs::set_permissions(pki.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let second = ensure(&inventory(""), dir.path(), days(200)).unwrap();
    assert_eq!(mode(&pki.join("ca.key")), 0o600);
    assert!(second.issued.is_empty(), "{:?}", second.issued);
    assert_eq!(Pki { issued: first.issued.clone(), ..second }, first);
}

#[test]
fn nothing_shows_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(&inventory(""), dir.path(), now()).unwrap();
    let shown = format!("{pki:?}");
    assert!(!shown.contains("PRIVATE KEY"));
    assert!(!shown.contains(pki.bootstrap_token.expose()));
    let token = pki.bootstrap_token.expose();
    let shape: String =
        token.chars().map(|c| if c.is_ascii_alphanumeric() { 'x' } else { c }).collect();
    assert_eq!(shape, "xxxxxx.xxxxxxxxxxxxxxxx");
}

/// Makes certificates, lets `change` happen, and tells what the next call makes anew.
fn reissued(more: &str, at: Timestamp, change: impl FnOnce(&TempDir)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    ensure(&inventory(""), dir.path(), now()).unwrap();
    change(&dir);
    let pki = ensure(&inventory(more), dir.path(), at).unwrap();
    let again = ensure(&inventory(more), dir.path(), at).unwrap();
    assert!(again.issued.is_empty(), "{:?}", again.issued);
    pki.issued.iter().map(|i| format!("{}: {}", i.id, i.reason)).collect()
}

#[test]
fn only_what_is_no_longer_right_is_made_anew() {
    let nothing = |_: &TempDir| {};
    let all = 3 * 10 + 3 + 1;
    assert_eq!(reissued("", days(1), nothing).len(), 0);
    assert_eq!(
        reissued("api_server_names = [\"lb.example\"]", now(), nothing),
        ["m-1", "m-2", "m-3"].map(|m| format!("apiserver.{m}: names or addresses changed"))
    );
    // 365 days of life: made anew when fewer than 30 are left.
    assert_eq!(reissued("", days(334), nothing).len(), 0);
    let expiring = reissued("", days(336), nothing);
    assert_eq!(expiring.len(), all);
    assert_eq!(expiring[0], "etcd-server.m-1: about to run out");
    // The clock was in the future when they were made.
    assert_eq!(reissued("", days(-1), nothing).len(), all);
}

#[test]
fn another_kind_of_key_makes_all_certificates_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(&one_host(""), dir.path(), now()).unwrap();
    let rsa = ensure(&one_host("algorithm = \"rsa-2048\""), dir.path(), now()).unwrap();
    assert_eq!(rsa.issued.len(), rsa.leaves().count());
    assert!(rsa.issued.iter().all(|i| i.reason == Reason::Algorithm), "{:?}", rsa.issued);
    assert_eq!(rsa.cluster_ca, first.cluster_ca, "the authorities stay");
}

#[test]
fn a_crash_between_two_files_is_mended() {
    let remove = |name: &'static str| {
        move |dir: &TempDir| fs::remove_file(dir.path().join("pki").join(name)).unwrap()
    };
    assert_eq!(reissued("", now(), remove("admin.crt")), ["admin: damaged"]);
    assert_eq!(reissued("", now(), remove("admin.key")), ["admin: damaged"]);
    let other_key = |dir: &TempDir| {
        let pki = dir.path().join("pki");
        fs::copy(pki.join("scheduler.m-1.key"), pki.join("admin.key")).unwrap();
    };
    assert_eq!(reissued("", now(), other_key), ["admin: damaged"]);
    let half = |dir: &TempDir| {
        fs::write(dir.path().join("pki/admin.crt"), "-----BEGIN CERT").unwrap();
    };
    assert_eq!(reissued("", now(), half), ["admin: damaged"]);
    // The very first run died before anything was pinned.
    let unpinned = |dir: &TempDir| {
        fs::remove_file(dir.path().join("pki/authorities.json")).unwrap();
        fs::remove_file(dir.path().join("pki/etcd-ca.crt")).unwrap();
    };
    let made = reissued("", now(), unpinned);
    assert_eq!(made[0], "etcd-ca: new");
    assert_eq!(made.len(), 1 + 3 * 4, "{made:?}");
    assert!(made[1].ends_with("signed by another authority"), "{made:?}");
}

/// The very first run, killed after each of its writes in turn.
#[test]
fn a_first_run_cut_anywhere_is_completed() {
    let whole = tempfile::tempdir().unwrap();
    let pki = ensure(&one_host(""), whole.path(), now()).unwrap();
    let file = |dir: &TempDir, name: &str| dir.path().join("pki").join(name);
    let pins = fs::read_to_string(file(&whole, "authorities.json")).unwrap();
    let first_pin =
        pins.replace(",", "").lines().filter(|l| !l.contains("etcd")).collect::<String>();
    let mut writes: Vec<(String, Option<&str>)> = vec![
        ("ca.key".to_owned(), None),
        ("ca.crt".to_owned(), None),
        ("authorities.json".to_owned(), Some(&first_pin)),
        ("etcd-ca.key".to_owned(), None),
        ("etcd-ca.crt".to_owned(), None),
        ("authorities.json".to_owned(), Some(&pins)),
        ("sa.key".to_owned(), None),
        ("bootstrap-token".to_owned(), None),
    ];
    for (id, _) in pki.leaves() {
        writes.extend([(format!("{id}.key"), None), (format!("{id}.crt"), None)]);
    }
    for cut in 0..=writes.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pki")).unwrap();
        for (name, text) in &writes[..cut] {
            match text {
                Some(text) => fs::write(file(&dir, name), text).unwrap(),
                None => drop(fs::copy(file(&whole, name), file(&dir, name)).unwrap()),
            }
        }
        // A temporary file that never got its name.
        fs::write(file(&dir, ".tmpAbCdEf"), "-----BEGIN").unwrap();
        let mended = ensure(&one_host(""), dir.path(), now()).unwrap();
        let again = ensure(&one_host(""), dir.path(), now()).unwrap();
        assert!(again.issued.is_empty(), "cut {cut}: {:?}", again.issued);
        assert_eq!(Pki { issued: mended.issued.clone(), ..again }, mended, "cut {cut}");
        // What had been pinned stays.
        assert_eq!(cut >= 2, mended.cluster_ca == pki.cluster_ca, "cut {cut}");
        assert_eq!(cut >= 8, mended.bootstrap_token == pki.bootstrap_token, "cut {cut}");
    }
}

#[test]
fn another_authority_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&ours, &theirs] {
        ensure(&inventory(""), dir.path(), now()).unwrap();
    }
    for file in ["ca.crt", "ca.key"] {
        fs::copy(theirs.path().join("pki").join(file), ours.path().join("pki").join(file)).unwrap();
    }
    let error = ensure(&inventory(""), ours.path(), now()).unwrap_err();
    assert!(matches!(error, PkiError::Foreign { authority: "cluster", .. }), "{error}");
}

#[test]
fn a_lost_authority_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    ensure(&inventory(""), dir.path(), now()).unwrap();
    fs::remove_file(dir.path().join("pki/etcd-ca.key")).unwrap();
    let error = ensure(&inventory(""), dir.path(), now()).unwrap_err();
    assert!(matches!(error, PkiError::Lost { authority: "etcd", .. }), "{error}");
}

#[test]
fn an_authority_that_ran_out_signs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    ensure(&inventory(""), dir.path(), now()).unwrap();
    let error = ensure(&inventory(""), dir.path(), days(3_651)).unwrap_err();
    assert!(matches!(error, PkiError::Expired { .. }), "{error}");
}

#[test]
fn no_certificate_outlives_its_authority() {
    let dir = tempfile::tempdir().unwrap();
    ensure(&inventory(""), dir.path(), now()).unwrap();
    let pki = ensure(&inventory(""), dir.path(), days(3_600)).unwrap();
    let (_, first) = pki.first_expiry().unwrap();
    assert!(first <= pki.cluster_ca.not_after && first > days(3_640), "{first}");
}

mod outside;
mod rotation;
mod sealing;
