//! The query string of a request.

use api::selector::{FieldSelector, Selector};
use api::{Kind, Revision, Status};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry::window::Filter;
use serde::{Deserialize, Serialize};

/// The parameters of a request, decoded, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses `a=b&c=d`. What is not valid percent-encoding is taken as it stands.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect();
        Self { pairs }
    }

    /// The first value of a parameter, empty when absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All parameters.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Whether a parameter says yes, as Go reads booleans.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.pairs.iter().find(|(n, _)| n == name).is_some_and(|(_, value)| {
            !matches!(value.as_str(), "false" | "0" | "f" | "F" | "FALSE" | "False")
        })
    }

    /// The number that a parameter holds.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    /// Whether nothing may be stored.
    ///
    /// # Errors
    /// A `dryRun` other than `All`.
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Status::bad_request(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    /// What to do with unknown fields.
    ///
    /// # Errors
    /// A `fieldValidation` that does not exist.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, Status> {
        Ok(match self.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(Status::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \
                     \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        })
    }

    /// The field selector.
    ///
    /// # Errors
    /// It cannot be parsed.
    pub(crate) fn fields(&self) -> Result<FieldSelector, Status> {
        FieldSelector::parse(self.get("fieldSelector"))
            .map_err(|e| Status::bad_request(e.to_string()))
    }

    /// The selection of objects.
    ///
    /// # Errors
    /// A selector cannot be parsed or names a field that cannot be selected by.
    pub(crate) fn filter(&self, kind: Kind, namespace: &str) -> Result<Filter, Status> {
        let labels = Selector::parse(self.get("labelSelector"))
            .map_err(|e| Status::bad_request(e.to_string()))?;
        Filter::new(kind, namespace, labels, &self.fields()?)
    }

    /// The `resourceVersion`; `None` when it is absent.
    ///
    /// # Errors
    /// It is no number.
    pub(crate) fn revision(&self) -> Result<Option<Revision>, Status> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => Revision::parse(text).map(Some).ok_or_else(|| {
                Status::bad_request(format!(
                    "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing \
                     {text:?}: invalid syntax"
                ))
            }),
        }
    }
}

/// What to do with fields that Kubernetes does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse the request.
    Strict,
}

/// Where a list goes on, as clients carry it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Continue {
    v: String,
    /// The revision of the whole list; -1 to go on with whatever is current.
    rv: i64,
    /// The path of the last object sent, followed by a zero byte.
    start: String,
}

impl Continue {
    pub(crate) fn new(revision: Option<Revision>, last: &str) -> Self {
        let rv = revision.and_then(|r| i64::try_from(r.0).ok()).unwrap_or(-1);
        Self { v: "meta.k8s.io/v1".to_owned(), rv, start: format!("{last}\0") }
    }

    /// As text for the answer.
    pub(crate) fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("strings and a number are JSON"))
    }

    /// From the text of a request.
    ///
    /// # Errors
    /// No token of ours.
    pub(crate) fn parse(token: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes =
            URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| bad(&e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if token.v != "meta.k8s.io/v1" || !token.start.ends_with('\0') || token.rv == 0 {
            return Err(bad("unrecognized contents"));
        }
        Ok(token)
    }

    /// The revision of the list; `None` to go on with whatever is current.
    pub(crate) fn revision(&self) -> Option<Revision> {
        u64::try_from(self.rv).ok().map(Revision)
    }

    /// The path of the last object sent.
    pub(crate) fn last(&self) -> &str {
        self.start.trim_end_matches('\0')
    }
}

/// Decodes percent-encoding and `+`.
fn decode(text: &str) -> String {
    percent(&text.replace('+', " "))
}

/// Decodes percent-encoding.
pub(crate) fn percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = || u8::from_str_radix(text.get(i + 1..i + 3)?, 16).ok();
        if bytes[i] == b'%'
            && let Some(byte) = hex()
        {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse("a=b%2Cc&watch&d=e+f&a=x&no=false&bad=%zz&n=12");
        assert_eq!(query.get("a"), "b,c");
        assert_eq!(query.get("d"), "e f");
        assert_eq!(query.get("bad"), "%zz");
        assert!(query.flag("watch") && !query.flag("no") && !query.flag("absent"));
        assert_eq!((query.number("n"), query.number("a")), (Some(12), None));
        assert_eq!(query.pairs().filter(|(n, _)| *n == "a").count(), 2);
    }

    #[test]
    fn continue_tokens_round_trip_and_are_those_of_kubernetes() {
        let token = Continue::new(Some(Revision(7)), "ns/a");
        assert_eq!(
            token.token(),
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Nywic3RhcnQiOiJucy9hXHUwMDAwIn0"
        );
        let again = Continue::parse(&token.token()).unwrap();
        assert_eq!((again.revision(), again.last()), (Some(Revision(7)), "ns/a"));
        assert_eq!(Continue::parse(&Continue::new(None, "a").token()).unwrap().revision(), None);
        assert_eq!(Continue::parse("nonsense").unwrap_err().code, 400);
    }
}
