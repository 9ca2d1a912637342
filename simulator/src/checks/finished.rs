//! Jobs that have finished: P58.

use api::{Key, Kind, Request};
use k8s_openapi::api::batch::v1::Job;

use super::clocks::Clocks;
use crate::check::{Check, Cluster, Occurrence, Role};
use crate::oracle::{self, schedules};

/// Kubernetes deletes them a little later than it may.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// P58: a job that has finished is kept for as long as it says, and no longer.
///
/// Judged by the clock of the deleting process, and by the job as it is stored, of which the end is
/// written once; by what the process knows of it where another one has its name by now. What users,
/// owners and cron jobs delete is theirs: whoever deletes for the time alone says at which revision.
#[derive(Clone, Default)]
pub(super) struct KeptAsLong {
    clocks: Clocks,
}

/// Whether one of the owners of the job is there to stay.
fn has_owner(cluster: &dyn Cluster, key: &Key, job: &Job) -> bool {
    let mut owners = job.metadata.owner_references.iter().flatten();
    owners.any(|o| {
        let kind = Kind::of_manifest(&o.api_version, &o.kind);
        let owner = kind.and_then(|kind| cluster.object(&Key::new(kind, &key.namespace, &o.name)));
        owner.is_some_and(|owner| owner.uid() == o.uid && !oracle::is_going(owner.meta()))
    })
}

impl Check for KeptAsLong {
    fn property(&self) -> &'static str {
        "P58"
    }

    fn statement(&self) -> &'static str {
        "a job that has finished is kept for as long as it says, and no longer"
    }

    fn observe(
        &mut self,
        cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        self.clocks.observe(occurrence);
        let Occurrence::Called { by, request: Request::Delete { key, revision: Some(_), .. } } =
            occurrence
        else {
            return;
        };
        if key.kind != Kind::Job || cluster.role(*by) != Role::ControllerManager {
            return;
        }
        let Some(known) = cluster.known(*by, key) else { return };
        let stored = cluster.object(key).filter(|stored| stored.uid() == known.uid());
        let Some(job) = stored.unwrap_or(known).get::<Job>() else { return };
        // What has lost its owners is collected.
        let owned = job.metadata.owner_references.as_deref().unwrap_or_default();
        let kept = job.spec.as_ref().is_some_and(|s| s.ttl_seconds_after_finished.is_some());
        if !kept || !owned.is_empty() && !has_owner(cluster, key, job) {
            return;
        }
        let clock = cluster.now() + self.clocks.ahead(cluster, *by);
        match schedules::expires_at(job) {
            None => found.push(format!("{key} is deleted, and it has not finished")),
            Some(due) if due > clock => {
                let early = due.since(clock).as_secs();
                found.push(format!("{key} is deleted {early} s before its time"));
            }
            Some(_) => {}
        }
    }

    fn at_rest(&mut self, cluster: &dyn Cluster, found: &mut Vec<String>) {
        if !cluster.is_at_rest() {
            return;
        }
        for object in cluster.objects(Kind::Job).filter(|o| !oracle::is_going(o.meta())) {
            let due = object.get::<Job>().and_then(schedules::expires_at);
            if let Some(due) = due
                && due + PATIENCE < cluster.now()
            {
                let late = cluster.now().since(due).as_secs();
                found.push(format!("{} should have gone {late} s ago", object.key()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
