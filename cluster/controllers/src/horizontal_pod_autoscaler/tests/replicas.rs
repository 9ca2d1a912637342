//! How many pods a use asks for when not all is known of them.

use proptest::prelude::*;

use super::*;

fn unready(start: &str, since: &str) -> Value {
    json!({"startTime": start, "conditions": [{"type": "Ready", "status": "False",
        "lastTransitionTime": since}]})
}

/// Three pods of which one is as it is told, and the use of each.
fn check(third: Value, used: [Option<i64>; 3], expected: i64) {
    let rules = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
    let fields = json!({"behavior": {"scaleDown": rules, "scaleUp": rules}});
    let mut bench = Bench::new(fields, 3, 0);
    bench.pod("p2", third.clone());
    bench.usage = Some(BTreeMap::new());
    for (i, used) in used.into_iter().enumerate() {
        if let Some(used) = used {
            bench.set_use(&format!("p{i}"), used);
        }
    }
    assert_eq!(bench.size(), expected, "{third} {used:?}");
}

#[test]
fn pods_of_which_nothing_is_known_change_least() {
    // The target is 50 of 100.
    check(json!({}), [Some(100), Some(100), Some(100)], 6);
    // Nothing more than what is known to be used.
    check(json!({}), [Some(100), Some(100), None], 4);
    check(json!({}), [Some(75), Some(75), None], 3);
    // All that is requested, when less would be needed.
    check(json!({}), [Some(10), Some(10), Some(10)], 1);
    check(json!({}), [Some(10), Some(10), None], 3);
    check(json!({}), [Some(0), Some(0), None], 2);
    // Nothing is known of any.
    check(json!({}), [None, None, None], 3);
    // A tenth is tolerated.
    check(json!({}), [Some(55), Some(55), Some(55)], 3);
    check(json!({}), [Some(57), Some(57), Some(57)], 4);
    check(json!({}), [Some(45), Some(45), Some(45)], 3);
}

#[test]
fn pods_that_start_are_not_counted() {
    // Those that never were ready use nothing; it is the others that need help.
    let never = unready("2001-09-09T01:46:30Z", "2001-09-09T01:46:30Z");
    check(never.clone(), [Some(100), Some(100), Some(1000)], 4);
    check(never, [Some(10), Some(10), Some(1000)], 1);
    check(json!({"phase": "Pending"}), [Some(100), Some(100), None], 4);
    // One that lost its readiness later counts.
    let lost = unready("2001-09-08T00:00:00Z", "2001-09-09T01:00:00Z");
    check(lost, [Some(100), Some(100), Some(100)], 6);
    // One that failed is no pod.
    check(json!({"phase": "Failed"}), [Some(100), Some(100), Some(1000)], 4);
    // Within five minutes of its start only what was measured while it was ready counts.
    let fresh = json!({"startTime": "2001-09-09T01:46:00Z", "conditions": [{"type": "Ready",
        "status": "True", "lastTransitionTime": "2001-09-09T01:46:50Z"}]});
    check(fresh, [Some(100), Some(100), Some(1000)], 4);
    let settled = json!({"startTime": "2001-09-09T01:46:00Z", "conditions": [{"type": "Ready",
        "status": "True", "lastTransitionTime": "2001-09-09T01:46:10Z"}]});
    check(settled, [Some(100), Some(100), Some(100)], 6);
}

#[test]
fn metrics_are_of_requests_or_of_values() {
    // 100 MiB each.
    let mut bench = Bench::new(json!({"metrics": [memory("50Mi")]}), 3, 1);
    assert_eq!(bench.size(), 6);
    assert_eq!(
        bench.value()["status"]["currentMetrics"][0]["resource"]["current"],
        json!({"averageValue": "104857600"})
    );
    assert!(bench.told()[0].ends_with("reason: memory resource above target"));
    // The one that asks for most wins.
    let mut bench = Bench::new(json!({"metrics": [memory("90Mi"), cpu(10)]}), 2, 30);
    assert_eq!(bench.size(), 4);
    let of = |container: &str| {
        json!({"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu",
            "container": container, "target": {"type": "Utilization", "averageUtilization": 50}}}]})
    };
    assert_eq!(Bench::new(of("c"), 2, 90).size(), 4);
    let mut bench = Bench::new(of("x"), 2, 90);
    assert_eq!(bench.size(), 2);
    assert_eq!(
        bench.message("ScalingActive"),
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable \
         to get metrics for resource cpu: failed to get container metrics: container x not present \
         in metrics for pod n/p0"
    );
    // Without a request there is no share.
    let gpu = json!({"type": "Resource", "resource": {"name": "gpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let mut bench = Bench::new(json!({"metrics": [gpu]}), 2, 90);
    assert_eq!(bench.size(), 2);
    assert!(bench.message("ScalingActive").contains("did not receive metrics for targeted pods"));
    let mut bench = Bench::new(json!({}), 2, 90);
    let mut bare =
        codec::to_value(bench.fixture.store.get(&Key::new(Kind::Pod, "n", "p1")).unwrap());
    bare["spec"]["containers"][0]["resources"] = json!({});
    bench.fixture.put(bare);
    assert_eq!(bench.size(), 2);
    assert!(
        bench
            .message("ScalingActive")
            .ends_with("missing request for cpu in container c of Pod p1")
    );
}

proptest! {
    #[test]
    fn whatever_is_used_the_number_stays_within_its_bounds(
        replicas in 0..12_i32, min in 1..6_i32, more in 0..6_i32,
        used in proptest::collection::vec(proptest::option::of(0..1_000_000_i64), 12),
        behaves in any::<bool>(),
    ) {
        let mut fields = json!({"minReplicas": min, "maxReplicas": min + more});
        if behaves {
            fields["behavior"] = json!({"scaleUp": {"stabilizationWindowSeconds": 0,
                "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}]},
                "scaleDown": {"selectPolicy": "Min", "policies":
                    [{"type": "Pods", "value": 1, "periodSeconds": 15}]}});
        }
        let mut bench = Bench::new(fields, replicas, 0);
        bench.usage = Some(BTreeMap::new());
        for (i, used) in used.iter().enumerate() {
            if let Some(used) = used {
                bench.set_use(&format!("p{i}"), *used);
            }
        }
        for _ in 0..3 {
            let size = bench.size();
            prop_assert!(size == 0 && replicas == 0 || (min..=min + more).contains(&i32::try_from(size).unwrap()));
        }
    }
}
