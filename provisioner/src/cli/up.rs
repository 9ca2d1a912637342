//! `kprov up` and `kprov down`: this machine as a whole cluster, without an inventory of one's own
//! and without SSH.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::output::{Console, Failure};
use super::select::Choice;
use super::{
    ApplyArgs, Exit, ResetArgs, RunArgs, Source, Surroundings, apply, duration, kubeconfig, reset,
};
use crate::inventory;

/// Where a distribution's package puts etcd, when none lies beside kprov.
const ETCD: &str = "/usr/bin/etcd";
const ETCD_PACKAGE: &str = "etcd-server";

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    place: Place,
    /// The address of this machine by which pods and others reach it; default: the one that it
    /// has towards other networks.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
    /// Image archives that `docker save` wrote, to load.
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Merge the kubeconfig into this file; default `~/.kube/config`.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Give up after this long, such as 90s or 10m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct DownArgs {
    #[command(flatten)]
    place: Place,
    /// Really do it: all of the cluster's data on this machine is deleted.
    #[arg(long)]
    yes: bool,
    /// Remove the context of this machine's cluster from this file; default `~/.kube/config`.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Place {
    /// Where the inventory and the certificates of this machine's cluster are kept; default
    /// `~/.kprov`.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn directory(&self, surroundings: &Surroundings) -> Result<PathBuf, Failure> {
        let usual = || surroundings.home.as_ref().map(|home| home.join(".kprov"));
        self.dir.clone().or_else(usual).ok_or_else(|| Failure::Usage {
            message: "there is no home directory".to_owned(),
            advice: "name a directory with --dir".to_owned(),
        })
    }

    /// The inventory of this machine's cluster.
    fn inventory(&self, surroundings: &Surroundings) -> Result<PathBuf, Failure> {
        Ok(self.directory(surroundings)?.join("local.toml"))
    }
}

fn source(inventory: &Path) -> Source {
    Source {
        inventory: inventory.to_owned(),
        state_dir: None,
        templates: None,
        key_file: None,
        bundle: None,
        skip: Vec::new(),
        ask_sudo_password: false,
        local: true,
        parallel: 1,
    }
}

/// Makes this machine a cluster of one; the inventory of a first `up` stays, to be edited.
pub(super) fn up(
    args: &UpArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let file = args.place.inventory(surroundings)?;
    if file.exists() {
        if args.address.is_some() || !args.images.is_empty() {
            return Err(Failure::Usage {
                message: format!("{} says already what this machine is", file.display()),
                advice: "edit it, and leave out --address and --image".to_owned(),
            });
        }
    } else {
        begin(args, &file, surroundings)?;
        console.note(&format!("wrote {}", file.display()));
    }
    let source = source(&file);
    let run = RunArgs {
        source: source.clone(),
        timeout: args.timeout,
        no_wait: false,
        force_unlock: false,
    };
    let exit = apply::run("up", &ApplyArgs::whole(run), surroundings, console)?;
    if exit != Exit::Ok {
        return Ok(exit);
    }
    let merge = kubeconfig_of_user(args.kubeconfig.as_ref(), surroundings)?;
    let (context, text) = kubeconfig::of_operator(&source, surroundings, console)?;
    kubeconfig::merge(&merge, &context, &text, console)?;
    Ok(Exit::Ok)
}

fn kubeconfig_of_user(
    named: Option<&PathBuf>,
    surroundings: &Surroundings,
) -> Result<PathBuf, Failure> {
    let usual = || surroundings.home.as_ref().map(|home| home.join(".kube/config"));
    named.cloned().or_else(usual).ok_or_else(|| Failure::Usage {
        message: "there is no home directory for a kubeconfig".to_owned(),
        advice: "name a file with --kubeconfig".to_owned(),
    })
}

/// Writes the inventory of a first `up`.
fn begin(args: &UpArgs, file: &Path, surroundings: &Surroundings) -> Result<(), Failure> {
    let address = match args.address {
        Some(address) => address,
        None => own_address().ok_or_else(|| Failure::Usage {
            message: "this machine has no IPv4 address towards other networks".to_owned(),
            advice: "name one of its addresses with --address".to_owned(),
        })?,
    };
    let etcd = !surroundings.beside.join("etcd").exists();
    let images: Result<Vec<_>, _> = args.images.iter().map(std::path::absolute).collect();
    let images = images.map_err(|error| Failure::new(&error, "check the present directory"))?;
    let text = text(&own_name(), address, etcd, &images);
    inventory::of_text(file, &text)
        .map_err(|diagnostics| Failure::Inventory(Box::new(diagnostics)))?;
    let write = || {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::File::create_new(file)?.write_all(text.as_bytes())
    };
    write().map_err(|error| Failure::new(&error, format!("check {}", file.display())))
}

fn text(name: &str, address: Ipv4Addr, etcd_of_package: bool, images: &[PathBuf]) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = "# Made by kprov up: this machine as a cluster of one. Edit it, and `kprov up` \
                    again.\n\n[cluster]\nname = \"local\"\n"
        .to_owned();
    if !images.is_empty() {
        let images: Vec<_> = images.iter().map(|path| quoted(&path.to_string_lossy())).collect();
        text.push_str(&format!("images = [{}]\n", images.join(", ")));
    }
    if etcd_of_package {
        text.push_str(&format!(
            "\n[artifacts]\netcd = {{ file = {}, package = {} }}\n",
            quoted(ETCD),
            quoted(ETCD_PACKAGE)
        ));
    }
    text.push_str(&format!(
        "\n[[hosts]]\nname = {}\naddress = \"{address}\"\nroles = [\"etcd\", \"master\", \"node\"]\n",
        quoted(name)
    ));
    text
}

/// The address that packets to elsewhere would bear. Nothing is sent: connecting a UDP socket only
/// asks the kernel for a route.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of documentation (RFC 5737): it is nobody's, and lies behind the default route.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// This machine's name as a DNS label.
fn own_name() -> String {
    label(&fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default())
}

fn label(name: &str) -> String {
    let first = name.trim().split('.').next().unwrap_or_default().to_lowercase();
    let shaped = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = first.chars().map(shaped).take(63).collect();
    match label.trim_matches('-') {
        "" => "local".to_owned(),
        label => label.to_owned(),
    }
}

/// Gives this machine back, and forgets its cluster when that went well.
pub(super) fn down(
    args: &DownArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let file = args.place.inventory(surroundings)?;
    if !file.exists() {
        console.note(&format!("there is no {}: nothing is up", file.display()));
        return Ok(Exit::Ok);
    }
    let asked = ResetArgs {
        source: source(&file),
        yes: args.yes,
        choice: Choice::default(),
        allow_unreachable: false,
        timeout: Duration::from_secs(300),
        force_unlock: false,
    };
    let exit = reset::run(&asked, surroundings, console)?;
    if exit == Exit::Ok && args.yes {
        let directory = args.place.directory(surroundings)?;
        let states = directory.join(".kprov");
        let state = states.join("local");
        if state.exists() {
            let merged = kubeconfig_of_user(args.kubeconfig.as_ref(), surroundings)?;
            let (context, text) = kubeconfig::of_operator(&asked.source, surroundings, console)?;
            kubeconfig::take_out(&merged, &context, &text, console)?;
        }
        // Another `up` begins with new keys. The inventory goes last: with it, this begins again.
        let forget = || {
            match fs::remove_dir_all(&state) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::remove_file(&file)
        };
        forget().map_err(|error| Failure::new(&error, format!("remove {}", file.display())))?;
        // They stay where they hold anything else.
        let _others = fs::remove_dir(&states).and_then(|()| fs::remove_dir(&directory));
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_machines_name_becomes_a_label() {
        let check = |name: &str, expected: &str| assert_eq!(label(name), expected, "{name:?}");
        check("Box_1.example.com\n", "box-1");
        check("-x-", "x");
        check("…", "local");
        check("", "local");
        check(&"a".repeat(80), &"a".repeat(63));
    }

    #[test]
    fn the_inventory_of_a_first_up_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("local.toml");
        let image = dir.path().join("a \"b\".tar");
        fs::write(&image, "").unwrap();
        let address = Ipv4Addr::new(192, 168, 1, 20);
        let text = text("box", address, true, std::slice::from_ref(&image));
        let read = inventory::of_text(&file, &text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
        assert_eq!((read.hosts.len(), read.hosts[0].roles.len()), (1, 3));
        assert_eq!(read.cluster.images, [image]);
        assert_eq!(read.state_dir(), dir.path().join(".kprov/local"));
        assert!(matches!(read.etcd, inventory::ArtifactSource::File { .. }));
        assert!(inventory::of_text(&file, &super::text("box", address, false, &[])).is_ok());
    }
}
