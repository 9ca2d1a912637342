//! How much memory this process has used at most.

/// Largest resident memory of this process, bytes; zero where the system does not tell.
pub(super) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    kilobytes.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
