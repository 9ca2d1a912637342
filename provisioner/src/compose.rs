//! From the inventory, the certificates, the templates and the artifacts to what should be true
//! of each host.
//!
//! Pure: the same input gives the same state, byte for byte. Each unit names exactly the files
//! whose change needs its restart, and each host gets only the keys that its roles need.

mod balancer;
mod builder;
mod etcd;
mod master;
mod node;
mod preparation;

#[cfg(test)]
pub(crate) mod tests;

use thiserror::Error;

use crate::{
    artifacts::Artifacts,
    etcd::births::Births,
    inventory::{Host, Inventory, Role},
    pki::{Pki, RotationStage},
    render::{RenderError, Templates},
    state::HostState,
};
use builder::Builder;
pub(crate) use builder::INPUTS;
pub(crate) use node::DOCKER_ON_FLANNEL;

/// Where every host keeps the stage of a rotation while it trusts two authorities.
pub const ROTATION_NOTE: &str = "/etc/kprov-rotation.json";

/// Why a host's state cannot be told.
#[derive(Debug, Error)]
pub enum ComposeError {
    /// A template failed.
    #[error("cannot render {path} of {host}")]
    Render {
        /// The host.
        host: String,
        /// The file on the host.
        path: String,
        /// Why.
        #[source]
        source: Box<RenderError>,
    },
    /// The certificates are of another inventory.
    #[error("there is no certificate {id}")]
    NoCertificate {
        /// Name of its files, without extension.
        id: String,
    },
}

/// Says what should be true of each host, sorted by host name.
///
/// # Errors
/// When a template fails, or `pki` is of another inventory.
pub fn desired(
    inventory: &Inventory,
    pki: &Pki,
    births: &Births,
    templates: &Templates,
    artifacts: &Artifacts,
) -> Result<Vec<HostState>, ComposeError> {
    let of = |host| desired_of(host, inventory, pki, births, templates, artifacts);
    inventory.hosts.iter().map(of).collect()
}

/// Says what should be true of one host of the inventory.
///
/// # Errors
/// When a template fails, or `pki` is of another inventory.
pub fn desired_of(
    host: &Host,
    inventory: &Inventory,
    pki: &Pki,
    births: &Births,
    templates: &Templates,
    artifacts: &Artifacts,
) -> Result<HostState, ComposeError> {
    let mut builder = Builder::new(inventory, pki, births, templates, artifacts, host);
    if let Some(rotation) = &pki.rotation
        && rotation.stage < RotationStage::Drop
    {
        builder.text(ROTATION_NOTE, rotation.to_json());
    }
    if host.has(Role::Etcd) {
        etcd::add(&mut builder)?;
    }
    if host.has(Role::Master) {
        master::add(&mut builder)?;
    }
    if host.has(Role::Node) {
        node::add(&mut builder)?;
    }
    preparation::add(&mut builder)?;
    Ok(builder.finish())
}
