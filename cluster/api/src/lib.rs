//! The vocabulary of the cluster: Kubernetes object types, their kinds and keys, revisions,
//! quantities, selectors, time, requests to the API and its `Status` errors.
//!
//! The main type is [`Object`], a closed enum over every built-in kind, shared by reference
//! count. All decoding and encoding of Kubernetes types is instantiated once, in [`codec`].
//! This crate decides nothing and performs no I/O.

pub mod codec;
pub mod cron;
pub mod disruption;
pub mod hash;
pub mod key;
pub mod kind;
pub mod legacy_token;
pub mod meta;
pub mod metrics;
pub mod names;
pub mod object;
pub mod patch;
pub mod pod;
pub mod quantity;
pub mod quota;
pub mod request;
pub mod selector;
pub mod shared;
pub mod sorted;
pub mod span;
pub mod status;
pub mod table;
pub mod time;
pub mod uid;
pub mod version;
pub mod volume;

pub use key::{Key, Name, Revision};
pub use kind::{Kind, Scope};
pub use object::{ApiObject, Object};
pub use patch::{Patch, PatchBody, PatchKind, PodStatusChange};
pub use pod::Pod;
pub use request::{ApiError, ExtenderVerb, Propagation, Reply, Request, Subresource};
pub use shared::{Memo, Shared};
pub use span::Span;
pub use status::{Cause, Reason, Status};
pub use table::{Ledger, Table};
pub use time::Time;
