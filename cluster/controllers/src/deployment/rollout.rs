//! The steps of a rollout, and scaling in the middle of one.

use machine::Plan;

use super::Pass;
use super::sets::{Set, sort_by_size};

impl Pass<'_> {
    /// Rolling update: first up, then down, as far as the bounds allow.
    pub(super) fn roll(mut self, plan: &mut Plan) {
        if self.sets.new.is_none() {
            if self.create_new(plan) {
                self.report_rollout(plan);
            }
            return;
        }
        self.renew_annotations();
        if !self.grow_new()
            && !self.shrink_old()
            && self.is_complete(self.deployment.status.as_ref())
        {
            self.clean_up(plan);
        }
        self.write(plan);
        self.report_rollout(plan);
    }

    /// Recreate: all old pods must have ended before the first new one is made.
    pub(super) fn recreate(mut self, plan: &mut Plan) {
        self.renew_annotations();
        let (replicas, surge) = (self.replicas, self.strategy.surge);
        let mut shrunk = false;
        for old in self.sets.old.iter_mut().filter(|s| s.replicas > 0) {
            old.scale(0, replicas, surge);
            shrunk = true;
        }
        if !shrunk && !self.old_pods_run() {
            if let Some(new) = &mut self.sets.new {
                new.scale(replicas, replicas, surge);
            } else if !self.create_new(plan) {
                return;
            }
            if self.is_complete(self.deployment.status.as_ref()) {
                self.clean_up(plan);
            }
        }
        self.write(plan);
        self.report_rollout(plan);
    }

    /// How large the new set may be, given its present size.
    ///
    /// Pods that a shrinking set has not deleted yet count, and a set whose controller has not
    /// seen its last change yet may have any number: the surge is a promise about pods, not
    /// about numbers in specs.
    pub(super) fn new_size(&self, present: i32) -> i32 {
        if self.strategy.is_recreate() {
            return self.replicas;
        }
        if self.sets.old.iter().any(|s| s.replicas < s.original_replicas() || !s.is_settled()) {
            return present;
        }
        let exist =
            self.sets.all().map(|s| s.replicas.max(s.actual())).fold(0, i32::saturating_add);
        let most = self.replicas.saturating_add(self.strategy.surge);
        let room = most.saturating_sub(exist).max(0);
        present.saturating_add(room.min(self.replicas.saturating_sub(present).max(0)))
    }

    fn grow_new(&mut self) -> bool {
        let Some(present) = self.sets.new.as_ref().map(|s| s.replicas) else { return false };
        let wanted = match present.cmp(&self.replicas) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => self.replicas,
            std::cmp::Ordering::Less => self.new_size(present),
        };
        if wanted == present {
            return false;
        }
        let (replicas, surge) = (self.replicas, self.strategy.surge);
        if let Some(new) = &mut self.sets.new {
            new.scale(wanted, replicas, surge);
        }
        true
    }

    /// Shrinks old sets, those pods first that are of no use anyway.
    fn shrink_old(&mut self) -> bool {
        if self.sets.old.iter().all(|s| s.replicas == 0) {
            return false;
        }
        let least = self.replicas - self.strategy.unavailable;
        let new = self.sets.new.as_ref();
        let new_unavailable = new.map_or(0, |s| s.replicas - s.available_at_least());
        let room = self.sets.replicas().saturating_sub(least).saturating_sub(new_unavailable);
        if room <= 0 {
            return false;
        }
        let unhealthy = self.shrink(room, |s| s.replicas - s.available_at_least());
        let available = self.sets.all().map(Set::available_at_least).fold(0, i32::saturating_add);
        let healthy = self.shrink(available.saturating_sub(least), |s| s.replicas);
        unhealthy || healthy
    }

    /// Takes up to `room` replicas from the old sets, the oldest first, from each at most what
    /// `surplus` says.
    fn shrink(&mut self, mut room: i32, surplus: impl Fn(&Set<'_>) -> i32) -> bool {
        let (replicas, surge) = (self.replicas, self.strategy.surge);
        let mut shrunk = false;
        for set in &mut self.sets.old {
            let step = surplus(set).min(room);
            if step > 0 {
                set.scale(set.replicas - step, replicas, surge);
                room -= step;
                shrunk = true;
            }
        }
        shrunk
    }

    /// Spreads a changed number of replicas over the sets, in proportion to their sizes when a
    /// rollout is under way. Nothing grows while pods that are to go may still be there.
    pub(super) fn scale(&mut self) {
        let (replicas, surge) = (self.replicas, self.strategy.surge);
        let active = self.sets.all().filter(|s| s.replicas > 0).count();
        if self.must_wait_to_grow(active) {
            return;
        }
        let saturated = self.sets.new.as_ref().is_some_and(|s| {
            s.replicas == replicas
                && s.desired_annotation() == Some(replicas)
                && s.available() == replicas
        });
        match active {
            0 => {
                let newest = self.sets.new.as_mut().or(self.sets.old.last_mut());
                if let Some(set) = newest {
                    set.scale(replicas, replicas, surge);
                }
            }
            1 => {
                for set in self.sets.active_mut() {
                    set.scale(replicas, replicas, surge);
                }
            }
            _ if saturated => {
                for set in self.sets.old.iter_mut().filter(|s| s.replicas > 0) {
                    set.scale(0, replicas, surge);
                }
            }
            _ if self.strategy.is_recreate() => {}
            _ => self.scale_in_proportion(),
        }
    }

    /// Whether scaling would add pods while others, of sets that have shrunk, are not deleted yet.
    ///
    /// As in [`new_size`](Self::new_size), the surge is a promise about pods. The numbers that the
    /// sets note stay as they are meanwhile, so that all of them get their shares afterwards. A
    /// set that grows alone keeps the surplus that it has.
    fn must_wait_to_grow(&self, active: usize) -> bool {
        let wanted = if active > 1 { self.most() } else { self.replicas };
        if wanted <= self.sets.replicas() {
            return false;
        }
        let alone = (active == 1).then(|| self.sets.all().find(|s| s.replicas > 0)).flatten();
        let alone = alone.map(Set::name);
        self.sets
            .all()
            .filter(|s| Some(s.name()) != alone)
            .any(|s| !s.is_settled() || s.actual() > s.replicas)
    }

    /// How many pods there may be, with the surge.
    const fn most(&self) -> i32 {
        if self.replicas > 0 { self.replicas.saturating_add(self.strategy.surge) } else { 0 }
    }

    fn scale_in_proportion(&mut self) {
        let (replicas, surge) = (self.replicas, self.strategy.surge);
        let total = self.sets.replicas();
        let to_add = self.most().saturating_sub(total);
        let reported = self.status.replicas.unwrap_or(0);
        let mut sets = self.sets.active_mut();
        sort_by_size(&mut sets, to_add > 0);
        let mut added = 0;
        let mut sizes = Vec::with_capacity(sets.len());
        for set in &sets {
            let step = proportion(set, replicas, surge, reported, to_add, added);
            added += step;
            sizes.push(set.replicas.saturating_add(step));
        }
        // The largest takes what rounding left.
        if let Some(first) = sizes.first_mut() {
            *first = first.saturating_add(to_add - added).max(0);
        }
        for (set, size) in sets.into_iter().zip(sizes) {
            set.scale(size.max(0), replicas, surge);
        }
    }
}

/// A set's share of the replicas that are still to be added (or, negative, removed).
fn proportion(
    set: &Set<'_>,
    replicas: i32,
    surge: i32,
    reported: i32,
    to_add: i32,
    added: i32,
) -> i32 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let share = if replicas == 0 {
        -set.replicas
    } else {
        let before = set.max_annotation().filter(|n| *n > 0).unwrap_or(reported);
        if before <= 0 {
            0
        } else {
            let most = i64::from(replicas.saturating_add(surge));
            let (product, before) = (i64::from(set.replicas) * most, i64::from(before));
            // Rounded to the nearest; both are positive.
            let size = (2 * product + before) / (2 * before);
            i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
        }
    };
    // After a scaling that was carried out in part, a share may point the other way: nothing shrinks
    // while pods are added, or grows while they are removed, for one of the two writes comes first.
    let rest = to_add - added;
    if to_add > 0 { share.clamp(0, rest.max(0)) } else { share.clamp(rest.min(0), 0) }
}
