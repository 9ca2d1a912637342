//! [`Histogram`]: quantiles of many values in little memory, with integers alone.

use crate::outcome::{LatencyCurve, Percentiles};

/// Each power of two is divided into 2⁷ equal parts, so a part is at most 1/128 (0.8 %) of the
/// values in it wide.
const PART_BITS: u32 = 7;
const PARTS: u64 = 1 << PART_BITS;

/// Counts of values in buckets whose width grows with the values. At most 58 × 128 buckets; only
/// those up to the largest value take memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        let at = bucket(value);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Forgets all values, and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = 0;
    }

    /// How many values there are.
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The least value that `permille` of a thousand values do not exceed, at most 0.8 % too
    /// large; zero when there are no values.
    pub fn quantile(&self, permille: u64) -> u64 {
        let rank = self.total.saturating_mul(permille).div_ceil(1_000).max(1);
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return upper(at as u64).min(self.max);
            }
        }
        self.max
    }

    /// The quantiles that are reported, of values in nanoseconds.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.total,
            p50_ns: self.quantile(500),
            p90_ns: self.quantile(900),
            p99_ns: self.quantile(990),
            max_ns: self.max,
        }
    }

    /// The distribution for plots, of values in nanoseconds: every fortieth of the values, and more
    /// of the largest.
    pub fn curve(&self) -> LatencyCurve {
        if self.total == 0 {
            return LatencyCurve::default();
        }
        let permille = (0..=39_u16).map(|i| i * 25).chain([990, 995, 999, 1_000]);
        LatencyCurve(permille.map(|p| (p, self.quantile(u64::from(p)))).collect())
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let exponent = value.checked_ilog2().unwrap_or(0).saturating_sub(PART_BITS);
    let parts = u64::from(exponent) * PARTS + (value >> exponent);
    usize::try_from(parts).expect("fewer buckets than 2^13")
}

/// The largest value of a bucket.
fn upper(bucket: u64) -> u64 {
    let exponent = (bucket / PARTS).saturating_sub(1);
    let part = bucket - exponent * PARTS;
    // Wraps at the very last bucket, whose largest value is the largest of all.
    ((part + 1) << exponent).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_one_to_a_thousand() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        (1..=1_000).for_each(|value| histogram.record(value));
        let found = histogram.percentiles();
        assert_eq!((found.count, found.max_ns), (1_000, 1_000));
        for (found, exact) in [(found.p50_ns, 500), (found.p90_ns, 900), (found.p99_ns, 990)] {
            assert!((exact..=exact + exact / 128).contains(&found), "{found} for {exact}");
        }
        let curve = histogram.curve().0;
        assert_eq!((curve.first(), curve.last()), (Some(&(0, 1)), Some(&(1_000, 1_000))));
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        histogram.clear();
        assert_eq!(histogram.curve(), LatencyCurve::default());
        assert_eq!(histogram.percentiles(), Percentiles::default());
        histogram.record(7);
        assert_eq!(histogram.quantile(500), 7);
    }

    #[test]
    fn the_smallest_and_the_largest_values_have_buckets() {
        for value in [0, 1, 127, 128, 129, 255, 256, 257, u64::MAX - 1, u64::MAX] {
            let mut histogram = Histogram::default();
            histogram.record(value);
            assert_eq!(histogram.quantile(500), value);
        }
        assert_eq!(upper(bucket(u64::MAX) as u64), u64::MAX);
        assert_eq!(bucket(u64::MAX), 58 * 128 - 1);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_values_and_is_narrow(value in any::<u64>()) {
            let at = bucket(value) as u64;
            prop_assert!(upper(at) >= value);
            prop_assert!(upper(at) - value <= value / 100);
            prop_assert!(at == 0 || upper(at - 1) < value);
        }
    }
}
