//! Who may do what.

use base64::Engine as _;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::cluster::{Client, Cluster};

#[tokio::test]
async fn nobody_is_served_but_for_health() {
    let cluster = Cluster::start().await;
    let check = async |client: &Client, path: &str, code: u16| {
        let answer = client.get(path).await;
        assert_eq!(answer.0, code, "{path}: {}", answer.1);
    };
    let nobody = cluster.bearer(None);
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose", "/readyz/etcd"] {
        check(&nobody, path, 200).await;
    }
    check(&nobody, "/readyz/nonsense", 404).await;
    for path in ["/", "/version", "/metrics", "/api", "/apis", "/api/v1/pods", "/openapi/v3"] {
        check(&nobody, path, 401).await;
        check(&cluster.bearer(Some("wrong")), path, 401).await;
    }
    let (_, refused) = nobody.get("/api/v1/pods").await;
    assert_eq!((&refused["message"], &refused["code"]), (&json!("Unauthorized"), &json!(401)));
    let known = cluster.bearer(Some("nobodytoken"));
    check(&known, "/version", 200).await;
    check(&known, "/api", 200).await;
    check(&known, "/metrics", 403).await;
    check(&cluster.bearer(Some("admintoken")), "/metrics", 200).await;
    check(&cluster.admin(), "/nonsense", 404).await;
    check(&cluster.admin(), "/apis/none/v1/things", 404).await;
}

#[tokio::test]
async fn refusals_are_worded_as_kubernetes_words_them() {
    let cluster = Cluster::start().await;
    let (code, refused) = cluster.user("jane", Some("dev")).get("/api/v1/namespaces/a/pods").await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"a\""
    );
}

#[tokio::test]
async fn roles_take_effect_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let jane = cluster.user("jane", Some("dev"));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]});
    assert_eq!(admin.post(&format!("{rbac}/roles"), &role).await.0, 201);
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}]});
    let (code, made) = admin.post(&format!("{rbac}/rolebindings"), &binding).await;
    assert_eq!(code, 201, "{made}");
    let maps = "/api/v1/namespaces/default/configmaps";
    // The binding reaches the authorizer through the watch cache.
    admin.get(maps).await;
    assert_eq!(jane.get(maps).await.0, 200);
    assert_eq!(jane.get("/api/v1/namespaces/kube-system/configmaps").await.0, 403);
    assert_eq!(jane.post(maps, &json!({"metadata": {"name": "x"}})).await.0, 403);
    let review = json!({"spec": {"resourceAttributes":
        {"namespace": "default", "verb": "list", "resource": "configmaps"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, answer) = jane.post(path, &review).await;
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(true)), "{answer}");
}

#[tokio::test]
async fn impersonation_needs_permission() {
    let cluster = Cluster::start().await;
    let whoami = |client: Client| async move {
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("impersonate-user", "jane")
            .header("impersonate-group", "dev")
            .body(Full::from("{}"))
            .unwrap();
        let response = client.send(request).await;
        let code = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        (code, serde_json::from_slice::<Value>(&body.to_bytes()).unwrap())
    };
    let (code, answer) = whoami(cluster.admin()).await;
    assert_eq!((code, &answer["status"]["userInfo"]["username"]), (201, &json!("jane")));
    assert_eq!(answer["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
    let (code, answer) = whoami(cluster.user("joe", None)).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "users \"jane\" is forbidden: User \"joe\" cannot impersonate resource \"users\" in API \
         group \"\" at the cluster scope"
    );
}

#[tokio::test]
async fn service_accounts_have_tokens() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(admin.post(accounts, &json!({"metadata": {"name": "sa"}})).await.0, 201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": 900}});
    let (code, answer) = admin.post(&format!("{accounts}/sa/token"), &request).await;
    assert_eq!(code, 201, "{answer}");
    let token = answer["status"]["token"].as_str().unwrap();
    let itself = cluster.bearer(Some(token));
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (_, answer) = itself.post(path, &json!({})).await;
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:sa");
    let groups =
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    let review = json!({"spec": {"token": token}});
    let (_, answer) = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");
    let short = json!({"spec": {"audiences": [], "expirationSeconds": 5}});
    let (code, _) = admin.post(&format!("{accounts}/sa/token"), &short).await;
    assert_eq!(code, 422);
    admin.call("DELETE", &format!("{accounts}/sa"), "", "").await;
    admin.get(accounts).await;
    assert_eq!(itself.post(path, &json!({})).await.0, 401, "the account is gone");
}

/// Tokens that live in secrets are made for the controller manager alone, and hold as long as these.
#[tokio::test]
async fn tokens_may_live_in_secrets() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await.0, 201);
    let secret = json!({"metadata": {"name": "s",
        "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    let (code, mut secret) = admin.post(secrets, &secret).await;
    assert_eq!(code, 201, "{secret}");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "boundObjectRef": {"apiVersion": "v1", "kind": "Secret",
            "name": "s", "uid": secret["metadata"]["uid"]}}});
    let path = format!("{accounts}/robot/token");
    let controllers = cluster.user("system:kube-controller-manager", None);
    let (code, answer) = controllers.post(&path, &request).await;
    assert_eq!(code, 201, "{answer}");
    let token = answer["status"]["token"].as_str().unwrap();
    let claims = |token: &str| -> Value {
        let payload = token.split('.').nth(1).unwrap();
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        serde_json::from_slice(&engine.decode(payload).unwrap()).unwrap()
    };
    assert_eq!(claims(token)["exp"], Value::Null);
    assert_eq!(claims(token)["kubernetes.io/serviceaccount/secret.name"], "s");
    let (_, other) = admin.post(&path, &request).await;
    assert!(claims(other["status"]["token"].as_str().unwrap())["exp"].is_u64(), "{other}");
    let itself = cluster.bearer(Some(token));
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    assert_eq!(itself.post(review, &json!({})).await.0, 401, "it is in no secret yet");
    let engine = base64::engine::general_purpose::STANDARD;
    secret["data"] = json!({"token": engine.encode(token)});
    let path = format!("{secrets}/s");
    let (code, put) = admin.call("PUT", &path, "application/json", &secret).await;
    assert_eq!(code, 200);
    let revision = put["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = admin.watch(&format!("{secrets}?watch=1&resourceVersion={revision}")).await;
    let (code, answer) = itself.post(review, &json!({})).await;
    assert_eq!(code, 201, "{answer}");
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    // Its use is noted, once a day.
    let mut noted = events.next().await.unwrap()["object"].take();
    let used = &noted["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"];
    let day = used.as_str().unwrap_or_default().to_owned();
    assert_eq!(day.len(), "2006-01-02".len(), "{noted}");
    let (_, map) = admin
        .get(
            "/api/v1/namespaces/kube-system/configmaps/\
             kube-apiserver-legacy-service-account-token-tracking",
        )
        .await;
    assert!(map["data"]["since"].as_str().is_some_and(|since| *since <= *day), "{map}");
    // One that nobody used for long is refused until the mark is removed.
    let mark = "kubernetes.io/legacy-token-invalid-since";
    for (value, code) in [(json!("2001-01-01"), 401), (json!(""), 201)] {
        noted["metadata"]["labels"][mark] = value;
        let (status, answer) = admin.call("PUT", &path, "application/json", &noted).await;
        assert_eq!(status, 200, "{answer}");
        noted = answer;
        admin.get(secrets).await;
        assert_eq!(itself.post(review, &json!({})).await.0, code);
    }
    // Whoever uses one that came with its account is told that there are better ones.
    for (listed, told) in [(json!([]), false), (json!([{"name": "s"}]), true)] {
        let body = json!({"secrets": listed});
        let account = format!("{accounts}/robot");
        let patch = "application/merge-patch+json";
        assert_eq!(admin.call("PATCH", &account, patch, &body).await.0, 200);
        admin.get(accounts).await;
        let request = http::Request::post(review)
            .header("content-type", "application/json")
            .body(http_body_util::Full::from("{}"))
            .unwrap();
        let response = itself.send(request).await;
        let warning = response.headers().get("warning").map(|v| v.to_str().unwrap());
        assert_eq!(warning.is_some_and(|w| w.contains("Use tokens from the TokenRequest")), told);
    }
    admin.call("DELETE", &path, "", "").await;
    admin.get(secrets).await;
    assert_eq!(itself.post(review, &json!({})).await.0, 401, "its secret is gone");
}

#[tokio::test]
async fn bootstrap_tokens_authenticate_until_they_expire() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let secret = |id: &str, expiration: &str| {
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        json!({"metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token",
            "data": {"token-id": base64(id), "token-secret": base64("0123456789abcdef"),
                "expiration": base64(expiration), "usage-bootstrap-authentication": base64("true"),
                "auth-extra-groups": base64("system:bootstrappers:x")}})
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    for (id, expiration) in [("abcdef", "2999-01-01T00:00:00Z"), ("fedcba", "2001-01-01T00:00:00Z")]
    {
        let (code, made) = admin.post(secrets, &secret(id, expiration)).await;
        assert_eq!(code, 201, "{made}");
    }
    admin.get(secrets).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let good = cluster.bearer(Some("abcdef.0123456789abcdef"));
    let (code, answer) = good.post(path, &json!({})).await;
    assert_eq!(code, 201);
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    assert_eq!(user["groups"][1], "system:bootstrappers:x");
    let refused = ["abcdef.0123456789abcdee", "fedcba.0123456789abcdef", "nosuch.0123456789abcdef"];
    for token in refused {
        assert_eq!(cluster.bearer(Some(token)).post(path, &json!({})).await.0, 401, "{token}");
    }
    // Each of these spoils a token that would be good.
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for (i, (field, value)) in [
        ("usage-bootstrap-authentication", "false"),
        ("usage-bootstrap-authentication", ""),
        ("auth-extra-groups", "system:masters"),
        ("auth-extra-groups", "system:bootstrappers:x,system:masters"),
        ("auth-extra-groups", "system:bootstrappers:x,"),
        ("expiration", "tomorrow"),
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcde"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("spoil{i}");
        let mut spoiled = secret(&id, "2999-01-01T00:00:00Z");
        spoiled["data"][field] = base64(value).into();
        assert_eq!(admin.post(secrets, &spoiled).await.0, 201);
        admin.get(secrets).await;
        let token = format!("{id}.0123456789abcdef");
        let code = cluster.bearer(Some(&token)).post(path, &json!({})).await.0;
        assert_eq!(code, 401, "{field} {value}");
    }
    let mut opaque = secret("opaque", "2999-01-01T00:00:00Z");
    opaque["type"] = "Opaque".into();
    assert_eq!(admin.post(secrets, &opaque).await.0, 201);
    admin.get(secrets).await;
    let token = cluster.bearer(Some("opaque.0123456789abcdef"));
    assert_eq!(token.post(path, &json!({})).await.0, 401);
}
