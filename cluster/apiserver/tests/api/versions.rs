//! A kind that is spoken in two versions.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

fn autoscaler(name: &str) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

#[tokio::test]
async fn both_versions_show_the_same_object() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut events = admin.watch(&format!("{V1}?watch=1")).await;
    let (code, made) = admin.post(V1, &autoscaler("a")).await;
    assert_eq!((code, &made["apiVersion"]), (201, &json!("autoscaling/v1")), "{made}");
    assert_eq!(made["spec"]["minReplicas"], 1);
    let told = events.next().await.unwrap();
    assert_eq!(told["object"], made);
    let (_, new) = admin.get(&format!("{V2}/a")).await;
    assert_eq!(new["apiVersion"], "autoscaling/v2");
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"], target);
    assert_eq!(new["metadata"], made["metadata"]);
    let (_, list) = admin.get(V1).await;
    assert_eq!(list["kind"], "HorizontalPodAutoscalerList");
    assert_eq!((&list["apiVersion"], &list["items"]), (&json!("autoscaling/v1"), &json!([made])));
    // A version takes only what is its own.
    assert_eq!(admin.post(V2, &autoscaler("b")).await.0, 400);
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70}});
    for kind in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let (code, patched) = admin.call("PATCH", &format!("{V1}/a"), kind, &patch).await;
        assert_eq!(code, 200, "{patched}");
        assert_eq!(patched["spec"]["targetCPUUtilizationPercentage"], 70);
    }
    let (_, mut old) = admin.get(&format!("{V1}/a")).await;
    old["spec"]["maxReplicas"] = json!(9);
    let (code, updated) = admin.call("PUT", &format!("{V1}/a"), "application/json", &old).await;
    assert_eq!((code, &updated["spec"]["maxReplicas"]), (200, &json!(9)), "{updated}");
    let refused = json!({"spec": {"maxReplicas": 0}});
    let kind = "application/merge-patch+json";
    let (code, refusal) = admin.call("PATCH", &format!("{V1}/a"), kind, &refused).await;
    assert_eq!((code, &refusal["details"]["group"]), (422, &json!("autoscaling")));
    let (_, new) = admin.get(&format!("{V2}/a")).await;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    assert_eq!(admin.call("DELETE", &format!("{V1}/a"), "", "").await.0, 200);
    assert_eq!(admin.get(&format!("{V2}/a")).await.0, 404);
}
