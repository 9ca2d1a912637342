//! What names and the keys of labels may look like.
//!
//! Each function that checks returns the complaints, none when the text is fine.
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/validation`.

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
    regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A complaint about text that is longer than `max` bytes.
pub fn at_most(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} characters"))
}

/// Whether every byte is `inner`, and the first and last are `edge`.
pub fn shaped(text: &str, inner: fn(u8) -> bool, edge: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| inner(*b)),
        _ => false,
    }
}

const fn lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// What labels of DNS names are made of.
pub const fn lower_or_dash(b: u8) -> bool {
    lower_alphanumeric(b) || b == b'-'
}

/// What names begin and end with.
pub const fn alphanumeric(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

/// What the names of labels are made of.
pub const fn qualified_inner(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

/// Whether it is a label of a DNS name, whatever its length.
pub fn is_label(text: &str) -> bool {
    shaped(text, lower_or_dash, lower_alphanumeric)
}

/// RFC 1123 subdomain, at most 253 characters.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut out: Vec<String> = at_most(text, 253).into_iter().collect();
    if !text.split('.').all(is_label) {
        out.push(SUBDOMAIN.to_owned());
    }
    out
}

/// A label or annotation key: a name with an optional subdomain before a slash.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        Some(_) => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 characters".to_owned());
    }
    if !shaped(name, qualified_inner, alphanumeric) {
        out.push(format!("name part {QUALIFIED}"));
    }
    out
}
