//! Nodes that are emptied before they change, and filled again after it.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{ApplyError, Execution, Hosts, Progress, Report};
use crate::host::{Host, HttpsEndpoint};
use crate::leave::{self, DRAIN_WAIT};
use crate::plan::Wave;
use crate::state::Stage;

impl Execution<'_> {
    /// Whether the nodes of a wave are drained before it.
    pub(super) fn drains(&self, wave: &Wave) -> bool {
        self.drain && wave.part.is_some() && wave.stage == Stage::Node && !self.nodes.is_empty()
    }

    /// Empties the nodes `names`; those that cannot be emptied are let alone, and taken out.
    pub(super) fn drain_nodes(
        &self,
        hosts: &mut Hosts,
        names: &mut BTreeSet<String>,
        report: &mut Report,
    ) {
        let until = (Instant::now() + DRAIN_WAIT).min(self.limits.deadline);
        for name in names.clone() {
            self.observer.event(&name, &Progress::Gate("the drain"));
            let drained = self.through_api(hosts, &name, |host, nodes| {
                leave::cordon(host, nodes, &name)?;
                leave::drain(host, nodes, &name, until).map(|_| ())
            });
            if let Err(why) = drained {
                // Nothing was changed on the host, so nothing is in the way of its pods.
                self.fill_node(hosts, &name, report);
                names.remove(&name);
                let outcome = report.hosts.entry(name).or_default();
                outcome.error = Some(ApplyError::NotDrained { why });
            }
        }
    }

    /// Lets pods onto nodes again that have come through their change well.
    pub(super) fn fill_nodes(
        &self,
        hosts: &mut Hosts,
        names: &BTreeSet<String>,
        report: &mut Report,
    ) {
        for name in names {
            if report.hosts.get(name).is_some_and(|outcome| outcome.error.is_none()) {
                self.fill_node(hosts, name, report);
            }
        }
    }

    fn fill_node(&self, hosts: &mut Hosts, name: &str, report: &mut Report) {
        let filled =
            self.through_api(hosts, name, |host, nodes| leave::uncordon(host, nodes, name));
        if let Err(why) = filled {
            let outcome = report.hosts.entry(name.to_owned()).or_default();
            outcome.notes.push(format!("{name} stays cordoned (kubectl uncordon {name}): {why}"));
        }
    }

    /// Asks whichever API server answers, through the connection to `name`.
    fn through_api(
        &self,
        hosts: &mut Hosts,
        name: &str,
        mut ask: impl FnMut(&mut dyn Host, &HttpsEndpoint) -> Result<(), String>,
    ) -> Result<(), String> {
        let host = hosts.get_mut(name).ok_or("there is no connection to it")?;
        let mut last = Err("there is no API server to ask".to_owned());
        for nodes in self.nodes {
            last = ask(host.as_mut(), nodes);
            if last.is_ok() || Instant::now() >= self.limits.deadline {
                break;
            }
        }
        last
    }
}
