//! From a pod's definition to what the runtime is asked to start.

use api::Time;
use k8s_openapi::api::core::v1::{
    Container, PodSecurityContext, SecurityContext, Volume, VolumeMount,
};

use crate::context::Context;
use crate::environment::{self, EnvProblem};
use crate::naming;
use crate::pod_dns;
use crate::pod_worker::PodWorker;
use crate::resources;
use crate::runtime::{
    ContainerSpec, ImageRecord, Mount, PodFile, PortBinding, SandboxSpec, Security,
};
use crate::volume_source;

/// The pause container of a pod.
pub(crate) fn sandbox(ctx: &Context, worker: &PodWorker, attempt: u32) -> SandboxSpec {
    let spec = worker.spec();
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    SandboxSpec {
        name: naming::container_name(&worker.pod, &worker.uid, naming::SANDBOX, attempt),
        labels: naming::sandbox_labels(&worker.pod, &worker.uid, attempt),
        image: ctx.config.pause_image.clone(),
        hostname: pod_dns::hostname(&worker.pod, &ctx.config),
        host_network: worker.host_network(),
        host_ipc: spec.host_ipc == Some(true),
        host_pid: spec.host_pid == Some(true),
        ports: if worker.host_network() { Vec::new() } else { ports(worker) },
        sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
    }
}

fn ports(worker: &PodWorker) -> Vec<PortBinding> {
    let all = worker.init_containers().iter().chain(&worker.spec().containers);
    let number = |port: i32| u16::try_from(port).ok().filter(|p| *p > 0);
    let mut ports: Vec<PortBinding> = all
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            Some(PortBinding {
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                host_ip: p.host_ip.clone().unwrap_or_default(),
                host_port: number(p.host_port?)?,
                container_port: number(p.container_port)?,
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

/// A container of a pod whose sandbox runs.
pub(crate) fn container(
    ctx: &mut Context,
    worker: &PodWorker,
    container: &Container,
    image: &ImageRecord,
    attempt: u32,
    now: Time,
) -> Result<ContainerSpec, EnvProblem> {
    let Some(sandbox_id) = worker.sandbox.running().map(|s| s.id.to_string()) else {
        return Err(EnvProblem::Pending);
    };
    let env = environment::resolve(ctx, worker, container, now)?;
    let (command, args) = environment::command(container, &env);
    let security = security(worker, container, image).map_err(EnvProblem::Failed)?;
    let spec = worker.spec();
    let memory = ctx.facts.as_ref().map_or(0, |f| f.memory_bytes);
    Ok(ContainerSpec {
        name: naming::container_name(&worker.pod, &worker.uid, &container.name, attempt),
        labels: naming::container_labels(&worker.pod, &worker.uid, container, attempt, &sandbox_id),
        image: container.image.clone().unwrap_or_default(),
        command,
        args,
        mounts: mounts(ctx, worker, container, &env).map_err(EnvProblem::Failed)?,
        env: env.into_iter().map(|(name, value)| [&*name, "=", &*value].concat()).collect(),
        working_dir: container.working_dir.clone().filter(|d| !d.is_empty()),
        files: files(ctx, worker, container),
        pod_folder: ctx.config.pod_folder(&worker.uid),
        termination_message_path: container
            .termination_message_path
            .clone()
            .unwrap_or_else(|| "/dev/termination-log".to_owned()),
        sandbox_id,
        host_pid: spec.host_pid == Some(true),
        share_pid: spec.share_process_namespace == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        limits: resources::limits(worker.qos, container, memory),
        security,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
    })
}

fn files(ctx: &Context, worker: &PodWorker, container: &Container) -> Vec<PodFile> {
    let facts_resolver = ctx.facts.as_ref().map_or("", |f| f.resolv_conf.as_str());
    let ip = worker.ip(&ctx.config.node_ip);
    let mut files = Vec::new();
    if let Some(content) = pod_dns::hosts_file(&worker.pod, ip, &ctx.config) {
        files.push(PodFile { name: "etc-hosts".into(), target: "/etc/hosts".into(), content });
    }
    let content = pod_dns::resolver_file(&worker.pod, &ctx.config, facts_resolver);
    files.push(PodFile { name: "resolv.conf".into(), target: "/etc/resolv.conf".into(), content });
    let mounted =
        |target: &str| container.volume_mounts.iter().flatten().any(|m| m.mount_path == target);
    files.retain(|f| !mounted(&f.target));
    files
}

fn mounts(
    ctx: &Context,
    worker: &PodWorker,
    container: &Container,
    env: &environment::Environment,
) -> Result<Vec<Mount>, String> {
    let volumes = worker.spec().volumes.as_deref().unwrap_or_default();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|v| v.name == mount.name).ok_or_else(|| {
            format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, container.name
            )
        })?;
        mounts.push(Mount {
            source: volume_source::path(ctx, worker, volume),
            sub_path: sub_path(mount, env)?,
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true) || is_read_only(volume),
            propagation: mount.mount_propagation.clone().unwrap_or_else(|| "None".to_owned()),
        });
    }
    Ok(mounts)
}

/// Whether the pod has its claim's volume only to read.
fn is_read_only(volume: &Volume) -> bool {
    volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
}

fn sub_path(mount: &VolumeMount, env: &environment::Environment) -> Result<Option<String>, String> {
    let plain = mount.sub_path.as_deref().filter(|p| !p.is_empty());
    let expanded = mount.sub_path_expr.as_deref().filter(|p| !p.is_empty());
    let path = match (plain, expanded) {
        (Some(path), _) => path.to_owned(),
        (None, Some(expr)) => {
            let path = environment::expand(expr, |name| env.get(name).cloned());
            if path.contains("$(") {
                return Err(format!("subPathExpr {expr:?} references an undefined variable"));
            }
            path
        }
        (None, None) => return Ok(None),
    };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("subPath {path:?} must be relative and must not contain '..'"));
    }
    Ok(Some(path))
}

fn security(
    worker: &PodWorker,
    container: &Container,
    image: &ImageRecord,
) -> Result<Security, String> {
    let pod = worker.spec().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user);
    let group = own.run_as_group.or(pod.run_as_group);
    let non_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    if non_root {
        refuse_root(worker, container, user, image)?;
    }
    let user = match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => {
            let name = image.user.split(':').next().filter(|u| !u.is_empty()).unwrap_or("0");
            Some(format!("{name}:{group}"))
        }
        (None, None) => None,
    };
    let mut groups = pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(pod.fs_group);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    Ok(Security {
        privileged: own.privileged == Some(true),
        user,
        groups,
        non_root,
        add: capabilities.add.unwrap_or_default(),
        drop: capabilities.drop.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        // Kubernetes' default profile is unconfined.
        seccomp_unconfined: !filtered(&pod, &own),
    })
}

/// Whether it matters as what user the image runs.
pub(crate) fn minds_user(worker: &PodWorker, container: &Container) -> bool {
    let pod = worker.spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let user = own.and_then(|c| c.run_as_user).or_else(|| pod?.run_as_user);
    let group = own.and_then(|c| c.run_as_group).or_else(|| pod?.run_as_group);
    let non_root = own.and_then(|c| c.run_as_non_root).or_else(|| pod?.run_as_non_root);
    user.is_none() && (group.is_some() || non_root == Some(true))
}

fn filtered(pod: &PodSecurityContext, own: &SecurityContext) -> bool {
    let profile = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    profile.is_some_and(|p| p.type_ == "RuntimeDefault")
}

fn refuse_root(
    worker: &PodWorker,
    container: &Container,
    user: Option<i64>,
    image: &ImageRecord,
) -> Result<(), String> {
    let about = format!("(pod: \"{}\", container: {})", worker.full_name(), container.name);
    let from_image = image.user.split(':').next().unwrap_or_default();
    match user {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {about}")),
        Some(_) => Ok(()),
        None if from_image.is_empty() || from_image == "0" || from_image == "root" => {
            Err(format!("container has runAsNonRoot and image will run as root {about}"))
        }
        None if from_image.parse::<i64>().is_err() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({from_image}), cannot \
             verify user is non-root {about}"
        )),
        None => Ok(()),
    }
}
