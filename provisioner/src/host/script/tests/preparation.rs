//! The functions that prepare a host, with programs of the test in the place of the host's own.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::distribution::PackageManager;
use crate::firewall::{FirewallChange, FirewallKind};

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_block_leaves_the_rest_of_its_file_as_it_was() {
    for original in [Some("a\nb\n"), Some("a\nno end"), Some(""), Some("\n"), None] {
        let sandbox = Sandbox::new();
        let path = sandbox.path("hosts");
        if let Some(original) = original {
            fs::write(&path, original).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let write = |text: &str| Step::WriteBlock { path: path.clone(), text: text.to_owned() };
        sandbox.ok(&[write("1.2.3.4 one\n")]);
        sandbox.ok(&[write("1.2.3.4 one\n5.6.7.8 it's \\two\n")]);
        let once = fs::read_to_string(&path).unwrap();
        sandbox.ok(&[write("1.2.3.4 one\n5.6.7.8 it's \\two\n")]);
        assert_eq!(fs::read_to_string(&path).unwrap(), once);
        assert!(once.starts_with(original.unwrap_or("")), "{once:?}");
        assert_eq!(once.matches("# kprov begin").count(), 1, "{once:?}");

        let mut query = FactsQuery::default();
        query.blocks.insert(path.clone());
        let digest = Digest::of(b"1.2.3.4 one\n5.6.7.8 it's \\two\n");
        let said = sandbox.facts(&query);
        assert!(said.contains(&format!("=block {digest} {path}\n")), "{said}");

        let existed = original.is_some();
        sandbox.ok(&[Step::RemoveBlock { path: path.clone(), existed }]);
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), original);
        if existed {
            assert_eq!(mode(&path), 0o640);
        }
        let left = fs::read_dir(sandbox.directory.path()).unwrap().count();
        // The run and its own directory, in which it has noted its generation.
        assert_eq!(left, 2 + usize::from(existed), "leftovers");
    }
}

#[test]
fn lines_that_came_after_a_block_stay() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("hosts");
    fs::write(&path, "no end").unwrap();
    sandbox.ok(&[Step::WriteBlock { path: path.clone(), text: "x\n".to_owned() }]);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}theirs\n")).unwrap();
    sandbox.ok(&[Step::RemoveBlock { path: path.clone(), existed: true }]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "no end\ntheirs\n");
}

#[test]
fn swap_goes_off_for_good_and_comes_back() {
    let sandbox = Sandbox::new();
    let (fstab, swaps) = (sandbox.moved_file("/etc/fstab"), sandbox.moved_file("/proc/swaps"));
    let original = "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n# /dev/x none swap\n";
    fs::write(&fstab, original).unwrap();
    fs::write(&swaps, "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n").unwrap();
    sandbox.program("swapoff", "echo \"swapoff $*\" >>$LOG");
    sandbox.program("swapon", "echo \"swapon $*\" >>$LOG");
    let query = FactsQuery { swap: true, ..FactsQuery::default() };
    let said = sandbox.facts(&query);
    assert!(said.contains("=swap /dev/sda2\n=swap fstab:UUID=2\n"), "{said}");
    let all = set(&["/dev/sda2", "fstab:UUID=2"]);
    sandbox.ok(&[Step::SwapOff { swaps: all.clone() }]);
    assert!(fs::read_to_string(&fstab).unwrap().contains("\n#kprov# UUID=2 none swap sw 0 0\n"));
    fs::write(&swaps, "Filename Type Size Used Priority\n").unwrap();
    assert!(!sandbox.facts(&query).contains("=swap"));
    sandbox.ok(&[Step::SwapOff { swaps: all.clone() }]);
    sandbox.ok(&[Step::SwapOn { swaps: all }]);
    assert_eq!(fs::read_to_string(&fstab).unwrap(), original);
    assert_eq!(sandbox.log(), "swapoff -- /dev/sda2\nswapon -- /dev/sda2\n");
}

/// Programs of Debian that keep a list of packages in a file.
fn with_packages(sandbox: &Sandbox) -> PathBuf {
    let list = sandbox.directory.path().join("installed");
    fs::write(&list, "curl\nlibc6\n").unwrap();
    let file = list.display();
    sandbox.program("dpkg-query", &format!("sed 's/^/install ok installed /' {file}"));
    sandbox.program("iptables", "echo '-P FORWARD ACCEPT'");
    sandbox.program(
        "apt-get",
        &format!(
            "case \"$*\" in *install*) echo runc >>{file}; [ ! -f $LOG.broken ] || exit 100; \
             for p; do :; done; echo $p >>{file} ;; esac"
        ),
    );
    let purge = format!(
        "case $1 in --purge) shift; for p; do echo \"purge $p\" >>$LOG; sed -i \"/^$p\\$/d\" \
         {file}; done ;; esac"
    );
    sandbox.program("dpkg", &purge);
    sandbox.program("systemctl", ":");
    list
}

#[test]
fn only_packages_that_came_with_ours_are_removed() {
    let sandbox = Sandbox::new();
    let list = with_packages(&sandbox);
    let manager = PackageManager::Apt;
    let install =
        [Step::InstallPackages { manager, packages: set(&["docker.io"]), files: BTreeMap::new() }];
    // Broken off in the middle, with some of them there.
    fs::write(sandbox.directory.path().join("run/log.broken"), "").unwrap();
    assert_ne!(sandbox.run(OWNER, &install).0, 0);
    assert!(sandbox.facts(&FactsQuery::default()).contains("=packages-unfinished\n"));
    fs::remove_file(sandbox.directory.path().join("run/log.broken")).unwrap();
    sandbox.ok(&install);
    assert!(!sandbox.facts(&FactsQuery::default()).contains("=packages-unfinished\n"));
    assert_eq!(fs::read_to_string(sandbox.kept("packages")).unwrap(), "docker.io\nrunc\n");
    // What the operator installs later is the operator's.
    let now = fs::read_to_string(&list).unwrap();
    fs::write(&list, format!("{now}vim\n")).unwrap();
    sandbox.ok(&[Step::RemovePackages { manager }]);
    assert_eq!(fs::read_to_string(&list).unwrap(), "curl\nlibc6\nvim\n");
    assert_eq!(sandbox.log(), "purge docker.io\npurge runc\n");
    sandbox.ok(&[Step::RemovePackages { manager }]);
}

#[test]
fn packages_of_a_bundle_are_installed_from_their_files_alone() {
    let sandbox = Sandbox::new();
    let list = with_packages(&sandbox);
    sandbox.program("apt-get", "echo \"apt-get $*\" >>$LOG; exit 100");
    let install = format!(
        "echo \"dpkg $*\" >>$LOG; case \"$*\" in *--install*) for p; do case $p in *.deb) p=${{p##*/}}; \
         echo \"${{p%%_*}}\" >>{};; esac; done ;; esac",
        list.display()
    );
    sandbox.program("dpkg", &install);
    let digest = Digest::of(b"package");
    fs::create_dir_all(sandbox.kept("staging")).unwrap();
    fs::write(sandbox.kept(&format!("staging/{digest}")), "package").unwrap();
    let file = "docker.io_1_amd64.deb";
    sandbox.ok(&[Step::InstallPackages {
        manager: PackageManager::Apt,
        packages: set(&["docker.io"]),
        files: [(file.to_owned(), digest)].into(),
    }]);
    let log = sandbox.log();
    assert!(log.contains("--install") && log.contains(file) && !log.contains("apt-get"), "{log}");
    let kept = sandbox.kept(&format!("staging/packages/{file}"));
    assert_eq!(fs::read_to_string(kept).unwrap(), "package");
}

#[test]
fn a_package_that_does_not_come_is_named() {
    let sandbox = Sandbox::new();
    with_packages(&sandbox);
    sandbox.program("apt-get", ":");
    let step = Step::InstallPackages {
        manager: PackageManager::Apt,
        packages: set(&["docker.io"]),
        files: BTreeMap::new(),
    };
    let (code, output) = sandbox.run(OWNER, &[step]);
    assert_ne!(code, 0);
    assert!(output.contains("apt-get did not install docker.io\n"), "{output}");
}

const IPTABLES: &str = "INPUT -s 10.0.0.1/32 -p tcp -m tcp --dport 2379 -m comment --comment \
                        kprov-0123456789ab -j ACCEPT";

/// A program that keeps its rules in a file.
fn with_iptables(sandbox: &Sandbox) -> (String, PathBuf) {
    let saved = "# theirs\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j RETURN\nCOMMIT\n\
                 *filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n-A INPUT -j REJECT\nCOMMIT\n";
    let file = sandbox.moved_file("/etc/sysconfig/iptables");
    fs::write(&file, saved).unwrap();
    let live = sandbox.directory.path().join("live");
    fs::write(&live, "INPUT -j REJECT\n").unwrap();
    let text = format!(
        "L={}\n[ \"$1\" = -w ] && shift; op=$1; shift\ncase $op in\n\
         -C) grep -qxF -- \"$*\" $L ;;\n-I) {{ echo \"$*\"; cat $L; }} >$L.new; mv $L.new $L ;;\n\
         -D) grep -qxF -- \"$*\" $L || exit 1; grep -vxF -- \"$*\" $L >$L.new; mv $L.new $L ;;\n\
         -S) sed 's/^/-A /' $L ;;\nesac",
        live.display()
    );
    sandbox.program("iptables", &text);
    (file, live)
}

fn rules(kind: FirewallKind, rules: &[&str]) -> FirewallChange {
    FirewallChange::Rules { kind, open: set(rules), close: BTreeSet::new() }
}

#[test]
fn rules_of_iptables_hold_now_and_at_the_next_start_and_go_without_a_trace() {
    let sandbox = Sandbox::new();
    let (file, live) = with_iptables(&sandbox);
    let (saved, ran) = (fs::read_to_string(&file).unwrap(), fs::read_to_string(&live).unwrap());
    let open = rules(FirewallKind::Iptables, &[IPTABLES]);
    let steps = [Step::ChangeFirewall { change: open.clone() }];
    sandbox.ok(&steps);
    sandbox.ok(&steps);
    let expected =
        saved.replace(":FORWARD DROP [0:0]\n", &format!(":FORWARD DROP [0:0]\n-A {IPTABLES}\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(fs::read_to_string(&live).unwrap(), format!("{IPTABLES}\n{ran}"));
    sandbox.program("systemctl", "[ \"$3\" = iptables ]");
    let said = sandbox.facts(&FactsQuery { firewall: true, ..FactsQuery::default() });
    let mark = "kprov-0123456789ab";
    assert!(said.contains("=firewall iptables\n"), "{said}");
    assert!(said.contains(&format!("=permanent {mark}\n=runtime {mark}\n")), "{said}");
    sandbox.ok(&[Step::ChangeFirewall { change: open.inverse() }]);
    sandbox.ok(&[Step::ChangeFirewall { change: open.inverse() }]);
    assert_eq!(fs::read_to_string(&file).unwrap(), saved);
    assert_eq!(fs::read_to_string(&live).unwrap(), ran);
}

#[test]
fn a_file_of_iptables_without_a_filter_table_is_an_error() {
    let sandbox = Sandbox::new();
    let (file, _) = with_iptables(&sandbox);
    fs::write(&file, "*nat\nCOMMIT\n").unwrap();
    let change = rules(FirewallKind::Iptables, &[IPTABLES]);
    let (code, output) = sandbox.run(OWNER, &[Step::ChangeFirewall { change }]);
    assert_ne!(code, 0);
    assert!(output.contains("iptables has no table called filter"), "{output}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "*nat\nCOMMIT\n");
}

#[test]
fn rules_of_nftables_are_found_by_their_marks() {
    let sandbox = Sandbox::new();
    let file = sandbox.moved_file("/etc/nftables.conf");
    fs::write(&file, "flush ruleset\ninclude \"x\"\n").unwrap();
    let live = sandbox.directory.path().join("live");
    fs::write(&live, "").unwrap();
    let text = format!(
        "L={}\ncase $1 in\ninsert) shift 5; echo \"$* # handle 7\" >>$L ;;\n\
         delete) [ \"$3 $4 $5 $7\" = 'inet filter input 7' ] && : >$L ;;\n-a) cat $L ;;\nesac",
        live.display()
    );
    sandbox.program("nft", &text);
    let rule = "inet filter input ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport 2379 accept comment \
                \"kprov-0123456789ab\"";
    let open = rules(FirewallKind::Nftables, &[rule]);
    let steps = [Step::ChangeFirewall { change: open.clone() }];
    sandbox.ok(&steps);
    sandbox.ok(&steps);
    let expected = format!("flush ruleset\ninclude \"x\"\ninsert rule {rule}\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    let ran = fs::read_to_string(&live).unwrap();
    assert_eq!(ran.matches("kprov-").count(), 1, "{ran}");
    sandbox.ok(&[Step::ChangeFirewall { change: open.inverse() }]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "flush ruleset\ninclude \"x\"\n");
    assert_eq!(fs::read_to_string(&live).unwrap(), "");
}

#[test]
fn rules_of_ufw_are_told_in_its_own_words() {
    let sandbox = Sandbox::new();
    sandbox.program("ufw", "echo \"ufw $*\" >>$LOG");
    let texts = [
        "allow gre any 0.0.0.0/0 any 10.0.0.1 in",
        "allow tcp 2379 0.0.0.0/0 any 10.0.0.0/30 in",
        "route:allow any any 10.244.0.0/16 any 0.0.0.0/0 in",
    ];
    let open = rules(FirewallKind::Ufw, &texts);
    sandbox.ok(&[Step::ChangeFirewall { change: open.clone() }]);
    sandbox.ok(&[Step::ChangeFirewall { change: open.inverse() }]);
    let off = FirewallChange::Switch { kind: FirewallKind::Ufw, on: false };
    sandbox.ok(&[Step::ChangeFirewall { change: off }]);
    insta::assert_snapshot!(sandbox.log(), @r"
    ufw allow proto gre from 10.0.0.1 to 0.0.0.0/0 comment kprov
    ufw allow proto tcp from 10.0.0.0/30 to 0.0.0.0/0 port 2379 comment kprov
    ufw route allow from 0.0.0.0/0 to 10.244.0.0/16 comment kprov
    ufw delete allow proto gre from 10.0.0.1 to 0.0.0.0/0
    ufw delete allow proto tcp from 10.0.0.0/30 to 0.0.0.0/0 port 2379
    ufw route delete allow from 0.0.0.0/0 to 10.244.0.0/16
    ufw --force disable
    ");
}

#[test]
fn rules_of_firewalld_go_with_one_call_a_zone_and_pods_have_their_own() {
    let sandbox = Sandbox::new();
    sandbox.program("firewall-cmd", "echo \"$*\" >>$LOG");
    let texts = [
        "public rule family=\"ipv4\" port port=\"6443\" protocol=\"tcp\" accept",
        "public rule family=\"ipv4\" port port=\"10250\" protocol=\"tcp\" accept",
        "kprov zone 10.244.0.0/16",
    ];
    let change = rules(FirewallKind::Firewalld, &texts);
    sandbox.ok(&[Step::ChangeFirewall { change }]);
    insta::assert_snapshot!(sandbox.log(), @r#"
    --state
    --permanent --get-zones
    --permanent --new-zone=kprov
    --permanent --zone=kprov --set-target=ACCEPT
    --permanent --zone=kprov --add-rich-rule=rule family="ipv4" port port="2379-2380" protocol="tcp" reject
    --permanent --zone=kprov --add-rich-rule=rule family="ipv4" port port="10250" protocol="tcp" reject
    --permanent --zone=kprov --add-source=10.244.0.0/16
    --reload
    --state
    --permanent --zone=public --list-all
    --permanent --zone=public --add-rich-rule=rule family="ipv4" port port="10250" protocol="tcp" accept --add-rich-rule=rule family="ipv4" port port="6443" protocol="tcp" accept
    --zone=public --add-rich-rule=rule family="ipv4" port port="10250" protocol="tcp" accept --add-rich-rule=rule family="ipv4" port port="6443" protocol="tcp" accept
    "#);
}

/// systemd as far as a timer goes: it is armed by a file.
fn with_timer(sandbox: &Sandbox) -> PathBuf {
    let armed = sandbox.directory.path().join("armed");
    let file = armed.display();
    let text = format!("case $1 in is-active) [ -f {file} ] ;; stop) rm -f {file} ;; esac");
    sandbox.program("systemctl", &text);
    sandbox.program("systemd-run", &format!("for p; do :; done; echo $p >{file}"));
    armed
}

#[test]
fn an_unconfirmed_change_is_taken_back_by_the_timer() {
    let sandbox = Sandbox::new();
    let (file, live) = with_iptables(&sandbox);
    let before = [fs::read_to_string(&file).unwrap(), fs::read_to_string(&live).unwrap()];
    let armed = with_timer(&sandbox);
    let other = IPTABLES.replace("2379", "2380").replace("0123", "4567");
    // Two runs, both killed before they confirmed.
    for rule in [IPTABLES, &other] {
        let change = rules(FirewallKind::Iptables, &[rule]);
        let guard = Step::GuardFirewall { undo: vec![change.inverse()] };
        sandbox.ok(&[guard, Step::ChangeFirewall { change }]);
    }
    let undo = fs::read_to_string(&armed).unwrap();
    assert_eq!(undo.trim(), sandbox.kept("firewall-undo.sh").to_str().unwrap());
    assert!(fs::read_to_string(&live).unwrap().contains("--dport 2380"));
    let status = Command::new("sh").arg(undo.trim()).status().unwrap();
    assert!(status.success());
    assert_eq!(before, [fs::read_to_string(&file).unwrap(), fs::read_to_string(&live).unwrap()]);
    assert!(!sandbox.kept("firewall-undo.sh").exists());
}

#[test]
fn a_confirmation_disarms_the_timer_and_comes_never_too_late() {
    let sandbox = Sandbox::new();
    let armed = with_timer(&sandbox);
    let confirm = || {
        let script = sandbox.moved(&confirm(&CLAIM));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = confirm();
    assert!(said.contains("nobody confirmed the change of the firewall in time"), "{said}");
    sandbox.ok(&[Step::GuardFirewall { undo: Vec::new() }]);
    assert!(armed.exists() && sandbox.kept("firewall-undo.sh").exists());
    assert_eq!(confirm(), "=done\n");
    assert!(!armed.exists() && !sandbox.kept("firewall-undo.sh").exists());
}

#[test]
fn labels_that_are_wrong_are_told_by_both_kinds_of_restorecon() {
    let sandbox = Sandbox::new();
    sandbox.program("getenforce", "echo Enforcing");
    sandbox.program(
        "restorecon",
        "case $1 in -n)\necho 'Would relabel /etc/a b from x:y:z:s0 to x:u:z:s0'\n\
         echo 'restorecon reset /etc/c context x:y:z:s0->x:u:z:s0' ;;\n\
         *) echo \"$*\" >>$LOG ;; esac",
    );
    let mut query = FactsQuery::default();
    query.paths.extend(set(&["/etc/a b", "/etc/c"]));
    let said = sandbox.facts(&query);
    assert!(said.contains("=selinux\n"), "{said}");
    assert!(said.contains("=mislabelled /etc/a b\n=mislabelled /etc/c\n"), "{said}");
    sandbox.ok(&[Step::Relabel { path: "/etc/a b".to_owned() }]);
    assert_eq!(sandbox.log(), "-F -- /etc/a b\n");
}

#[test]
fn a_package_that_others_need_by_now_stays() {
    let sandbox = Sandbox::new();
    let list = sandbox.directory.path().join("installed");
    fs::write(&list, "containerd\ncurl\ndocker\nrunc\nuser\n").unwrap();
    fs::create_dir_all(sandbox.kept("")).unwrap();
    fs::write(sandbox.kept("packages"), "containerd\ndocker\nrunc\n").unwrap();
    // docker needs containerd, and something of the operator's needs runc.
    let text = format!(
        "L={}\ncase $1 in\n-qa) cat $L ;;\n-q) grep -qxF -- \"$3\" $L ;;\n-e) shift\n\
         case \" $* \" in *' runc '*) exit 1 ;; *' containerd '*) ! grep -qx docker $L || exit 1 ;; esac\n\
         for p; do sed -i \"/^$p\\$/d\" $L; done ;;\nesac",
        list.display()
    );
    sandbox.program("rpm", &text);
    sandbox.program("systemctl", ":");
    let output = sandbox.ok(&[Step::RemovePackages { manager: PackageManager::Dnf }]);
    assert_eq!(fs::read_to_string(&list).unwrap(), "curl\nrunc\nuser\n");
    assert!(output.contains("=note kept packages that others need: runc \n"), "{output}");
}
