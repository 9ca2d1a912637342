//! Known bugs, put back at the boundary of the process that had them.
//!
//! Production has no code for this, and the machines are production's. A [`Blunder`] stands
//! between a machine and the world: the machine is told what the component with the bug would
//! have understood, or what the component would have sent is sent in its place. Bugs that amount
//! to a setting of production are put back where the machine is made.

mod leases;
mod placing;
mod preempting;
mod reconciling;
mod running;
mod scheduling;
mod serving;
mod sets;
mod working;

use api::{ApiError, Object, Reply, Revision};
use controllers::node_lifecycle::NodeLifecycle;
use machine::{ApiEffect, ApiInput, CallId, Reconciler, WatchEvent};

pub(super) use self::serving::Serving;
use super::process::{Input, Program, Running};
use crate::bug::Bug;

/// What one process in one life understands wrongly or does wrongly.
pub(super) trait Blunder: Send + CloneBlunder {
    /// Gives the machine something to act on, in order, in place of what has come.
    fn hears(&mut self, _machine: &Running, input: Input, told: &mut Vec<Input>) {
        told.push(input);
    }

    /// Changes what the machine says before it is sent.
    fn says(&mut self, _effect: &mut ApiEffect) {}
}

/// Copies a blunder behind a pointer, so that worlds can be copied.
pub(super) trait CloneBlunder {
    /// A copy of its own.
    fn boxed_clone(&self) -> Box<dyn Blunder>;
}

impl<T: Blunder + Clone + 'static> CloneBlunder for T {
    fn boxed_clone(&self) -> Box<dyn Blunder> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Blunder> {
    fn clone(&self) -> Self {
        // Not that of the box, which would never end.
        (**self).boxed_clone()
    }
}

/// The blunder of a process of that program, if the bug is one of its and not a mere setting.
pub(super) fn blunder(bug: Bug, program: Program) -> Option<Box<dyn Blunder>> {
    match program {
        Program::ControllerManager(_) => Some(match bug {
            Bug::RecreationUnnoticed => Box::<reconciling::RecreationUnnoticed>::default(),
            Bug::StaleEndpointsCompared => Box::<reconciling::StaleEndpointsCompared>::default(),
            Bug::AbsenceBelieved => Box::new(reconciling::AbsenceBelieved),
            Bug::CollisionUnresolved => Box::<reconciling::CollisionUnresolved>::default(),
            Bug::SilenceOfAllBelieved => Box::<reconciling::SilenceOfAllBelieved>::default(),
            Bug::LostRenewalIgnored => Box::<leases::LostRenewalIgnored>::default(),
            Bug::UnknownCreationAwaited => Box::<reconciling::UnknownCreationAwaited>::default(),
            Bug::DeletionUnobserved => Box::new(reconciling::DeletionUnobserved),
            Bug::JobPodsDoubled => Box::new(sets::JobPodsDoubled::new()),
            Bug::DaemonPodsDoubled => Box::new(sets::NamesDrawn::of("DaemonSet")),
            Bug::BudgetOverwritten => Box::new(sets::BudgetOverwritten),
            Bug::EarlierPodForgotten => Box::new(sets::EarlierPodForgotten),
            Bug::ParallelismUnlimited => Box::new(sets::ParallelismUnlimited),
            Bug::NodeTimeBelieved => Box::new(sets::NodeTimeBelieved),
            Bug::CountOfThisLife => Box::<sets::CountOfThisLife>::default(),
            Bug::RanksReversed => Box::new(working::RanksReversed::new()),
            Bug::ScaledToTheFull => Box::new(working::ScaledToTheFull::new()),
            Bug::CronJobsDoubled => Box::new(working::CronJobsDoubled),
            Bug::OwnersUnseen => Box::new(working::OwnersUnseen),
            Bug::SurgeCounted => Box::new(working::SurgeCounted::new()),
            Bug::KeptFromStart => Box::new(working::KeptFromStart),
            _ => return None,
        }),
        Program::Scheduler(_) => Some(match bug {
            Bug::UnknownBindingForgotten => Box::<scheduling::UnknownBindingForgotten>::default(),
            Bug::StaleFeasibility => Box::<scheduling::StaleFeasibility>::default(),
            Bug::EventLostInCycle => Box::<scheduling::EventLostInCycle>::default(),
            Bug::RetriesBlockQueue => Box::<scheduling::RetriesBlockQueue>::default(),
            Bug::PromisesOfOthersUnknown => Box::new(preempting::OwnPodsOnly::of(program)),
            Bug::HeldBackForGood => Box::<preempting::HeldBackForGood>::default(),
            Bug::EndingPodsCounted => Box::new(scheduling::EndingPodsCounted),
            Bug::LabelsRemembered => Box::<placing::LabelsRemembered>::default(),
            Bug::SymmetryForgotten => Box::new(placing::SymmetryForgotten),
            Bug::EndedPodsCounted => Box::new(placing::EndedPodsCounted),
            Bug::PortsForgotten => Box::new(placing::PortsForgotten),
            Bug::GroupsUnknown => Box::new(placing::GroupsUnknown),
            Bug::PolicyIgnored => Box::new(placing::PolicyIgnored),
            Bug::PromisesForgotten => Box::<placing::PromisesForgotten>::default(),
            Bug::EndsUnobserved => Box::<placing::EndsUnobserved>::default(),
            Bug::VolumesTakenForFree => Box::new(placing::VolumesTakenForFree),
            _ => return None,
        }),
        Program::Kubelet(_) => Some(match bug {
            Bug::EndsForgotten => Box::new(running::EndsForgotten),
            _ => return None,
        }),
    }
}

/// After which revision a watch goes on that was told all up to `told`.
pub(super) fn goes_on_after(bug: Option<Bug>, told: Revision) -> Revision {
    /// Some more writes than one object has in its life.
    const REWOUND: u64 = 64;
    match bug {
        Some(Bug::WatchRewound) => Revision(told.0.saturating_sub(REWOUND)),
        _ => told,
    }
}

/// Whether a watch that goes on tells of what was missed.
pub(super) fn is_told(bug: Option<Bug>, missed: &WatchEvent) -> bool {
    bug != Some(Bug::DeletionsUntold) || !matches!(missed, WatchEvent::Deleted { .. })
}

/// Makes zones as if they were never disrupted, however many of their nodes are silent.
pub(super) fn ignore_zone_threshold(reconcilers: &mut [Box<dyn Reconciler>]) {
    const NEVER: u8 = 101;
    let lifecycle = || Box::new(NodeLifecycle::new(NEVER));
    let name = lifecycle().name();
    for reconciler in reconcilers.iter_mut().filter(|r| r.name() == name) {
        *reconciler = lifecycle();
    }
}

/// The objects that a watch brings, to be changed.
fn objects(input: &mut Input) -> &mut [Object] {
    match input {
        Input::Api(ApiInput::Watch(WatchEvent::Changed(object))) => std::slice::from_mut(object),
        Input::Api(ApiInput::Watch(WatchEvent::Replaced { objects, .. })) => objects,
        _ => &mut [],
    }
}

fn watched(event: WatchEvent) -> Input {
    Input::Api(ApiInput::Watch(event))
}

fn answered(id: CallId, result: Result<Reply, ApiError>) -> Input {
    Input::Api(ApiInput::Reply { id, result })
}
