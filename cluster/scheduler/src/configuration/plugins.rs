//! Which plugins a profile has, where they act, and with which weights.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Problems;
use crate::profile::{ProfileConfig, WEIGHT_MAX};

/// Where a plugin can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ExtensionPoint {
    /// Before a filter looks at nodes.
    PreFilter,
    /// Whether a node can take a pod.
    Filter,
    /// When no node can.
    PostFilter,
    /// When a node was chosen.
    Reserve,
    /// Before nodes are scored.
    PreScore,
    /// How good a node is.
    Score,
    /// Before a pod is bound.
    PreBind,
    /// The binding.
    Bind,
    /// After it.
    PostBind,
    /// Whether a binding may begin.
    Permit,
    /// Whether a pod may be tried at all.
    PreEnqueue,
    /// Which pod is first.
    QueueSort,
}

use ExtensionPoint::{
    Bind, Filter, Permit, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore,
    QueueSort, Reserve, Score,
};

impl ExtensionPoint {
    /// All, in the order in which Kubernetes looks at them.
    const ALL: [Self; 12] = [
        PreFilter, Filter, PostFilter, Reserve, PreScore, Score, PreBind, Bind, PostBind, Permit,
        PreEnqueue, QueueSort,
    ];

    /// The field of a file.
    const fn field(self) -> &'static str {
        match self {
            PreFilter => "preFilter",
            Filter => "filter",
            PostFilter => "postFilter",
            Reserve => "reserve",
            PreScore => "preScore",
            Score => "score",
            PreBind => "preBind",
            Bind => "bind",
            PostBind => "postBind",
            Permit => "permit",
            PreEnqueue => "preEnqueue",
            QueueSort => "queueSort",
        }
    }

    /// What Kubernetes calls plugins that act there.
    fn plugin_type(self) -> String {
        let field = self.field();
        format!("{}{}Plugin", field[..1].to_uppercase(), &field[1..])
    }
}

/// A plugin that there is.
pub(crate) struct Known {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its weight where nothing else is said; none for plugins that do not score.
    pub(crate) weight: i64,
    /// Whether it is beyond the default set, and does nothing unless it is enabled.
    pub(crate) extra: bool,
    points: &'static [ExtensionPoint],
}

impl Known {
    /// The plugin of that name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    fn acts_at(&self, point: ExtensionPoint) -> bool {
        self.points.contains(&point)
    }
}

const fn known(name: &'static str, weight: i64, points: &'static [ExtensionPoint]) -> Known {
    Known { name, weight, extra: false, points }
}

const fn extra(name: &'static str, points: &'static [ExtensionPoint]) -> Known {
    Known { extra: true, ..known(name, 0, points) }
}

/// The plugins of the default set, in its order, and those beyond it. Those for volumes have nothing to do in a
/// cluster without persistent volumes, and can be named all the same.
pub(super) const KNOWN: &[Known] = &[
    known("SchedulingGates", 0, &[PreEnqueue]),
    known("PrioritySort", 0, &[QueueSort]),
    known("NodeUnschedulable", 0, &[Filter]),
    known("NodeName", 0, &[Filter]),
    known("TaintToleration", 3, &[Filter, PreScore, Score]),
    known("NodeAffinity", 2, &[PreFilter, Filter, PreScore, Score]),
    known("NodePorts", 0, &[PreFilter, Filter]),
    known("NodeResourcesFit", 1, &[PreFilter, Filter, PreScore, Score]),
    known("VolumeRestrictions", 0, &[PreFilter, Filter]),
    known("NodeVolumeLimits", 0, &[PreFilter, Filter]),
    known("VolumeBinding", 1, &[PreFilter, Filter, Reserve, PreBind, PreScore, Score]),
    known("VolumeZone", 0, &[PreFilter, Filter]),
    known("PodTopologySpread", 2, &[PreFilter, Filter, PreScore, Score]),
    known("InterPodAffinity", 2, &[PreFilter, Filter, PreScore, Score]),
    known("DefaultPreemption", 0, &[PostFilter, PreEnqueue]),
    known("NodeResourcesBalancedAllocation", 1, &[PreScore, Score]),
    known("ImageLocality", 1, &[Score]),
    known("DefaultBinder", 0, &[Bind]),
    extra("Coscheduling", &[PreFilter, Permit]),
];

/// Plugins that earlier versions had.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

pub(super) fn is_removed(name: &str) -> bool {
    REMOVED.contains(&name)
}

pub(super) fn removed(name: &str) -> String {
    let version = super::API_VERSION;
    format!(
        "Invalid value: {name:?}: was invalid in version {version:?} (KubeSchedulerConfiguration \
         is version {version:?})"
    )
}

/// Names all plugins.
pub(crate) fn known_names() -> String {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", ")
}

/// A plugin in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    name: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    weight: i64,
}

const fn is_zero(weight: &i64) -> bool {
    *weight == 0
}

/// What is done to the default set at one extension point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PluginSet {
    enabled: Vec<Named>,
    disabled: Vec<Named>,
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|plugin| plugin.name == name)
    }

    fn disables_all(&self) -> bool {
        self.disables("*")
    }
}

/// `plugins` of a profile, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Plugins {
    multi_point: PluginSet,
    pre_enqueue: PluginSet,
    queue_sort: PluginSet,
    pre_filter: PluginSet,
    filter: PluginSet,
    post_filter: PluginSet,
    pre_score: PluginSet,
    score: PluginSet,
    reserve: PluginSet,
    permit: PluginSet,
    pre_bind: PluginSet,
    bind: PluginSet,
    post_bind: PluginSet,
}

impl Plugins {
    const fn at(&self, point: ExtensionPoint) -> &PluginSet {
        match point {
            PreFilter => &self.pre_filter,
            Filter => &self.filter,
            PostFilter => &self.post_filter,
            Reserve => &self.reserve,
            PreScore => &self.pre_score,
            Score => &self.score,
            PreBind => &self.pre_bind,
            Bind => &self.bind,
            PostBind => &self.post_bind,
            Permit => &self.permit,
            PreEnqueue => &self.pre_enqueue,
            QueueSort => &self.queue_sort,
        }
    }

    fn sets(&self) -> impl Iterator<Item = (&'static str, &PluginSet)> {
        let points = ExtensionPoint::ALL.map(|point| (point.field(), self.at(point)));
        std::iter::once(("multiPoint", &self.multi_point)).chain(points)
    }

    /// Names what is disabled and does not exist: Kubernetes accepts that, for files that shall
    /// do for several versions.
    pub(super) fn remarks(&self, path: &str) -> Vec<String> {
        let mut remarks = Vec::new();
        for (field, set) in self.sets() {
            for plugin in &set.disabled {
                let name = plugin.name.as_str();
                if name != "*" && Known::named(name).is_none() {
                    remarks.push(format!(
                        "{path}.plugins.{field} disables {name:?}, which does not exist; there \
                         are {}",
                        known_names()
                    ));
                }
            }
        }
        remarks
    }

    /// Lays these over the default set.
    pub(super) fn merge(&self, path: &str, profile: &str, problems: &mut Problems) -> Merged {
        self.check_names(path, profile, problems);
        let multi_point = self.multi_point();
        let mut active = BTreeMap::new();
        for point in ExtensionPoint::ALL {
            let set = self.at(point);
            let expanded = multi_point.iter().map(|plugin| plugin.name.as_str());
            let expanded = expanded.filter(|name| {
                !set.disables_all()
                    && !set.disables(name)
                    && Known::named(name).is_some_and(|known| known.acts_at(point))
            });
            let explicit = set.enabled.iter().map(|plugin| plugin.name.as_str());
            let names: BTreeSet<String> = expanded.chain(explicit).map(str::to_owned).collect();
            active.insert(point, names);
        }
        let merged = Merged { multi_point, given: self.clone(), active };
        merged.check(path, profile, problems);
        merged
    }

    /// The default set with what is enabled and disabled everywhere.
    fn multi_point(&self) -> Vec<Named> {
        let custom = &self.multi_point;
        let mut replaced = BTreeSet::new();
        let mut merged = Vec::new();
        for known in KNOWN.iter().filter(|known| !known.extra) {
            if custom.disables_all() || custom.disables(known.name) {
                continue;
            }
            // The last of several counts, and the others are told as double.
            let own = custom.enabled.iter().rposition(|plugin| plugin.name == known.name);
            merged.push(match own {
                Some(at) => {
                    replaced.insert(at);
                    custom.enabled[at].clone()
                }
                None => Named { name: known.name.to_owned(), weight: known.weight },
            });
        }
        let others = custom.enabled.iter().enumerate();
        let others = others.filter(|(at, _)| !replaced.contains(at));
        merged.extend(others.map(|(_, plugin)| plugin.clone()));
        merged
    }

    fn check_names(&self, path: &str, profile: &str, problems: &mut Problems) {
        for (field, set) in self.sets() {
            let point = ExtensionPoint::ALL.into_iter().find(|point| point.field() == field);
            for (i, plugin) in set.enabled.iter().enumerate() {
                let name = plugin.name.as_str();
                let at = format!("{path}.plugins.{field}.enabled[{i}]");
                if !(0..=WEIGHT_MAX).contains(&plugin.weight) {
                    let detail = format!("must be between 0 and {WEIGHT_MAX}");
                    problems.invalid(&format!("{at}.weight"), plugin.weight, &detail);
                }
                if is_removed(name) {
                    problems.say(format!("{at}: {}", removed(name)));
                    continue;
                }
                let fail = |what: String| {
                    format!("{at}: creating profile for scheduler name {profile}: {what}")
                };
                let Some(known) = Known::named(name) else {
                    let kind = point.unwrap_or(PreFilter).plugin_type();
                    problems.say(fail(format!(
                        "{kind} {name:?} does not exist; there are {}",
                        known_names()
                    )));
                    continue;
                };
                let kind = point.unwrap_or(known.points[0]).plugin_type();
                if point.is_some_and(|point| !known.acts_at(point)) {
                    problems.say(fail(format!("plugin {name:?} does not extend {kind} plugin")));
                }
                if set.enabled[..i].iter().any(|other| other.name == name) {
                    problems.say(fail(format!("plugin {name:?} already registered as {kind:?}")));
                }
            }
        }
    }
}

/// The plugins of a profile, over the default set.
pub(super) struct Merged {
    multi_point: Vec<Named>,
    given: Plugins,
    active: BTreeMap<ExtensionPoint, BTreeSet<String>>,
}

impl Merged {
    fn is_active(&self, point: ExtensionPoint, name: &str) -> bool {
        self.active[&point].contains(name)
    }

    fn check(&self, path: &str, profile: &str, problems: &mut Problems) {
        let sorts = self.active[&QueueSort].len();
        if sorts != 1 {
            problems.say(format!(
                "{path}.plugins: only one queue sort plugin required for profile with scheduler \
                 name {profile:?}, but got {sorts}"
            ));
        }
        if self.active[&Bind].is_empty() {
            problems.say(format!(
                "{path}.plugins: at least one bind plugin is needed for profile with scheduler \
                 name {profile:?}"
            ));
        }
        for (before, point) in [(PreFilter, Filter), (PreScore, Score)] {
            let halves = self.active[&point].iter().filter(|name| {
                !self.is_active(before, name)
                    && Known::named(name).is_some_and(|known| known.acts_at(before))
            });
            for name in halves {
                let detail = format!(
                    "is disabled at {} and not at {}, which needs it",
                    before.field(),
                    point.field()
                );
                problems.invalid(&format!("{path}.plugins.{}", before.field()), name, &detail);
            }
        }
    }

    /// The weight of a plugin's scores: what is said where it scores counts before what is said
    /// of it everywhere, and zero stands for one.
    fn weight(&self, name: &str) -> i64 {
        let lists = self.given.score.enabled.iter().chain(&self.multi_point);
        let given = lists.filter(|plugin| plugin.name == name).map(|plugin| plugin.weight).next();
        given.filter(|weight| *weight != 0).unwrap_or(1)
    }

    /// The profile, as far as it follows from this.
    pub(super) fn config(&self, name: String) -> ProfileConfig {
        let mut config = ProfileConfig { name, ..ProfileConfig::default() };
        for known in KNOWN {
            let name = known.name.to_owned();
            // Of a plugin that can make room, it is that which counts.
            let deciding: &[ExtensionPoint] =
                if known.acts_at(PostFilter) { &[PostFilter] } else { known.points };
            if !deciding.iter().any(|point| self.is_active(*point, known.name)) {
                if !known.extra {
                    config.disabled.push(name);
                }
                continue;
            }
            if known.extra {
                config.enabled.push(name.clone());
            }
            if known.acts_at(Filter) && !self.is_active(Filter, known.name) {
                config.unfiltered.push(name.clone());
            }
            if known.acts_at(Score) {
                let scores = self.is_active(Score, known.name);
                let weight = if scores { self.weight(known.name) } else { 0 };
                if weight != known.weight {
                    config.weights.insert(name, weight);
                }
            }
        }
        config
    }

    /// What a file says that leaves nothing out.
    pub(super) fn complete(&self) -> Value {
        let all = Named { name: "*".to_owned(), weight: 0 };
        let mut value = json!({
            "multiPoint": PluginSet { enabled: self.multi_point.clone(), disabled: vec![all] },
        });
        for point in ExtensionPoint::ALL {
            let set = self.given.at(point);
            if *set != PluginSet::default() {
                value[point.field()] = json!(set);
            }
        }
        value
    }
}

/// All profiles share one queue, and have to agree on its order.
pub(super) fn common_queue_sort<'a>(
    profiles: impl Iterator<Item = &'a Plugins>,
    problems: &mut Problems,
) {
    let mut first = None;
    for (i, plugins) in profiles.enumerate() {
        let first = *first.get_or_insert(&plugins.queue_sort);
        if *first != plugins.queue_sort {
            let named: Vec<&str> =
                plugins.queue_sort.enabled.iter().map(|plugin| plugin.name.as_str()).collect();
            let path = format!("profiles[{i}].plugins.queueSort");
            problems.invalid(&path, named, "must be the same for all profiles");
        }
    }
}
