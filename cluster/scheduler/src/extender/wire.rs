//! What is said to extenders, and what they answer, as JSON.
//!
//! Kubernetes writes the names of Go's fields as they are and reads them whatever their case: so
//! do we.
//!
//! Source: kubernetes 1.33, `k8s.io/kube-scheduler/extender/v1`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The nodes that a question is about.
pub(crate) enum Nodes {
    /// Their names, for extenders that know nodes.
    Names(Vec<String>),
    /// The nodes themselves, as JSON.
    Whole(Vec<Vec<u8>>),
}

/// The pods of a node that would have to go.
pub(crate) struct Going {
    pub(crate) node: String,
    pub(crate) violations: usize,
    /// Each pod's UID, and the pod itself as JSON for extenders that know no pods.
    pub(crate) pods: Vec<(String, Option<Vec<u8>>)>,
}

/// What an extender leaves over of nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filtered {
    /// The names of those that can take the pod.
    pub(crate) nodes: Vec<String>,
    /// Why others cannot.
    pub(crate) failed: BTreeMap<String, String>,
    /// The same, where it is of no use that pods leave.
    pub(crate) unresolvable: BTreeMap<String, String>,
}

/// The pods that may go, by UID, and how many budgets that violates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Victims {
    pub(crate) uids: Vec<String>,
    pub(crate) violations: usize,
}

type Raw = Box<RawValue>;

/// Objects are encoded already; what is no JSON cannot come from there.
fn raw(json: Vec<u8>) -> Raw {
    let text = String::from_utf8(json).expect("JSON is text");
    RawValue::from_string(text).expect("an encoded object is JSON")
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and encoded objects are JSON")
}

/// The question which of some nodes can take a pod, or how good they are.
pub(crate) fn about_nodes(pod: Vec<u8>, nodes: Nodes) -> String {
    #[derive(Serialize)]
    struct List {
        metadata: BTreeMap<(), ()>,
        items: Vec<Raw>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Args {
        pod: Raw,
        nodes: Option<List>,
        node_names: Option<Vec<String>>,
    }
    let (nodes, node_names) = match nodes {
        Nodes::Names(names) => (None, Some(names)),
        Nodes::Whole(nodes) => {
            let items = nodes.into_iter().map(raw).collect();
            (Some(List { metadata: BTreeMap::new(), items }), None)
        }
    };
    text(&Args { pod: raw(pod), nodes, node_names })
}

/// The question whether pods may go.
pub(crate) fn about_victims(pod: Vec<u8>, going: Vec<Going>, by_uid: bool) -> String {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Victim {
        Whole(Raw),
        Meta {
            #[serde(rename = "UID")]
            uid: String,
        },
    }
    #[derive(Serialize)]
    struct Victims {
        #[serde(rename = "Pods")]
        pods: Vec<Victim>,
        #[serde(rename = "NumPDBViolations")]
        violations: usize,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Args {
        pod: Raw,
        node_name_to_victims: Option<BTreeMap<String, Victims>>,
        node_name_to_meta_victims: Option<BTreeMap<String, Victims>>,
    }
    let of_node = |Going { node, violations, pods }| {
        let victim = |(uid, pod): (String, Option<Vec<u8>>)| match pod {
            Some(pod) => Victim::Whole(raw(pod)),
            None => Victim::Meta { uid },
        };
        (node, Victims { pods: pods.into_iter().map(victim).collect(), violations })
    };
    let all: BTreeMap<String, Victims> = going.into_iter().map(of_node).collect();
    let (whole, meta) = if by_uid { (None, Some(all)) } else { (Some(all), None) };
    text(&Args { pod: raw(pod), node_name_to_victims: whole, node_name_to_meta_victims: meta })
}

/// The request to bind a pod.
pub(crate) fn binding(namespace: &str, name: &str, uid: &str, node: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Args<'a> {
        pod_name: &'a str,
        pod_namespace: &'a str,
        #[serde(rename = "PodUID")]
        pod_uid: &'a str,
        node: &'a str,
    }
    text(&Args { pod_name: name, pod_namespace: namespace, pod_uid: uid, node })
}

/// Which nodes are left over.
///
/// # Errors
/// The extender tells one, or this is no answer to such a question.
pub(crate) fn filtered(answer: &str, by_name: bool) -> Result<Filtered, String> {
    let answer = read(answer)?;
    refusal(&answer)?;
    let reasons = |name| strings(member(&answer, name), name);
    let names = member(&answer, "NodeNames").filter(|_| by_name);
    let nodes = match names {
        Some(names) => list(Some(names), "NodeNames")?
            .iter()
            .map(|name| string(Some(name), "NodeNames"))
            .collect::<Result<_, _>>()?,
        None => {
            let items = member(&answer, "Nodes").and_then(|nodes| member(nodes, "items"));
            list(items, "Nodes")?
                .iter()
                .map(|node| {
                    let name = member(node, "metadata").and_then(|meta| member(meta, "name"));
                    string(name, "Nodes")
                })
                .collect::<Result<_, _>>()?
        }
    };
    let failed = reasons("FailedNodes")?;
    Ok(Filtered { nodes, failed, unresolvable: reasons("FailedAndUnresolvableNodes")? })
}

/// How good nodes are.
///
/// # Errors
/// This is no answer to such a question.
pub(crate) fn prioritized(answer: &str) -> Result<Vec<(String, i64)>, String> {
    let answer = read(answer)?;
    let list = list(Some(&answer).filter(|answer| !answer.is_null()), "HostPriorityList")?;
    list.iter()
        .map(|entry| Ok((string(member(entry, "Host"), "Host")?, number(entry, "Score")?)))
        .collect()
}

/// Which pods may go, by node.
///
/// # Errors
/// This is no answer to such a question.
pub(crate) fn victims(answer: &str) -> Result<BTreeMap<String, Victims>, String> {
    const FIELD: &str = "NodeNameToMetaVictims";
    let answer = read(answer)?;
    let Some(nodes) = member(&answer, FIELD) else { return Ok(BTreeMap::new()) };
    let nodes = nodes.as_object().ok_or_else(|| misfit(FIELD, nodes))?;
    let of_node = |(node, victims): (&String, &Value)| {
        let pods = list(member(victims, "Pods"), "Pods")?;
        let uids = pods.iter().map(|pod| string(member(pod, "UID"), "UID"));
        let violations = number(victims, "NumPDBViolations")?;
        let violations = usize::try_from(violations).unwrap_or(0);
        Ok((node.clone(), Victims { uids: uids.collect::<Result<_, String>>()?, violations }))
    };
    nodes.iter().map(of_node).collect()
}

/// Whether the pod is bound.
///
/// # Errors
/// It is not, or this is no answer to such a question.
pub(crate) fn bound(answer: &str) -> Result<(), String> {
    refusal(&read(answer)?)
}

fn refusal(answer: &Value) -> Result<(), String> {
    match string(member(answer, "Error"), "Error")? {
        error if error.is_empty() => Ok(()),
        error => Err(error),
    }
}

fn read(answer: &str) -> Result<Value, String> {
    serde_json::from_str(answer).map_err(|error| format!("the answer is no JSON: {error}"))
}

/// A field, whatever its case; null is none.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    let found = fields.get(name).or_else(|| {
        fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    });
    found.filter(|value| !value.is_null())
}

fn misfit(field: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("the answer cannot be understood: {field} is {found}")
}

fn list<'a>(value: Option<&'a Value>, field: &str) -> Result<&'a [Value], String> {
    let Some(value) = value else { return Ok(&[]) };
    value.as_array().map(Vec::as_slice).ok_or_else(|| misfit(field, value))
}

fn string(value: Option<&Value>, field: &str) -> Result<String, String> {
    let Some(value) = value else { return Ok(String::new()) };
    value.as_str().map(str::to_owned).ok_or_else(|| misfit(field, value))
}

fn number(value: &Value, field: &str) -> Result<i64, String> {
    let Some(value) = member(value, field) else { return Ok(0) };
    value.as_i64().ok_or_else(|| misfit(field, value))
}

fn strings(value: Option<&Value>, field: &str) -> Result<BTreeMap<String, String>, String> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let fields = value.as_object().ok_or_else(|| misfit(field, value))?;
    let each = |(name, value): (&String, &Value)| Ok((name.clone(), string(Some(value), field)?));
    fields.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Vec<u8> {
        br#"{"kind":"Pod"}"#.to_vec()
    }

    #[test]
    fn questions_bear_the_names_of_gos_fields() {
        let names = Nodes::Names(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(
            about_nodes(pod(), names),
            r#"{"Pod":{"kind":"Pod"},"Nodes":null,"NodeNames":["a","b"]}"#
        );
        assert_eq!(
            about_nodes(pod(), Nodes::Whole(vec![br#"{"kind":"Node"}"#.to_vec()])),
            r#"{"Pod":{"kind":"Pod"},"Nodes":{"metadata":{},"items":[{"kind":"Node"}]},"NodeNames":null}"#
        );
        let going = |whole: bool| {
            let pods = vec![("u".to_owned(), whole.then(pod))];
            vec![Going { node: "n".to_owned(), violations: 2, pods }]
        };
        assert_eq!(
            about_victims(pod(), going(false), true),
            r#"{"Pod":{"kind":"Pod"},"NodeNameToVictims":null,"NodeNameToMetaVictims":{"n":{"Pods":[{"UID":"u"}],"NumPDBViolations":2}}}"#
        );
        assert_eq!(
            about_victims(pod(), going(true), false),
            r#"{"Pod":{"kind":"Pod"},"NodeNameToVictims":{"n":{"Pods":[{"kind":"Pod"}],"NumPDBViolations":2}},"NodeNameToMetaVictims":null}"#
        );
        assert_eq!(
            binding("d", "p", "u", "n"),
            r#"{"PodName":"p","PodNamespace":"d","PodUID":"u","Node":"n"}"#
        );
    }

    #[test]
    fn answers_are_read_whatever_their_case() {
        let by_name = filtered(
            r#"{"nodenames": ["a"], "failedNodes": {"b": "no"}, "FAILEDANDUNRESOLVABLENODES": {"c": "never"}, "error": ""}"#,
            true,
        );
        let reasons = |node: &str, why: &str| BTreeMap::from([(node.to_owned(), why.to_owned())]);
        let expected = Filtered {
            nodes: vec!["a".to_owned()],
            failed: reasons("b", "no"),
            unresolvable: reasons("c", "never"),
        };
        assert_eq!(by_name, Ok(expected));
        let whole = r#"{"Nodes": {"items": [{"metadata": {"name": "a"}}]}, "NodeNames": ["b"]}"#;
        assert_eq!(filtered(whole, false).unwrap().nodes, ["a"]);
        assert_eq!(filtered(whole, true).unwrap().nodes, ["b"]);
        // Nobody says which: none.
        assert_eq!(filtered(r#"{"NodeNames": ["b"]}"#, false), Ok(Filtered::default()));
        assert_eq!(
            filtered(r#"{"Nodes": null, "NodeNames": null}"#, true),
            Ok(Filtered::default())
        );
        assert_eq!(
            prioritized(r#"[{"host": "a", "score": 7}, {"Host": "b"}]"#),
            Ok(vec![("a".to_owned(), 7), ("b".to_owned(), 0)])
        );
        assert_eq!(prioritized("null"), Ok(Vec::new()));
        let answer = victims(
            r#"{"NodeNameToMetaVictims": {"n": {"pods": [{"uid": "u"}], "numPDBViolations": 1}, "m": null}}"#,
        )
        .unwrap();
        assert_eq!(answer["n"], Victims { uids: vec!["u".to_owned()], violations: 1 });
        assert_eq!(answer["m"], Victims { uids: Vec::new(), violations: 0 });
        assert_eq!(victims("{}"), Ok(BTreeMap::new()));
        assert_eq!(bound("{}"), Ok(()));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let check = |found: Result<(), String>, expected: &str| {
            assert!(found.as_ref().is_err_and(|e| e.contains(expected)), "{found:?}");
        };
        let filtered = |text: &str| filtered(text, true).map(drop);
        check(filtered(r#"{"Error": "out of order"}"#), "out of order");
        check(filtered("<html>"), "the answer is no JSON: ");
        check(filtered(r#"{"NodeNames": "a"}"#), "NodeNames is a string");
        check(filtered(r#"{"FailedNodes": {"a": 1}}"#), "FailedNodes is a number");
        check(prioritized(r#"{"Host": "a"}"#).map(drop), "HostPriorityList is an object");
        check(prioritized(r#"[{"Host": "a", "Score": 1.5}]"#).map(drop), "Score is a number");
        check(victims(r#"{"NodeNameToMetaVictims": []}"#).map(drop), "is a list");
        check(bound(r#"{"error": "no"}"#), "no");
        check(bound(""), "no JSON");
    }
}
