//! [`OfProcess`]: something of each process.

use crate::world::ProcessId;

/// What is remembered of processes, found by their numbers: there are few, and every delivery
/// concerns one.
#[derive(Clone, Debug, Default)]
pub(super) struct OfProcess<T>(Vec<T>);

impl<T: Default> OfProcess<T> {
    /// What is remembered of a process; nothing, as `T` says it, at first.
    pub(super) fn of(&mut self, process: ProcessId) -> &mut T {
        let index = process.index();
        if index >= self.0.len() {
            self.0.resize_with(index + 1, T::default);
        }
        &mut self.0[index]
    }

    /// What is remembered of a process is no longer true.
    pub(super) fn forget(&mut self, process: ProcessId) {
        if let Some(of) = self.0.get_mut(process.index()) {
            *of = T::default();
        }
    }

    /// What is remembered of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ProcessId, &T)> {
        self.0.iter().enumerate().map(|(index, of)| (ProcessId::at(index), of))
    }
}
