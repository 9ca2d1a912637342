//! Autoscalers against a store and pods whose use is told.

#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod crashes;
mod replicas;

use std::collections::BTreeMap;

use api::{Reply, Status, codec};
use serde_json::{Value, json};

use super::*;
use crate::fixture::{Fixture, short};

fn key() -> Key {
    Key::new(Kind::HorizontalPodAutoscaler, "n", "h")
}

/// An autoscaler of `web` with these fields of the spec, and half of the CPU as its target.
fn autoscaler(fields: Value) -> Value {
    let mut value = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "n", "uid": "h"},
        "spec": {"minReplicas": 1, "maxReplicas": 10, "metrics": [cpu(50)],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    for (name, field) in fields.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    value
}

fn cpu(percent: i32) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn memory(value: &str) -> Value {
    json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": value}}})
}

fn deployment(replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}})
}

/// An autoscaler under the controller, with hands on what its pods use.
struct Bench {
    fixture: Fixture<HorizontalPodAutoscalers>,
    memory: Memory,
    /// What pods use, in thousandths of a core and in bytes; `None` when nobody can tell.
    usage: Option<BTreeMap<String, (i64, i64)>>,
    events: Vec<String>,
    asked: usize,
    calls: usize,
    /// At which call the controller crashes, and whether that is carried out.
    crash: Option<(usize, bool)>,
}

impl Bench {
    /// With so many pods, which request 100m of CPU and use so much of it.
    fn new(fields: Value, replicas: i32, used_milli: i64) -> Self {
        let mut fixture = Fixture::new(HorizontalPodAutoscalers);
        fixture.put(deployment(replicas));
        fixture.put(autoscaler(fields));
        let mut bench = Self {
            fixture,
            memory: Memory::default(),
            usage: Some(BTreeMap::new()),
            events: Vec::new(),
            asked: 0,
            calls: 0,
            crash: None,
        };
        for i in 0..replicas {
            bench.pod(&format!("p{i}"), json!({}));
        }
        bench.use_each(used_milli);
        bench
    }

    /// A pod that has been ready for long, with these fields of its status.
    fn pod(&mut self, name: &str, fields: Value) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "n", "labels": {"app": "web"}},
            "spec": {"nodeName": "a", "containers": [{"name": "c",
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}]},
            "status": {"phase": "Running", "startTime": "2001-09-08T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True",
                    "lastTransitionTime": "2001-09-08T00:00:10Z"}]}});
        for (name, field) in fields.as_object().unwrap() {
            pod["status"][name] = field.clone();
        }
        self.fixture.put(pod);
    }

    fn pods(&self) -> Vec<String> {
        self.fixture.store.kind(Kind::Pod).map(|p| p.key().name.to_string()).collect()
    }

    fn use_each(&mut self, milli: i64) {
        self.usage = Some(self.pods().into_iter().map(|name| (name, (milli, 100 << 20))).collect());
    }

    fn set_use(&mut self, pod: &str, milli: i64) {
        self.usage.get_or_insert_default().insert(pod.to_owned(), (milli, 100 << 20));
    }

    fn answer(&mut self, request: Request) -> Answer {
        self.asked += 1;
        let now = self.fixture.now();
        let at = now.to_meta();
        let result = match &self.usage {
            None => Err(Status::no_route().into()),
            Some(usage) => Ok(Reply::Objects(
                usage
                    .iter()
                    .map(|(name, (milli, bytes))| {
                        let value = json!({"metadata": {"name": name, "namespace": "n"},
                            "timestamp": at, "window": "15s", "containers": [{"name": "c",
                                "usage": {"cpu": format!("{milli}m"), "memory": bytes.to_string()}}]});
                        codec::decode_value(Kind::PodMetrics, &value).unwrap()
                    })
                    .collect(),
            )),
        };
        Answer { at: now, request, result }
    }

    /// Lets the controller look once; returns what it did but for the status.
    fn sync(&mut self) -> Vec<String> {
        self.fixture.advance(SYNC);
        let mut done = Vec::new();
        for _ in 0..5 {
            let (cache, now) = (&self.fixture.cache, self.fixture.now());
            let plan =
                HorizontalPodAutoscalers.reconcile_with(cache, &key(), now, &mut self.memory);
            let told = |record: &machine::Record| format!("{} {}", record.reason, record.message);
            self.events.extend(plan.events.iter().map(told));
            self.events.extend(plan.announcements.values().flat_map(|a| &a.done).map(told));
            if plan.requests.is_empty() {
                assert!(plan.revisit.is_some_and(|after| after <= SYNC), "{plan:?}");
                done.retain(|line: &String| {
                    !line.ends_with(" status") && !line.starts_with("list")
                });
                return done;
            }
            done.extend(plan.requests.iter().map(short));
            for request in plan.requests {
                self.calls += 1;
                let crash = self.crash.filter(|(call, _)| *call == self.calls);
                if matches!(request, Request::List { .. }) {
                    let answer = self.answer(request);
                    self.memory.answers.push(answer);
                } else if crash.is_none_or(|(_, carried_out)| carried_out) {
                    self.fixture.request(request);
                }
                // Whoever goes on knows what the store holds, and nothing else.
                if crash.is_some() {
                    self.memory = Memory::default();
                    break;
                }
            }
        }
        panic!("does not settle: {done:#?}");
    }

    /// What the controller asks.
    fn sync_questions(&mut self) -> Vec<Request> {
        let (cache, now) = (&self.fixture.cache, self.fixture.now());
        let plan = HorizontalPodAutoscalers.reconcile_with(cache, &key(), now, &mut self.memory);
        assert!(plan.requests.iter().all(|r| matches!(r, Request::List { .. })), "{plan:?}");
        plan.requests
    }

    /// The number of pods that there shall be after the controller has looked.
    fn size(&mut self) -> i64 {
        self.sync();
        let web = Key::new(Kind::Deployment, "n", "web");
        codec::to_value(self.fixture.store.get(&web).unwrap())["spec"]["replicas"].as_i64().unwrap()
    }

    /// Lets as many pods run as there shall be, which share this use.
    fn follow(&mut self, total_milli: i64) {
        let wanted = {
            let web = Key::new(Kind::Deployment, "n", "web");
            codec::to_value(self.fixture.store.get(&web).unwrap())["spec"]["replicas"].as_i64()
        };
        let wanted = usize::try_from(wanted.unwrap()).unwrap();
        for name in self.pods().into_iter().skip(wanted) {
            self.fixture.remove(&Key::new(Kind::Pod, "n", &name));
        }
        for i in 0..wanted {
            self.pod(&format!("p{i}"), json!({}));
        }
        self.use_each(total_milli / i64::try_from(wanted.max(1)).unwrap());
    }

    fn value(&self) -> Value {
        codec::to_value(self.fixture.store.get(&key()).unwrap())
    }

    /// The conditions, as type, status and reason.
    fn conditions(&self) -> Vec<String> {
        let value = self.value();
        let all = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        all.iter()
            .map(|c| format!("{} {} {}", text(c, "type"), text(c, "status"), text(c, "reason")))
            .collect()
    }

    fn message(&self, kind: &str) -> String {
        let value = self.value();
        let all = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == kind);
        found.and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned()
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

#[test]
fn more_use_asks_for_more_pods() {
    let mut bench = Bench::new(json!({}), 2, 90);
    assert_eq!(bench.sync(), ["patch deployments/n/web scale to 4"]);
    assert_eq!(
        bench.told(),
        [
            "SuccessfulRescale New size: 4; reason: cpu resource utilization (percentage of request) \
          above target"
        ]
    );
    assert_eq!(
        bench.conditions(),
        [
            "AbleToScale True SucceededRescale",
            "ScalingActive True ValidMetricFound",
            "ScalingLimited False DesiredWithinRange"
        ]
    );
    assert_eq!(
        bench.message("ScalingActive"),
        "the HPA was able to successfully calculate a replica count from cpu resource utilization \
         (percentage of request)"
    );
    let status = bench.value()["status"].clone();
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(2), &json!(4)));
    assert_eq!(
        status["currentMetrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 90, "averageValue": "90m"}}}])
    );
    assert_eq!(status["lastScaleTime"], json!(bench.fixture.now().to_meta()));
    bench.follow(180);
    assert_eq!(bench.sync(), [] as [String; 0]);
    assert_eq!(bench.conditions()[0], "AbleToScale True ReadyForNewScale");
}

#[test]
fn nobody_is_asked_more_often_than_is_needed() {
    let mut bench = Bench::new(json!({}), 2, 50);
    bench.sync();
    for _ in 0..3 {
        let (cache, now) = (&bench.fixture.cache, bench.fixture.now());
        let plan = HorizontalPodAutoscalers.reconcile_with(cache, &key(), now, &mut bench.memory);
        assert_eq!((plan.requests, plan.revisit), (vec![], Some(SYNC)));
    }
    assert_eq!(bench.asked, 1);
    // What was answered long ago is asked again.
    bench.fixture.advance(SYNC);
    let question = bench.sync_questions();
    let mut late = bench.answer(question[0].clone());
    late.at = Time::ZERO;
    bench.memory.answers = vec![late];
    assert_eq!(bench.sync_questions(), question);
    // Its own status is no news.
    let mut value = bench.value();
    value["status"]["desiredReplicas"] = json!(7);
    assert_eq!(bench.fixture.put(value), []);
    let mut value = bench.value();
    value["spec"]["maxReplicas"] = json!(7);
    assert_eq!(bench.fixture.put(value), [key()]);
    // Nothing is remembered of one that is gone.
    bench.fixture.remove(&key());
    let (cache, now) = (&bench.fixture.cache, bench.fixture.now());
    let plan = HorizontalPodAutoscalers.reconcile_with(cache, &key(), now, &mut bench.memory);
    assert_eq!((plan, bench.memory.is_empty()), (Plan::nothing(), true));
}

#[test]
fn less_use_is_believed_after_a_while() {
    let mut bench = Bench::new(json!({}), 6, 10);
    // What there is counts as recommended when nothing else is known.
    for _ in 0..21 {
        assert_eq!(bench.sync(), [] as [String; 0]);
        assert_eq!(bench.conditions()[0], "AbleToScale True ScaleDownStabilized");
    }
    assert_eq!(bench.sync(), ["patch deployments/n/web scale to 2"]);
    assert_eq!(bench.told(), ["SuccessfulRescale New size: 2; reason: All metrics below target"]);
}

#[test]
fn numbers_have_limits() {
    // At most twice as many without policies, but four at least.
    let mut bench = Bench::new(json!({"maxReplicas": 1000}), 1, 10_000);
    assert_eq!(bench.size(), 4);
    assert_eq!(bench.conditions()[2], "ScalingLimited True ScaleUpLimit");
    bench.follow(40_000);
    assert_eq!(bench.size(), 8);
    let mut bench = Bench::new(json!({"maxReplicas": 5}), 3, 10_000);
    assert_eq!(bench.size(), 5);
    assert_eq!(bench.conditions()[2], "ScalingLimited True TooManyReplicas");
    // What is out of bounds is brought back without a question.
    let mut bench = Bench::new(json!({"maxReplicas": 3}), 7, 1);
    assert_eq!(bench.size(), 3);
    assert_eq!(
        bench.told(),
        ["SuccessfulRescale New size: 3; reason: Current number of replicas above \
          Spec.MaxReplicas"]
    );
    let mut other = Bench::new(json!({"minReplicas": 4}), 2, 1);
    assert_eq!((other.size(), other.asked + bench.asked), (4, 0));
    // Nothing is scaled from zero.
    let mut bench = Bench::new(json!({}), 0, 1);
    assert_eq!((bench.size(), bench.asked), (0, 0));
    assert_eq!(bench.conditions()[1], "ScalingActive False ScalingDisabled");
    // Numbers that no cluster holds.
    let mut bench = Bench::new(
        json!({"maxReplicas": i32::MAX, "behavior": {"scaleUp":
        {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies":
            [{"type": "Percent", "value": i32::MAX, "periodSeconds": 1800}]}}}),
        2,
        i64::MAX / 2,
    );
    assert_eq!(bench.size(), i64::from(i32::MAX).min(42_949_675));
}

#[test]
fn behavior_sets_the_pace() {
    let up = |policies: Value, choice: &str| {
        json!({"maxReplicas": 100, "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0,
            "selectPolicy": choice, "policies": policies}}})
    };
    let pods = |value: i32| json!({"type": "Pods", "value": value, "periodSeconds": 60});
    let percent = |value: i32| json!({"type": "Percent", "value": value, "periodSeconds": 60});
    let mut bench = Bench::new(up(json!([pods(3), percent(10)]), "Max"), 10, 10_000);
    assert_eq!(bench.size(), 13);
    assert_eq!(bench.conditions()[2], "ScalingLimited True ScaleUpLimit");
    bench.follow(100_000);
    // Within a minute of the first change there is no more.
    assert_eq!((bench.size(), bench.size(), bench.size()), (13, 13, 13));
    assert_eq!(bench.size(), 16);
    assert_eq!(Bench::new(up(json!([pods(3), percent(10)]), "Min"), 10, 10_000).size(), 11);
    assert_eq!(Bench::new(up(json!([pods(3)]), "Disabled"), 10, 10_000).size(), 10);
    // A share of one is one at least.
    assert_eq!(Bench::new(up(json!([percent(1)]), "Max"), 2, 10_000).size(), 3);
    let down = |policies: Value, window: i32| {
        json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": window,
            "selectPolicy": "Max", "policies": policies}}})
    };
    let mut bench = Bench::new(down(json!([pods(2)]), 0), 10, 1);
    assert_eq!(bench.size(), 8);
    assert_eq!(bench.conditions()[2], "ScalingLimited True ScaleDownLimit");
    assert_eq!(Bench::new(down(json!([percent(50)]), 0), 9, 1).size(), 4);
    let mut bench = Bench::new(down(json!([percent(100)]), 0), 9, 0);
    assert_eq!(bench.size(), 1);
    assert_eq!(bench.conditions()[2], "ScalingLimited True TooFewReplicas");
    // A window of its own.
    let mut bench = Bench::new(down(json!([percent(100)]), 30), 9, 10);
    assert_eq!((bench.size(), bench.size()), (9, 9));
    assert_eq!(bench.conditions()[0], "AbleToScale True ScaleDownStabilized");
    assert_eq!(bench.size(), 2);
}

#[test]
fn upward_windows_wait_for_the_lowest() {
    let fields = json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 40,
        "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 9, "periodSeconds": 15}]}}});
    let mut bench = Bench::new(fields, 2, 100);
    assert_eq!((bench.size(), bench.size(), bench.size()), (2, 2, 2));
    assert_eq!(bench.conditions()[0], "AbleToScale True ScaleUpStabilized");
    assert_eq!(bench.size(), 4);
}

#[test]
fn what_cannot_be_told_is_told() {
    let mut bench = Bench::new(json!({}), 2, 50);
    bench.usage = None;
    assert_eq!(bench.sync(), [] as [String; 0]);
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to \
               fetch metrics from resource metrics API: the server could not find the requested \
               resource";
    assert_eq!(
        bench.told(),
        [
            format!("FailedGetResourceMetric {why}"),
            format!(
                "FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error \
                 is: failed to get cpu resource metric value: {why}"
            ),
        ]
    );
    assert_eq!(bench.conditions()[1], "ScalingActive False FailedGetResourceMetric");
    assert_eq!(
        bench.message("ScalingActive"),
        format!("the HPA was unable to compute the replica count: {why}")
    );
    assert_eq!(bench.value()["status"]["currentMetrics"], json!([{"type": ""}]));
    bench.usage = Some(BTreeMap::new());
    bench.sync();
    assert!(
        bench.message("ScalingActive").ends_with("no metrics returned from resource metrics API")
    );
    // A metric that is not served holds the number, and does not keep it from growing.
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "rps"},
        "target": {"type": "AverageValue", "averageValue": "1"}}});
    let mut bench = Bench::new(json!({"metrics": [pods, cpu(50)]}), 2, 90);
    assert_eq!(bench.size(), 4);
    assert_eq!(bench.conditions()[1], "ScalingActive True ValidMetricFound");
    bench.follow(4);
    bench.told();
    for _ in 0..30 {
        assert_eq!(bench.size(), 4);
    }
    assert_eq!(bench.conditions()[1], "ScalingActive False FailedGetPodsMetric");
    assert!(
        bench.message("ScalingActive").contains("no custom metrics API (custom.metrics.k8s.io)")
    );
    for (kind, reason) in [
        ("Object", "FailedGetObjectMetric"),
        ("External", "FailedGetExternalMetric"),
        ("Magic", "InvalidMetricSourceType"),
    ] {
        let mut bench = Bench::new(json!({"metrics": [{"type": kind}]}), 2, 90);
        assert_eq!((bench.size(), bench.asked), (2, 0));
        assert_eq!(bench.conditions()[1], format!("ScalingActive False {reason}"));
    }
}

#[test]
fn targets_that_cannot_be_scaled() {
    let check = |target: Value, expected: &str| {
        let mut bench = Bench::new(json!({"scaleTargetRef": target}), 2, 90);
        assert_eq!((bench.sync(), bench.asked), (vec![], 0));
        assert_eq!(bench.told(), [format!("FailedGetScale {expected}")]);
        assert_eq!(bench.conditions(), ["AbleToScale False FailedGetScale"]);
        assert_eq!(
            bench.message("AbleToScale"),
            format!("the HPA controller was unable to get the target's current scale: {expected}")
        );
    };
    let target = |version: &str, kind: &str, name: &str| json!({"apiVersion": version, "kind": kind, "name": name});
    check(target("apps/v1", "Deployment", "x"), "deployments.apps \"x\" not found");
    check(target("apps/v1", "Widget", "x"), "no matches for kind \"Widget\" in group \"apps\"");
    check(target("v1", "Deployment", "web"), "no matches for kind \"Deployment\" in group \"\"");
    check(target("a/b/c", "Deployment", "web"), "unexpected GroupVersion string: a/b/c");
    check(
        target("apps/v1", "DaemonSet", "web"),
        "the server could not find the requested resource",
    );
    // Itself.
    check(
        target("autoscaling/v2", "HorizontalPodAutoscaler", "h"),
        "the server could not find the requested resource",
    );
}

#[test]
fn two_autoscalers_of_one_target_leave_it_alone() {
    let mut bench = Bench::new(json!({}), 2, 90);
    let mut other = autoscaler(json!({}));
    other["metadata"]["name"] = json!("g");
    bench.fixture.put(other);
    assert_eq!(bench.size(), 2);
    assert_eq!(bench.conditions()[1], "ScalingActive False AmbiguousSelector");
    assert_eq!(
        bench.message("ScalingActive"),
        "pods by selector app=web are controlled by multiple HPAs: [{g n} {h n}]"
    );
    bench.fixture.remove(&Key::new(Kind::HorizontalPodAutoscaler, "n", "g"));
    assert_eq!(bench.size(), 4);
}

#[test]
fn a_refused_change_is_noted() {
    let bench = Bench::new(json!({}), 2, 90);
    let request = Request::Patch {
        key: Key::new(Kind::Deployment, "n", "web"),
        subresource: Some(api::Subresource::Scale),
        patch: api::Patch { kind: api::PatchKind::Merge, body: json!({}).into() },
    };
    let error = ApiError::from(Status::forbidden(Kind::Deployment, "web", "no"));
    let (cache, now) = (&bench.fixture.cache, bench.fixture.now());
    let note = HorizontalPodAutoscalers.note_refusal(cache, &key(), &request, &error, now);
    let Some(Request::Update { object, .. }) = note else { panic!("an update") };
    let condition = codec::to_value(&object)["status"]["conditions"][0].clone();
    assert_eq!(
        (&condition["reason"], &condition["status"]),
        (&json!("FailedUpdateScale"), &json!("False"))
    );
}
