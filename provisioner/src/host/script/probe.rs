//! Measurements: the program that makes them is that of the host's components, where it is there
//! already, or a copy below `/var/tmp` that goes when they are over.

use crate::host::{Probe, packing};
use crate::program::Program;
use crate::quote::{quote, words};
use crate::skew::HYPERKUBE;
use crate::state::Blob;

/// Exit code for a host that lacks the program.
pub(in crate::host) const NO_PROBE: i32 = 77;

/// Not below `/run`: that is mounted without the right to run programs on some distributions.
const FOLDER: &str = "/var/tmp/kprov-probe";

/// Ends a listener and removes the copy.
pub(in crate::host) const END_PROBE: &str = r#"d=/var/tmp/kprov-probe
[ ! -f $d/pid ] || kill "$(cat $d/pid)" 2>/dev/null || :
rm -rf -- $d
"#;

/// The script that runs a measurement and prints what that prints.
pub(in crate::host) fn probe(probe: &Probe<'_>) -> String {
    let kept = Program { sha256: probe.program.sha256, version: None }.path(HYPERKUBE);
    let (kept, digest) = (quote(&kept), probe.program.sha256);
    let arguments = words(probe.arguments.iter().map(String::as_str));
    let run = match probe.stays {
        false => format!("\"$p\" host-probe {arguments} </dev/null"),
        // A second of patience: it has only to listen, and says so in one line.
        true => format!(
            "\"$p\" host-probe {arguments} </dev/null >$d/said 2>&1 &\necho $! >$d/pid\n\
             for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do\n\
             [ -s $d/said ] && break; sleep 0.05\ndone\ncat $d/said; [ -s $d/said ]"
        ),
    };
    format!(
        "umask 077\nd={FOLDER}\np={kept}\n[ -x \"$p\" ] || p=$d/{digest}\n\
         [ -x \"$p\" ] || exit {NO_PROBE}\nmkdir -p $d\n{run}\n"
    )
}

/// The command that takes the program, packed, from its standard input. The folder is made anew: whoever may
/// write to `/var/tmp` must not have put a link there.
pub(in crate::host) fn receive_probe(program: &Blob) -> String {
    let digest = program.sha256;
    format!(
        "set -eu; umask 077; d={FOLDER}; rm -rf -- $d; mkdir -m 0700 $d; {} >$d/new; \
         echo '{digest}  '$d/new | sha256sum --quiet -c -; chmod 0700 $d/new; mv $d/new $d/{digest}",
        packing::RECEIVE
    )
}
