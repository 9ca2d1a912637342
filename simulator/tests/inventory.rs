//! The simulator reads of an inventory what kprov reads of it.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use provisioner::inventory::{self as kprov, Role};
use simulator::scenario::inventory::{Inventory, InventoryNode};
use simulator::scenario::{Options, Scenario};

/// What kprov makes of a file, as far as a simulation needs it.
fn by_kprov(path: &Path) -> Inventory {
    let inventory = kprov::load(path).unwrap_or_else(|e| panic!("{e}"));
    let node = |host: &kprov::Host| InventoryNode {
        labels: host.labels.clone(),
        taints: host
            .taints
            .iter()
            .map(|t| (t.key.clone(), t.value.clone(), t.effect.clone()))
            .collect(),
        pods: host.max_pods.into(),
        groups: Vec::new(),
    };
    Inventory {
        masters: inventory.with_role(Role::Master).count(),
        nodes: inventory
            .with_role(Role::Node)
            .map(|host| (host.name.clone(), node(host)))
            .collect(),
    }
}

fn check(text: &str) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("inventory.toml");
    std::fs::write(&path, text).expect("the folder can be written to");
    let mut ours = Inventory::parse(text).expect("kprov takes it too");
    for node in ours.nodes.values_mut() {
        node.groups.clear();
    }
    assert_eq!(ours, by_kprov(&path), "{text}");
}

/// An inventory of the repository without what refers to files of the operator's.
fn of_repository(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inventory").join(name);
    let text = std::fs::read_to_string(path).expect("an inventory of the repository");
    text.lines()
        .filter(|line| !line.starts_with("key = "))
        .fold(String::new(), |out, line| out + line + "\n")
}

#[test]
fn the_inventories_of_the_repository_are_read_alike() {
    for name in ["example.toml", "ha.toml", "lab.toml"] {
        check(&of_repository(name));
    }
}

fn settings() -> impl Strategy<Value = String> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let taints = proptest::collection::btree_set("[a-b](=[x-z])?:(NoSchedule|NoExecute)", 0..3);
    (labels, taints, proptest::option::of(1..200_u16)).prop_map(|(labels, taints, pods)| {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k} = \"{v}\"")).collect();
        let pods = pods.map_or(String::new(), |pods| format!("max_pods = {pods}\n"));
        format!("labels = {{ {} }}\ntaints = {taints:?}\n{pods}", labels.join(", "))
            .replace("taints = {", "taints = [")
            .replace("\"}\n", "\"]\n")
            .replace("taints = [}", "taints = []")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ranges_groups_and_defaults_are_read_alike(
        defaults in settings(),
        group in settings(),
        host in settings(),
        first in 0_u32..20,
        count in 1_u32..30,
        padded in any::<bool>(),
        own_roles in any::<bool>(),
    ) {
        let width = if padded { 3 } else { 0 };
        let last = first + count - 1;
        let roles = if own_roles { "roles = [\"etcd\", \"master\", \"node\"]\n" } else { "" };
        check(&format!(
            "[cluster]\nname = \"c\"\n[defaults]\nroles = [\"etcd\", \"master\", \"node\"]\n\
             {defaults}\
             [groups.workers]\nhosts = [\"w-[{first:0width$}-{last:0width$},x]-[a,b]\"]\n\
             address_first = \"10.9.0.1\"\nroles = [\"node\"]\n{group}\
             [[hosts]]\nname = \"h\"\naddress = \"10.8.0.1\"\n{roles}{host}"
        ));
    }
}

#[test]
fn an_inventory_is_simulated_before_it_is_provisioned() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("inventory.toml", &of_repository("example.toml"));
    write(
        "scenario.toml",
        "[inventory]\nfile = \"inventory.toml\"\ncpu = \"16\"\nmemory = \"64Gi\"\n\
         [inventory.groups.fast-disks]\ncpu = \"32\"\n[inventory.hosts.db-1]\nmemory = \"1Ti\"\n\
         [settings]\nschedulers = 2\n\
         [[workload]]\nkind = \"pods\"\nrate = 1\ncount = 1\n",
    );
    let scenario = Scenario::load(&folder.path().join("scenario.toml"))
        .unwrap_or_else(|e| panic!("{}", e.render(false, 100)));
    let plan = scenario.expand(1).unwrap();
    assert_eq!((plan.settings.api_servers, plan.settings.schedulers), (3, 2));
    assert_eq!(plan.nodes.len(), 41);
    let sizes: BTreeMap<&str, (u64, u64, u32)> = plan
        .nodes
        .iter()
        .map(|node| {
            let shape = &plan.shapes[usize::try_from(node.shape).unwrap()];
            (node.name.as_str(), (shape.cpu_milli, shape.memory_bytes >> 30, shape.pods))
        })
        .collect();
    assert_eq!(sizes["worker-01"], (32_000, 64, 110));
    assert_eq!(sizes["worker-05"], (16_000, 64, 110));
    assert_eq!(sizes["db-1"], (16_000, 1_024, 30));
}

#[test]
fn the_inventory_of_the_command_line_is_the_whole_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ha.toml", &of_repository("ha.toml"));
    write(
        "scenario.toml",
        "[[nodes]]\nname = \"other-{i}\"\ncount = 9\n\
         [[faults]]\nat = \"1s\"\nfault = \"host-crash\"\nnode = \"node-5\"\n",
    );
    let path = folder.path().join("scenario.toml");
    let inventory = Some(folder.path().join("ha.toml"));
    let options = Options { inventory, ..Options::default() };
    let plan = Scenario::load_with(&path, &options).unwrap().expand(1).unwrap();
    let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["node-4", "node-5", "node-6"]);
    assert_eq!(plan.settings.controller_managers, 3);
    let error = Scenario::load(&path).unwrap_err().to_string();
    assert!(error.contains("there is no node `node-5`"), "{error}");
}

#[test]
fn what_is_wrong_with_an_inventory_is_told() {
    for (text, expected) in [
        ("hosts = 3", "1:9: invalid type: integer `3`, expected a sequence"),
        ("[[hosts]]\nname = \"a\"", "`a` has no roles"),
        ("[[hosts]]\nname = \"a\"\nroles = [\"nod\"]", "`nod` of `a` is no role"),
        ("[groups.g]\nhosts = [\"a\"]", "a group has an unknown host `a`"),
        ("[groups.g]\nhosts = [\"a[1-\"]", "`a[1-` is no range of hosts"),
        ("[groups.g]\nhosts = [\"a[9-1]\"]", "`a[9-1]` is no range of hosts"),
        (
            "[groups.g]\nhosts = [\"a[1-4000][a,b]\"]",
            "`a[1-4000][a,b]` stands for more than 5000 hosts",
        ),
    ] {
        assert_eq!(Inventory::parse(text).unwrap_err(), expected, "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    std::fs::write(folder.path().join("i.toml"), of_repository("lab.toml")).unwrap();
    let said = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Scenario::load(&path).unwrap_err().to_string()
    };
    let error = said("[inventory]\nfile = \"none.toml\"");
    assert!(error.contains("none.toml: cannot be read"), "{error}");
    let error = said("[inventory]\nfile = \"i.toml\"\n[inventory.hosts.node-9]\ncpu = \"4\"");
    assert!(error.contains("no host `node-9`") && error.contains("did you mean"), "{error}");
}
