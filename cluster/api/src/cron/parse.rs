//! Reading schedules, and what is said of those that cannot be read.

use jiff::tz::TimeZone;

use super::{Fields, STAR, Schedule, When, zone};

/// Why text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

fn fail<T>(text: String) -> Result<T, ScheduleError> {
    Err(ScheduleError(text))
}

/// The values of a field.
struct Bounds {
    min: u64,
    max: u64,
    /// Names of the values, from the least on.
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOUR: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAY: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTH: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Bounds =
    Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

pub(super) fn schedule(text: &str, name: Option<&str>) -> Result<Schedule, ScheduleError> {
    if text.is_empty() {
        return fail("empty spec string".to_owned());
    }
    let named = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
    let (name, text) = match named {
        Some(rest) => {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            (Some(name), rest.trim())
        }
        None => (name, text),
    };
    let zone = match name {
        None => TimeZone::UTC,
        Some(name) => zone(name).ok_or_else(|| {
            ScheduleError(format!("provided bad location {name}: unknown time zone {name}"))
        })?,
    };
    let when = if text.starts_with('@') { descriptor(text)? } else { When::At(fields(text)?) };
    Ok(Schedule { when, zone })
}

fn fields(text: &str) -> Result<Fields, ScheduleError> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        let (count, parts) = (parts.len(), parts.join(" "));
        return fail(format!("expected exactly 5 fields, found {count}: [{parts}]"));
    };
    Ok(Fields {
        minute: field(minute, &MINUTE)?,
        hour: field(hour, &HOUR)?,
        day: field(day, &DAY)?,
        month: field(month, &MONTH)?,
        weekday: field(weekday, &WEEKDAY)?,
    })
}

/// A list of ranges.
fn field(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let ranges = text.split(',').filter(|range| !range.is_empty());
    ranges.map(|text| range(text, bounds)).try_fold(0, |bits, range| Ok(bits | range?))
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let (ends, step) = match text.split('/').collect::<Vec<_>>().as_slice() {
        [ends] => (*ends, None),
        [ends, step] => (*ends, Some(*step)),
        _ => return fail(format!("too many slashes: {text}")),
    };
    let ends: Vec<&str> = ends.split('-').collect();
    let mut star = 0;
    let (first, mut last) = match ends.as_slice() {
        ["*" | "?", ..] => {
            star = STAR;
            (bounds.min, bounds.max)
        }
        [one] => {
            let one = value(one, bounds)?;
            (one, one)
        }
        [first, last] => (value(first, bounds)?, value(last, bounds)?),
        _ => return fail(format!("too many hyphens: {text}")),
    };
    let step = match step {
        None => 1,
        Some(step) => {
            let step = number(step)?;
            if ends.len() == 1 {
                last = bounds.max;
            }
            if step > 1 {
                star = 0;
            }
            step
        }
    };
    let (min, max) = (bounds.min, bounds.max);
    if first < min {
        return fail(format!("beginning of range ({first}) below minimum ({min}): {text}"));
    }
    if last > max {
        return fail(format!("end of range ({last}) above maximum ({max}): {text}"));
    }
    if first > last {
        return fail(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
        return fail(format!("step of range should be a positive number: {text}"));
    };
    Ok((first..=last).step_by(step).fold(star, |bits, value| bits | 1 << value))
}

fn value(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let lower = text.to_lowercase();
    match (bounds.min..).zip(bounds.names).find(|(_, name)| **name == lower) {
        Some((value, _)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, ScheduleError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number: Option<i64> = text.parse().ok().filter(|_| all_digits);
    match number.map(u64::try_from) {
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => fail(format!("negative number ({text}) not allowed: {text}")),
        None => {
            let why = if all_digits { "value out of range" } else { "invalid syntax" };
            fail(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"))
        }
    }
}

fn descriptor(text: &str) -> Result<When, ScheduleError> {
    let standard = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => match text.strip_prefix("@every ") {
            Some(period) => {
                let nanos = duration(period)
                    .or_else(|why| fail(format!("failed to parse duration {text}: time: {why}")))?;
                return Ok(When::Every((nanos / 1_000_000_000).max(1)));
            }
            None => return fail(format!("unrecognized descriptor: {text}")),
        },
    };
    fields(standard).map(When::At)
}

/// Nanoseconds of a duration as Go writes them, such as `1h30m`; nothing is below zero.
///
/// # Errors
/// It is no duration; worded as Go words it.
pub fn duration(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (amount, tail) = rest.split_at(end);
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("missing unit in duration {text:?}")),
            other => return Err(format!("unknown unit {other:?} in duration {text:?}")),
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        // Ten digits are less than a nanosecond of an hour; more change nothing.
        let fraction = &fraction[..fraction.len().min(16)];
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
        total += u128::from(whole) * unit + fraction * unit / scale;
        if total > i64::MAX.unsigned_abs().into() {
            return Err(invalid());
        }
        rest = tail;
    }
    let total = u64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { 0 } else { total })
}
