//! From bare hosts to a cluster, changes to it, and back.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Cluster, Inventory, eventually};

/// Ports that answer anyone, without TLS: health checks.
const HEALTH_PORTS: [&str; 3] = ["10248", "10246", "10256"];
/// Who listened before we came, and whose business it is.
const NOT_OURS: [&str; 3] = ["\"sshd\"", "\"containerd\"", "\"dockerd\""];

#[tokio::test(flavor = "multi_thread")]
async fn bare_hosts_become_a_cluster_and_bare_hosts_again() -> Result<()> {
    let mut cluster = Cluster::boot(Inventory::single_master("install", 3)).await?;
    let mut before = Vec::new();
    for host in cluster.lab.hosts() {
        before.push(cluster.lab.snapshot(&host.name).await?);
    }

    // `plan` shows what would come and changes nothing.
    let plan = cluster.kprov("plan", &[]).await?.expect_success("kprov plan")?;
    ensure!(plan.stdout.contains("kubelet.service"), "{}", plan.stdout);
    let untouched = cluster.lab.snapshot("node-2").await?;
    ensure!(before[1].diff(&untouched).is_empty(), "plan changed a host");

    cluster.apply().await?;
    nodes_are_ready(&cluster).await?;
    certificates_came_through_requests(&cluster).await?;
    nothing_answers_strangers(&cluster).await?;
    no_secret_is_printed(&cluster, &plan.stdout)?;

    second_apply_changes_nothing(&cluster).await?;
    another_authority_is_refused(&cluster).await?;
    a_change_changes_that_alone(&mut cluster).await?;

    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    for (host, before) in cluster.lab.hosts().iter().zip(&before) {
        let after = cluster.lab.snapshot(&host.name).await?;
        let left = before.diff(&after);
        ensure!(left.is_empty(), "{} is not as it was: {left:#?}", host.name);
    }
    Ok(())
}

async fn nodes_are_ready(cluster: &Cluster) -> Result<()> {
    let path = "{.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    let ready = cluster.get("nodes", path).await?;
    ensure!(ready == ["True", "True", "True"], "{ready:?}");
    let wide = cluster.kubectl("get nodes -o wide").await?;
    ensure!(wide.contains("10.") && wide.contains("docker://"), "{wide}");
    Ok(())
}

async fn certificates_came_through_requests(cluster: &Cluster) -> Result<()> {
    let signers = cluster.get("csr", "{.items[*].spec.signerName}").await?;
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"] {
        let count = signers.iter().filter(|s| *s == signer).count();
        ensure!(count >= 3, "{signer}: {count} of {signers:?}");
    }
    let table = cluster.kubectl("get csr").await?;
    ensure!(table.matches("Approved,Issued").count() >= 6, "{table}");
    Ok(())
}

async fn nothing_answers_strangers(cluster: &Cluster) -> Result<()> {
    for host in cluster.lab.hosts() {
        let listening = cluster.lab.run(&host.name, &["ss", "-Htlnp"]).await?;
        for line in listening.lines() {
            let Some(socket) = line.split_whitespace().nth(3) else { continue };
            let Some((_, port)) = socket.rsplit_once(':') else { continue };
            let foreign = NOT_OURS.iter().any(|program| line.contains(program));
            // Without a process it is the name service of the lab's own network.
            if foreign || HEALTH_PORTS.contains(&port) || !line.contains("users:") {
                continue;
            }
            // A stranger gets a TLS handshake and then no data.
            let script = format!(
                "curl -sk --max-time 5 -o /dev/null -w '%{{http_code}}' https://{}/metrics",
                socket
                    .replace('*', "127.0.0.1")
                    .replace("0.0.0.0", "127.0.0.1")
                    .replace("[::]", "127.0.0.1")
            );
            let code = cluster.lab.exec(&host.name, &["sh", "-c", &script]).await?;
            let refused = matches!(code.stdout.trim(), "401" | "403" | "000");
            ensure!(refused, "{} {socket} answers a stranger: {}", host.name, code.stdout);
            let plain = script.replace("https://", "http://");
            let plain = cluster.lab.exec(&host.name, &["sh", "-c", &plain]).await?;
            let closed = matches!(plain.stdout.trim(), "000" | "400");
            ensure!(closed, "{} {socket} speaks plain HTTP: {}", host.name, plain.stdout);
        }
    }
    let address = cluster.lab.host("node-1")?.address;
    let pods = format!("curl -sk --max-time 5 https://{address}:6443/api/v1/pods");
    let answer = cluster.lab.run("node-2", &["sh", "-c", &pods]).await?;
    ensure!(answer.contains("\"Unauthorized\""), "{answer}");
    Ok(())
}

/// No private key stands in what was printed.
fn no_secret_is_printed(cluster: &Cluster, text: &str) -> Result<()> {
    ensure!(!text.contains("PRIVATE KEY"), "a private key is printed");
    ensure!(cluster.folder().join(".kprov").is_dir(), "the state is not beside the inventory");
    Ok(())
}

async fn second_apply_changes_nothing(cluster: &Cluster) -> Result<()> {
    let mut running = Vec::new();
    for host in cluster.lab.hosts() {
        running.push((
            cluster.lab.activations(&host.name).await?,
            cluster.lab.snapshot(&host.name).await?,
        ));
    }
    cluster.apply().await?;
    for (host, (activations, snapshot)) in cluster.lab.hosts().iter().zip(&running) {
        let now = cluster.lab.activations(&host.name).await?;
        let ours = [
            "etcd",
            "kube-apiserver",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "flanneld",
            "kube-controller-manager",
            "docker",
        ];
        for unit in ours.map(|name| format!("{name}.service")) {
            ensure!(activations.get(&unit) == now.get(&unit), "{} {unit} restarted", host.name);
        }
        let files = cluster.lab.snapshot(&host.name).await?;
        ensure!(snapshot.section("files") == files.section("files"), "{} was written", host.name);
    }
    Ok(())
}

/// An operator whose state is gone must not replace the cluster's authority by accident.
async fn another_authority_is_refused(cluster: &Cluster) -> Result<()> {
    let before = cluster.lab.snapshot("node-1").await?;
    let empty = cluster.folder().join("empty").display().to_string();
    let refused = cluster.kprov("apply", &["--state-dir", &empty]).await?;
    ensure!(refused.code == 3, "{refused:?}");
    ensure!(refused.stderr.contains("another certificate authority"), "{}", refused.stderr);
    let after = cluster.lab.snapshot("node-1").await?;
    ensure!(before.section("files") == after.section("files"), "a refused apply wrote");
    Ok(())
}

async fn a_change_changes_that_alone(cluster: &mut Cluster) -> Result<()> {
    let before = cluster.lab.activations("node-3").await?;
    let others = cluster.lab.activations("node-2").await?;
    cluster.inventory.labels[2] = vec![("disk".to_owned(), "ssd".to_owned())];
    cluster.rewrite()?;
    cluster.apply().await?;
    eventually("the label", Duration::from_secs(20), async || {
        let label = cluster.get("node/node-3", "{.metadata.labels.disk}").await?;
        ensure!(label == ["ssd"], "{label:?}");
        Ok(())
    })
    .await?;
    let after = cluster.lab.activations("node-3").await?;
    let changed: Vec<&String> =
        before.keys().filter(|unit| before.get(*unit) != after.get(*unit)).collect();
    ensure!(changed == ["kubelet.service"], "restarted on node-3: {changed:?}");
    ensure!(others == cluster.lab.activations("node-2").await?, "node-2 was touched");

    // A changed flag restarts the one component that has it, on the one host that runs it.
    let before = cluster.lab.activations("node-1").await?;
    cluster.inventory.extra = "\n[components.kube-scheduler]\nargs = { v = 3 }\n".to_owned();
    cluster.rewrite()?;
    cluster.apply().await?;
    let after = cluster.lab.activations("node-1").await?;
    let changed: Vec<&String> =
        before.keys().filter(|unit| before.get(*unit) != after.get(*unit)).collect();
    ensure!(changed == ["kube-scheduler.service"], "restarted on node-1: {changed:?}");

    // A changed template restarts exactly the units that use it.
    let templates = cluster.folder().join("templates");
    std::fs::create_dir_all(&templates)?;
    let source = lab::workspace_root().join("templates/kube-proxy.service");
    let text = std::fs::read_to_string(source)?;
    std::fs::write(
        templates.join("kube-proxy.service"),
        text.replace("[Unit]\n", "[Unit]\n# changed\n"),
    )?;
    let before = cluster.lab.activations("node-2").await?;
    let folder = templates.display().to_string();
    cluster.kprov("apply", &["--templates", &folder]).await?.expect_success("kprov apply")?;
    let after = cluster.lab.activations("node-2").await?;
    let changed: Vec<&String> =
        before.keys().filter(|unit| before.get(*unit) != after.get(*unit)).collect();
    ensure!(changed == ["kube-proxy.service"], "restarted on node-2: {changed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_killed_anywhere_is_finished_by_the_next() -> Result<()> {
    let cluster = Cluster::boot(Inventory::single_master("killed", 3)).await?;
    // Ten different points of an apply that takes some seconds from bare hosts.
    for point in 0..10_u64 {
        let mut child = std::process::Command::new(cluster.kprov_path())
            .arg("apply")
            .arg(cluster.inventory_path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        tokio::time::sleep(Duration::from_millis(150 + 450 * point)).await;
        child.kill()?;
        child.wait()?;
    }
    cluster.apply().await?;
    nodes_are_ready(&cluster).await?;
    let plan = cluster.kprov("plan", &["--exit-code"]).await?;
    ensure!(plan.code == 0, "something is left to do:\n{}", plan.stdout);
    // The same bytes as an undisturbed apply gives: files are a function of the inventory.
    let undisturbed = cluster.lab.snapshot("node-2").await?;
    cluster.apply().await?;
    let again = cluster.lab.snapshot("node-2").await?;
    ensure!(undisturbed.section("files") == again.section("files"), "the files differ");
    Ok(())
}
