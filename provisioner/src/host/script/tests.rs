//! The scripts themselves, run by this machine's shell with their directories moved to a
//! temporary one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::facts::{self, FactsQuery};
use crate::record::Record;
use crate::state::{Mode, Owner};

/// A host of one directory whose lock is held by a process of the test.
struct Sandbox {
    directory: tempfile::TempDir,
    holder: Child,
    owner: Owner,
}

const OWNER: &str = "ann@desk (it's a test)";
const CLAIM: Claim<'_> = Claim { owner: OWNER, generation: 1 };

/// Files of a host that scripts name.
const FILES: [&str; 4] =
    ["/etc/sysconfig/iptables", "/etc/nftables.conf", "/etc/fstab", "/proc/swaps"];

mod preparation;

impl Sandbox {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("run")).unwrap();
        let holder = Command::new("sleep").arg("600").spawn().unwrap();
        let text = format!("{OWNER}\n{}\n", holder.id());
        fs::write(directory.path().join("run/owner"), text).unwrap();
        let names = Command::new("sh").args(["-c", "echo $(id -un):$(id -gn)"]).output().unwrap();
        let owner = Owner(String::from_utf8(names.stdout).unwrap().trim().to_owned());
        Self { directory, holder, owner }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// What kprov keeps.
    fn kept(&self, name: &str) -> PathBuf {
        self.directory.path().join("kept").join(name)
    }

    fn stage(&self, text: &str) -> Digest {
        let digest = Digest::of(text.as_bytes());
        fs::create_dir_all(self.kept("staging")).unwrap();
        fs::write(self.kept("staging").join(digest.to_string()), text).unwrap();
        digest
    }

    /// The script with its directories and files in the sandbox, where its programs are found
    /// before the machine's own.
    fn moved(&self, script: &str) -> String {
        let mut script =
            script.replace(DIRECTORY, &self.path("kept")).replace("/run/kprov", &self.path("run"));
        for file in FILES {
            script = script.replace(file, &self.file(file));
        }
        let programs = self.path("run/programs");
        script.replace("PATH=/usr/local/sbin", &format!("PATH={programs}:/usr/local/sbin"))
    }

    fn file(&self, path: &str) -> String {
        self.path(&format!("run/{}", path.trim_start_matches('/').replace('/', "_")))
    }

    /// Where the scripts look for a file of the host's.
    fn moved_file(&self, path: &str) -> String {
        assert!(FILES.contains(&path), "{path}");
        self.file(path)
    }

    /// Puts a shell script in the place of a program; `$LOG` is a file for it to write to.
    fn program(&self, name: &str, text: &str) {
        let programs = self.directory.path().join("run/programs");
        fs::create_dir_all(&programs).unwrap();
        let path = programs.join(name);
        let log = self.path("run/log");
        fs::write(&path, format!("#!/bin/sh\nLOG={log}\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What programs wrote.
    fn log(&self) -> String {
        fs::read_to_string(self.path("run/log")).unwrap_or_default()
    }

    /// What the facts script prints.
    fn facts(&self, query: &FactsQuery) -> String {
        let script = self.moved(&facts::script(query, None));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, owner: &str, todo: &[Step]) -> (i32, String) {
        let script = self.moved(&steps(&Claim { owner, generation: 1 }, todo));
        let mut child = Command::new("sh")
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn ok(&self, todo: &[Step]) -> String {
        let (code, output) = self.run(OWNER, todo);
        assert_eq!(code, 0, "{output}");
        assert!(output.ends_with("=done\n"), "{output}");
        output
    }

    fn install(&self, path: &str, text: &str, mode: u32) -> Step {
        let (mode, owner, sha256) = (Mode(mode), self.owner.clone(), self.stage(text));
        Step::Install { path: path.to_owned(), mode, owner, sha256 }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn mode(path: &str) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_links_and_directories_become_what_they_should_be() {
    let sandbox = Sandbox::new();
    let (directory, file) = (sandbox.path("it's a dir"), sandbox.path("it's a dir/file"));
    let link = sandbox.path("it's a dir/link");
    let make = Step::MakeDirectory {
        path: directory.clone(),
        mode: Mode(0o750),
        owner: sandbox.owner.clone(),
    };
    let target = "elsewhere $HOME".to_owned();
    let todo = [
        make,
        sandbox.install(&file, "new\n", 0o640),
        Step::Link { path: link.clone(), target: target.clone() },
        Step::Link { path: link.clone(), target: target.clone() },
    ];
    sandbox.ok(&todo);
    sandbox.ok(&todo);
    assert_eq!(mode(&directory), 0o750);
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("new\n", 0o640));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&target));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no leftovers");
}

#[test]
fn a_file_replaces_a_link_and_not_what_it_points_to() {
    let sandbox = Sandbox::new();
    let (theirs, path) = (sandbox.path("theirs"), sandbox.path("path"));
    fs::write(&theirs, "theirs").unwrap();
    symlink(&theirs, &path).unwrap();
    sandbox.ok(&[sandbox.install(&path, "ours", 0o600)]);
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}

#[test]
fn what_was_there_comes_back_with_mode_and_time() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("config");
    fs::write(&path, "theirs").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let before = fs::metadata(&path).unwrap();
    let sha256 = Some(Digest::of(b"theirs"));
    let prior = Prior::File { mode: Mode(0o604), owner: sandbox.owner.clone(), sha256 };
    sandbox.ok(&[Step::BackUp { path: path.clone() }, sandbox.install(&path, "ours", 0o600)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
    sandbox.ok(&[Step::Restore { path: path.clone(), prior }]);
    let after = fs::metadata(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
}

#[test]
fn only_empty_directories_of_ours_are_removed() {
    let sandbox = Sandbox::new();
    let (ours, shared) = (sandbox.path("ours"), sandbox.path("shared"));
    fs::create_dir(&ours).unwrap();
    fs::create_dir(&shared).unwrap();
    fs::write(format!("{shared}/theirs"), "").unwrap();
    let gone = |path: &str| Step::Restore { path: path.to_owned(), prior: Prior::Absent };
    let output = sandbox.ok(&[gone(&ours), gone(&shared), gone(&sandbox.path("never"))]);
    assert!(!Path::new(&ours).exists() && Path::new(&shared).exists());
    assert!(output.contains(&format!("=note kept {shared}: it holds theirs")), "{output}");
}

#[test]
fn data_goes_as_far_as_it_is_ours() {
    let sandbox = Sandbox::new();
    let make = |name: &str| {
        let path = sandbox.path(name);
        fs::create_dir_all(format!("{path}/deep/er")).unwrap();
        fs::write(format!("{path}/deep/file"), "x").unwrap();
        path
    };
    let (absent, empty, used) = (make("absent"), make("empty"), make("used"));
    let directory = |empty| {
        let owner = sandbox.owner.clone();
        Prior::Directory { mode: Mode(0o755), owner, empty }
    };
    let data = |path: &str, prior| Step::RemoveData { path: path.to_owned(), prior };
    sandbox.ok(&[
        data(&absent, Prior::Absent),
        data(&empty, directory(true)),
        data(&used, directory(false)),
    ]);
    assert!(!Path::new(&absent).exists());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    assert!(Path::new(&used).join("deep/file").exists());
}

#[test]
fn records_and_marks_are_written_whole() {
    let sandbox = Sandbox::new();
    let record = Record::new("lab 'quoted'", "n1");
    let inputs = Digest::of(b"inputs");
    let unit = || "etcd.service".to_owned();
    sandbox.ok(&[
        Step::WriteRecord { record: Box::new(record.clone()) },
        Step::MarkStarted { unit: unit(), inputs },
    ]);
    let json = fs::read_to_string(sandbox.kept("record.json")).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
    let mark = sandbox.kept("started/etcd.service");
    assert_eq!(fs::read_to_string(&mark).unwrap().trim(), inputs.to_string());
    assert_eq!(mode(mark.to_str().unwrap()), 0o600);
    sandbox.ok(&[Step::Forget { unit: unit() }]);
    assert!(!mark.exists());
}

#[test]
fn the_digest_of_a_large_file_is_kept_until_the_file_changes() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("large");
    let text = "x".repeat(1 << 20);
    sandbox.ok(&[sandbox.install(&path, &text, 0o755)]);
    let mut query = FactsQuery::default();
    query.paths.insert(path.clone());
    query.large.insert(path.clone());
    let script = sandbox.moved(&facts::script(&query, None));
    let digest = || {
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("=sha256 ")).unwrap();
        line.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(digest(), Digest::of(text.as_bytes()).to_string());
    // That it is the kept one shows when what is kept is wrong.
    let kept = fs::read_dir(sandbox.kept("digests")).unwrap().next().unwrap().unwrap().path();
    let lie = fs::read_to_string(&kept).unwrap().replace(&digest(), &"0".repeat(64));
    fs::write(&kept, lie).unwrap();
    assert_eq!(digest(), "0".repeat(64));
    fs::write(&path, "changed").unwrap();
    assert_eq!(digest(), Digest::of(b"changed").to_string());
}

#[test]
fn a_failure_stops_the_script_and_names_its_step() {
    let sandbox = Sandbox::new();
    let missing = Digest::of(b"never staged");
    let path = sandbox.path("never");
    let (mode, owner) = (Mode::PUBLIC, sandbox.owner.clone());
    let (code, output) = sandbox.run(
        OWNER,
        &[
            Step::ClearStaging,
            Step::Install { path: path.clone(), mode, owner, sha256: missing },
            Step::Link { path: sandbox.path("link"), target: "x".to_owned() },
        ],
    );
    assert_ne!(code, 0);
    assert!(output.contains("=step 1\n") && output.contains("=failed 1 "), "{output}");
    assert!(!output.contains("=step 2") && !Path::new(&path).exists());
}

#[test]
fn a_script_of_somebody_without_the_lock_does_nothing() {
    let mut sandbox = Sandbox::new();
    let path = sandbox.path("link");
    let todo = [Step::Link { path: path.clone(), target: "x".to_owned() }];
    assert_eq!(sandbox.run("bob@desk", &todo).0, LOCK_LOST);
    // The holder has died: its operator is gone, and so is the right to go on.
    sandbox.holder.kill().unwrap();
    sandbox.holder.wait().unwrap();
    assert_eq!(sandbox.run(OWNER, &todo).0, LOCK_LOST);
    assert!(fs::symlink_metadata(&path).is_err());
}

#[test]
fn a_script_cut_short_in_transit_does_nothing() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("link");
    let whole =
        sandbox.moved(&steps(&CLAIM, &[Step::Link { path: path.clone(), target: "x".into() }]));
    let end = whole.find("}\nmain").unwrap();
    let output = Command::new("sh").args(["-c", &whole[..end]]).output().unwrap();
    assert!(!output.status.success());
    assert!(fs::symlink_metadata(&path).is_err());
}

#[test]
fn every_step_is_valid_shell() {
    let text = |text: &str| text.to_owned();
    let unit = || text("etcd.service");
    let digest = Digest::of(b"");
    let switch = crate::firewall::FirewallChange::Switch {
        kind: crate::firewall::FirewallKind::Ufw,
        on: true,
    };
    let all = vec![
        Step::Sysctl { key: text("net.ipv4.ip_forward"), value: text("1") },
        Step::LoadModule { module: text("vxlan") },
        Step::UnloadModule { module: text("vxlan") },
        Step::Reload,
        Step::Enable { unit: unit() },
        Step::EnableQuietly { unit: unit() },
        Step::Disable { unit: unit() },
        Step::Start { unit: unit() },
        Step::Restart { unit: unit() },
        Step::Stop { unit: unit() },
        Step::LoadImage { reference: text("a/b:1"), archive: digest },
        Step::RemoveImage { reference: text("a/b:1") },
        Step::RemoveContainers,
        Step::RemoveNetwork,
        Step::ResetFailed,
        Step::ClearStaging,
        Step::RemoveRecord,
        Step::RemoveEngineNetwork,
        Step::InstallPackages {
            manager: crate::distribution::PackageManager::Yum,
            packages: [text("docker")].into(),
            files: [(text("a_1_all.deb"), digest)].into(),
        },
        Step::RemovePackages { manager: crate::distribution::PackageManager::Dnf },
        Step::SwapOff { swaps: [text("/dev/sda2")].into() },
        Step::SwapOn { swaps: [text("/dev/sda2")].into() },
        Step::WriteBlock { path: text("/etc/hosts"), text: text("it's\n") },
        Step::RemoveBlock { path: text("/etc/hosts"), existed: true },
        Step::Relabel { path: text("/etc/hosts") },
        Step::GuardFirewall { undo: vec![switch.clone()] },
        Step::ChangeFirewall { change: switch },
        Step::Restore { path: text("/x"), prior: Prior::Other },
    ];
    for script in [steps(&CLAIM, &all), unpack(&CLAIM), break_lock().to_owned()] {
        let status = Command::new("sh").args(["-n", "-c", &script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

/// A facts shell that takes the lock, as its operator sees it.
fn lock(sandbox: &Sandbox, owner: &str) -> (Child, String) {
    let request = facts::LockRequest { owner: owner.to_owned() };
    let script = sandbox.moved(&facts::script(&FactsQuery::default(), Some(&request)));
    let mut child =
        Command::new("sh").arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
    let mut output = String::new();
    for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        output.push_str(&line);
        output.push('\n');
        if line == "=end" {
            break;
        }
    }
    (child, output)
}

#[test]
fn the_lock_is_held_as_long_as_its_operator_lives() {
    let sandbox = Sandbox::new();
    let (mut ann, output) = lock(&sandbox, "ann@desk");
    assert!(output.ends_with("=end\n"), "{output}");
    let link = [Step::Link { path: sandbox.path("link"), target: "x".to_owned() }];
    assert_eq!(sandbox.run("ann@desk", &link).0, 0);

    let (mut bob, output) = lock(&sandbox, "bob@desk");
    assert!(output.ends_with(&format!("=locked ann@desk\n{}\n", ann.id())), "{output}");
    assert_eq!(bob.wait().unwrap().code(), Some(75));
    assert_eq!(sandbox.run("bob@desk", &link).0, LOCK_LOST);

    // The operator's end of the connection closes, in whatever way.
    drop(ann.stdin.take());
    ann.wait().unwrap();
    let (mut bob, output) = lock(&sandbox, "bob@desk");
    assert!(output.ends_with("=end\n"), "{output}");

    // Taking it away ends the holder, and its operator may do nothing more.
    let script = sandbox.moved(break_lock());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "=holder bob@desk\n");
    bob.wait().unwrap();
    let (mut eve, output) = lock(&sandbox, "eve@desk");
    assert!(output.ends_with("=end\n"), "{output}");
    assert_eq!(sandbox.run("bob@desk", &link).0, LOCK_LOST);
    assert_eq!(sandbox.run("eve@desk", &link).0, 0);
    drop(eve.stdin.take());
    eve.wait().unwrap();
}

#[test]
fn a_host_refuses_the_writes_of_a_generation_that_is_over() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("link");
    let todo = [Step::Link { path: path.clone(), target: "x".to_owned() }];
    let write = |generation| {
        let script = sandbox.moved(&steps(&Claim { owner: OWNER, generation }, &todo));
        Command::new("sh").args(["-c", &script]).output().unwrap().status.code()
    };
    assert_eq!(write(4), Some(0));
    assert_eq!(fs::read_to_string(sandbox.kept("fence")).unwrap(), "4\n");
    fs::remove_file(&path).unwrap();
    assert_eq!(write(3), Some(LOCK_LOST));
    assert!(!Path::new(&path).is_symlink());
    assert_eq!(write(5), Some(0));
    // Sending and commands are writes as well.
    let old = Claim { owner: OWNER, generation: 4 };
    let limit = Duration::from_secs(60);
    for script in [unpack(&old), command(&old, "true", limit), steps(&old, &[])] {
        let status = Command::new("sh").args(["-c", &sandbox.moved(&script)]).output().unwrap();
        assert_eq!(status.status.code(), Some(LOCK_LOST));
    }
}

#[test]
fn a_command_tells_its_code_and_is_killed_at_its_limit() {
    let sandbox = Sandbox::new();
    let run = |text: &str, seconds| {
        let script = sandbox.moved(&command(&CLAIM, text, Duration::from_secs(seconds)));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("echo 'it'\\''s'; exit 3", 60), "it's\n=code 3\n");
    let output = run("echo begun; sleep 600", 1);
    let code = output.lines().last().unwrap().strip_prefix("=code ").unwrap();
    assert!(output.starts_with("begun\n") && was_killed(code.parse().unwrap()), "{output}");
}

#[test]
fn the_holder_of_a_lock_and_the_fence_are_told_without_taking_it() {
    let sandbox = Sandbox::new();
    sandbox.ok(&[]);
    let text = sandbox.moved(&facts::script(&FactsQuery::default(), None));
    let output = Command::new("sh").args(["-c", &text]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("=fence 1\n") && text.contains(&format!("=holder {OWNER}\n")), "{text}");
    let facts = facts::parse(&text.replace("=uid", "=uid 0\n=was"), 0).unwrap();
    assert_eq!((facts.fence, facts.holder.as_deref()), (1, Some(OWNER)));
}
