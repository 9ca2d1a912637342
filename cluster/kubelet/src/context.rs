//! What all pods of the node share: configuration, the API cache, calls under way, effects.

use std::sync::Arc;

use api::{Key, Kind, Name, Object, Pod, Request, Revision, Time, meta};
use k8s_openapi::api::core::v1::Node;
use machine::{ApiEffect, CallId, Record, Regarding, Report, WatchEvent};

use crate::KubeletConfig;
use crate::calls::Calls;
use crate::config_source::ConfigSource;
use crate::images::KnownImages;
use crate::pod_worker::PodWorker;
use crate::probe::ProbeKind;
use crate::runtime::{NodeEffect, NodeFacts, RuntimeRequest};
use crate::watched::{News, Watched};

/// What an API call was made for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ApiPurpose {
    /// Reads a configmap, a secret, a claim or its volume.
    Config(api::Key),
    /// Says that the folder of a volume is gone.
    LocalVolume { name: String },
    /// Writes a pod's status.
    Status { uid: Arc<str> },
    /// Forgets a pod that ended.
    DeletePod { uid: Arc<str> },
    /// Signs a token for a volume.
    Token { uid: Arc<str>, volume: String, path: String },
    /// Makes or removes a mirror pod.
    Mirror { name: (String, String) },
    /// Registers, reads or writes the node.
    Node,
    /// Reads or writes the node's lease.
    Lease,
}

/// What a runtime call was made for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RuntimePurpose {
    List {
        asked: Time,
    },
    Facts,
    Network {
        pod_cidr: String,
    },
    Sandbox {
        uid: Arc<str>,
    },
    StopSandbox {
        uid: Arc<str>,
    },
    InspectSandbox {
        uid: Arc<str>,
    },
    /// A step in the life of a container.
    Container {
        uid: Arc<str>,
        container: String,
    },
    InspectContainer {
        uid: Arc<str>,
        container: String,
    },
    Probe {
        uid: Arc<str>,
        container: String,
        id: String,
        kind: ProbeKind,
    },
    Volumes {
        uid: Arc<str>,
    },
    /// Removes the folder of a provisioned volume.
    LocalVolume {
        name: String,
    },
    /// Ends or removes something that belongs to no pod.
    Orphan {
        id: String,
    },
    /// Nothing waits for it.
    Nothing,
}

/// What all pods of the node share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: KubeletConfig,
    pub(crate) watched: Watched,
    pub(crate) configs: ConfigSource,
    pub(crate) facts: Option<Box<NodeFacts>>,
    /// Whether the runtime answers; else why not.
    pub(crate) runtime: Result<(), String>,
    /// The images that the node has.
    pub(crate) images: KnownImages,
    /// Whether all containers of ours are known.
    pub(crate) listed: bool,
    /// Whether the pod network is there; else why not.
    pub(crate) network: Result<(), String>,
    /// The node's name, as events carry it.
    host: Name,
    pub(crate) api_calls: Calls<ApiPurpose>,
    pub(crate) runtime_calls: Calls<RuntimePurpose>,
    pub(crate) effects: Vec<NodeEffect>,
    next_call: u64,
}

/// Why the pod network is not ready before it was made.
pub(crate) const NO_NETWORK: &str = "container runtime network not ready: NetworkReady=false \
     reason:NetworkPluginNotReady message:docker: network plugin is not ready: \
     cni config uninitialized";

impl Context {
    pub(crate) fn new(config: KubeletConfig) -> Self {
        Self {
            host: Name::new(&config.node_name),
            watched: Watched::new(&config.node_name),
            config,
            configs: ConfigSource::default(),
            facts: None,
            runtime: Err("container runtime is down".to_owned()),
            images: KnownImages::default(),
            listed: false,
            network: Err(NO_NETWORK.to_owned()),
            api_calls: Calls::default(),
            runtime_calls: Calls::default(),
            effects: Vec::new(),
            next_call: 0,
        }
    }

    fn next_id(&mut self) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        id
    }

    pub(crate) fn api(&mut self, purpose: ApiPurpose, request: Request) {
        let id = self.next_id();
        self.api_calls.begin(id, purpose);
        self.effects.push(NodeEffect::Api(ApiEffect::Call { id, request }));
    }

    pub(crate) fn runtime(&mut self, purpose: RuntimePurpose, request: RuntimeRequest) {
        let id = self.next_id();
        self.runtime_calls.begin(id, purpose);
        self.effects.push(NodeEffect::Runtime { id, request });
    }

    fn record(&mut self, time: Time, record: Record) {
        let (component, host) = (Name::new_static("kubelet"), self.host.clone());
        let report = Report { time, component, host, record };
        self.effects.push(NodeEffect::Api(ApiEffect::Record(Box::new(report))));
    }

    /// Tells people about a pod, or about one of its containers.
    pub(crate) fn event(
        &mut self,
        now: Time,
        pod: &Pod,
        about: About<'_>,
        reason: &str,
        message: impl Into<String>,
    ) {
        let regarding = self.regarding(pod, about);
        let warning = about.warning;
        let reason = reason.into();
        self.record(now, Record { regarding, warning, reason, message: message.into() });
    }

    fn regarding(&self, pod: &Pod, about: About<'_>) -> Regarding {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        // Static pods are known to the API by their mirror.
        let seen = &self.watched.pods.get(namespace, name).map_or(pod, |p| p).metadata;
        let part = about.container.map(|c| -> Name {
            let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
            let list =
                if init.into_iter().any(|i| i.name == c) { "initContainers" } else { "containers" };
            ["spec.", list, "{", c, "}"].into_iter().collect()
        });
        let key = Key::new(Kind::Pod, namespace, name);
        Regarding {
            revision: seen.resource_version.as_deref().and_then(Revision::parse),
            part: part.unwrap_or_default(),
            ..Regarding::object(&key, seen.uid.as_deref().unwrap_or_default())
        }
    }

    /// Tells people about the node.
    pub(crate) fn node_event(&mut self, now: Time, warning: bool, reason: &str, message: String) {
        // As in Kubernetes, the node is named by its kind and name alone.
        let regarding = Regarding {
            kind: Name::new_static("Node"),
            name: self.host.clone(),
            uid: self.host.clone(),
            ..Regarding::default()
        };
        self.record(now, Record { regarding, warning, reason: reason.into(), message });
    }

    /// The API's pod of that worker; of a static pod its mirror.
    pub(crate) fn api_pod<'a>(&'a self, worker: &'a PodWorker) -> Option<&'a Arc<Pod>> {
        let (pod, uid) = (&worker.pod, &*worker.uid);
        if !worker.is_static {
            return worker.known.then_some(pod);
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.watched.pods.get(namespace, name).filter(|p| {
            p.metadata.uid.as_deref() == Some(uid)
                || meta::annotation(&p.metadata, crate::mirror::MIRROR) == Some(uid)
        })
    }

    /// The API's node.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.watched.node()
    }

    /// Keeps what an answer carried.
    pub(crate) fn learn(&mut self, object: Object) -> News {
        self.watched.apply(&WatchEvent::Changed(object))
    }
}

/// What an event is about.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) container: Option<&'a str>,
    pub(crate) warning: bool,
}

/// A normal event about the pod.
pub(crate) const POD: About<'static> = About { container: None, warning: false };
/// A warning about the pod.
pub(crate) const POD_WARNING: About<'static> = About { container: None, warning: true };

/// A normal event about a container.
pub(crate) const fn normal(container: &str) -> About<'_> {
    About { container: Some(container), warning: false }
}

/// A warning about a container.
pub(crate) const fn warning(container: &str) -> About<'_> {
    About { container: Some(container), warning: true }
}
