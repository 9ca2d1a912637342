//! [`Check`]: a property that must hold in every run, and what it looks at.

use std::collections::{BTreeMap, BTreeSet};

use api::{Key, Kind, Object, Request, Revision, Status, Time};
use kubelet::naming;
use kubelet::runtime::ContainerState;
use machine::{Report, WatchEvent};
use scheduler::shadow::Difference;
use serde::{Deserialize, Serialize};

use crate::plan::{Component, Fault, Plan};
use crate::world::{ProcessId, World};

/// Something that happened, told to every check right after it did.
#[derive(Clone, Copy, Debug)]
pub enum Occurrence<'a> {
    /// A write went into the store.
    Committed {
        /// Who wrote; `None` for users and for what the world itself does.
        by: Option<ProcessId>,
        /// What was asked.
        request: &'a Request,
        /// The object that changed.
        key: &'a Key,
        /// Its state before.
        old: Option<&'a Object>,
        /// Its state now.
        new: Option<&'a Object>,
        /// The revision of the write.
        revision: Revision,
    },
    /// The API server lets a user evict a pod: its writes follow.
    EvictionGranted {
        /// The pod.
        pod: &'a Key,
    },
    /// A call was refused or changed nothing.
    Answered {
        /// Who asked.
        by: Option<ProcessId>,
        /// What was asked.
        request: &'a Request,
        /// The refusal; `None` when nothing had to be written.
        refusal: Option<&'a Status>,
    },
    /// A process sent a call.
    Called {
        /// The process.
        by: ProcessId,
        /// The call.
        request: &'a Request,
    },
    /// A watch delivered, just before the process acts on it.
    Delivered {
        /// To whom.
        to: ProcessId,
        /// What.
        event: &'a WatchEvent,
    },
    /// A process started, for the first time or anew.
    Started(ProcessId),
    /// A process died.
    Crashed(ProcessId),
    /// A fault begins.
    FaultBegan(&'a Fault),
    /// A fault is over.
    FaultEnded(&'a Fault),
    /// All faults are healed: the liveness phase begins.
    Healed,
    /// A process told people something.
    Recorded {
        /// The process.
        by: ProcessId,
        /// What it told.
        report: &'a Report,
    },
}

impl<'a> Occurrence<'a> {
    /// The pod that a controller manager has just said to delete, without asking for anything
    /// else: controllers give their pods up so. Garbage collection says how to go on, and who
    /// removes pods of nodes that are gone, or judges a pod by its state, says that.
    pub fn pod_given_up(&self, cluster: &dyn Cluster) -> Option<(ProcessId, &'a Key)> {
        let Occurrence::Called {
            by,
            request:
                Request::Delete { key, revision: None, grace_seconds: None, propagation: None, .. },
        } = self
        else {
            return None;
        };
        let given_up = key.kind == Kind::Pod && cluster.role(*by) == Role::ControllerManager;
        given_up.then_some((*by, key))
    }
}

/// A property of the cluster. One struct each, in `checks/`.
pub trait Check: Send + CloneCheck {
    /// Its number in the catalogue, `P9`.
    fn property(&self) -> &'static str;

    /// What it says, in one line.
    fn statement(&self) -> &'static str;

    /// Looks at what has just happened; says in `found` what is wrong, if anything.
    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    );

    /// Looks at the cluster at rest, after the faults were healed and the writes have ceased.
    ///
    /// Also called when the time for coming to rest is over without rest; see
    /// [`Cluster::is_at_rest`].
    fn at_rest(&mut self, _cluster: &dyn Cluster, _found: &mut Vec<String>) {}
}

/// Copies a check behind a pointer, so that worlds can be copied. Every check that is `Clone` has
/// it.
pub trait CloneCheck {
    /// A copy of its own.
    fn boxed_clone(&self) -> Box<dyn Check>;
}

impl<T: Check + Clone + 'static> CloneCheck for T {
    fn boxed_clone(&self) -> Box<dyn Check> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Check> {
    fn clone(&self) -> Self {
        // Not that of the box, which would never end.
        (**self).boxed_clone()
    }
}

/// What a process does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It assigns pods to nodes.
    Scheduler,
    /// It runs the controllers.
    ControllerManager,
    /// It runs the pods of a node.
    Kubelet,
}

/// What checks may look at: the [`World`], or a made-up cluster in the tests of the checks.
pub trait Cluster {
    /// The present, in virtual time.
    fn now(&self) -> Time;

    /// What is run.
    fn plan(&self) -> &Plan;

    /// An object as committed.
    fn object(&self, key: &Key) -> Option<&Object>;

    /// All objects of a kind as committed, in the order of their keys.
    fn objects(&self, kind: Kind) -> Box<dyn Iterator<Item = &Object> + '_>;

    /// The processes that are up.
    fn processes(&self) -> Vec<ProcessId>;

    /// What a process does.
    fn role(&self, process: ProcessId) -> Role;

    /// The process as plans name it.
    fn component(&self, process: ProcessId) -> Component;

    /// Whether nothing but heartbeats was written for as long as the plan asks.
    fn is_at_rest(&self) -> bool;

    /// What a controller manager itself knows of an object, before it acts on what is delivered.
    fn known(&self, manager: ProcessId, key: &Key) -> Option<&Object>;

    /// Everything of a kind that a controller manager itself knows; `None` when it does not watch
    /// the kind.
    fn all_known(&self, manager: ProcessId, kind: Kind) -> Option<Vec<&Object>>;

    /// The pods that a scheduler counts on each node, those among them that it only assumes, and
    /// those that are gone.
    fn placements(&self, scheduler: ProcessId) -> Option<BTreeMap<String, BTreeSet<Key>>>;

    /// How many decisions of a scheduler were compared with the reference, and the first of those
    /// that differ; `None` when they are not compared.
    fn compared(&self, scheduler: ProcessId) -> Option<(u64, &[Difference])>;

    /// UIDs of the pods that have a running container on a node, pause containers left aside.
    fn running_pods(&self, node: &str) -> BTreeSet<String>;
}

impl Cluster for World {
    fn now(&self) -> Time {
        Self::now(self)
    }

    fn plan(&self) -> &Plan {
        Self::plan(self)
    }

    fn object(&self, key: &Key) -> Option<&Object> {
        Self::object(self, key)
    }

    fn objects(&self, kind: Kind) -> Box<dyn Iterator<Item = &Object> + '_> {
        Box::new(Self::objects(self, kind))
    }

    fn processes(&self) -> Vec<ProcessId> {
        Self::processes(self).filter(|p| self.is_up(*p)).collect()
    }

    fn role(&self, process: ProcessId) -> Role {
        let settings = &Self::plan(self).settings;
        let schedulers = usize::from(settings.schedulers);
        let managers = usize::from(settings.controller_managers);
        match process.index() {
            i if i < schedulers => Role::Scheduler,
            i if i < schedulers + managers => Role::ControllerManager,
            _ => Role::Kubelet,
        }
    }

    fn component(&self, process: ProcessId) -> Component {
        Self::component(self, process)
    }

    fn is_at_rest(&self) -> bool {
        Self::now(self).since(self.last_write()) >= Self::plan(self).settings.quiet.duration()
    }

    fn known(&self, manager: ProcessId, key: &Key) -> Option<&Object> {
        self.controller_manager(manager)?.cache().object(key)
    }

    fn all_known(&self, manager: ProcessId, kind: Kind) -> Option<Vec<&Object>> {
        let cache = self.controller_manager(manager)?.cache();
        cache.synced([kind]).then(|| cache.objects(kind).collect())
    }

    fn placements(&self, scheduler: ProcessId) -> Option<BTreeMap<String, BTreeSet<Key>>> {
        let snapshot = self.scheduler(scheduler)?.snapshot();
        // Those among them that there are not any more.
        let pods = |node: &str| snapshot.pods_of(node).cloned().collect();
        let placements = snapshot.nodes().map(|n| (n.name.to_string(), pods(&n.name)));
        Some(placements.collect())
    }

    fn compared(&self, scheduler: ProcessId) -> Option<(u64, &[Difference])> {
        let shadow = self.scheduler(scheduler)?.shadow()?;
        Some((shadow.compared(), shadow.differences()))
    }

    fn running_pods(&self, node: &str) -> BTreeSet<String> {
        let component = Component::Kubelet(node.to_owned());
        let kubelet = Self::processes(self).find(|p| Self::component(self, *p) == component);
        let containers = kubelet.and_then(|k| self.runtime(k)).into_iter();
        containers
            .flat_map(kubelet::container_runtime::ContainerRuntime::containers)
            .filter(|c| c.state == ContainerState::Running && c.container != naming::SANDBOX)
            .map(|c| c.pod_uid.to_owned())
            .collect()
    }
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The property's number, `P9`.
    pub property: String,
    /// When, in virtual time.
    pub at: Time,
    /// After which event of the run.
    pub event: u64,
    /// What is wrong.
    pub message: String,
}
