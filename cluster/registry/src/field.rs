//! Paths of fields and the list of what is wrong with them, worded as Kubernetes words it.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/validation/field`.

use api::{Cause, Kind, Status};

mod shown;

pub(crate) use shown::{Json, Labels, PortPair, Shown};

/// The path of a field, such as `spec.containers[0].name`.
///
/// It becomes text only when something is wrong: a path is a step from the path it was made
/// of, and checking sound objects makes nothing but steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A field of the object itself.
    pub(crate) const fn new(field: &'a str) -> Self {
        Self { parent: None, step: Step::Field(field) }
    }

    /// A field of this field.
    pub(crate) const fn child(&'a self, field: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(field) }
    }

    /// An element of this list.
    pub(crate) const fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    /// A value of this map.
    pub(crate) const fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }

    /// The path as text.
    fn text(&self) -> String {
        let mut text = self.parent.map(Self::text).unwrap_or_default();
        match self.step {
            Step::Field(field) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(field);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => text.push_str(&format!("[{key}]")),
        }
        text
    }
}

/// Everything that is wrong with an object, in the order it was found.
#[derive(Debug, Default)]
pub(crate) struct Causes(Vec<Cause>);

impl Causes {
    /// A required field is absent.
    pub(crate) fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add("FieldValueRequired", path, with_detail("Required value", detail));
    }

    /// A value is malformed or out of bounds.
    pub(crate) fn invalid(&mut self, path: &Path<'_>, value: impl Shown, detail: &str) {
        let head = format!("Invalid value: {}", value.shown());
        self.add("FieldValueInvalid", path, with_detail(&head, detail));
    }

    /// A value is wrong as a whole: which, only the path tells.
    pub(crate) fn invalid_whole(&mut self, path: &Path<'_>, detail: &str) {
        self.add("FieldValueInvalid", path, with_detail("Invalid value", detail));
    }

    /// A value is none of those that exist.
    pub(crate) fn not_supported(&mut self, path: &Path<'_>, value: impl Shown, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", value.shown(), list.join(", "));
        self.add("FieldValueNotSupported", path, message);
    }

    /// A value must be unique and is not.
    pub(crate) fn duplicate(&mut self, path: &Path<'_>, value: impl Shown) {
        let message = format!("Duplicate value: {}", value.shown());
        self.add("FieldValueDuplicate", path, message);
    }

    /// A value must be unique by some of its fields and is not.
    pub(crate) fn duplicate_with(&mut self, path: &Path<'_>, value: impl Shown, detail: &str) {
        let message = format!("Duplicate value: {}: {detail}", value.shown());
        self.add("FieldValueDuplicate", path, message);
    }

    /// A value refers to something that does not exist.
    pub(crate) fn not_found(&mut self, path: &Path<'_>, value: impl Shown) {
        let message = format!("Not found: {}", value.shown());
        self.add("FieldValueNotFound", path, message);
    }

    /// A value is not permitted here.
    pub(crate) fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.add("FieldValueForbidden", path, with_detail("Forbidden", detail));
    }

    /// A value has too many bytes.
    pub(crate) fn too_long(&mut self, path: &Path<'_>, bytes_max: usize) {
        let message = format!("Too long: may not be more than {bytes_max} bytes");
        self.add("FieldValueTooLong", path, message);
    }

    /// A list has too many items.
    pub(crate) fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        let message = format!("Too many: {actual}: must have at most {max} items");
        self.add("FieldValueTooMany", path, message);
    }

    /// A value must not change.
    pub(crate) fn immutable<T: Shown + PartialEq>(&mut self, path: &Path<'_>, new: &T, old: &T) {
        if new != old {
            self.invalid(path, new, "field is immutable");
        }
    }

    /// One `invalid` for each message.
    pub(crate) fn invalid_each(&mut self, path: &Path<'_>, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, &message);
        }
    }

    /// A number must not be negative.
    pub(crate) fn non_negative(&mut self, path: &Path<'_>, value: i64) {
        if value < 0 {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// Appends what another check found.
    pub(crate) fn extend(&mut self, other: Self) {
        for cause in other.0 {
            self.push(cause);
        }
    }

    /// Whether nothing is wrong.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses the object if anything is wrong with it.
    pub(crate) fn into_result(self, kind: Kind, name: &str) -> Result<(), Status> {
        if self.0.is_empty() { Ok(()) } else { Err(Status::invalid(kind, name, self.0)) }
    }

    fn add(&mut self, reason: &str, path: &Path<'_>, message: String) {
        let reason = reason.to_owned();
        self.push(Cause { reason, message, field: path.text() });
    }

    /// The same finding is reported once.
    fn push(&mut self, cause: Cause) {
        if !self.0.contains(&cause) {
            self.0.push(cause);
        }
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

/// Quotes text as error messages do.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let path = Path::new("spec");
        let path = path.child("ports");
        let path = path.index(0);
        let path = path.child("name");
        let mut causes = Causes::default();
        causes.required(&path, "");
        causes.required(&path, "why");
        causes.invalid(&path, "a\"b", "no");
        causes.invalid(&path, 5, "no");
        causes.not_supported(&path, "x", &["A", "B"]);
        causes.duplicate(&path, "x");
        causes.duplicate(&path, "x");
        causes.forbidden(&path, "never");
        causes.too_long(&path, 3);
        causes.too_many(&Path::new("spec").key("k"), 5, 3);
        causes.not_found(&path, "v");
        let status = causes.into_result(Kind::Service, "s").unwrap_err();
        insta::assert_snapshot!(status.message.replace(", spec", ",\nspec"), @r#"
        Service "s" is invalid: [spec.ports[0].name: Required value,
        spec.ports[0].name: Required value: why,
        spec.ports[0].name: Invalid value: "a\"b": no,
        spec.ports[0].name: Invalid value: 5: no,
        spec.ports[0].name: Unsupported value: "x": supported values: "A", "B",
        spec.ports[0].name: Duplicate value: "x",
        spec.ports[0].name: Forbidden: never,
        spec.ports[0].name: Too long: may not be more than 3 bytes,
        spec[k]: Too many: 5: must have at most 3 items,
        spec.ports[0].name: Not found: "v"]
        "#);
    }
}
