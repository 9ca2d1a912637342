//! Registers the node, keeps its status and lease current, asks for its pod network.

use std::time::Duration;

use api::{ApiError, ApiObject, Key, Kind, Object, Patch, PatchKind, Reply, Request, Subresource};
use api::{Time, codec};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::context::{ApiPurpose, Context, NO_NETWORK, RuntimePurpose};
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
#[derive(Default)]
pub(crate) struct NodeAgent {
    facts_at: Time,
    facts_busy: bool,
    node_at: Time,
    node_busy: bool,
    reported_at: Time,
    lease: Option<Lease>,
    lease_at: Time,
    lease_busy: bool,
    lease_missing: bool,
    network_busy: bool,
    network_for: Option<String>,
    network_at: Time,
    started: bool,
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
        self.network(ctx, now);
        self.register(ctx, now);
        self.renew(ctx, now);
    }

    /// When to act again.
    pub(crate) fn wake_at(&self, ctx: &Context) -> Time {
        let mut at = self.facts_at;
        if ctx.facts.is_some() && !self.node_busy {
            at = at.min(self.node_at);
        }
        if !self.lease_busy {
            at = at.min(self.lease_at);
        }
        at
    }

    fn network(&mut self, ctx: &mut Context, now: Time) {
        let node = ctx.cache.get::<Node>("", &ctx.config.node_name);
        let Some(cidr) = node.and_then(node_status::pod_cidr).map(str::to_owned) else { return };
        if self.network_busy || ctx.runtime.is_err() || now < self.network_at {
            return;
        }
        if self.network_for.as_ref() != Some(&cidr) {
            self.network_busy = true;
            let purpose = RuntimePurpose::Network { pod_cidr: cidr.clone() };
            ctx.runtime(purpose, RuntimeRequest::EnsureNetwork { pod_cidr: cidr });
        }
    }

    /// The runtime was gone: its network may be too.
    pub(crate) fn forget_network(&mut self) {
        self.network_for = None;
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
    }

    /// Something changed that the node's status must say at once.
    pub(crate) fn report_now(&mut self, now: Time) {
        self.node_at = self.node_at.min(now);
    }

    pub(crate) fn facts_answered(&mut self, now: Time) {
        self.facts_busy = false;
        self.report_now(now);
    }

    fn register(&mut self, ctx: &mut Context, now: Time) {
        if self.node_busy || now < self.node_at || !ctx.cache.synced([Kind::Node]) {
            return;
        }
        let Some(facts) = ctx.facts.clone() else { return };
        self.node_at = now + CHECK;
        let key = Key::cluster(Kind::Node, &ctx.config.node_name);
        let cached = ctx.cache.get::<Node>("", &key.name).cloned();
        let Some(node) = cached else {
            self.node_busy = true;
            self.reported_at = now;
            let status = node_status::generate(ctx, &facts, &NodeStatus::default(), now);
            let object = new_node(ctx, &facts, status);
            ctx.api(ApiPurpose::Node, Request::Create(object));
            return;
        };
        let wanted = node_status::labels(&ctx.config, &facts);
        let have = node.metadata.labels.clone().unwrap_or_default();
        let missing: serde_json::Map<String, Value> = wanted
            .into_iter()
            .filter(|(k, v)| have.get(k) != Some(v))
            .map(|(k, v)| (k, Value::String(v)))
            .collect();
        if !missing.is_empty() {
            self.node_busy = true;
            self.node_at = now;
            let patch =
                Patch { kind: PatchKind::Merge, body: json!({"metadata": {"labels": missing}}) };
            ctx.api(ApiPurpose::Node, Request::Patch { key, subresource: None, patch });
            return;
        }
        let old = node.status.clone().unwrap_or_default();
        let status = node_status::generate(ctx, &facts, &old, now);
        if node_status::same(&status, &old) && now.since(self.reported_at) < REPORT {
            return;
        }
        self.node_busy = true;
        self.reported_at = now;
        let patch = Patch { kind: PatchKind::Merge, body: status_patch(&node, status) };
        let subresource = Some(Subresource::Status);
        ctx.api(ApiPurpose::Node, Request::Patch { key, subresource, patch });
    }

    pub(crate) fn node_answer(
        &mut self,
        ctx: &mut Context,
        now: Time,
        result: Result<Reply, ApiError>,
    ) {
        self.node_busy = false;
        match result {
            // The next comparison must see what was written, however late the watch is.
            Ok(Reply::Object(object)) => ctx.learn(now, object),
            Ok(Reply::Done(_)) => {}
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
                    self.lease = object.get::<Lease>().cloned();
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

fn status_patch(node: &Node, status: NodeStatus) -> Value {
    let old = codec::to_value(&node.clone().into_object())["status"].take();
    let new = codec::to_value(&Node { status: Some(status), ..node.clone() }.into_object());
    let mut body = json!({"status": crate::pod_status::merge_diff(&old, &new["status"])});
    if let Some(uid) = &node.metadata.uid {
        body["metadata"] = json!({"uid": uid});
    }
    body
}

fn lease(ctx: &Context, old: Option<&Lease>, now: Time) -> Object {
    let name = &ctx.config.node_name;
    let mut lease = old.cloned().unwrap_or_default();
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some("kube-node-lease".to_owned());
    if let Some(uid) = ctx.cache.get::<Node>("", name).and_then(|n| n.metadata.uid.clone()) {
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
