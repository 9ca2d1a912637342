//! Which nodes changed, in order: whoever derived something from nodes catches up from here.

/// Says that a node's own properties changed, not just the pods on it.
const OWN: u32 = 1 << 31;
/// At least so many changes are remembered.
const KEPT_MIN: usize = 1 << 16;

/// The latest changes of nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// How many changes there were before the first of `list`.
    first: u64,
    list: Vec<u32>,
}

impl Changes {
    /// Notes a change of one of `nodes` nodes.
    pub(crate) fn push(&mut self, node: u32, own: bool, nodes: usize) {
        let kept = KEPT_MIN.max(2 * nodes);
        if self.list.len() >= 2 * kept {
            let forgotten = self.list.len() - kept;
            self.list.drain(..forgotten);
            self.first += u64::try_from(forgotten).expect("a length fits");
        }
        self.list.push(if own { node | OWN } else { node });
    }

    /// How many changes there have been.
    pub(crate) fn count(&self) -> u64 {
        self.first + u64::try_from(self.list.len()).expect("a length fits")
    }

    /// The changes after the first `seen`: the node, and whether its own properties changed.
    /// `None` if they are forgotten.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = (u32, bool)>> {
        let skip = usize::try_from(seen.checked_sub(self.first)?).ok()?;
        Some(self.list.get(skip..)?.iter().map(|entry| (entry & !OWN, entry & OWN != 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let mut changes = Changes::default();
        for node in 0..10 {
            changes.push(node, node == 9, 1);
        }
        let latest: Vec<_> = changes.since(8).unwrap().collect();
        assert_eq!(latest, [(8, false), (9, true)]);
        assert_eq!((changes.count(), changes.since(10).unwrap().count()), (10, 0));
        for _ in 0..2 * KEPT_MIN {
            changes.push(7, false, 1);
        }
        assert!(changes.since(8).is_none());
        assert_eq!(changes.since(changes.count() - 100).unwrap().count(), 100);
    }
}
