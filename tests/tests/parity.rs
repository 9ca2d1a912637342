//! What real components were told and did, repeated by the machines of the simulator.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulator::recording::Recording;
use tests::{Cluster, Inventory, eventually};

const SOON: Duration = Duration::from_secs(60);
/// What comes by the minute, and what is measured over a window, is there by then.
const MINUTES: Duration = Duration::from_secs(150);
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
/// Something for every controller that a deployment does not move.
const OTHERS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: recorded }
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: { name: local }
provisioner: kprov.io/local
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: sum-of-roles }
aggregationRule: { clusterRoleSelectors: [{ matchLabels: { recorded: "yes" } }] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: part-of-roles, labels: { recorded: "yes" } }
rules: [{ apiGroups: [""], resources: [pods], verbs: [get] }]
---
apiVersion: v1
kind: ResourceQuota
metadata: { name: quota-of-all, namespace: recorded }
spec: { hard: { pods: "50", count/jobs.batch: "20" } }
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: { name: budget-of-set, namespace: recorded }
spec: { minAvailable: 1, selector: { matchLabels: { app: set } } }
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: { name: scaler-of-old, namespace: recorded }
spec:
  scaleTargetRef: { apiVersion: v1, kind: ReplicationController, name: old }
  minReplicas: 2
  maxReplicas: 3
  metrics:
    - type: Resource
      resource: { name: cpu, target: { type: Utilization, averageUtilization: 50 } }
---
apiVersion: v1
kind: ReplicationController
metadata: { name: old, namespace: recorded }
spec:
  replicas: 1
  selector: { app: old }
  template:
    metadata: { labels: { app: old } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: kprov.local/echo:1
          resources: { requests: { cpu: 10m } }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: set, namespace: recorded }
spec:
  replicas: 2
  serviceName: set
  persistentVolumeClaimRetentionPolicy: { whenDeleted: Delete }
  selector: { matchLabels: { app: set } }
  volumeClaimTemplates:
    - metadata: { name: data }
      spec:
        storageClassName: local
        accessModes: [ReadWriteOnce]
        resources: { requests: { storage: 16Mi } }
  template:
    metadata: { labels: { app: set } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: kprov.local/echo:1
          volumeMounts: [{ name: data, mountPath: /data }]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: recorded }
spec:
  selector: { matchLabels: { app: agent } }
  template:
    metadata: { labels: { app: agent } }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: echo, image: "kprov.local/echo:1" }]
      volumes:
        - name: brief
          ephemeral:
            volumeClaimTemplate:
              spec:
                storageClassName: local
                accessModes: [ReadWriteOnce]
                resources: { requests: { storage: 16Mi } }
---
apiVersion: batch/v1
kind: Job
metadata: { name: once, namespace: recorded }
spec:
  completions: 2
  completionMode: Indexed
  ttlSecondsAfterFinished: 5
  template:
    spec:
      restartPolicy: Never
      containers: [{ name: echo, image: "kprov.local/echo:1", args: [--help] }]
---
apiVersion: batch/v1
kind: CronJob
metadata: { name: tick, namespace: recorded }
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{ name: echo, image: "kprov.local/echo:1", args: [--help] }]
---
apiVersion: v1
kind: Service
metadata: { name: outside, namespace: recorded }
spec: { ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: outside, namespace: recorded }
subsets: [{ addresses: [{ ip: 192.0.2.1 }], ports: [{ port: 80 }] }]
"#;
/// What those controllers wrote has these names.
const WRITTEN: [&str; 11] = [
    "sum-of-roles",
    "quota-of-all",
    "budget-of-set",
    "scaler-of-old",
    "old-",
    "data-set-1",
    "agent-",
    "-brief",
    "once-",
    "tick-",
    "outside-",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_repeats_what_real_components_did() -> Result<()> {
    let mut inventory = Inventory::single_master("parity", 2);
    for component in COMPONENTS {
        let file = file_of(component);
        inventory.extra +=
            &format!("\n[components.{component}]\nargs = {{ record-to = {file:?} }}\n");
    }
    let cluster = Cluster::up(inventory).await?;
    tokio::try_join!(workload(&cluster), other_kinds(&cluster))?;
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
        if component == "kube-controller-manager" {
            controllers_wrote(&text)?;
        }
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

/// Some of every kind that a controller acts on, until the namespace that has them is gone.
async fn other_kinds(cluster: &Cluster) -> Result<()> {
    cluster.create(OTHERS).await?;
    for set in ["statefulset/set", "daemonset/agent"] {
        cluster.kubectl(&format!("rollout status {set} -n recorded --timeout=90s")).await?;
    }
    cluster.kubectl("scale statefulset/set -n recorded --replicas=1").await?;
    cluster.kubectl("set image daemonset/agent -n recorded echo=kprov.local/echo:2").await?;
    cluster.kubectl("rollout status daemonset/agent -n recorded --timeout=90s").await?;
    eventually("the job to be done and gone", MINUTES, async || {
        let jobs = cluster.get("jobs -n recorded", "{.items[*].metadata.name}").await?;
        ensure!(!jobs.contains(&"once".to_owned()), "{jobs:?}");
        Ok(())
    })
    .await?;
    eventually("a job of the minute, and a scaler that knows", MINUTES, async || {
        let last = "{.status.lastSuccessfulTime}";
        let last = cluster.get("cronjob/tick -n recorded", last).await?;
        let replicas = cluster.get("rc/old -n recorded", "{.status.readyReplicas}").await?;
        let used = "{.status.currentMetrics[0].resource.current.averageUtilization}";
        let used = cluster.get("hpa/scaler-of-old -n recorded", used).await?;
        ensure!(last.len() == 1 && replicas == ["2"] && used.len() == 1, "{last:?} {replicas:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl("delete namespace recorded --timeout=120s").await?;
    cluster
        .kubectl("delete storageclass/local clusterrole/sum-of-roles clusterrole/part-of-roles")
        .await?;
    eventually("no volumes", SOON, async || {
        let left = cluster.get("pv", "{.items[*].metadata.name}").await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// Whether the effects in a recording tell of each kind.
fn controllers_wrote(recording: &str) -> Result<()> {
    let mut missing = WRITTEN.to_vec();
    for line in recording.lines().skip(1) {
        // The last line may be cut off.
        let Ok(step) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let effects = step["effects"].to_string();
        missing.retain(|name| !effects.contains(name));
    }
    ensure!(missing.is_empty(), "no controller wrote {missing:?}");
    Ok(())
}
