//! Points in time as integers, so that pure code can add, compare and replay them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// Returns the point `secs` whole seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Time elapsed since `earlier`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Converts to a timestamp; times beyond the calendar (year 9999) saturate.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(Timestamp::MAX)
    }

    /// Converts from a timestamp; times before the epoch become the epoch, times after the year
    /// 2554 the latest that can be told.
    pub fn from_timestamp(timestamp: Timestamp) -> Self {
        let nanos = timestamp.as_nanosecond();
        Self(u64::try_from(nanos).unwrap_or(if nanos < 0 { 0 } else { u64::MAX }))
    }

    /// As `metav1.Time`, which has a resolution of one second.
    pub fn to_meta(self) -> v1::Time {
        let secs = i64::try_from(self.as_secs()).unwrap_or(i64::MAX);
        v1::Time(Timestamp::from_second(secs).unwrap_or(Timestamp::MAX))
    }

    /// From `metav1.Time`.
    pub fn from_meta(time: &v1::Time) -> Self {
        Self::from_timestamp(time.0)
    }

    /// As `metav1.MicroTime`, which has a resolution of one microsecond.
    pub fn to_micro(self) -> v1::MicroTime {
        let micros = i64::try_from(self.0 / 1_000).unwrap_or(i64::MAX);
        v1::MicroTime(Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX))
    }

    /// From `metav1.MicroTime`.
    pub fn from_micro(time: &v1::MicroTime) -> Self {
        Self::from_timestamp(time.0)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.timestamp().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_truncates_to_the_second() {
        let t = Time(1_700_000_000_123_456_789);
        assert_eq!(Time::from_meta(&t.to_meta()), Time::from_secs(1_700_000_000));
        assert_eq!(Time::from_micro(&t.to_micro()), Time(1_700_000_000_123_456_000));
        assert_eq!((t + Duration::from_secs(1)).since(t), Duration::from_secs(1));
        assert_eq!(t.since(t + Duration::from_secs(1)), Duration::ZERO);
    }
}
