//! What the Kubernetes API documents of cron jobs and of jobs that have finished.
//!
//! Source: kubernetes.io/docs/concepts/workloads/controllers: "CronJob" and "Automatic Cleanup for
//! Finished Jobs".

use std::time::Duration;

use api::Time;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Where a job says for which time it was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Whether a schedule of five fields, in UTC, has this time; `None` for schedules that are written
/// in another way.
pub fn is_due(schedule: &str, at: Time) -> Option<bool> {
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else { return None };
    let secs = at.as_secs();
    let whole = at.0.is_multiple_of(60_000_000_000);
    let days = secs / 86_400;
    let (month_is, day_is) = date(days);
    let minute = has(minute, secs / 60 % 60, 0, 59)?;
    let hour = has(hour, secs / 3_600 % 24, 0, 23)?;
    let month = has(month, month_is, 1, 12)?;
    // The first of January 1970 was a Thursday; Sunday is 0, and 7 as well.
    let weekday_is = (days + 4) % 7;
    let of_week = has(weekday, weekday_is, 0, 7)? || weekday_is == 0 && has(weekday, 7, 0, 7)?;
    let of_month = has(day, day_is, 1, 31)?;
    // If both days are restricted, one of them is enough.
    let free = |field: &str| field.starts_with('*') || field.starts_with('?');
    let right_day =
        if free(day) || free(weekday) { of_month && of_week } else { of_month || of_week };
    Some(whole && minute && hour && month && right_day)
}

/// Whether one of the parts of a field has the value.
fn has(field: &str, value: u64, least: u64, most: u64) -> Option<bool> {
    let mut found = false;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u64>().ok().filter(|s| *s > 0)?),
            None => (part, 1),
        };
        let (first, last) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
                None => {
                    let only: u64 = range.parse().ok()?;
                    // `5/15` goes on to the end.
                    (only, if part.contains('/') { most } else { only })
                }
            },
        };
        found |= (first..=last).contains(&value) && (value - first).is_multiple_of(step);
    }
    Some(found)
}

/// Month and day of a day since 1970, by the Gregorian calendar.
fn date(days: u64) -> (u64, u64) {
    let (mut year, mut left) = (1970_u64, days);
    let leap = |y: u64| y.is_multiple_of(4) && !y.is_multiple_of(100) || y.is_multiple_of(400);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (month, left + 1)
}

/// The time for which a job was made by a cron job.
pub fn scheduled_at(job: &ObjectMeta) -> Option<Time> {
    let text = job.annotations.as_ref()?.get(SCHEDULED)?;
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Time::from_timestamp(time))
}

/// When a job that has finished may be deleted: some time after its end, if it says so.
pub fn expires_at(job: &Job) -> Option<Time> {
    let kept = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let end = conditions
        .find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))?;
    let end = Time::from_meta(end.last_transition_time.as_ref()?);
    Some(end + Duration::from_secs(u64::try_from(kept).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::from_timestamp(text.parse().unwrap())
    }

    #[test]
    fn schedules_are_read() {
        // A Thursday.
        let noon = at("2026-01-01T12:00:00Z");
        for (schedule, expected) in [
            ("* * * * *", true),
            ("*/5 * * * *", true),
            ("7 * * * *", false),
            ("0 12 1 1 *", true),
            ("0 0-11,13-23 * * *", false),
            ("0 12 2 * 4", true),
            ("0 12 2 * 5", false),
            ("0 12 * * 5", false),
            ("0 3/3 * * *", true),
        ] {
            assert_eq!(is_due(schedule, noon), Some(expected), "{schedule}");
        }
        assert_eq!(is_due("* * * * *", at("2026-01-01T12:00:01Z")), Some(false));
        assert_eq!(is_due("0 0 29 2 *", at("2028-02-29T00:00:00Z")), Some(true));
        assert_eq!(is_due("0 0 * * 7", at("2026-01-04T00:00:00Z")), Some(true));
        assert_eq!(is_due("@hourly", noon), None);
    }
}
