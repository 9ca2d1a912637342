//! Folders of provisioned volumes that shall go: the node's annotations name them, and there the
//! kubelet answers when they are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::volume::{LOCAL_ANNOTATION, LOCAL_REMOVE, LOCAL_REMOVED};
use api::{Key, Kind, Patch, PatchKind, Request, Time};
use k8s_openapi::api::core::v1::Node;
use machine::Backoff;
use serde_json::json;

use crate::context::{ApiPurpose, Context, RuntimePurpose};
use crate::runtime::RuntimeRequest;

/// Between attempts to remove a folder, or to say that it is gone.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };

/// What is being done about one folder.
#[derive(Clone, Default)]
struct Task {
    busy: bool,
    failures: u32,
    retry_at: Time,
}

/// The folders that shall go.
#[derive(Clone, Default)]
pub(crate) struct LocalVolumes {
    /// The node as it was looked at last.
    seen: Option<Arc<Node>>,
    /// By volume.
    tasks: BTreeMap<String, Task>,
}

impl LocalVolumes {
    /// Begins to remove what the node names, and what could not be removed before.
    pub(crate) fn act(&mut self, ctx: &mut Context, now: Time) {
        let Some(node) = ctx.node() else { return };
        let same = self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, node));
        if same && self.wake_at().is_none_or(|at| now < at) {
            return;
        }
        self.seen = Some(node.clone());
        let annotations = node.metadata.annotations.iter().flatten();
        let wanted: Vec<String> = annotations
            .filter(|(_, value)| *value == LOCAL_REMOVE)
            .filter_map(|(key, _)| key.strip_prefix(LOCAL_ANNOTATION).map(str::to_owned))
            .collect();
        self.tasks.retain(|name, task| task.busy || wanted.contains(name));
        for name in wanted {
            let task = self.tasks.entry(name.clone()).or_default();
            if task.busy || now < task.retry_at {
                continue;
            }
            task.busy = true;
            let purpose = RuntimePurpose::LocalVolume { name: name.clone() };
            ctx.runtime(purpose, RuntimeRequest::RemoveLocalVolume { name });
        }
    }

    /// When a folder is worth another attempt.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.tasks.values().filter(|task| !task.busy).map(|task| task.retry_at).min()
    }

    /// Whether nothing is to be removed.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The folder is gone, or not.
    pub(crate) fn removed(
        &mut self,
        ctx: &mut Context,
        name: String,
        result: Result<(), String>,
        now: Time,
    ) {
        if let Err(why) = result {
            let message = format!("Failed to remove the folder of volume {name:?}: {why}");
            ctx.node_event(now, true, "VolumeFailedDelete", message);
            return self.told(&name, now, false);
        }
        let key = Key::cluster(Kind::Node, &ctx.config.node_name);
        let annotation = format!("{LOCAL_ANNOTATION}{name}");
        let body = json!({"metadata": {"annotations": {annotation: LOCAL_REMOVED}}});
        let patch = Patch { kind: PatchKind::Merge, body: body.into() };
        let request = Request::Patch { key, subresource: None, patch };
        ctx.api(ApiPurpose::LocalVolume { name }, request);
    }

    /// It was said that the folder is gone, or that failed.
    pub(crate) fn told(&mut self, name: &str, now: Time, ok: bool) {
        if ok {
            self.tasks.remove(name);
        } else if let Some(task) = self.tasks.get_mut(name) {
            task.busy = false;
            task.failures = task.failures.saturating_add(1);
            task.retry_at = now + RETRY.delay(task.failures);
        }
    }
}
