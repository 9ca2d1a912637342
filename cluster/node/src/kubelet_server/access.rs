//! Whether a caller may: asked of the API server as access to a subresource of this node.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/server/auth.go` (with fine-grained authorization).

use std::time::Duration;

use client::Client;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::expiring::Expiring;
use super::identity::Identity;

const ALLOWED_FOR: Duration = Duration::from_secs(60);
const DENIED_FOR: Duration = Duration::from_secs(10);
const ANSWERS_MAX: usize = 1_024;

/// Asks the API server who may do what, and remembers what it said.
pub(crate) struct Access {
    api: Client,
    node_name: String,
    answers: Expiring<bool>,
}

impl Access {
    /// Starts with nothing known.
    pub(crate) const fn new(api: Client, node_name: String) -> Self {
        Self { api, node_name, answers: Expiring::new(ANSWERS_MAX) }
    }

    /// Lets the caller pass or says why not.
    pub(crate) async fn check(
        &self,
        who: &Identity,
        method: &Method,
        path: &str,
    ) -> Result<(), Refusal> {
        let verb = verb(method);
        let subresources = subresources(path);
        for subresource in subresources {
            let spec = self.question(who, verb, subresource);
            let key = spec.to_string();
            let allowed = match self.answers.get(&key) {
                Some(answer) => answer,
                None => {
                    let allowed = self.ask(&spec).await.map_err(|error| {
                        tracing::warn!(user = who.name, %error, "access cannot be reviewed");
                        Refusal::internal(format!(
                            "Authorization error (user={}, verb={verb}, resource=nodes, \
                             subresource={subresource})",
                            who.name
                        ))
                    })?;
                    let time = if allowed { ALLOWED_FOR } else { DENIED_FOR };
                    self.answers.put(key, allowed, time);
                    allowed
                }
            };
            if allowed {
                return Ok(());
            }
        }
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
                who.name,
                subresources.join(" ")
            ),
        ))
    }

    fn question(&self, who: &Identity, verb: &str, subresource: &str) -> Value {
        let mut spec = serde_json::to_value(who).expect("an identity is plain data");
        spec["resourceAttributes"] = json!({"verb": verb, "group": "", "version": "v1",
            "resource": "nodes", "subresource": subresource, "name": self.node_name});
        spec
    }

    async fn ask(&self, spec: &Value) -> Result<bool, String> {
        #[derive(Deserialize)]
        struct Review {
            #[serde(default)]
            status: Status,
        }
        #[derive(Default, Deserialize)]
        struct Status {
            #[serde(default)]
            allowed: bool,
        }
        let review = json!({"apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview", "spec": spec});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let body = review.to_string().into();
        match self.api.call(Method::POST, path, "application/json", body).await {
            Ok((200..300, answer)) => {
                let review: Review =
                    serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
                Ok(review.status.allowed)
            }
            Ok((code, answer)) => Err(format!("{code}: {}", String::from_utf8_lossy(&answer))),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresources any one of which gives access, the narrowest first.
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_the_node() {
        let check = |path: &str, expected: &[&str]| assert_eq!(subresources(path), expected);
        check("/exec/ns/p/c", &["proxy"]);
        check("/containerLogs/ns/p/c", &["proxy"]);
        check("/pods", &["pods", "proxy"]);
        check("/stats/summary", &["stats"]);
        check("/metrics/resource", &["metrics"]);
        check("/logs/", &["log"]);
        check("/metricsx", &["proxy"]);
        assert_eq!((verb(&Method::POST), verb(&Method::GET)), ("create", "get"));
    }
}
