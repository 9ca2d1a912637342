//! Which pods a replica set gives up when it has too many, as documented, between pods that have
//! come equally far.
//!
//! Source: kubernetes.io/docs/concepts/workloads/controllers/replicaset, "Scaling a ReplicaSet" and
//! "Pod deletion cost".

use std::cmp::Ordering;
use std::time::Duration;

use api::{Pod, Time, meta};

/// Says what the end of a pod costs.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Ages are compared by their powers of two: of two that differ by this factor the older one is the
/// older one by any reckoning.
const OLDER_BEYOND_DOUBT: u32 = 4;

/// What a pod is worth to its replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    cost: i32,
    /// Pods of the same owner on its node, itself included.
    company: usize,
    /// For how long it has been ready; `None` when nobody can tell.
    ready_for: Option<Duration>,
    restarts: i32,
}

impl Worth {
    /// The worth of a pod that has `company` pods of its owner on its node, itself included.
    pub fn of(pod: &Pod, company: usize, now: Time) -> Self {
        let cost = meta::annotation(&pod.metadata, COST).and_then(|text| text.parse().ok());
        let status = pod.status.as_deref();
        let mut conditions = status.into_iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.find(|c| c.type_ == "Ready" && c.status == "True");
        let since = ready.and_then(|c| c.last_transition_time.as_ref()).map(Time::from_meta);
        let containers = status.into_iter().flat_map(|s| s.container_statuses.iter().flatten());
        Self {
            cost: cost.unwrap_or(0),
            company,
            ready_for: since.map(|since| now.since(since)),
            restarts: containers.map(|c| c.restart_count).max().unwrap_or(0),
        }
    }

    /// The same for clocks that cannot be relied on.
    #[must_use]
    pub const fn of_any_age(mut self) -> Self {
        self.ready_for = None;
        self
    }

    /// Whether a pod of this worth must go before one of the other. Pods of which neither must may
    /// go in any order.
    pub fn goes_before(self, other: Self) -> bool {
        match self.cost.cmp(&other.cost).then(other.company.cmp(&self.company)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                let older = |(mine, others): (Duration, Duration)| {
                    others >= mine.saturating_mul(OLDER_BEYOND_DOUBT) && others > mine
                };
                self.restarts == other.restarts
                    && self.ready_for.zip(other.ready_for).is_some_and(older)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(cost: i32, company: usize, secs: u64) -> Worth {
        Worth { cost, company, ready_for: Some(Duration::from_secs(secs)), restarts: 0 }
    }

    #[track_caller]
    fn check(first: Worth, second: Worth, is_sure: bool) {
        assert_eq!(first.goes_before(second), is_sure);
        assert!(!second.goes_before(first));
    }

    #[test]
    fn the_cheap_the_crowded_and_the_young_go_first() {
        check(worth(-1, 1, 900), worth(0, 3, 1), true);
        check(worth(0, 3, 900), worth(0, 1, 1), true);
        check(worth(0, 1, 100), worth(0, 1, 400), true);
        check(worth(0, 1, 100), worth(0, 1, 399), false);
        check(worth(0, 1, 100), worth(0, 1, 100), false);
        check(worth(0, 1, 1).of_any_age(), worth(0, 1, 900), false);
        let restarted = Worth { restarts: 1, ..worth(0, 1, 100) };
        check(restarted, worth(0, 1, 400), false);
    }
}
