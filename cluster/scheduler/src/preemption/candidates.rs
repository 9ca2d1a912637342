//! Nodes that could be cleared, all of those that are considered, for extenders to have their say
//! about.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Cleared, Eviction, Placed, Preemption, begin, count, hopeless, importance, try_node};
use crate::cycle::Question;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use crate::survey::Survey;

/// The nodes that could be cleared for `pod`, each with the pods that have to go, in the order in
/// which they are found: as many as would be considered without extenders.
///
/// # Errors
/// There is none; what is to be told instead.
pub(crate) fn candidates(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: Question,
    survey: &mut Survey,
    potential: &[u32],
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Eviction>, Preemption> {
    let enough = begin(profile, snapshot, pod, survey, potential.len())?;
    let mut reasons = BTreeMap::new();
    let (before, after) = potential.split_at(rng.random_range(0..potential.len()));
    let (mut found, mut harmless) = (Vec::new(), false);
    for node in after.iter().chain(before) {
        match try_node(profile, snapshot, pod, survey, *node) {
            Ok(cleared) => {
                harmless |= cleared.violations == 0;
                found.push(cleared.eviction(&snapshot.row(*node).name));
            }
            Err(refusal) => count(&mut reasons, refusal, 1),
        }
        if harmless && found.len() >= enough {
            break;
        }
    }
    if found.is_empty() {
        return Err(hopeless(reasons, snapshot.len() - potential.len()));
    }
    Ok(found)
}

/// The one of which the victims cost least, the first of several. Of victims that have gone
/// meanwhile nothing is left; a node from which all have gone needs not be cleared.
pub(crate) fn best(snapshot: &Snapshot, candidates: &[Eviction]) -> Option<Eviction> {
    let cleared = candidates.iter().filter_map(|candidate| {
        let node = snapshot.known(&candidate.node)?;
        let is_victim = |placed: &&Placed| {
            let same = |v: &super::Victim| v.uid == *placed.uid && v.key == placed.key;
            candidate.victims.iter().any(same)
        };
        let mut victims: Vec<&Placed> = snapshot.pods_on(node).filter(is_victim).collect();
        victims.sort_unstable_by(|a, b| importance(a).cmp(&importance(b)));
        let cleared = Cleared { victims, violations: candidate.violations, budgeted: true };
        (!cleared.victims.is_empty()).then_some((&candidate.node, cleared))
    });
    let best = cleared.min_by_key(|(_, cleared)| cleared.price());
    best.map(|(node, cleared)| cleared.eviction(node))
}
