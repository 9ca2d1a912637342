//! Creating, changing and deleting.

use serde_json::{Value, json};

use crate::cluster::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn rv(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let (code, made) = admin.post(MAPS, &map("a")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    let (code, again) = admin.post(MAPS, &map("a")).await;
    assert_eq!((code, &again["message"]), (409, &json!(r#"configmaps "a" already exists"#)));

    let path = format!("{MAPS}/a");
    let (code, found) = admin.get(&path).await;
    assert_eq!((code, &found), (200, &made));
    let mut changed = found.clone();
    changed["data"]["a"] = json!("2");
    let (code, updated) = admin.call("PUT", &path, "application/json", &changed).await;
    assert_eq!(code, 200);
    assert!(rv(&updated) > rv(&made));
    let (code, lost) = admin.call("PUT", &path, "application/json", &changed).await;
    assert_eq!(code, 409);
    assert_eq!(
        lost["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );

    let patch = json!({"data": {"b": "3"}});
    let kind = "application/merge-patch+json";
    let (code, patched) = admin.call("PATCH", &path, kind, &patch).await;
    assert_eq!((code, &patched["data"]), (200, &json!({"a": "2", "b": "3"})));
    let (code, same) = admin.call("PATCH", &path, kind, &patch).await;
    assert_eq!((code, rv(&same)), (200, rv(&patched)), "what changes nothing is not stored");

    let (code, gone) = admin.call("DELETE", &path, "", "").await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")));
    assert!(rv(&gone) > rv(&patched), "the answer tells the revision of the deletion");
    let (code, missing) = admin.get(&path).await;
    assert_eq!((code, &missing["message"]), (404, &json!(r#"configmaps "a" not found"#)));
    cluster.stop().await;
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let (code, shown) = admin.post(&format!("{MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(code, 201, "{shown}");
    assert_eq!(admin.get(&format!("{MAPS}/a")).await.0, 404);
    admin.post(MAPS, &map("a")).await;
    let (code, _) = admin.call("DELETE", &format!("{MAPS}/a?dryRun=All"), "", "").await;
    assert_eq!((code, admin.get(&format!("{MAPS}/a")).await.0), (200, 200));
    let (code, _) = admin.post(&format!("{MAPS}?dryRun=Some"), &map("b")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn names_are_generated() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let asked = json!({"metadata": {"generateName": "x-"}});
    let (_, one) = admin.post(MAPS, &asked).await;
    let (_, two) = admin.post(MAPS, &asked).await;
    let name = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("x-") && name(&one).len() == 7, "{one}");
    assert_ne!(name(&one), name(&two));
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut bad = map("a");
    bad["metadata"]["colour"] = json!("red");
    let (code, refused) = admin.post(&format!("{MAPS}?fieldValidation=Strict"), &bad).await;
    assert_eq!(code, 400);
    assert_eq!(
        refused["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"metadata.colour\""
    );
    let send = |validation: &str| {
        let request = http::Request::post(format!("{MAPS}?fieldValidation={validation}"))
            .header("content-type", "application/json")
            .body(bad.to_string().into())
            .unwrap();
        let admin = admin.clone();
        async move { admin.send(request).await }
    };
    let warned = send("Warn").await;
    assert_eq!(warned.status(), 201);
    assert_eq!(warned.headers()["warning"], r#"299 - "unknown field \"metadata.colour\"""#);
    assert!(!send("Ignore").await.headers().contains_key("warning"));
}

#[tokio::test]
async fn bodies_of_other_forms() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n";
    let (code, made) = admin.call("POST", MAPS, "application/yaml", yaml).await;
    assert_eq!((code, &made["data"]), (201, &json!({"k": "v"})), "{made}");
    let check = |code: u16, content_type: &'static str, body: String| {
        let admin = admin.clone();
        async move {
            let answer = admin.call("POST", MAPS, content_type, &body).await;
            assert_eq!(answer.0, code, "{}", answer.1);
        }
    };
    check(415, "text/html", "<p>".to_owned()).await;
    check(400, "application/json", "{".to_owned()).await;
    check(400, "application/json", r#"{"apiVersion":"v2","kind":"ConfigMap"}"#.to_owned()).await;
    check(400, "application/json", r#"{"apiVersion":"v1","kind":"Secret"}"#.to_owned()).await;
    let large = json!({"metadata": {"name": "l"}, "data": {"x": "y".repeat(4 << 20)}});
    check(413, "application/json", large.to_string()).await;
}

async fn pod(admin: &Client, name: &str) {
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({
        "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let (code, made) = admin.post(pods, &pod).await;
    assert_eq!(code, 201, "{made}");
}

#[tokio::test]
async fn a_pod_is_bound_once_and_evicted() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let node = json!({"metadata": {"name": "n"}});
    assert_eq!(admin.post("/api/v1/nodes", &node).await.0, 201);
    pod(&admin, "p").await;
    let path = "/api/v1/namespaces/default/pods/p";
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n"}});
    let (code, bound) = admin.post(&format!("{path}/binding"), &binding).await;
    assert_eq!((code, &bound["status"]), (201, &json!("Success")), "{bound}");
    assert_eq!(admin.post(&format!("{path}/binding"), &binding).await.0, 409);
    assert_eq!(admin.get(path).await.1["spec"]["nodeName"], "n");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 0}});
    assert_eq!(admin.post(&format!("{path}/eviction"), &eviction).await.0, 201);
    assert_eq!(admin.get(path).await.0, 404);
}

/// Makes pods that run and are ready, and a budget for them.
async fn budgeted(admin: &Client, names: &[&str]) -> Value {
    let node = json!({"metadata": {"name": "n"}});
    assert_eq!(admin.post("/api/v1/nodes", &node).await.0, 201);
    for name in names {
        pod(admin, name).await;
        let path = format!("{PODS}/{name}");
        let (_, mut made) = admin.get(&path).await;
        made["metadata"]["labels"] = json!({"app": "web"});
        assert_eq!(put(admin, &path, &made).await.0, 200);
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
        assert_eq!(admin.post(&format!("{path}/binding"), &binding).await.0, 201);
        let (_, mut bound) = admin.get(&path).await;
        bound["status"]["phase"] = "Running".into();
        bound["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        assert_eq!(put(admin, &format!("{path}/status"), &bound).await.0, 200);
    }
    let budget = json!({"metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let (code, budget) = admin.post(BUDGETS, &budget).await;
    assert_eq!(code, 201, "{budget}");
    budget
}

async fn evict(admin: &Client, name: &str, options: Value) -> (u16, Value) {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": name}, "deleteOptions": options});
    admin.post(&format!("{PODS}/{name}/eviction"), &body).await
}

#[tokio::test]
async fn those_who_evict_at_once_share_one_budget() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let names = ["a", "b", "c", "d", "e"];
    let mut budget = budgeted(&admin, &names).await;
    budget["status"] = json!({"observedGeneration": 1, "currentHealthy": 5, "desiredHealthy": 2,
        "expectedPods": 5, "disruptionsAllowed": 3});
    assert_eq!(put(&admin, &format!("{BUDGETS}/web/status"), &budget).await.0, 200);
    let all = names.map(|name| evict(&admin, name, json!({})));
    let mut codes: Vec<u16> =
        futures::future::join_all(all).await.into_iter().map(|(code, _)| code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [201, 201, 201, 429, 429]);
    let (_, spent) = admin.get(&format!("{BUDGETS}/web")).await;
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert_eq!(spent["status"]["disruptedPods"].as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn evictions_keep_to_a_budget() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut budget = budgeted(&admin, &["p", "q"]).await;
    let evict = async |name: &str, options: Value| evict(&admin, name, options).await;
    // No controller has seen it.
    let (code, refused) = evict("p", json!({})).await;
    assert_eq!((code, &refused["reason"]), (429, &json!("TooManyRequests")), "{refused}");
    assert_eq!(refused["details"]["retryAfterSeconds"], 10);
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "DisruptionBudget",
            "message": "The disruption budget web is still being processed by the server."}])
    );
    budget["status"] = json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 1,
        "expectedPods": 2, "disruptionsAllowed": 1});
    let path = format!("{BUDGETS}/web");
    assert_eq!(put(&admin, &format!("{path}/status"), &budget).await.0, 200);
    assert_eq!(evict("p", json!({"dryRun": ["All"]})).await.0, 201);
    assert_eq!(admin.get(&path).await.1["status"]["disruptionsAllowed"], 1);
    let wrong = json!({"preconditions": {"uid": "other"}, "dryRun": ["All"]});
    assert_eq!(evict("p", wrong).await.0, 409);
    let (code, done) = evict("p", json!({})).await;
    assert_eq!((code, &done["status"]), (201, &json!("Success")), "{done}");
    let (_, gone) = admin.get(&format!("{PODS}/p")).await;
    assert!(gone["metadata"]["deletionTimestamp"].is_string(), "{gone}");
    let mark = gone["status"]["conditions"].as_array().unwrap().last().unwrap();
    assert_eq!(mark["reason"], "EvictionByEvictionAPI", "{gone}");
    let (_, spent) = admin.get(&path).await;
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"]["p"].is_string(), "{spent}");
    let (code, refused) = evict("q", json!({})).await;
    assert_eq!(code, 429);
    assert_eq!(
        refused["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    // The one that is on its way may be told again.
    assert_eq!(evict("p", json!({"gracePeriodSeconds": 0})).await.0, 201);
    assert_eq!(evict("p", json!({})).await.0, 404);
    let (code, named) =
        admin.post(&format!("{PODS}/q/eviction"), &json!({"metadata": {"name": "p"}})).await;
    assert_eq!(
        (code, named["message"].as_str().unwrap()),
        (400, "name in URL does not match name in Eviction object")
    );
}

async fn put(admin: &Client, path: &str, body: &Value) -> (u16, Value) {
    admin.call("PUT", path, "application/json", body.to_string()).await
}

#[tokio::test]
async fn deployments_scale() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (code, made) = admin.post(deployments, &deployment).await;
    assert_eq!(code, 201, "{made}");
    let path = format!("{deployments}/d/scale");
    let (_, scale) = admin.get(&path).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    let patch = json!({"spec": {"replicas": 4}});
    let (code, scaled) = admin.call("PATCH", &path, "application/merge-patch+json", &patch).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(4)), "{scaled}");
    let (_, found) = admin.get(&format!("{deployments}/d")).await;
    assert_eq!(found["spec"]["replicas"], 4);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let map = json!({"metadata": {"name": name, "labels": {"app": app}}});
        admin.post(MAPS, &map).await;
    }
    let (code, gone) = admin.call("DELETE", &format!("{MAPS}?labelSelector=app%3Dx"), "", "").await;
    assert_eq!((code, gone["items"].as_array().unwrap().len()), (200, 2));
    let (_, left) = admin.get(MAPS).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

/// P3, through all layers: concurrent patches are all carried out, none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_patches_are_all_carried_out() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(MAPS, &map("a")).await;
    let writers = (0..8).map(|i| {
        let admin = admin.clone();
        tokio::spawn(async move {
            let patch = json!({"data": {format!("k{i}"): "v"}});
            let path = format!("{MAPS}/a");
            admin.call("PATCH", &path, "application/strategic-merge-patch+json", &patch).await.0
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap(), 200);
    }
    let (_, found) = admin.get(&format!("{MAPS}/a")).await;
    assert_eq!(found["data"].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn the_cluster_starts_with_what_it_needs() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(admin.get(&format!("/api/v1/namespaces/{namespace}")).await.0, 200);
    }
    let (_, service) = admin.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
    let mut events = admin
        .watch(
            "/api/v1/namespaces/default/endpoints?watch=1&fieldSelector=metadata.name%3Dkubernetes",
        )
        .await;
    let event = events.next().await.unwrap();
    assert_eq!(event["object"]["subsets"][0]["addresses"][0]["ip"], "192.0.2.7", "{event}");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?watch=1";
    let event = admin.watch(slices).await.next().await.unwrap();
    assert_eq!(event["object"]["endpoints"][0]["addresses"][0], "192.0.2.7", "{event}");
    cluster.stop().await;
}
