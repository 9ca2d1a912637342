//! A pod's volumes, from its definition to [`VolumeSpec`]s with their content.
//!
//! Source: kubernetes 1.33, `pkg/volume/{configmap,secret,projected,downwardapi}`.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApiError, ApiObject, Kind, Object, Reply, Request, Time};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use crate::claim_source::{self, ClaimProblem};
use crate::config_source::{Data, Lookup};
use crate::context::{ApiPurpose, Context};
use crate::environment::fetch;
use crate::pod_fields;
use crate::pod_worker::{PodWorker, Token};
use crate::volume::{HostPathType, VolumeContent, VolumeFile, VolumeSpec};

/// Why volumes cannot be written yet.
#[derive(Debug, PartialEq)]
pub(crate) enum VolumeProblem {
    /// Something is still being read.
    Pending,
    /// The claim of a volume is not what the pod needs.
    Unbound { volume: String, message: String },
    /// Something is missing or wrong.
    Failed { volume: String, message: String },
}

type Files = Result<Vec<VolumeFile>, Problem>;

enum Problem {
    Pending,
    Unbound(String),
    Failed(String),
}

/// Resolves all volumes of a pod.
pub(crate) fn resolve(
    ctx: &mut Context,
    worker: &mut PodWorker,
    now: Time,
) -> Result<Vec<VolumeSpec>, VolumeProblem> {
    let pod = worker.pod.clone();
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let mut specs = Vec::new();
    let mut pending = false;
    for volume in volumes {
        // All are asked for before the first that is missing is complained about.
        match spec(ctx, worker, volume, now) {
            Ok(spec) => specs.push(spec),
            Err(Problem::Pending) => pending = true,
            Err(Problem::Unbound(message)) => {
                return Err(VolumeProblem::Unbound { volume: volume.name.clone(), message });
            }
            Err(Problem::Failed(message)) => {
                return Err(VolumeProblem::Failed { volume: volume.name.clone(), message });
            }
        }
    }
    if pending { Err(VolumeProblem::Pending) } else { Ok(specs) }
}

fn spec(
    ctx: &mut Context,
    worker: &mut PodWorker,
    volume: &Volume,
    now: Time,
) -> Result<VolumeSpec, Problem> {
    if let Some(found) = claim_source::resolve(ctx, worker, volume, now) {
        return found.map_err(|problem| match problem {
            ClaimProblem::Pending => Problem::Pending,
            ClaimProblem::Unbound(why) => Problem::Unbound(why),
            ClaimProblem::Failed(why) => Problem::Failed(why),
        });
    }
    let content = one(ctx, worker, volume, now)?;
    Ok(VolumeSpec { name: volume.name.clone(), path: path(ctx, worker, volume), content })
}

/// Where a volume is on the node; that of a claim is known when it was written.
pub(crate) fn path(ctx: &Context, worker: &PodWorker, volume: &Volume) -> String {
    if let Some(host) = &volume.host_path {
        return host.path.clone();
    }
    let mut written = worker.volumes.written.iter().flat_map(|specs| specs.iter());
    if let Some(spec) = written.find(|spec| spec.name == volume.name) {
        return spec.path.clone();
    }
    let plugin = if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.projected.is_some() {
        "projected"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else {
        "empty-dir"
    };
    let folder = ctx.config.pod_folder(&worker.uid);
    format!("{folder}/volumes/kubernetes.io~{plugin}/{}", volume.name)
}

fn one(
    ctx: &mut Context,
    worker: &mut PodWorker,
    volume: &Volume,
    now: Time,
) -> Result<VolumeContent, Problem> {
    if let Some(host) = &volume.host_path {
        let kind = HostPathType::parse(host.type_.as_deref().unwrap_or_default());
        return Ok(VolumeContent::HostPath(kind));
    }
    let files = if let Some(source) = &volume.config_map {
        let mode = mode(source.default_mode);
        let optional = source.optional == Some(true);
        let from = Source { kind: Kind::ConfigMap, name: &source.name, optional };
        from.files(ctx, worker, source.items.as_deref(), mode, now)
    } else if let Some(source) = &volume.secret {
        let mode = mode(source.default_mode);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let from = Source { kind: Kind::Secret, name, optional: source.optional == Some(true) };
        from.files(ctx, worker, source.items.as_deref(), mode, now)
    } else if let Some(source) = &volume.downward_api {
        let mode = mode(source.default_mode);
        downward(ctx, worker, source.items.as_deref().unwrap_or_default(), mode)
    } else if let Some(source) = &volume.projected {
        let mode = mode(source.default_mode);
        let mut files = Vec::new();
        let mut pending = false;
        for projection in source.sources.iter().flatten() {
            match projected(ctx, worker, &volume.name, projection, mode, now) {
                Ok(more) => files.extend(more),
                Err(Problem::Pending) => pending = true,
                Err(failed) => return Err(failed),
            }
        }
        if pending { Err(Problem::Pending) } else { Ok(files) }
    } else if let Some(source) = &volume.empty_dir {
        return Ok(VolumeContent::EmptyDir {
            memory: source.medium.as_deref() == Some("Memory"),
            size_limit: source.size_limit.as_ref().map(|q| crate::resources::parse(q).value()),
        });
    } else {
        return Err(Problem::Failed("no volume plugin matched".to_owned()));
    };
    let mut files = files?;
    for file in &mut files {
        if file.path.is_empty()
            || file.path.starts_with('/')
            || file.path.split('/').any(|part| part == ".." || part.is_empty())
        {
            return Err(Problem::Failed(format!("invalid path: {}", file.path)));
        }
        if worker.spec().security_context.as_ref().is_some_and(|s| s.fs_group.is_some()) {
            // The group could not read its files otherwise.
            file.mode |= (file.mode & 0o400) >> 3;
        }
    }
    // Later sources win, as in Kubernetes.
    let unique: BTreeMap<String, VolumeFile> =
        files.into_iter().map(|f| (f.path.clone(), f)).collect();
    Ok(VolumeContent::Files(unique.into_values().collect()))
}

fn mode(value: Option<i32>) -> u32 {
    value.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644) & 0o7777
}

struct Source<'a> {
    kind: Kind,
    name: &'a str,
    optional: bool,
}

impl Source<'_> {
    fn files(
        &self,
        ctx: &mut Context,
        worker: &PodWorker,
        items: Option<&[KeyToPath]>,
        default_mode: u32,
        now: Time,
    ) -> Files {
        let data = match fetch(ctx, self.kind, worker.namespace(), self.name, now) {
            Lookup::Found(data) => data,
            Lookup::Pending => return Err(Problem::Pending),
            Lookup::Missing(_) if self.optional => Data::new(),
            Lookup::Missing(message) | Lookup::Failed(message) => {
                return Err(Problem::Failed(message));
            }
        };
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            return Ok(data
                .into_iter()
                .map(|(path, content)| VolumeFile { path, mode: default_mode, content })
                .collect());
        };
        let mut files = Vec::new();
        for item in items {
            match data.get(&item.key) {
                Some(content) => files.push(VolumeFile {
                    path: item.path.clone(),
                    mode: item.mode.map_or(default_mode, |m| mode(Some(m))),
                    content: content.clone(),
                }),
                None if self.optional => {}
                None => {
                    let what = if self.kind == Kind::Secret { "secret" } else { "config" };
                    let key = &item.key;
                    return Err(Problem::Failed(format!(
                        "references non-existent {what} key: {key}"
                    )));
                }
            }
        }
        Ok(files)
    }
}

fn downward(
    ctx: &Context,
    worker: &PodWorker,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
) -> Files {
    let mut files = Vec::new();
    for item in items {
        let content = if let Some(field) = &item.field_ref {
            pod_fields::field(ctx, worker, &field.field_path)
        } else if let Some(selector) = &item.resource_field_ref {
            let nothing = Container::default();
            pod_fields::resource(ctx, worker, &nothing, selector)
        } else {
            Ok(String::new())
        };
        files.push(VolumeFile {
            path: item.path.clone(),
            mode: item.mode.map_or(default_mode, |m| mode(Some(m))),
            content: content.map_err(Problem::Failed)?.into_bytes(),
        });
    }
    Ok(files)
}

fn projected(
    ctx: &mut Context,
    worker: &mut PodWorker,
    volume: &str,
    projection: &VolumeProjection,
    default_mode: u32,
    now: Time,
) -> Files {
    if let Some(source) = &projection.config_map {
        let optional = source.optional == Some(true);
        let from = Source { kind: Kind::ConfigMap, name: &source.name, optional };
        return from.files(ctx, worker, source.items.as_deref(), default_mode, now);
    }
    if let Some(source) = &projection.secret {
        let optional = source.optional == Some(true);
        let from = Source { kind: Kind::Secret, name: &source.name, optional };
        return from.files(ctx, worker, source.items.as_deref(), default_mode, now);
    }
    if let Some(source) = &projection.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        return downward(ctx, worker, items, default_mode);
    }
    let Some(source) = &projection.service_account_token else { return Ok(Vec::new()) };
    let content = token(ctx, worker, volume, source, now)?.into_bytes();
    Ok(vec![VolumeFile { path: source.path.clone(), mode: default_mode, content }])
}

/// Calls that brought no token are repeated after this time.
const TOKEN_RETRY: Duration = Duration::from_secs(5);

fn token(
    ctx: &mut Context,
    worker: &mut PodWorker,
    volume: &str,
    source: &ServiceAccountTokenProjection,
    now: Time,
) -> Result<String, Problem> {
    let key = (volume.to_owned(), source.path.clone());
    let tokens = worker.volumes.tokens.get_or_insert_default();
    let have = tokens.signed.get(&key);
    let fresh = have.filter(|t| now < t.refresh_at).map(|t| t.text.clone());
    if let Some(text) = fresh {
        return Ok(text);
    }
    let old = have.map(|t| t.text.clone());
    if tokens.asked.get(&key).is_none_or(|at| now >= *at + TOKEN_RETRY) {
        tokens.asked.insert(key, now);
        let request = token_request(worker, source);
        ctx.api(
            ApiPurpose::Token {
                uid: worker.uid.clone(),
                volume: volume.to_owned(),
                path: source.path.clone(),
            },
            Request::Create(request),
        );
    }
    // An old token serves until the new one is there.
    old.ok_or(Problem::Pending)
}

fn token_request(worker: &PodWorker, source: &ServiceAccountTokenProjection) -> Object {
    let account = worker.spec().service_account_name.as_deref().unwrap_or("default");
    let mut request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().filter(|a| !a.is_empty()).cloned().collect(),
            expiration_seconds: Some(source.expiration_seconds.unwrap_or(3600)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: worker.pod.metadata.name.clone(),
                uid: worker.pod.metadata.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    request.metadata.name = Some(account.to_owned());
    request.metadata.namespace = worker.pod.metadata.namespace.clone();
    request.into_object()
}

/// Takes the answer to a token request.
pub(crate) fn token_answer(
    worker: &mut PodWorker,
    key: (String, String),
    result: Result<Reply, ApiError>,
    now: Time,
) -> Result<(), String> {
    let object = match result {
        Ok(Reply::Object(object)) => object,
        Ok(Reply::Done(_) | Reply::Objects(_) | Reply::Text(_)) => {
            return Err("no token in the answer".to_owned());
        }
        Err(error) => return Err(format!("failed to fetch token: {error}")),
    };
    let status = object.get::<TokenRequest>().and_then(|t| t.status.as_ref());
    let Some(status) = status else { return Err("no token in the answer".to_owned()) };
    let life = Time::from_meta(&status.expiration_timestamp).since(now);
    // At 80 % of its life, and daily: the application must not meet an expired one.
    let refresh = (life * 4 / 5).min(Duration::from_secs(24 * 3600));
    let tokens = worker.volumes.tokens.get_or_insert_default();
    tokens.asked.remove(&key);
    let token = Token { text: status.token.clone(), refresh_at: now + refresh };
    tokens.signed.insert(key, token);
    Ok(())
}
