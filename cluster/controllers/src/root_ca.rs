//! Every namespace has a config map with the certificate authority of the API server.
//!
//! Source: kubernetes 1.33, `pkg/controller/certificates/rootcacertpublisher`.

use std::collections::BTreeMap;

use api::{ApiObject, Key, Kind, Request, Time};
use k8s_openapi::api::core::v1::ConfigMap;
use machine::{Cache, Delta, Plan, Reconciler};

use crate::service_account::{is_active, namespace_of};

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the \
    kube-apiserver when using internal endpoints such as the internal service IP or \
    kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
    clusters.";

/// Publishes the CA in every active namespace.
pub struct RootCa {
    ca_pem: String,
}

impl RootCa {
    /// Makes a publisher of the PEM bundle.
    pub const fn new(ca_pem: String) -> Self {
        Self { ca_pem }
    }
}

impl Reconciler for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Namespace, Kind::ConfigMap]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        namespace_of(delta, NAME).into_iter().collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        if !is_active(cache, key) {
            return plan;
        }
        let current = cache.get::<ConfigMap>(&key.name, NAME);
        let data = BTreeMap::from([(FILE.to_owned(), self.ca_pem.clone())]);
        let mut wanted = current.cloned().unwrap_or_default();
        wanted.data = Some(data);
        wanted.metadata.name = Some(NAME.to_owned());
        wanted.metadata.namespace = Some(key.name.to_string());
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
        match current {
            None => plan.request(Request::Create(wanted.into_object())),
            Some(current) if *current == wanted => {}
            Some(_) => {
                plan.request(Request::Update { object: wanted.into_object(), subresource: None });
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{Fixture, summary};

    #[test]
    fn every_namespace_gets_the_ca_and_keeps_it() {
        let mut fixture = Fixture::new(RootCa::new("PEM".to_owned()));
        fixture.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}));
        let key = Key::cluster(Kind::Namespace, "n");
        assert_eq!(summary(&fixture.reconcile(&key)), ["create configmaps/n/kube-root-ca.crt"]);
        fixture.settle(&key);
        assert_eq!(summary(&fixture.reconcile(&key)), Vec::<String>::new());
        // Somebody spoils it.
        fixture.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": "x"},
            "metadata": {"name": "kube-root-ca.crt", "namespace": "n"}}));
        assert_eq!(summary(&fixture.reconcile(&key)), ["update configmaps/n/kube-root-ca.crt"]);
    }
}
