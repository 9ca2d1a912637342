//! The version as it stands in this program, for others to read without running it: `kprov` puts
//! programs for any processor on hosts, and must know which version may follow which.

use api::version::GIT_VERSION;

const BEFORE: &str = "\x01kprov-program-version=";
const LEN: usize = BEFORE.len() + GIT_VERSION.len() + 1;

/// One piece in the program's data: [`BEFORE`], the version, a line's end.
static NOTE: [u8; LEN] = note();

const fn note() -> [u8; LEN] {
    let mut note = [b'\n'; LEN];
    let (before, version) = (BEFORE.as_bytes(), GIT_VERSION.as_bytes());
    let mut at = 0;
    while at < before.len() {
        note[at] = before[at];
        at += 1;
    }
    while at < LEN - 1 {
        note[at] = version[at - before.len()];
        at += 1;
    }
    note
}

/// The version, out of the note: what is printed is what is read.
pub(crate) fn version() -> &'static str {
    // Through an opaque reference, or the note would be taken apart and left out.
    let note: &'static [u8] = std::hint::black_box(&NOTE);
    let version = &note[BEFORE.len()..note.len() - 1];
    std::str::from_utf8(version).expect("the note is made of texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_says_the_version() {
        assert_eq!(version(), GIT_VERSION);
        assert!(NOTE.starts_with(b"\x01kprov-program-version=v1.") && NOTE.ends_with(b"\n"));
    }
}
