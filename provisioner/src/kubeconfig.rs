//! The operator's kubeconfig: complete in itself, one context a master.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use thiserror::Error;

use crate::{
    inventory::{Inventory, Role},
    pki::{LeafKind, Pki},
    render::{RenderError, Templates},
    secret::Secret,
};

/// Why there is no kubeconfig.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The certificates lack the operator's.
    #[error("there is no certificate of the operator")]
    NoCertificate,
    /// The template failed.
    #[error("cannot render the kubeconfig")]
    Render(#[from] RenderError),
}

#[derive(Serialize)]
struct Values<'a> {
    cluster: Named<'a>,
    entries: Vec<Entry>,
    user: String,
    ca_data: String,
    certificate_data: String,
    key_data: String,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    server: String,
}

/// Makes the kubeconfig of the operator, who may do everything.
///
/// The current context has the cluster's name and reaches the external load balancer, or the first
/// master; where there are several, a further context `CLUSTER-HOST` reaches each.
///
/// # Errors
/// When the certificate is missing or the template cannot be filled in.
pub fn admin(
    inventory: &Inventory,
    pki: &Pki,
    templates: &Templates,
) -> Result<Secret, KubeconfigError> {
    let admin = pki.leaf(LeafKind::Admin, "").ok_or(KubeconfigError::NoCertificate)?;
    let name = &inventory.cluster.name;
    let masters: Vec<_> = inventory.with_role(Role::Master).collect();
    let mut entries: Vec<Entry> = masters
        .first()
        .map(|_| Entry { name: name.clone(), server: inventory.api_for_people() })
        .into_iter()
        .collect();
    if masters.len() > 1 {
        entries.extend(
            masters
                .iter()
                .map(|m| Entry { name: format!("{name}-{}", m.name), server: m.api_server() }),
        );
    }
    let values = Values {
        cluster: Named { name },
        entries,
        user: format!("{name}-admin"),
        ca_data: encode(&pki.cluster_trust),
        certificate_data: encode(&admin.cert),
        key_data: encode(admin.key.expose()),
    };
    Ok(Secret::new(templates.render("admin.kubeconfig", &values)?))
}

/// Encodes text as kubeconfigs embed it.
pub(crate) fn encode(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
