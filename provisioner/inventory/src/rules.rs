//! Kubernetes' rules for names, labels and taints.
//! Source: apimachinery/pkg/util/validation/validation.go and plugin/pkg/admission/noderestriction.

use super::Taint;

/// Checks a DNS label (RFC 1123): what a node, and so a host, may be called.
pub(crate) fn dns_label(text: &str) -> Result<(), String> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.is_empty() || text.len() > 63 {
        return Err("1 to 63 characters".to_owned());
    }
    if !text.chars().all(|c| alphanumeric(c) || c == '-') {
        return Err("only lower-case letters, digits and `-`".to_owned());
    }
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return Err("begins and ends with a letter or digit".to_owned());
    }
    Ok(())
}

/// Makes a DNS label of `text`, where that leaves anything.
pub(crate) fn as_dns_label(text: &str) -> Option<String> {
    let mapped: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let trimmed = mapped.trim_matches('-');
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// Checks a DNS subdomain (RFC 1123).
pub(crate) fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("at most 253 characters".to_owned());
    }
    text.split('.').try_for_each(dns_label)
}

/// Checks a name of up to 63 letters, digits, `-`, `_` and `.`.
fn name_part(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 63 {
        return Err("1 to 63 characters".to_owned());
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err("only letters, digits, `-`, `_` and `.`".to_owned());
    }
    let edge = |c: char| c.is_ascii_alphanumeric();
    if !text.starts_with(edge) || !text.ends_with(edge) {
        return Err("begins and ends with a letter or digit".to_owned());
    }
    Ok(())
}

/// Checks a qualified name: `name` or `prefix/name`.
pub(crate) fn qualified_name(text: &str) -> Result<(), String> {
    match text.split_once('/') {
        None => name_part(text),
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|why| format!("the part before `/`: {why}"))?;
            name_part(name).map_err(|why| format!("the part after `/`: {why}"))
        }
    }
}

/// Checks the key of a label that a kubelet gives its own node.
pub(crate) fn node_label_key(key: &str) -> Result<(), String> {
    qualified_name(key)?;
    let Some((prefix, _)) = key.split_once('/') else { return Ok(()) };
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    if !within("kubernetes.io") && !within("k8s.io") {
        return Ok(());
    }
    let free = ["kubelet.kubernetes.io", "node.kubernetes.io"];
    let named = [
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let allowed = free.iter().any(|f| prefix == *f || prefix.ends_with(&format!(".{f}")));
    if allowed || named.contains(&key) {
        return Ok(());
    }
    Err("a node may not set labels of kubernetes.io and k8s.io itself".to_owned())
}

/// Checks the value of a label.
pub(crate) fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() { Ok(()) } else { name_part(value) }
}

/// The effects of a taint.
pub(crate) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Why a text is no taint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TaintError {
    /// There is no `:EFFECT`.
    NoEffect,
    /// The effect is none of the three.
    Effect(String),
    /// The key or the value is no name.
    Name(String),
}

/// Parses `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
pub(crate) fn taint(text: &str) -> Result<Taint, TaintError> {
    let (rest, effect) = text.rsplit_once(':').ok_or(TaintError::NoEffect)?;
    if !EFFECTS.contains(&effect) {
        return Err(TaintError::Effect(effect.to_owned()));
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    qualified_name(key).map_err(|why| TaintError::Name(format!("the key: {why}")))?;
    label_value(value).map_err(|why| TaintError::Name(format!("the value: {why}")))?;
    Ok(Taint { key: key.to_owned(), effect: effect.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_follow_kubernetes_rules() {
        let long = "a".repeat(64);
        check(dns_label, &["a", "node-1", "0x"], &["", "Node", "a_b", "-a", "a-", "a.b", &long]);
        check(dns_subdomain, &["cluster.local", "a"], &["cluster.local.", "a..b", "A.b"]);
        check(qualified_name, &["a", "A_b.c", "x.y/z"], &["", "/a", "a/", "a/b/c", "a b", "X/a"]);
        check(label_value, &["", "a", "v1.2_3"], &["-a", "a b", "ä", &long]);
    }

    #[test]
    fn a_node_may_set_only_labels_of_its_own() {
        check(
            node_label_key,
            &["rack", "example.com/rack", "node.kubernetes.io/pool", "kubernetes.io/arch"],
            &["node-role.kubernetes.io/master", "kubernetes.io/role", "x.k8s.io/y", "a b"],
        );
    }

    #[test]
    fn taints_are_parsed() {
        let parsed = |text: &str| taint(text).map(|t| t.to_string());
        assert_eq!(parsed("a=b:NoSchedule"), Ok("a=b:NoSchedule".to_owned()));
        assert_eq!(parsed("x.y/a:NoExecute"), Ok("x.y/a=:NoExecute".to_owned()));
        assert_eq!(parsed("a=b"), Err(TaintError::NoEffect));
        assert_eq!(parsed("a=b:Never"), Err(TaintError::Effect("Never".to_owned())));
        assert!(matches!(parsed("a b:NoExecute"), Err(TaintError::Name(_))));
        assert!(matches!(parsed("a=b=c:NoExecute"), Err(TaintError::Name(_))));
    }

    #[test]
    fn a_near_label_is_suggested() {
        assert_eq!(as_dns_label("Node_1"), Some("node-1".to_owned()));
        assert_eq!(as_dns_label("--"), None);
    }
}
