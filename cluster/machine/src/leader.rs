//! Leader election by a `Lease`: of several equal processes one acts.
//!
//! Source: kubernetes 1.33, `client-go/tools/leaderelection`. Whether a lease has run out is
//! judged by when *this* process last saw it change, never by comparing clocks of two hosts.

use std::time::Duration;

use api::{ApiError, ApiObject, Key, Kind, Object, Reply, Request, Revision, Span, Time};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use serde::{Deserialize, Serialize};

use crate::contract::Calls;
use crate::{ApiEffect, CallId};

/// The namespace of leases that name none.
const NAMESPACE: &str = "kube-system";

/// A lease, and how a candidate competes for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Election {
    /// The namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A lease that was not renewed for this long may be taken by another candidate. It is
    /// written into the lease in whole seconds, rounded up, and it is what the lease says that counts.
    pub lease_duration: Span,
    /// A leader that could not renew for this long stops acting, well before another may start.
    pub renew_deadline: Span,
    /// Time between attempts.
    pub retry_period: Span,
}

impl Election {
    /// The lease of that name in `kube-system`, with the times that Kubernetes recommends.
    pub fn of(name: &str) -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            lease_duration: Span::secs(15),
            renew_deadline: Span::secs(10),
            retry_period: Span::secs(2),
        }
    }

    /// What is wrong with the times: a field, its value, and why it cannot be.
    ///
    /// Source: kubernetes 1.33, `component-base/config/validation` and `NewLeaderElector`.
    pub fn complaints(&self) -> Vec<(&'static str, Span, &'static str)> {
        let Self { lease_duration, renew_deadline, retry_period, .. } = *self;
        let mut found = Vec::new();
        for (field, span) in [
            ("leaseDuration", lease_duration),
            ("renewDeadline", renew_deadline),
            ("retryPeriod", retry_period),
        ] {
            if span == Span::ZERO {
                found.push((field, span, "must be greater than zero"));
            }
        }
        if lease_duration <= renew_deadline {
            let why = "must be greater than `RenewDeadline`";
            found.push(("leaseDuration", lease_duration, why));
        }
        // Attempts may come later by a fifth.
        if u128::from(renew_deadline.0) * 10 <= u128::from(retry_period.0) * 12 {
            let why = "must be greater than `RetryPeriod` * 1.2";
            found.push(("renewDeadline", renew_deadline, why));
        }
        found
    }

    /// The duration as the lease says it.
    fn lease_seconds(&self) -> i32 {
        i32::try_from(self.lease_duration.0.div_ceil(Span::secs(1).0)).unwrap_or(i32::MAX)
    }
}

/// One candidate for a lease.
#[derive(Clone)]
pub struct LeaderElector {
    election: Election,
    key: Key,
    identity: String,
    seen: Option<Seen>,
    led_since_attempt: Option<Time>,
    pending: Option<Pending>,
    next_attempt: Time,
    released: bool,
}

#[derive(Clone)]
struct Seen {
    lease: Lease,
    at: Time,
}

#[derive(Clone)]
struct Pending {
    id: CallId,
    sent: Time,
    write: bool,
}

impl LeaderElector {
    /// Makes a candidate `identity` (unique among the candidates) for the lease `name` in
    /// `kube-system`, with the usual times.
    pub fn new(name: &str, identity: &str) -> Self {
        Self::of(Election::of(name), identity)
    }

    /// Makes a candidate `identity` (unique among the candidates).
    pub fn of(election: Election, identity: &str) -> Self {
        Self {
            key: Key::new(Kind::Lease, &election.namespace, &election.name),
            election,
            identity: identity.to_owned(),
            seen: None,
            led_since_attempt: None,
            pending: None,
            next_attempt: Time::ZERO,
            released: false,
        }
    }

    /// Whether this process may act at `now`.
    pub fn is_leader(&self, now: Time) -> bool {
        self.led_since_attempt
            .is_some_and(|t| now.since(t) < self.election.renew_deadline.duration())
    }

    /// When the elector wants to be woken.
    pub fn wake_at(&self) -> Option<Time> {
        (self.pending.is_none() && !self.released).then_some(self.next_attempt)
    }

    /// Starts an attempt if one is due.
    pub fn wake(&mut self, now: Time, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        if self.released || self.pending.is_some() || now < self.next_attempt {
            return;
        }
        self.next_attempt = now + self.election.retry_period.duration();
        let renewable = self.seen.as_ref().filter(|s| self.holds(&s.lease));
        let (request, write) = match renewable {
            Some(seen) => (self.claim(now, Some(&seen.lease)), true),
            None => (Request::Get(self.key.clone()), false),
        };
        self.send(now, request, write, calls, out);
    }

    /// Takes the answer to one of the elector's calls.
    pub fn reply(
        &mut self,
        now: Time,
        id: CallId,
        result: Result<Reply, ApiError>,
        calls: &mut Calls,
        out: &mut Vec<ApiEffect>,
    ) {
        let Some(pending) = self.pending.take_if(|p| p.id == id) else { return };
        match result {
            Ok(Reply::Object(Object::Lease(lease))) => {
                let lease = lease.as_ref().clone();
                if pending.write && self.holds(&lease) {
                    self.led_since_attempt = Some(pending.sent);
                    self.see(now, lease);
                } else {
                    self.see(now, lease);
                    self.consider(now, calls, out);
                }
            }
            Ok(_) => {}
            Err(error) if !pending.write && error.code() == Some(404) => {
                let request = self.claim(now, None);
                self.send(now, request, true, calls, out);
            }
            // Lost a race or an answer: what is known of the lease may be wrong, read it again.
            Err(_) => {
                if pending.write {
                    self.seen = None;
                }
            }
        }
    }

    /// Gives the lease up if this process holds it.
    pub fn release(&mut self, now: Time, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        self.released = true;
        let leads = self.is_leader(now);
        self.led_since_attempt = None;
        if let (true, Some(seen)) = (leads, &self.seen) {
            let mut lease = seen.lease.clone();
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(now.to_micro());
            let request = Request::Update { object: lease.into_object(), subresource: None };
            self.send(now, request, true, calls, out);
        }
    }

    fn send(
        &mut self,
        now: Time,
        request: Request,
        write: bool,
        calls: &mut Calls,
        out: &mut Vec<ApiEffect>,
    ) {
        let id = calls.call(request, out);
        self.pending = Some(Pending { id, sent: now, write });
    }

    /// Takes a lease that was read if it is free, ours, or has not changed for too long.
    fn consider(&mut self, now: Time, calls: &mut Calls, out: &mut Vec<ApiEffect>) {
        let Some(seen) = &self.seen else { return };
        let spec = seen.lease.spec.as_ref();
        let holder = spec.and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
        let free = holder.is_empty() || holder == self.identity;
        let seconds =
            spec.and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let lasts = seconds.map_or(self.election.lease_duration.duration(), Duration::from_secs);
        if free || now.since(seen.at) > lasts {
            let request = self.claim(now, Some(&seen.lease));
            self.send(now, request, true, calls, out);
        } else {
            self.led_since_attempt = None;
        }
    }

    fn see(&mut self, now: Time, lease: Lease) {
        let revision = |l: &Lease| {
            l.metadata.resource_version.as_deref().and_then(Revision::parse).unwrap_or_default()
        };
        let unchanged = self.seen.as_ref().filter(|s| revision(&s.lease) == revision(&lease));
        let at = unchanged.map_or(now, |s| s.at);
        self.seen = Some(Seen { lease, at });
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref())
            == Some(self.identity.as_str())
    }

    fn claim(&self, now: Time, from: Option<&Lease>) -> Request {
        let mut lease = from.cloned().unwrap_or_default();
        let ours = self.holds(&lease);
        lease.metadata.name = Some(self.key.name.to_string());
        lease.metadata.namespace = Some(self.key.namespace.to_string());
        let before = lease.spec.take().unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.election.lease_seconds()),
            acquire_time: if ours { before.acquire_time } else { Some(now.to_micro()) },
            renew_time: Some(now.to_micro()),
            lease_transitions: Some(match from {
                Some(_) if !ours => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..before
        });
        match from {
            Some(_) => Request::Update { object: lease.into_object(), subresource: None },
            None => Request::Create(lease.into_object()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of one lease that answers at once.
    #[derive(Default)]
    struct World {
        lease: Option<Lease>,
        revision: u64,
    }

    impl World {
        fn answer(&mut self, request: Request) -> Result<Reply, ApiError> {
            let refuse = |status: api::Status| Err(ApiError::from(status));
            let (mut lease, create) = match request {
                Request::Get(key) => {
                    return match &self.lease {
                        Some(lease) => Ok(Reply::Object(lease.clone().into_object())),
                        None => refuse(api::Status::not_found(key.kind, &key.name)),
                    };
                }
                Request::Create(o) => (o.get::<Lease>().unwrap().clone(), true),
                Request::Update { object, .. } => (object.get::<Lease>().unwrap().clone(), false),
                other => panic!("unexpected {other:?}"),
            };
            let current = self.lease.as_ref().and_then(|l| l.metadata.resource_version.clone());
            if create != current.is_none()
                || (!create && lease.metadata.resource_version != current)
            {
                return refuse(api::Status::modified(Kind::Lease, "x"));
            }
            self.revision += 1;
            lease.metadata.resource_version = Some(self.revision.to_string());
            self.lease = Some(lease.clone());
            Ok(Reply::Object(lease.into_object()))
        }

        /// Lets the elector act at `now` until it is quiet.
        fn turn(&mut self, elector: &mut LeaderElector, now: Time, calls: &mut Calls) {
            let mut out = Vec::new();
            elector.wake(now, calls, &mut out);
            for _ in 0..10 {
                let Some(ApiEffect::Call { id, request }) = out.pop() else { return };
                let result = self.answer(request);
                elector.reply(now, id, result, calls, &mut out);
            }
            panic!("an election that does not end");
        }
    }

    #[test]
    fn one_leads_and_another_takes_over_only_when_the_lease_ran_out() {
        let mut world = World::default();
        let mut calls = Calls::default();
        let mut a = LeaderElector::new("x", "a");
        let mut b = LeaderElector::new("x", "b");
        let at = Time::from_secs;
        world.turn(&mut a, at(100), &mut calls);
        world.turn(&mut b, at(100), &mut calls);
        assert!(a.is_leader(at(100)) && !b.is_leader(at(100)));
        // The leader renews; the other keeps out.
        for s in 1..20 {
            world.turn(&mut a, at(100 + 2 * s), &mut calls);
            world.turn(&mut b, at(100 + 2 * s), &mut calls);
            assert!(a.is_leader(at(100 + 2 * s)) && !b.is_leader(at(100 + 2 * s)));
        }
        // The leader falls silent after 138 s: it stops acting before the other starts.
        let mut took_over = None;
        for s in 139..170 {
            world.turn(&mut b, at(s), &mut calls);
            assert!(!(a.is_leader(at(s)) && b.is_leader(at(s))));
            if b.is_leader(at(s)) {
                took_over = took_over.or(Some(s));
            }
        }
        assert!(took_over.is_some_and(|s| (152..=158).contains(&s)), "{took_over:?}");
        let spec = world.lease.as_ref().unwrap().spec.clone().unwrap();
        assert_eq!(spec.lease_transitions, Some(1));
        // A leader that comes back finds the lease taken.
        world.turn(&mut a, at(171), &mut calls);
        world.turn(&mut a, at(174), &mut calls);
        assert!(!a.is_leader(at(174)));
    }

    #[test]
    fn clocks_that_are_apart_elect_as_clocks_that_are_not() {
        let apart = Duration::from_secs(21 * 60);
        let at = Time::from_secs;
        for (ahead_a, ahead_b) in [(apart, Duration::ZERO), (Duration::ZERO, apart)] {
            let mut world = World::default();
            let mut calls = Calls::default();
            let mut a = LeaderElector::new("x", "a");
            let mut b = LeaderElector::new("x", "b");
            let mut took_over = None;
            for s in 1_000..1_100 {
                if s < 1_050 {
                    world.turn(&mut a, at(s) + ahead_a, &mut calls);
                }
                world.turn(&mut b, at(s) + ahead_b, &mut calls);
                let leads = (a.is_leader(at(s) + ahead_a), b.is_leader(at(s) + ahead_b));
                assert_ne!(leads, (true, true), "after {s} s");
                took_over = took_over.or(leads.1.then_some(s));
            }
            // As in `one_leads_and_another_takes_over_only_when_the_lease_ran_out`.
            assert!(took_over.is_some_and(|s| (1_063..=1_069).contains(&s)), "{took_over:?}");
        }
    }

    #[test]
    fn a_lease_lasts_as_long_as_it_says() {
        let mut world = World::default();
        let mut calls = Calls::default();
        let short = Election {
            namespace: "n".to_owned(),
            lease_duration: Span::millis(3_500),
            renew_deadline: Span::secs(2),
            retry_period: Span::millis(500),
            ..Election::of("x")
        };
        let mut a = LeaderElector::of(short.clone(), "a");
        let mut b = LeaderElector::of(Election { lease_duration: Span::secs(60), ..short }, "b");
        let at = |millis: u64| Time::ZERO + Duration::from_millis(100_000 + millis);
        world.turn(&mut a, at(0), &mut calls);
        world.turn(&mut b, at(0), &mut calls);
        let lease = world.lease.clone().unwrap();
        assert_eq!(lease.metadata.namespace.as_deref(), Some("n"));
        assert_eq!(lease.spec.unwrap().lease_duration_seconds, Some(4));
        assert_eq!(a.wake_at(), Some(at(500)));
        assert!(a.is_leader(at(1_999)) && !a.is_leader(at(2_000)));
        // The other one goes by what the leader has written, not by what it would write itself.
        world.turn(&mut b, at(4_000), &mut calls);
        assert!(!b.is_leader(at(4_000)));
        world.turn(&mut b, at(4_500), &mut calls);
        assert!(b.is_leader(at(4_500)));
    }

    #[test]
    fn times_that_cannot_be_are_told() {
        let check = |lease: u64, renew: u64, retry: u64, expected: &[&str]| {
            let election = Election {
                lease_duration: Span::secs(lease),
                renew_deadline: Span::secs(renew),
                retry_period: Span::secs(retry),
                ..Election::of("x")
            };
            let complaints = election.complaints().into_iter();
            let told: Vec<_> =
                complaints.map(|(field, value, why)| format!("{field} {value} {why}")).collect();
            assert_eq!(told, expected, "{lease} {renew} {retry}");
        };
        check(15, 10, 2, &[]);
        check(10, 10, 2, &["leaseDuration 10s must be greater than `RenewDeadline`"]);
        check(15, 12, 10, &["renewDeadline 12s must be greater than `RetryPeriod` * 1.2"]);
        check(15, 13, 10, &[]);
        check(
            0,
            0,
            0,
            &[
                "leaseDuration 0s must be greater than zero",
                "renewDeadline 0s must be greater than zero",
                "retryPeriod 0s must be greater than zero",
                "leaseDuration 0s must be greater than `RenewDeadline`",
                "renewDeadline 0s must be greater than `RetryPeriod` * 1.2",
            ],
        );
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut world = World::default();
        let mut calls = Calls::default();
        let mut a = LeaderElector::new("x", "a");
        let mut b = LeaderElector::new("x", "b");
        world.turn(&mut a, Time::from_secs(10), &mut calls);
        let mut out = Vec::new();
        a.release(Time::from_secs(11), &mut calls, &mut out);
        let Some(ApiEffect::Call { request, .. }) = out.pop() else { panic!("no release") };
        world.answer(request).unwrap();
        world.turn(&mut b, Time::from_secs(11), &mut calls);
        assert!(b.is_leader(Time::from_secs(11)) && !a.is_leader(Time::from_secs(11)));
    }
}
