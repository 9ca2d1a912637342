//! Leader election: P46.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Key, Kind, Object, Request, Time};
use k8s_openapi::api::coordination::v1::Lease;

use crate::check::{Check, Cluster, Occurrence, Role};
use crate::plan::{Component, Fault, Plan};
use crate::span::Span;
use crate::world::ProcessId;

/// A leader gives up ten seconds after its last renewal, and others wait fifteen: so far apart may
/// clocks move.
const SKEW_MAX: Span = Span::secs(5);
/// After a clock was wrong, so long until what was done by it is over.
const AFTERMATH: Duration = Duration::from_secs(30);

/// P46: of the candidates for one lease only the holder acts.
///
/// Judged by what is asked for, not by what is carried out: a call may be under way when the lease
/// passes on. Clocks that move further apart than the lease allows are excused.
#[derive(Clone, Default)]
pub(super) struct OneLeader {
    elected: bool,
    /// Who holds the lease of a role, as stored.
    holders: BTreeMap<Role, String>,
    /// By which name a process in its present life claims its lease.
    identities: BTreeMap<ProcessId, String>,
    /// Clocks that are wrong now, of each role.
    skewed: BTreeMap<Role, u32>,
    /// Until when clocks that were wrong are excused.
    excused: BTreeMap<Role, Time>,
}

impl OneLeader {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { elected: plan.settings.leader_election, ..Self::default() }
    }

    fn lease_committed(&mut self, by: ProcessId, role: Role, lease: &Lease) {
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone());
        let holder = holder.unwrap_or_default();
        if !holder.is_empty() {
            self.identities.insert(by, holder.clone());
        }
        self.holders.insert(role, holder);
    }

    fn is_excused(&self, role: Role, now: Time) -> bool {
        self.skewed.get(&role).is_some_and(|n| *n > 0)
            || self.excused.get(&role).is_some_and(|until| now < *until)
    }

    fn acts(&self, now: Time, by: ProcessId, role: Role, request: &Request) -> Option<String> {
        if !self.elected || matches!(request.writes(), None | Some(Kind::Lease)) {
            return None;
        }
        let holder = self.holders.get(&role).map_or("", String::as_str);
        let identity = self.identities.get(&by).map_or("", String::as_str);
        if (!identity.is_empty() && identity == holder) || self.is_excused(role, now) {
            return None;
        }
        let holder = if holder.is_empty() { "nobody" } else { holder };
        let identity = if identity.is_empty() { "none yet" } else { identity };
        Some(format!("acts while the lease is held by {holder}; its own identity is {identity}"))
    }
}

/// The role whose clock a fault sets wrong, and by how much more than is allowed.
const fn skews(fault: &Fault) -> Option<(Role, Span)> {
    let Some((component, off)) = fault.skews() else { return None };
    if off.0 <= SKEW_MAX.0 {
        return None;
    }
    match component {
        Component::Scheduler(_) => Some((Role::Scheduler, off)),
        Component::ControllerManager(_) => Some((Role::ControllerManager, off)),
        Component::ApiServer(_) | Component::Kubelet(_) => None,
    }
}

fn leads(key: &Key) -> bool {
    key.kind == Kind::Lease && &*key.namespace == "kube-system"
}

impl Check for OneLeader {
    fn property(&self) -> &'static str {
        "P46"
    }

    fn statement(&self) -> &'static str {
        "of the candidates for one lease only the holder acts"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        match occurrence {
            Occurrence::Committed { by: Some(by), key, new: Some(new), .. } if leads(key) => {
                let role = cluster.role(*by);
                if let (Some(lease), true) = (Object::get(new), role != Role::Kubelet) {
                    self.lease_committed(*by, role, lease);
                }
            }
            Occurrence::Called { by, request } => {
                let role = cluster.role(*by);
                if role != Role::Kubelet
                    && let Some(why) = self.acts(cluster.now(), *by, role, request)
                {
                    found.push(format!("{} {why}", cluster.component(*by)));
                }
            }
            Occurrence::Started(process) | Occurrence::Crashed(process) => {
                self.identities.remove(process);
            }
            Occurrence::FaultBegan(fault) => {
                if let Some((role, _)) = skews(fault) {
                    *self.skewed.entry(role).or_default() += 1;
                }
            }
            Occurrence::FaultEnded(fault) => {
                if let Some((role, off)) = skews(fault) {
                    let skewed = self.skewed.entry(role).or_default();
                    *skewed = skewed.saturating_sub(1);
                    // A clock that was ahead stands still until it is right; one that was behind is
                    // right at once.
                    let stands_still = match fault {
                        Fault::ClockSkew { .. } => off,
                        _ => Span::ZERO,
                    };
                    let until = cluster.now() + stands_still.duration() + AFTERMATH;
                    let excused = self.excused.entry(role).or_default();
                    *excused = until.max(*excused);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
