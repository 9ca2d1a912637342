//! `sudo` with a password: it is sent when sudo asks for it, and not before, so that a host that asks
//! for none never sees it as the input of a command.

use std::io;

use super::{Lines, OUTPUT_LINES_SHOWN, Process};
use crate::facts;
use crate::quote::quote;
use crate::secret::Secret;

/// What sudo is told to say when it wants the password: a line of its own.
const PROMPT: &str = "=password";
/// What is said once commands are root's.
const ROOT: &str = "=root";
/// Lines that sudo may say before it asks: lectures, banners.
const LINES_MAX: usize = 200;

/// sudo did not take the password.
#[derive(Debug, thiserror::Error)]
#[error("sudo did not take the password: {output}")]
pub(super) struct Refused {
    /// What sudo said.
    pub(super) output: String,
}

/// The command that asks for the password if it has to, says so, and runs `command` as root.
pub(super) fn command(command: &str) -> String {
    let prompt = quote(&format!("{PROMPT}\n"));
    let then = quote(&format!("echo {ROOT}; exec {command}"));
    format!("exec sudo -S -p {prompt} -- sh -c {then}")
}

/// Talks to sudo until the command is root's.
///
/// # Errors
/// [`Refused`] when sudo asks again or ends; others when the connection breaks.
pub(super) fn become_root(process: &mut dyn Process, password: &Secret) -> io::Result<()> {
    let (mut told, mut output) = (false, String::new());
    let mut lines = Lines::new(process);
    for _ in 0..LINES_MAX {
        match lines.next()?.as_deref() {
            // The command says nothing before it is told something: no line of it has been read here.
            Some(ROOT) => return Ok(()),
            Some(PROMPT) if !told => {
                told = true;
                let password = [password.expose().as_bytes(), b"\n"].concat();
                lines.process.write_all(&password)?;
                lines.process.flush()?;
            }
            // It would ask until the user is locked out.
            Some(PROMPT) | None => break,
            Some(line) => {
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    let output = facts::last_lines(&output, OUTPUT_LINES_SHOWN);
    Err(io::Error::new(io::ErrorKind::PermissionDenied, Refused { output }))
}

#[cfg(test)]
mod tests;
