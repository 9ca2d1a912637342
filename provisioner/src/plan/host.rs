//! The plan of one host.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Batch, Change, HostPlan, UnitAction, Upload, inputs, owned};
use crate::digest::Digest;
use crate::facts::{ENGINE, Facts, ModuleFact, PathFact, UnitFact, parents};
use crate::program;
use crate::record::{OwnedUnit, Record};
use crate::state::{Content, FileState, Gate, HostState, Mode, Owner, Stage, UnitState};
use crate::step::Step;

/// Collects one host's differences and steps.
pub(crate) struct HostPlanner<'a> {
    pub(super) state: &'a HostState,
    pub(super) facts: &'a Facts,
    /// What is owned from the claim on: all that was owned, and all that will be.
    pub(super) claimed: Record,
    /// What is owned at the end.
    pub(super) finished: Record,
    pub(super) changes: Vec<Change>,
    backups: Vec<Step>,
    forgets: Vec<Step>,
    stages: BTreeMap<Stage, StageSteps>,
    /// Removal of what is no longer wanted: units first, their files last.
    pub(super) stops: Vec<Step>,
    pub(super) removals: Vec<Step>,
    pub(super) uploads: BTreeMap<Digest, Upload>,
    /// Paths that are written or made.
    pub(super) touched: BTreeSet<String>,
    stage_of: BTreeMap<&'a str, Stage>,
    /// The firewall rules that stay.
    pub(super) closed: BTreeSet<String>,
    pub(super) warnings: Vec<String>,
}

#[derive(Default)]
pub(super) struct StageSteps {
    pub(super) paths: Vec<Step>,
    pub(super) packages: Vec<Step>,
    pub(super) reload: bool,
    pub(super) firewall: Vec<Step>,
    enables: Vec<String>,
    units: Vec<Step>,
    images: Vec<Step>,
    gates: Vec<(String, Gate)>,
    interrupts: bool,
}

impl<'a> HostPlanner<'a> {
    pub(crate) fn new(state: &'a HostState, facts: &'a Facts) -> Self {
        let record = owned(state, facts);
        Self {
            state,
            facts,
            claimed: record.clone(),
            finished: record,
            changes: Vec::new(),
            backups: Vec::new(),
            forgets: Vec::new(),
            stages: BTreeMap::new(),
            stops: Vec::new(),
            removals: Vec::new(),
            uploads: BTreeMap::new(),
            touched: BTreeSet::new(),
            stage_of: inputs::stages(state),
            closed: BTreeSet::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn plan(mut self) -> HostPlan {
        self.directories();
        self.programs();
        self.files();
        self.links();
        self.blocks();
        self.labels();
        self.swap();
        self.kernel();
        self.packages();
        self.images();
        for path in &self.state.data {
            self.claimed.data.entry(path.clone()).or_insert_with(|| self.facts.prior(path));
        }
        if self.state.docker {
            self.unit(&engine());
        }
        for unit in &self.state.units {
            self.unit(unit);
        }
        self.firewall();
        self.time();
        self.remove_unwanted();
        self.assemble()
    }

    fn directories(&mut self) {
        let wanted: BTreeSet<_> =
            self.state.directories.iter().map(|directory| directory.path.as_str()).collect();
        let paths = (self.state.files.iter().map(|file| file.path.as_str()))
            .chain(self.state.links.iter().map(|link| link.path.as_str()))
            .chain(wanted.iter().copied());
        // Sorted, so parents come before their children.
        let implied: BTreeSet<_> = paths.flat_map(parents).collect();
        for path in implied.difference(&wanted) {
            // One of ours stays ours; one that was there belongs to somebody else.
            if self.claimed.paths.contains_key(*path) || !self.facts.paths.contains_key(*path) {
                self.directory(path, Mode::EXECUTABLE, &Owner::root(), false);
            }
        }
        for directory in &self.state.directories {
            self.directory(&directory.path, directory.mode, &directory.owner, true);
        }
    }

    fn directory(&mut self, path: &str, mode: Mode, owner: &Owner, exact: bool) {
        self.claim(path);
        let action = match self.facts.paths.get(path) {
            Some(PathFact::Directory { mode: m, owner: o, .. })
                if !exact || (*m, o) == (mode, owner) =>
            {
                return;
            }
            Some(PathFact::Directory { .. }) => Action::Attributes,
            Some(_) => Action::Update,
            None => Action::Create,
        };
        self.changes.push(Change::Directory { path: path.to_owned(), action });
        let step = Step::MakeDirectory { path: path.to_owned(), mode, owner: owner.clone() };
        self.touched.insert(path.to_owned());
        self.stage(Stage::HostPrep).paths.push(step);
        self.relabel(Stage::HostPrep, path);
    }

    /// Notes which builds come; their files and links are planned as all others are.
    fn programs(&mut self) {
        for (name, wanted) in &self.state.programs {
            let known = self.claimed.programs.get(name).cloned().unwrap_or_default();
            if !known.is_current(wanted) {
                let from = known.pending.as_ref().or(known.current.as_ref()).cloned();
                let (name, to) = (name.clone(), wanted.clone());
                self.changes.push(Change::Program { name, from, to });
            }
            self.claimed.programs.insert(name.clone(), known.claim(wanted));
        }
    }

    fn files(&mut self) {
        for file in &self.state.files {
            self.claim(&file.path);
            let Some(action) = file_action(file, self.facts.paths.get(&file.path)) else {
                continue;
            };
            let sha256 = file.content.digest();
            let secret = matches!(file.content, Content::Secret(_));
            let (path, mode, owner) = (file.path.clone(), file.mode, file.owner.clone());
            let len = file.content.len();
            self.changes.push(Change::File { path: path.clone(), action, secret, len });
            let step = if action == Action::Attributes {
                Step::SetAttributes { path, mode, owner }
            } else {
                self.uploads.insert(sha256, upload(&file.content));
                Step::Install { path, mode, owner, sha256 }
            };
            self.change_path(&file.path, step);
        }
    }

    fn links(&mut self) {
        for link in &self.state.links {
            self.claim(&link.path);
            let action = match self.facts.paths.get(&link.path) {
                Some(PathFact::Link { target }) if *target == link.target => continue,
                Some(_) => Action::Update,
                None => Action::Create,
            };
            let (path, target) = (link.path.clone(), link.target.clone());
            self.changes.push(Change::Link { path: path.clone(), target: target.clone(), action });
            self.change_path(&link.path, Step::Link { path, target });
        }
    }

    /// Takes ownership of a path: what is there now is what a reset gives back.
    fn claim(&mut self, path: &str) {
        if !self.claimed.paths.contains_key(path) {
            let prior = self.facts.prior(path);
            if matches!(prior, crate::record::Prior::File { .. }) {
                self.backups.push(Step::BackUp { path: path.to_owned() });
            }
            self.claimed.paths.insert(path.to_owned(), prior);
        }
    }

    fn change_path(&mut self, path: &str, step: Step) {
        self.touched.insert(path.to_owned());
        // What nobody runs yet can come first; the links to it keep to their turns.
        let stage = self.stage_of.get(path).copied().filter(|_| !program::is_kept_at(path));
        let stage = stage.unwrap_or(Stage::HostPrep);
        let steps = self.stage(stage);
        steps.reload |= is_unit_file(path);
        steps.paths.push(step);
        self.relabel(stage, path);
    }

    fn kernel(&mut self) {
        for module in &self.state.modules {
            match self.facts.modules.get(module) {
                Some(ModuleFact::Loaded) => {}
                Some(ModuleFact::Loadable) => {
                    self.claimed.modules.insert(module.clone());
                    self.changes.push(Change::Module { module: module.clone() });
                    let step = Step::LoadModule { module: module.clone() };
                    self.stage(Stage::HostPrep).paths.push(step);
                }
                // A kernel without loadable modules may well have it built in; the component
                // that needs it says so if not.
                Some(ModuleFact::Unknown) | None => {}
            }
        }
        let is_new = self.facts.record.is_none();
        for (key, value) in &self.state.sysctls {
            let now = self.facts.sysctls.get(key);
            let is_right =
                now.is_some_and(|now| now.split_whitespace().eq(value.split_whitespace()));
            // Settings move each other: one that was right before anything was done may be another
            // one when the rest is taken back.
            if let Some(now) = now.filter(|_| is_new || !is_right) {
                self.claimed.sysctls.entry(key.clone()).or_insert_with(|| now.clone());
            }
            if is_right {
                continue;
            }
            let (key, to) = (key.clone(), value.clone());
            let from = now.cloned();
            self.changes.push(Change::Sysctl { key: key.clone(), from, to: to.clone() });
            self.stage(Stage::HostPrep).paths.push(Step::Sysctl { key, value: to });
        }
    }

    fn images(&mut self) {
        for image in &self.state.images {
            let there = self.facts.images.get(&image.reference);
            let same = there.is_some_and(|id| {
                let loaded = self.facts.loaded.get(&image.reference);
                *id == image.id
                    || loaded.is_some_and(|l| l.archive == image.archive.sha256 && l.id == *id)
            });
            if same {
                continue;
            }
            if there.is_none() {
                self.claimed.images.insert(image.reference.clone());
            }
            let (reference, archive) = (image.reference.clone(), image.archive.sha256);
            self.uploads.insert(archive, Upload::Blob(image.archive.clone()));
            let len = image.archive.len;
            self.changes.push(Change::Image { reference: reference.clone(), len });
            let steps = self.stage(Stage::HostPrep);
            steps.images.push(Step::LoadImage { reference, archive });
        }
    }

    fn unit(&mut self, unit: &UnitState) {
        let unknown = UnitFact::default();
        let fact = self.facts.units.get(&unit.name).unwrap_or(&unknown);
        if self.claimed.unit(&unit.name).is_none() {
            self.claimed.units.push(OwnedUnit {
                name: unit.name.clone(),
                existed: !matches!(fact.load.as_str(), "" | "not-found"),
                active: fact.active == "active",
                enabled: fact.enablement == "enabled",
            });
        }
        if fact.needs_reload {
            self.stage(unit.stage).reload = true;
        }
        let name = unit.name.clone();
        if unit.enabled && !fact.is_enabled() {
            self.unit_change(&name, UnitAction::Enable, BTreeSet::new());
            self.stage(unit.stage).enables.push(name.clone());
        } else if !unit.enabled && fact.enablement == "enabled" {
            self.unit_change(&name, UnitAction::Disable, BTreeSet::new());
            self.stage(unit.stage).units.push(Step::Disable { unit: name.clone() });
        }
        let because: BTreeSet<_> = unit.inputs.intersection(&self.touched).cloned().collect();
        let wanted = inputs::digest(self.state, unit);
        let stale = wanted.is_some() && self.facts.started.get(&name) != wanted.as_ref();
        let active = fact.active == "active";
        if active && because.is_empty() && !stale {
            return;
        }
        let action = if active { UnitAction::Restart } else { UnitAction::Start };
        self.unit_change(&name, action, because);
        self.forgets.push(Step::Forget { unit: name.clone() });
        let steps = self.stage(unit.stage);
        steps.interrupts |= active;
        steps.units.push(Step::Restart { unit: name.clone() });
        if let Some(inputs) = wanted {
            steps.units.push(Step::MarkStarted { unit: name.clone(), inputs });
        }
        steps.gates.push((name, unit.health.clone()));
    }

    pub(super) fn unit_change(
        &mut self,
        unit: &str,
        action: UnitAction,
        because: BTreeSet<String>,
    ) {
        self.changes.push(Change::Unit { unit: unit.to_owned(), action, because });
    }

    pub(super) fn stage(&mut self, stage: Stage) -> &mut StageSteps {
        self.stages.entry(stage).or_default()
    }

    /// Puts the claim before everything and the final record after everything.
    fn assemble(mut self) -> HostPlan {
        let before = self.finished.generation;
        self.finished.generation += 1;
        let mut batches: BTreeMap<_, _> =
            self.stages.into_iter().map(|(stage, steps)| (stage, steps.batch())).collect();
        let known = self.facts.record.as_ref();
        let claims = known.is_none_or(|record| !record.owns_the_same(&self.claimed));
        let settles = known.is_none_or(|record| !record.owns_the_same(&self.finished));
        let works = !self.stops.is_empty() || !self.removals.is_empty();
        let staged = self.facts.staged || !self.uploads.is_empty();
        if !batches.is_empty() || works || claims || settles || self.facts.staged {
            if self.changes.is_empty() {
                self.changes.push(Change::Record);
            }
            let mut first = self.backups;
            if claims {
                first.push(Step::WriteRecord { record: Box::new(self.claimed) });
            }
            first.append(&mut self.forgets);
            first.append(&mut self.stops);
            let batch = batches.entry(Stage::HostPrep).or_default();
            first.append(&mut batch.steps);
            batch.steps = first;
            let mut last = batches.last_entry().expect("the first stage has just been entered");
            let steps = &mut last.get_mut().steps;
            steps.append(&mut self.removals);
            steps.push(Step::WriteRecord { record: Box::new(self.finished) });
            // Secrets lie there: what a run that was killed has sent goes with the next one.
            if staged {
                steps.push(Step::ClearStaging);
            }
        }
        HostPlan {
            host: self.state.host.clone(),
            generation: before + u64::from(!batches.is_empty()),
            changes: self.changes,
            batches,
            uploads: self.uploads,
            warnings: self.warnings,
        }
    }
}

/// The container engine, where one is needed: it must run and start at boot. It is the host's
/// own, so nothing that kprov installs ever restarts it.
fn engine() -> UnitState {
    UnitState {
        name: ENGINE.to_owned(),
        enabled: true,
        stage: Stage::HostPrep,
        inputs: BTreeSet::new(),
        health: Gate::Active,
    }
}

impl StageSteps {
    fn batch(self) -> Batch {
        let Self { mut paths, packages, reload, firewall, enables, .. } = self;
        let Self { units, images, gates, interrupts, .. } = self;
        paths.extend(packages);
        let enables = enables.into_iter();
        if reload {
            paths.extend(enables.map(|unit| Step::EnableQuietly { unit }));
            paths.push(Step::Reload);
        } else {
            paths.extend(enables.map(|unit| Step::Enable { unit }));
        }
        paths.extend(firewall);
        paths.extend(units);
        paths.extend(images);
        Batch { steps: paths, gates, interrupts }
    }
}

fn file_action(file: &FileState, fact: Option<&PathFact>) -> Option<Action> {
    match fact {
        None => Some(Action::Create),
        Some(PathFact::File { mode, owner, sha256, .. })
            if *sha256 == Some(file.content.digest()) =>
        {
            ((*mode, owner) != (file.mode, &file.owner)).then_some(Action::Attributes)
        }
        Some(_) => Some(Action::Update),
    }
}

fn upload(content: &Content) -> Upload {
    match content {
        Content::Blob(blob) => Upload::Blob(blob.clone()),
        text => Upload::Content(text.clone()),
    }
}

/// Whether systemd reads this file.
pub(super) fn is_unit_file(path: &str) -> bool {
    const DIRECTORIES: [&str; 3] = ["/etc/systemd/system/", "/usr/lib/systemd/", "/lib/systemd/"];
    DIRECTORIES.iter().any(|directory| path.starts_with(directory))
}
