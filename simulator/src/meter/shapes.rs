//! How many pods of which size there are, to know which size matters for fragmentation.

use std::collections::BTreeMap;

use scheduler::resources::Resources;

/// How extended resources end that are GPUs: `nvidia.com/gpu`, `amd.com/gpu`.
const GPU_SUFFIX: &str = "/gpu";

/// What a pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Thousandths of a CPU.
    pub(super) cpu_milli: i64,
    /// Bytes.
    pub(super) memory_bytes: i64,
    /// GPUs, of whatever make.
    pub(super) gpus: i64,
}

impl Shape {
    /// What an object's resources come to.
    pub(super) fn of(resources: &Resources) -> Self {
        let gpus = resources.extended.iter().filter(|(name, _)| name.ends_with(GPU_SUFFIX));
        Self {
            cpu_milli: resources.cpu.0,
            memory_bytes: resources.memory.0,
            gpus: gpus.map(|(_, amount)| amount).sum(),
        }
    }

    /// Adds another one, `sign` times (1 or -1).
    pub(super) const fn add(&mut self, other: Self, sign: i64) {
        self.cpu_milli += sign * other.cpu_milli;
        self.memory_bytes += sign * other.memory_bytes;
        self.gpus += sign * other.gpus;
    }
}

/// Pods of about the same size.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// The most that one of them asks for: exact where they are all the same.
    largest: Shape,
    live: u64,
    pending: u64,
}

/// Live pods by size. Sizes that differ by less than an eighth are one group, so that a trace in
/// which hardly two pods are the same needs no memory for each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes {
    groups: BTreeMap<[u32; 3], Group>,
}

impl Shapes {
    /// A pod is there.
    pub(super) fn add(&mut self, shape: Shape, pending: bool) {
        let group = self.groups.entry(size_of(shape)).or_default();
        group.live += 1;
        group.pending += u64::from(pending);
        let largest = &mut group.largest;
        largest.cpu_milli = largest.cpu_milli.max(shape.cpu_milli);
        largest.memory_bytes = largest.memory_bytes.max(shape.memory_bytes);
        largest.gpus = largest.gpus.max(shape.gpus);
    }

    /// A pod that was added is gone, or no longer what it was.
    pub(super) fn remove(&mut self, shape: Shape, pending: bool) {
        let size = size_of(shape);
        let group = self.groups.get_mut(&size).expect("only what was added is removed");
        group.live -= 1;
        group.pending -= u64::from(pending);
        if group.live == 0 {
            self.groups.remove(&size);
        }
    }

    /// The most frequent size of the pending pods, else of all; the larger of equals.
    pub(super) fn most_frequent(&self) -> Option<Shape> {
        let most = self.groups.values().max_by_key(|g| (g.pending, g.live, g.largest));
        most.map(|group| group.largest)
    }
}

fn size_of(shape: Shape) -> [u32; 3] {
    [shape.cpu_milli, shape.memory_bytes, shape.gpus].map(eighths)
}

/// The power of two and the eighth of it in which an amount is.
fn eighths(amount: i64) -> u32 {
    let amount = u64::try_from(amount).unwrap_or(0);
    let exponent = amount.checked_ilog2().unwrap_or(0).saturating_sub(3);
    exponent * 8 + u32::try_from(amount >> exponent).expect("below 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn shape(cpu_milli: i64, memory_bytes: i64) -> Shape {
        Shape { cpu_milli, memory_bytes, gpus: 0 }
    }

    #[test]
    fn the_pending_come_first_then_the_many() {
        let mut shapes = Shapes::default();
        assert_eq!(shapes.most_frequent(), None);
        for _ in 0..3 {
            shapes.add(shape(100, 1 << 20), false);
        }
        assert_eq!(shapes.most_frequent(), Some(shape(100, 1 << 20)));
        shapes.add(shape(4_000, 1 << 30), true);
        assert_eq!(shapes.most_frequent(), Some(shape(4_000, 1 << 30)));
        shapes.remove(shape(4_000, 1 << 30), true);
        assert_eq!(shapes.most_frequent(), Some(shape(100, 1 << 20)));
    }

    #[test]
    fn sizes_that_hardly_differ_are_one_group() {
        let mut shapes = Shapes::default();
        for cpu in 0..1_000 {
            shapes.add(shape(64_000 + cpu, 1 << 30), true);
        }
        assert_eq!(shapes.groups.len(), 1);
        assert_eq!(shapes.most_frequent(), Some(shape(64_999, 1 << 30)));
        for (low, high) in [(0, 1), (7, 8), (15, 16), (100, 120), (i64::MAX / 2, i64::MAX)] {
            assert!(eighths(low) < eighths(high), "{low} {high}");
        }
    }
}
