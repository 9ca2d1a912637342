//! The real kubectl, every version that is found, against a server on a real etcd.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::etcd_process::EtcdProcess;

/// `kubectl`, and `kubectl.1.27` and so on beside it.
fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).map(|d| d.join("kubectl")).find(|p| p.exists());
    let Some(first) = first.and_then(|p| p.canonicalize().ok()) else { return Vec::new() };
    let beside = std::fs::read_dir(first.parent().unwrap()).unwrap();
    let mut found: Vec<PathBuf> = beside
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("kubectl.1.")))
        .collect();
    found.sort();
    if found.is_empty() {
        found.push(first);
    }
    found
}

struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// Runs a command line; what it prints, or the error it prints.
    async fn run(&self, line: &str) -> String {
        let output = tokio::process::Command::new(&self.program)
            .args(line.split(' '))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = if output.status.success() { &output.stdout } else { &output.stderr };
        String::from_utf8_lossy(text).trim().to_owned()
    }

    async fn check(&self, line: &str, expected: &str) {
        let found = self.run(line).await;
        assert_eq!(found, expected, "{} {line}", self.program.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_kubectl_is_content() {
    let etcd = EtcdProcess::start().await;
    let cluster = Cluster::start_on(apiserver::StoreConfig::Etcd {
        endpoints: vec![etcd.endpoint()],
        tls: None,
    })
    .await;
    let kubeconfig = cluster.kubeconfig();
    for program in kubectls() {
        let home = cluster.directory.path().join(program.file_name().unwrap());
        std::fs::create_dir_all(&home).unwrap();
        let namespace = home.file_name().unwrap().to_string_lossy().replace('.', "-");
        let kubectl = Kubectl { program, kubeconfig: kubeconfig.clone(), home };
        eprintln!("{}", kubectl.program.display());
        tour(&kubectl, &namespace, cluster.directory.path()).await;
        roll_back(&kubectl, &namespace, cluster.directory.path(), "DaemonSet").await;
        roll_back(&kubectl, &namespace, cluster.directory.path(), "StatefulSet").await;
        follow(&kubectl, &namespace).await;
        automate(&kubectl, &namespace, cluster.directory.path()).await;
    }
    cluster.stop().await;
}

/// What starts jobs and scales without anybody.
async fn automate(kubectl: &Kubectl, namespace: &str, directory: &Path) {
    let ns = format!("-n {namespace}");
    let create = format!("{ns} create cronjob tick --image=a --schedule=@hourly");
    kubectl.check(&create, "cronjob.batch/tick created").await;
    let create = format!("{ns} create job by-hand --from=cronjob/tick");
    kubectl.check(&create, "job.batch/by-hand created").await;
    let owner = "-o jsonpath={.metadata.ownerReferences[0].kind}";
    kubectl.check(&format!("{ns} get job by-hand {owner}"), "CronJob").await;
    let table = kubectl.run(&format!("{ns} get cj")).await;
    assert!(table.starts_with("NAME   SCHEDULE   TIMEZONE   SUSPEND   ACTIVE"), "{table}");
    let autoscale = format!("{ns} autoscale deployment web --min=2 --max=5 --cpu-percent=60");
    kubectl.check(&autoscale, "horizontalpodautoscaler.autoscaling/web autoscaled").await;
    let new = "-o jsonpath={.spec.metrics[0].resource.target.averageUtilization}";
    kubectl.check(&format!("{ns} get hpa web {new}"), "60").await;
    let old = "-o jsonpath={.spec.targetCPUUtilizationPercentage}";
    kubectl.check(&format!("{ns} get hpa.v1.autoscaling web {old}"), "60").await;
    let file = directory.join("autoscaler.yaml");
    for (percent, done) in [(70, "created"), (80, "configured"), (80, "unchanged")] {
        let manifest = format!(
            "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {{name: old}}\n\
             spec:\n  maxReplicas: 3\n  targetCPUUtilizationPercentage: {percent}\n  \
             scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}\n"
        );
        std::fs::write(&file, manifest).unwrap();
        let apply = format!("{ns} apply -f {}", file.display());
        kubectl.check(&apply, &format!("horizontalpodautoscaler.autoscaling/old {done}")).await;
    }
    kubectl.check(&format!("{ns} get hpa old {new}"), "80").await;
    let table = kubectl.run(&format!("{ns} get hpa")).await;
    assert!(table.contains("Deployment/web   cpu: <unknown>/80%   1"), "{table}");
}

async fn tour(kubectl: &Kubectl, namespace: &str, directory: &Path) {
    let ns = format!("-n {namespace}");
    kubectl
        .check(&format!("create namespace {namespace}"), &format!("namespace/{namespace} created"))
        .await;
    let account = directory.join("account.yaml");
    std::fs::write(&account, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n")
        .unwrap();
    let account = account.display();
    kubectl.check(&format!("{ns} apply -f {account}"), "serviceaccount/default created").await;
    kubectl.check(&format!("{ns} apply -f {account}"), "serviceaccount/default unchanged").await;
    kubectl
        .check(
            &format!("{ns} create deployment web --image=a --replicas=2"),
            "deployment.apps/web created",
        )
        .await;
    kubectl
        .check(&format!("{ns} scale deploy web --replicas=3"), "deployment.apps/web scaled")
        .await;
    kubectl.check(&format!("{ns} get deploy web -o jsonpath={{.spec.replicas}}"), "3").await;
    kubectl
        .check(&format!("{ns} set image deploy/web a=b"), "deployment.apps/web image updated")
        .await;
    kubectl.check(&format!("{ns} label deploy web x=y"), "deployment.apps/web labeled").await;
    // Versions differ in what they print.
    kubectl.run(&format!("{ns} annotate deploy web x=y")).await;
    kubectl
        .check(
            &format!("{ns} patch deploy web -p {{\"spec\":{{\"paused\":true}}}}"),
            "deployment.apps/web patched",
        )
        .await;
    kubectl.check(&format!("{ns} expose deploy web --port=80"), "service/web exposed").await;
    kubectl
        .check(&format!("{ns} create configmap m --from-literal=a=b"), "configmap/m created")
        .await;
    kubectl
        .check(&format!("{ns} create secret generic s --from-literal=a=b"), "secret/s created")
        .await;
    kubectl.check(&format!("{ns} run p --image=a"), "pod/p created").await;
    let table = kubectl.run(&format!("{ns} get pods -o wide")).await;
    assert!(table.starts_with("NAME   READY   STATUS    RESTARTS   AGE"), "{table}");
    let described = kubectl.run(&format!("{ns} describe pod p")).await;
    assert!(described.contains("Status:           Pending"), "{described}");
    let waited = kubectl.run(&format!("{ns} delete pod p --grace-period=0 --force")).await;
    assert!(waited.contains("pod \"p\" force deleted"), "{waited}");
    kubectl
        .check(&format!("{ns} get pod p"), "Error from server (NotFound): pods \"p\" not found")
        .await;
    kubectl
        .check(
            &format!("{ns} create pdb b --selector=app=web --min-available=50%"),
            "poddisruptionbudget.policy/b created",
        )
        .await;
    let table = kubectl.run(&format!("{ns} get pdb")).await;
    assert!(
        table.starts_with("NAME   MIN AVAILABLE   MAX UNAVAILABLE   ALLOWED DISRUPTIONS   AGE"),
        "{table}"
    );
    quotas(kubectl, &ns, directory).await;
    kubectl.check(&format!("{ns} delete deploy web"), "deployment.apps \"web\" deleted").await;
    kubectl.check("auth can-i create pods", "yes").await;
    let bad = directory.join("bad.yaml");
    std::fs::write(&bad, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ncolour: red\n")
        .unwrap();
    let refused = kubectl.run(&format!("{ns} apply -f {}", bad.display())).await;
    assert!(refused.contains("unknown field \"colour\""), "{refused}");
    let token = kubectl.run(&format!("{ns} create token default")).await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    let explained = kubectl.run("explain pod.spec.nodeName").await;
    assert!(explained.contains("nodeName"), "{explained}");
}

async fn quotas(kubectl: &Kubectl, ns: &str, directory: &Path) {
    let create = format!("{ns} create quota q --hard=pods=5,limits.cpu=2");
    kubectl.check(&create, "resourcequota/q created").await;
    let table = kubectl.run(&format!("{ns} get quota")).await;
    assert!(table.starts_with("NAME   REQUEST   LIMIT   AGE"), "{table}");
    let described = kubectl.run(&format!("{ns} describe quota q")).await;
    assert!(described.contains("Resource    Used  Hard"), "{described}");
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}});
    let path = directory.join("range.json");
    std::fs::write(&path, range.to_string()).unwrap();
    let create = format!("{ns} create -f {}", path.display());
    kubectl.check(&create, "limitrange/l created").await;
    let table = kubectl.run(&format!("{ns} get limits")).await;
    assert!(table.starts_with("NAME   CREATED AT"), "{table}");
    let described = kubectl.run(&format!("{ns} describe limitrange l")).await;
    assert!(described.contains("Container   cpu       -    2    2"), "{described}");
    let namespace = ns.trim_start_matches("-n ");
    let described = kubectl.run(&format!("describe ns {namespace}")).await;
    assert!(described.contains("Resource Quotas"), "{described}");
    assert!(described.contains("Resource Limits"), "{described}");
    kubectl.check(&format!("{ns} delete limits l"), "limitrange \"l\" deleted").await;
}

/// Daemon sets and stateful sets are rolled back by the controller revisions that their controllers
/// write; here nobody else does.
async fn roll_back(kubectl: &Kubectl, namespace: &str, directory: &Path, kind: &str) {
    let ns = format!("-n {namespace}");
    let name = format!("{}-agent", &kind[..1].to_lowercase());
    let shown = format!("{}.apps/{name}", kind.to_lowercase());
    let create = async |object: Value| {
        let path = directory.join("object.json");
        std::fs::write(&path, object.to_string()).unwrap();
        kubectl.run(&format!("{ns} create -f {}", path.display())).await
    };
    let container = json!({"name": "a", "image": "v1"});
    let made = create(json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [container]}}}}))
    .await;
    assert_eq!(made, format!("{shown} created"));
    let image = "{.spec.template.spec.containers[0].image}";
    for (number, next) in [(1, "v2"), (2, "v3")] {
        let text = kubectl.run(&format!("{ns} get {shown} -o json")).await;
        let set: Value = serde_json::from_str(&text).unwrap();
        let mut template = set["spec"]["template"].clone();
        template["$patch"] = json!("replace");
        template["metadata"]["creationTimestamp"] = Value::Null;
        template["spec"]["containers"][0]["resources"] = json!({});
        let made = create(json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": format!("{name}-{number}"), "labels": {"app": "agent"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind,
                    "name": name, "uid": set["metadata"]["uid"], "controller": true}]},
            "revision": number, "data": {"spec": {"template": template}}}))
        .await;
        assert_eq!(made, format!("controllerrevision.apps/{name}-{number} created"));
        let set_image = format!("{ns} set image {shown} a={next}");
        kubectl.check(&set_image, &format!("{shown} image updated")).await;
    }
    let history = kubectl.run(&format!("{ns} rollout history {shown}")).await;
    let numbers: Vec<&str> = history.lines().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(numbers[2..], ["1", "2"], "{history}");
    let detail = kubectl.run(&format!("{ns} rollout history {shown} --revision=1")).await;
    assert!(detail.contains("v1"), "{detail}");
    let undo = format!("{ns} rollout undo {shown} --to-revision=1");
    kubectl.check(&undo, &format!("{shown} rolled back")).await;
    kubectl.check(&format!("{ns} get {shown} -o jsonpath={image}"), "v1").await;
    let again = format!("{shown} skipped rollback (current template already matches revision 1)");
    kubectl.check(&undo, &again).await;
}

/// What `kubectl rollout status` makes of statuses.
async fn follow(kubectl: &Kubectl, namespace: &str) {
    let ns = format!("-n {namespace}");
    let status = json!({"status": {"observedGeneration": 9, "updatedNumberScheduled": 0,
        "desiredNumberScheduled": 0}});
    let patch = format!("{ns} patch ds d-agent --subresource=status --type=merge -p {status}");
    kubectl.check(&patch, "daemonset.apps/d-agent patched").await;
    let told = kubectl.run(&format!("{ns} rollout status ds/d-agent --timeout=20s")).await;
    assert!(told.ends_with("daemon set \"d-agent\" successfully rolled out"), "{told}");
    let table = kubectl.run(&format!("{ns} get ds,controllerrevisions")).await;
    assert!(table.contains("daemonset.apps/d-agent"), "{table}");
    kubectl
        .check(&format!("{ns} scale sts/s-agent --replicas=2"), "statefulset.apps/s-agent scaled")
        .await;
    let status = json!({"status": {"observedGeneration": 9, "replicas": 2, "readyReplicas": 2,
        "updatedReplicas": 2, "currentRevision": "s-agent-1", "updateRevision": "s-agent-1"}});
    let patch = format!("{ns} patch sts s-agent --subresource=status --type=merge -p {status}");
    kubectl.check(&patch, "statefulset.apps/s-agent patched").await;
    let told = kubectl.run(&format!("{ns} rollout status sts/s-agent --timeout=20s")).await;
    assert!(told.contains("complete: 2 new pods have been updated"), "{told}");
    let table = kubectl.run(&format!("{ns} get sts")).await;
    let cells: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(cells[..5], ["NAME", "READY", "AGE", "s-agent", "2/2"], "{table}");
}
