//! What the whole machine uses, from `/proc`.

use jiff::Timestamp;

use super::Usage;

/// The kernel counts CPU time for `/proc` in hundredths of a second on every architecture.
const TICK_NS: u64 = 10_000_000;

/// The machine's use, and since when it runs.
pub(super) struct NodeUsage {
    pub(super) usage: Usage,
    pub(super) started: Timestamp,
}

/// Reads the machine's counters; what cannot be read is zero.
pub(super) async fn read() -> NodeUsage {
    let text = async |path: &str| tokio::fs::read_to_string(path).await.unwrap_or_default();
    let (stat, memory, vm) =
        (text("/proc/stat").await, text("/proc/meminfo").await, text("/proc/vmstat").await);
    let (total, free, available) =
        (kib(&memory, "MemTotal"), kib(&memory, "MemFree"), kib(&memory, "MemAvailable"));
    let boot = number(&stat, "btime").and_then(|secs| i64::try_from(secs).ok());
    NodeUsage {
        usage: Usage {
            cpu_ns: busy_ticks(&stat).saturating_mul(TICK_NS),
            nano_cores: None,
            memory: total.saturating_sub(free),
            working_set: total.saturating_sub(available),
            rss: kib(&memory, "AnonPages"),
            available: Some(available),
            faults: (
                number(&vm, "pgfault").unwrap_or_default(),
                number(&vm, "pgmajfault").unwrap_or_default(),
            ),
        },
        started: boot.and_then(|secs| Timestamp::from_second(secs).ok()).unwrap_or_default(),
    }
}

/// Ticks in which a core did something, all cores together.
fn busy_ticks(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let fields = line.split_whitespace().map(|f| f.parse::<u64>().unwrap_or_default());
    // user nice system idle iowait irq softirq steal; guests are part of user and nice.
    fields.take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, ticks)| ticks).sum()
}

fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn kib(text: &str, name: &str) -> u64 {
    let find = |line: &str| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?;
        value.parse::<u64>().ok()
    };
    text.lines().find_map(find).unwrap_or_default() << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let stat = "cpu  1 2 3 100 200 4 5 6 7 8\ncpu0 1 2 3 4\nbtime 1700000000\n";
        assert_eq!(busy_ticks(stat), 21);
        assert_eq!(number(stat, "btime"), Some(1_700_000_000));
        assert_eq!(kib("MemTotal:       2 kB\nMemFree: 1 kB\n", "MemTotal"), 2_048);
        assert_eq!((busy_ticks(""), number("", "x"), kib("x: y", "x")), (0, None, 0));
    }
}
