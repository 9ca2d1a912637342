//! What to say about connections that took long to make.

use std::time::Duration;

/// How long the parts of making a connection took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Until TCP was there; through jump hosts, until their sessions were as well.
    pub connect: Duration,
    /// Versions and keys agreed on.
    pub handshake: Duration,
    /// Our key accepted.
    pub login: Duration,
}

/// A part that takes longer is worth a word. A host that is far away needs about six round trips for
/// the longest of them, so even one with 300 ms a trip is below.
const SLOW: Duration = Duration::from_secs(3);

/// Hosts that are named; of the others, how many.
const NAMED_MAX: usize = 5;

/// One sentence a part that was slow on some hosts, with the likely causes.
#[must_use]
pub fn remarks(timings: &[(String, Timing)]) -> Vec<String> {
    type Part = fn(&Timing) -> Duration;
    let parts: [(&str, Part, &str); 3] = [
        (
            "connecting",
            |timing| timing.connect,
            "packets are lost on the way, a name takes long to resolve, or a jump host is busy",
        ),
        (
            "the SSH handshake",
            |timing| timing.handshake,
            "the host is short of entropy or processor time, has too many logins under way \
             (MaxStartups), or looks names up before it answers (tcp wrappers)",
        ),
        (
            "the login",
            |timing| timing.login,
            "sshd looks up the name of this machine (`UseDNS no`) or waits for Kerberos \
             (`GSSAPIAuthentication no`), or PAM waits for a directory service or a file server",
        ),
    ];
    let mut remarks = Vec::new();
    for (part, took, causes) in parts {
        let mut slow: Vec<_> = timings.iter().map(|(name, timing)| (took(timing), name)).collect();
        slow.retain(|(took, _)| *took > SLOW);
        slow.sort_by(|a, b| b.cmp(a));
        let named = slow.iter().take(NAMED_MAX);
        let named: Vec<_> =
            named.map(|(took, name)| format!("{name} {:.1} s", took.as_secs_f64())).collect();
        let more = match slow.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !slow.is_empty() {
            remarks.push(format!("{part} was slow: {}{more}; likely {causes}", named.join(", ")));
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slow_part_is_told_once_with_the_slowest_hosts_first() {
        let timing = |login| Timing { login: Duration::from_millis(login), ..Timing::default() };
        let mut timings: Vec<_> = (1..=7).map(|n| (format!("n{n}"), timing(n * 3_100))).collect();
        timings.push(("fast".to_owned(), timing(3_000)));
        let told = remarks(&timings);
        assert_eq!(told.len(), 1);
        let begin = "the login was slow: n7 21.7 s, n6 18.6 s, n5 15.5 s, n4 12.4 s, n3 9.3 s and \
                     2 more; likely sshd looks up the name of this machine";
        assert!(told[0].starts_with(begin), "{}", told[0]);
        assert_eq!(remarks(&timings[7..]), [""; 0]);
    }
}
