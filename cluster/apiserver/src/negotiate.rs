//! Content types: in which form the client wants its answer, and which form its request has.

use api::{Reason, Status};
use http::{HeaderMap, header};
use registry::table::IncludeObject;

use crate::query::Query;

/// The form in which objects are answered. All are JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Object,
    /// As rows of a table, for people, each with more or less of its object.
    Table(IncludeObject),
    /// Their metadata only.
    Metadata,
}

/// The form of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf envelope.
    Protobuf,
}

/// Chooses the form of the answer.
///
/// # Errors
/// `NotAcceptable` when the client takes none that is served, `BadRequest` for an unknown
/// `includeObject`.
pub(crate) fn form(headers: &HeaderMap, query: &Query) -> Result<Form, Status> {
    let include = query.get("includeObject");
    let include = IncludeObject::parse(include).ok_or_else(|| {
        Status::bad_request(format!(
            "unrecognized value for includeObject: {include:?}, must be one of None, Metadata, \
             Object"
        ))
    })?;
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            any |= !range.trim().is_empty();
            if let Some(form) = form_of(range, include) {
                return Ok(form);
            }
        }
    }
    if any {
        return Err(Status::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, \
             application/json;stream=watch",
        ));
    }
    Ok(Form::Object)
}

fn form_of(range: &str, include: IncludeObject) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?;
    if !matches!(media, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let (mut kind, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", v)) => kind = v,
            Some(("g", v)) => group = v,
            Some(("v", v)) => version = v,
            _ => {}
        }
    }
    match (kind, group, version) {
        ("", ..) => Some(Form::Object),
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Some(Form::Table(include)),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Some(Form::Metadata)
        }
        _ => None,
    }
}

/// The content type of a request without its parameters, lower-case.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The form of an object in a request.
///
/// # Errors
/// `UnsupportedMediaType`.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(unsupported(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The body is in a form that is not read here.
pub(crate) fn unsupported(accepted: &str) -> Status {
    Status::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {accepted}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_served_is_chosen() {
        let check = |accept: &'static str, expected: Result<Form, u16>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(accept));
            assert_eq!(form(&headers, &Query::default()).map_err(|s| s.code), expected, "{accept}");
        };
        check("application/json", Ok(Form::Object));
        check("*/*", Ok(Form::Object));
        check("application/vnd.kubernetes.protobuf,application/json", Ok(Form::Object));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Ok(Form::Table(IncludeObject::Metadata)),
        );
        check("application/json;as=Unknown;v=v9;g=x, application/json", Ok(Form::Object));
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Ok(Form::Metadata),
        );
        check("application/vnd.kubernetes.protobuf", Err(406));
        assert_eq!(form(&HeaderMap::new(), &Query::default()), Ok(Form::Object));
    }
}
