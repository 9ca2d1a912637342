//! The lab itself, on a real Docker: boot, reach, break, compare, remove.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{ExecOptions, Fault, HostState, Lab, LabError, LabOptions, test_images};
use tokio::process::Command;

/// Runs a command over ssh as the sudo user, as kprov would.
async fn ssh(lab: &Lab, host: &str, command: &str) -> Result<String> {
    let address = lab.host(host)?.address;
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=3", "-o", "LogLevel=ERROR", "-i"])
        .arg(lab.ssh_key())
        .arg(format!("kprov@{address}"))
        .arg(command)
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(20), ssh.output())
        .await
        .context("ssh does not answer")??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn hosts_boot_and_are_removed_without_a_trace() -> Result<()> {
    let options = LabOptions::for_test("lab-test", 2);
    let lab = Lab::up(options).await?;
    let names: Vec<&str> = lab.hosts().iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["node-1", "node-2"]);
    assert_eq!(lab.hosts()[0].address, lab.subnet().host(0).context("a first address")?);

    // A user with sudo, a way to the other host, a Docker of its own, files that can be renamed.
    assert_eq!(ssh(&lab, "node-1", "hostname; sudo id --user").await?, "node-1\n0\n");
    ssh(&lab, "node-1", "ping -c 1 -W 2 node-2").await?;
    ssh(
        &lab,
        "node-1",
        "sudo sh -c 'cp /etc/hosts /etc/hosts.new && mv /etc/hosts.new /etc/hosts'",
    )
    .await?;
    assert_ne!(lab.host_keys("node-1").await?, lab.host_keys("node-2").await?);

    let prints = lab.host_key_fingerprints("node-1").await?;
    assert_eq!(prints.len(), 2, "an ecdsa and an ed25519 key");
    assert!(prints.iter().all(|print| print.starts_with("SHA256:")), "{prints:?}");

    let output = lab.exec("node-2", &["sh", "-c", "echo out; echo err >&2; exit 3"]).await?;
    assert_eq!(
        (output.status, output.stdout.as_str(), output.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    let options = ExecOptions { stdin: vec![b'x'; 1 << 20], ..ExecOptions::default() };
    let output = lab.exec_with("node-2", &["wc", "-c"], options).await?;
    assert_eq!(output.stdout.trim(), (1 << 20).to_string());
    let limit = ExecOptions { timeout: Duration::from_millis(100), ..ExecOptions::default() };
    let slow = lab.exec_with("node-2", &["sleep", "30"], limit).await;
    assert!(matches!(slow, Err(LabError::ExecTimeout { .. })), "{slow:?}");
    assert!(matches!(lab.exec("node-9", &["true"]).await, Err(LabError::NoHost { .. })));

    snapshots_see_what_changes(&lab).await?;
    containers_answer(&lab).await?;
    faults_come_and_go(&lab).await?;

    let lab = lab.grow(3).await?;
    assert_eq!(lab.hosts().len(), 3);
    let options = lab.options().clone();
    drop(lab);
    let gone = Lab::open(options).await;
    assert!(matches!(gone, Err(LabError::NoLab { .. })), "dropping the lab removes it");
    Ok(())
}

async fn snapshots_see_what_changes(lab: &Lab) -> Result<()> {
    let before = lab.snapshot("node-1").await?;
    let activations = lab.activations("node-1").await?;
    assert_eq!(before.diff(&lab.snapshot("node-1").await?), []);

    lab.put("node-1", "/etc/trace", 0o600, b"x").await?;
    lab.run("node-1", &["ip", "link", "add", "trace0", "type", "bridge"]).await?;
    lab.run("node-1", &["systemctl", "restart", "ssh.service"]).await?;
    let found = before.diff(&lab.snapshot("node-1").await?);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    for expected in ["+ files: f 600 root:root /etc/trace", "+ links: trace0: mtu 1500"] {
        assert!(found.iter().any(|line| line == expected), "{expected} in {found:#?}");
    }
    let restarted = lab.activations("node-1").await?;
    assert_ne!(activations["ssh.service"], restarted["ssh.service"]);
    assert_eq!(activations["docker.service"], restarted["docker.service"]);

    lab.run("node-1", &["rm", "/etc/trace"]).await?;
    lab.run("node-1", &["ip", "link", "delete", "trace0"]).await?;
    assert_eq!(before.diff(&lab.snapshot("node-1").await?), []);
    Ok(())
}

async fn containers_answer(lab: &Lab) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let images = test_images::write_all(&lab::workspace_root(), dir.path()).await?;
    lab.load_images("node-1", &images).await?;
    let run = ["docker", "run", "--detach", "--name=echo", "--publish=8080:8080"];
    lab.run("node-1", &[run.as_slice(), &["kprov.local/echo:2"]].concat()).await?;
    let url = format!("http://{}:8080/", lab.host("node-1")?.address);
    let curl = ["curl", "--silent", "--retry-connrefused", "--retry", "5", &url];
    assert!(lab.run("node-2", &curl).await?.contains(" version=2 path=/ "));
    let listing = "ls -l /bin/sh && cat /etc/passwd";
    let busybox = ["docker", "run", "--rm", "kprov.local/busybox:1", "sh", "-c", listing];
    assert!(lab.run("node-1", &busybox).await?.contains("/bin/busybox"));
    let stop = ["docker", "stop", "--time=20", "echo"];
    let start = std::time::Instant::now();
    lab.run("node-1", &stop).await?;
    ensure!(start.elapsed() < Duration::from_secs(10), "SIGTERM is heeded at once");
    Ok(())
}

async fn faults_come_and_go(lab: &Lab) -> Result<()> {
    // A paused host's kernel still answers pings; only its processes are silent.
    let greet = ["timeout", "1", "bash", "-c", "head -c 4 </dev/tcp/node-2/22"];
    for (fault, end) in [(Fault::Pause, Fault::Unpause), (Fault::Cut, Fault::Heal)] {
        lab.fault("node-2", fault).await?;
        let output = lab.exec("node-1", &greet).await?;
        assert_ne!(output.status, 0, "{fault:?}: {output}");
        lab.fault("node-2", end).await?;
        lab.run("node-1", &["ping", "-c", "1", "-w", "5", "node-2"]).await?;
        assert_eq!(lab.run("node-1", &greet).await?, "SSH-");
    }
    for fault in [Fault::Kill, Fault::Stop] {
        lab.fault("node-2", fault).await?;
        let seen = Lab::open(lab.options().clone()).await?;
        assert_eq!(seen.host("node-2")?.state, HostState::Stopped);
        lab.fault("node-2", Fault::Start).await?;
        assert_eq!(ssh(lab, "node-2", "systemctl is-active docker").await?, "active\n");
    }
    Ok(())
}
