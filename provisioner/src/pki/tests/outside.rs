//! Authorities from outside: requested, imported, named by the inventory, refused.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::*;

fn access(dir: &Path) -> Access<'_> {
    Access { dir, passphrase: None }
}

/// An authority's certificate and key, changed by `edit`.
fn authority(edit: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "company CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    leaf::set_validity(&mut params, now(), 100);
    edit(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn written(dir: &TempDir, (cert, key): &(String, String)) -> String {
    fs::write(dir.path().join("own.crt"), cert).unwrap();
    fs::write(dir.path().join("own.key"), key).unwrap();
    let at = dir.path().display();
    format!("ca = {{ cert = \"{at}/own.crt\", key = \"{at}/own.key\" }}")
}

#[test]
fn a_request_signed_elsewhere_becomes_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(&inventory(""), &access(dir.path()), Which::Cluster).unwrap();
    let again = super::request(&inventory(""), &access(dir.path()), Which::Cluster).unwrap();
    let key_of = |csr: &str| {
        let params = CertificateSigningRequestParams::from_pem(csr).unwrap();
        rcgen::PublicKeyData::subject_public_key_info(&params.public_key)
    };
    assert_eq!(key_of(&request), key_of(&again), "the key is made once");

    let (root, root_key) = authority(|_| {});
    let root_key = KeyPair::from_pem(&root_key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&root, root_key).unwrap();
    let mut csr = CertificateSigningRequestParams::from_pem(&request).unwrap();
    csr.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    leaf::set_validity(&mut csr.params, now(), 90);
    let signed = csr.signed_by(&issuer).unwrap().pem();
    let file = dir.path().join("signed.crt");
    // With its chain behind it, as authorities send it.
    fs::write(&file, format!("{signed}{root}")).unwrap();
    let waits = import(&access(dir.path()), Which::Cluster, &file, None, now()).unwrap();
    assert!(!waits);
    let pki = ensure(&inventory(""), dir.path(), now()).unwrap();
    let issued_by = parsed(&pki.cluster_ca.cert, |c| c.issuer().to_string());
    assert!(issued_by.contains("company CA"), "{issued_by}");
    assert_eq!(pem::parse_many(&pki.cluster_trust).unwrap().len(), 1, "the root is not trusted");
    assert!(pki.first_expiry().unwrap().1 <= days(90));
    assert!(!dir.path().join("pki/pending-ca.key").exists());
    let error = import(&access(dir.path()), Which::Cluster, &file, None, now()).unwrap_err();
    assert!(error.to_string().contains("there is no key for it"), "{error}");
}

#[test]
fn an_authority_for_a_cluster_that_has_one_waits_for_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let before = ensure(&inventory(""), dir.path(), now()).unwrap();
    let own = authority(|_| {});
    let named = written(&dir, &own);
    let error = ensure(&inventory(&named), dir.path(), now()).unwrap_err();
    assert!(matches!(error, PkiError::Other { authority: "cluster", .. }), "{error}");

    let (cert, key) = (dir.path().join("own.crt"), dir.path().join("own.key"));
    let waits = import(&access(dir.path()), Which::Cluster, &cert, Some(&key), now()).unwrap();
    assert!(waits);
    assert_eq!(ensure(&inventory(""), dir.path(), now()).unwrap().cluster_ca, before.cluster_ca);
    begin(&inventory(""), &access(dir.path()), Which::Cluster, now()).unwrap();
    advance(&access(dir.path())).unwrap();
    // Named or not: while the rotation lasts, it is what counts.
    for more in ["", named.as_str()] {
        let pki = ensure(&inventory(more), dir.path(), now()).unwrap();
        let subject = parsed(&pki.cluster_ca.cert, |c| c.subject().to_string());
        assert!(subject.contains("company CA"), "{subject}");
    }
}

#[test]
fn an_unfit_authority_is_refused_by_name_before_anything_is_made() {
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let unfit: [(&str, (String, String)); 6] = [
        ("it ran out at", authority(|p| _ = leaf::set_validity(p, days(-400), 100))),
        ("it is not valid before", authority(|p| _ = leaf::set_validity(p, days(40), 100))),
        ("do not say CA:TRUE", authority(|p| p.is_ca = IsCa::NoCa)),
        (
            "does not allow it to sign",
            authority(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        ),
        ("is not the one that belongs to it", (authority(|_| {}).0, other_key)),
        ("it is no certificate", ("nonsense".to_owned(), authority(|_| {}).1)),
    ];
    for (words, own) in unfit {
        let dir = tempfile::tempdir().unwrap();
        let named = written(&dir, &own);
        let state = dir.path().join("state");
        let error = ensure(&inventory(&named), &state, now()).unwrap_err().to_string();
        assert!(error.contains("own.crt cannot be the cluster authority"), "{error}");
        assert!(error.contains(words), "{error}");
        assert_eq!(fs::read_dir(state.join("pki")).unwrap().count(), 0, "{words}");
    }
}

#[test]
fn a_named_authority_signs_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let named = written(&dir, &authority(|_| {}));
    let pki = ensure(&inventory(&named), &dir.path().join("state"), now()).unwrap();
    assert_eq!(pki.issued[0], Issued { id: "ca".to_owned(), reason: Reason::Given });
    let pki = ensure(&inventory(&named), &dir.path().join("state"), now()).unwrap();
    assert!(pki.issued.is_empty(), "{:?}", pki.issued);
}
