//! How far a rollout may go above and below the number of replicas.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The strategy of a deployment, with its bounds as numbers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strategy {
    recreate: bool,
    /// Pods that may exist above the number of replicas.
    pub(crate) surge: i32,
    /// Pods that may be unavailable, at most all.
    pub(crate) unavailable: i32,
}

impl Strategy {
    /// Resolves percentages: a surge is rounded up, unavailability down; if both come to zero,
    /// one pod may be unavailable, or nothing could ever move.
    ///
    /// Source: kubernetes 1.33, `deployment/util/deployment_util.go`, `ResolveFenceposts`.
    pub(crate) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return Self { recreate: true, surge: 0, unavailable: 0 };
        }
        let bounds = strategy.and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let given_surge = bounds.and_then(|b| b.max_surge.as_ref()).unwrap_or(&quarter);
        let given_unavailable = bounds.and_then(|b| b.max_unavailable.as_ref()).unwrap_or(&quarter);
        let surge = scaled(given_surge, replicas, true);
        let mut unavailable = scaled(given_unavailable, replicas, false);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { recreate: false, surge, unavailable: unavailable.min(replicas) }
    }

    /// Whether all old pods end before new ones are made.
    pub(crate) const fn is_recreate(&self) -> bool {
        self.recreate
    }
}

/// A number of pods, or a percentage of `total`; nonsense counts as zero.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: Option<i64> = text.strip_suffix('%').and_then(|n| n.parse().ok());
            let percent = percent.unwrap_or(0).clamp(0, i64::from(i32::MAX));
            let hundredths = percent * i64::from(total);
            let rounded = if round_up { hundredths.saturating_add(99) } else { hundredths } / 100;
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn bounds() {
        let check = |replicas: Value, surge: Value, unavailable: Value, expected: (i32, i32)| {
            let spec: DeploymentSpec = serde_json::from_value(json!({
                "replicas": replicas, "selector": {}, "template": {},
                "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            }))
            .unwrap();
            let strategy = Strategy::of(&spec);
            assert_eq!((strategy.surge, strategy.unavailable), expected, "{spec:?}");
        };
        check(json!(10), json!("25%"), json!("25%"), (3, 2));
        check(json!(10), Value::Null, Value::Null, (3, 2));
        check(json!(3), json!("25%"), json!("25%"), (1, 0));
        check(json!(1), json!("25%"), json!("25%"), (1, 0));
        check(json!(10), json!(0), json!(0), (0, 1));
        check(json!(10), json!("0%"), json!("1%"), (0, 1));
        check(json!(4), json!(0), json!(10), (0, 4));
        check(json!(0), json!(1), json!(1), (1, 0));
        check(json!(-3), json!(-1), json!("x"), (0, 0));
        check(json!(5), json!("100%"), json!("9999999999999%"), (5, 5));
        check(Value::Null, json!(1), json!(0), (1, 0));
    }

    #[test]
    fn recreate_has_no_bounds() {
        let spec: DeploymentSpec = serde_json::from_value(
            json!({"selector": {}, "template": {}, "strategy": {"type": "Recreate"}}),
        )
        .unwrap();
        assert!(Strategy::of(&spec).is_recreate());
        assert_eq!(Strategy::of(&spec).surge, 0);
    }
}
