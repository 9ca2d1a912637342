//! The pods of the manifest directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Object, Pod, Time};

use super::Kubelet;
use crate::mirror;
use crate::runtime::ContainerRecord;

impl Kubelet {
    pub(super) fn static_pods(&mut self, now: Time, objects: &[Object]) {
        self.static_seen = true;
        let pods: Vec<Pod> =
            objects.iter().filter_map(|o| mirror::static_pod(o, &self.ctx.config, now)).collect();
        let mut wanted = BTreeMap::new();
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            // An unchanged manifest keeps the pod, with the time it was first seen.
            let pod = self.static_pods.get(&uid).cloned().unwrap_or_else(|| Arc::new(pod));
            wanted.insert(uid, pod);
        }
        self.static_pods = wanted;
        self.mirrors.compare();
        let known = self.workers.iter().filter(|w| w.is_static).map(|w| w.uid.clone());
        let gone: Vec<Arc<str>> = known.filter(|u| !self.static_pods.contains_key(&**u)).collect();
        self.end(gone, now);
        self.start_static(now);
    }

    /// Starts static pods, each after the last pod of its name is gone: two of them may want one
    /// port. One that a kubelet before this one started is known by its containers alone; they are
    /// ended though the API is not known yet, which may be what the new pod serves.
    pub(super) fn start_static(&mut self, now: Time) {
        if !self.ctx.listed {
            return;
        }
        let fresh: Vec<(Arc<str>, Arc<Pod>)> = self
            .static_pods
            .iter()
            .filter(|(uid, _)| !self.workers.contains(uid.as_str()))
            .map(|(uid, pod)| (uid.as_str().into(), pod.clone()))
            .collect();
        for (uid, pod) in fresh {
            let busy = self.workers.iter().any(|w| {
                w.is_static
                    && w.pod.metadata.name == pod.metadata.name
                    && w.pod.metadata.namespace == pod.metadata.namespace
            });
            let workers = &self.workers;
            let former = |r: &mut ContainerRecord| {
                r.is_of(&pod) && r.pod_uid() != &*uid && !workers.contains(r.pod_uid())
            };
            for record in self.unclaimed.extract_if(.., former) {
                self.orphans.add(&mut self.ctx, &record);
            }
            if !busy && !self.orphans.run_for(&pod) {
                self.add(pod, &uid, true, now);
                self.dirty.push(uid);
            }
        }
    }
}
