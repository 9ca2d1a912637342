//! Schedules of cron jobs: when they are due.
//!
//! The API server refuses schedules that cannot be read, the controller follows the others. Time
//! zones are those of the database that is part of the program: a host's own may be older, newer or
//! absent, and two masters would disagree. A schedule without a zone is in UTC.
//!
//! Source: kubernetes 1.33, which reads schedules with `github.com/robfig/cron` 3.0.1,
//! `ParseStandard`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::Time;

mod parse;

pub use self::parse::{ScheduleError, duration as duration_nanos};

/// Set in a field that was written as a star.
const STAR: u64 = 1 << 63;

/// A day that does not come within so many years never comes.
const YEARS_MAX: i16 = 5;

/// A schedule in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    when: When,
    zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// So many seconds after the last time.
    Every(u64),
    /// At times of the calendar.
    At(Fields),
}

/// The values that each field may have, as bits, with [`STAR`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

impl Schedule {
    /// Reads five fields or a descriptor such as `@daily`, in the zone of that name if it begins
    /// with none of its own (`TZ=…`).
    ///
    /// # Errors
    /// It cannot be read; worded as Kubernetes words it.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        parse::schedule(text, zone)
    }

    /// The first time after `after` at which it is due; `None` when there is none for years, as on
    /// the 30th of February.
    pub fn next(&self, after: Time) -> Option<Time> {
        let secs = i64::try_from(after.as_secs()).ok()?;
        let due = match &self.when {
            When::Every(period) => secs.checked_add(i64::try_from(*period).ok()?)?,
            When::At(fields) => self.search(fields, secs.checked_add(1)?)?,
        };
        let nanos = u64::try_from(due).ok()?.checked_mul(1_000_000_000)?;
        Some(Time(nanos))
    }

    /// The last time after `after` and not after `until` at which it is due.
    pub fn last(&self, after: Time, until: Time) -> Option<Time> {
        let first = self.next(after).filter(|first| *first <= until)?;
        if let When::Every(period) = self.when {
            let periods = until.since(first).as_secs() / period;
            return Some(first + Duration::from_secs(periods.checked_mul(period)?));
        }
        // Something is due after the one and nothing after the other, until they are neighbours.
        let (mut something, mut nothing) = (after.as_secs(), until.as_secs() + 1);
        let mut last = first;
        while nothing - something > 1 {
            let middle = something + (nothing - something) / 2;
            match self.next(Time::from_secs(middle)).filter(|due| *due <= until) {
                Some(due) => (something, last) = (middle, due),
                None => nothing = middle,
            }
        }
        Some(last)
    }

    /// Looks from the largest unit to the smallest, and begins anew whenever a larger one moves.
    ///
    /// Hours and minutes pass as they do, not as clocks show them: what clocks skip when summer
    /// begins is not run, and what they repeat when it ends is run again.
    fn search(&self, fields: &Fields, from: i64) -> Option<i64> {
        if !fields.can_match() {
            return None;
        }
        let mut at = from;
        let limit = self.local(at)?.year().saturating_add(YEARS_MAX);
        loop {
            let local = self.local(at)?;
            let (date, second) = (local.date(), i64::from(local.second()));
            if local.year() > limit {
                return None;
            }
            let next = if !has(fields.month, date.month()) {
                self.begin(date.last_of_month().tomorrow().ok()?)?
            } else if !fields.has_day(date) {
                self.begin(date.tomorrow().ok()?)?
            } else if !has(fields.hour, local.hour()) {
                at - i64::from(local.minute()) * 60 - second + 3600
            } else if !has(fields.minute, local.minute()) || second != 0 {
                at - second + 60
            } else {
                return Some(at);
            };
            // No zone has ever made time stand still since 1970; none shall make this stand still.
            at = next.max(at + 1);
        }
    }

    fn local(&self, secs: i64) -> Option<DateTime> {
        Some(self.zone.to_datetime(Timestamp::from_second(secs).ok()?))
    }

    /// When the day begins.
    fn begin(&self, date: Date) -> Option<i64> {
        let midnight = self.zone.to_ambiguous_zoned(date.at(0, 0, 0, 0)).compatible().ok()?;
        Some(midnight.timestamp().as_second())
    }
}

impl Fields {
    /// Whether each field has a value. Days that do not exist are found out by looking for them.
    fn can_match(&self) -> bool {
        let Self { minute, hour, day, month, weekday } = *self;
        [minute, hour, day, month, weekday].iter().all(|bits| bits & !STAR != 0)
    }

    /// Where both the day and the weekday are given, either will do.
    fn has_day(&self, date: Date) -> bool {
        let day = has(self.day, date.day());
        let weekday = has(self.weekday, date.weekday().to_sunday_zero_offset());
        if (self.day | self.weekday) & STAR != 0 { day && weekday } else { day || weekday }
    }
}

fn has(bits: u64, value: i8) -> bool {
    1_u64.checked_shl(u32::from(value.unsigned_abs())).is_some_and(|bit| bits & bit != 0)
}

/// The time zone of that name, which is written as the database writes it.
pub fn zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "" | "UTC") {
        return Some(TimeZone::UTC);
    }
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    let known = zone.iana_name() == Some(name) && name != "Etc/Unknown";
    known.then_some(zone)
}

#[cfg(test)]
mod tests;
