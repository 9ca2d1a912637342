//! Which fault it is this time.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{FaultRate, Victims};
use crate::distribution::Distribution;
use crate::plan::{
    Component, Direction, Fault, Operation, Outcome, Plan, PlannedOperation, Target,
};
use crate::span::Span;

/// Whether the kind strikes processes that can be chosen.
pub(super) fn has_victims(kind: &str) -> bool {
    !victims(kind).is_empty()
}

/// What a kind strikes unless something else is said.
pub(super) fn victims(kind: &str) -> Vec<Victims> {
    let classes: &[usize] = match kind {
        "crash" => &[0, 1, 2, 3],
        // These have clients, watches and clocks that matter.
        "crash-at-call" | "pause" | "partition" | "delay" | "call-timeout" | "duplicate"
        | "loss" | "reorder" | "watch-stall" | "watch-gap" | "watch-expired" | "watch-break"
        | "watch-coalescing" | "clock-skew" | "clock-behind" => &[1, 2, 3],
        _ => &[],
    };
    classes.iter().map(|class| Victims::Class(*class)).collect()
}

/// Whether the kind strikes a share only.
pub(super) fn has_percent(kind: &str) -> bool {
    matches!(kind, "call-timeout" | "duplicate" | "loss" | "reorder" | "runtime-errors")
}

/// The key of the kind's length of time.
pub(super) fn amount_key(kind: &str) -> Option<&'static str> {
    match kind {
        "delay" => Some("extra"),
        "reorder" => Some("by"),
        "lagging-server" | "stale-reads" => Some("lag"),
        "clock-skew" => Some("ahead"),
        "clock-behind" => Some("behind"),
        "conflict-storm" | "watch-coalescing" => Some("period"),
        _ => None,
    }
}

/// What it is unless something else is said.
pub(super) fn amount(kind: &str) -> Distribution {
    let skewed = |median, p99| Distribution::Skewed { median, p99 };
    match kind {
        "delay" => skewed(Span::millis(100), Span::secs(5)),
        "lagging-server" | "stale-reads" => skewed(Span::secs(1), Span::secs(20)),
        "clock-skew" => skewed(Span::secs(1), Span::secs(60)),
        "clock-behind" => skewed(Span::secs(1), Span::secs(20)),
        "reorder" => skewed(Span::millis(200), Span::secs(4)),
        "conflict-storm" | "watch-coalescing" => skewed(Span::millis(200), Span::secs(2)),
        _ => Distribution::default(),
    }
}

/// The key of the kind's number.
pub(super) fn most_key(kind: &str) -> Option<&'static str> {
    match kind {
        "crash-at-call" => Some("call"),
        "slow-disk" => Some("factor"),
        _ => None,
    }
}

/// The largest number unless something else is said.
pub(super) fn most(kind: &str) -> u32 {
    match kind {
        "crash-at-call" => 5,
        "slow-disk" => 50,
        _ => 1,
    }
}

/// How many of a hundred are of one link alone unless something else is said, if the kind has
/// links. (Of partitions it is half of them, always.)
pub(super) fn links(kind: &str) -> Option<u8> {
    match kind {
        "delay" | "duplicate" => Some(0),
        "loss" | "reorder" => Some(50),
        _ => None,
    }
}

impl FaultRate {
    /// Draws the fault that begins at `at`; nothing if there is nothing that it could strike.
    /// Links are drawn by themselves: what else is drawn does not depend on whether there are any.
    pub(super) fn draw(
        &self,
        at: Span,
        plan: &Plan,
        rng: &mut ChaCha8Rng,
        links: &mut ChaCha8Rng,
    ) -> Option<Fault> {
        let servers = plan.settings.api_servers;
        let component = match self.on.as_slice() {
            [] => None,
            on => self::component(&on[rng.random_range(0..on.len())], at, plan, rng),
        };
        let node = node(at, plan, rng);
        let percent = rng.random_range(self.percent.0..=self.percent.1);
        let amount = self.amount.sample(rng);
        let number = rng.random_range(1..=self.most);
        let server = rng.random_range(0..servers.max(1));
        // Half of the partitions cut off all servers.
        let all_servers = servers <= 1 || rng.random_range(0..2) == 0;
        let choice = rng.random_range(0..12_usize);
        let link = self.link(servers, links);
        let direction = [Direction::Both, Direction::ToServer, Direction::FromServer][choice % 3];
        Some(match self.kind {
            "host-crash" => Fault::HostCrash { node: node? },
            "crash" => Fault::Crash { component: component? },
            "crash-at-call" => Fault::CrashAtCall { component: component?, call: number },
            "pause" => Fault::Pause { component: component? },
            "partition" => Fault::Partition {
                component: component?,
                api_server: (!all_servers).then_some(server),
                direction,
            },
            // Twice what was drawn at most, half of it in the mean.
            "delay" => Fault::Delay {
                component: component?,
                api_server: link,
                extra: Distribution::Uniform { min: Span::ZERO, max: amount },
            },
            "call-timeout" => Fault::CallTimeout {
                component: component?,
                percent,
                outcome: [
                    Outcome::Lost,
                    Outcome::CarriedOut,
                    Outcome::CarriedOutLate,
                    Outcome::Refused,
                ][choice % 4],
            },
            "duplicate" => Fault::Duplicate { component: component?, api_server: link, percent },
            "loss" => Fault::Loss { component: component?, api_server: link, direction, percent },
            "reorder" => {
                Fault::Reorder { component: component?, api_server: link, percent, by: amount }
            }
            "watch-stall" => Fault::WatchStall { component: component? },
            "watch-gap" => Fault::WatchGap { component: component? },
            "watch-expired" => Fault::WatchExpired { component: component? },
            "watch-break" => Fault::WatchBreak { component: component? },
            "watch-coalescing" => Fault::WatchCoalescing {
                component: component?,
                period: amount.max(Span::millis(10)),
            },
            "stale-reads" => Fault::StaleReads { api_server: server, lag: amount },
            "lagging-server" => Fault::LaggingServer { api_server: server, lag: amount },
            "store-down" => Fault::StoreDown,
            "conflict-storm" => Fault::ConflictStorm {
                target: storm_targets(plan).nth(choice % storm_targets(plan).count())?,
                // A storm needs some time between its rounds.
                period: amount.max(Span::millis(10)),
            },
            "clock-skew" => Fault::ClockSkew { component: component?, ahead: amount },
            "clock-behind" => Fault::ClockBehind { component: component?, behind: amount },
            "runtime-errors" => Fault::RuntimeErrors { node: node?, percent },
            "runtime-down" => Fault::RuntimeDown { node: node? },
            "slow-disk" => Fault::SlowDisk { node: node?, factor: number.saturating_add(1) },
            kind => unreachable!("{kind} is no kind of fault"),
        })
    }

    /// The API server of a fault that is of one link alone.
    fn link(&self, servers: u16, rng: &mut ChaCha8Rng) -> Option<u16> {
        let one = rng.random_range(0..100) < self.links;
        let server = rng.random_range(0..servers.max(1));
        one.then_some(server)
    }
}

/// Kinds that somebody may write again and again: those that are always there, and those of which
/// the plan creates some.
fn storm_targets(plan: &Plan) -> impl Iterator<Item = Target> + '_ {
    const ALWAYS: [Target; 4] = [Target::Pod, Target::Deployment, Target::ReplicaSet, Target::Node];
    const CREATED: [Target; 8] = [
        Target::StatefulSet,
        Target::DaemonSet,
        Target::Job,
        Target::PodDisruptionBudget,
        Target::CronJob,
        Target::HorizontalPodAutoscaler,
        Target::ResourceQuota,
        Target::PersistentVolumeClaim,
    ];
    let creates = |target: &Target| plan.operations.iter().any(|o| created(o) == Some(*target));
    ALWAYS.into_iter().chain(CREATED.into_iter().filter(creates))
}

const fn created(planned: &PlannedOperation) -> Option<Target> {
    match &planned.operation {
        Operation::CreateStatefulSet { .. } => Some(Target::StatefulSet),
        Operation::CreateDaemonSet { .. } => Some(Target::DaemonSet),
        Operation::CreateJob { .. } => Some(Target::Job),
        Operation::CreateBudget(_) => Some(Target::PodDisruptionBudget),
        Operation::CreateCronJob(_) => Some(Target::CronJob),
        Operation::CreateAutoscaler(_) => Some(Target::HorizontalPodAutoscaler),
        Operation::CreateQuota(_) => Some(Target::ResourceQuota),
        Operation::SetClaimPolicy { .. } => Some(Target::PersistentVolumeClaim),
        _ => None,
    }
}

fn component(victims: &Victims, at: Span, plan: &Plan, rng: &mut ChaCha8Rng) -> Option<Component> {
    let settings = &plan.settings;
    let mut one = |count: u16| rng.random_range(0..count.max(1));
    Some(match victims {
        Victims::One(component) => component.clone(),
        Victims::Class(0) => Component::ApiServer(one(settings.api_servers)),
        Victims::Class(1) => Component::Scheduler(one(settings.schedulers)),
        Victims::Class(2) => Component::ControllerManager(one(settings.controller_managers)),
        Victims::Class(_) => Component::Kubelet(node(at, plan, rng)?),
    })
}

/// A node that has joined.
fn node(at: Span, plan: &Plan, rng: &mut ChaCha8Rng) -> Option<String> {
    if plan.nodes.is_empty() {
        return None;
    }
    let node = &plan.nodes[rng.random_range(0..plan.nodes.len())];
    (node.joins <= at).then(|| node.name.clone())
}
