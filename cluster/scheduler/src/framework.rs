//! The extension points: what a plugin is asked, when, and what its answers mean.
//!
//! For every pod the cycle asks each plugin for `filter`, node by node, until a plugin rejects,
//! and then for its scores of the nodes that passed. A plugin says what its answers depend on, so
//! that answers can be kept while that does not change: see [`Filtering`] and [`Scoring`].

use crate::node_info::NodeInfo;
use crate::pod_info::PodClass;
use crate::relations::Constraint;
use crate::snapshot::Snapshot;
use crate::survey::Survey;

/// A plugin's opinion of a node: 0 (worst) to 100 (best).
pub type Score = i64;

/// The best score of one plugin.
pub const SCORE_MAX: Score = 100;

/// Whether a node can take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As far as this plugin is concerned, yes.
    Fit,
    /// No.
    Reject {
        /// Why, as `FailedScheduling` counts it; several reasons for several shortages.
        reasons: Vec<String>,
        /// Whether evicting pods from the node could help.
        resolvable: bool,
    },
}

impl Verdict {
    /// A rejection that no eviction can change.
    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self::Reject { reasons: vec![reason.into()], resolvable: false }
    }
}

/// What can change in the cluster that might let a rejected pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClusterEvent {
    /// A node joined.
    NodeAdded,
    /// A node left.
    NodeGone,
    /// A node's allocatable resources changed.
    NodeAllocatable,
    /// A node's labels changed.
    NodeLabels,
    /// A node's taints, or whether it is cordoned, changed.
    NodeTaints,
    /// A pod left a node, or asks for less.
    PodGone,
    /// A claim, a volume or a class of them changed.
    Storage,
    /// A node may have more volumes of a driver than before.
    VolumeLimits,
    /// A pod with claims left a node.
    ClaimsGone,
    /// A pod came to a node, or came to have other labels there. It may help those that have to
    /// do with it.
    PeerCame,
    /// A pod left a node, came to have other labels there, or is being deleted. It may help those
    /// that have to do with it.
    PeerLeft,
    /// The labels of a namespace changed. It may help those that have to do with its pods.
    NamespaceLabels,
    /// What pods without spread constraints spread by changed. It may help those pods.
    Selectors,
    /// Whatever happens: pods that an extender refused wait for this, for nobody knows what it goes
    /// by. It comes last.
    Anything,
}

impl ClusterEvent {
    /// Whether it depends on a pod's relations whether this may help it.
    pub const fn is_particular(self) -> bool {
        matches!(self, Self::PeerCame | Self::PeerLeft | Self::NamespaceLabels | Self::Selectors)
    }
}

/// What a plugin's `filter` depends on, besides the pod's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// It rejects nothing.
    Never,
    /// The node's name, labels, taints, images, and whether it is cordoned.
    ByProperties,
    /// Those, what the node can take, and the pods on it.
    ByLoad,
    /// All pods, where they are, and the labels and taints of nodes: `filter_among` tells. Such
    /// plugins come after all others in a profile.
    ByPods,
}

/// How a plugin scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// It does not.
    Never,
    /// Each node by itself, by `score`: by the pod's class, what the node can take and what is on
    /// it.
    Alone,
    /// Each node compared with the others that passed: `traits` measures it, `compare` turns
    /// the measures of all into scores.
    Compared,
    /// By all pods and where they are: `score_among` tells.
    ByPods,
}

/// How the plugins of a profile look at other pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relating {
    /// How pods are spread, if they are.
    pub spread: Option<Spreading>,
    /// How affinity to pods is honoured, if it is.
    pub affinity: Option<Attraction>,
}

/// How pods are spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Spreading {
    /// The constraints of pods that have none; their selectors come from services and controllers.
    pub defaults: Vec<Constraint>,
    /// Whether a node that lacks a key of the defaults is as good as the others for the rest.
    pub lacking_allowed: bool,
    /// Whether nodes are rejected for it.
    pub filters: bool,
    /// The weight of the scores; zero if they do not count.
    pub weight: i64,
}

/// How affinity to pods is honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attraction {
    /// What a required term of a pod that is there weighs for a new one.
    pub hard_weight: i64,
    /// Whether preferences of pods that are there do not count for a new one that has none.
    pub ignores_existing: bool,
    /// Whether nodes are rejected for it.
    pub filters: bool,
    /// The weight of the scores; zero if they do not count.
    pub weight: i64,
}

impl Relating {
    /// The constraints of pods that have none.
    pub fn defaults(&self) -> &[Constraint] {
        self.spread.as_ref().map(|spread| spread.defaults.as_slice()).unwrap_or_default()
    }

    /// Whether a constraint counts: for a hard one nodes have to be rejected.
    pub(crate) fn honors(&self, constraint: &Constraint) -> bool {
        self.spread.as_ref().is_some_and(|spread| spread.filters || !constraint.hard)
    }

    /// Whether required terms of affinity count.
    pub(crate) fn requires(&self) -> bool {
        self.affinity.as_ref().is_some_and(|affinity| affinity.filters)
    }
}

/// A scheduling plugin. All methods are pure.
pub trait Plugin: Send + Sync {
    /// The name in configurations and diagnoses.
    fn name(&self) -> &'static str;

    /// The weight of its scores where the configuration names no other.
    fn weight(&self) -> i64 {
        0
    }

    /// The events after which a pod that this plugin rejected is worth another attempt.
    fn events(&self) -> &'static [ClusterEvent] {
        &[]
    }

    /// What `filter` depends on.
    fn filtering(&self) -> Filtering {
        Filtering::Never
    }

    /// Whether `node` can take a pod of this class.
    fn filter(&self, _pod: &PodClass, _node: &NodeInfo) -> Verdict {
        Verdict::Fit
    }

    /// Whether `filter` lets the node pass; for plugins that can tell faster than why not.
    fn fits(&self, pod: &PodClass, node: &NodeInfo) -> bool {
        self.filter(pod, node) == Verdict::Fit
    }

    /// Which of the following methods have the scores.
    fn scoring(&self) -> Scoring {
        Scoring::Never
    }

    /// The score of one node that passed, 0..=100.
    fn score(&self, _pod: &PodClass, _node: &NodeInfo) -> Score {
        0
    }

    /// Appends what `compare` needs to know of a node: always as many values for one class. They
    /// depend on the class and on what [`Filtering::ByProperties`] allows.
    fn traits(&self, _pod: &PodClass, _node: &NodeInfo, _out: &mut Vec<i64>) {}

    /// Scores, 0..=100, of the nodes that passed, by their traits (`[nodes]`, same order); none
    /// if the plugin has no opinion. A score depends on which traits there are, not on their
    /// order, nor on how many nodes have them.
    fn compare(&self, _pod: &PodClass, _traits: &[&[i64]], _all: &Snapshot) -> Vec<Score> {
        Vec::new()
    }

    /// Whether `node` can take the pod that the survey is about.
    fn filter_among(&self, _survey: &Survey, _node: &NodeInfo) -> Verdict {
        Verdict::Fit
    }

    /// Scores, 0..=100, of the nodes that passed (`[nodes]`, same order); none if the plugin has
    /// no opinion.
    fn score_among(&self, _survey: &Survey, _nodes: &[u32]) -> Vec<Score> {
        Vec::new()
    }

    /// Tells how it looks at other pods, if it does; `filters` says whether it may reject nodes.
    fn relate(&self, _weight: i64, _filters: bool, _relating: &mut Relating) {}
}

/// A plugin with the weight that it has in a profile.
pub struct Enabled {
    /// The plugin.
    pub plugin: Box<dyn Plugin>,
    /// Its scores are multiplied with this; zero if they do not count.
    pub weight: i64,
    /// How the plugin scores in this profile: never, without a weight.
    pub scoring: Scoring,
    /// What its `filter` depends on; on nothing, if it is not asked in this profile.
    pub filtering: Filtering,
}

impl Enabled {
    /// Gives a plugin a weight, and says whether it may reject nodes.
    pub fn new(plugin: Box<dyn Plugin>, weight: i64, filters: bool) -> Self {
        let scoring = if weight > 0 { plugin.scoring() } else { Scoring::Never };
        let filtering = if filters { plugin.filtering() } else { Filtering::Never };
        Self { filtering, scoring, weight, plugin }
    }
}

/// Scales scores so that the highest becomes 100; all zero stay zero (or become 100 when
/// `reverse`).
pub fn normalize(scores: &mut [Score], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if most == 0 { 0 } else { *score * SCORE_MAX / most };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}

/// `part * scale / whole`, rounded towards zero, without overflow; `whole` is not zero.
pub(crate) fn share(part: i64, scale: i64, whole: i64) -> i64 {
    match part.checked_mul(scale) {
        // One narrow division takes a fraction of the time of a wide one.
        Some(product) => product / whole,
        None => {
            let wide = i128::from(part) * i128::from(scale) / i128::from(whole);
            i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
        }
    }
}
