//! Controllers that keep house.

use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DnType, KeyPair};

use super::super::tests::{deployment, template};
use super::*;

fn bytes(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

/// A namespace that gets what each has, is filled, and goes.
pub(super) const NAMESPACES: Case = Case {
    name: "namespaces",
    proofs: &[
        ("namespace-controller", "delete services/shop/web|update namespaces/shop finalize"),
        ("service-account-controller", "create serviceaccounts/shop/default"),
        ("root-ca-certificate-publisher-controller", "create configmaps/shop/kube-root-ca.crt"),
    ],
    nodes: 2,
    lasts: 180,
    script: |world, second| match second {
        5 => {
            for name in ["shop", "stays"] {
                world.create(
                    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
                );
            }
        }
        30 => {
            world.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                    "template": template("web", "v1")}}));
            world.create(json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}));
            // What others spoil is put right.
            let authority = Key::new(Kind::ConfigMap, "stays", "kube-root-ca.crt");
            world.edit(&authority, |v| v["data"]["ca.crt"] = "other".into());
            world.delete(&Key::new(Kind::ServiceAccount, "stays", "default"), None);
        }
        90 => world.delete(&Key::cluster(Kind::Namespace, "shop"), None),
        _ => {}
    },
};

/// What is used is counted anew when it grows less.
pub(super) const QUOTAS: Case = Case {
    name: "quotas",
    proofs: &[("resourcequota-controller", "update resourcequotas/default/q status")],
    nodes: 2,
    lasts: 180,
    script: |world, second| match second {
        5 => {
            deployment(world, 4, json!(1), json!(1));
            world.create(json!({"apiVersion": "v1", "kind": "ResourceQuota",
                "metadata": {"name": "q", "namespace": "default"},
                "spec": {"hard": {"pods": "20", "count/replicasets.apps": "5", "secrets": "9"}}}));
        }
        60 => {
            let web = Key::new(Kind::Deployment, "default", "web");
            world.edit(&web, |v| v["spec"]["replicas"] = 1.into());
        }
        120 => {
            let quota = Key::new(Kind::ResourceQuota, "default", "q");
            world.edit(&quota, |v| v["spec"]["hard"] = json!({"pods": "3"}));
        }
        _ => {}
    },
};

fn role(world: &mut World, name: &str, resource: &str) {
    world.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"part": "true"}},
        "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]}));
}

pub(super) const ROLES: Case = Case {
    name: "aggregated roles",
    proofs: &[("clusterrole-aggregation-controller", "update clusterroles/whole")],
    nodes: 0,
    lasts: 120,
    script: |world, second| match second {
        5 => {
            role(world, "b", "pods");
            world.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole", "metadata": {"name": "whole"},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "true"}}]}}));
        }
        30 => role(world, "a", "secrets"),
        60 => world.delete(&Key::cluster(Kind::ClusterRole, "b"), None),
        _ => {}
    },
};

fn lease(world: &mut World, name: &str) -> Key {
    let renewed = json!(world.store.now.to_micro());
    world.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-system",
            "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver"}},
        "spec": {"leaseDurationSeconds": 3600, "renewTime": renewed}}))
}

/// The lease of an API server that lives, and that of one that died.
pub(super) const LEASES: Case = Case {
    name: "leases",
    proofs: &[(
        "apiserver-lease-garbage-collector",
        "delete leases/kube-system/apiserver-dead|delete leases/kube-system/apiserver-late",
    )],
    nodes: 0,
    lasts: 300,
    script: |world, second| {
        let lasts = |world: &mut World, name: &str, seconds: i64| {
            let key = Key::new(Kind::Lease, "kube-system", name);
            let now = json!(world.store.now.to_micro());
            world.edit(&key, |v| {
                v["spec"] = json!({"leaseDurationSeconds": seconds, "renewTime": now});
            });
        };
        match second {
            5 => {
                for name in ["apiserver-lives", "apiserver-dead", "apiserver-late"] {
                    lease(world, name);
                }
                lasts(world, "apiserver-dead", 30);
            }
            100 => lasts(world, "apiserver-late", 30),
            _ => {}
        }
    },
};

fn token(world: &mut World, id: &str, lasts: Option<u64>) {
    let end = lasts.map(|secs| (world.store.now + Duration::from_secs(secs)).to_meta().0);
    let expiration = end.map(|end| end.to_string()).unwrap_or_default();
    world.create(json!({"apiVersion": "v1", "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "data": {"token-id": bytes(id), "token-secret": bytes("0123456789abcdef"),
            "expiration": bytes(&expiration), "usage-bootstrap-signing": bytes("true")}}));
}

pub(super) const TOKENS: Case = Case {
    name: "bootstrap tokens",
    proofs: &[
        ("token-cleaner-controller", "delete secrets/kube-system/bootstrap-token-bbbbbb"),
        (
            "bootstrap-signer-controller",
            "update configmaps/kube-public/cluster-info|update configmaps/kube-public/cluster-info",
        ),
    ],
    nodes: 0,
    lasts: 240,
    script: |world, second| match second {
        5 => {
            token(world, "aaaaaa", None);
            token(world, "bbbbbb", Some(60));
            world.create(json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "cluster-info", "namespace": "kube-public"},
                "data": {"kubeconfig": "x"}}));
        }
        150 => {
            let info = Key::new(Kind::ConfigMap, "kube-public", "cluster-info");
            world.edit(&info, |v| v["data"]["kubeconfig"] = "y".into());
        }
        _ => {}
    },
};

pub(super) const MIRRORS: Case = Case {
    name: "mirrored endpoints",
    proofs: &[(
        "endpointslice-mirroring-controller",
        "create endpointslices/default/db-|update endpointslices/default/db-|delete endpointslices/\
         default/other-",
    )],
    nodes: 0,
    lasts: 180,
    script: |world, second| {
        let endpoints = |name: &str| Key::new(Kind::Endpoints, "default", name);
        match second {
            5 => {
                for name in ["db", "other"] {
                    world.create(json!({"apiVersion": "v1", "kind": "Service",
                        "metadata": {"name": name, "namespace": "default"},
                        "spec": {"ports": [{"port": 80}]}}));
                    world.create(json!({"apiVersion": "v1", "kind": "Endpoints",
                        "metadata": {"name": name, "namespace": "default"},
                        "subsets": [{"ports": [{"port": 80}], "addresses": [{"ip": "10.9.0.1"}]}]}));
                }
            }
            60 => world.edit(&endpoints("db"), |v| {
                v["subsets"][0]["addresses"][0]["ip"] = json!("10.9.0.2");
            }),
            120 => world.edit(&endpoints("other"), |v| v["subsets"] = json!([])),
            _ => {}
        }
    },
};

/// A request for a certificate by a kubelet, as PEM in base64.
fn signing_request() -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "system:node:a");
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    bytes(&pem)
}

/// One that is approved and signed and goes after an hour, and one that nobody decides.
pub(super) const CERTIFICATES: Case = Case {
    name: "certificates",
    proofs: &[
        (
            "certificatesigningrequest-approving-controller",
            "update certificatesigningrequests/kubelet approval",
        ),
        ("certificatesigningrequest-signing-controller", "sign kubelet"),
        (
            "certificatesigningrequest-cleaner-controller",
            "delete certificatesigningrequests/kubelet",
        ),
    ],
    nodes: 0,
    lasts: 3_700,
    script: |world, second| {
        if second != 5 {
            return;
        }
        for (name, user) in [("kubelet", "system:node:a"), ("waits", "jane")] {
            world.create(json!({"apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest", "metadata": {"name": name},
                "spec": {"request": signing_request(), "username": user,
                    "groups": ["system:nodes"],
                    "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                    "usages": ["digital signature", "client auth"]}}));
        }
    },
};

/// Secrets with tokens of accounts, of which one goes.
pub(super) const ACCOUNTS: Case = Case {
    name: "account tokens",
    proofs: &[(
        "serviceaccount-token-controller",
        "sign default/stays|delete secrets/default/goes",
    )],
    nodes: 0,
    lasts: 120,
    script: |world, second| {
        let account = |name: &str| Key::new(Kind::ServiceAccount, "default", name);
        match second {
            5 => {
                for name in ["stays", "goes"] {
                    world.create(json!({"apiVersion": "v1", "kind": "ServiceAccount",
                        "metadata": {"name": name, "namespace": "default"}}));
                    world.create(json!({"apiVersion": "v1", "kind": "Secret",
                        "type": "kubernetes.io/service-account-token",
                        "metadata": {"name": name, "namespace": "default",
                            "annotations": {"kubernetes.io/service-account.name": name}}}));
                }
            }
            60 => world.delete(&account("goes"), None),
            _ => {}
        }
    },
};
