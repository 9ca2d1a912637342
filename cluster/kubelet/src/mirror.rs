//! Static pods: pods of the manifest directory, shown to the API by mirror pods.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/config/common.go`, `pkg/kubelet/pod/mirror_client.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, ApiObject, Key, Kind, Object, Pod, Reply, Request, Time, codec, hash, meta};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::KubeletConfig;
use crate::context::{ApiPurpose, Context};
use crate::watched::News;

/// The hash of the manifest that a mirror shows.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";
const SEEN: &str = "kubernetes.io/config.seen";
/// Between attempts to make or remove a mirror.
const RETRY: Duration = Duration::from_secs(2);

/// Turns a manifest into the pod that runs: its UID is the hash of what it says.
pub(crate) fn static_pod(object: &Object, config: &KubeletConfig, now: Time) -> Option<Pod> {
    let mut pod = object.get::<Pod>()?.clone();
    let text = codec::encode(&pod.clone().into_object());
    let high = hash::fnv64(&text);
    let low = hash::fnv64(&[&high.to_le_bytes()[..], config.node_name.as_bytes()].concat());
    let uid = format!("{high:016x}{low:016x}");
    let name = pod.metadata.name.as_deref()?;
    pod.metadata.name = Some(format!("{name}-{}", config.node_name));
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    pod.metadata.uid = Some(uid.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), uid);
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(SEEN.to_owned(), now.to_string());
    pod.node_name = Some(config.node_name.as_str().into());
    let spec = pod.spec.get_or_insert_default();
    // Static pods stay whatever happens to the node.
    let everything = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(everything);
    Some(pod)
}

/// Whether the API's pod is a mirror.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    meta::annotation(&pod.metadata, MIRROR).is_some()
}

/// Keeps one mirror for every static pod and no other.
#[derive(Clone, Default)]
pub(crate) struct Mirrors {
    busy: BTreeMap<(String, String), bool>,
    retry_at: Option<Time>,
    /// Whether nothing has changed since mirrors and pods were last compared.
    compared: bool,
}

impl Mirrors {
    /// Compares mirrors with `pods`, by UID.
    pub(crate) fn act(&mut self, ctx: &mut Context, pods: &BTreeMap<String, Arc<Pod>>, now: Time) {
        if self.compared && self.retry_at.is_none_or(|t| now < t) {
            return;
        }
        let synced = ctx.watched.pods.synced() && ctx.watched.node_synced();
        if !synced || self.retry_at.is_some_and(|t| now < t) {
            return;
        }
        self.retry_at = None;
        let Some(node_uid) = ctx.node().and_then(|n| n.metadata.uid.clone()) else { return };
        self.compared = true;
        let wanted: BTreeMap<(String, String), &Arc<Pod>> =
            pods.values().map(|p| (name_of(p), p)).collect();
        let existing: Vec<(Key, String, Option<String>)> = ctx
            .watched
            .pods
            .iter()
            .filter_map(|p| {
                let hash = meta::annotation(&p.metadata, MIRROR)?.to_owned();
                let (namespace, name) = name_of(p);
                Some((Key::new(Kind::Pod, &namespace, &name), hash, p.metadata.uid.clone()))
            })
            .collect();
        for (key, hash, uid) in existing {
            let name = (key.namespace.to_string(), key.name.to_string());
            let pod = wanted.get(&name);
            let same = pod.is_some_and(|p| p.metadata.uid.as_ref() == Some(&hash));
            if !same && self.begin(name.clone()) {
                let request = Request::Delete {
                    key,
                    uid,
                    revision: None,
                    grace_seconds: Some(0),
                    propagation: None,
                };
                ctx.api(ApiPurpose::Mirror { name }, request);
            }
        }
        for (name, pod) in wanted {
            let there = ctx.watched.pods.get(&name.0, &name.1).is_some();
            if !there && self.begin(name.clone()) {
                let object = mirror_of(pod, &ctx.config, &node_uid);
                ctx.api(ApiPurpose::Mirror { name }, Request::Create(object));
            }
        }
    }

    /// Pods, mirrors or the node changed: they are compared again.
    pub(crate) fn compare(&mut self) {
        self.compared = false;
    }

    fn begin(&mut self, name: (String, String)) -> bool {
        self.busy.insert(name, true).is_none()
    }

    /// Takes the answer to a call, and says what is known by it.
    pub(crate) fn answer(
        &mut self,
        ctx: &mut Context,
        name: &(String, String),
        result: Result<Reply, ApiError>,
        now: Time,
    ) -> News {
        let mut news = News::Nothing;
        self.busy.remove(name);
        self.compared = false;
        match result {
            Ok(Reply::Object(object)) if object.get::<Pod>().is_some_and(is_mirror) => {
                // Else it would be made again before the watch tells of it.
                if object.meta().deletion_timestamp.is_none() {
                    news = ctx.learn(object);
                }
            }
            Ok(_) => {}
            Err(_) => self.retry_at = Some(now + RETRY),
        }
        // A removed mirror is seen to be gone by the watch.
        self.retry_at.get_or_insert(now + RETRY / 4);
        news
    }

    pub(crate) const fn wake_at(&self) -> Option<Time> {
        self.retry_at
    }
}

fn name_of(pod: &Pod) -> (String, String) {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}

fn mirror_of(pod: &Pod, config: &KubeletConfig, node_uid: &str) -> Object {
    let mut mirror = pod.clone();
    let hash = mirror.metadata.uid.take().unwrap_or_default();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: config.node_name.clone(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror.into_object()
}
