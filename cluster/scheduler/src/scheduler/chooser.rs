//! [`Chooser`]: what decisions have in common: where the next search begins, the generator, and
//! who compares them.

use std::num::NonZeroU32;

use api::Time;
use rand_chacha::ChaCha8Rng;

use crate::cycle::{Choice, Diagnosis};
use crate::desk::{Desk, ProfileId};
use crate::pod_info::PodInfo;
use crate::shadow::Shadow;
use crate::snapshot::Snapshot;

/// Takes decisions, one after the other.
#[derive(Clone)]
pub(super) struct Chooser {
    pub(super) start: usize,
    pub(super) rng: ChaCha8Rng,
    /// Compares decisions with the reference, if that is asked for.
    pub(super) shadow: Option<Shadow>,
}

impl Chooser {
    pub(super) const fn new(rng: ChaCha8Rng) -> Self {
        Self { start: 0, rng, shadow: None }
    }

    pub(super) fn compare(&mut self, one_in: Option<NonZeroU32>) {
        self.shadow = one_in.map(Shadow::new);
    }

    /// Chooses a node for a pod of a profile.
    pub(super) fn choose(
        &mut self,
        now: Time,
        desk: &mut Desk,
        snapshot: &mut Snapshot,
        profile: ProfileId,
        pod: &PodInfo,
    ) -> Result<Choice, Diagnosis> {
        let Self { start, rng, shadow } = self;
        let expected = shadow.as_mut().and_then(|shadow| {
            shadow.expect(desk.profile(profile), snapshot, pod.question(), *start, rng)
        });
        let result = desk.choose(profile, snapshot, pod, start, rng);
        if let (Some(shadow), Some(expected)) = (shadow, expected) {
            shadow.compare(now, &pod.key, expected, &result, (*start, rng));
        }
        result
    }
}
