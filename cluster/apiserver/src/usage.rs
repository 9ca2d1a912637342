//! `metrics.k8s.io`: what nodes and pods use, measured when somebody asks.
//!
//! Kubelets count; the difference of two counts is what is used. As long as somebody asks now and
//! then, the last count is one of the two, and a node gets one request. While nobody does, kubelets
//! get none.
//!
//! Source: kubernetes 1.33 and its metrics server, `pkg/api/{node,pod}.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::metrics::{ContainerMetrics, NodeMetrics, PodMetrics};
use api::quantity::Quantity as Amount;
use api::{ApiObject, Key, Kind, Object, Pod, Reason, Status};
use futures::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use registry::table;
use registry::window::PageRequest;
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::negotiate::{self, Form};
use crate::query::Query;
use crate::read::fresh_enough;
use crate::route::{Resource, Verb};
use crate::server::{Server, now};
use crate::{kubelet, present};

mod counts;

use counts::{Counts, Rates};

/// What was measured is told again for so long.
const FRESH: Duration = Duration::from_secs(5);
/// An older count says nothing of the present.
const COUNT_AGE_MAX: Duration = Duration::from_secs(60);
/// Who has no count to compare with makes one, and waits for so long.
const COUNT_SPAN: Duration = Duration::from_secs(2);
/// A kubelet counts within that time, or is left out.
const KUBELET_MAX: Duration = Duration::from_secs(10);
/// Kubelets that count at the same time.
const PARALLEL: usize = 16;

/// Whether objects of the kind are measured.
pub(crate) const fn is_measured(kind: Kind) -> bool {
    matches!(kind, Kind::NodeMetrics | Kind::PodMetrics)
}

/// What nodes were last found to use, one entry for each that somebody asked about.
#[derive(Default)]
pub(crate) struct Usage {
    nodes: std::sync::Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Last>>>>,
}

/// The last measurement of a node. Who measures holds it; others wait, and are told the same.
#[derive(Default)]
struct Last {
    counts: Option<Counts>,
    told: Option<(Instant, Option<Arc<Rates>>)>,
}

impl Usage {
    /// The entry of a node. Those of nodes that are gone are forgotten.
    fn entry(&self, name: &str, all: &BTreeSet<String>) -> Arc<tokio::sync::Mutex<Last>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() > all.len() {
            nodes.retain(|node, _| all.contains(node));
        }
        Arc::clone(nodes.entry(name.to_owned()).or_default())
    }
}

/// Answers with what a node or a pod uses, or all that are selected.
pub(crate) async fn answer(
    server: &Arc<Server>,
    resource: &Resource,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let form = negotiate::form(headers, query)?;
    fresh_enough(server, None).await?;
    let subjects = subjects(server, resource, query)?;
    let nodes = subjects.nodes();
    let measured = measure(server, &nodes).await;
    let objects = subjects.objects(&measured);
    match (resource.verb, objects.as_slice()) {
        (Verb::Get, [object]) => one(form, resource.kind, object),
        (Verb::Get, _) => Err(not_measured(resource)),
        _ => Ok(list(form, resource.kind, &objects)),
    }
}

/// Nodes or pods of which somebody asks.
enum Subjects {
    Nodes(Vec<Object>),
    Pods(Vec<Object>),
}

fn subjects(server: &Server, resource: &Resource, query: &Query) -> Result<Subjects, Status> {
    let is_node = resource.kind == Kind::NodeMetrics;
    let kind = if is_node { Kind::Node } else { Kind::Pod };
    let state = server.hub.read();
    let objects = if resource.verb == Verb::Get {
        let key = Key::new(kind, &resource.namespace, &resource.name);
        let found = state.window.get(&key);
        let entry = found.ok_or_else(|| Status::not_found(kind, &full_name(resource)))?;
        vec![entry.object().map_err(Status::internal)?]
    } else {
        let filter = query.filter(kind, &resource.namespace)?;
        let listing = state.window.list(kind, &filter, &PageRequest::default());
        let listing =
            listing.map_err(|e| Status::expired(format!("history ends at {}", e.oldest)))?;
        let objects = listing.entries.iter().map(|entry| entry.object());
        objects.collect::<Result<_, _>>().map_err(Status::internal)?
    };
    Ok(if is_node { Subjects::Nodes(objects) } else { Subjects::Pods(objects) })
}

impl Subjects {
    /// The nodes that know.
    fn nodes(&self) -> BTreeSet<String> {
        match self {
            Self::Nodes(nodes) => nodes.iter().filter_map(|n| n.meta().name.clone()).collect(),
            Self::Pods(pods) => {
                let running = pods.iter().filter_map(Object::get::<Pod>).filter(|p| runs(p));
                running.map(|pod| pod.node().to_owned()).filter(|n| !n.is_empty()).collect()
            }
        }
    }

    /// What they use; nothing of those that were not measured.
    fn objects(&self, measured: &BTreeMap<String, Arc<Rates>>) -> Vec<Object> {
        match self {
            Self::Nodes(nodes) => nodes
                .iter()
                .filter_map(|node| {
                    let meta = node.meta();
                    let rates = measured.get(meta.name.as_deref()?)?;
                    Some(node_metrics(meta, rates))
                })
                .collect(),
            Self::Pods(pods) => pods
                .iter()
                .filter_map(Object::get::<Pod>)
                .filter_map(|pod| pod_metrics(pod, measured.get(pod.node())?))
                .collect(),
        }
    }
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
}

/// Asks the kubelets of these nodes, all at a time; those that do not answer are left out.
async fn measure(server: &Arc<Server>, names: &BTreeSet<String>) -> BTreeMap<String, Arc<Rates>> {
    let (all, nodes) = {
        let state = server.hub.read();
        let all = state.window.list(
            Kind::Node,
            &registry::window::Filter::default(),
            &PageRequest::default(),
        );
        let all: BTreeSet<String> = all
            .map(|listing| listing.entries.iter().map(|e| e.name().to_owned()).collect())
            .unwrap_or_default();
        let nodes: Vec<(String, Object)> = names
            .iter()
            .filter_map(|name| {
                let entry = state.window.get(&Key::cluster(Kind::Node, name))?;
                Some((name.clone(), entry.object().ok()?))
            })
            .collect();
        (all, nodes)
    };
    let measured = stream::iter(nodes).map(|(name, node)| {
        let last = server.usage.entry(&name, &all);
        async move {
            let rates = last.lock().await.rates(server, &node).await;
            Some((name, rates?))
        }
    });
    let measured: Vec<_> = measured.buffer_unordered(PARALLEL).collect().await;
    measured.into_iter().flatten().collect()
}

impl Last {
    /// What the node uses now; none when its kubelet does not answer.
    async fn rates(&mut self, server: &Server, node: &Object) -> Option<Arc<Rates>> {
        if let Some((at, told)) = &self.told
            && at.elapsed() < FRESH
        {
            return told.clone();
        }
        let rates = match self.count(server, node).await {
            Ok(rates) => Some(Arc::new(rates)),
            Err(error) => {
                let node = node.meta().name.as_deref().unwrap_or_default();
                tracing::warn!(node, %error, "a kubelet does not tell what is used");
                None
            }
        };
        self.told = Some((Instant::now(), rates.clone()));
        rates
    }

    async fn count(&mut self, server: &Server, node: &Object) -> Result<Rates, Status> {
        let node: &Node = node.get().ok_or_else(|| Status::internal("not a node"))?;
        let mut before = self.counts.take().filter(|c| c.taken.elapsed() < COUNT_AGE_MAX);
        if before.is_none() {
            before = Some(counts(server, node).await?);
            tokio::time::sleep(COUNT_SPAN).await;
        }
        let after = counts(server, node).await?;
        let rates = after.since(before.as_ref());
        self.counts = Some(after);
        Ok(rates)
    }
}

async fn counts(server: &Server, node: &Node) -> Result<Counts, Status> {
    let asked = kubelet::get(server, node, "/stats/summary");
    let body = tokio::time::timeout(KUBELET_MAX, asked)
        .await
        .map_err(|_| Status::new(Reason::Timeout, "the kubelet did not answer in time"))??;
    Counts::parse(&body, Instant::now(), now()).map_err(Status::internal)
}

/// Metadata as of something that is made now.
fn metadata(of: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        labels: of.labels.clone(),
        creation_timestamp: Some(now().to_meta()),
        ..ObjectMeta::default()
    }
}

fn usage_of(used: counts::Used) -> BTreeMap<String, Quantity> {
    let amount = |amount: Amount| Quantity(amount.to_string());
    let nano = i64::try_from(used.nano_cores).unwrap_or(i64::MAX);
    let bytes = i64::try_from(used.memory).unwrap_or(i64::MAX);
    BTreeMap::from([
        ("cpu".to_owned(), amount(Amount::from_nano(nano))),
        ("memory".to_owned(), amount(Amount::from_bytes(bytes))),
    ])
}

fn node_metrics(meta: &ObjectMeta, rates: &Rates) -> Object {
    let metrics = NodeMetrics {
        metadata: metadata(meta),
        timestamp: rates.at.to_meta(),
        window: rates.window(),
        usage: usage_of(rates.node),
    };
    metrics.into_object()
}

fn pod_metrics(pod: &Pod, rates: &Rates) -> Option<Object> {
    let meta = &pod.metadata;
    let containers = rates.pods.get(meta.uid.as_deref()?).filter(|_| runs(pod))?;
    let container = |(name, used): (&String, &counts::Used)| ContainerMetrics {
        name: name.clone(),
        usage: usage_of(*used),
    };
    let metrics = PodMetrics {
        metadata: metadata(meta),
        timestamp: rates.at.to_meta(),
        window: rates.window(),
        containers: containers.iter().map(container).collect(),
    };
    Some(metrics.into_object())
}

/// What the path names, with its namespace.
fn full_name(resource: &Resource) -> String {
    match resource.namespace.as_str() {
        "" => resource.name.clone(),
        namespace => format!("{namespace}/{}", resource.name),
    }
}

/// Nothing was measured of what the path names.
fn not_measured(resource: &Resource) -> Status {
    let (kind, name) = (resource.kind.name().to_lowercase(), full_name(resource));
    Status::new(Reason::NotFound, format!("{kind}.metrics.k8s.io \"{name}\" not found"))
}

fn one(form: Form, kind: Kind, object: &Object) -> Result<Answer, Status> {
    let json = api::codec::encode(object);
    present::object(form, StatusCode::OK, kind, json.into())
}

fn list(form: Form, kind: Kind, objects: &[Object]) -> Answer {
    let body = match form {
        Form::Table(include) => {
            table::table(kind, objects, now(), include, &table::ListMeta::default())
        }
        Form::Metadata | Form::Object => {
            let (list, version) = match form {
                Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1"),
                _ => (format!("{kind}List"), kind.api_version()),
            };
            let mut body =
                format!(r#"{{"kind":"{list}","apiVersion":"{version}","metadata":{{}},"items":["#)
                    .into_bytes();
            for (i, object) in objects.iter().enumerate() {
                let json = api::codec::encode(object);
                let shown = match form {
                    Form::Metadata => present::metadata_only(&json).map(|json| json.to_vec()),
                    _ => Ok(json),
                };
                body.extend_from_slice(if i > 0 { b"," } else { b"" });
                body.extend(shown.unwrap_or_default());
            }
            body.extend_from_slice(b"]}\n");
            body
        }
    };
    answer::json(StatusCode::OK, body)
}
