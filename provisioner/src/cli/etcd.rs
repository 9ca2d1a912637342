//! `kprov etcd`, `kprov replace` and `kprov recover`: what concerns the members of etcd alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::backup::{DATA, claim, connected};
use super::connect::Connected;
use super::diary::Diary;
use super::output::{Console, Failure};
use super::select::known_host;
use super::status::table;
use super::{ApplyArgs, Exit, RunArgs, Source, Surroundings, apply, members, prepare};
use crate::etcd::gateway::{Gateway, MemberStatus};
use crate::etcd::membership::{self, Member, Planned};
use crate::execute::Hosts;
use crate::facts::LockRequest;
use crate::host::Host;
use crate::inventory::{self, Inventory, Role};
use crate::lock::{self, Lease};
use crate::pki::Pki;
use crate::plan::Upload;
use crate::state::{Content, Mode, Owner};
use crate::step::Step;

const UNIT: &str = "etcd.service";
/// Tells etcd at its next start that it is alone. Under `/run`, so that no boot can find it.
const ALONE: &str = "/run/systemd/system/etcd.service.d/kprov-recover.conf";
/// Longest wait for a member to become healthy.
const HEALTH_WAIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

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

#[derive(Debug, Args)]
pub(super) struct ReplaceArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The host that lost its data, or has another machine behind its name now.
    host: String,
    /// Really do it.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    source: Source,
    /// The member to go on from; default: the one whose log is the longest.
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Really do it: what the lost members had and this one has not is gone.
    #[arg(long)]
    yes: bool,
    /// Take the hosts' locks away from another run.
    #[arg(long)]
    force_unlock: bool,
}

/// An inventory, its certificates and its hosts, whoever is reachable.
struct Opened {
    inventory: Inventory,
    pki: Pki,
    state_dir: std::path::PathBuf,
    connected: Connected,
    began: Instant,
}

impl Opened {
    fn diary(&self, command: &str, console: &Console) -> Diary {
        let hosts: Vec<_> = self.connected.hosts.keys().cloned().collect();
        let name = &self.inventory.cluster.name;
        Diary::new(&self.state_dir, name, command, self.began, &hosts, console)
    }

    /// Has etcd remove a member, after no earlier run can write any more.
    fn remove(&mut self, planned: &Planned, source: &Source, diary: &Diary) -> Result<(), Failure> {
        let Self { inventory, pki, connected: Connected { hosts, facts, .. }, .. } = self;
        let lease =
            Lease::of_masters(inventory, facts).map_err(|problem| Failure::Unfit(vec![problem]))?;
        claim(&lease, hosts, source)?;
        diary.said(&format!("etcd: {}", planned.change));
        let deadline = Instant::now() + HEALTH_WAIT;
        members::carry_out(&planned.change, inventory, pki, hosts, deadline)
    }
}

fn open(
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
    let connected = connected(source, &inventory, &state_dir, lock, force_unlock);
    Ok(Opened { inventory, pki, state_dir, connected, began })
}

fn locked(surroundings: &Surroundings, command: &str) -> LockRequest {
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
fn statuses(inventory: &Inventory, pki: &Pki, hosts: &mut Hosts) -> BTreeMap<String, MemberStatus> {
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

/// `kprov replace`: the old member goes, an apply brings the host back as a new one.
pub(super) fn replace(
    args: &ReplaceArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.run.source;
    let request = locked(surroundings, "replace");
    let lock = args.yes.then_some(&request);
    let mut opened = open(source, surroundings, console, lock, args.run.force_unlock)?;
    let host = known_host(&args.host, &opened.inventory)?;
    let Some(facts) = opened.connected.facts.get(&args.host) else {
        return Err(Failure::Unfit(
            opened.connected.problems.into_iter().filter(|p| p.host == args.host).collect(),
        ));
    };
    if facts.record.is_some() {
        return Err(Failure::Other {
            message: format!("{} is not fresh: kprov has set it up before", args.host),
            advice: format!("`kprov reset --hosts {} --yes` gives it back first", args.host),
        });
    }
    let mut planned = None;
    if host.has(Role::Etcd) {
        let hosts = &mut opened.connected.hosts;
        let mut current = members::observe(&opened.inventory, &opened.pki, hosts)
            .map_err(|reason| members::no_answer(&reason))?;
        for member in current.iter_mut().filter(|member| member.name == args.host) {
            member.is_lost = true;
        }
        planned = members::removal(&args.host, &current)?;
    }
    let value = serde_json::json!({ "replaced": args.host, "etcd": planned });
    if !args.yes {
        console.result(&value, || match &planned {
            Some(planned) => format!("etcd: {planned}\nthen an apply sets {} up", args.host),
            None => format!("an apply sets {} up", args.host),
        })?;
        console.note("nothing was changed; say --yes to do this");
        return Ok(Exit::Ok);
    }
    if let Some(planned) = &planned {
        let diary = opened.diary("replace", console);
        diary.say(&format!("etcd: {planned}"));
        let removed = opened.remove(planned, source, &diary);
        diary.end(console, removed)?;
    }
    members::forget(&opened.state_dir, &opened.inventory, &[&args.host])?;
    // The locks end with the connections; the apply takes its own.
    drop(opened);
    apply::run("replace", &ApplyArgs::whole(args.run.clone()), surroundings, console)
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

fn no_certificate(name: &str) -> Failure {
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

const WARNING: &str = "\
etcd goes on with one member's data alone. Everything that only the lost members had is gone, and
the API's history may have gaps: controllers and nodes may act on what they remember. Use this only
when a majority of the members is lost for good.";

/// `kprov recover`: a new cluster of the one member that is left.
pub(super) fn recover(
    args: &RecoverArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let request = locked(surroundings, "recover");
    let lock = args.yes.then_some(&request);
    let mut opened = open(&args.source, surroundings, console, lock, args.force_unlock)?;
    let hosts = &mut opened.connected.hosts;
    let statuses = statuses(&opened.inventory, &opened.pki, hosts);
    if let Some((name, _)) = statuses.iter().find(|(_, status)| status.leader != 0) {
        return Err(Failure::Other {
            message: format!("etcd has a leader, says {name}: there is nothing to recover"),
            advice: "see `kprov etcd members`; for one lost host, `kprov replace`".to_owned(),
        });
    }
    let survivor = survivor(args.from.as_deref(), &opened.inventory, hosts, &statuses)?;
    let value = serde_json::json!({ "from": survivor, "warning": WARNING });
    console.result(&value, || format!("{WARNING}\nIt would go on from {survivor}.\n"))?;
    if !args.yes {
        console.note("nothing was changed; say --yes to do this");
        return Ok(Exit::Ok);
    }
    let others: Vec<_> = (opened.inventory.with_role(Role::Etcd))
        .filter(|host| host.name != survivor)
        .map(|host| host.name.clone())
        .collect();
    let diary = opened.diary("recover", console);
    let done = go_on_alone(&mut opened, &survivor, &others, &args.source, &diary);
    diary.end(console, done)?;
    let names: Vec<_> = others.iter().map(String::as_str).collect();
    members::forget(&opened.state_dir, &opened.inventory, &names)?;
    console.note(&format!(
        "etcd runs on {survivor} alone; remove hosts that are lost for good from the inventory, \
         then `kprov apply` brings the others back one by one"
    ));
    Ok(Exit::Ok)
}

fn go_on_alone(
    opened: &mut Opened,
    survivor: &str,
    others: &[String],
    source: &Source,
    diary: &Diary,
) -> Result<(), Failure> {
    let Opened { inventory, pki, connected: Connected { hosts, facts, .. }, .. } = opened;
    // The masters may be lost as well, so nobody can ask for a majority of them.
    claim(&Lease::of_these(facts), hosts, source)?;
    diary.said("set the others aside");
    // First the others, or an old majority that comes back would not know of the new cluster.
    for name in others {
        if let Some(host) = hosts.get_mut(name) {
            diary.run(host.as_mut(), &BTreeMap::new(), &setting_aside())?;
        }
    }
    diary.said(&format!("go on with {survivor}"));
    let host = inventory.host(survivor).expect("it was chosen from the inventory");
    let connection = hosts.get_mut(survivor).expect("it was chosen among those reachable");
    alone(connection.as_mut(), host, pki, diary)
}

fn survivor(
    from: Option<&str>,
    inventory: &Inventory,
    hosts: &Hosts,
    statuses: &BTreeMap<String, MemberStatus>,
) -> Result<String, Failure> {
    let failed = |message: String| Failure::Other {
        message,
        advice: "name the member to go on from with --from".to_owned(),
    };
    match from {
        Some(name) => {
            let is_member = inventory.host(name).is_some_and(|host| host.has(Role::Etcd));
            match is_member && hosts.contains_key(name) {
                true => Ok(name.to_owned()),
                false => Err(failed(format!("{name} is no reachable member of etcd"))),
            }
        }
        None => {
            let longest = statuses.iter().max_by_key(|(_, status)| status.raft_index);
            let name = longest.map(|(name, _)| name.clone());
            name.ok_or_else(|| failed("no member of etcd says how long its log is".to_owned()))
        }
    }
}

/// Stops a member and keeps its data under another name, so that it can join again as a new one.
fn setting_aside() -> Vec<Step> {
    vec![
        Step::Forget { unit: UNIT.to_owned() },
        Step::Stop { unit: UNIT.to_owned() },
        Step::SetAside { path: DATA.to_owned() },
    ]
}

/// Has a member go on alone: started once with the order to forget the others, then without it.
fn alone(
    host: &mut dyn Host,
    member: &inventory::Host,
    pki: &Pki,
    diary: &Diary,
) -> Result<(), Failure> {
    let order = Content::Text("[Service]\nEnvironment=ETCD_FORCE_NEW_CLUSTER=true\n".to_owned());
    let sha256 = order.digest();
    let uploads = [(sha256, Upload::Content(order))].into();
    diary.run(host, &uploads, &starting_alone(sha256))?;
    wait_alone(host, member, pki)?;
    diary.run(host, &BTreeMap::new(), &starting_as_ever())?;
    wait_alone(host, member, pki)
}

fn starting_alone(sha256: crate::digest::Digest) -> Vec<Step> {
    let directory = |path: &str| Step::MakeDirectory {
        path: path.to_owned(),
        mode: Mode::EXECUTABLE,
        owner: Owner::root(),
    };
    let (path, mode, owner) = (ALONE.to_owned(), Mode::PUBLIC, Owner::root());
    vec![
        Step::Stop { unit: UNIT.to_owned() },
        directory("/run/systemd"),
        directory("/run/systemd/system"),
        directory("/run/systemd/system/etcd.service.d"),
        Step::Install { path, mode, owner, sha256 },
        Step::Reload,
        Step::Restart { unit: UNIT.to_owned() },
    ]
}

fn starting_as_ever() -> Vec<Step> {
    vec![
        Step::Restore { path: ALONE.to_owned(), prior: crate::record::Prior::Absent },
        Step::Reload,
        Step::Restart { unit: UNIT.to_owned() },
        Step::ClearStaging,
    ]
}

fn wait_alone(host: &mut dyn Host, member: &inventory::Host, pki: &Pki) -> Result<(), Failure> {
    let mut gateway =
        Gateway::new(host, member, pki).ok_or_else(|| no_certificate(&member.name))?;
    let until = Instant::now() + HEALTH_WAIT;
    loop {
        let reason = match gateway.status().and_then(|status| Ok((status, gateway.members()?))) {
            Ok((status, members)) if status.leader != 0 && members.len() == 1 => return Ok(()),
            Ok((_, members)) => format!("it has {} members", members.len()),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            return Err(Failure::Other {
                message: format!("etcd on {} does not go on alone: {reason}", member.name),
                advice: "see journalctl -u etcd there; the same command may be run again"
                    .to_owned(),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::gateway::Header;
    use crate::etcd::membership::Change;
    use crate::host::fake::FakeMachine;

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
    fn the_longest_log_survives_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text = "[cluster]\nname = \"c\"\n[groups.m]\nhosts = [\"m-[1-3]\"]\n\
                    address_first = \"10.0.0.1\"\nroles = [\"etcd\", \"master\", \"node\"]\n";
        std::fs::write(&path, text).unwrap();
        let inventory = inventory::load(&path).unwrap();
        let mut hosts = Hosts::new();
        hosts.insert("m-1".to_owned(), FakeMachine::new("m-1").connect());
        let statuses = [("m-1", 5), ("m-2", 9)];
        let statuses = statuses.map(|(n, at)| (n.to_owned(), status(1, 0, at))).into();
        let choose = |from| survivor(from, &inventory, &hosts, &statuses).ok();
        assert_eq!(choose(None).as_deref(), Some("m-2"));
        assert_eq!(choose(Some("m-1")).as_deref(), Some("m-1"));
        assert_eq!(choose(Some("m-3")), None, "it is not reachable");
        assert!(survivor(None, &inventory, &hosts, &BTreeMap::new()).is_err());
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

    #[test]
    fn a_member_is_started_alone_once_and_its_old_data_are_kept() {
        use crate::facts::{FactsQuery, LockRequest, PathFact};
        let machine = FakeMachine::new("m-1");
        let directory =
            || PathFact::Directory { mode: Mode::EXECUTABLE, owner: Owner::root(), empty: false };
        {
            let mut state = machine.state();
            for path in ["/run", DATA, "/var/lib/etcd/member"] {
                state.paths.insert(path.to_owned(), directory());
            }
            let unit = state.units.entry(UNIT.to_owned()).or_default();
            (unit.installed, unit.active) = (true, true);
            state.started.insert(UNIT.to_owned(), crate::digest::Digest::of(b"x"));
        }
        let mut host = machine.connect();
        let lock = LockRequest { owner: "test".to_owned() };
        host.facts(&FactsQuery::default(), Some(&lock)).unwrap();
        let order = Content::Text("[Service]\n".to_owned());
        let sha256 = order.digest();
        host.push(&[(sha256, Upload::Content(order))].into(), &mut |_| {}).unwrap();
        host.run(&starting_alone(sha256), &mut |_| {}).unwrap();
        assert!(machine.state().paths.contains_key(ALONE));
        assert!(machine.state().units[UNIT].runs_with.contains_key(ALONE));
        host.run(&starting_as_ever(), &mut |_| {}).unwrap();
        assert!(!machine.state().units[UNIT].runs_with.contains_key(ALONE));
        host.run(&setting_aside(), &mut |_| {}).unwrap();
        let state = machine.state();
        assert!(!state.units[UNIT].active && !state.started.contains_key(UNIT));
        assert!(!state.paths.contains_key(DATA));
        assert!(state.paths.contains_key("/var/lib/etcd.kprov-aside/member"));
    }
}
