//! What is drawn, and what is said about chaos that makes no sense.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::plan::{Fault, Operation};
use crate::scenario::Scenario;

fn scenario(text: &str) -> Result<Scenario, String> {
    let text = format!("[[nodes]]\nname = \"n-{{i}}\"\ncount = 4\nzones = [\"a\", \"b\"]\n{text}");
    Scenario::parse(Path::new("s.toml"), &text).map_err(|e| e.to_string())
}

fn plan(text: &str, seed: u64) -> Plan {
    scenario(text).unwrap().expand(seed).unwrap()
}

fn everything() -> String {
    let kinds: Vec<String> = FAULTS.iter().map(|kind| format!("{kind} = \"20s\"\n")).collect();
    format!(
        "[settings]\nsafety = \"10m\"\napi_servers = 2\nschedulers = 2\n[chaos]\nfrom = \"1m\"\n{}",
        kinds.concat()
    )
}

#[test]
fn every_kind_is_drawn_and_can_be_written() {
    let plan = plan(&everything(), 1);
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for planned in &plan.faults {
        let value = serde_json::to_value(&planned.fault).unwrap();
        *kinds.entry(value["fault"].as_str().unwrap().to_owned()).or_default() += 1;
        assert!(planned.at >= Span::secs(60));
        assert!(planned.at.0 + planned.lasts.unwrap().0 <= Span::secs(600).0);
    }
    assert_eq!(kinds.len(), FAULTS.len(), "{kinds:?}");
    // 27 in the mean.
    assert!(kinds.values().all(|n| (10..50).contains(n)), "{kinds:?}");
    let again = Scenario::of_plan(&plan).unwrap_or_else(|e| panic!("{}", e.render(false, 100)));
    assert_eq!(again.expand(9).unwrap().faults, plan.faults);
}

#[test]
fn more_of_one_kind_leaves_the_others_as_they_are() {
    let others = |text: &str| -> Vec<PlannedFault> {
        let faults = plan(text, 3).faults.into_iter();
        faults.filter(|f| !matches!(f.fault, Fault::StoreDown)).collect()
    };
    let more = everything().replace("store-down = \"20s\"", "store-down = \"5s\"");
    assert_eq!(others(&everything()), others(&more));
    assert_ne!(plan(&everything(), 3), plan(&everything(), 4));
}

#[test]
fn faults_strike_only_what_they_are_said_to() {
    let plan = plan(
        "[settings]\nsafety = \"10m\"\n[chaos]\ncrash = { every = \"10s\", on = [\"scheduler\", \
         \"kubelet/n-2\"], lasts = \"1s\" }\nduplicate = { every = \"10s\", percent = 7 }\n",
        1,
    );
    let mut struck: BTreeMap<String, u32> = BTreeMap::new();
    for planned in &plan.faults {
        match &planned.fault {
            Fault::Crash { component } => *struck.entry(component.to_string()).or_default() += 1,
            Fault::Duplicate { percent, .. } => assert_eq!(*percent, 7),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(struck.keys().collect::<Vec<_>>(), ["kubelet/n-2", "scheduler-0"]);
    // Constant distances in a table are meant.
    assert_eq!(struck.values().sum::<u32>(), 59);
}

#[test]
fn links_are_drawn_where_they_are_asked_for() {
    let text = |links: &str| {
        format!(
            "[settings]\nsafety = \"30m\"\napi_servers = 2\n[chaos]\ndelay = {{ every = \"10s\"{links} \
             }}\nloss = \"10s\"\n"
        )
    };
    let of_links = |plan: &Plan, kind: &str| -> (usize, usize) {
        let of_kind = |f: &&PlannedFault| match f.fault {
            Fault::Delay { .. } => kind == "delay",
            _ => kind == "loss",
        };
        let links: Vec<Option<u16>> =
            plan.faults.iter().filter(of_kind).map(|f| f.fault.api_server()).collect();
        let to = |server| links.iter().filter(|link| **link == Some(server)).count();
        (to(0), to(1))
    };
    let (none, all) = (plan(&text(""), 1), plan(&text(", links = 100"), 1));
    assert_eq!(of_links(&none, "delay"), (0, 0));
    let (first, second) = of_links(&all, "delay");
    assert_eq!(
        first + second,
        all.faults.iter().filter(|f| matches!(f.fault, Fault::Delay { .. })).count()
    );
    assert!(first > 50 && second > 50, "{first} {second}");
    // Half of the losses.
    let (first, second) = of_links(&none, "loss");
    assert!((60..120).contains(&(first + second)), "{first} {second}");
    // What else is drawn stays as it is.
    let times = |plan: &Plan| plan.faults.iter().map(|f| (f.at, f.lasts)).collect::<Vec<_>>();
    assert_eq!(times(&none), times(&all));
}

#[test]
fn nodes_fail_come_and_go() {
    let plan = plan(
        "[settings]\nsafety = \"10h\"\n[churn]\nnode_mtbf = \"2h\"\nnode_repair = \"5m\"\n\
         zone_mtbf = \"5h\"\nzone_repair = \"7m\"\nadditions = { every = \"1h\", cpu = \"2\" }\n\
         removals = { every = \"2h\" }\n",
        1,
    );
    assert_eq!(plan.nodes.len(), 4 + 9);
    assert_eq!(plan.nodes[4].name, "added-0");
    assert_eq!(plan.shapes[plan.nodes[4].shape as usize].cpu_milli, 2_000);
    let lasting = |span| plan.faults.iter().filter(|f| f.lasts == Some(span)).count();
    // 4 to 13 nodes, once in two hours each.
    assert!((20..60).contains(&lasting(Span::secs(300))), "{}", lasting(Span::secs(300)));
    assert!(lasting(Span::secs(420)) > 2);
    let removed: Vec<&str> = plan
        .operations
        .iter()
        .filter_map(|o| match &o.operation {
            Operation::Delete { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert!(!removed.is_empty());
    for name in removed {
        let off = |f: &&PlannedFault| {
            f.lasts.is_none() && f.fault == Fault::HostCrash { node: name.to_owned() }
        };
        assert_eq!(plan.faults.iter().filter(off).count(), 1, "{name}");
    }
}

#[test]
fn chaos_that_makes_no_sense_is_refused() {
    let texts = [
        "[chaos]\ncrash = \"1s\"",
        "[settings]\nsafety = \"1m\"\n[chaos]\nlasts = \"1s\"",
        "[settings]\nsafety = \"1m\"\n[chaos]\ncrush = \"1s\"",
        "[settings]\nsafety = \"1m\"\n[chaos]\ncrash = \"0s\"\nfrom = \"2s\"\nuntil = \"1s\"",
        "[settings]\nsafety = \"1m\"\n[chaos]\ncrash = { lasts = \"1s\", on = [\"kublet\"] }",
        "[settings]\nsafety = \"1m\"\n[chaos]\ncrash = { every = \"1s\", on = [] }",
        "[settings]\nsafety = \"1m\"\n[chaos]\npause = { every = \"1s\", on = [\"api-server\", \"api-server-0\"] }",
        "[settings]\nsafety = \"1m\"\n[chaos]\nduplicate = { every = \"1s\", percent = [9, 3], extra = \"1s\" }",
        "[settings]\nsafety = \"1m\"\n[chaos]\nloss = { every = \"1s\", links = 101, by = \"1s\" }\nreorder = { every = \"1s\", by = \"1\" }\nclock-behind = { every = \"1s\", links = 5, ahead = \"1s\" }",
        "[settings]\nsafety = \"10h\"\n[chaos]\ncrash = \"1us\"",
        "[churn]\nnode_mtbf = \"1h\"",
        "[settings]\nsafety = \"1h\"\n[churn]\nnode_mtbf = \"0s\"\nremovals = {}\nadditions = { rate = 1, name = \"x\" }",
        "[settings]\nsafety = \"100d\"\n[churn]\nnode_mtbf = \"1s\"",
    ];
    let said: Vec<String> = texts
        .iter()
        .map(|text| {
            let error = scenario(text).expect_err(text);
            let lines: String = error.lines().map(|line| format!("    {line}\n")).collect();
            format!("{}\n{lines}", text.replace('\n', "; "))
        })
        .collect();
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("refused", said.concat());
    });
}
