//! Strategic merge patch: objects merge, and lists merge by the key that the schema names.
//!
//! The directives: `$patch: replace | delete` in an object or list element, `$retainKeys`,
//! `$setElementOrder/LIST` and `$deleteFromPrimitiveList/LIST` beside the list.

use api::{Reason, Status};
use serde_json::{Map, Value, json};

use crate::schema::{Field, Message};

type Fields = Map<String, Value>;

/// Merging compares every element with every other; lists that merge have a few dozen.
const ELEMENTS_MAX: usize = 10_000;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Merges `patch` into `original`. Fields that `message` does not know merge as objects and
/// replace as lists.
pub(super) fn merge_object(
    mut original: Fields,
    mut patch: Fields,
    message: Option<&'static Message>,
) -> Result<Fields, Status> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(s)) if s == "replace" => return Ok(plain_object(patch)),
        Some(Value::String(s)) if s == "delete" => return Ok(Fields::new()),
        Some(other) => return Err(unknown_directive(&other)),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered(&mut original, &mut patch, message)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            let list = list.strip_prefix('/').ok_or_else(bad_deletion)?;
            delete_scalars(&mut original, list, &value)?;
            continue;
        }
        let field = message.and_then(|m| m.field(&key));
        let merged = match (original.remove(&key), value) {
            (_, Value::Null) => None,
            (Some(Value::Object(old)), Value::Object(new))
                if field.is_none_or(|f| !f.patch.replace) =>
            {
                let inner = field.and_then(Field::message);
                Some(Value::Object(merge_object(old, new, inner)?))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Some(Value::Array(merge_list(old, new, field)?))
            }
            (_, new) => plain(new),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys` lists all fields the result may have; those of the patch must be among them.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), Status> {
    let bad = || Status::bad_request("invalid patch format of retainKeys");
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let retained = retained.as_array().ok_or_else(bad)?;
    let is_retained = |key: &str| retained.iter().any(|r| r.as_str() == Some(key));
    let strange = patch.iter().any(|(key, value)| {
        let beside = key.starts_with(DELETE_FROM_LIST) || key.starts_with(ELEMENT_ORDER);
        !value.is_null() && !beside && !is_retained(key)
    });
    if strange {
        return Err(bad());
    }
    original.retain(|key, _| is_retained(key));
    Ok(())
}

/// Merges the lists whose order the patch prescribes, and takes them out of the patch.
fn merge_ordered(
    original: &mut Fields,
    patch: &mut Fields,
    message: Option<&'static Message>,
) -> Result<(), Status> {
    let directives: Vec<String> =
        patch.keys().filter(|k| k.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(bad_order()) };
        let list = directive
            .strip_prefix(ELEMENT_ORDER)
            .and_then(|l| l.strip_prefix('/'))
            .ok_or_else(bad_order)?;
        let field = message.and_then(|m| m.field(list));
        let key = field.and_then(|f| f.patch.key).unwrap_or_default();
        if patch.get(list).is_some_and(Value::is_null) {
            continue;
        }
        let array = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(elements)) => Ok(Some(elements)),
            Some(_) => Err(bad_order()),
        };
        let new = array(patch.remove(list))?;
        let old = array(original.remove(list))?;
        if order.len() > ELEMENTS_MAX {
            return Err(bad_order());
        }
        if let Some(new) = &new {
            check_order(new, &order, key)?;
        }
        let live = identities(old.as_deref().unwrap_or_default(), key);
        let merged = match (old, new) {
            (Some(old), Some(new)) => merge_list(old, new, field)?,
            (None, Some(new)) => plain_list(new),
            (Some(old), None) => old,
            (None, None) => continue,
        };
        original.insert(list.to_owned(), Value::Array(arrange(merged, &order, &live, key)));
    }
    Ok(())
}

/// The elements of the patch must all be in the prescribed order, in that order.
fn check_order(new: &[Value], order: &[Value], key: &str) -> Result<(), Status> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for element in new.iter().filter(|e| e.get(DIRECTIVE).is_none()) {
        if !rest.any(|o| same(o, element, key)) {
            return Err(Status::bad_request(format!(
                "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER} list:\n{}\n",
                Value::from(new),
                Value::from(order)
            )));
        }
    }
    Ok(())
}

fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    field: Option<&'static Field>,
) -> Result<Vec<Value>, Status> {
    let Some(key) = field.and_then(|f| f.patch.key) else { return Ok(plain_list(new)) };
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    if old.len() + new.len() > ELEMENTS_MAX {
        let message = format!("lists of more than {ELEMENTS_MAX} elements cannot be merged");
        return Err(Status::new(Reason::RequestEntityTooLarge, message));
    }
    let mut elements = old.iter().chain(&new);
    if elements.clone().any(Value::is_array) {
        return Err(Status::bad_request("lists of lists are not supported"));
    }
    let objects = elements.clone().all(Value::is_object);
    if !objects && elements.any(Value::is_object) {
        return Err(Status::bad_request("list element types are not identical"));
    }
    if objects {
        if key.is_empty() {
            return Err(Status::bad_request("cannot merge lists without merge key"));
        }
        return merge_objects(old, new, key, field.and_then(Field::message));
    }
    let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
    for element in old.iter().chain(&new) {
        if !merged.contains(element) {
            merged.push(element.clone());
        }
    }
    Ok(arrange(merged, &new, &old, key))
}

fn merge_objects(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
    element: Option<&'static Message>,
) -> Result<Vec<Value>, Status> {
    let mut changes: Vec<Fields> = Vec::with_capacity(new.len());
    let mut replace = false;
    for value in new {
        let Value::Object(mut change) = value else { continue };
        match change.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default().to_owned()) {
            None => changes.push(change),
            Some(d) if d == "replace" => replace = true,
            Some(d) if d == "delete" => {
                let gone = change.remove(key).ok_or_else(|| no_key(&change, key))?;
                old.retain(|e| e.get(key) != Some(&gone));
            }
            Some(d) if d == "merge" => {
                return Err(Status::bad_request(
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            Some(_) => return Err(unknown_directive(&change[DIRECTIVE])),
        }
    }
    if replace {
        return Ok(changes.into_iter().map(plain_object).map(Value::Object).collect());
    }
    let live = identities(&old, key);
    let order: Vec<Value> = changes.iter().map(|c| identity(c.get(key), key)).collect();
    for change in changes {
        let id = change.get(key).cloned().ok_or_else(|| no_key(&change, key))?;
        match old.iter_mut().find(|e| e.get(key) == Some(&id)) {
            Some(Value::Object(found)) => {
                *found = merge_object(std::mem::take(found), change, element)?;
            }
            _ => old.push(Value::Object(plain_object(change))),
        }
    }
    if let Some(Value::Object(bad)) = old.iter().find(|e| e.get(key).is_none()) {
        return Err(no_key(bad, key));
    }
    Ok(arrange(old, &order, &live, key))
}

/// Orders a merged list: elements named in `order` as there, the others as in `live`, and both
/// interleaved as they were in `live` where that is possible.
fn arrange(merged: Vec<Value>, order: &[Value], live: &[Value], key: &str) -> Vec<Value> {
    let position = |list: &[Value], e: &Value| list.iter().position(|o| same(o, e, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|e| position(order, e).is_some());
    named.sort_by_cached_key(|e| position(order, e));
    others.sort_by_cached_key(|e| position(live, e));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for element in named {
        let at = position(live, &element);
        while let Some(other) = others.next_if(|o| at.is_some() && position(live, o) < at) {
            arranged.push(other);
        }
        arranged.push(element);
    }
    arranged.extend(others);
    arranged
}

/// What [`same`] looks at of each element: whole elements are many allocations each.
fn identities(elements: &[Value], key: &str) -> Vec<Value> {
    if key.is_empty() {
        return elements.to_vec();
    }
    elements.iter().map(|e| identity(e.get(key), key)).collect()
}

/// What [`same`] looks at of an element whose merge key has that value.
fn identity(value: Option<&Value>, key: &str) -> Value {
    value.map_or(Value::Null, |value| json!({key: value}))
}

/// Whether two elements are the same one: by the merge key, or by value for scalars.
fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() { a == b } else { a.get(key).is_some() && a.get(key) == b.get(key) }
}

fn delete_scalars(original: &mut Fields, list: &str, gone: &Value) -> Result<(), Status> {
    let gone = gone.as_array().ok_or_else(bad_deletion)?;
    if let Some(Value::Array(elements)) = original.get_mut(list) {
        elements.retain(|e| !gone.contains(e));
    }
    Ok(())
}

/// A value that is new: without nulls and directives; `None` when it is only a directive.
fn plain(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => {
            // A replacement of what does not exist is the new value; deleting it is nothing.
            let replaces = fields[DIRECTIVE] == "replace";
            replaces.then(|| Value::Object(plain_object(fields)))
        }
        Value::Object(fields) => Some(Value::Object(plain_object(fields))),
        Value::Array(elements) => Some(Value::Array(plain_list(elements))),
        Value::Null => None,
        other => Some(other),
    }
}

fn plain_object(fields: Fields) -> Fields {
    let is_directive = |key: &str| {
        [DIRECTIVE, RETAIN_KEYS].contains(&key)
            || key.starts_with(ELEMENT_ORDER)
            || key.starts_with(DELETE_FROM_LIST)
    };
    fields
        .into_iter()
        .filter(|(key, _)| !is_directive(key))
        .filter_map(|(key, value)| Some((key, plain(value)?)))
        .collect()
}

/// The elements without directives; a null element stays, as in JSON.
fn plain_list(elements: Vec<Value>) -> Vec<Value> {
    let only_replace =
        |e: &Value| e.as_object().is_some_and(|o| o.len() == 1 && o.contains_key(DIRECTIVE));
    elements
        .into_iter()
        .filter(|e| !only_replace(e))
        .filter_map(|e| if e.is_null() { Some(e) } else { plain(e) })
        .collect()
}

fn bad_order() -> Status {
    Status::bad_request("invalid patch format of setElementOrder list")
}

fn bad_deletion() -> Status {
    Status::bad_request("invalid patch format of primitive list")
}

fn unknown_directive(directive: &Value) -> Status {
    Status::bad_request(format!("unknown patch type: {directive}"))
}

fn no_key(element: &Fields, key: &str) -> Status {
    let element = Value::Object(element.clone());
    Status::bad_request(format!("map: {element} does not contain declared merge key: {key}"))
}
