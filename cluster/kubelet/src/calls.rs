//! Calls that are not answered yet, and what each was made for.

use machine::CallId;

/// Calls under way, the oldest first: few at a time, and none on an idle node.
#[derive(Clone)]
pub(crate) struct Calls<P> {
    entries: Vec<(CallId, P)>,
}

impl<P> Default for Calls<P> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<P> Calls<P> {
    /// Adds a call; identifiers grow.
    pub(crate) fn begin(&mut self, id: CallId, purpose: P) {
        self.entries.push((id, purpose));
    }

    /// Takes the call that was answered.
    pub(crate) fn end(&mut self, id: CallId) -> Option<P> {
        let at = self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, purpose) = self.entries.remove(at);
        if self.entries.is_empty() {
            // There may be a hundred thousand idle kubelets: none keeps room for later.
            self.entries = Vec::new();
        }
        Some(purpose)
    }
}
