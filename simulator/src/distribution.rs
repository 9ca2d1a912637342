//! [`Distribution`]: how long things take and how large they are, drawn with integers alone so
//! that every machine draws the same.

mod decimal;
mod fixed;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use decimal::Decimal;

use crate::span::Span;

/// What can be drawn: a whole number with a unit.
pub trait Amount: Copy + Ord {
    /// The number.
    fn raw(self) -> u64;
    /// The amount of a number.
    fn from_raw(raw: u64) -> Self;
}

impl Amount for Span {
    fn raw(self) -> u64 {
        self.0
    }

    fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

impl Amount for u64 {
    fn raw(self) -> u64 {
        self
    }

    fn from_raw(raw: u64) -> Self {
        raw
    }
}

/// A distribution of amounts: lengths of time unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, untagged)]
pub enum Distribution<T = Span> {
    /// Always the same.
    Constant(T),
    /// Anything between two values.
    Uniform {
        /// The least.
        min: T,
        /// The most.
        max: T,
    },
    /// Log-normal: half are below `median`, one in a hundred is above `p99`; cut off where one in
    /// 65,536 would be above.
    Skewed {
        /// Half are below.
        median: T,
        /// One in a hundred is above.
        p99: T,
    },
    /// Exponential: what lies between events that know nothing of each other.
    Exponential {
        /// The mean.
        mean: T,
    },
    /// Bounded Pareto: a few are very large. The smaller the shape, the heavier the tail; at 1
    /// every doubling holds as much in sum as the one before.
    Pareto {
        /// The least.
        min: T,
        /// The most.
        max: T,
        /// The exponent of the tail.
        shape: Decimal,
    },
    /// Measured: percentages, rising, with the value below which so many are. Between two of them
    /// values are spread evenly over their logarithms; nothing is below the first or above the
    /// last.
    Empirical {
        /// Percentages and values.
        quantiles: Vec<(Decimal, T)>,
    },
    /// One of several values.
    Choices {
        /// Weights and values.
        choices: Vec<(u32, T)>,
    },
}

impl<T: Amount> Default for Distribution<T> {
    fn default() -> Self {
        Self::Constant(T::from_raw(0))
    }
}

impl<T: Amount> Distribution<T> {
    /// Draws one value.
    pub fn sample(&self, rng: &mut ChaCha8Rng) -> T {
        match self {
            // Takes nothing from the generator: it is drawn for every message.
            Self::Constant(value) => *value,
            _ => self.quantile(rng.next_u64()),
        }
    }

    /// The value below which `fraction/2^64` of the draws are; never falls when the fraction
    /// rises.
    pub fn quantile(&self, fraction: u64) -> T {
        let raw = match self {
            Self::Constant(value) => value.raw(),
            Self::Uniform { min, max } => uniform(min.raw(), max.raw(), fraction),
            Self::Skewed { median, p99 } => log_normal(median.raw(), p99.raw(), fraction),
            Self::Exponential { mean } => exponential(mean.raw(), fraction),
            Self::Pareto { min, max, shape } => pareto(min.raw(), max.raw(), *shape, fraction),
            Self::Empirical { quantiles } => empirical(quantiles, fraction),
            Self::Choices { choices } => chosen(choices, fraction),
        };
        T::from_raw(raw)
    }

    /// The largest value that can be drawn: for choosing patience.
    pub fn upper(&self) -> T {
        self.quantile(u64::MAX)
    }

    /// The mean, to a few parts in a thousand (heavy tails to a few in a hundred): for telling in
    /// advance how much there will be.
    pub fn mean(&self) -> T {
        const PARTS: u64 = 4_096;
        let each = u64::MAX / PARTS;
        let sum: u128 =
            (0..PARTS).map(|i| u128::from(self.quantile(i * each + each / 2).raw())).sum();
        T::from_raw(u64::try_from(sum / u128::from(PARTS)).unwrap_or(u64::MAX))
    }

    /// What is wrong with the numbers, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Constant(_) | Self::Exponential { .. } => None,
            Self::Uniform { min, max } | Self::Pareto { min, max, .. } if min > max => {
                Some("`min` is more than `max`")
            }
            Self::Uniform { .. } => None,
            Self::Pareto { min, .. } if min.raw() == 0 => Some("`min` must be more than nothing"),
            Self::Pareto { shape, .. } if !(10..=100_000).contains(&shape.thousandths()) => {
                Some("`shape` must be from 0.01 to 100")
            }
            Self::Pareto { .. } => None,
            Self::Skewed { median, p99 } if median > p99 => Some("`median` is more than `p99`"),
            Self::Skewed { median, p99 } if median.raw() == 0 && p99.raw() > 0 => {
                Some("`median` must be more than nothing")
            }
            Self::Skewed { .. } => None,
            Self::Empirical { quantiles } => quantiles_fault(quantiles),
            Self::Choices { choices } => match choices.iter().map(|(w, _)| u64::from(*w)).sum() {
                0_u64 => Some("the weights must be more than 0 together"),
                _ => None,
            },
        }
    }
}

fn quantiles_fault<T: Amount>(quantiles: &[(Decimal, T)]) -> Option<&'static str> {
    if quantiles.is_empty() {
        return Some("there must be at least one pair");
    }
    if quantiles.iter().any(|(percent, _)| percent.thousandths() > 100_000) {
        return Some("percentages go from 0 to 100");
    }
    let rises = |pair: &[(Decimal, T)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
    if !quantiles.windows(2).all(rises) {
        return Some("percentages must rise, and values must not fall");
    }
    None
}

/// `fraction/2^64` of `whole`.
fn part(whole: u64, fraction: u64) -> u64 {
    high((u128::from(whole) * u128::from(fraction)) >> 64)
}

fn high(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A fixed-point number times another.
fn product(a: u64, b: u64) -> u64 {
    high((u128::from(a) * u128::from(b)) >> fixed::BITS)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn uniform(min: u64, max: u64, fraction: u64) -> u64 {
    let width = max.saturating_sub(min);
    min + part(width.saturating_add(1), fraction).min(width)
}

fn log_normal(median: u64, p99: u64, fraction: u64) -> u64 {
    if median == 0 || p99 <= median {
        return median;
    }
    let spread = i128::from(fixed::log2(p99) - fixed::log2(median));
    let exponent = spread * i128::from(fixed::normal(fraction)) / i128::from(fixed::Z_99);
    fixed::times_power_of_two(median, i64::try_from(exponent).unwrap_or(i64::MAX))
}

fn exponential(mean: u64, fraction: u64) -> u64 {
    // Of 2^64 parts, what is above: never 0.
    let above = (!fraction).max(1);
    let halvings = (64_u64 << fixed::BITS).saturating_sub(fixed::log2(above));
    product(mean, product(halvings, fixed::LN_2))
}

fn pareto(min: u64, max: u64, shape: Decimal, fraction: u64) -> u64 {
    if max <= min || min == 0 {
        return min;
    }
    let shape = u128::from(shape.thousandths().max(1));
    // (min/max)^shape, with 63 bits after the point.
    let one = 1_u64 << 63;
    let doublings = fixed::log2(max) - fixed::log2(min);
    let exponent = u128::from(doublings) * shape / 1_000;
    let reached =
        fixed::times_power_of_two(one, -i64::try_from(exponent).unwrap_or(i64::MAX).max(0));
    let above = one - part(one - reached, fraction);
    let halvings = (63_u64 << fixed::BITS).saturating_sub(fixed::log2(above.max(1)));
    let exponent = high(u128::from(halvings) * 1_000 / shape);
    fixed::times_power_of_two(min, signed(exponent)).clamp(min, max)
}

fn empirical<T: Amount>(quantiles: &[(Decimal, T)], fraction: u64) -> u64 {
    // In thousandths of a percent, with 32 bits after the point.
    let at = high((u128::from(fraction) * 100_000) >> 32);
    let place = |percent: Decimal| percent.thousandths() << 32;
    let after = quantiles.partition_point(|(percent, _)| place(*percent) <= at);
    let Some((high_at, high_value)) = quantiles.get(after) else {
        return quantiles.last().map_or(0, |(_, value)| value.raw());
    };
    let Some((low_at, low_value)) = after.checked_sub(1).and_then(|i| quantiles.get(i)) else {
        return high_value.raw();
    };
    let (low_value, high_value) = (low_value.raw(), high_value.raw());
    let width = u128::from(place(*high_at) - place(*low_at)).max(1);
    let within = high(u128::from(at - place(*low_at)) * u128::from(fixed::ONE) / width);
    if low_value == 0 {
        return product(high_value, within);
    }
    let doublings = fixed::log2(high_value).saturating_sub(fixed::log2(low_value));
    fixed::times_power_of_two(low_value, signed(product(doublings, within)))
        .clamp(low_value, high_value)
}

fn chosen<T: Amount>(choices: &[(u32, T)], fraction: u64) -> u64 {
    let total: u64 = choices.iter().map(|(weight, _)| u64::from(*weight)).sum();
    let mut at = part(total, fraction);
    for (weight, value) in choices {
        match at.checked_sub(u64::from(*weight)) {
            Some(rest) => at = rest,
            None => return value.raw(),
        }
    }
    choices.last().map_or(0, |(_, value)| value.raw())
}

#[cfg(test)]
mod tests {
    use machine::RngTree;
    use proptest::prelude::*;

    use super::*;

    /// Draws 200,000 values and compares percentiles with what is expected, to 4 percent.
    fn check(distribution: &Distribution<u64>, expected: &[(usize, u64)]) {
        assert_eq!(distribution.fault(), None);
        let mut rng = RngTree::new(1).rng("test");
        let mut draws: Vec<u64> = (0..200_000).map(|_| distribution.sample(&mut rng)).collect();
        draws.sort_unstable();
        for (percent, value) in expected {
            let drawn = draws[(draws.len() - 1) * percent / 100];
            let near = value - value / 25..=value + value / 25;
            assert!(near.contains(&drawn), "{distribution:?} at {percent}: {drawn}, not {value}");
        }
        assert!(draws.iter().all(|d| *d <= distribution.upper()));
    }

    #[test]
    fn quantiles_are_where_they_are_said_to_be() {
        use Distribution::{Choices, Constant, Empirical, Exponential, Pareto, Skewed, Uniform};
        check(&Constant(7), &[(0, 7), (100, 7)]);
        check(&Uniform { min: 1_000, max: 3_000 }, &[(0, 1_000), (50, 2_000), (90, 2_800)]);
        check(
            &Skewed { median: 10_000, p99: 100_000 },
            &[(1, 1_000), (16, 3_740), (50, 10_000), (84, 26_750), (99, 100_000)],
        );
        // -ln(1-p) of the mean.
        check(
            &Exponential { mean: 1_000_000 },
            &[(10, 105_360), (50, 693_147), (90, 2_302_585), (99, 4_605_170)],
        );
        // (1 - p(1 - 1/1000))^-1.
        let shape = Decimal::from_thousandths(1_000);
        check(
            &Pareto { min: 1_000, max: 1_000_000, shape },
            &[(50, 1_998), (90, 9_911), (99, 91_000)],
        );
        let quantiles = [(5, 100), (50, 1_000), (90, 10_000), (100, 20_000)]
            .map(|(percent, value)| (Decimal::from_thousandths(percent * 1_000), value));
        check(
            &Empirical { quantiles: quantiles.to_vec() },
            &[(0, 100), (3, 100), (50, 1_000), (70, 3_162), (90, 10_000), (100, 20_000)],
        );
        let choices = Choices { choices: vec![(70, 1_000), (0, 9), (30, 2_000)] };
        check(&choices, &[(0, 1_000), (68, 1_000), (72, 2_000), (100, 2_000)]);
        assert_eq!(choices.mean(), 1_300);
    }

    #[test]
    fn means_are_known_in_advance() {
        let exponential = Distribution::Exponential { mean: Span::secs(10) };
        let mean = exponential.mean();
        assert!((Span::millis(9_950)..=Span::millis(10_050)).contains(&mean), "{mean}");
    }

    #[test]
    fn wrong_numbers_are_told() {
        use Distribution::{Choices, Empirical, Pareto, Skewed, Uniform};
        let percent = |p: u64| Decimal::from_thousandths(p * 1_000);
        let shape = Decimal::from_thousandths;
        for (distribution, fault) in [
            (Uniform { min: 2, max: 1 }, "`min` is more than `max`"),
            (Skewed { median: 2, p99: 1 }, "`median` is more than `p99`"),
            (Skewed { median: 0, p99: 1 }, "`median` must be more than nothing"),
            (Pareto { min: 0, max: 1, shape: shape(1_000) }, "`min` must be more than nothing"),
            (Pareto { min: 1, max: 2, shape: shape(0) }, "`shape` must be from 0.01 to 100"),
            (Choices { choices: vec![(0, 1)] }, "the weights must be more than 0 together"),
            (Empirical { quantiles: vec![] }, "there must be at least one pair"),
            (Empirical { quantiles: vec![(percent(101), 1)] }, "percentages go from 0 to 100"),
            (
                Empirical { quantiles: vec![(percent(50), 1), (percent(50), 2)] },
                "percentages must rise, and values must not fall",
            ),
            (
                Empirical { quantiles: vec![(percent(50), 2), (percent(60), 1)] },
                "percentages must rise, and values must not fall",
            ),
        ] {
            assert_eq!(distribution.fault(), Some(fault), "{distribution:?}");
        }
    }

    fn any_distribution() -> impl Strategy<Value = Distribution<u64>> {
        let amount = 1..u64::MAX / 4;
        let pair = (amount.clone(), amount.clone()).prop_map(|(a, b)| (a.min(b), a.max(b)));
        let percents = proptest::collection::btree_map(0..100_000_u64, amount.clone(), 1..6);
        prop_oneof![
            amount.clone().prop_map(Distribution::Constant),
            amount.prop_map(|mean| Distribution::Exponential { mean: mean / 64 }),
            pair.clone().prop_map(|(min, max)| Distribution::Uniform { min, max }),
            pair.clone().prop_map(|(median, p99)| Distribution::Skewed { median, p99 }),
            (pair, 10..100_000_u64).prop_map(|((min, max), shape)| Distribution::Pareto {
                min,
                max,
                shape: Decimal::from_thousandths(shape)
            }),
            percents.prop_map(|points| {
                let mut values: Vec<u64> = points.values().copied().collect();
                values.sort_unstable();
                let quantiles =
                    points.into_keys().map(Decimal::from_thousandths).zip(values).collect();
                Distribution::Empirical { quantiles }
            }),
        ]
    }

    proptest! {
        #[test]
        fn quantiles_never_fall(
            distribution in any_distribution(),
            a in any::<u64>(),
            b in any::<u64>(),
        ) {
            prop_assert_eq!(distribution.fault(), None);
            let (low, high) = (distribution.quantile(a.min(b)), distribution.quantile(a.max(b)));
            prop_assert!(low <= high, "{low} {high}");
            prop_assert!(high <= distribution.upper());
        }

        #[test]
        fn what_is_written_is_read_back(distribution in any_distribution()) {
            let text = serde_json::to_string(&distribution).unwrap();
            let read: Distribution<u64> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, distribution);
        }
    }
}
