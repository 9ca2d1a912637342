//! How a cluster begins where things are strict: hosts are measured first, there is no network to fetch
//! from, sudo wants a password, and people let nodes in.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Bare, Cluster};

use super::SOON;

/// Of sudo on all hosts. It is in no file and no output of kprov's.
const PASSWORD: &str = "correct-horse-battery";

/// In no repository: only a bundle has it.
pub(crate) const PACKAGE: &str = "kprov-lab-greeting";
/// A file of it.
const GREETING: &str = "/usr/share/kprov-lab-greeting/hello";

/// Makes the package, and gives its file's path.
fn a_package(folder: &std::path::Path) -> Result<String> {
    let tree = folder.join("package");
    let put = |path: &str, text: &str| {
        let path = tree.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let control = format!(
        "Package: {PACKAGE}\nVersion: 1.0\nArchitecture: all\n\
         Maintainer: kprov <kprov@kprov.local>\nDescription: says hello\n"
    );
    put("DEBIAN/control", &control)?;
    put(GREETING, "hello\n")?;
    let file = folder.join(format!("{PACKAGE}_1.0_all.deb"));
    let mut build = std::process::Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&file);
    let built = build.output().context("dpkg-deb")?;
    ensure!(built.status.success(), "{built:?}");
    file.to_str().map(str::to_owned).context("no UTF-8")
}

/// Whether the host has the package, by its distribution's own word.
async fn has_package(cluster: &Cluster, host: &str) -> Result<bool> {
    let line = format!("dpkg-query -W -f '${{Status}}' {PACKAGE} 2>/dev/null || :");
    Ok(cluster.lab.run(host, &["sh", "-c", &line]).await?.contains("ok installed"))
}

/// It went when the host left.
pub(crate) async fn the_package_is_gone(cluster: &Cluster, host: &str) -> Result<()> {
    ensure!(!has_package(cluster, host).await?, "{host} still has {PACKAGE}");
    Ok(())
}

pub(crate) async fn hosts_are_measured(cluster: &Cluster, bare: &Bare) -> Result<()> {
    let told = cluster.kprov("preflight", &["--output", "json"]).await?;
    let said: Value = serde_json::from_str(&told.stdout).with_context(|| format!("{told:?}"))?;
    // How fast the disk is depends on what else this machine does, and is all that may be wrong.
    let problems = said["problems"].as_array().context("no problems")?;
    ensure!(problems.iter().all(|problem| problem["check"] == "fsync"), "{said:#}");
    ensure!(told.code == if problems.is_empty() { 0 } else { 3 }, "{told:?}");
    let hosts = said["hosts"].as_object().context("no hosts")?;
    ensure!(hosts.len() == cluster.inventory.len(), "{said:#}");
    ensure!(said["hosts"]["node-1"]["fsync"]["p99_us"].as_u64() > Some(0), "{said:#}");
    for (name, row) in hosts {
        let reaches = &row["reaches"];
        ensure!(reaches[0] == reaches[1] && reaches[0].as_u64() > Some(0), "{name}: {row:#}");
    }

    // A way that is closed is told with its port and from where.
    let master = cluster.lab.host("node-1")?.address;
    let closed = format!("{master}/32");
    cluster.lab.run("node-2", &["ip", "route", "add", "unreachable", &closed]).await?;
    let skipping = ["--skip", "fsync", "--output", "json"];
    let told = cluster.kprov("preflight", &skipping).await?;
    cluster.lab.run("node-2", &["ip", "route", "del", "unreachable", &closed]).await?;
    ensure!(told.code == 3, "{told:?}");
    let said: Value = serde_json::from_str(&told.stdout)?;
    let problems = said["problems"].as_array().context("no problems")?;
    let server = problems.iter().find(|problem| {
        let message = problem["message"].as_str().unwrap_or_default();
        message.starts_with("6443/tcp cannot be used from node-2: ")
    });
    let server = server.with_context(|| format!("{said:#}"))?;
    ensure!(server["host"] == "node-1" && server["check"] == "connectivity", "{said:#}");
    ensure!(told.stderr.contains("6443/tcp cannot be used from node-2"), "{told:?}");
    bare.expect_given_back(cluster).await
}

/// Lets sudo of all hosts want a password from now on.
pub(crate) async fn sudo_wants_a_password(cluster: &Cluster) -> Result<()> {
    for host in cluster.lab.hosts() {
        let line = "mv /etc/sudoers.d/kprov /root/sudoers.kprov
                    echo 'kprov ALL=(ALL) ALL' >/etc/sudoers.d/kprov
                    chmod 0440 /etc/sudoers.d/kprov";
        cluster.lab.run(&host.name, &["sh", "-ec", line]).await?;
    }
    Ok(())
}

/// As it was again.
pub(crate) async fn sudo_wants_none(cluster: &Cluster) -> Result<()> {
    for host in cluster.lab.hosts() {
        let line = ["mv", "/root/sudoers.kprov", "/etc/sudoers.d/kprov"];
        cluster.lab.run(&host.name, &line).await?;
    }
    Ok(())
}

/// Gives the user on all hosts its password; before hosts are looked at as bare ones.
pub(crate) async fn users_have_a_password(cluster: &Cluster) -> Result<()> {
    for host in cluster.lab.hosts() {
        let line = format!("echo 'kprov:{PASSWORD}' | chpasswd");
        cluster.lab.run(&host.name, &["sh", "-ec", &line]).await?;
    }
    Ok(())
}

/// From a bundle alone, with the password of sudo; each is refused first when it is wrong.
pub(crate) async fn a_bundle_and_a_password_are_enough(
    cluster: &mut Cluster,
    bare: &Bare,
) -> Result<()> {
    let file = |name: &str| {
        let path = cluster.folder().join(name);
        path.to_str().map(str::to_owned).context("no UTF-8")
    };
    let (whole, damaged) = (file("all.kbundle")?, file("damaged.kbundle")?);
    let package = a_package(cluster.folder())?;
    let made = cluster.kprov("bundle create", &["-o", &whole, "--package", &package]).await?;
    let made = made.expect_success("kprov bundle create")?;
    ensure!(["hyperkube", "echo-1", PACKAGE].iter().all(|p| made.stdout.contains(p)), "{made:?}");
    // One byte of a program is another one.
    let mut bytes = std::fs::read(&whole)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes)?;

    sudo_wants_a_password(cluster).await?;
    // The programs are nowhere else.
    let built = cluster.inventory.hyperkube.replace(cluster.folder().join("nowhere"));
    cluster.rewrite()?;
    let right = [("KPROV_SUDO_PASSWORD", PASSWORD)];
    let wrong = [("KPROV_SUDO_PASSWORD", "guessed")];
    for (environment, bundle, code, parts) in [
        (&right, &damaged, 1, ["damaged.kbundle", "has the SHA-256"]),
        (&wrong, &whole, 3, ["node-3", "sudo on the host does not take the password of kprov"]),
    ] {
        let refused = cluster.kprov_with(environment, "apply", &["--bundle", bundle]).await?;
        ensure!(refused.code == code, "{refused:?}");
        for part in parts {
            ensure!(refused.stderr.contains(part), "{part} is not told: {refused:?}");
        }
    }
    sudo_wants_none(cluster).await?;
    bare.expect_given_back(cluster).await?;
    sudo_wants_a_password(cluster).await?;

    let whole = ["--bundle", &whole, "--output", "json"];
    let applied = cluster.kprov_with(&right, "apply", &whole).await?;
    let applied = applied.expect_success("kprov apply --bundle")?;
    nodes_wait_for_people(cluster, &serde_json::from_str(&applied.stdout)?).await?;
    for (host, wanted) in [("node-3", false), ("node-4", true)] {
        ensure!(has_package(cluster, host).await? == wanted, "{host}: {PACKAGE} is not {wanted}");
    }
    cluster.lab.run("node-4", &["grep", "hello", GREETING]).await?;
    let told = format!("{}{}", applied.stdout, applied.stderr);
    let kept = in_files(&cluster.folder().join(".kprov"), PASSWORD)?;
    ensure!(!told.contains(PASSWORD) && kept.is_empty(), "the password is in {kept:?}");
    sudo_wants_none(cluster).await?;
    cluster.inventory.hyperkube = built;
    cluster.rewrite()?;
    Ok(())
}

/// Files of a folder that have the text.
fn in_files(folder: &std::path::Path, text: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(in_files(&path, text)?);
        } else if std::fs::read(&path)?.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Each node has asked, none is in before somebody says so.
async fn nodes_wait_for_people(cluster: &Cluster, said: &Value) -> Result<()> {
    let waiting = said["waiting_for_approval"].as_object().context("nobody waits")?;
    let names: Vec<&str> = waiting.keys().map(String::as_str).collect();
    ensure!(names == ["node-2", "node-3", "node-4"], "{said:#}");
    cluster.fetch_kubeconfig().await?;
    let nodes = cluster.get("nodes", "{.items[*].metadata.name}").await?;
    ensure!(nodes.is_empty(), "let in without being asked for: {nodes:?}");
    let requests: Vec<&str> = waiting.values().filter_map(Value::as_str).collect();
    let pending = cluster.kubectl("get csr").await?;
    ensure!(pending.matches("Pending").count() == 3, "{pending}");
    cluster.kubectl(&format!("certificate approve {}", requests.join(" "))).await?;
    cluster.nodes_are_ready(3, SOON).await
}
