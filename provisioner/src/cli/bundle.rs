//! `kprov bundle`: all that an apply puts on hosts, in one file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{Console, Failure};
use super::{Exit, Surroundings, prepare};
use crate::bundle;
use crate::distribution::Architecture;
use crate::inventory;
use crate::plan::size;

/// What can be done with bundles.
#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Write a bundle of programs, images and packages.
    #[command(after_help = "Examples:\n  kprov bundle create prod.toml -o prod.kbundle\n  \
        kprov bundle create prod.toml -o prod.kbundle --package debs/*.deb\n  \
        kprov apply prod.toml --bundle prod.kbundle")]
    Create(CreateArgs),
}

/// `kprov bundle create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The inventory file (TOML), whose programs and images are packed.
    inventory: PathBuf,
    /// The file to write.
    #[arg(short = 'o', long, value_name = "FILE")]
    out: PathBuf,
    /// The processors that it is for: x86_64 or aarch64; default: those of the programs.
    #[arg(long, value_name = "ARCH", value_parser = architecture)]
    arch: Option<Architecture>,
    /// Packages of the hosts' distribution, such as Docker's with all that they need.
    #[arg(long = "package", value_name = "FILE", num_args = 1..)]
    packages: Vec<PathBuf>,
}

fn architecture(text: &str) -> Result<Architecture, String> {
    let names = Architecture::ALL.map(Architecture::name).join(" or ");
    Architecture::of_name(text).ok_or(names)
}

pub(super) fn run(
    command: &BundleCommand,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let BundleCommand::Create(args) = command;
    let inventory =
        inventory::load(&args.inventory).map_err(|found| Failure::Inventory(Box::new(found)))?;
    console.diagnostics(&inventory.warnings);
    let artifacts = prepare::artifacts(&inventory, surroundings)?;
    let contents = bundle::create(&args.out, &artifacts, &args.packages, args.arch)
        .map_err(|error| Failure::new(&error, error.advice()))?;
    console.result(&contents, || {
        let (version, architecture) = (&contents.version, contents.architecture);
        let mut text = format!("{} is for kprov {version} on {architecture}\n", args.out.display());
        for entry in &contents.entries {
            let (kind, name, len) = (entry.kind.as_str(), &entry.name, size(entry.len));
            text.push_str(&format!("  {kind} {name} ({len}) {}\n", entry.sha256));
        }
        text
    })
}
