//! What a unit depends on, and in which stage each file is needed first.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::state::{HostState, Stage, UnitState};

/// One digest over all inputs of `unit`: when it differs from the one of the unit's last start,
/// the unit runs with something else than it should. `None` for a unit without inputs, which is
/// never restarted.
pub(super) fn digest(state: &HostState, unit: &UnitState) -> Option<Digest> {
    if unit.inputs.is_empty() {
        return None;
    }
    let mut text = String::new();
    for path in &unit.inputs {
        let content = match (state.file(path), state.links.iter().find(|link| link.path == *path)) {
            (Some(file), _) => format!("{} {} {}", file.content.digest(), file.mode, file.owner),
            (None, Some(link)) => format!("-> {}", link.target),
            (None, None) => "unmanaged".to_owned(),
        };
        text.push_str(&format!("{path}\t{content}\n"));
    }
    Some(Digest::of(text.as_bytes()))
}

/// The stage in which each input of a unit is put in place: that of the first unit that uses it,
/// so that no host runs ahead of its wave. Other paths belong to the first stage.
pub(super) fn stages(state: &HostState) -> BTreeMap<&str, Stage> {
    let mut stages = BTreeMap::new();
    for unit in &state.units {
        for path in &unit.inputs {
            let stage = stages.entry(path.as_str()).or_insert(unit.stage);
            *stage = unit.stage.min(*stage);
        }
    }
    stages
}
