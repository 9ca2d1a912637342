//! `host-probe`: what kprov measures on hosts before a cluster is there, as one line of JSON.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use node::host_probe::{Endpoint, disk, listen, reach};
use serde::Serialize;

/// No more endpoints are listened on or asked.
const ENDPOINTS_MAX: usize = 20_000;

/// Arguments of the probe.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    probe: Probe,
}

#[derive(Subcommand)]
enum Probe {
    /// Measures how long a small write takes to be on the disk, as etcd makes them.
    Disk {
        /// The directory to write in.
        #[arg(long)]
        directory: PathBuf,
        /// How many writes.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        writes: u32,
        /// Length of each in bytes.
        #[arg(long, default_value_t = 2300, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
        len: u32,
    },
    /// Listens, and echoes datagrams that bear the token, until its time is over.
    Listen {
        /// Seconds.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
        for_s: u64,
        /// What datagrams begin with.
        #[arg(long)]
        token: String,
        /// `tcp:ADDRESS:PORT` or `udp:ADDRESS:PORT`.
        #[arg(required = true)]
        endpoints: Vec<Endpoint>,
    },
    /// Asks endpoints whether they are there.
    Reach {
        /// Milliseconds to wait for each answer.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
        timeout_ms: u64,
        /// What datagrams begin with.
        #[arg(long)]
        token: String,
        /// The longest packet that has to arrive as a whole, with its headers; in bytes.
        #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(68..))]
        mtu: u16,
        /// `tcp:ADDRESS:PORT` or `udp:ADDRESS:PORT`.
        #[arg(required = true)]
        endpoints: Vec<Endpoint>,
    },
}

/// Measures, prints and ends.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let result = match &flags.probe {
        Probe::Disk { directory, writes, len } => disk(directory, *writes, *len).map(|d| say(&d)),
        Probe::Listen { for_s, token, endpoints } => bounded(endpoints).map(|endpoints| {
            let until = Instant::now() + Duration::from_secs(*for_s);
            let (listeners, listening) = listen(endpoints);
            say(&listening);
            listeners.serve(token.as_bytes(), until);
        }),
        Probe::Reach { timeout_ms, token, mtu, endpoints } => bounded(endpoints).map(|endpoints| {
            let timeout = Duration::from_millis(*timeout_ms);
            say(&reach(endpoints, token.as_bytes(), *mtu, timeout));
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "host-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bounded(endpoints: &[Endpoint]) -> io::Result<&[Endpoint]> {
    match endpoints.len() {
        0..=ENDPOINTS_MAX => Ok(endpoints),
        _ => Err(io::Error::other(format!("more than {ENDPOINTS_MAX} endpoints"))),
    }
}

fn say(value: &impl Serialize) {
    let line = serde_json::to_string(value).expect("it has only string keys");
    let mut out = io::stdout().lock();
    // Whoever asked and went away needs no answer.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
