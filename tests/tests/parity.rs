//! What real components were told and did, repeated by the machines of the simulator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulator::recording::Recording;
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);
const COMPONENTS: [&str; 3] = ["kube-scheduler", "kube-controller-manager", "kubelet"];
/// The value of the secret `hidden`, and how it would stand in a recording.
const SECRET: &str = "secret-value";
const SECRET_BASE64: &str = "c2VjcmV0LXZhbHVl";
/// A pod that has the secret in a variable and in a file, on the host whose kubelet is looked at.
const KEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: keeper }
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: kprov.local/echo:1
      env:
        - { name: PASSWORD, valueFrom: { secretKeyRef: { name: hidden, key: password } } }
      volumeMounts: [{ name: files, mountPath: /hidden }]
  volumes: [{ name: files, secret: { secretName: hidden } }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_repeats_what_real_components_did() -> Result<()> {
    let mut inventory = Inventory::single_master("parity", 2);
    for component in COMPONENTS {
        let file = file_of(component);
        inventory.extra +=
            &format!("\n[components.{component}]\nargs = {{ record-to = {file:?} }}\n");
    }
    let cluster = Cluster::up(inventory).await?;
    workload(&cluster).await?;
    for component in COMPONENTS {
        let file = file_of(component);
        let text = cluster.lab.run("node-1", &["cat", &file]).await?;
        ensure!(!text.contains(SECRET_BASE64), "{component} recorded a secret's value");
        ensure!(!text.contains(SECRET), "{component} recorded what was made of a secret's value");
        let told = text.contains(r#""password":""#);
        ensure!(told == (component != "kube-scheduler"), "{component} and the secret");
        // The kubelet gives the secret to a container, and the recording tells of that.
        let used = text.contains(r#""PASSWORD=secret-"#);
        ensure!(used == (component == "kubelet"), "{component} and the secret's use");
        let mode = cluster.lab.run("node-1", &["stat", "--format=%a %U", &file]).await?;
        ensure!(mode.trim() == "600 root", "{component}: {mode}");
        let recording = Recording::parse(&text).with_context(|| component.to_owned())?;
        ensure!(recording.component() == component);
        let parity = recording.replay().with_context(|| component.to_owned())?;
        println!("{component}: {} inputs, {} effects", parity.inputs, parity.effects);
        ensure!(parity.difference.is_none(), "{component}: {parity:?}");
        ensure!(parity.inputs > 100 && parity.effects > 10, "{component}: {parity:?}");
    }
    Ok(())
}

fn file_of(component: &str) -> String {
    format!("/var/log/{component}.jsonl")
}

/// Something of everything that the components do for a deployment, and a secret in a container.
async fn workload(cluster: &Cluster) -> Result<()> {
    let value = format!("--from-literal=password={SECRET}");
    cluster.kubectl(&format!("create secret generic hidden {value}")).await?;
    cluster.create(KEEPER).await?;
    cluster.kubectl("wait --for=condition=Ready pod/keeper --timeout=60s").await?;
    let image = "kprov.local/echo";
    cluster.kubectl(&format!("create deployment web --image={image}:1 --replicas=4")).await?;
    cluster.kubectl("expose deployment/web --port=80 --target-port=8080").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    cluster.kubectl("scale deployment/web --replicas=6").await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    cluster.kubectl(&format!("set image deployment/web echo={image}:2")).await?;
    cluster.kubectl("rollout status deployment/web --timeout=90s").await?;
    cluster.kubectl("delete deployment/web service/web pod/keeper secret/hidden").await?;
    eventually("no pods", SOON, async || {
        let left = cluster.get("pods", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    Ok(())
}
