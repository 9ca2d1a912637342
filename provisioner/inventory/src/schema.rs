//! The JSON schema of the inventory, and the checker that holds a file against it.
//!
//! The schema that editors get and the schema that kprov checks are one value, made from the
//! structs of `document`. Unlike a deserializer, the checker does not stop: it reports every
//! unknown key and every wrong type with its place, leaves those parts out, and hands on the rest.

use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::diagnostics::Problem;
use super::document::Document;
use super::suggest;

/// Returns the JSON schema of the inventory (draft 2020-12), as `kprov schema` prints it.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    drop_null(&mut schema);
    schema
}

/// Takes out the `null` that stands for an absent value: TOML has none.
fn drop_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        Value::Object(fields) => {
            fields.retain(|name, value| name != "default" || !value.is_null());
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|c| c["type"] != "null");
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
            fields.values_mut().for_each(drop_null);
        }
        _ => {}
    }
}

/// Checks `table` against `schema` and returns what is well-formed of it.
pub(crate) fn check(
    schema: &Value,
    table: &Spanned<DeTable<'_>>,
    problems: &mut Vec<Problem>,
) -> Value {
    let mut checker = Checker { root: schema, problems };
    checker.table(schema, table.get_ref(), &table.span(), &mut Vec::new())
}

struct Checker<'a> {
    root: &'a Value,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// Follows a reference; in our schema none leads to another.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.trim_start_matches('#');
                self.root.pointer(pointer).unwrap_or(&Value::Null)
            }
            None => schema,
        }
    }

    fn value(
        &mut self,
        schema: &'a Value,
        value: &Spanned<DeValue<'_>>,
        path: &mut Vec<String>,
    ) -> Option<Value> {
        let schema = self.resolve(schema);
        let span = value.span();
        let value = value.get_ref();
        if let Some(allowed) = choices(schema) {
            return self.choice(&allowed, value, &span, path);
        }
        let types = types(schema);
        match value {
            DeValue::Table(table) if types.contains(&"object") => {
                Some(self.table(schema, table, &span, path))
            }
            DeValue::Array(array) if types.contains(&"array") => {
                Some(self.array(schema, array, path))
            }
            DeValue::String(text) if types.contains(&"string") => {
                Some(Value::String(text.to_string()))
            }
            DeValue::Boolean(truth) if types.contains(&"boolean") => Some(Value::Bool(*truth)),
            DeValue::Integer(number) if types.contains(&"integer") => {
                self.integer(schema, number, &span, path)
            }
            other => {
                self.wrong_type(&types, other, &span, path);
                None
            }
        }
    }

    fn table(
        &mut self,
        schema: &'a Value,
        table: &DeTable<'_>,
        span: &Range<usize>,
        path: &mut Vec<String>,
    ) -> Value {
        let known = schema["properties"].as_object();
        let free = schema["additionalProperties"].as_object().map(|_| {
            let schema: &'a Value = &schema["additionalProperties"];
            schema
        });
        let mut kept = Map::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            path.push(name.to_owned());
            match known.and_then(|k| k.get(name)).or(free) {
                Some(schema) => {
                    if let Some(value) = self.value(schema, value, path) {
                        kept.insert(name.to_owned(), value);
                    }
                }
                None => self.unknown_key(known, name, key.span(), path),
            }
            path.pop();
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            let name = required.as_str().unwrap_or_default();
            if !table.contains_key(name) {
                let place = match path.last() {
                    Some(_) => format!("`{}` has no `{name}`", dotted(path)),
                    None => format!("there is no `[{name}]`"),
                };
                let problem = Problem::error(place).at(span.clone(), format!("needs `{name}`"));
                self.problems.push(match &schema["properties"][name]["description"] {
                    Value::String(text) => problem.help(format!("`{name}`: {text}")),
                    _ => problem,
                });
            }
        }
        Value::Object(kept)
    }

    fn array(&mut self, schema: &'a Value, array: &DeArray<'_>, path: &mut Vec<String>) -> Value {
        let mut kept = Vec::new();
        for (index, item) in array.iter().enumerate() {
            path.push(index.to_string());
            // A hole is kept as a hole where a table was: later findings are told by index.
            match self.value(&schema["items"], item, path) {
                Some(value) => kept.push(value),
                None if types(self.resolve(&schema["items"])).contains(&"object") => {
                    kept.push(Value::Object(Map::new()));
                }
                None => {}
            }
            path.pop();
        }
        Value::Array(kept)
    }

    fn choice(
        &mut self,
        allowed: &[&str],
        value: &DeValue<'_>,
        span: &Range<usize>,
        path: &[String],
    ) -> Option<Value> {
        let Some(text) = value.as_str() else {
            self.wrong_type(&["string"], value, span, path);
            return None;
        };
        if allowed.contains(&text) {
            return Some(Value::String(text.to_owned()));
        }
        let what = dotted(path);
        self.problems.push(
            Problem::error(format!("`{what}` cannot be `{text}`"))
                .at(span.clone(), format!("not {}", suggest::list(allowed)))
                .help(suggest::did_you_mean(text, allowed)),
        );
        None
    }

    fn integer(
        &mut self,
        schema: &Value,
        number: &DeInteger<'_>,
        span: &Range<usize>,
        path: &[String],
    ) -> Option<Value> {
        let digits = number.as_str().replace('_', "");
        let parsed = i64::from_str_radix(&digits, number.radix()).ok();
        let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        match parsed {
            Some(number) if (least..=most).contains(&number) => Some(number.into()),
            _ => {
                let what = dotted(path);
                let range = match (least, most) {
                    (i64::MIN, most) => format!("at most {most}"),
                    (least, i64::MAX) => format!("at least {least}"),
                    (least, most) => format!("{least} to {most}"),
                };
                self.problems.push(
                    Problem::error(format!("`{what}` is out of range"))
                        .at(span.clone(), format!("must be {range}")),
                );
                None
            }
        }
    }

    fn wrong_type(
        &mut self,
        types: &[&str],
        value: &DeValue<'_>,
        span: &Range<usize>,
        path: &[String],
    ) {
        let wanted: Vec<&str> = types.iter().map(|t| noun(t)).collect();
        let what = dotted(path);
        let found = noun(value.type_str());
        let problem =
            Problem::error(format!("`{what}` must be {}, not {found}", wanted.join(" or ")))
                .at(span.clone(), format!("this is {found}"));
        self.problems.push(match (value, types) {
            (DeValue::String(text), types)
                if types.contains(&"integer") && text.parse::<i64>().is_ok() =>
            {
                problem.help(format!("write {text} without quotes"))
            }
            (DeValue::String(text), types)
                if types.contains(&"boolean") && text.parse::<bool>().is_ok() =>
            {
                problem.help(format!("write {text} without quotes"))
            }
            (DeValue::String(text), types) if types.contains(&"array") => {
                problem.help(format!("write it as a list: [\"{text}\"]"))
            }
            (DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_), types)
                if types.contains(&"string") =>
            {
                problem.help("write it in quotes")
            }
            (DeValue::Table(_), types) if types.contains(&"array") => {
                problem.help("a list of tables is written with double brackets, as in `[[hosts]]`")
            }
            _ => problem,
        });
    }

    fn unknown_key(
        &mut self,
        known: Option<&Map<String, Value>>,
        name: &str,
        span: Range<usize>,
        path: &[String],
    ) {
        let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let place = match path.len() {
            0 | 1 => "at the top of the file".to_owned(),
            n => format!("in `{}`", dotted(&path[..n - 1])),
        };
        self.problems.push(
            Problem::error(format!("unknown key `{name}` {place}"))
                .at(span, "not known here")
                .help(suggest::did_you_mean(name, &known)),
        );
    }
}

/// Writes a path as people do: `hosts[2].address`.
pub(crate) fn dotted(path: &[impl AsRef<str>]) -> String {
    let mut out = String::new();
    for step in path.iter().map(AsRef::as_ref) {
        if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{step}]"));
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(step);
        }
    }
    out
}

/// The words that an enumeration allows; `None` when the schema is none.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    // Variants with documentation become one constant each.
    let variants = schema["oneOf"].as_array()?;
    Some(variants.iter().filter_map(|v| v["const"].as_str()).collect())
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn noun(kind: &str) -> &str {
    match kind {
        "object" | "table" => "a table",
        "array" => "a list",
        "string" => "text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        "float" => "a decimal number",
        "datetime" => "a date",
        other => other,
    }
}
