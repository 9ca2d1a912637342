//! When things come: so many a second, or with measured distances, by day more than by night.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use crate::scenario::diagnostics::Problem;
use crate::scenario::section::{Section, TIME};
use crate::span::Span;

/// A stream of moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// When it begins; the first one comes one distance later.
    pub from: Span,
    /// When it ends; with the operations when absent.
    pub until: Option<Span>,
    /// The distance between two.
    pub gap: Distribution,
    /// How many at most.
    pub count: Option<u64>,
    /// How the rate changes with the time of day.
    pub diurnal: Option<Diurnal>,
    /// Where the file says so.
    pub place: Range<usize>,
}

/// A rate that rises and falls once in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// How long a day is.
    pub period: Span,
    /// When the rate is highest, from the start of each period.
    pub peak: Span,
    /// By how much the rate rises and falls, in percent of the mean.
    pub percent: u32,
}

impl Diurnal {
    /// The rate at a moment in thousandths of the mean.
    pub(crate) fn rate(self, at: Span) -> u64 {
        let period = u128::from(self.period.0.max(1));
        // From the peak, in 65,536ths of a period.
        let since = (u128::from(at.0) + period - u128::from(self.peak.0) % period) % period;
        let phase = u64::try_from(since * 65_536 / period).unwrap_or(0);
        let swing = u64::from(self.percent) * 10;
        let (height, above) = cosine(phase);
        let part = swing * height / 65_536;
        if above { 1_000 + part } else { 1_000_u64.saturating_sub(part) }
    }
}

/// The cosine of a phase in 65,536ths of a turn: its size in 65,536ths, and whether it is positive.
///
/// Bhaskara's approximation: never off by more than two thousandths.
fn cosine(phase: u64) -> (u64, bool) {
    let quarter = 65_536 / 4;
    let phase = phase % 65_536;
    let above = !(quarter..3 * quarter).contains(&phase);
    // From the nearest extreme to the nearest zero: 0 to a quarter.
    let from_extreme = match phase % (2 * quarter) {
        near if near < quarter => near,
        far => 2 * quarter - far,
    };
    // As the angle of a sine in 65,536ths of half a turn.
    let x = (quarter - from_extreme) * 2;
    let product = x * (65_536 - x) / 65_536;
    (16 * product * 65_536 / (5 * 65_536 - 4 * product), above)
}

impl Arrivals {
    /// Reads `from`, `until`, `count`, `rate` or `every`, and `diurnal`. `gap` is what holds
    /// without `rate` and `every`, and `None` if one of them is needed.
    pub(crate) fn read(section: &Section<'_>, gap: Option<Distribution>) -> Option<Self> {
        let from = section.time("from").unwrap_or_default();
        let until = section.time("until");
        if until.is_some_and(|until| until <= from) {
            let message = format!("`{}` ends before it begins", section.path());
            let problem = Problem::error(section.place_of("until"), message);
            section.report(problem.label(format!("not after {from}")));
        }
        let count = section.whole("count", 1..=super::OBJECTS_MAX);
        let gap = Self::gap(section, gap);
        let diurnal = section.section("diurnal").and_then(|s| diurnal(&s));
        let gap = gap?;
        if count.is_none() && gap.upper() == Span::ZERO {
            let place = section.place_of("every");
            let message = format!("`{}` would never end: no time passes", section.path());
            section.report(
                Problem::error(place, message)
                    .label("no distance")
                    .help("give `count`, or a distance between two"),
            );
            return None;
        }
        Some(Self { from, until, gap, count, diurnal, place: section.place() })
    }

    fn gap(section: &Section<'_>, default: Option<Distribution>) -> Option<Distribution> {
        let rate = section.get("rate");
        let every = section.get("every");
        match (rate, every) {
            (Some(_), Some(every)) => {
                let message = "`rate` and `every` exclude each other";
                every.report(message, "which one?", "leave one of them out");
                None
            }
            (Some(rate), None) => {
                let thousandths = rate.decimal()?.thousandths();
                if thousandths == 0 {
                    let message = format!("`{}` cannot be 0", rate.path());
                    rate.report(message, "nothing would ever come", "leave the section out");
                    return None;
                }
                Some(Distribution::Constant(Span(1_000_000_000_000 / thousandths)))
            }
            (None, Some(every)) => every.distribution(&TIME),
            (None, None) if default.is_none() => {
                let message = format!("`{}` lacks `rate` or `every`", section.path());
                let help = "rate = 10 is ten a second; every = { mean = \"100ms\" } too, at random";
                section.report(
                    Problem::error(section.place(), message).label("how often?").help(help),
                );
                None
            }
            (None, None) => default,
        }
    }

    /// Whether it goes on for as long as operations do.
    pub(crate) const fn endless(&self) -> bool {
        self.count.is_none() && self.until.is_none()
    }

    /// About how many come until `end`.
    pub(crate) fn expected(&self, end: Option<Span>) -> u64 {
        let most = self.count.unwrap_or(u64::MAX);
        let until = self.until.or(end);
        let gap = self.gap.mean().0.max(1);
        until.map_or(most, |until| (until.0.saturating_sub(self.from.0) / gap).min(most))
    }

    /// The moments, rising, up to the end of the operations if that is known.
    pub(crate) fn times<'a>(
        &'a self,
        end: Option<Span>,
        rng: &'a mut ChaCha8Rng,
    ) -> impl Iterator<Item = Span> + 'a {
        let until = self.until.or(if self.count.is_some() { None } else { end });
        let mut at = self.from;
        let mut left = self.count.unwrap_or(super::OBJECTS_MAX);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let gap = self.gap.sample(rng).0;
            let gap = match self.diurnal {
                // A rate of almost nothing would put off what follows for ever.
                Some(diurnal) => {
                    let rate = u128::from(diurnal.rate(at).max(10));
                    u64::try_from(u128::from(gap) * 1_000 / rate).unwrap_or(u64::MAX)
                }
                None => gap,
            };
            at = Span(at.0.saturating_add(gap));
            until.is_none_or(|until| at <= until).then_some(at)
        })
    }
}

pub(crate) fn diurnal(section: &Section<'_>) -> Option<Diurnal> {
    let period = section.time("period").unwrap_or(Span::secs(86_400));
    let peak = section.time("peak").unwrap_or(Span::secs(14 * 3_600));
    let percent = section.need("percent").and_then(|v| v.whole(1..=100));
    if period == Span::ZERO {
        let problem = Problem::error(section.place_of("period"), "a day of no length");
        section.report(problem.label("must be more than nothing"));
    }
    section.finish();
    Some(Diurnal { period, peak, percent: percent? })
}

#[cfg(test)]
mod tests {
    use machine::RngTree;

    use super::*;

    fn arrivals(gap: Distribution) -> Arrivals {
        Arrivals { from: Span::ZERO, until: None, gap, count: None, diurnal: None, place: 0..0 }
    }

    #[test]
    fn so_many_a_second_come_until_the_end() {
        let stream = arrivals(Distribution::Constant(Span::millis(10)));
        let mut rng = RngTree::new(1).rng("a");
        let times: Vec<Span> = stream.times(Some(Span::secs(10)), &mut rng).collect();
        assert_eq!(times.len(), 1_000);
        assert_eq!((times[0], times[999]), (Span::millis(10), Span::secs(10)));
        assert_eq!(stream.expected(Some(Span::secs(10))), 1_000);
        let counted = Arrivals { count: Some(3), ..stream };
        let times: Vec<Span> = counted.times(Some(Span::millis(5)), &mut rng).collect();
        assert_eq!(times, [Span::millis(10), Span::millis(20), Span::millis(30)]);
    }

    #[test]
    fn by_day_more_come_than_by_night() {
        let day = Span::secs(86_400);
        let diurnal = Diurnal { period: day, peak: Span::secs(12 * 3_600), percent: 80 };
        let stream = Arrivals {
            diurnal: Some(diurnal),
            ..arrivals(Distribution::Exponential { mean: Span::secs(10) })
        };
        let mut rng = RngTree::new(1).rng("a");
        let mut hours = [0_u32; 24];
        for at in stream.times(Some(Span(day.0 - 1)), &mut rng) {
            hours[usize::try_from(at.0 / 3_600_000_000_000).unwrap()] += 1;
        }
        // 360 an hour in the mean, 1.8 times as many at noon, a fifth at midnight.
        assert!((600..700).contains(&hours[12]), "{hours:?}");
        assert!((50..100).contains(&hours[0]), "{hours:?}");
        assert!((340..480).contains(&hours[6]), "{hours:?}");
    }

    #[test]
    fn a_cosine_has_its_known_values() {
        for (phase, expected) in [(0, 65_536), (8_192, 46_341), (16_384, 0), (57_344, 46_341)] {
            let (height, above) = cosine(phase);
            assert!(height.abs_diff(expected) < 150, "{phase}: {height}");
            assert_eq!(above, expected > 0, "{phase}");
        }
        assert_eq!(cosine(32_768), (65_536, false));
    }
}
