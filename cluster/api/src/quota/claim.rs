//! What claims of volumes use.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::Amounts;
use crate::meta;
use crate::quantity::Quantity;

/// What claims use, of all classes of storage or, behind the name of one, of that class.
const RESOURCES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const COUNT: &str = "count/persistentvolumeclaims";
/// Stands between the name of a class and a resource.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Where the class of a claim stood before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Whether claims of volumes use the resource.
pub fn is_used_by_claims(resource: &str) -> bool {
    let of_class = resource.split_once(OF_CLASS).map(|(_, resource)| resource);
    resource == COUNT || RESOURCES.contains(&of_class.unwrap_or(resource))
}

/// What a claim uses: itself, and as much storage as it asks for or is being given.
pub fn used_by_claim(claim: &PersistentVolumeClaim) -> Amounts {
    let [claims, storage] = RESOURCES;
    let spec = claim.spec.as_ref();
    let class = meta::annotation(&claim.metadata, CLASS_ANNOTATION)
        .or_else(|| spec.and_then(|s| s.storage_class_name.as_deref()))
        .filter(|class| !class.is_empty());
    let mut used = Amounts::default();
    let mut charge = |resource: &str, amount: Quantity| {
        used.set(resource, amount);
        if let Some(class) = class {
            used.set(&format!("{class}{OF_CLASS}{resource}"), amount);
        }
    };
    charge(claims, Quantity::whole(1));
    let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let asked = Amounts::of_list(requests).get("storage");
    let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref());
    let given = Amounts::of_list(allocated).get("storage");
    let most = [asked, given].into_iter().flatten().max_by_key(|amount| amount.nano());
    if asked.is_some()
        && let Some(most) = most
    {
        charge(storage, most);
    }
    used.set(COUNT, Quantity::whole(1));
    used
}
