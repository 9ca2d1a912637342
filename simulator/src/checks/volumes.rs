//! Claims and volumes: P57.

use api::{Key, Kind, Object, Pod};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, volumes};

/// P57: a claim and its volume belong to each other alone, pods run where their volumes are, and
/// what is in use, or is to be kept, is not deleted.
#[derive(Clone, Default)]
pub(super) struct OneVolumeEach;

fn claim<'a>(
    cluster: &'a dyn Cluster,
    namespace: &str,
    name: &str,
) -> Option<&'a PersistentVolumeClaim> {
    cluster.object(&Key::new(Kind::PersistentVolumeClaim, namespace, name))?.get()
}

fn volume<'a>(cluster: &'a dyn Cluster, name: &str) -> Option<&'a PersistentVolume> {
    cluster.object(&Key::cluster(Kind::PersistentVolume, name))?.get()
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// Whether the claim is the one that the pod means.
fn is_meant(pod: &Pod, claim: &PersistentVolumeClaim, own: bool) -> bool {
    let uid = pod.metadata.uid.as_deref();
    !own || oracle::controller(&claim.metadata) == uid
}

/// Why the volumes of a pod keep it from a node. A claim that has no volume yet gets one anywhere.
///
/// # Errors
/// The words for what keeps it away.
pub(super) fn allow(cluster: &dyn Cluster, pod: &Pod, node: &Node) -> Result<(), String> {
    for (name, own) in volumes::claims_of(pod) {
        let found = claim(cluster, namespace(pod), &name).filter(|c| is_meant(pod, c, own));
        let Some(found) = found.filter(|c| !oracle::is_going(&c.metadata)) else {
            return Err(format!("its claim {name} is not there"));
        };
        let Some(of) = volumes::volume_of(found) else { continue };
        match volume(cluster, of) {
            Some(volume) if volumes::is_reached_from(volume, node) => {}
            Some(_) => return Err(format!("the volume of its claim {name} is elsewhere")),
            None => return Err(format!("the volume of its claim {name} is not there")),
        }
    }
    Ok(())
}

/// Whether a pod that runs uses the claim.
fn user(cluster: &dyn Cluster, key: &Key, claim: &PersistentVolumeClaim) -> Option<Key> {
    let pods = cluster.objects(Kind::Pod).filter_map(|o| Some((o.key(), o.get::<Pod>()?)));
    let mut users = pods.filter(|(of, pod)| {
        of.namespace == key.namespace
            && oracle::phase(pod) == "Running"
            && pod.metadata.deletion_grace_period_seconds != Some(0)
            && volumes::claims_of(pod)
                .iter()
                .any(|(name, own)| *name == *key.name && is_meant(pod, claim, *own))
    });
    users.next().map(|(key, _)| key)
}

impl OneVolumeEach {
    fn claim_changed(
        cluster: &dyn Cluster,
        key: &Key,
        old: Option<&PersistentVolumeClaim>,
        new: &PersistentVolumeClaim,
        found: &mut Vec<String>,
    ) {
        let (was, is) = (old.and_then(volumes::volume_of), volumes::volume_of(new));
        if let Some(was) = was
            && is != Some(was)
        {
            let is = is.unwrap_or("none");
            found.push(format!("{key} had the volume {was} and has {is} now"));
        }
        let became = volumes::is_bound(new) && !old.is_some_and(volumes::is_bound);
        if became && let Some(of) = is {
            let holder = volume(cluster, of).and_then(volumes::claim_of);
            if holder != new.metadata.uid.as_deref() {
                let holder = holder.unwrap_or("nobody");
                found.push(format!("{key} is bound to {of}, which belongs to {holder}"));
            }
        }
    }

    /// A controller deletes a claim that a stateful set is to keep.
    fn claim_goes(
        cluster: &dyn Cluster,
        key: &Key,
        claim: &PersistentVolumeClaim,
    ) -> Option<String> {
        let sets = cluster.objects(Kind::StatefulSet).filter(|o| {
            let meta = o.meta();
            meta.namespace.as_deref() == Some(&*key.namespace) && !oracle::is_going(meta)
        });
        for object in sets {
            let Some(set) = object.get::<StatefulSet>() else { continue };
            // One that an earlier set of the name has left to be deleted goes rightly.
            let mut owners = claim.metadata.owner_references.iter().flatten();
            let of_others = owners.any(|o| o.uid != object.uid() && o.kind != "Pod");
            if volumes::is_of_set(set, &key.name) && volumes::keeps_claims(set) && !of_others {
                return Some(format!("{key} is deleted although {} keeps it", object.key()));
            }
        }
        None
    }

    fn pod_runs(cluster: &dyn Cluster, key: &Key, pod: &Pod, found: &mut Vec<String>) {
        let node = oracle::node_of(pod);
        let node = node.and_then(|name| cluster.object(&Key::cluster(Kind::Node, name)));
        let Some(node) = node.and_then(Object::get::<Node>) else { return };
        for (name, own) in volumes::claims_of(pod) {
            let of = claim(cluster, namespace(pod), &name).filter(|c| is_meant(pod, c, own));
            let bound = of.filter(|c| volumes::is_bound(c)).and_then(volumes::volume_of);
            let Some(bound) = bound else {
                found.push(format!("{key} runs, and its claim {name} has no volume"));
                continue;
            };
            if !volume(cluster, bound).is_some_and(|v| volumes::is_reached_from(v, node)) {
                found.push(format!("{key} runs where the volume of its claim {name} is not"));
            }
        }
    }
}

impl Check for OneVolumeEach {
    fn property(&self) -> &'static str {
        "P57"
    }

    fn statement(&self) -> &'static str {
        "a claim and its volume belong to each other alone, and pods run where their volumes are"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        let Occurrence::Committed { by, key, old, new, .. } = occurrence else { return };
        match key.kind {
            Kind::PersistentVolumeClaim => {
                let of =
                    |o: &Option<&Object>| o.and_then(Object::get::<PersistentVolumeClaim>).cloned();
                let (old, new) = (of(old), of(new));
                if let Some(new) = &new {
                    Self::claim_changed(cluster, key, old.as_ref(), new, found);
                }
                let Some(old) = old else { return };
                let goes = new.as_ref().is_none_or(|new| oracle::is_going(&new.metadata));
                let manager = by.is_some_and(|by| cluster.role(by) == Role::ControllerManager);
                if goes && !oracle::is_going(&old.metadata) && manager {
                    found.extend(Self::claim_goes(cluster, key, &old));
                }
                if new.is_none()
                    && let Some(user) = user(cluster, key, &old)
                {
                    found.push(format!("{key} is gone although {user} uses it"));
                }
            }
            Kind::PersistentVolume => {
                let of = |o: &Option<&Object>| o.and_then(Object::get::<PersistentVolume>).cloned();
                let (old, new) = (of(old), of(new));
                let holder = |v: &Option<PersistentVolume>| {
                    v.as_ref().and_then(volumes::claim_of).map(str::to_owned)
                };
                if let (Some(was), Some(is)) = (holder(&old), holder(&new))
                    && was != is
                {
                    found
                        .push(format!("{key} belonged to the claim {was} and belongs to {is} now"));
                }
                if new.is_none()
                    && let Some(was) = holder(&old)
                {
                    let all = cluster.objects(Kind::PersistentVolumeClaim);
                    let claims = all.filter(|o| o.uid() == was && !oracle::is_going(o.meta()));
                    let mut claims =
                        claims.filter(|o| o.get().and_then(volumes::volume_of) == Some(&*key.name));
                    if let Some(claim) = claims.next() {
                        found.push(format!("{key} is gone although {} has it", claim.key()));
                    }
                }
            }
            Kind::Pod => {
                let Some(pod) = oracle::pod(*new).filter(|p| oracle::phase(p) == "Running") else {
                    return;
                };
                let ran = oracle::pod(*old).is_some_and(|p| oracle::phase(p) == "Running");
                if !ran && !oracle::is_going(&pod.metadata) {
                    Self::pod_runs(cluster, key, pod, found);
                }
            }
            _ => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for object in cluster.objects(Kind::PersistentVolumeClaim) {
            let Some(claim) = object.get::<PersistentVolumeClaim>() else { continue };
            let Some(of) = volumes::volume_of(claim) else { continue };
            let holder = volume(cluster, of).and_then(volumes::claim_of);
            if holder != Some(object.uid()) || !volumes::is_bound(claim) {
                found.push(format!("{} and its volume {of} are not bound at rest", object.key()));
            }
        }
        for object in cluster.objects(Kind::PersistentVolume) {
            let Some(volume) = object.get::<PersistentVolume>() else { continue };
            let Some(of) = volumes::claim_of(volume) else { continue };
            let mut claims = cluster.objects(Kind::PersistentVolumeClaim);
            if volumes::goes_with_claim(volume) && !claims.any(|o| o.uid() == of) {
                found.push(format!("{} is there at rest, and its claim is not", object.key()));
            }
        }
        for object in cluster.objects(Kind::Pod) {
            let Some(pod) = object.get::<Pod>().filter(|p| oracle::is_active(p)) else { continue };
            if oracle::node_of(pod).is_none() {
                continue;
            }
            for (name, own) in volumes::claims_of(pod) {
                let of = claim(cluster, namespace(pod), &name).filter(|c| is_meant(pod, c, own));
                if !of.is_some_and(volumes::is_bound) {
                    let key = object.key();
                    found.push(format!("{key} has a node at rest, and no volume of claim {name}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
