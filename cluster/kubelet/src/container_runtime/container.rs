//! One container, small: a node may have hundreds and a simulation millions.

use crate::runtime::ContainerState;
use crate::{Labels, naming};
use api::Time;

use super::behaviour::Behaviour;
use super::push_decimal;

/// A container as the runtime keeps it.
#[derive(Clone)]
pub(super) struct Container {
    pub(super) number: u32,
    pub(super) image: u32,
    /// IPv4 address; zero when it shares another's.
    pub(super) ip: u32,
    pub(super) exit_code: i32,
    pub(super) state: ContainerState,
    pub(super) oom_killed: bool,
    pub(super) labels: Labels,
    /// `None`: it runs until it is stopped.
    pub(super) behaviour: Option<Box<Behaviour>>,
    pub(super) created_at: Time,
    pub(super) started_at: Time,
    pub(super) finished_at: Time,
}

/// A container, for those who check what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerSummary<'a> {
    /// UID of its pod.
    pub pod_uid: &'a str,
    /// Its name in the pod; [`naming::SANDBOX`] for the pause container.
    pub container: &'a str,
    /// Whether it runs.
    pub state: ContainerState,
    /// When it was started; the epoch if never.
    pub started_at: Time,
}

impl Container {
    pub(super) fn new(
        number: u32,
        labels: Labels,
        image: u32,
        ip: u32,
        behaviour: Option<Box<Behaviour>>,
        now: Time,
    ) -> Self {
        Self {
            number,
            image,
            ip,
            exit_code: 0,
            state: ContainerState::Created,
            oom_killed: false,
            labels,
            behaviour,
            created_at: now,
            started_at: Time::ZERO,
            finished_at: Time::ZERO,
        }
    }

    /// The address while it has one.
    pub(super) fn address(&self) -> String {
        if self.ip != 0 && self.state == ContainerState::Running {
            let mut text = String::with_capacity(15);
            for (i, part) in self.ip.to_be_bytes().into_iter().enumerate() {
                if i > 0 {
                    text.push('.');
                }
                push_decimal(&mut text, part.into());
            }
            text
        } else {
            String::new()
        }
    }

    pub(super) fn summary(&self) -> ContainerSummary<'_> {
        let label = |key: &str| self.labels.get(key).unwrap_or_default();
        ContainerSummary {
            pod_uid: label(naming::POD_UID),
            container: label(naming::CONTAINER_NAME),
            state: self.state,
            started_at: self.started_at,
        }
    }
}
