//! What a kubelet may do: its own node, lease and pods, and what those pods refer to, claims and
//! the volumes that are bound to them among it.

use std::collections::{BTreeMap, BTreeSet};

use api::volume::{claim_of, claim_ref};
use api::{Key, Kind, Object};
use k8s_openapi::api::core::v1::{PersistentVolume, PodSpec};

use super::Attributes;

/// For every node, its pods and the objects they refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct References {
    pods: BTreeMap<Key, (String, BTreeSet<Key>)>,
    wanted: BTreeMap<(String, Key), usize>,
    /// The claim of each volume that is bound to one.
    claim_of: BTreeMap<Key, Key>,
}

impl References {
    /// Notes the present state of a pod or volume.
    pub(super) fn apply(&mut self, key: &Key, object: Option<&Object>) {
        match key.kind {
            Kind::PersistentVolume => self.apply_volume(key, object),
            _ => self.apply_pod(key, object),
        }
    }

    fn apply_volume(&mut self, key: &Key, object: Option<&Object>) {
        self.claim_of.remove(key);
        let volume = object.and_then(Object::get::<PersistentVolume>);
        let Some(claim) = volume.and_then(claim_ref) else { return };
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (namespace, name) = (part(&claim.namespace), part(&claim.name));
        let claim = Key::new(Kind::PersistentVolumeClaim, &namespace, &name);
        self.claim_of.insert(key.clone(), claim);
    }

    fn apply_pod(&mut self, key: &Key, object: Option<&Object>) {
        if let Some((node, keys)) = self.pods.remove(key) {
            for wanted in keys {
                let entry = (node.clone(), wanted);
                if let Some(count) = self.wanted.get_mut(&entry) {
                    *count -= 1;
                    if *count == 0 {
                        self.wanted.remove(&entry);
                    }
                }
            }
        }
        let Some(Object::Pod(pod)) = object else { return };
        let Some(spec) = &pod.spec else { return };
        let Some(node) = pod.node_name.as_ref().map(ToString::to_string) else { return };
        let mut keys = referred(spec, key);
        keys.insert(key.clone());
        for wanted in &keys {
            *self.wanted.entry((node.clone(), wanted.clone())).or_default() += 1;
        }
        self.pods.insert(key.clone(), (node, keys));
    }

    fn refers(&self, node: &str, key: Key) -> bool {
        self.wanted.contains_key(&(node.to_owned(), key))
    }

    /// Whether a volume belongs to a claim that a pod of the node refers to.
    fn refers_to_volume(&self, node: &str, name: &str) -> bool {
        let volume = Key::cluster(Kind::PersistentVolume, name);
        self.claim_of.get(&volume).is_some_and(|claim| self.refers(node, claim.clone()))
    }

    /// Allows, or tells why not.
    pub(super) fn authorize(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        let read = matches!(asked.verb.as_str(), "get" | "list" | "watch");
        let related = |kind: Kind| self.related(node, kind, asked);
        match (asked.group.as_str(), asked.resource.as_str(), asked.subresource.as_str()) {
            ("", "secrets", "") if read => related(Kind::Secret),
            ("", "configmaps", "") if read => related(Kind::ConfigMap),
            ("", "persistentvolumeclaims", "") if asked.verb == "get" => {
                related(Kind::PersistentVolumeClaim)
            }
            ("", "persistentvolumes", "") if asked.verb == "get" => {
                is_related(self.refers_to_volume(node, &asked.name), node)
            }
            ("", "serviceaccounts", "token") if asked.verb == "create" => {
                related(Kind::ServiceAccount)
            }
            ("", "pods", "") => self.pod(node, asked),
            ("", "pods", "status" | "eviction") => granted(true),
            ("", "nodes", "") => {
                let all = matches!(asked.verb.as_str(), "create" | "list" | "watch");
                let own = asked.name == node
                    || asked.fields.exact("metadata.name").is_some_and(|n| n == node);
                let verb = matches!(
                    asked.verb.as_str(),
                    "get" | "list" | "watch" | "create" | "update" | "patch"
                );
                granted(verb && (own || all))
            }
            ("", "nodes", "status") => granted(asked.name == node && !read),
            ("coordination.k8s.io", "leases", "") => {
                let verb =
                    matches!(asked.verb.as_str(), "get" | "create" | "update" | "patch" | "delete");
                let own = asked.name == node || asked.verb == "create";
                granted(asked.namespace == "kube-node-lease" && verb && own)
            }
            ("storage.k8s.io", "csinodes", subresource) => csi_node(node, asked, subresource),
            ("", "services", "") => granted(read),
            ("", "events", "") | ("events.k8s.io", "events", "") => {
                granted(matches!(asked.verb.as_str(), "create" | "update" | "patch"))
            }
            ("certificates.k8s.io", "certificatesigningrequests", "") => {
                granted(read || asked.verb == "create")
            }
            ("authentication.k8s.io", "tokenreviews", "")
            | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
                granted(asked.verb == "create")
            }
            _ => granted(false),
        }
    }

    /// Reading one object that a pod of the node refers to.
    fn related(&self, node: &str, kind: Kind, asked: &Attributes) -> Result<(), String> {
        let name = asked.fields.exact("metadata.name").unwrap_or(&asked.name);
        if name.is_empty() {
            return Err(format!(
                "can only list/watch/get {} by name that are referred to by its pods",
                kind.plural()
            ));
        }
        is_related(self.refers(node, Key::new(kind, &asked.namespace, name)), node)
    }

    fn pod(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        match asked.verb.as_str() {
            "get" => is_related(
                self.refers(node, Key::new(Kind::Pod, &asked.namespace, &asked.name)),
                node,
            ),
            "list" | "watch" => {
                if asked.fields.exact("spec.nodeName") == Some(node) {
                    return Ok(());
                }
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            // NodeRestriction looks at the objects themselves.
            "create" | "delete" => Ok(()),
            _ => granted(false),
        }
    }
}

/// What drivers of storage a node has is its own to say.
fn csi_node(node: &str, asked: &Attributes, subresource: &str) -> Result<(), String> {
    let verb = asked.verb.as_str();
    if !subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".to_owned());
    }
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".to_owned());
    }
    if verb != "create" && asked.name != node {
        let why = "can only access CSINode with the same name as the requesting node";
        return Err(why.to_owned());
    }
    Ok(())
}

fn is_related(refers: bool, node: &str) -> Result<(), String> {
    if refers {
        return Ok(());
    }
    Err(format!("no relationship found between node '{node}' and this object"))
}

fn granted(yes: bool) -> Result<(), String> {
    if yes { Ok(()) } else { Err(String::new()) }
}

/// The secrets, configuration maps, claims and service account that a pod needs.
fn referred(spec: &PodSpec, pod: &Key) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let mut add = |kind: Kind, name: &str| {
        if !name.is_empty() {
            keys.insert(Key::new(kind, &pod.namespace, name));
        }
    };
    add(Kind::ServiceAccount, spec.service_account_name.as_deref().unwrap_or_default());
    api::pod::configuration(spec, &mut add);
    for volume in spec.volumes.iter().flatten() {
        if let Some(claim) = claim_of(volume, &pod.name) {
            add(Kind::PersistentVolumeClaim, &claim);
        }
    }
    keys
}
