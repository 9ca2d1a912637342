//! Through one and several jump hosts.

use std::process::Command;

use super::*;
use crate::execute::in_parallel;

fn facts(host: &mut dyn Host) -> Result<(), HostError> {
    host.facts(&FactsQuery::default(), None).map(drop)
}

/// Counts the logins that a server has let in, as it tells in its log.
fn logins(server: &Server) -> usize {
    let log = fs::read_to_string(server.directory.path().join("log")).unwrap();
    log.lines().filter(|line| line.contains("Accepted publickey")).count()
}

#[test]
fn a_host_is_reached_through_a_chain_of_jump_hosts() {
    let (outer, inner, server) = (Server::start(), Server::start(), Server::start());
    let target = Target { jumps: vec![outer.jump(), inner.jump()], ..server.target() };
    let (known, jumps) = (server.known(), Arc::default());
    let (mut host, _) = connect(&target, &known, &jumps).unwrap();
    facts(host.as_mut()).unwrap();
    // Many bytes both ways.
    let file = server.directory.path().join("large");
    let text: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let texts = host.read(std::slice::from_ref(&path)).unwrap();
    assert!(texts[&path] == text, "{} bytes of {}", texts[&path].len(), text.len());
    drop(host);
    // The key of each is kept.
    let kept = fs::read_to_string(known.file()).unwrap();
    for port in [outer.port, inner.port, server.port] {
        assert!(kept.contains(&format!("[127.0.0.1]:{port} ")), "{kept}");
    }
}

#[test]
fn many_hosts_share_a_few_sessions_with_a_jump_host() {
    // Of three logins under way, this jump host refuses the third.
    let jump = Server::with("MaxStartups 2:100:2\n");
    let server = Server::with("MaxStartups 100\n");
    let target = Target { jumps: vec![jump.jump()], ..server.target() };
    let (known, jumps) = (server.known(), Arc::default());
    let answers = in_parallel((0..24).collect::<Vec<_>>(), 24, |_| {
        let (mut host, _) = connect(&target, &known, &jumps)?;
        facts(host.as_mut())?;
        Ok::<_, HostError>(host)
    });
    let hosts: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(hosts.len(), 24);
    assert!((1..=4).contains(&logins(&jump)), "{} logins", logins(&jump));
}

#[test]
fn a_jump_host_that_cannot_be_used_is_named_for_each_host_and_asked_once() {
    let (jump, server) = (Server::start(), Server::start());
    let other = server.directory.path().join("user");
    // Its key file is one that the jump host does not let in.
    let shut = Jump { keys: vec![other], ..jump.jump() };
    let target = Target { jumps: vec![shut], ..server.target() };
    let (known, jumps) = (server.known(), Arc::<Jumps>::default());
    for _ in 0..2 {
        let error = connect(&target, &known, &jumps).map(drop).unwrap_err();
        let named = format!("127.0.0.1:{}", jump.port);
        assert!(matches!(&error, HostError::Jump { jump, source }
            if jump.ends_with(&named) && matches!(**source, HostError::Authentication { .. })));
    }
    let log = fs::read_to_string(jump.directory.path().join("log")).unwrap();
    assert_eq!(log.matches("Failed publickey").count(), 1, "{log}");

    let gone = Jump { port: free_port(), ..jump.jump() };
    let target = Target { jumps: vec![jump.jump(), gone.clone()], ..target };
    let (target, jumps) = (Target { ..target }, Arc::<Jumps>::default());
    jump.admit(&server);
    let error = connect(&target, &known, &jumps).map(drop).unwrap_err();
    let text = crate::execute::chain(&error);
    assert!(text.contains(&format!("127.0.0.1:{} through", gone.port)), "{text}");
}

#[test]
fn a_host_behind_a_jump_host_may_be_dead_and_others_are_not() {
    let (jump, server) = (Server::start(), Server::start());
    let with = |target: Target| Target { jumps: vec![jump.jump()], ..target };
    let (known, jumps) = (server.known(), Arc::<Jumps>::default());
    let dead = with(Target { port: free_port(), ..server.target() });
    let error = connect(&dead, &known, &jumps).map(drop).unwrap_err();
    assert!(matches!(error, HostError::Unreachable { .. }), "{error}");
    // One that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let connect_timeout = Duration::from_millis(300);
    let mute = with(Target { port, connect_timeout, ..server.target() });
    let error = connect(&mute, &known, &jumps).map(drop).unwrap_err();
    assert!(matches!(error, HostError::Handshake { .. }), "{error}");
    let (mut host, _) = connect(&with(server.target()), &known, &jumps).unwrap();
    facts(host.as_mut()).unwrap();
}

#[test]
fn a_jump_host_that_forbids_forwarding_is_told_of() {
    let (jump, server) = (Server::with("AllowTcpForwarding no\n"), Server::start());
    let target = Target { jumps: vec![jump.jump()], ..server.target() };
    let error = connect(&target, &server.known(), &Arc::default()).map(drop).unwrap_err();
    let text = format!("{} {}", crate::execute::chain(&error), error.advice());
    assert!(text.contains("prohibited") && text.contains("AllowTcpForwarding"), "{text}");
}

#[test]
fn a_session_that_broke_is_replaced() {
    let (mut jump, server) = (Server::start(), Server::start());
    let target = Target { jumps: vec![jump.jump()], ..server.target() };
    let (known, jumps) = (server.known(), Arc::<Jumps>::default());
    let (mut host, _) = connect(&target, &known, &jumps).unwrap();
    // The server's processes for present sessions go with it.
    let children = format!("pkill -P {}", jump.child.id());
    jump.child.kill().unwrap();
    jump.child.wait().unwrap();
    let _ = Command::new("sh").args(["-c", &children]).status();
    jump.child = Server::run(jump.directory.path(), jump.port, "");
    jump.wait();
    let _ = facts(host.as_mut());
    let (mut host, _) = connect(&target, &known, &jumps).unwrap();
    facts(host.as_mut()).unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
