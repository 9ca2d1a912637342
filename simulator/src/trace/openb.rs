//! OpenB: machines with GPUs and the pods that ran on them.
//!
//! Columns of the nodes: `sn` (name), `cpu_milli`, `memory_mib`, `gpu` (how many), `model` (of the
//! GPUs; may be absent). Columns of the pods: `name`, `cpu_milli`, `memory_mib`, `num_gpu`,
//! `gpu_milli` (thousandths of each GPU), `gpu_spec` (models that will do, `A|B`), `qos`,
//! `pod_phase`, `creation_time`, `deletion_time`, `scheduled_time` (seconds). The last six may be
//! empty or absent but for the creation; a pod without a deletion runs for ever.
//!
//! A pod is created at its time, the first one at 0, and runs for as long as it did between its
//! scheduling (or else its creation) and its deletion. What failed fails. GPUs become
//! [`GPU`], which Kubernetes gives out whole: shares are rounded up, and counted as unused. The
//! only model that will do becomes a node selector for [`GPU_MODEL`]; several models cannot be
//! said with a selector and are counted as unused. `qos` becomes a label.

use std::path::Path;

use super::csv::{Columns, Row};
use super::{GPU, GPU_MODEL, Parts, RowFault};
use crate::plan::{NodeShape, PodTemplate};
use crate::span::Span;

const NODE_COLUMNS: Columns =
    Columns { read: &["sn", "cpu_milli", "memory_mib", "gpu", "?model"], unused: &[] };
const POD_COLUMNS: Columns = Columns {
    read: &[
        "name",
        "cpu_milli",
        "memory_mib",
        "num_gpu",
        "gpu_milli",
        "?gpu_spec",
        "?qos",
        "?pod_phase",
        "creation_time",
        "?deletion_time",
        "?scheduled_time",
    ],
    unused: &[],
};

/// Pods of a node of this trace: it does not say, and none runs many.
const PODS_OF_NODE: u32 = 110;

struct Pod {
    created: u64,
    name: String,
    template: PodTemplate,
    runs: Option<u64>,
}

pub(super) fn read(
    nodes: Option<&Path>,
    pods: &Path,
    parts: &mut Parts<'_>,
) -> Result<(), RowFault> {
    if let Some(nodes) = nodes {
        parts.rows(nodes, &NODE_COLUMNS, node)?;
    }
    let mut found = Vec::new();
    parts.rows(pods, &POD_COLUMNS, |parts, row| {
        found.push(pod(parts, row)?);
        Ok(())
    })?;
    found.sort_by_key(|p| p.created);
    let origin = found.first().map_or(0, |p| p.created);
    for pod in found {
        let at = parts.at(pod.created, origin);
        let runs = pod.runs.map(|runs| parts.at(runs, 0));
        parts.pod(at, pod.name, pod.template, runs);
    }
    Ok(())
}

fn node(parts: &mut Parts<'_>, row: &Row<'_>) -> Result<(), RowFault> {
    let gpus = row.whole(3)?;
    let mut shape = NodeShape {
        cpu_milli: row.whole(1)?,
        memory_bytes: mebibytes(row, 2)?,
        pods: PODS_OF_NODE,
        ..NodeShape::default()
    };
    if gpus > 0 && parts.source.gpus {
        shape.extended.insert(GPU.to_owned(), gpus);
        if !row.text(4).is_empty() {
            shape.labels.insert(GPU_MODEL.to_owned(), row.text(4).to_owned());
        }
    }
    if shape.cpu_milli == 0 || shape.memory_bytes == 0 {
        return Err(row.fault(1, "of a node without CPU or memory"));
    }
    let name = parts.name(row.text(0), row, 0)?;
    parts.node(name, shape, Span::ZERO);
    Ok(())
}

fn mebibytes(row: &Row<'_>, column: usize) -> Result<u64, RowFault> {
    row.whole(column)?.checked_mul(1 << 20).ok_or_else(|| row.fault(column, "is too large"))
}

fn pod(parts: &mut Parts<'_>, row: &Row<'_>) -> Result<Pod, RowFault> {
    let seconds = |column| -> Result<Option<u64>, RowFault> {
        let Some(secs) = row.whole_if_any(column)? else { return Ok(None) };
        secs.checked_mul(1_000_000_000).map(Some).ok_or_else(|| row.fault(column, "is too large"))
    };
    let created = seconds(8)?.ok_or_else(|| row.fault(8, "is missing"))?;
    let (deleted, scheduled) = (seconds(9)?, seconds(10)?);
    let begun = scheduled.unwrap_or(created);
    if begun < created {
        return Err(row.fault(10, "is before the creation"));
    }
    if deleted.is_some_and(|deleted| deleted < begun) {
        return Err(row.fault(9, "is before the pod began"));
    }
    let mut template = PodTemplate {
        image: "openb:1".to_owned(),
        cpu_milli: row.whole(1)?,
        memory_bytes: mebibytes(row, 2)?,
        restart_policy: "Never".to_owned(),
        exit_code: i32::from(row.text(7) == "Failed"),
        ..PodTemplate::default()
    };
    let (gpus, share) = (row.whole(3)?, row.whole(4)?);
    if share > 1_000 {
        return Err(row.fault(4, "is more than 1000"));
    }
    if gpus > 0 && parts.source.gpus {
        if (1..1_000).contains(&share) {
            parts.ignore("shares of GPUs, which are rounded up to whole ones");
        }
        template.extended.insert(GPU.to_owned(), gpus);
        match row.text(5) {
            "" => {}
            several if several.contains('|') => {
                parts.ignore("a choice of GPU models: a node selector has one value");
            }
            model => drop(template.node_selector.insert(GPU_MODEL.to_owned(), model.to_owned())),
        }
    }
    if !row.text(6).is_empty() {
        template.labels.insert("qos".to_owned(), row.text(6).to_ascii_lowercase());
    }
    let name = parts.name(row.text(0), row, 0)?;
    Ok(Pod { created, name, template, runs: deleted.map(|deleted| deleted - begun) })
}
