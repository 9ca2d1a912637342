//! What a component asks of the API, as data: production sends it over HTTP, the simulator
//! answers it from memory.

use serde::{Deserialize, Serialize};

use crate::{Key, Kind, Name, Object, Patch, Revision, Status};

/// The part of an object a write addresses, other than the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subresource {
    /// `/status`: only the status may change.
    Status,
    /// `/scale`: only the replica count may change.
    Scale,
    /// `/approval` of certificate signing requests.
    Approval,
    /// `/finalize` of namespaces.
    Finalize,
}

impl Subresource {
    /// The last segment of the path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Approval => "approval",
            Self::Finalize => "finalize",
        }
    }
}

/// What an extender of a scheduler is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExtenderVerb {
    /// Which of some nodes can take a pod.
    Filter,
    /// How good they are.
    Prioritize,
    /// Whether the pods that would be displaced for another may go.
    Preempt,
    /// To bind a pod to a node.
    Bind,
}

/// What happens to the objects that a deleted object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// The owner goes at once, the garbage collector deletes what it owned.
    Background,
    /// The owner goes after all that blocks its deletion.
    Foreground,
    /// What it owned stays.
    Orphan,
}

/// One call of the API. Each is answered by exactly one [`Reply`] or [`ApiError`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Creates the object; with `generateName` and no name, the server names it.
    Create(Object),
    /// Replaces the object, or its subresource, if it still has the given `resourceVersion`.
    Update {
        /// The new state, with the `resourceVersion` it was derived from.
        object: Object,
        /// The part that is replaced.
        subresource: Option<Subresource>,
    },
    /// Applies a patch.
    Patch {
        /// The object to change.
        key: Key,
        /// The part that is changed.
        subresource: Option<Subresource>,
        /// The change.
        patch: Patch,
    },
    /// Deletes the object.
    Delete {
        /// The object to delete.
        key: Key,
        /// Refuses with a conflict if the object has another UID.
        uid: Option<String>,
        /// Refuses with a conflict if the object has another revision.
        revision: Option<Revision>,
        /// Seconds the object has to end; the kind's default when absent.
        grace_seconds: Option<i64>,
        /// What happens to the objects it owns; the kind's default when absent.
        propagation: Option<Propagation>,
    },
    /// Assigns a pod to a node (`pods/binding`).
    Bind {
        /// The pod.
        pod: Key,
        /// The pod's UID: a pod of the same name made later must not be bound.
        uid: String,
        /// The node's name.
        node: String,
    },
    /// Reads one object from the store, consistently.
    Get(Key),
    /// Lists objects that are measured, not watched. The answer is what it is at that moment.
    List {
        /// The kind of the objects.
        kind: Kind,
        /// Their namespace; all when it is empty.
        namespace: Name,
        /// The labels that they have, as a label selector.
        selector: String,
    },
    /// Reads the store's current revision by a consistent read of `kind`: every write of that
    /// kind that is committed has at most this revision.
    ReadRevision(Kind),
    /// Has signed what an object asks for, and stores it there: the certificate of an approved
    /// signing request, the token of a service account in its secret. Keys and randomness are the
    /// shell's.
    Sign(Key),
    /// Asks an extender of the scheduler; the shell knows where it is.
    Extend {
        /// The number of the extender, in the order of the configuration.
        extender: u32,
        /// What it is asked.
        verb: ExtenderVerb,
        /// About what: the JSON document that it gets.
        body: String,
    },
}

impl Request {
    /// The kind of the objects that this call may change; `None` for reads.
    pub fn writes(&self) -> Option<Kind> {
        match self {
            Self::Create(object) | Self::Update { object, .. } => Some(object.kind()),
            Self::Patch { key, .. } | Self::Delete { key, .. } | Self::Sign(key) => Some(key.kind),
            Self::Bind { .. } => Some(Kind::Pod),
            Self::Extend { verb: ExtenderVerb::Bind, .. } => Some(Kind::Pod),
            Self::Get(_) | Self::List { .. } | Self::ReadRevision(_) | Self::Extend { .. } => None,
        }
    }
}

/// The answer to a successful [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The object as stored after the call (for a delete: its last state).
    Object(Object),
    /// The objects of a list.
    Objects(Vec<Object>),
    /// The call was carried out; the store is at this revision or later.
    Done(Revision),
    /// What an extender answered: a JSON document.
    Text(String),
}

impl Reply {
    /// The revision a cache must reach to have seen the call's effect.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Object(object) => object.revision(),
            Self::Objects(_) | Self::Text(_) => Revision::default(),
            Self::Done(revision) => *revision,
        }
    }
}

/// Why a call has no [`Reply`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum ApiError {
    /// The API refused: nothing was changed.
    #[error("{0}")]
    Status(Box<Status>),
    /// The call never reached the API: nothing was changed.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The answer was lost: the call may have been carried out, or may still be.
    #[error("the outcome of the call is unknown: {0}")]
    Unknown(String),
}

impl ApiError {
    /// The HTTP status code of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.code),
            Self::Unreachable(_) | Self::Unknown(_) => None,
        }
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}
