//! A host in memory: it understands the same plans as a real one, counts what is done to it and
//! fails where it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CommandEnd, Host, HostError};
use crate::digest::Digest;
use crate::distribution::PackageManager;
use crate::facts::{
    DockerFact, ENGINE, Facts, FactsQuery, LoadedImage, ModuleFact, OsRelease, PathFact, UnitFact,
};
use crate::record::{Prior, Record};
use crate::state::{Mode, Owner};
use crate::step::Step;

mod connection;
pub mod etcd;
mod objects;
mod preparation;
mod weather;

use connection::{FakeHost, lost};
use etcd::FakeEtcd;
pub use preparation::FakePreparation;
pub use weather::{Climate, Counts, Weather};

/// A machine; any number of connections ([`FakeMachine::connect`]) share its state.
#[derive(Debug, Clone)]
pub struct FakeMachine {
    name: String,
    state: Arc<Mutex<FakeState>>,
    etcd: Option<Arc<Mutex<FakeEtcd>>>,
    weather: Option<Arc<Weather>>,
}

/// What is true of a fake machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeState {
    /// What is at each path.
    pub paths: BTreeMap<String, PathFact>,
    /// Units that run or are enabled or do not come from a file of `paths`.
    pub units: BTreeMap<String, FakeUnit>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Loaded modules.
    pub modules: BTreeSet<String>,
    /// Image ids by reference.
    pub images: BTreeMap<String, String>,
    /// What kprov owns.
    pub record: Option<Record>,
    /// Bytes that were there before, by path.
    pub kept: BTreeMap<String, PathFact>,
    /// Marks of starts.
    pub started: BTreeMap<String, Digest>,
    /// Marks of loaded images.
    pub loaded: BTreeMap<String, LoadedImage>,
    /// Lengths of what lies in the staging area.
    pub staged: BTreeMap<Digest, u64>,
    lock: Option<String>,
    /// Counts every change, so that a test can prove that there were none.
    pub writes: u64,
    /// Counts starts by unit.
    pub starts: BTreeMap<String, u64>,
    /// Round trips so far.
    pub round_trips: u64,
    /// The connection breaks when so many more cut points are passed; two lie at each step, one
    /// before and one after it.
    pub cut_after: Option<u64>,
    /// Steps that fail, by their description.
    pub failing: BTreeSet<String>,
    /// Answers of health endpoints other than 200, by endpoint.
    pub unhealthy: BTreeMap<String, u16>,
    /// Texts of files, where a test needs more than digests.
    pub texts: BTreeMap<String, String>,
    /// Certificates (DER) that servers show, by `ADDRESS:PORT`.
    pub served: BTreeMap<String, Vec<Vec<u8>>>,
    /// Bodies of answers, by endpoint.
    pub answers: BTreeMap<String, String>,
    /// Objects of an API server by path, for tests that need one which keeps what it is sent.
    pub objects: Option<BTreeMap<String, serde_json::Value>>,
    /// What was sent to endpoints other than questions: method, endpoint and body.
    pub sent: Vec<String>,
    /// What `host-probe` prints, by its first argument.
    pub probes: BTreeMap<String, String>,
    /// The highest generation that has written here.
    pub fence: u64,
    /// Commands of the operator's that ran here.
    pub commands: Vec<String>,
    /// How commands of the operator's end that do not end well.
    pub command_ends: BTreeMap<String, CommandEnd>,
    /// Whether a unit is found active at the next looks of gates; it is as it is after those.
    pub looks: BTreeMap<String, VecDeque<bool>>,
    /// What the host says about itself.
    pub base: Facts,
    /// Packages, swap, blocks, labels and the firewall.
    pub preparation: FakePreparation,
}

/// A unit of a fake machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeUnit {
    /// Whether it exists without a file of ours.
    pub installed: bool,
    /// Whether it runs.
    pub active: bool,
    /// Whether it starts at boot.
    pub enabled: bool,
    /// All paths as they were at its last start: what it really runs with.
    pub runs_with: BTreeMap<String, PathFact>,
}

impl FakeMachine {
    /// A Debian machine with systemd and Docker and nothing of ours.
    pub fn new(name: impl Into<String>) -> Self {
        let base = Facts {
            os: OsRelease {
                id: "debian".to_owned(),
                version_id: "12".to_owned(),
                pretty_name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
                ..OsRelease::default()
            },
            arch: "x86_64".to_owned(),
            kernel: "6.1.0".to_owned(),
            systemd: true,
            disk_free: [("/".to_owned(), 50 << 30)].into(),
            docker: DockerFact::Running { version: "20.10.24".to_owned() },
            managers: [PackageManager::Apt].into(),
            time_service: Some("chrony".to_owned()),
            ..Facts::default()
        };
        let directory = |path: &str| {
            let (mode, owner) = (Mode::EXECUTABLE, Owner::root());
            (path.to_owned(), PathFact::Directory { mode, owner, empty: false })
        };
        let paths = [
            "/etc",
            "/etc/systemd",
            "/etc/systemd/system",
            "/usr",
            "/usr/local",
            "/usr/local/bin",
            "/var",
            "/var/lib",
        ];
        let state = FakeState {
            paths: paths.map(directory).into(),
            units: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            modules: BTreeSet::new(),
            images: BTreeMap::new(),
            record: None,
            kept: BTreeMap::new(),
            started: BTreeMap::new(),
            loaded: BTreeMap::new(),
            staged: BTreeMap::new(),
            lock: None,
            writes: 0,
            starts: BTreeMap::new(),
            round_trips: 0,
            cut_after: None,
            failing: BTreeSet::new(),
            unhealthy: BTreeMap::new(),
            texts: BTreeMap::new(),
            served: BTreeMap::new(),
            answers: BTreeMap::new(),
            objects: None,
            sent: Vec::new(),
            probes: BTreeMap::new(),
            fence: 0,
            commands: Vec::new(),
            command_ends: BTreeMap::new(),
            looks: BTreeMap::new(),
            base,
            preparation: FakePreparation::default(),
        };
        let state = Arc::new(Mutex::new(state));
        Self { name: name.into(), state, etcd: None, weather: None }
    }

    /// The same machine as one of those that `etcd` runs on.
    #[must_use]
    pub fn with_etcd(self, etcd: &Arc<Mutex<FakeEtcd>>) -> Self {
        Self { etcd: Some(Arc::clone(etcd)), ..self }
    }

    /// The same machine under `weather`.
    #[must_use]
    pub fn under(self, weather: Arc<Weather>) -> Self {
        Self { weather: Some(weather), ..self }
    }

    /// Opens a connection.
    #[must_use]
    pub fn connect(&self) -> Box<dyn Host> {
        Box::new(FakeHost::new(self.clone()))
    }

    /// The machine's state, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeState {
    /// What a user can see, without counters and marks: for before-and-after comparisons.
    #[must_use]
    pub fn visible(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let units: BTreeMap<_, _> = (self.units.iter())
            .filter(|(_, unit)| unit.installed || unit.active || unit.enabled)
            .map(|(name, unit)| (name.clone(), (unit.active, unit.enabled)))
            .collect();
        let preparation = FakePreparation {
            // A path that is gone has no label.
            mislabelled: BTreeSet::new(),
            ..self.preparation.clone()
        };
        (
            (self.paths.clone(), units, self.sysctls.clone(), self.images.clone()),
            (self.record.clone(), self.base.docker.clone(), preparation),
        )
    }

    fn facts(&self, query: &FactsQuery) -> Facts {
        let mut facts = self.base.clone();
        let kept = |path: &str| query.programs && crate::program::is_kept_at(path);
        let asked = |path: &&String| query.paths.contains(*path) || kept(path);
        let found = self.paths.iter().filter(|(path, _)| asked(path));
        facts.paths = found.map(|(path, fact)| (path.clone(), self.seen(path, fact))).collect();
        for unit in &query.units {
            facts.units.insert(unit.clone(), self.unit_fact(unit));
        }
        let asked = self.sysctls.iter().filter(|(key, _)| query.sysctls.contains(*key));
        facts.sysctls = asked.map(|(key, value)| (key.clone(), value.clone())).collect();
        for module in &query.modules {
            let loaded = self.modules.contains(module);
            let fact = if loaded { ModuleFact::Loaded } else { ModuleFact::Loadable };
            facts.modules.insert(module.clone(), fact);
        }
        facts.images = self.images.clone();
        facts.record = self.record.clone();
        facts.started = self.started.clone();
        facts.loaded = self.loaded.clone();
        facts.staged = !self.staged.is_empty();
        facts.fence = self.fence;
        self.preparation_facts(query, &mut facts);
        facts
    }

    fn seen(&self, path: &str, fact: &PathFact) -> PathFact {
        let mut fact = fact.clone();
        if let PathFact::Directory { empty, .. } = &mut fact {
            *empty = !self.has_children(path);
        }
        fact
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.paths.keys().any(|other| other.starts_with(&below))
    }

    fn has_unit(&self, unit: &str) -> bool {
        self.paths.contains_key(&format!("/etc/systemd/system/{unit}"))
            || self.units.get(unit).is_some_and(|unit| unit.installed)
    }

    fn unit_fact(&self, name: &str) -> UnitFact {
        let unit = self.units.get(name).cloned().unwrap_or_default();
        let words = |yes: bool, a: &str, b: &str| if yes { a.to_owned() } else { b.to_owned() };
        UnitFact {
            load: words(self.has_unit(name), "loaded", "not-found"),
            active: words(unit.active, "active", "inactive"),
            enablement: words(unit.enabled, "enabled", "disabled"),
            needs_reload: false,
        }
    }

    /// Does one step whole, as every step of a real host is.
    fn apply(&mut self, step: &Step) -> Result<(), String> {
        self.writes += 1;
        match step {
            Step::BackUp { path } => {
                let fact = self.paths.get(path).ok_or("nothing to keep")?.clone();
                self.kept.insert(path.clone(), fact);
            }
            Step::WriteRecord { record } => self.record = Some((**record).clone()),
            Step::MakeDirectory { path, mode, owner } => {
                self.parent_of(path)?;
                let (mode, owner) = (*mode, owner.clone());
                let fact = PathFact::Directory { mode, owner, empty: false };
                self.paths.insert(path.clone(), fact);
                self.made(path);
            }
            Step::Install { path, mode, owner, sha256 } => {
                self.parent_of(path)?;
                let len = *self.staged.get(sha256).ok_or("the bytes are not staged")?;
                let (mode, owner, sha256) = (*mode, owner.clone(), Some(*sha256));
                let fact = PathFact::File { mode, owner, sha256, len };
                self.paths.insert(path.clone(), fact);
                self.made(path);
            }
            Step::SetAttributes { path, mode: m, owner: o } => match self.paths.get_mut(path) {
                Some(PathFact::File { mode, owner, .. }) => {
                    *mode = *m;
                    owner.clone_from(o);
                }
                _ => return Err("no such file".to_owned()),
            },
            Step::Link { path, target } => {
                self.parent_of(path)?;
                self.paths.insert(path.clone(), PathFact::Link { target: target.clone() });
                self.made(path);
            }
            Step::Restore { path, prior } => self.restore(path, prior)?,
            Step::Sysctl { key, value } => {
                self.sysctls.insert(key.clone(), value.clone());
            }
            Step::LoadModule { module } => _ = self.modules.insert(module.clone()),
            Step::UnloadModule { module } => _ = self.modules.remove(module),
            Step::LoadImage { reference, archive } => {
                self.staged.get(archive).ok_or("the archive is not staged")?;
                let id = format!("sha256:{archive}");
                self.images.insert(reference.clone(), id.clone());
                let loaded = LoadedImage { archive: *archive, id };
                self.loaded.insert(reference.clone(), loaded);
            }
            Step::RemoveImage { reference } => _ = self.images.remove(reference),
            Step::ClearStaging => self.staged.clear(),
            Step::SetAside { path } => {
                let (old, below) = (std::mem::take(&mut self.paths), format!("{path}/"));
                let moved = |at: String| match at == *path || at.starts_with(&below) {
                    true => format!("{path}.kprov-aside{}", &at[path.len()..]),
                    false => at,
                };
                self.paths = old.into_iter().map(|(at, fact)| (moved(at), fact)).collect();
            }
            Step::RemoveData { path, prior } => self.remove_data(path, prior),
            Step::RemoveRecord => {
                self.record = None;
                self.fence = 0;
                self.kept.clear();
                self.started.clear();
                self.loaded.clear();
                self.staged.clear();
            }
            Step::Reload
            | Step::ResetFailed
            | Step::RemoveContainers
            | Step::RemoveNetwork
            | Step::RemoveEngineNetwork => {}
            other => self.preparation_step(other)?,
        }
        Ok(())
    }

    fn unit_step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Forget { unit } => _ = self.started.remove(unit),
            Step::MarkStarted { unit, inputs } => _ = self.started.insert(unit.clone(), *inputs),
            Step::Start { unit }
            | Step::Restart { unit }
            | Step::Enable { unit }
            | Step::EnableQuietly { unit }
                if !self.has_unit(unit) =>
            {
                return Err(format!("Unit {unit} not found."));
            }
            Step::Start { unit } if self.units.get(unit).is_some_and(|unit| unit.active) => {}
            Step::Start { unit } | Step::Restart { unit } => {
                *self.starts.entry(unit.clone()).or_default() += 1;
                self.started(unit);
                let runs_with = self.paths.clone();
                let unit = self.units.entry(unit.clone()).or_default();
                unit.active = true;
                unit.runs_with = runs_with;
            }
            Step::Enable { unit } | Step::EnableQuietly { unit } => {
                self.units.entry(unit.clone()).or_default().enabled = true;
            }
            Step::Disable { unit } => self.units.entry(unit.clone()).or_default().enabled = false,
            Step::Stop { unit } => self.units.entry(unit.clone()).or_default().active = false,
            other => return Err(format!("a fake host cannot {}", other.describe())),
        }
        Ok(())
    }

    fn parent_of(&self, path: &str) -> Result<(), String> {
        match crate::facts::parents(path).next() {
            Some(parent) if !matches!(self.paths.get(parent), Some(PathFact::Directory { .. })) => {
                Err(format!("{parent} is no directory"))
            }
            _ => Ok(()),
        }
    }

    fn restore(&mut self, path: &str, prior: &Prior) -> Result<(), String> {
        let fact = match prior {
            Prior::Absent => {
                if !self.has_children(path) {
                    self.paths.remove(path);
                }
                return Ok(());
            }
            Prior::File { .. } => self.kept.get(path).ok_or("its old bytes are gone")?.clone(),
            Prior::Link { target } => PathFact::Link { target: target.clone() },
            Prior::Directory { mode, owner, .. } => {
                PathFact::Directory { mode: *mode, owner: owner.clone(), empty: false }
            }
            Prior::Other => return Ok(()),
        };
        self.paths.insert(path.to_owned(), fact);
        Ok(())
    }

    fn remove_data(&mut self, path: &str, prior: &Prior) {
        let below = format!("{path}/");
        match prior {
            Prior::Absent => self.paths.retain(|at, _| at != path && !at.starts_with(&below)),
            Prior::Directory { empty: true, .. } => {
                self.paths.retain(|at, _| !at.starts_with(&below));
            }
            _ => {}
        }
    }

    fn cut(&mut self, doing: &str) -> Result<(), HostError> {
        let Some(left) = &mut self.cut_after else { return Ok(()) };
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        Err(lost(doing))
    }

    /// What a power failure leaves: files, and the units that start at boot, with what is there.
    fn reboot(&mut self) {
        self.lock = None;
        self.modules.clear();
        let paths = self.paths.clone();
        let names: Vec<_> = self.units.keys().cloned().collect();
        for name in names {
            let there = self.has_unit(&name);
            let Some(unit) = self.units.get_mut(&name) else { continue };
            unit.active = unit.enabled && there;
            let active = unit.active;
            if active {
                unit.runs_with.clone_from(&paths);
                self.started(&name);
            }
            if !active && name == ENGINE && matches!(self.base.docker, DockerFact::Running { .. }) {
                self.base.docker = DockerFact::Stopped;
            }
        }
    }
}
