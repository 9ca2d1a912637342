//! [`Intervals`]: a set of completion indexes in few words.

use std::fmt;

/// A set of indexes as rising intervals, both ends included; written `1,3-5,7`.
///
/// Source: kubernetes 1.33, `pkg/controller/job/indexed_job_utils.go`, `orderedIntervals`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<(i32, i32)>);

impl Intervals {
    /// Reads a list, up to `completions`; what cannot be read is left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut result = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else {
                continue;
            };
            if first >= completions {
                break;
            }
            result.append(first, last.min(completions - 1));
        }
        result
    }

    /// The set of these indexes, which rise.
    pub(super) fn of(indexes: impl IntoIterator<Item = i32>) -> Self {
        let mut result = Self::default();
        for index in indexes {
            result.append(index, index);
        }
        result
    }

    /// Adds an interval that begins no earlier than all before it.
    fn append(&mut self, first: i32, last: i32) {
        match self.0.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.0.push((first, last)),
        }
    }

    /// The indexes of both sets.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(i32, i32)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut result = Self::default();
        for (first, last) in all {
            result.append(first, last);
        }
        result
    }

    /// How many indexes both sets have in common.
    pub(super) fn overlap(&self, other: &Self) -> usize {
        let (mut i, mut j, mut total) = (0, 0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            total += length(a.0.max(b.0), a.1.min(b.1));
            if a.1 <= b.1 {
                i += 1;
            }
            if b.1 <= a.1 {
                j += 1;
            }
        }
        total
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes there are.
    pub(super) fn total(&self) -> usize {
        self.0.iter().map(|(first, last)| length(*first, *last)).sum()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The indexes from zero on that are not in the set, without end.
    pub(super) fn gaps(&self) -> impl Iterator<Item = i32> + '_ {
        let ends = self.0.iter().map(|(_, last)| last.saturating_add(1));
        let starts = std::iter::once(0).chain(ends);
        let stops = self.0.iter().map(|(first, _)| *first).chain(std::iter::once(i32::MAX));
        starts.zip(stops).flat_map(|(start, stop)| start..stop)
    }
}

/// How many indexes an interval has, none if it ends before it begins.
fn length(first: i32, last: i32) -> usize {
    usize::try_from(i64::from(last) - i64::from(first) + 1).unwrap_or(0)
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text() {
        let check = |text: &str, completions: i32, expected: &str| {
            assert_eq!(Intervals::parse(text, completions).to_string(), expected, "{text}");
        };
        check("", 10, "");
        check("1,3-5,7", 10, "1,3-5,7");
        check("0,1", 10, "0,1");
        check("0,1,2", 10, "0-2");
        check("1,3-5,7", 5, "1,3,4");
        check("1,x,3-y,4", 10, "1,4");
        check("8", 3, "");
    }

    fn some() -> impl Strategy<Value = BTreeSet<i32>> {
        proptest::collection::btree_set(0..30_i32, 0..20)
    }

    proptest! {
        #[test]
        fn sets_of_indexes(one in some(), other in some()) {
            let (a, b) = (Intervals::of(one.clone()), Intervals::of(other.clone()));
            let union = a.union(&b);
            let expected: BTreeSet<i32> = one.union(&other).copied().collect();
            prop_assert_eq!(union.total(), expected.len());
            prop_assert_eq!(a.overlap(&b), one.intersection(&other).count());
            prop_assert_eq!(&Intervals::parse(&union.to_string(), 30), &union);
            let missing: Vec<i32> = (0..40).filter(|i| !expected.contains(i)).collect();
            let gaps: Vec<i32> = union.gaps().take(missing.len()).collect();
            prop_assert_eq!(gaps, missing);
            for i in 0..31 {
                prop_assert_eq!(union.contains(i), expected.contains(&i));
            }
        }
    }
}
