//! Watching.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn put(admin: &Client, name: &str, app: &str) -> u64 {
    let map = json!({"metadata": {"name": name, "labels": {"app": app}}});
    let (mut code, mut answer) = admin.post(MAPS, &map).await;
    if code == 409 {
        let path = format!("{MAPS}/{name}");
        (code, answer) = admin.call("PUT", &path, "application/json", &map).await;
    }
    assert!(code < 300, "{answer}");
    answer["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn events_follow_the_list() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    let (_, list) = admin.get(MAPS).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    put(&admin, "b", "x").await;
    put(&admin, "a", "y").await;
    let mut all = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    assert_eq!(all.short().await, "ADDED b");
    assert_eq!(all.short().await, "MODIFIED a");
    let query = format!("{MAPS}?watch=1&resourceVersion={from}&labelSelector=app%3Dx");
    let mut selected = admin.watch(&query).await;
    assert_eq!(selected.short().await, "ADDED b");
    assert_eq!(selected.short().await, "DELETED a", "it no longer matches");
    admin.call("DELETE", &format!("{MAPS}/b"), "", "").await;
    assert_eq!(all.short().await, "DELETED b");
    assert_eq!(selected.short().await, "DELETED b");
    // Every server ends its watches when it stops, so that clients go elsewhere.
    cluster.stop().await;
    assert!(all.next().await.is_none());
}

#[tokio::test]
async fn without_a_revision_a_watch_begins_with_what_is_there() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    put(&admin, "b", "x").await;
    let mut events = admin.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(events.short().await, "ADDED a");
    assert_eq!(events.short().await, "ADDED b");
    put(&admin, "b", "y").await;
    assert_eq!(events.short().await, "MODIFIED b");
    let mut one = admin.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    assert_eq!(one.short().await, "ADDED b");
}

#[tokio::test]
async fn a_bookmark_ends_the_catch_up() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let from = put(&admin, "a", "x").await;
    let last = put(&admin, "b", "x").await;
    let query = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={from}");
    let mut events = admin.watch(&query).await;
    assert_eq!(events.short().await, "ADDED b");
    let bookmark = events.next().await.unwrap();
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("ConfigMap"))
    );
    let told = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    assert!(told.parse::<u64>().unwrap() >= last);
}

/// A consistent read of the revision is told to watches at once: clients wait for it.
#[tokio::test]
async fn a_revision_that_was_read_is_bookmarked_soon() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut events = admin.watch(&format!("{MAPS}?watch=1&allowWatchBookmarks=true")).await;
    assert_eq!(events.short().await, "BOOKMARK -");
    let namespace = json!({"metadata": {"name": "other"}});
    admin.post("/api/v1/namespaces", &namespace).await;
    let (_, list) = admin.get("/api/v1/configmaps?limit=1").await;
    let wanted: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let bookmark = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap();
    let told = bookmark.unwrap()["object"]["metadata"]["resourceVersion"].clone();
    assert!(told.as_str().unwrap().parse::<u64>().unwrap() >= wanted);
}

#[tokio::test]
async fn a_watch_list_is_marked_where_it_ends() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &allowWatchBookmarks=true";
    let mut events = admin.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(events.short().await, "ADDED a");
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    put(&admin, "b", "x").await;
    assert_eq!(events.short().await, "ADDED b");
    let (code, _) = admin.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let cluster = Cluster::start().await;
    let mut events = cluster.admin().watch(&format!("{MAPS}?watch=1&timeoutSeconds=1")).await;
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn tables_are_watched() {
    use http_body_util::{BodyExt, Full};
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    put(&admin, "a", "x").await;
    let request = http::Request::get(format!("{MAPS}?watch=1"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Full::default())
        .unwrap();
    let mut body = admin.send(request).await.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}
