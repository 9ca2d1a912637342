//! The paths of kinds: which operations there are, on what, and with which parameters.

use api::Kind;
use serde_json::{Map, Value, json};

use super::META;
use super::definitions::{REF, name_of};
use crate::discovery::{Sub, group_version, subresource, verbs};

/// The version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// The ways to write a patch, server-side apply left out.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// All paths of a kind.
pub(super) fn of_kind(kind: Kind, dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    Writer { kind, dialect }.add(&mut paths);
    paths
}

struct Writer {
    kind: Kind,
    dialect: Dialect,
}

impl Writer {
    fn add(&self, paths: &mut Map<String, Value>) {
        let info = self.kind.info();
        let own = Sub { kind: info.kind, api_version: info.api_version, verbs: verbs(self.kind) };
        let prefix = match info.group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/{}", info.version),
        };
        let collection = if self.kind.namespaced() {
            if own.verbs.contains(&"list") {
                let everywhere = format!("{prefix}/{}", info.plural);
                paths.insert(everywhere, self.item(&own, &[("list", "get")], &[]));
            }
            format!("{prefix}/namespaces/{{namespace}}/{}", info.plural)
        } else {
            format!("{prefix}/{}", info.plural)
        };
        let scope: &[&str] = if self.kind.namespaced() { &["namespace"] } else { &[] };
        let named: &[&str] =
            if self.kind.namespaced() { &["name", "namespace"] } else { &["name"] };
        let on_all = [("list", "get"), ("create", "post"), ("deletecollection", "delete")];
        let on_one = [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")];
        paths.insert(collection.clone(), self.item(&own, &on_all, scope));
        if own.verbs.contains(&"get") {
            paths.insert(format!("{collection}/{{name}}"), self.item(&own, &on_one, named));
        }
        for name in info.subresources {
            let sub = subresource(self.kind, name);
            let on_sub = [
                ("get", "get"),
                ("create", "post"),
                ("update", "put"),
                ("patch", "patch"),
                ("delete", "delete"),
            ];
            paths.insert(format!("{collection}/{{name}}/{name}"), self.item(&sub, &on_sub, named));
        }
    }

    /// One path: the operations among `methods` (verb, method) that `target` has.
    fn item(&self, target: &Sub, methods: &[(&str, &str)], variables: &[&str]) -> Value {
        let mut item = Map::new();
        for (verb, method) in methods {
            if target.verbs.contains(verb) {
                item.insert((*method).to_owned(), self.operation(target, verb));
            }
        }
        let variables: Vec<Value> =
            variables.iter().map(|name| self.parameter(name, "path", "string")).collect();
        if !variables.is_empty() {
            item.insert("parameters".to_owned(), json!(variables));
        }
        Value::Object(item)
    }

    fn operation(&self, target: &Sub, verb: &str) -> Value {
        let (group, version) = group_version(target.api_version);
        let mut operation = json!({
            "description": format!("{verb} {}", target.kind),
            "x-kubernetes-action": action(verb),
            "x-kubernetes-group-version-kind":
                {"group": group, "version": version, "kind": target.kind},
        });
        let mut parameters: Vec<Value> =
            query(verb).iter().map(|(name, ty)| self.parameter(name, "query", ty)).collect();
        let own = Kind::of_manifest(target.api_version, target.kind).map(name_of);
        let body = match verb {
            "create" | "update" => own.clone(),
            "patch" => Some(format!("{META}.Patch")),
            "delete" | "deletecollection" => Some(format!("{META}.DeleteOptions")),
            _ => None,
        };
        let answer = match verb {
            "list" => None,
            "delete" | "deletecollection" => Some(format!("{META}.Status")),
            _ => own,
        };
        if let Some(schema) = body.map(|name| self.reference(&name)) {
            let media = if verb == "patch" { PATCHES } else { &["application/json"] };
            match self.dialect {
                Dialect::V2 => {
                    operation["consumes"] = json!(media);
                    parameters.push(json!({"in": "body", "name": "body", "schema": schema}));
                }
                Dialect::V3 => {
                    let content: Map<String, Value> = media
                        .iter()
                        .map(|m| ((*m).to_owned(), json!({"schema": schema})))
                        .collect();
                    operation["requestBody"] = json!({"content": content});
                }
            }
        }
        let mut ok = json!({"description": "OK"});
        if let Some(schema) = answer.map(|name| self.reference(&name)) {
            match self.dialect {
                Dialect::V2 => ok["schema"] = schema,
                Dialect::V3 => ok["content"] = json!({"application/json": {"schema": schema}}),
            }
        }
        operation["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        operation
    }

    fn reference(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("{REF}{name}")}),
        }
    }

    fn parameter(&self, name: &str, place: &str, ty: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        if place == "path" {
            parameter["required"] = json!(true);
        }
        match self.dialect {
            Dialect::V2 => {
                parameter["type"] = json!(ty);
                parameter["uniqueItems"] = json!(true);
            }
            Dialect::V3 => parameter["schema"] = json!({"type": ty, "uniqueItems": true}),
        }
        parameter
    }
}

const fn action(verb: &str) -> &str {
    match verb.as_bytes() {
        b"create" => "post",
        b"update" => "put",
        _ => verb,
    }
}

/// The query parameters of a verb and their types.
const fn query(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb.as_bytes() {
        b"list" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        b"create" | b"update" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        }
        b"patch" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        b"delete" | b"deletecollection" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("propagationPolicy", "string"),
        ],
        _ => &[],
    }
}
