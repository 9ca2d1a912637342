//! `kprov import`: the operator's side of a cluster, made again from its hosts.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{Console, Failure};
use super::{Exit, Surroundings, connect, prepare, secrets};
use crate::execute::{chain, in_parallel};
use crate::facts::FactsQuery;
use crate::host::known_hosts::KnownHosts;
use crate::host::ssh::{self, Target};
use crate::import::{self, Reached, Seen};
use crate::inventory::{self, Severity};
use crate::pki::{self, Access};
use crate::preflight::Problem;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Addresses of the cluster's hosts; at least one master with its etcd.
    #[arg(required = true, value_name = "ADDRESS")]
    hosts: Vec<Ipv4Addr>,
    /// Where to write the inventory; it must not exist.
    #[arg(long, value_name = "FILE", default_value = "inventory.toml")]
    to: PathBuf,
    /// The user to log in as; without it, what ssh's configuration says, or root.
    #[arg(long)]
    user: Option<String>,
    /// The port of sshd; without it, what ssh's configuration says, or 22.
    #[arg(long)]
    port: Option<u16>,
    /// Private key file; without it, those of ssh's configuration, or of the SSH agent.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A host to go through; several from here on in their order, with commas or one by one.
    #[arg(long, value_name = "USER@NAME:PORT", value_delimiter = ',')]
    jump: Vec<String>,
    /// Where to keep certificates and host keys; default `.kprov/CLUSTER` beside the inventory.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A file with the passphrase that seals the secrets; KPROV_PASSPHRASE holds one, too.
    #[arg(long, value_name = "FILE", env = "KPROV_KEY_FILE")]
    key_file: Option<PathBuf>,
}

pub(super) fn run(
    args: &ImportArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    if args.to.exists() {
        return Err(Failure::Other {
            message: format!("{} exists", args.to.display()),
            advice: "move it away, or name another file with --to".to_owned(),
        });
    }
    let scratch =
        tempfile::tempdir().map_err(|e| Failure::new(&e, "check the temporary directory"))?;
    let host_keys = scratch.path().join("known_hosts");
    let reached = Reached {
        user: args.user.clone(),
        port: args.port,
        key: args.key.as_ref().map(|key| absolute(key)),
        jumps: args.jump.clone(),
    };
    let hosts = to_reach(args, &reached)?;
    let seen = look(hosts, &host_keys, surroundings)?;
    let rebuilt = import::rebuild(&seen, &reached).map_err(|error| {
        Failure::new(&error, "name all hosts of one cluster, a master among them")
    })?;
    let directory = args.to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let usual = || directory.join(".kprov").join(&rebuilt.cluster);
    let state_dir = args.state_dir.clone().unwrap_or_else(usual);
    let passphrase =
        secrets::given(args.key_file.as_deref(), surroundings, || pki::is_sealed(&state_dir))?;
    let access = Access { dir: &state_dir, passphrase: passphrase.as_ref() };
    pki::adopt(&access, &rebuilt.adopted, jiff::Timestamp::now())
        .map_err(|error| Failure::new(&error, prepare::pki_advice(&error)))?;
    let failed = |error: &dyn std::error::Error| Failure::new(error, "check the state directory");
    rebuilt.births.save(&state_dir).map_err(|error| failed(&error))?;
    fs::copy(&host_keys, state_dir.join("known_hosts")).map_err(|error| failed(&error))?;
    // The inventory goes last: with it, the import is whole.
    let written = fs::File::create_new(&args.to)
        .and_then(|mut file| file.write_all(rebuilt.inventory.as_bytes()));
    written.map_err(|error| failed(&error))?;
    let value = serde_json::json!({
        "cluster": rebuilt.cluster,
        "inventory": args.to,
        "state_dir": state_dir,
        "hosts": seen.len(),
        "notes": rebuilt.notes,
    });
    console.result(&value, || {
        let notes: String = rebuilt.notes.iter().map(|note| format!("  {note}\n")).collect();
        format!(
            "{}: {} hosts of the cluster {}, keys in {}\n{notes}look at `kprov plan {}` next\n",
            args.to.display(),
            seen.len(),
            rebuilt.cluster,
            state_dir.display(),
            args.to.display()
        )
    })
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// The hosts as an inventory would have them.
fn to_reach(args: &ImportArgs, reached: &Reached) -> Result<Vec<inventory::Host>, Failure> {
    let text = import::to_reach(&args.hosts, reached);
    let read = inventory::of_text(&args.to, &text).map_err(|diagnostics| {
        let errors = diagnostics.findings().into_iter();
        let mut errors = errors.filter(|finding| finding.severity == Severity::Error);
        let first = errors.next();
        let labelled = first.map(|f| match f.label.as_str() {
            "" => f.message,
            label => format!("{}: {label}", f.message),
        });
        Failure::Other {
            message: labelled.unwrap_or_else(|| diagnostics.summary()),
            advice: "see `kprov import --help`".to_owned(),
        }
    })?;
    Ok(read.hosts)
}

/// Reads what all hosts have; their keys are remembered in `host_keys`.
fn look(
    hosts: Vec<inventory::Host>,
    host_keys: &Path,
    surroundings: &Surroundings,
) -> Result<Vec<Seen>, Failure> {
    let known = KnownHosts::open(host_keys)
        .map_err(|error| Failure::new(&error, "check the temporary directory"))?;
    let answers = in_parallel(hosts, 32, |host| {
        let address = host.address.to_string();
        one(&host, &known, surroundings).map_err(|(check, message, advice)| Problem {
            host: address,
            check,
            message,
            advice,
        })
    });
    let (mut seen, mut problems) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(host) => seen.push(host),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(seen) } else { Err(Failure::Unfit(problems)) }
}

fn one(
    host: &inventory::Host,
    known: &KnownHosts,
    surroundings: &Surroundings,
) -> Result<Seen, (&'static str, String, String)> {
    let address = host.address.to_string();
    let sudo_password = surroundings.sudo_password.get().cloned();
    let target = Target { name: address.clone(), sudo_password, ..connect::target(host) };
    let failed = |error: crate::host::HostError| ("unreachable", chain(&error), error.advice());
    let (mut host, _) = ssh::connect(&target, known, &surroundings.jumps).map_err(failed)?;
    let facts = host.facts(&FactsQuery::default(), None).map_err(failed)?;
    let record = facts.record.ok_or_else(|| {
        let message = "kprov has never set it up".to_owned();
        ("record", message, "leave it out".to_owned())
    })?;
    let texts = host.read(&import::paths()).map_err(failed)?;
    Ok(Seen { address, record, texts })
}
