//! The command line.

mod compare;
mod engine_bench;
mod explain;
mod finding;
mod import;
mod input;
mod memory;
mod output;
mod progress;
mod replay;
mod report;
mod run;
mod soak;

use std::io::Write;

use clap::{CommandFactory, Parser, Subcommand};

/// How `ksim` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything held.
    Fine = 0,
    /// A property did not hold, or two runs differ.
    Violation = 1,
    /// The input or the arguments are wrong.
    Usage = 2,
    /// The cluster did not come to rest, or made no progress.
    NoRest = 3,
}

impl Exit {
    /// Of two runs that which tells of more: a property that does not hold, then no rest.
    const fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Violation, _) | (_, Self::Fine) => self,
            (Self::Fine, _) | (_, Self::Violation) => other,
            _ => self,
        }
    }
}

/// Runs the production scheduler, controllers, kubelet logic and API semantics under virtual
/// time, with faults, from a seed.
#[derive(Debug, Parser)]
#[command(
    name = "ksim",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  \
        ksim run simulator/scenarios/rival-1k.toml\n  \
        ksim run simulator/scenarios/capacity.toml --html report.html\n  \
        ksim run scenario.toml --inventory inventory.toml\n  \
        ksim soak simulator/scenarios/faulty-5.toml --time 60s\n  \
        ksim replay simulator/scenarios/bugs/no-read-your-writes.toml\n  \
        ksim compare simulator/scenarios/compare-spread.toml \\\n    \
        simulator/scenarios/compare-pack.toml\n  \
        ksim explain simulator/scenarios/capacity.toml default/growth-40\n\n\
        Exit codes: 0 everything held; 1 a property did not hold, a seed failed or two runs differ; \
        2 wrong input; 3 the cluster did not come to rest, or made no progress."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario and report what it came to.
    Run(run::Args),
    /// Run a seed or a file again, with a readable timeline; with a recording of a real
    /// component, compare what it did.
    Replay(replay::Args),
    /// Run many seeds of a scenario on all cores and keep those that fail.
    Soak(soak::Args),
    /// Run two scenarios on the same seeds and tell how they differ.
    Compare(compare::Args),
    /// Say why a pod was put where it is, or why it could not be.
    Explain(explain::Args),
    /// Turn a trace of a real cluster into a scenario.
    Import(import::Args),
    /// Make an HTML report, tables or a summary of a result that was written before.
    Report(report::Args),
    /// Measure the event queue alone.
    #[command(hide = true)]
    BenchEngine(engine_bench::Args),
    /// Print a script that completes commands in a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// The input is wrong, or a file cannot be read or written.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Replay(args) => args.run(),
            Command::Soak(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Import(args) => args.run(),
            Command::Report(args) => args.run(),
            Command::BenchEngine(args) => args.run(),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "ksim", &mut script);
                output::print(&String::from_utf8_lossy(&script))?;
                Ok(Exit::Fine)
            }
        }
    }
}

/// Tells people what went wrong.
pub fn complain(text: &str) {
    // When standard error is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
