//! What happened, in order: whoever derived something from a snapshot catches up from here.

/// At least so many entries are remembered.
const KEPT_MIN: usize = 1 << 16;

/// The latest of what happened.
#[derive(Clone, Debug)]
pub(crate) struct Log<T> {
    /// How many entries there were before the first of `list`.
    first: u64,
    list: Vec<T>,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { first: 0, list: Vec::new() }
    }
}

impl<T: Copy> Log<T> {
    /// Notes what happened to one of `nodes` nodes.
    pub(crate) fn push(&mut self, entry: T, nodes: usize) {
        let kept = KEPT_MIN.max(2 * nodes);
        if self.list.len() >= 2 * kept {
            let forgotten = self.list.len() - kept;
            self.list.drain(..forgotten);
            self.first += u64::try_from(forgotten).expect("a length fits");
        }
        self.list.push(entry);
    }

    /// How many entries there have been.
    pub(crate) fn count(&self) -> u64 {
        self.first + u64::try_from(self.list.len()).expect("a length fits")
    }

    /// The entries after the first `seen`; `None` if they are forgotten.
    pub(crate) fn since(&self, seen: u64) -> Option<&[T]> {
        let skip = usize::try_from(seen.checked_sub(self.first)?).ok()?;
        self.list.get(skip..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest() {
        let mut log = Log::default();
        for entry in 0..10 {
            log.push(entry, 1);
        }
        assert_eq!(log.since(8).unwrap(), [8, 9]);
        assert_eq!((log.count(), log.since(10).unwrap().len()), (10, 0));
        for _ in 0..2 * KEPT_MIN {
            log.push(7, 1);
        }
        assert!(log.since(8).is_none());
        assert_eq!(log.since(log.count() - 100).unwrap().len(), 100);
    }
}
