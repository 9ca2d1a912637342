//! Volumes of claims: from the claim to the volume that is bound to it, and where that is.
//!
//! Both are read anew for each pod, not before it was seen: a claim of that name may have been
//! another one a moment ago.
//!
//! Source: kubernetes 1.33,
//! `pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go`.

use api::volume::{
    LOCAL_PROVISIONER, PROVISIONED_BY, claim_of, claim_phase, claim_ref, fits_node, uid_of,
    volume_name,
};
use api::{Key, Kind, Object, Time, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};

use crate::config_source::{ConfigSource, Lookup};
use crate::context::{ApiPurpose, Context};
use crate::pod_worker::PodWorker;
use crate::volume::{HostPathType, VolumeContent, VolumeSpec};

/// Why a claim's volume cannot be had yet.
pub(crate) enum ClaimProblem {
    /// Something is still being read.
    Pending,
    /// The claim has no volume that this pod may use.
    Unbound(String),
    /// The volume cannot be mounted here.
    Failed(String),
}

/// Finds the volume behind a claim; `None` when the pod's volume is of another kind.
pub(crate) fn resolve(
    ctx: &mut Context,
    worker: &PodWorker,
    volume: &Volume,
    now: Time,
) -> Option<Result<VolumeSpec, ClaimProblem>> {
    let name = claim_of(volume, worker.name())?;
    // What containers have mounted does not change any more.
    let written = worker.volumes.written.iter().flat_map(|specs| specs.iter());
    if let Some(spec) = written.into_iter().find(|spec| spec.name == volume.name) {
        return Some(Ok(spec.clone()));
    }
    Some(of_claim(ctx, worker, volume, &name, now))
}

fn of_claim(
    ctx: &mut Context,
    worker: &PodWorker,
    volume: &Volume,
    name: &str,
    now: Time,
) -> Result<VolumeSpec, ClaimProblem> {
    let namespace = worker.namespace();
    let unbound = |why: String| {
        ClaimProblem::Unbound(format!("error processing PVC {namespace}/{name}: {why}"))
    };
    let claim_key = Key::new(Kind::PersistentVolumeClaim, namespace, name);
    let found = match read(ctx, worker, &claim_key, now) {
        Ok(object) => object,
        Err(None) => return Err(ClaimProblem::Pending),
        Err(Some(why)) => {
            return Err(unbound(format!("failed to fetch PVC from API server: {why}")));
        }
    };
    let claim = match usable(&found, worker, volume.ephemeral.is_some()) {
        Ok(claim) => claim,
        Err(why) => {
            ctx.configs.doubt(&claim_key);
            return Err(unbound(why));
        }
    };
    let key = Key::cluster(Kind::PersistentVolume, volume_name(claim));
    let found = match read(ctx, worker, &key, now) {
        Ok(object) => object,
        Err(None) => return Err(ClaimProblem::Pending),
        Err(Some(why)) => {
            let volume = &key.name;
            return Err(unbound(format!("failed to fetch PV {volume} from API server: {why}")));
        }
    };
    let mounted = match found.get::<PersistentVolume>() {
        Some(bound) => names(bound, claim)
            .map_err(unbound)
            .and_then(|()| content(ctx, bound, volume).map_err(ClaimProblem::Failed)),
        None => Err(unbound("no volume in the answer".to_owned())),
    };
    if mounted.is_err() {
        // The claim may be another one by now.
        ctx.configs.doubt(&claim_key);
        ctx.configs.doubt(&key);
    }
    let (path, content) = mounted?;
    Ok(VolumeSpec { name: volume.name.clone(), path, content })
}

/// The claim, if it is bound and the pod may use it.
fn usable<'a>(
    found: &'a Object,
    worker: &PodWorker,
    ephemeral: bool,
) -> Result<&'a PersistentVolumeClaim, String> {
    let Some(claim) = found.get::<PersistentVolumeClaim>() else {
        return Err("no claim in the answer".to_owned());
    };
    let owner = meta::controller_of(&claim.metadata).map(|owner| owner.uid.as_str());
    if ephemeral && owner != Some(&*worker.uid) {
        let (namespace, pod) = (worker.namespace(), worker.name());
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        ));
    }
    if meta::is_terminating(&claim.metadata) {
        return Err("PVC is being deleted".to_owned());
    }
    if claim_phase(claim) != "Bound" || volume_name(claim).is_empty() {
        return Err("PVC is not bound".to_owned());
    }
    Ok(claim)
}

/// Reads an object that was not read since the pod is known; `None` while that is under way.
fn read(
    ctx: &mut Context,
    worker: &PodWorker,
    key: &Key,
    now: Time,
) -> Result<Object, Option<String>> {
    let mut requests = Vec::new();
    let found = ctx.configs.object(now, key, worker.seen_at, &mut requests);
    for key in requests {
        let request = ConfigSource::request(&key);
        ctx.api(ApiPurpose::Config(key), request);
    }
    match found {
        Lookup::Found(object) => Ok(object),
        Lookup::Pending => Err(None),
        Lookup::Missing(why) | Lookup::Failed(why) => Err(Some(why)),
    }
}

/// Whether the volume says, too, that it is bound to the claim.
fn names(bound: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = bound.metadata.name.as_deref().unwrap_or_default();
    let Some(reference) = claim_ref(bound) else {
        return Err(format!(
            "found PV object {name} with nil pv.Spec.ClaimRef indicating it is not yet bound to \
             the claim"
        ));
    };
    let (uid, wanted) = (uid_of(reference), claim.metadata.uid.as_deref().unwrap_or_default());
    if uid == wanted {
        return Ok(());
    }
    Err(format!(
        "found PV object {name} with a pv.Spec.ClaimRef.UID {uid} that does not point to \
         claim.UID {wanted}"
    ))
}

/// Where the volume is on this node, and what must be there.
fn content(
    ctx: &Context,
    bound: &PersistentVolume,
    volume: &Volume,
) -> Result<(String, VolumeContent), String> {
    let spec = bound.spec.clone().unwrap_or_default();
    let name = &volume.name;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!(
            "volume {name} has volumeMode Block, but is specified in volumeMounts"
        ));
    }
    let labels = ctx.node().and_then(|node| node.metadata.labels.as_ref());
    if !fits_node(bound, labels) {
        return Err("no matching NodeSelectorTerms".to_owned());
    }
    if let Some(host) = spec.host_path {
        let kind = HostPathType::parse(host.type_.as_deref().unwrap_or_default());
        return Ok((host.path, VolumeContent::HostPath(kind)));
    }
    if let Some(local) = spec.local {
        let ours = meta::annotation(&bound.metadata, PROVISIONED_BY) == Some(LOCAL_PROVISIONER);
        return Ok((local.path, VolumeContent::Local { create: ours }));
    }
    Err("no volume plugin matched".to_owned())
}
