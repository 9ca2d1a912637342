//! What is served, told to clients: groups, versions and resources.
//!
//! `/api` and `/apis` answer in the aggregated form when asked for it: every resource in two
//! documents. All documents come from the table of kinds.
//!
//! Source: kubernetes 1.33, `k8s.io/apiserver/pkg/endpoints/discovery`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::{Kind, Reason, Status};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A document that only changes with the program.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// The text.
    pub(crate) body: Bytes,
    /// Its media type, with the parameters that were asked for.
    pub(crate) content_type: &'static str,
    /// Changes when the text does; with its quotes.
    pub(crate) etag: String,
    /// Whether the address names this very text, so that it may be kept forever.
    pub(crate) immutable: bool,
}

impl Document {
    /// A document of some text.
    pub(crate) fn new(body: impl Into<Bytes>, content_type: &'static str) -> Self {
        let body = body.into();
        let etag = format!("\"{}\"", hash(&body));
        Self { body, content_type, etag, immutable: false }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string(), JSON)
    }

    /// Whether the client has this text already (`If-None-Match`).
    pub(crate) fn is_known(&self, if_none_match: &str) -> bool {
        if_none_match
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == self.etag)
    }
}

/// Names a text: the SHA-256 in capital hexadecimal digits.
pub(crate) fn hash(text: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02X}").expect("writing to a string cannot fail");
        hex
    })
}

pub(crate) const JSON: &str = "application/json";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2_BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// The groups in order of precedence: an ambiguous name means the resource of the first.
const GROUPS: &[&str] = &[
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "metrics.k8s.io",
];

/// The versions of groups that have others than `v1`, the preferred one first.
const VERSIONS: &[(&str, &[&str])] =
    &[("autoscaling", &["v2", "v1"]), ("metrics.k8s.io", &["v1beta1"])];

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Finds the document at `path`. `accept` is the header of that name, `server` the address
/// (`host:port`) under which clients reach this server. `None` when there is no such document.
///
/// # Errors
/// `NotAcceptable` when the client takes none of the forms it has.
pub(crate) fn find(path: &str, accept: &str, server: &str) -> Option<Result<Document, Status>> {
    let path = path.trim_end_matches('/');
    let aggregated = match path {
        "/api" => &ALL.api,
        "/apis" => &ALL.apis,
        _ => {
            let document = ALL.plain.get(path)?;
            return Some(match form(accept) {
                Some(_) => Ok(document.clone()),
                None => Err(not_acceptable()),
            });
        }
    };
    Some(match form(accept) {
        Some(V2) => Ok(aggregated[0].clone()),
        Some(V2_BETA) => Ok(aggregated[1].clone()),
        Some(_) if path == "/api" => Ok(Document::json(&json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
        }))),
        Some(_) => Ok(Document::json(&json!({
            "kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups().map(group).collect::<Vec<_>>(),
        }))),
        None => Err(not_acceptable()),
    })
}

fn not_acceptable() -> Status {
    Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json",
    )
}

/// The first form in the header that exists; [`JSON`] for the plain one.
fn form(accept: &str) -> Option<&'static str> {
    if accept.trim().is_empty() {
        return Some(JSON);
    }
    accept.split(',').find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let parameters: BTreeMap<&str, &str> = parts.filter_map(|p| p.split_once('=')).collect();
        let get = |key| parameters.get(key).copied();
        match (get("as"), get("g"), get("v")) {
            (None, None, _) => Some(JSON),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(V2),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                Some(V2_BETA)
            }
            _ => None,
        }
    })
}

/// The paths of all documents.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    ["/api", "/apis"].into_iter().map(str::to_owned).chain(ALL.plain.keys().cloned())
}

/// All documents that do not depend on the request.
struct All {
    /// `/api` in the aggregated form: `v2`, `v2beta1`.
    api: [Document; 2],
    /// `/apis` in the aggregated form: `v2`, `v2beta1`.
    apis: [Document; 2],
    /// One group or one version of it, by path.
    plain: BTreeMap<String, Document>,
}

static ALL: LazyLock<All> = LazyLock::new(|| {
    let list = |core: bool, content_type: &'static str| {
        let version = if content_type == V2 { "v2" } else { "v2beta1" };
        let groups: Vec<&str> = if core { vec![""] } else { groups().collect() };
        let items: Vec<Value> = groups.into_iter().map(aggregated_group).collect();
        let list = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        });
        Document::new(list.to_string(), content_type)
    };
    let mut plain = BTreeMap::new();
    plain.insert("/api/v1".to_owned(), Document::json(&resource_list("", "v1")));
    for name in groups() {
        let mut document = group(name);
        document["kind"] = json!("APIGroup");
        document["apiVersion"] = json!("v1");
        plain.insert(format!("/apis/{name}"), Document::json(&document));
        for version in versions_of(name) {
            let document = Document::json(&resource_list(name, version));
            plain.insert(format!("/apis/{name}/{version}"), document);
        }
    }
    All {
        api: [list(true, V2), list(true, V2_BETA)],
        apis: [list(false, V2), list(false, V2_BETA)],
        plain,
    }
});

/// The groups with paths of their own, in order of precedence.
pub(crate) fn groups() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().copied()
}

/// The versions of a group, the preferred one first.
pub(crate) fn versions_of(group: &str) -> &'static [&'static str] {
    VERSIONS.iter().find(|(name, _)| *name == group).map_or(&["v1"], |(_, versions)| versions)
}

fn group(name: &str) -> Value {
    let versions: Vec<Value> = versions_of(name)
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

/// The kinds that a version of a group has paths for, by resource name.
pub(crate) fn kinds_of(group: &str, version: &str) -> Vec<Kind> {
    let of = |kind: &Kind| kind.info().group == group && kind.info().version == version;
    let mut kinds: Vec<Kind> =
        Kind::ALL.iter().copied().filter(|k| of(k) && has_path(*k)).collect();
    kinds.sort_by_key(|k| k.plural());
    kinds
}

/// Some kinds are only the body of a subresource.
fn has_path(kind: Kind) -> bool {
    !matches!(kind, Kind::Scale | Kind::Eviction | Kind::TokenRequest)
}

/// What can be done with a resource.
pub(crate) fn verbs(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::NodeMetrics | Kind::PodMetrics => &["get", "list"],
        _ if !kind.stored_as().info().stored => &["create"],
        // Emptying a namespace is a matter of its deletion, not of a collection.
        Kind::Namespace => &["create", "delete", "get", "list", "patch", "update", "watch"],
        _ => ALL_VERBS,
    }
}

/// A subresource: its kind and what can be done with it.
pub(crate) struct Sub {
    /// The kind of its body.
    pub(crate) kind: &'static str,
    /// `group/version` of that kind.
    pub(crate) api_version: &'static str,
    /// What can be done with it.
    pub(crate) verbs: &'static [&'static str],
}

/// Describes a subresource of a kind.
pub(crate) fn subresource(kind: Kind, name: &str) -> Sub {
    let own = |verbs| Sub { kind: kind.name(), api_version: kind.api_version(), verbs };
    let of = |kind: Kind, verbs| Sub { kind: kind.name(), api_version: kind.api_version(), verbs };
    let options = |kind| Sub { kind, api_version: "v1", verbs: &["create", "get"] };
    match name {
        "scale" => of(Kind::Scale, &["get", "patch", "update"]),
        "eviction" => of(Kind::Eviction, &["create"]),
        "token" => of(Kind::TokenRequest, &["create"]),
        "binding" => of(Kind::Binding, &["create"]),
        "finalize" => own(&["update"]),
        "log" => own(&["get"]),
        "exec" => options("PodExecOptions"),
        "attach" => options("PodAttachOptions"),
        "portforward" => options("PodPortForwardOptions"),
        "proxy" => Sub {
            kind: if kind == Kind::Node { "NodeProxyOptions" } else { "PodProxyOptions" },
            api_version: "v1",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        _ => own(&["get", "patch", "update"]),
    }
}

/// Splits `group/version`; the core group has no name.
pub(crate) fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in kinds_of(group, version) {
        let info = kind.info();
        let mut resource = json!({
            "name": info.plural, "singularName": info.singular, "namespaced": kind.namespaced(),
            "kind": info.kind, "verbs": verbs(kind),
        });
        put_lists(&mut resource, kind);
        resources.push(resource);
        for name in info.subresources {
            let sub = subresource(kind, name);
            let mut resource = json!({
                "name": format!("{}/{name}", info.plural), "singularName": "",
                "namespaced": kind.namespaced(), "kind": sub.kind, "verbs": sub.verbs,
            });
            if sub.api_version != info.api_version {
                let (group, version) = group_version(sub.api_version);
                resource["group"] = json!(group);
                resource["version"] = json!(version);
            }
            resources.push(resource);
        }
    }
    let mut list = json!({"kind": "APIResourceList", "resources": resources});
    if group.is_empty() {
        list["groupVersion"] = json!("v1");
    } else {
        list["apiVersion"] = json!("v1");
        list["groupVersion"] = json!(format!("{group}/{version}"));
    }
    list
}

fn put_lists(resource: &mut Value, kind: Kind) {
    let info = kind.info();
    if !info.short_names.is_empty() {
        resource["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        resource["categories"] = json!(info.categories);
    }
}

fn aggregated_group(group: &str) -> Value {
    let response_kind = |api_version: &str, kind: &str| {
        let (group, version) = group_version(api_version);
        json!({"group": group, "version": version, "kind": kind})
    };
    let resources = |version: &str| -> Vec<Value> {
        kinds_of(group, version)
            .into_iter()
            .map(|kind| {
                let info = kind.info();
                let mut resource = json!({
                    "resource": info.plural,
                    "responseKind": response_kind(info.api_version, info.kind),
                    "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
                    "singularResource": info.singular,
                    "verbs": verbs(kind),
                });
                put_lists(&mut resource, kind);
                let subresources: Vec<Value> = info
                    .subresources
                    .iter()
                    .map(|name| {
                        let sub = subresource(kind, name);
                        json!({
                            "subresource": name,
                            "responseKind": response_kind(sub.api_version, sub.kind),
                            "verbs": sub.verbs,
                        })
                    })
                    .collect();
                if !subresources.is_empty() {
                    resource["subresources"] = json!(subresources);
                }
                resource
            })
            .collect()
    };
    let versions: Vec<Value> = versions_of(group)
        .iter()
        .map(|version| {
            json!({"version": version, "resources": resources(version), "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, accept: &str) -> (String, Value) {
        let document = find(path, accept, "10.0.0.1:6443").unwrap().unwrap();
        (document.content_type.to_owned(), serde_json::from_slice(&document.body).unwrap())
    }

    #[test]
    fn every_group_has_a_place() {
        for kind in Kind::ALL.iter().filter(|k| has_path(**k)) {
            let info = kind.info();
            assert!(versions_of(info.group).contains(&info.version), "{kind}");
            assert!(info.group.is_empty() || GROUPS.contains(&info.group), "{kind}");
        }
    }

    #[test]
    fn clients_get_the_newest_form_they_know() {
        let both = format!("{V2},{V2_BETA},application/json");
        let (content_type, document) = read("/apis", &both);
        assert_eq!(content_type, V2);
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        assert_eq!(document["items"][0]["metadata"]["name"], "apps");
        let resources = document["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let deployments = resources.iter().find(|r| r["resource"] == "deployments").unwrap();
        assert_eq!(deployments["shortNames"], json!(["deploy"]));
        assert_eq!(
            deployments["subresources"][0],
            json!({"subresource": "scale", "verbs": ["get", "patch", "update"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}})
        );
        let (content_type, document) = read("/api", &format!("{V2_BETA},application/json"));
        assert_eq!(content_type, V2_BETA);
        assert_eq!(document["items"][0]["metadata"], json!({"creationTimestamp": null}));
        assert_eq!(read("/api", "application/json, */*").1["versions"], json!(["v1"]));
        assert_eq!(read("/apis", "").1["kind"], "APIGroupList");
        let proto = find("/apis", "application/vnd.kubernetes.protobuf", "").unwrap();
        assert_eq!(proto.unwrap_err().code, 406);
    }

    #[test]
    fn plain_lists_name_the_kinds_of_subresources() {
        let (_, document) = read("/api/v1", "application/json, */*");
        let resources = document["resources"].as_array().unwrap();
        let find = |name: &str| resources.iter().find(|r| r["name"] == name).unwrap();
        assert_eq!(
            *find("pods/eviction"),
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true,
                "group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]})
        );
        assert_eq!(find("pods/log")["verbs"], json!(["get"]));
        assert_eq!(find("bindings")["verbs"], json!(["create"]));
        assert_eq!(find("namespaces")["namespaced"], json!(false));
        let (_, group) = read("/apis/apps", "*/*");
        assert_eq!(group["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(read("/apis/apps/v1", "*/*").1["groupVersion"], "apps/v1");
        assert!(super::find("/apis/example.com/v1", "*/*", "").is_none());
        // Evictions have no path of their own.
        let (_, policy) = read("/apis/policy/v1", "*/*");
        let names: Vec<&str> = policy["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|r| r["name"].as_str())
            .collect();
        assert_eq!(names, ["poddisruptionbudgets", "poddisruptionbudgets/status"]);
    }

    #[test]
    fn a_group_of_two_versions_prefers_one() {
        let (_, group) = read("/apis/autoscaling", "*/*");
        assert_eq!(group["preferredVersion"]["groupVersion"], "autoscaling/v2");
        for version in ["v1", "v2"] {
            let (_, list) = read(&format!("/apis/autoscaling/{version}"), "*/*");
            assert_eq!(list["groupVersion"], format!("autoscaling/{version}"));
            let resources = list["resources"].as_array().unwrap();
            assert_eq!(resources[0]["name"], "horizontalpodautoscalers");
            assert_eq!(resources[0]["verbs"].as_array().unwrap().len(), 8);
            assert_eq!(resources.len(), 2);
        }
        let (_, metrics) = read("/apis/metrics.k8s.io/v1beta1", "*/*");
        assert_eq!(
            metrics["resources"][1],
            json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics",
                "verbs": ["get", "list"]})
        );
        let (_, aggregated) = read("/apis", V2);
        let items = aggregated["items"].as_array().unwrap();
        let of = |name: &str| items.iter().find(|i| i["metadata"]["name"] == name).unwrap();
        assert_eq!(of("autoscaling")["versions"][0]["version"], "v2");
        assert_eq!(of("metrics.k8s.io")["versions"][0]["resources"][0]["resource"], "nodes");
    }

    #[test]
    fn tags_tell_whether_the_client_is_up_to_date() {
        let document = find("/apis", V2, "").unwrap().unwrap();
        assert!(document.is_known(&document.etag));
        assert!(document.is_known(&format!("\"x\", W/{}", document.etag)));
        assert!(!document.is_known("\"x\""));
        assert_eq!(document.etag.len(), 66);
    }
}
