//! Registers the node, keeps its status and lease current, asks for its pod network.

use std::sync::Arc;
use std::time::Duration;

use api::Time;
use api::{ApiError, ApiObject, Key, Kind, Object, Patch, PatchKind, Reply, Request, Subresource};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::context::{ApiPurpose, Context, NO_NETWORK, RuntimePurpose};
use crate::local_volumes::LocalVolumes;
use crate::node_status;
use crate::runtime::RuntimeRequest;

/// How often the node is measured.
const CHECK: Duration = Duration::from_secs(10);
/// How often its status is written though nothing changed.
const REPORT: Duration = Duration::from_secs(300);
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// How long a failed call waits.
const RETRY: Duration = Duration::from_secs(1);
/// The lease tells the others that the node is dead after this many seconds.
const LEASE_SECONDS: i32 = 40;

/// The kubelet's care for its node.
#[derive(Clone, Default)]
pub(crate) struct NodeAgent {
    facts_at: Time,
    facts_busy: bool,
    node_at: Time,
    node_busy: bool,
    reported_at: Time,
    /// The node, as it was when it was last found to say what it should. What else that depends
    /// on takes it away ([`NodeAgent::report_now`]).
    found_right: Option<Arc<Node>>,
    /// Whether that says that the node is ready: asked at every step.
    ready: bool,
    lease: Option<Arc<Lease>>,
    lease_at: Time,
    lease_busy: bool,
    lease_missing: bool,
    network_busy: bool,
    network_for: Option<String>,
    /// Whether the network was found to fit the node as it is.
    network_right: bool,
    network_at: Time,
    started: bool,
    /// Whether the last measurement succeeded.
    measured: bool,
    /// Folders of volumes that shall go.
    pub(crate) volumes: LocalVolumes,
}

impl NodeAgent {
    /// Does what is due.
    pub(crate) fn act(&mut self, ctx: &mut Context, now: Time) {
        if !self.started {
            self.started = true;
            ctx.node_event(now, false, "Starting", "Starting kubelet.".to_owned());
        }
        if !self.facts_busy && now >= self.facts_at {
            self.facts_busy = true;
            self.facts_at = now + CHECK;
            ctx.runtime(RuntimePurpose::Facts, RuntimeRequest::ReadFacts);
        }
        self.volumes.act(ctx, now);
        self.network(ctx, now);
        self.register(ctx, now);
        self.renew(ctx, now);
    }

    /// When to act again: what waits for an answer or a list is not waited for by time.
    pub(crate) fn wake_at(&self, ctx: &Context) -> Option<Time> {
        let facts = (!self.facts_busy).then_some(self.facts_at);
        let registers = ctx.facts.is_some() && !self.node_busy && ctx.watched.node_synced();
        let node = registers.then_some(self.node_at);
        let lease = (!self.lease_busy).then_some(self.lease_at);
        [facts, node, lease, self.volumes.wake_at()].into_iter().flatten().min()
    }

    /// Whether the node is registered and says that it is ready, its lease is held, its network is
    /// there, and no call for any of them is under way or has failed.
    pub(crate) fn settled(&self, ctx: &Context) -> bool {
        let calls = self.facts_busy || self.node_busy || self.lease_busy || self.network_busy;
        let node = ctx.node();
        let same = |right: &Arc<Node>| node.is_some_and(|n| Arc::ptr_eq(n, right));
        !calls
            && self.measured
            && self.volumes.is_idle()
            && self.lease.is_some()
            && self.found_right.as_ref().is_some_and(same)
            && self.ready
            && (self.network_right || node.is_some_and(|n| self.network_fits(n)))
    }

    fn network_fits(&self, node: &Node) -> bool {
        self.network_for.as_deref() == node_status::pod_cidr(node)
    }

    /// Everything periodic was done up to `now` by someone else, who last wrote `lease`. Each
    /// duty keeps its phase.
    pub(crate) fn duties_done(&mut self, now: Time, lease: Option<Arc<Lease>>) {
        self.facts_at = next_after(self.facts_at, CHECK, now);
        self.node_at = next_after(self.node_at, CHECK, now);
        self.lease_at = next_after(self.lease_at, RENEW, now);
        if self.reported_at + REPORT <= now {
            let next = next_after(self.reported_at + REPORT, REPORT, now);
            self.reported_at = Time(next.0.saturating_sub(nanos(REPORT)));
        }
        if lease.is_some() {
            self.lease = lease;
        }
    }

    fn network(&mut self, ctx: &mut Context, now: Time) {
        let waits = self.network_busy || ctx.runtime.is_err() || now < self.network_at;
        if self.network_right || waits {
            return;
        }
        let Some(cidr) = ctx.node().and_then(|n| node_status::pod_cidr(n)) else { return };
        self.network_right = self.network_for.as_deref() == Some(cidr);
        if !self.network_right {
            let cidr = cidr.to_owned();
            self.network_busy = true;
            let purpose = RuntimePurpose::Network { pod_cidr: cidr.clone() };
            ctx.runtime(purpose, RuntimeRequest::EnsureNetwork { pod_cidr: cidr });
        }
    }

    /// The runtime was gone: its network may be too.
    pub(crate) fn forget_network(&mut self) {
        self.network_for = None;
        self.network_right = false;
    }

    pub(crate) fn network_answer(
        &mut self,
        ctx: &mut Context,
        now: Time,
        cidr: String,
        result: Result<(), String>,
    ) {
        self.network_busy = false;
        match result {
            Ok(()) => {
                self.network_for = Some(cidr);
                ctx.network = Ok(());
            }
            Err(why) => {
                self.network_at = now + 5 * RETRY;
                ctx.network = Err(format!("{NO_NETWORK}: {why}"));
            }
        }
        self.node_at = now;
        self.found_right = None;
    }

    /// Something changed that the node's status must say at once.
    pub(crate) fn report_now(&mut self, now: Time) {
        self.node_at = self.node_at.min(now);
        self.found_right = None;
        self.network_right = false;
    }

    /// The node was measured, or could not be; `changed` if it is not as it was.
    pub(crate) fn facts_answered(&mut self, now: Time, measured: bool, changed: bool) {
        self.facts_busy = false;
        self.measured = measured;
        self.node_at = self.node_at.min(now);
        if changed {
            self.found_right = None;
        }
    }

    fn register(&mut self, ctx: &mut Context, now: Time) {
        if self.node_busy || now < self.node_at || !ctx.watched.node_synced() {
            return;
        }
        if ctx.facts.is_none() {
            return;
        }
        self.node_at = now + CHECK;
        let due = now.since(self.reported_at) >= REPORT;
        if let (Some(right), Some(node), false) = (&self.found_right, ctx.node(), due)
            && Arc::ptr_eq(right, node)
        {
            return;
        }
        let Some(node) = ctx.node().cloned() else {
            self.create_node(ctx, now);
            return;
        };
        let Some(facts) = ctx.facts.as_deref() else { return };
        let key = Key::cluster(Kind::Node, &ctx.config.node_name);
        let have = node.metadata.labels.as_ref();
        let missing: serde_json::Map<String, Value> = node_status::labels(&ctx.config, facts)
            .into_iter()
            .filter(|(k, v)| have.and_then(|h| h.get(k)) != Some(v))
            .map(|(k, v)| (k, Value::String(v)))
            .collect();
        if !missing.is_empty() {
            self.node_busy = true;
            self.node_at = now;
            let patch = Patch {
                kind: PatchKind::Merge,
                body: json!({"metadata": {"labels": missing}}).into(),
            };
            ctx.api(ApiPurpose::Node, Request::Patch { key, subresource: None, patch });
            return;
        }
        let old = node.status.clone().unwrap_or_default();
        let status = node_status::generate(ctx, facts, &old, now);
        if node_status::same(&status, &old) && !due {
            self.ready = node_status::is_ready(&node);
            self.found_right = Some(node);
            return;
        }
        self.node_busy = true;
        self.reported_at = now;
        let body = status_changes(&node, &status).into();
        let patch = Patch { kind: PatchKind::Strategic, body };
        let subresource = Some(Subresource::Status);
        ctx.api(ApiPurpose::Node, Request::Patch { key, subresource, patch });
    }

    fn create_node(&mut self, ctx: &mut Context, now: Time) {
        let Some(facts) = ctx.facts.as_deref() else { return };
        self.node_busy = true;
        self.reported_at = now;
        let status = node_status::generate(ctx, facts, &NodeStatus::default(), now);
        let object = new_node(ctx, facts, status);
        ctx.api(ApiPurpose::Node, Request::Create(object));
    }

    pub(crate) fn node_answer(
        &mut self,
        ctx: &mut Context,
        now: Time,
        result: Result<Reply, ApiError>,
    ) {
        self.node_busy = false;
        // What is learned by an answer is no news when the watch tells it.
        self.network_right = false;
        match result {
            // The next comparison must see what was written, however late the watch is.
            Ok(Reply::Object(object)) => {
                ctx.learn(object);
            }
            Ok(Reply::Done(_) | Reply::Objects(_) | Reply::Text(_)) => {}
            // It was registered before and the watch has not said so yet.
            Err(error) if error.code() == Some(409) => self.node_at = now + RETRY,
            Err(_) => {
                self.reported_at = Time::ZERO;
                self.node_at = now + RETRY;
            }
        }
    }

    fn renew(&mut self, ctx: &mut Context, now: Time) {
        if self.lease_busy || now < self.lease_at {
            return;
        }
        self.lease_busy = true;
        self.lease_at = now + RENEW;
        let key = Key::new(Kind::Lease, "kube-node-lease", &ctx.config.node_name);
        let request = match &self.lease {
            None if !self.lease_missing => Request::Get(key),
            None => Request::Create(lease(ctx, None, now)),
            Some(old) => Request::Update { object: lease(ctx, Some(old), now), subresource: None },
        };
        ctx.api(ApiPurpose::Lease, request);
    }

    pub(crate) fn lease_answer(&mut self, now: Time, result: Result<Reply, ApiError>) {
        self.lease_busy = false;
        match result {
            Ok(reply) => {
                let first = self.lease.is_none() && !self.lease_missing;
                if let Reply::Object(object) = reply {
                    self.lease = object.share::<Lease>();
                }
                self.lease_missing = false;
                if first {
                    // It was only read.
                    self.lease_at = now;
                }
            }
            Err(error) => {
                let found = !matches!(error.code(), Some(404));
                self.lease = None;
                self.lease_missing = !found;
                self.lease_at = if found { now + RETRY } else { now };
            }
        }
        // A missing namespace is reported as missing too: do not spin on it.
        if self.lease_missing && self.lease_at <= now {
            self.lease_at = now + RETRY / 10;
        }
    }
}

fn new_node(ctx: &Context, facts: &crate::runtime::NodeFacts, status: NodeStatus) -> Object {
    let taints: Vec<Taint> = ctx
        .config
        .register_taints
        .iter()
        .map(|(key, value, effect)| Taint {
            key: key.clone(),
            value: Some(value.clone()).filter(|v| !v.is_empty()),
            effect: effect.clone(),
            time_added: None,
        })
        .collect();
    let mut node = Node {
        spec: Some(NodeSpec {
            taints: Some(taints).filter(|t| !t.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status),
        ..Node::default()
    };
    node.metadata.name = Some(ctx.config.node_name.clone());
    node.metadata.labels = Some(node_status::labels(&ctx.config, facts));
    let attach = "volumes.kubernetes.io/controller-managed-attach-detach".to_owned();
    node.metadata.annotations = Some([(attach, "true".to_owned())].into());
    node.into_object()
}

/// The strategic patch that turns the status of a node into another. Conditions go by their type:
/// others write some of their own at any time.
fn status_changes(node: &Node, status: &NodeStatus) -> Value {
    let json = |status: &NodeStatus| serde_json::to_value(status).expect("a status is JSON");
    let (old, new) = (node.status.as_ref().map(json).unwrap_or_default(), json(status));
    let mut changes = api::patch::merge_diff(&old, &new);
    if let Some(changes) = changes.as_object_mut() {
        for name in ["addresses", "conditions"] {
            let list = |status: &Value| status[name].as_array().cloned().unwrap_or_default();
            if changes.remove(name).is_some() {
                let diff = api::patch::keyed_list_diff(name, "type", &list(&old), &list(&new));
                changes.extend(diff);
            }
        }
    }
    api::patch::status_body(node.metadata.uid.as_deref(), changes)
}

/// The first time after `now` that is whole periods after `at`.
pub(crate) fn next_after(at: Time, period: Duration, now: Time) -> Time {
    let period = nanos(period);
    if at > now {
        return at;
    }
    Time(at.0 + ((now.0 - at.0) / period + 1) * period)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn lease(ctx: &Context, old: Option<&Lease>, now: Time) -> Object {
    let name = &ctx.config.node_name;
    let mut lease = old.cloned().unwrap_or_default();
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some("kube-node-lease".to_owned());
    if let Some(uid) = ctx.node().and_then(|n| n.metadata.uid.clone()) {
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        }]);
    }
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(now.to_micro()),
        ..lease.spec.unwrap_or_default()
    });
    lease.into_object()
}
