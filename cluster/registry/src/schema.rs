//! What every served message looks like: field numbers, JSON names, types and merge rules.
//!
//! One generated table serves the protobuf decoder, the strategic merge patch and the OpenAPI
//! documents, so that they cannot disagree.

use api::Kind;

#[rustfmt::skip]
mod table;

/// A message, or in JSON an object with fixed fields.
#[derive(Debug)]
pub struct Message {
    name: &'static str,
    /// The fields, by rising number.
    pub fields: &'static [Field],
    /// Whether server-side apply treats the object as one value (`+structType=atomic`).
    pub atomic: bool,
}

/// One field of a [`Message`].
#[derive(Debug)]
pub struct Field {
    /// The number on the wire.
    pub number: u32,
    /// The name in JSON; empty for an inlined message.
    pub name: &'static str,
    /// The type of the value, of one element or of one map value.
    pub ty: Type,
    /// How often it occurs and what its absence means.
    pub shape: Shape,
    /// How a strategic merge patch treats it.
    pub patch: Merge,
    /// How server-side apply treats a list.
    pub list: ListKind,
}

/// The type of a value.
#[derive(Debug)]
pub enum Type {
    /// Text.
    S,
    /// Bytes, in JSON as base64.
    Bytes,
    /// True or false.
    Bool,
    /// A signed integer of 32 or 64 bits.
    Int,
    /// `metav1.Time`: RFC 3339 to the second.
    Time,
    /// `metav1.MicroTime`: RFC 3339 to the microsecond.
    MicroTime,
    /// A quantity, which travels as its text.
    Quantity,
    /// A number or text.
    IntOrString,
    /// Any JSON, which travels as its text.
    Json,
    /// A list of text that is a message of its own on the wire (`ExtraValue`).
    Strings,
    /// Another message.
    M(&'static Message),
}

/// How often a field occurs and what a zero on the wire means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Always present in JSON.
    Required,
    /// Absent from JSON when zero.
    Optional,
    /// Absent from JSON only when absent from the wire.
    Pointer,
    /// Any number of values.
    List,
    /// Text keys and values.
    Map,
    /// A message whose fields stand in the parent's JSON.
    Inline,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// For lists: the field that tells elements apart, empty for lists of scalars; `None` when
    /// the list is replaced.
    pub key: Option<&'static str>,
    /// Whether an object is replaced as a whole.
    pub replace: bool,
    /// Whether clients send `$retainKeys` for the object (or each element).
    pub retain_keys: bool,
}

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// One value.
    Atomic,
    /// Scalars, each owned for itself.
    Set,
    /// Objects, told apart by these fields.
    Map(&'static [&'static str]),
}

impl Message {
    /// The message that carries objects of `kind`.
    pub const fn of_kind(kind: Kind) -> &'static Self {
        table::of_kind(kind)
    }

    /// The body of a delete.
    pub const fn delete_options() -> &'static Self {
        table::DELETE_OPTIONS
    }

    /// The name in OpenAPI documents, for example `io.k8s.api.core.v1.Pod`.
    pub fn definition(&self) -> String {
        format!("io.k8s.{}", self.name)
    }

    /// Finds a field by its JSON name, also within inlined messages.
    pub fn field(&self, json: &str) -> Option<&'static Field> {
        self.fields.iter().find_map(|field| match (&field.ty, field.shape) {
            (Type::M(inner), Shape::Inline) => inner.field(json),
            _ => (field.name == json).then_some(field),
        })
    }

    /// Finds a field by its number.
    pub fn numbered(&self, number: u32) -> Option<&'static Field> {
        let at = self.fields.binary_search_by_key(&number, |f| f.number).ok()?;
        self.fields.get(at)
    }
}

impl Field {
    /// The message of the value, of one element or of one map value.
    pub const fn message(&self) -> Option<&'static Message> {
        match self.ty {
            Type::M(message) => Some(message),
            _ => None,
        }
    }

    const fn merge(mut self, key: &'static str) -> Self {
        self.patch.key = Some(key);
        self
    }

    /// Merged by the same field in both worlds.
    const fn by(mut self, keys: &'static [&'static str]) -> Self {
        self.patch.key = Some(keys[0]);
        self.list = ListKind::Map(keys);
        self
    }

    const fn replace(mut self) -> Self {
        self.patch.replace = true;
        self
    }

    const fn retain_keys(mut self) -> Self {
        self.patch.retain_keys = true;
        self
    }

    const fn set(mut self) -> Self {
        self.list = ListKind::Set;
        self
    }

    const fn keyed(mut self, keys: &'static [&'static str]) -> Self {
        self.list = ListKind::Map(keys);
        self
    }

    const fn new(number: u32, name: &'static str, ty: Type, shape: Shape) -> Self {
        let patch = Merge { key: None, replace: false, retain_keys: false };
        Self { number, name, ty, shape, patch, list: ListKind::Atomic }
    }
}

impl Message {
    const fn atomic(mut self) -> Self {
        self.atomic = true;
        self
    }
}

const fn message(name: &'static str, fields: &'static [Field]) -> Message {
    Message { name, fields, atomic: false }
}

const fn req(number: u32, name: &'static str, ty: Type) -> Field {
    Field::new(number, name, ty, Shape::Required)
}

const fn opt(number: u32, name: &'static str, ty: Type) -> Field {
    Field::new(number, name, ty, Shape::Optional)
}

const fn ptr(number: u32, name: &'static str, ty: Type) -> Field {
    Field::new(number, name, ty, Shape::Pointer)
}

const fn list(number: u32, name: &'static str, ty: Type) -> Field {
    Field::new(number, name, ty, Shape::List)
}

const fn map(number: u32, name: &'static str, ty: Type) -> Field {
    Field::new(number, name, ty, Shape::Map)
}

const fn inline(number: u32, ty: Type) -> Field {
    Field::new(number, "", ty, Shape::Inline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_message_with_sorted_fields() {
        for kind in Kind::ALL {
            let message = Message::of_kind(*kind);
            assert!(message.definition().ends_with(&format!(".{}", kind.name())), "{kind}");
            assert!(message.fields.is_sorted_by_key(|f| f.number), "{kind}");
            assert!(message.field("metadata").is_some(), "{kind}");
        }
    }

    #[test]
    fn merge_rules_of_well_known_lists() {
        let check = |kind: Kind, path: &str, merge: Option<&str>, list: ListKind| {
            let mut message = Message::of_kind(kind);
            let (parents, last) = path.rsplit_once('.').unwrap();
            for name in parents.split('.') {
                message = message.field(name).unwrap().message().unwrap();
            }
            let field = message.field(last).unwrap();
            assert_eq!((field.patch.key, field.list), (merge, list), "{kind} {path}");
        };
        use ListKind::{Atomic, Map, Set};
        check(Kind::Pod, "spec.containers", Some("name"), Map(&["name"]));
        let ports = Map(&["containerPort", "protocol"]);
        check(Kind::Pod, "spec.containers.ports", Some("containerPort"), ports);
        check(Kind::Pod, "spec.ephemeralContainers.env", Some("name"), Map(&["name"]));
        check(Kind::Pod, "spec.tolerations", None, Atomic);
        check(Kind::Pod, "metadata.finalizers", Some(""), Set);
        check(Kind::Pod, "metadata.ownerReferences", Some("uid"), Map(&["uid"]));
        check(Kind::Service, "spec.ports", Some("port"), Map(&["port", "protocol"]));
        check(Kind::Node, "status.addresses", Some("type"), Map(&["type"]));
        check(Kind::Node, "spec.taints", None, Atomic);
        check(Kind::Node, "spec.podCIDRs", Some(""), Set);
        check(Kind::ServiceAccount, "metadata.labels", None, Atomic);
        let budget = Message::of_kind(Kind::PodDisruptionBudget).field("spec").unwrap();
        assert!(budget.message().unwrap().field("selector").unwrap().patch.replace);
        assert!(Message::of_kind(Kind::Pod).field("spec").unwrap().message().is_some());
    }
}
