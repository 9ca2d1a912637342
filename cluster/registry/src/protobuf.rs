//! Bodies in `application/vnd.kubernetes.protobuf`, turned into the JSON the same client would
//! have sent.
//!
//! The envelope is four magic bytes and an `Unknown` message that names the type and carries
//! the object. Go writes every field that is no pointer, also when it is zero; those zeros are
//! left out here wherever Go's JSON leaves them out.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`.

use api::{Kind, Reason, Status};
use serde_json::{Map, Value};

use crate::schema::Message;

mod transcode;
mod wire;

#[cfg(test)]
mod tests;

use transcode::Transcoder;
use wire::{Payload, fields};

const MAGIC: &[u8; 4] = b"k8s\0";

/// The type a body says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// `apiVersion`, for example `apps/v1`.
    pub api_version: String,
    /// `kind`, for example `Deployment`.
    pub kind: String,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum WireError {
    #[error("unexpected EOF")]
    Truncated,
    #[error("integer overflow")]
    Overflow,
    #[error("illegal wireType {0}")]
    WireType(u64),
    #[error("wrong wireType for field {0}")]
    WrongType(&'static str),
    #[error("field {0} is no valid UTF-8")]
    Utf8(&'static str),
    #[error("field {0} is no valid JSON")]
    Json(&'static str),
    #[error("field {0} is no time of the calendar")]
    Time(&'static str),
    #[error("more than {0} values")]
    TooMany(usize),
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooMany(_) => {
                Self::new(Reason::RequestEntityTooLarge, format!("protobuf body: {error}"))
            }
            _ => Self::bad_request(format!("protobuf body: {error}")),
        }
    }
}

/// Turns a body into JSON. All served kinds and `DeleteOptions` are known.
///
/// # Errors
/// 400 when the bytes are malformed or the type is not known.
pub fn to_json(bytes: &[u8]) -> Result<(TypeMeta, Vec<u8>), Status> {
    let Some(unknown) = bytes.strip_prefix(MAGIC) else {
        return Err(Status::bad_request(
            "provided data does not appear to be a protobuf message, expected prefix \
             [107 56 115 0]",
        ));
    };
    let envelope = Envelope::read(unknown)?;
    if !envelope.encoding.is_empty() {
        let encoding = envelope.encoding;
        return Err(Status::bad_request(format!("content encoding {encoding:?} is not supported")));
    }
    let TypeMeta { api_version, kind } = &envelope.meta;
    if envelope.content_type == "application/json" {
        return Ok((envelope.meta, envelope.raw.to_vec()));
    }
    let message = match Kind::of_manifest(api_version, kind) {
        Some(kind) => Message::of_kind(kind),
        // Every group version registers the options.
        None if kind == "DeleteOptions" => Message::delete_options(),
        None => {
            return Err(Status::bad_request(format!(
                "no kind {kind:?} is registered for version {api_version:?}"
            )));
        }
    };
    let mut object = Map::new();
    Transcoder::default().message(envelope.raw, message, &mut object)?;
    object.insert("apiVersion".to_owned(), Value::from(api_version.as_str()));
    object.insert("kind".to_owned(), Value::from(kind.as_str()));
    Ok((envelope.meta, Value::Object(object).to_string().into_bytes()))
}

/// The `Unknown` message around every object.
#[derive(Default)]
struct Envelope<'a> {
    meta: TypeMeta,
    raw: &'a [u8],
    encoding: String,
    content_type: String,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut envelope = Self::default();
        for field in fields(bytes) {
            let (number, payload) = field?;
            match number {
                1 => envelope.meta = TypeMeta::read(payload.bytes("typeMeta")?)?,
                2 => envelope.raw = payload.bytes("raw")?,
                3 => envelope.encoding = payload.text("contentEncoding")?.to_owned(),
                4 => envelope.content_type = payload.text("contentType")?.to_owned(),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

impl TypeMeta {
    fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut meta = Self::default();
        for field in fields(bytes) {
            let (number, payload): (u32, Payload<'_>) = field?;
            match number {
                1 => meta.api_version = payload.text("apiVersion")?.to_owned(),
                2 => meta.kind = payload.text("kind")?.to_owned(),
                _ => {}
            }
        }
        Ok(meta)
    }
}
