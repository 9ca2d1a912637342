//! Approves the certificates that kubelets ask for.
//!
//! Client certificates: the first one for who holds a bootstrap token, unless people want to decide
//! that, later ones for the node itself. Serving certificates: for a node's own name and the addresses it is registered with,
//! which Kubernetes leaves to people; without them nobody could talk to kubelets safely.
//!
//! Source: kubernetes 1.33, `pkg/controller/certificates/approver` and
//! `pkg/apis/certificates/helpers.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::{ApiObject, Key, Kind, Object, Request, Subresource, Time};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::api::core::v1::Node;
use machine::{Cache, Delta, Index, Plan, Reconciler};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::csr_signer::{has_condition, is_issued};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const BOOTSTRAPPERS: &str = "system:bootstrappers";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Approves kubelets' requests.
pub struct CsrApprover {
    nodes_by_hand: bool,
}

impl CsrApprover {
    /// Makes the approver; whether the first request of each node is left to people.
    pub const fn new(nodes_by_hand: bool) -> Self {
        Self { nodes_by_hand }
    }
}

impl Reconciler for CsrApprover {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::CertificateSigningRequest, Kind::Node]
    }

    fn indexes(&self) -> Vec<Box<dyn Index>> {
        vec![Box::<Pending>::default()]
    }

    fn keys_for(&self, cache: &Cache, delta: &Delta) -> Vec<Key> {
        if delta.key.kind == Kind::CertificateSigningRequest {
            return vec![delta.key.clone()];
        }
        // A node that registers an address may have asked for its certificate before.
        let known =
            |object: &Option<Object>| object.as_ref().and_then(Object::get::<Node>).map(names_of);
        if known(&delta.old) == known(&delta.new) {
            return Vec::new();
        }
        let user = format!("{NODE_PREFIX}{}", delta.key.name);
        let Pending(pending) = cache.index();
        pending.get(&user).into_iter().flatten().map(|key| Key::clone(key)).collect()
    }

    fn reconcile(&self, cache: &Cache, key: &Key, now: Time) -> Plan {
        let mut plan = Plan::nothing();
        let csr = cache.object(key).and_then(Object::get::<CertificateSigningRequest>);
        let Some(csr) = csr.filter(|csr| is_pending(csr)) else { return plan };
        let Some(message) = self.approval(cache, csr) else { return plan };
        let mut approved = csr.clone();
        let conditions = approved.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(now.to_meta()),
            last_transition_time: Some(now.to_meta()),
        });
        plan.request(Request::Update {
            object: approved.into_object(),
            subresource: Some(Subresource::Approval),
        });
        plan
    }
}

fn is_pending(csr: &CertificateSigningRequest) -> bool {
    !has_condition(csr, "Approved") && !has_condition(csr, "Denied") && !is_issued(csr)
}

/// The requests that wait, by who made them.
#[derive(Clone, Debug, Default)]
struct Pending(BTreeMap<String, BTreeSet<Arc<Key>>>);

impl Index for Pending {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::CertificateSigningRequest]
    }

    fn update(&mut self, key: &Arc<Key>, old: Option<&Object>, new: Option<&Object>) {
        let user = |object: Option<&Object>| {
            let csr = object?.get::<CertificateSigningRequest>().filter(|csr| is_pending(csr))?;
            csr.spec.username.clone()
        };
        if let Some(old) = user(old)
            && let Some(keys) = self.0.get_mut(&old)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.0.remove(&old);
            }
        }
        if let Some(new) = user(new) {
            self.0.entry(new).or_default().insert(key.clone());
        }
    }
}

impl CsrApprover {
    /// Why the request is approved; `None` leaves it to people.
    fn approval(&self, cache: &Cache, csr: &CertificateSigningRequest) -> Option<&'static str> {
        let spec = &csr.spec;
        let asked = Asked::parse(&spec.request.0)?;
        let node = asked.common_name.strip_prefix(NODE_PREFIX).filter(|n| !n.is_empty())?;
        if asked.organizations != [NODES] {
            return None;
        }
        let in_group = |name: &str| spec.groups.iter().flatten().any(|g| g == name);
        let is_itself = in_group(NODES) && spec.username.as_ref() == Some(&asked.common_name);
        let usages: BTreeSet<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
        match spec.signer_name.as_str() {
            CLIENT_SIGNER if asked.has_names || !usages_are(&usages, "client auth") => None,
            CLIENT_SIGNER if is_itself => {
                Some("Auto approving self kubelet client certificate after SubjectAccessReview.")
            }
            CLIENT_SIGNER if in_group(BOOTSTRAPPERS) && !self.nodes_by_hand => {
                Some("Auto approving kubelet client certificate after SubjectAccessReview.")
            }
            SERVING_SIGNER if is_itself && usages_are(&usages, "server auth") => {
                let known = names_of(cache.get::<Node>("", node)?);
                let wanted = asked.names.as_ref().filter(|names| !names.is_empty())?;
                wanted.is_subset(&known).then_some(
                    "Auto approving kubelet serving certificate for the node's registered names.",
                )
            }
            _ => None,
        }
    }
}

/// Signing and the purpose; enciphering keys only RSA needs.
pub(crate) fn usages_are(usages: &BTreeSet<&str>, purpose: &str) -> bool {
    let mut rest = usages.clone();
    rest.remove("key encipherment");
    rest == BTreeSet::from(["digital signature", purpose])
}

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Dns(String),
    Ip(IpAddr),
}

/// The names and addresses of a registered node.
fn names_of(node: &Node) -> BTreeSet<Name> {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    addresses
        .map(|a| match a.address.parse() {
            Ok(ip) => Name::Ip(ip),
            Err(_) => Name::Dns(a.address.clone()),
        })
        .chain(node.metadata.name.clone().map(Name::Dns))
        .collect()
}

/// What a PKCS#10 request asks for.
pub(crate) struct Asked {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    /// Whether it asks for any alternative name.
    has_names: bool,
    /// Whether alternative names are names of hosts, addresses, those of mailboxes, and URIs.
    pub(crate) has: [bool; 4],
    /// The alternative names; `None` when some are neither names of hosts nor addresses.
    names: Option<BTreeSet<Name>>,
}

impl Asked {
    /// Parses the PEM text; `None` when it is malformed or not signed by its own key.
    pub(crate) fn parse(pem: &[u8]) -> Option<Self> {
        let pem = pem::parse(pem).ok().filter(|p| p.tag() == "CERTIFICATE REQUEST")?;
        let (rest, request) = X509CertificationRequest::from_der(pem.contents()).ok()?;
        if !rest.is_empty() || request.verify_signature().is_err() {
            return None;
        }
        let subject = &request.certification_request_info.subject;
        let mut common_names = subject.iter_common_name().map(|a| a.as_str().ok());
        let common_name = common_names.next()??.to_owned();
        if common_names.next().is_some() {
            return None;
        }
        let organizations: Option<Vec<String>> =
            subject.iter_organization().map(|a| a.as_str().ok().map(str::to_owned)).collect();
        let mut names = Some(BTreeSet::new());
        let (mut has_names, mut has) = (false, [false; 4]);
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(alternatives) = extension else { continue };
            for name in &alternatives.general_names {
                has_names = true;
                match name {
                    GeneralName::DNSName(_) => has[0] = true,
                    GeneralName::IPAddress(_) => has[1] = true,
                    GeneralName::RFC822Name(_) => has[2] = true,
                    GeneralName::URI(_) => has[3] = true,
                    _ => {}
                }
                let name = match name {
                    GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
                    GeneralName::IPAddress(bytes) => ip_of(bytes).map(Name::Ip),
                    _ => None,
                };
                names = names.zip(name).map(|(mut names, name)| {
                    names.insert(name);
                    names
                });
            }
        }
        Some(Self { common_name, organizations: organizations?, has_names, has, names })
    }
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests;
