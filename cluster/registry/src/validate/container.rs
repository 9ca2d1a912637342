//! Containers of pods and pod templates.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec,
    ResourceFieldSelector, ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::handler::{self, Purpose};
use super::{selector, volume};
use crate::field::{Causes, Json, Path};
use crate::names;
use crate::operation::Options;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ONE_SOURCE: &str = "may not have more than one field specified at a time";
/// Fields of a pod that an environment variable may show.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that exist but can be shown nowhere.
const KNOWN_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// What all containers of a pod share.
pub(super) struct Surroundings<'a> {
    pub(super) volumes: &'a BTreeSet<&'a str>,
    pub(super) options: &'a Options,
    /// Whether the pod runs, as opposed to a template.
    pub(super) is_pod: bool,
}

/// Checks the containers and init containers of a pod.
pub(super) fn all(spec: &PodSpec, around: &Surroundings<'_>, path: &Path<'_>, causes: &mut Causes) {
    let grace = spec.termination_grace_period_seconds.unwrap_or(0);
    let at = path.child("containers");
    if spec.containers.is_empty() {
        causes.required(&at, "");
    }
    let mut seen = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let at = at.index(i);
        common(container, around, &at, causes);
        if !seen.insert(container.name.as_str()) {
            causes.duplicate(&at.child("name"), &container.name);
        }
        hooks_and_probes(container, grace, &at, causes);
        if container.restart_policy.is_some() {
            let detail = "may not be set for non-init containers";
            causes.forbidden(&at.child("restartPolicy"), detail);
        }
    }
    host_port_conflicts(&spec.containers, &at, causes);
    let at = path.child("initContainers");
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let at = at.index(i);
        common(container, around, &at, causes);
        if !seen.insert(container.name.as_str()) {
            causes.duplicate(&at.child("name"), &container.name);
        }
        host_port_conflicts(std::slice::from_ref(container), &at, causes);
        init(container, grace, &at, causes);
    }
}

fn init(container: &Container, grace: i64, path: &Path<'_>, causes: &mut Causes) {
    match container.restart_policy.as_deref() {
        // A sidecar runs beside the other containers and may have all they may have.
        Some("Always") => return hooks_and_probes(container, grace, path, causes),
        Some(other) => causes.not_supported(&path.child("restartPolicy"), other, &["Always"]),
        None => {}
    }
    let detail = "may not be set for init containers without restartPolicy=Always";
    for (field, set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if set {
            causes.forbidden(&path.child(field), detail);
        }
    }
}

fn hooks_and_probes(container: &Container, grace: i64, path: &Path<'_>, causes: &mut Causes) {
    if let Some(hooks) = &container.lifecycle {
        handler::lifecycle(hooks, grace, &path.child("lifecycle"), causes);
    }
    for (probe, purpose, field) in [
        (&container.liveness_probe, Purpose::Liveness, "livenessProbe"),
        (&container.readiness_probe, Purpose::Readiness, "readinessProbe"),
        (&container.startup_probe, Purpose::Startup, "startupProbe"),
    ] {
        if let Some(probe) = probe {
            handler::probe(probe, purpose, &path.child(field), causes);
        }
    }
}

fn common(container: &Container, around: &Surroundings<'_>, path: &Path<'_>, causes: &mut Causes) {
    let name = &container.name;
    if name.is_empty() {
        causes.required(&path.child("name"), "");
    } else {
        causes.invalid_each(&path.child("name"), name, names::label(name));
    }
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        causes.required(&path.child("image"), "");
    } else if around.is_pod && image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        causes.invalid(&path.child("image"), image, detail);
    }
    let policy = container.termination_message_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "File" | "FallbackToLogsOnError") {
        let at = path.child("terminationMessagePolicy");
        causes.not_supported(&at, policy, &["FallbackToLogsOnError", "File"]);
    }
    ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), causes);
    environment(container.env.as_deref().unwrap_or_default(), &path.child("env"), causes);
    let from = container.env_from.as_deref().unwrap_or_default();
    environment_from(from, &path.child("envFrom"), causes);
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    volume_mounts(mounts, around.volumes, &path.child("volumeMounts"), causes);
    let policy = container.image_pull_policy.as_deref().unwrap_or_default();
    if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
        let at = path.child("imagePullPolicy");
        causes.not_supported(&at, policy, &["Always", "IfNotPresent", "Never"]);
    }
    if let Some(wanted) = &container.resources {
        resources(wanted, &path.child("resources"), causes);
    }
    if let Some(context) = &container.security_context {
        security(context, around.options, &path.child("securityContext"), causes);
    }
}

fn ports(ports: &[ContainerPort], path: &Path<'_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let messages = names::port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                causes.duplicate(&at.child("name"), name);
            }
            causes.invalid_each(&at.child("name"), name, messages);
        }
        if port.container_port == 0 {
            causes.required(&at.child("containerPort"), "");
        } else if !names::is_port(i64::from(port.container_port)) {
            causes.invalid(&at.child("containerPort"), port.container_port, names::PORT_RANGE);
        }
        if let Some(host) = port.host_port.filter(|p| *p != 0 && !names::is_port(i64::from(*p))) {
            causes.invalid(&at.child("hostPort"), host, names::PORT_RANGE);
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !PROTOCOLS.contains(&protocol) {
            causes.not_supported(&at.child("protocol"), protocol, &PROTOCOLS);
        }
    }
}

fn host_port_conflicts(containers: &[Container], path: &Path<'_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(host) = port.host_port.filter(|p| *p != 0) else { continue };
            let protocol = port.protocol.as_deref().unwrap_or_default();
            let ip = port.host_ip.as_deref().unwrap_or_default();
            let place = format!("{protocol}/{ip}/{host}");
            if !seen.insert(place.clone()) {
                let at = path.index(i);
                let at = at.child("ports");
                let at = at.index(j);
                let at = at.child("hostPort");
                causes.duplicate(&at, place);
            }
        }
    }
}

fn environment(vars: &[EnvVar], path: &Path<'_>, causes: &mut Causes) {
    for (i, var) in vars.iter().enumerate() {
        let at = path.index(i);
        if var.name.is_empty() {
            causes.required(&at.child("name"), "");
        } else {
            causes.invalid_each(&at.child("name"), &var.name, names::env_var_name(&var.name));
        }
        if let Some(source) = &var.value_from {
            let has_value = var.value.as_deref().is_some_and(|v| !v.is_empty());
            value_from(source, has_value, &at.child("valueFrom"), causes);
        }
    }
}

fn value_from(source: &EnvVarSource, has_value: bool, path: &Path<'_>, causes: &mut Causes) {
    let mut count = 0;
    if let Some(field) = &source.field_ref {
        count += 1;
        field_ref(field, &ENV_FIELDS, &path.child("fieldRef"), causes);
    }
    if let Some(resource) = &source.resource_field_ref {
        count += 1;
        resource_ref(resource, false, &path.child("resourceFieldRef"), causes);
    }
    for (key, field) in [
        (source.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key)), "configMapKeyRef"),
        (source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key)), "secretKeyRef"),
    ] {
        let Some((name, key)) = key else { continue };
        count += 1;
        let at = path.child(field);
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else {
            causes.invalid_each(&at.child("name"), name, names::subdomain(name));
        }
        selector::config_key(key, &at.child("key"), causes);
    }
    if count == 0 {
        causes.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
             `secretKeyRef`",
        );
    } else if has_value {
        causes.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        causes.invalid(path, "", ONE_SOURCE);
    }
}

/// Checks a reference to a field of the pod.
pub(super) fn field_ref(
    selector: &ObjectFieldSelector,
    supported: &[&str],
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let at = path.child("fieldPath");
    let field = selector.field_path.as_str();
    if field.is_empty() {
        return causes.required(&at, "");
    }
    let subscripted = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    match subscripted {
        Some(("metadata.annotations", key)) => {
            causes.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => {
            causes.invalid_each(path, key, names::qualified_name(key));
        }
        Some((base, _)) => causes.invalid(path, base, "does not support subscript"),
        None if supported.contains(&field) => {}
        None => {
            let exists = ENV_FIELDS.contains(&field)
                || KNOWN_FIELDS.contains(&field)
                || matches!(field, "metadata.annotations" | "metadata.labels");
            if exists {
                causes.not_supported(&at, field, supported);
            } else {
                let detail =
                    format!("error converting fieldPath: field label not supported: {field}");
                causes.invalid(&at, field, &detail);
            }
        }
    }
}

/// Checks a reference to a resource of a container; of which one, a volume has to say.
pub(super) fn resource_ref(
    selector: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let resource = selector.resource.as_str();
    if in_volume && selector.container_name.as_deref().unwrap_or_default().is_empty() {
        causes.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        causes.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        causes.not_supported(&path.child("resource"), resource, &RESOURCES);
    }
}

fn environment_from(sources: &[EnvFromSource], path: &Path<'_>, causes: &mut Causes) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            causes.invalid_each(&at.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for (name, field) in [
            (source.config_map_ref.as_ref().map(|r| &r.name), "configMapRef"),
            (source.secret_ref.as_ref().map(|r| &r.name), "secretRef"),
        ] {
            let Some(name) = name else { continue };
            count += 1;
            let at = at.child(field);
            let at = at.child("name");
            if name.is_empty() {
                causes.required(&at, "");
            } else {
                causes.invalid_each(&at, name, names::subdomain(name));
            }
        }
        match count {
            0 => causes.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => causes.invalid(path, "", ONE_SOURCE),
        }
    }
}

fn volume_mounts(
    mounts: &[VolumeMount],
    volumes: &BTreeSet<&str>,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let mut seen = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = path.index(i);
        if mount.name.is_empty() {
            causes.required(&at.child("name"), "");
        }
        if !volumes.contains(mount.name.as_str()) {
            causes.not_found(&at.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            causes.required(&at.child("mountPath"), "");
        }
        if !seen.insert(mount.mount_path.as_str()) {
            causes.invalid(&at.child("mountPath"), &mount.mount_path, "must be unique");
        }
        if let Some(sub) = &mount.sub_path {
            volume::descending_path(sub, &path.child("subPath"), causes);
        }
        if let Some(sub) = &mount.sub_path_expr {
            if mount.sub_path.is_some() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                causes.invalid(&at.child("subPathExpr"), sub, detail);
            }
            volume::descending_path(sub, &path.child("subPathExpr"), causes);
        }
        if let Some(mode) = mount.mount_propagation.as_deref() {
            const MODES: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
            if !MODES.contains(&mode) {
                causes.not_supported(&at.child("mountPropagation"), mode, &MODES);
            }
        }
    }
}

/// Whether more may be promised than there is.
fn overcommits(name: &str) -> bool {
    !name.contains('/') && !name.starts_with("hugepages-")
}

/// Checks requests and limits.
pub(super) fn resources(wanted: &ResourceRequirements, path: &Path<'_>, causes: &mut Causes) {
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    let empty = BTreeMap::new();
    let limits = wanted.limits.as_ref().unwrap_or(&empty);
    for (name, quantity) in limits {
        resource(name, quantity, &limits_at.key(name), causes);
    }
    for (name, quantity) in wanted.requests.iter().flatten() {
        resource(name, quantity, &requests_at.key(name), causes);
        let Ok(request) = Amount::parse(&quantity.0) else { continue };
        let Some(limit) = limits.get(name) else {
            if !overcommits(name) {
                let detail = "Limit must be set for non overcommitable resources";
                causes.required(&limits_at, detail);
            }
            continue;
        };
        let Ok(most) = Amount::parse(&limit.0) else { continue };
        if request.nano() != most.nano() && !overcommits(name) {
            let detail = format!("must be equal to {name} limit of {most}");
            causes.invalid(&requests_at, request.to_string(), &detail);
        } else if request.nano() > most.nano() {
            let detail = format!("must be less than or equal to {name} limit of {most}");
            causes.invalid(&requests_at, request.to_string(), &detail);
        }
    }
}

fn resource(name: &str, quantity: &Quantity, path: &Path<'_>, causes: &mut Causes) {
    causes.invalid_each(path, name, names::qualified_name(name));
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-");
        if !standard {
            causes.invalid(path, name, "must be a standard resource for containers");
        }
    } else if name.starts_with("requests.") {
        causes.invalid(path, name, "doesn't follow extended resource name standard");
    }
    quantity_value(name, quantity, path, causes);
}

/// Checks that an amount is not negative, and whole where only whole ones make sense.
pub(super) fn quantity_value(
    name: &str,
    quantity: &Quantity,
    path: &Path<'_>,
    causes: &mut Causes,
) {
    let Ok(amount) = Amount::parse(&quantity.0) else {
        return causes.invalid(path, &quantity.0, "must be a quantity");
    };
    if amount.is_negative() {
        causes.invalid(path, amount.to_string(), "must be greater than or equal to 0");
    }
    if (name == "pods" || name.contains('/')) && amount.milli() % 1000 != 0 {
        causes.invalid(path, amount.to_string(), "must be an integer");
    }
}

fn security(context: &SecurityContext, options: &Options, path: &Path<'_>, causes: &mut Causes) {
    if context.privileged == Some(true) && !options.allow_privileged {
        causes.forbidden(&path.child("privileged"), "disallowed by cluster policy");
    }
    for (field, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        id_in_range(id, &path.child(field), causes);
    }
    if context.allow_privilege_escalation == Some(false) && context.privileged == Some(true) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        causes.invalid(path, Json(context), detail);
    }
}

/// Checks a user or group id.
pub(super) fn id_in_range(id: Option<i64>, path: &Path<'_>, causes: &mut Causes) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        causes.invalid(path, id, "must be between 0 and 2147483647, inclusive");
    }
}
