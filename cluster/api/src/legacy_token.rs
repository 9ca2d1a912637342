//! Tokens of service accounts that live in secrets: how it is noted that one was used, and that one
//! is not accepted any more.
//!
//! Source: kubernetes 1.33, `pkg/serviceaccount/legacy.go`,
//! `pkg/controlplane/controller/legacytokentracking`; KEP-2799.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::{Key, Kind, Time};

/// The type of secrets that hold a token.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation that names the account whose token a secret holds.
pub const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// The annotation with the UID of that account.
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The label with the day on which the token of a secret was used last.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The label with the day since which the token of a secret is not accepted.
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where in the configuration map of [`tracking`] the day is.
pub const SINCE: &str = "since";

/// The configuration map that tells since which day the use of tokens is noted.
pub fn tracking() -> Key {
    Key::new(Kind::ConfigMap, "kube-system", "kube-apiserver-legacy-service-account-token-tracking")
}

/// The day of that time in UTC, as labels have it: `2006-01-02`.
pub fn date(time: Time) -> String {
    time.timestamp().strftime("%Y-%m-%d").to_string()
}

/// When the day begins that a label names; `None` for what is no day.
pub fn day(text: &str) -> Option<Time> {
    let legal = |b: u8| b.is_ascii_digit() || b == b'-';
    let date: Date = text.parse().ok().filter(|_| text.len() == 10 && text.bytes().all(legal))?;
    let begins = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (begins.as_second() >= 0).then(|| Time::from_timestamp(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(date(Time::from_secs(1_000_000_000)), "2001-09-09");
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(day(text), expected.map(Time::from_secs), "{text}");
        };
        check("1970-01-02", Some(86_400));
        check("2001-09-09", Some(999_993_600));
        for odd in ["", "2001-9-9", "2001-02-30", "20010909", "2001-09-09T00:00:00", "-001-01-01"] {
            check(odd, None);
        }
        check("1969-12-31", None);
    }
}
