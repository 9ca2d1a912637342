//! Ages as people read them.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/util/duration`.

use std::time::Duration;

/// Two figures at most: `45s`, `5m30s`, `17m`, `3h5m`, `2d1h`, `40d`, `3y12d`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = minutes / 60;
    let days = hours / 24;
    let years = days / 365;
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
}

fn two(large: u64, unit: char, small: u64, small_unit: char) -> String {
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubernetes_prints_them() {
        let check = |seconds: u64, text: &str| {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        };
        let (minute, hour, day, year) = (60, 3600, 86_400, 86_400 * 365);
        check(0, "0s");
        check(119, "119s");
        check(2 * minute, "2m");
        check(5 * minute + 30, "5m30s");
        check(10 * minute + 59, "10m");
        check(3 * hour - 1, "179m");
        check(3 * hour, "3h");
        check(3 * hour + 5 * minute, "3h5m");
        check(8 * hour + 59 * minute, "8h");
        check(47 * hour, "47h");
        check(2 * day, "2d");
        check(2 * day + hour, "2d1h");
        check(8 * day + 5 * hour, "8d");
        check(2 * year - 1, "729d");
        check(2 * year, "2y");
        check(3 * year + 12 * day, "3y12d");
        check(9 * year + day, "9y");
    }
}
