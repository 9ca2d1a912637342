//! Schedules: which can be read, and when they are due.

use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Time {
    Time::from_timestamp(text.parse().unwrap())
}

/// The next times after `after`.
fn check(schedule: &str, zone: Option<&str>, after: &str, expected: &[&str]) {
    let read = Schedule::parse(schedule, zone).unwrap();
    let mut at = time(after);
    for next in expected {
        let due = read.next(at);
        let shown = due.map_or_else(|| "never".to_owned(), |due| due.to_string());
        assert_eq!(shown, *next, "{schedule} after {at}");
        at = due.unwrap_or(at);
    }
}

#[test]
fn when_schedules_are_due() {
    let start = "2024-02-28T10:30:15.5Z";
    check("* * * * *", None, start, &["2024-02-28T10:31:00Z", "2024-02-28T10:32:00Z"]);
    check(
        "*/20 8-10,23 * * *",
        None,
        start,
        &["2024-02-28T10:40:00Z", "2024-02-28T23:00:00Z", "2024-02-28T23:20:00Z"],
    );
    check("0 0 29 2 *", None, start, &["2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"]);
    check("0 12 * JAN-mar Mon", None, start, &["2024-03-04T12:00:00Z", "2024-03-11T12:00:00Z"]);
    // Either the day or the weekday, if both are given.
    check("0 0 1 * 5", None, start, &["2024-03-01T00:00:00Z", "2024-03-08T00:00:00Z"]);
    check("0 0 13/10 * *", None, start, &["2024-03-13T00:00:00Z", "2024-03-23T00:00:00Z"]);
    check("@hourly", None, start, &["2024-02-28T11:00:00Z"]);
    check("@weekly", None, start, &["2024-03-03T00:00:00Z"]);
    check("@yearly", None, start, &["2025-01-01T00:00:00Z"]);
    check("@every 1h30m", None, start, &["2024-02-28T12:00:15Z", "2024-02-28T13:30:15Z"]);
    check("@every 10ms", None, start, &["2024-02-28T10:30:16Z"]);
    check("0 0 30 2 *", None, start, &["never"]);
    check(", * * * *", None, start, &["never"]);
}

#[test]
fn zones_have_their_own_clocks() {
    let berlin = Some("Europe/Berlin");
    check(
        "0 9 * * *",
        berlin,
        "2024-03-29T12:00:00Z",
        &["2024-03-30T08:00:00Z", "2024-03-31T07:00:00Z"],
    );
    // Clocks skip from 2:00 to 3:00: that day has no 2:30.
    check("30 2 * * *", berlin, "2024-03-30T12:00:00Z", &["2024-04-01T00:30:00Z"]);
    // And show 2:30 twice.
    check(
        "30 2 * * *",
        berlin,
        "2024-10-26T12:00:00Z",
        &["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z", "2024-10-28T01:30:00Z"],
    );
    // Midnight does not exist there on that day.
    check(
        "0 * 4 11 *",
        Some("America/Sao_Paulo"),
        "2018-11-03T12:00:00Z",
        &["2018-11-04T03:00:00Z", "2018-11-04T04:00:00Z"],
    );
    check("TZ=Asia/Tokyo 0 9 * * *", berlin, "2024-01-01T12:00:00Z", &["2024-01-02T00:00:00Z"]);
    for (name, known) in [
        ("UTC", true),
        ("Etc/GMT+5", true),
        ("America/Argentina/Buenos_Aires", true),
        ("europe/berlin", false),
        ("Mars/Olympus", false),
        ("Local", false),
        ("Etc/Unknown", false),
        ("../etc/passwd", false),
    ] {
        assert_eq!(zone(name).is_some(), known, "{name}");
    }
}

#[test]
fn what_is_no_schedule() {
    let check = |text: &str, expected: &str| {
        assert_eq!(Schedule::parse(text, None).unwrap_err().to_string(), expected, "{text}");
    };
    check("", "empty spec string");
    check("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
    check("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax");
    check("60 * * * *", "end of range (60) above maximum (59): 60");
    check("* * 0 * *", "beginning of range (0) below minimum (1): 0");
    check("* * * * 7", "end of range (7) above maximum (6): 7");
    check("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1");
    check("1-2-3 * * * *", "too many hyphens: 1-2-3");
    check("1/2/3 * * * *", "too many slashes: 1/2/3");
    check("*/0 * * * *", "step of range should be a positive number: */0");
    let huge = "99999999999999999999";
    check(
        &format!("{huge} * * * *"),
        &format!(
            "failed to parse int from {huge}: strconv.Atoi: parsing \"{huge}\": value out of range"
        ),
    );
    check("@sometimes", "unrecognized descriptor: @sometimes");
    check("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\"");
    check("@every x", "failed to parse duration @every x: time: invalid duration \"x\"");
    check(
        "@every 1d",
        "failed to parse duration @every 1d: time: unknown unit \"d\" in duration \"1d\"",
    );
    check("TZ=Mars * * * * *", "provided bad location Mars: unknown time zone Mars");
    check("TZ=UTC", "expected exactly 5 fields, found 0: []");
}

#[test]
fn the_last_time_is_found_at_once() {
    let check = |schedule: &str, after: &str, until: &str, expected: &str| {
        let read = Schedule::parse(schedule, None).unwrap();
        let last = read.last(time(after), time(until));
        let last = last.map_or_else(|| "none".to_owned(), |last| last.to_string());
        assert_eq!(last, expected, "{schedule} after {after} until {until}");
    };
    let (start, end) = ("2000-01-01T00:00:00Z", "2024-06-15T12:00:00.5Z");
    check("* * * * *", start, end, "2024-06-15T12:00:00Z");
    check("* * * * *", "2024-06-15T12:00:00Z", end, "none");
    check("* * * 1 *", start, end, "2024-01-31T23:59:00Z");
    check("0 0 29 2 *", start, end, "2024-02-29T00:00:00Z");
    check("0 0 30 2 *", start, end, "none");
    check("@every 7s", "2024-06-15T11:59:39Z", end, "2024-06-15T12:00:00Z");
    check("@every 7s", "2024-06-15T11:59:38Z", end, "2024-06-15T11:59:59Z");
}

proptest! {
    #[test]
    fn nothing_panics(text in "[-*/,@ 0-9a-z?=]{0,24}", after in any::<u64>()) {
        if let Ok(schedule) = Schedule::parse(&text, Some("Europe/Berlin")) {
            let next = schedule.next(Time(after));
            prop_assert!(next.is_none_or(|next| next > Time(after)));
        }
    }

    #[test]
    fn what_is_due_is_what_a_walk_finds(
        minute in 0..60_u64, step in 1..40_u64, hour in 0..24_u64, weekday in 0..7_u64,
        after in 1_600_000_000..1_800_000_000_u64,
    ) {
        let text = format!("{minute}/{step} {hour}-23 * * {weekday}");
        let schedule = Schedule::parse(&text, Some("America/New_York")).unwrap();
        let fits = |secs: u64| {
            let at = Timestamp::from_second(i64::try_from(secs).unwrap()).unwrap();
            let local = zone("America/New_York").unwrap().to_datetime(at);
            let m = u64::try_from(local.minute()).unwrap();
            local.second() == 0
                && m >= minute
                && (m - minute) % step == 0
                && u64::try_from(local.hour()).unwrap() >= hour
                && u64::try_from(local.date().weekday().to_sunday_zero_offset()).unwrap() == weekday
        };
        let first = (after / 60 + 1) * 60;
        let found = (0..8 * 24 * 60).map(|i| first + i * 60).find(|secs| fits(*secs));
        prop_assert_eq!(schedule.next(Time::from_secs(after)), found.map(Time::from_secs));
    }
}
