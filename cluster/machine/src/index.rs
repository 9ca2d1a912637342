//! [`Index`]: what a reconciler would otherwise have to search the cache for.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use api::{Key, Kind, Object};

/// An arrangement of cached objects by something other than their names.
///
/// The cache tells an index of every change, so that what it holds is at any time a function of
/// the objects in the cache and of nothing else. A reconciler names its indexes
/// ([`crate::Reconciler::indexes`]) and finds them in the cache ([`crate::Cache::index`]) by
/// their type.
pub trait Index: Any + Debug + Send + CloneIndex {
    /// The kinds whose objects it arranges.
    fn kinds(&self) -> &'static [Kind];

    /// An object appeared (`old` is `None`), changed, or disappeared (`new` is `None`).
    ///
    /// Indexes that must remember the key share it: it is the cache's own.
    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>);
}

/// Copies an index behind a pointer, so that caches can be copied. Every index that is `Clone`
/// has it.
pub trait CloneIndex {
    /// A copy of its own.
    fn boxed_clone(&self) -> Box<dyn Index>;
}

impl<T: Index + Clone> CloneIndex for T {
    fn boxed_clone(&self) -> Box<dyn Index> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Index> {
    fn clone(&self) -> Self {
        // Not that of the box, which would never end.
        (**self).boxed_clone()
    }
}
