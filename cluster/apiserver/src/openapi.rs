//! OpenAPI documents: one a group (version 3) and one for all (version 2).
//!
//! Clients read them to explain fields, to validate manifests and to merge lists the way the
//! server does. They are made from the same types and the same table of merge rules that the
//! server itself uses, on first demand; what is kept is well under a megabyte.
//!
//! Source: kubernetes 1.33, `api/openapi-spec`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use api::{Kind, Reason, Status};
use serde_json::{Map, Value, json};

use crate::discovery::{self, Document, JSON};

mod definitions;
mod gnostic;
mod paths;

#[cfg(test)]
mod tests;

use definitions::{Definitions, REF};
use paths::Dialect;

/// Where the documents of version 3 are.
const ROOT: &str = "/openapi/v3";

/// The protobuf form of version 2; kubectl up to 1.28 takes no other.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// What is kept: the definitions once, as text. Documents are put together from it.
struct Kept {
    definitions: Definitions,
    index: Document,
    /// Group and version of each document of version 3, by path, and the hash of its text.
    groups: BTreeMap<String, (&'static str, &'static str, String)>,
}

static KEPT: LazyLock<Kept> = LazyLock::new(|| {
    let definitions = definitions::all();
    let mut groups = BTreeMap::new();
    let mut index = Map::new();
    for (group, version) in group_versions() {
        let name = match group {
            "" => "api/v1".to_owned(),
            group => format!("apis/{group}/{version}"),
        };
        let hash = discovery::hash(group_document(group, version, &definitions).as_bytes());
        let address = json!({"serverRelativeURL": format!("{ROOT}/{name}?hash={hash}")});
        groups.insert(format!("{ROOT}/{name}"), (group, version, hash));
        index.insert(name, address);
    }
    let index = Document::new(json!({"paths": index}).to_string(), JSON);
    Kept { definitions, index, groups }
});

static V2_PROTOBUF: LazyLock<Document> = LazyLock::new(|| {
    let definitions = KEPT.definitions.iter().map(|(name, text)| (name, version_2(text)));
    Document::new(gnostic::encode(&info(), swagger_paths(), definitions), PROTOBUF)
});

/// Finds the document at `path`. `hash` is the query parameter of that name, `accept` the
/// header. `None` when there is no such document.
///
/// The first call takes tens of milliseconds.
///
/// # Errors
/// `NotAcceptable` when the client takes none of the forms it has.
pub(crate) fn find(path: &str, hash: &str, accept: &str) -> Option<Result<Document, Status>> {
    let path = path.trim_end_matches('/');
    if path == "/openapi/v2" && takes_protobuf(accept) {
        return Some(Ok(V2_PROTOBUF.clone()));
    }
    let group = match path {
        "/openapi/v2" | ROOT => None,
        // Nothing is made for a path that only looks for something else.
        path if !path.starts_with(ROOT) => return None,
        path => Some(KEPT.groups.get(path)?),
    };
    if !takes_json(accept) {
        return Some(Err(not_acceptable()));
    }
    Some(Ok(match group {
        Some((group, version, current)) => {
            let text = group_document(group, version, &KEPT.definitions);
            let mut document = Document::new(text, JSON);
            document.immutable = current == hash;
            document
        }
        None if path == ROOT => KEPT.index.clone(),
        None => Document::new(swagger(), JSON),
    }))
}

fn takes_json(accept: &str) -> bool {
    accept.trim().is_empty()
        || accept.split(',').any(|range| {
            let media = range.split(';').next().unwrap_or_default().trim();
            matches!(media, "application/json" | "application/*" | "*/*")
        })
}

/// Whether the client prefers the protobuf form of version 2.
fn takes_protobuf(accept: &str) -> bool {
    let first = accept.split([',', ';']).next().unwrap_or_default().trim();
    // Older clients write the version with an @, which no media type may have.
    first.replace('@', ".") == PROTOBUF
}

fn not_acceptable() -> Status {
    Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json",
    )
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": api::version::GIT_VERSION})
}

/// Every version of every group.
fn group_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let groups = std::iter::once("").chain(discovery::groups());
    groups.flat_map(|group| discovery::versions_of(group).iter().map(move |v| (group, *v)))
}

/// The document of one version of a group: its paths and every definition they lead to.
fn group_document(group: &str, version: &str, definitions: &Definitions) -> String {
    let kinds = discovery::kinds_of(group, version);
    let mut text = format!(r#"{{"openapi":"3.0.0","info":{},"paths":{{"#, info());
    put_entries(&mut text, kinds.iter().flat_map(|k| paths::of_kind(*k, Dialect::V3)));
    text += r#"},"components":{"schemas":{"#;
    let reachable = reachable(&kinds, definitions);
    put_entries(
        &mut text,
        reachable.iter().filter_map(|name| Some((name, definitions.get(name)?))),
    );
    text += "}}}";
    text
}

/// Appends `"key":value` for each entry, with commas between.
fn put_entries<K: AsRef<str>, V: std::fmt::Display>(
    text: &mut String,
    entries: impl Iterator<Item = (K, V)>,
) {
    for (i, (key, value)) in entries.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let key = Value::from(key.as_ref());
        write!(text, "{comma}{key}:{value}").expect("writing to a string cannot fail");
    }
}

/// The names of all definitions that the paths of the kinds lead to.
fn reachable(kinds: &[Kind], definitions: &Definitions) -> BTreeSet<String> {
    let mut open: Vec<String> =
        ["DeleteOptions", "Patch", "Status"].iter().map(|name| format!("{META}.{name}")).collect();
    for kind in kinds {
        open.push(definitions::name_of(*kind));
        let subs = kind.info().subresources.iter().map(|s| discovery::subresource(*kind, s));
        let kinds = subs.filter_map(|s| Kind::of_manifest(s.api_version, s.kind));
        open.extend(kinds.map(definitions::name_of));
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        let schema = definitions.get(&name).unwrap_or_default();
        let references = schema.split(REF).skip(1).filter_map(|rest| rest.split('"').next());
        open.extend(references.map(str::to_owned));
        seen.insert(name);
    }
    seen
}

/// The one document of version 2.
fn swagger() -> String {
    let mut text = format!(r#"{{"swagger":"2.0","info":{},"paths":{{"#, info());
    put_entries(&mut text, swagger_paths());
    text += r#"},"definitions":{"#;
    put_entries(&mut text, KEPT.definitions.iter().map(|(name, text)| (name, version_2(text))));
    text += "}}";
    text
}

fn swagger_paths() -> impl Iterator<Item = (String, Value)> {
    group_versions()
        .flat_map(|(group, version)| discovery::kinds_of(group, version))
        .flat_map(|kind| paths::of_kind(kind, Dialect::V2))
}

/// A definition in version 2: references elsewhere and with siblings, and no alternatives.
fn version_2(text: &str) -> Value {
    fn convert(schema: Value) -> Value {
        match schema {
            Value::Object(mut fields) => {
                if fields.remove("oneOf").is_some() {
                    fields.insert("type".to_owned(), json!("string"));
                }
                if let Some(all) = fields.remove("allOf") {
                    fields.insert("$ref".to_owned(), all[0]["$ref"].clone());
                }
                let fields = fields.into_iter().map(|(key, value)| match value {
                    Value::String(text) if key == "$ref" => {
                        (key, json!(text.replacen(REF, "#/definitions/", 1)))
                    }
                    value => (key, convert(value)),
                });
                Value::Object(fields.collect())
            }
            Value::Array(items) => items.into_iter().map(convert).collect(),
            other => other,
        }
    }
    convert(serde_json::from_str(text).expect("definitions are JSON"))
}
