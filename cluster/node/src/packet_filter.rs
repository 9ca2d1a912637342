//! Runs `nft` and iptables: the only two programs that change packet filters here.

use std::process::Stdio;
use std::time::Duration;

use network::iptables::{Abilities, Saved};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A full table of thousands of services takes seconds; more than this means it hangs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a packet filter program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The program is not there or cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program refused what it was given.
    #[error("{program} failed with {status}: {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The beginning of what it said.
        message: String,
    },
    /// The program did not end in time.
    #[error("{program} did not end within {} seconds", TIMEOUT.as_secs())]
    Slow {
        /// The program.
        program: &'static str,
    },
}

/// Carries out one transaction of nftables.
pub(crate) async fn nft(text: &str) -> Result<(), FilterError> {
    run("nft", &["-f", "-"], Some(text)).await.map(drop)
}

/// Lists a chain of nftables.
pub(crate) async fn nft_chain(table: &str, chain: &str) -> Result<String, FilterError> {
    let (family, name) = table.split_once(' ').unwrap_or(("ip", table));
    run("nft", &["list", "chain", family, name, chain], None).await
}

/// What iptables holds.
pub(crate) async fn iptables_saved() -> Result<Saved, FilterError> {
    Ok(Saved::parse(&run("iptables-save", &[], None).await?))
}

/// What iptables can do.
pub(crate) async fn iptables_abilities() -> Result<Abilities, FilterError> {
    Ok(Abilities::of_version(&run("iptables", &["--version"], None).await?))
}

/// Changes the chains that the text names, and no others.
pub(crate) async fn iptables_restore(abilities: Abilities, text: &str) -> Result<(), FilterError> {
    // Waiting for the lock came with the same version as `--random-fully`.
    let arguments: &[&str] =
        if abilities.random_fully { &["--noflush", "-w", "5"] } else { &["--noflush"] };
    run("iptables-restore", arguments, Some(text)).await.map(drop)
}

async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, FilterError> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|source| FilterError::Run { program, source })?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that refuses its input early tells why itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(TIMEOUT, both)
        .await
        .map_err(|_| FilterError::Slow { program })?
        .map_err(|source| FilterError::Run { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message: Vec<&str> = said.lines().take(5).map(str::trim).collect();
    Err(FilterError::Failed { program, status: output.status, message: message.join("; ") })
}
