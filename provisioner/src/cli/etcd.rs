//! `kprov etcd`: the members, one that goes, and their disks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::backup::{claim, connected};
use super::connect::Connected;
use super::diary::Diary;
use super::output::{Console, Failure};
use super::status::table;
use super::{Exit, Source, Surroundings, members, prepare};
use crate::etcd::gateway::{Gateway, MemberStatus};
use crate::etcd::membership::{self, Member, Planned};
use crate::execute::Hosts;
use crate::facts::LockRequest;
use crate::inventory::{Inventory, Role};
use crate::lock::{self, Lease};
use crate::pki::Pki;

/// Longest wait for a member to become healthy.
pub(super) const HEALTH_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(super) enum EtcdCommand {
    /// Show the members, and what an apply or a removal would change.
    Members(Source),
    /// Remove a member that the inventory does not ask for any more.
    #[command(after_help = "Example:\n  kprov etcd remove inventory/ha.toml node-3 --yes")]
    Remove(RemoveArgs),
    /// Give back the disk space of deleted entries, one member at a time, the leader last.
    #[command(after_help = "Example:\n  kprov etcd defrag inventory/ha.toml")]
    Defrag(DefragArgs),
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    #[command(flatten)]
    source: Source,
    /// The member's name.
    member: String,
    /// Really do it.
    #[arg(long)]
    yes: bool,
    /// Take the hosts' locks away from another run.
    #[arg(long)]
    force_unlock: bool,
}

#[derive(Debug, Args)]
pub(super) struct DefragArgs {
    #[command(flatten)]
    source: Source,
    /// Take the hosts' locks away from another run.
    #[arg(long)]
    force_unlock: bool,
}

/// An inventory, its certificates and its hosts, whoever is reachable.
pub(super) struct Opened {
    pub(super) inventory: Inventory,
    pub(super) pki: Pki,
    pub(super) state_dir: std::path::PathBuf,
    pub(super) connected: Connected,
    began: Instant,
}

impl Opened {
    pub(super) fn diary(&self, command: &str, console: &Console) -> Diary {
        let hosts: Vec<_> = self.connected.hosts.keys().cloned().collect();
        let name = &self.inventory.cluster.name;
        Diary::new(&self.state_dir, name, command, self.began, &hosts, console)
    }

    /// Has etcd remove a member, after no earlier run can write any more.
    pub(super) fn remove(
        &mut self,
        planned: &Planned,
        source: &Source,
        diary: &Diary,
    ) -> Result<(), Failure> {
        let Self { inventory, pki, connected: Connected { hosts, facts, .. }, .. } = self;
        let lease =
            Lease::of_masters(inventory, facts).map_err(|problem| Failure::Unfit(vec![problem]))?;
        claim(&lease, hosts, source)?;
        diary.said(&format!("etcd: {}", planned.change));
        let deadline = Instant::now() + HEALTH_WAIT;
        members::carry_out(&planned.change, inventory, pki, hosts, deadline)
    }
}

pub(super) fn open(
    source: &Source,
    surroundings: &Surroundings,
    console: &Console,
    lock: Option<&LockRequest>,
    force_unlock: bool,
) -> Result<Opened, Failure> {
    let began = Instant::now();
    let inventory = prepare::inventory(source, console)?;
    let state_dir = prepare::state_dir(source, &inventory);
    let (_copy, pki) = prepare::certificates_of_copy(source, surroundings, &inventory, &state_dir)?;
    let connected = connected(source, surroundings, &inventory, &state_dir, lock, force_unlock);
    Ok(Opened { inventory, pki, state_dir, connected, began })
}

pub(super) fn locked(surroundings: &Surroundings, command: &str) -> LockRequest {
    lock::request(jiff::Timestamp::now(), &surroundings.person, command)
}

pub(super) fn run(
    command: &EtcdCommand,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    match command {
        EtcdCommand::Members(source) => show(source, surroundings, console),
        EtcdCommand::Remove(args) => remove(args, surroundings, console),
        EtcdCommand::Defrag(args) => defrag(args, surroundings, console),
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    id: String,
    peer_url: String,
    is_learner: bool,
    is_healthy: bool,
    in_inventory: bool,
    status: Option<Sizes>,
}

#[derive(Serialize)]
struct Sizes {
    version: String,
    db_bytes: u64,
    db_bytes_in_use: u64,
    is_leader: bool,
}

fn show(source: &Source, surroundings: &Surroundings, console: &Console) -> Result<Exit, Failure> {
    let mut opened = open(source, surroundings, console, None, false)?;
    let hosts = &mut opened.connected.hosts;
    let current = members::observe(&opened.inventory, &opened.pki, hosts)
        .map_err(|reason| members::no_answer(&reason))?;
    let wanted = members::in_inventory(&opened.inventory);
    let statuses = statuses(&opened.inventory, &opened.pki, hosts);
    let by_id: BTreeMap<_, _> =
        statuses.values().map(|status| (status.header.member_id, status)).collect();
    let row = |member: &Member| Row {
        name: member.name.clone(),
        id: format!("{:x}", member.id),
        peer_url: member.peer_url.clone(),
        is_learner: member.is_learner,
        is_healthy: member.is_healthy,
        in_inventory: wanted.iter().any(|wanted| wanted.peer_url == member.peer_url),
        status: by_id.get(&member.id).map(|status| Sizes {
            version: status.version.clone(),
            db_bytes: status.db_size,
            db_bytes_in_use: status.db_size_in_use,
            is_leader: status.leader == member.id,
        }),
    };
    let rows: Vec<_> = current.iter().map(row).collect();
    let planned = membership::plan(&wanted, &current);
    let value = serde_json::json!({
        "members": rows,
        "planned": planned.as_ref().ok(),
        "refused": planned.as_ref().err().map(ToString::to_string),
    });
    console.result(&value, || {
        let mut out = format!("{}\n", text(&rows));
        match &planned {
            Ok(planned) => out.push_str(&members::shown(planned)),
            Err(refusal) => out.push_str(&format!("{refusal}\n")),
        }
        out
    })?;
    Ok(if current.iter().all(|member| member.is_healthy) { Exit::Ok } else { Exit::Failed })
}

fn text(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(["MEMBER", "ID", "ADDRESS", "STATE", "VERSION", "SIZE", "IN USE"]);
    for row in rows {
        let state = match (row.is_healthy, row.is_learner, &row.status) {
            (false, ..) => "not healthy",
            (true, true, _) => "learner",
            (true, false, Some(status)) if status.is_leader => "leader",
            (true, false, _) => "follower",
        };
        let state = if row.in_inventory { state.to_owned() } else { format!("{state}, unwanted") };
        let (version, size, used) = match &row.status {
            Some(status) => (
                status.version.clone(),
                crate::plan::size(status.db_bytes),
                crate::plan::size(status.db_bytes_in_use),
            ),
            None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let (name, id, url) = (row.name.clone(), row.id.clone(), row.peer_url.clone());
        table.add_row([name, id, url, state, version, size, used]);
    }
    table
}

/// What each member that answers says about itself, by host.
pub(super) fn statuses(
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
) -> BTreeMap<String, MemberStatus> {
    let mut statuses = BTreeMap::new();
    for host in inventory.with_role(Role::Etcd) {
        let Some(connection) = hosts.get_mut(&host.name) else { continue };
        let Some(mut gateway) = Gateway::new(connection.as_mut(), host, pki) else { continue };
        if let Ok(status) = gateway.status() {
            statuses.insert(host.name.clone(), status);
        }
    }
    statuses
}

fn remove(
    args: &RemoveArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let request = locked(surroundings, "etcd remove");
    let lock = args.yes.then_some(&request);
    let mut opened = open(&args.source, surroundings, console, lock, args.force_unlock)?;
    if opened.inventory.host(&args.member).is_some_and(|host| host.has(Role::Etcd)) {
        return Err(Failure::Other {
            message: format!("the inventory asks for {} as a member of etcd", args.member),
            advice: "take the role from it there first; for a host that lost its data, see \
                     `kprov replace`"
                .to_owned(),
        });
    }
    let hosts = &mut opened.connected.hosts;
    let current = members::observe(&opened.inventory, &opened.pki, hosts)
        .map_err(|reason| members::no_answer(&reason))?;
    let Some(planned) = members::removal(&args.member, &current)? else {
        return Err(Failure::Other {
            message: format!("etcd has no member {}", args.member),
            advice: "see `kprov etcd members`".to_owned(),
        });
    };
    console.result(&planned, || planned.to_string())?;
    if !args.yes {
        console.note("nothing was changed; say --yes to do this");
        return Ok(Exit::Ok);
    }
    let diary = opened.diary("etcd remove", console);
    let removed = opened.remove(&planned, &args.source, &diary);
    diary.end(console, removed)?;
    members::forget(&opened.state_dir, &opened.inventory, &[&args.member])?;
    Ok(Exit::Ok)
}

/// Members in the order of defragmentation: the leader last, so that no election is for nothing.
fn leader_last(statuses: &BTreeMap<String, MemberStatus>) -> Vec<String> {
    let mut order: Vec<_> = statuses.iter().collect();
    order.sort_by_key(|(_, status)| status.leader == status.header.member_id);
    order.into_iter().map(|(name, _)| name.clone()).collect()
}

fn defrag(
    args: &DefragArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let request = locked(surroundings, "etcd defrag");
    let mut opened = open(&args.source, surroundings, console, Some(&request), args.force_unlock)?;
    let diary = opened.diary("etcd defrag", console);
    let (inventory, pki) = (&opened.inventory, &opened.pki);
    let members = inventory.with_role(Role::Etcd).count();
    let done = defragment(inventory, pki, &mut opened.connected.hosts, &diary);
    let report = diary.end(console, done)?;
    console.result(&report, || {
        let size = crate::plan::size;
        let line = |(name, (from, to)): (&String, &(u64, u64))| {
            format!("{name}: {} before, {} now\n", size(*from), size(*to))
        };
        report.iter().map(line).collect()
    })?;
    if report.len() == members {
        return Ok(Exit::Ok);
    }
    console.note(&format!("{} of {members} members did not answer", members - report.len()));
    Ok(Exit::Partial)
}

/// Defragments one member after the other; gives the sizes before and after, in bytes.
fn defragment(
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
    diary: &Diary,
) -> Result<BTreeMap<String, (u64, u64)>, Failure> {
    let before = statuses(inventory, pki, hosts);
    let members = inventory.with_role(Role::Etcd).count();
    let mut report = BTreeMap::new();
    for name in leader_last(&before) {
        diary.said(&format!("defragment {name}"));
        spare(inventory, pki, hosts, &name, members)?;
        let host = inventory.host(&name).expect("statuses are of hosts of the inventory");
        let connection = hosts.get_mut(&name).expect("it has answered before");
        let gateway = Gateway::new(connection.as_mut(), host, pki);
        let mut gateway = gateway.ok_or_else(|| no_certificate(&name))?;
        let done = gateway.defragment().and_then(|()| gateway.status());
        let after = done.map_err(|error| {
            Failure::new(&error, "see the member's journal; the others were left alone")
        })?;
        report.insert(name.clone(), (before[&name].db_size, after.db_size));
    }
    Ok(report)
}

pub(super) fn no_certificate(name: &str) -> Failure {
    Failure::Other {
        message: format!("there is no certificate to ask etcd on {name} with"),
        advice: "apply the inventory first".to_owned(),
    }
}

/// Makes sure that the others keep the quorum while the member on `name` answers nothing.
fn spare(
    inventory: &Inventory,
    pki: &Pki,
    hosts: &mut Hosts,
    name: &str,
    members: usize,
) -> Result<(), Failure> {
    if members < 2 {
        return Ok(());
    }
    let mut healthy = 0;
    for host in inventory.with_role(Role::Etcd).filter(|host| host.name != name) {
        let Some(connection) = hosts.get_mut(&host.name) else { continue };
        let gateway = Gateway::new(connection.as_mut(), host, pki);
        healthy += usize::from(gateway.is_some_and(|mut gateway| gateway.is_healthy()));
    }
    let needed = membership::quorum(members);
    // Of two members neither can be spared; the pause of one is what was asked for.
    if healthy >= needed || (members == 2 && healthy == 1) {
        return Ok(());
    }
    Err(Failure::Other {
        message: format!(
            "{name} cannot be spared: {healthy} of the other members are healthy, and {needed} of \
             {members} are needed"
        ),
        advice: "bring the others up first, then run the same command again".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::gateway::Header;
    use crate::etcd::membership::Change;

    fn status(member: u64, leader: u64, raft_index: u64) -> MemberStatus {
        MemberStatus {
            version: "3.4.23".to_owned(),
            db_size: 1,
            db_size_in_use: 1,
            leader,
            raft_index,
            is_learner: false,
            header: Header { member_id: member, cluster_id: 1, revision: 1 },
        }
    }

    #[test]
    fn the_leader_is_defragmented_last() {
        let all = [("a", 1), ("b", 2), ("c", 3)];
        let all = all.map(|(name, id)| (name.to_owned(), status(id, 1, 5))).into();
        assert_eq!(leader_last(&all), ["b", "c", "a"]);
    }

    #[test]
    fn a_removal_that_would_lose_the_quorum_is_refused() {
        let member = |id: u64, name: &str, is_healthy| Member {
            id,
            name: name.to_owned(),
            peer_url: format!("https://{name}:2380"),
            is_learner: false,
            is_healthy,
            is_lost: false,
        };
        let mut current = [member(1, "a", true), member(2, "b", true), member(3, "c", true)];
        let planned = members::removal("c", &current).unwrap().unwrap();
        assert_eq!(planned.change, Change::Remove { id: 3, name: "c".to_owned() });
        assert!(members::removal("d", &current).unwrap().is_none());
        current[1].is_healthy = false;
        assert!(members::removal("c", &current).is_err());
        // The one that is down may go.
        assert!(members::removal("b", &current).unwrap().is_some());
    }
}
