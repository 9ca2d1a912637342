//! Objects with extremes anywhere, also such as the API refuses: some were stored by another version,
//! or by hand.

use rand::seq::IndexedRandom;

use super::*;

/// One sound object of each kind that controllers act on.
fn sound() -> Vec<Value> {
    let of = |api: &str, kind: &str, spec: Value| {
        json!({"apiVersion": api, "kind": kind, "metadata": meta(&kind.to_lowercase()),
            "spec": spec})
    };
    let mut job = template("job");
    job["spec"]["restartPolicy"] = "Never".into();
    let jobs = json!({"parallelism": 2, "completions": 3, "backoffLimit": 2, "suspend": false,
        "completionMode": "Indexed", "backoffLimitPerIndex": 1, "maxFailedIndexes": 1,
        "activeDeadlineSeconds": 900, "ttlSecondsAfterFinished": 60,
        "podReplacementPolicy": "Failed", "selector": selector("job"), "template": job,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onExitCodes":
            {"operator": "In", "values": [3]}}]},
        "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}});
    let bounds = json!({"maxSurge": "25%", "maxUnavailable": 1, "partition": 1});
    let workload = |app: &str| {
        json!({"replicas": 3, "selector": selector(app), "template": template(app),
            "minReadySeconds": 5, "revisionHistoryLimit": 2, "progressDeadlineSeconds": 60,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": bounds},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": bounds},
            "ordinals": {"start": 1}, "podManagementPolicy": "Parallel"})
    };
    let mut cron_jobs = json!({"schedule": "*/5 * * * *", "timeZone": "Europe/Berlin",
        "startingDeadlineSeconds": 60, "concurrencyPolicy": "Replace", "suspend": false,
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1});
    cron_jobs["jobTemplate"]["spec"] = jobs.clone();
    let rules = json!({"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}]});
    vec![
        of("apps/v1", "Deployment", workload("web")),
        of("apps/v1", "ReplicaSet", workload("set")),
        of("apps/v1", "StatefulSet", workload("db")),
        of("apps/v1", "DaemonSet", workload("agent")),
        of("batch/v1", "Job", jobs),
        of("batch/v1", "CronJob", cron_jobs),
        of(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"minReplicas": 1, "maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "replicaset"},
            "behavior": {"scaleUp": rules, "scaleDown": rules},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}),
        ),
        of(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"maxUnavailable": "10%", "selector": selector("web")}),
        ),
        of(
            "v1",
            "Service",
            json!({"clusterIP": "10.0.0.1", "selector": {"app": "web"},
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}),
        ),
        of(
            "v1",
            "ResourceQuota",
            json!({"hard": {"pods": "5", "requests.cpu": "2",
            "count/jobs.batch": "3"}, "scopes": ["NotBestEffort"]}),
        ),
        of(
            "v1",
            "PersistentVolumeClaim",
            json!({"accessModes": ["ReadWriteOnce"],
            "storageClassName": "none", "volumeName": "persistentvolume",
            "resources": {"requests": {"storage": "1Gi"}}}),
        ),
        of(
            "v1",
            "PersistentVolume",
            json!({"capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": "/x"}, "storageClassName": "none",
            "claimRef": {"namespace": "default", "name": "persistentvolumeclaim"}}),
        ),
        of(
            "v1",
            "Pod",
            json!({"containers": [{"name": "c", "image": "v1"}], "nodeName": "node-0",
            "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5, "tolerations":
                [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]}),
        ),
    ]
}

/// The places of a value that are no list and no map, and those that are.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, v)| (key.replace('~', "~0").replace('/', "~1"), v)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let at = format!("{at}/{key}");
        places(child, &at, found);
        found.push(at);
    }
}

fn extremes() -> Vec<Value> {
    let texts = [
        "",
        "0",
        "-1",
        "0%",
        "101%",
        "1n",
        "8Ei",
        "16384E",
        "99999999999999999999%",
        "\u{0}",
        "ä/ö",
        "a=b",
        "@every 1s",
        "0 0 31 2 *",
        "1-0,5-2147483647",
        "OnDelete",
        "Recreate",
        "Always",
        "DoesNotExist",
    ];
    let numbers = [0, -1, 1, i64::from(i32::MIN), i64::from(i32::MAX), i64::MIN, i64::MAX];
    let others = [Value::Null, json!([]), json!({}), json!(true), json!(false)];
    let numbers = numbers.into_iter().map(Value::from);
    texts.into_iter().map(Value::from).chain(numbers).chain(others).collect()
}

/// Replaces parts of the object until that can be read; returns what was done.
fn spoil(object: &mut Value, rng: &mut rand_chacha::ChaCha8Rng) -> Vec<String> {
    let extremes = extremes();
    let mut done = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let mut found = Vec::new();
        places(&object["spec"], "/spec", &mut found);
        let (Some(at), Some(new)) = (found.choose(rng), extremes.choose(rng)) else { continue };
        let mut spoiled = object.clone();
        *spoiled.pointer_mut(at).unwrap() = new.clone();
        if codec::decode_any(&serde_json::to_vec(&spoiled).unwrap()).is_ok() {
            done.push(format!("{at} = {new}"));
            *object = spoiled;
        }
    }
    done
}

/// Pods are refused, so that whoever asks for billions gets none.
#[test]
fn nothing_makes_controllers_fall_or_hurry() {
    for seed in 0..20 {
        let mut rng = RngTree::new(seed).rng("spoil");
        let mut world = World::new(seed, 1, if seed % 3 == 0 { 5 } else { 0 });
        world.api = Api::RefusesPods;
        let mut done = Vec::new();
        for mut object in sound() {
            let spoiled = spoil(&mut object, &mut rng);
            done.push(format!("{}: {spoiled:?}", object["kind"]));
            world.create(object);
        }
        world.run_secs(1800);
        let before = world.log.len();
        world.run_secs(3600);
        let made = &world.log[before..];
        // Autoscalers ask 240 times, a cron job may be due each minute, and every refused pod is
        // tried twelve times.
        let tail = &made[made.len().saturating_sub(60)..];
        assert!(made.len() < 4_000, "seed {seed}, {} requests: {done:#?} {tail:#?}", made.len());
    }
}
