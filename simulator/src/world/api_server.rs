//! An API server: how far its watch cache has come, and whether it runs.

use api::{Revision, Time};
use machine::RngTree;
use rand_chacha::ChaCha8Rng;

use crate::distribution::Distribution;
use crate::span::Span;

/// One API server.
#[derive(Clone)]
pub(super) struct ApiServer {
    pub(super) up: bool,
    /// How far its watch cache falls behind because of a fault.
    pub(super) lag: Span,
    /// How old what it answers lists from may be because of a fault.
    pub(super) stale: Span,
    /// Of what was written since it knows: watches from before list anew.
    pub(super) knows_since: Revision,
    /// When its watch cache has the last write that was committed.
    seen_at: Time,
    rng: ChaCha8Rng,
}

impl ApiServer {
    pub(super) fn new(index: u16, rng: RngTree) -> Self {
        let rng = rng.child("api-server").rng(&index.to_string());
        Self {
            up: true,
            lag: Span::ZERO,
            stale: Span::ZERO,
            knows_since: Revision(0),
            seen_at: Time::ZERO,
            rng,
        }
    }

    /// A write was committed now: when watches through this server can tell of it. Writes are
    /// seen in order.
    pub(super) fn commit(&mut self, now: Time, store: &Distribution) -> Time {
        let lag = store.sample(&mut self.rng).0 + self.lag.0;
        self.seen_at = self.seen_at.max(now + Span(lag).duration());
        self.seen_at
    }

    /// When its watch cache has everything that is committed by now.
    pub(super) fn caught_up_at(&self, now: Time) -> Time {
        self.seen_at.max(now)
    }
}
