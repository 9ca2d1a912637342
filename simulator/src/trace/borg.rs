//! Borg 2019: the event tables of a cell, exported as comma-separated values.
//!
//! Columns of `instance_events`: `time` (microseconds), `type`, `collection_id`, `instance_index`,
//! `priority`, `collection_type` (0 job, 1 alloc set; may be absent), `cpus` and `memory` (parts of
//! the largest machine; also under `resource_request.cpus` or `resource_request_cpus`). Columns of
//! `collection_events`, which may be left out: `time`, `type`, `collection_id`, `priority`,
//! `collection_type`. Columns of `machine_events`, which may be left out: `time`, `machine_id`,
//! `type` (1 or ADD, 2 or REMOVE, 3 or UPDATE), `cpus` and `memory` (also under `capacity.cpus` or
//! `capacity_cpus`). Types of events are numbers or names.
//!
//! The trace begins at 600 s; time 0 stands for "before", the largest number for "after". SUBMIT
//! creates a bare pod. From the last SCHEDULE to FINISH or FAIL is how long it runs, and how it
//! ends; KILL deletes it. An instance that is submitted again after it ended is a new pod. The
//! simulated scheduler decides by itself, so EVICT and LOST, and QUEUE, ENABLE and UPDATE events,
//! are counted as unused; so are instances of alloc sets, which only reserve. A machine that is
//! removed is a host that crashes until it is added again.

use std::collections::BTreeMap;
use std::path::Path;

use registry::priority_class::USER_VALUE_MAX;

use super::csv::{Columns, Row};
use super::{Parts, RowFault};
use crate::plan::{Fault, NodeShape, Operation, PlannedFault, PodTemplate, Target};
use crate::span::Span;

const INSTANCE_COLUMNS: Columns = Columns {
    read: &[
        "time",
        "type",
        "collection_id",
        "instance_index",
        "?priority",
        "?collection_type",
        "cpus|resource_request.cpus|resource_request_cpus",
        "memory|resource_request.memory|resource_request_memory",
    ],
    unused: &[
        "scheduling_class",
        "missing_type",
        "alloc_collection_id",
        "machine_id",
        "alloc_instance_index",
        "constraint",
    ],
};
const COLLECTION_COLUMNS: Columns = Columns {
    read: &["time", "type", "collection_id", "?priority", "?collection_type"],
    unused: &[
        "scheduling_class",
        "missing_type",
        "alloc_collection_id",
        "user",
        "collection_name",
        "collection_logical_name",
        "parent_collection_id",
        "start_after_collection_ids",
        "max_per_machine",
        "max_per_switch",
        "vertical_scaling",
        "scheduler",
    ],
};
const MACHINE_COLUMNS: Columns = Columns {
    read: &[
        "time",
        "machine_id",
        "type",
        "cpus|capacity.cpus|capacity_cpus",
        "memory|capacity.memory|capacity_memory",
    ],
    unused: &["switch_id", "platform_id", "missing_data_reason"],
};

/// The types of events, by their numbers.
const TYPES: [&str; 11] = [
    "SUBMIT",
    "QUEUE",
    "ENABLE",
    "SCHEDULE",
    "EVICT",
    "FAIL",
    "FINISH",
    "KILL",
    "LOST",
    "UPDATE_PENDING",
    "UPDATE_RUNNING",
];
/// When the trace begins, in microseconds.
const BEGIN: u64 = 600_000_000;
/// Stands for a time after the trace.
const AFTER: u64 = i64::MAX as u64;
/// Pods of a machine: the trace does not say.
const PODS_OF_MACHINE: u32 = 250;

/// One life of an instance.
struct Life {
    submitted: u64,
    scheduled: Option<u64>,
    cpu_milli: u64,
    memory_bytes: u64,
    priority: i32,
    end: Option<(u64, End)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Failed,
    Killed,
}

pub(super) fn read(
    instances: &Path,
    collections: Option<&Path>,
    machines: Option<&Path>,
    parts: &mut Parts<'_>,
) -> Result<(), RowFault> {
    if let Some(machines) = machines {
        read_machines(machines, parts)?;
    }
    let collections = collections.map(|file| read_collections(file, parts)).transpose()?;
    let mut lives: BTreeMap<(u64, u64), Vec<Life>> = BTreeMap::new();
    parts.rows(instances, &INSTANCE_COLUMNS, |parts, row| {
        event(collections.as_ref(), &mut lives, parts, row)
    })?;
    for ((collection, index), lives) in lives {
        for (n, life) in lives.into_iter().enumerate() {
            let name = match n {
                0 => format!("task-{collection}-{index}"),
                n => format!("task-{collection}-{index}-{n}"),
            };
            live(parts, name, &life);
        }
    }
    Ok(())
}

/// Priorities of collections, `None` for alloc sets.
type Collections = BTreeMap<u64, Option<i32>>;

fn read_collections(file: &Path, parts: &mut Parts<'_>) -> Result<Collections, RowFault> {
    let mut collections = Collections::new();
    parts.rows(file, &COLLECTION_COLUMNS, |_, row| {
        row.whole(0)?;
        type_of(row, 1)?;
        let alloc = is_alloc(row, 4)?;
        let priority = priority(row, 3)?;
        collections.insert(row.whole(2)?, (!alloc).then_some(priority.unwrap_or(0)));
        Ok(())
    })?;
    Ok(collections)
}

/// The number of a type that is written as number or name.
fn type_of(row: &Row<'_>, column: usize) -> Result<usize, RowFault> {
    let text = row.text(column);
    let named = TYPES.iter().position(|name| *name == text);
    let number = named.or_else(|| text.parse::<usize>().ok());
    number.filter(|n| *n < TYPES.len()).ok_or_else(|| row.fault(column, "is no type of event"))
}

fn is_alloc(row: &Row<'_>, column: usize) -> Result<bool, RowFault> {
    match row.text(column) {
        "" | "0" | "JOB" => Ok(false),
        "1" | "ALLOC_SET" => Ok(true),
        _ => Err(row.fault(column, "is no type of collection")),
    }
}

fn priority(row: &Row<'_>, column: usize) -> Result<Option<i32>, RowFault> {
    let Some(number) = row.scaled(column, 0)? else { return Ok(None) };
    match i32::try_from(number) {
        Ok(priority) if priority <= USER_VALUE_MAX => Ok(Some(priority)),
        _ => Err(row.fault(column, "is no priority")),
    }
}

fn event(
    collections: Option<&Collections>,
    lives: &mut BTreeMap<(u64, u64), Vec<Life>>,
    parts: &mut Parts<'_>,
    row: &Row<'_>,
) -> Result<(), RowFault> {
    let (time, kind, collection) = (row.whole(0)?, type_of(row, 1)?, row.whole(2)?);
    let key = (collection, row.whole(3)?);
    let own = priority(row, 4)?;
    let mut alloc = is_alloc(row, 5)?;
    let mut of_collection = None;
    if let Some(collections) = collections {
        let Some(known) = collections.get(&collection) else {
            return Err(row.fault(2, "is not among the collections"));
        };
        alloc |= known.is_none();
        of_collection = *known;
    }
    if alloc {
        parts.ignore("instances of alloc sets: they only reserve");
        return Ok(());
    }
    if time >= AFTER {
        parts.ignore("events after the end of the trace");
        return Ok(());
    }
    let lives = lives.entry(key).or_default();
    let open = lives.last_mut().filter(|life| life.end.is_none());
    let ended = |life: &mut Life, end: End| {
        let begun = life.scheduled.unwrap_or(life.submitted);
        if time < begun {
            return Err(row.fault(0, "is before the instance began"));
        }
        life.end = Some((time, end));
        Ok(())
    };
    match (TYPES[kind], open) {
        ("SUBMIT", None) => lives.push(Life {
            submitted: time,
            scheduled: None,
            cpu_milli: row.part_of(6, parts.source.cpu_unit)?,
            memory_bytes: row.part_of(7, parts.source.memory_unit)?,
            priority: own.or(of_collection).unwrap_or(0),
            end: None,
        }),
        ("SUBMIT", Some(_)) => parts.ignore("instances that were submitted again after EVICT"),
        ("SCHEDULE", Some(life)) => {
            if time < life.submitted {
                return Err(row.fault(0, "is before the instance was submitted"));
            }
            life.scheduled = Some(time);
        }
        ("FINISH", Some(life)) => ended(life, End::Finished)?,
        ("FAIL", Some(life)) => ended(life, End::Failed)?,
        ("KILL", Some(life)) => ended(life, End::Killed)?,
        ("SCHEDULE" | "FINISH" | "FAIL" | "KILL", None) => {
            return Err(row.fault(1, "of an instance that was not submitted"));
        }
        (name, _) => parts.ignore(&format!("{name} events: the simulated cluster decides")),
    }
    Ok(())
}

fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1_000)
}

/// Adds the operations of one life.
fn live(parts: &mut Parts<'_>, name: String, life: &Life) {
    let at = |parts: &Parts<'_>, micros: u64| parts.at(nanos(micros), nanos(BEGIN));
    let submitted = at(parts, life.submitted);
    let end = life.end;
    let runs = match (life.scheduled, end) {
        (Some(scheduled), Some((time, End::Finished | End::Failed))) => {
            Some(Span(at(parts, time).0 - at(parts, scheduled).0))
        }
        // It ended without being seen to begin: it took no time.
        (None, Some((_, End::Finished | End::Failed))) => Some(Span::ZERO),
        _ => None,
    };
    let template = PodTemplate {
        image: "borg:1".to_owned(),
        cpu_milli: life.cpu_milli,
        memory_bytes: life.memory_bytes,
        priority: life.priority,
        restart_policy: "Never".to_owned(),
        exit_code: i32::from(matches!(end, Some((_, End::Failed)))),
        ..PodTemplate::default()
    };
    parts.pod(submitted, name.clone(), template, runs);
    if let Some((time, End::Killed)) = end {
        let at = at(parts, time);
        let (orphan, foreground) = (false, false);
        parts.operation(at, Operation::Delete { target: Target::Pod, name, orphan, foreground });
    }
}

/// What is known of a machine.
struct Machine {
    added: u64,
    shape: NodeShape,
    /// From when to when it was away.
    away: Vec<(u64, Option<u64>)>,
}

fn read_machines(file: &Path, parts: &mut Parts<'_>) -> Result<(), RowFault> {
    let mut machines: BTreeMap<u64, Machine> = BTreeMap::new();
    parts.rows(file, &MACHINE_COLUMNS, |parts, row| {
        let (time, id) = (row.whole(0)?, row.whole(1)?);
        let known = machines.get_mut(&id);
        match (row.text(2), known) {
            ("1" | "ADD", None) => {
                let shape = NodeShape {
                    cpu_milli: row.part_if_any(3, parts.source.cpu_unit)?.unwrap_or(0),
                    memory_bytes: row.part_if_any(4, parts.source.memory_unit)?.unwrap_or(0),
                    pods: PODS_OF_MACHINE,
                    ..NodeShape::default()
                };
                if shape.cpu_milli == 0 || shape.memory_bytes == 0 {
                    parts.ignore("machines whose capacity is not known");
                } else {
                    machines.insert(id, Machine { added: time, shape, away: Vec::new() });
                }
            }
            ("1" | "ADD", Some(machine)) => match machine.away.last_mut() {
                Some((since, until @ None)) if time >= *since => *until = Some(time),
                Some((_, None)) => return Err(row.fault(0, "is before the machine was removed")),
                _ => parts.ignore("machines that were added while they were there"),
            },
            ("2" | "REMOVE", Some(machine)) => {
                if machine.away.last().is_some_and(|(_, until)| until.is_none()) {
                    return Err(row.fault(2, "of a machine that was removed already"));
                }
                if time < machine.added {
                    return Err(row.fault(0, "is before the machine was added"));
                }
                machine.away.push((time, None));
            }
            ("2" | "REMOVE", None) => {
                return Err(row.fault(2, "of a machine that was not added"));
            }
            ("3" | "UPDATE", _) => parts.ignore("changes of machines"),
            _ => return Err(row.fault(2, "is no type of event")),
        }
        Ok(())
    })?;
    for (id, machine) in machines {
        let name = format!("machine-{id}");
        let at = |parts: &Parts<'_>, micros: u64| parts.at(nanos(micros), nanos(BEGIN));
        let joins = at(parts, machine.added);
        for (since, until) in machine.away {
            let begins = at(parts, since);
            let lasts = until.map(|until| Span(at(parts, until).0 - begins.0));
            let fault = Fault::HostCrash { node: name.clone() };
            parts.trace.faults.push(PlannedFault { at: begins, lasts, fault });
        }
        parts.node(name, machine.shape, joins);
    }
    Ok(())
}
