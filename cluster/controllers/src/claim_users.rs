//! Pods by the claims that they use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Kind, Name, Object, Pod, volume};
use machine::{Cache, Index};

/// The pods that use each claim, by namespace and name of the claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimUsers(BTreeMap<(Name, String), BTreeSet<Arc<Key>>>);

impl Index for ClaimUsers {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let (old, new) = (old.and_then(Object::get::<Pod>), new.and_then(Object::get::<Pod>));
        // Nearly all changes of pods are none of their spec.
        if let (Some(old), Some(new)) = (old, new)
            && let (Some(old), Some(new)) = (&old.spec, &new.spec)
            && old.is_same(new)
        {
            return;
        }
        let claims = |pod: Option<&Pod>| pod.map_or_else(BTreeSet::new, claims_of);
        let (old, new) = (claims(old), claims(new));
        for gone in old.difference(&new) {
            let place = (key.namespace.clone(), gone.clone());
            if let Some(users) = self.0.get_mut(&place) {
                users.remove(key);
                if users.is_empty() {
                    self.0.remove(&place);
                }
            }
        }
        for claim in new.difference(&old) {
            let place = (key.namespace.clone(), claim.clone());
            self.0.entry(place).or_default().insert(key.clone());
        }
    }
}

impl ClaimUsers {
    /// The pods that use the claim of that key, by name.
    pub(crate) fn find<'a>(cache: &'a Cache, claim: &Key) -> impl Iterator<Item = &'a Pod> {
        let place = (claim.namespace.clone(), claim.name.to_string());
        let users = cache.index::<Self>().0.get(&place).into_iter().flatten();
        users.filter_map(|key| cache.object(key)?.get())
    }
}

/// The names of the claims that a pod uses, those of its ephemeral volumes among them.
pub(crate) fn claims_of(pod: &Pod) -> BTreeSet<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|v| volume::claim_of(v, name)).collect()
}
