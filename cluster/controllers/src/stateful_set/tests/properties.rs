//! Random rollouts and scaling, with pods that end or are deleted by others, and controllers that
//! crash.

use std::collections::BTreeSet;

use machine::WatchEvent;
use proptest::prelude::*;

use super::*;

/// The same objects seen by a process that has just started.
fn restarted(from: &Fixture<StatefulSets>) -> Fixture<StatefulSets> {
    let mut fixture = Fixture::new(StatefulSets);
    fixture.store.now = from.store.now;
    fixture.store.revision = from.store.revision;
    fixture.store.objects = from.store.objects.clone();
    for object in from.store.objects.values() {
        fixture.deliver_event(WatchEvent::Changed(object.clone()));
    }
    fixture
}

fn set_of(fixture: &Fixture<StatefulSets>) -> &StatefulSet {
    fixture.cache.get("n", "web").unwrap()
}

fn range(fixture: &Fixture<StatefulSets>) -> Range<i64> {
    let spec = set_of(fixture).spec.as_ref().unwrap();
    let start = i64::from(spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0));
    start..start + i64::from(spec.replicas.unwrap())
}

/// Whether the pod of that ordinal has been ready for long enough and is not being deleted.
fn is_well(fixture: &Fixture<StatefulSets>, ordinal: i64) -> bool {
    let min_ready = set_of(fixture).spec.as_ref().unwrap().min_ready_seconds.unwrap_or(0);
    let long_enough = Duration::from_secs(u64::try_from(min_ready).unwrap());
    let pod = fixture.store.get(&pod_key(ordinal)).and_then(Object::get::<Pod>);
    pod.is_some_and(|pod| {
        !meta::is_terminating(&pod.metadata)
            && pods::phase(pod) == "Running"
            && pods::ready_since(pod).is_some_and(|since| since + long_enough <= fixture.now())
    })
}

fn ordinal_of(name: &str) -> i64 {
    name.strip_prefix("web-").unwrap().parse().unwrap()
}

/// Carries out the plan until there is none, checking each step. (The store refuses a second pod of
/// one name, which fails the test.)
fn act(fixture: &mut Fixture<StatefulSets>, ordered: bool) -> Result<(), TestCaseError> {
    for _ in 0..50 {
        let plan = fixture.reconcile(&key());
        if plan.requests.is_empty() {
            return Ok(());
        }
        let wanted = range(fixture);
        let mut changes = 0;
        for request in plan.requests {
            match &request {
                Request::Create(Object::Pod(pod)) => {
                    let ordinal = ordinal_of(pod.metadata.name.as_deref().unwrap());
                    prop_assert!(wanted.contains(&ordinal));
                    let ill = (wanted.start..ordinal).find(|below| !is_well(fixture, *below));
                    prop_assert!(!ordered || ill.is_none(), "{ordinal} {ill:?}");
                    changes += 1;
                }
                Request::Delete { key, .. } if key.kind == Kind::Pod => {
                    let ordinal = ordinal_of(&key.name);
                    let pod = fixture.store.get(key).and_then(Object::get::<Pod>).unwrap();
                    if ordered && !pods::is_terminal(pod) {
                        let ill = wanted.clone().find(|o| *o != ordinal && !is_well(fixture, *o));
                        prop_assert!(ill.is_none(), "{ordinal} {ill:?}");
                    }
                    changes += 1;
                }
                _ => {}
            }
            fixture.request(request);
        }
        prop_assert!(!ordered || changes <= 1, "{changes} at once");
    }
    Err(TestCaseError::fail("does not settle"))
}

fn strategies() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4_i32).prop_map(rolling),
        Just(json!({"type": "RollingUpdate"})),
        Just(json!({"type": "OnDelete"})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn each_ordinal_has_one_pod_in_order(
        ordered in any::<bool>(),
        strategy in strategies(),
        (replicas, start, min_ready) in (0..5_i32, 0..3_i32, prop_oneof![Just(0), Just(5)]),
        steps in proptest::collection::vec((0..8_usize, 0..16_u8, 0..5_i32), 0..60),
    ) {
        let policy = if ordered { "OrderedReady" } else { "Parallel" };
        let mut set = web(replicas, policy, strategy);
        set["spec"]["ordinals"] = json!({"start": start});
        set["spec"]["minReadySeconds"] = min_ready.into();
        set["spec"]["revisionHistoryLimit"] = 1.into();
        let mut fixture = fixture(set);
        for (at, what, how_much) in steps {
            let pods = pods_in(&fixture);
            let pod = (!pods.is_empty()).then(|| pods[at % pods.len()].clone());
            match (what, pod) {
                (0, _) => fixture = restarted(&fixture),
                (1, _) => set_image(&mut fixture, &format!("v{how_much}")),
                (2, _) => edit(&mut fixture, |spec| spec["replicas"] = how_much.into()),
                (3, _) => edit(&mut fixture, |spec| spec["ordinals"]["start"] = how_much.into()),
                (4, Some(pod)) if !pods::is_terminal(&pod) => {
                    end(&mut fixture, ordinal_of(pod.metadata.name.as_deref().unwrap()), "Failed");
                }
                (5, Some(pod)) => fixture.request(ownership::delete(&pod)),
                (6, Some(pod)) => {
                    fixture.remove(&Key::new(Kind::Pod, "n", pod.metadata.name.as_deref().unwrap()));
                }
                (7, _) => fixture.advance(Duration::from_secs(3)),
                (8..12, Some(pod)) => obey_one(&mut fixture, &pod),
                _ => act(&mut fixture, ordered)?,
            }
        }
        for _ in 0..60 {
            act(&mut fixture, ordered)?;
            obey(&mut fixture);
            fixture.advance(Duration::from_secs(10));
        }
        roll_out(&mut fixture);
        check_end(&fixture)?;
        // Whoever takes over has nothing left to do.
        let mut other = restarted(&fixture);
        prop_assert_eq!(other.settle(&key()), Vec::<String>::new());
    }
}

/// Exactly the wanted ordinals, each of the revision that it shall be of.
fn check_end(fixture: &Fixture<StatefulSets>) -> Result<(), TestCaseError> {
    let wanted = range(fixture);
    let pods = pods_in(fixture);
    let ordinals: Vec<i64> =
        pods.iter().map(|p| ordinal_of(p.metadata.name.as_deref().unwrap())).collect();
    prop_assert_eq!(&ordinals, &wanted.clone().collect::<Vec<_>>());
    let set = set_of(fixture);
    let status = set.status.as_ref().unwrap();
    let strategy = set.spec.as_ref().unwrap().update_strategy.as_ref().unwrap();
    let partition = strategy.rolling_update.as_ref().map_or(0, |r| r.partition.unwrap());
    let partition = wanted.start + i64::from(partition);
    let today = image(&Pod::of_spec(set.spec.as_ref().unwrap().template.spec.clone().unwrap()));
    for (ordinal, pod) in ordinals.iter().zip(&pods) {
        prop_assert!(is_well(fixture, *ordinal));
        if strategy.type_.as_deref() == Some("RollingUpdate") && *ordinal >= partition {
            prop_assert_eq!(image(pod), today.clone());
            prop_assert_eq!(Some(revision_of(pod)), status.update_revision.as_deref());
        }
    }
    let count = i32::try_from(pods.len()).unwrap();
    prop_assert_eq!(status.replicas, count);
    prop_assert_eq!(status.ready_replicas.unwrap_or(0), count);
    prop_assert_eq!(status.available_replicas, Some(count));
    prop_assert_eq!(status.observed_generation, set.metadata.generation);
    // What pods are of, what the status names, and one more.
    let live: BTreeSet<&str> = pods
        .iter()
        .map(revision_of)
        .chain(status.current_revision.as_deref())
        .chain(status.update_revision.as_deref())
        .collect();
    let revisions = fixture.store.kind(Kind::ControllerRevision).count();
    prop_assert!(revisions <= live.len() + 1, "{revisions} {live:?}");
    Ok(())
}
