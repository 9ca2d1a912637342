//! Pinned host keys, and private keys with passphrases.

use super::*;
use crate::secret::Secret;

fn pinned(server: &Server) -> Option<HostKey> {
    let text = fs::read_to_string(server.directory.path().join("host.pub")).unwrap();
    Some(text.parse().unwrap())
}

#[test]
fn a_host_may_show_the_pinned_key_alone() {
    let (server, other) = (Server::start(), Server::start());
    let policy = HostKeyPolicy::Strict;
    let target = Target { host_key: pinned(&server), policy, ..server.target() };
    drop(link(&target, &server.known()).unwrap());
    // Nothing was noted: what the inventory says is enough.
    assert!(!server.known().file().exists());
    let target = Target { host_key: pinned(&other), ..server.target() };
    let error = failure(link(&target, &server.known()));
    let HostError::HostKeyNotPinned { pinned, shown, .. } = &error else { panic!("{error}") };
    assert_eq!((pinned, shown), (&other.host_key(), &server.host_key()));
    assert!(error.advice().contains("`host_key`"));
}

/// Gives the user's key a passphrase.
fn lock(server: &Server, passphrase: &str) -> PathBuf {
    let path = server.directory.path().join("user");
    let mut command = Command::new("ssh-keygen");
    let status = command.args(["-q", "-p", "-P", "", "-N", passphrase, "-f"]).arg(&path).status();
    assert!(status.unwrap().success());
    path
}

#[test]
fn a_key_with_a_passphrase_needs_the_right_one() {
    let server = Server::start();
    let path = lock(&server, "right");
    let jumps = Arc::<Jumps>::default();
    assert_eq!(jumps.locked([&path, &path].into_iter()), std::slice::from_ref(&path));
    let attempt = |jumps: &Arc<Jumps>| connect(&server.target(), &server.known(), jumps).map(drop);
    let error = attempt(&jumps).unwrap_err();
    assert!(error.to_string().contains("it has a passphrase, and none was given"), "{error}");
    jumps.keep_passphrase(path.clone(), Secret::new("wrong"));
    let error = attempt(&jumps).unwrap_err();
    assert!(matches!(&error, HostError::Passphrase { path: named } if *named == path), "{error}");
    assert!(error.advice().contains("KPROV_SSH_PASSPHRASE"));
    jumps.keep_passphrase(path.clone(), Secret::new("right"));
    attempt(&jumps).unwrap();
    assert!(jumps.locked([&path].into_iter()).is_empty());
}
