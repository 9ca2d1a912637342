//! The semantics of the Kubernetes API: what a write does to what is stored, and what is
//! refused and why.
//!
//! The main function is [`admit()`]: it takes one [`Operation`] and the state it applies to, and
//! answers with the [`Mutation`] that the store must carry out. The API server and the simulator
//! call the same function. Nothing here has a clock, randomness, a store or a socket.

mod admission;
pub mod admit;
mod allocate;
pub mod authorize;
pub mod bootstrap_policy;
mod defaults;
mod deletion;
pub mod evict;
mod field;
pub mod memory;
mod meta;
mod names;
pub mod operation;
pub mod patch;
mod prepare;
pub mod priority_class;
pub mod protobuf;
pub mod scale;
pub mod schema;
mod strategy;
pub mod table;
mod validate;
pub mod versions;
pub mod window;

pub use admit::admit;
pub use operation::{
    Caller, Claims, DeleteOptions, Mutation, Operation, Options, PodBinding, Stamp, View,
};
