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
const OTHER: u8 = 0xff;
/// Stands before the length of a text that is no shorter than this.
const LONG: u8 = 0xff;

/// Labels by key, in one piece of memory that all who hold them share: a node has ten for each of
/// hundreds of containers, a simulation for each of millions, and hardly any is ever read.
///
/// Each label is the place of its key in [`KEYS`] (or [`OTHER`] and the key) and its value; texts
/// stand behind their lengths.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = place(key);
        let mut rest = &*self.0;
        while let [at, after @ ..] = rest {
            rest = after;
            let mut found = *at == place;
            if *at == OTHER {
                found &= take(&mut rest)? == key.as_bytes();
            }
            let value = take(&mut rest)?;
            if found {
                return std::str::from_utf8(value).ok();
            }
        }
        None
    }

    /// All labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (place, after) = rest.split_first()?;
            rest = after;
            let key = match KEYS.get(usize::from(*place)) {
                Some(key) => key,
                None => std::str::from_utf8(take(&mut rest)?).ok()?,
            };
            Some((key, std::str::from_utf8(take(&mut rest)?).ok()?))
        })
    }
}

/// Takes a text behind its length.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (short, mut after) = rest.split_first()?;
    let mut length = u32::from(*short);
    if *short == LONG {
        let (long, behind) = after.split_first_chunk()?;
        (length, after) = (u32::from_le_bytes(*long), behind);
    }
    let (text, after) = after.split_at_checked(length as usize)?;
    *rest = after;
    Some(text)
}

fn push(bytes: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(short) if short < LONG => bytes.push(short),
        _ => {
            let length = u32::try_from(text.len()).expect("labels are shorter than 4 GiB");
            bytes.push(LONG);
            bytes.extend(length.to_le_bytes());
        }
    }
    bytes.extend(text.as_bytes());
}

fn place(key: &str) -> u8 {
    let known = KEYS.iter().zip(0..).find(|(known, _)| **known == key);
    known.map_or(OTHER, |(_, place)| place)
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    /// Of labels with one key the last one holds.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let placed = |(key, value): (K, V)| (place(key.as_ref()), key, value);
        let mut all: Vec<(u8, K, V)> = labels.into_iter().map(placed).collect();
        // Places are in the order of their keys.
        let order = |(at, a, _): &(u8, K, V), (to, b, _): &(u8, K, V)| match (*at, *to) {
            (OTHER, _) | (_, OTHER) => a.as_ref().cmp(b.as_ref()),
            (at, to) => at.cmp(&to),
        };
        all.sort_by(order);
        let mut bytes = Vec::with_capacity(256);
        for (i, label) in all.iter().enumerate() {
            if all.get(i + 1).is_some_and(|next| order(label, next).is_eq()) {
                continue;
            }
            let (place, key, value) = (label.0, label.1.as_ref(), &label.2);
            bytes.push(place);
            if place == OTHER {
                push(&mut bytes, key);
            }
            push(&mut bytes, value.as_ref());
        }
        Self(bytes.into())
    }
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
    fn the_last_of_one_key_holds() {
        let labels = Labels::from_iter([("a", "1"), ("b", "x\0y"), ("a", "2")]);
        let all: Vec<_> = labels.iter().collect();
        assert_eq!(all, [("a", "2"), ("b", "x\0y")]);
        assert_eq!(labels.get("b"), Some("x\0y"));
        for length in [0, 254, 255, 256, 70_000] {
            let text = "ä".repeat(length);
            let labels = Labels::from_iter([(naming::POD_NAME, text.as_str()), (&text, "end")]);
            assert_eq!(labels.get(naming::POD_NAME), Some(text.as_str()));
            assert_eq!(labels.get(&text), Some("end"));
        }
        assert!(Labels::default().iter().next().is_none());
    }
}
