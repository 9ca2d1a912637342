//! Runs programs of the host that change its network: `nft`, iptables and Open vSwitch's.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A full table of thousands of services takes seconds; more than this means it hangs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
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

/// Runs a program and returns what it wrote.
pub(crate) async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, ProgramError> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|source| ProgramError::Run { program, source })?;
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
        .map_err(|_| ProgramError::Slow { program })?
        .map_err(|source| ProgramError::Run { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message: Vec<&str> = said.lines().take(5).map(str::trim).collect();
    Err(ProgramError::Failed { program, status: output.status, message: message.join("; ") })
}
