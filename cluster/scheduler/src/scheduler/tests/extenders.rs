//! A scheduler with extenders, question by question.

use api::ExtenderVerb;

use super::*;
use crate::extender::{ExtenderConfig, ManagedResource};

const FILTER: ExtenderVerb = ExtenderVerb::Filter;
const PRIORITIZE: ExtenderVerb = ExtenderVerb::Prioritize;
const PREEMPT: ExtenderVerb = ExtenderVerb::Preempt;
const BIND: ExtenderVerb = ExtenderVerb::Bind;

/// An extender that does these things, and knows nodes by their names.
fn extender(verbs: &[ExtenderVerb]) -> ExtenderConfig {
    let verb = |verb: ExtenderVerb, name: &str| {
        if verbs.contains(&verb) { name.to_owned() } else { String::new() }
    };
    ExtenderConfig {
        url_prefix: "http://x".to_owned(),
        filter_verb: verb(FILTER, "filter"),
        prioritize_verb: verb(PRIORITIZE, "prioritize"),
        preempt_verb: verb(PREEMPT, "preempt"),
        bind_verb: verb(BIND, "bind"),
        weight: 2,
        node_cache_capable: true,
        ..ExtenderConfig::default()
    }
}

fn ignorable(verbs: &[ExtenderVerb]) -> ExtenderConfig {
    ExtenderConfig { ignorable: true, ..extender(verbs) }
}

/// A question to an extender.
struct Asked {
    id: CallId,
    extender: u32,
    verb: ExtenderVerb,
    body: Value,
}

impl Bench {
    /// Three nodes, and extenders.
    fn extended(extenders: &[ExtenderConfig]) -> Self {
        let mut bench = Self::with(&SchedulerConfig {
            extenders: extenders.to_vec(),
            ..SchedulerConfig::default()
        });
        for node in ["n1", "n2", "n3"] {
            bench.node(node, "4");
        }
        bench.out.clear();
        bench
    }

    /// The calls of extenders, taken from the other effects.
    fn asked(&mut self) -> Vec<ApiEffect> {
        let asks = |effect: &mut ApiEffect| {
            matches!(effect, ApiEffect::Call { request: Request::Extend { .. }, .. })
        };
        self.out.extract_if(.., asks).collect()
    }

    /// The questions since the last time; other effects stay.
    fn questions(&mut self) -> Vec<Asked> {
        let asked = self.asked().into_iter().map(|effect| match effect {
            ApiEffect::Call { id, request: Request::Extend { extender, verb, body } } => {
                Asked { id, extender, verb, body: serde_json::from_str(&body).unwrap() }
            }
            _ => unreachable!("others were left out"),
        });
        asked.collect()
    }

    /// The only question.
    fn question(&mut self, verb: ExtenderVerb) -> Asked {
        let mut asked = self.questions();
        assert_eq!((asked.len(), asked[0].verb), (1, verb));
        asked.remove(0)
    }

    fn answer(&mut self, asked: &Asked, answer: &Value) {
        self.reply(asked.id, Ok(Reply::Text(answer.to_string())));
    }

    fn break_down(&mut self, asked: &Asked) {
        let why = "Post \"http://x/filter\": connection refused".to_owned();
        self.reply(asked.id, Err(ApiError::Unreachable(why)));
    }

    /// Who was bound where since the last time; questions stay.
    fn chosen(&mut self) -> Vec<(String, String)> {
        let questions = self.asked();
        let bound = self.bindings().into_iter().map(|(_, pod, node)| (pod, node)).collect();
        self.out = questions;
        bound
    }

    /// What pods are told since the last time: reason of the condition and message, or the event.
    fn told(&mut self) -> Vec<String> {
        let questions = self.asked();
        let told = |effect: ApiEffect| match effect {
            ApiEffect::Record(report) => {
                Some(format!("{}: {}", report.record.reason, report.record.message))
            }
            ApiEffect::Call { request: Request::Patch { patch, .. }, .. } => {
                let condition = patch.body.json()["status"]["conditions"][0].clone();
                let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
                Some(format!("{} {}", text("reason"), text("message")))
            }
            ApiEffect::Call { .. } => None,
        };
        std::mem::replace(&mut self.out, questions).into_iter().filter_map(told).collect()
    }
}

fn at(pod: &str, node: &str) -> Vec<(String, String)> {
    vec![(pod.to_owned(), node.to_owned())]
}

#[test]
fn filters_and_scores_decide_together_with_the_plugins() {
    let mut bench = Bench::extended(&[extender(&[FILTER]), extender(&[FILTER, PRIORITIZE])]);
    bench.pod("a", "1", "");
    bench.pod("b", "1", "");
    let first = bench.question(FILTER);
    assert_eq!(first.extender, 0);
    assert_eq!(first.body["NodeNames"], json!(["n1", "n2", "n3"]));
    assert_eq!(
        (&first.body["Pod"]["metadata"]["name"], &first.body["Nodes"]),
        (&json!("a"), &json!(null))
    );
    // Nobody else is decided about meanwhile, and nothing is looked at in vain.
    assert!(bench.scheduler.wake_at().is_some_and(|at| at > bench.now));
    bench.step(ApiInput::Wake);
    assert!(bench.questions().is_empty() && bench.chosen().is_empty());
    bench.answer(&first, &json!({"NodeNames": ["n3", "n1"], "FailedNodes": {"n2": "no"}}));
    let second = bench.question(FILTER);
    assert_eq!((second.extender, &second.body["NodeNames"]), (1, &json!(["n1", "n3"])));
    bench.answer(&second, &json!({"NodeNames": ["n1", "n3"]}));
    let scores = bench.question(PRIORITIZE);
    assert_eq!((scores.extender, &scores.body["NodeNames"]), (1, &json!(["n1", "n3"])));
    bench.scheduler.keep_decisions(true);
    bench.answer(&scores, &json!([{"Host": "n3", "Score": 10}, {"Host": "n1", "Score": 3}]));
    assert_eq!(bench.chosen(), at("a", "n3"));
    let decisions = bench.scheduler.take_decisions();
    let choice = decisions[0].result.as_ref().unwrap();
    // Of the plugins the same as of a decision without extenders; two times ten, scaled, on top.
    let mut plain = Bench::new();
    plain.scheduler.keep_decisions(true);
    for node in ["n1", "n2", "n3"] {
        plain.node(node, "4");
    }
    plain.pod("a", "1", "");
    let decisions = plain.scheduler.take_decisions();
    let expected = decisions[0].result.as_ref().unwrap().score + 2 * 10 * 10;
    assert_eq!((choice.score, choice.feasible, choice.evaluated), (expected, 2, 3));
    // The turn is the next one's, in the same step.
    assert_eq!(bench.question(FILTER).body["Pod"]["metadata"]["name"], "b");
}

#[test]
fn an_extender_without_a_cache_gets_nodes_and_pods_whole() {
    let whole = |verbs| ExtenderConfig { node_cache_capable: false, ..extender(verbs) };
    let mut bench = Bench::extended(&[whole(&[FILTER])]);
    bench.pod("a", "1", "");
    let asked = bench.question(FILTER);
    let names: Vec<&Value> =
        (0..3).map(|i| &asked.body["Nodes"]["items"][i]["metadata"]["name"]).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(asked.body["Nodes"]["items"][0]["status"]["allocatable"]["cpu"], "4");
    assert_eq!(asked.body["NodeNames"], json!(null));
    let node = &asked.body["Nodes"]["items"][1];
    bench.answer(&asked, &json!({"nodes": {"items": [node]}}));
    // One node that is left needs no scores.
    assert_eq!(bench.chosen(), at("a", "n2"));
}

#[test]
fn who_is_not_concerned_is_not_asked() {
    let managed = ManagedResource { name: "a.com/foo".to_owned(), ignored_by_scheduler: true };
    let config = ExtenderConfig { managed_resources: vec![managed], ..extender(&[FILTER]) };
    let mut bench = Bench::extended(&[config, extender(&[])]);
    bench.pod("plain", "1", "");
    assert!(bench.questions().is_empty() && bench.chosen().len() == 1);
    // No node has such a resource, and only the extender looks at that.
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "foo", "namespace": "d", "uid": "u-foo"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"a.com/foo": "3"},
            "requests": {"a.com/foo": "3"}}}]}});
    bench.change(pod.clone());
    let asked = bench.question(FILTER);
    bench.answer(&asked, &json!({"NodeNames": ["n2"]}));
    assert_eq!(bench.chosen(), at("foo", "n2"));
    // Of other resources there is none.
    pod["metadata"]["name"] = json!("bar");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"a.com/bar": "3"}});
    bench.change(pod);
    assert!(bench.questions().is_empty() && bench.chosen().is_empty());
}

#[test]
fn what_extenders_refuse_is_told_and_tried_again_whatever_happens() {
    let mut bench = Bench::extended(&[extender(&[FILTER])]);
    bench.pod("a", "1", "");
    let asked = bench.question(FILTER);
    bench.answer(
        &asked,
        &json!({"NodeNames": [], "FailedNodes": {"n1": "no device", "n2": "x"},
            "FailedAndUnresolvableNodes": {"n2": "never"}}),
    );
    let message = "0/3 nodes are available: 1 never, 1 no device. preemption: 0/3 nodes are \
                   available: 1 No preemption victims found for incoming pod, 2 Preemption is not \
                   helpful for scheduling.";
    assert_eq!(
        bench.told(),
        [format!("FailedScheduling: {message}"), format!("Unschedulable {message}")]
    );
    assert!(bench.questions().is_empty());
    // The coming of a pod helps by no rule that the scheduler knows. Others may know another.
    bench.now = bench.now + Duration::from_secs(30);
    bench.pod("other", "1", "n1");
    let asked = bench.question(FILTER);
    bench.answer(&asked, &json!({"NodeNames": []}));
    // And if nothing happens at all, then some time.
    assert_eq!(bench.scheduler.wake_at(), Some(bench.now + Duration::from_secs(300)));
    bench.now = bench.now + Duration::from_secs(300);
    bench.step(ApiInput::Wake);
    bench.question(FILTER);
}

#[test]
fn an_extender_that_fails_fails_the_attempt_unless_it_is_ignorable() {
    let attempt = |config: ExtenderConfig, answer: Result<Value, ApiError>| {
        let mut bench = Bench::extended(&[config]);
        bench.pod("a", "1", "");
        let asked = bench.question(FILTER);
        match answer {
            Ok(answer) => bench.answer(&asked, &answer),
            Err(error) => bench.reply(asked.id, Err(error)),
        }
        bench
    };
    let lost = || ApiError::Unknown("failed filter with extender at URL x, code 500".to_owned());
    let cases = [
        (Err(lost()), "failed filter with extender at URL x, code 500"),
        (Ok(json!({"Error": "out of order"})), "out of order"),
        (Ok(json!({"NodeNames": 7})), "the answer cannot be understood: NodeNames is a number"),
        (
            Ok(json!({"NodeNames": ["n1", "n9"]})),
            "extender \"http://x\" claims a filtered node \"n9\" which is not found in the input \
             node list",
        ),
    ];
    for (answer, why) in cases {
        let mut bench = attempt(extender(&[FILTER]), answer.clone());
        let expected = [format!("FailedScheduling: {why}"), format!("SchedulerError {why}")];
        assert_eq!(bench.told(), expected);
        // It is tried again after a pause, and the same trouble is told once.
        assert_eq!(bench.scheduler.wake_at(), Some(bench.now + Duration::from_secs(1)));
        bench.now = bench.now + Duration::from_secs(1);
        bench.step(ApiInput::Wake);
        let asked = bench.question(FILTER);
        match answer {
            Ok(answer) => bench.answer(&asked, &answer),
            Err(error) => bench.reply(asked.id, Err(error)),
        }
        assert_eq!(bench.told().len(), 1);
        // Without it, the plugins decide.
        let mut bench = attempt(ignorable(&[FILTER]), Err(lost()));
        assert_eq!(bench.chosen().len(), 1);
    }
}

#[test]
fn scores_that_are_not_there_do_not_count() {
    for config in [extender(&[PRIORITIZE]), ignorable(&[PRIORITIZE])] {
        let mut bench = Bench::extended(&[config.clone(), config.clone(), config]);
        bench.pod("a", "1", "");
        let asked = bench.questions();
        // All are asked at once, and all are waited for.
        assert_eq!(asked.iter().map(|asked| asked.extender).collect::<Vec<_>>(), [0, 1, 2]);
        bench.break_down(&asked[1]);
        bench.answer(&asked[2], &json!({"no": "list"}));
        assert!(bench.chosen().is_empty());
        bench.answer(&asked[0], &json!([{"Host": "n2", "Score": 1}, {"Host": "n7", "Score": 9}]));
        assert_eq!(bench.chosen(), at("a", "n2"));
    }
}

#[test]
fn nobody_waits_for_ever_and_no_answer_counts_twice() {
    let mut bench = Bench::extended(&[extender(&[FILTER])]);
    bench.pod("a", "1", "");
    let asked = bench.question(FILTER);
    // Five seconds for the extender, five more for whoever carries calls out.
    let deadline = bench.now + Duration::from_secs(10);
    assert_eq!(bench.scheduler.wake_at(), Some(deadline));
    bench.now = deadline;
    bench.step(ApiInput::Wake);
    assert_eq!(bench.told()[1], "SchedulerError context deadline exceeded");
    // Its pause, which began with the attempt, is over: it is asked again.
    let again = bench.question(FILTER);
    // The answer to the first question comes after all; it is nobody's.
    bench.answer(&asked, &json!({"NodeNames": ["n1"]}));
    assert!(bench.questions().is_empty() && bench.chosen().is_empty());
    bench.answer(&again, &json!({"NodeNames": ["n2"]}));
    assert_eq!(bench.chosen(), at("a", "n2"));
    bench.answer(&again, &json!({"NodeNames": ["n3"]}));
    assert!(bench.questions().is_empty() && bench.out.is_empty());
}

#[test]
fn what_happens_meanwhile_counts() {
    // The node that is left is taken by somebody else.
    let mut bench = Bench::extended(&[extender(&[FILTER])]);
    bench.pod("a", "3", "");
    let asked = bench.question(FILTER);
    bench.pod("thief", "3", "n1");
    bench.answer(&asked, &json!({"NodeNames": ["n1"]}));
    assert!(bench.chosen().is_empty());
    let asked = bench.question(FILTER);
    assert_eq!(asked.body["NodeNames"].as_array().unwrap().len(), 2);
    // The pod goes: whose turn is next does not wait for an answer about it.
    bench.pod("b", "1", "");
    assert!(bench.questions().is_empty());
    bench.delete("a");
    let next = bench.question(FILTER);
    assert_eq!(next.body["Pod"]["metadata"]["name"], "b");
    bench.answer(&asked, &json!({"NodeNames": ["n2"]}));
    assert!(bench.chosen().is_empty());
    // A pod that somebody else binds needs no decision.
    bench.pod("b", "1", "n3");
    bench.answer(&next, &json!({"NodeNames": ["n2"]}));
    assert!(bench.chosen().is_empty() && bench.questions().is_empty());
    // A node that joins while extenders refuse all others is not overlooked.
    bench.pod("c", "1", "");
    let asked = bench.question(FILTER);
    bench.node("n4", "4");
    let never = json!({"n1": "", "n2": "", "n3": ""});
    bench.answer(&asked, &json!({"FailedAndUnresolvableNodes": never}));
    let asked = bench.question(FILTER);
    assert!(asked.body["NodeNames"].as_array().unwrap().contains(&json!("n4")));
    // A pod that asks for something else meanwhile is decided about anew.
    bench.pod("c", "2", "");
    bench.answer(&asked, &json!({"NodeNames": ["n4"]}));
    assert!(bench.chosen().is_empty());
}

#[test]
fn a_lost_lease_ends_the_question() {
    let mut bench = Bench::extended(&[extender(&[FILTER])]);
    bench.pod("a", "1", "");
    let asked = bench.question(FILTER);
    bench.scheduler.elector = Some(LeaderElector::new("kube-scheduler", "me"));
    bench.step(ApiInput::Wake);
    bench.answer(&asked, &json!({"NodeNames": ["n1"]}));
    assert!(bench.chosen().is_empty() && bench.scheduler.consultation.is_none());
    // Whoever leads again begins anew.
    bench.scheduler.elector = None;
    bench.now = bench.now + Duration::from_secs(1);
    bench.step(ApiInput::Wake);
    bench.question(FILTER);
}

/// A scheduler whose nodes are full of pods that may be displaced.
fn full(extenders: &[ExtenderConfig]) -> Bench {
    let mut bench = Bench::extended(extenders);
    for node in ["n1", "n2"] {
        for part in ["a", "b"] {
            bench.change(ranked(&format!("{part}-{node}"), 2, 0, node));
        }
    }
    bench.change(ranked("lord", 4, 100, "n3"));
    bench.out.clear();
    bench
}

fn ranked(name: &str, cpu: u32, priority: i32, node: &str) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"priority": priority, "containers":
            [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// The pods of which marks are asked for, and the node that is cleared.
fn displaced(bench: &mut Bench) -> (Vec<String>, Option<String>) {
    let (mut victims, mut node) = (Vec::new(), None);
    for effect in std::mem::take(&mut bench.out) {
        if let ApiEffect::Call { request: Request::Patch { key, patch, .. }, .. } = effect {
            let status = patch.body.json()["status"].clone();
            if status["conditions"][0]["type"] == "DisruptionTarget" {
                victims.push(key.name.to_string());
            } else {
                node = status["nominatedNodeName"].as_str().map(str::to_owned);
            }
        }
    }
    victims.sort();
    (victims, node)
}

#[test]
fn extenders_have_a_say_in_who_is_displaced() {
    let by_name = extender(&[PREEMPT]);
    let mut bench = full(&[by_name.clone(), by_name]);
    bench.change(ranked("high", 2, 10, ""));
    let asked = bench.question(PREEMPT);
    let victims = &asked.body["NodeNameToMetaVictims"];
    // Of each node one has to go; the one on n3 has a higher priority.
    for node in ["n1", "n2"] {
        assert_eq!(victims[node]["NumPDBViolations"], 0);
        assert_eq!(victims[node]["Pods"].as_array().unwrap().len(), 1);
    }
    assert_eq!((&victims["n3"], &asked.body["NodeNameToVictims"]), (&json!(null), &json!(null)));
    // One node is left, and on it the other pod has to go as well.
    let both = json!({"Pods": [{"UID": "u-b-n2"}, {"UID": "u-a-n2"}], "NumPDBViolations": 1});
    bench.answer(&asked, &json!({"NodeNameToMetaVictims": {"n2": both}}));
    let second = bench.question(PREEMPT);
    assert_eq!(second.extender, 1);
    assert_eq!(second.body["NodeNameToMetaVictims"], json!({"n2": both}));
    let one = json!({"Pods": [{"UID": "u-a-n2"}]});
    bench.answer(&second, &json!({"NodeNameToMetaVictims": {"n2": one}}));
    assert_eq!(displaced(&mut bench), (vec!["a-n2".to_owned()], Some("n2".to_owned())));
    // Extenders without a cache get the pods themselves.
    let config = ExtenderConfig { node_cache_capable: false, ..extender(&[PREEMPT]) };
    let mut bench = full(&[config]);
    bench.change(ranked("high", 4, 10, ""));
    let asked = bench.question(PREEMPT);
    assert_eq!(asked.body["NodeNameToMetaVictims"], json!(null));
    let pods = asked.body["NodeNameToVictims"]["n1"]["Pods"].as_array().unwrap();
    assert_eq!((pods.len(), &pods[0]["spec"]["nodeName"]), (2, &json!("n1")));
}

#[test]
fn nobody_is_displaced_without_consent() {
    let high = ranked("high", 2, 10, "");
    let no_victims = json!({"NodeNameToMetaVictims": {"n1": {"Pods": []}}});
    let lord = json!({"NodeNameToMetaVictims": {"n3": {"Pods": [{"UID": "u-lord"}]}}});
    let other = json!({"NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "u-a-n2"}]}}});
    let refused = "0/3 nodes are available: 3 Insufficient cpu. preemption: ";
    for (answer, why) in [
        (no_victims, "expected at least one victim pod on node \"n1\""),
        (
            lord,
            "extender: http://x claims to preempt pod (UID: u-lord) on node: n3, but the priority \
             of the pod is not lower",
        ),
        (
            other,
            "extender: http://x claims to preempt pod (UID: u-a-n2) on node: n1, but the pod is \
             not found on that node",
        ),
    ] {
        let mut bench = full(&[extender(&[PREEMPT])]);
        bench.change(high.clone());
        let asked = bench.question(PREEMPT);
        bench.answer(&asked, &answer);
        let told = bench.told();
        assert_eq!(told[1], format!("Unschedulable {refused}{why}"), "{told:?}");
        // Nobody knows whether it would have consented: it is asked again.
        assert_eq!(bench.scheduler.wake_at(), Some(bench.now + Duration::from_secs(1)));
        // One that may be passed over has no say then.
        let mut bench = full(&[ignorable(&[PREEMPT])]);
        bench.change(high.clone());
        let asked = bench.question(PREEMPT);
        bench.break_down(&asked);
        assert_eq!(displaced(&mut bench).0.len(), 1);
    }
    // Nobody may go.
    let mut bench = full(&[extender(&[PREEMPT])]);
    bench.change(high.clone());
    let asked = bench.question(PREEMPT);
    bench.answer(&asked, &json!({"NodeNameToMetaVictims": {}}));
    let told = bench.told();
    assert_eq!(told[1], format!("Unschedulable {refused}no candidate node for preemption"));
    assert_eq!(bench.scheduler.wake_at(), Some(bench.now + Duration::from_secs(300)));
    // Those who were to go have gone meanwhile.
    let mut bench = full(&[extender(&[PREEMPT])]);
    bench.change(high);
    let asked = bench.question(PREEMPT);
    let pods = asked.body["NodeNameToMetaVictims"]["n1"].clone();
    bench.delete("a-n1");
    bench.delete("b-n1");
    bench.answer(&asked, &json!({"NodeNameToMetaVictims": {"n1": pods}}));
    assert_eq!(bench.chosen(), at("high", "n1"));
}

#[test]
fn a_cleared_node_is_tried_first_and_extenders_may_still_refuse_it() {
    let nominated = |bench: &mut Bench| {
        let mut pod = ranked("high", 1, 10, "");
        pod["status"] = json!({"nominatedNodeName": "n2"});
        bench.change(pod);
        let asked = bench.question(FILTER);
        assert_eq!(asked.body["NodeNames"], json!(["n2"]));
        asked
    };
    let mut bench = Bench::extended(&[extender(&[FILTER])]);
    let asked = nominated(&mut bench);
    bench.answer(&asked, &json!({"NodeNames": ["n2"]}));
    assert_eq!(bench.chosen(), at("high", "n2"));
    for answer in [json!({"NodeNames": []}), json!({"Error": "no"})] {
        let mut bench = Bench::extended(&[extender(&[FILTER])]);
        let asked = nominated(&mut bench);
        bench.answer(&asked, &answer);
        let asked = bench.question(FILTER);
        assert_eq!(asked.body["NodeNames"], json!(["n1", "n2", "n3"]));
        bench.answer(&asked, &json!({"NodeNames": ["n3"]}));
        assert_eq!(bench.chosen(), at("high", "n3"));
    }
}

#[test]
fn an_extender_binds_in_the_place_of_the_api() {
    let begin = |config: ExtenderConfig| {
        let mut bench = Bench::extended(&[config]);
        bench.pod("a", "1", "");
        bench.pod("b", "1", "");
        // Nothing is asked but to bind, and that does not stop others.
        let mut asked = bench.questions();
        assert_eq!(asked.iter().map(|asked| asked.verb).collect::<Vec<_>>(), [BIND, BIND]);
        assert!(bench.chosen().is_empty());
        (bench, asked.remove(0))
    };
    let (mut bench, asked) = begin(extender(&[BIND]));
    let node = asked.body["Node"].as_str().unwrap().to_owned();
    assert_eq!(
        asked.body,
        json!({"PodName": "a", "PodNamespace": "d", "PodUID": "u-a", "Node": node})
    );
    bench.answer(&asked, &json!({"Error": ""}));
    assert_eq!(bench.told(), [format!("Scheduled: Successfully assigned d/a to {node}")]);
    // One that says no may have done it: the API knows.
    for bound in [false, true] {
        let (mut bench, asked) = begin(extender(&[BIND]));
        bench.answer(&asked, &json!({"Error": "no"}));
        let Some(ApiEffect::Call { id, request: Request::Get(_) }) = bench.out.pop() else {
            panic!("no look-up")
        };
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "d", "uid": "u-a", "resourceVersion": "50"},
            "spec": {"containers": []}});
        if bound {
            pod["spec"]["nodeName"] = json!("n1");
        }
        let object = codec::decode_any(pod.to_string().as_bytes()).unwrap();
        bench.reply(id, Ok(Reply::Object(object)));
        let told = bench.told();
        let expected: &[&str] =
            if bound { &[] } else { &["FailedScheduling: no", "SchedulerError no"] };
        assert_eq!(told, expected);
        assert_eq!(bench.scheduler.assumed.len(), 1 + usize::from(bound));
    }
    // Where it may be passed over, the API binds.
    let (mut bench, asked) = begin(ignorable(&[BIND]));
    bench.break_down(&asked);
    assert_eq!(bench.chosen().len(), 1);
}

#[test]
fn the_same_answers_give_the_same_decisions() {
    let run = || {
        let mut bench = Bench::extended(&[extender(&[FILTER, PRIORITIZE])]);
        for i in 0..20 {
            bench.node(&format!("m{i}"), "4");
        }
        let mut bound = Vec::new();
        for i in 0..30 {
            bench.pod(&format!("p{i}"), "1", "");
            let asked = bench.question(FILTER);
            bench.answer(&asked, &json!({"NodeNames": asked.body["NodeNames"]}));
            let asked = bench.question(PRIORITIZE);
            bench.answer(&asked, &json!([{"Host": "m7", "Score": 1}]));
            bound.extend(bench.chosen());
        }
        bound
    };
    let bound = run();
    assert_eq!((bound.len(), &bound), (30, &run()));
    assert!(bound.iter().filter(|(_, node)| node == "m7").count() >= 2);
}

#[test]
fn extenders_and_groups_do_not_go_together() {
    let profile = crate::profile::ProfileConfig {
        enabled: vec!["Coscheduling".to_owned()],
        ..crate::profile::ProfileConfig::default()
    };
    let config = SchedulerConfig {
        profiles: vec![profile],
        extenders: vec![extender(&[FILTER])],
        ..SchedulerConfig::default()
    };
    let error = Desk::new(&config).err().unwrap().to_string();
    assert!(error.starts_with("profile \"default-scheduler\" enables Coscheduling"), "{error}");
}
