//! [`Bug`]: known bugs of others, put back to show that the checks find them.

use serde::{Deserialize, Serialize};

/// A bug of the known-bug corpus. Each has a scenario of its name in `simulator/scenarios/bugs/`
/// that fails with it and passes without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bug {
    /// A component that starts takes any list, however old, for the present state
    /// (kubernetes#59848).
    AnyListAccepted,
    /// Controllers do not wait until they see their own writes, and make too many pods
    /// (kubernetes#129795).
    NoReadYourWrites,
    /// A replica set that is deleted and made anew while nobody looks is taken for the old one
    /// (kubernetes#69376).
    RecreationUnnoticed,
    /// Endpoints are compared with an old state of themselves, and the difference that comes to
    /// light later is nobody's concern (kubernetes#125638, #127429).
    StaleEndpointsCompared,
    /// The garbage collector takes an owner that its cache does not have yet for one that is gone
    /// (kubernetes#88097, #65200).
    AbsenceBelieved,
    /// A deployment whose replica set's name is taken tries the same name for ever
    /// (kubernetes#29735, #43449).
    CollisionUnresolved,
    /// When most nodes fall silent together, their pods are evicted all the same
    /// (kubernetes#24200, #24597, #28832).
    NoZoneThreshold,
    /// When all nodes fall silent, each is believed to be lost (kubernetes#77864, #105617).
    SilenceOfAllBelieved,
    /// A leader that could not renew its lease goes on acting (kubernetes#89466, #66150).
    LostRenewalIgnored,
    /// Several schedulers act at a time, each on what it has assumed itself (kubernetes#136782).
    SeveralActiveSchedulers,
    /// A binding of unknown outcome counts as one that was not made (kubernetes#26043, #49314).
    UnknownBindingForgotten,
    /// Whether a pod fits on a node is remembered from before the node changed
    /// (kubernetes#62921, #67260).
    StaleFeasibility,
    /// What happens while a pod is being tried wakes nobody (kubernetes#72122, #72925).
    EventLostInCycle,
    /// Heartbeats of nodes have unschedulable pods of high priority tried again and again before
    /// all others (kubernetes#71486, #86373, #106546).
    RetriesBlockQueue,
    /// The creation of a pod whose answer was lost counts as done until the pod is seen
    /// (kubernetes#67662).
    UnknownCreationAwaited,
    /// A list after a gap of the watch adds what is new and does not take away what is gone (of
    /// the class that Sieve calls unobserved state).
    DeletionUnobserved,
    /// A job's controller does not wait until it sees the pods that it has made, and makes them
    /// again under other names (kubernetes#130683).
    JobPodsDoubled,
    /// A daemon set's controller that takes over from another one makes pods of its own for nodes
    /// whose pods it has not seen yet (kubernetes#54096).
    DaemonPodsDoubled,
    /// The status of a budget is written again over what the API server has noted in it meanwhile
    /// (kubernetes#82149).
    BudgetOverwritten,
    /// A stateful set whose later pod is not ready does not notice that an earlier one is gone
    /// (kubernetes#38418, #67250).
    EarlierPodForgotten,
    /// Whoever says nothing of parallelism is given all that there is (kubernetes#27997).
    ParallelismUnlimited,
    /// A controller that was started anew counts only the pods whose readiness it has seen change
    /// (kubernetes#69967, #41697).
    CountOfThisLife,
    /// An eviction is granted on what the budget's controller said last, and not taken from it:
    /// while the controller is down the same allowance is spent again and again (kubernetes#34546).
    AllowanceNotSpent,
    /// How long pods have been ready is reckoned from the time that their nodes wrote, whatever the
    /// clocks of those show (kubernetes#29229).
    NodeTimeBelieved,
    /// Two schedulers act, each for its own pods, and neither knows what the other has promised:
    /// one makes room that the other gives away (kubernetes#130429).
    PromisesOfOthersUnknown,
    /// A pod that makes others give way is held back until that is done, and the end of the last of
    /// them is missed when it comes earlier than the answers (kubernetes#139162).
    HeldBackForGood,
    /// Pods that are being deleted count where pods are to be spread (kubernetes#98215, #105661).
    EndingPodsCounted,
    /// Whoever lists anew takes the watch cache of any API server for the present state
    /// (kubernetes#97294).
    StaleServerTrusted,
    /// The API server carries a binding out without comparing it with what is there: a pod that two
    /// schedulers bind goes from one node to another (of the class of kubernetes#1139).
    BindingUncompared,
    /// A node has the labels with which it was first seen, whatever becomes of them, as results
    /// that were remembered had them (of the class of kubernetes#62921).
    LabelsRemembered,
    /// Only pods that want to be apart are asked whom they keep away, not those that are there.
    SymmetryForgotten,
    /// Pods that have ended count for those that must be near them.
    EndedPodsCounted,
    /// Ports of hosts are free again as soon as their pods are there.
    PortsForgotten,
    /// A pod of a group is bound by itself while the group is not known.
    GroupsUnknown,
    /// That a pod shall displace nobody is not known, as behind a gate that is closed.
    PolicyIgnored,
    /// A pod that waits for others to go is put aside, and what was promised to it is forgotten
    /// meanwhile.
    PromisesForgotten,
    /// A scheduler's list after a gap of the watch adds what is new and does not take away what is
    /// gone.
    EndsUnobserved,
    /// What a scheduler has worked out about nodes outlives it: the next one goes by it, whatever has
    /// become of the nodes meanwhile (of the class of kubernetes#62921).
    RankingsOutlive,
    /// Volumes are free for whoever looks first, as before a controller's cache knows its own writes.
    VolumesTakenForFree,
    /// Of surplus pods those that are of most use go first.
    RanksReversed,
    /// A replica set that grows in the middle of a rollout is given all that is asked for.
    ScaledToTheFull,
    /// Jobs of cron jobs are called by names that are drawn, so that one whose creation had no
    /// answer is made again.
    CronJobsDoubled,
    /// Controllers take pods that others own for orphans, as before there were controller
    /// references.
    OwnersUnseen,
    /// An autoscaler takes the pods that a rollout adds for pods that are wanted
    /// (kubernetes#72775, #98914).
    SurgeCounted,
    /// What is made is charged to quotas only when their controller counts.
    ChargesForgotten,
    /// Admission has not heard of limit ranges.
    LimitRangesUnseen,
    /// How long a job is kept is counted from its start.
    KeptFromStart,
    /// A watch that broke goes on from an older revision than it had come to, and tells again what it
    /// has told (of the class of kubernetes#64209).
    WatchRewound,
    /// A watch that broke goes on without a word of what was deleted meanwhile (etcd#18089,
    /// etcd#19179).
    DeletionsUntold,
    /// Updates are carried out whatever revision they are derived from.
    UpdatesUncompared,
    /// UIDs are made from names: another object of a name has the UID of the one before.
    UidsReused,
    /// A deletion without grace removes what finalizers hold.
    FinalizersIgnored,
    /// A kubelet that starts anew runs pods again that had ended (kubernetes#37447,
    /// openshift/origin#17011).
    EndsForgotten,
}

impl Bug {
    /// Whether API servers answer lists from the past with it, so that the past must be kept.
    pub const fn lists_the_past(self) -> bool {
        matches!(self, Self::AnyListAccepted | Self::StaleServerTrusted)
    }
}
