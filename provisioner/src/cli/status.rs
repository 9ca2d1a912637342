//! `kprov status`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::connect::{Asking, connect};
use super::output::{Console, Failure};
use super::prepare;
use super::{Exit, StatusArgs, Surroundings, apply, secrets};
use crate::execute::in_parallel;
use crate::facts::{Facts, FactsQuery, UnitFact};
use crate::host::Host;
use crate::pki::{self, Access, Rotation, Surveyed};
use crate::preflight::Problem;
use crate::program::{Generations, Program};
use crate::ready::{self, NodeReadiness};

#[derive(Serialize)]
struct Status {
    cluster: String,
    hosts: BTreeMap<String, HostStatus>,
    unreachable: Vec<Problem>,
    certificates: Vec<Certificate>,
    /// Days within which the end of a certificate is worth a warning.
    warn_days: u32,
    /// The rotation of authorities under way.
    rotation: Option<Rotation>,
    nodes: BTreeMap<String, NodeReadiness>,
    /// Why there are no nodes to show.
    nodes_error: Option<String>,
}

#[derive(Serialize)]
struct HostStatus {
    os: String,
    kernel: String,
    generation: Option<u64>,
    /// Who holds the host's lock now.
    locked: Option<String>,
    /// Programs, with the generation before.
    programs: BTreeMap<String, Generations>,
    units: BTreeMap<String, UnitFact>,
}

#[derive(Serialize)]
struct Certificate {
    id: String,
    not_after: String,
    days_left: i64,
}

pub(super) fn run(
    args: &StatusArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.source;
    let inventory = prepare::inventory(source, console)?;
    let state_dir = prepare::state_dir(source, &inventory);
    if !state_dir.exists() {
        return Err(Failure::Other {
            message: format!("{} has no certificates yet", state_dir.display()),
            advice: "apply the inventory first, or name its --state-dir".to_owned(),
        });
    }
    let passphrase = secrets::passphrase(source, surroundings, &state_dir)?;
    let access = Access { dir: &state_dir, passphrase: passphrase.as_ref() };
    let failed = |error| Failure::new(&error, prepare::pki_advice(&error));
    let certificates = certificates(pki::survey(&inventory, &access).map_err(failed)?);
    // One that is made anew to ask with is not kept: to look must not change what is there.
    let (_copy, pki) = prepare::certificates_of_copy(source, surroundings, &inventory, &state_dir)?;
    let chosen = args.choice.choose(&inventory)?;
    let asked = inventory.hosts.iter().filter(|host| chosen.contains(&host.name));
    let asked = asked.map(|host| (host, FactsQuery::default())).collect();
    let asking =
        Asking { lock: None, force_unlock: false, source, surroundings, state_dir: &state_dir };
    let mut connected = connect(asked, &asking);
    let facts = std::mem::take(&mut connected.facts);
    let asked =
        connected.hosts.iter_mut().filter_map(|(name, h)| Some((name, h, facts.get(name)?)));
    let hosts = in_parallel(asked.collect(), source.parallel, |(name, host, facts)| {
        let status = HostStatus {
            os: facts.os.pretty_name.clone(),
            kernel: facts.kernel.clone(),
            generation: facts.record.as_ref().map(|record| record.generation),
            locked: facts.holder.clone(),
            programs: facts.record.as_ref().map(|r| r.programs.clone()).unwrap_or_default(),
            units: units_of(host.as_mut(), facts),
        };
        (name.clone(), status)
    });
    let hosts = hosts.into_iter().collect();
    let (mut nodes, mut nodes_error) = (BTreeMap::new(), None);
    for (master, request) in apply::nodes_requests(&inventory, &pki) {
        // A master that was not asked for answers over the cluster's own network.
        let own = connected.hosts.contains_key(&master);
        let via = if own { Some(master.clone()) } else { connected.hosts.keys().next().cloned() };
        let via = via.filter(|_| own || !chosen.contains(&master));
        let answer = match via.and_then(|via| connected.hosts.get_mut(&via)) {
            Some(host) => ready::nodes(host.as_mut(), &request),
            None => Err(format!("{master} is unreachable")),
        };
        match answer {
            Ok(mut found) => {
                let limited = args.choice.is_limited();
                found.retain(|name, _| !limited || chosen.contains(name));
                (nodes, nodes_error) = (found, None);
                break;
            }
            Err(error) => nodes_error = Some(error),
        }
    }
    let status = Status {
        cluster: inventory.cluster.name.clone(),
        hosts,
        unreachable: connected.problems,
        certificates,
        warn_days: inventory.pki.warn_days,
        rotation: pki.rotation,
        nodes,
        nodes_error,
    };
    console.result(&status, || status.text())?;
    Ok(status.exit())
}

/// The units that the host's own record names: that is known only after the first question.
fn units_of(host: &mut dyn Host, facts: &Facts) -> BTreeMap<String, UnitFact> {
    let record = facts.record.iter();
    let units: BTreeSet<_> =
        record.flat_map(|record| &record.units).map(|unit| unit.name.clone()).collect();
    if units.is_empty() {
        return BTreeMap::new();
    }
    let answer = host.facts(&FactsQuery { units, ..FactsQuery::default() }, None);
    answer.map(|facts| facts.units).unwrap_or_default()
}

fn certificates(surveyed: Vec<Surveyed>) -> Vec<Certificate> {
    let now = jiff::Timestamp::now();
    let known = surveyed.into_iter().filter_map(|kept| Some((kept.id, kept.description?)));
    known
        .map(|(id, description)| Certificate {
            id,
            not_after: description.not_after.strftime("%Y-%m-%d").to_string(),
            days_left: description.days_left(now),
        })
        .collect()
}

impl Status {
    fn exit(&self) -> Exit {
        let active = |unit: &UnitFact| unit.active == "active";
        let healthy = self.hosts.values().all(|host| host.units.values().all(active));
        let ready = self.nodes_error.is_none() && self.nodes.values().all(|node| node.ready);
        match (self.unreachable.is_empty(), healthy && ready) {
            (false, _) => Exit::Unfit,
            (true, false) => Exit::Failed,
            (true, true) => Exit::Ok,
        }
    }

    /// The build of each program, with the hosts that run it.
    fn programs(&self) -> String {
        let mut rows: BTreeMap<[String; 3], Vec<&str>> = BTreeMap::new();
        let label = |program: &Option<Program>| program.as_ref().map_or("-".into(), Program::label);
        for (host, status) in &self.hosts {
            for (name, known) in &status.programs {
                let mut current = label(&known.current);
                if known.pending.is_some() {
                    current.push_str(&format!(", {} begun", label(&known.pending)));
                }
                let row = [name.clone(), current, label(&known.previous)];
                rows.entry(row).or_default().push(host);
            }
        }
        if rows.is_empty() {
            return String::new();
        }
        let mut table = table(["PROGRAM", "BUILD", "BEFORE", "HOSTS"]);
        for ([name, current, previous], hosts) in &rows {
            table.add_row([name, current, previous, &hosts.join(" ")]);
        }
        format!("{table}\n\n")
    }

    fn text(&self) -> String {
        let mut table = table(["HOST", "GENERATION", "UNITS", "SYSTEM", "KERNEL"]);
        for (name, host) in &self.hosts {
            let generation = host.generation.map_or("-".to_owned(), |number| number.to_string());
            table.add_row([name, &generation, &units(&host.units), &host.os, &host.kernel]);
        }
        for problem in &self.unreachable {
            table.add_row([problem.host.as_str(), "-", &problem.message, "", ""]);
        }
        let mut out = format!("{table}\n\n");
        for (name, host) in &self.hosts {
            if let Some(holder) = &host.locked {
                out.push_str(&format!("{name} is locked by {holder}\n"));
            }
        }
        out.push_str(&self.programs());
        match &self.nodes_error {
            Some(error) => out.push_str(&format!("nodes: {error}\n")),
            None => {
                let mut nodes = self::table(["NODE", "STATUS", "VERSION"]);
                for (name, node) in &self.nodes {
                    let status = if node.ready {
                        "Ready".to_owned()
                    } else {
                        format!("NotReady: {}", node.message)
                    };
                    nodes.add_row([name, &status, &node.version]);
                }
                out.push_str(&format!("{nodes}\n"));
            }
        }
        out.push('\n');
        let soonest = self.certificates.iter().min_by_key(|certificate| certificate.days_left);
        if let Some(first) = soonest {
            out.push_str(&format!(
                "{} certificates; the first to end is {} on {} (in {} days)\n",
                self.certificates.len(),
                first.id,
                first.not_after,
                first.days_left
            ));
        }
        let ending = |c: &&Certificate| c.days_left < i64::from(self.warn_days);
        for certificate in self.certificates.iter().filter(ending) {
            out.push_str(&certificate.warning());
        }
        if let Some(rotation) = &self.rotation {
            let stage = rotation.stage.word();
            out.push_str(&format!(
                "warning: a rotation of authorities is under way, in stage {stage}; \
                 `kprov certs rotate-ca` goes on with it\n"
            ));
        }
        out
    }
}

impl Certificate {
    fn warning(&self) -> String {
        let cure = match self.id.as_str() {
            "ca" | "etcd-ca" => "`kprov certs rotate-ca` replaces it",
            _ => "apply renews it",
        };
        match (self.days_left, &self.id) {
            (..0, id) => format!("warning: {id} has run out; {cure}\n"),
            (days, id) => format!("warning: {id} ends in {days} days; {cure}\n"),
        }
    }
}

/// `7 active`, or those that are not.
fn units(units: &BTreeMap<String, UnitFact>) -> String {
    let not_active: Vec<_> = (units.iter())
        .filter(|(_, unit)| unit.active != "active")
        .map(|(name, unit)| format!("{name} {}", unit.active))
        .collect();
    match (units.len(), not_active.is_empty()) {
        (0, _) => "none of ours".to_owned(),
        (count, true) => format!("{count} active"),
        (_, false) => not_active.join(", "),
    }
}

pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table
}
