//! The nodes of a cluster from the file that `kprov` applies: simulate it before you provision it.
//!
//! The file is read as kprov reads it (crate `inventory`), with all its rules; only keys and other
//! files that it names need not be here. An inventory does not know how large its hosts are: the
//! scenario's `[inventory]` does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ::inventory::{Diagnostics, Finding, Host, Inventory, Role, Severity};

use super::diagnostics::Problem;
use super::nodes::NodeGroup;
use super::section::Section;
use super::shapes::{self, Catalogue};
use crate::distribution::Distribution;
use crate::plan::NodeShape;

/// The label with the zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// An inventory and how large its hosts are, as a scenario says it.
pub(crate) struct Hardware {
    /// How many masters there are: each has an API server, a scheduler and a controller manager.
    pub(crate) masters: usize,
    /// The hosts that run pods.
    pub(crate) groups: Vec<NodeGroup>,
}

/// Reads `[inventory]`; `chosen` is the file of the command line, which wins.
pub(crate) fn read(
    root: &Section<'_>,
    dir: &Path,
    chosen: Option<&Path>,
    known: &mut Catalogue<NodeShape>,
) -> Option<Hardware> {
    let section = root.section("inventory");
    let file = section.as_ref().and_then(|s| s.text("file")).map(|file| dir.join(file));
    let place = section.as_ref().map_or(0..0, |s| s.place_of("file"));
    let Some(file) = chosen.map(PathBuf::from).or(file) else {
        if let Some(section) = &section {
            let _ = section.need("file");
        }
        return None;
    };
    let refuse = |why: String, help: String| {
        root.report(Problem::error(place.clone(), why).label("the inventory").help(help));
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            let help = "name an inventory of kprov: inventory/example.toml shows every setting";
            refuse(format!("{}: cannot be read: {error}", file.display()), help.to_owned());
            return None;
        }
    };
    let inventory = match ::inventory::of_text_alone(&file, &text) {
        Ok(inventory) => inventory,
        Err(diagnostics) => {
            for (why, help) in mistakes(&diagnostics) {
                refuse(why, help);
            }
            return None;
        }
    };
    let sizes = Sizes::read(section.as_ref(), &inventory);
    let groups = inventory.with_role(Role::Node).map(|host| {
        let mut labels = host.labels.clone();
        let taints = host.taints.iter();
        let taints = taints.map(|t| (t.key.clone(), t.value.clone(), t.effect.clone()));
        let shape = NodeShape {
            zone: labels.remove(ZONE).unwrap_or_default(),
            labels,
            taints: taints.collect(),
            pods: host.max_pods.into(),
            ..sizes.of(host)
        };
        NodeGroup {
            name: host.name.clone(),
            first: 0,
            count: 1,
            shapes: vec![known.intern(shape)],
            joins: Distribution::default(),
            place: place.clone(),
        }
    });
    let groups = groups.collect();
    Some(Hardware { masters: inventory.with_role(Role::Master).count(), groups })
}

/// What is wrong with an inventory, with file, line and column, and what to do about it.
fn mistakes(diagnostics: &Diagnostics) -> Vec<(String, String)> {
    let errors = diagnostics.findings().into_iter().filter(|f| f.severity == Severity::Error);
    let told = |finding: Finding| {
        let Finding { file, line, column, message, label, help, .. } = finding;
        let label = if label == "here" { String::new() } else { format!(" [{label}]") };
        (format!("{file}:{line}:{column}: {message}{label}"), help.unwrap_or_default())
    };
    errors.map(told).collect()
}

/// How large hosts are: one by one, by group, or all.
struct Sizes {
    all: NodeShape,
    groups: BTreeMap<String, NodeShape>,
    hosts: BTreeMap<String, NodeShape>,
}

impl Sizes {
    fn read(section: Option<&Section<'_>>, inventory: &Inventory) -> Self {
        let mut sizes =
            Self { all: NodeShape::default(), groups: BTreeMap::new(), hosts: BTreeMap::new() };
        let Some(section) = section else { return sizes };
        sizes.all = shapes::hardware(section, &sizes.all);
        let nodes = || inventory.with_role(Role::Node);
        let groups: BTreeSet<&str> = nodes().flat_map(|n| &n.groups).map(String::as_str).collect();
        let hosts: BTreeSet<&str> = nodes().map(|node| node.name.as_str()).collect();
        sizes.groups = Self::table(section, "groups", &sizes.all, &groups);
        sizes.hosts = Self::table(section, "hosts", &sizes.all, &hosts);
        section.finish();
        sizes
    }

    fn table(
        section: &Section<'_>,
        key: &'static str,
        all: &NodeShape,
        known: &BTreeSet<&str>,
    ) -> BTreeMap<String, NodeShape> {
        let Some(table) = section.section(key) else { return BTreeMap::new() };
        let mut shapes = BTreeMap::new();
        for (name, place, value) in table.entries() {
            if !known.contains(name) {
                let message =
                    format!("the inventory has no {} `{name}`", key.trim_end_matches('s'));
                let help = super::suggest::did_you_mean(name, known.iter().copied());
                section.report(Problem::error(place, message).label("not known").help(help));
                continue;
            }
            let Some(own) = value.section() else { continue };
            shapes.insert(name.to_owned(), shapes::hardware(&own, all));
            own.finish();
        }
        shapes
    }

    fn of(&self, host: &Host) -> NodeShape {
        let of_group = || host.groups.iter().find_map(|group| self.groups.get(group));
        self.hosts.get(&host.name).or_else(of_group).unwrap_or(&self.all).clone()
    }
}
