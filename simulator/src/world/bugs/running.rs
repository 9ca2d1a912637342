//! Bugs of kubelets.

use api::{ApiObject, Pod, Shared};
use machine::{ApiInput, WatchEvent};

use super::{Blunder, objects};
use crate::oracle;
use crate::world::process::{Input, Running};

/// What the status of a pod says of its end is not looked at when the kubelet starts, and what has
/// ended is to run.
#[derive(Clone)]
pub(super) struct EndsForgotten;

impl Blunder for EndsForgotten {
    fn hears(&mut self, _: &Running, mut input: Input, told: &mut Vec<Input>) {
        if matches!(&input, Input::Api(ApiInput::Watch(WatchEvent::Replaced { .. }))) {
            for object in objects(&mut input) {
                let ended = |pod: &&Pod| matches!(oracle::phase(pod), "Succeeded" | "Failed");
                if let Some(pod) = object.get::<Pod>().filter(ended) {
                    let mut spec = pod.spec.as_deref().cloned().unwrap_or_default();
                    spec.restart_policy = Some("Always".to_owned());
                    let spec = Some(Shared::new(spec));
                    *object = Pod { spec, status: None, ..pod.clone() }.into_object();
                }
            }
        }
        told.push(input);
    }
}
