//! Several profiles in one scheduler, plugins that are off, gates, and pauses.

use super::*;
use crate::profile::ProfileConfig;

fn two() -> SchedulerConfig {
    let mut pack = ProfileConfig { name: "pack".into(), ..ProfileConfig::default() };
    pack.args.fit.scoring_strategy = crate::plugin_args::ScoringStrategy::named("MostAllocated");
    pack.disabled = vec!["NodeResourcesBalancedAllocation".into(), "TaintToleration".into()];
    SchedulerConfig { profiles: vec![ProfileConfig::default(), pack], ..SchedulerConfig::default() }
}

impl Bench {
    fn pod_of(&mut self, name: &str, scheduler: &str, spec: &Value) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
            "spec": {"schedulerName": scheduler,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        self.change(pod);
    }

    /// The components that reported something since the last question, with the reasons.
    fn reports(&mut self) -> Vec<(String, String)> {
        let records = self.out.iter().filter_map(|effect| match effect {
            ApiEffect::Record(report) => {
                Some((report.component.to_string(), report.record.reason.to_string()))
            }
            ApiEffect::Call { .. } => None,
        });
        records.collect()
    }
}

#[test]
fn pods_are_decided_by_the_profile_that_they_name() {
    let mut bench = Bench::with(&two());
    bench.node("n1", "8");
    bench.node("n2", "8");
    bench.pod("first", "2", "n2");
    // One spreads, one packs, and nobody decides about pods of others.
    bench.pod_of("a", "default-scheduler", &json!({}));
    assert_eq!(names(&bench.bindings()), [("a", "n1")]);
    for (name, node) in [("b", "n2"), ("c", "n2")] {
        bench.pod_of(name, "pack", &json!({}));
        assert_eq!(names(&bench.bindings()), [(name, node)]);
    }
    bench.pod_of("other", "volcano", &json!({}));
    assert_eq!((names(&bench.bindings()).len(), bench.scheduler.pending()), (0, 3));
    let key = Key::new(Kind::Pod, "d", "other");
    assert_eq!(
        bench.scheduler.explain(&key).unwrap_err().to_string(),
        "the pod is for the scheduler \"volcano\"; this one has default-scheduler, pack"
    );
}

#[test]
fn events_are_reported_by_the_profile() {
    let mut bench = Bench::with(&two());
    bench.node("n1", "8");
    bench.pod_of("big", "pack", &json!({"nodeSelector": {"a": "b"}}));
    assert_eq!(bench.reports(), [("pack".to_owned(), "FailedScheduling".to_owned())]);
    bench.bindings();
    bench.pod_of("small", "pack", &json!({}));
    let (id, ..) = bench.bindings().remove(0);
    bench.reply(id, Ok(Reply::Done(Revision(1))));
    assert_eq!(bench.reports(), [("pack".to_owned(), "Scheduled".to_owned())]);
}

#[test]
fn a_plugin_that_is_off_does_nothing() {
    let mut bench = Bench::with(&two());
    bench.change(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"taints": [{"key": "team", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "10"}}}));
    bench.pod_of("a", "default-scheduler", &json!({}));
    assert_eq!(names(&bench.bindings()), []);
    bench.pod_of("b", "pack", &json!({}));
    assert_eq!(names(&bench.bindings()), [("b", "n1")]);
    let explained = bench.scheduler.explain(&Key::new(Kind::Pod, "d", "b")).unwrap();
    let plugins: Vec<&str> =
        explained.feasible[0].scores.iter().map(|score| score.plugin.as_str()).collect();
    assert_eq!(
        (explained.profile.as_str(), plugins),
        ("pack", vec!["NodeResourcesFit", "ImageLocality"])
    );
}

#[test]
fn gated_pods_wait_until_their_gates_are_gone() {
    let gates = |names: &[&str]| {
        let gates: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"schedulingGates": gates})
    };
    let mut bench = Bench::with(&two());
    bench.node("n1", "8");
    bench.pod_of("a", "default-scheduler", &gates(&["x", "y"]));
    bench.pod_of("a", "default-scheduler", &gates(&["y"]));
    // Nothing is tried, and nothing is said: the API server has said it.
    assert!(bench.out.is_empty());
    assert_eq!((bench.scheduler.wake_at(), bench.scheduler.pending()), (None, 1));
    let explained = bench.scheduler.explain(&Key::new(Kind::Pod, "d", "a")).unwrap();
    assert_eq!((explained.gates, explained.winners), (vec!["y".to_owned()], vec!["n1".to_owned()]));
    bench.pod_of("a", "default-scheduler", &json!({}));
    assert_eq!(names(&bench.bindings()), [("a", "n1")]);

    // Whoever turns the plugin off gets gated pods tried; the API server refuses the binding.
    let mut config = SchedulerConfig::default();
    config.profiles[0].disabled = vec!["SchedulingGates".into()];
    let mut bench = Bench::with(&config);
    bench.node("n1", "8");
    bench.pod_of("a", "default-scheduler", &gates(&["x"]));
    assert_eq!(names(&bench.bindings()), [("a", "n1")]);
}

#[test]
fn pauses_are_as_configured() {
    let config = SchedulerConfig {
        initial_backoff_seconds: 7,
        max_backoff_seconds: 9,
        ..SchedulerConfig::default()
    };
    let mut bench = Bench::with(&config);
    bench.node("n1", "8");
    bench.pod("a", "1", "");
    for pause in [7, 9, 9] {
        let (id, ..) = bench.bindings().remove(0);
        bench.reply(id, Err(ApiError::Unreachable("down".into())));
        let due = bench.scheduler.wake_at().unwrap();
        assert_eq!(due.since(bench.now).as_secs(), pause);
        bench.now = due;
        bench.step(ApiInput::Wake);
    }
}

#[test]
fn desks_that_cannot_be() {
    let refused = |profiles: Vec<ProfileConfig>| {
        let config = SchedulerConfig { profiles, ..SchedulerConfig::default() };
        Desk::new(&config).err().unwrap().to_string()
    };
    let expected =
        "each of a scheduler's profiles, of which there must be one, needs a name of its own";
    assert_eq!(refused(Vec::new()), expected);
    assert_eq!(refused(vec![ProfileConfig::default(); 2]), expected);
    let mut wrong = ProfileConfig::default();
    wrong.args.fit.scoring_strategy.kind = "Best".into();
    assert!(refused(vec![wrong]).starts_with("NodeResourcesFit.scoringStrategy.type: Unsupported"));
}
