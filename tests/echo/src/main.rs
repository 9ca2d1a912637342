//! A small server that says which pod answered, and the clients that ask it.
//!
//! One static binary with nothing but the standard library and signals, so that it runs in an
//! image of its own. It is what the end-to-end tests deploy: over HTTP, TCP and UDP it answers
//! with its pod's name and address and its version, and its HTTP paths misbehave on request
//! (see [`routes`]).

mod client;
mod http;
mod identity;
mod options;
mod routes;
mod server;

use std::io::Write;
use std::process::ExitCode;

use options::Command;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match options::parse(&arguments, &|name| std::env::var(name).ok()) {
        Ok(Command::Help) => {
            say(options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(serve)) => match server::run(&serve) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error.to_string()),
        },
        Ok(Command::Ask(ask)) => match client::ask(&ask) {
            Ok(answer) => {
                say(&answer);
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error.to_string()),
        },
        Err(message) => {
            complain(&format!("{message}\n\n{}", options::HELP));
            ExitCode::from(2)
        }
    }
}

/// Writes one line to stdout; a closed stdout is no reason to fail.
fn say(line: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{}", line.trim_end_matches('\n'));
}

/// Writes one line to stderr and returns the failing exit code.
fn complain(line: &str) -> ExitCode {
    let _closed = writeln!(std::io::stderr().lock(), "echo: {line}");
    ExitCode::FAILURE
}
