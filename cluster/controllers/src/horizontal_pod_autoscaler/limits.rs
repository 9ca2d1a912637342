//! What keeps the number of pods from jumping: what was recommended before, how fast it may
//! change, and where it ends.

use std::time::Duration;

use api::Time;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use machine::Memory;

use super::change::{ADDED, REMOVED, within};
use super::{Pass, conditions};

/// What was recommended, oldest first.
const RECOMMENDED: &str = "recommended";
/// For so long no recommendation to have more pods is gone back on, unless the autoscaler says
/// otherwise.
const DOWN_WINDOW_SECONDS: i32 = 300;
/// Without policies the number at most doubles, but for the first few.
const UP_FACTOR: i64 = 2;
const UP_MIN: i64 = 4;

const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const IN_RANGE: (&str, &str) =
    ("DesiredWithinRange", "the desired count is within the acceptable range");

/// Who knows of no recommendation takes what there is for one.
pub(super) fn begin(memory: &mut Memory, replicas: i32, now: Time) {
    memory.notes.entry(RECOMMENDED).or_insert_with(|| vec![(now, i64::from(replicas))]);
}

fn secs(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The lowest and the highest recommendation, the present one among them, that are younger.
fn recent(memory: &Memory, wanted: i64, window: Duration, now: Time) -> (i64, i64) {
    let known = memory.notes.get(RECOMMENDED).map(Vec::as_slice).unwrap_or_default();
    let recent = known.iter().filter(|(at, _)| now.since(*at) < window).map(|(_, n)| *n);
    recent.fold((wanted, wanted), |(low, high), n| (low.min(n), high.max(n)))
}

fn remember(memory: &mut Memory, wanted: i64, window: Duration, now: Time) {
    let known = memory.notes.entry(RECOMMENDED).or_default();
    known.retain(|(at, _)| now.since(*at) < window);
    known.push((now, wanted));
}

impl Pass<'_> {
    /// Limits a recommendation where no behaviour is given.
    pub(super) fn limit_plainly(&mut self, wanted: i32, replicas: i32, memory: &mut Memory) -> i32 {
        let wanted = i64::from(wanted);
        // As in Kubernetes, one that is just as old counts here, and with a behaviour it does not.
        let window = secs(DOWN_WINDOW_SECONDS) + Duration::from_nanos(1);
        let (_, stable) = recent(memory, wanted, window, self.now);
        remember(memory, wanted, window, self.now);
        let held = (stable != wanted).then_some((
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent \
             recommendation",
        ));
        self.stabilized(held);
        let (min, max) = (i64::from(self.min()), i64::from(self.spec.max_replicas));
        let fastest = (UP_FACTOR * i64::from(replicas)).max(UP_MIN);
        let limited = if stable < min {
            (min, TOO_FEW)
        } else if stable > max.min(fastest) {
            if max > fastest { (fastest, TOO_FAST_UP) } else { (max, TOO_MANY) }
        } else {
            (stable, IN_RANGE)
        };
        self.limited(stable, limited)
    }

    /// Limits a recommendation as the behaviour says.
    pub(super) fn limit_by(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        wanted: i32,
        replicas: i32,
        memory: &mut Memory,
    ) -> i32 {
        let (wanted, current) = (i64::from(wanted), i64::from(replicas));
        let window = |rules: Option<&HPAScalingRules>| rules?.stabilization_window_seconds;
        let up = secs(window(behavior.scale_up.as_ref()).unwrap_or(0));
        let down = secs(window(behavior.scale_down.as_ref()).unwrap_or(DOWN_WINDOW_SECONDS));
        let (lowest, _) = recent(memory, wanted, up, self.now);
        let (_, highest) = recent(memory, wanted, down, self.now);
        // Up to the lowest of the recommendations, down to the highest.
        let stable = current.max(lowest).min(highest);
        remember(memory, wanted, up.max(down), self.now);
        let held = if wanted >= current {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent \
                 recommendation",
            )
        } else {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest \
                 recent recommendation",
            )
        };
        self.stabilized((stable != wanted).then_some(held));
        let (min, max) = (i64::from(self.min()), i64::from(self.spec.max_replicas));
        let limited = if stable > current {
            let fastest = self.fastest(behavior.scale_up.as_ref(), true, current, memory);
            let fastest = fastest.max(current);
            match stable > max.min(fastest) {
                true if max > fastest => (fastest, TOO_FAST_UP),
                true => (max, TOO_MANY),
                false => (stable, IN_RANGE),
            }
        } else if stable < current {
            let fastest = self.fastest(behavior.scale_down.as_ref(), false, current, memory);
            let fastest = fastest.min(current);
            match stable < min.max(fastest) {
                true if min < fastest => (fastest, TOO_FAST_DOWN),
                true => (min, TOO_FEW),
                false => (stable, IN_RANGE),
            }
        } else {
            (stable, IN_RANGE)
        };
        self.limited(stable, limited)
    }

    /// How far the policies let the number go in that direction.
    fn fastest(
        &self,
        rules: Option<&HPAScalingRules>,
        up: bool,
        current: i64,
        memory: &Memory,
    ) -> i64 {
        let Some(rules) = rules else { return current };
        let choice = rules.select_policy.as_deref().unwrap_or("Max");
        if choice == "Disabled" {
            return current;
        }
        let steps = rules.policies.iter().flatten().map(|policy| {
            let period = policy.period_seconds;
            let start = current - within(memory, ADDED, period, self.now)
                + within(memory, REMOVED, period, self.now);
            let value = i64::from(policy.value);
            match (policy.type_.as_str(), up) {
                ("Percent", true) => div_ceil(start * (100 + value), 100),
                ("Percent", false) => (start * (100 - value).max(0)) / 100,
                (_, true) => start + value,
                (_, false) => start - value,
            }
        });
        // The policy that changes most, or least.
        let farthest = if (choice == "Min") == up { steps.min() } else { steps.max() };
        farthest.unwrap_or(current)
    }

    fn stabilized(&mut self, held: Option<(&str, &str)>) {
        let (reason, text) =
            held.unwrap_or(("ReadyForNewScale", "recommended size matches current size"));
        self.condition(conditions::ABLE, true, reason, text.to_owned());
    }

    fn limited(&mut self, stable: i64, limited: (i64, (&str, &str))) -> i32 {
        let (number, (reason, text)) = limited;
        self.condition(conditions::LIMITED, number != stable, reason, text.to_owned());
        i32::try_from(number).unwrap_or(i32::MAX).max(0)
    }
}

fn div_ceil(a: i64, b: i64) -> i64 {
    (a + b - 1).div_euclid(b)
}
