//! The service `kube-system/kube-dns`, by which pods reach the DNS server of their node.
//!
//! Each node runs a server at its own address (`hyperkube cluster-dns`). The service has the address
//! that kubelets tell pods, an endpoint a node, and keeps its traffic local, so that kube-proxy turns a
//! pod's questions to the node that the pod is on. A service of that name that somebody else made, or
//! took over by a selector, is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use api::{ApiObject, Key, Kind, Object, Request, Time, meta};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machine::{Cache, Delta, Plan, Reconciler};

use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME};
use crate::ownership;
use crate::service_account::is_active;

/// Where each node's server listens. A port that needs no privilege, and that a resolver of the host's
/// own does not take.
pub const PORT: u16 = 10053;
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const MANAGER: &str = "cluster-dns-controller.kprov.io";
/// Says whose the service is.
const SERVICE_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Kubernetes' default of `--max-endpoints-per-slice`: what is sent to each node when one changes.
const ENDPOINTS_MAX: usize = 100;

/// What becomes of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ClusterDns {
    /// It is there, at this address.
    At(Ipv4Addr),
    /// What this controller made is removed.
    Removed,
}

impl Reconciler for ClusterDns {
    fn name(&self) -> &'static str {
        "cluster-dns-controller"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Namespace, Kind::Service, Kind::EndpointSlice, Kind::Node]
    }

    fn keys_for(&self, _cache: &Cache, delta: &Delta) -> Vec<Key> {
        let concerned = match delta.key.kind {
            Kind::Namespace => &*delta.key.name == NAMESPACE,
            Kind::Service => &*delta.key.namespace == NAMESPACE && &*delta.key.name == NAME,
            Kind::EndpointSlice => {
                let mut states = [&delta.old, &delta.new].into_iter().flatten();
                &*delta.key.namespace == NAMESPACE && states.any(|s| is_managed(s.meta()))
            }
            // A node reports at any time; only its address matters here.
            _ => node_address(&delta.old) != node_address(&delta.new),
        };
        if concerned { vec![Key::new(Kind::Service, NAMESPACE, NAME)] } else { Vec::new() }
    }

    fn reconcile(&self, cache: &Cache, _key: &Key, _now: Time) -> Plan {
        let mut plan = Plan::nothing();
        if !is_active(cache, &Key::cluster(Kind::Namespace, NAMESPACE)) {
            return plan;
        }
        let slices: Vec<&EndpointSlice> = cache
            .list_in::<EndpointSlice>(NAMESPACE)
            .filter(|slice| is_managed(&slice.metadata))
            .filter(|slice| !meta::is_terminating(&slice.metadata))
            .collect();
        match (self, cache.get::<Service>(NAMESPACE, NAME)) {
            (Self::At(address), None) => {
                plan.request(Request::Create(service(*address).into_object()));
            }
            (Self::At(address), Some(current)) if is_ours(current) => {
                if meta::is_terminating(&current.metadata) {
                    return plan;
                }
                if has_address(current, *address) {
                    keep(current, service(*address), &mut plan);
                    fill(cache, current, slices, &mut plan);
                } else {
                    // An address never changes.
                    plan.request(ownership::delete(current));
                }
            }
            (Self::Removed, Some(current)) if is_ours(current) => {
                if !meta::is_terminating(&current.metadata) {
                    plan.request(ownership::delete(current));
                }
            }
            _ => slices.into_iter().for_each(|slice| plan.request(ownership::delete(slice))),
        }
        plan
    }
}

fn is_managed(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    meta::label(meta, MANAGED_BY) == Some(MANAGER)
}

/// Whoever gives it a selector has servers of their own.
fn is_ours(service: &Service) -> bool {
    let selects = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    meta::label(&service.metadata, SERVICE_MANAGED_BY) == Some(MANAGER)
        && selects.is_none_or(BTreeMap::is_empty)
}

fn has_address(service: &Service, address: Ipv4Addr) -> bool {
    let given = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    given.and_then(|ip| ip.parse().ok()) == Some(address)
}

/// The first IPv4 address of a node within the cluster.
fn address_of(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).next()
}

fn node_address(object: &Option<Object>) -> Option<Ipv4Addr> {
    object.as_ref().and_then(Object::get::<Node>).and_then(address_of)
}

/// As other clusters name it: tools look for the service by these names.
fn service(address: Ipv4Addr) -> Service {
    let labels = [
        ("k8s-app", "kube-dns"),
        ("kubernetes.io/cluster-service", "true"),
        ("kubernetes.io/name", "KubeDNS"),
        (SERVICE_MANAGED_BY, MANAGER),
    ];
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: 53,
        target_port: Some(IntOrString::Int(PORT.into())),
        ..ServicePort::default()
    };
    let mut service = Service {
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.to_string()),
            internal_traffic_policy: Some("Local".to_owned()),
            ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    service.metadata.namespace = Some(NAMESPACE.to_owned());
    service.metadata.name = Some(NAME.to_owned());
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    service.metadata.labels = Some(labels.map(owned).into());
    service
}

/// Sets right what is wrong about the service, and leaves the rest as people want it.
fn keep(current: &Service, wanted: Service, plan: &mut Plan) {
    let mut kept = current.clone();
    kept.metadata
        .labels
        .get_or_insert_default()
        .extend(wanted.metadata.labels.into_iter().flatten());
    if let (Some(spec), Some(wanted)) = (&mut kept.spec, wanted.spec) {
        spec.internal_traffic_policy = wanted.internal_traffic_policy;
        spec.ports = wanted.ports;
    }
    if kept != *current {
        plan.request(Request::Update { object: kept.into_object(), subresource: None });
    }
}

/// An endpoint for each node. One that is not ready answers its own pods as well, and nobody else asks
/// it: so no slice changes when a node comes and goes.
fn fill(cache: &Cache, service: &Service, slices: Vec<&EndpointSlice>, plan: &mut Plan) {
    let mut missing: BTreeMap<String, Endpoint> = cache
        .list::<Node>()
        .filter(|node| !meta::is_terminating(&node.metadata))
        .filter_map(|node| {
            Some((node.metadata.name.clone()?, endpoint(node, address_of(node)?.into())))
        })
        .collect();
    let mut parts: Vec<(EndpointSlice, &EndpointSlice)> = Vec::new();
    for slice in slices {
        let mut part = slice.clone();
        // Endpoints stay where they are: each change of a slice is sent to every node.
        let wanted = |known: Endpoint| missing.remove(known.node_name.as_deref()?);
        part.endpoints = part.endpoints.into_iter().filter_map(wanted).collect();
        decorate(&mut part, service);
        parts.push((part, slice));
    }
    let mut missing = missing.into_values().peekable();
    for (part, current) in &mut parts {
        let room = ENDPOINTS_MAX.saturating_sub(part.endpoints.len());
        part.endpoints.extend(missing.by_ref().take(room));
        if part.endpoints.is_empty() {
            plan.request(ownership::delete(*current));
        } else if part != *current {
            plan.request(Request::Update { object: part.clone().into_object(), subresource: None });
        }
    }
    let mut taken: BTreeSet<String> =
        parts.iter().filter_map(|(part, _)| part.metadata.name.clone()).collect();
    while missing.peek().is_some() {
        let mut slice = EndpointSlice::default();
        slice.endpoints.extend(missing.by_ref().take(ENDPOINTS_MAX));
        // There are no more names taken than slices.
        let free = (0..=taken.len()).map(|n| format!("{NAME}-{n}")).find(|n| !taken.contains(n));
        slice.metadata.name.clone_from(&free);
        taken.extend(free);
        slice.metadata.namespace = Some(NAMESPACE.to_owned());
        decorate(&mut slice, service);
        plan.request(Request::Create(slice.into_object()));
    }
}

fn endpoint(node: &Node, address: IpAddr) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        node_name: node.metadata.name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Node".to_owned()),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn decorate(slice: &mut EndpointSlice, service: &Service) {
    let labels = [(SERVICE_NAME, NAME), (MANAGED_BY, MANAGER)];
    let owned = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    slice.metadata.labels.get_or_insert_default().extend(owned);
    slice.metadata.owner_references = Some(vec![meta::controller_reference(service)]);
    slice.address_type = "IPv4".to_owned();
    let port = |(name, protocol): (&str, &str)| EndpointPort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: Some(PORT.into()),
        ..EndpointPort::default()
    };
    slice.ports = Some([("dns", "UDP"), ("dns-tcp", "TCP")].map(port).into());
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture::{Fixture, creates, summary};

    const SERVICE: &str = "services/kube-system/kube-dns";

    fn key() -> Key {
        Key::new(Kind::Service, NAMESPACE, NAME)
    }

    fn node(name: &str, address: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "Hostname", "address": name},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "InternalIP", "address": address}]}})
    }

    fn fixture(dns: ClusterDns) -> Fixture<ClusterDns> {
        let mut fixture = Fixture::new(dns);
        let metadata = json!({"name": NAMESPACE});
        fixture.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        fixture.put(node("node-1", "10.0.0.1"));
        fixture
    }

    fn at() -> ClusterDns {
        ClusterDns::At([10, 254, 0, 10].into())
    }

    fn addresses(fixture: &Fixture<ClusterDns>) -> Vec<Vec<String>> {
        let slices = fixture.cache.list_in::<EndpointSlice>(NAMESPACE);
        let of = |s: &EndpointSlice| s.endpoints.iter().flat_map(|e| e.addresses.clone()).collect();
        slices.map(of).collect()
    }

    #[test]
    fn the_service_has_an_endpoint_a_node() {
        let mut fixture = fixture(at());
        let slice = "create endpointslices/kube-system/kube-dns-0";
        assert_eq!(fixture.settle(&key()), [&format!("create {SERVICE}"), slice]);
        let service: &Service = fixture.cache.get(NAMESPACE, NAME).unwrap();
        assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.254.0.10"));
        // A report changes nothing, a new node does.
        let mut report = node("node-1", "10.0.0.1");
        report["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
        assert_eq!(fixture.put(report), []);
        assert_eq!(fixture.put(node("node-2", "10.0.0.2")), [key()]);
        fixture.settle(&key());
        fixture.put(node("node-1", "10.0.0.9"));
        fixture.settle(&key());
        assert_eq!(addresses(&fixture), [["10.0.0.9", "10.0.0.2"]]);
        fixture.remove(&Key::cluster(Kind::Node, "node-1"));
        fixture.remove(&Key::cluster(Kind::Node, "node-2"));
        fixture.settle(&key());
        assert_eq!(addresses(&fixture), Vec::<Vec<String>>::new());
    }

    #[test]
    fn slices_are_of_a_size_that_can_be_sent_to_every_node() {
        let mut fixture = fixture(at());
        for n in 0..249 {
            fixture.put(node(&format!("n-{n:03}"), &format!("10.1.0.{n}")));
        }
        fixture.settle(&key());
        let sizes = |f: &Fixture<ClusterDns>| addresses(f).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&fixture), [100, 100, 50]);
        // What goes leaves the other slices as they are, and what comes takes its place.
        fixture.remove(&Key::cluster(Kind::Node, "n-005"));
        assert_eq!(fixture.settle(&key()).len(), 1);
        fixture.put(node("node-2", "10.0.0.2"));
        assert_eq!(fixture.settle(&key()).len(), 1);
        assert_eq!(sizes(&fixture), [100, 100, 50]);
    }

    #[test]
    fn what_somebody_spoils_is_set_right() {
        let mut fixture = fixture(at());
        fixture.settle(&key());
        fixture.store.edit(&key(), None, |v| v["spec"]["ports"] = json!([])).unwrap();
        fixture.put(node("node-1", "10.0.0.1"));
        assert_eq!(summary(&fixture.reconcile(&key())), [format!("update {SERVICE}")]);
        fixture.settle(&key());
        // Another address is another service.
        fixture.store.edit(&key(), None, |v| v["spec"]["clusterIP"] = "10.1.1.1".into()).unwrap();
        fixture.put(node("node-1", "10.0.0.1"));
        assert_eq!(
            fixture.settle(&key())[..2],
            ["delete", "create"].map(|v| format!("{v} {SERVICE}"))
        );
    }

    #[test]
    fn a_service_of_others_is_left_alone() {
        let others = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"clusterIP": "10.254.0.10", "selector": {"k8s-app": "kube-dns"}}});
        for dns in [at(), ClusterDns::Removed] {
            let mut fixture = fixture(dns);
            fixture.put(others.clone());
            assert_eq!(fixture.settle(&key()), Vec::<String>::new());
        }
        // Taken over by an addon that is applied onto it.
        let mut fixture = fixture(at());
        fixture.settle(&key());
        let selector = json!({"k8s-app": "kube-dns"});
        fixture.store.edit(&key(), None, |v| v["spec"]["selector"] = selector).unwrap();
        fixture.put(node("node-2", "10.0.0.2"));
        let slice = "delete endpointslices/kube-system/kube-dns-0";
        assert_eq!(fixture.settle(&key()), [slice]);
    }

    #[test]
    fn switched_off_it_takes_its_own_away() {
        let mut fixture = fixture(at());
        fixture.settle(&key());
        let objects: Vec<Object> = fixture.store.objects.values().cloned().collect();
        let mut off = Fixture::new(ClusterDns::Removed);
        for object in objects {
            off.put(api::codec::to_value(&object));
        }
        assert_eq!(off.settle(&key())[0], format!("delete {SERVICE}"));
        assert_eq!(creates(&off.reconcile(&key())), Vec::<String>::new());
    }
}
