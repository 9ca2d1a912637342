//! ServiceAccount: every pod runs as an account of its namespace and finds its token in a file.
//!
//! Source: kubernetes 1.33, `plugin/pkg/admission/serviceaccount`.

use std::sync::Arc;

use api::{Key, Kind, Object, Pod, Status};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, PodSpec, ProjectedVolumeSource, ServiceAccount,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::forbidden;
use crate::admit::Context;

/// Pods of the kubelet's own, shown to the API.
const MIRROR: &str = "kubernetes.io/config.mirror";
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and the seven seconds by which the kubelet knows the token for one of its own.
const TOKEN_SECONDS: i64 = 3607;

pub(super) fn create(context: Context<'_>, object: &mut Object) -> Result<(), Status> {
    let Object::Pod(pod) = &*object else { return Ok(()) };
    if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return check_mirror(pod).map_err(|why| forbidden(object, why));
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|s| s.service_account_name.clone());
    let name = name.unwrap_or_else(|| "default".to_owned());
    let found = context.view.get(&Key::new(Kind::ServiceAccount, &namespace, &name));
    let Some(account) = found.as_ref().and_then(Object::get::<ServiceAccount>) else {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not \
             found"
        );
        return Err(forbidden(object, &why));
    };
    let wanted = spec
        .and_then(|s| s.automount_service_account_token)
        .or(account.automount_service_account_token)
        .unwrap_or(true);
    let pull_secrets = account.image_pull_secrets.as_ref().filter(|list| !list.is_empty());
    let complete = |spec: &PodSpec| {
        spec.service_account_name.as_ref() == Some(&name)
            && spec.service_account.as_ref() == Some(&name)
            && (spec.image_pull_secrets.is_some() || pull_secrets.is_none())
    };
    if !wanted && spec.is_some_and(|spec| complete(spec)) {
        return Ok(());
    }
    if let Object::Pod(pod) = object {
        let spec = Arc::make_mut(pod).spec.get_or_insert_default();
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name);
        if wanted {
            mount_token(spec, &context.stamp.suffix("token volume"));
        }
        if spec.image_pull_secrets.is_none() {
            spec.image_pull_secrets = pull_secrets.cloned();
        }
    }
    Ok(())
}

/// What the kubelet runs by itself cannot depend on other objects.
fn check_mirror(pod: &Pod) -> Result<(), &'static str> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if spec.service_account_name.is_some() {
        return Err("a mirror pod may not reference service accounts");
    }
    if refers_to_secrets(spec) {
        return Err("a mirror pod may not reference secrets");
    }
    let tokens = |v: &Volume| {
        let sources = v.projected.as_ref().and_then(|p| p.sources.as_ref());
        sources.into_iter().flatten().any(|s| s.service_account_token.is_some())
    };
    if spec.volumes.iter().flatten().any(tokens) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Whether anything in the pod needs a secret.
pub(super) fn refers_to_secrets(spec: &PodSpec) -> bool {
    let by_env = |c: &Container| {
        let keys = c.env.iter().flatten().filter_map(|e| e.value_from.as_ref());
        keys.clone().any(|v| v.secret_key_ref.is_some())
            || c.env_from.iter().flatten().any(|e| e.secret_ref.is_some())
    };
    let by_volume = |v: &Volume| {
        let sources = v.projected.as_ref().and_then(|p| p.sources.as_ref());
        v.secret.is_some() || sources.into_iter().flatten().any(|s| s.secret.is_some())
    };
    spec.image_pull_secrets.as_ref().is_some_and(|l| !l.is_empty())
        || containers(spec).any(by_env)
        || spec.volumes.iter().flatten().any(by_volume)
}

/// Whether anything in the pod needs a config map.
pub(super) fn refers_to_config_maps(spec: &PodSpec) -> bool {
    let by_env = |c: &Container| {
        let keys = c.env.iter().flatten().filter_map(|e| e.value_from.as_ref());
        keys.clone().any(|v| v.config_map_key_ref.is_some())
            || c.env_from.iter().flatten().any(|e| e.config_map_ref.is_some())
    };
    let by_volume = |v: &Volume| {
        let sources = v.projected.as_ref().and_then(|p| p.sources.as_ref());
        v.config_map.is_some() || sources.into_iter().flatten().any(|s| s.config_map.is_some())
    };
    containers(spec).any(by_env) || spec.volumes.iter().flatten().any(by_volume)
}

fn mount_token(spec: &mut PodSpec, suffix: &str) {
    let present = spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME));
    let existing = present.map(|v| v.name.clone());
    let volume = existing.clone().unwrap_or_else(|| format!("{VOLUME}{suffix}"));
    let mut needed = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        // A mount of the user's own at that place means that no token is wanted there.
        if mounts.iter().any(|m| m.mount_path == MOUNT_PATH) {
            continue;
        }
        mounts.push(VolumeMount {
            name: volume.clone(),
            read_only: Some(true),
            mount_path: MOUNT_PATH.to_owned(),
            ..VolumeMount::default()
        });
        needed = true;
    }
    if needed && existing.is_none() {
        spec.volumes.get_or_insert_default().push(token_volume(volume));
    }
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(TOKEN_SECONDS),
        audience: None,
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath {
            key: "ca.crt".to_owned(),
            path: "ca.crt".to_owned(),
            mode: None,
        }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(sources),
        }),
        ..Volume::default()
    }
}
