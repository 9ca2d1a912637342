//! What the policies of a job say about pods that failed and indexes that succeeded.
//!
//! Source: kubernetes 1.33, `pkg/controller/job/pod_failure_policy.go`, `success_policy.go`.

use api::Pod;
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement as ExitCodes,
    PodFailurePolicyOnPodConditionsPattern as Pattern, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::ContainerStatus;

use super::intervals::Intervals;

/// What a failed pod means for its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts against the limit.
    Counts,
    /// It does not count.
    Ignored,
    /// It counts, and its index has failed for good.
    FailsIndex,
    /// It counts, and the job has failed, with this message.
    FailsJob(String),
}

impl Failure {
    /// Whether it counts.
    pub(super) fn counts(&self) -> bool {
        *self != Self::Ignored
    }
}

/// What the policy of the job says about a pod that failed.
pub(super) fn failure(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|p| &p.rules);
    for (i, rule) in rules.enumerate() {
        let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
        let name = || {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
        };
        let matched = match &rule.on_exit_codes {
            Some(codes) => ended_with(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code}", name())
            }),
            None => has_condition(pod, patterns)
                .map(|condition| format!("Pod {} has condition {condition}", name())),
        };
        let Some(what) = matched else { continue };
        match rule.action.as_str() {
            "Ignore" => return Failure::Ignored,
            "FailIndex" => return Failure::FailsIndex,
            "Count" => return Failure::Counts,
            "FailJob" => {
                return Failure::FailsJob(format!("{what} matching FailJob rule at index {i}"));
            }
            _ => {}
        }
    }
    Failure::Counts
}

/// The container whose exit code the rule means, with the code.
fn ended_with<'a>(pod: &'a Pod, codes: &ExitCodes) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let matches = |c: &'a ContainerStatus| {
        let code = c.state.as_ref()?.terminated.as_ref()?.exit_code;
        let meant = codes.container_name.as_ref().is_none_or(|name| *name == c.name);
        let listed = codes.values.contains(&code);
        let applies = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (meant && code != 0 && applies).then_some((c.name.as_str(), code))
    };
    let all = [&status.container_statuses, &status.init_container_statuses];
    all.into_iter().flatten().flatten().find_map(matches)
}

fn has_condition<'a>(pod: &'a Pod, patterns: &[Pattern]) -> Option<&'a str> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let found =
        conditions.find(|c| patterns.iter().any(|p| p.type_ == c.type_ && p.status == c.status))?;
    Some(&found.type_)
}

/// Why the indexes that succeeded suffice, if they do.
pub(super) fn success(spec: &JobSpec, succeeded: &Intervals) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let completions = spec.completions.unwrap_or(0);
    let rules = &spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| suffices(rule, completions, succeeded))?;
    Some(format!("Matched rules at index {met}"))
}

fn suffices(rule: &SuccessPolicyRule, completions: i32, succeeded: &Intervals) -> bool {
    let enough = |count: usize| {
        let wanted = rule.succeeded_count.and_then(|n| usize::try_from(n).ok());
        wanted.is_some_and(|wanted| count >= wanted)
    };
    match &rule.succeeded_indexes {
        None => enough(succeeded.total()),
        Some(text) => {
            let required = Intervals::parse(text, completions);
            let common = required.overlap(succeeded);
            !required.is_empty() && (common == required.total() || enough(common))
        }
    }
}

#[cfg(test)]
mod tests {
    use api::{Kind, codec};
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: &Value) -> JobSpec {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn pod(status: &Value) -> Pod {
        let value = json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": []}, "status": status});
        codec::decode_value(Kind::Pod, &value).unwrap().get::<Pod>().unwrap().clone()
    }

    #[test]
    fn failures() {
        let exit = |operator: &str, values: Value, container: Value, action: &str| {
            json!({"action": action, "onExitCodes":
                {"operator": operator, "values": values, "containerName": container}})
        };
        let disrupted = json!({"action": "Ignore", "onPodConditions":
            [{"type": "DisruptionTarget", "status": "True"}]});
        let check = |rules: Value, expected: Failure| {
            let spec = spec(&json!({"template": {}, "podFailurePolicy": {"rules": rules}}));
            let ended = |name: &str, code: i32| {
                json!({"name": name, "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"terminated": {"exitCode": code}}})
            };
            let failed = pod(&json!({"phase": "Failed",
                "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "initContainerStatuses": [ended("i", 7)],
                "containerStatuses": [ended("a", 0), ended("b", 42)]}));
            assert_eq!(failure(&spec, &failed), expected, "{rules}");
        };
        let message = |text: &str| Failure::FailsJob(text.to_owned());
        check(json!([]), Failure::Counts);
        check(json!([disrupted]), Failure::Ignored);
        check(json!([exit("In", json!([42]), Value::Null, "FailIndex")]), Failure::FailsIndex);
        check(
            json!([
                exit("In", json!([1]), Value::Null, "Ignore"),
                exit("In", json!([42]), Value::Null, "FailJob")
            ]),
            message(
                "Container b for pod n/p failed with exit code 42 matching FailJob rule at \
                     index 1",
            ),
        );
        check(json!([exit("In", json!([42]), json!("a"), "Ignore")]), Failure::Counts);
        check(json!([exit("In", json!([7]), Value::Null, "Ignore")]), Failure::Ignored);
        check(json!([exit("NotIn", json!([42, 7]), Value::Null, "Ignore")]), Failure::Counts);
        check(json!([exit("NotIn", json!([0]), json!("a"), "Ignore")]), Failure::Counts);
        check(
            json!([{"action": "FailJob", "onPodConditions":
                [{"type": "DisruptionTarget", "status": "True"}]}]),
            message("Pod n/p has condition DisruptionTarget matching FailJob rule at index 0"),
        );
    }

    #[test]
    fn successes() {
        let check = |rules: Value, succeeded: &str, expected: Option<usize>| {
            let spec = spec(&json!({"template": {}, "completions": 10,
                "successPolicy": {"rules": rules}}));
            let met = success(&spec, &Intervals::parse(succeeded, 10));
            assert_eq!(met, expected.map(|i| format!("Matched rules at index {i}")), "{rules}");
        };
        check(json!([{"succeededCount": 2}]), "3", None);
        check(json!([{"succeededCount": 2}]), "3,7", Some(0));
        check(json!([{"succeededIndexes": "0,5"}, {"succeededIndexes": "2-4"}]), "2-4", Some(1));
        check(json!([{"succeededIndexes": "0,5"}]), "1-9", None);
        check(json!([{"succeededIndexes": "0-5", "succeededCount": 2}]), "4-9", Some(0));
        check(json!([{"succeededCount": 0}]), "", None);
    }
}
