//! From wire fields to JSON values, as the schema says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::WireError;
use super::wire::{Payload, fields, varint};
use crate::schema::{Field, Message, Shape, Type};

/// No object below the body limit has more; two bytes of wire can make a value of 72 bytes.
const VALUES_MAX: usize = 500_000;

/// Turns messages into JSON objects, counting what it makes.
///
/// The schema has no recursive message, so that nesting is bounded by it.
#[derive(Default)]
pub(super) struct Transcoder {
    values: usize,
}

impl Transcoder {
    /// Adds the fields of a message to `object`. Unknown fields are skipped; a field that comes
    /// again is merged (messages), extended (lists, maps) or replaced, as protobuf prescribes.
    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        message: &'static Message,
        object: &mut Map<String, Value>,
    ) -> Result<(), WireError> {
        for field in fields(bytes) {
            let (number, payload) = field?;
            if let Some(field) = message.numbered(number) {
                self.field(field, payload, object)?;
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &'static Field,
        payload: Payload<'_>,
        object: &mut Map<String, Value>,
    ) -> Result<(), WireError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(WireError::TooMany(VALUES_MAX));
        }
        let name = field.name;
        match (field.shape, &field.ty) {
            (Shape::Inline, Type::M(inner)) => self.message(payload.bytes(name)?, inner, object),
            (Shape::List, ty) => {
                let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return Err(WireError::WrongType(name)) };
                if let (Type::Int | Type::Bool, Payload::Bytes(packed)) = (ty, payload) {
                    return self.packed(packed, field, list);
                }
                list.push(self.value(field, payload)?.unwrap_or_default());
                Ok(())
            }
            (Shape::Map, _) => {
                let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(map) = map else { return Err(WireError::WrongType(name)) };
                let (key, value) = self.entry(field, payload.bytes(name)?)?;
                map.insert(key, value);
                Ok(())
            }
            (_, Type::M(inner)) => {
                let child = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(child) = child else { return Err(WireError::WrongType(name)) };
                self.message(payload.bytes(name)?, inner, child)?;
                if is_unfilled(inner, child) {
                    object.remove(name);
                }
                Ok(())
            }
            (shape, _) => {
                match self.value(field, payload)? {
                    Some(value) if shape != Shape::Optional || !is_zero(&value) => {
                        object.insert(name.to_owned(), value);
                    }
                    _ => drop(object.remove(name)),
                }
                Ok(())
            }
        }
    }

    /// One value; `None` for the zero of types whose zero is null in JSON.
    fn value(
        &mut self,
        field: &'static Field,
        payload: Payload<'_>,
    ) -> Result<Option<Value>, WireError> {
        let name = field.name;
        Ok(match field.ty {
            Type::S => Some(Value::from(payload.text(name)?)),
            Type::Bytes => Some(Value::from(STANDARD.encode(payload.bytes(name)?))),
            Type::Bool => Some(Value::from(payload.varint(name)? != 0)),
            Type::Int => Some(Value::from(payload.varint(name)?.cast_signed())),
            // `metav1.Time` keeps no fraction.
            Type::Time => time(payload.bytes(name)?, name)?.map(|t| Value::from(format!("{t:.0}"))),
            Type::MicroTime => {
                time(payload.bytes(name)?, name)?.map(|t| Value::from(format!("{t:.6}")))
            }
            Type::Quantity => Some(quantity(payload.bytes(name)?, name)?),
            Type::IntOrString => Some(int_or_string(payload.bytes(name)?, name)?),
            Type::Json => embedded(payload.bytes(name)?, name)?,
            Type::Strings => Some(self.strings(payload.bytes(name)?, name)?),
            Type::M(inner) => {
                let mut object = Map::new();
                self.message(payload.bytes(name)?, inner, &mut object)?;
                Some(Value::Object(object))
            }
        })
    }

    /// Numbers back to back, as newer encoders write lists of them.
    fn packed(
        &mut self,
        mut packed: &[u8],
        field: &'static Field,
        list: &mut Vec<Value>,
    ) -> Result<(), WireError> {
        while !packed.is_empty() {
            self.values += 1;
            if self.values > VALUES_MAX {
                return Err(WireError::TooMany(VALUES_MAX));
            }
            let payload = Payload::Varint(varint(&mut packed)?);
            list.extend(self.value(field, payload)?);
        }
        Ok(())
    }

    /// One key and value of a map; either may be left out when it is empty.
    fn entry(&mut self, field: &'static Field, bytes: &[u8]) -> Result<(String, Value), WireError> {
        let mut key = String::new();
        let mut value = None;
        for part in fields(bytes) {
            match part? {
                (1, payload) => key = payload.text(field.name)?.to_owned(),
                (2, payload) => value = self.value(field, payload)?,
                _ => {}
            }
        }
        match value {
            Some(value) => Ok((key, value)),
            None => Ok((key, self.value(field, Payload::Bytes(&[]))?.unwrap_or_default())),
        }
    }

    fn strings(&mut self, bytes: &[u8], name: &'static str) -> Result<Value, WireError> {
        let mut items = Vec::new();
        for item in fields(bytes) {
            if let (1, payload) = item? {
                self.values += 1;
                if self.values > VALUES_MAX {
                    return Err(WireError::TooMany(VALUES_MAX));
                }
                items.push(Value::from(payload.text(name)?));
            }
        }
        Ok(Value::Array(items))
    }
}

/// The values that Go's `omitempty` leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        _ => false,
    }
}

/// Whether the object lacks a time it must have, as the status of a token request does that no
/// server has filled. Go writes null there, which is no time.
fn is_unfilled(message: &Message, object: &Map<String, Value>) -> bool {
    message.fields.iter().any(|f| {
        matches!((f.shape, &f.ty), (Shape::Required, Type::Time)) && !object.contains_key(f.name)
    })
}

/// Seconds and nanoseconds since the epoch; empty for Go's zero time.
fn time(bytes: &[u8], name: &'static str) -> Result<Option<Timestamp>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for part in fields(bytes) {
        match part? {
            (1, payload) => seconds = payload.varint(name)?.cast_signed(),
            (2, payload) => nanos = payload.varint(name)?.cast_signed(),
            _ => {}
        }
    }
    let nanos = i32::try_from(nanos).map_err(|_| WireError::Time(name))?;
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| WireError::Time(name))
}

fn quantity(bytes: &[u8], name: &'static str) -> Result<Value, WireError> {
    let mut text = "0";
    for part in fields(bytes) {
        if let (1, payload) = part? {
            text = payload.text(name)?;
        }
    }
    Ok(Value::from(text))
}

fn int_or_string(bytes: &[u8], name: &'static str) -> Result<Value, WireError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for part in fields(bytes) {
        match part? {
            (1, payload) => is_text = payload.varint(name)? == 1,
            (2, payload) => number = payload.varint(name)?.cast_signed(),
            (3, payload) => text = payload.text(name)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(text) } else { Value::from(number) })
}

/// `RawExtension` and `FieldsV1` carry JSON text.
fn embedded(bytes: &[u8], name: &'static str) -> Result<Option<Value>, WireError> {
    let mut raw: &[u8] = &[];
    for part in fields(bytes) {
        if let (1, payload) = part? {
            raw = payload.bytes(name)?;
        }
    }
    if raw.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(raw).map(Some).map_err(|_| WireError::Json(name))
}
