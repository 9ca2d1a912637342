//! The steps that all commands share, from the inventory to the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::connect::{Asking, Connected, connect};
use super::output::{Console, Failure};
use super::{Exit, PlanArgs, Source, Surroundings, members, secrets};
use crate::artifacts::{self, Artifacts};
use crate::compose;
use crate::etcd::births::Births;
use crate::etcd::membership::Planned;
use crate::execute::Hosts;
use crate::facts::{Facts, LockRequest};
use crate::inventory::{self, Inventory};
use crate::pki::vault::VaultError;
use crate::pki::{self, Access, Description, Issued, LeafKind, Pki, PkiError};
use crate::plan::{self, Change, ContentDiff, HostPlan, Plan};
use crate::preflight;
use crate::render::Templates;
use crate::state::HostState;

/// Everything that is known before something is changed.
pub(super) struct Prepared {
    pub(super) inventory: Inventory,
    pub(super) pki: Pki,
    pub(super) desired: Vec<HostState>,
    pub(super) hosts: Hosts,
    pub(super) plan: Plan,
    pub(super) facts: BTreeMap<String, Facts>,
    /// What every member of etcd was told at its birth.
    pub(super) births: Births,
    /// The changes that bring new members into a running etcd.
    pub(super) joins: Vec<Planned>,
    pub(super) phases: Vec<(String, Duration)>,
}

/// Reads the inventory and tells its warnings.
pub(super) fn inventory(source: &Source, console: &Console) -> Result<Inventory, Failure> {
    let load = inventory::load(&source.inventory);
    let inventory = load.map_err(|diagnostics| Failure::Inventory(Box::new(diagnostics)))?;
    if !console.is_json() {
        console.diagnostics(&inventory.warnings);
    }
    if source.local && inventory.hosts.len() != 1 {
        return Err(Failure::Other {
            message: format!("--local is for one host, and the inventory has {}", {
                inventory.hosts.len()
            }),
            advice: "leave --local out, or use an inventory of this machine alone".to_owned(),
        });
    }
    Ok(inventory)
}

pub(super) fn state_dir(source: &Source, inventory: &Inventory) -> PathBuf {
    source.state_dir.clone().unwrap_or_else(|| inventory.state_dir())
}

pub(super) fn templates(source: &Source) -> Result<Templates, Failure> {
    let templates = match &source.templates {
        Some(directory) => Templates::with_overrides(directory),
        None => Templates::embedded(),
    };
    templates.map_err(|error| Failure::new(&error, "correct the template and try again"))
}

pub(super) fn certificates(
    source: &Source,
    surroundings: &Surroundings,
    inventory: &Inventory,
    directory: &Path,
) -> Result<Pki, Failure> {
    let passphrase = secrets::passphrase(source, surroundings, directory)?;
    let access = Access { dir: directory, passphrase: passphrase.as_ref() };
    pki::ensure_in(inventory, &access, jiff::Timestamp::now())
        .map_err(|error| Failure::new(&error, pki_advice(&error)))
}

/// What the operator can do about certificates that cannot be had.
pub(super) fn pki_advice(error: &PkiError) -> &'static str {
    match error {
        PkiError::Sealed(VaultError::NoPassphrase { .. }) => {
            "set KPROV_PASSPHRASE, or name a --key-file"
        }
        PkiError::Sealed(VaultError::WrongPassphrase { .. }) => {
            "check KPROV_PASSPHRASE or the --key-file; without it only `kprov import` helps"
        }
        PkiError::Unusable { .. } => "give another certificate or key; nothing was changed",
        PkiError::Other { .. } => "run kprov certs rotate-ca, or name the present authority again",
        PkiError::Expired { .. } => "run kprov certs rotate-ca; it needs no working API server",
        _ => "the state directory must be whole and writable",
    }
}

/// The certificates as an apply would have them, made in a copy of the state directory that ends
/// with the first value: for commands that only look.
pub(super) fn certificates_of_copy(
    source: &Source,
    surroundings: &Surroundings,
    inventory: &Inventory,
    directory: &Path,
) -> Result<(tempfile::TempDir, Pki), Failure> {
    let copy = state_copy(directory)?;
    let pki = certificates(source, surroundings, inventory, copy.path())?;
    Ok((copy, pki))
}

fn state_copy(directory: &Path) -> Result<tempfile::TempDir, Failure> {
    let copy =
        tempfile::tempdir().map_err(|e| Failure::new(&e, "check the temporary directory"))?;
    copy_directory(directory, copy.path())
        .map_err(|error| Failure::new(&error, "check the state directory"))?;
    Ok(copy)
}

/// Goes all the way to the plan. Every problem of every host is reported at once.
pub(super) fn prepare(
    source: &Source,
    surroundings: &Surroundings,
    console: &Console,
    certificates_in: &Path,
    inventory: Inventory,
    locking: (Option<&LockRequest>, bool),
) -> Result<Prepared, Failure> {
    let mut phases = Vec::new();
    let began = Instant::now();
    let templates = templates(source)?;
    let pki = certificates(source, surroundings, &inventory, certificates_in)?;
    for issued in &pki.issued {
        tracing::info!(certificate = issued.id, reason = %issued.reason, "issued");
    }
    let artifacts: Artifacts =
        artifacts::resolve(&inventory, &surroundings.beside, &surroundings.cache)
            .map_err(|error| Failure::new(&error, "see [artifacts] of the inventory"))?;
    let compose = |births: &Births| {
        compose::desired(&inventory, &pki, births, &templates, &artifacts)
            .map_err(|error| Failure::new(&error, "correct the template or the inventory"))
    };
    let known = Births::load(certificates_in)
        .map_err(|error| Failure::new(&error, "correct the file, or remove it: hosts know it"))?;
    let mut desired = compose(&known.clone().unwrap_or_else(|| Births::of(&inventory)))?;
    phases.push(("compose".to_owned(), began.elapsed()));
    let began = Instant::now();
    let (lock, force_unlock) = locking;
    let state_dir = &state_dir(source, &inventory);
    let asking = Asking { lock, force_unlock, source, state_dir };
    let Connected { mut hosts, facts, mut problems } = connect(&inventory, &desired, &asking);
    let births = members::births(known, &inventory, &facts, &mut hosts);
    // Unreachable hosts are reported first: without them nobody knows who the members are.
    let (births, joins) = match problems.is_empty() {
        true => members::newcomers(births, &inventory, &pki, &facts, &mut hosts)?,
        false => (births, Vec::new()),
    };
    desired = compose(&births)?;
    phases.push(("connect and facts".to_owned(), began.elapsed()));
    let reached: Vec<_> =
        desired.iter().filter(|state| facts.contains_key(&state.host)).cloned().collect();
    let mut plan = plan::plan(&reached, &facts);
    let lapsed = lapsed_members(&plan, &mut hosts, jiff::Timestamp::now());
    plan.nothing_to_spare(&lapsed);
    for (state, host) in reached.iter().zip(&plan.hosts) {
        problems.extend(preflight::check(state, &facts[&state.host], host));
    }
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.host.cmp(&b.host));
        return Err(Failure::Unfit(problems));
    }
    if console.verbose > 0 {
        for (name, facts) in &facts {
            let skew = facts.clock_skew_ms;
            tracing::info!(host = name, os = facts.os.pretty_name, kernel = facts.kernel, skew);
        }
    }
    Ok(Prepared { inventory, pki, desired, hosts, plan, facts, births, joins, phases })
}

/// `kprov validate`: all that can be known without hosts.
pub(super) fn validate(source: &Source, console: &Console) -> Result<Exit, Failure> {
    let inventory = inventory(source, console)?;
    templates(source)?;
    let roles = |role| inventory.with_role(role).count();
    let (etcd, masters, nodes) = (
        roles(inventory::Role::Etcd),
        roles(inventory::Role::Master),
        roles(inventory::Role::Node),
    );
    let value = serde_json::json!({
        "cluster": inventory.cluster.name,
        "hosts": inventory.hosts.len(),
        "etcd": etcd,
        "masters": masters,
        "nodes": nodes,
        "findings": inventory.warnings.findings(),
    });
    console.result(&value, || {
        let (cluster, hosts) = (&inventory.cluster.name, inventory.hosts.len());
        format!(
            "{} is valid: cluster {cluster}, {hosts} hosts \
             ({etcd} etcd, {masters} masters, {nodes} nodes)",
            source.inventory.display()
        )
    })
}

/// `kprov plan`: shows and changes nothing, neither on hosts nor in the state directory.
pub(super) fn plan(
    args: &PlanArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.source;
    let inventory = inventory(source, console)?;
    // Certificates that are due would be issued anew by an apply; here that happens to a copy.
    let copy = state_copy(&state_dir(source, &inventory))?;
    let mut prepared =
        prepare(source, surroundings, console, copy.path(), inventory, (None, false))?;
    let diffs = match args.no_diff {
        true => BTreeMap::new(),
        false => diffs(&mut prepared),
    };
    let changes = !prepared.plan.is_empty();
    let value = serde_json::json!({
        "changes": changes,
        "plan": prepared.plan,
        "diffs": diffs,
        "certificates": prepared.pki.issued,
        "etcd": prepared.joins,
    });
    console.result(&value, || {
        let mut text = issued(&prepared.pki);
        text.push_str(&members::shown(&prepared.joins));
        text.push_str(&plan::summary(&prepared.plan, &diffs));
        if !changes {
            text.push_str("nothing to do\n");
        }
        text
    })?;
    Ok(if changes && args.exit_code { Exit::Changes } else { Exit::Ok })
}

/// The certificates that an apply makes, and why.
fn issued(pki: &Pki) -> String {
    if pki.issued.is_empty() {
        return String::new();
    }
    let mut out = "certificates:\n".to_owned();
    for Issued { id, reason } in &pki.issued {
        out.push_str(&format!("  ~ {id} ({reason})\n"));
    }
    out
}

/// The etcd members that are to get new certificates because those on the host have run out. Asked
/// of the hosts, and only where an apply would restart etcd with another certificate.
pub(super) fn lapsed_members(
    plan: &Plan,
    hosts: &mut Hosts,
    now: jiff::Timestamp,
) -> BTreeSet<String> {
    let files = [LeafKind::EtcdPeer, LeafKind::EtcdServer].map(|kind| {
        let stem = kind.path().expect("members' certificates are on hosts");
        format!("{stem}.crt")
    });
    let changed = |host: &HostPlan| {
        host.changes
            .iter()
            .any(|change| matches!(change, Change::File { path, .. } if files.contains(path)))
    };
    let mut lapsed = BTreeSet::new();
    for plan in plan.hosts.iter().filter(|host| changed(host)) {
        let texts = hosts.get_mut(&plan.host).map(|host| host.read(&files));
        let texts = texts.and_then(Result::ok).unwrap_or_default();
        let over = |text: &String| Description::of_pem(text).is_some_and(|d| d.not_after <= now);
        if texts.values().any(over) {
            lapsed.insert(plan.host.clone());
        }
    }
    lapsed
}

/// Reads the present texts of changed files, only from hosts that have any.
fn diffs(prepared: &mut Prepared) -> BTreeMap<String, Vec<ContentDiff>> {
    let mut diffs = BTreeMap::new();
    for plan in &prepared.plan.hosts {
        let paths = plan.diffable();
        let Some(host) = prepared.hosts.get_mut(&plan.host) else { continue };
        if paths.is_empty() {
            continue;
        }
        match host.read(&paths) {
            Ok(now) => {
                let state = prepared.desired.iter().find(|state| state.host == plan.host);
                let state = state.expect("a plan is made from desired states");
                diffs.insert(plan.host.clone(), plan.diffs(state, &now));
            }
            Err(error) => tracing::warn!(host = plan.host, %error, "cannot show differences"),
        }
    }
    diffs
}

pub(super) fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            let mode = entry.metadata()?.permissions();
            std::fs::create_dir_all(&target)?;
            std::fs::set_permissions(&target, mode)?;
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
