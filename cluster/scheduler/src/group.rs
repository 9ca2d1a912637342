//! [`Group`]: pods that are placed together or not at all.

use std::collections::BTreeMap;
use std::fmt;

use api::Name;

/// The label that names the group of a pod, in the pod's namespace.
pub const GROUP: &str = "scheduling.x-k8s.io/pod-group";
/// The label that says how many pods of the group have to have a node for any to get one.
pub const MIN_AVAILABLE: &str = "scheduling.x-k8s.io/pod-group-min-available";
/// No group needs more pods together: all are decided about in one step, in which nothing else
/// happens.
pub const MIN_AVAILABLE_MAX: usize = 1024;

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupName {
    /// The namespace of its pods.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the labels of a pod say of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub name: GroupName,
    /// How many of its pods have to have a node for any to get one; else why that is not known.
    pub min_available: Result<usize, String>,
}

impl Group {
    /// The group of a pod with these labels, if it has one.
    pub(crate) fn of(namespace: &str, labels: &BTreeMap<String, String>) -> Option<Self> {
        let name = labels.get(GROUP).filter(|name| !name.is_empty())?;
        let name = GroupName { namespace: namespace.into(), name: name.as_str().into() };
        let min_available = match labels.get(MIN_AVAILABLE) {
            None => Err(format!("the label {MIN_AVAILABLE} is missing")),
            Some(text) => match text.parse() {
                Ok(min) if (1..=MIN_AVAILABLE_MAX).contains(&min) => Ok(min),
                _ => Err(format!(
                    "the label {MIN_AVAILABLE} is {text:?}, not a number from 1 to \
                     {MIN_AVAILABLE_MAX}"
                )),
            },
        };
        Some(Self { name, min_available })
    }
}

/// How many pods of each group have a node or shall have one.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupCounts(BTreeMap<GroupName, usize>);

impl GroupCounts {
    pub(crate) fn of(&self, group: &GroupName) -> usize {
        self.0.get(group).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, group: &GroupName) {
        if let Some(count) = self.0.get_mut(group) {
            *count += 1;
        } else {
            self.0.insert(group.clone(), 1);
        }
    }

    pub(crate) fn remove(&mut self, group: &GroupName) {
        if let Some(count) = self.0.get_mut(group) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_labels_say() {
        let check = |labels: &[(&str, &str)], expected: Option<Result<usize, &str>>| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let group = Group::of("d", &labels);
            assert!(group.as_ref().is_none_or(|group| group.name.to_string() == "d/g"));
            let min = group.map(|group| group.min_available);
            let expected = expected.map(|min| min.map_err(str::to_owned));
            assert_eq!(min, expected);
        };
        check(&[(MIN_AVAILABLE, "3")], None);
        check(&[(GROUP, ""), (MIN_AVAILABLE, "3")], None);
        check(&[(GROUP, "g"), (MIN_AVAILABLE, "3")], Some(Ok(3)));
        let missing = "the label scheduling.x-k8s.io/pod-group-min-available is missing";
        check(&[(GROUP, "g")], Some(Err(missing)));
        for (text, shown) in
            [("0", "\"0\""), ("-1", "\"-1\""), ("1025", "\"1025\""), ("x", "\"x\"")]
        {
            let why = format!(
                "the label scheduling.x-k8s.io/pod-group-min-available is {shown}, not a number \
                 from 1 to 1024"
            );
            check(&[(GROUP, "g"), (MIN_AVAILABLE, text)], Some(Err(&why)));
        }
    }
}
