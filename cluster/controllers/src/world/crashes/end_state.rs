//! What two runs of one case have in common at rest: all objects, without what depends on the
//! moment or on chance. Those are times, UIDs, revisions, generations, addresses, on which node a
//! pod is, and names that derive from UIDs.

use std::collections::BTreeMap;

use super::*;

/// Fields that depend on how often something was written, or are drawn.
const DROPPED: [&str; 5] =
    ["uid", "resourceVersion", "generation", "observedGeneration", "request"];

/// Names that derive from UIDs, and what stands for them.
type Names = BTreeMap<String, String>;

/// One text an object, in order.
pub(super) fn of(world: &World) -> Vec<String> {
    let values: Vec<Value> = world.store.objects.values().map(codec::to_value).collect();
    let names = names(&values);
    let mut texts: Vec<String> = values.into_iter().map(|value| plain(value, &names)).collect();
    texts.sort();
    texts
}

fn names(values: &[Value]) -> Names {
    let mut names = Names::new();
    for value in values {
        let (Some(kind), Some(name)) = (value["kind"].as_str(), value["metadata"]["name"].as_str())
        else {
            continue;
        };
        let owners = value["metadata"]["ownerReferences"].as_array();
        let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let behind = match (kind, owner) {
            // Its pods are told apart by their names alone.
            ("Pod", Some(owner)) if owner["kind"] == "StatefulSet" => continue,
            ("Pod" | "EndpointSlice", Some(owner)) => &owner["name"],
            ("PersistentVolume", _) => &value["spec"]["claimRef"]["name"],
            _ => continue,
        };
        if let Some(behind) = behind.as_str() {
            names.insert(name.to_owned(), format!("{kind} of {behind}"));
        }
    }
    names
}

fn plain(mut value: Value, names: &Names) -> String {
    let observed = &value["status"]["observedGeneration"];
    if !observed.is_null() {
        let seen = *observed == value["metadata"]["generation"];
        value["status"]["observed"] = seen.into();
    }
    walk(&mut value, names);
    value.to_string()
}

fn walk(value: &mut Value, names: &Names) {
    match value {
        Value::String(text) => *text = replaced(text, names),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| walk(item, names));
            items.sort_by_key(Value::to_string);
        }
        Value::Object(fields) => {
            let before = std::mem::take(fields);
            for (key, mut field) in before {
                if !DROPPED.contains(&key.as_str()) {
                    walk(&mut field, names);
                    fields.insert(replaced(&key, names), field);
                }
            }
        }
        _ => {}
    }
}

/// The text with what differs from run to run masked.
fn replaced(text: &str, names: &Names) -> String {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return "time".to_owned();
    }
    let mut text = text.to_owned();
    for (name, behind) in names {
        if text.contains(name.as_str()) {
            text = text.replace(name.as_str(), behind);
        }
    }
    let digits = |c: char| c.is_ascii_digit();
    let dotted = |c: char| c.is_ascii_digit() || c == '.';
    text = masked(&text, "uid-", "uid", digits);
    text = masked(&text, "node-", "node", digits);
    text = masked(&text, "10.0.0.", "ip", digits);
    masked(&text, "10.244.", "range", dotted)
}

/// The text with each `prefix` and the characters behind it that count replaced.
fn masked(text: &str, prefix: &str, mask: &str, counts: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&counts);
        out += if rest.len() < part.len() { mask } else { prefix };
        out += rest;
    }
    out
}

#[test]
fn what_differs_by_chance_is_masked() {
    let names = Names::from([("web-x1".to_owned(), "Pod of web".to_owned())]);
    let check = |text: &str, expected: &str| assert_eq!(replaced(text, &names), expected);
    check("2001-09-09T01:46:40Z", "time");
    check("2001-09-09T01:46:40.000000Z", "time");
    check("uid-12/uid-7", "uid/uid");
    check("10.244.3.0/24 on node-12", "range/24 on node");
    check("10.0.0.17", "ip");
    check("pod web-x1 of web", "pod Pod of web of web");
    check("node-role", "node-role");
}
