//! RFC 6902 with bounds on the work one patch may cause.

use api::{Reason, Status};
use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use super::unfit;

/// What Kubernetes allows in one patch.
const OPERATIONS_MAX: usize = 10_000;
/// What all copies of one patch may add up to, as in Kubernetes: a copy of the whole document
/// doubles it, so 30 of them would fill any memory.
const COPIED_BYTES_MAX: usize = 3 << 20;
/// What all moves of one patch may add up to; moving is cheap, measuring what is moved is not.
const MOVED_BYTES_MAX: usize = 64 << 20;
/// No JSON parser of ours reads deeper documents.
const DEPTH_MAX: usize = 127;

pub(super) fn apply(mut document: Value, body: &Value) -> Result<Value, Status> {
    let operations = body.as_array().ok_or_else(super::no_document)?;
    if operations.len() > OPERATIONS_MAX {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        );
        return Err(Status::new(Reason::RequestEntityTooLarge, message));
    }
    let mut copied = 0;
    let mut moved = 0;
    for operation in operations {
        let operation: PatchOperation = serde_json::from_value(operation.clone())
            .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
        match &operation {
            PatchOperation::Copy(op) => {
                charge(&document, &op.from, &op.path, &mut copied, COPIED_BYTES_MAX)?;
            }
            PatchOperation::Move(op) => {
                charge(&document, &op.from, &op.path, &mut moved, MOVED_BYTES_MAX)?;
            }
            PatchOperation::Add(op) => fits(measure(&op.value).0, &op.path)?,
            PatchOperation::Replace(op) => fits(measure(&op.value).0, &op.path)?,
            PatchOperation::Remove(_) | PatchOperation::Test(_) => {}
        }
        json_patch::patch(&mut document, &[operation]).map_err(|_| unfit())?;
    }
    Ok(document)
}

fn charge(
    document: &Value,
    from: &Pointer,
    to: &Pointer,
    spent: &mut usize,
    budget: usize,
) -> Result<(), Status> {
    let (depth, bytes) = measure(from.resolve(document).map_err(|_| unfit())?);
    *spent += bytes;
    if *spent > budget { Err(unfit()) } else { fits(depth, to) }
}

fn fits(depth: usize, at: &Pointer) -> Result<(), Status> {
    if depth + at.count() > DEPTH_MAX { Err(unfit()) } else { Ok(()) }
}

/// The depth of the value and roughly the bytes it takes, without recursion.
fn measure(value: &Value) -> (usize, usize) {
    let mut open = vec![(value, 1)];
    let (mut depth_max, mut bytes) = (0, 0);
    while let Some((value, depth)) = open.pop() {
        depth_max = depth_max.max(depth);
        bytes += 8;
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => open.extend(items.iter().map(|v| (v, depth + 1))),
            Value::Object(fields) => {
                bytes += fields.keys().map(String::len).sum::<usize>();
                open.extend(fields.values().map(|v| (v, depth + 1)));
            }
            _ => {}
        }
    }
    (depth_max, bytes)
}
