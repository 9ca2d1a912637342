//! From bare hosts to a cluster, changes to it, and back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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
    every_component_tells_how_it_is(&cluster).await?;
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
    let roles = cluster.kubectl("get nodes --no-headers").await?;
    let roles: Vec<&str> =
        roles.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    ensure!(roles == ["control-plane", "<none>", "<none>"], "{roles:?}");
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

/// What a component serves, seen from its own host.
struct Serves {
    unit: &'static str,
    /// Where `/healthz`, `/livez` and `/readyz` answer anyone, and `/version` a known client.
    public: &'static str,
    /// Where `/metrics` answers who shows the certificate at `client`, without its `.crt`.
    private: &'static str,
    client: &'static str,
    /// A line of its metrics that is true in a settled cluster of three nodes.
    metric: &'static str,
}

const MASTER_SERVES: [Serves; 4] = [
    Serves {
        unit: "kubelet",
        public: "http://127.0.0.1:10248",
        private: "https://127.0.0.1:10250",
        client: "/etc/kubernetes/pki/apiserver-kubelet-client",
        metric: "# TYPE kubelet_",
    },
    Serves {
        unit: "kube-apiserver",
        public: "https://127.0.0.1:6443",
        private: "https://127.0.0.1:6443",
        client: "/etc/kubernetes/pki/apiserver-kubelet-client",
        metric: "# TYPE apiserver_",
    },
    Serves {
        unit: "kube-controller-manager",
        public: "https://127.0.0.1:10257",
        private: "https://127.0.0.1:10257",
        client: "/etc/kubernetes/pki/apiserver-kubelet-client",
        metric: "leader_election_master_status{name=\"kube-controller-manager\"} 1",
    },
    Serves {
        unit: "kube-scheduler",
        public: "https://127.0.0.1:10259",
        private: "https://127.0.0.1:10259",
        client: "/etc/kubernetes/pki/apiserver-kubelet-client",
        metric: "leader_election_master_status{name=\"kube-scheduler\"} 1",
    },
];

const NODE_SERVES: [Serves; 3] = [
    Serves {
        unit: "kube-proxy",
        public: "http://127.0.0.1:10256",
        private: "https://127.0.0.1:10249",
        client: "/etc/kubernetes/pki/kube-proxy",
        // That of the API itself, and that of the DNS.
        metric: "kubeproxy_services 2",
    },
    Serves {
        unit: "flanneld",
        public: "http://127.0.0.1:10246",
        private: "https://127.0.0.1:10247",
        client: "/etc/kubernetes/pki/flanneld",
        metric: "flanneld_routes 2",
    },
    Serves {
        unit: "cluster-dns",
        public: "https://127.0.0.1:10244",
        private: "https://127.0.0.1:10244",
        client: "/etc/kubernetes/pki/cluster-dns",
        metric: "cluster_dns_services 2",
    },
];

async fn every_component_tells_how_it_is(cluster: &Cluster) -> Result<()> {
    for host in cluster.lab.hosts() {
        let masters = if host.name == "node-1" { &MASTER_SERVES[..] } else { &[] };
        for Serves { unit, public, private, client, metric } in masters.iter().chain(&NODE_SERVES) {
            let ask = async |url: String, more: &str| {
                let script = format!("curl -sk --max-time 5 {more} -w '\\n%{{http_code}}' {url}");
                cluster.lab.run(&host.name, &["sh", "-c", &script]).await
            };
            for path in ["/healthz", "/livez", "/readyz"] {
                let told = ask(format!("{public}{path}"), "").await?;
                ensure!(told.ends_with("\n200"), "{} {unit} {path}: {told}", host.name);
            }
            let told = ask(format!("{public}/metrics"), "").await?;
            let hidden = ["401", "403", "404"].iter().any(|code| told.ends_with(code));
            ensure!(hidden, "{} {unit} tells a stranger its metrics: {told}", host.name);
            let identity = format!("--cert {client}.crt --key {client}.key");
            // The API server lets no stranger in at all, the others tell their version to anyone.
            let told = ask(format!("{public}/version"), &identity).await?;
            ensure!(told.contains("\"v1.33.0+kprov"), "{} {unit}: {told}", host.name);
            let told = ask(format!("{private}/metrics"), &identity).await?;
            ensure!(told.ends_with("\n200"), "{} {unit}: {told}", host.name);
            ensure!(told.contains(metric), "{} {unit}: no {metric:?} in {told}", host.name);
        }
    }
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
            "cluster-dns",
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

/// Points at which an apply is killed, spread over its whole length. Fake hosts are killed at every
/// point that there is; these show that real ones are no different.
const KILLS: u32 = 3;
/// The environment variable that repeats the points of an earlier run.
const SEED: &str = "KPROV_TEST_SEED";
/// What need not be alike after two applies of one inventory.
const NOT_OF_THE_INVENTORY: &[&str] = &[
    // The cluster's own data.
    "/var/lib/etcd/",
    // What kubelets were issued by the cluster, and keep for their pods.
    "/var/lib/kubelet/",
    "/var/lib/kprov-volumes/",
    // Notes of inodes and times of files, which save reading them again.
    "/var/lib/kprov/digests/",
    // Notes of the ids that Docker gave to images, missing where a kill came between the load and
    // the note; needed only if they are not the archives' own. The ids themselves are compared.
    "/var/lib/kprov/images/",
    // Counts runs that write, those that were killed, too.
    "/var/lib/kprov/fence",
];
/// Holds a counter of applies, besides what must not differ.
const RECORD: &str = "/var/lib/kprov/record.json";

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_killed_anywhere_is_finished_by_the_next() -> Result<()> {
    let cluster = Cluster::boot(Inventory::single_master("killed", 3)).await?;
    // The authorities exist from here on: all later applies do the same work as this one.
    let start = Instant::now();
    cluster.apply().await?;
    let whole = start.elapsed();
    let reference = written_files(&cluster).await?;

    let seed = seed()?;
    println!("{SEED}={seed}: kills within {whole:?}");
    for kill in 0..KILLS {
        let after = kill_at(seed, kill, whole);
        killed_and_finished(&cluster, after, &reference)
            .await
            .with_context(|| format!("{SEED}={seed}: apply was killed after {after:?}"))?;
    }
    Ok(())
}

/// When to kill: at a random moment of one of as many equal parts of the whole.
fn kill_at(seed: u64, kill: u32, whole: Duration) -> Duration {
    let drawn = api::hash::fnv64(format!("{seed} {kill}").as_bytes()) % 1000;
    let thousandths = kill * 1000 + u32::try_from(drawn).expect("less than a thousand");
    whole * thousandths / (KILLS * 1000)
}

/// The seed that is asked for, or one that no run had before.
fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text:?} is no number")),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            Ok(now.as_secs())
        }
    }
}

async fn make_bare(cluster: &Cluster) -> Result<()> {
    cluster.kprov("reset", &["--yes"]).await?.expect_success("kprov reset")?;
    Ok(())
}

async fn killed_and_finished(
    cluster: &Cluster,
    mut after: Duration,
    reference: &Files,
) -> Result<()> {
    make_bare(cluster).await?;
    while !killed_in_flight(cluster, after).await? {
        // This apply was quicker than the measured one.
        make_bare(cluster).await?;
        after = after * 9 / 10;
    }
    cluster.kprov("apply", &[]).await?.expect_success("the apply after the kill")?;
    same_files(reference, &written_files(cluster).await?)?;
    nodes_are_ready(cluster).await?;
    let again = cluster.kprov("apply", &["--output", "json"]).await?;
    let again = again.expect_success("one more apply")?;
    let told: serde_json::Value = serde_json::from_str(&again.stdout)?;
    ensure!(told["changed_hosts"] == 0, "one more apply changed something: {told:#}");
    Ok(())
}

/// Starts an apply and kills it with SIGKILL; false if it had ended before.
async fn killed_in_flight(cluster: &Cluster, after: Duration) -> Result<bool> {
    let mut apply = std::process::Command::new(cluster.kprov_path())
        .arg("apply")
        .arg(cluster.inventory_path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    tokio::time::sleep(after).await;
    let in_flight = apply.try_wait()?.is_none();
    apply.kill()?;
    apply.wait()?;
    Ok(in_flight)
}

/// Host and path → type, mode, owner and, for a file, the hash of its bytes; also Docker's images.
type Files = BTreeMap<(String, String), Vec<String>>;

/// Everything on the hosts that follows from the inventory and the authorities' state.
async fn written_files(cluster: &Cluster) -> Result<Files> {
    let mut files = Files::new();
    for host in cluster.lab.hosts() {
        let snapshot = cluster.lab.snapshot(&host.name).await?;
        for line in snapshot.section("files").iter().chain(snapshot.section("contents")) {
            let (facts, path) = line.split_once(" /").context("a line without a path")?;
            let path = format!("/{path}");
            let other = NOT_OF_THE_INVENTORY.iter().any(|folder| path.starts_with(folder));
            let counts = path == RECORD && !facts.starts_with("f ");
            if !other && !counts {
                let facts = facts.trim_end().to_owned();
                files.entry((host.name.clone(), path)).or_default().push(facts);
            }
        }
        for image in snapshot.section("docker").iter().filter(|line| line.starts_with("image ")) {
            files.entry((host.name.clone(), image.clone())).or_default();
        }
        let record = cluster.lab.run(&host.name, &["cat", RECORD]).await?;
        let mut record: serde_json::Value = serde_json::from_str(&record)?;
        let generation = record.as_object_mut().and_then(|fields| fields.remove("generation"));
        ensure!(generation.is_some(), "the record counts no applies: {record}");
        files.entry((host.name.clone(), RECORD.to_owned())).or_default().push(record.to_string());
    }
    Ok(files)
}

fn same_files(expected: &Files, found: &Files) -> Result<()> {
    let missing = expected.iter().filter(|(path, facts)| found.get(*path) != Some(*facts));
    let more = found.iter().filter(|(path, facts)| expected.get(*path) != Some(*facts));
    let (missing, more): (Files, Files) = (
        missing.map(|(path, facts)| (path.clone(), facts.clone())).collect(),
        more.map(|(path, facts)| (path.clone(), facts.clone())).collect(),
    );
    ensure!(missing.is_empty() && more.is_empty(), "not there: {missing:#?}\nthere: {more:#?}");
    Ok(())
}
