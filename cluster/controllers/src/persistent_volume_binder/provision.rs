//! Claims for which a volume is to be made.

use api::volume::{LOCAL_PROVISIONER, PROVISIONER, PROVISIONER_BETA, SELECTED_NODE};
use api::{ApiObject, Request, meta};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machine::{Announcement, Cache, Plan};

use super::{bind, local};
use crate::announce;

const FAILED: &str = "ProvisioningFailed";

/// Makes the volume, or asks for it whoever makes those of the class.
pub(super) fn provision(cache: &Cache, claim: &PersistentVolumeClaim, name: &str, plan: &mut Plan) {
    let failed = |why: String| announce::warning(claim, FAILED, why);
    let Some(class) = cache.get::<StorageClass>("", name) else {
        let why = format!("storageclass.storage.k8s.io {name:?} not found");
        return plan.events.push(failed(why));
    };
    let provisioner = &class.provisioner;
    if provisioner.starts_with("kubernetes.io/") {
        let why = format!("no volume plugin matched name: {provisioner}");
        return plan.events.push(failed(why));
    }
    if meta::annotation(&claim.metadata, PROVISIONER) != Some(provisioner) {
        let mut claim = claim.clone();
        for key in [PROVISIONER_BETA, PROVISIONER] {
            bind::annotate(&mut claim.metadata, key, provisioner);
        }
        return plan.request(Request::Update { object: claim.into_object(), subresource: None });
    }
    if provisioner != LOCAL_PROVISIONER {
        let why = format!(
            "Waiting for a volume to be created either by the external provisioner \
             '{provisioner}' or manually by the system administrator. If volume creation is \
             delayed, please verify that the provisioner is running and correctly registered."
        );
        return plan.events.push(announce::normal(claim, "ExternalProvisioning", why));
    }
    match local::volume(cache, claim, class) {
        Ok(made) => create(cache, claim, made, plan),
        Err(local::Problem::Unfit(why)) => plan.events.push(failed(why)),
        Err(local::Problem::NodeGone(node)) => {
            plan.events.push(failed(format!("node {node:?} not found")));
            // The scheduler shall choose another one.
            let mut claim = claim.clone();
            if let Some(annotations) = &mut claim.metadata.annotations {
                annotations.remove(SELECTED_NODE);
            }
            plan.request(Request::Update { object: claim.into_object(), subresource: None });
        }
    }
}

fn create(cache: &Cache, claim: &PersistentVolumeClaim, made: PersistentVolume, plan: &mut Plan) {
    let name = made.metadata.name.clone().unwrap_or_default();
    if cache.get::<PersistentVolume>("", &name).is_some() {
        // One that is there and does not serve is going, or somebody changed it.
        return;
    }
    let done = format!("Successfully provisioned volume {name} using {LOCAL_PROVISIONER}");
    let announcement = Announcement {
        done: Some(announce::normal(claim, "ProvisioningSucceeded", done)),
        refused: Some(announce::warning(claim, FAILED, String::new())),
    };
    plan.request_announced(Request::Create(made.into_object()), announcement);
}
