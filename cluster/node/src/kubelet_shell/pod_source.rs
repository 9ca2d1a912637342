//! What the kubelet's server may know of its pods.

use std::sync::{Arc, Mutex, PoisonError};

use api::{ApiObject, Object};
use kubelet::Kubelet;
use machine::Recorded;

use crate::kubelet_server::PodSource;

/// The pods of a running kubelet.
#[derive(Clone)]
pub struct KubeletPods {
    machine: Arc<Mutex<Recorded<Kubelet>>>,
}

impl KubeletPods {
    pub(super) fn new(machine: Arc<Mutex<Recorded<Kubelet>>>) -> Self {
        Self { machine }
    }

    fn with<T>(&self, ask: impl FnOnce(&Kubelet) -> T) -> T {
        ask(self.machine.lock().unwrap_or_else(PoisonError::into_inner).machine())
    }

    /// Whether the kubelet does its work; else why not.
    ///
    /// # Errors
    /// What is missing.
    pub fn health(&self) -> Result<(), String> {
        self.with(Kubelet::health)
    }
}

impl PodSource for KubeletPods {
    fn pods(&self) -> Vec<Object> {
        self.with(|k| k.pods().into_iter().map(ApiObject::into_object).collect())
    }

    fn container_id(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
        previous: bool,
    ) -> Option<String> {
        let uid = uid.unwrap_or_default();
        self.with(|k| {
            if container == kubelet::naming::SANDBOX {
                return k.sandbox(namespace, pod).map(|r| r.id);
            }
            k.container(namespace, pod, uid, container, previous).ok().map(|r| r.id)
        })
    }
}
