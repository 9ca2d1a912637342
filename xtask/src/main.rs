//! `cargo xtask`: the project's own chores, so that a person and CI run the same ones.

use clap::{Parser, Subcommand};

mod bench;
mod bench_provision;
mod bench_sched;
mod bench_sim;
mod ci;
mod figures;
mod ksim;
mod protobuf_table;
mod tidy;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every check and test; exactly what CI runs.
    Ci {
        /// Leave out the end-to-end tests, which need Docker and root.
        #[arg(long)]
        no_e2e: bool,
    },
    /// Checks the import rule, file sizes and names.
    Tidy,
    /// Measures the goals' figures in the lab; writes `target/bench/*.json`.
    Bench,
    /// Measures a control plane with hollow nodes on loopback; writes `target/bench/e2e.json`.
    BenchE2e {
        /// Options of the benchmark: `--nodes`, `--pods`, `--replicas`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Builds the simulator for speed, into `target/sim/ksim`.
    Ksim,
    /// Measures the simulator; writes `target/bench/sim.json`.
    BenchSim,
    /// Measures kprov with hosts in memory; writes `target/bench/provision.json`.
    BenchProvision,
    /// Measures the scheduler; writes `target/bench/sched.json`.
    BenchSched {
        /// Takes so many random decisions by the fast way and by the plain one instead, and fails
        /// if they differ; writes `target/bench/sched-differential.json`.
        #[arg(long, value_name = "DECISIONS")]
        differential: Option<u64>,
        /// The first of the seeds that they are drawn from.
        #[arg(long, default_value_t = 1, requires = "differential")]
        seed: u64,
    },
    /// Writes the table that protobuf requests are decoded by.
    ProtobufTable,
}

fn main() -> anyhow::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace");
    match Xtask::parse().chore {
        Chore::Ci { no_e2e } => ci::run(root, !no_e2e),
        Chore::Tidy => tidy::run(root),
        Chore::Bench => bench::run(root),
        Chore::BenchE2e { options } => bench::end_to_end(root, &options),
        Chore::Ksim => ksim::build(root).map(drop),
        Chore::BenchProvision => bench_provision::run(root),
        Chore::BenchSim => bench_sim::run(root),
        Chore::BenchSched { differential: Some(decisions), seed } => {
            bench_sched::differential(root, decisions, seed)
        }
        Chore::BenchSched { differential: None, .. } => bench_sched::run(root),
        Chore::ProtobufTable => protobuf_table::run(root),
    }
}
