//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

mod addons;
mod apply;
mod backup;
mod bundle;
mod certs;
mod connect;
mod diary;
mod diff;
mod etcd;
mod import;
mod init;
mod kubeconfig;
mod man;
mod members;
mod network_key;
mod output;
mod plan;
mod preflight;
mod prepare;
mod prune;
mod recovery;
mod reset;
mod rollback;
mod secrets;
mod select;
mod status;
#[cfg(test)]
mod tests;
mod trace;
mod unlock;
mod up;

pub use output::Failure;
use select::Choice;

use crate::host::ssh::Jumps;
use crate::preflight::SKIPPABLE;
use crate::secret::Secret;

/// Exit codes. A script can tell what went wrong without reading a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is as it should be.
    Ok = 0,
    /// Something failed that has no code of its own.
    Failed = 1,
    /// The inventory or the command line is wrong; no host was touched. For `diff --exit-code`:
    /// hosts differ.
    BadInventory = 2,
    /// A host cannot be reached or is unfit; no host was changed.
    Unfit = 3,
    /// Some hosts were changed and some failed: apply again.
    Partial = 4,
    /// `plan --exit-code` found differences.
    Changes = 5,
    /// All is done but for hosts that were out of reach and were allowed to be.
    Unreached = 6,
    /// A saved plan does not fit: hosts have changed since.
    Drifted = 7,
    /// A saved plan is damaged, or of another cluster, version or format.
    ForeignPlan = 8,
    /// A saved plan does not fit: the inventory, the certificates or the programs have changed.
    InputsChanged = 9,
    /// Interrupted by the operator.
    Interrupted = 130,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 failed, 2 bad inventory or command line, 3 a host is \
unreachable or unfit (nothing was changed), 4 partly applied (apply again), 5 plan --exit-code \
found changes, 6 done but for hosts out of reach (--allow-unreachable), 7 hosts changed since the \
saved plan, 8 the saved plan is of another cluster, version or format, 9 its local inputs changed, \
130 interrupted. diff --exit-code: 0 clean, 2 drift, 3 not all hosts could be judged.\n\n\
Environment: KPROV_PASSPHRASE of the state directory's secrets, KPROV_SSH_PASSPHRASE of private SSH keys, \
KPROV_SUDO_PASSWORD of sudo on hosts.";

/// Turns an inventory into a running Kubernetes cluster over SSH.
#[derive(Debug, Parser)]
#[command(name = "kprov", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Args)]
struct Global {
    /// Form of the result on standard output.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Say more on standard error; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colours; never when NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check an inventory without touching any host.
    #[command(after_help = "Example:\n  kprov validate inventory/lab.toml")]
    Validate(Source),
    /// Show what an apply would change; change nothing.
    #[command(after_help = "Examples:\n  kprov plan inventory/lab.toml\n  \
        kprov plan inventory/lab.toml --exit-code --output json\n  \
        kprov plan inventory/lab.toml -o today.kplan && kprov apply today.kplan")]
    Plan(PlanArgs),
    /// Measure whether hosts and the network between them are fit; change nothing.
    ///
    /// Besides what every apply looks at: each port that one host needs of another, TCP and UDP,
    /// with packets as long as the pod network sends, and how fast the disks of etcd are.
    #[command(after_help = "Examples:\n  kprov preflight inventory/ha.toml\n  \
        kprov preflight inventory/ha.toml --skip fsync --output json")]
    Preflight(preflight::PreflightArgs),
    /// Tell whether hosts and addons are as they should be, for a timer to ask.
    #[command(after_help = "Examples:\n  kprov diff inventory/lab.toml\n  \
        kprov diff inventory/lab.toml --exit-code --output json")]
    Diff(DiffArgs),
    /// Bring all hosts to the desired state.
    #[command(after_help = "Examples:\n  kprov apply inventory/lab.toml\n  \
        kprov apply inventory/lab.toml --timeout 5m --templates my-templates\n  \
        kprov apply inventory/lab.toml --hosts node-[01-10] --allow-unreachable\n  \
        kprov apply today.kplan")]
    Apply(ApplyArgs),
    /// Bring all hosts to the programs that the inventory names, and say which those are.
    ///
    /// Masters go one at a time, nodes as a canary and in batches, each behind gates that must pass
    /// several times in a row; the first failure ends it. The builds before stay on the hosts.
    #[command(after_help = "Examples:\n  kprov upgrade inventory/ha.toml\n  \
        kprov upgrade inventory/ha.toml --drain")]
    Upgrade(UpgradeArgs),
    /// Bring back the programs that hosts ran before the last upgrade; nothing is copied.
    #[command(after_help = "Examples:\n  kprov plan inventory/ha.toml --rollback\n  \
        kprov rollback inventory/ha.toml\n  kprov rollback inventory/ha.toml --hosts node-4")]
    Rollback(UpgradeArgs),
    /// Show hosts, units, certificates and nodes.
    #[command(after_help = "Example:\n  kprov status inventory/lab.toml")]
    Status(StatusArgs),
    /// List, renew and replace certificates and their authorities.
    Certs {
        /// What to do.
        #[command(subcommand)]
        command: certs::CertsCommand,
    },
    /// Look after the members of etcd.
    Etcd {
        /// What to do.
        #[command(subcommand)]
        command: etcd::EtcdCommand,
    },
    /// Set a host up again that lost its data or has another machine behind its name.
    #[command(after_help = "Example:\n  kprov replace inventory/ha.toml node-3 --yes")]
    Replace(recovery::ReplaceArgs),
    /// Go on with one member of etcd when a majority is lost for good.
    #[command(after_help = "Example:\n  kprov recover inventory/ha.toml --from node-2 --yes")]
    Recover(recovery::RecoverArgs),
    /// Keep everything that the cluster can be made of again in one sealed file.
    #[command(after_help = "Example:\n  KPROV_PASSPHRASE=… kprov backup inventory/ha.toml \
        --to ha.kbackup")]
    Backup(backup::BackupArgs),
    /// Make the cluster of a backup again, on fresh hosts with the same addresses or others.
    #[command(after_help = "Example:\n  KPROV_PASSPHRASE=… kprov restore ha.kbackup \
        inventory/ha.toml --yes")]
    Restore(backup::RestoreArgs),
    /// Make inventory and keys of a running cluster again from its hosts.
    #[command(after_help = "Example:\n  kprov import 10.0.0.1 10.0.0.2 10.0.0.3 \
        --key ~/.ssh/id_ed25519 --to lab.toml\n  kprov import 10.0.0.1 10.0.0.2 --jump door@bastion.example:2222")]
    Import(import::ImportArgs),
    /// Print the operator's kubeconfig, or merge it into a file.
    #[command(after_help = "Examples:\n  kprov kubeconfig inventory/lab.toml > lab.kubeconfig\n  \
        kprov kubeconfig inventory/lab.toml --merge ~/.kube/config")]
    Kubeconfig(KubeconfigArgs),
    /// Give the hosts back as they were before kprov.
    #[command(after_help = "Example:\n  kprov reset inventory/lab.toml --yes")]
    Reset(ResetArgs),
    /// Show who holds the hosts' locks, and take them away.
    #[command(after_help = "Example:\n  kprov unlock inventory/lab.toml --yes")]
    Unlock(UnlockArgs),
    /// Show what the last run waited for, from its logs.
    #[command(after_help = "Examples:\n  kprov trace inventory/lab.toml\n  \
        kprov trace inventory/lab.toml --html run.html")]
    Trace(TraceArgs),
    /// Pack all that an apply puts on hosts into one file, for networks without a way out.
    Bundle {
        /// What to do.
        #[command(subcommand)]
        command: bundle::BundleCommand,
    },
    /// Make this machine a cluster of one, without SSH.
    #[command(after_help = "Examples:\n  kprov up\n  kprov up --address 192.168.1.20 \
        --image app.tar")]
    Up(up::UpArgs),
    /// Give this machine back as it was before `up`.
    #[command(after_help = "Example:\n  kprov down --yes")]
    Down(up::DownArgs),
    /// Write a first inventory, from questions or flags.
    #[command(after_help = "Examples:\n  kprov init prod.toml\n  \
        kprov init prod.toml --name prod --masters 10.0.0.1 --nodes 10.0.0.2,10.0.0.3")]
    Init(InitArgs),
    /// Write manual pages into a directory.
    #[command(after_help = "Example:\n  kprov man /usr/local/share/man/man1")]
    Man {
        /// The directory.
        directory: PathBuf,
    },
    /// Print the JSON schema of inventories, for editors.
    Schema,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  kprov completion bash > /etc/bash_completion.d/kprov")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What nearly every command starts from.
#[derive(Debug, Clone, Args)]
struct Source {
    /// The inventory file (TOML); for `plan` and `apply` also a saved plan.
    inventory: PathBuf,
    /// Where certificates and host keys are kept; default `.kprov/CLUSTER` beside the inventory.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A directory of templates that replace the built-in ones of the same name.
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// A file with the passphrase of the secrets in the state directory; KPROV_PASSPHRASE holds one,
    /// too.
    #[arg(long, value_name = "FILE", env = "KPROV_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Take programs, images and packages from this file of `kprov bundle create`.
    #[arg(long, value_name = "FILE", env = "KPROV_BUNDLE")]
    bundle: Option<PathBuf>,
    /// Leave a check of hosts out, by its name; may be given several times. What it finds is a
    /// warning then.
    #[arg(long, value_name = "CHECK", value_parser = PossibleValuesParser::new(SKIPPABLE))]
    skip: Vec<String>,
    /// Ask for the password that sudo wants on hosts; KPROV_SUDO_PASSWORD holds one, too.
    #[arg(long)]
    ask_sudo_password: bool,
    /// This machine is the inventory's only host: work on it directly instead of over SSH.
    #[arg(long)]
    local: bool,
    /// How many hosts to work on at the same time.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = parallel)]
    parallel: usize,
}

#[derive(Debug, Args)]
struct PlanArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    choice: Choice,
    /// Keep the plan in this file, for `kprov apply FILE` to carry out exactly. Certificates that
    /// are due are issued into the state directory.
    #[arg(short = 'o', long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the texts of new files as well.
    #[arg(long, conflicts_with = "no_diff")]
    diff: bool,
    /// Show what would become of hosts that left the inventory.
    #[arg(long)]
    prune: bool,
    /// Plan without hosts that are out of reach.
    #[arg(long)]
    allow_unreachable: bool,
    /// Show what a rollback would do.
    #[arg(long, conflicts_with = "out")]
    rollback: bool,
    /// Exit with 5 when something would change.
    #[arg(long)]
    exit_code: bool,
    /// Leave out the differences within files.
    #[arg(long)]
    no_diff: bool,
}

#[derive(Debug, Args)]
struct DiffArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    choice: Choice,
    /// Exit with 2 when hosts or addons differ, and with 3 when not all could be judged.
    #[arg(long)]
    exit_code: bool,
    /// Leave out the differences within files.
    #[arg(long)]
    no_diff: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, Args)]
struct UnlockArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    choice: Choice,
    /// Really take the locks away: a run that holds them can write no more.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct TraceArgs {
    #[command(flatten)]
    source: Source,
    /// The run, as --list names it; the last one when left out.
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Also draw it, into this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Name the runs that have left logs.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The inventory file to write.
    #[arg(default_value = "inventory.toml")]
    file: PathBuf,
    /// Name of the cluster.
    #[arg(long)]
    name: Option<String>,
    /// User to log in as.
    #[arg(long)]
    user: Option<String>,
    /// Private key file; the SSH agent's keys are taken without one.
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// Addresses of the masters.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    masters: Vec<Ipv4Addr>,
    /// Addresses of the nodes; the masters are nodes when there are none.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    nodes: Vec<Ipv4Addr>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct ApplyArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    choice: Choice,
    /// For a saved plan whose inventory is elsewhere now: where it is.
    #[arg(long = "inventory", value_name = "FILE")]
    inventory_file: Option<PathBuf>,
    /// Take hosts that left the inventory out of the cluster, and give them back.
    #[arg(long)]
    prune: bool,
    /// Do the others when hosts are out of reach, as long as etcd has its quorum.
    #[arg(long)]
    allow_unreachable: bool,
    #[arg(skip)]
    rollback: bool,
    #[arg(skip)]
    drain: bool,
}

#[derive(Debug, Args)]
struct UpgradeArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    choice: Choice,
    /// Drain each node before its turn and uncordon it after; pods outlive a kubelet's restart
    /// without it.
    #[arg(long, conflicts_with = "no_wait")]
    drain: bool,
    /// Do the others when hosts are out of reach, as long as etcd has its quorum.
    #[arg(long)]
    allow_unreachable: bool,
}

/// What every command that brings hosts to the desired state starts from.
#[derive(Debug, Clone, Args)]
struct RunArgs {
    #[command(flatten)]
    source: Source,
    /// Give up after this long, such as 90s or 10m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    timeout: Duration,
    /// Do not wait until the nodes are ready.
    #[arg(long)]
    no_wait: bool,
    /// Take the hosts' locks away from another run.
    #[arg(long)]
    force_unlock: bool,
}

#[derive(Debug, Args)]
struct KubeconfigArgs {
    #[command(flatten)]
    source: Source,
    /// Merge into this file, keeping a backup, instead of printing.
    #[arg(long, value_name = "FILE")]
    merge: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ResetArgs {
    #[command(flatten)]
    source: Source,
    /// Really do it: all of the cluster's data on the hosts is deleted.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    choice: Choice,
    /// Reset the others when hosts are out of reach.
    #[arg(long)]
    allow_unreachable: bool,
    /// Give up after this long, such as 90s or 10m.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// Take the hosts' locks away from another run.
    #[arg(long)]
    force_unlock: bool,
}

/// What the program's surroundings say; read once, in `main`.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Who runs kprov.
    pub person: String,
    /// Whether `NO_COLOR` is set.
    pub no_color: bool,
    /// Directory of the running program, where its companions are.
    pub beside: PathBuf,
    /// The home directory of who runs kprov.
    pub home: Option<PathBuf>,
    /// Directory for fetched programs.
    pub cache: PathBuf,
    /// Set when the operator wants to stop.
    pub stop: Arc<AtomicBool>,
    /// The passphrase of the state directory's secrets, from the environment or once it was asked.
    pub passphrase: OnceLock<Secret>,
    /// The passphrase of private SSH keys, from the environment.
    pub ssh_passphrase: Option<Secret>,
    /// The password of sudo on hosts, from the environment or once it was asked.
    pub sudo_password: OnceLock<Secret>,
    /// The sessions with jump hosts, and passphrases of SSH keys that were asked for.
    pub jumps: Arc<Jumps>,
}

impl Cli {
    /// How much to log: 0 warnings, 1 what is done, 2 everything.
    #[must_use]
    pub fn verbosity(&self) -> u8 {
        self.global.verbose
    }

    /// Runs the command; blocks until it is done. All failures have been reported when it returns.
    #[must_use]
    pub fn run(self, surroundings: &Surroundings) -> Exit {
        let console = output::Console::new(&self.global, surroundings.no_color);
        let result = match &self.command {
            Command::Validate(source) => prepare::validate(source, &console),
            Command::Plan(args) => plan::run(args, surroundings, &console),
            Command::Preflight(args) => preflight::run(args, surroundings, &console),
            Command::Diff(args) => diff::run(args, surroundings, &console),
            Command::Apply(args) => apply::run("apply", args, surroundings, &console),
            Command::Upgrade(args) => rollback::run(args, false, surroundings, &console),
            Command::Rollback(args) => rollback::run(args, true, surroundings, &console),
            Command::Status(args) => status::run(args, surroundings, &console),
            Command::Certs { command } => certs::run(command, surroundings, &console),
            Command::Etcd { command } => etcd::run(command, surroundings, &console),
            Command::Replace(args) => recovery::replace(args, surroundings, &console),
            Command::Recover(args) => recovery::recover(args, surroundings, &console),
            Command::Backup(args) => backup::run(args, surroundings, &console),
            Command::Restore(args) => backup::restore(args, surroundings, &console),
            Command::Import(args) => import::run(args, surroundings, &console),
            Command::Kubeconfig(args) => kubeconfig::run(args, surroundings, &console),
            Command::Reset(args) => reset::run(args, surroundings, &console),
            Command::Unlock(args) => unlock::run(args, surroundings, &console),
            Command::Trace(args) => trace::run(args, &console),
            Command::Bundle { command } => bundle::run(command, surroundings, &console),
            Command::Up(args) => up::up(args, surroundings, &console),
            Command::Down(args) => up::down(args, surroundings, &console),
            Command::Init(args) => init::run(args, &console),
            Command::Man { directory } => man::run(directory, &console),
            Command::Schema => {
                let schema = crate::inventory::schema();
                let text = serde_json::to_string_pretty(&schema);
                console.text(&text.expect("a schema has only string keys"))
            }
            Command::Completion { shell } => {
                // Into memory first: the generator panics when its reader goes away.
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "kprov", &mut script);
                console.text(&String::from_utf8_lossy(&script))
            }
        };
        result.unwrap_or_else(|failure| console.failure(&failure))
    }
}

fn parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=256) => Ok(count),
        _ => Err("a number from 1 to 256".to_owned()),
    }
}

/// Reads `90`, `90s`, `10m` or `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit_s) = match text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        digits if digits.len() == text.len() => (digits, 1),
        digits => match &text[digits.len()..] {
            "s" => (digits, 1),
            "m" => (digits, 60),
            "h" => (digits, 3600),
            _ => return Err("a time such as 90s, 10m or 2h".to_owned()),
        },
    };
    let count: u64 = digits.parse().map_err(|_| "a time such as 90s, 10m or 2h".to_owned())?;
    match count.checked_mul(unit_s) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("a time from 1s to 24h".to_owned()),
    }
}
