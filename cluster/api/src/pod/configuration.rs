//! What pods read of configuration.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, PodSpec, Volume};

use crate::Kind;

/// Calls `each` for every secret and configuration map that a pod of that spec refers to: its kind
/// and its name in the pod's namespace. Some are told more than once.
pub fn configuration(spec: &PodSpec, each: &mut impl FnMut(Kind, &str)) {
    let mut each = |kind: Kind, name: &str| {
        if !name.is_empty() {
            each(kind, name);
        }
    };
    for secret in spec.image_pull_secrets.iter().flatten() {
        each(Kind::Secret, &secret.name);
    }
    for Container { env, env_from, .. } in
        spec.init_containers.iter().flatten().chain(&spec.containers)
    {
        of_environment(env.as_deref(), env_from.as_deref(), &mut each);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        of_environment(container.env.as_deref(), container.env_from.as_deref(), &mut each);
    }
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut each);
    }
}

fn of_environment(
    variables: Option<&[EnvVar]>,
    lists: Option<&[EnvFromSource]>,
    each: &mut impl FnMut(Kind, &str),
) {
    for from in lists.unwrap_or_default() {
        if let Some(source) = &from.secret_ref {
            each(Kind::Secret, &source.name);
        }
        if let Some(source) = &from.config_map_ref {
            each(Kind::ConfigMap, &source.name);
        }
    }
    for from in variables.unwrap_or_default().iter().filter_map(|v| v.value_from.as_ref()) {
        if let Some(source) = &from.secret_key_ref {
            each(Kind::Secret, &source.name);
        }
        if let Some(source) = &from.config_map_key_ref {
            each(Kind::ConfigMap, &source.name);
        }
    }
}

fn of_volume(volume: &Volume, each: &mut impl FnMut(Kind, &str)) {
    if let Some(secret) = &volume.secret {
        each(Kind::Secret, secret.secret_name.as_deref().unwrap_or_default());
    }
    if let Some(map) = &volume.config_map {
        each(Kind::ConfigMap, &map.name);
    }
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        if let Some(secret) = &source.secret {
            each(Kind::Secret, &secret.name);
        }
        if let Some(map) = &source.config_map {
            each(Kind::ConfigMap, &map.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_a_pod_reads_is_told() {
        let variable = |kind: &str, name: &str| json!({"name": "V", "valueFrom": {kind: {"name": name, "key": "k"}}});
        let container = |name: &str, rest: serde_json::Value| {
            let mut container = json!({"name": name});
            container.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            container
        };
        let spec: PodSpec = serde_json::from_value(json!({
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "initContainers": [container("i", json!({"envFrom": [
                {"secretRef": {"name": "all"}}, {"configMapRef": {"name": "all-map"}}]}))],
            "containers": [container("c", json!({"env": [{"name": "A", "value": "b"},
                variable("secretKeyRef", "one"), variable("configMapKeyRef", "one-map")]}))],
            "ephemeralContainers": [container("e", json!({"env": [
                variable("secretKeyRef", "debug")]}))],
            "volumes": [{"name": "s", "secret": {"secretName": "folder"}},
                {"name": "m", "configMap": {"name": "folder-map"}}, {"name": "n", "emptyDir": {}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "part"}},
                    {"configMap": {"name": "part-map"}}]}}],
        }))
        .unwrap();
        let mut told = Vec::new();
        configuration(&spec, &mut |kind, name| told.push(format!("{kind} {name}")));
        assert_eq!(
            told,
            [
                "Secret pull",
                "Secret all",
                "ConfigMap all-map",
                "Secret one",
                "ConfigMap one-map",
                "Secret debug",
                "Secret folder",
                "ConfigMap folder-map",
                "Secret part",
                "ConfigMap part-map"
            ]
        );
    }
}
