//! Quotas, charged by writes that come at once.

use serde_json::{Value, json};

use crate::cluster::{Client, Cluster};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Makes a quota and takes notice of it as its controller does.
async fn quota(admin: &Client, hard: Value, used: Value) {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let (code, mut made) = admin.post(QUOTAS, &quota).await;
    assert_eq!(code, 201, "{made}");
    made["status"] = json!({"hard": made["spec"]["hard"], "used": used});
    let path = format!("{QUOTAS}/q/status");
    assert_eq!(admin.call("PUT", &path, "application/json", &made).await.0, 200);
}

async fn used(admin: &Client) -> Value {
    admin.get(&format!("{QUOTAS}/q")).await.1["status"]["used"].clone()
}

#[tokio::test]
async fn writes_that_come_at_once_share_one_quota() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    quota(&admin, json!({"configmaps": "5"}), json!({"configmaps": "0"})).await;
    let create =
        async |i: usize| admin.post(MAPS, &json!({"metadata": {"name": format!("m{i}")}})).await;
    let answers = futures::future::join_all((0..12).map(create)).await;
    let made = answers.iter().filter(|(code, _)| *code == 201).count();
    assert_eq!(made, 5, "{answers:#?}");
    for (_, refusal) in answers.iter().filter(|(code, _)| *code != 201) {
        let message = refusal["message"].as_str().unwrap();
        let expected = "is forbidden: exceeded quota: q, requested: configmaps=1, used: \
                        configmaps=5, limited: configmaps=5";
        assert!(message.ends_with(expected), "{message}");
    }
    assert_eq!(used(&admin).await, json!({"configmaps": "5"}));
}

#[tokio::test]
async fn the_charge_is_stored_with_the_object() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    quota(&admin, json!({"services.nodeports": "1"}), json!({"services.nodeports": "0"})).await;
    let mut events = admin.watch(&format!("{QUOTAS}?watch=true&resourceVersion=0")).await;
    assert_eq!(events.next().await.unwrap()["type"], "ADDED");
    let service = json!({"metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    // What is only tried is not charged.
    let (code, _) = admin.post(&format!("{SERVICES}?dryRun=All"), &service).await;
    assert_eq!(code, 201);
    let (code, made) = admin.post(SERVICES, &service).await;
    assert_eq!(code, 201, "{made}");
    let told = events.next().await.unwrap();
    assert_eq!(told["object"]["status"]["used"]["services.nodeports"], "1");
    let revision = &told["object"]["metadata"]["resourceVersion"];
    assert_eq!(revision, &made["metadata"]["resourceVersion"]);
    // What fails for another reason is not charged either.
    let (code, _) = admin.post(SERVICES, &service).await;
    assert_eq!(code, 403);
    assert_eq!(used(&admin).await, json!({"services.nodeports": "1"}));
}
