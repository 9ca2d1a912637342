//! The endpoints of the `kubernetes` service: the API servers that are alive.
//!
//! Each server renews a lease in `kube-system` that carries its address. A server whose lease
//! has not moved for a while, by the observer's own clock, is dead: clocks need not agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ApiObject, Key, Kind, Object, Status, meta};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as CorePort, EndpointSubset, Endpoints,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use registry::window::{Filter, PageRequest};
use registry::{DeleteOptions, Operation};
use tokio::time::Instant;

use crate::bootstrap::itself;
use crate::server::{Server, now};
use crate::write::Asked;

const NAMESPACE: &str = "kube-system";
const IDENTITY: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// Where a lease says how its server is reached.
const ADDRESS: &str = "kprov.io/advertise-address";
/// A server that missed as many renewals counts as dead.
const MISSED_MAX: u32 = 3;
/// A round that failed is repeated after this part of the period.
const RETRIES_PER_PERIOD: u32 = 10;
/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// What an observer knows of another server.
struct Seen {
    renewed: String,
    at: Instant,
}

/// Renews our lease and keeps the endpoints right until the server stops.
pub(crate) async fn keep(server: Arc<Server>) {
    let mut seen = BTreeMap::new();
    let mut stopping = server.stopping.subscribe();
    loop {
        let period = server.config.masters_renewal;
        let result = {
            let _round = server.masters.lock().await;
            // Who is leaving must not come back.
            if *stopping.borrow() {
                return;
            }
            round(&server, &mut seen).await
        };
        let pause = match result {
            Ok(()) => period,
            Err(status) => {
                tracing::warn!(
                    message = status.message,
                    "the API servers' endpoints were not kept"
                );
                period / RETRIES_PER_PERIOD
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Takes this server, which is stopping, out of the endpoints.
pub(crate) async fn leave(server: &Server) {
    let leaving = async {
        let _round = server.masters.lock().await;
        let key = Key::new(Kind::Lease, NAMESPACE, &lease_name(server));
        let options = DeleteOptions::default();
        write(server, &Operation::Delete { key, options }).await?;
        server.hub.barrier().await?;
        let address = server.config.advertise_address.to_string();
        let mut addresses = advertised(server);
        addresses.retain(|_, a| *a != address);
        reconcile(server, &addresses.into_values().collect()).await
    };
    match tokio::time::timeout(LEAVE_MAX, leaving).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => {
            tracing::warn!(message = status.message, "the server stays in the endpoints");
        }
        Err(_) => tracing::warn!("the server stays in the endpoints: no answer in time"),
    }
}

fn lease_name(server: &Server) -> String {
    let identity = format!("{}:{}", server.config.advertise_address, server.advertised_port);
    format!("apiserver-{}", api::hash::letters(api::hash::fnv64(identity.as_bytes()), 13))
}

async fn write(server: &Server, operation: &Operation) -> Result<Object, Status> {
    let caller = itself();
    let asked = Asked { server, caller: &caller, dry_run: false };
    asked.carry_out(operation).await.map(|written| written.object)
}

async fn round(server: &Server, seen: &mut BTreeMap<String, Seen>) -> Result<(), Status> {
    renew(server).await?;
    let now = Instant::now();
    let leases = leases(server);
    seen.retain(|name, _| leases.contains_key(name));
    let mut alive = BTreeSet::from([server.config.advertise_address.to_string()]);
    for (name, (address, renewed)) in leases {
        let known = seen.entry(name).or_insert_with(|| Seen { renewed: renewed.clone(), at: now });
        if known.renewed != renewed {
            *known = Seen { renewed, at: now };
        }
        let patience = server.config.masters_renewal * MISSED_MAX;
        if now.duration_since(known.at) < patience {
            alive.insert(address);
        }
    }
    reconcile(server, &alive).await
}

/// The address and the last renewal of every server that has a lease.
fn leases(server: &Server) -> BTreeMap<String, (String, String)> {
    let state = server.hub.read();
    let filter = Filter::namespace(NAMESPACE);
    let listing = state.window.list(Kind::Lease, &filter, &PageRequest::default());
    let mut found = BTreeMap::new();
    for entry in listing.iter().flat_map(|l| &l.entries) {
        let Ok(Object::Lease(lease)) = entry.object() else { continue };
        if meta::label(&lease.metadata, IDENTITY.0) != Some(IDENTITY.1) {
            continue;
        }
        let Some(address) = meta::annotation(&lease.metadata, ADDRESS) else { continue };
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.as_ref());
        let renewed = renewed.map(|t| t.0.to_string()).unwrap_or_default();
        found.insert(entry.name().to_owned(), (address.to_owned(), renewed));
    }
    found
}

fn advertised(server: &Server) -> BTreeMap<String, String> {
    leases(server).into_iter().map(|(name, (address, _))| (name, address)).collect()
}

async fn renew(server: &Server) -> Result<(), Status> {
    let lease_seconds = (server.config.masters_renewal * MISSED_MAX).as_secs().max(1);
    let name = lease_name(server);
    let key = Key::new(Kind::Lease, NAMESPACE, &name);
    let found = server.hub.read().window.get(&key).and_then(|e| e.object().ok());
    let time = Some(now().to_micro());
    if let Some(Object::Lease(found)) = found {
        let mut lease = found.as_ref().clone();
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.renew_time = time;
        let object = lease.into_object();
        write(server, &Operation::Update { key, object, subresource: None }).await?;
        return Ok(());
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some([(IDENTITY.0.to_owned(), IDENTITY.1.to_owned())].into()),
            annotations: Some(
                [(ADDRESS.to_owned(), server.config.advertise_address.to_string())].into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: i32::try_from(lease_seconds).ok(),
            acquire_time: time.clone(),
            renew_time: time,
            ..LeaseSpec::default()
        }),
    };
    write(server, &Operation::Create { object: lease.into_object() }).await.map(|_| ())
}

/// Makes the endpoints those addresses.
async fn reconcile(server: &Server, addresses: &BTreeSet<String>) -> Result<(), Status> {
    put(server, endpoints(server, addresses).into_object(), |found| match found {
        Object::Endpoints(e) => e.subsets.clone().map(|s| format!("{s:?}")),
        _ => None,
    })
    .await?;
    put(server, slice(server, addresses).into_object(), |found| match found {
        Object::EndpointSlice(s) => Some(format!("{:?}{:?}", s.endpoints, s.ports)),
        _ => None,
    })
    .await
}

/// Creates the object, or replaces it where it differs in what `essence` sees.
async fn put(
    server: &Server,
    mut wanted: Object,
    essence: impl Fn(&Object) -> Option<String>,
) -> Result<(), Status> {
    let key = wanted.key();
    let found = server.hub.read().window.get(&key).and_then(|e| e.object().ok());
    let operation = match found {
        Some(found) if essence(&found) == essence(&wanted) => return Ok(()),
        Some(found) => {
            // The revision makes servers that change it at the same time take turns.
            let revision = found.meta().resource_version.clone();
            wanted.meta_mut().resource_version = revision;
            Operation::Update { key, object: wanted, subresource: None }
        }
        None => Operation::Create { object: wanted },
    };
    write(server, &operation).await.map(|_| ())
}

fn metadata(extra: &[(&str, &str)]) -> ObjectMeta {
    let labels = extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ObjectMeta {
        name: Some("kubernetes".to_owned()),
        namespace: Some("default".to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn endpoints(server: &Server, addresses: &BTreeSet<String>) -> Endpoints {
    let addresses = addresses
        .iter()
        .map(|ip| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() })
        .collect();
    Endpoints {
        metadata: metadata(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(addresses),
            ports: Some(vec![CorePort {
                name: Some("https".to_owned()),
                port: i32::from(server.advertised_port),
                protocol: Some("TCP".to_owned()),
                ..CorePort::default()
            }]),
            ..EndpointSubset::default()
        }]),
    }
}

fn slice(server: &Server, addresses: &BTreeSet<String>) -> EndpointSlice {
    let endpoints = addresses
        .iter()
        .map(|ip| Endpoint {
            addresses: vec![ip.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        })
        .collect();
    let v6 = server.config.advertise_address.is_ipv6();
    EndpointSlice {
        metadata: metadata(&[("kubernetes.io/service-name", "kubernetes")]),
        address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints,
        ports: Some(vec![EndpointPort {
            name: Some("https".to_owned()),
            port: Some(i32::from(server.advertised_port)),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}
