//! Axes: where values lie on a picture, and round numbers to write beside it.

use crate::span::Span;

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their magnitude; for values that differ by powers of ten.
    Log,
}

/// An axis from `low` to `high`, drawn over `length` from `from` on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    length: f64,
    /// Round values within the axis, in order.
    pub(super) ticks: Vec<f64>,
}

/// Steps between ticks of time, in seconds.
const TIME_STEPS: [u64; 21] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
    86_400, 172_800, 604_800, 1_209_600,
];

impl Axis {
    /// An axis of values, from zero (or the power of ten below the least) to the first tick
    /// that is not below the greatest. Linear ticks are at least `step_min` apart.
    pub(super) fn of_values(
        values: impl Iterator<Item = f64>,
        scale: Scale,
        step_min: f64,
        from: f64,
        length: f64,
    ) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        match scale {
            Scale::Linear => {
                let high = if high > 0.0 { high } else { 1.0 };
                let step = step(high, 4.0).max(step_min);
                let count = (high / step - 1e-9).ceil().max(1.0);
                let ticks = series(step).take_while(|t| *t <= count * step * 1.000_001).collect();
                Self { scale, low: 0.0, high: count * step, from, length, ticks }
            }
            Scale::Log => {
                let (low, high) = if high > 0.0 { (low.max(1e-9), high) } else { (1.0, 10.0) };
                let below = (low.log10() + 1e-9).floor();
                let above = (high.log10() - 1e-9).ceil().max(below + 1.0);
                let ticks = powers_of_ten(below, above);
                let (low, high) = (10_f64.powf(below), 10_f64.powf(above));
                Self { scale, low, high, from, length, ticks }
            }
        }
    }

    /// An axis of time in seconds, exactly as long as it must be.
    pub(super) fn of_times(begin: Span, end: Span, from: f64, length: f64) -> Self {
        let (low, high) = (begin.as_secs_f64(), end.as_secs_f64());
        let range = (high - low).max(1e-9);
        let step = if range < 6.0 {
            step(range, 6.0)
        } else {
            let mut steps = TIME_STEPS.iter().map(|step| *step as f64);
            steps.find(|step| range / step <= 7.0).unwrap_or_else(|| step(range, 7.0))
        };
        let first = (low / step - 1e-9).ceil();
        let ticks = series(step)
            .map(|t| t + first * step)
            .take_while(|t| *t <= high + range * 1e-9)
            .collect();
        Self { scale: Scale::Linear, low, high: low + range, from, length, ticks }
    }

    /// Where a value lies; values beyond the axis lie at its ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        self.from + self.length * part.clamp(0.0, 1.0)
    }
}

/// A round step (1, 2 or 5 times a power of ten) that divides `range` into about `parts`.
fn step(range: f64, parts: f64) -> f64 {
    let rough = range / parts;
    let power = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0];
    power * factors.into_iter().find(|f| f * power >= rough * 0.999_999).unwrap_or(10.0)
}

/// Zero and the multiples of a step.
fn series(step: f64) -> impl Iterator<Item = f64> {
    (0_u32..=64).map(move |i| f64::from(i) * step)
}

/// Powers of ten from one exponent to another; every second, third … when there are many.
fn powers_of_ten(below: f64, above: f64) -> Vec<f64> {
    let stride = ((above - below) / 5.0).ceil().max(1.0);
    series(stride).map(|e| e + below).take_while(|e| *e <= above).map(|e| 10_f64.powf(e)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[f64], scale: Scale) -> Axis {
        Axis::of_values(values.iter().copied(), scale, 0.0, 0.0, 100.0)
    }

    #[test]
    fn ticks_are_round_and_reach_over_the_greatest_value() {
        assert_eq!(values(&[3.0, 97.0], Scale::Linear).ticks, [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(values(&[1_234.0], Scale::Linear).ticks, [0.0, 500.0, 1_000.0, 1_500.0]);
        assert_eq!(values(&[100.0], Scale::Linear).ticks, [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(values(&[], Scale::Linear).ticks, [0.0, 0.25, 0.5, 0.75, 1.0]);
        let pieces = Axis::of_values([2.0].into_iter(), Scale::Linear, 1.0, 0.0, 100.0);
        assert_eq!(pieces.ticks, [0.0, 1.0, 2.0]);
        assert_eq!(values(&[0.0], Scale::Linear).place(0.0), 0.0);
        assert_eq!(values(&[50.0, f64::NAN], Scale::Linear).place(25.0), 41.666_666_666_666_67);
    }

    #[test]
    fn magnitudes_are_evenly_apart() {
        let axis = values(&[0.002, 0.5], Scale::Log);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert_eq!(axis.ticks.len(), 4);
        assert!(near(axis.place(0.001), 0.0) && near(axis.place(1.0), 100.0));
        assert!(near(axis.place(0.01), 100.0 / 3.0), "{}", axis.place(0.01));
        assert!(near(axis.place(0.0), 0.0), "a logarithm that does not exist");
        assert!(values(&[1e-9, 1e3], Scale::Log).ticks.len() <= 7);
        assert_eq!(values(&[], Scale::Log).ticks, [1.0, 10.0]);
    }

    #[test]
    fn times_have_ticks_that_people_know() {
        let ticks = |secs: u64| Axis::of_times(Span::ZERO, Span::secs(secs), 0.0, 100.0).ticks;
        assert_eq!(ticks(300), [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]);
        assert_eq!(ticks(7_200), [0.0, 1_800.0, 3_600.0, 5_400.0, 7_200.0]);
        assert_eq!(ticks(0), [0.0]);
        assert!(ticks(86_400 * 365).len() <= 8);
        let late = Axis::of_times(Span::secs(100), Span::secs(200), 10.0, 90.0);
        assert_eq!(late.ticks.first(), Some(&105.0));
        assert_eq!((late.place(100.0), late.place(200.0)), (10.0, 100.0));
    }
}
