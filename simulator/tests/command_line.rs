//! The program as people and scripts use it: what it prints, where, and with which exit code.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What came of a command.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }
}

fn ksim(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_ksim"))
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("the program was built");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let code = output.status.code().expect("no signal ends it");
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}

/// A folder with files.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("the folder can be written to");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().expect("a name that is text").to_owned()
    }
}

const BUG: &str = "simulator/scenarios/bugs/no-read-your-writes.toml";

/// A cluster with two deployments, one of whose names begins as the other's.
const WEB: &str = r#"
name = "web"
[settings]
safety = "40s"
[[nodes]]
name = "node-{i}"
count = 2
[[operations]]
at = "5s"
do = "create-deployment"
name = "web-1"
template = "t"
replicas = 2
[[operations]]
at = "6s"
do = "create-deployment"
name = "web-11"
template = "t"
replicas = 1
[[operations]]
at = "7s"
do = "create-pod"
name = "we"
template = "t"
[[operations]]
at = "7s"
do = "create-pod"
name = "huge"
template = "huge"
[templates.t]
cpu = "1"
[templates.huge]
cpu = "100"
"#;

/// A cluster that is given no time to come to rest.
fn restless() -> String {
    let slow = WEB.replace("safety = \"40s\"", "safety = \"40s\"\nsettle = \"20s\"");
    format!("{slow}runs = \"10h\"\n")
        .replace("[templates.t]\ncpu = \"1\"", "[templates.t]\nruns = \"10h\"\ncpu = \"1\"")
}

#[test]
fn a_violation_is_told_with_seed_options_smallest_plan_and_timeline() {
    let files = Files::new(&[]);
    let keep = files.name("kept");
    let said = ksim(&["run", BUG, "--keep", &keep]);
    assert_eq!(said.code, 1, "{}", said.err);
    for part in [
        "  P29 does not hold with seed 1, which stands for\n",
        "    1 node, 3 operations (1 create-pod, 1 create-replica-set, 1 delete), 1 fault",
        "  The smallest plan that shows it, found in ",
        "  What concerns it in a run of that plan",
        "fault begins: LaggingServer",
        "VIOLATION of P29",
    ] {
        assert!(said.out.contains(part), "{part}\n{}", said.out);
    }
    assert!(said.err.contains("kept as "), "{}", said.err);
    // Machines get the same, and nothing else on standard output.
    let machine = ksim(&["run", BUG, "--output", "json"]);
    assert_eq!((machine.code, machine.err.as_str()), (1, ""));
    let finding = &machine.json()["finding"];
    assert_eq!(finding["property"], "P29");
    assert_eq!(finding["options"]["settings"]["api_servers"], 2);
    assert_eq!(finding["options"]["faults"]["lagging-server"], 1);
    let smallest = std::fs::read_to_string(files.path("kept/no-read-your-writes-1.toml")).unwrap();
    assert_eq!(finding["smallest"]["scenario"], smallest);
    let last = finding["timeline"].as_array().and_then(|lines| lines.last()).unwrap();
    assert!(last.as_str().unwrap().contains("VIOLATION of P29"), "{last}");
    // What is kept can be replayed, and is explained there, too.
    let kept = files.name("kept/no-read-your-writes-1.toml");
    let replayed = ksim(&["replay", &kept, "--no-shrink"]);
    assert_eq!(replayed.code, 1, "{}", replayed.err);
    assert!(replayed.out.contains("  What concerns it in the run (seconds"), "{}", replayed.out);
    assert!(!replayed.out.contains("smallest"), "{}", replayed.out);
    let page = files.name("page.html");
    let result = files.name("result.json");
    std::fs::write(&result, &machine.out).unwrap();
    assert_eq!(ksim(&["report", &result, "--html", &page]).code, 1);
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("<summary>The smallest plan that shows it, found in"));
}

#[test]
fn exit_codes_say_what_came_of_a_command() {
    let files = Files::new(&[
        ("web.toml", WEB),
        ("restless.toml", &restless()),
        ("wrong.toml", "[[nodes]]\nnaem = \"a\"\n"),
        ("idle.toml", "[settings]\nsafety = \"300d\"\n[[nodes]]\nname = \"a\"\n"),
        ("other.jsonl", "no recording\n"),
    ]);
    let [web, restless, wrong, idle, other] =
        ["web.toml", "restless.toml", "wrong.toml", "idle.toml", "other.jsonl"]
            .map(|name| files.name(name));
    let rest = "the cluster did not come to rest within settings.settle (20s): containers on";
    for (args, code, says) in [
        (vec!["run", &web], 0, ""),
        (vec!["run", BUG, "--no-shrink"], 1, ""),
        (vec!["run", &wrong], 2, "wrong.toml"),
        (vec!["run", &idle], 2, "from 0s until 300d nothing happens but heartbeats"),
        (vec!["run", &restless], 3, rest),
        (vec!["replay", &web, "--output", "json"], 0, ""),
        // Stopped as asked: what comes later is not judged.
        (vec!["replay", &web, "--events", "100"], 0, ""),
        (vec!["replay", BUG, "--events", "700", "--no-shrink"], 1, ""),
        (vec!["replay", &web, "--events", "0"], 2, "0 is not in 1.."),
        (vec!["replay", &other], 2, "is no recording"),
        (vec!["compare", &web, &web, "--seeds", "1"], 0, ""),
        (vec!["compare", &web, BUG, "--seeds", "1"], 1, "seed 1: P29 does not hold: pods/default"),
        (vec!["compare", &restless, &web, "--seeds", "1"], 3, rest),
        (vec!["compare", &restless, BUG, "--seeds", "1"], 1, rest),
        (vec!["compare", &web, &web, "--seeds", "0"], 2, "0 is not in 1.."),
        (vec!["explain", &web, "none"], 2, "no pod default/none was made in this run"),
        (vec!["soak", &web, "--seeds", "2"], 0, ""),
        (vec!["soak", &restless, "--seeds", "1", "--no-shrink"], 1, rest),
        (vec!["soak", &web, "--seeds", "0"], 2, "0 is not in 1.."),
        (vec!["soak", &web, "-j", "0"], 2, "would be zero"),
        (vec!["soak", &web, "--time", "0s"], 2, "no seed was run in --time 0s"),
        (vec!["soak", &web, "--known", "P999"], 2, "properties are called `P1` to `P58`"),
    ] {
        let mut args = args;
        let keep = files.name("kept");
        if args[0] == "soak" {
            args.extend(["--keep", &keep]);
        }
        let said = ksim(&args);
        assert_eq!(said.code, code, "{args:?}\n{}\n{}", said.out, said.err);
        assert!(said.err.contains(says), "{args:?}\n{}", said.err);
        assert!(says.is_empty() == (said.err.is_empty()), "{args:?}\n{}", said.err);
    }
}

/// A cluster in which a million things are heard of at one moment: many processes stand still while
/// nodes are written without end, and then hear of it together.
fn flood() -> String {
    let mut text = "[settings]\nsafety = \"1m\"\nschedulers = 32\ncontroller_managers = 32\n\
                    [[nodes]]\nname = \"node-{i}\"\ncount = 4\n[templates.t]\n\
                    [[faults]]\nat = \"20s\"\nuntil = \"24.1s\"\nfault = \"conflict-storm\"\n\
                    target = \"Node\"\nperiod = \"1ms\"\n"
        .to_owned();
    for (at, name) in [("5s", "early"), ("40s", "late")] {
        text += &format!(
            "[[operations]]\nat = \"{at}\"\ndo = \"create-pod\"\nname = \"{name}\"\n\
             template = \"t\"\n"
        );
    }
    let processes = ["scheduler", "controller-manager"].into_iter();
    for name in processes.flat_map(|name| (0..32).map(move |i| format!("{name}-{i}"))) {
        for (fault, until) in [("watch-stall", "25s"), ("pause", "50s")] {
            text += &format!(
                "[[faults]]\nat = \"19s\"\nuntil = \"{until}\"\nfault = \"{fault}\"\n\
                 component = \"{name}\"\n"
            );
        }
    }
    text
}

#[test]
fn a_moment_without_end_is_told_instead_of_spun_in() {
    let files = Files::new(&[("flood.toml", &flood())]);
    let flood = files.name("flood.toml");
    let said = ksim(&["run", &flood, "--no-checks"]);
    assert_eq!(said.code, 3, "{}\n{}", said.out, said.err);
    let what = "no progress: more and more happens at 25s of virtual time, and no time passes; ";
    let who = said.err.strip_prefix(&format!("error: {what}")).unwrap_or_default();
    assert!(
        who.starts_with("scheduler-") || who.starts_with("controller-manager-"),
        "{}",
        said.err
    );
    assert!(who.ends_with("; --timeline shows what goes on\n"), "{}", said.err);
    assert!(said.out.contains("did not come to rest"), "{}", said.out);
    // What would have come later is not said not to have been made.
    let said = ksim(&["explain", &flood, "late"]);
    let none = "no pod default/late was made before this run was given up: no progress: ";
    assert_eq!((said.code, said.err.contains(none)), (2, true), "{}", said.err);
    let said = ksim(&["explain", &flood, "earl"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("default/early went to node-"), "{}", said.out);
    let note = "note: this run was given up, and what would have come is not known: no progress: ";
    assert!(said.err.contains(note), "{}", said.err);
}

#[test]
fn a_name_beats_a_workload_and_that_a_prefix() {
    let files = Files::new(&[("web.toml", WEB)]);
    let scenario = files.name("web.toml");
    let explained = |pod: &str| {
        let said = ksim(&["explain", &scenario, pod, "--output", "json"]);
        assert_eq!(said.code, 0, "{pod}: {}", said.err);
        let json = said.json();
        let candidates = json["candidates"].as_array().unwrap().len();
        let pod = json["explanation"]["pod"].as_str().unwrap().to_owned();
        (pod, candidates, json["node"].is_string(), said.err)
    };
    let (pod, candidates, bound, note) = explained("we");
    assert_eq!((pod.as_str(), candidates, bound, note.as_str()), ("default/we", 1, true, ""));
    let (pod, candidates, _, note) = explained("default/web-1");
    assert!(pod.starts_with("default/web-1-"), "{pod}");
    assert_eq!(candidates, 2);
    assert!(note.contains("note: 2 pods of this run begin with default/web-1: web-1-"), "{note}");
    assert!(note.contains(&format!("{pod} is explained")), "{note}");
    let (pod, candidates, _, note) = explained("web-11");
    assert!(pod.starts_with("default/web-11-") && note.is_empty(), "{pod} {note}");
    assert_eq!(candidates, 1);
    let (pod, candidates, _, _) = explained("web-");
    assert!(pod.starts_with("default/web-1"), "{pod}");
    assert_eq!(candidates, 3);
    let (pod, _, bound, _) = explained("hug");
    assert_eq!((pod.as_str(), bound), ("default/huge", false));
}

#[test]
fn tables_are_for_other_programs() {
    let files = Files::new(&[("web.toml", WEB)]);
    let web = files.name("web.toml");
    let said = ksim(&["compare", &web, &web, "--seeds", "2", "-o", "csv"]);
    let mut lines = said.out.lines();
    let headings = lines.next().unwrap();
    assert!(headings.starts_with("metric,unit,more_is_better,pairs,mean_a,"), "{headings}");
    let columns = headings.split(',').count();
    assert!(lines.all(|line| line.split(',').count() == columns), "{}", said.out);
    assert!(said.out.contains("\nevictions,count,false,2,0,0,0,0,0,no-difference-seen\n"));
    let said = ksim(&["explain", &web, "we", "-o", "csv"]);
    let headings = said.out.lines().next().unwrap();
    assert!(headings.starts_with("node,verdict,rejected_by,reasons,score,"), "{headings}");
    assert_eq!(said.out.matches(",chosen,").count(), 1, "{}", said.out);
    let said = ksim(&["explain", &web, "huge", "-o", "csv"]);
    assert_eq!(said.out.matches(",rejected,NodeResourcesFit,Insufficient cpu").count(), 2);
    let said =
        ksim(&["import", "simulator/samples/openb-nodes.csv", "simulator/samples/openb-pods.csv"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("format = \"openb\""), "{}", said.out);
}
