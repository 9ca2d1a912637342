//! What a job is given by its name and UID: the selector of its pods and their labels.

use k8s_openapi::api::batch::v1::Job;

/// The label by which a job selects its pods.
pub(crate) const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The same, as it was called before.
pub(crate) const LEGACY_CONTROLLER_UID: &str = "controller-uid";
/// The label that names the job.
pub(crate) const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same, as it was called before.
pub(crate) const LEGACY_JOB_NAME: &str = "job-name";

/// Makes the selector of the job and the labels of its pods, unless its author did.
pub(super) fn select_by_identity(job: &mut Job) {
    let name = job.metadata.name.clone().unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let spec = job.spec.get_or_insert_default();
    if spec.manual_selector != Some(true) {
        let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
        // What contradicts the identity is left for validation to refuse.
        for label in [LEGACY_JOB_NAME, JOB_NAME] {
            labels.entry(label.to_owned()).or_insert_with(|| name.clone());
        }
        for label in [LEGACY_CONTROLLER_UID, CONTROLLER_UID] {
            labels.entry(label.to_owned()).or_insert_with(|| uid.clone());
        }
        let selector = spec.selector.get_or_insert_default();
        let wanted = selector.match_labels.get_or_insert_default();
        wanted.entry(CONTROLLER_UID.to_owned()).or_insert(uid);
    }
    if job.metadata.labels.is_none() {
        job.metadata.labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
    }
}
