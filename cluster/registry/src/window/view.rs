//! The window as admission and authorization see it.

use api::{Key, Kind, Object};

use super::{Filter, PageRequest, Window};
use crate::operation::View;

impl View for Window {
    fn get(&self, key: &Key) -> Option<Object> {
        Self::get(self, key)?.object().ok()
    }

    fn list(&self, kind: Kind, namespace: &str) -> Vec<Object> {
        let filter = Filter::namespace(namespace);
        let listing = Self::list(self, kind, &filter, &PageRequest::default());
        let entries = listing.map(|l| l.entries).unwrap_or_default();
        entries.iter().filter_map(|e| e.object().ok()).collect()
    }
}
