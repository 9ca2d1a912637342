//! How figures are written for people.

use crate::span::Span;

/// What a figure is of. Values are in the unit's base: percent, pieces, CPUs, bytes, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Percent,
    Count,
    Cpus,
    Bytes,
    Seconds,
    PerSecond,
}

impl Unit {
    /// The figure with its unit, three digits long.
    pub(super) fn write(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{} %", digits(value)),
            Self::Count => short(value),
            Self::Cpus => format!("{} CPU", short(value)),
            Self::Bytes => bytes(value),
            Self::Seconds => seconds(value),
            Self::PerSecond => format!("{}/s", short(value)),
        }
    }
}

/// All digits, in groups of three.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as a figure with three digits.
pub(super) fn nanos(nanos: u64) -> String {
    seconds(nanos as f64 / 1e9)
}

/// A length of time as people say it, cut to two units (`1h30m`, `2m5s`, `41s`, `350ms`).
pub(super) fn span(span: Span) -> String {
    const SECOND: u64 = 1_000_000_000;
    let grain = match span.0 {
        0..SECOND => return nanos(span.0),
        SECOND..600_000_000_000 => SECOND,
        600_000_000_000..86_400_000_000_000 => 60 * SECOND,
        _ => 3_600 * SECOND,
    };
    Span(span.0 / grain * grain).to_string()
}

/// A span as decimal seconds, exactly.
pub(super) fn exact_seconds(span: Span) -> String {
    let text = format!("{}.{:09}", span.0 / 1_000_000_000, span.0 % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A figure with three digits and k, M, G or T.
pub(super) fn short(value: f64) -> String {
    scaled(value, 1_000.0, &["", " k", " M", " G", " T"])
}

fn bytes(value: f64) -> String {
    scaled(value, 1_024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut rest = value;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // What would be rounded up to the base has the next unit.
    while rest.abs() >= base * 0.9995 {
        let Some(next) = units.next() else { break };
        rest /= base;
        unit = next;
    }
    format!("{}{unit}", digits(rest))
}

fn seconds(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 {
        let sign = if value < 0.0 { "−" } else { "" };
        let whole = std::time::Duration::try_from_secs_f64(size).map_or(u64::MAX, |d| d.as_secs());
        return format!("{sign}{}", span(Span(whole.saturating_mul(1_000_000_000))));
    }
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")];
    let unit = units.into_iter().find(|(length, _)| size >= length * 0.9995);
    match unit {
        _ if size == 0.0 => "0 s".to_owned(),
        Some((length, name)) => format!("{} {name}", digits(value / length)),
        None => format!("{} ns", digits(value * 1e9)),
    }
}

/// Three digits, without zeros at the end of a fraction. The minus sign is as wide as a plus.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.000_01, "0"),
            (0.25, "0.25"),
            (0.012_34, "0.012"),
            (1.0, "1"),
            (12.345, "12.3"),
            (999.4, "999"),
            (999.9, "1 k"),
            (1_500.0, "1.5 k"),
            (-2_345_678.0, "−2.35 M"),
            (3e15, "3000 T"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(Unit::Bytes.write(1_610_612_736.0), "1.5 GiB");
        assert_eq!(Unit::Percent.write(41.26), "41.3 %");
        assert_eq!(Unit::PerSecond.write(318_000.0), "318 k/s");
    }

    #[test]
    fn times_are_written_as_people_say_them() {
        for (value, text) in [
            (0, "0 s"),
            (850, "850 ns"),
            (1_500, "1.5 µs"),
            (12_340_000, "12.3 ms"),
            (999_999_999, "1 s"),
            (41_000_000_000, "41 s"),
            (125_700_000_000, "2m5s"),
            (7_384_000_000_000, "2h3m"),
        ] {
            assert_eq!(nanos(value), text);
        }
        assert_eq!(span(Span::secs(41)), "41s");
        assert_eq!(span(Span::secs(2 * 86_400 + 3_723)), "2d1h");
        assert_eq!(span(Span::millis(350)), "350 ms");
        assert_eq!(exact_seconds(Span(1_250_000_001)), "1.250000001");
        assert_eq!(exact_seconds(Span::secs(60)), "60");
        assert_eq!(grouped(1_310_400), "1,310,400");
        assert_eq!(grouped(999), "999");
    }
}
