//! Creates and starts pause containers and containers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as DockerMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, PortBinding as DockerPort, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use kubelet::runtime::{ContainerRecord, ContainerSpec, Mount, SandboxSpec};
use kubelet::{Labels, RuntimeError, RuntimeErrorKind};

use super::{PodBridge, Runtime, error, network};
use crate::volumes;

/// The pause container dies last.
const SANDBOX_OOM_SCORE: i64 = -998;
/// Microseconds of the period that CPU limits count in.
const CPU_PERIOD: i64 = 100_000;

impl Runtime {
    /// Creates and starts a pause container.
    pub(super) async fn start_sandbox(
        &self,
        spec: &SandboxSpec,
    ) -> Result<Option<ContainerRecord>, RuntimeError> {
        let id = self.create_and_start(&spec.name, sandbox_body(spec, self.bridge)).await?;
        if !spec.host_network {
            network::allow_hairpin(self.bridge.device()).await;
        }
        self.record(&id).await
    }

    /// Creates and starts a container.
    pub(super) async fn start_container(
        &self,
        spec: &ContainerSpec,
    ) -> Result<Option<ContainerRecord>, RuntimeError> {
        let own = spec.clone();
        let mounts = super::blocking(move || container_mounts(&own)).await?;
        let id = self.create_and_start(&spec.name, container_body(spec, mounts)).await?;
        self.record(&id).await
    }

    /// Where negative scores are refused, does without them.
    async fn create_and_start(
        &self,
        name: &str,
        mut body: ContainerCreateBody,
    ) -> Result<String, RuntimeError> {
        let lift = |body: &mut ContainerCreateBody| {
            if let Some(score) = body.host_config.as_mut().and_then(|h| h.oom_score_adj.as_mut()) {
                *score = (*score).max(0);
            }
        };
        if self.no_negative_oom.load(Ordering::Relaxed) {
            lift(&mut body);
        }
        let negative =
            body.host_config.as_ref().and_then(|h| h.oom_score_adj).is_some_and(|s| s < 0);
        let first = self.try_start(name, body.clone()).await;
        // The runtime does not say that the score was the reason: see if it starts without.
        let doubtful = first.as_ref().is_err_and(|e| e.kind == RuntimeErrorKind::Start);
        if !negative || !doubtful {
            return first;
        }
        lift(&mut body);
        match self.try_start(name, body).await {
            Ok(id) => {
                if !self.no_negative_oom.swap(true, Ordering::Relaxed) {
                    tracing::warn!("this machine refuses negative oom_score_adj: doing without");
                }
                Ok(id)
            }
            Err(_) => first,
        }
    }

    async fn try_start(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, RuntimeError> {
        let options = || Some(CreateContainerOptionsBuilder::new().name(name).build());
        let mut created = self.docker.create_container(options(), body.clone()).await;
        if created.as_ref().err().and_then(error::code) == Some(409) {
            // A container of that name is left over from an attempt that was interrupted.
            tracing::info!(name, "a left-over container is removed");
            self.remove(name).await?;
            created = self.docker.create_container(options(), body).await;
        }
        let id = created.map_err(|e| error::at(&e, RuntimeErrorKind::Create))?.id;
        let started: Result<(), Error> =
            self.docker.start_container(&id, None::<StartContainerOptions>).await;
        if let Err(error) = started {
            if let Err(error) = self.remove(&id).await {
                tracing::warn!(%error, name, "a container that did not start was not removed");
            }
            return Err(error::at(&error, RuntimeErrorKind::Start));
        }
        Ok(id)
    }
}

fn log_config() -> HostConfigLogConfig {
    // What Kubernetes keeps of a container's log: 5 files of 10 MB.
    let limits = [("max-size", "10m"), ("max-file", "5")];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(limits.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
    }
}

const NEVER: RestartPolicy =
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None };

fn owned(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn sandbox_body(spec: &SandboxSpec, bridge: PodBridge) -> ContainerCreateBody {
    let host = |yes: bool, other: Option<&str>| {
        if yes { Some("host".to_owned()) } else { other.map(str::to_owned) }
    };
    let mut bindings: HashMap<String, Option<Vec<DockerPort>>> = HashMap::new();
    for port in &spec.ports {
        let key = format!("{}/{}", port.container_port, port.protocol.to_lowercase());
        bindings.entry(key).or_default().get_or_insert_default().push(DockerPort {
            host_ip: Some(port.host_ip.clone()).filter(|ip| !ip.is_empty()),
            host_port: Some(port.host_port.to_string()),
        });
    }
    let exposed: Vec<String> = bindings.keys().cloned().collect();
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: (!spec.host_network).then(|| spec.hostname.clone()),
        labels: Some(owned(&spec.labels)),
        exposed_ports: Some(exposed).filter(|e| !e.is_empty()),
        host_config: Some(HostConfig {
            network_mode: host(spec.host_network, Some(bridge.network())),
            ipc_mode: host(spec.host_ipc, Some("shareable")),
            pid_mode: host(spec.host_pid, None),
            port_bindings: Some(bindings).filter(|b| !b.is_empty()),
            sysctls: Some(spec.sysctls.clone().into_iter().collect())
                .filter(|s: &HashMap<_, _>| !s.is_empty()),
            restart_policy: Some(NEVER),
            cpu_shares: Some(2),
            oom_score_adj: Some(SANDBOX_OOM_SCORE),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            log_config: Some(log_config()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn container_body(spec: &ContainerSpec, mounts: Vec<DockerMount>) -> ContainerCreateBody {
    let joined = format!("container:{}", spec.sandbox_id);
    let pid_mode = match (spec.host_pid, spec.share_pid) {
        (true, _) => Some("host".to_owned()),
        (false, true) => Some(joined.clone()),
        (false, false) => None,
    };
    let security = &spec.security;
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if security.seccomp_unconfined && !security.privileged {
        options.push("seccomp=unconfined".to_owned());
    }
    let some = |list: &Vec<String>| Some(list.clone()).filter(|l| !l.is_empty());
    let limits = &spec.limits;
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        labels: Some(owned(&spec.labels)),
        // Replacing the entry point drops the image's arguments, as in Kubernetes.
        entrypoint: spec.command.clone(),
        cmd: spec.args.clone(),
        env: Some(spec.env.clone()),
        working_dir: spec.working_dir.clone(),
        user: security.user.clone(),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        tty: Some(spec.tty),
        stop_signal: spec.stop_signal.clone(),
        host_config: Some(HostConfig {
            network_mode: Some(joined.clone()),
            ipc_mode: Some(if spec.host_ipc { "host".to_owned() } else { joined }),
            pid_mode,
            mounts: Some(mounts),
            restart_policy: Some(NEVER),
            cpu_shares: Some(limits.cpu_shares),
            cpu_period: (limits.cpu_quota > 0).then_some(CPU_PERIOD),
            cpu_quota: (limits.cpu_quota > 0).then_some(limits.cpu_quota),
            memory: (limits.memory > 0).then_some(limits.memory),
            // Swap does not count as memory.
            memory_swap: (limits.memory > 0).then_some(limits.memory),
            oom_score_adj: Some(limits.oom_score_adj),
            privileged: Some(security.privileged),
            cap_add: some(&security.add),
            cap_drop: some(&security.drop),
            group_add: some(&security.groups.iter().map(i64::to_string).collect()),
            readonly_rootfs: Some(security.read_only_root),
            security_opt: some(&options),
            log_config: Some(log_config()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Makes what is mounted and says how.
fn container_mounts(spec: &ContainerSpec) -> Result<Vec<DockerMount>, volumes::VolumeError> {
    let folder = Path::new(&spec.pod_folder);
    let mut mounts = Vec::new();
    for mount in &spec.mounts {
        let source = match &mount.sub_path {
            Some(sub) => volumes::sub_path(Path::new(&mount.source), sub)?,
            None => mount.source.clone().into(),
        };
        mounts.push(docker_mount(mount, &source));
    }
    for file in &spec.files {
        let path = folder.join(&file.name);
        volumes::write_pod_file(&path, file.content.as_bytes(), 0o644)?;
        mounts.push(plain_mount(&path, &file.target));
    }
    let mounted = |target: &str| spec.mounts.iter().any(|m| m.target == target);
    if !mounted(&spec.termination_message_path) {
        let path = folder.join("last-words").join(&spec.name);
        volumes::write_pod_file(&path, b"", 0o666)?;
        mounts.push(plain_mount(&path, &spec.termination_message_path));
    }
    Ok(mounts)
}

fn plain_mount(source: &Path, target: &str) -> DockerMount {
    let mount = Mount {
        source: String::new(),
        sub_path: None,
        target: target.to_owned(),
        read_only: false,
        propagation: "None".to_owned(),
    };
    docker_mount(&mount, source)
}

fn docker_mount(mount: &Mount, source: &Path) -> DockerMount {
    let propagation = match mount.propagation.as_str() {
        "HostToContainer" => MountBindOptionsPropagationEnum::RSLAVE,
        "Bidirectional" => MountBindOptionsPropagationEnum::RSHARED,
        _ => MountBindOptionsPropagationEnum::RPRIVATE,
    };
    DockerMount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            ..MountBindOptions::default()
        }),
        ..DockerMount::default()
    }
}
