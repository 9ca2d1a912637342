//! A store that answers requests as the API does, as far as controllers can tell, and a bench
//! for one reconciler on top of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::volume::{CLAIM_FINALIZER, VOLUME_FINALIZER};
use api::{
    ApiError, Key, Kind, Object, Propagation, Reply, Request, Revision, Status, Subresource, Time,
    codec, meta,
};
use k8s_openapi::ByteString;
use machine::{Aspects, Cache, Delta, Memory, Plan, Reconciler, WatchEvent};
use serde_json::{Value, json};

/// A moment that is easy to read in timestamps.
pub(crate) const START: Time = Time::from_secs(1_000_000_000);

/// The objects and the news of them.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) objects: BTreeMap<Key, Object>,
    pub(crate) news: Vec<(Kind, WatchEvent)>,
    pub(crate) now: Time,
    pub(crate) revision: u64,
}

impl Store {
    pub(crate) fn request(&mut self, request: Request) -> Result<Reply, ApiError> {
        match request {
            Request::Create(object) => self.create(&object),
            Request::Update { object, subresource } => self.update(&object, subresource),
            Request::Delete { key, uid, revision, grace_seconds, propagation } => {
                self.delete(&key, uid.as_deref(), revision, grace_seconds, propagation)
            }
            Request::Bind { pod, uid, node } => {
                self.edit(&pod, Some(&uid), |v| v["spec"]["nodeName"] = node.into())
            }
            Request::Sign(key) if key.kind == Kind::Secret => self.issue(&key),
            Request::Sign(key) => {
                self.edit(&key, None, |v| v["status"]["certificate"] = "eA==".into())
            }
            Request::Patch { key, subresource: Some(Subresource::Scale), patch } => {
                let body = patch.body.json().into_owned();
                let revision = body["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                if revision.is_some_and(|r| r != self.revision_of(&key)) {
                    return Err(Status::modified(key.kind, &key.name).into());
                }
                self.edit(&key, None, |v| v["spec"]["replicas"] = body["spec"]["replicas"].clone())
            }
            Request::ReadRevision(kind) => {
                let revision = Revision(self.revision);
                self.news.push((kind, WatchEvent::Progress { kind, revision }));
                Ok(Reply::Done(revision))
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn revision_of(&self, key: &Key) -> String {
        self.objects.get(key).map(|o| o.revision().to_string()).unwrap_or_default()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.values().filter(move |o| o.kind() == kind)
    }

    /// Changes an object as JSON, status and all.
    pub(crate) fn edit(
        &mut self,
        key: &Key,
        uid: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Reply, ApiError> {
        let stored = self.existing(key)?;
        if uid.is_some_and(|uid| uid != stored.uid()) {
            return Err(Status::modified(key.kind, &key.name).into());
        }
        let before = codec::to_value(stored);
        let mut after = before.clone();
        change(&mut after);
        Ok(self.commit(key, &before, after))
    }

    /// Puts a token of its account into a secret.
    fn issue(&mut self, key: &Key) -> Result<Reply, ApiError> {
        let (account, uid) =
            ("kubernetes.io/service-account.name", "kubernetes.io/service-account.uid");
        let secret = codec::to_value(self.existing(key)?);
        let name = secret["metadata"]["annotations"][account].as_str().unwrap_or_default();
        let found = self.existing(&Key::new(Kind::ServiceAccount, &key.namespace, name))?;
        let account_uid = found.uid().to_owned();
        let namespace = ByteString(key.namespace.as_bytes().to_vec());
        self.edit(key, None, |v| {
            v["metadata"]["annotations"][uid] = account_uid.into();
            v["data"] = json!({"token": "eA==", "ca.crt": "Q0E=", "namespace": namespace});
        })
    }

    fn existing(&self, key: &Key) -> Result<&Object, ApiError> {
        self.objects.get(key).ok_or_else(|| Status::not_found(key.kind, &key.name).into())
    }

    fn create(&mut self, object: &Object) -> Result<Reply, ApiError> {
        let key = object.key();
        if self.objects.contains_key(&key) {
            return Err(Status::already_exists(key.kind, &key.name).into());
        }
        if let Some(namespace) = self.get(&Key::cluster(Kind::Namespace, &key.namespace))
            && meta::is_terminating(namespace.meta())
        {
            return Err(Status::forbidden(key.kind, &key.name, "it is being terminated").into());
        }
        let mut value = codec::to_value(object);
        let created = json!(self.now.to_meta());
        let metadata = value["metadata"].as_object_mut().unwrap();
        let uid = format!("uid-{}", self.revision + 1);
        metadata.entry("uid").or_insert_with(|| uid.into());
        metadata.entry("creationTimestamp").or_insert(created);
        metadata.entry("generation").or_insert_with(|| 1.into());
        if key.kind == Kind::Pod && value["status"]["phase"].is_null() {
            value["status"]["phase"] = "Pending".into();
        }
        if key.kind == Kind::Namespace {
            value["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        let finalizer = match key.kind {
            Kind::PersistentVolume => Some(VOLUME_FINALIZER),
            Kind::PersistentVolumeClaim => Some(CLAIM_FINALIZER),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            value["metadata"]["finalizers"] = json!([finalizer]);
        }
        Ok(self.commit(&key, &Value::Null, value))
    }

    fn update(
        &mut self,
        object: &Object,
        subresource: Option<Subresource>,
    ) -> Result<Reply, ApiError> {
        let key = object.key();
        let stored = self.existing(&key)?;
        if object.revision() != stored.revision() || object.uid() != stored.uid() {
            return Err(Status::modified(key.kind, &key.name).into());
        }
        let before = codec::to_value(stored);
        let wanted = codec::to_value(object);
        let mut after = before.clone();
        match subresource {
            None => {
                after = wanted;
                after["metadata"]["deletionTimestamp"] =
                    before["metadata"]["deletionTimestamp"].clone();
                after["status"] = before["status"].clone();
                if after["spec"] != before["spec"] {
                    let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
                    after["metadata"]["generation"] = (generation + 1).into();
                }
            }
            Some(Subresource::Status) => after["status"] = wanted["status"].clone(),
            Some(Subresource::Approval) => {
                after["status"]["conditions"] = wanted["status"]["conditions"].clone();
            }
            Some(Subresource::Finalize) => after["spec"] = wanted["spec"].clone(),
            Some(Subresource::Scale) => panic!("no controller here scales"),
        }
        Ok(self.commit(&key, &before, after))
    }

    fn delete(
        &mut self,
        key: &Key,
        uid: Option<&str>,
        revision: Option<Revision>,
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
    ) -> Result<Reply, ApiError> {
        let stored = self.existing(key)?;
        if uid.is_some_and(|uid| uid != stored.uid())
            || revision.is_some_and(|r| r != stored.revision())
        {
            return Err(Status::modified(key.kind, &key.name).into());
        }
        let before = codec::to_value(stored);
        let mut after = before.clone();
        let finalizer = match propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers =
                after["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.contains(&finalizer.into()) {
                finalizers.push(finalizer.into());
            }
            after["metadata"]["finalizers"] = finalizers.into();
        }
        let is_bound_pod = key.kind == Kind::Pod && !after["spec"]["nodeName"].is_null();
        let graceful = is_bound_pod && grace_seconds != Some(0);
        let held = after["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
            || after["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if !graceful && !held {
            return Ok(self.remove(key));
        }
        if after["metadata"]["deletionTimestamp"].is_null() {
            after["metadata"]["deletionTimestamp"] = json!(self.now.to_meta());
        }
        if key.kind == Kind::Namespace {
            after["status"]["phase"] = "Terminating".into();
        }
        Ok(self.commit(key, &before, after))
    }

    fn remove(&mut self, key: &Key) -> Reply {
        self.revision += 1;
        let revision = Revision(self.revision);
        self.objects.remove(key);
        self.news.push((key.kind, WatchEvent::Deleted { key: key.clone(), revision }));
        Reply::Done(revision)
    }

    fn commit(&mut self, key: &Key, before: &Value, mut after: Value) -> Reply {
        if *before != Value::Null {
            let same = codec::decode_value(key.kind, &after).unwrap() == self.objects[key];
            if same {
                return Reply::Object(self.objects[key].clone());
            }
        }
        let metadata = &after["metadata"];
        let none = |v: &Value| v.as_array().is_none_or(Vec::is_empty);
        let done = !metadata["deletionTimestamp"].is_null() && none(&metadata["finalizers"]);
        // Bound pods wait for their kubelet, namespaces for their finalizer.
        let bound = !after["spec"]["nodeName"].is_null();
        if done && !(key.kind == Kind::Pod && bound) && none(&after["spec"]["finalizers"]) {
            return self.remove(key);
        }
        self.revision += 1;
        after["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = codec::decode_value(key.kind, &after).unwrap();
        self.objects.insert(key.clone(), object.clone());
        self.news.push((key.kind, WatchEvent::Changed(object.clone())));
        Reply::Object(object)
    }
}

/// The keys that a change affects: none if the reconciler does not heed in what it differs.
pub(crate) fn affected(reconciler: &dyn Reconciler, cache: &Cache, delta: &Delta) -> Vec<Key> {
    let keys = reconciler.keys_for(cache, delta);
    let differ = Aspects::between(delta.old.as_ref(), delta.new.as_ref());
    if !reconciler.heeds(delta.key.kind).hear(differ) {
        let name = reconciler.name();
        assert!(keys.is_empty(), "{name} does not heed {differ:?} of {delta:?}, but {keys:?}");
    }
    keys
}

/// One reconciler with a cache that is never behind.
pub(crate) struct Fixture<R> {
    reconciler: R,
    memories: BTreeMap<Key, Memory>,
    pub(crate) cache: Cache,
    pub(crate) store: Store,
}

impl<R: Reconciler> Fixture<R> {
    pub(crate) fn new(reconciler: R) -> Self {
        let store = Store { now: START, ..Store::default() };
        let cache = Cache::with_indexes(reconciler.indexes());
        Self { reconciler, memories: BTreeMap::new(), cache, store }
    }

    pub(crate) fn now(&self) -> Time {
        self.store.now
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.store.now = self.store.now + by;
    }

    /// Stores the object as given, but for its revision; returns the keys it affects.
    pub(crate) fn put(&mut self, mut value: Value) -> Vec<Key> {
        self.store.revision += 1;
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let metadata = value["metadata"].as_object_mut().unwrap();
        metadata.entry("uid").or_insert_with(|| format!("uid-{name}").into());
        metadata.insert("resourceVersion".to_owned(), self.store.revision.to_string().into());
        let object = codec::decode_any(&serde_json::to_vec(&value).unwrap()).unwrap();
        self.store.objects.insert(object.key(), object.clone());
        self.store.news.push((object.kind(), WatchEvent::Changed(object)));
        self.deliver()
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Vec<Key> {
        self.store.remove(key);
        self.deliver()
    }

    /// Lets every watch come as far as the store.
    pub(crate) fn progress(&mut self) {
        let revision = Revision(self.store.revision);
        for kind in Kind::stored() {
            self.cache.apply(self.store.now, WatchEvent::Progress { kind, revision });
        }
    }

    /// Carries out a request and lets the cache see its effect.
    pub(crate) fn request(&mut self, request: Request) {
        self.store.request(request).unwrap();
        self.deliver();
    }

    fn deliver(&mut self) -> Vec<Key> {
        let news = std::mem::take(&mut self.store.news);
        let keys: BTreeSet<Key> =
            news.into_iter().flat_map(|(_, event)| self.deliver_event(event)).collect();
        keys.into_iter().collect()
    }

    /// Lets the cache see the event; returns the keys it affects.
    pub(crate) fn deliver_event(&mut self, event: WatchEvent) -> Vec<Key> {
        let mut keys = BTreeSet::new();
        self.cache.apply_each(self.store.now, event, |cache, delta| {
            keys.extend(affected(&self.reconciler, cache, &delta));
        });
        keys.into_iter().collect()
    }

    pub(crate) fn reconcile(&self, key: &Key) -> Plan {
        self.reconciler.reconcile(&self.cache, key, self.store.now)
    }

    /// As a process reconciles that remembers what it did before: what people are told at once.
    pub(crate) fn told(&mut self, key: &Key) -> Vec<String> {
        let memory = self.memories.entry(key.clone()).or_default();
        let plan = self.reconciler.reconcile_with(&self.cache, key, self.store.now, memory);
        plan.events.iter().map(|record| format!("{} {}", record.reason, record.message)).collect()
    }

    /// Forgets what was remembered, as a process that starts anew.
    pub(crate) fn forget(&mut self) {
        self.memories.clear();
    }

    /// Carries plans out until there is nothing left to do; returns everything that was done.
    pub(crate) fn settle(&mut self, key: &Key) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..50 {
            let plan = self.reconcile(key);
            if plan.requests.is_empty() {
                return done;
            }
            done.extend(summary(&plan));
            for request in plan.requests {
                self.store.request(request).unwrap();
            }
            self.deliver();
        }
        panic!("{key} does not settle: {done:#?}");
    }
}

/// The requests of a plan in short.
pub(crate) fn summary(plan: &Plan) -> Vec<String> {
    plan.requests.iter().map(short).collect()
}

pub(crate) fn short(request: &Request) -> String {
    match request {
        Request::Create(object) => format!("create {}", object.key()),
        Request::Update { object, subresource: None } => format!("update {}", object.key()),
        Request::Update { object, subresource: Some(part) } => {
            format!("update {} {}", object.key(), part.path())
        }
        Request::Delete { key, grace_seconds: Some(n), .. } => format!("delete {key} grace {n}"),
        Request::Delete { key, propagation: Some(p), .. } => format!("delete {key} {p:?}"),
        Request::Delete { key, .. } => format!("delete {key}"),
        Request::Patch { key, subresource: Some(part), patch } => {
            let body = patch.body.json();
            format!("patch {key} {} to {}", part.path(), body["spec"]["replicas"])
        }
        Request::List { kind, namespace, selector } => {
            format!("list {kind} {namespace} {selector}")
        }
        Request::Sign(key) => format!("sign {}", key.path()),
        Request::ReadRevision(kind) => format!("read {kind}"),
        other => format!("{other:?}"),
    }
}

/// The keys of the objects that a plan creates.
pub(crate) fn creates(plan: &Plan) -> Vec<String> {
    let created = summary(plan);
    created.iter().filter_map(|s| s.strip_prefix("create ").map(str::to_owned)).collect()
}
