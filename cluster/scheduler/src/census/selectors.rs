//! By what pods without spread constraints spread: the selectors of services and controllers.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::Selector;
use api::{Key, Kind, Object};

use crate::relations::Kin;

/// The selectors of services, replication controllers, replica sets and stateful sets.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// By namespace and name.
    services: BTreeMap<String, Services>,
    controllers: BTreeMap<Key, Arc<Selector>>,
    epoch: u64,
}

#[derive(Clone, Debug, Default)]
struct Services {
    by_name: BTreeMap<String, Selector>,
    /// When they last changed.
    epoch: u64,
}

/// What the selector of a pod without constraints was made of.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    services: u64,
    controller: Option<Arc<Selector>>,
}

impl PartialEq for Sources {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.controller, &other.controller) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same && self.services == other.services
    }
}

impl Selectors {
    /// Takes an object's present state, or that it is gone; `true` if its selector changed.
    pub fn set(&mut self, key: &Key, object: Option<&Object>) -> bool {
        let selector = object.and_then(selector_of);
        if key.kind == Kind::Service {
            return self.set_service(key, selector);
        }
        if selector.as_ref() == self.controllers.get(key).map(|known| &**known) {
            return false;
        }
        match selector {
            Some(selector) => self.controllers.insert(key.clone(), Arc::new(selector)),
            None => self.controllers.remove(key),
        };
        true
    }

    fn set_service(&mut self, key: &Key, selector: Option<Selector>) -> bool {
        // One without a selector selects nothing, and one with an empty one says nothing.
        let selector = selector.filter(|selector| !selector.is_everything());
        let services = self.services.entry(key.namespace.to_string()).or_default();
        if services.by_name.get(&*key.name) == selector.as_ref() {
            return false;
        }
        match selector {
            Some(selector) => services.by_name.insert(key.name.to_string(), selector),
            None => services.by_name.remove(&*key.name),
        };
        self.epoch += 1;
        services.epoch = self.epoch;
        if services.by_name.is_empty() {
            self.services.remove(&*key.namespace);
        }
        true
    }

    /// The selector by which such a pod spreads: that of all services that select it and of its
    /// controller; the one that matches everything if there are none.
    ///
    /// Source: kubernetes 1.33, `plugins/helper/spread.go`.
    pub fn of(&self, kin: &Kin) -> Selector {
        let mut all = Selector::default();
        let services = self.services.get(&kin.identity.namespace);
        for selector in services.into_iter().flat_map(|services| services.by_name.values()) {
            if selector.matches(Some(&kin.identity.labels)) {
                all.narrow(selector);
            }
        }
        if let Some(selector) = self.controller(kin) {
            all.narrow(selector);
        }
        all
    }

    /// What [`Self::of`] depends on: as long as it is equal, so is the selector.
    pub(crate) fn sources(&self, kin: &Kin) -> Sources {
        let services = self.services.get(&kin.identity.namespace);
        Sources {
            services: services.map_or(0, |services| services.epoch),
            controller: self.controller(kin).cloned(),
        }
    }

    fn controller(&self, kin: &Kin) -> Option<&Arc<Selector>> {
        let owner = kin.owner.as_ref()?;
        self.controllers.get(&Key::new(owner.kind, &kin.identity.namespace, &owner.name))
    }
}

fn selector_of(object: &Object) -> Option<Selector> {
    match object {
        Object::Service(service) => service.spec.as_ref()?.selector.as_ref().map(Selector::of_map),
        Object::ReplicationController(controller) => {
            controller.spec.as_ref()?.selector.as_ref().map(Selector::of_map)
        }
        Object::ReplicaSet(set) => Selector::of_label_selector(&set.spec.as_ref()?.selector).ok(),
        Object::StatefulSet(set) => Selector::of_label_selector(&set.spec.as_ref()?.selector).ok(),
        _ => None,
    }
}
