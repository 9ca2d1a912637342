//! A controller that crashes at any of its calls ends where one ends that does not.

use std::collections::BTreeMap;

use machine::WatchEvent;

use super::*;

/// What becomes of the call at which the controller crashes.
#[derive(Clone, Copy, Debug)]
enum Crash {
    Before(usize),
    After(usize),
}

/// The state after some time, and how many calls were made.
fn run(policy: &str, crash: Option<Crash>) -> (Value, usize) {
    let mut bench = Bench::new(json!({"schedule": "* * * * *", "concurrencyPolicy": policy}));
    let mut calls = 0;
    let mut ends: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for second in 0..600 {
        bench.fixture.advance(Duration::from_secs(1));
        for name in ends.remove(&second).unwrap_or_default() {
            let key = Key::new(Kind::Job, "n", &name);
            let Some(job) = bench.fixture.store.get(&key).map(codec::to_value) else { continue };
            let fails = fnv64(name.as_bytes()).is_multiple_of(3);
            bench.end(&job, if fails { "Failed" } else { "Complete" });
        }
        for _ in 0..20 {
            bench.fixture.progress();
            let (cache, now) = (&bench.fixture.cache, bench.fixture.now());
            let plan = CronJobs.reconcile_with(cache, &key(), now, &mut bench.memory);
            if plan.requests.is_empty() {
                break;
            }
            for request in plan.requests {
                calls += 1;
                let made = match &request {
                    Request::Create(job) => job.meta().name.clone(),
                    _ => None,
                };
                if !matches!(crash, Some(Crash::Before(n)) if n == calls) {
                    bench.fixture.request(request);
                    if let Some(name) = made {
                        let lasts = 20 + fnv64(name.as_bytes()) % 110;
                        ends.entry(second + lasts).or_default().push(name);
                    }
                }
                if matches!(crash, Some(Crash::Before(n) | Crash::After(n)) if n == calls) {
                    restart(&mut bench);
                    break;
                }
            }
        }
    }
    (end_state(&bench), calls)
}

/// Another process goes on, which knows what the store holds and nothing else.
fn restart(bench: &mut Bench) {
    let mut fixture = Fixture::new(CronJobs);
    std::mem::swap(&mut fixture.store, &mut bench.fixture.store);
    let objects: Vec<Object> = fixture.store.objects.values().cloned().collect();
    for object in objects {
        fixture.deliver_event(WatchEvent::Changed(object));
    }
    bench.fixture = fixture;
    bench.memory = Memory::default();
}

/// All that does not depend on the number of writes.
fn end_state(bench: &Bench) -> Value {
    let jobs: Vec<Value> = bench
        .jobs()
        .iter()
        .map(|job| json!([job["metadata"]["name"], job["status"]["conditions"][0]["type"]]))
        .collect();
    let status = bench.status();
    json!({"jobs": jobs, "active": bench.active(), "scheduled": status["lastScheduleTime"],
        "successful": status["lastSuccessfulTime"]})
}

#[test]
fn a_crash_at_any_call_changes_nothing() {
    for policy in ["Allow", "Forbid", "Replace"] {
        let (undisturbed, calls) = run(policy, None);
        assert!(calls > 20, "{policy}: {calls}");
        for n in 1..=calls {
            for crash in [Crash::Before(n), Crash::After(n)] {
                let (end, _) = run(policy, Some(crash));
                assert_eq!(end, undisturbed, "{policy} {crash:?}");
            }
        }
    }
}
