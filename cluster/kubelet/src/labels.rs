//! [`Labels`]: the labels of a container.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::naming;

/// Labels that the kubelet gives to containers, in order: each is stored as its place in this
/// list.
const KEYS: [&str; 10] = [
    naming::OWNER,
    naming::CONTAINER_HASH,
    naming::CONTAINER_NAME,
    naming::RESTART_COUNT,
    naming::TERMINATION_MESSAGE_PATH,
    naming::POD_NAME,
    naming::POD_NAMESPACE,
    naming::TERMINATION_GRACE,
    naming::POD_UID,
    naming::SANDBOX_ID,
];
/// Stands before a label whose key is written out.
const OTHER: char = '\u{1f}';
/// Ends keys and values.
const END: char = '\0';

/// Labels by key, in one piece of memory that all who hold them share: a node has ten for each of
/// hundreds of containers, a simulation for each of millions, and hardly any is ever read.
///
/// A NUL character, which no label of Kubernetes has, becomes U+FFFD.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<str>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// All labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator(END);
        std::iter::from_fn(move || {
            let part = parts.next()?;
            let place = part.chars().next()?;
            let rest = &part[place.len_utf8()..];
            if place == OTHER {
                return Some((rest, parts.next()?));
            }
            KEYS.iter().zip('\u{1}'..).find(|(_, p)| *p == place).map(|(key, _)| (*key, rest))
        })
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self("".into())
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    /// Of labels with one key the last one holds.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut all: Vec<(K, V)> = labels.into_iter().collect();
        all.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        let mut text = String::with_capacity(256);
        for (i, (key, value)) in all.iter().enumerate() {
            let key = key.as_ref();
            if all.get(i + 1).is_some_and(|(next, _)| next.as_ref() == key) {
                continue;
            }
            match KEYS.iter().zip('\u{1}'..).find(|(known, _)| **known == key) {
                Some((_, place)) => text.push(place),
                None => {
                    text.push(OTHER);
                    push(&mut text, key);
                }
            }
            push(&mut text, value.as_ref());
        }
        Self(text.into())
    }
}

fn push(text: &mut String, part: &str) {
    if part.contains(END) {
        text.push_str(&part.replace(END, "\u{fffd}"));
    } else {
        text.push_str(part);
    }
    text.push(END);
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        BTreeMap::<String, String>::deserialize(de).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_a_map_in_little_room() {
        assert!(KEYS.is_sorted());
        let mut map: BTreeMap<String, String> =
            KEYS.iter().map(|k| ((*k).to_owned(), format!("value of {k}"))).collect();
        map.insert("other.example/key".to_owned(), "äöü".to_owned());
        map.insert(naming::RESTART_COUNT.to_owned(), String::new());
        let labels = Labels::from_iter(&map);
        let back: BTreeMap<_, _> =
            labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(back, map);
        assert!(labels.0.len() < 400, "{}", labels.0.len());
        assert_eq!(labels, map.iter().rev().collect());
        assert_eq!(labels.get("other.example/key"), Some("äöü"));
        assert_eq!(labels.get(naming::RESTART_COUNT), Some(""));
        assert_eq!(labels.get("absent"), None);
        let json = serde_json::to_string(&labels).expect("a map is JSON");
        assert_eq!(json, serde_json::to_string(&map).expect("a map is JSON"));
        assert_eq!(serde_json::from_str::<Labels>(&json).expect("a map"), labels);
    }

    #[test]
    fn the_last_of_one_key_holds_and_the_end_mark_is_no_label() {
        let labels = Labels::from_iter([("a", "1"), ("b\0", "x\0y"), ("a", "2")]);
        let all: Vec<_> = labels.iter().collect();
        assert_eq!(all, [("a", "2"), ("b\u{fffd}", "x\u{fffd}y")]);
        assert!(Labels::default().iter().next().is_none());
    }
}
