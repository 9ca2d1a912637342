//! A state directory whose secrets are sealed.

use std::path::Path;

use super::*;

fn access<'a>(dir: &'a Path, passphrase: Option<&'a Secret>) -> Access<'a> {
    Access { dir, passphrase }
}

fn in_clear(dir: &TempDir) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.path().join("pki")).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if text.contains("PRIVATE KEY") || (name == "bootstrap-token" && !vault::is_sealed(&text)) {
            names.push(name);
        }
    }
    names.sort();
    names
}

#[test]
fn all_secrets_are_sealed_and_only_the_passphrase_opens_them() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = one_host("");
    // Made in clear by a version or an operator that had none.
    let before = ensure(&inventory, dir.path(), now()).unwrap();
    assert_eq!(in_clear(&dir).len(), before.leaves().count() + 4);
    let passphrase = Secret::new("correct horse");
    let open = |passphrase| ensure_in(&inventory, &access(dir.path(), passphrase), now());
    let sealed = open(Some(&passphrase)).unwrap();
    assert_eq!(in_clear(&dir), [""; 0]);
    assert!(is_sealed(dir.path()));
    assert_eq!(sealed, Pki { issued: Vec::new(), ..before });

    let other = Secret::new("battery staple");
    let wrong = open(Some(&other)).unwrap_err().to_string();
    assert!(wrong.starts_with("this is not the passphrase of"), "{wrong}");
    let none = open(None).unwrap_err().to_string();
    assert!(none.ends_with("is sealed with a passphrase, and none was given"), "{none}");

    // What is renewed is sealed as well.
    let access = access(dir.path(), Some(&passphrase));
    renew(&inventory, &access, days(1), &|_, _| true).unwrap();
    assert_eq!(in_clear(&dir), [""; 0]);
    // A sealed key under another name is noticed.
    let at = |name: &str| dir.path().join("pki").join(name);
    fs::copy(at("admin.key"), at("ca.key")).unwrap();
    let error = ensure_in(&inventory, &access, now()).unwrap_err().to_string();
    assert!(error.contains("ca.key is damaged"), "{error}");
}

#[test]
fn unsealing_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = Secret::new("p");
    let inventory = one_host("");
    let access = access(dir.path(), Some(&passphrase));
    let sealed = ensure_in(&inventory, &access, now()).unwrap();
    let count = unseal(&access).unwrap();
    assert_eq!((count, is_sealed(dir.path())), (sealed.leaves().count() + 4, false));
    let open = ensure(&inventory, dir.path(), now()).unwrap();
    assert_eq!(Pki { issued: sealed.issued.clone(), ..open }, sealed);
}
