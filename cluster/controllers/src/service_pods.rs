//! Which pods stand behind a service, at which addresses and ports.

use std::collections::BTreeSet;
use std::time::Duration;

use api::{Key, Object, Pod, Time, meta};
use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machine::{Cache, Delta, Index};

use crate::labels::{Labelled, Labels};
use crate::pods;
use crate::selectors::{Selecting, Selectors};

/// A service with no more endpoints than this is written at every change.
const FEW: usize = 20;
/// How long the endpoints of a service rest after a change, for each of them, and at most.
const REST_EACH: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_secs(1);

/// How long the `count` endpoints of a service still rest that were last written at `written`.
///
/// To work out and to send the endpoints of a service takes time in proportion to their number,
/// and when a service of a thousand pods starts, each pod changes them. Changes that come while
/// they rest are written together: the first one at once, and never later than a second.
pub(crate) fn rest(written: Option<Time>, count: usize, now: Time) -> Option<Duration> {
    if count <= FEW {
        return None;
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let until = written? + REST_EACH.saturating_mul(count).min(REST_MAX);
    Some(until.since(now)).filter(|left| !left.is_zero())
}

/// The labels of the pods behind a service whose endpoints are derived from pods; `None` when
/// they are somebody else's business.
pub(crate) fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|labels| !labels.is_empty())
}

impl Selecting for Service {
    fn required_labels(&self) -> Option<&Labels> {
        selector(self)
    }
}

/// The indexes by which services and pods find each other.
pub(crate) fn indexes() -> Vec<Box<dyn Index>> {
    vec![Box::<Labelled<Pod>>::default(), Box::<Selectors<Service>>::default()]
}

/// Whether the service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether clients want pods that are not ready, too.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// The ports of a service.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// Whether a pod belongs among endpoints: it lives, has an address, and is not being deleted
/// unless `terminating` pods are wanted.
pub(crate) fn is_endpoint(pod: &Pod, terminating: bool) -> bool {
    !pods::is_terminal(pod)
        && addresses(pod).next().is_some()
        && (terminating || !meta::is_terminating(&pod.metadata))
}

/// All addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let listed = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten();
    let first = status.and_then(|s| s.pod_ip.as_deref());
    let more = listed.map(|ip| ip.ip.as_str()).filter(move |ip| Some(*ip) != first);
    first.into_iter().chain(more).filter(|ip| !ip.is_empty())
}

/// The pod's first address of a family (`IPv4` or `IPv6`).
pub(crate) fn address_of<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    addresses(pod).find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// The address families of a service, the first one first.
pub(crate) fn families(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if let Some(families) = spec.ip_families.as_ref().filter(|f| !f.is_empty()) {
        return families.clone();
    }
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    vec![if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned()]
}

/// The protocol of a service port.
pub(crate) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The number of the pod's port that a service port leads to; `None` when the pod has no port of
/// that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let fits = |p: &&ContainerPort| {
                p.name.as_ref() == Some(name)
                    && p.protocol.as_deref().unwrap_or("TCP") == protocol(port)
            };
            let mut all = spec.containers.iter().chain(sidecars);
            all.find_map(|c| c.ports.iter().flatten().find(fits)).map(|p| p.container_port)
        }
    }
}

/// The reference by which an endpoint names its pod.
pub(crate) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The host name that a headless service gives the pod in the cluster's DNS.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then_some(hostname)
}

/// The pods that a service selects, in the order of their names.
pub(crate) fn selected<'a>(
    cache: &'a Cache,
    service: &Service,
    selector: &Labels,
) -> impl Iterator<Item = &'a Pod> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    Labelled::find(cache, namespace, selector).into_iter()
}

/// The services that select a pod of that namespace and these labels, as keys.
pub(crate) fn services_of_labels(
    cache: &Cache,
    namespace: &str,
    labels: Option<&Labels>,
) -> impl Iterator<Item = Key> {
    let found = Selectors::<Service>::find(cache, namespace, labels);
    found.into_iter().map(|key| Key::clone(key))
}

/// The services whose endpoints a change of a pod may change, as keys.
pub(crate) fn services_of_pod(cache: &Cache, delta: &Delta) -> Vec<Key> {
    if !Selectors::<Service>::are_in(cache, &delta.key.namespace) {
        return Vec::new();
    }
    // A pod that is not among endpoints, neither before nor now, is no service's business.
    fn state(object: Option<&Object>) -> Option<&Pod> {
        object.and_then(Object::get::<Pod>).filter(|pod| is_endpoint(pod, true))
    }
    let (old, new) = (state(delta.old.as_ref()), state(delta.new.as_ref()));
    let same = match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => {
            relevant(old) == relevant(new) && addresses(old).eq(addresses(new))
        }
        _ => false,
    };
    if same {
        return Vec::new();
    }
    let labels: BTreeSet<Option<&Labels>> =
        [old, new].into_iter().flatten().map(|p| p.metadata.labels.as_ref()).collect();
    let of_labels = |labels| services_of_labels(cache, &delta.key.namespace, labels);
    let keys: BTreeSet<Key> = labels.into_iter().flat_map(of_labels).collect();
    keys.into_iter().collect()
}

/// What endpoints show of a pod, but for its addresses.
fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    (
        (pod.metadata.labels.as_ref(), pod.metadata.uid.as_ref()),
        (meta::is_terminating(&pod.metadata), pods::is_terminal(pod), pods::is_ready(pod)),
        pod.node(),
        spec.map(|s| (s.hostname.as_ref(), s.subdomain.as_ref())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_services_rest_after_a_change() {
        let written = Some(Time::from_secs(10));
        let after_ms = |ms: u64| Time::from_secs(10) + Duration::from_millis(ms);
        assert_eq!(rest(written, FEW, after_ms(0)), None);
        assert_eq!(rest(written, 100, after_ms(40)), Some(Duration::from_millis(60)));
        assert_eq!(rest(written, 100, after_ms(100)), None);
        assert_eq!(rest(written, 5_000, after_ms(0)), Some(REST_MAX));
        assert_eq!(rest(None, 5_000, after_ms(0)), None);
    }
}
