//! The nodes of an inventory of kprov are simulated, as kprov reads it.

use std::collections::BTreeMap;
use std::path::Path;

use simulator::scenario::{Options, Scenario};

/// An inventory of the repository. Files of the operator's that it refers to are not here.
fn of_repository(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../inventory").join(name);
    std::fs::read_to_string(path).expect("an inventory of the repository")
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

const SMALL: &str = "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"a\"\naddress = \"10.8.0.1\"\n\
                     roles = [\"etcd\", \"master\", \"node\"]\n";

#[test]
fn mistakes_in_an_inventory_are_told_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    let inventory = folder.path().join("i.toml");
    std::fs::write(&path, "[inventory]\nfile = \"i.toml\"\n").unwrap();
    let said = |text: &str| {
        std::fs::write(&inventory, text).unwrap();
        Scenario::load(&path).map_or_else(|e| e.to_string(), |_| String::new())
    };
    assert_eq!(said(SMALL), "");
    for (text, places) in [
        ("hosts = 3".to_owned(), vec!["i.toml:1:9: "]),
        (
            SMALL.replace("name = \"a\"", "name = \"a\"\nmax_pod = 3"),
            vec!["i.toml:5:1: unknown key `max_pod`", "did you mean `max_pods`?"],
        ),
        (SMALL.replace("\"node\"]", "\"nod\"]"), vec!["i.toml:6:28: ", "did you mean `node`?"]),
        (format!("{SMALL}[groups.g]\nhosts = [\"b\"]\n"), vec!["i.toml:8:10: ", "no such host"]),
        (format!("{SMALL}[groups.g]\nhosts = [\"a[9-1]\"]\n"), vec!["i.toml:8:10: "]),
        // All at once.
        (
            format!("{SMALL}taints = [\"x\"]\nmax_pods = 0\n"),
            vec!["i.toml:7:11: ", "i.toml:8:12: "],
        ),
    ] {
        let error = said(&text);
        for place in places {
            assert!(error.contains(place), "{place}\n{error}");
        }
        assert!(error.contains(&folder.path().join("i.toml").display().to_string()), "{error}");
    }
}

#[test]
fn what_a_scenario_says_of_an_inventory_must_fit_it() {
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
