//! Events.

use k8s_openapi::api::core::v1::Event;

use crate::field::{Causes, Path};

pub(super) fn event(event: &Event, causes: &mut Causes) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let involved = event.involved_object.namespace.as_deref().unwrap_or_default();
    // Events about cluster-scoped objects live in the default namespace.
    let fits = if involved.is_empty() { namespace == "default" } else { namespace == involved };
    if !fits {
        let at = Path::new("involvedObject");
        let at = at.child("namespace");
        causes.invalid(&at, involved, "does not match event.namespace");
    }
    if event.event_time.is_none() {
        return;
    }
    for (field, value) in [
        ("reportingController", &event.reporting_component),
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        if value.as_deref().unwrap_or_default().is_empty() {
            causes.required(&Path::new(field), "");
        }
    }
    for (field, value) in [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        if let Some(value) = value.as_deref().filter(|v| v.len() > 128) {
            let detail = "can have at most 128 characters";
            causes.invalid(&Path::new(field), value, detail);
        }
    }
    if event.message.as_ref().is_some_and(|m| m.len() > 1024) {
        causes.invalid(&Path::new("message"), "", "can have at most 1024 characters");
    }
}
