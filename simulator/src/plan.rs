//! [`Plan`]: everything that happens in one run from outside, spelled out: nodes, operations and
//! faults with their times. The same plan and seed give the same run.
//!
//! Scenarios are expanded into plans; shrinking takes things out of plans; a plan is written as a
//! scenario file that replays it.

mod cron;
mod limits;
mod load;
mod operation;
mod template;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::cron::{Concurrency, CronJob};
pub use self::limits::{LimitRange, Quota};
pub use self::load::{Autoscaler, Load, Loads};
pub(crate) use self::operation::DRAIN_TIMEOUT;
pub use self::operation::{Budget, Operation, PlannedOperation, Target};
pub use self::template::{BY_NODE, Neighbours, PodTemplate, Spread};
use crate::bug::Bug;
use crate::distribution::Distribution;
use crate::span::Span;

/// One run, fully determined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The scenario's name.
    pub name: String,
    /// Everything random in the run derives from it.
    pub seed: u64,
    /// How the cluster is made and how long it runs.
    pub settings: Settings,
    /// What nodes are like, by index.
    #[serde(default)]
    pub shapes: Vec<NodeShape>,
    /// The nodes.
    #[serde(default)]
    pub nodes: Vec<PlannedNode>,
    /// What pods are like, by index.
    #[serde(default)]
    pub templates: Vec<PodTemplate>,
    /// What users do, in the order of their times.
    #[serde(default)]
    pub operations: Vec<PlannedOperation>,
    /// What goes wrong, in the order of their times.
    #[serde(default)]
    pub faults: Vec<PlannedFault>,
}

/// How the cluster is made and how long it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long operations and faults go on.
    pub safety: Span,
    /// How long after that, with all faults healed, the cluster may take to come to rest.
    pub settle: Span,
    /// How long it must then be silent.
    pub quiet: Span,
    /// API servers over the one store.
    pub api_servers: u16,
    /// Scheduler processes.
    pub schedulers: u16,
    /// Controller manager processes.
    pub controller_managers: u16,
    /// Whether schedulers and controller managers act only while they hold their lease.
    pub leader_election: bool,
    /// How long messages and calls take.
    pub network: Network,
    /// How long containers take.
    pub runtime: Runtime,
    /// How the scheduler is configured.
    pub scheduler: SchedulerSettings,
    /// Whether heartbeats of healthy nodes are computed when somebody looks, instead of sent.
    pub lazy_heartbeats: bool,
    /// Whether events for people are stored as objects; they are counted in any case.
    pub store_events: bool,
    /// Whether every effect goes into the hash with all its content, not only with its names.
    pub hash_contents: bool,
    /// A known bug to put back.
    pub bug: Option<Bug>,
    /// Properties (`P9`) that are not checked.
    pub unchecked: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            safety: Span::secs(600),
            settle: Span::secs(900),
            quiet: Span::secs(60),
            api_servers: 1,
            schedulers: 1,
            controller_managers: 1,
            leader_election: true,
            network: Network::default(),
            runtime: Runtime::default(),
            scheduler: SchedulerSettings::default(),
            lazy_heartbeats: true,
            store_events: false,
            hash_contents: false,
            bug: None,
            unchecked: Vec::new(),
        }
    }
}

/// How long messages and calls take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// One way between the control plane's processes and an API server.
    pub control_plane: Distribution,
    /// One way between a node and an API server.
    pub nodes: Distribution,
    /// From a write in the store until an API server's watch cache has it.
    pub store: Distribution,
    /// What an API server takes to carry out a call, the store included.
    pub service: Distribution,
}

impl Default for Network {
    fn default() -> Self {
        let skewed = |median, p99| Distribution::Skewed { median, p99 };
        Self {
            control_plane: skewed(Span::micros(150), Span::millis(2)),
            nodes: skewed(Span::micros(300), Span::millis(5)),
            store: skewed(Span::micros(300), Span::millis(3)),
            service: skewed(Span::millis(1), Span::millis(10)),
        }
    }
}

/// What is left of a draw's range beyond which it is not waited for: one message in 65,536.
const RARE: u64 = u64::MAX >> 16;

impl Network {
    /// What each part adds to [`Self::reaction`], by its name in a scenario.
    pub fn shares(&self) -> [(&'static str, Span); 4] {
        let longest = |delay: &Distribution, times: u64| {
            Span(delay.quantile(u64::MAX - RARE).0.saturating_mul(times))
        };
        [
            ("control_plane", longest(&self.control_plane, 4)),
            ("nodes", longest(&self.nodes, 4)),
            ("store", longest(&self.store, 1)),
            ("service", longest(&self.service, 2)),
        ]
    }

    /// How long it takes at most until a write is answered by another one: somebody hears of it,
    /// asks something, and writes. Of the two kinds of links the slower one counts. One message in
    /// 65,536 may take longer, since some distributions have hardly an end.
    pub fn reaction(&self) -> Span {
        let [(_, control_plane), (_, nodes), (_, store), (_, service)] = self.shares();
        let link = control_plane.max(nodes);
        Span(link.0.saturating_add(store.0).saturating_add(service.0))
    }
}

/// How long containers take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Creating and starting a pause container.
    pub sandbox_start: Distribution,
    /// Creating and starting a container.
    pub container_start: Distribution,
    /// Ending a container that obeys.
    pub stop: Distribution,
    /// Fetching an image that is not on the node.
    pub pull: Distribution,
    /// Anything else.
    pub other: Distribution,
}

impl Default for Runtime {
    fn default() -> Self {
        let skewed = |median, p99| Distribution::Skewed { median, p99 };
        Self {
            sandbox_start: skewed(Span::millis(120), Span::millis(600)),
            container_start: skewed(Span::millis(100), Span::millis(500)),
            stop: skewed(Span::millis(50), Span::millis(400)),
            pull: skewed(Span::secs(2), Span::secs(30)),
            other: skewed(Span::millis(2), Span::millis(20)),
        }
    }
}

/// How the scheduler is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSettings {
    /// Share of the nodes to look at, in percent; adaptive when absent.
    pub percentage_of_nodes_to_score: Option<usize>,
    /// `LeastAllocated` (the default) or `MostAllocated`.
    pub fit_strategy: Option<String>,
    /// Weights of plugins that differ from the default, by name.
    pub weights: BTreeMap<String, i64>,
    /// Plugins that are left out, by name.
    pub disabled: Vec<String>,
    /// Plugins beyond the default set that act, by name.
    pub enabled: Vec<String>,
}

/// What a node is like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeShape {
    /// Thousandths of a CPU; rounded down to whole CPUs by the kubelet's capacity.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Pods that fit.
    pub pods: u32,
    /// `topology.kubernetes.io/zone`, empty for none.
    pub zone: String,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// Taints it registers with: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// Other resources it offers, by name.
    pub extended: BTreeMap<String, u64>,
}

impl Default for NodeShape {
    fn default() -> Self {
        Self {
            cpu_milli: 8_000,
            memory_bytes: 32 << 30,
            pods: 110,
            zone: String::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            extended: BTreeMap::new(),
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// Index into [`Plan::shapes`].
    pub shape: u32,
    /// When its host starts.
    #[serde(default)]
    pub joins: Span,
}

/// A process of the simulated cluster, written `scheduler-0`, `controller-manager-1`,
/// `api-server-0`, `kubelet/NODE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// An API server.
    ApiServer(u16),
    /// A scheduler.
    Scheduler(u16),
    /// A controller manager.
    ControllerManager(u16),
    /// The kubelet of a node.
    Kubelet(String),
}

impl Display for Component {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiServer(i) => write!(f, "api-server-{i}"),
            Self::Scheduler(i) => write!(f, "scheduler-{i}"),
            Self::ControllerManager(i) => write!(f, "controller-manager-{i}"),
            Self::Kubelet(node) => write!(f, "kubelet/{node}"),
        }
    }
}

/// Why a text names no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no component: write \"api-server-0\", \"scheduler-0\", \"controller-manager-0\" or \
     \"kubelet/NODE\""
)]
pub struct ComponentError(String);

impl FromStr for Component {
    type Err = ComponentError;

    fn from_str(text: &str) -> Result<Self, ComponentError> {
        if let Some(node) = text.strip_prefix("kubelet/").filter(|n| !n.is_empty()) {
            return Ok(Self::Kubelet(node.to_owned()));
        }
        let index = |prefix: &str| text.strip_prefix(prefix).and_then(|i| i.parse().ok());
        index("api-server-")
            .map(Self::ApiServer)
            .or_else(|| index("scheduler-").map(Self::Scheduler))
            .or_else(|| index("controller-manager-").map(Self::ControllerManager))
            .ok_or_else(|| ComponentError(text.to_owned()))
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Something that goes wrong at a time, for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFault {
    /// When it begins, from the start of the run.
    pub at: Span,
    /// How long it lasts; until all faults are healed when absent. Faults that are over at once
    /// (a watch that breaks) ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Span>,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Which messages a partition swallows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// Calls do not arrive; watches go on.
    ToServer,
    /// Calls arrive, answers and watches do not.
    FromServer,
}

/// What becomes of calls whose answers are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// They never were carried out.
    Lost,
    /// They were carried out.
    CarriedOut,
    /// They are carried out after the caller was told that the outcome is unknown.
    CarriedOutLate,
    /// They are refused with `Timeout`: a known outcome.
    Refused,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// A host dies with its containers and its kubelet; it boots again afterwards.
    HostCrash {
        /// The node.
        node: String,
    },
    /// A process dies and starts anew afterwards (at once when it lasts no time).
    Crash {
        /// The process.
        component: Component,
    },
    /// A process dies right after its n-th call from now on was sent, and starts anew afterwards.
    CrashAtCall {
        /// The process.
        component: Component,
        /// 1 for the next call.
        call: u32,
    },
    /// A process stands still and then goes on as if nothing had been.
    Pause {
        /// The process.
        component: Component,
    },
    /// Messages between a process and API servers are lost.
    Partition {
        /// The process.
        component: Component,
        /// From this API server only; from all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_server: Option<u16>,
        /// Which messages.
        #[serde(default)]
        direction: Direction,
    },
    /// Messages of a process take longer; since each call is delayed by itself, calls overtake
    /// each other.
    Delay {
        /// The process.
        component: Component,
        /// To and from this API server only; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_server: Option<u16>,
        /// How much longer.
        extra: Distribution,
    },
    /// Some of a process' calls get no answer.
    CallTimeout {
        /// The process.
        component: Component,
        /// How many of a hundred.
        percent: u8,
        /// What becomes of them.
        outcome: Outcome,
    },
    /// Some of what a process' watches deliver is delivered twice.
    Duplicate {
        /// The process.
        component: Component,
        /// By this API server only; by all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_server: Option<u16>,
        /// How many of a hundred.
        percent: u8,
    },
    /// Some messages between a process and API servers are lost. Of a call that is lost, or whose
    /// answer is, the outcome stays unknown; what a watch loses is sent again, and what follows it
    /// waits, for a watch is one stream.
    Loss {
        /// The process.
        component: Component,
        /// To and from this API server only; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_server: Option<u16>,
        /// Which messages.
        #[serde(default)]
        direction: Direction,
        /// How many of a hundred.
        percent: u8,
    },
    /// Some messages between a process and API servers are held back while later ones come
    /// through: calls overtake each other, and so do the watches of different kinds. The events of
    /// one watch stay in order.
    Reorder {
        /// The process.
        component: Component,
        /// To and from this API server only; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_server: Option<u16>,
        /// How many of a hundred.
        percent: u8,
        /// How long they are held back at most.
        by: Span,
    },
    /// A process' watches deliver nothing and then everything.
    WatchStall {
        /// The process.
        component: Component,
    },
    /// A process' watches break for so long that no API server knows where they were any more: it
    /// lists anew after it lasted, and of what happened meanwhile sees only the last state of each
    /// object.
    WatchGap {
        /// The process.
        component: Component,
    },
    /// A process' watches break, and go on after it lasted from what they told last: nothing is
    /// missed.
    WatchBreak {
        /// The process.
        component: Component,
    },
    /// What a process' watches tell comes in batches, and of each object only the last of a batch:
    /// of one that came and went that it is gone.
    WatchCoalescing {
        /// The process.
        component: Component,
        /// The time between two batches.
        period: Span,
    },
    /// A process' watches end with `410 Gone`: it lists anew.
    WatchExpired {
        /// The process.
        component: Component,
    },
    /// An API server's watch cache falls behind the store: watches through it are late, and lists
    /// wait until it has caught up, for production asks for no others ([`Bug::AnyListAccepted`],
    /// [`Bug::StaleServerTrusted`]).
    LaggingServer {
        /// The API server.
        api_server: u16,
        /// How far it falls behind.
        lag: Span,
    },
    /// An API server's watch cache falls behind, as with [`Fault::LaggingServer`], and answers the
    /// lists of schedulers and controller managers from it, as Kubernetes' answers lists of any
    /// revision: nobody is shown an older state than it saw in its life, but one that starts may be
    /// shown one from before. Reads of single objects and revisions stay fresh, and so do the lists
    /// of kubelets: see [`Bug::AnyListAccepted`].
    StaleReads {
        /// The API server.
        api_server: u16,
        /// How far it falls behind.
        lag: Span,
    },
    /// The store accepts no writes.
    StoreDown,
    /// Somebody else writes all objects of a kind again and again.
    ConflictStorm {
        /// The kind.
        target: Target,
        /// The time between two rounds.
        period: Span,
    },
    /// A process' clock is off.
    ClockSkew {
        /// The process.
        component: Component,
        /// How far it is ahead.
        ahead: Span,
    },
    /// A process' clock is set back. One that starts meanwhile reads the earlier time; one that
    /// runs sees its clock stand still until the time comes that it had already shown.
    ClockBehind {
        /// The process.
        component: Component,
        /// How far it is behind.
        behind: Span,
    },
    /// Some requests to a node's container runtime fail.
    RuntimeErrors {
        /// The node.
        node: String,
        /// How many of a hundred.
        percent: u8,
    },
    /// A node's container runtime does not answer.
    RuntimeDown {
        /// The node.
        node: String,
    },
    /// Everything a node's container runtime does takes longer.
    SlowDisk {
        /// The node.
        node: String,
        /// How many times longer.
        factor: u32,
    },
}

impl Fault {
    /// Whether watches go on, or lists begin, where the store was: it must remember.
    pub(crate) const fn reads_past(&self) -> bool {
        matches!(
            self,
            Self::StaleReads { .. }
                | Self::WatchBreak { .. }
                | Self::Crash { component: Component::ApiServer(_) }
        )
    }

    /// Whose clock it sets wrong, and how far.
    pub const fn skews(&self) -> Option<(&Component, Span)> {
        match self {
            Self::ClockSkew { component, ahead: off }
            | Self::ClockBehind { component, behind: off } => Some((component, *off)),
            _ => None,
        }
    }

    /// The one API server whose messages it is about, if it is about those of one alone.
    pub const fn api_server(&self) -> Option<u16> {
        match self {
            Self::Partition { api_server, .. }
            | Self::Delay { api_server, .. }
            | Self::Duplicate { api_server, .. }
            | Self::Loss { api_server, .. }
            | Self::Reorder { api_server, .. } => *api_server,
            _ => None,
        }
    }
}

impl Plan {
    /// An operation and its time, for people: `scale Deployment/default/web at 30s`.
    pub fn titled(&self, operation: u32) -> String {
        let planned = &self.operations[operation as usize];
        format!("{} at {}", planned.operation, planned.at)
    }

    /// The end of the phase in which operations and faults happen.
    pub const fn heals_at(&self) -> Span {
        self.settings.safety
    }

    /// The end of the run at the latest.
    pub const fn ends_at(&self) -> Span {
        let settings = &self.settings;
        Span(settings.safety.0 + settings.settle.0 + settings.quiet.0)
    }

    /// Operations and faults in the order of their times; what is equal stays in its order.
    pub fn sort(&mut self) {
        self.operations.sort_by_key(|o| o.at);
        self.faults.sort_by_key(|f| f.at);
    }
}
