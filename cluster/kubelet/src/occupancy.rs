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
    /// Counts a pod as it is now; to be called whenever it may have begun or ceased to be active,
    /// or takes something else.
    pub(crate) fn count(&mut self, worker: &mut PodWorker) {
        let takes = worker.is_active().then_some(worker.takes.amounts);
        self.replace(&mut worker.counted, takes);
    }

    /// Counts a pod out.
    pub(crate) fn forget(&mut self, worker: &mut PodWorker) {
        self.replace(&mut worker.counted, None);
    }

    fn replace(&mut self, counted: &mut Option<Sums>, takes: Option<Sums>) {
        if *counted == takes {
            return;
        }
        for (sign, amounts) in [(-1, *counted), (1, takes)] {
            for (sum, amount) in self.sums.iter_mut().zip(amounts.into_iter().flatten()) {
                *sum += sign * i128::from(amount);
            }
        }
        *counted = takes;
    }

    /// What is taken.
    pub(crate) fn sums(&self) -> Sums {
        self.sums.map(|sum| i64::try_from(sum).unwrap_or(if sum < 0 { 0 } else { i64::MAX }))
    }
}
