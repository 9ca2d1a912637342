//! What names, labels, ports and addresses may look like.
//!
//! Each function returns the complaints, none when the text is fine.
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/validation`.

use std::net::IpAddr;

use api::names::{alphanumeric, at_most, is_label, lower_or_dash, qualified_inner, shaped};
pub(crate) use api::names::{qualified_name, subdomain};

/// Which names a kind of object may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// RFC 1123 subdomain.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1035 label.
    Label1035,
    /// Anything that fits one segment of a path.
    PathSegment,
}

impl NameRule {
    /// Checks a name, or a prefix of a generated name (which may end in a dash).
    pub(crate) fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked;
        let name = match name.strip_suffix('-') {
            Some(rest) if prefix && !rest.is_empty() && self != Self::PathSegment => {
                masked = format!("{rest}a");
                masked.as_str()
            }
            _ => name,
        };
        match self {
            Self::Subdomain => subdomain(name),
            Self::Label => label(name),
            Self::Label1035 => label_1035(name),
            Self::PathSegment => path_segment(name, prefix),
        }
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
    or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
    '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// RFC 1123 label, at most 63 characters.
pub(crate) fn label(text: &str) -> Vec<String> {
    let mut out: Vec<String> = at_most(text, 63).into_iter().collect();
    if !is_label(text) {
        // Kubernetes names dots first, because they are the usual mistake.
        if text.contains('.') && text.split('.').all(is_label) {
            out.push("must not contain dots".to_owned());
        } else {
            out.push(LABEL.to_owned());
        }
    }
    out
}

/// RFC 1035 label, at most 63 characters.
pub(crate) fn label_1035(text: &str) -> Vec<String> {
    let mut out: Vec<String> = at_most(text, 63).into_iter().collect();
    if !(is_label(text) && text.as_bytes()[0].is_ascii_lowercase()) {
        out.push(LABEL_1035.to_owned());
    }
    out
}

/// A name that can be one segment of a path.
pub(crate) fn path_segment(text: &str, prefix: bool) -> Vec<String> {
    if !prefix && (text == "." || text == "..") {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%']
        .into_iter()
        .filter(|c| text.contains(*c))
        .map(|c| format!("may not contain '{c}'"))
        .collect()
}

/// A label's value, at most 63 characters.
pub(crate) fn label_value(text: &str) -> Vec<String> {
    let mut out: Vec<String> = at_most(text, 63).into_iter().collect();
    if !text.is_empty() && !shaped(text, qualified_inner, alphanumeric) {
        out.push(LABEL_VALUE.to_owned());
    }
    out
}

/// A key of a config map or secret, which becomes a file name.
pub(crate) fn config_map_key(text: &str) -> Vec<String> {
    let mut out: Vec<String> = at_most(text, 253).into_iter().collect();
    if text.is_empty() || !text.bytes().all(qualified_inner) {
        out.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
             '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    } else if text == "." || text == ".." {
        out.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        out.push("must not start with '..'".to_owned());
    }
    out
}

/// The name of an environment variable: printable ASCII without `=` (since 1.30).
pub(crate) fn env_var_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other \
         than '=' (e.g. 'my.env-name' or 'MY_ENV.NAME' or 'MyEnvName1', regex used for \
         validation is '[ -<>-~]+')"
            .to_owned(),
    ]
}

/// The name of a port that a container offers or a service targets.
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 15 {
        out.push("must be no more than 15 characters".to_owned());
    }
    if text.is_empty() || !text.bytes().all(lower_or_dash) {
        out.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

/// What is wrong with a port number.
pub(crate) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

/// Whether the number is a port.
pub(crate) const fn is_port(port: i64) -> bool {
    matches!(port, 1..=65_535)
}

/// A percentage such as `25%`.
pub(crate) fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
         or '93%', regex used for validation is '[0-9]+%')"
            .to_owned(),
    ]
}

/// The reason of a `metav1.Condition`, in one word.
pub(crate) fn condition_reason(text: &str) -> Vec<String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    let edges = (text.bytes().next(), text.bytes().last());
    if let (Some(first), Some(last)) = edges
        && first.is_ascii_alphabetic()
        && (last.is_ascii_alphanumeric() || last == b'_')
        && text.bytes().all(inner)
    {
        return Vec::new();
    }
    vec![
        "a condition reason must start with alphabetic character, optionally followed by a \
         string of alphanumeric characters or '_,:', and must end with an alphanumeric character \
         or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or \
         'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
            .to_owned(),
    ]
}

/// An address as Kubernetes has always parsed it: IPv4 without leading zeros, or IPv6.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// What is wrong with text that is no address.
pub(crate) const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let check = |rule: NameRule, name: &str, prefix: bool, ok: bool| {
            assert_eq!(rule.check(name, prefix).is_empty(), ok, "{rule:?} {name:?}");
        };
        check(NameRule::Subdomain, "a.b-c.1", false, true);
        check(NameRule::Subdomain, "a..b", false, false);
        check(NameRule::Subdomain, "A", false, false);
        check(NameRule::Subdomain, "web-", false, false);
        check(NameRule::Subdomain, "web-", true, true);
        check(NameRule::Subdomain, "-", true, false);
        check(NameRule::Label, "a.b", false, false);
        check(NameRule::Label1035, "1a", false, false);
        check(NameRule::Label1035, "", false, false);
        check(NameRule::Label1035, "a1", false, true);
        check(NameRule::PathSegment, "system:node", false, true);
        check(NameRule::PathSegment, "a/b", false, false);
        check(NameRule::PathSegment, "..", false, false);
        check(NameRule::Subdomain, &"a".repeat(254), false, false);
    }

    #[test]
    fn other_texts() {
        assert!(qualified_name("example.com/My_Name.1").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("a/").len(), 2);
        assert!(label_value("").is_empty());
        assert_eq!(label_value("-a").len(), 1);
        assert!(config_map_key("a.b_C-1").is_empty());
        assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
        assert!(env_var_name("MY.VAR-1 x").is_empty());
        assert_eq!(env_var_name("a=b").len(), 1);
        assert!(port_name("http").is_empty());
        assert_eq!(port_name("1234").len(), 1);
        assert!(percent("25%").is_empty());
        assert_eq!(percent("25").len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,70}", prefix: bool) {
            for rule in [NameRule::Subdomain, NameRule::Label, NameRule::Label1035,
                         NameRule::PathSegment] {
                let _ = rule.check(&text, prefix);
            }
            let _ = (qualified_name(&text), label_value(&text), config_map_key(&text));
            let _ = (env_var_name(&text), port_name(&text), percent(&text));
        }
    }
}
