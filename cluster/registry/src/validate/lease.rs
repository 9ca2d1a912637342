//! Leases.

use k8s_openapi::api::coordination::v1::Lease;

use crate::field::{Causes, Path};

pub(super) fn lease(lease: &Lease, causes: &mut Causes) {
    let path = Path::new("spec");
    let Some(spec) = &lease.spec else { return };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
        let at = path.child("leaseDurationSeconds");
        causes.invalid(&at, seconds, "must be greater than 0");
    }
    if let Some(count) = spec.lease_transitions {
        causes.non_negative(&path.child("leaseTransitions"), i64::from(count));
    }
}
