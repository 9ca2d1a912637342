//! One watch a kind for all hollow nodes: what it tells goes to the nodes that it concerns.

use api::{Key, Kind, Name, Object, Revision, Table};
use client::{Client, WatchSpec};
use k8s_openapi::api::core::v1::Node;
use kubelet::NodeInput;
use machine::{ApiInput, WatchEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Events waiting to be handed on; the watches pause when it is full.
const EVENTS_MAX: usize = 1_024;

/// Hands on what the watches tell until it is dropped.
pub(super) async fn deliver(client: Client, mut router: Router) {
    let specs = [
        // Pods that are bound, as all kubelets together ask for them.
        WatchSpec::fields(Kind::Pod, "spec.nodeName!="),
        WatchSpec::all(Kind::Node),
        WatchSpec::all(Kind::Service),
    ];
    let (sink, mut events) = mpsc::channel::<WatchEvent>(EVENTS_MAX);
    let mut watches = JoinSet::new();
    for spec in specs {
        watches.spawn(client::watch(client.clone(), spec, sink.clone()));
    }
    drop(sink);
    let mut out = Vec::new();
    while let Some(event) = events.recv().await {
        router.route(event, &mut out);
        for (node, event) in out.drain(..) {
            let input = NodeInput::Api(ApiInput::Watch(event));
            // A node that is gone needs no news.
            let _ = router.nodes[node as usize].inputs.send(input).await;
        }
    }
}

/// A node as the router knows it.
struct Addressee {
    inputs: mpsc::Sender<NodeInput>,
    ready: bool,
}

/// Knows which node is concerned by what.
#[derive(Default)]
pub(super) struct Router {
    nodes: Vec<Addressee>,
    by_name: Table<Name, u32>,
    /// The node of each pod of ours: a deletion does not tell it.
    pods: Table<Key, u32>,
    ready: usize,
    /// Whether it was told that all are ready.
    told: bool,
}

impl Router {
    /// Adds a node; what concerns it goes to `inputs`.
    pub(super) fn add(&mut self, name: Name, inputs: mpsc::Sender<NodeInput>) {
        let number = u32::try_from(self.nodes.len()).expect("there are at most NODES_MAX");
        self.by_name.insert(name, number);
        self.nodes.push(Addressee { inputs, ready: false });
    }

    /// Appends what each node is to be told: what its own watch would have told it.
    fn route(&mut self, event: WatchEvent, out: &mut Vec<(u32, WatchEvent)>) {
        match event {
            WatchEvent::Changed(object) => self.changed(object, out),
            WatchEvent::Deleted { key, revision } => self.deleted(key, revision, out),
            WatchEvent::Replaced { kind, objects, revision } => {
                self.replaced(kind, objects, revision, out);
            }
            // Kubelets have no use for them.
            WatchEvent::Renewing { .. } | WatchEvent::Progress { .. } => {}
        }
        if self.ready == self.nodes.len() && !std::mem::replace(&mut self.told, true) {
            tracing::info!(nodes = self.ready, "all hollow nodes are ready");
        }
    }

    /// The node that an object other than a service concerns.
    fn node_of(&self, object: &Object) -> Option<u32> {
        match object {
            Object::Pod(pod) => self.by_name.get(pod.node()).copied(),
            Object::Node(node) => {
                self.by_name.get(node.metadata.name.as_deref().unwrap_or_default()).copied()
            }
            _ => None,
        }
    }

    fn changed(&mut self, object: Object, out: &mut Vec<(u32, WatchEvent)>) {
        if let Object::Service(_) = object {
            self.to_all(&WatchEvent::Changed(object), out);
            return;
        }
        let Some(node) = self.node_of(&object) else { return };
        self.note(&object, node);
        out.push((node, WatchEvent::Changed(object)));
    }

    /// Remembers what later news will not say.
    fn note(&mut self, object: &Object, node: u32) {
        match object {
            Object::Pod(_) => {
                self.pods.insert(object.key(), node);
            }
            Object::Node(found) => self.set_ready(node, is_ready(found)),
            _ => {}
        }
    }

    fn set_ready(&mut self, node: u32, ready: bool) {
        let before = std::mem::replace(&mut self.nodes[node as usize].ready, ready);
        self.ready = self.ready + usize::from(ready) - usize::from(before);
    }

    fn deleted(&mut self, key: Key, revision: Revision, out: &mut Vec<(u32, WatchEvent)>) {
        let node = match key.kind {
            Kind::Pod => self.pods.remove(&key),
            Kind::Node => self.by_name.get(&*key.name).copied(),
            Kind::Service => {
                self.to_all(&WatchEvent::Deleted { key, revision }, out);
                return;
            }
            _ => None,
        };
        let Some(node) = node else { return };
        if key.kind == Kind::Node {
            self.set_ready(node, false);
        }
        out.push((node, WatchEvent::Deleted { key, revision }));
    }

    fn replaced(
        &mut self,
        kind: Kind,
        objects: Vec<Object>,
        revision: Revision,
        out: &mut Vec<(u32, WatchEvent)>,
    ) {
        if kind == Kind::Service {
            self.to_all(&WatchEvent::Replaced { kind, objects, revision }, out);
            return;
        }
        if kind == Kind::Pod {
            self.pods = Table::default();
        }
        if kind == Kind::Node {
            (0..self.nodes.len()).for_each(|n| self.nodes[n].ready = false);
            self.ready = 0;
        }
        let mut shares: Vec<Vec<Object>> = self.nodes.iter().map(|_| Vec::new()).collect();
        for object in objects {
            if let Some(node) = self.node_of(&object) {
                self.note(&object, node);
                shares[node as usize].push(object);
            }
        }
        let shares = (0..).zip(shares);
        out.extend(
            shares.map(|(n, objects)| (n, WatchEvent::Replaced { kind, objects, revision })),
        );
    }

    fn to_all(&self, event: &WatchEvent, out: &mut Vec<(u32, WatchEvent)>) {
        out.extend((0..).zip(&self.nodes).map(|(n, _)| (n, event.clone())));
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use api::codec;
    use serde_json::json;

    use super::*;

    fn router() -> Router {
        let mut router = Router::default();
        for name in ["h-0", "h-1"] {
            router.add(Name::new(name), mpsc::channel(1).0);
        }
        router
    }

    fn pod(name: &str, node: &str) -> Object {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node},
            "metadata": {"name": name, "namespace": "d", "resourceVersion": "5"}});
        codec::decode_any(pod.to_string().as_bytes()).unwrap()
    }

    fn node(name: &str, ready: &str) -> Object {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        codec::decode_any(node.to_string().as_bytes()).unwrap()
    }

    /// Node and event of each, in a few words.
    fn routed(router: &mut Router, event: WatchEvent) -> Vec<String> {
        let mut out = Vec::new();
        router.route(event, &mut out);
        let names = |objects: &[Object]| -> Vec<String> {
            objects.iter().map(|o| o.key().name.to_string()).collect()
        };
        let text = |(node, event): &(u32, WatchEvent)| match event {
            WatchEvent::Changed(object) => format!("{node} changed {}", object.key().name),
            WatchEvent::Deleted { key, .. } => format!("{node} deleted {}", key.name),
            WatchEvent::Replaced { objects, .. } => format!("{node} has {:?}", names(objects)),
            other => format!("{node} {other:?}"),
        };
        out.iter().map(text).collect()
    }

    #[test]
    fn pods_go_to_their_node_and_to_no_other() {
        let mut router = router();
        let changed = WatchEvent::Changed;
        assert_eq!(routed(&mut router, changed(pod("a", "h-1"))), ["1 changed a"]);
        assert!(routed(&mut router, changed(pod("b", "real"))).is_empty());
        assert!(routed(&mut router, changed(pod("c", ""))).is_empty());
        let deleted = |name: &str| WatchEvent::Deleted {
            key: Key::new(Kind::Pod, "d", name),
            revision: Revision(9),
        };
        assert_eq!(routed(&mut router, deleted("a")), ["1 deleted a"]);
        assert!(routed(&mut router, deleted("a")).is_empty(), "it is gone already");
        assert!(routed(&mut router, deleted("b")).is_empty());
    }

    #[test]
    fn lists_are_shared_out_and_those_with_nothing_learn_that() {
        let mut router = router();
        let list = |objects: Vec<Object>| WatchEvent::Replaced {
            kind: Kind::Pod,
            objects,
            revision: Revision(5),
        };
        let told = routed(&mut router, list(vec![pod("a", "h-0"), pod("b", "x"), pod("c", "h-0")]));
        assert_eq!(told, [r#"0 has ["a", "c"]"#, "1 has []"]);
        assert_eq!(routed(&mut router, list(Vec::new())), ["0 has []", "1 has []"]);
        let key = Key::new(Kind::Pod, "d", "a");
        let deleted = WatchEvent::Deleted { key, revision: Revision(9) };
        assert!(routed(&mut router, deleted).is_empty(), "the list has told it");
    }

    #[test]
    fn services_go_to_all_and_nodes_to_themselves() {
        let mut router = router();
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "namespace": "d"}});
        let service = codec::decode_any(service.to_string().as_bytes()).unwrap();
        let told = routed(&mut router, WatchEvent::Changed(service));
        assert_eq!(told, ["0 changed s", "1 changed s"]);
        let told = routed(&mut router, WatchEvent::Changed(node("h-1", "True")));
        assert_eq!(told, ["1 changed h-1"]);
        assert!(routed(&mut router, WatchEvent::Changed(node("real", "True"))).is_empty());
        assert_eq!(router.ready, 1);
        let list = WatchEvent::Replaced {
            kind: Kind::Node,
            objects: vec![node("h-0", "True"), node("h-1", "False"), node("real", "True")],
            revision: Revision(5),
        };
        assert_eq!(routed(&mut router, list), [r#"0 has ["h-0"]"#, r#"1 has ["h-1"]"#]);
        assert_eq!((router.ready, router.told), (1, false));
        routed(&mut router, WatchEvent::Changed(node("h-1", "True")));
        assert_eq!((router.ready, router.told), (2, true));
    }
}
