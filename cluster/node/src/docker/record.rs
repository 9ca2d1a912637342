//! What Docker says of a container, as the kubelet sees it.

use std::collections::HashMap;
use std::path::Path;

use api::Time;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, MountPoint};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures::StreamExt;
use futures::stream;
use kubelet::naming;
use kubelet::runtime::{ContainerRecord, ContainerState};
use kubelet::{RuntimeError, RuntimeReply};

use super::{PodBridge, Runtime, error};

/// Containers inspected at a time.
const INSPECTIONS: usize = 16;
/// Last words are cut here, as in Kubernetes.
const LAST_WORDS_MAX: usize = 4096;

impl Runtime {
    /// Every container of ours and every pod folder.
    pub(super) async fn list(&self) -> Result<RuntimeReply, RuntimeError> {
        let filters = HashMap::from([("label", vec![naming::OWNER])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found =
            self.docker.list_containers(Some(options)).await.map_err(|e| error::plain(&e))?;
        let ids: Vec<String> = found.into_iter().filter_map(|c| c.id).collect();
        let mut inspected =
            stream::iter(ids).map(|id| async move { self.record(&id).await }).buffered(INSPECTIONS);
        let mut containers = Vec::new();
        while let Some(record) = inspected.next().await {
            containers.extend(record?);
        }
        Ok(RuntimeReply::Listing { containers, folders: folders(&self.root_dir) })
    }

    /// One container; `None` when it is gone.
    pub(super) async fn record(&self, id: &str) -> Result<Option<ContainerRecord>, RuntimeError> {
        let options = InspectContainerOptions::default();
        match self.docker.inspect_container(id, Some(options)).await {
            Ok(container) => Ok(Some(record(container))),
            Err(error) if error::code(&error) == Some(404) => Ok(None),
            Err(error) => Err(error::plain(&error)),
        }
    }
}

fn folders(root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join("pods")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn time(text: Option<&str>) -> Time {
    // Docker writes the year 1 for "never".
    text.and_then(|t| t.parse().ok()).map(Time::from_timestamp).unwrap_or_default()
}

fn record(container: ContainerInspectResponse) -> ContainerRecord {
    let state = container.state.unwrap_or_default();
    let config = container.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let status = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING,
        ) => ContainerState::Running,
        _ => ContainerState::Exited,
    };
    let exited = status == ContainerState::Exited;
    let last_words = labels
        .get(naming::TERMINATION_MESSAGE_PATH)
        .filter(|_| exited)
        .and_then(|path| last_words(container.mounts.as_deref().unwrap_or_default(), path));
    let message = last_words.or_else(|| state.error.filter(|_| exited)).unwrap_or_default();
    let networks = container.network_settings.and_then(|n| n.networks).unwrap_or_default();
    // A pod is attached to one of them, and stays there when the choice changes.
    let endpoint = PodBridge::ALL.into_iter().find_map(|bridge| networks.get(bridge.network()));
    let ip = endpoint.and_then(|e| e.ip_address.clone()).unwrap_or_default();
    ContainerRecord {
        id: container.id.unwrap_or_default(),
        labels: labels.into_iter().collect(),
        image: config.image.unwrap_or_default().into(),
        image_id: container.image.map(|id| format!("docker://{id}")).unwrap_or_default().into(),
        state: status,
        created_at: time(container.created.as_deref()),
        started_at: time(state.started_at.as_deref()),
        finished_at: time(state.finished_at.as_deref()),
        exit_code: state.exit_code.and_then(|c| i32::try_from(c).ok()).unwrap_or(0),
        oom_killed: state.oom_killed == Some(true),
        message,
        ip,
    }
}

fn last_words(mounts: &[MountPoint], path: &str) -> Option<String> {
    let mount = mounts.iter().find(|m| m.destination.as_deref() == Some(path))?;
    let bytes = std::fs::read(mount.source.as_deref()?).ok()?;
    let from = bytes.len().saturating_sub(LAST_WORDS_MAX);
    let text = String::from_utf8_lossy(&bytes[from..]).into_owned();
    Some(text).filter(|t| !t.is_empty())
}
