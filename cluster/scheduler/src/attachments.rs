//! [`Attachments`]: which volumes of storage drivers claims stand for, kept current by changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::volume::{claim_ref, class_of_claim, volume_name};
use api::{Key, Kind, Object};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machine::{Cache, Delta};

/// A volume as nodes count it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attachment {
    /// Whose it is.
    pub(crate) driver: String,
    pub(crate) volume: Volume,
}

/// Which of a driver's volumes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Volume {
    /// The one that the driver calls so.
    Handle(String),
    /// The one that it will make for a claim.
    Of(Key),
}

/// The volumes of drivers by claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attachments(BTreeMap<Key, Attachment>);

impl Attachments {
    /// What a claim stands for; `None` if not for a volume of a driver.
    pub(crate) fn of(&self, claim: &Key) -> Option<&Attachment> {
        self.0.get(claim)
    }

    #[cfg(test)]
    pub(crate) fn put(&mut self, claim: Key, attachment: Attachment) {
        self.0.insert(claim, attachment);
    }

    fn all(cache: &Cache) -> Self {
        let claims = cache.objects(Kind::PersistentVolumeClaim);
        let of = |object: &Object| {
            let key = object.key();
            Some((key.clone(), attachment(cache, &key)?))
        };
        Self(claims.filter_map(of).collect())
    }

    fn look_again(&mut self, cache: &Cache, claim: Key) {
        match attachment(cache, &claim) {
            Some(found) => self.0.insert(claim, found),
            None => self.0.remove(&claim),
        };
    }
}

/// What a claim stands for: the volume that it is bound to, or the one that its class will make.
fn attachment(cache: &Cache, key: &Key) -> Option<Attachment> {
    let claim = cache.object(key)?.get::<PersistentVolumeClaim>()?;
    if let Some(bound) = cache.get::<PersistentVolume>("", volume_name(claim)) {
        let csi = bound.spec.as_ref()?.csi.as_ref()?;
        let volume = Volume::Handle(csi.volume_handle.clone());
        return Some(Attachment { driver: csi.driver.clone(), volume });
    }
    let class = cache.get::<StorageClass>("", class_of_claim(claim)?)?;
    Some(Attachment { driver: class.provisioner.clone(), volume: Volume::Of(key.clone()) })
}

/// Keeps [`Attachments`] current, from when they are first asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attaching {
    /// As of the last time; `None` if all has to be looked at.
    known: Option<Arc<Attachments>>,
    /// Claims that have to be looked at again.
    stale: BTreeSet<Key>,
}

impl Attaching {
    /// Takes a change of a claim, a volume or a class.
    pub(crate) fn changed(&mut self, delta: &Delta) {
        if self.known.is_none() {
            return;
        }
        match delta.key.kind {
            Kind::PersistentVolumeClaim => {
                self.stale.insert(delta.key.clone());
            }
            Kind::PersistentVolume => {
                let states = [&delta.old, &delta.new].into_iter().flatten();
                let volumes = states.filter_map(Object::get::<PersistentVolume>);
                self.stale.extend(volumes.filter_map(claim_of));
            }
            // Classes hardly ever change, and any claim may be of this one.
            _ => self.forget(),
        }
    }

    fn forget(&mut self) {
        self.known = None;
        self.stale.clear();
    }

    /// Looks at what has changed.
    pub(crate) fn catch_up(&mut self, cache: &Cache) {
        if self.known.is_none() || !self.stale.is_empty() {
            let known = self.known.take().unwrap_or_else(|| Arc::new(Attachments::all(cache)));
            let stale = std::mem::take(&mut self.stale);
            self.known = Some(renewed(known, cache, stale));
        }
    }

    /// What claims stand for.
    pub(crate) fn current(&self, cache: &Cache) -> Arc<Attachments> {
        match &self.known {
            Some(known) => renewed(Arc::clone(known), cache, self.stale.iter().cloned()),
            None => Arc::new(Attachments::all(cache)),
        }
    }
}

fn renewed(
    mut known: Arc<Attachments>,
    cache: &Cache,
    stale: impl IntoIterator<Item = Key>,
) -> Arc<Attachments> {
    for claim in stale {
        Arc::make_mut(&mut known).look_again(cache, claim);
    }
    known
}

/// The claim that a volume names.
fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let claim = claim_ref(volume)?;
    let namespace = claim.namespace.as_deref().unwrap_or_default();
    Some(Key::new(Kind::PersistentVolumeClaim, namespace, claim.name.as_deref()?))
}
