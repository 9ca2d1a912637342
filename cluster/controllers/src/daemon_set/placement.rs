//! Which nodes lack a pod and which have one too many, and the writes that make it good.

use std::collections::BTreeSet;
use std::time::Duration;

use api::hash::{fnv64, letters};
use api::{ApiObject, Key, Kind, Pod, Request, Time, meta};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use machine::{Announcement, Backoff, Plan};

use super::nodes::{self, Fit};
use super::{BURST_MAX, GENERATION_LABEL, HASH, Pass};
use crate::ownership::{self, workload_selector};
use crate::replicas::{name_prefix, pod_of_template};
use crate::{announce, pods};

/// How many pods in a row ended on the node before this one. Kubernetes counts in the memory of its
/// controller.
const ENDED_BEFORE: &str = "kprov.io/ended-before";

/// A kubelet that refuses a pod would refuse the next one as fast as it can be made.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), max: Duration::from_secs(15 * 60) };

/// What shall be done to pods.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    /// Nodes that get a pod, and how many ended there in a row.
    pub(crate) create: Vec<(&'a str, u32)>,
    pub(crate) delete: Vec<&'a Pod>,
}

impl Changes<'_> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

impl<'a> Pass<'a> {
    /// Sees to it that each node has its pod and no more: during a rollout with a surge, two.
    pub(super) fn place(&self, plan: &mut Plan) -> Changes<'a> {
        let mut changes = Changes::default();
        for (node, fit) in &self.nodes {
            let present = self.on_node.contains_key(node);
            if fit.run && !present {
                changes.create.push((node, 0));
            } else if fit.stay {
                self.tend(node, *fit, plan, &mut changes);
            } else {
                changes.delete.extend(self.pods_of(node).iter().filter(|p| is_kept(p)));
            }
        }
        // Of a node that is gone, what is not bound to it is nobody else's to remove.
        for (node, pods) in &self.on_node {
            if !self.nodes.contains_key(node) {
                let waits = |pod: &&&Pod| pod.node().is_empty() && is_kept(pod);
                changes.delete.extend(pods.iter().filter(waits));
            }
        }
        changes
    }

    /// Replaces what has ended and removes what is too much on a node that may keep a pod.
    fn tend(&self, node: &'a str, fit: Fit, plan: &mut Plan, changes: &mut Changes<'a>) {
        let present = self.pods_of(node);
        let kept = || present.iter().copied().filter(|p| is_kept(p));
        let (mut waits, mut ended) = (false, None);
        for pod in kept().filter(|p| pods::is_terminal(p)) {
            let failed = Failed::of(pod, self.now);
            if self.now < failed.due {
                plan.revisit_in(failed.due.since(self.now));
                waits = true;
                continue;
            }
            if changes.delete.len() < BURST_MAX {
                plan.events.push(self.ended(pod, node));
            }
            changes.delete.push(pod);
            ended = ended.max(Some(failed.in_a_row));
        }
        let running: Vec<&Pod> = kept().filter(|p| !pods::is_terminal(p)).collect();
        let stops = present.iter().any(|p| !is_kept(p));
        if running.is_empty() {
            // The next pod remembers how many ended before it.
            let free = !waits && (self.surges() || ended.is_some() && !stops);
            if fit.run && free {
                changes.create.push((node, ended.unwrap_or(0)));
            }
        } else if self.surges() {
            self.thin_out_surge(&running, changes);
        } else {
            changes.delete.extend(&running[1..]);
        }
    }

    /// Leaves one pod of today's template and one of another, as long as the former is not available
    /// yet and the latter still ready.
    fn thin_out_surge(&self, running: &[&'a Pod], changes: &mut Changes<'a>) {
        if running.len() == 1 {
            return;
        }
        let (mut new, mut old) = (None, None);
        for pod in running {
            let of_today = meta::label(&pod.metadata, HASH) == Some(self.history.hash());
            let first = if of_today { &mut new } else { &mut old };
            match first {
                None => *first = Some(*pod),
                Some(_) => changes.delete.push(pod),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!pods::is_ready(old) || self.is_available(new))
        {
            changes.delete.push(old);
        }
    }

    fn ended(&self, pod: &Pod, node: &str) -> machine::Record {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        if pods::phase(pod) == "Failed" {
            let message = format!(
                "Found failed daemon pod {namespace}/{pod_name} on node {node}, will try to kill it"
            );
            announce::warning(self.set, "FailedDaemonPod", message)
        } else {
            let message = format!(
                "Found succeeded daemon pod {namespace}/{pod_name} on node {node}, will try to \
                 delete it"
            );
            announce::normal(self.set, "SucceededDaemonPod", message)
        }
    }

    /// Plans the changes, deletions first: what is refused must not keep what is in the way.
    pub(super) fn carry_out(&self, changes: &Changes<'a>, plan: &mut Plan) {
        let set = self.set;
        for pod in changes.delete.iter().take(BURST_MAX) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let done = announce::normal(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
            let refused = announce::warning(set, "FailedDelete", "Error deleting: ".to_owned());
            let announcement = Announcement { done: Some(done), refused: Some(refused) };
            plan.request_announced(ownership::delete(*pod), announcement);
        }
        if changes.create.is_empty() {
            return;
        }
        let model = self.model();
        // They would be released at once and created again, without end.
        if !workload_selector(&self.spec.selector).matches(model.metadata.labels.as_ref()) {
            return;
        }
        let mut taken = BTreeSet::new();
        for (node, ended) in changes.create.iter().take(BURST_MAX) {
            let name = self.name_on(node, &mut taken);
            let done = announce::normal(set, "SuccessfulCreate", format!("Created pod: {name}"));
            let refused = announce::warning(set, "FailedCreate", "Error creating: ".to_owned());
            let mut pod = model.clone();
            pod.metadata.name = Some(name);
            nodes::tie(pod.spec.get_or_insert_default(), node);
            if *ended > 0 {
                let annotations = pod.metadata.annotations.get_or_insert_default();
                annotations.insert(ENDED_BEFORE.to_owned(), ended.to_string());
            }
            plan.request_announced(
                Request::Create(pod.into_object()),
                Announcement { done: Some(done), refused: Some(refused) },
            );
        }
    }

    /// What all pods of today's template have in common.
    fn model(&self) -> Pod {
        let mut template: PodTemplateSpec = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        if let Some(generation) = self.generation {
            labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
        }
        labels.insert(HASH.to_owned(), self.history.hash().to_owned());
        nodes::tolerate(template.spec.get_or_insert_default());
        pod_of_template(self.set, &template)
    }

    /// A name for a new pod. It depends on what is known alone, so that a write which arrives late
    /// meets its own repetition instead of doubling a pod; a loss moves it on.
    fn name_on(&self, node: &str, taken: &mut BTreeSet<String>) -> String {
        let meta = &self.set.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let prefix = name_prefix(meta.name.as_deref().unwrap_or_default());
        let epoch = self.cache.tombstone(uid);
        let mut i = 0_u64;
        loop {
            let seed = format!("{uid}/{epoch}/{node}/{i}");
            let name = format!("{prefix}{}", letters(fnv64(seed.as_bytes()), 5));
            let known = self.cache.object(&Key::new(Kind::Pod, namespace, &name)).is_some();
            if !known && taken.insert(name.clone()) {
                return name;
            }
            i += 1;
        }
    }
}

/// Whether the pod is not being deleted.
fn is_kept(pod: &Pod) -> bool {
    !meta::is_terminating(&pod.metadata)
}

/// A pod that has ended.
struct Failed {
    /// When it may be replaced.
    due: Time,
    /// How many ended in a row, this one included.
    in_a_row: u32,
}

impl Failed {
    fn of(pod: &Pod, now: Time) -> Self {
        let before: u32 = meta::annotation(&pod.metadata, ENDED_BEFORE)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let created = meta::created_at(&pod.metadata);
        // One that lived for long had no trouble with its node.
        if before == 0 || now.since(created) > 2 * BACKOFF.max {
            return Self { due: Time::ZERO, in_a_row: 1 };
        }
        Self { due: created + BACKOFF.delay(before), in_a_row: before.saturating_add(1) }
    }
}
