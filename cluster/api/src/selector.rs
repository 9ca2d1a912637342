//! Label and field selectors.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// A conjunction of conditions on labels. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// Why a selector cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text does not follow the grammar of selectors.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// The operator of a `matchExpressions` entry is none that exists.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

impl Selector {
    /// The selector that matches no object.
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether every object matches.
    pub const fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// A label that every object that matches has, with its value, if the selector names one.
    pub fn needed_pair(&self) -> Option<(&str, &str)> {
        // The last one: of a template's labels it is often the one that others do not have.
        self.requirements.iter().rev().find_map(|r| match &r.operator {
            Operator::In(set) if set.len() == 1 => Some((r.key.as_str(), set.first()?.as_str())),
            _ => None,
        })
    }

    /// Adds the requirements of another selector: what matches then has matched both.
    pub fn narrow(&mut self, other: &Self) {
        self.requirements.extend(other.requirements.iter().cloned());
        self.nothing |= other.nothing;
    }

    /// Equality with each of the labels (`spec.selector` of services and replication
    /// controllers).
    pub fn of_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In(BTreeSet::from([value.clone()])),
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// From `metav1.LabelSelector`; the empty one matches everything.
    ///
    /// # Errors
    /// An unknown operator.
    pub fn of_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut all = selector.match_labels.as_ref().map(Self::of_map).unwrap_or_default();
        for expression in selector.match_expressions.iter().flatten() {
            let values = || expression.values.iter().flatten().cloned().collect();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            all.requirements.push(Requirement { key: expression.key.clone(), operator });
        }
        Ok(all)
    }

    /// Adds a requirement in node-selector form (`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`,
    /// `Lt`).
    ///
    /// # Errors
    /// An unknown operator, or a bound that is no integer.
    pub fn require(
        &mut self,
        key: &str,
        operator: &str,
        values: &[String],
    ) -> Result<(), SelectorError> {
        let bound = || {
            values
                .first()
                .and_then(|v| v.parse().ok())
                .ok_or_else(|| SelectorError::Syntax(format!("{key} {operator} needs an integer")))
        };
        let set = || values.iter().cloned().collect();
        let operator = match operator {
            "In" => Operator::In(set()),
            "NotIn" => Operator::NotIn(set()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan(bound()?),
            "Lt" => Operator::LessThan(bound()?),
            other => return Err(SelectorError::Operator(other.to_owned())),
        };
        self.requirements.push(Requirement { key: key.to_owned(), operator });
        Ok(())
    }

    /// Parses the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// The text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(SelectorError::Syntax("found '', expected: identifier".to_owned()));
            }
            requirements.push(parse_requirement(part)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Whether the labels satisfy every requirement.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        if self.nothing {
            return false;
        }
        self.requirements.iter().all(|r| {
            let value = labels.and_then(|l| l.get(&r.key));
            let number = || value.and_then(|v| v.parse::<i64>().ok());
            match &r.operator {
                Operator::In(set) => value.is_some_and(|v| set.contains(v)),
                Operator::NotIn(set) => value.is_none_or(|v| !set.contains(v)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
                Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
                Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
            }
        })
    }

    /// The text form, as kubectl prints it (`a=b,c in (d,e)`).
    pub fn to_text(&self) -> String {
        let join = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(",");
        let mut parts = Vec::with_capacity(self.requirements.len());
        for Requirement { key, operator } in &self.requirements {
            parts.push(match operator {
                Operator::In(set) if set.len() == 1 => format!("{key}={}", join(set)),
                Operator::In(set) => format!("{key} in ({})", join(set)),
                Operator::NotIn(set) if set.len() == 1 => format!("{key}!={}", join(set)),
                Operator::NotIn(set) => format!("{key} notin ({})", join(set)),
                Operator::Exists => key.clone(),
                Operator::DoesNotExist => format!("!{key}"),
                Operator::GreaterThan(bound) => format!("{key}>{bound}"),
                Operator::LessThan(bound) => format!("{key}<{bound}"),
            });
        }
        parts.join(",")
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let syntax = || SelectorError::Syntax(format!("couldn't parse the selector string {part:?}"));
    let requirement = |key: &str, operator| {
        let key = key.trim();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || !key.chars().all(legal) {
            return Err(syntax());
        }
        Ok(Requirement { key: key.to_owned(), operator })
    };
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    if let Some(key) = part.strip_prefix('!') {
        return requirement(key, Operator::DoesNotExist);
    }
    if let Some(open) = part.find('(') {
        let list = part[open + 1..].strip_suffix(')').ok_or_else(syntax)?;
        let set: BTreeSet<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = part[..open].split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => requirement(key, Operator::In(set)),
            (Some(key), Some("notin"), None) => requirement(key, Operator::NotIn(set)),
            _ => Err(syntax()),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return requirement(key, Operator::NotIn(one(value)));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Operator::In(one(value)));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = part.split_once(sign) {
            let bound = value.trim().parse().map_err(|_| syntax())?;
            let operator =
                if greater { Operator::GreaterThan(bound) } else { Operator::LessThan(bound) };
            return requirement(key, operator);
        }
    }
    requirement(part, Operator::Exists)
}

/// A conjunction of conditions `field=value` and `field!=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSelector {
    /// Path, whether equality is wanted, value.
    pub terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Parses `a.b=c,d!=e`.
    ///
    /// # Errors
    /// A term without an operator.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let (field, equal, value) = if let Some((f, v)) = part.split_once("!=") {
                (f, false, v)
            } else if let Some((f, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (f, true, v)
            } else {
                return Err(SelectorError::Syntax(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            terms.push((field.trim().to_owned(), equal, value.trim().to_owned()));
        }
        Ok(Self { terms })
    }

    /// The value that `field` must equal, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, equal, _)| *equal && f == field).map(|(_, _, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn matching() {
        let check = |selector: &str, set: &str, expected: bool| {
            let parsed = Selector::parse(selector).unwrap();
            assert_eq!(parsed.matches(Some(&labels(set))), expected, "{selector} on {set}");
            let again = Selector::parse(&parsed.to_text()).unwrap();
            assert_eq!(again.to_text(), parsed.to_text());
        };
        check("", "a=b", true);
        check("a=b", "a=b,c=d", true);
        check("a==b", "a=c", false);
        check("a!=b", "c=d", true);
        check("a in (b, c),d", "a=c,d=1", true);
        check("a notin (b,c)", "a=b", false);
        check("!a", "b=1", true);
        check("a,!b", "a=1,b=2", false);
        check("n>3", "n=4", true);
        check("n<3", "n=4", false);
        assert!(!Selector::nothing().matches(Some(&labels("a=b"))));
        let pairs = ["a=b,c in (d,e),f=g,h", "a in (b,c),!d", ""].map(|text| {
            Selector::parse(text).unwrap().needed_pair().map(|(k, v)| format!("{k}={v}"))
        });
        assert_eq!(pairs, [Some("f=g".to_owned()), None, None]);
        let mut both = Selector::parse("a=b").unwrap();
        both.narrow(&Selector::parse("c").unwrap());
        assert_eq!(both.to_text(), "a=b,c");
        both.narrow(&Selector::nothing());
        assert!(!both.matches(Some(&labels("a=b,c=d"))));
        assert!(Selector::parse("a in b").is_err());
        assert!(Selector::parse("a,,b").is_err());
    }

    #[test]
    fn fields() {
        let fields = FieldSelector::parse("metadata.name=a,status.phase!=Running").unwrap();
        assert_eq!(fields.exact("metadata.name"), Some("a"));
        assert_eq!(fields.exact("status.phase"), None);
        assert!(FieldSelector::parse("nonsense").is_err());
    }

    proptest! {
        #[test]
        fn parser_never_panics(text in "[a-c=!<>(), inot]{0,30}") {
            let _ = Selector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
