//! Rolling updates: pods of older templates give way, as many at a time as may be unavailable, or as
//! may run beside them.

use std::collections::BTreeSet;

use api::{Pod, meta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Pass;
use super::placement::Changes;
use crate::deployment::strategy::scaled;

/// The pods of one node that are not being deleted.
enum Pair<'a> {
    /// At most one of today's template and one of another.
    Of { new: Option<&'a Pod>, old: Option<&'a Pod> },
    /// More, of which some will be removed.
    Crowd,
}

impl<'a> Pass<'a> {
    /// Whether pods are replaced without anybody deleting them.
    pub(super) fn rolls(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|s| s.type_.as_deref()).is_none_or(|kind| kind == "RollingUpdate")
    }

    /// Whether a node may run a new pod beside an old one.
    pub(super) fn surges(&self) -> bool {
        self.bound(|bounds| bounds.max_surge.clone(), 0, 1) > 0
    }

    /// A bound as a number of pods, rounded up.
    fn bound(
        &self,
        part: impl Fn(&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet) -> Option<IntOrString>,
        default: i32,
        total: i32,
    ) -> i32 {
        if !self.rolls() {
            return 0;
        }
        let bounds = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let value = bounds.and_then(part).unwrap_or(IntOrString::Int(default));
        scaled(&value, total, true)
    }

    /// The next step of a rollout, for nodes that have their pods.
    pub(super) fn roll(&self) -> Changes<'a> {
        let desired = self.nodes.values().filter(|fit| fit.run).count();
        let total = i32::try_from(desired).unwrap_or(i32::MAX);
        let surge = self.bound(|bounds| bounds.max_surge.clone(), 0, total);
        let mut unavailable = self.bound(|bounds| bounds.max_unavailable.clone(), 1, total);
        if desired > 0 && surge == 0 && unavailable == 0 {
            // Nothing could ever move.
            unavailable = 1;
        }
        let count = |n: i32| usize::try_from(n).unwrap_or(0);
        if surge == 0 { self.replace(count(unavailable)) } else { self.add(count(surge), desired) }
    }

    fn pair(&self, node: &str) -> Pair<'a> {
        let (mut new, mut old) = (None, None);
        for pod in self.pods_of(node).iter().filter(|p| !meta::is_terminating(&p.metadata)) {
            let place = if self.is_updated(pod) { &mut new } else { &mut old };
            if place.replace(*pod).is_some() {
                return Pair::Crowd;
            }
        }
        Pair::Of { new, old }
    }

    /// The nodes that have pods or shall have one, in order.
    fn concerned(&self) -> BTreeSet<&'a str> {
        let wanted = self.nodes.iter().filter(|(_, fit)| fit.run).map(|(node, _)| *node);
        self.on_node.keys().copied().chain(wanted).collect()
    }

    /// Deletes old pods: those that are of no use, and as many others as may be unavailable besides.
    fn replace(&self, max_unavailable: usize) -> Changes<'a> {
        let (mut unavailable, mut useless, mut candidates) = (0_usize, Vec::new(), Vec::new());
        for node in self.concerned() {
            match self.pair(node) {
                Pair::Of { new: Some(new), old: None } => {
                    unavailable += usize::from(!self.is_available(new));
                }
                Pair::Of { new: None, old: Some(old) } if self.is_available(old) => {
                    candidates.push(old);
                }
                Pair::Of { new: None, old: Some(old) } => {
                    useless.push(old);
                    unavailable += 1;
                }
                _ => unavailable += 1,
            }
        }
        candidates.truncate(max_unavailable.saturating_sub(unavailable));
        useless.extend(candidates);
        Changes { create: Vec::new(), delete: useless }
    }

    /// Creates new pods beside old ones, as many as the surge allows, and deletes old ones that have
    /// an available successor.
    fn add(&self, max_surge: usize, desired: usize) -> Changes<'a> {
        let mut changes = Changes::default();
        let (mut surge, mut available) = (0_usize, 0_usize);
        let (mut needed, mut candidates, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.concerned() {
            let Pair::Of { new, old } = self.pair(node) else {
                surge += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            let Some(old) = old else { continue };
            match new {
                Some(new) if self.is_available(new) => changes.delete.push(old),
                Some(_) => surge += 1,
                None => match (self.fit(node).run, self.is_available(old)) {
                    (true, true) => candidates.push((node, 0)),
                    (true, false) => needed.push((node, 0)),
                    (false, true) => misplaced.push(old),
                    (false, false) => changes.delete.push(old),
                },
            }
        }
        // Where no pod shall be any more, one goes when another node has made up for it.
        misplaced.truncate(available.saturating_sub(desired));
        changes.delete.extend(misplaced);
        candidates.truncate(max_surge.saturating_sub(surge));
        changes.create = needed;
        changes.create.extend(candidates);
        changes
    }
}
