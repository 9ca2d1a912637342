//! The second day: authorities are replaced, all certificates run out, members of etcd come, masters
//! die, a cluster is made again from a backup and from one member; under a client that writes and
//! reads on all masters in turn, and with the real kubectl.

#![expect(clippy::print_stdout, reason = "a test report says what was counted")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, Inventory, Outcome, Role, Traffic, eventually, nothing_is_left_to_do};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(90);
/// Replaces a certificate by the same one of another time.
const EXPIRE: &str = include_str!("second_day/expire.sh");
/// Seals backups.
const PASSPHRASE: &str = "a passphrase of this test";

#[tokio::test(flavor = "multi_thread")]
async fn three_masters_live_through_their_second_day() -> Result<()> {
    let began = Instant::now();
    let told = |what: &str| println!("{:6.1?} {what}", began.elapsed());
    let cluster = Cluster::up(Inventory::three_masters("secondday", 2)).await?;
    cluster.kubectl("create deployment web --image=kprov.local/echo:1 --replicas=2").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    told("the cluster is up");
    the_operators_side_is_made_again(&cluster).await?;
    told("the operator's side is made again");
    authorities_are_replaced(&cluster).await?;
    told("authorities are replaced");
    everything_expired_is_renewed(&cluster).await?;
    told("what had run out is renewed");
    let cluster = a_dead_master_is_replaced(cluster).await?;
    told("a dead master is replaced");
    let cluster = one_member_is_enough(cluster).await?;
    told("the cluster goes on from one member");
    let cluster = members_join(cluster).await?;
    told("two members have joined");
    let cluster = a_backup_makes_the_cluster_again(cluster).await?;
    told("the cluster is made again from a backup");
    drop(cluster);
    Ok(())
}

/// Every server of every host shows the certificate that it should.
async fn every_port_shows_its_own(cluster: &Cluster) -> Result<()> {
    let listed = cluster.kprov("certs list", &["--output", "json"]).await?;
    let told: Value = serde_json::from_str(&listed.expect_success("kprov certs list")?.stdout)?;
    ensure!(told["unreachable"].as_array().is_some_and(Vec::is_empty), "{told}");
    let rows = told["certificates"].as_array().context("no list of certificates")?;
    let served = rows.iter().filter(|row| row["served"] == "same").count();
    // Of three masters: etcd's two, the API server, the controller manager and the scheduler.
    ensure!(served >= 15, "{served} servers only: {told:#}");
    for row in rows {
        ensure!(row["days_left"].as_i64().is_some_and(|days| days > 300), "{row}");
        for place in ["on_host", "served"] {
            let seen = &row[place];
            ensure!(seen.is_null() || seen == "same", "{place}: {row}");
        }
    }
    Ok(())
}

/// A machine that has nothing but a key, and reaches all hosts through one of them, gets inventory
/// and keys back from them.
async fn the_operators_side_is_made_again(cluster: &Cluster) -> Result<()> {
    let made = cluster.folder().join("made").join("inventory.toml");
    std::fs::create_dir(cluster.folder().join("made"))?;
    let hosts = cluster.lab.hosts();
    let first = hosts.first().context("a lab without hosts")?.address;
    let mut import = Command::new(cluster.kprov_path());
    import.arg("import").args(hosts.iter().map(|host| host.address.to_string()));
    import.args(["--user", "kprov", "--jump", &format!("kprov@{first}"), "--key"]);
    import.arg(cluster.lab.ssh_key()).arg("--to").arg(&made);
    let imported = import.kill_on_drop(true).output().await?;
    ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let text = std::fs::read_to_string(&made)?;
    ensure!(text.contains(&format!("jump = [\"kprov@{first}\"]")), "{text}");
    let mut list = Command::new(cluster.kprov_path());
    list.args(["certs", "list"]).arg(&made).args(["--output", "json"]);
    let listed = list.kill_on_drop(true).output().await?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let told: Value = serde_json::from_slice(&listed.stdout)?;
    ensure!(told["unreachable"].as_array().is_some_and(Vec::is_empty), "{told}");
    let rows = told["certificates"].as_array().context("no list of certificates")?;
    let on_hosts = rows.iter().filter(|row| row["on_host"] == "same").count();
    ensure!(on_hosts >= 15, "{on_hosts} of the certificates only are those of hosts: {told:#}");
    Ok(())
}

async fn authorities_are_replaced(cluster: &Cluster) -> Result<()> {
    let pods = "{.items[*].metadata.uid} {.items[*].status.containerStatuses[*].restartCount}";
    let before = cluster.get("pods -l app=web", pods).await?;
    let former = cluster.folder().join("former.kubeconfig");
    std::fs::copy(cluster.kubeconfig(), &former)?;
    let traffic = Traffic::start(cluster, "rotated")?;
    for stage in [&["--yes", "--stop-after", "trust"][..], &["--yes", "--stop-after", "issue"]] {
        let rotated = cluster.kprov("certs rotate-ca", stage).await?;
        rotated.expect_success("kprov certs rotate-ca")?;
        // Whoever has a kubeconfig needs one that trusts the new authority, and is of it.
        cluster.fetch_kubeconfig().await?;
        traffic.follow(cluster)?;
    }
    let rotated = cluster.kprov("certs rotate-ca", &["--yes"]).await?;
    let rotated = rotated.expect_success("kprov certs rotate-ca")?;
    ensure!(rotated.stderr.contains("every port shows"), "{}", rotated.stderr);
    let tally = traffic.stop(cluster).await?;
    tally.expect_unbroken("replacing the authorities")?;
    cluster.nodes_are_ready(2, SOON).await?;
    every_port_shows_its_own(cluster).await?;
    ensure!(cluster.get("pods -l app=web", pods).await? == before, "pods were touched");
    // Who has only the old credentials is nobody now.
    let refused = with_kubeconfig(&former, &["get", "nodes"]).await?;
    ensure!(refused.code != 0, "the former credentials are good: {refused:?}");
    ensure!(refused.stderr.contains("certificate"), "{refused:?}");
    nothing_is_left_to_do(cluster).await
}

async fn with_kubeconfig(kubeconfig: &Path, arguments: &[&str]) -> Result<Outcome> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).arg("--request-timeout=10s").args(arguments);
    let output = command.output().await?;
    Ok(Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As after thirteen months in which nobody looked: all certificates but those of the authorities
/// have run out, those that kubelets got from the cluster as well, and everything was restarted.
async fn everything_expired_is_renewed(cluster: &Cluster) -> Result<()> {
    let pki = cluster.folder().join(".kprov").join(cluster.inventory.name()).join("pki");
    let mut expired = BTreeMap::new();
    for entry in std::fs::read_dir(&pki)? {
        let cert = entry?.path();
        let key = cert.with_extension("key");
        let name = cert.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_leaf = !["ca", "etcd-ca"].contains(&name.as_str()) && !name.starts_with("former-");
        if cert.extension().is_none_or(|end| end != "crt") || !is_leaf {
            continue;
        }
        let authority = if name.contains("etcd") { "etcd-ca" } else { "ca" };
        let old = std::fs::read_to_string(&cert)?;
        let new = expire(&cert, &key, &pki.join(authority)).await?;
        std::fs::write(&cert, &new)?;
        expired.insert(old.trim().to_owned(), new);
    }
    ensure!(expired.len() > 30, "{} certificates only", expired.len());
    let (mut placed, mut kubelets) = (0, 0);
    for host in cluster.lab.hosts() {
        let find = "find /etc/etcd/pki /etc/kubernetes/pki -name '*.crt' 2>/dev/null; true";
        let found = cluster.lab.run(&host.name, &["sh", "-c", find]).await?;
        for path in found.lines() {
            let text = cluster.lab.run(&host.name, &["cat", path]).await?;
            if let Some(new) = expired.get(text.trim()) {
                cluster.lab.put(&host.name, path, 0o644, new.as_bytes()).await?;
                placed += 1;
            }
        }
        for own in ["kubelet-client", "kubelet-server"] {
            let path = format!("/var/lib/kubelet/pki/{own}-current.pem");
            let text = cluster.lab.exec(&host.name, &["cat", &path]).await?;
            if !text.success() {
                continue;
            }
            let file = cluster.folder().join("kubelet.pem");
            std::fs::write(&file, &text.stdout)?;
            let new = expire(&file, &file, &pki.join("ca")).await?;
            let key = text.stdout.split_inclusive('\n').skip_while(|line| !line.contains("KEY"));
            let key = key.take_while(|line| !line.contains("BEGIN CERT")).collect::<String>();
            cluster.lab.put(&host.name, &path, 0o600, format!("{new}{key}").as_bytes()).await?;
            kubelets += 1;
        }
    }
    ensure!(placed > 30 && kubelets == 4, "{placed} certificates, {kubelets} of kubelets");
    for host in cluster.lab.hosts() {
        let script = "for u in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet \
                      kube-proxy flanneld cluster-dns; do
                        [ ! -f /etc/systemd/system/$u.service ] || systemctl restart --no-block $u
                      done";
        cluster.lab.run(&host.name, &["sh", "-c", script]).await?;
    }
    eventually("the API to be gone", SOON, async || {
        let arguments = ["get", "--raw", "/readyz", "--request-timeout=2s"];
        let asked = cluster.try_kubectl(&arguments).await?;
        ensure!(asked.code != 0, "it answers still");
        Ok(())
    })
    .await?;
    let listed = cluster.kprov("certs list", &["--output", "json"]).await?;
    let told: Value = serde_json::from_str(&listed.stdout)?;
    let rows = told["certificates"].as_array().context("no list of certificates")?;
    let over = rows.iter().filter(|row| row["days_left"].as_i64().is_some_and(|n| n < 0)).count();
    ensure!(over > 30, "{over} certificates are told to have run out: {told:#}");

    let start = Instant::now();
    let renewed = cluster.kprov("certs renew", &[]).await?;
    renewed.expect_success("kprov certs renew")?;
    cluster.fetch_kubeconfig().await?;
    cluster.nodes_are_ready(2, SOON).await?;
    println!("everything had run out: renewed and ready after {:.1?}", start.elapsed());
    // Nodes count as ready for a while although their kubelets, which had no valid certificate,
    // only start anew when they have one.
    let all_do = async || every_port_shows_its_own(cluster).await;
    eventually("every port to show its own certificate", SOON, all_do).await?;
    works(cluster, "renewed").await?;
    nothing_is_left_to_do(cluster).await
}

/// Signs a certificate again, for a time that is over; gives it as PEM.
async fn expire(cert: &Path, key: &Path, authority: &Path) -> Result<String> {
    let mut command = Command::new("sh");
    command.args(["-c", EXPIRE, "expire"]).args([cert, key, authority]);
    let output = command.output().await?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && text.contains("BEGIN CERT"), "{}", cert.display());
    Ok(text)
}

/// Objects are written and read, and pods come and go.
async fn works(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&format!("create deployment {name} --image=kprov.local/echo:1")).await?;
    cluster.kubectl(&format!("rollout status deployment/{name} --timeout=90s")).await?;
    cluster.kubectl(&format!("delete deployment {name}")).await?;
    Ok(())
}

/// The nodes become members of etcd as well.
async fn members_join(mut cluster: Cluster) -> Result<Cluster> {
    for node in [3, 4] {
        cluster.inventory.set_roles(node, &[Role::Etcd, Role::Node]);
    }
    cluster.rewrite()?;
    let traffic = Traffic::start(&cluster, "joined")?;
    let start = Instant::now();
    cluster.apply().await?;
    println!("five members of etcd instead of three after {:.1?}", start.elapsed());
    traffic.stop(&cluster).await?.expect_unbroken("the join of members of etcd")?;
    let members = members(&cluster).await?;
    ensure!(members.len() == 5, "{members:?}");
    nothing_is_left_to_do(&cluster).await?;
    Ok(cluster)
}

/// The names of etcd's members; all are healthy.
async fn members(cluster: &Cluster) -> Result<Vec<String>> {
    let listed = cluster.kprov("etcd members", &["--output", "json"]).await?;
    let told: Value = serde_json::from_str(&listed.expect_success("kprov etcd members")?.stdout)?;
    let rows = told["members"].as_array().with_context(|| format!("no members: {told}"))?;
    ensure!(rows.iter().all(|row| row["is_healthy"] == true), "{told:#}");
    Ok(rows.iter().filter_map(|row| row["name"].as_str()).map(str::to_owned).collect())
}

/// The master that leads dies: the others take over, and another machine takes its place.
async fn a_dead_master_is_replaced(cluster: Cluster) -> Result<Cluster> {
    let traffic = Traffic::start(&cluster, "replaced")?;
    let holder = "{.spec.holderIdentity}";
    let leader = cluster.get("lease/kube-scheduler -n kube-system", holder).await?;
    let victim =
        leader.first().and_then(|l| l.split('_').next()).context("nobody leads")?.to_owned();
    cluster.lab.fault(&victim, lab::Fault::Kill).await?;
    let survivor = ["node-1", "node-2", "node-3"].into_iter().find(|name| *name != victim);
    let survivor = survivor.context("no master is left")?;
    others_take_over(&cluster, &format!("--context {}-{survivor}", cluster.inventory.name()))
        .await?;
    let cluster = cluster.reinstall(&[&victim]).await?;
    let replaced = cluster.kprov("replace", &[&victim, "--yes"]).await?;
    replaced.expect_success("kprov replace")?;
    let tally = traffic.stop(&cluster).await?;
    tally.expect_unbroken("the loss and replacement of a master")?;
    cluster.nodes_are_ready(2, SOON).await?;
    let members = members(&cluster).await?;
    ensure!(members.len() == 3, "{members:?}");
    every_port_shows_its_own(&cluster).await?;
    nothing_is_left_to_do(&cluster).await?;
    Ok(cluster)
}

/// Controllers and scheduler work again within 20 s: a pod more is made and bound. After that
/// kubelets report and start pods, and kube-proxy follows services.
async fn others_take_over(cluster: &Cluster, context: &str) -> Result<()> {
    let start = Instant::now();
    cluster.kubectl(&format!("{context} scale deployment/web --replicas=3")).await?;
    eventually("the third replica", Duration::from_secs(40), async || {
        let bound = "{.items[?(@.spec.nodeName)].metadata.name}";
        let bound = cluster.get(&format!("{context} pods -l app=web"), bound).await?;
        ensure!(bound.len() == 3, "{bound:?}");
        Ok(())
    })
    .await?;
    let took = start.elapsed();
    println!("the other masters took over after {took:.1?}");
    ensure!(took < Duration::from_secs(20), "the other masters took over after {took:?}");
    let leases = format!("{context} leases -n kube-node-lease");
    let renewed = "{range .items[*]}{.metadata.name}={.spec.renewTime} {end}";
    let before = cluster.get(&leases, renewed).await?;
    eventually("every lease renewed", SOON, async || {
        let now = cluster.get(&leases, renewed).await?;
        let stale: Vec<&String> = before.iter().filter(|lease| now.contains(lease)).collect();
        ensure!(now.len() == 2 && stale.is_empty(), "not renewed: {stale:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&format!("{context} rollout status deployment/web --timeout=60s")).await?;
    let exposed = format!("{context} expose deployment/web --port=80 --target-port=8080");
    cluster.kubectl(&exposed).await?;
    let address = cluster.get(&format!("{context} service/web"), "{.spec.clusterIP}").await?;
    let script = format!("curl -sf --max-time 3 http://{}/", address[0]);
    for node in ["node-4", "node-5"] {
        eventually(&format!("the new service on {node}"), SOON, async || {
            Ok(cluster.lab.run(node, &["sh", "-c", &script]).await?)
        })
        .await?;
    }
    Ok(())
}

async fn one_member_is_enough(cluster: Cluster) -> Result<Cluster> {
    cluster.kubectl("create configmap precious --from-literal=a=b").await?;
    let traffic = Traffic::start(&cluster, "recovered")?;
    for host in ["node-2", "node-3"] {
        cluster.lab.fault(host, lab::Fault::Kill).await?;
    }
    // One of three members is no majority.
    let recovered = cluster.kprov("recover", &["--yes"]).await?;
    recovered.expect_success("kprov recover")?;
    let cluster = cluster.reinstall(&["node-2", "node-3"]).await?;
    let replaced = cluster.kprov("replace", &["node-2", "node-3", "--yes"]).await?;
    replaced.expect_success("kprov replace")?;
    let tally = traffic.end().await?;
    println!("recovered from one member: {tally}");
    cluster.nodes_are_ready(2, SOON).await?;
    let value = cluster.get("configmap/precious", "{.data.a}").await?;
    ensure!(value == ["b"], "{value:?}");
    works(&cluster, "recovered").await?;
    nothing_is_left_to_do(&cluster).await?;
    Ok(cluster)
}

async fn a_backup_makes_the_cluster_again(cluster: Cluster) -> Result<Cluster> {
    let key = cluster.folder().join("passphrase");
    std::fs::write(&key, PASSPHRASE)?;
    let key = key.to_str().context("no UTF-8")?.to_owned();
    let archive = cluster.folder().join("cluster.kbackup");
    let to = archive.to_str().context("no UTF-8")?.to_owned();
    let made = cluster.kprov("backup", &["--to", &to, "--key-file", &key]).await?;
    made.expect_success("kprov backup")?;
    let sealed = std::fs::read(&archive)?;
    let clear = |text: &[u8]| sealed.windows(text.len()).any(|window| window == text);
    ensure!(!clear(b"PRIVATE KEY") && !clear(b"precious"), "the backup is not sealed");
    let before = cluster.get("configmaps", "{.items[*].metadata.name}").await?;
    cluster.kubectl("create configmap late").await?;
    // Other machines, another state directory.
    let names: Vec<String> = cluster.lab.hosts().iter().map(|host| host.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let cluster = cluster.reinstall(&names).await?;
    std::fs::rename(cluster.folder().join(".kprov"), cluster.folder().join("lost"))?;
    let start = Instant::now();
    let mut command = Command::new(cluster.kprov_path());
    command.arg("restore").arg(&archive).arg(cluster.inventory_path());
    command.args(["--yes", "--key-file", &key]);
    let output = tokio::time::timeout(Duration::from_secs(300), command.output()).await??;
    ensure!(output.status.success(), "restore: {}", String::from_utf8_lossy(&output.stderr));
    println!("restored onto other machines after {:.1?}", start.elapsed());
    let after = cluster.get("configmaps", "{.items[*].metadata.name}").await?;
    ensure!(after == before, "{} objects of {} are back", after.len(), before.len());
    cluster.nodes_are_ready(2, SOON).await?;
    cluster.kubectl("rollout status deployment/web --timeout=120s").await?;
    works(&cluster, "restored").await?;
    Ok(cluster)
}
