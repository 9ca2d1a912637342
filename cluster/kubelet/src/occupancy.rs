//! [`Occupancy`]: what the pods of the node take of it, as running sums.

use crate::pod_worker::PodWorker;
use crate::resources::LIMITED;

/// Amounts in the order of [`LIMITED`].
pub(crate) type Sums = [i64; LIMITED.len()];

/// What all pods take that are to run here or run, so that judging a new pod does not take a look
/// at every other one.
#[derive(Clone, Default)]
pub(crate) struct Occupancy {
    /// Wide enough never to saturate: sums must come back to where they were.
    sums: [i128; LIMITED.len()],
}

impl Occupancy {
    /// Counts a pod as it is now; to be called whenever it may have begun or ceased to be active.
    pub(crate) fn count(&mut self, worker: &mut PodWorker) {
        self.set(worker, worker.is_active());
    }

    /// Counts a pod out: it is gone, or is about to take something else.
    pub(crate) fn forget(&mut self, worker: &mut PodWorker) {
        self.set(worker, false);
    }

    fn set(&mut self, worker: &mut PodWorker, counts: bool) {
        if std::mem::replace(&mut worker.counted, counts) == counts {
            return;
        }
        let sign = if counts { 1 } else { -1 };
        for (sum, amount) in self.sums.iter_mut().zip(worker.takes.amounts) {
            *sum += sign * i128::from(amount);
        }
    }

    /// What is taken.
    pub(crate) fn sums(&self) -> Sums {
        self.sums.map(|sum| i64::try_from(sum).unwrap_or(if sum < 0 { 0 } else { i64::MAX }))
    }
}
