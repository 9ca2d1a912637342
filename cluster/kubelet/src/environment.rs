//! The environment, command and arguments of a container.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/envvars`,
//! `third_party/forked/golang/expansion`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Key, Kind, Pod, Time};
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Service};

use crate::config_source::{ConfigSource, Data, Lookup};
use crate::context::{ApiPurpose, Context};
use crate::pod_fields;
use crate::pod_worker::PodWorker;

/// Why a container's environment is not known.
#[derive(Debug, PartialEq)]
pub(crate) enum EnvProblem {
    /// Something is still being read.
    Pending,
    /// Something is missing or wrong: `CreateContainerConfigError`.
    Failed(String),
}

pub(crate) type Environment = BTreeMap<String, String>;

/// Resolves all variables of a container.
pub(crate) fn resolve(
    ctx: &mut Context,
    worker: &PodWorker,
    container: &Container,
    now: Time,
) -> Result<Environment, EnvProblem> {
    let links = worker.spec().enable_service_links.unwrap_or(true);
    let known = ctx.watched.services.synced();
    let services = if worker.is_static && !known {
        Environment::new()
    } else if known {
        let services = ctx.watched.services.iter().map(Arc::as_ref);
        service_variables(services, worker.namespace(), links)
    } else {
        return Err(EnvProblem::Pending);
    };
    let mut result = Environment::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in env_from(ctx, worker.namespace(), source, now)? {
            // Variables that are no text are left out.
            if let Ok(value) = String::from_utf8(value) {
                result.insert(format!("{prefix}{key}"), value);
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                Some(expand(text, |name| result.get(name).or_else(|| services.get(name)).cloned()))
            }
            Some(source) => value_from(ctx, worker, container, source, now)?,
        };
        if let Some(value) = value {
            result.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        result.entry(name).or_insert(value);
    }
    Ok(result)
}

fn lookup(
    ctx: &mut Context,
    kind: Kind,
    namespace: &str,
    name: &str,
    optional: bool,
    now: Time,
) -> Result<Option<Data>, EnvProblem> {
    match fetch(ctx, kind, namespace, name, now) {
        Lookup::Found(data) => Ok(Some(data)),
        Lookup::Pending => Err(EnvProblem::Pending),
        Lookup::Missing(_) if optional => Ok(None),
        Lookup::Missing(message) | Lookup::Failed(message) => Err(EnvProblem::Failed(message)),
    }
}

/// Looks a configmap or secret up and asks for it when it is not known.
pub(crate) fn fetch(
    ctx: &mut Context,
    kind: Kind,
    namespace: &str,
    name: &str,
    now: Time,
) -> Lookup<Data> {
    let mut requests: Vec<Key> = Vec::new();
    let found = ctx.configs.data(now, kind, namespace, name, &mut requests);
    for key in requests {
        let request = ConfigSource::request(&key);
        ctx.api(ApiPurpose::Config(key), request);
    }
    found
}

fn env_from(
    ctx: &mut Context,
    namespace: &str,
    source: &EnvFromSource,
    now: Time,
) -> Result<Data, EnvProblem> {
    let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
        (Some(r), _) => (Kind::ConfigMap, &r.name, r.optional),
        (None, Some(r)) => (Kind::Secret, &r.name, r.optional),
        (None, None) => return Ok(Data::new()),
    };
    let data = lookup(ctx, kind, namespace, name, optional == Some(true), now)?;
    Ok(data.unwrap_or_default())
}

fn value_from(
    ctx: &mut Context,
    worker: &PodWorker,
    container: &Container,
    source: &EnvVarSource,
    now: Time,
) -> Result<Option<String>, EnvProblem> {
    if let Some(field) = &source.field_ref {
        let value = pod_fields::field(ctx, worker, &field.field_path);
        return value.map(Some).map_err(EnvProblem::Failed);
    }
    if let Some(selector) = &source.resource_field_ref {
        let value = pod_fields::resource(ctx, worker, container, selector);
        return value.map(Some).map_err(EnvProblem::Failed);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(r), _) => (Kind::ConfigMap, &r.name, &r.key, r.optional == Some(true)),
        (None, Some(r)) => (Kind::Secret, &r.name, &r.key, r.optional == Some(true)),
        (None, None) => return Ok(None),
    };
    let namespace = worker.namespace();
    let Some(mut data) = lookup(ctx, kind, namespace, name, optional, now)? else {
        return Ok(None);
    };
    match data.remove(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        None if optional => Ok(None),
        None => {
            let what = kind.name();
            Err(EnvProblem::Failed(format!("couldn't find key {key} in {what} {namespace}/{name}")))
        }
    }
}

/// Variables that tell where the services of the namespace are, and `kubernetes` always.
pub(crate) fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Environment {
    let mut found: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = of == "default" && name == "kubernetes";
        if (links && of == namespace) || (master && !found.contains_key(name)) {
            found.insert(name, service);
        }
    }
    let mut result = Environment::new();
    for (name, service) in found {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let Some(first) = spec.ports.as_deref().unwrap_or_default().first() else { continue };
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let name = name.to_uppercase().replace('-', "_");
        let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".to_owned());
        let lower = protocol(&first.protocol).to_lowercase();
        result.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
        result.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        result.insert(format!("{name}_PORT"), format!("{lower}://{ip}:{}", first.port));
        for port in spec.ports.iter().flatten() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                result.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let upper = protocol(&port.protocol).to_uppercase();
            let lower = upper.to_lowercase();
            let prefix = format!("{name}_PORT_{}_{upper}", port.port);
            result.insert(prefix.clone(), format!("{lower}://{ip}:{}", port.port));
            result.insert(format!("{prefix}_PROTO"), lower);
            result.insert(format!("{prefix}_PORT"), port.port.to_string());
            result.insert(format!("{prefix}_ADDR"), ip.to_owned());
        }
    }
    result
}

/// Command and arguments with their variables.
pub(crate) fn command(
    container: &Container,
    env: &Environment,
) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let expand_all = |list: &Option<Vec<String>>| {
        let words = list.as_ref().filter(|l| !l.is_empty())?;
        Some(words.iter().map(|w| expand(w, |name| env.get(name).cloned())).collect())
    };
    (expand_all(&container.command), expand_all(&container.args))
}

/// Replaces `$(NAME)`; what is not defined stays as written, `$$` is a dollar sign.
pub(crate) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Whether the pod's volumes or variables come from configmaps or secrets.
pub(crate) fn reads_config(pod: &Pod) -> bool {
    pod.spec
        .iter()
        .flat_map(|s| s.volumes.iter().flatten())
        .any(|v| v.config_map.is_some() || v.secret.is_some() || v.projected.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion() {
        let check = |text: &str, expected: &str| {
            let value = |name: &str| (name == "A").then(|| "x".to_owned());
            assert_eq!(expand(text, value), expected);
        };
        check("$(A)-$(A)", "x-x");
        check("$(B) $A $", "$(B) $A $");
        check("$$(A) $$$(A)", "$(A) $x");
        check("$(A", "$(A");
        check("ä$(A)ö", "äxö");
    }

    #[test]
    fn service_links() {
        let service = |ns: &str, name: &str, ip: &str| {
            let text = format!(
                r#"{{"apiVersion":"v1","kind":"Service",
                "metadata":{{"name":"{name}","namespace":"{ns}"}},
                "spec":{{"clusterIP":"{ip}","ports":[{{"name":"http","port":80}}]}}}}"#
            );
            api::codec::decode_any(text.as_bytes()).unwrap().get::<Service>().unwrap().clone()
        };
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("shop", "my-db", "10.0.0.2"),
            service("shop", "headless", "None"),
            service("other", "x", "10.0.0.3"),
        ];
        let names: Vec<String> = service_variables(all.iter(), "shop", true)
            .into_iter()
            .map(|(k, v)| k + "=" + &v)
            .collect();
        insta::assert_snapshot!(names.join("\n"), @"
        KUBERNETES_PORT=tcp://10.0.0.1:80
        KUBERNETES_PORT_80_TCP=tcp://10.0.0.1:80
        KUBERNETES_PORT_80_TCP_ADDR=10.0.0.1
        KUBERNETES_PORT_80_TCP_PORT=80
        KUBERNETES_PORT_80_TCP_PROTO=tcp
        KUBERNETES_SERVICE_HOST=10.0.0.1
        KUBERNETES_SERVICE_PORT=80
        KUBERNETES_SERVICE_PORT_HTTP=80
        MY_DB_PORT=tcp://10.0.0.2:80
        MY_DB_PORT_80_TCP=tcp://10.0.0.2:80
        MY_DB_PORT_80_TCP_ADDR=10.0.0.2
        MY_DB_PORT_80_TCP_PORT=80
        MY_DB_PORT_80_TCP_PROTO=tcp
        MY_DB_SERVICE_HOST=10.0.0.2
        MY_DB_SERVICE_PORT=80
        MY_DB_SERVICE_PORT_HTTP=80
        ");
        assert_eq!(service_variables(all.iter(), "shop", false).len(), 8);
    }
}
