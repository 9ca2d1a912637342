//! Whole scenario files: what is accepted, what is said about mistakes, and what comes out.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::distribution::Distribution;
use crate::plan::{
    Autoscaler, Budget, Component, Concurrency, CronJob, Direction, Fault, LimitRange, Load,
    Neighbours, Operation, Outcome, PlannedNode, Quota, Spread, Target,
};
use crate::workload::arrivals::Diurnal;

const MINIMAL: &str = "[[nodes]]\nname = \"n-{i}\"\ncount = 3\n";

fn parse(text: &str) -> Result<Scenario, Diagnostics> {
    Scenario::parse(Path::new("s.toml"), text)
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, text) });
}

fn good(text: &str) -> Scenario {
    parse(text).unwrap_or_else(|e| panic!("{}", e.render(false, 100)))
}

fn expand(text: &str, seed: u64) -> Plan {
    good(text).expand(seed).unwrap_or_else(|e| panic!("{}", e.render(false, 100)))
}

/// What is said about texts, a line for each finding.
fn said(texts: &[&str]) -> String {
    let of = |text: &&str| {
        let findings = match parse(text) {
            Ok(scenario) => match scenario.expand(1) {
                Ok(_) => scenario.warnings.to_string(),
                Err(diagnostics) => diagnostics.to_string(),
            },
            Err(diagnostics) => diagnostics.to_string(),
        };
        let findings: String = findings.lines().map(|line| format!("    {line}\n")).collect();
        format!("{}\n{findings}", text.trim().replace('\n', "; "))
    };
    texts.iter().map(of).collect()
}

/// What is said about a cluster that is right but for one thing.
fn said_of(texts: &[&str]) -> String {
    let whole: Vec<String> = texts.iter().map(|text| format!("{MINIMAL}{text}")).collect();
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let head = MINIMAL.trim().replace('\n', "; ");
    said(&whole).replace(&format!("{head}; "), "").replace(&head, "…")
}

#[test]
fn what_nobody_creates_is_doubtful() {
    let web = "[templates.t]\n[[operations]]\nat = \"1s\"\ndo = \"create-deployment\"\n\
               name = \"web\"\ntemplate = \"t\"\nreplicas = 1\n[[workload]]\nname = \"api\"\n\
               kind = \"deployments\"\ncount = 2\nrate = 1\nreplicas = 1\n";
    let scale = |name: &str| {
        format!("do = \"scale\"\ntarget = \"Deployment\"\nname = \"{name}\"\nreplicas = 2\n")
    };
    let delete = |target: &str, name: &str| {
        format!("do = \"delete\"\ntarget = \"{target}\"\nname = \"{name}\"\n")
    };
    for (operation, expected) in [
        (scale("web"), None),
        (scale("default/web"), None),
        (scale("api-1"), None),
        (scale("wbe"), Some("nobody creates Deployment `wbe`")),
        (scale("shop/web"), Some("nobody creates Deployment `shop/web`")),
        (delete("Pod", "web-5c9"), None),
        (delete("Pod", "wbe-5c9"), Some("nobody creates Pod `wbe-5c9`")),
        (delete("Service", "web"), Some("nobody creates Service `web`")),
        (delete("Namespace", "default"), None),
    ] {
        let text = format!("{MINIMAL}{web}[[operations]]\nat = \"2s\"\n{operation}");
        let warnings = good(&text).warnings;
        let said = warnings.problems.iter().map(|p| p.message.as_str());
        assert_eq!(said.collect::<Vec<_>>(), expected.as_slice(), "{operation}");
    }
}

#[test]
fn mistakes_of_every_kind_are_told_at_once() {
    let text = r#"
name = "wrong"
seed = -1
speed = 3

[settings]
safty = "5m"
settle = 300
quiet = "soon"
api_servers = 0
lazy_heartbeats = "yes"
bug = "no-read-your-rights"
unchecked = ["P9", "P99"]
network = { nodes = { median = "5ms", p99 = "1ms" } }

[settings.scheduler]
fit_strategy = "leastallocated"
weights = { NodeAfinity = 3 }

[shapes.small]
cpu = "4 cores"
memory = 16

[templates.web]
image = ""
restart_policy = "never"
labels = { app = "so so" }

[[nodes]]
name = "node"
count = 3
shape = "smal"

[[operations]]
at = "1s"
do = "create-pot"

[[operations]]
at = "1s"
do = "create-pod"
name = "Web"
template = "wep"

[[faults]]
at = "9s"
until = "3s"
fault = "crash"
component = "scheduler-1"

[[faults]]
at = "9s"
fault = "host-crash"
node = "nod"
"#;
    snapshot("mistakes", &parse(text).unwrap_err().render(false, 100));
}

#[test]
fn what_cannot_be_run_is_refused() {
    snapshot(
        "impossible",
        &said(&[
            "",
            "nodes = []",
            "[[nodes]]\nname = \"n\"\n[[nodes]]\nname = \"n\"",
            "[[nodes]]\nname = \"n-{i}\"\ncount = 9\n[[nodes]]\nname = \"n-{i}\"\nfirst = 8\ncount = 2",
            "[[nodes]]\nname = \"n-{i}\"\ncount = 9\n[[nodes]]\nname = \"n-3\"",
            "[[nodes]]\nname = \"n-{i}\"\ncount = 1_000_000\n[[nodes]]\nname = \"m\"",
            "[[nodes]]\nname = \"n-{i}\"\ncount = 1_000_001",
            "[[nodes]]\ncount = 1",
            "[[nodes]]\nname = \"a/b\"",
            "[nodes]\nname = \"n\"",
            "nodes = [1]",
            "[[nodes]]\nname = \"n\"\nzones = []\njoins = \"10m\"\n[settings]\nsafety = \"5m\"",
            "a = = 1",
            "[settings]\nsafety = \"0s\"",
            "[[nodes]]\nname = \"n\"\n[templates.t]\npriority = 1_000_000_001",
        ]),
    );
}

#[test]
fn networks_slower_than_silence_are_refused() {
    snapshot(
        "restless",
        &said_of(&[
            "[settings]\nnetwork = { nodes = \"20s\" }",
            "[settings]\nquiet = \"5m\"\n[settings.network]\ncontrol_plane = \"1s\"\nservice = { mean = \"1m\" }",
            "[settings]\nquiet = \"100ms\"",
        ]),
    );
    // Four ways over a link, one write seen and two calls carried out.
    let at = |quiet: &str| {
        let head = "[[nodes]]\nname = \"n\"\n[settings.network]\nnodes = \"10s\"\n\
                    control_plane = \"1s\"\nstore = \"3s\"\nservice = \"8s\"\n";
        parse(&format!("{head}[settings]\nquiet = \"{quiet}\"\n")).is_ok()
    };
    assert_eq!((at("59s"), at("60s")), (false, true));
}

#[test]
fn operations_and_faults_refer_to_what_exists() {
    snapshot(
        "events",
        &said_of(&[
            "[[operations]]\nat = \"1s\"\ndo = \"scale\"\ntarget = \"deployment\"\nname = \"a\"",
            "[[operations]]\nat = \"1s\"\ndo = \"delete\"\ntarget = \"Pod\"\nname = \"a\"\norphan = true\nforeground = true",
            "[[operations]]\nat = \"1s\"\ndo = \"taint\"\nnode = \"n-3\"\nkey = \"a\"\neffect = \"NoShedule\"",
            "[[operations]]\nat = \"1s\"\ndo = \"label\"\ntarget = \"Node\"\nname = \"n-1\"\nkey = \"a b\"\nvalue = \"-\"",
            "[[operations]]\ndo = \"create-namespace\"\nname = \"a\"",
            "[templates.t]\n[[operations]]\nat = \"1s\"\ndo = \"create-job\"\nname = \"a\"\ntemplate = \"t\"\nindexed = true",
            "[[operations]]\nat = \"1s\"\ndo = \"create-budget\"\nname = \"a\"\napp = \"a\"",
            "[templates.t]\n[[operations]]\nat = \"1s\"\ndo = \"create-daemon-set\"\nname = \"a\"\ntemplate = \"t\"\nmax_surge = \"1\"\nmax_unavailable = \"1\"",
            "[templates.t]\n[[operations]]\nat = \"1s\"\ndo = \"create-deployment\"\nname = \"a\"\ntemplate = \"t\"\nreplicas = 3\nmax_surge = \"many\"",
            "[templates.t]\n[[operations]]\nat = \"1s\"\ndo = \"create-pod\"\nname = \"a\"\ntemplate = \"t\"\n[[operations]]\nat = \"2s\"\ndo = \"create-pod\"\nname = \"a\"\ntemplate = \"t\"",
            "[settings]\nsafety = \"5s\"\n[[faults]]\nat = \"6s\"\nfault = \"store-down\"",
            "[[faults]]\nat = \"1s\"\nfault = \"partition\"\ncomponent = \"kublet/n-1\"\ndirection = \"up\"\napi_server = 1",
            "[[faults]]\nat = \"1s\"\nfault = \"partition\"\ncomponent = \"kubelet/n-7\"",
            "[[faults]]\nat = \"1s\"\nfault = \"call-timeout\"\ncomponent = \"scheduler-0\"\npercent = 101\noutcome = \"gone\"",
            "[[faults]]\nat = \"1s\"\nfault = \"pause\"\ncomponent = \"api-server-0\"",
            "[[faults]]\nat = \"1s\"\nfault = \"loss\"\ncomponent = \"scheduler-0\"\napi_server = 2\npercent = 101\ndirection = \"back\"",
            "[[faults]]\nat = \"1s\"\nfault = \"reorder\"\ncomponent = \"api-server-0\"\npercent = 5",
            "[[faults]]\nat = \"1s\"\nfault = \"clock-behind\"\ncomponent = \"scheduler-0\"\nahead = \"1s\"",
            "[[faults]]\nat = \"1s\"\nfault = \"conflict-storm\"\ntarget = \"Pod\"\nperiod = \"0s\"",
            "[[faults]]\nat = \"1s\"\nlasts = \"1s\"\nuntil = \"2s\"\nfault = \"store-down\"\nnode = \"n-1\"",
            "[[faults]]\nat = \"1s\"\nfault = \"hostcrash\"\nnode = \"n-1\"",
        ]),
    );
}

#[test]
fn workloads_that_make_no_sense_are_refused() {
    snapshot(
        "workloads",
        &said_of(&[
            "[[workload]]",
            "[[workload]]\nkind = \"pod\"",
            "[[workload]]\nkind = \"pods\"\nrate = 10",
            "[[workload]]\nkind = \"pods\"\ncount = 10",
            "[[workload]]\nkind = \"pods\"\nrate = 0",
            "[[workload]]\nkind = \"pods\"\nrate = 1\nevery = \"1s\"\ncount = 1",
            "[[workload]]\nkind = \"pods\"\nevery = \"0s\"",
            "[[workload]]\nkind = \"pods\"\nevery = \"0s\"\nuntil = \"5m\"",
            "[[workload]]\nkind = \"pods\"\nrate = 10\nfrom = \"2m\"\nuntil = \"1m\"",
            "[[workload]]\nkind = \"pods\"\nrate = 10\ncount = 700\n[settings]\nsafety = \"1m\"",
            "[[workload]]\nkind = \"pods\"\nrate = 1_000_000\nuntil = \"1h\"",
            "[[workload]]\nkind = \"pods\"\nrate = 1\ncount = 2\n[[workload]]\nkind = \"pods\"\nrate = 1\ncount = 2",
            "[[workload]]\nkind = \"pods\"\nrate = 1\ncount = 2\ncpu = { min = \"1\" }\nmemory = { quantiles = [[50, \"1Gi\"], [40, \"2Gi\"]] }\nruns = { shape = 1.5, min = \"1s\", max = \"3\" }\nsize = 3",
            "[[workload]]\nkind = \"pods\"\nrate = 1\ncount = 2\nextended = { gpu = 1 }\ncpu = {}\npreset = \"borg\"",
            "[[workload]]\nkind = \"pods\"\nrate = 1\ncount = 2\ndiurnal = { percent = 101 }",
            "[[workload]]\nkind = \"deployments\"\ncount = 2",
            "[[workload]]\nkind = \"deployments\"\ncount = 2\nreplicas = 1\nmax_surge = \"0\"\nmax_unavailable = \"0%\"\nrestart_policy = \"Never\"",
            "[[workload]]\nkind = \"deployments\"\ncount = 2\nreplicas = 1\nrollouts = { }",
            "[[workload]]\nkind = \"deployments\"\ncount = 2\nreplicas = 1\nrollouts = { rate = 1 }",
            "[[workload]]\nkind = \"stateful-sets\"\ncount = 2\nreplicas = 1\nmax_surge = \"1\"\nbudget = { }\nrestart_policy = \"Never\"",
            "[[workload]]\nkind = \"daemon-sets\"\ncount = 2\nreplicas = 1\nmax_surge = \"1\"\nmax_unavailable = \"1\"\nscalings = { rate = 1 }",
            "[[workload]]\nkind = \"jobs\"\nrate = 1\ncount = 2\nrestart_policy = \"Always\"\nfailing = 101",
            "[[workload]]\nkind = \"deployments\"\ncount = 200\nreplicas = 1_000_000",
        ]),
    );
}

#[test]
fn schedules_loads_limits_and_claims_that_make_no_sense_are_refused() {
    let cron = "[[workload]]\nkind = \"cron-jobs\"\ncount = 1\nruns = \"1s\"\n";
    let scaled = "[[workload]]\nkind = \"deployments\"\ncount = 1\nreplicas = 1\n";
    let team = "[[workload]]\nkind = \"namespaces\"\ncount = 1\n";
    let at = "[[operations]]\nat = \"1s\"\nname = \"a\"\n";
    let text = |head: &str, rest: &str| format!("{head}{rest}");
    let texts = [
        text(cron, ""),
        text(cron, "schedules = []\nconcurrency = [\"allow\"]"),
        text(cron, "schedules = [\"* * * *\", \"@daily\", \"61 * * * *\"]"),
        text(cron, "schedules = [\"* * * * *\"]\nschedule = 1\ndeadline_seconds = 9"),
        text(cron, "schedules = [\"* * * * *\"]\nrestart_policy = \"Always\"\nfailing = 101"),
        text(scaled, "autoscale = { load = \"1\" }"),
        text(scaled, "autoscale = { min_replicas = 3, max_replicas = 2, load = 1 }"),
        text(scaled, "autoscale = { max_replicas = 2, load = \"much\", percent = 3 }"),
        text(scaled, "autoscale = { max_replicas = 2, load = \"1\", changes = {} }"),
        text(scaled, "claims = { delete_with_set = true }\nstorage = \"much\""),
        text(team, "quota = {}"),
        text(team, "quota = { pods = -1, \"requests cpu\" = 1, memory = \"much\" }"),
        text(team, "changes = { rate = 1, pods = 3 }"),
        text(team, "limits = { min = { cpu = \"2\" }, max = { cpu = \"1\" } }"),
        text(team, "limits = { least = { cpu = \"2\" } }\ntemplate = \"a\""),
        text(at, "do = \"create-cron-job\"\nschedule = \"often\""),
        text(at, "do = \"create-autoscaler\"\nmax_replicas = 3\nload = []"),
        text(at, "do = \"create-autoscaler\"\nmax_replicas = 3\nload = \"1\"\ntarget = \"Job\""),
        text(at, "do = \"create-autoscaler\"\nmax_replicas = 0\nload = [[\"2s\", 1], [\"1s\", 1]]"),
        text(at, "do = \"create-quota\"\nhard = { pods = \"-1\" }"),
        text(at, "do = \"create-limit-range\""),
        text(at, "do = \"set-claim-policy\"\ndelete = true"),
    ];
    snapshot("limits", &said_of(&texts.each_ref().map(String::as_str)));
}

#[test]
fn workloads_become_cron_jobs_autoscalers_quotas_and_claims() {
    let text = format!(
        "{MINIMAL}[settings]\nsafety = \"10m\"\n[[workload]]\nkind = \"cron-jobs\"\nname = \"c\"\n\
         count = 1\nruns = \"5s\"\nschedules = [\"*/5 * * * *\"]\nconcurrency = [\"Forbid\"]\n\
         suspensions = {{ count = 2, every = \"1m\" }}\n[[workload]]\nkind = \"namespaces\"\n\
         name = \"t\"\ncount = 1\nquota = {{ pods = 4 }}\n\
         changes = {{ count = 1, every = \"3m\", pods = 6 }}\n[[workload]]\n\
         kind = \"stateful-sets\"\nname = \"t-0/s\"\ncount = 1\nreplicas = 1\n\
         storage = \"1Gi\"\nclaims = {{ delete_with_set = true }}\nautoscale = {{ max_replicas = 3, \
         load = \"1\", changes = {{ count = 1, every = \"2m\" }} }}\n"
    );
    let plan = expand(&text, 1);
    let texts = Scenario::text_of_plan(&plan);
    let operations: Vec<&str> = texts.lines().filter(|line| line.contains("do = ")).collect();
    snapshot("workloads-limits", &operations.join("\n"));
    assert!(plan.templates.iter().any(|t| t.storage == 1 << 30));
    assert_eq!(Scenario::of_plan(&plan).unwrap().expand(plan.seed).unwrap(), plan);
}

#[test]
fn every_scenario_of_the_repository_can_be_expanded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut count = 0;
    for folder in [folder.join("bugs"), folder] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "toml") {
                continue;
            }
            count += 1;
            let scenario =
                Scenario::load(&path).unwrap_or_else(|e| panic!("{}", e.render(false, 100)));
            assert!(scenario.warnings.problems.is_empty(), "{:?}", scenario.warnings);
            let plan = scenario.expand(1).unwrap_or_else(|e| panic!("{}", e.render(false, 100)));
            assert!(!plan.nodes.is_empty() && !plan.operations.is_empty(), "{}", plan.name);
        }
    }
    assert!(count > 8);
}

#[test]
fn a_million_pods_take_little_memory() {
    // With a name on the heap of some twenty bytes.
    assert!(size_of::<PlannedOperation>() <= 96);
    let plan = expand(
        "[[nodes]]\nname = \"n-{i}\"\ncount = 3\n[[workload]]\nkind = \"pods\"\nrate = 100\n\
         count = 5_000\nruns = { min = \"1s\", max = \"2s\" }\n",
        1,
    );
    assert_eq!((plan.operations.len(), plan.templates.len()), (5_000, 1));
    assert_eq!(plan.settings.safety, Span::secs(51));
}

const MANY: &str = r#"
[settings]
safety = "10m"
[[nodes]]
name = "a-{i}"
count = 5
zones = ["a", "b"]
joins = { min = "0s", max = "1m" }
[[workload]]
kind = "pods"
every = { mean = "1s" }
cpu = { median = "500m", p99 = "4" }
runs = { min = "10s", max = "1h", shape = 1.1 }
diurnal = { period = "10m", percent = 50 }
[[workload]]
kind = "deployments"
count = 10
rate = 1
replicas = { min = 1, max = 5 }
services = true
rollouts = { every = { mean = "10s" } }
scalings = { rate = 0.5 }
deletions = { every = { mean = "2m" } }
"#;

#[test]
fn an_expansion_depends_on_the_seed_alone() {
    let plan = expand(MANY, 1);
    assert_eq!(plan, expand(MANY, 1));
    assert_ne!(plan.operations, expand(MANY, 2).operations);
    let count = |what: fn(&Operation) -> bool| {
        plan.operations.iter().filter(|o| what(&o.operation)).count()
    };
    assert_eq!(count(|o| matches!(o, Operation::CreateDeployment { .. })), 10);
    assert_eq!(count(|o| matches!(o, Operation::CreateService { .. })), 10);
    assert!(count(|o| matches!(o, Operation::CreatePod { .. })) > 450);
    assert!(count(|o| matches!(o, Operation::SetTemplate { .. })) > 30);
    assert!(count(|o| matches!(o, Operation::Scale { .. })) > 200);
    assert!(count(|o| matches!(o, Operation::Delete { .. })) > 0);
    assert!(plan.operations.iter().map(|o| o.at).is_sorted());
    let zones: Vec<&str> =
        plan.nodes.iter().map(|n| plan.shapes[n.shape as usize].zone.as_str()).collect();
    assert_eq!(zones, ["a", "b", "a", "b", "a"]);
}

#[test]
fn a_change_in_one_part_leaves_the_others_as_they_are() {
    let pods = |plan: &Plan| -> Vec<(Span, String)> {
        let pod = |o: &PlannedOperation| match &o.operation {
            Operation::CreatePod { name, .. } => Some((o.at, name.clone())),
            _ => None,
        };
        plan.operations.iter().filter_map(pod).collect()
    };
    let changed = MANY.replace("rate = 0.5", "rate = 0.7").replace("count = 5", "count = 6");
    assert_eq!(pods(&expand(MANY, 1)), pods(&expand(&changed, 1)));
}

#[test]
fn nothing_changes_after_a_deployment_is_deleted() {
    let plan = expand(MANY, 1);
    let mut deleted = std::collections::BTreeSet::new();
    for planned in &plan.operations {
        match &planned.operation {
            Operation::Delete { name, .. } => assert!(deleted.insert(name.clone()), "{name}"),
            Operation::Scale { name, .. }
            | Operation::SetTemplate { target: Target::Deployment, name, .. } => {
                assert!(!deleted.contains(name), "{name}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_plan_is_written_for_people() {
    let text = r#"
seed = 7
[settings]
safety = "1m"
schedulers = 2
network = { nodes = { min = "1ms", max = "5ms" } }
[shapes.small]
cpu = "2"
memory = "4Gi"
taints = ["dedicated=db:NoSchedule"]
[templates.web]
image = "web:1"
cpu = "250m"
tolerations = [{ key = "dedicated", effect = "NoExecute", seconds = 30 }, {}]
[[nodes]]
name = "node-{i}"
count = 3
shape = "small"
[[nodes]]
name = "other"
joins = "5s"
[[operations]]
at = "1s"
do = "create-deployment"
name = "web"
template = "web"
replicas = 3
[[operations]]
at = "20s"
do = "uncordon"
node = "node-1"
[[faults]]
at = "10s"
until = "25s"
fault = "partition"
component = "kubelet/node-2"
direction = "from-server"
"#;
    let plan = expand(text, 7);
    snapshot("written", &Scenario::text_of_plan(&plan));
    assert_eq!(Scenario::of_plan(&plan).unwrap().expand(plan.seed).unwrap(), plan);
}

fn span() -> impl Strategy<Value = Span> {
    (0..60_000_000_000_u64).prop_map(Span)
}

fn distribution() -> impl Strategy<Value = Distribution> {
    prop_oneof![
        span().prop_map(Distribution::Constant),
        (span(), span()).prop_map(|(a, b)| Distribution::Uniform { min: a.min(b), max: a.max(b) }),
        span().prop_map(|mean| Distribution::Exponential { mean }),
        (1..5_u32, span()).prop_map(|(w, s)| Distribution::Choices { choices: vec![(w, s)] }),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4})?"
}

fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    proptest::collection::btree_map(
        "[a-z]{1,4}(\\.io/[a-zA-Z][a-zA-Z_]{0,2}x)?",
        "([a-zA-Z0-9]{1,5})?",
        0..3,
    )
}

fn shape() -> impl Strategy<Value = NodeShape> {
    let taints = proptest::collection::vec((word(), "[a-z]{0,3}", 0..3_usize), 0..2);
    (1..100_000_u64, any::<u32>(), 1..500_u32, "[a-z]{0,3}", labels(), taints).prop_map(
        |(cpu_milli, memory, pods, zone, labels, taints)| NodeShape {
            cpu_milli,
            memory_bytes: u64::from(memory) << 10,
            pods,
            zone,
            labels,
            taints: taints
                .into_iter()
                .map(|(key, value, effect)| (key, value, names::EFFECTS[effect].to_owned()))
                .collect(),
            extended: std::collections::BTreeMap::from([("a.b/c".to_owned(), memory.into())]),
        },
    )
}

fn template() -> impl Strategy<Value = PodTemplate> {
    let first = (word(), labels(), 0..1_000_000_u32, any::<u32>(), -5..1_000_i32, labels());
    let second = (any::<u16>(), proptest::option::of(span()), 0..256_i32, span(), 0..3_usize);
    (first, second, 0..500_u32, "[a-z]{0,4}", any::<bool>()).prop_map(
        |(first, second, grace_seconds, scheduler, gated)| {
            let (image, labels, cpu, memory, priority, node_selector) = first;
            let selector = labels.clone();
            let (host_port, runs, exit_code, ready_after, policy) = second;
            PodTemplate {
                image,
                labels,
                cpu_milli: cpu.into(),
                memory_bytes: memory.into(),
                extended: std::collections::BTreeMap::from([("a.b/c".to_owned(), cpu.into())]),
                priority,
                node_selector,
                tolerations: vec![
                    (String::new(), String::new(), String::new(), None),
                    ("a".to_owned(), "b".to_owned(), "NoExecute".to_owned(), Some(3)),
                ],
                host_port,
                runs,
                exit_code,
                ready_after,
                min_ready: Span::secs(u64::from(grace_seconds)),
                restart_policy: ["Always", "OnFailure", "Never"][policy].to_owned(),
                grace_seconds,
                scheduler,
                gated,
                preempts: gated,
                storage: u64::from(host_port) << 20,
                near: vec![
                    Neighbours::default(),
                    Neighbours { weight: 7, topology: "a.b/c".to_owned(), ..Neighbours::default() },
                ],
                apart: vec![Neighbours { labels: selector.clone(), ..Neighbours::default() }],
                spread: vec![
                    Spread::default(),
                    Spread { labels: selector, soft: true, max_skew: 5, ..Spread::default() },
                ],
            }
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let replicas = 0..100_u32;
    let targets = vec![
        Target::Pod,
        Target::Deployment,
        Target::StatefulSet,
        Target::DaemonSet,
        Target::Job,
        Target::CronJob,
        Target::PodDisruptionBudget,
        Target::Node,
    ];
    let target = proptest::sample::select(targets);
    let flags = prop_oneof![Just((false, false)), Just((true, false)), Just((false, true))];
    let node = || (0..3_u8).prop_map(|i| format!("n-{i}"));
    prop_oneof![
        (word(), proptest::option::of(span())).prop_map(|(name, runs)| Operation::CreatePod {
            name: format!("ns/{name}"),
            template: 0,
            runs
        }),
        (word(), replicas.clone(), "[0-9]{1,2}%?").prop_map(|(name, replicas, max_surge)| {
            let max_unavailable = "25%".to_owned();
            Operation::CreateDeployment { name, template: 1, replicas, max_surge, max_unavailable }
        }),
        (word(), replicas.clone()).prop_map(|(name, replicas)| Operation::CreateReplicaSet {
            name,
            template: 0,
            replicas
        }),
        (word(), replicas.clone()).prop_map(|(name, replicas)| {
            Operation::CreateReplicationController { name, template: 0, replicas }
        }),
        (word(), word()).prop_map(|(name, app)| Operation::CreateService { name, app }),
        word().prop_map(|name| Operation::CreateNamespace { name }),
        (target.clone(), word(), replicas).prop_map(|(target, name, replicas)| Operation::Scale {
            target,
            name,
            replicas
        }),
        (target.clone(), word()).prop_map(|(target, name)| Operation::SetTemplate {
            target,
            name,
            template: 1
        }),
        of_sets(),
        of_limits(),
        (node(), span()).prop_map(|(node, timeout)| Operation::Drain { node, timeout }),
        (word(), any::<bool>()).prop_map(|(name, paused)| Operation::Pause { name, paused }),
        (target.clone(), word(), flags).prop_map(|(target, name, (orphan, foreground))| {
            Operation::Delete { target, name, orphan, foreground }
        }),
        (node(), any::<bool>())
            .prop_map(|(node, unschedulable)| Operation::Cordon { node, unschedulable }),
        (node(), word(), 0..2_usize).prop_map(|(node, key, i)| Operation::Taint {
            node,
            key,
            effect: ["", "NoExecute"][i].to_owned()
        }),
        (target, word(), word(), word()).prop_map(|(target, name, key, value)| Operation::Label {
            target,
            name,
            key,
            value
        }),
    ]
}

fn of_sets() -> impl Strategy<Value = Operation> {
    let numbers = (0..9_u32, any::<bool>(), 0..9_u32);
    let optional = || proptest::option::of(0..9_u32);
    prop_oneof![
        (word(), numbers.clone()).prop_map(|(name, (replicas, parallel, partition))| {
            Operation::CreateStatefulSet { name, template: 0, replicas, parallel, partition }
        }),
        (word(), 1..9_u32).prop_map(|(name, bound)| Operation::CreateDaemonSet {
            name,
            template: 1,
            max_surge: "0%".to_owned(),
            max_unavailable: bound.to_string(),
        }),
        (word(), 1..9_u32).prop_map(|(name, bound)| Operation::CreateDaemonSet {
            name,
            template: 1,
            max_surge: bound.to_string(),
            max_unavailable: "0".to_owned(),
        }),
        (word(), optional(), numbers, optional()).prop_map(
            |(name, completions, (parallelism, indexed, backoff_limit), ttl_seconds)| {
                Operation::CreateJob {
                    name,
                    template: 1,
                    completions,
                    parallelism,
                    indexed: indexed && completions.is_some(),
                    backoff_limit,
                    ttl_seconds,
                }
            }
        ),
        (word(), word(), any::<bool>()).prop_map(|(name, app, least)| {
            let bound = Some("50%".to_owned());
            let (min_available, max_unavailable) =
                if least { (bound, None) } else { (None, bound) };
            Operation::CreateBudget(Box::new(Budget { name, app, min_available, max_unavailable }))
        }),
        (word(), 0..9_u32)
            .prop_map(|(name, partition)| Operation::SetPartition { name, partition }),
    ]
}

fn of_limits() -> impl Strategy<Value = Operation> {
    let optional = || proptest::option::of(10..99_u32);
    let amounts =
        || proptest::collection::btree_map(word(), (1..99_u32).prop_map(|n| n.to_string()), 1..3);
    let policies = vec![Concurrency::Allow, Concurrency::Forbid, Concurrency::Replace];
    let policy = proptest::sample::select(policies);
    let numbers = (0..9_u32, 0..9_u32, 0..9_u32, 0..9_u32);
    let cron = (word(), policy, optional(), optional(), any::<bool>(), numbers);
    let diurnal = (1..9_u64, 0..9_u64, 1..=100_u32).prop_map(|(period, peak, percent)| Diurnal {
        period: Span::secs(period),
        peak: Span::secs(peak),
        percent,
    });
    let steps = proptest::collection::btree_map(0..100_u64, 0..9_000_u64, 1..4);
    let steps = steps.prop_map(|steps| {
        steps.into_iter().map(|(at, milli)| (Span::secs(at), milli)).collect::<Vec<_>>()
    });
    let load =
        (steps, proptest::option::of(diurnal)).prop_map(|(steps, diurnal)| Load { steps, diurnal });
    let targets = vec![Target::Deployment, Target::StatefulSet, Target::ReplicationController];
    let scaled = (word(), proptest::sample::select(targets), 1..4_u32, 4..9_u32, 1..200_u32, load);
    prop_oneof![
        cron.prop_map(|(name, concurrency, deadline_seconds, ttl_seconds, suspended, numbers)| {
            let (successful_kept, failed_kept, completions, backoff_limit) = numbers;
            Operation::CreateCronJob(Box::new(CronJob {
                name,
                template: 1,
                schedule: "*/5 1-3 * * 1".to_owned(),
                concurrency,
                suspended,
                deadline_seconds,
                successful_kept,
                failed_kept,
                completions,
                parallelism: completions,
                backoff_limit,
                ttl_seconds,
            }))
        }),
        (word(), any::<bool>())
            .prop_map(|(name, suspended)| Operation::SuspendCronJob { name, suspended }),
        scaled.prop_map(|(name, target, min_replicas, max_replicas, cpu_percent, load)| {
            Operation::CreateAutoscaler(Box::new(Autoscaler {
                name,
                target,
                min_replicas,
                max_replicas,
                cpu_percent,
                load,
            }))
        }),
        (word(), amounts())
            .prop_map(|(name, hard)| Operation::CreateQuota(Box::new(Quota { name, hard }))),
        (word(), amounts())
            .prop_map(|(name, hard)| Operation::SetQuota(Box::new(Quota { name, hard }))),
        (word(), amounts()).prop_map(|(name, max)| {
            Operation::CreateLimitRange(Box::new(LimitRange { name, max, ..LimitRange::default() }))
        }),
        (word(), any::<bool>(), any::<bool>()).prop_map(
            |(name, delete_with_set, delete_when_scaled)| Operation::SetClaimPolicy {
                name,
                delete_with_set,
                delete_when_scaled,
            }
        ),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let component = || {
        prop_oneof![
            Just(Component::Scheduler(0)),
            Just(Component::ControllerManager(0)),
            (0..3_u8).prop_map(|i| Component::Kubelet(format!("n-{i}"))),
        ]
    };
    let node = || (0..3_u8).prop_map(|i| format!("n-{i}"));
    let percent = || 0..=100_u8;
    let outcome = prop_oneof![Just(Outcome::Lost), Just(Outcome::CarriedOutLate)];
    let direction = || prop_oneof![Just(Direction::Both), Just(Direction::ToServer)];
    let server = || proptest::option::of(0..2_u16);
    let period = || (1..1_000_u64).prop_map(Span::millis);
    prop_oneof![
        node().prop_map(|node| Fault::HostCrash { node }),
        component().prop_map(|component| Fault::Crash { component }),
        Just(Fault::Crash { component: Component::ApiServer(1) }),
        (component(), 1..9_u32)
            .prop_map(|(component, call)| Fault::CrashAtCall { component, call }),
        component().prop_map(|component| Fault::Pause { component }),
        (component(), server(), direction()).prop_map(|(component, api_server, direction)| {
            Fault::Partition { component, api_server, direction }
        }),
        (component(), server(), distribution()).prop_map(|(component, api_server, extra)| {
            Fault::Delay { component, api_server, extra }
        }),
        (component(), percent(), outcome).prop_map(|(component, percent, outcome)| {
            Fault::CallTimeout { component, percent, outcome }
        }),
        (component(), server(), percent()).prop_map(|(component, api_server, percent)| {
            Fault::Duplicate { component, api_server, percent }
        }),
        (component(), server(), direction(), percent()).prop_map(
            |(component, api_server, direction, percent)| Fault::Loss {
                component,
                api_server,
                direction,
                percent
            }
        ),
        (component(), server(), percent(), span()).prop_map(
            |(component, api_server, percent, by)| Fault::Reorder {
                component,
                api_server,
                percent,
                by
            }
        ),
        component().prop_map(|component| Fault::WatchStall { component }),
        component().prop_map(|component| Fault::WatchGap { component }),
        component().prop_map(|component| Fault::WatchExpired { component }),
        component().prop_map(|component| Fault::WatchBreak { component }),
        (component(), period())
            .prop_map(|(component, period)| Fault::WatchCoalescing { component, period }),
        span().prop_map(|lag| Fault::StaleReads { api_server: 1, lag }),
        span().prop_map(|lag| Fault::LaggingServer { api_server: 1, lag }),
        Just(Fault::StoreDown),
        period().prop_map(|period| Fault::ConflictStorm { target: Target::Node, period }),
        (component(), span()).prop_map(|(component, ahead)| Fault::ClockSkew { component, ahead }),
        (component(), span())
            .prop_map(|(component, behind)| Fault::ClockBehind { component, behind }),
        (node(), percent()).prop_map(|(node, percent)| Fault::RuntimeErrors { node, percent }),
        node().prop_map(|node| Fault::RuntimeDown { node }),
        (node(), 1..9_u32).prop_map(|(node, factor)| Fault::SlowDisk { node, factor }),
    ]
}

prop_compose! {
    fn plan()(
        name in "[ -~]{1,12}",
        seed in any::<u64>(),
        delay in distribution(),
        shapes in proptest::collection::vec(shape(), 1..4),
        templates in proptest::collection::vec(template(), 2..4),
        nodes in proptest::collection::vec((0..4_u32, 0..2_u64), 3..9),
        operations in proptest::collection::vec((span(), operation()), 0..9),
        faults in proptest::collection::vec((span(), proptest::option::of(span()), fault()), 0..9),
        flags in any::<[bool; 4]>(),
        bugs in any::<bool>(),
    ) -> Plan {
        let mut settings = Settings { safety: Span::secs(60), ..Settings::default() };
        settings.api_servers = 2;
        [
            settings.leader_election,
            settings.lazy_heartbeats,
            settings.store_events,
            settings.hash_contents,
        ] = flags;
        settings.network.nodes = delay.clone();
        settings.quiet = Span(settings.network.reaction().0 + 1);
        settings.runtime.pull = delay;
        settings.bug = bugs.then_some(crate::bug::Bug::NoReadYourWrites);
        settings.unchecked = vec!["P9".to_owned()];
        settings.scheduler.weights.insert("NodeAffinity".to_owned(), 3);
        settings.scheduler.disabled = vec!["ImageLocality".to_owned()];
        settings.scheduler.enabled = vec!["Coscheduling".to_owned()];
        let mut templates = templates;
        // Those of jobs.
        "Never".clone_into(&mut templates[1].restart_policy);
        let count = u32::try_from(shapes.len()).unwrap();
        let nodes = (0..).zip(nodes).map(|(i, (shape, joins)): (u64, _)| PlannedNode {
            name: format!("n-{i}"),
            shape: shape % count,
            joins: Span::secs(joins),
        });
        let mut plan = Plan {
            name,
            seed,
            settings,
            shapes,
            nodes: nodes.collect(),
            templates,
            operations: operations
                .into_iter()
                .map(|(at, operation)| PlannedOperation { at, operation })
                .collect(),
            faults: faults
                .into_iter()
                .map(|(at, lasts, fault)| PlannedFault { at, lasts, fault })
                .collect(),
        };
        plan.sort();
        plan
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(plan in plan()) {
        let text = Scenario::text_of_plan(&plan);
        let scenario = Scenario::of_plan(&plan)
            .map_err(|e| TestCaseError::fail(format!("{text}\n{}", e.render(false, 100))))?;
        prop_assert_eq!(scenario.seed, Some(plan.seed));
        prop_assert_eq!(scenario.expand(plan.seed).unwrap(), plan);
    }

    #[test]
    fn any_text_is_read_or_refused(
        lines in proptest::collection::vec("[a-z]{1,8} = [0-9\"\\[{}\\]]{0,5}|\\[\\[?[a-z]{1,9}\\]?\\]", 0..9),
    ) {
        let text = lines.join("\n");
        if let Err(diagnostics) = parse(&text) {
            prop_assert!(diagnostics.has_errors());
            prop_assert!(diagnostics.render(false, 80).contains("s.toml"));
        }
    }
}
