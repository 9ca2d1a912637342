//! `kprov replace` and `kprov recover`: hosts that are lost, one of them or most.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;

use super::backup::claim;
use super::connect::{Connected, HOST_KEY, forget_key};
use super::diary::Diary;
use super::etcd::{HEALTH_WAIT, Opened, locked, no_certificate, open, statuses};
use super::output::{Console, Failure};
use super::select::known_host;
use super::{ApplyArgs, Exit, RunArgs, Source, Surroundings, apply, members};
use crate::digest::Digest;
use crate::etcd::gateway::{Gateway, GatewayError, MemberStatus};
use crate::etcd::membership::{self, Change, Planned, Wanted};
use crate::execute::Hosts;
use crate::host::Host;
use crate::inventory::{self, Inventory, Role};
use crate::layout::Layout;
use crate::lock::Lease;
use crate::pki::Pki;
use crate::plan::Upload;
use crate::state::{Content, Mode, Owner};
use crate::step::Step;

const UNIT: &str = "etcd.service";
/// Tells etcd at its next start that it is alone. Under `/run`, so that no boot can find it.
const ALONE: &str = "/run/systemd/system/etcd.service.d/kprov-recover.conf";
/// Pause between two looks at a member that starts.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(super) struct ReplaceArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The hosts that lost their data, or have other machines behind their names now.
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
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

/// `kprov replace`: the old members go, an apply brings the hosts back as new ones.
pub(super) fn replace(
    args: &ReplaceArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.run.source;
    let request = locked(surroundings, "replace");
    let lock = args.yes.then_some(&request);
    let force = args.run.force_unlock;
    let mut opened = open(source, surroundings, console, lock, force)?;
    let others = other_machines(args, &opened)?;
    if !others.is_empty() && !args.yes {
        let names = others.join(", ");
        let value = serde_json::json!({ "replaced": args.hosts, "new_keys": others });
        console.result(&value, || format!("{names}: another machine, by its SSH host key\n"))?;
        console.note("nothing was changed; say --yes to take its key and replace the old one");
        return Ok(Exit::Ok);
    }
    if !others.is_empty() {
        for name in &others {
            let host = known_host(name, &opened.inventory)?;
            forget_key(host, &opened.state_dir)
                .map_err(|error| Failure::new(&error, error.advice()))?;
            console.note(&format!("{name} is another machine now: its key is taken"));
        }
        // The locks that are held go with the connections.
        drop(opened);
        opened = open(source, surroundings, console, lock, force)?;
    }
    let planned = removals(args, &mut opened)?;
    let changes: Vec<_> = planned.iter().map(ToString::to_string).collect();
    let names = args.hosts.join(", ");
    let value = serde_json::json!({ "replaced": args.hosts, "etcd": planned });
    if !args.yes {
        console.result(&value, || {
            let changes = changes.iter().map(|change| format!("etcd: {change}\n"));
            format!("{}then an apply sets {names} up\n", changes.collect::<String>())
        })?;
        console.note("nothing was changed; say --yes to do this");
        return Ok(Exit::Ok);
    }
    if !planned.is_empty() {
        let diary = opened.diary("replace", console);
        let removed = planned.iter().try_for_each(|planned| {
            diary.say(&format!("etcd: {planned}"));
            opened.remove(planned, source, &diary)
        });
        diary.end(console, removed)?;
    }
    let names: Vec<_> = args.hosts.iter().map(String::as_str).collect();
    members::forget(&opened.state_dir, &opened.inventory, &names)?;
    // The locks end with the connections; the apply takes its own.
    drop(opened);
    apply::run("replace", &ApplyArgs::whole(args.run.clone()), surroundings, console)
}

/// Those of the hosts that show another SSH host key than before. Refuses hosts that cannot be had
/// otherwise, and those that kprov has set up.
fn other_machines(args: &ReplaceArgs, opened: &Opened) -> Result<Vec<String>, Failure> {
    let mut others = Vec::new();
    let mut problems = Vec::new();
    for name in &args.hosts {
        known_host(name, &opened.inventory)?;
        let own = opened.connected.problems.iter().filter(|problem| problem.host == *name);
        for problem in own {
            match problem.check == HOST_KEY {
                true => others.push(name.clone()),
                false => problems.push(problem.clone()),
            }
        }
        let facts = opened.connected.facts.get(name);
        if facts.is_some_and(|facts| facts.record.is_some()) {
            return Err(Failure::Other {
                message: format!("{name} is not fresh: kprov has set it up before"),
                advice: format!("`kprov reset INVENTORY --hosts {name} --yes` gives it back first"),
            });
        }
    }
    if problems.is_empty() { Ok(others) } else { Err(Failure::Unfit(problems)) }
}

/// The removals of the old members of etcd, one after the other.
fn removals(args: &ReplaceArgs, opened: &mut Opened) -> Result<Vec<Planned>, Failure> {
    // A key that is refused still, or a machine that was not seen at first.
    if let Some(name) = other_machines(args, opened)?.first() {
        let problems = opened.connected.problems.iter().filter(|problem| problem.host == *name);
        return Err(Failure::Unfit(problems.cloned().collect()));
    }
    let is_member =
        |name: &String| opened.inventory.host(name).is_some_and(|host| host.has(Role::Etcd));
    if !args.hosts.iter().any(is_member) {
        return Ok(Vec::new());
    }
    let hosts = &mut opened.connected.hosts;
    let mut current = members::observe(&opened.inventory, &opened.pki, hosts)
        .map_err(|reason| members::no_answer(&reason))?;
    for member in current.iter_mut().filter(|member| args.hosts.contains(&member.name)) {
        member.is_lost = true;
    }
    let stay = current.iter().filter(|member| !member.is_lost && !member.is_learner);
    let wanted: Vec<_> = stay
        .map(|member| Wanted { name: member.name.clone(), peer_url: member.peer_url.clone() })
        .collect();
    let planned =
        membership::plan(&wanted, &current).map_err(|refusal| members::refused(&refusal))?;
    let lost = |planned: &Planned| matches!(&planned.change, Change::Remove { name, .. } if args.hosts.contains(name));
    Ok(planned.into_iter().filter(lost).collect())
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
            diary.run(host.as_mut(), &BTreeMap::new(), &setting_aside(inventory.cluster.layout))?;
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
fn setting_aside(layout: Layout) -> Vec<Step> {
    vec![
        Step::Forget { unit: UNIT.to_owned() },
        Step::Stop { unit: UNIT.to_owned() },
        Step::SetAside { path: layout.etcd_data().to_owned() },
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
    diary.run(host, &BTreeMap::new(), &starting_as_ever(ALONE))?;
    wait_alone(host, member, pki)
}

fn starting_alone(sha256: Digest) -> Vec<Step> {
    let mut steps = vec![Step::Stop { unit: UNIT.to_owned() }];
    steps.extend(with_order(ALONE, sha256));
    steps.extend([Step::Reload, Step::Restart { unit: UNIT.to_owned() }]);
    steps
}

/// Puts an order to etcd, which was sent before, at `path` beside its unit.
pub(super) fn with_order(path: &str, sha256: Digest) -> Vec<Step> {
    let directories = crate::facts::parents(path).filter(|path| *path != "/run");
    let mut directories: Vec<_> = directories
        .map(|path| Step::MakeDirectory {
            path: path.to_owned(),
            mode: Mode::EXECUTABLE,
            owner: Owner::root(),
        })
        .collect();
    directories.reverse();
    let (path, mode, owner) = (path.to_owned(), Mode::PUBLIC, Owner::root());
    directories.push(Step::Install { path, mode, owner, sha256 });
    directories
}

/// Takes the order at `path` back and restarts etcd without it.
pub(super) fn starting_as_ever(path: &str) -> Vec<Step> {
    vec![
        Step::Restore { path: path.to_owned(), prior: crate::record::Prior::Absent },
        Step::Reload,
        Step::Restart { unit: UNIT.to_owned() },
        Step::ClearStaging,
    ]
}

fn wait_alone(host: &mut dyn Host, member: &inventory::Host, pki: &Pki) -> Result<(), Failure> {
    wait(host, member, pki, "go on alone", |gateway| {
        let (status, members) = (gateway.status()?, gateway.members()?.len());
        Ok((status.leader != 0 && members == 1).then_some(()).ok_or("it has other members"))
    })
}

/// Waits until a member is healthy.
pub(super) fn wait_healthy(
    host: &mut dyn Host,
    member: &inventory::Host,
    pki: &Pki,
) -> Result<(), Failure> {
    wait(host, member, pki, "become healthy", |gateway| {
        Ok(gateway.is_healthy().then_some(()).ok_or("its health check fails"))
    })
}

fn wait(
    host: &mut dyn Host,
    member: &inventory::Host,
    pki: &Pki,
    what: &str,
    mut look: impl FnMut(&mut Gateway<'_>) -> Result<Result<(), &'static str>, GatewayError>,
) -> Result<(), Failure> {
    let mut gateway =
        Gateway::new(host, member, pki).ok_or_else(|| no_certificate(&member.name))?;
    let until = Instant::now() + HEALTH_WAIT;
    loop {
        let reason = match look(&mut gateway) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason.to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            return Err(Failure::Other {
                message: format!("etcd on {} does not {what}: {reason}", member.name),
                advice: "see journalctl -u etcd there".to_owned(),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::gateway::Header;
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
    fn a_member_is_started_alone_once_and_its_old_data_are_kept() {
        use crate::facts::{FactsQuery, LockRequest, PathFact};
        let machine = FakeMachine::new("m-1");
        let directory =
            || PathFact::Directory { mode: Mode::EXECUTABLE, owner: Owner::root(), empty: false };
        {
            let mut state = machine.state();
            for path in ["/run", "/var/lib/etcd", "/var/lib/etcd/member"] {
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
        host.run(&starting_as_ever(ALONE), &mut |_| {}).unwrap();
        assert!(!machine.state().units[UNIT].runs_with.contains_key(ALONE));
        host.run(&setting_aside(Layout::Fhs), &mut |_| {}).unwrap();
        let state = machine.state();
        assert!(!state.units[UNIT].active && !state.started.contains_key(UNIT));
        assert!(!state.paths.contains_key("/var/lib/etcd"));
        assert!(state.paths.contains_key("/var/lib/etcd.kprov-aside/member"));
    }
}
