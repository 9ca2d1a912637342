//! Who holds a host.
//!
//! The lock lives in a process on the host that ends with the connection, so a killed operator
//! never leaves a stale one; see the facts script. This is only its name.

use crate::facts::LockRequest;

/// Names this run: person, machine, process and start.
#[must_use]
pub fn request(now: jiff::Timestamp, person: &str, command: &str) -> LockRequest {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = match machine.trim() {
        "" => "an unnamed machine",
        name => name,
    };
    let process = std::process::id();
    let now = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let owner = format!("{person}@{machine} (kprov {command}, process {process}, since {now})");
    // The host keeps it as one line of a file.
    LockRequest { owner: owner.replace(['\n', '\r'], " ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_one_line_that_names_the_run() {
        let request = request(jiff::Timestamp::UNIX_EPOCH, "ann", "apply");
        assert!(
            request.owner.starts_with("ann@") && request.owner.contains("(kprov apply, process"),
            "{}",
            request.owner
        );
        assert!(request.owner.contains("since 1970-01-01T00:00:00.000Z"), "{}", request.owner);
        assert!(!request.owner.contains('\n'));
    }
}
