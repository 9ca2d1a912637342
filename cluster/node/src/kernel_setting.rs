//! Settings of the kernel below `/proc/sys`.

use std::path::PathBuf;

/// Gives a setting (`net/ipv4/ip_forward`) the value it must have; does nothing when it has it.
///
/// # Errors
/// There is no such setting, or it cannot be changed.
pub(crate) fn ensure(name: &str, value: &str) -> std::io::Result<()> {
    let path = PathBuf::from("/proc/sys").join(name);
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value)
}
