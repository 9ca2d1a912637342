//! Claims that look for a volume, and volumes by what they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Key, Kind, Object, volume};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use machine::Index;

use super::claim_key;

type Group<K> = BTreeMap<K, BTreeSet<Arc<Key>>>;

fn remove<K: Ord>(group: &mut Group<K>, at: &K, key: &Arc<Key>) {
    if let Some(members) = group.get_mut(at) {
        members.remove(key);
        if members.is_empty() {
            group.remove(at);
        }
    }
}

/// Where a claim or volume belongs.
#[derive(PartialEq)]
enum Place<A, B> {
    One(A),
    Other(B),
}

/// Claims: those that name no volume by their class, the others by their volume.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    unbound: Group<Option<String>>,
    naming: Group<String>,
}

impl Index for Claims {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolumeClaim]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let place = |object: Option<&Object>| {
            let claim = object?.get::<PersistentVolumeClaim>()?;
            let name = volume::volume_name(claim);
            Some(if name.is_empty() {
                Place::One(volume::class_of_claim(claim).map(str::to_owned))
            } else {
                Place::Other(name.to_owned())
            })
        };
        let (old, new) = (place(old), place(new));
        if old == new {
            return;
        }
        match old {
            Some(Place::One(class)) => remove(&mut self.unbound, &class, key),
            Some(Place::Other(name)) => remove(&mut self.naming, &name, key),
            None => {}
        }
        let group = match new {
            Some(Place::One(class)) => self.unbound.entry(class).or_default(),
            Some(Place::Other(name)) => self.naming.entry(name).or_default(),
            None => return,
        };
        group.insert(key.clone());
    }
}

impl Claims {
    /// Claims of the class, or of none, that name no volume.
    pub(super) fn unbound(&self, class: Option<&str>) -> impl Iterator<Item = &Arc<Key>> {
        self.unbound.get(&class.map(str::to_owned)).into_iter().flatten()
    }

    /// Claims that name no volume.
    pub(super) fn all_unbound(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.unbound.values().flatten()
    }

    /// Claims that name the volume.
    pub(super) fn naming(&self, volume: &str) -> impl Iterator<Item = &Arc<Key>> {
        self.naming.get(volume).into_iter().flatten()
    }
}

/// Volumes: those that name no claim by their class, the others by their claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes {
    free: Group<String>,
    claimed: Group<Key>,
}

impl Index for Volumes {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolume]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let place = |object: Option<&Object>| {
            let found = object?.get::<PersistentVolume>()?;
            Some(match volume::claim_ref(found) {
                None => Place::One(volume::class_of_volume(found).to_owned()),
                Some(reference) => Place::Other(claim_key(reference)),
            })
        };
        let (old, new) = (place(old), place(new));
        if old == new {
            return;
        }
        match old {
            Some(Place::One(class)) => remove(&mut self.free, &class, key),
            Some(Place::Other(claim)) => remove(&mut self.claimed, &claim, key),
            None => {}
        }
        let group = match new {
            Some(Place::One(class)) => self.free.entry(class).or_default(),
            Some(Place::Other(claim)) => self.claimed.entry(claim).or_default(),
            None => return,
        };
        group.insert(key.clone());
    }
}

impl Volumes {
    /// Volumes of the class that name no claim.
    pub(super) fn free(&self, class: &str) -> impl Iterator<Item = &Arc<Key>> {
        self.free.get(class).into_iter().flatten()
    }

    /// Volumes that name the claim.
    pub(super) fn of_claim(&self, claim: &Key) -> impl Iterator<Item = &Arc<Key>> {
        self.claimed.get(claim).into_iter().flatten()
    }
}
