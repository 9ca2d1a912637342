//! `kprov certs`: what there is, renewal, rotation, authorities from outside, sealing.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::output::{Console, Failure};
use super::select::Choice;
use super::{ApplyArgs, Exit, RunArgs, Source, Surroundings, apply, prepare, secrets};
use crate::pki::{self, Access, LeafKind, PkiError, Which};
use crate::secret::Secret;

mod endpoints;
mod list;
mod rotate;

#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// List all certificates: whose, for what, until when, and what hosts really have and serve.
    #[command(after_help = "Examples:\n  kprov certs list inventory/lab.toml\n  \
        kprov certs list inventory/lab.toml --offline --output json")]
    List(ListArgs),
    /// Make certificates anew and bring them to the hosts; needs no working API server.
    #[command(after_help = "Examples:\n  kprov certs renew inventory/lab.toml\n  \
        kprov certs renew inventory/lab.toml --hosts node-1 --kind apiserver,etcd-server")]
    Renew(RenewArgs),
    /// Replace the authorities in stages, without an outage; run it again to go on after a failure.
    #[command(after_help = "Examples:\n  kprov certs rotate-ca inventory/lab.toml --yes\n  \
        kprov certs rotate-ca inventory/lab.toml --authority etcd --stop-after issue --yes")]
    RotateCa(RotateArgs),
    /// Print a request (PKCS#10) for an authority of your own to sign.
    #[command(
        after_help = "Example:\n  kprov certs csr inventory/lab.toml --authority cluster > ca.csr"
    )]
    Csr(AuthorityArgs),
    /// Take in an authority from outside: the answer to `csr`, or a certificate with its key.
    #[command(
        after_help = "Example:\n  kprov certs import inventory/lab.toml --authority cluster \
        --cert ca.crt"
    )]
    Import(ImportArgs),
    /// Seal the secrets of the state directory with a passphrase (KPROV_PASSPHRASE or --key-file).
    Seal(Source),
    /// Keep the secrets of the state directory in clear again.
    Unseal(Source),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    source: Source,
    /// Look into the state directory only.
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    choice: Choice,
    /// Only these kinds, such as apiserver or etcd-peer.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<LeafKind>,
}

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Which authority to replace; that of the cluster takes the service-account key with it.
    #[arg(long, value_enum, default_value_t = Authorities::All)]
    authority: Authorities,
    /// Stop when this stage has reached all hosts.
    #[arg(long, value_enum, value_name = "STAGE")]
    stop_after: Option<Stage>,
    /// Really do it.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct AuthorityArgs {
    #[command(flatten)]
    source: Source,
    /// Which authority.
    #[arg(long, value_enum)]
    authority: One,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    source: Source,
    /// Which authority.
    #[arg(long, value_enum)]
    authority: One,
    /// Its certificate (PEM).
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its key (PKCS#8 PEM); left out for the answer to a request of `kprov certs csr`.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum One {
    /// That of everything but etcd.
    Cluster,
    /// That of etcd.
    Etcd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Authorities {
    /// Both.
    All,
    /// That of everything but etcd.
    Cluster,
    /// That of etcd.
    Etcd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Stage {
    /// Both authorities are trusted, the old one signs.
    Trust,
    /// Both are trusted, the new one signs.
    Issue,
}

impl From<One> for Which {
    fn from(one: One) -> Self {
        match one {
            One::Cluster => Self::Cluster,
            One::Etcd => Self::Etcd,
        }
    }
}

impl From<Authorities> for Which {
    fn from(authorities: Authorities) -> Self {
        match authorities {
            Authorities::All => Self::All,
            Authorities::Cluster => Self::Cluster,
            Authorities::Etcd => Self::Etcd,
        }
    }
}

pub(super) fn run(
    command: &CertsCommand,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    match command {
        CertsCommand::List(args) => list::run(&args.source, args.offline, surroundings, console),
        CertsCommand::Renew(args) => renew(args, surroundings, console),
        CertsCommand::RotateCa(args) => rotate::run(args, surroundings, console),
        CertsCommand::Csr(args) => {
            let opened = Opened::new(&args.source, surroundings, console)?;
            let request = pki::request(&opened.inventory, &opened.access(), args.authority.into());
            console.text(&request.map_err(|error| failure(&error))?)
        }
        CertsCommand::Import(args) => import(args, surroundings, console),
        CertsCommand::Seal(source) => seal(source, surroundings, console),
        CertsCommand::Unseal(source) => {
            let opened = Opened::new(source, surroundings, console)?;
            let count = pki::unseal(&opened.access()).map_err(|error| failure(&error))?;
            let value = serde_json::json!({ "unsealed": count });
            console.result(&value, || format!("{count} secrets are kept in clear now"))
        }
    }
}

/// An inventory with its state directory and what opens it.
struct Opened {
    inventory: crate::inventory::Inventory,
    dir: PathBuf,
    passphrase: Option<Secret>,
}

impl Opened {
    fn new(
        source: &Source,
        surroundings: &Surroundings,
        console: &Console,
    ) -> Result<Self, Failure> {
        let inventory = prepare::inventory(source, console)?;
        let dir = prepare::state_dir(source, &inventory);
        let passphrase = secrets::passphrase(source, surroundings, &dir)?;
        Ok(Self { inventory, dir, passphrase })
    }

    fn access(&self) -> Access<'_> {
        Access { dir: &self.dir, passphrase: self.passphrase.as_ref() }
    }

    /// Fails where there never were certificates: a mistyped directory must not become a new one.
    fn existing(self) -> Result<Self, Failure> {
        if pki::exists(&self.dir) {
            return Ok(self);
        }
        Err(Failure::Other {
            message: format!("{} has no certificates yet", self.dir.display()),
            advice: "apply the inventory first, or name its --state-dir".to_owned(),
        })
    }
}

fn failure(error: &PkiError) -> Failure {
    Failure::new(error, prepare::pki_advice(error))
}

fn kind(text: &str) -> Result<LeafKind, String> {
    let found = LeafKind::ALL.into_iter().find(|kind| kind.word() == text);
    found.ok_or_else(|| format!("one of {}", LeafKind::ALL.map(LeafKind::word).join(", ")))
}

fn renew(
    args: &RenewArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.run.source, surroundings, console)?.existing()?;
    let hosts = args.choice.choose(&opened.inventory)?;
    let chosen = |kind: LeafKind, host: &str| {
        // Some certificates are of no host, but of all.
        (!args.choice.is_limited() || hosts.contains(host))
            && (args.kind.is_empty() || args.kind.contains(&kind))
    };
    let now = jiff::Timestamp::now();
    let pki = pki::renew(&opened.inventory, &opened.access(), now, &chosen)
        .map_err(|error| failure(&error))?;
    if pki.issued.is_empty() {
        return Err(Failure::Other {
            message: "no certificate is of these kinds and hosts".to_owned(),
            advice: "see `kprov certs list` for all of them".to_owned(),
        });
    }
    console.note(&format!("{} certificates made anew", pki.issued.len()));
    let apply = ApplyArgs { choice: args.choice.clone(), ..ApplyArgs::whole(args.run.clone()) };
    apply::run("certs renew", &apply, surroundings, console)
}

fn import(
    args: &ImportArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.source, surroundings, console)?;
    let (which, key) = (args.authority.into(), args.key.as_deref());
    let now = jiff::Timestamp::now();
    let waits = pki::import(&opened.access(), which, &args.cert, key, now)
        .map_err(|error| failure(&error))?;
    let value = serde_json::json!({ "imported": true, "waits_for_rotation": waits });
    console.result(&value, || match waits {
        true => "imported; `kprov certs rotate-ca` puts it in the present one's place".to_owned(),
        false => "imported; `kprov apply` issues certificates of it".to_owned(),
    })
}

fn seal(source: &Source, surroundings: &Surroundings, console: &Console) -> Result<Exit, Failure> {
    let opened = Opened::new(source, surroundings, console)?.existing()?;
    if opened.passphrase.is_none() {
        return Err(Failure::Other {
            message: "there is no passphrase to seal with".to_owned(),
            advice: "set KPROV_PASSPHRASE, or name a --key-file".to_owned(),
        });
    }
    let before = pki::seal(&opened.access()).map_err(|error| failure(&error))?;
    let value = serde_json::json!({ "sealed": true, "before": before });
    console.result(&value, || match before {
        true => "the secrets were sealed already".to_owned(),
        false => format!("the secrets of {} are sealed now", opened.dir.display()),
    })
}
