//! Reading.

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::cluster::{Client, Cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(admin: &Client, names: &[&str]) {
    for name in names {
        let (code, made) = admin.post(MAPS, &json!({"metadata": {"name": name}})).await;
        assert_eq!(code, 201, "{made}");
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_are_one_consistent_list() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    fill(&admin, &["a", "b", "c", "d"]).await;
    let (_, first) = admin.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    admin.call("DELETE", &format!("{MAPS}/c"), "", "").await;
    fill(&admin, &["bb"]).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = admin.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(rest["metadata"]["continue"], Value::Null);
    let (_, now) = admin.get(MAPS).await;
    assert_eq!(names(&now), ["a", "b", "bb", "d"]);
}

#[tokio::test]
async fn lists_of_revisions() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    fill(&admin, &["a"]).await;
    let (_, old) = admin.get(MAPS).await;
    let at = old["metadata"]["resourceVersion"].as_str().unwrap();
    fill(&admin, &["b"]).await;
    let check = async |query: &str, expected: Result<&[&str], u16>| {
        let (code, list) = admin.get(&format!("{MAPS}?{query}")).await;
        match expected {
            Ok(expected) => assert_eq!(names(&list), expected, "{query}"),
            Err(expected) => assert_eq!(code, expected, "{query}: {list}"),
        }
    };
    check("", Ok(&["a", "b"])).await;
    check("resourceVersion=0&limit=1", Ok(&["a", "b"])).await;
    check(&format!("resourceVersion={at}&resourceVersionMatch=Exact"), Ok(&["a"])).await;
    check(&format!("resourceVersion={at}&limit=5"), Ok(&["a"])).await;
    check(&format!("resourceVersion={at}"), Ok(&["a", "b"])).await;
    check("resourceVersion=1&resourceVersionMatch=Exact", Ok(&[])).await;
    check("resourceVersionMatch=Exact", Err(422)).await;
    check("resourceVersion=x", Err(400)).await;
    check("continue=x", Err(400)).await;
    check("labelSelector=a%20in%20b", Err(400)).await;
    check("fieldSelector=data%3Dx", Err(400)).await;
    check("fieldSelector=metadata.name%3Db", Ok(&["b"])).await;
    check("fieldSelector=metadata.name!%3Db", Ok(&["a"])).await;
}

#[tokio::test]
async fn history_that_is_gone_cannot_be_listed() {
    let history = registry::window::Limits { events: 2, bytes: 1 << 20 };
    let cluster = Cluster::start_with(|config| config.history = history).await;
    let admin = cluster.admin();
    fill(&admin, &["a", "b"]).await;
    let (_, first) = admin.get(&format!("{MAPS}?limit=1")).await;
    for _ in 0..4 {
        fill(&admin, &["c"]).await;
        admin.call("DELETE", &format!("{MAPS}/c"), "", "").await;
    }
    let exact = format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact");
    let (code, refused) = admin.get(&exact).await;
    assert_eq!((code, &refused["reason"]), (410, &json!("Expired")));
    // The token of a list that cannot be finished is exchanged for one that goes on regardless.
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, refused) = admin.get(&format!("{MAPS}?limit=5&continue={token}")).await;
    assert_eq!((code, &refused["reason"]), (410, &json!("Expired")));
    let token = refused["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = admin.get(&format!("{MAPS}?limit=5&continue={token}")).await;
    assert_eq!(names(&rest), ["b"]);
    let mut events = admin.watch(&format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let error = events.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
    assert_eq!(error["object"]["code"], 410);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_revision_from_the_future_is_waited_for_and_then_refused() {
    let cluster = Cluster::start().await;
    let (code, refused) = cluster.admin().get(&format!("{MAPS}?resourceVersion=99999")).await;
    assert_eq!(code, 504);
    assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("Too large resource version: 99999, current: "), "{message}");
}

#[tokio::test]
async fn large_lists_are_streamed_whole() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for i in 0..40 {
        let map =
            json!({"metadata": {"name": format!("m{i:02}")}, "data": {"x": "y".repeat(9000)}});
        admin.post(MAPS, &map).await;
    }
    let (code, list) = admin.get(MAPS).await;
    assert_eq!((code, names(&list).len()), (200, 40));
}

async fn accepting(admin: &Client, path: &str, accept: &str) -> Value {
    let request = Request::get(path).header("accept", accept).body(Full::default()).unwrap();
    let body = admin.send(request).await.into_body().collect().await.unwrap();
    serde_json::from_slice(&body.to_bytes()).unwrap()
}

#[tokio::test]
async fn tables_and_metadata() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    fill(&admin, &["a"]).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let shown = accepting(&admin, MAPS, table).await;
    assert_eq!((&shown["kind"], &shown["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let shown = accepting(&admin, &format!("{MAPS}/a"), table).await;
    assert_eq!(shown["rows"].as_array().unwrap().len(), 1);
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let shown = accepting(&admin, &format!("{MAPS}/a"), metadata).await;
    assert_eq!(shown["kind"], "PartialObjectMetadata");
    assert_eq!(shown["metadata"]["name"], "a");
    let list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let shown = accepting(&admin, MAPS, list).await;
    assert_eq!(shown["items"][0]["kind"], "PartialObjectMetadata");
    let refused = accepting(&admin, MAPS, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(refused["code"], 406);
}

#[tokio::test]
async fn clients_are_told_what_is_deprecated() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let warning = async |path: &str| {
        let request = Request::get(path).body(Full::default()).unwrap();
        let response = admin.send(request).await;
        let value = response.headers().get("warning");
        value.map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let expected =
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert_eq!(warning("/api/v1/namespaces/default/endpoints").await, expected);
    assert_eq!(warning("/api/v1/namespaces/default/endpoints/none").await, expected);
    assert_eq!(warning("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices").await, "");
}
