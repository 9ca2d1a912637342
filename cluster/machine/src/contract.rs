//! What a component is, and what it and its shell say to each other.

use api::{ApiError, Key, Kind, Object, Reply, Request, Revision, Time};
use serde::{Deserialize, Serialize};

use crate::Report;

/// A deterministic component.
///
/// The same inputs at the same times give the same effects, on every machine and in every run.
pub trait Machine {
    /// What the component is told: a closed, serializable enum.
    type Input;
    /// What the shell must do: a closed, serializable enum. Every call is answered by one reply.
    type Effect;

    /// Feeds one input at `now` (which never goes back) and appends the effects in order.
    fn step(&mut self, now: Time, input: Self::Input, out: &mut Vec<Self::Effect>);

    /// Earliest time at which a `Wake` is due; `None` when only an input can change anything.
    /// Early wakes are harmless.
    fn wake_at(&self) -> Option<Time>;
}

/// Names a call until its reply; unique within one component's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// Hands out call identifiers.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    next: u64,
}

impl Calls {
    /// Emits the call and returns its identifier.
    pub fn call(&mut self, request: Request, out: &mut Vec<ApiEffect>) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        out.push(ApiEffect::Call { id, request });
        id
    }
}

/// What a watch of one kind delivers, in the order of revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WatchEvent {
    /// The object was created or changed; its `resourceVersion` is the revision.
    Changed(Object),
    /// The object is gone, or stopped matching the watch's selector.
    Deleted {
        /// The object's key.
        key: Key,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// A complete list: what the cache holds of this kind beyond it is gone.
    Replaced {
        /// The kind that was listed.
        kind: Kind,
        /// All objects, in any order.
        objects: Vec<Object>,
        /// The revision of the list.
        revision: Revision,
    },
    /// From now on the object is renewed on schedule, and the single renewals are not told: an
    /// API server may coalesce the renewals of a lease this way, which are most of its writes.
    /// The next `Changed`, `Deleted` or `Replaced` of the object ends that.
    Renewing {
        /// The object's key.
        key: Key,
        /// How far the watch has come.
        revision: Revision,
    },
    /// Nothing of this kind changed up to the revision (a bookmark).
    Progress {
        /// The watched kind.
        kind: Kind,
        /// How far the watch has come.
        revision: Revision,
    },
}

impl WatchEvent {
    /// The kind that this is news of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Changed(object) => object.kind(),
            Self::Deleted { key, .. } | Self::Renewing { key, .. } => key.kind,
            Self::Replaced { kind, .. } | Self::Progress { kind, .. } => *kind,
        }
    }
}

/// Input of a component that speaks to the API alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ApiInput {
    /// News from a watch.
    Watch(WatchEvent),
    /// The answer to a call.
    Reply {
        /// The call.
        id: CallId,
        /// Its outcome.
        result: Result<Reply, ApiError>,
    },
    /// The time that `wake_at` named has come.
    Wake,
}

/// Effect of a component that speaks to the API alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ApiEffect {
    /// Carry out the request and answer with one `Reply`.
    Call {
        /// Names the answer.
        id: CallId,
        /// The request.
        request: Request,
    },
    /// Tell people, by an event that a [`crate::Recorder`] writes, once, without an answer: losing
    /// one is no fault.
    Record(Box<Report>),
}
