use super::*;
use crate::digest::Digest;
use crate::facts::{FactsQuery, script};
use proptest::prelude::*;

const ANSWER: &str = r#"Welcome to host n1
=clock 1700000012.500000000
=uid 0
=kernel 6.1.0-28-amd64
=arch x86_64
=systemd
=os PRETTY_NAME "Debian GNU/Linux 12 (bookworm)"
=os VERSION_ID "12"
=os ID debian
=lacks ss
=disk 1024 /
=path regular file|600|root:root|3|/etc/a
=path directory|755|root:root|4096|/var/lib/etcd
=path symbolic link|777|root:root|7|/etc/l
=link /etc/l|target
=sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  /etc/a
=empty /var/lib/etcd
=unit Id=etcd.service
=unit LoadState=loaded
=unit ActiveState=active
=unit UnitFileState=enabled
=unit NeedDaemonReload=no
=unit 
=unit Id=kubelet.service
=unit LoadState=not-found
=unit ActiveState=inactive
=sysctl net.ipv4.tcp_rmem 4096	131072	6291456
=module vxlan unknown
=listen tcp 2379 etcd.service etcd
=listen udp 8472 - -
=docker running 20.10.24
=image sha256:aa kprov/pause:1
=started etcd.service ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
=staged
=end
"#;

#[test]
fn an_answer_gives_facts() {
    let facts = parse(ANSWER, 1_700_000_000_000).unwrap();
    assert_eq!(facts.clock_skew_ms, 12_500);
    assert_eq!(facts.os.pretty_name, "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(facts.disk_free["/"], 1 << 20);
    let abc = Digest::of(b"abc");
    let (mode, owner) = (Mode(0o600), Owner::root());
    assert_eq!(facts.paths["/etc/a"], PathFact::File { mode, owner, sha256: Some(abc), len: 3 });
    assert_eq!(facts.paths["/etc/l"], PathFact::Link { target: "target".to_owned() });
    assert!(matches!(facts.paths["/var/lib/etcd"], PathFact::Directory { empty: true, .. }));
    assert!(facts.is_active("etcd.service") && !facts.is_active("kubelet.service"));
    assert_eq!(facts.units["kubelet.service"].load, "not-found");
    assert_eq!(facts.sysctls["net.ipv4.tcp_rmem"], "4096 131072 6291456");
    assert_eq!(facts.listeners[0].unit.as_deref(), Some("etcd.service"));
    assert_eq!((facts.listeners[1].port, &facts.listeners[1].program), (8472, &None));
    assert_eq!(facts.docker, DockerFact::Running { version: "20.10.24".to_owned() });
    assert_eq!(facts.started["etcd.service"], abc);
    assert!(facts.staged);
}

#[test]
fn a_refusal_is_no_facts() {
    let check = |output: &str, expected: &str| {
        assert_eq!(parse(output, 0).unwrap_err().to_string(), expected);
    };
    check("=uid 0\n=locked ann@desk pid 7\n4711\n", LOCKED);
    check("=uid 0\n=locked \n", "locked by a process that did not say who it is");
    check("=uid 1000\n=end\n", "commands run as user 1000 instead of root");
    check(
        "sudo: a password is required\n",
        "the facts command did not answer: sudo: a password is required",
    );
}

const LOCKED: &str = "locked by ann@desk pid 7 (holding process 4711 on the host)";

#[test]
fn a_record_of_a_newer_format_is_refused() {
    let json = Record { format: FORMAT + 1, ..Record::new("lab", "n1") }.to_json();
    let facts = parse(&format!("=uid 0\n=record {json}\n=end\n"), 0).unwrap();
    assert!(facts.record.is_none() && facts.record_error.is_some());
}

/// The real script on this machine: whatever it prints, the reader understands.
#[test]
fn the_script_answers_on_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a file");
    std::fs::write(&file, "abc").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let mut query = FactsQuery::default();
    query.paths.insert(path.clone());
    query.hashed.insert(path.clone());
    query.sysctls.insert("net.ipv4.ip_forward".to_owned());
    let text = script(&query, None);
    let output = std::process::Command::new("sh").args(["-c", &text]).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap().replace("=uid 1", "=uid 0");
    let facts = parse(&output, 0).unwrap();
    assert!(
        matches!(&facts.paths[&path], PathFact::File { sha256, len: 3, .. }
            if *sha256 == Some(Digest::of(b"abc"))),
        "{output}"
    );
    assert!(!facts.kernel.is_empty() && !facts.disk_free.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_output_makes_the_reader_panic(text in "(=[a-z]{2,8}[ |a-z0-9./=]{0,30}\n|.{0,20}\n){0,20}") {
        let _ = parse(&text, 0);
    }
}

#[test]
fn a_firewall_and_what_it_lets_through_are_told() {
    let mark = "kprov-0123456789ab";
    let text = format!(
        "=uid 0\n=firewall nftables\n=firewall-guarded\n=chain input inet filter input\n\
         =chain forward inet filter forward\n=permanent {mark}\n=runtime {mark}\n=end\n"
    );
    let facts = parse(&text, 0).unwrap();
    let firewall = facts.firewall.unwrap();
    assert_eq!(firewall.kind, FirewallKind::Nftables);
    assert!(facts.firewall_guarded && firewall.has(mark));
    assert_eq!(firewall.input, ["inet filter input".to_owned()].into());
    assert_eq!(firewall.forward, ["inet filter forward".to_owned()].into());

    let text = "=uid 0\n=firewall firewalld\n=zone internal\n=runtime internal rule x\n=end\n";
    let firewall = parse(text, 0).unwrap().firewall.unwrap();
    assert_eq!(firewall.zone, "internal");
    assert!(firewall.runtime.contains("internal rule x") && !firewall.has("internal rule x"));

    let text = "=uid 0\n=firewall ufw\n=permanent allow tcp 1 0.0.0.0/0 any 10.0.0.1 in\n=end\n";
    let firewall = parse(text, 0).unwrap().firewall.unwrap();
    assert!(firewall.has("allow tcp 1 0.0.0.0/0 any 10.0.0.1 in"));
}

#[test]
fn how_a_host_is_prepared_is_told() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = format!(
        "=uid 0\n=manager dnf\n=manager yum\n=package curl\n=packages-unfinished\n\
         =swap /dev/sda2\n=swap fstab:UUID=1\n=selinux\n=mislabelled /etc/a b\n\
         =time-service chronyd\n=container docker\n=block {abc} /etc/hosts\n=end\n"
    );
    let facts = parse(&text, 0).unwrap();
    assert_eq!(facts.managers, [PackageManager::Dnf, PackageManager::Yum].into());
    assert!(facts.packages.contains("curl") && facts.packages_unfinished);
    assert_eq!(facts.swaps, ["/dev/sda2".to_owned(), "fstab:UUID=1".to_owned()].into());
    assert!(facts.selinux_enforcing && facts.mislabelled.contains("/etc/a b"));
    assert_eq!(facts.time_service.as_deref(), Some("chronyd"));
    assert_eq!(facts.container.as_deref(), Some("docker"));
    assert_eq!(facts.blocks["/etc/hosts"], Digest::of(b"abc"));
}
