//! Calls that are not answered yet, and what each was made for.

use machine::CallId;

/// Calls under way: mostly one at a time, and none on an idle node.
#[derive(Clone)]
pub(crate) struct Calls<P> {
    /// One of them, in place.
    one: Option<(CallId, P)>,
    /// The others, the oldest first.
    others: Vec<(CallId, P)>,
}

impl<P> Default for Calls<P> {
    fn default() -> Self {
        Self { one: None, others: Vec::new() }
    }
}

impl<P> Calls<P> {
    /// Adds a call; identifiers grow.
    pub(crate) fn begin(&mut self, id: CallId, purpose: P) {
        if self.one.is_none() {
            self.one = Some((id, purpose));
        } else {
            self.others.push((id, purpose));
        }
    }

    /// Takes the call that was answered.
    pub(crate) fn end(&mut self, id: CallId) -> Option<P> {
        if let Some((_, purpose)) = self.one.take_if(|(one, _)| *one == id) {
            return Some(purpose);
        }
        let at = self.others.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, purpose) = self.others.remove(at);
        if self.others.is_empty() {
            // There may be a hundred thousand idle kubelets: none keeps room for later.
            self.others = Vec::new();
        }
        Some(purpose)
    }
}
