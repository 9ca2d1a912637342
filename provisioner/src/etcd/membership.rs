//! From the members that there are to those that there should be: one change at a time, none of
//! which takes the quorum away.
//!
//! Memoryless: [`next`] looks at what is, so a run that dies anywhere is taken up by the next one.

use std::fmt;

use serde::Serialize;

/// A member that there should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The host's name.
    pub name: String,
    /// Where it listens to the others.
    pub peer_url: String,
}

/// A member that there is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// etcd's number of it.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where it listens to the others.
    pub peer_url: String,
    /// Whether it has no vote yet.
    pub is_learner: bool,
    /// Whether it answers and has a leader.
    pub is_healthy: bool,
    /// Whether its data are gone for good: it can never be this member again.
    pub is_lost: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A member without a vote is added.
    AddLearner {
        /// The host's name.
        name: String,
        /// Where it listens to the others.
        peer_url: String,
    },
    /// The learner's host starts etcd, and its log catches up.
    Start {
        /// The host's name.
        name: String,
    },
    /// The learner gets its vote.
    Promote {
        /// etcd's number of it.
        id: u64,
        /// The host's name.
        name: String,
    },
    /// A member is removed.
    Remove {
        /// etcd's number of it.
        id: u64,
        /// The host's name, or its address when it never started.
        name: String,
    },
}

impl Change {
    /// The host that it is about, or the address of one that never started.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::AddLearner { name, .. }
            | Self::Start { name }
            | Self::Promote { name, .. }
            | Self::Remove { name, .. } => name,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner { name, .. } => write!(f, "add {name} as a learner"),
            Self::Start { name } => write!(f, "start etcd on {name} and let it catch up"),
            Self::Promote { name, .. } => write!(f, "promote {name}"),
            Self::Remove { name, .. } => write!(f, "remove {name}"),
        }
    }
}

/// A change and what it does to the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The change.
    pub change: Change,
    /// Members with a vote afterwards.
    pub voters: usize,
    /// Those of them that are healthy.
    pub healthy: usize,
    /// How many of them must be.
    pub quorum: usize,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, voters, healthy, quorum } = self;
        write!(f, "{change}: then {healthy} of {voters} voters are healthy, {quorum} are needed")
    }
}

/// Why there is no safe next change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing can be changed without a quorum.
    #[error(
        "etcd has no quorum: {healthy} of {voters} voters are healthy, and {quorum} are needed{}",
        listed(.down)
    )]
    NoQuorum {
        /// Members with a vote.
        voters: usize,
        /// Those that are healthy.
        healthy: usize,
        /// How many must be.
        quorum: usize,
        /// Names of those that are not.
        down: Vec<String>,
    },
    /// The only way on leads through a state without a quorum.
    #[error(
        "removing {name} from etcd would leave {healthy} healthy of {voters} voters, and {quorum} \
         are needed{}", listed(.down)
    )]
    Unsafe {
        /// The member to be removed.
        name: String,
        /// Members with a vote afterwards.
        voters: usize,
        /// Those that would be healthy.
        healthy: usize,
        /// How many would have to be.
        quorum: usize,
        /// Names of those that are not healthy.
        down: Vec<String>,
    },
    /// A cluster without members is none.
    #[error("no member of etcd is wanted at all")]
    Nobody,
}

fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; not healthy: {}", names.join(", ")),
    }
}

/// Members of which more than half make a quorum.
#[must_use]
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The next change on the way from `current` to `wanted`; `None` when there is nothing to do.
///
/// The order: a learner is finished before anything else begins; then members go that are not
/// wanted and do not work, since they only count against the quorum; then new ones come; the last
/// to go are those that work.
///
/// # Errors
/// When there is no quorum, or the change would take it away.
pub fn next(wanted: &[Wanted], current: &[Member]) -> Result<Option<Planned>, Refusal> {
    if wanted.is_empty() {
        return Err(Refusal::Nobody);
    }
    let voters: Vec<_> = current.iter().filter(|member| !member.is_learner).collect();
    let healthy = voters.iter().filter(|member| works(member)).count();
    let is_wanted = |member: &Member| !member.is_lost && wanted.iter().any(|w| same(w, member));
    let down = || voters.iter().filter(|m| !works(m)).map(|m| shown(m)).collect::<Vec<_>>();
    let learner = current.iter().find(|member| member.is_learner);
    let unwanted = voters.iter().find(|m| !is_wanted(m) && !works(m));
    let missing = wanted.iter().find(|w| !current.iter().any(|m| !m.is_lost && same(w, m)));
    let surplus = |member: &&&Member| !is_wanted(member);
    let settled = learner.is_none() && missing.is_none() && voters.iter().all(|m| is_wanted(m));
    if settled {
        return Ok(None);
    }
    if healthy < quorum(voters.len()) {
        let (voters, quorum) = (voters.len(), quorum(voters.len()));
        return Err(Refusal::NoQuorum { voters, healthy, quorum, down: down() });
    }
    let planned = |change, voters: usize, healthy| {
        Ok(Some(Planned { change, voters, healthy, quorum: quorum(voters) }))
    };
    let count = voters.len();
    match learner {
        Some(learner) if !is_wanted(learner) => return planned(removal(learner), count, healthy),
        Some(learner) => {
            let name = wanted.iter().find(|w| same(w, learner)).map(|w| w.name.clone());
            let name = name.unwrap_or_else(|| shown(learner));
            return if works(learner) {
                planned(Change::Promote { id: learner.id, name }, count + 1, healthy + 1)
            } else {
                planned(Change::Start { name }, count, healthy)
            };
        }
        None => {}
    }
    if let Some(dead) = unwanted {
        return planned(removal(dead), count - 1, healthy);
    }
    // One name cannot stand for two members: its old one goes before the new one comes.
    let namesake = missing.and_then(|w| voters.iter().find(|m| m.name == w.name));
    let leaving = match (namesake, missing) {
        (Some(namesake), _) => *namesake,
        (None, Some(w)) => {
            let (name, peer_url) = (w.name.clone(), w.peer_url.clone());
            return planned(Change::AddLearner { name, peer_url }, count, healthy);
        }
        (None, None) => voters.iter().find(surplus).expect("something is not settled"),
    };
    let (left, well) = (count - 1, healthy - 1);
    if left == 0 || well < quorum(left) {
        let (name, quorum) = (shown(leaving), quorum(left));
        let (voters, healthy) = (left, well);
        return Err(Refusal::Unsafe { name, voters, healthy, quorum, down: down() });
    }
    planned(removal(leaving), left, well)
}

/// All changes from `current` to `wanted`, if each of them succeeds and nothing else happens.
///
/// # Errors
/// When one of them would not be safe; then none of them should be made.
pub fn plan(wanted: &[Wanted], current: &[Member]) -> Result<Vec<Planned>, Refusal> {
    let mut current = current.to_vec();
    let mut all = Vec::new();
    // Each member is removed at most once, each wanted one takes three changes.
    for _ in 0..=current.len() + 3 * wanted.len() {
        let Some(planned) = next(wanted, &current)? else { break };
        imagine(&mut current, &planned.change);
        all.push(planned);
    }
    Ok(all)
}

/// What `change` makes of the members when it succeeds.
pub(super) fn imagine(current: &mut Vec<Member>, change: &Change) {
    match change {
        Change::AddLearner { name, peer_url } => current.push(Member {
            id: 0,
            name: name.clone(),
            peer_url: peer_url.clone(),
            is_learner: true,
            is_healthy: false,
            is_lost: false,
        }),
        Change::Start { .. } => {
            current.iter_mut().filter(|m| m.is_learner).for_each(|m| m.is_healthy = true);
        }
        Change::Promote { .. } => {
            current.iter_mut().filter(|m| m.is_learner).for_each(|m| m.is_learner = false);
        }
        Change::Remove { id, name } => {
            current.retain(|member| (member.id, &shown(member)) != (*id, name));
        }
    }
}

fn works(member: &Member) -> bool {
    member.is_healthy && !member.is_lost
}

/// Whether `member` is the one that is wanted.
#[must_use]
pub fn same(wanted: &Wanted, member: &Member) -> bool {
    let named = member.name.is_empty() || member.name == wanted.name;
    named && member.peer_url == wanted.peer_url
}

fn removal(member: &Member) -> Change {
    Change::Remove { id: member.id, name: shown(member) }
}

fn shown(member: &Member) -> String {
    if member.name.is_empty() { member.peer_url.clone() } else { member.name.clone() }
}

#[cfg(test)]
mod tests;
