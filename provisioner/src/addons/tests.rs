use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::json;

use super::reconcile::{self, Act};
use super::*;
use crate::host::fake::FakeMachine;
use crate::host::{Host, HttpsEndpoint};

/// Reads addons of one file each, and gives what is wrong.
fn read(files: &[(&str, &str)]) -> Result<Vec<Addon>, String> {
    let scratch = tempfile::tempdir().unwrap();
    let sources: Vec<_> = (files.iter())
        .map(|(name, text)| {
            let path = scratch.path().join(name);
            std::fs::write(&path, text).unwrap();
            let wait = Some(Duration::ZERO);
            AddonSource { name: (*name).to_owned(), manifests: vec![path], wait }
        })
        .collect();
    let place = format!("{}/", scratch.path().display());
    load(&sources).map_err(|errors| errors.to_string().replace(&place, ""))
}

const SETTINGS: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata: {a: b}\n";
const SERVER: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: server\n  \
     namespace: kube-system\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: \
     {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n";

#[test]
fn files_hold_several_objects_and_lists() {
    let list = format!(
        "# comment\n---\n{SERVER}---\nkind: List\napiVersion: v1\nitems:\n- {}\n---\n",
        "{apiVersion: v1, kind: Namespace, metadata: {name: n}, status: {phase: x}}"
    );
    let addons = read(&[("a", SETTINGS), ("b", &list)]).unwrap();
    let objects: Vec<_> =
        addons.iter().flat_map(|a| &a.objects).map(|o| (o.to_string(), o.path())).collect();
    let expected = [
        ("ConfigMap default/settings", "/api/v1/namespaces/default/configmaps/settings"),
        (
            "Deployment kube-system/server",
            "/apis/apps/v1/namespaces/kube-system/deployments/server",
        ),
        ("Namespace n", "/api/v1/namespaces/n"),
    ];
    assert_eq!(objects, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert!(addons[1].objects[1].value.get("status").is_none());
}

#[test]
fn what_the_api_server_would_refuse_is_told_with_its_file() {
    let check = |text: &str, expected: &str| {
        assert_eq!(read(&[("f", text)]).unwrap_err(), expected, "{text}");
    };
    check("# nothing\n", "addon f: f: there is no object in it");
    check(
        "apiVersion: v2\nkind: Pod\nmetadata: {name: a}\n",
        "addon f: f: the API server has no \"Pod\" of \"v2\"",
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}\n",
        "addon f: f: a ConfigMap needs a metadata.name, and has \"\"",
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a/../b}\n",
        "addon f: f: a ConfigMap needs a metadata.name, and has \"a/../b\"",
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatum: {}\n",
        "addon f: f: ConfigMap a has no field datum",
    );
    check(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n",
        "addon f: f: Namespace a cannot be in a namespace",
    );
    assert!(read(&[("f", "a: [")]).unwrap_err().starts_with("addon f: f: it is no YAML: "));
    assert_eq!(
        read(&[("a", SETTINGS), ("b", SETTINGS)]).unwrap_err(),
        "addon b: b: ConfigMap default/settings is in the addon a already"
    );
    let missing = AddonSource { name: "x".to_owned(), manifests: vec!["/no".into()], wait: None };
    assert!(load(&[missing]).unwrap_err().to_string().starts_with("addon x: cannot read /no: "));
}

/// An API server of objects by path, on a fake machine.
struct Cluster {
    machine: FakeMachine,
    host: Box<dyn Host>,
}

impl Cluster {
    fn new() -> Self {
        let machine = FakeMachine::new("m");
        machine.state().objects = Some(BTreeMap::new());
        let host = machine.connect();
        Self { machine, host }
    }

    fn endpoint() -> HttpsEndpoint {
        HttpsEndpoint {
            address: "10.0.0.1".to_owned(),
            port: 6443,
            path: String::new(),
            ca: String::new(),
            client: None,
        }
    }

    /// Applies, and gives what was said to be changed and what was written.
    fn apply(&mut self, addons: &[Addon]) -> (Result<Vec<String>, String>, Vec<String>) {
        self.machine.state().sent.clear();
        let (until, stop) = (Instant::now(), AtomicBool::new(false));
        let endpoint = Self::endpoint();
        let planned = reconcile::plan(self.host.as_mut(), &endpoint, addons).unwrap();
        assert_eq!(self.machine.state().sent, [""; 0], "a plan writes nothing");
        let applied =
            reconcile::apply(self.host.as_mut(), &endpoint, addons, until, &stop, &mut |_| {});
        if let Ok(applied) = &applied {
            assert_eq!(*applied, planned);
        }
        let lines = applied.map(|changes| changes.iter().map(|change| change.line()).collect());
        let sent = self.machine.state().sent.clone();
        let short = |line: String| {
            let mut words = line.split(' ');
            let (method, at) = (words.next().unwrap(), words.next().unwrap());
            format!("{method} {}", at.rsplit('/').next().unwrap())
        };
        (lines, sent.into_iter().map(short).collect())
    }

    fn object(&self, path: &str) -> Option<Value> {
        self.machine.state().objects.as_ref().unwrap().get(path).cloned()
    }

    fn set(&self, path: &str, value: Value) {
        self.machine.state().objects.as_mut().unwrap().insert(path.to_owned(), value);
    }
}

#[test]
fn objects_come_once_change_with_their_manifest_and_go_with_it() {
    let mut cluster = Cluster::new();
    let both =
        read(&[("a", SETTINGS), ("n", "{apiVersion: v1, kind: Namespace, metadata: {name: n}}")]);
    let both = both.unwrap();
    let (changes, sent) = cluster.apply(&both);
    let new = ["+ addon a: ConfigMap default/settings", "+ addon n: Namespace n"];
    assert_eq!(changes.unwrap(), new);
    // What is made is noted before.
    assert_eq!(sent, ["POST configmaps", "POST configmaps", "POST namespaces"]);
    let (changes, sent) = cluster.apply(&both);
    assert_eq!((changes.unwrap(), sent), (Vec::new(), Vec::new()));

    let changed = read(&[("a", &SETTINGS.replace("{a: b}", "{c: d}"))]).unwrap();
    let (changes, sent) = cluster.apply(&changed);
    let lines = ["~ addon a: ConfigMap default/settings", "- addon n: Namespace n"];
    assert_eq!(changes.unwrap(), lines);
    assert_eq!(sent, ["PATCH settings", "DELETE n", "PATCH kprov-addons"]);
    let path = "/api/v1/namespaces/default/configmaps/settings";
    assert_eq!(cluster.object(path).unwrap()["data"], json!({ "c": "d" }));
    assert_eq!(cluster.object("/api/v1/namespaces/n"), None);
    let (changes, sent) = cluster.apply(&changed);
    assert_eq!((changes.unwrap(), sent), (Vec::new(), Vec::new()));

    // Somebody has deleted it.
    cluster.machine.state().objects.as_mut().unwrap().remove(path);
    let (changes, sent) = cluster.apply(&changed);
    assert_eq!(changes.unwrap(), ["+ addon a: ConfigMap default/settings"]);
    assert_eq!(sent, ["POST configmaps"]);
}

#[test]
fn what_was_there_before_is_changed_and_never_deleted() {
    let mut cluster = Cluster::new();
    let path = "/api/v1/namespaces/default/configmaps/settings";
    cluster.set(path, json!({ "metadata": { "name": "settings" }, "data": { "own": "1" } }));
    let (changes, sent) = cluster.apply(&read(&[("a", SETTINGS)]).unwrap());
    assert_eq!(changes.unwrap(), ["~ addon a: ConfigMap default/settings"]);
    assert_eq!(sent, ["PATCH settings"]);
    let (changes, sent) = cluster.apply(&[]);
    assert_eq!((changes.unwrap(), sent), (Vec::new(), Vec::new()));
    assert_eq!(cluster.object(path).unwrap()["data"], json!({ "own": "1", "a": "b" }));
}

#[test]
fn the_next_addon_waits_for_the_one_before() {
    let mut cluster = Cluster::new();
    let addons = read(&[("server", SERVER), ("settings", SETTINGS)]).unwrap();
    let (changes, sent) = cluster.apply(&addons);
    let why = changes.unwrap_err();
    let expected = "the addon server is not ready: Deployment kube-system/server: ";
    assert!(why.starts_with(expected), "{why}");
    assert_eq!(sent, ["POST configmaps", "POST deployments"]);
    let path = "/apis/apps/v1/namespaces/kube-system/deployments/server";
    let mut server = cluster.object(path).unwrap();
    server["status"] = json!({ "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 });
    cluster.set(path, server);
    let (changes, sent) = cluster.apply(&addons);
    assert_eq!(changes.unwrap(), ["+ addon settings: ConfigMap default/settings"]);
    assert_eq!(sent, ["POST configmaps"]);
    assert!(addons[0].objects[0].kind == Kind::Deployment);
    assert_eq!(reconcile::all_new(&addons)[0].act, Act::Create);
}
