//! A controller that crashes at any of its calls ends where one ends that does not.

use super::*;

/// The number of pods and what is said of it after some time, and how many calls were made.
fn run(behavior: Value, crash: Option<(usize, bool)>) -> (i64, Vec<String>, usize) {
    let mut bench = Bench::new(json!({"behavior": behavior}), 2, 50);
    bench.crash = crash;
    for i in 0..70 {
        let load = match i {
            0..4 => 100,
            4..12 => 460,
            12..20 => 40,
            _ => 230,
        };
        bench.follow(load);
        bench.sync();
    }
    let size = bench.size();
    (size, bench.conditions(), bench.calls)
}

#[test]
fn a_crash_at_any_call_changes_nothing() {
    let policies = |kind: &str| {
        json!({"scaleDown": {"selectPolicy": "Max", "stabilizationWindowSeconds": 60,
            "policies": [{"type": kind, "value": 2, "periodSeconds": 30}]},
            "scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}})
    };
    for behavior in [Value::Null, policies("Pods")] {
        let (size, conditions, calls) = run(behavior.clone(), None);
        assert_eq!(size, 5, "{conditions:?}");
        assert!(calls > 80, "{calls}");
        for call in 1..=calls {
            for carried_out in [false, true] {
                let end = run(behavior.clone(), Some((call, carried_out)));
                assert_eq!((end.0, &end.1), (size, &conditions), "{behavior} {call} {carried_out}");
            }
        }
    }
}
