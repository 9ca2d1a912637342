//! [`Desk`]: the profiles of a scheduler, each with what it keeps from decision to decision.
//!
//! Profiles share queue, snapshot, generator and the place where the next search begins, as
//! Kubernetes' do; rankings depend on plugins and are kept by each profile for itself.

use std::sync::Arc;
use std::time::Duration;

use api::Name;
use machine::Backoff;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::cycle::{Choice, Diagnosis};
use crate::extender::{ExtenderConfig, Extenders};
use crate::fast::Fast;
use crate::pod_info::PodInfo;
use crate::profile::{Profile, ProfileConfig, ProfileError};
use crate::snapshot::Snapshot;

/// What a scheduler is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct SchedulerConfig {
    /// Each with a name of its own; pods of others are left to others.
    pub profiles: Vec<ProfileConfig>,
    /// How long a pod waits after its first attempt.
    pub initial_backoff_seconds: u64,
    /// The pause doubles with each attempt, and is never longer than this.
    pub max_backoff_seconds: u64,
    /// Programs that have a say in decisions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extenders: Vec<ExtenderConfig>,
}

/// Source: kubernetes 1.33, `podInitialBackoffSeconds`, `podMaxBackoffSeconds`.
impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            profiles: vec![ProfileConfig::default()],
            initial_backoff_seconds: 1,
            max_backoff_seconds: 10,
            extenders: Vec::new(),
        }
    }
}

/// The number of a profile of a desk.
pub(crate) type ProfileId = usize;

#[derive(Clone)]
struct Seat {
    /// Never changes: copies share it.
    profile: Arc<Profile>,
    /// The profile's name, as events carry it.
    component: Name,
    fast: Fast,
}

/// The profiles of a scheduler, each with what it keeps.
#[derive(Clone)]
pub struct Desk {
    seats: Vec<Seat>,
    extenders: Arc<Extenders>,
    backoff: Backoff,
}

impl Desk {
    /// Makes the profiles that are described.
    ///
    /// # Errors
    /// A profile cannot be made, there is none, or two have the same name.
    pub fn new(config: &SchedulerConfig) -> Result<Self, ProfileError> {
        let mut seats: Vec<Seat> = Vec::with_capacity(config.profiles.len());
        let extenders = Extenders::new(&config.extenders);
        for profile in &config.profiles {
            let mut profile = std::borrow::Cow::Borrowed(profile);
            for ignored in extenders.ignored() {
                profile.to_mut().args.fit.ignored_resources.push(ignored.to_owned());
            }
            let profile = Profile::new(&profile)?;
            if profile.coscheduling.is_some() && !extenders.is_empty() {
                return Err(ProfileError::Together(profile.name));
            }
            if profile.name.is_empty() || seats.iter().any(|s| s.profile.name == profile.name) {
                return Err(ProfileError::Names);
            }
            seats.push(Seat {
                component: Name::new(&profile.name),
                profile: Arc::new(profile),
                // All together keep as much as one would.
                fast: Fast::one_of(config.profiles.len()),
            });
        }
        if seats.is_empty() {
            return Err(ProfileError::Names);
        }
        let backoff = Backoff {
            first: Duration::from_secs(config.initial_backoff_seconds),
            max: Duration::from_secs(config.max_backoff_seconds),
        };
        Ok(Self { seats, extenders: Arc::new(extenders), backoff })
    }

    /// Who has a say in decisions beside the profiles.
    pub(crate) const fn extenders(&self) -> &Arc<Extenders> {
        &self.extenders
    }

    /// How long pods wait between attempts.
    pub(crate) const fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// The profile that a pod names.
    pub(crate) fn find(&self, scheduler_name: &str) -> Option<ProfileId> {
        self.seats.iter().position(|seat| seat.profile.name == scheduler_name)
    }

    /// The names of all profiles.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.seats.iter().map(|seat| seat.profile.name.as_str())
    }

    pub(crate) fn profile(&self, id: ProfileId) -> &Profile {
        &self.seats[id].profile
    }

    pub(crate) fn component(&self, id: ProfileId) -> &Name {
        &self.seats[id].component
    }

    /// Chooses a node for a pod of a profile.
    ///
    /// # Errors
    /// No node can take the pod.
    pub(crate) fn choose(
        &mut self,
        id: ProfileId,
        snapshot: &mut Snapshot,
        pod: &PodInfo,
        start: &mut usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Choice, Diagnosis> {
        let Seat { profile, fast, .. } = &mut self.seats[id];
        fast.choose(profile, snapshot, pod, start, rng)
    }
}

#[cfg(test)]
impl Desk {
    /// What a profile keeps.
    pub(crate) fn fast_mut(&mut self, id: ProfileId) -> &mut Fast {
        &mut self.seats[id].fast
    }
}
