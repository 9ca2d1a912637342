//! The steps that all commands share, from the inventory to the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::connect::{Asking, Connected, UNREACHABLE, connect};
use super::output::{Console, Failure};
use super::{Exit, Source, Surroundings, members, rollback, secrets};
use crate::addons::{self, Addon};
use crate::artifacts::{self, Artifacts};
use crate::bundle::{self, Bundle};
use crate::compose;
use crate::etcd::births::Births;
use crate::etcd::membership::Planned;
use crate::execute::Hosts;
use crate::facts::{Facts, FactsQuery, LockRequest};
use crate::inventory::{self, Inventory, Role, Rollout};
use crate::layout::Layout;
use crate::pki::vault::VaultError;
use crate::pki::{self, Access, Description, LeafKind, Pki, PkiError};
use crate::plan::{self, Change, HostPlan, Plan};
use crate::preflight::{self, Problem};
use crate::render::Templates;
use crate::skew;
use crate::state::HostState;

/// What a command wants to know.
pub(super) struct Wish<'a> {
    pub(super) source: &'a Source,
    /// The hosts that it is about.
    pub(super) chosen: BTreeSet<String>,
    /// Hosts of old that are no longer in the inventory, to be asked as well.
    pub(super) orphans: &'a [inventory::Host],
    /// The cluster's state directory.
    pub(super) state_dir: &'a Path,
    /// The directory of its certificates: the state directory, or a copy that may change.
    pub(super) certificates_in: &'a Path,
    /// To write to the hosts; the masters are asked then, too, for the lease.
    pub(super) lock: Option<&'a LockRequest>,
    pub(super) force_unlock: bool,
    /// Whether hosts shall go back to the programs before.
    pub(super) rollback: bool,
}

impl<'a> Wish<'a> {
    /// To look at hosts and change nothing; `certificates_in` is a copy that is thrown away.
    pub(super) fn to_look(
        source: &'a Source,
        chosen: BTreeSet<String>,
        state_dir: &'a Path,
        certificates_in: &'a Path,
    ) -> Self {
        Self {
            source,
            chosen,
            orphans: &[],
            state_dir,
            certificates_in,
            lock: None,
            force_unlock: false,
            rollback: false,
        }
    }
}

/// Everything that is known before something is changed.
pub(super) struct Prepared {
    pub(super) inventory: Inventory,
    pub(super) pki: Pki,
    /// What the cluster gets beside hosts.
    pub(super) addons: Vec<Addon>,
    /// Of all hosts of the inventory.
    pub(super) desired: Vec<HostState>,
    /// Connections, also to masters and orphans that the plan is not about.
    pub(super) hosts: Hosts,
    pub(super) facts: BTreeMap<String, Facts>,
    /// Of the chosen hosts that answered.
    pub(super) plan: Plan,
    /// What every member of etcd was told at its birth.
    pub(super) births: Births,
    /// The changes that bring new members into a running etcd.
    pub(super) joins: Vec<Planned>,
    /// Dead hosts among all that were asked.
    pub(super) unreachable: Vec<Problem>,
    /// All other reasons not to begin.
    pub(super) unfit: Vec<Problem>,
    /// From when to when each host was asked.
    pub(super) times: BTreeMap<String, (Instant, Instant)>,
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
    let copy = scratch(directory)?;
    let pki = certificates(source, surroundings, inventory, copy.path())?;
    Ok((copy, pki))
}

/// All that says what should be, but for what members of etcd were told at their birth.
pub(super) struct Composition {
    pub(super) pki: Pki,
    templates: Templates,
    pub(super) artifacts: Artifacts,
    pub(super) addons: Vec<Addon>,
}

impl Composition {
    /// Issues certificates that are due, and asks no host.
    pub(super) fn new(
        source: &Source,
        surroundings: &Surroundings,
        certificates_in: &Path,
        inventory: &Inventory,
    ) -> Result<Self, Failure> {
        let templates = templates(source)?;
        let pki = certificates(source, surroundings, inventory, certificates_in)?;
        for issued in &pki.issued {
            tracing::info!(certificate = issued.id, reason = %issued.reason, "issued");
        }
        let bundle = bundle(source, surroundings)?;
        let bundled = bundle.as_ref().map(|bundle| bundle.instead_of_sources(inventory));
        let sources = bundled.as_ref().unwrap_or(inventory);
        let mut artifacts = artifacts(sources, surroundings)?;
        artifacts.packages = bundle.map(|bundle| bundle.packages).unwrap_or_default();
        let addons = addons(inventory)?;
        Ok(Self { pki, templates, artifacts, addons })
    }

    /// What should be true of every host of the inventory.
    pub(super) fn desired(
        &self,
        inventory: &Inventory,
        births: &Births,
    ) -> Result<Vec<HostState>, Failure> {
        compose::desired(inventory, &self.pki, births, &self.templates, &self.artifacts)
            .map_err(|error| Failure::new(&error, "correct the template or the inventory"))
    }
}

impl Composition {
    /// What should be true of one host, with `artifacts` in the place of the inventory's.
    pub(super) fn desired_of(
        &self,
        host: &inventory::Host,
        inventory: &Inventory,
        births: &Births,
        artifacts: &Artifacts,
    ) -> Result<HostState, Failure> {
        compose::desired_of(host, inventory, &self.pki, births, &self.templates, artifacts)
            .map_err(|error| Failure::new(&error, "correct the template or the inventory"))
    }
}

/// Finds all that the inventory puts on hosts.
pub(super) fn artifacts(
    inventory: &Inventory,
    surroundings: &Surroundings,
) -> Result<Artifacts, Failure> {
    artifacts::resolve(inventory, &surroundings.beside, &surroundings.cache)
        .map_err(|error| Failure::new(&error, "see [artifacts] of the inventory"))
}

/// The bundle of the command line, checked as a whole.
fn bundle(source: &Source, surroundings: &Surroundings) -> Result<Option<Bundle>, Failure> {
    let Some(path) = &source.bundle else { return Ok(None) };
    bundle::open(path, &surroundings.cache)
        .map(Some)
        .map_err(|error| Failure::new(&error, error.advice()))
}

/// The manifests of the inventory's addons.
fn addons(inventory: &Inventory) -> Result<Vec<Addon>, Failure> {
    addons::load(&inventory.addons).map_err(|error| {
        Failure::new(&error, "correct the file, or see [[addons]] of the inventory")
    })
}

/// What members of etcd were told at their birth, as far as that was written down.
pub(super) fn known_births(state_dir: &Path) -> Result<Option<Births>, Failure> {
    Births::load(state_dir)
        .map_err(|error| Failure::new(&error, "correct the file, or remove it: hosts know it"))
}

/// Goes all the way to the plan; problems of hosts are for the caller to judge.
pub(super) fn gather(
    wish: &Wish<'_>,
    surroundings: &Surroundings,
    console: &Console,
    inventory: Inventory,
) -> Result<Prepared, Failure> {
    let mut phases = Vec::new();
    let began = Instant::now();
    let composition =
        Composition::new(wish.source, surroundings, wish.certificates_in, &inventory)?;
    let known = known_births(wish.certificates_in)?;
    let first = known.clone().unwrap_or_else(|| Births::of(&inventory));
    let desired = composition.desired(&inventory, &first)?;
    phases.push(("compose".to_owned(), began.elapsed()));
    let began = Instant::now();
    let connected = ask(wish, surroundings, &inventory, &desired, known.as_ref());
    let Connected { mut hosts, facts, problems, times } = connected;
    let (unreachable, mut unfit): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.check == UNREACHABLE);
    let births = members::births(known, &inventory, &facts, &mut hosts);
    let ready: BTreeSet<_> =
        wish.chosen.iter().filter(|name| facts.contains_key(*name)).cloned().collect();
    let pki = &composition.pki;
    let (births, joins) =
        match members::newcomers(&births, &ready, &inventory, pki, &facts, &mut hosts) {
            Ok(found) => found,
            Err(problem) => {
                unfit.push(problem);
                (births, Vec::new())
            }
        };
    let mut desired = composition.desired(&inventory, &births)?;
    if wish.rollback {
        let all = (&inventory, &births);
        let kept = rollback::turn_back(&mut desired, &composition, all, &facts, &wish.chosen)?;
        unfit.extend(kept);
    }
    phases.push(("connect and facts".to_owned(), began.elapsed()));
    let reached: Vec<_> =
        desired.iter().filter(|state| ready.contains(&state.host)).cloned().collect();
    let plan = planned(&reached, &facts, &mut hosts, &inventory.rollout);
    for (state, host) in reached.iter().zip(&plan.hosts) {
        unfit.extend(preflight::check(state, &facts[&state.host], host));
    }
    unfit.extend(skew::check(&desired, &facts, &|name| ready.contains(name)));
    unfit.extend(preflight::twins(&facts));
    unfit.retain(|problem| !skips(wish.source, problem, console));
    unfit.sort_by(|a, b| a.host.cmp(&b.host));
    if console.verbose > 0 {
        for (name, facts) in &facts {
            let skew = facts.clock_skew_ms;
            tracing::info!(host = name, os = facts.os.pretty_name, kernel = facts.kernel, skew);
        }
    }
    let (pki, addons) = (composition.pki, composition.addons);
    Ok(Prepared {
        inventory,
        pki,
        addons,
        desired,
        hosts,
        facts,
        plan,
        births,
        joins,
        unreachable,
        unfit,
        times,
        phases,
    })
}

/// Whether the operator has left the check out that found a problem, which is said then.
pub(super) fn skips(source: &Source, problem: &Problem, console: &Console) -> bool {
    let skipped = source.skip.iter().any(|name| name == problem.check);
    if skipped {
        let Problem { host, check, message, .. } = problem;
        console.note(&format!("warning: {host}: {message} (--skip {check})"));
    }
    skipped
}

/// Connects to all hosts that the wish needs.
fn ask(
    wish: &Wish<'_>,
    surroundings: &Surroundings,
    inventory: &Inventory,
    desired: &[HostState],
    known: Option<&Births>,
) -> Connected {
    let asking = Asking {
        lock: wish.lock,
        force_unlock: wish.force_unlock,
        source: wish.source,
        surroundings,
        state_dir: wish.state_dir,
    };
    // Whoever writes needs the masters as witnesses, even where they have nothing to do.
    let asked = inventory.hosts.iter().filter_map(|host| {
        let state = desired.iter().find(|state| state.host == host.name)?;
        match wish.chosen.contains(&host.name) {
            true => Some((host, FactsQuery::for_state(state))),
            false if wish.lock.is_some() && host.has(Role::Master) => {
                Some((host, FactsQuery::default()))
            }
            false => None,
        }
    });
    let orphans = wish.orphans.iter().map(|host| (host, FactsQuery::default()));
    let mut connected = connect(asked.chain(orphans).collect(), &asking);
    // Who joins etcd, or leaves it, must be known to its members.
    if members::are_concerned(known, inventory, &connected.facts, &wish.chosen) {
        let others = inventory.with_role(Role::Etcd);
        let others = others.filter(|host| !connected.times.contains_key(&host.name));
        let others = others.map(|host| (host, FactsQuery::default())).collect();
        connected.extend(connect(others, &asking));
    }
    connected
}

/// The plan for hosts that answered, in the parts that the inventory asks for.
pub(super) fn planned(
    reached: &[HostState],
    facts: &BTreeMap<String, Facts>,
    hosts: &mut Hosts,
    rollout: &Rollout,
) -> Plan {
    let mut plan = plan::plan(reached, facts).rolled(rollout);
    let layout = reached.first().map_or_else(Layout::default, |state| state.layout);
    let lapsed = lapsed_members(&plan, layout, hosts, jiff::Timestamp::now());
    plan.nothing_to_spare(&lapsed);
    plan
}

/// The etcd members that are to get new certificates because those on the host have run out. Asked
/// of the hosts, and only where an apply would restart etcd with another certificate.
pub(super) fn lapsed_members(
    plan: &Plan,
    layout: Layout,
    hosts: &mut Hosts,
    now: jiff::Timestamp,
) -> BTreeSet<String> {
    let files = [LeafKind::EtcdPeer, LeafKind::EtcdServer].map(|kind| {
        let [cert, _] = kind.paths(layout).expect("members' certificates are on hosts");
        cert
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

impl Prepared {
    /// Refuses to begin when anything is in the way; dead hosts are not where they are allowed
    /// and the members of etcd that are left have a quorum.
    pub(super) fn fit(mut self, wish: &Wish<'_>, allow_unreachable: bool) -> Result<Self, Failure> {
        let mut problems = std::mem::take(&mut self.unfit);
        let dead: BTreeSet<_> =
            self.unreachable.iter().map(|problem| problem.host.as_str()).collect();
        let blocks = |problem: &&Problem| {
            // A witness may be missing as long as the majority is there; see the lease.
            wish.chosen.contains(&problem.host) && !allow_unreachable
        };
        problems.extend(self.unreachable.iter().filter(blocks).cloned());
        if allow_unreachable && let Some(problem) = quorum_lost(&self.inventory, &dead) {
            problems.push(problem);
        }
        if problems.is_empty() {
            return Ok(self);
        }
        problems.sort_by(|a, b| a.host.cmp(&b.host));
        Err(Failure::Unfit(problems))
    }

    /// The chosen hosts that are dead.
    pub(super) fn left_out(&self, chosen: &BTreeSet<String>) -> Vec<&Problem> {
        self.unreachable.iter().filter(|problem| chosen.contains(&problem.host)).collect()
    }
}

/// Dead members of etcd must leave a quorum, or a restart of one more ends the cluster.
fn quorum_lost(inventory: &Inventory, dead: &BTreeSet<&str>) -> Option<Problem> {
    let members: Vec<_> = inventory.with_role(Role::Etcd).collect();
    let (down, up): (Vec<&inventory::Host>, Vec<_>) =
        members.iter().partition(|host| dead.contains(host.name.as_str()));
    let needed = members.len() / 2 + 1;
    let first = down.first()?;
    (up.len() < needed).then(|| Problem {
        host: first.name.clone(),
        check: "quorum",
        message: format!(
            "{} of {} members of etcd are unreachable, and {needed} must be there",
            down.len(),
            members.len()
        ),
        advice: "bring the members back: --allow-unreachable cannot do without a quorum".to_owned(),
    })
}

/// `kprov validate`: all that can be known without hosts.
pub(super) fn validate(source: &Source, console: &Console) -> Result<Exit, Failure> {
    let inventory = inventory(source, console)?;
    templates(source)?;
    addons(&inventory)?;
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

/// A copy of the state directory, in which certificates that are due may be issued without any
/// consequence.
pub(super) fn scratch(state_dir: &Path) -> Result<tempfile::TempDir, Failure> {
    let copy =
        tempfile::tempdir().map_err(|e| Failure::new(&e, "check the temporary directory"))?;
    copy_directory(state_dir, copy.path())
        .map_err(|error| Failure::new(&error, "check the state directory"))?;
    Ok(copy)
}

pub(super) fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        // Logs of earlier runs may be long, and say nothing about what is to come.
        if entry.file_name() == crate::run_log::DIRECTORY {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_members_of_etcd_must_leave_a_quorum() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("c.toml");
        let text = "[cluster]\nname = \"c\"\n[groups.m]\nhosts = [\"m-[1-3]\"]\n\
                    address_first = \"10.0.0.1\"\nroles = [\"etcd\", \"master\", \"node\"]\n";
        std::fs::write(&path, text).unwrap();
        let inventory = inventory::load(&path).unwrap();
        let check = |dead: &[&str]| {
            quorum_lost(&inventory, &dead.iter().copied().collect()).map(|p| p.message)
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["m-2"]), None);
        let lost = "2 of 3 members of etcd are unreachable, and 2 must be there";
        assert_eq!(check(&["m-2", "m-3"]).as_deref(), Some(lost));
    }
}
