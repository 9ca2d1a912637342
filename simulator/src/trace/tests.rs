//! The samples, and what is said about rows that make no sense.

use std::path::{Path, PathBuf};

use super::*;
use crate::plan::{Fault, Target};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn source(files: Files) -> Source {
    Source {
        files,
        cpu_unit: 64_000,
        memory_unit: 256 << 30,
        speed: 1_000,
        gpus: true,
        skip_bad_rows: false,
    }
}

fn snapshot(name: &str, text: impl AsRef<str>) {
    let text = text.as_ref();
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, text) });
}

fn openb() -> Files {
    Files::Openb { nodes: Some(sample("openb-nodes.csv")), pods: sample("openb-pods.csv") }
}

fn borg() -> Files {
    Files::Borg {
        instances: sample("borg-instance-events.csv"),
        collections: Some(sample("borg-collection-events.csv")),
        machines: Some(sample("borg-machine-events.csv")),
    }
}

fn azure() -> Files {
    Files::Azure { vms: sample("azure-vm.csv"), types: sample("azure-vm-type.csv"), machine: None }
}

/// Reads a trace of files that are written for the test.
fn written(files: &[(&str, &str)], of: fn(&Path) -> Files, skip: bool) -> Result<Trace, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut source = source(of(folder.path()));
    source.skip_bad_rows = skip;
    let shown = format!("{}/", folder.path().display());
    read(&source).map_err(|e| e.to_string().replace(&shown, ""))
}

fn pods(trace: &Trace) -> Vec<(Span, &str, &PodTemplate, Option<Span>)> {
    trace
        .operations
        .iter()
        .filter_map(|o| match &o.operation {
            Operation::CreatePod { name, template, runs } => {
                Some((o.at, name.as_str(), &trace.templates[*template as usize], *runs))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn openb_becomes_nodes_with_gpus_and_pods_that_end() {
    let trace = read(&source(openb())).unwrap();
    assert_eq!((trace.nodes.len(), trace.shapes.len()), (10, 4));
    let first = &trace.shapes[0];
    assert_eq!((first.cpu_milli, first.memory_bytes), (96_000, 384 << 30));
    assert_eq!(first.extended[GPU], 8);
    assert_eq!(first.labels[GPU_MODEL], "G2");
    let pods = pods(&trace);
    assert_eq!(pods.len(), 60);
    let (at, name, template, runs) = pods[1];
    assert_eq!((at, name, runs), (Span::secs(1), "pod-0001", Some(Span::secs(616))));
    assert_eq!((template.cpu_milli, template.extended.len()), (8_000, 0));
    assert_eq!(template.labels["qos"], "ls");
    assert!(pods.iter().all(|(_, _, t, _)| t.extended.get(GPU).is_none_or(|n| *n <= 8)));
    assert!(trace.ignored["shares of GPUs, which are rounded up to whole ones"] > 0);
    assert!(pods.iter().any(|(_, _, t, _)| t.node_selector.contains_key(GPU_MODEL)));
    assert!(pods.iter().any(|(_, _, t, _)| t.exit_code == 1));
    assert!(trace.ignored["a choice of GPU models: a node selector has one value"] > 0);
    let mut without = source(openb());
    (without.gpus, without.speed) = (false, 2_000);
    let trace = read(&without).unwrap();
    assert!(trace.templates.iter().all(|t| t.extended.is_empty()));
    assert_eq!(self::pods(&trace)[1].0, Span::millis(500));
}

#[test]
fn borg_becomes_machines_that_fail_and_tasks() {
    let trace = read(&source(borg())).unwrap();
    assert_eq!(trace.nodes.len(), 6);
    assert_eq!(trace.shapes[trace.nodes[0].shape as usize].cpu_milli, 64_000);
    let crash = |node: &str| Fault::HostCrash { node: node.to_owned() };
    let faults: Vec<_> = trace.faults.iter().map(|f| (f.at, f.lasts, f.fault.clone())).collect();
    assert_eq!(
        faults,
        [
            (Span::secs(300), Some(Span::secs(120)), crash("machine-1002")),
            (Span::secs(900), None, crash("machine-1004")),
        ]
    );
    let pods = pods(&trace);
    let of = |wanted: &str| pods.iter().find(|(_, name, _, _)| *name == wanted).copied().unwrap();
    let (at, _, template, runs) = of("task-501-0");
    assert_eq!((at, runs), (Span::secs(2), Some(Span::secs(200))));
    assert_eq!((template.cpu_milli, template.priority), (960, 103));
    // Evicted once: the second try counts.
    assert_eq!(of("task-501-3").3, Some(Span::secs(320)));
    assert_eq!(of("task-502-0").3, None);
    assert_eq!(of("task-503-1").2.exit_code, 1);
    assert_eq!(of("task-503-1-1").3, Some(Span::secs(48)));
    let deleted: Vec<(Span, &str)> = trace
        .operations
        .iter()
        .filter_map(|o| match &o.operation {
            Operation::Delete { target: Target::Pod, name, .. } => Some((o.at, name.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, [(Span::secs(315), "task-503-2"), (Span::secs(660), "task-503-9")]);
    assert_eq!(
        trace.left_out(),
        [
            "1 row unused: EVICT events: the simulated cluster decides",
            "1 row unused: changes of machines",
            "1 row unused: instances of alloc sets: they only reserve",
            "1 row unused: instances that were submitted again after EVICT",
        ]
    );
}

#[test]
fn azure_becomes_pods_of_one_kind_of_machine() {
    let trace = read(&source(azure())).unwrap();
    assert!(trace.nodes.is_empty());
    let found = pods(&trace);
    assert_eq!(found.len(), 39);
    assert_eq!(trace.ignored["requests that ended before the trace began"], 1);
    // Those that ran before are there from the beginning.
    assert_eq!(found.iter().filter(|(at, ..)| *at == Span::ZERO).count(), 9);
    let sizes: BTreeSet<u64> = trace.templates.iter().map(|t| t.cpu_milli).collect();
    assert_eq!(sizes, BTreeSet::from([1_600, 3_200, 12_800, 32_000]));
    let (_, _, _, runs) = found.iter().find(|(_, name, _, _)| *name == "vm-0").copied().unwrap();
    assert_eq!(runs, Some(Span::secs(864)), "0.01 days");
    let files = Files::Azure {
        vms: sample("azure-vm.csv"),
        types: sample("azure-vm-type.csv"),
        machine: Some(17),
    };
    let halves = read(&source(files)).unwrap();
    assert_eq!(halves.templates.iter().map(|t| t.cpu_milli).max(), Some(16_000));
}

/// Rows of OpenB with every kind of mistake.
const BAD_PODS: &str = "\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
good,1000,1024,0,0,,LS,Succeeded,10,20,12
letters,1 core,1024,0,0,,LS,Succeeded,10,20,12
\"quoted\",1000,,0,0,,LS,Succeeded,10,20,12
late,1000,1024,0,0,,LS,Succeeded,10,8,12
early,1000,1024,0,0,,LS,Succeeded,10,20,9
good,1000,1024,0,0,,LS,Succeeded,10,20,12
short,1000,1024
never,1000,1024,0,0,,LS,Succeeded,,20,12
-,1000,1024,0,0,,LS,Succeeded,10,20,12
half,1000.5,1024,1,2000,,LS,Succeeded,10,20,12
many,1000,99999999999999999,0,0,,LS,Succeeded,10,20,12
";

fn pods_of(folder: &Path) -> Files {
    Files::Openb { nodes: None, pods: folder.join("pods.csv") }
}

#[test]
fn rows_that_make_no_sense_are_told_with_their_place() {
    snapshot("bad_rows", written(&[("pods.csv", BAD_PODS)], pods_of, false).unwrap_err());
    let trace = written(&[("pods.csv", BAD_PODS)], pods_of, true).unwrap();
    assert_eq!(pods(&trace).len(), 1);
    snapshot("skipped_rows", trace.left_out().join("\n"));
}

#[test]
fn files_that_are_no_trace_are_refused() {
    let fails = |files: &[(&str, &str)], of: fn(&Path) -> Files| {
        let error = written(files, of, true).unwrap_err();
        error.lines().next().unwrap().to_owned()
    };
    let said = [
        fails(&[], pods_of),
        fails(&[("pods.csv", "")], pods_of),
        fails(&[("pods.csv", "name,cpu_milli\n")], pods_of),
        fails(&[("pods.csv", "name,\"cpu_milli\n")], pods_of),
        fails(&[("i.csv", "time,type,collection_id,instance_index,cpus\n")], |folder| {
            let instances = folder.join("i.csv");
            Files::Borg { instances, collections: None, machines: None }
        }),
    ];
    snapshot("no_trace", said.join("\n"));
}

/// The columns of pods that must be there.
const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time";

#[test]
fn files_have_rows_and_no_column_that_nobody_knows() {
    let row = "a,1000,64,0,0,1,7\n";
    for (header, rows, expected) in [
        (PODS, "", "pods.csv: has no rows: there is nothing but the header"),
        (
            &format!("{PODS},deletion_tme"),
            row,
            "pods.csv:1:59: unknown column `deletion_tme`: did you mean `deletion_time`?",
        ),
        (&format!("{PODS},name"), row, "pods.csv:1:59: the column `name` is there twice"),
        (&format!("{PODS},deletion_time"), row, ""),
    ] {
        // To skip bad rows does not mean to take files for what they are not.
        let text = format!("{header}\n{rows}");
        let error = written(&[("pods.csv", &text)], pods_of, true).err().unwrap_or_default();
        assert_eq!(error.trim_end(), expected, "{header}");
    }
}

#[test]
fn files_may_have_all_columns_that_are_published() {
    let borg = |folder: &Path| Files::Borg {
        instances: folder.join("i.csv"),
        collections: Some(folder.join("c.csv")),
        machines: Some(folder.join("m.csv")),
    };
    let files = [
        (
            "i.csv",
            "time,type,collection_id,scheduling_class,missing_type,collection_type,priority,\
             alloc_collection_id,instance_index,machine_id,alloc_instance_index,\
             resource_request.cpus,resource_request.memory,constraint\n\
             600000000,0,1,2,,0,103,0,0,,,0.1,0.1,[]\n",
        ),
        (
            "c.csv",
            "time,type,collection_id,scheduling_class,missing_type,collection_type,priority,\
             alloc_collection_id,user,collection_name,collection_logical_name,\
             parent_collection_id,start_after_collection_ids,max_per_machine,max_per_switch,\
             vertical_scaling,scheduler\n600000000,0,1,2,,0,103,0,u,n,l,,,,,1,0\n",
        ),
        (
            "m.csv",
            "time,machine_id,type,switch_id,capacity.cpus,capacity.memory,platform_id,\
             missing_data_reason\n0,1,1,s,0.5,0.5,p,\n0,2,1,s,,,p,\n",
        ),
    ];
    let trace = written(&files, borg, false).unwrap();
    assert_eq!((trace.nodes.len(), trace.operations.len()), (1, 1));
    assert_eq!(trace.left_out(), ["1 row unused: machines whose capacity is not known"]);
    let both = files.map(|(name, text)| (name, text.replace("machine_id,alloc", "cpus,alloc")));
    let both = both.each_ref().map(|(name, text)| (*name, text.as_str()));
    let expected = "i.csv:1:141: the column `resource_request.cpus` says what `cpus` says\n";
    assert_eq!(written(&both, borg, false).unwrap_err(), expected);
}

#[test]
fn values_that_are_needed_are_not_empty() {
    let instances = |folder: &Path| {
        let instances = folder.join("i.csv");
        Files::Borg { instances, collections: None, machines: None }
    };
    let azure = |folder: &Path| Files::Azure {
        vms: folder.join("vm.csv"),
        types: folder.join("t.csv"),
        machine: None,
    };
    let said = [
        written(
            &[(
                "i.csv",
                "time,type,collection_id,instance_index,cpus,memory\n\
                 700,0,1,0,,0.1\n700,0,1,1,0.1,NULL\n700,0,1,2,0.1,0.1\n800,6,1,2,,\n",
            )],
            instances,
            false,
        ),
        written(
            &[
                ("t.csv", "vmTypeId,machineId,core,memory\n1,1,,0.5\n2,1,0.5,\n3,1,1,1\n"),
                ("vm.csv", "vmId,vmTypeId,starttime\n,3,0\n1,3,0\n"),
            ],
            azure,
            false,
        ),
    ];
    let said = said.map(|said| said.unwrap_err().lines().map(str::to_owned).collect::<Vec<_>>());
    let skip = "--skip-bad-rows leaves such rows out and counts them";
    assert_eq!(
        said.concat(),
        [
            "i.csv:2:11: `cpus` is missing",
            "i.csv:3:15: `memory` is missing: \"NULL\"",
            skip,
            "t.csv:2:5: `core` is missing",
            "t.csv:3:9: `memory` is missing",
            "vm.csv:2:1: `vmId` is missing",
            skip,
        ]
    );
}

#[test]
fn borg_and_azure_rows_are_checked_too() {
    let borg = |folder: &Path| Files::Borg {
        instances: folder.join("i.csv"),
        collections: Some(folder.join("c.csv")),
        machines: Some(folder.join("m.csv")),
    };
    let said = written(
        &[
            (
                "i.csv",
                "time,type,collection_id,instance_index,cpus,memory\n\
                 700,0,1,0,0.1,0.1\n600,3,1,0,0.1,0.1\n700,0,2,0,0.1,0.1\n\
                 800,6,1,1,0.1,0.1\n800,11,1,0,0.1,0.1\n800,0,1,5,-0.1,0.1\n\
                 800,0,1,6,x,0.1\n699,FINISH,1,0,0,0\n",
            ),
            ("c.csv", "time,type,collection_id,collection_type\n1,0,1,0\n1,0,3,7\n"),
            (
                "m.csv",
                "time,machine_id,type,cpus,memory\n5,1,2,1,1\n5,2,1,1,1\n4,2,2,1,1\n\
                 6,2,REMOVE,1,1\n7,2,REMOVE,1,1\n5,2,ADD,1,1\n8,2,GONE,1,1\n",
            ),
        ],
        borg,
        false,
    );
    let azure = |folder: &Path| Files::Azure {
        vms: folder.join("vm.csv"),
        types: folder.join("t.csv"),
        machine: None,
    };
    let more = written(
        &[
            (
                "vm.csv",
                "vmId,tenantId,vmTypeId,priority,starttime,endtime\n1,1,1,0,0.5,0.25\n\
                 2,1,9,0,0,1\n3,1,1,2,0,1\n4,1,1,0,NULL,1\n5,1,2,0,0,1\n6,1,1,0,zero,\n",
            ),
            ("t.csv", "vmTypeId,machineId,core,memory\n1,1,0.5,0.5\n2,2,0.5,0.5\n3,1,lots,1\n"),
        ],
        azure,
        false,
    );
    snapshot("bad_events", format!("{}\n\n{}", said.unwrap_err(), more.unwrap_err()));
}

#[test]
fn an_import_tells_the_format_from_the_columns() {
    let of = |names: &[&str]| {
        let files: Vec<PathBuf> = names.iter().map(|name| sample(name)).collect();
        let folder = sample("").display().to_string();
        let shown = |text: String| text.replace(&folder, "samples/");
        match import(&files, false) {
            Ok(import) => shown(import.text),
            Err(error) => shown(error.to_string()),
        }
    };
    let said = [
        of(&["openb-pods.csv", "openb-nodes.csv"]),
        of(&["borg-machine-events.csv", "borg-instance-events.csv", "borg-collection-events.csv"]),
        of(&["azure-vm.csv", "azure-vm-type.csv"]),
        of(&["openb-nodes.csv"]),
        of(&["openb-pods.csv", "azure-vm.csv"]),
        of(&["openb-pods.csv", "openb-pods.csv"]),
    ];
    snapshot("imports", said.join("\n----\n"));
}

#[test]
fn what_was_imported_can_be_run() {
    for files in [
        vec!["openb-pods.csv", "openb-nodes.csv"],
        vec!["borg-instance-events.csv", "borg-collection-events.csv", "borg-machine-events.csv"],
        vec!["azure-vm.csv", "azure-vm-type.csv"],
    ] {
        let files: Vec<PathBuf> = files.iter().map(|name| sample(name)).collect();
        let import = import(&files, false).unwrap();
        let scenario = crate::scenario::Scenario::parse(Path::new("t.toml"), &import.text)
            .unwrap_or_else(|e| panic!("{}", e.render(false, 100)));
        assert_eq!(scenario.left_out, import.trace.left_out());
        let plan = scenario.expand(1).unwrap();
        assert_eq!(plan.operations, {
            let mut operations = import.trace.operations.clone();
            operations.sort_by_key(|o| o.at);
            operations
        });
        assert!(!plan.nodes.is_empty());
        let again = crate::scenario::Scenario::of_plan(&plan)
            .unwrap_or_else(|e| panic!("{}", e.render(false, 100)));
        assert_eq!(again.expand(1).unwrap(), plan);
    }
}
