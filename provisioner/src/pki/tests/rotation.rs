//! Replacing authorities: each stage, and what is left of a run that dies in any of them.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn access(dir: &Path) -> Access<'_> {
    Access { dir, passphrase: None }
}

fn at(dir: &TempDir) -> Pki {
    ensure(&inventory(""), dir.path(), now()).unwrap()
}

fn begun(which: Which) -> (TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    let before = at(&dir);
    begin(&inventory(""), &access(dir.path()), which, now()).unwrap();
    (dir, before)
}

fn certificates(pem: &str) -> Vec<String> {
    let blocks = pem::parse_many(pem).unwrap();
    blocks.iter().map(|block| pins::fingerprint(block.contents())).collect()
}

fn leaves(pki: &Pki) -> BTreeSet<String> {
    pki.leaves().map(|(_, credential)| credential.cert.clone()).collect()
}

#[test]
fn each_stage_is_safe_beside_the_one_before() {
    let (dir, before) = begun(Which::All);
    let old = certificates(&before.cluster_ca.cert);

    let trust = at(&dir);
    let both = certificates(&trust.cluster_trust);
    assert_eq!((both.len(), &both[..1]), (2, &old[..]), "the one that signs comes first");
    assert_eq!((leaves(&trust), &trust.issued[..]), (leaves(&before), &[][..]));
    assert_eq!(trust.service_account_public, before.service_account_public);
    let next_key = trust.service_account_other.clone().unwrap();

    advance(&access(dir.path())).unwrap();
    let issue = at(&dir);
    let turned: Vec<_> = both.iter().rev().cloned().collect();
    assert_eq!(certificates(&issue.cluster_trust), turned);
    assert!(leaves(&issue).is_disjoint(&leaves(&before)));
    assert!(issue.issued.iter().all(|issued| issued.reason == Reason::Issuer));
    assert_eq!(issue.service_account_public, next_key);
    assert_eq!(issue.service_account_other.as_ref(), Some(&before.service_account_public));

    advance(&access(dir.path())).unwrap();
    let drop = at(&dir);
    assert_eq!(certificates(&drop.cluster_trust), turned[..1]);
    assert_eq!(leaves(&drop), leaves(&issue));
    assert_eq!(drop.service_account_other, None);

    assert_eq!(advance(&access(dir.path())).unwrap(), None);
    let after = at(&dir);
    assert!(after.rotation.is_none() && after.rotated && after.issued.is_empty());
    // Byte for byte, or the next apply would restart everything for nothing.
    assert_eq!(after.cluster_trust, drop.cluster_trust);
    assert_eq!(after.etcd_trust, drop.etcd_trust);
    assert_eq!((leaves(&after), after.cluster_ca), (leaves(&drop), drop.cluster_ca));
    assert_eq!(after.service_account_key, drop.service_account_key);
    let kept = fs::read_to_string(dir.path().join("pki/former-ca.crt")).unwrap();
    assert_eq!(kept, before.cluster_ca.cert);
    assert!(!dir.path().join("pki/next-ca.key").exists());
}

#[test]
fn one_authority_alone_leaves_the_other_ones_certificates() {
    let (dir, before) = begun(Which::Etcd);
    advance(&access(dir.path())).unwrap();
    let issue = at(&dir);
    assert_eq!(issue.cluster_trust, before.cluster_trust);
    assert!(!issue.rotated && issue.service_account_other.is_none());
    let made: Vec<_> = issue.issued.iter().map(|issued| issued.id.as_str()).collect();
    assert_eq!(made.len(), 3 * 4, "{made:?}");
    assert!(made.iter().all(|id| id.contains("etcd")), "{made:?}");
}

#[test]
fn a_second_rotation_makes_authorities_of_its_own() {
    let (dir, _) = begun(Which::All);
    let finish = || while advance(&access(dir.path())).unwrap().is_some() {};
    finish();
    let first = at(&dir);
    begin(&inventory(""), &access(dir.path()), Which::All, days(1)).unwrap();
    // Beginning twice is going on with the same one.
    let again = begin(&inventory(""), &access(dir.path()), Which::Etcd, days(2)).unwrap();
    assert_eq!((again.began, again.to.len()), (days(1), 2));
    finish();
    let second = at(&dir);
    assert_ne!(first.cluster_ca, second.cluster_ca);
    assert_ne!(first.service_account_public, second.service_account_public);
}

/// The last stage replaces files of the state directory; cut after each of them in turn.
#[test]
fn a_settlement_cut_anywhere_is_completed() {
    let (dir, before) = begun(Which::All);
    for _ in 0..2 {
        advance(&access(dir.path())).unwrap();
        at(&dir);
    }
    let text = fs::read_to_string(dir.path().join("pki/rotation.json")).unwrap();
    let settling = text.replace("\"drop\"", "\"settle\"");
    let copy = |from: &TempDir| {
        let to = tempfile::tempdir().unwrap();
        fs::create_dir(to.path().join("pki")).unwrap();
        for entry in fs::read_dir(from.path().join("pki")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.path().join("pki").join(entry.file_name())).unwrap();
        }
        fs::write(to.path().join("pki/rotation.json"), &settling).unwrap();
        to
    };
    let whole = copy(&dir);
    let wanted = at(&whole);
    let read = |name: &str| fs::read_to_string(whole.path().join("pki").join(name)).unwrap();
    let pins: serde_json::Value = serde_json::from_str(&read("authorities.json")).unwrap();
    let old: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("pki/authorities.json")).unwrap())
            .unwrap();
    let pinned = |cluster: bool, etcd: bool, rotated: bool| {
        let mut some = old.clone();
        for (take, key) in [(cluster, "cluster"), (etcd, "etcd"), (rotated, "rotated")] {
            if take {
                some[key] = pins[key].clone();
            }
        }
        some.to_string()
    };
    let mut writes = vec![
        ("former-ca.crt", Some(before.cluster_ca.cert.clone())),
        ("ca.key", Some(read("ca.key"))),
        ("ca.crt", Some(read("ca.crt"))),
        ("authorities.json", Some(pinned(true, false, false))),
        ("sa.key", Some(read("sa.key"))),
        ("former-etcd-ca.crt", Some(before.etcd_ca.cert.clone())),
        ("etcd-ca.key", Some(read("etcd-ca.key"))),
        ("etcd-ca.crt", Some(read("etcd-ca.crt"))),
        ("authorities.json", Some(pinned(true, true, false))),
        ("authorities.json", Some(pinned(true, true, true))),
    ];
    let gone =
        ["next-ca.crt", "next-ca.key", "next-etcd-ca.crt", "next-etcd-ca.key", "next-sa.key"];
    writes.extend(gone.map(|name| (name, None)));
    for cut in 0..=writes.len() {
        let dir = copy(&dir);
        for (name, text) in &writes[..cut] {
            let path = dir.path().join("pki").join(name);
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }
        assert_eq!(at(&dir), wanted, "cut {cut}");
        let kept = fs::read_to_string(dir.path().join("pki/former-ca.crt")).unwrap();
        assert_eq!(kept, before.cluster_ca.cert, "cut {cut}");
        assert!(rotation(&access(dir.path())).unwrap().is_none());
    }
}

#[test]
fn an_authority_that_ran_out_is_replaced_without_being_trusted_first() {
    let dir = tempfile::tempdir().unwrap();
    at(&dir);
    let late = days(4_000);
    assert!(matches!(ensure(&inventory(""), dir.path(), late), Err(PkiError::Expired { .. })));
    let rotation = begin(&inventory(""), &access(dir.path()), Which::All, late).unwrap();
    assert_eq!(rotation.stage, RotationStage::Issue);
    let pki = ensure(&inventory(""), dir.path(), late).unwrap();
    assert!(pki.first_expiry().unwrap().1 > late);
}

#[test]
fn chosen_certificates_are_renewed_and_lists_tell_whose_they_are() {
    let dir = tempfile::tempdir().unwrap();
    at(&dir);
    let chosen = |kind, host: &str| kind == LeafKind::ApiServer && host == "m-2";
    let pki = renew(&inventory(""), &access(dir.path()), days(1), &chosen).unwrap();
    let issued = [Issued { id: "apiserver.m-2".to_owned(), reason: Reason::Asked }];
    assert_eq!(pki.issued, issued);
    let list = survey(&inventory(""), &access(dir.path())).unwrap();
    let find = |id: &str| list.iter().find(|kept| kept.id == id).unwrap();
    let (server, peer) = (find("apiserver.m-2"), find("etcd-peer.m-1"));
    assert_eq!((server.authority.as_str(), peer.authority.as_str()), ("cluster", "etcd"));
    assert_eq!(server.path.as_deref(), Some("/etc/kubernetes/pki/apiserver.crt"));
    let description = server.description.as_ref().unwrap();
    assert_eq!(description.days_left(days(1)), 365);
    assert!(description.names.contains("10.0.0.2"), "{:?}", description.names);
    assert_eq!((find("ca").authority.as_str(), list.len()), ("itself", 2 + pki.leaves().count()));
    fs::remove_file(dir.path().join("pki/admin.crt")).unwrap();
    let list = survey(&inventory(""), &access(dir.path())).unwrap();
    let admin = list.iter().find(|kept| kept.id == "admin").unwrap();
    assert!(admin.description.is_none(), "a list makes nothing");
}

#[test]
fn names_that_change_are_told_as_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    at(&dir);
    let pki = ensure(&inventory("api_server_names = [\"lb\"]"), dir.path(), now()).unwrap();
    let told: Vec<_> = pki.issued.iter().map(|i| format!("{}: {}", i.id, i.reason)).collect();
    let expected =
        ["m-1", "m-2", "m-3"].map(|host| format!("apiserver.{host}: names or addresses changed"));
    assert_eq!(told, expected);
}
