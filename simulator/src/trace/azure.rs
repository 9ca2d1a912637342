//! Azure packing 2020: requests for virtual machines of one zone.
//!
//! The trace is a database; its two tables are exported as they are (`.mode csv`, `.headers on`).
//! Columns of `vm`: `vmId`, `vmTypeId`, `priority` (0 high, 1 low; may be absent), `starttime`
//! (days, negative for what ran before), `endtime` (days, empty for what outlives the trace);
//! `tenantId` is not used. Columns of `vmType`: `vmTypeId`, `machineId`, `core`, `memory` (parts of
//! a machine); `id`, `hdd`, `ssd` and `nic` are not used.
//!
//! A type fits several kinds of machines; the parts are those of one kind, which is 1.0 CPUs and
//! memory of the scenario's units. Requests become bare pods that run until their end. Low
//! priority is 0, high priority 1,000. The trace has no machines.

use std::collections::BTreeMap;
use std::path::Path;

use super::csv::{Columns, Row};
use super::{Parts, RowFault};
use crate::plan::PodTemplate;
use crate::span::Span;

const VM_COLUMNS: Columns = Columns {
    read: &["vmId", "vmTypeId", "?priority", "starttime", "?endtime"],
    unused: &["tenantId"],
};
const TYPE_COLUMNS: Columns = Columns {
    read: &["vmTypeId", "machineId", "core", "memory"],
    unused: &["id", "hdd", "ssd", "nic"],
};

/// Thousandths of a CPU and bytes of a type on each kind of machine.
type Types = BTreeMap<u64, BTreeMap<u64, (u64, u64)>>;

pub(super) fn read(
    vms: &Path,
    types: &Path,
    machine: Option<u64>,
    parts: &mut Parts<'_>,
) -> Result<(), RowFault> {
    let mut known = Types::new();
    parts.rows(types, &TYPE_COLUMNS, |parts, row| {
        let cpu = row.part_of(2, parts.source.cpu_unit)?;
        let memory = row.part_of(3, parts.source.memory_unit)?;
        known.entry(row.whole(0)?).or_default().insert(row.whole(1)?, (cpu, memory));
        Ok(())
    })?;
    let lowest = known.values().filter_map(|machines| machines.keys().next()).min().copied();
    let machine = machine.or(lowest).unwrap_or(0);
    parts.rows(vms, &VM_COLUMNS, |parts, row| vm(&known, machine, parts, row))
}

fn vm(types: &Types, machine: u64, parts: &mut Parts<'_>, row: &Row<'_>) -> Result<(), RowFault> {
    let Some(sizes) = types.get(&row.whole(1)?) else {
        return Err(row.fault(1, "is not among the types"));
    };
    let Some((cpu_milli, memory_bytes)) = sizes.get(&machine).copied() else {
        return Err(row.fault(1, "does not fit the machine that was chosen"));
    };
    let priority = match row.whole_if_any(2)? {
        None | Some(1) => 0,
        Some(0) => 1_000,
        Some(_) => return Err(row.fault(2, "is neither 0 nor 1")),
    };
    let begun = days(row, 3)?.ok_or_else(|| row.fault(3, "is missing"))?;
    let ended = days(row, 4)?;
    if ended.is_some_and(|ended| ended < begun) {
        return Err(row.fault(4, "is before the start"));
    }
    if ended.is_some_and(|ended| ended < 0) {
        parts.ignore("requests that ended before the trace began");
        return Ok(());
    }
    let begun = u64::try_from(begun.max(0)).map_err(|_| row.fault(3, "is too large"))?;
    let runs = match ended {
        None => None,
        Some(ended) => {
            let ended = u64::try_from(ended).map_err(|_| row.fault(4, "is too large"))?;
            Some(parts.at(ended, begun))
        }
    };
    let template = PodTemplate {
        image: "azure:1".to_owned(),
        cpu_milli,
        memory_bytes,
        priority,
        restart_policy: "Never".to_owned(),
        ..PodTemplate::default()
    };
    if row.text(0).is_empty() {
        return Err(row.fault(0, "is missing"));
    }
    let name = parts.name(&format!("vm-{}", row.text(0)), row, 0)?;
    let at: Span = parts.at(begun, 0);
    parts.pod(at, name, template, runs);
    Ok(())
}

/// Days as nanoseconds.
fn days(row: &Row<'_>, column: usize) -> Result<Option<i128>, RowFault> {
    let Some(days) = row.scaled(column, 12)? else { return Ok(None) };
    let nanos = days.checked_mul(86_400_000_000_000).map(|n| n / 1_000_000_000_000);
    nanos.map(Some).ok_or_else(|| row.fault(column, "is too large"))
}
