//! The schemas of all types, with the extensions by which clients merge and find them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use api::Kind;
use k8s_openapi::api::{
    apps::v1 as apps, authentication::v1 as authn, authorization::v1 as authz,
    autoscaling::v1 as autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status};
use registry::schema::{Field, ListKind, Message, Shape};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

/// Schemas by name, as JSON text of version 3.
///
/// The texts are parts of one: many small ones would be scattered over all that making them
/// takes (some megabytes), and keep that from being given back.
pub(super) struct Definitions {
    text: String,
    at: BTreeMap<String, Range<usize>>,
}

impl Definitions {
    /// The schema of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.text.get(self.at.get(name)?.clone())
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &str)> {
        self.at.keys().filter_map(|name| Some((name, self.get(name)?)))
    }
}

/// Schemas by name while they are being made.
type Schemas = BTreeMap<String, Value>;

/// A size that all definitions together do not reach.
const TEXT_MAX: usize = 1 << 20;

/// What references begin with.
pub(super) const REF: &str = "#/components/schemas/";

/// The name of a kind's definition.
pub(super) fn name_of(kind: Kind) -> String {
    Message::of_kind(kind).definition()
}

/// The type that has the schema.
macro_rules! published {
    ($ty:ty) => {
        $ty
    };
    ($ty:ty as $published:ty) => {
        $published
    };
}

macro_rules! every_type {
    ($($kind:ident $ty:ty $(as $published:ty)?),*) => {
        fn add_kinds(generator: &mut SchemaGenerator) {
            $( let _ = generator.subschema_for::<published!($ty $(as $published)?)>(); )*
        }
    };
}
api::for_each_kind!(every_type);

/// Makes all definitions.
pub(super) fn all() -> Definitions {
    let mut text = String::with_capacity(TEXT_MAX);
    let mut at = BTreeMap::new();
    for (name, schema) in schemas() {
        let start = text.len();
        write!(text, "{}", version_3(schema)).expect("writing to a string cannot fail");
        at.insert(name, start..text.len());
    }
    text.shrink_to_fit();
    Definitions { text, at }
}

/// In version 3 a reference has no siblings: those stand beside an `allOf` with it.
fn version_3(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut fields: Map<String, Value> =
                fields.into_iter().map(|(key, value)| (key, version_3(value))).collect();
            if fields.len() > 1
                && fields.get("$ref").is_some_and(Value::is_string)
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            Value::Object(fields)
        }
        Value::Array(items) => items.into_iter().map(version_3).collect(),
        other => other,
    }
}

fn schemas() -> Schemas {
    let mut generator = SchemaSettings::openapi3().into_generator();
    add_kinds(&mut generator);
    let _ = generator.subschema_for::<DeleteOptions>();
    let _ = generator.subschema_for::<Status>();
    let mut definitions: Schemas = generator.take_definitions(false).into_iter().collect();
    special_types(&mut definitions);
    let mut done = BTreeSet::new();
    for kind in Kind::ALL {
        let message = Message::of_kind(*kind);
        annotate(message, &mut definitions, &mut done);
        if let Some(schema) = definitions.get_mut(&message.definition()) {
            let info = kind.info();
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": info.group, "kind": info.kind, "version": info.version}]);
            // The types always have metadata; manifests need not.
            if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name != "metadata");
            }
        }
    }
    for schema in definitions.values_mut() {
        if schema["required"] == json!([]) {
            schema.as_object_mut().map(|fields| fields.remove("required"));
        }
    }
    definitions
}

/// Types that are written in more than one way.
fn special_types(definitions: &mut Schemas) {
    let mut put = |name: &str, mut schema: Value| {
        let description = definitions.get(name).and_then(|d| d.get("description")).cloned();
        if let Some(description) = description {
            schema["description"] = description;
        }
        definitions.insert(name.to_owned(), schema);
    };
    put(
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
    );
    put(
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
    );
    put("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", json!({"type": "object"}));
    put(
        "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
        json!({"type": "object", "description": "A change to an object, in one of several forms."}),
    );
}

/// Adds the merge rules of a message and of all it refers to.
fn annotate(message: &'static Message, definitions: &mut Schemas, done: &mut BTreeSet<String>) {
    let name = message.definition();
    if !done.insert(name.clone()) {
        return;
    }
    if let Some(schema) = definitions.get_mut(&name) {
        if message.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            for (name, property) in properties {
                if let Some(field) = message.field(name) {
                    extend(property, field);
                }
            }
        }
    }
    for inner in message.fields.iter().filter_map(Field::message) {
        annotate(inner, definitions, done);
    }
}

fn extend(property: &mut Value, field: &Field) {
    let strategy = match (field.patch.key.is_some(), field.patch.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) if field.patch.replace => "replace",
        (false, false) => "",
    };
    if !strategy.is_empty() {
        property["x-kubernetes-patch-strategy"] = json!(strategy);
    }
    if let Some(key) = field.patch.key.filter(|k| !k.is_empty()) {
        property["x-kubernetes-patch-merge-key"] = json!(key);
    }
    if field.shape == Shape::List {
        property["x-kubernetes-list-type"] = json!(match field.list {
            ListKind::Atomic => "atomic",
            ListKind::Set => "set",
            ListKind::Map(_) => "map",
        });
        if let ListKind::Map(keys) = field.list {
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
}
