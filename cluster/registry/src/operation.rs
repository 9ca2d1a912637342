//! What the API server and the simulator hand to [`crate::admit()`], and what they get back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use api::{
    Key, Kind, Object, Patch, Propagation, Request, Revision, Shared, Status, Subresource, Time,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::PodSpec;

/// One write, as it arrives: already authenticated, authorized and decoded. Its kind may be a
/// version that is only spoken ([`Kind::stored_as`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Creates the object; a name is generated from `generateName` when there is none.
    Create {
        /// The object; its namespace is set ([`in_namespace`]).
        object: Object,
    },
    /// Replaces the object or its subresource.
    Update {
        /// The object that the path names; for `/scale` it tells the kind that is scaled.
        key: Key,
        /// The new state; a `Scale` for `/scale`.
        object: Object,
        /// The part that is replaced.
        subresource: Option<Subresource>,
    },
    /// Changes the object by a patch.
    Patch {
        /// The object to change.
        key: Key,
        /// The part that is changed.
        subresource: Option<Subresource>,
        /// The change.
        patch: Patch,
        /// Whether fields unknown to Kubernetes are refused (`fieldValidation=Strict`);
        /// otherwise they are dropped.
        strict: bool,
    },
    /// Deletes the object.
    Delete {
        /// The object to delete.
        key: Key,
        /// Preconditions and manner.
        options: DeleteOptions,
    },
    /// Assigns a pod to a node (`pods/binding`).
    Bind {
        /// The pod.
        pod: Key,
        /// Where it goes.
        binding: PodBinding,
    },
    /// Marks a pod that is about to be deleted because its eviction was granted
    /// (`pods/eviction`, see [`crate::evict`]).
    Disrupt {
        /// The pod.
        pod: Key,
        /// The preconditions of the deletion.
        options: DeleteOptions,
    },
}

/// Preconditions and manner of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Refuses with a conflict if the object has another UID.
    pub uid: Option<String>,
    /// Refuses with a conflict if the object has another revision.
    pub revision: Option<Revision>,
    /// Seconds the object has to end; the kind's default when absent.
    pub grace_seconds: Option<i64>,
    /// What happens to the objects it owns; the kind's default when absent.
    pub propagation: Option<Propagation>,
}

/// Where a pod goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodBinding {
    /// Refuses with a conflict if the pod has another UID; empty for none.
    pub uid: String,
    /// The kind of the target, `Node`; empty means the same.
    pub target_kind: String,
    /// The node's name.
    pub node: String,
    /// Labels to add to the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations to add to the pod.
    pub annotations: BTreeMap<String, String>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User name.
    pub name: String,
    /// UID, empty when the authenticator knows none.
    pub uid: String,
    /// Groups the user is in.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Other objects as they are committed, for admission and allocation.
pub trait View {
    /// The object, if it exists.
    fn get(&self, key: &Key) -> Option<Object>;
    /// All objects of the kind in the namespace; in all namespaces when it is empty.
    fn list(&self, kind: Kind, namespace: &str) -> Vec<Object>;
    /// What a new pod's spec became when a pod was last created from this very one, not only an
    /// equal one: it has its defaults, is admitted and valid, and need not be made again. A store
    /// that does not remember says `None`. One that does forgets everything when a priority class
    /// is written: the next pod may get another priority.
    fn made_of(&self, _spec: &Shared<PodSpec>) -> Option<Shared<PodSpec>> {
        None
    }
}

/// The only sources of time and randomness of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The time of the write.
    pub now: Time,
    /// Uniform bits: UIDs, generated names, cluster addresses and node ports come from here.
    pub entropy: [u8; 16],
}

/// What the operator configured for this API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where cluster addresses of services are taken from.
    pub service_cidr: IpNet,
    /// Where node ports are taken from.
    pub node_ports: RangeInclusive<u16>,
    /// Whether privileged containers may run.
    pub allow_privileged: bool,
}

impl Default for Options {
    /// kube-apiserver's defaults: `10.0.0.0/24`, `30000-32767`, no privileged containers.
    fn default() -> Self {
        let address = IpAddr::from([10, 0, 0, 0]);
        Self {
            service_cidr: IpNet::new(address, 24).expect("24 bits fit an IPv4 address"),
            node_ports: 30_000..=32_767,
            allow_privileged: false,
        }
    }
}

/// What the store must do, in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Mutation {
    /// Writes the object, if it is still at the revision `admit` was given (absent if none).
    Put {
        /// The state to store.
        object: Object,
        /// Unique keys that change hands with it.
        claims: Claims,
        /// Quotas of its namespace with what it uses, written with it, if each is still at the
        /// revision that it carries. When one is not, admit again with a view that has seen it.
        charges: Vec<Object>,
    },
    /// Removes the object, if it is still at the revision `admit` was given.
    Remove {
        /// Its last state.
        last: Object,
        /// Unique keys that are freed with it.
        claims: Claims,
    },
    /// Nothing to write: the object as it is.
    Unchanged(Object),
}

impl Mutation {
    /// Writes the object and nothing else.
    pub(crate) fn put(object: Object) -> Self {
        Self::Put { object, claims: Claims::default(), charges: Vec::new() }
    }

    /// The object that the caller is answered with.
    pub const fn object(&self) -> &Object {
        match self {
            Self::Put { object, .. } | Self::Remove { last: object, .. } => object,
            Self::Unchanged(object) => object,
        }
    }
}

/// Unique keys in the store (`clusterip/10.254.0.7`, `nodeport/tcp/30080`), taken and freed in
/// the transaction of the write. When a key turns out to be taken, admit again with other
/// entropy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Keys that must be free and become taken.
    pub take: Vec<String>,
    /// Keys that become free.
    pub free: Vec<String>,
}

impl Claims {
    /// Whether no key changes hands.
    pub const fn is_empty(&self) -> bool {
        self.take.is_empty() && self.free.is_empty()
    }
}

impl Operation {
    /// The object to read before [`crate::admit()`]; `None` when its name is still to be
    /// generated.
    pub fn key(&self) -> Option<Key> {
        let key = match self {
            Self::Create { object } => {
                let key = object.key();
                (!key.name.is_empty()).then_some(key)
            }
            Self::Update { key, .. } | Self::Patch { key, .. } | Self::Delete { key, .. } => {
                Some(key.clone())
            }
            Self::Bind { pod, .. } | Self::Disrupt { pod, .. } => Some(pod.clone()),
        };
        key.map(|key| Key { kind: key.kind.stored_as(), ..key })
    }

    /// The kind that is written, in the version that is stored.
    pub fn kind(&self) -> Kind {
        let kind = match self {
            Self::Create { object } => object.kind(),
            Self::Update { key, .. } | Self::Patch { key, .. } | Self::Delete { key, .. } => {
                key.kind
            }
            Self::Bind { pod, .. } | Self::Disrupt { pod, .. } => pod.kind,
        };
        kind.stored_as()
    }

    /// The operation a component's request stands for; `None` for reads and for signing, which
    /// is the shell's.
    pub fn of_request(request: &Request) -> Option<Self> {
        Some(match request {
            Request::Create(object) => Self::Create { object: object.clone() },
            Request::Update { object, subresource } => Self::Update {
                key: object.key(),
                object: object.clone(),
                subresource: *subresource,
            },
            Request::Patch { key, subresource, patch } => Self::Patch {
                key: key.clone(),
                subresource: *subresource,
                patch: patch.clone(),
                strict: false,
            },
            Request::Delete { key, uid, revision, grace_seconds, propagation } => Self::Delete {
                key: key.clone(),
                options: DeleteOptions {
                    uid: uid.clone(),
                    revision: *revision,
                    grace_seconds: *grace_seconds,
                    propagation: *propagation,
                },
            },
            Request::Bind { pod, uid, node } => Self::Bind {
                pod: pod.clone(),
                binding: PodBinding {
                    uid: uid.clone(),
                    node: node.clone(),
                    ..PodBinding::default()
                },
            },
            Request::Get(_)
            | Request::List { .. }
            | Request::ReadRevision(_)
            | Request::Sign(_)
            | Request::Extend { .. } => return None,
        })
    }
}

/// Places an object that came with a path into the path's namespace (empty for cluster-scoped
/// kinds).
///
/// # Errors
/// The object names another namespace.
pub fn in_namespace(object: &mut Object, namespace: &str) -> Result<(), Status> {
    let found = object.meta().namespace.as_deref().unwrap_or_default();
    if found == namespace {
        return Ok(());
    }
    if found.is_empty() {
        object.meta_mut().namespace = Some(namespace.to_owned());
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}
