//! Bugs of leader election.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Reply, Request};
use machine::{ApiEffect, ApiInput, CallId};

use super::{Blunder, answered};
use crate::world::process::{Input, Running};

/// Whether that is a lease by which one of several processes is elected.
fn elects(key: &Key) -> bool {
    key.kind == Kind::Lease && &*key.namespace == "kube-system"
}

/// Once it leads, it takes every renewal for a success.
#[derive(Clone, Default)]
pub(super) struct LostRenewalIgnored {
    /// Whether this life has ever led.
    has_led: bool,
    writes: BTreeMap<CallId, Object>,
}

impl Blunder for LostRenewalIgnored {
    fn hears(&mut self, _: &Running, input: Input, told: &mut Vec<Input>) {
        if let Input::Api(ApiInput::Reply { id, result }) = &input
            && let Some(lease) = self.writes.remove(id)
        {
            if result.is_err() && self.has_led {
                told.push(answered(*id, Ok(Reply::Object(lease))));
                return;
            }
            self.has_led |= result.is_ok();
        }
        told.push(input);
    }

    fn says(&mut self, effect: &mut ApiEffect) {
        let ApiEffect::Call { id, request } = effect else { return };
        if let Request::Create(object) | Request::Update { object, .. } = request
            && elects(&object.key())
        {
            self.writes.insert(*id, object.clone());
        }
    }
}
