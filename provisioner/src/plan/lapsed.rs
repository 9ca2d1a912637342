//! Members of etcd whose certificates have run out.

use std::collections::BTreeSet;

use super::{Plan, Wave};
use crate::state::Stage;

impl Plan {
    /// Lets the etcd members on `lapsed` restart at once and before all others.
    ///
    /// Their certificates have run out, so none of them speaks to another one: a restart interrupts
    /// nothing, and one member alone could not become healthy again.
    pub fn nothing_to_spare(&mut self, lapsed: &BTreeSet<String>) {
        let mut hosts = Vec::new();
        for host in self.hosts.iter_mut().filter(|host| lapsed.contains(&host.host)) {
            if let Some(batch) = host.batches.get_mut(&Stage::Etcd) {
                batch.interrupts = false;
                hosts.push(host.host.clone());
            }
        }
        if hosts.is_empty() {
            return;
        }
        for wave in self.waves.iter_mut().filter(|wave| wave.stage == Stage::Etcd) {
            wave.hosts.retain(|host| !hosts.contains(host));
        }
        self.waves.retain(|wave| !wave.hosts.is_empty());
        let at = self.waves.iter().position(|wave| wave.stage >= Stage::Etcd);
        let at = at.unwrap_or(self.waves.len());
        self.waves.insert(at, Wave { stage: Stage::Etcd, hosts, part: None });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::inventory::Rollout;
    use crate::plan::{Batch, HostPlan, waves};

    #[test]
    fn lapsed_members_restart_together_and_first() {
        let host = |name: &str| {
            let batch = Batch { interrupts: true, ..Batch::default() };
            HostPlan {
                host: name.to_owned(),
                generation: 1,
                changes: Vec::new(),
                batches: [(Stage::Etcd, batch.clone()), (Stage::ControlPlane, batch)].into(),
                uploads: BTreeMap::new(),
                warnings: Vec::new(),
            }
        };
        let hosts = vec![host("a"), host("b"), host("c")];
        let mut plan = Plan { waves: waves(&hosts, &Rollout::AT_ONCE), hosts };
        let shown = |plan: &Plan| -> Vec<String> {
            let text = |wave: &Wave| format!("{}: {}", wave.stage, wave.hosts.join(" "));
            plan.waves.iter().map(text).collect()
        };
        let before = shown(&plan);
        plan.nothing_to_spare(&BTreeSet::new());
        assert_eq!(shown(&plan), before);
        plan.nothing_to_spare(&["b".to_owned(), "c".to_owned()].into());
        let masters = ["control plane: a", "control plane: b", "control plane: c"];
        assert_eq!(shown(&plan)[..2], ["etcd: b c", "etcd: a"]);
        assert_eq!(shown(&plan)[2..], masters);
        assert!(!plan.hosts[1].batches[&Stage::Etcd].interrupts);
    }
}
