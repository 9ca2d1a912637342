//! `kprov unlock`: who holds the hosts' locks, and taking them away.

use std::collections::BTreeMap;

use serde::Serialize;

use super::connect::{Asking, connect};
use super::output::{Console, Failure};
use super::prepare;
use super::{Exit, Surroundings, UnlockArgs};
use crate::execute::in_parallel;
use crate::facts::FactsQuery;
use crate::lock::Holder;

#[derive(Serialize)]
struct Lock {
    #[serde(flatten)]
    holder: Holder,
    /// The highest generation that has written on the host.
    generation: u64,
    /// Whether it was taken away.
    released: bool,
    error: Option<String>,
}

pub(super) fn run(
    args: &UnlockArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let source = &args.source;
    let inventory = prepare::inventory(source, console)?;
    let chosen = args.choice.choose(&inventory)?;
    let state_dir = prepare::state_dir(source, &inventory);
    let asked = inventory.hosts.iter().filter(|host| chosen.contains(&host.name));
    let asked = asked.map(|host| (host, FactsQuery::default())).collect();
    let asking =
        Asking { lock: None, force_unlock: false, source, surroundings, state_dir: &state_dir };
    let mut connected = connect(asked, &asking);
    let now = jiff::Timestamp::now();
    let facts = &connected.facts;
    let held = connected.hosts.iter_mut().filter_map(|(name, host)| {
        let facts = facts.get(name)?;
        Some((name, host, Holder::parse(facts.holder.as_ref()?, now), facts.fence))
    });
    let locks = in_parallel(held.collect(), source.parallel, |(name, host, holder, generation)| {
        let broken = if args.yes { host.break_lock().map(|_| true) } else { Ok(false) };
        let (released, error) = match broken {
            Ok(released) => (released, None),
            Err(error) => (false, Some(crate::execute::chain(&error))),
        };
        (name.clone(), Lock { holder, generation, released, error })
    });
    let locks: BTreeMap<_, _> = locks.into_iter().collect();
    let failed = locks.values().any(|lock| lock.error.is_some());
    let value = serde_json::json!({ "locks": locks, "unreachable": connected.problems });
    console.result(&value, || text(&locks))?;
    for problem in &connected.problems {
        console.note(&format!("{}: {}", problem.host, problem.message));
    }
    let held = locks.values().any(|lock| !lock.released);
    if held && !args.yes {
        console.note("nothing was changed; say --yes to take the locks away");
    }
    Ok(match (failed, connected.problems.is_empty()) {
        (true, _) => Exit::Failed,
        (false, false) => Exit::Unreached,
        (false, true) => Exit::Ok,
    })
}

fn text(locks: &BTreeMap<String, Lock>) -> String {
    if locks.is_empty() {
        return "no host is locked\n".to_owned();
    }
    let mut out = String::new();
    for (host, lock) in locks {
        let Holder { owner, command, age_s, line } = &lock.holder;
        let age = age_s.map_or("an unknown time".to_owned(), |age| format!("{age} s"));
        let who = if command.is_empty() { line.clone() } else { format!("{owner}, {command}") };
        let end = match (&lock.error, lock.released) {
            (Some(error), _) => format!(" and keeps it: {error}"),
            (None, true) => " and has lost it now".to_owned(),
            (None, false) => String::new(),
        };
        let generation = lock.generation;
        out.push_str(&format!(
            "{host}: {who} has held the lock for {age} (last write of generation {generation}){end}\n"
        ));
    }
    out
}
