//! [`Instance`]: a container as the kubelet remembers it.

use std::sync::Arc;

use api::Time;

use crate::runtime::{ContainerRecord, ContainerState};
use crate::{Labels, naming};

/// What is kept of a [`ContainerRecord`]: its labels, which are many and mostly the pod's, only
/// as far as they tell one instance from another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instance {
    pub(crate) id: Box<str>,
    /// The pause container it was made for; empty for a pause container.
    pub(crate) sandbox_id: Box<str>,
    /// How often the container was started before.
    pub(crate) attempt: u32,
    /// The hash of its definition; `None` when its label is no hash.
    pub(crate) hash: Option<u32>,
    pub(crate) image: Arc<str>,
    pub(crate) image_id: Arc<str>,
    pub(crate) state: ContainerState,
    pub(crate) oom_killed: bool,
    pub(crate) exit_code: i32,
    pub(crate) created_at: Time,
    pub(crate) started_at: Time,
    pub(crate) finished_at: Time,
    pub(crate) message: Box<str>,
    pub(crate) ip: Box<str>,
}

impl Instance {
    pub(crate) fn new(record: &ContainerRecord) -> Box<Self> {
        // Nobody is told the image of a pause container.
        let told = record.container() != naming::SANDBOX;
        let image = |text: &Arc<str>| if told { text.clone() } else { Arc::default() };
        Box::new(Self {
            sandbox_id: record.sandbox_id().into(),
            attempt: record.attempt(),
            hash: u32::from_str_radix(record.hash(), 16).ok(),
            id: record.id.as_str().into(),
            image: image(&record.image),
            image_id: image(&record.image_id),
            state: record.state,
            oom_killed: record.oom_killed,
            exit_code: record.exit_code,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            message: record.message.as_str().into(),
            ip: record.ip.as_str().into(),
        })
    }

    /// Takes what the runtime says of the container now: what it was made with stays.
    pub(crate) fn renew(&mut self, record: &ContainerRecord) {
        let renew = |known: &mut Box<str>, text: &str| {
            if **known != *text {
                *known = text.into();
            }
        };
        self.state = record.state;
        self.oom_killed = record.oom_killed;
        self.exit_code = record.exit_code;
        self.started_at = record.started_at;
        self.finished_at = record.finished_at;
        renew(&mut self.message, &record.message);
        renew(&mut self.ip, &record.ip);
    }

    pub(crate) fn running(&self) -> bool {
        self.state == ContainerState::Running
    }

    /// It is no longer known to the runtime.
    pub(crate) fn lose(&mut self) {
        if self.state != ContainerState::Exited {
            self.state = ContainerState::Exited;
            self.exit_code = 137;
            self.message = LOST.into();
        }
    }

    /// As the runtime tells of it, with the labels it was made with.
    pub(crate) fn record(&self, labels: Labels) -> ContainerRecord {
        ContainerRecord {
            id: self.id.to_string(),
            labels,
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            state: self.state,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            oom_killed: self.oom_killed,
            message: self.message.to_string(),
            ip: self.ip.to_string(),
        }
    }
}

/// The message of a container that disappeared.
pub(crate) const LOST: &str = "The container could not be located when the pod was terminated";
