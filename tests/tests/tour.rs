//! What an operator does on the first day, with the real kubectl.

#![expect(clippy::print_stdout, reason = "a test report names the clients it used")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn start_run_expose_scale_update_undo() -> Result<()> {
    let cluster = Cluster::up(Inventory::single_master("tour", 3)).await?;
    let echo = "kprov.local/echo";
    cluster.kubectl("cluster-info").await?;
    let namespaces = cluster.get("namespaces", "{.items[*].metadata.name}").await?;
    ensure!(namespaces == ["default", "kube-node-lease", "kube-public", "kube-system"]);

    cluster.kubectl(&format!("create deployment web --image={echo}:1 --port=8080")).await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    cluster.kubectl(&format!("run single --image={echo}:1 --port=8080")).await?;
    cluster.kubectl("wait pod/single --for=condition=Ready --timeout=60s").await?;
    let wide = cluster.kubectl("get pods -o wide").await?;
    ensure!(wide.contains("1/1") && wide.contains("10.244."), "{wide}");
    let described = cluster.kubectl("describe pod single").await?;
    for part in ["Successfully assigned default/single to", "Started container single"] {
        ensure!(described.contains(part), "{part:?} is missing:\n{described}");
    }

    cluster.kubectl("expose deployment/web --type=NodePort --port=80 --target-port=8080").await?;
    cluster.kubectl("scale deployments/web --replicas=3").await?;
    cluster.kubectl("rollout status deployment/web --timeout=60s").await?;
    everything_reaches_the_service(&cluster).await?;
    udp_too(&cluster).await?;
    names_are_found(&cluster).await?;
    cluster.kubectl("scale deployments/web --replicas=2").await?;
    replicas(&cluster, "web", 2).await?;

    cluster.kubectl(&format!("set image deployment/web echo={echo}:2")).await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    images_are(&cluster, "kprov.local/echo:2").await?;
    cluster.kubectl("rollout undo deployment/web").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    images_are(&cluster, "kprov.local/echo:1").await?;

    let logs = cluster.kubectl("logs single --tail=5").await?;
    ensure!(!logs.trim().is_empty(), "no logs");
    let said = cluster.kubectl("exec single -- /bin/echo get http://127.0.0.1:8080/").await?;
    ensure!(said.contains("pod=single"), "{said}");
    every_client_works(&cluster).await?;
    let failed = cluster.try_kubectl(&["exec", "single", "--", "/nothing"]).await?;
    ensure!(failed.code != 0, "a missing program ran");
    let events = cluster.kubectl("get events").await?;
    ensure!(events.contains("ScalingReplicaSet"), "{events}");
    cluster.kubectl("delete pod single").await?;
    cluster.kubectl("delete deployment/web service/web").await?;
    eventually("no pods", SOON, async || {
        let left = cluster.get("pods", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// What clients of several versions do differently: bodies in protobuf or JSON, discovery,
/// validation, streams over websockets or SPDY.
async fn every_client_works(cluster: &Cluster) -> Result<()> {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: b}\n";
    for program in cluster.kubectls()? {
        let version = cluster.kubectl_of(&program, "version", "").await?;
        println!("{}: {}", program.display(), version.replace('\n', ", "));
        let check = async |line: &str, expected: &str| -> Result<()> {
            let said = cluster.kubectl_of(&program, line, map).await?;
            ensure!(said.contains(expected), "{} {line}: {said}", program.display());
            Ok(())
        };
        check("get pods -o wide", "single").await?;
        check("apply -f -", "configmap/applied").await?;
        check("create configmap made --from-literal=a=b", "configmap/made created").await?;
        check("create deployment other --image=kprov.local/echo:1", "created").await?;
        check("label configmap made x=y", "labeled").await?;
        check("logs single --tail=1", "http").await?;
        check("exec single -- /bin/echo get http://127.0.0.1:8080/", "pod=single").await?;
        check("explain pod.spec.containers", "containers").await?;
        check("auth can-i delete pods", "yes").await?;
        check("delete deployment/other configmap/made configmap/applied", "deleted").await?;
    }
    Ok(())
}

async fn replicas(cluster: &Cluster, app: &str, count: usize) -> Result<()> {
    eventually("the replicas", SOON, async || {
        let pods = cluster
            .get(
                &format!("pods -l app={app}"),
                "{.items[?(@.status.phase==\"Running\")].metadata.name}",
            )
            .await?;
        ensure!(pods.len() == count, "{pods:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn images_are(cluster: &Cluster, image: &str) -> Result<()> {
    eventually("the images", SOON, async || {
        let images = cluster.get("pods -l app=web", "{.items[*].spec.containers[0].image}").await?;
        ensure!(!images.is_empty() && images.iter().all(|i| i == image), "{images:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn everything_reaches_the_service(cluster: &Cluster) -> Result<()> {
    let service = cluster.get("service/web", "{.spec.clusterIP} {.spec.ports[0].nodePort}").await?;
    let [address, port] = service.as_slice() else { anyhow::bail!("{service:?}") };
    let pods = cluster
        .get("pods -l app=web", "{range .items[*]}{.metadata.name}={.status.podIP} {end}")
        .await?;
    let hosts = cluster.get("pods -l app=web", "{.items[*].spec.nodeName}").await?;
    let mut distinct = hosts.clone();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() == 3, "three replicas are not on three hosts: {hosts:?}");
    for host in cluster.lab.hosts() {
        // From the host: each pod, the service, and every host's node port.
        for pod in &pods {
            let (name, ip) = pod.split_once('=').context("no address")?;
            let answer = curl(cluster, &host.name, &format!("http://{ip}:8080/")).await?;
            ensure!(answer.contains(&format!("pod={name}")), "{} to {pod}: {answer}", host.name);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..30 {
            let answer = curl(cluster, &host.name, &format!("http://{address}/")).await?;
            seen.insert(answer.split_whitespace().next().unwrap_or_default().to_owned());
        }
        ensure!(seen.len() == 3, "{}: the service does not balance: {seen:?}", host.name);
        for other in cluster.lab.hosts() {
            let url = format!("http://{}:{port}/", other.address);
            curl(cluster, &host.name, &url).await?;
        }
    }
    // From each pod: each pod, and the service (itself among its endpoints: hairpin).
    for pod in &pods {
        let (name, _) = pod.split_once('=').context("no address")?;
        for other in &pods {
            let (_, ip) = other.split_once('=').context("no address")?;
            cluster.kubectl(&format!("exec {name} -- /bin/echo get http://{ip}:8080/")).await?;
        }
        for _ in 0..8 {
            cluster.kubectl(&format!("exec {name} -- /bin/echo get http://{address}/")).await?;
        }
        for host in cluster.lab.hosts() {
            let url = format!("http://{}:{port}/", host.address);
            cluster.kubectl(&format!("exec {name} -- /bin/echo get {url}")).await?;
        }
    }
    Ok(())
}

async fn udp_too(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            "apiVersion: v1\nkind: Service\nmetadata: {name: udp}\nspec:\n  selector: {app: web}\n  \
             ports: [{name: u, protocol: UDP, port: 91, targetPort: 9091}]\n",
        )
        .await?;
    let address = cluster.get("service/udp", "{.spec.clusterIP}").await?;
    let address = address.first().context("no address")?;
    let pod = cluster.get("pods -l app=web", "{.items[0].metadata.name}").await?;
    eventually("an answer by UDP", SOON, async || {
        let said =
            cluster.kubectl(&format!("exec {} -- /bin/echo udp {address}:91", pod[0])).await?;
        ensure!(said.contains("pod=web-"), "{said}");
        Ok(())
    })
    .await?;
    let script =
        format!("exec 3<>/dev/udp/{address}/91 && echo hello >&3 && timeout 3 head -c 20 <&3");
    for host in cluster.lab.hosts() {
        let said = cluster.lab.exec(&host.name, &["bash", "-c", &script]).await?;
        ensure!(said.stdout.contains("web-"), "UDP from {}: {said:?}", host.name);
    }
    cluster.kubectl("delete service/udp").await?;
    Ok(())
}

/// Names of services, of endpoints, of ports and of addresses, in pods of every node; and what becomes
/// of them when a server dies.
async fn names_are_found(cluster: &Cluster) -> Result<()> {
    cluster
        .create(
            "apiVersion: v1\nkind: Service\nmetadata: {name: each}\nspec:\n  clusterIP: None\n  \
             selector: {app: web}\n  ports: [{name: http, port: 8080}]\n---\n\
             apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: asker}\nspec:\n  \
             selector: {matchLabels: {app: asker}}\n  template:\n    \
             metadata: {labels: {app: asker}}\n    spec:\n      \
             containers: [{name: sh, image: kprov.local/busybox:1, command: [sleep, '3600']}]\n",
        )
        .await?;
    cluster.kubectl("rollout status daemonset/asker --timeout=60s").await?;
    let askers = cluster.get("pods -l app=asker", "{.items[*].metadata.name}").await?;
    ensure!(askers.len() == 3, "{askers:?}");
    let pods = cluster.get("pods -l app=web", "{.items[*].status.podIP}").await?;
    let service = cluster.get("service/web", "{.spec.clusterIP}").await?;
    let own = "svc.cluster.local";
    let port = format!("-type=srv _http._tcp.each.default.{own}");
    let mut asked = vec![
        (format!("kubernetes.default.{own}"), vec!["10.254.0.1\n".to_owned()]),
        (format!("web.default.{own}"), service.clone()),
        (format!("each.default.{own}"), pods.clone()),
        (port, vec![format!("8080 {}.each.default.{own}", pods[0].replace('.', "-"))]),
    ];
    asked.push((service[0].clone(), vec![format!("web.default.{own}")]));
    for asker in &askers {
        for (name, expected) in &asked {
            eventually(&format!("{name} in {asker}"), SOON, async || {
                let said = look_up(cluster, asker, name).await?;
                let all = expected.iter().all(|part| said.contains(part));
                ensure!(all, "{expected:?} is not in {said}");
                Ok(())
            })
            .await?;
        }
    }
    // Nobody outside knows it, and that is said soon.
    let said = look_up(cluster, &askers[0], "nobody.example.com").await?;
    ensure!(said.contains("can't find nobody.example.com"), "{said}");
    // One server dies: the names of its own pods return, those of others never went.
    let node = cluster.get(&format!("pod/{}", askers[0]), "{.spec.nodeName}").await?;
    let kill = ["systemctl", "kill", "--signal=KILL", "cluster-dns.service"];
    cluster.lab.run(&node[0], &kill).await?;
    let name = format!("kubernetes.default.{own}");
    let said = look_up(cluster, &askers[1], &name).await?;
    ensure!(said.contains("10.254.0.1\n"), "{said}");
    eventually("names after the server's death", SOON, async || {
        let said = look_up(cluster, &askers[0], &name).await?;
        ensure!(said.contains("10.254.0.1\n"), "{said}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete daemonset/asker service/each").await?;
    Ok(())
}

/// What a pod's resolver says. It fails where a name has an address of one family alone, so what counts is
/// what it prints; and it waits ten seconds for a server that says nothing.
async fn look_up(cluster: &Cluster, pod: &str, name: &str) -> Result<String> {
    let mut command = vec!["exec", pod, "--", "timeout", "10", "nslookup"];
    command.extend(name.split_whitespace());
    let outcome = cluster.try_kubectl(&command).await?;
    Ok(format!("{}{}", outcome.stdout, outcome.stderr))
}

async fn curl(cluster: &Cluster, host: &str, url: &str) -> Result<String> {
    let script = format!("curl -sf --max-time 3 {url}");
    let (answer, _) =
        eventually(&format!("{url} from {host}"), Duration::from_secs(15), async || {
            Ok(cluster.lab.run(host, &["sh", "-c", &script]).await?)
        })
        .await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_controllers_keep_their_number() -> Result<()> {
    let cluster = Cluster::up(Inventory::single_master("replication", 3)).await?;
    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"ReplicationController","metadata":{"name":"six"},
            "spec":{"replicas":6,"selector":{"app":"six"},"template":{"metadata":{"labels":{"app":
            "six"}},"spec":{"containers":[{"name":"echo","image":"kprov.local/echo:1",
            "resources":{"requests":{"cpu":"50m","memory":"16Mi"},"limits":{"memory":"64Mi"}},
            "ports":[{"containerPort":8080}],
            "volumeMounts":[{"name":"h","mountPath":"/host"}]}],
            "volumes":[{"name":"h","hostPath":{"path":"/tmp"}}]}}}}"#,
        )
        .await?;
    replicas(&cluster, "six", 6).await?;
    let uids = "{.items[?(@.status.phase==\"Running\")].metadata.uid}";
    let first = cluster.get("pods -l app=six", uids).await?;
    cluster.kubectl("delete pods -l app=six --wait=false").await?;
    eventually("six others", SOON, async || {
        let now = cluster.get("pods -l app=six", uids).await?;
        let new = now.iter().filter(|uid| !first.contains(uid)).count();
        ensure!(new == 6 && now.len() == 6, "{new} of {now:?} are new");
        Ok(())
    })
    .await?;

    killed_container_restarts(&cluster).await?;

    cluster
        .create(
            r#"{"apiVersion":"v1","kind":"ReplicationController","metadata":{"name":"port"},
            "spec":{"replicas":4,"selector":{"app":"port"},"template":{"metadata":{"labels":{"app":
            "port"}},"spec":{"containers":[{"name":"echo","image":"kprov.local/echo:1",
            "ports":[{"containerPort":8080,"hostPort":8081}]}]}}}}"#,
        )
        .await?;
    replicas(&cluster, "port", 3).await?;
    let pending = eventually("the fourth to be refused", SOON, async || {
        let path = "{.items[*].status.conditions[?(@.status==\"False\")].message}";
        let text = cluster.get("pods -l app=port", path).await?.join(" ");
        ensure!(text.contains("3 node(s) didn't have free ports"), "{text}");
        Ok(())
    });
    pending.await?;
    let address = cluster.lab.host("node-2")?.address;
    curl(&cluster, "node-1", &format!("http://{address}:8081/")).await?;
    cluster.kubectl("delete rc/port").await?;

    a_lost_host_is_noticed_and_returns(&cluster).await
}

async fn killed_container_restarts(cluster: &Cluster) -> Result<()> {
    let pod = cluster
        .get("pods -l app=six", "{.items[0].metadata.name} {.items[0].spec.nodeName}")
        .await?;
    let (name, host) = (&pod[0], &pod[1]);
    let script = format!("docker kill $(docker ps -q --filter name=k8s_echo_{name}_)");
    cluster.lab.run(host, &["sh", "-c", &script]).await?;
    eventually("the restart", SOON, async || {
        let path =
            "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        let status = cluster.get(&format!("pod/{name}"), path).await?;
        ensure!(status == ["1", "true"], "{status:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

async fn a_lost_host_is_noticed_and_returns(cluster: &Cluster) -> Result<()> {
    // Pods that leave an unreachable host at once, so that the test need not wait 5 minutes.
    cluster
        .create(
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"quick"},"spec":{
            "replicas":3,"selector":{"matchLabels":{"app":"quick"}},"template":{"metadata":{
            "labels":{"app":"quick"}},"spec":{"tolerations":[
            {"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute",
            "tolerationSeconds":1}],"containers":[{"name":"echo","image":"kprov.local/echo:1"}]}}}}"#,
        )
        .await?;
    cluster.kubectl("rollout status deployment/quick --timeout=60s").await?;
    cluster.lab.fault("node-3", lab::Fault::Kill).await?;
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    let (_, noticed) = eventually("NotReady", Duration::from_secs(50), async || {
        let status = cluster.get("node/node-3", ready).await?;
        ensure!(status == ["Unknown"], "{status:?}");
        Ok(())
    })
    .await?;
    ensure!(noticed < Duration::from_secs(50), "noticed after {noticed:?}");
    eventually("the replacement", SOON, async || {
        let path = "{range .items[?(@.status.phase==\"Running\")]}{.spec.nodeName} {end}";
        let hosts = cluster.get("pods -l app=quick", path).await?;
        let elsewhere = hosts.iter().filter(|h| *h != "node-3").count();
        ensure!(elsewhere == 3, "{hosts:?}");
        Ok(())
    })
    .await?;
    cluster.lab.fault("node-3", lab::Fault::Start).await?;
    eventually("Ready again", SOON, async || {
        let status = cluster.get("node/node-3", ready).await?;
        ensure!(status == ["True"], "{status:?}");
        Ok(())
    })
    .await?;
    Ok(())
}
