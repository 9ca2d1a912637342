//! What claims of volumes use.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::Amounts;
use crate::quantity::Quantity;
use crate::volume::class_of_claim;

/// What claims use, of all classes of storage or, behind the name of one, of that class.
const RESOURCES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Stands between the name of a class and a resource.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Whether claims of volumes use the resource.
pub(super) fn is_used(resource: &str) -> bool {
    let of_class = resource.split_once(OF_CLASS).map(|(_, resource)| resource);
    RESOURCES.contains(&of_class.unwrap_or(resource))
}

/// Adds what a claim uses: itself, and as much storage as it asks for or is being given.
pub(super) fn add(claim: &PersistentVolumeClaim, used: &mut Amounts) {
    let [claims, storage] = RESOURCES;
    let spec = claim.spec.as_ref();
    let class = class_of_claim(claim).filter(|class| !class.is_empty());
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
}
