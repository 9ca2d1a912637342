//! Taking a lab away: what carries its labels, and nothing else.

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions,
};
use futures::future::try_join_all;

use super::{Host, LABEL_DIR, Lab, LabError, filters, find_network, list_containers};
use crate::dockerd::Dockerd;
use crate::options::LabOptions;

impl Lab {
    /// Removes the hosts, their volumes and their network; the outer Docker is left running.
    ///
    /// # Errors
    /// A Docker that refuses.
    pub async fn down(mut self) -> Result<(), LabError> {
        self.remove_on_drop = false;
        remove(&self.daemon.docker, &self.options).await
    }

    /// Removes a lab by its name, whether or not it is complete, and then stops the outer
    /// Docker if it is ours, has no other lab of this directory and is not to be kept.
    ///
    /// # Errors
    /// A Docker that refuses or does not leave.
    pub async fn remove(options: &LabOptions, keep_docker: bool) -> Result<(), LabError> {
        let Some(daemon) = Dockerd::find(options).await? else { return Ok(()) };
        remove(&daemon.docker, options).await?;
        if !keep_docker && others(&daemon.docker, options).await? == 0 {
            daemon.stop(options).await?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.remove_on_drop {
            return;
        }
        let (docker, options) = (self.daemon.docker.clone(), self.options.clone());
        // A runtime of its own: this one may be shutting down, and must not be blocked on.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(remove(&docker, &options)).map_err(std::io::Error::other)
        });
        match removing.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the lab was not removed"),
            Err(_) => tracing::error!("removing the lab panicked"),
        }
    }
}

/// Removes one host with its volumes.
pub(super) async fn remove_host(docker: &Docker, host: &Host) -> Result<(), LabError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let removed = docker.remove_container(&host.container, Some(options)).await;
    removed.map_err(|source| LabError::docker(format!("remove host {}", host.name), source))
}

pub(super) async fn remove(docker: &Docker, options: &LabOptions) -> Result<(), LabError> {
    let failed = |source| LabError::docker(format!("remove lab {}", options.name), source);
    let containers = list_containers(docker, options).await?;
    try_join_all(containers.iter().filter_map(|container| container.id.as_ref()).map(|id| {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        docker.remove_container(id, Some(options))
    }))
    .await
    .map_err(failed)?;
    let query = ListVolumesOptionsBuilder::new().filters(&filters(options)).build();
    let volumes = docker.list_volumes(Some(query)).await.map_err(failed)?;
    for volume in volumes.volumes.unwrap_or_default() {
        docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await.map_err(failed)?;
    }
    if let Some(id) = find_network(docker, options).await?.and_then(|network| network.id) {
        docker.remove_network(&id).await.map_err(failed)?;
    }
    Ok(())
}

/// How many hosts the labs of the same directory have.
async fn others(docker: &Docker, options: &LabOptions) -> Result<usize, LabError> {
    let label = format!("{LABEL_DIR}={}", options.dir.display());
    let wanted = std::collections::HashMap::from([("label", vec![label.as_str()])]);
    let query = ListContainersOptionsBuilder::new().all(true).filters(&wanted).build();
    let listed = docker.list_containers(Some(query)).await;
    let listed = listed.map_err(|source| LabError::docker("list labs".to_owned(), source))?;
    Ok(listed.len())
}
