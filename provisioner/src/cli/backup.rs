//! `kprov backup` and `kprov restore`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::connect::{Asking, Connected, connect, every_host};
use super::diary::Diary;
use super::output::{Console, Failure};
use super::{ApplyArgs, Exit, RunArgs, Source, Surroundings, apply, prepare, recovery, secrets};
use crate::backup::{self, BackupError, Manifest, Unpacked};
use crate::etcd::births;
use crate::etcd::gateway::Gateway;
use crate::etcd::snapshot;
use crate::execute::Hosts;
use crate::facts::{Facts, FactsQuery, PathFact};
use crate::inventory::{Cluster, Host, Inventory, Role};
use crate::last_known;
use crate::lock::{self, Lease};
use crate::pki::vault::VaultError;
use crate::pki::{self, Pki};
use crate::plan::Upload;
use crate::preflight::Problem;
use crate::record::Record;
use crate::state::{Blob, Content, Mode, Owner};
use crate::step::Step;

/// Has etcd write a snapshot of its log after a few entries. Under `/run`: a boot forgets it.
const EAGER: &str = "/run/systemd/system/etcd.service.d/kprov-restore.conf";
/// A restored database is not in the log that the member begins anew. Whoever joins later would be
/// sent that log from its first entry on and lack everything older; from the first snapshot on, he
/// is sent the database. etcd's own count is 100,000 entries; an API server's start writes more
/// than these.
const EAGER_TEXT: &str = "[Service]\nEnvironment=ETCD_SNAPSHOT_COUNT=10\n";

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    source: Source,
    /// Write to this file; default `CLUSTER-TIME.kbackup` in the present directory.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Leave etcd's data out.
    #[arg(long)]
    without_etcd: bool,
    /// Do not seal it, though it holds all keys of the cluster.
    #[arg(long)]
    plain: bool,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup.
    archive: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    /// Really do it.
    #[arg(long)]
    yes: bool,
}

fn failure(error: &BackupError) -> Failure {
    let advice = match error {
        BackupError::Sealed(VaultError::NoPassphrase { .. }) => {
            "set KPROV_PASSPHRASE, or name a --key-file"
        }
        BackupError::Sealed(VaultError::WrongPassphrase { .. }) => {
            "it opens with the passphrase it was made with"
        }
        BackupError::File { act: "write", .. } => "check the place it is written to",
        _ => "use another backup",
    };
    Failure::new(error, advice)
}

/// All hosts with facts, whoever is reachable.
pub(super) fn connected(
    source: &Source,
    surroundings: &Surroundings,
    inventory: &Inventory,
    state_dir: &Path,
    lock: Option<&crate::facts::LockRequest>,
    force_unlock: bool,
) -> Connected {
    let mut asked = every_host(inventory);
    for (_, query) in asked.iter_mut().filter(|(host, _)| host.has(Role::Etcd)) {
        *query = about_data(inventory.cluster.layout.etcd_data());
    }
    connect(asked, &Asking { lock, force_unlock, source, surroundings, state_dir })
}

/// The question whether a host has data of etcd.
fn about_data(data: &str) -> FactsQuery {
    let data: BTreeSet<_> = [data.to_owned(), format!("{data}/member")].into();
    FactsQuery { paths: data.clone(), data, ..FactsQuery::default() }
}

pub(super) fn run(
    args: &BackupArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.source;
    let inventory = prepare::inventory(source, console)?;
    let state_dir = prepare::state_dir(source, &inventory);
    if !pki::exists(&state_dir) {
        return Err(Failure::Other {
            message: format!("{} has no certificates yet", state_dir.display()),
            advice: "apply the inventory first, or name its --state-dir".to_owned(),
        });
    }
    let passphrase = match args.plain {
        true => None,
        false => secrets::given(source.key_file.as_deref(), surroundings, || true)?,
    };
    if passphrase.is_none() && !args.plain {
        return Err(Failure::Other {
            message: "a backup holds all keys of the cluster, and there is no passphrase"
                .to_owned(),
            advice: "set KPROV_PASSPHRASE or name a --key-file; --plain goes without".to_owned(),
        });
    }
    let now = jiff::Timestamp::now();
    let file = args.to.clone().unwrap_or_else(|| {
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        PathBuf::from(format!("{}-{stamp}.kbackup", inventory.cluster.name))
    });
    let mut taken = None;
    if !args.without_etcd {
        let (_copy, pki) =
            prepare::certificates_of_copy(source, surroundings, &inventory, &state_dir)?;
        let mut connected = connected(source, surroundings, &inventory, &state_dir, None, false);
        taken = Some(take_snapshot(&inventory, &pki, &mut connected.hosts)?);
    }
    let etcd = taken.as_ref().map(|(_, member, revision)| (member.clone(), *revision));
    let manifest = Manifest::new(&inventory.cluster.name, now, etcd);
    let snapshot = taken.as_mut().map(|(snapshot, ..)| snapshot);
    backup::write(&file, passphrase.as_ref(), &manifest, &source.inventory, &state_dir, snapshot)
        .map_err(|error| failure(&error))?;
    let len = fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let value = serde_json::json!({ "file": file, "bytes": len, "manifest": manifest });
    console.result(&value, || {
        let size = crate::plan::size(len);
        match &manifest.etcd {
            Some((member, revision)) => {
                format!("{} ({size}), etcd of {member} at revision {revision}", file.display())
            }
            None => format!("{} ({size}), without etcd", file.display()),
        }
    })
}

/// A snapshot of the first member that gives a whole one, its host, and its revision.
fn take_snapshot(
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
) -> Result<(File, String, u64), Failure> {
    let mut reason = "none is reachable".to_owned();
    for host in inventory.with_role(Role::Etcd) {
        let Some(connection) = hosts.get_mut(&host.name) else { continue };
        let Some(mut gateway) = Gateway::new(connection.as_mut(), host, pki) else { continue };
        // A temporary file is 0600, and has no name that anybody could open.
        let file = tempfile::tempfile();
        let mut file = file.map_err(|e| Failure::new(&e, "check the temporary directory"))?;
        let status = match gateway.status() {
            Ok(status) if status.leader != 0 && !status.is_learner => status,
            Ok(_) => continue,
            Err(error) => {
                reason = error.to_string();
                continue;
            }
        };
        match gateway.snapshot(&mut file).map_err(|error| error.to_string()) {
            Ok(_) => match snapshot::verify(&mut file) {
                Ok(_) => return Ok((file, host.name.clone(), status.header.revision)),
                Err(error) => reason = crate::execute::chain(&error),
            },
            Err(error) => reason = error,
        }
    }
    Err(Failure::Other {
        message: format!("no member of etcd gives a snapshot: {reason}"),
        advice: "bring etcd up first; --without-etcd keeps everything else".to_owned(),
    })
}

pub(super) fn restore(
    args: &RestoreArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let (source, archive) = (&args.run.source, &args.archive);
    let sealed = backup::is_sealed(archive).map_err(|error| failure(&error))?;
    let passphrase = secrets::given(source.key_file.as_deref(), surroundings, || sealed)?;
    let scratch =
        tempfile::tempdir().map_err(|e| Failure::new(&e, "check the temporary directory"))?;
    let unpacked = backup::unpack(archive, passphrase.as_ref(), scratch.path())
        .map_err(|error| failure(&error))?;
    if !source.inventory.exists() {
        copy(&unpacked.inventory, &source.inventory)?;
        console.note(&format!("wrote {} from the backup", source.inventory.display()));
    }
    let inventory = prepare::inventory(source, console)?;
    if inventory.cluster.name != unpacked.manifest.cluster {
        return Err(Failure::Other {
            message: format!(
                "the backup is of the cluster {}, the inventory of {}",
                unpacked.manifest.cluster, inventory.cluster.name
            ),
            advice: "use the inventory of that cluster".to_owned(),
        });
    }
    let state_dir = prepare::state_dir(source, &inventory);
    same_cluster(&state_dir, &unpacked)?;
    let lock = lock::request(jiff::Timestamp::now(), &surroundings.person, "restore");
    let locked = args.yes.then_some(&lock);
    let mut connected =
        connected(source, surroundings, &inventory, &state_dir, locked, args.run.force_unlock);
    let mut problems = std::mem::take(&mut connected.problems);
    let data = inventory.cluster.layout.etcd_data();
    problems.extend(connected.facts.iter().filter_map(|(name, facts)| occupied(name, facts, data)));
    if !problems.is_empty() {
        return Err(Failure::Unfit(problems));
    }
    if !args.yes {
        let value = serde_json::json!({ "manifest": unpacked.manifest });
        console.result(&value, || {
            format!("a backup of {} made at {}", inventory.cluster.name, unpacked.manifest.made)
        })?;
        console.note("nothing was changed; say --yes to make the cluster of it");
        return Ok(Exit::Ok);
    }
    take_state(&unpacked, &state_dir)?;
    if let Some(snapshot) = &unpacked.snapshot {
        let hosts: Vec<_> = inventory.with_role(Role::Etcd).map(|host| host.name.clone()).collect();
        let name = &inventory.cluster.name;
        let diary = Diary::new(&state_dir, name, "restore", began, &hosts, console);
        let lease = Lease::of_masters(&inventory, &connected.facts)
            .map_err(|problem| Failure::Unfit(vec![problem]));
        let placed = lease.and_then(|lease| {
            claim(&lease, &mut connected.hosts, source)?;
            diary.said("place the database");
            place_database(snapshot, &inventory, &mut connected, &diary)
        });
        diary.end(console, placed)?;
    }
    // The locks end with the connections; the apply takes its own.
    drop(connected);
    let whole = ApplyArgs::whole(args.run.clone());
    let exit = apply::run("restore", &whole, surroundings, console)?;
    if exit == Exit::Ok && unpacked.snapshot.is_some() {
        start_as_ever(args, &inventory, &state_dir, surroundings, console)?;
    }
    Ok(exit)
}

/// Takes the order to write snapshots early back, and restarts the members one by one without it.
fn start_as_ever(
    args: &RestoreArgs,
    inventory: &Inventory,
    state_dir: &Path,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<(), Failure> {
    let (source, began) = (&args.run.source, Instant::now());
    let pki = prepare::certificates(source, surroundings, inventory, state_dir)?;
    let lock = lock::request(jiff::Timestamp::now(), &surroundings.person, "restore");
    let mut connected = connected(source, surroundings, inventory, state_dir, Some(&lock), false);
    if !connected.problems.is_empty() {
        return Err(Failure::Unfit(connected.problems));
    }
    let members: Vec<_> = inventory.with_role(Role::Etcd).collect();
    let names: Vec<_> = members.iter().map(|host| host.name.clone()).collect();
    let name = &inventory.cluster.name;
    let diary = Diary::new(state_dir, name, "restore", began, &names, console);
    let lease = Lease::of_masters(inventory, &connected.facts)
        .map_err(|problem| Failure::Unfit(vec![problem]));
    let claimed = lease.and_then(|lease| claim(&lease, &mut connected.hosts, source));
    let restart = |member: &&Host| {
        let host = connected.hosts.get_mut(&member.name).expect("all hosts are connected");
        diary.run(host.as_mut(), &BTreeMap::new(), &recovery::starting_as_ever(EAGER))?;
        recovery::wait_healthy(host.as_mut(), member, &pki)
    };
    let done = claimed.and_then(|()| members.iter().try_for_each(restart));
    diary.end(console, done)
}

/// The right to write, taken away from every earlier run.
pub(super) fn claim(lease: &Lease, hosts: &mut Hosts, source: &Source) -> Result<(), Failure> {
    lease.claim(hosts, source.parallel).map_err(|message| Failure::Other {
        message,
        advice: "see `kprov unlock` for who works on the cluster".to_owned(),
    })
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::new(&error, "check the place it is written to");
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::copy(from, to).map(drop).map_err(failed)
}

/// Certificates of another cluster must not be mixed with those of the backup.
fn same_cluster(state_dir: &Path, unpacked: &Unpacked) -> Result<(), Failure> {
    let authority = |dir: &Path| fs::read(dir.join("pki/ca.crt")).ok();
    match (authority(state_dir), authority(&unpacked.state_dir)) {
        (Some(here), there) if Some(&here) != there.as_ref() => Err(Failure::Other {
            message: format!("{} is of another certificate authority", state_dir.display()),
            advice: "move it away, or name another --state-dir".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Why a host cannot be given the data of a backup.
fn occupied(host: &str, facts: &Facts, data: &str) -> Option<Problem> {
    let member = facts.paths.get(&format!("{data}/member"))?;
    if matches!(member, PathFact::Directory { empty: true, .. }) {
        return None;
    }
    Some(Problem {
        host: host.to_owned(),
        check: "etcd-data",
        message: format!("{data} holds data of etcd"),
        advice: format!("`kprov reset INVENTORY --hosts {host} --yes` gives the host back first"),
    })
}

/// Takes the certificates and all else over that is not of the old hosts: new ones have host keys
/// of their own, and what members were told at their birth is told anew.
fn take_state(unpacked: &Unpacked, state_dir: &Path) -> Result<(), Failure> {
    if pki::exists(state_dir) {
        return Ok(());
    }
    let failed = |error| Failure::new(&error, "check the state directory");
    fs::create_dir_all(state_dir).map_err(failed)?;
    for left in ["known_hosts", births::FILE, last_known::FILE] {
        let _ = fs::remove_file(unpacked.state_dir.join(left));
    }
    prepare::copy_directory(&unpacked.state_dir, state_dir).map_err(failed)
}

/// Puts the database where each member of etcd will find it at its first start.
fn place_database(
    snapshot: &Path,
    inventory: &Inventory,
    connected: &mut Connected,
    diary: &Diary,
) -> Result<(), Failure> {
    let bad = |error: &dyn std::error::Error| Failure::new(error, "use another backup");
    let file = fs::OpenOptions::new().read(true).write(true).open(snapshot);
    let mut file = file.map_err(|error| bad(&error))?;
    snapshot::rebear(&mut file).map_err(|error| bad(&error))?;
    let mut bytes = File::open(snapshot).map_err(|error| bad(&error))?;
    let (sha256, len) =
        crate::digest::Digest::of_reader(&mut bytes).map_err(|error| bad(&error))?;
    let blob = Blob { sha256, len, source: snapshot.to_owned(), architecture: None, version: None };
    for host in inventory.with_role(Role::Etcd) {
        let facts = &connected.facts[&host.name];
        let steps = placing(inventory, &host.name, facts, &blob);
        let connection = connected.hosts.get_mut(&host.name).expect("it has facts");
        let eager = Content::Text(EAGER_TEXT.to_owned());
        let uploads: BTreeMap<_, _> =
            [(sha256, Upload::Blob(blob.clone())), (eager.digest(), Upload::Content(eager))].into();
        diary.run(connection.as_mut(), &uploads, &steps)?;
    }
    Ok(())
}

/// The record comes first: what is made here is kprov's, and a reset removes it.
fn placing(inventory: &Inventory, host: &str, facts: &Facts, blob: &Blob) -> Vec<Step> {
    let Cluster { name, layout, .. } = &inventory.cluster;
    let data = layout.etcd_data();
    let fresh = || Record { layout: *layout, ..Record::new(name, host) };
    let mut record = facts.record.clone().unwrap_or_else(fresh);
    record.data.entry(data.to_owned()).or_insert_with(|| facts.prior(data));
    let (member, snap) = (format!("{data}/member"), format!("{data}/member/snap"));
    let mut steps = vec![Step::WriteRecord { record: Box::new(record) }];
    let directories = [data.to_owned(), member, snap.clone()];
    steps.extend(directories.map(|path| Step::MakeDirectory {
        path,
        mode: Mode::PRIVATE_DIRECTORY,
        owner: Owner::root(),
    }));
    let path = format!("{snap}/db");
    let (mode, owner, sha256) = (Mode::PRIVATE, Owner::root(), blob.sha256);
    steps.push(Step::Install { path, mode, owner, sha256 });
    steps.extend(recovery::with_order(EAGER, crate::digest::Digest::of(EAGER_TEXT.as_bytes())));
    steps.push(Step::ClearStaging);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::facts::LockRequest;
    use crate::host::fake::FakeMachine;
    use crate::record::Prior;

    #[test]
    fn the_database_lies_where_etcd_looks_and_belongs_to_kprov() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text = "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"n1\"\naddress = \"10.0.0.1\"\n\
                    roles = [\"etcd\", \"master\", \"node\"]\n";
        fs::write(&path, text).unwrap();
        let inventory = crate::inventory::load(&path).unwrap();
        let machine = FakeMachine::new("n1");
        let (mode, owner) = (Mode::EXECUTABLE, Owner::root());
        let run = PathFact::Directory { mode, owner, empty: false };
        machine.state().paths.insert("/run".to_owned(), run);
        let mut host = machine.connect();
        let data = "/var/lib/etcd";
        let query = about_data(data);
        let lock = LockRequest { owner: "test".to_owned() };
        let facts = host.facts(&query, Some(&lock)).unwrap();
        assert!(occupied("n1", &facts, data).is_none());
        let (sha256, source) = (Digest::of(b"db"), "/nowhere".into());
        let blob = Blob { sha256, len: 2, source, architecture: None, version: None };
        let eager = Content::Text(EAGER_TEXT.to_owned());
        let uploads =
            [(blob.sha256, Upload::Blob(blob.clone())), (eager.digest(), Upload::Content(eager))];
        let uploads = uploads.into();
        host.push(&uploads, &mut |_| {}).unwrap();
        host.run(&placing(&inventory, "n1", &facts, &blob), &mut |_| {}).unwrap();
        let placed = machine.state().paths["/var/lib/etcd/member/snap/db"].clone();
        assert!(matches!(placed, PathFact::File { mode: Mode::PRIVATE, len: 2, .. }), "{placed:?}");
        assert!(machine.state().paths.contains_key(EAGER));
        let record = machine.state().record.clone().unwrap();
        assert_eq!(record.data[data], Prior::Absent);
        // Now it is in use, and a second restore is refused.
        let problem = occupied("n1", &host.facts(&query, None).unwrap(), data).unwrap();
        assert_eq!(problem.message, "/var/lib/etcd holds data of etcd");
    }
}
