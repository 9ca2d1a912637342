//! From the inventory, the certificates, the templates and the artifacts to what should be true
//! of each host.
//!
//! Pure: the same input gives the same state, byte for byte. Each unit names exactly the files
//! whose change needs its restart, and each host gets only the keys that its roles need.

mod builder;
mod etcd;
mod master;
mod node;
mod preparation;

#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::{
    artifacts::Artifacts,
    inventory::{Inventory, Role},
    pki::Pki,
    render::{RenderError, Templates},
    state::HostState,
};
use builder::Builder;

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
    templates: &Templates,
    artifacts: &Artifacts,
) -> Result<Vec<HostState>, ComposeError> {
    inventory
        .hosts
        .iter()
        .map(|host| {
            let mut builder = Builder::new(inventory, pki, templates, artifacts, host);
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
        })
        .collect()
}
