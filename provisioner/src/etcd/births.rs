//! With which members each member of etcd was started for the first time.
//!
//! etcd reads that once in its life, but it stands in a file that etcd's unit reads: were it to
//! change when a member comes or goes, every member would restart for nothing. So what a member
//! was told at its birth is written down, beside the certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gateway::peer_url;
use super::membership::{Change, Member, Planned, Wanted, imagine, same};
use crate::inventory::{Inventory, Role};

/// The file within the state directory.
pub const FILE: &str = "etcd-members.json";
/// The variable of etcd's environment file that names the first members.
const VARIABLE: &str = "ETCD_INITIAL_CLUSTER=";

/// What every member was told at its birth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Births {
    /// The members that made the cluster, `NAME=URL`, with commas between.
    first: String,
    /// The members that joined it later, and what they were told.
    #[serde(default)]
    joined: BTreeMap<String, String>,
    /// Hosts of the first members that have been removed since.
    #[serde(default)]
    gone: BTreeSet<String>,
    /// Those of `joined` that may not be members with a vote yet.
    #[serde(default)]
    joining: BTreeSet<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read or write {}", path.display())]
pub struct BirthsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Births {
    /// Those of a new cluster: all its members are there from the beginning.
    #[must_use]
    pub fn of(inventory: &Inventory) -> Self {
        Self { first: listed(members(inventory)), ..Self::default() }
    }

    /// Those of a cluster whose first members were told `first`.
    pub fn told(first: impl Into<String>) -> Self {
        Self { first: first.into(), ..Self::default() }
    }

    /// Those of running members, by the environment files on their hosts.
    #[must_use]
    pub fn from_environments(environments: &BTreeMap<String, String>) -> Self {
        let mut births = Self::default();
        for (host, text) in environments {
            let Some(told) = told_by(text) else { continue };
            if text.lines().any(|line| line.trim() == "ETCD_INITIAL_CLUSTER_STATE=existing") {
                births.joined.insert(host.clone(), told.to_owned());
            } else {
                told.clone_into(&mut births.first);
            }
        }
        let first: Vec<_> = pairs(&births.first).map(|(name, _)| name.to_owned()).collect();
        births.gone = first.into_iter().filter(|name| !environments.contains_key(name)).collect();
        births
    }

    /// Reads them from a state directory; `None` when nothing was written there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, BirthsError> {
        let path = state_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(births) => Ok(Some(births)),
                Err(error) => Err(BirthsError { path, source: error.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BirthsError { path, source }),
        }
    }

    /// Writes them for good.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, state_dir: &Path) -> Result<(), BirthsError> {
        let path = state_dir.join(FILE);
        let text = serde_json::to_string_pretty(self).expect("births have only string keys");
        let act = || {
            let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map(drop).map_err(|error| error.error)
        };
        act().map_err(|source| BirthsError { path: path.clone(), source })
    }

    /// Whether `host` is a member by these.
    #[must_use]
    pub fn knows(&self, host: &str) -> bool {
        let first = pairs(&self.first).any(|(name, _)| name == host) && !self.gone.contains(host);
        first || self.joined.contains_key(host)
    }

    /// The members of the inventory that are none yet, or not for sure, sorted.
    #[must_use]
    pub fn newcomers(&self, inventory: &Inventory) -> Vec<String> {
        let hosts = inventory.with_role(Role::Etcd).map(|host| host.name.clone());
        hosts.filter(|name| !self.knows(name) || self.joining.contains(name)).collect()
    }

    /// Notes those that join by `planned`, the changes from `current` on. A member is told of those
    /// that there are when it starts; one that has started keeps what it was told.
    pub fn join(&mut self, current: &[Member], wanted: &[Wanted], planned: &[Planned]) {
        let mut current = current.to_vec();
        for Planned { change, .. } in planned {
            match change {
                Change::Start { name } => {
                    let named = |member: &Member| {
                        let known = wanted.iter().find(|wanted| same(wanted, member));
                        let name = known.map_or(&member.name, |wanted| &wanted.name);
                        (name.clone(), member.peer_url.clone())
                    };
                    let all: BTreeMap<_, _> = current.iter().map(named).collect();
                    self.joined.insert(name.clone(), listed(all));
                    self.joining.insert(name.clone());
                }
                Change::AddLearner { name, .. } => _ = self.joining.insert(name.clone()),
                Change::Promote { .. } | Change::Remove { .. } => {}
            }
            imagine(&mut current, change);
        }
    }

    /// Notes that all who were joining have their votes. Says whether that was news.
    pub fn all_joined(&mut self) -> bool {
        !std::mem::take(&mut self.joining).is_empty()
    }

    /// Notes that `host` is no member any more.
    pub fn forget(&mut self, host: &str) {
        self.joined.remove(host);
        self.joining.remove(host);
        if pairs(&self.first).any(|(name, _)| name == host) {
            self.gone.insert(host.to_owned());
        }
    }

    /// What the member on `host` was, or will be, told: the members, and whether they are a new
    /// cluster or one that exists.
    #[must_use]
    pub fn told_to(&self, host: &str) -> (&str, &'static str) {
        match self.joined.get(host) {
            Some(members) => (members, "existing"),
            None => (&self.first, "new"),
        }
    }
}

/// What the environment file of a running member says about its birth.
#[must_use]
pub fn told_by(environment: &str) -> Option<&str> {
    environment.lines().find_map(|line| line.trim().strip_prefix(VARIABLE))
}

/// The members that the inventory asks for: names and URLs, sorted.
#[must_use]
pub fn members(inventory: &Inventory) -> Vec<(String, String)> {
    inventory.with_role(Role::Etcd).map(|host| (host.name.clone(), peer_url(host))).collect()
}

fn listed(members: impl IntoIterator<Item = (String, String)>) -> String {
    let pairs: Vec<_> = members.into_iter().map(|(name, url)| format!("{name}={url}")).collect();
    pairs.join(",")
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|pair| pair.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Vec<Wanted> {
        let url = |name: &str| format!("https://{name}:2380");
        names.iter().map(|n| Wanted { name: (*n).to_owned(), peer_url: url(n) }).collect()
    }

    fn voters(names: &[&str]) -> Vec<Member> {
        let member = |(wanted, id): (Wanted, u64)| Member {
            id,
            name: wanted.name,
            peer_url: wanted.peer_url,
            is_learner: false,
            is_healthy: true,
            is_lost: false,
        };
        wanted(names).into_iter().zip(1..).map(member).collect()
    }

    fn join(births: &mut Births, current: &[&str], all: &[&str]) {
        let (current, wanted) = (voters(current), wanted(all));
        let planned = super::super::membership::plan(&wanted, &current).unwrap();
        births.join(&current, &wanted, &planned);
    }

    #[test]
    fn a_member_that_comes_changes_nothing_for_those_that_are_there() {
        let first = "a=https://a:2380,b=https://b:2380";
        let mut births = Births::told(first);
        join(&mut births, &["a", "b"], &["a", "aa", "b", "c"]);
        assert_eq!(births.told_to("a"), (first, "new"));
        let third = "a=https://a:2380,aa=https://aa:2380,b=https://b:2380";
        assert_eq!(births.told_to("aa"), (third, "existing"));
        let (fourth, state) = births.told_to("c");
        assert_eq!((fourth.split(',').count(), state), (4, "existing"));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Births::load(dir.path()).unwrap(), None);
        births.save(dir.path()).unwrap();
        assert_eq!(Births::load(dir.path()).unwrap(), Some(births.clone()));
        assert!(births.all_joined() && !births.all_joined());
    }

    #[test]
    fn a_replaced_first_member_is_born_again() {
        let mut births = Births::told("a=https://a:2380,b=https://b:2380");
        assert!(births.knows("b") && !births.knows("c"));
        births.forget("b");
        assert!(!births.knows("b"));
        join(&mut births, &["a"], &["a", "b"]);
        assert!(births.knows("b"));
        assert_eq!(births.told_to("b").1, "existing");
        assert_eq!(births.told_to("a").0, "a=https://a:2380,b=https://b:2380");
    }

    #[test]
    fn an_environment_file_tells_the_first_members() {
        let text = "# Made\nETCD_NAME=a\nETCD_INITIAL_CLUSTER=a=https://a:2380\n";
        assert_eq!(told_by(text), Some("a=https://a:2380"));
        assert_eq!(told_by("ETCD_INITIAL_CLUSTER_TOKEN=x\n"), None);
    }
}
