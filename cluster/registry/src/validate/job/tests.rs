//! Which jobs are refused, with which words.

use api::{Kind, Object, codec};
use serde_json::{Value, json};

use crate::field::Causes;
use crate::operation::Options;
use crate::prepare;
use crate::{defaults, validate};

/// A job as it is stored, with these fields of the spec.
fn stored(fields: &Value) -> Object {
    let mut value = json!({"metadata": {"name": "j", "namespace": "n"},
        "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}});
    for (path, field) in fields.as_object().unwrap() {
        let mut at = &mut value["spec"];
        for step in path.split('.') {
            at = &mut at[step];
        }
        *at = field.clone();
    }
    let mut object = codec::decode_value(Kind::Job, &value).unwrap();
    defaults::apply(&mut object).unwrap();
    object.meta_mut().uid = Some("u".to_owned());
    prepare::with_identity(&mut object);
    object
}

fn told(causes: Causes) -> Vec<String> {
    let Err(status) = causes.into_result(Kind::Job, "j") else { return Vec::new() };
    status.causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn created(fields: Value, expected: &[&str]) {
    let causes = validate::create(&stored(&fields), false, &Options::default());
    assert_eq!(told(causes), expected, "{fields}");
}

fn updated(old: &Value, new: &Value, status: &Value, expected: &[&str]) {
    let mut old = codec::to_value(&stored(old));
    old["status"] = status.clone();
    let old = codec::decode_value(Kind::Job, &old).unwrap();
    let causes = validate::update(&stored(new), &old, None, &Options::default());
    assert_eq!(told(causes), expected, "{old:?} to {new}");
}

#[expect(clippy::needless_pass_by_value, reason = "tables read better without references")]
fn reported(fields: Value, old: Value, new: Value, expected: &[&str]) {
    let with = |status: Value| {
        let mut job = codec::to_value(&stored(&fields));
        job["status"] = status;
        codec::decode_value(Kind::Job, &job).unwrap()
    };
    let part = Some(api::Subresource::Status);
    let causes = validate::update(&with(new), &with(old), part, &Options::default());
    assert_eq!(told(causes), expected, "{fields}");
}

#[test]
fn numbers_and_modes() {
    created(json!({}), &[]);
    created(
        json!({"parallelism": -1, "backoffLimit": -1, "activeDeadlineSeconds": -1,
            "ttlSecondsAfterFinished": -1, "completions": -1}),
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
        ]
        .map(|f| format!("spec.{f}: Invalid value: -1: must be greater than or equal to 0"))
        .each_ref()
        .map(String::as_str),
    );
    created(
        json!({"completionMode": "Sorted"}),
        &["spec.completionMode: Unsupported value: \"Sorted\": supported values: \
           \"NonIndexed\", \"Indexed\""],
    );
    created(
        json!({"completionMode": "Indexed", "parallelism": 3}),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    created(
        json!({"completionMode": "Indexed", "parallelism": 100_001, "completions": 5}),
        &["spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when \
           completion mode is Indexed"],
    );
    created(
        json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 1}),
        &[
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ],
    );
    created(
        json!({"completionMode": "Indexed", "completions": 2, "maxFailedIndexes": 3}),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
        ],
    );
    created(
        json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001,
            "backoffLimitPerIndex": 1}),
        &[
            "spec.maxFailedIndexes: Required value: must be specified when completions is above \
           100000",
            "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when \
             completions are above 100000 and used with backoff limit per index",
        ],
    );
    created(
        json!({"managedBy": "kueue"}),
        &["spec.managedBy: Invalid value: \"kueue\": must be a domain-prefixed path (such as \
           \"acme.io/foo\")"],
    );
    created(
        json!({"podReplacementPolicy": "Never"}),
        &["spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \
           \"Failed\", \"TerminatingOrFailed\""],
    );
}

#[test]
fn templates_and_selectors() {
    created(
        json!({"template.spec.restartPolicy": "Always"}),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
           \"Never\""],
    );
    created(
        json!({"template.metadata": {"labels": {"job-name": "x"}}}),
        &["spec.template.metadata.labels[job-name]: Invalid value: \
           map[string]string{\"batch.kubernetes.io/controller-uid\":\"u\", \
           \"batch.kubernetes.io/job-name\":\"j\", \"controller-uid\":\"u\", \
           \"job-name\":\"x\"}: must be 'j'"],
    );
    created(json!({"manualSelector": true}), &["spec.selector: Required value"]);
    created(
        json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}),
        &["spec.template.metadata.labels: Invalid value: map[string]string(nil): `selector` does \
           not match template `labels`"],
    );
    created(
        json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}},
            "template.metadata": {"labels": {"a": "b"}}}),
        &[],
    );
    let object = stored(&json!({}));
    let value = codec::to_value(&object);
    let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
    assert_eq!(value["spec"]["selector"], selector);
    let labels = json!({"batch.kubernetes.io/controller-uid": "u", "controller-uid": "u",
        "batch.kubernetes.io/job-name": "j", "job-name": "j"});
    assert_eq!(value["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(value["metadata"]["labels"], labels);
    assert_eq!(value["spec"]["backoffLimit"], 6);
    assert_eq!(value["spec"]["completions"], 1);
    assert_eq!(value["spec"]["podReplacementPolicy"], "TerminatingOrFailed");
    let each = json!({"completionMode": "Indexed", "completions": 1, "backoffLimitPerIndex": 1});
    let each = codec::to_value(&stored(&each));
    assert_eq!(each["spec"]["backoffLimit"], i32::MAX);
    let queue = codec::to_value(&stored(&json!({"parallelism": 3})));
    assert_eq!(queue["spec"]["completions"], Value::Null);
}

#[test]
fn policies() {
    let failure = |rule: Value, expected: &[&str]| {
        created(json!({"podFailurePolicy": {"rules": [rule]}}), expected);
    };
    let codes = json!({"operator": "In", "values": [1, 2]});
    failure(json!({"action": "FailJob", "onExitCodes": codes}), &[]);
    failure(
        json!({"action": "", "onExitCodes": codes}),
        &["spec.podFailurePolicy.rules[0].action: Required value: valid values: [\"Count\" \
           \"FailIndex\" \"FailJob\" \"Ignore\"]"],
    );
    failure(
        json!({"action": "FailIndex", "onExitCodes": codes}),
        &["spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the \
           backoffLimitPerIndex to be set"],
    );
    failure(
        json!({"action": "Count"}),
        &["spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and \
           OnPodConditions is required"],
    );
    failure(
        json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [3, 0, 3],
            "containerName": "x"}}),
        &[
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must \
           be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not \
             be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 3",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: []int32{3, 0, 3}: \
             must be ordered",
        ],
    );
    created(
        json!({"podFailurePolicy": {"rules": []}, "template.spec.restartPolicy": "OnFailure"}),
        &["spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is \
           supported when podFailurePolicy is specified"],
    );
    let success = |rule: Value, expected: &[&str]| {
        created(
            json!({"completionMode": "Indexed", "completions": 5,
                "successPolicy": {"rules": [rule]}}),
            expected,
        );
    };
    success(json!({"succeededIndexes": "0,2-4", "succeededCount": 4}), &[]);
    success(
        json!({}),
        &["spec.successPolicy.rules[0]: Required value: at least one of succeededCount or \
           succeededIndexes must be specified"],
    );
    success(
        json!({"succeededIndexes": "3,2"}),
        &["spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"3,2\": error parsing \
           succeededIndexes: non-increasing order, previous: 3, current: 2"],
    );
    success(
        json!({"succeededIndexes": "7"}),
        &["spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"7\": error parsing \
           succeededIndexes: too large index: \"7\""],
    );
    success(
        json!({"succeededCount": 6}),
        &["spec.successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or \
           equal to 5 (the number of specified completions)"],
    );
}

#[test]
fn what_may_change() {
    let indexed = |n: i32, parallelism: i32| json!({"completionMode": "Indexed", "completions": n, "parallelism": parallelism});
    let none = json!({});
    updated(&none, &json!({"parallelism": 0, "completions": 1, "suspend": true}), &none, &[]);
    updated(
        &none,
        &json!({"completions": 2}),
        &none,
        &["spec.completions: Invalid value: 2: field is immutable"],
    );
    updated(&indexed(2, 2), &indexed(5, 5), &none, &[]);
    updated(
        &indexed(2, 2),
        &indexed(5, 4),
        &none,
        &["spec.completions: Invalid value: 5: can only be modified in tandem with \
           spec.parallelism"],
    );
    let place = json!({"suspend": true, "template.spec.nodeSelector": {"a": "b"},
        "template.spec.affinity": {"nodeAffinity": {}}});
    updated(&json!({"suspend": true}), &place, &none, &[]);
    let started = json!({"startTime": "2026-01-01T00:00:00Z"});
    for (old, status) in [(json!({"suspend": true}), &started), (none.clone(), &none)] {
        let causes = {
            let mut old = codec::to_value(&stored(&old));
            old["status"] = status.clone();
            let old = codec::decode_value(Kind::Job, &old).unwrap();
            told(validate::update(&stored(&place), &old, None, &Options::default()))
        };
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert!(causes[0].starts_with("spec.template: Invalid value: "), "{causes:?}");
        assert!(causes[0].ends_with(": field is immutable"), "{causes:?}");
    }
}

#[test]
fn what_may_be_reported() {
    let condition = |kinds: &[&str]| -> Vec<Value> {
        kinds.iter().map(|k| json!({"type": k, "status": "True"})).collect()
    };
    let time = "2026-01-01T00:00:00Z";
    let none = json!({});
    reported(json!({}), none.clone(), json!({"active": 1, "ready": 1}), &[]);
    reported(
        json!({}),
        none.clone(),
        json!({"active": 1, "ready": 2}),
        &["status.ready: Invalid value: 2: cannot set more ready pods than active"],
    );
    reported(
        json!({}),
        json!({"failed": 2, "succeeded": 2}),
        json!({"failed": 1, "succeeded": 1}),
        &[
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
        ],
    );
    reported(
        json!({}),
        json!({"startTime": time, "conditions": condition(&["SuccessCriteriaMet"])}),
        json!({"startTime": time, "completionTime": time,
            "conditions": condition(&["SuccessCriteriaMet", "Complete"])}),
        &[],
    );
    reported(
        json!({}),
        none.clone(),
        json!({"conditions": condition(&["Complete"]), "active": 1}),
        &[
            "status.conditions: Invalid value: cannot set Complete=True condition without the \
           SuccessCriteriaMet=true condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
        ],
    );
    reported(
        json!({}),
        json!({"startTime": time, "conditions": condition(&["FailureTarget", "Failed"])}),
        json!({"startTime": time}),
        &[
            "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
            "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True \
             condition",
        ],
    );
    reported(
        json!({}),
        json!({"startTime": time}),
        none.clone(),
        &["status.startTime: Required value: startTime cannot be removed for unsuspended job"],
    );
    reported(
        json!({}),
        json!({"startTime": time, "conditions": condition(&["Suspended"])}),
        json!({"startTime": "2026-01-01T00:01:00Z"}),
        &[],
    );
    let each = json!({"completionMode": "Indexed", "completions": 9, "backoffLimitPerIndex": 1});
    reported(
        each,
        none,
        json!({"completedIndexes": "1-3", "failedIndexes": "3"}),
        &["status.failedIndexes: Invalid value: \"3\": failedIndexes and completedIndexes \
           overlap at index: 3"],
    );
}
