//! What happens around kprov and the kubelet: hosts that are unfit, a container engine that is
//! restarted, certificates that end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A fault of a host: the check that finds it, a word of the message, a word of the advice, and
/// the commands that make it and take it away.
struct Unfit {
    check: &'static str,
    message: &'static str,
    advice: &'static str,
    make: &'static str,
    mend: &'static str,
}

/// One for each host from the second on.
const UNFIT: [Unfit; 7] = [
    // Containers share the machine's clock, so it is the host's `date` that lies.
    Unfit {
        check: "clock",
        // A second more or less is the measuring.
        message: " s ahead of this machine's; 30 s are allowed",
        advice: "chrony or systemd-timesyncd",
        make: "printf '#!/bin/sh\\nexec /bin/date --date=+1hour \"$@\"\\n' >/usr/local/sbin/date
               chmod 755 /usr/local/sbin/date",
        mend: "rm /usr/local/sbin/date",
    },
    Unfit {
        check: "disk",
        message: "/var/lib/kprov has ",
        advice: "free some space on /var/lib/kprov",
        make: "mkdir /var/lib/kprov && mount -t tmpfs -o size=8m full /var/lib/kprov",
        mend: "umount /var/lib/kprov && rmdir /var/lib/kprov",
    },
    // The directory by which every program, systemctl too, knows what the init process is.
    Unfit {
        check: "systemd",
        message: "systemd is not running as the init process",
        advice: "use a host that boots with systemd",
        make: "mv /run/systemd/system /run/systemd/system.hidden",
        mend: "mv /run/systemd/system.hidden /run/systemd/system",
    },
    Unfit {
        check: "os",
        message: "Plan 9 is not a distribution that kprov supports",
        advice: "supported: Debian from 9",
        make: "rm /etc/os-release
               printf 'ID=plan9\\nPRETTY_NAME=\"Plan 9\"\\n' >/etc/os-release",
        mend: "ln -sf ../usr/lib/os-release /etc/os-release",
    },
    Unfit {
        check: "port",
        message: "port 10250/tcp of kubelet.service is in use by sshd",
        advice: "stop it",
        make: "/usr/sbin/sshd -o ListenAddress=127.0.0.1:10250 -o PidFile=/run/other.pid",
        mend: "kill $(cat /run/other.pid)",
    },
    Unfit {
        check: "sudo",
        message: "kprov cannot become root without a password",
        advice: "sudo",
        make: "mv /etc/sudoers.d/kprov /etc/sudoers.kprov",
        mend: "mv /etc/sudoers.kprov /etc/sudoers.d/kprov",
    },
    Unfit {
        check: "docker",
        message: "Docker is not installed",
        advice: "apt-get install docker.io",
        make: "mv /usr/bin/docker /usr/bin/docker.hidden",
        mend: "mv /usr/bin/docker.hidden /usr/bin/docker",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn unfit_hosts_are_found_before_anything_changes() -> Result<()> {
    let mut inventory = Inventory::single_master("unfit", UNFIT.len() + 1);
    inventory.extra = "\n[system.docker]\ninstall = false\n".to_owned();
    let cluster = Cluster::boot(inventory).await?;
    let hosts: Vec<String> = cluster.lab.hosts().iter().map(|host| host.name.clone()).collect();
    for (host, unfit) in hosts[1..].iter().zip(&UNFIT) {
        cluster.lab.run(host, &["sh", "-ec", unfit.make]).await?;
    }
    let mut before = Vec::new();
    for host in &hosts {
        before.push(cluster.lab.snapshot(host).await?);
    }

    let refused = cluster.kprov("apply", &["--output", "json"]).await?;
    ensure!(refused.code == 3, "{refused:?}");
    let told: serde_json::Value = serde_json::from_str(&refused.stdout)?;
    let mut problems = BTreeMap::<&str, Vec<[&str; 3]>>::new();
    for problem in told["problems"].as_array().context("no list of problems")? {
        let field = |name: &str| problem[name].as_str().unwrap_or_default();
        let told = [field("check"), field("message"), field("advice")];
        problems.entry(field("host")).or_default().push(told);
    }
    ensure!(!problems.contains_key(hosts[0].as_str()), "a fit host is accused: {problems:#?}");
    for (host, unfit) in hosts[1..].iter().zip(&UNFIT) {
        let found = problems.get(host.as_str()).map_or(&[][..], Vec::as_slice);
        let [[check, message, advice]] = found else {
            anyhow::bail!("{host} has one fault ({}), told is {found:#?}", unfit.check)
        };
        ensure!(*check == unfit.check, "{host}: {check:?} instead of {:?}", unfit.check);
        ensure!(message.contains(unfit.message), "{host}: {message}");
        ensure!(advice.contains(unfit.advice), "{host}: {advice}");
        // People are told the same.
        ensure!(refused.stderr.contains(message), "{}", refused.stderr);
        ensure!(refused.stderr.contains(advice), "{}", refused.stderr);
    }
    ensure!(refused.stderr.contains("nothing was changed on any host"), "{}", refused.stderr);
    for (host, before) in hosts.iter().zip(&before) {
        let changed = before.diff(&cluster.lab.snapshot(host).await?);
        ensure!(changed.is_empty(), "a refused apply changed {host}: {changed:#?}");
    }

    // Each way out leads out.
    for (host, unfit) in hosts[1..].iter().zip(&UNFIT) {
        cluster.lab.run(host, &["sh", "-ec", unfit.mend]).await?;
    }
    cluster.apply().await?;
    Ok(())
}

/// Pods with a probe on the second host, so that a restart there concerns all of them.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node-2}
      containers:
      - name: echo
        image: kprov.local/echo:1
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        livenessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#;

/// Certificates run out on the first host while things are restarted on the second.
#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_restarts_and_kubelets_their_certificates() -> Result<()> {
    let mut inventory = Inventory::single_master("restarts", 2);
    inventory.extra = format!(
        "\n[components.kube-controller-manager]\n\
         args = {{ cluster-signing-duration = {CERTIFICATE_LIFE:?} }}\n"
    );
    let cluster = Cluster::up(inventory).await?;
    let first = First::of(&cluster, "node-1").await?;
    pods_outlive_restarts_of_kubelet_and_docker(&cluster).await?;
    kubelets_renew_their_certificates_without_a_restart(&cluster, &first).await
}

async fn pods_outlive_restarts_of_kubelet_and_docker(cluster: &Cluster) -> Result<()> {
    cluster.create(WEB).await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    let pods = Pods::of(cluster).await?;

    cluster.lab.run("node-2", &["systemctl", "restart", "kubelet.service"]).await?;
    reports_again(cluster, "node-2").await?;
    ensure!(pods == Pods::of(cluster).await?, "a restart of the kubelet touched its pods");

    // With live-restore, as in the lab, containers run on while Docker is away.
    let kubelet = unit_process(cluster, "node-2", "kubelet").await?;
    cluster.lab.run("node-2", &["systemctl", "restart", "docker.service"]).await?;
    reports_again(cluster, "node-2").await?;
    ensure!(pods == Pods::of(cluster).await?, "a restart of Docker touched the pods");
    // The kubelet still hears of its containers: it restarts one that dies.
    let victim = cluster.get("pods -l app=web", "{.items[0].metadata.name}").await?;
    let find = format!("docker ps -q --filter name=k8s_echo_{}", victim[0]);
    let container = cluster.lab.run("node-2", &["sh", "-c", &find]).await?;
    ensure!(container.lines().count() == 1, "{container:?}");
    cluster.lab.run("node-2", &["docker", "kill", container.trim()]).await?;
    eventually("the restart of one container", SOON, async || {
        let restarts = "{.status.containerStatuses[0].restartCount}";
        let restarts = cluster.get(&format!("pod/{}", victim[0]), restarts).await?;
        ensure!(restarts == ["1"], "{restarts:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;

    // Without it Docker takes all containers down with it; the pods start again in place.
    let script = "sed -i 's/\"live-restore\": true/\"live-restore\": false/' \
                  /etc/docker/daemon.json && systemctl reload docker && systemctl restart docker";
    cluster.lab.run("node-2", &["sh", "-c", script]).await?;
    eventually("all containers started anew", SOON, async || {
        let now = Pods::of(cluster).await?;
        ensure!(now.uids == pods.uids, "pods were replaced: {now:?}");
        let old = now.containers.iter().filter(|c| pods.containers.contains(c)).count();
        ensure!(now.containers.len() == 3 && old == 0, "{now:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    reports_again(cluster, "node-2").await?;
    let now = Pods::of(cluster).await?;
    ensure!(now.uids == pods.uids, "pods were replaced: {now:?}");
    // One restart each is Docker's; the container that was killed had one before.
    ensure!(now.restarts.iter().map(|n| *n - 1).sum::<u32>() == 1, "needless restarts: {now:?}");
    ensure!(
        kubelet == unit_process(cluster, "node-2", "kubelet").await?,
        "the kubelet was restarted"
    );
    cluster.kubectl(&format!("logs {} --tail=1", victim[0])).await?;
    cluster.kubectl("scale deployment/web --replicas=4").await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    Ok(())
}

/// The pods of the deployment, each list in the order of names.
#[derive(Debug, PartialEq)]
struct Pods {
    uids: Vec<String>,
    restarts: Vec<u32>,
    /// Identities of the running containers.
    containers: Vec<String>,
}

impl Pods {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let list =
            async |path: &str| cluster.get("pods -l app=web --sort-by=.metadata.name", path).await;
        let restarts = list("{.items[*].status.containerStatuses[*].restartCount}").await?;
        let running = list(
            "{range .items[*].status.containerStatuses[?(@.state.running)]}{.containerID} {end}",
        )
        .await?;
        Ok(Self {
            uids: list("{.items[*].metadata.uid}").await?,
            restarts: restarts.iter().map(|n| n.parse()).collect::<Result<_, _>>()?,
            containers: running,
        })
    }
}

/// Waits until the kubelet of a host has renewed its lease and the node is ready.
async fn reports_again(cluster: &Cluster, host: &str) -> Result<()> {
    let lease = format!("lease/{host} -n kube-node-lease");
    let before = cluster.get(&lease, "{.spec.renewTime}").await?;
    eventually(&format!("{host} reports again"), SOON, async || {
        let now = cluster.get(&lease, "{.spec.renewTime}").await?;
        ensure!(now != before, "its lease is still of {before:?}");
        let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
        let ready = cluster.get(&format!("node/{host}"), ready).await?;
        ensure!(ready == ["True"], "{ready:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// The process of a unit on a host, and when it was started.
async fn unit_process(cluster: &Cluster, host: &str, unit: &str) -> Result<String> {
    let activations = cluster.lab.activations(host).await?;
    activations.get(&format!("{unit}.service")).cloned().context("no such unit")
}

/// Long enough that a certificate, which counts from five minutes before it was signed, is not
/// due at once (after 70 to 90 % of its life), short enough to be waited for.
const CERTIFICATE_LIFE: &str = "150s";
/// When the first certificate has surely ended.
const ENDED: Duration = Duration::from_secs(200);

/// The first certificates that the kubelet of a host got.
struct First {
    host: String,
    /// The kubelet's process.
    kubelet: String,
    /// Their names, with their numbers.
    serials: Vec<(&'static str, String)>,
}

impl First {
    /// Keeps copies of them on the host.
    async fn of(cluster: &Cluster, host: &str) -> Result<Self> {
        let kubelet = unit_process(cluster, host, "kubelet").await?;
        let mut serials = Vec::new();
        for name in ["kubelet-client", "kubelet-server"] {
            let script = format!(
                "cp /var/lib/kubelet/pki/{name}-current.pem /run/{name}-first.pem
                 openssl x509 -noout -serial -in /run/{name}-first.pem"
            );
            let serial = eventually("the first certificate", SOON, async || {
                Ok(cluster.lab.run(host, &["sh", "-ec", &script]).await?)
            })
            .await?;
            serials.push((name, serial.0));
        }
        Ok(Self { host: host.to_owned(), kubelet, serials })
    }
}

async fn kubelets_renew_their_certificates_without_a_restart(
    cluster: &Cluster,
    first: &First,
) -> Result<()> {
    let First { host, kubelet, serials } = first;
    eventually("the end of the first certificates", ENDED, async || {
        for (name, _) in serials {
            let file = format!("/run/{name}-first.pem");
            let check = ["openssl", "x509", "-noout", "-checkend", "0", "-in", &file];
            let lives = cluster.lab.exec(host, &check).await?.success();
            ensure!(!lives, "{name} has not ended");
        }
        Ok(())
    })
    .await?;

    for (name, serial) in serials {
        let script = format!(
            "openssl x509 -noout -serial -checkend 0 -in /var/lib/kubelet/pki/{name}-current.pem"
        );
        // Fails if this one has ended too.
        let now = cluster.lab.run(host, &["sh", "-ec", &script]).await?;
        ensure!(!now.starts_with(serial.trim()), "{name} is still the first: {now}");
    }
    // The node itself asked for the renewed one, with the certificate before it; the first was
    // asked for with the bootstrap token.
    let signers = cluster
        .get(
            "csr",
            &format!(
                "{{range .items[?(@.spec.username==\"system:node:{host}\")]}}\
                 {{.spec.signerName}} {{end}}"
            ),
        )
        .await?;
    let client = "kubernetes.io/kube-apiserver-client-kubelet".to_owned();
    ensure!(signers.contains(&client), "{signers:?}");
    reports_again(cluster, host).await?;
    // New connections both ways: a pod is started, and the API server asks the kubelet.
    let late = WEB.replace("node-2", host).replace("web", "late");
    cluster.create(&late).await?;
    cluster.kubectl("rollout status deployment/late --timeout=60s").await?;
    cluster.kubectl("logs deployment/late --tail=1").await?;
    ensure!(*kubelet == unit_process(cluster, host, "kubelet").await?, "the kubelet was restarted");
    Ok(())
}
