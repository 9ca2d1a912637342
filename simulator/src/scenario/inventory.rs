//! The nodes of a cluster from the file that `kprov` applies: simulate it before you provision it.
//!
//! Only what a simulation needs is read: names, roles, labels, taints and `max_pods`, with ranges,
//! groups and defaults. The rest of the file is left to `kprov validate`, which says more about
//! mistakes; that both read the same is tested. An inventory does not know how large its hosts
//! are: the scenario's `[inventory]` does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::diagnostics::Problem;
use super::nodes::NodeGroup;
use super::section::Section;
use super::shapes::{self, Catalogue};
use crate::distribution::Distribution;
use crate::plan::NodeShape;

/// The label with the zone of a node.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Hosts that one range may stand for, as in kprov.
const RANGE_MAX: usize = 5_000;

/// What a simulation needs of an inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// How many masters there are: each has an API server, a scheduler and a controller manager.
    pub masters: usize,
    /// The hosts that run pods, by name.
    pub nodes: BTreeMap<String, InventoryNode>,
}

/// A host that runs pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryNode {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// Pods that it may run.
    pub pods: u32,
    /// The groups that it is in.
    pub groups: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    defaults: Settings,
    #[serde(default)]
    groups: BTreeMap<String, Group>,
    #[serde(default)]
    hosts: Vec<Host>,
}

#[derive(Clone, Default, Deserialize)]
struct Settings {
    roles: Option<BTreeSet<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    taints: Vec<String>,
    max_pods: Option<u32>,
}

#[derive(Deserialize)]
struct Group {
    hosts: Vec<String>,
    address_first: Option<String>,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Deserialize)]
struct Host {
    name: String,
    #[serde(flatten)]
    settings: Settings,
}

impl Inventory {
    /// Reads the text of an inventory.
    ///
    /// # Errors
    /// What is wrong with it, with line and column where they are known.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |s| s.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            format!("{line}:{column}: {}", error.message())
        })?;
        let mut own: BTreeMap<String, Settings> = BTreeMap::new();
        let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, group) in &document.groups {
            for pattern in &group.hosts {
                for host in expand(pattern)? {
                    if group.address_first.is_some() {
                        own.insert(host.clone(), Settings::default());
                    }
                    groups.entry(host).or_default().push(name);
                }
            }
        }
        for host in &document.hosts {
            if own.insert(host.name.clone(), host.settings.clone()).is_some() {
                return Err(format!("two hosts are called `{}`", host.name));
            }
        }
        if let Some(unknown) = groups.keys().find(|name| !own.contains_key(*name)) {
            return Err(format!("a group has an unknown host `{unknown}`"));
        }
        let mut inventory = Self::default();
        for (name, settings) in own {
            let groups = groups.remove(&name).unwrap_or_default();
            inventory.host(&document, name, &settings, &groups)?;
        }
        Ok(inventory)
    }

    fn host(
        &mut self,
        document: &Document,
        name: String,
        own: &Settings,
        groups: &[&str],
    ) -> Result<(), String> {
        let of_groups: Vec<&Settings> = groups
            .iter()
            .filter_map(|group| document.groups.get(*group))
            .map(|group| &group.settings)
            .collect();
        let together: BTreeSet<&String> =
            of_groups.iter().filter_map(|s| s.roles.as_ref()).flatten().collect();
        let roles = match (&own.roles, &document.defaults.roles) {
            (Some(roles), _) => roles.iter().collect(),
            (None, _) if of_groups.iter().any(|s| s.roles.is_some()) => together,
            (None, Some(roles)) => roles.iter().collect(),
            (None, None) => BTreeSet::new(),
        };
        let has = |role: &str| roles.iter().any(|r| *r == role);
        if roles.is_empty() {
            return Err(format!("`{name}` has no roles"));
        }
        if let Some(other) =
            roles.iter().find(|r| !["etcd", "master", "node"].contains(&r.as_str()))
        {
            return Err(format!("`{other}` of `{name}` is no role"));
        }
        self.masters += usize::from(has("master"));
        if !has("node") {
            return Ok(());
        }
        // From the farthest to the nearest.
        let layers = || {
            std::iter::once(&document.defaults)
                .chain(of_groups.iter().rev().copied())
                .chain(std::iter::once(own))
        };
        let mut node = InventoryNode {
            pods: 110,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..InventoryNode::default()
        };
        let mut taints: BTreeMap<(String, String), String> = BTreeMap::new();
        for layer in layers() {
            node.labels.extend(layer.labels.clone());
            for text in &layer.taints {
                let (key, value, effect) =
                    taint(text).ok_or_else(|| format!("`{text}` of `{name}` is no taint"))?;
                taints.insert((key, effect), value);
            }
            node.pods = layer.max_pods.unwrap_or(node.pods);
        }
        let taint = |((key, effect), value)| (key, value, effect);
        node.taints = taints.into_iter().map(taint).collect();
        self.nodes.insert(name, node);
        Ok(())
    }
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
fn taint(text: &str) -> Option<(String, String, String)> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    Some((key.to_owned(), value.to_owned(), effect.to_owned()))
}

/// The names that a pattern stands for: `node-[01-40]`, `rack-[a,b]-[1-3]`.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{pattern}` is no range of hosts");
    let Some((before, rest)) = pattern.split_once('[') else {
        return if pattern.contains(']') { Err(wrong()) } else { Ok(vec![pattern.to_owned()]) };
    };
    let (inside, after) = rest.split_once(']').ok_or_else(wrong)?;
    if before.contains(']') || inside.contains('[') {
        return Err(wrong());
    }
    let rests = expand(after)?;
    let mut names = Vec::new();
    for item in inside.split(',').map(str::trim) {
        for middle in item_names(item).ok_or_else(wrong)? {
            names.extend(rests.iter().map(|rest| format!("{before}{middle}{rest}")));
            if names.len() > RANGE_MAX {
                return Err(format!("`{pattern}` stands for more than {RANGE_MAX} hosts"));
            }
        }
    }
    Ok(names)
}

/// A word, or the numbers of a range with their zeros.
fn item_names(item: &str) -> Option<Vec<String>> {
    if item.is_empty() {
        return None;
    }
    let Some((first, last)) = item.split_once('-') else { return Some(vec![item.to_owned()]) };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<usize>().ok() } else { None }
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to || to - from > RANGE_MAX {
        return None;
    }
    let padded = first.starts_with('0') || last.starts_with('0');
    let width = if padded { first.len() } else { 0 };
    Some((from..=to).map(|n| format!("{n:0width$}")).collect())
}

/// An inventory and how large its hosts are, as a scenario says it.
pub(crate) struct Hardware {
    pub(crate) inventory: Inventory,
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
    let refuse = |why: String| {
        let message = format!("{}: {why}", file.display());
        let problem = Problem::error(place.clone(), message).label("the inventory");
        let help = format!("`kprov validate {}` tells all that is wrong", file.display());
        root.report(problem.help(help));
    };
    let text = std::fs::read_to_string(&file).map_err(|e| refuse(format!("cannot be read: {e}")));
    let inventory = Inventory::parse(&text.ok()?).map_err(refuse).ok()?;
    let sizes = Sizes::read(section.as_ref(), &inventory);
    let groups = inventory.nodes.iter().map(|(name, node)| {
        let mut labels = node.labels.clone();
        let shape = NodeShape {
            zone: labels.remove(ZONE).unwrap_or_default(),
            labels,
            taints: node.taints.clone(),
            pods: node.pods,
            ..sizes.of(name, node)
        };
        NodeGroup {
            name: name.clone(),
            first: 0,
            count: 1,
            shapes: vec![known.intern(shape)],
            joins: Distribution::default(),
            place: place.clone(),
        }
    });
    let groups = groups.collect();
    Some(Hardware { inventory, groups })
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
        let groups: BTreeSet<&str> =
            inventory.nodes.values().flat_map(|n| &n.groups).map(String::as_str).collect();
        let hosts: BTreeSet<&str> = inventory.nodes.keys().map(String::as_str).collect();
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

    fn of(&self, name: &str, node: &InventoryNode) -> NodeShape {
        let of_group = || node.groups.iter().find_map(|group| self.groups.get(group));
        self.hosts.get(name).or_else(of_group).unwrap_or(&self.all).clone()
    }
}
