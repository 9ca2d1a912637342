use std::collections::BTreeMap;

use api::selector::{FieldSelector, Selector};
use api::{Key, Kind, Revision, codec};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::memory::{Commit, Memory};

fn pod_json(name: &str, app: &str, node: &str) -> Bytes {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"labels":{{"app":"{app}"}},
        "name":"{name}","namespace":"ns","uid":"u"}},"spec":{{"containers":[{{"name":"c"}}],
        "nodeName":"{node}"}},"status":{{"phase":"Pending"}}}}"#
    );
    let (object, _) = codec::decode(Kind::Pod, json.as_bytes()).unwrap();
    stored_bytes(&object)
}

fn put(store: &mut Memory, name: &str, value: Option<Bytes>) {
    let key = store_key(&Key::new(Kind::Pod, "ns", name));
    let expected = store.get(&key).map_or(Revision(0), |r| r.revision);
    let commit =
        Commit { key, expected, value, take: Vec::new(), free: Vec::new(), besides: vec![] };
    store.commit(commit).unwrap();
}

fn feed(window: &mut Window, store: &Memory, up_to: Revision) {
    let changes: Vec<_> = store.changes(window.revision()).unwrap().cloned().collect();
    for change in changes.iter().filter(|c| c.revision <= up_to) {
        window.apply(change).unwrap();
    }
}

fn filter(labels: &str, fields: &str) -> Filter {
    let labels = Selector::parse(labels).unwrap();
    Filter::new(Kind::Pod, "ns", labels, &FieldSelector::parse(fields).unwrap()).unwrap()
}

fn text(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .map(|i| {
            let object = codec::decode_any(&i.json()).unwrap();
            let name = object.meta().name.clone().unwrap();
            assert_eq!(object.revision(), i.revision, "the event carries its revision");
            format!("{} {name} {}", i.event.name(), i.revision)
        })
        .collect()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|e| e.name()).collect()
}

#[test]
fn served_json_carries_the_revision_and_is_what_was_stored() {
    let mut store = Memory::new();
    let mut window = Window::new(Limits::default());
    put(&mut store, "a", Some(pod_json("a", "x", "n1")));
    feed(&mut window, &store, Revision(99));
    let entry = window.get(&Key::new(Kind::Pod, "ns", "a")).unwrap();
    let json = String::from_utf8(entry.json().to_vec()).unwrap();
    let head = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"2","#;
    assert!(json.starts_with(head), "{json}");
    let mut object = entry.object().unwrap();
    assert_eq!(object.revision(), Revision(2));
    object.meta_mut().resource_version = None;
    assert_eq!(codec::encode(&object), pod_json("a", "x", "n1"));
    assert_eq!(with_revision(Kind::Pod, &pod_json("a", "x", "n1"), Revision(2)), entry.json());
}

#[test]
fn records_that_are_not_canonical_are_served_canonically() {
    let mut window = Window::new(Limits::default());
    let record = |name: &str, value: &str| Record {
        key: format!("/registry/configmaps/ns/{name}"),
        value: Bytes::from(value.to_owned()),
        revision: Revision(5),
    };
    let foreign = r#"{"kind":"ConfigMap","apiVersion":"v1",
        "metadata":{"name":"a","namespace":"ns","resourceVersion":"3"},"data":{"k":"v"}}"#;
    let bad = window.replace([record("a", foreign), record("b", "{")], Revision(9));
    assert_eq!(bad.len(), 1);
    let entry = window.get(&Key::new(Kind::ConfigMap, "ns", "a")).unwrap();
    assert_eq!(entry.object().unwrap().revision(), Revision(5));
}

#[test]
fn objects_that_start_and_stop_matching_are_added_and_deleted() {
    let mut store = Memory::new();
    let mut window = Window::new(Limits::default());
    window.replace([], store.revision());
    let mut cursor = window.watch_from_now(Kind::Pod);
    let mut bound = cursor;
    for (app, node) in [("x", ""), ("x", "n1"), ("y", "n1"), ("x", "n1")] {
        put(&mut store, "a", Some(pod_json("a", app, node)));
    }
    put(&mut store, "a", None);
    feed(&mut window, &store, Revision(99));
    let batch = window.read(&mut cursor, &filter("app=x", ""), 99).unwrap();
    let events = ["ADDED a 2", "MODIFIED a 3", "DELETED a 4", "ADDED a 5", "DELETED a 6"];
    assert_eq!(text(&batch.items), events);
    let batch = window.read(&mut bound, &filter("", "spec.nodeName=n1"), 99).unwrap();
    assert_eq!(text(&batch.items), ["ADDED a 3", "MODIFIED a 4", "MODIFIED a 5", "DELETED a 6"]);
    assert_eq!(batch.revision, Revision(6));
}

#[test]
fn a_watch_from_before_the_log_is_refused() {
    let mut store = Memory::new();
    let mut window = Window::new(Limits { events: 3, bytes: 1 << 20 });
    window.replace([], store.revision());
    let mut slow = window.watch_from_now(Kind::Pod);
    for _ in 0..6 {
        put(&mut store, "a", Some(pod_json("a", "x", "")));
    }
    feed(&mut window, &store, Revision(99));
    let error = window.watch_after(Kind::Pod, Revision(3)).unwrap_err();
    assert_eq!(error.to_string(), "too old resource version: 3 (4)");
    let mut cursor = window.watch_after(Kind::Pod, Revision(4)).unwrap();
    assert_eq!(window.read(&mut cursor, &filter("", ""), 99).unwrap().items.len(), 3);
    assert!(window.read(&mut slow, &filter("", ""), 99).is_err());
    window.replace([], Revision(20));
    assert!(window.read(&mut cursor, &filter("", ""), 99).is_err());
}

#[test]
fn pages_of_one_list_are_of_one_revision() {
    let mut store = Memory::new();
    let mut window = Window::new(Limits::default());
    window.replace([], store.revision());
    for name in ["a", "b", "c", "d"] {
        put(&mut store, name, Some(pod_json(name, "x", "")));
    }
    feed(&mut window, &store, Revision(99));
    let page = |after: Option<&str>, at| PageRequest {
        limit: 2,
        after: after.map(str::to_owned),
        at: Some(Revision(at)),
    };
    let first = window.list(Kind::Pod, &filter("", ""), &page(None, 5)).unwrap();
    assert_eq!((names(&first), first.more, first.remaining), (vec!["a", "b"], true, Some(2)));
    put(&mut store, "c", None);
    put(&mut store, "bb", Some(pod_json("bb", "x", "")));
    feed(&mut window, &store, Revision(99));
    let second = window.list(Kind::Pod, &filter("", ""), &page(Some("ns/b"), 5)).unwrap();
    assert_eq!((names(&second), second.more), (vec!["c", "d"], false));
    let now = window.list(Kind::Pod, &filter("", ""), &page(Some("ns/b"), 7)).unwrap();
    assert_eq!(names(&now), ["bb", "d"]);
    let beyond = window.list(Kind::Pod, &filter("", ""), &page(Some("zz/b"), 7)).unwrap();
    assert_eq!(names(&beyond), [""; 0]);
    let other = window.list(Kind::Pod, &Filter::namespace("n"), &PageRequest::default()).unwrap();
    assert_eq!(names(&other), [""; 0]);
}

#[test]
fn jobs_are_selected_by_their_successes() {
    let names = super::fields::names(Kind::Job);
    let values = |json: &str| {
        let peek = super::fields::Peek::of(json.as_bytes()).unwrap();
        super::fields::values(Kind::Job, &peek)
    };
    assert_eq!(names, ["status.successful"]);
    assert_eq!(*values(r#"{"status":{"succeeded":3}}"#), [Box::from("3")]);
    assert_eq!(*values("{}"), [Box::from("0")]);
}

#[test]
fn unknown_fields_cannot_be_selected() {
    let check = |kind: Kind, field: &str, message: &str| {
        let fields = FieldSelector::parse(&format!("{field}=x")).unwrap();
        let status = Filter::new(kind, "", Selector::default(), &fields).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (400, message));
    };
    check(Kind::Pod, "spec.foo", "field label not supported: spec.foo");
    check(
        Kind::ConfigMap,
        "data",
        r#""data" is not a known field selector: only "metadata.name", "metadata.namespace""#,
    );
}

#[test]
fn store_keys() {
    let key = Key::new(Kind::Deployment, "ns", "web");
    assert_eq!(&*store_key(&key), "/registry/deployments.apps/ns/web");
    assert_eq!(parse_store_key(&store_key(&key)), Some((Kind::Deployment, "ns/web")));
    for foreign in ["/registry/pods/x", "/registry/.progress", "/registry/nodes/a/b", "/x/pods/a/b"]
    {
        assert_eq!(parse_store_key(foreign), None, "{foreign}");
    }
}

/// A watcher that keeps what it was told.
struct Watcher {
    filter: Filter,
    cursor: Cursor,
    state: BTreeMap<String, Revision>,
    last: Revision,
}

impl Watcher {
    fn start(window: &Window, filter: Filter) -> Self {
        let listing = window.list(Kind::Pod, &filter, &PageRequest::default()).unwrap();
        let cursor = window.watch_after(Kind::Pod, listing.revision).unwrap();
        let state = listing.entries.iter().map(|e| (e.name().to_owned(), e.revision())).collect();
        Self { filter, cursor, state, last: listing.revision }
    }

    /// Reads on; lists again when history was lost, as clients do.
    fn read(&mut self, window: &Window, limit: usize) {
        let Ok(batch) = window.read(&mut self.cursor, &self.filter, limit) else {
            let before = self.last;
            *self = Self::start(window, self.filter.clone());
            assert!(self.last >= before, "no watcher goes backwards");
            return;
        };
        for item in &batch.items {
            assert!(item.revision > self.last, "P1: revisions rise on a stream");
            self.last = item.revision;
            let object = codec::decode_any(&item.json()).unwrap();
            let name = object.meta().name.clone().unwrap();
            let known = match item.event {
                EventType::Added => self.state.insert(name, item.revision).is_none(),
                EventType::Modified => self.state.insert(name, item.revision).is_some(),
                EventType::Deleted => self.state.remove(&name).is_some(),
            };
            assert!(known, "{:?} of a known or unknown object", item.event);
        }
        assert!(batch.revision >= self.last);
        self.last = batch.revision;
        if !batch.more {
            let listing = window.list(Kind::Pod, &self.filter, &PageRequest::default()).unwrap();
            let now: BTreeMap<_, _> =
                listing.entries.iter().map(|e| (e.name().to_owned(), e.revision())).collect();
            assert_eq!(self.state, now, "P2: replayed events are the list");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { name: u8, app: u8, delete: bool },
    Feed(u64),
    Read { watcher: usize, limit: usize },
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..4, 0_u8..3, prop::bool::weighted(0.3))
            .prop_map(|(name, app, delete)| Step::Write { name, app, delete }),
        3 => (0_u64..5).prop_map(Step::Feed),
        3 => (0_usize..3, 1_usize..4).prop_map(|(watcher, limit)| Step::Read { watcher, limit }),
        1 => Just(Step::Relist),
    ]
}

proptest! {
    /// P1, P2 and P4, for watchers of three selections that read at their own pace from a
    /// window that lags, has a short log and at times loses its history.
    #[test]
    fn watchers_end_with_the_list(steps in prop::collection::vec(step(), 0..120)) {
        let mut store = Memory::new();
        let mut window = Window::new(Limits { events: 5, bytes: 1 << 20 });
        window.replace([], store.revision());
        let filters = [filter("", ""), filter("app=a1", ""), filter("app!=a0", "spec.nodeName=n")];
        let mut watchers: Vec<_> =
            filters.iter().map(|f| Watcher::start(&window, f.clone())).collect();
        for step in steps {
            match step {
                Step::Write { name, app, delete } => {
                    let name = format!("p{name}");
                    let value = pod_json(&name, &format!("a{app}"), if app > 1 { "n" } else { "" });
                    put(&mut store, &name, (!delete).then_some(value));
                }
                Step::Feed(n) => {
                    let to = Revision(window.revision().0 + n);
                    feed(&mut window, &store, to);
                }
                Step::Read { watcher, limit } => watchers[watcher].read(&window, limit),
                Step::Relist => {
                    let page = store.range(PREFIX, "", 0, None).unwrap();
                    let bad = window.replace(page.records, page.revision);
                    prop_assert!(bad.is_empty());
                }
            }
        }
        let end = store.revision();
        feed(&mut window, &store, end);
        for watcher in &mut watchers {
            watcher.read(&window, usize::MAX);
            watcher.read(&window, usize::MAX);
        }
    }

    /// Any revision the log reaches is listed as it was.
    #[test]
    fn lists_of_the_past_are_those_of_the_store(
        writes in prop::collection::vec((0_u8..4, prop::bool::weighted(0.3)), 1..40),
        back in 0_u64..20,
        limit in 1_usize..4,
    ) {
        let mut store = Memory::new();
        let mut window = Window::new(Limits::default());
        window.replace([], store.revision());
        for (name, delete) in writes {
            let name = format!("p{name}");
            let value = pod_json(&name, "x", "");
            put(&mut store, &name, (!delete).then_some(value));
        }
        feed(&mut window, &store, store.revision());
        let at = Revision(store.revision().0.saturating_sub(back).max(1));
        let (mut page, mut listed) = (PageRequest { limit, after: None, at: Some(at) }, Vec::new());
        loop {
            let listing = window.list(Kind::Pod, &filter("", ""), &page).unwrap();
            listed.extend(listing.entries.iter().map(|e| (store_key_of(e), e.revision())));
            page.after = listing.entries.last().map(|e| e.path().to_string());
            if !listing.more {
                break;
            }
        }
        let expected = store.range(PREFIX, "", 0, Some(at)).unwrap();
        let expected: Vec<_> =
            expected.records.into_iter().map(|r| (r.key, r.revision)).collect();
        prop_assert_eq!(listed, expected);
    }
}

fn store_key_of(entry: &Entry) -> String {
    format!("{PREFIX}{}/{}", entry.kind().group_resource(), entry.path())
}
