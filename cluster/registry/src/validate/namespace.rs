//! Namespaces.

use k8s_openapi::api::core::v1::Namespace;

use crate::field::{Causes, Path};
use crate::names;

pub(super) fn namespace(namespace: &Namespace, causes: &mut Causes) {
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
    for finalizer in finalizers.into_iter().flatten() {
        let at = Path::new("spec");
        let at = at.child("finalizers");
        causes.invalid_each(&at, finalizer, names::qualified_name(finalizer));
        if !finalizer.contains('/')
            && !matches!(finalizer.as_str(), "kubernetes" | "orphan" | "foregroundDeletion")
        {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            causes.invalid(&at, finalizer, detail);
        }
    }
}
