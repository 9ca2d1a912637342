//! The protobuf form of a version 2 document, which kubectl up to 1.28 insists on.
//!
//! Only what the documents of this server use is known here. Extensions travel as YAML text, of which
//! JSON is a part.
//!
//! Source: gnostic, `openapiv2/OpenAPIv2.proto`.

use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// Encodes a whole document of its paths and definitions.
pub(super) fn encode<'a>(
    info: &Value,
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (&'a String, Value)>,
) -> Vec<u8> {
    let mut out = Message::default();
    out.bytes(1, b"2.0");
    out.message(2, |out| {
        out.text(1, &info["title"]);
        out.text(2, &info["version"]);
    });
    out.message(8, |out| {
        for (path, item) in paths {
            out.named(2, &path, |out| path_item(out, &item));
        }
    });
    out.message(9, |out| {
        for (name, definition) in definitions {
            out.named(1, name, |out| schema(out, &definition));
        }
    });
    out.0
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn path_item(out: &mut Message, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(of) = item.get(method) {
            out.message(number, |out| operation(out, of));
        }
    }
    for item in items(&item["parameters"]) {
        out.message(9, |out| parameter(out, item));
    }
}

fn operation(out: &mut Message, of: &Value) {
    out.text(3, &of["description"]);
    for media in items(&of["consumes"]) {
        out.text(7, media);
    }
    for item in items(&of["parameters"]) {
        out.message(8, |out| parameter(out, item));
    }
    out.message(9, |responses| {
        for (code, response) in fields(&of["responses"]) {
            responses.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, &response["description"]);
                    if let Some(body) = response.get("schema") {
                        out.message(2, |item| item.message(1, |out| schema(out, body)));
                    }
                });
            });
        }
    });
    extensions(out, 13, of);
}

/// A parameter, wrapped in the alternatives it is one of.
fn parameter(out: &mut Message, parameter: &Value) {
    let place = parameter["in"].as_str().unwrap_or_default();
    out.message(1, |out| match place {
        "body" => out.message(1, |body| {
            body.text(2, &parameter["name"]);
            body.text(3, &parameter["in"]);
            body.message(5, |out| schema(out, &parameter["schema"]));
        }),
        _ => out.message(2, |out| {
            let (alternative, ty, unique) = if place == "query" { (3, 6, 20) } else { (4, 5, 19) };
            out.message(alternative, |out| {
                out.flag(1, &parameter["required"]);
                out.text(2, &parameter["in"]);
                out.text(4, &parameter["name"]);
                out.text(ty, &parameter["type"]);
                out.flag(unique, &parameter["uniqueItems"]);
            });
        }),
    });
}

fn schema(out: &mut Message, of: &Value) {
    out.text(1, &of["$ref"]);
    out.text(2, &of["format"]);
    out.text(4, &of["description"]);
    for name in items(&of["required"]) {
        out.text(19, name);
    }
    if let Some(additional) = of.get("additionalProperties") {
        out.message(21, |item| item.message(1, |out| schema(out, additional)));
    }
    if let Some(ty) = of.get("type") {
        out.message(22, |item| item.text(1, ty));
    }
    if let Some(element) = of.get("items") {
        out.message(23, |item| item.message(1, |out| schema(out, element)));
    }
    if let Some(properties) = of.get("properties") {
        out.message(25, |out| {
            for (name, property) in fields(properties) {
                out.named(1, name, |out| schema(out, property));
            }
        });
    }
    extensions(out, 31, of);
}

fn extensions(out: &mut Message, number: u32, of: &Value) {
    let of: Option<&Fields> = of.as_object();
    for (name, value) in of.into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        out.named(number, name, |any| any.bytes(2, value.to_string().as_bytes()));
    }
}

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).expect("seven bits"));
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(usize::try_from(number << 3 | 2).expect("numbers are small"));
        self.varint(bytes.len());
        self.0.extend(bytes);
    }

    /// Text, unless it is absent or empty.
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    /// True, unless it is not.
    fn flag(&mut self, number: u32, value: &Value) {
        if *value == Value::Bool(true) {
            self.varint(usize::try_from(number << 3).expect("numbers are small"));
            self.varint(1);
        }
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// One entry of a map: its name and a message.
    fn named(&mut self, number: u32, name: &str, write: impl FnOnce(&mut Self)) {
        self.message(number, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, write);
        });
    }
}
