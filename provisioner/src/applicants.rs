//! Nodes that have asked for their first certificate and wait for people to approve it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::execute::chain;
use crate::host::{Host, HttpsEndpoint};

/// Where the API server keeps the requests.
pub(crate) const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// Who signs the certificates by which kubelets talk to the API server.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// How the user of a node begins.
const NODE: &str = "system:node:";

/// The names of the nodes whose first certificate nobody has approved or denied yet, with that of the
/// latest request of each. `api` is any endpoint of the API server with an administrator's
/// credentials.
///
/// # Errors
/// Why there is no answer, in one line.
pub fn waiting(
    host: &mut dyn Host,
    api: &HttpsEndpoint,
) -> Result<BTreeMap<String, String>, String> {
    let endpoint = HttpsEndpoint { path: PATH.to_owned(), ..api.clone() };
    let answer = host.get(&endpoint).map_err(|error| chain(&error))?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body);
        return Err(format!("{} answers {} {}", endpoint.endpoint(), answer.status, body.trim()));
    }
    let list: List = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{} answers no requests: {error}", endpoint.endpoint()))?;
    let mut open: Vec<_> = list.items.into_iter().filter(Application::is_open).collect();
    open.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
    let named = |application: Application| Some((application.node()?, application.metadata.name));
    Ok(open.into_iter().filter_map(named).collect())
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Application>,
}

#[derive(Deserialize)]
struct Application {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    creation_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    request: String,
    signer_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<serde_json::Value>,
}

impl Application {
    fn is_open(&self) -> bool {
        self.spec.signer_name == SIGNER && self.status.conditions.is_empty()
    }

    /// Who wants to be a node, by the common name of the PKCS#10 request.
    fn node(&self) -> Option<String> {
        let text = STANDARD.decode(&self.spec.request).ok()?;
        let pem = pem::parse(text).ok()?;
        let (_, request) = X509CertificationRequest::from_der(pem.contents()).ok()?;
        let subject = &request.certification_request_info.subject;
        let common_name = subject.iter_common_name().next()?.as_str().ok()?;
        common_name.strip_prefix(NODE).map(str::to_owned)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::{Value, json};

    use super::*;
    use crate::host::fake::FakeMachine;

    fn application(name: &str, common_name: &str, made: &str, more: &Value) -> Value {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let mut application = json!({
            "metadata": {"name": name, "creationTimestamp": made},
            "spec": {"request": STANDARD.encode(pem), "signerName": SIGNER},
        });
        for (key, value) in more.as_object().unwrap() {
            application[key] = value.clone();
        }
        application
    }

    /// What the API server answers while only `node` has asked, by the request `name`.
    pub(crate) fn pending(name: &str, node: &str) -> String {
        let asks = application(name, &format!("{NODE}{node}"), "2026-01-01T00:00:00Z", &json!({}));
        json!({ "items": [asks] }).to_string()
    }

    #[test]
    fn those_that_nobody_has_decided_about_are_told() {
        let approved = json!({"status": {"conditions": [{"type": "Approved"}]}});
        let other = json!({"spec": {"request": "", "signerName": "example.com/x"}});
        let items = [
            application("late", "system:node:n1", "2026-01-01T00:00:09Z", &json!({})),
            application("early", "system:node:n1", "2026-01-01T00:00:01Z", &json!({})),
            application("b", "system:node:n2", "2026-01-01T00:00:00Z", &approved),
            application("c", "system:node:n3", "2026-01-01T00:00:00Z", &other),
            application("d", "jane", "2026-01-01T00:00:00Z", &json!({"status": {}})),
        ];
        let machine = FakeMachine::new("m");
        let nodes = HttpsEndpoint {
            address: "10.0.0.1".to_owned(),
            port: 6443,
            path: "/api/v1/nodes".to_owned(),
            ca: String::new(),
            client: None,
        };
        let at = format!("10.0.0.1:6443{PATH}");
        let body = json!({ "items": items }).to_string();
        machine.state().answers.insert(at.clone(), body);
        let mut host = machine.connect();
        let found = waiting(host.as_mut(), &nodes).unwrap();
        assert_eq!(found, BTreeMap::from([("n1".to_owned(), "late".to_owned())]));
        machine.state().unhealthy.insert(at, 403);
        assert!(waiting(host.as_mut(), &nodes).unwrap_err().contains("answers 403"));
    }
}
