//! Finds the runtime's container behind a pod's container: by what the kubelet knows of its
//! pods, and for pods that it does not know by the labels of the runtime's containers.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/kubelet_pods.go` (`validateContainerLogStatus`).

use std::sync::Arc;

use api::Pod;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use kubelet::naming;

use super::PodSource;
use super::answer::Refusal;
use super::route::Target;

/// The containers of the node's pods.
pub(crate) struct Containers {
    docker: Docker,
    pods: Arc<dyn PodSource>,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// The runtime's identifier.
    pub(crate) id: String,
    /// Whether the container has a terminal.
    pub(crate) tty: bool,
    /// Whether the container reads its standard input.
    pub(crate) open_stdin: bool,
}

/// The network of a pod.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The process that holds the pod's network namespace.
    pub(crate) pid: Option<i32>,
    /// The pod's address as the host sees it, when it has one.
    pub(crate) address: Option<String>,
}

impl Containers {
    /// Looks at the containers of a runtime.
    pub(crate) const fn new(docker: Docker, pods: Arc<dyn PodSource>) -> Self {
        Self { docker, pods }
    }

    /// The pods the kubelet knows.
    pub(crate) fn pods(&self) -> Vec<api::Object> {
        self.pods.pods()
    }

    /// Finds the container whose log is meant.
    pub(crate) async fn of_log(&self, target: &Target, previous: bool) -> Result<String, Refusal> {
        let Target { pod: pod_name, container, .. } = target;
        let Some(pod) = self.pod(target) else { return self.listed_log(target, previous).await };
        if !has_container(&pod, container) {
            return Err(no_container(target));
        }
        let status = status_of(&pod, container);
        match log_container(status, pod_name, container, previous) {
            Ok(id) => Ok(id),
            // The kubelet may know better than the status it last wrote.
            Err(message) => self.named(target, previous).ok_or(Refusal::bad_request(message)),
        }
    }

    /// Finds the container in which something is to be done.
    pub(crate) async fn running(&self, target: &Target) -> Result<Running, Refusal> {
        let known = match self.pod(target) {
            Some(pod) => self.named(target, false).or_else(|| {
                let state = status_of(&pod, &target.container)?.state.as_ref()?;
                state.running.as_ref()?;
                id_of(status_of(&pod, &target.container)?.container_id.as_deref())
            }),
            None => None,
        };
        let id = match known {
            Some(id) => id,
            None => {
                let listed = self.listed(target, None).await?;
                if listed.is_empty() {
                    return Err(Refusal::not_found("pod does not exist"));
                }
                newest(&listed, &target.container, 0).ok_or_else(|| no_running(target))?
            }
        };
        let found = self.inspect(&id).await?.ok_or_else(|| no_running(target))?;
        let state = found.state.as_ref();
        if state.and_then(|s| s.running) != Some(true) {
            return Err(no_running(target));
        }
        let config = found.config.as_ref();
        Ok(Running {
            id,
            tty: config.and_then(|c| c.tty).unwrap_or_default(),
            open_stdin: config.and_then(|c| c.open_stdin).unwrap_or_default(),
        })
    }

    /// Finds the network of a pod.
    pub(crate) async fn sandbox(&self, target: &Target) -> Result<Sandbox, Refusal> {
        let listed = self.listed(target, None).await?;
        if listed.is_empty() {
            return Err(Refusal::not_found("pod does not exist"));
        }
        let missing = || Refusal::internal(format!("pod not found ({:?})", pod_full_name(target)));
        let id = newest(&listed, naming::SANDBOX, 0).ok_or_else(missing)?;
        let found = self.inspect(&id).await?.ok_or_else(missing)?;
        let pid = found.state.as_ref().filter(|s| s.running == Some(true)).and_then(|s| s.pid);
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        Ok(Sandbox { pid, address: address(&found) })
    }

    /// Describes a container; `None` when there is none.
    pub(crate) async fn inspect(
        &self,
        id: &str,
    ) -> Result<Option<ContainerInspectResponse>, Refusal> {
        match self.docker.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(Refusal::internal(error)),
        }
    }

    /// Every running container that belongs to a pod.
    pub(crate) async fn all_running(&self) -> Result<Vec<ContainerSummary>, Error> {
        let filters = [("label".to_owned(), vec![naming::POD_UID.to_owned()])];
        let options = ListContainersOptions {
            filters: Some(filters.into()),
            ..ListContainersOptions::default()
        };
        self.docker.list_containers(Some(options)).await
    }

    fn pod(&self, target: &Target) -> Option<Arc<Pod>> {
        newest_pod(&self.pods.pods(), target)
    }

    fn named(&self, target: &Target, previous: bool) -> Option<String> {
        let Target { namespace, pod, uid, container } = target;
        self.pods.container_id(namespace, pod, uid.as_deref(), container, previous)
    }

    /// The log of a pod that the kubelet does not know.
    async fn listed_log(&self, target: &Target, previous: bool) -> Result<String, Refusal> {
        let listed = self.listed(target, None).await?;
        if listed.is_empty() {
            return Err(Refusal::not_found(format!("pod {:?} does not exist\n", target.pod)));
        }
        let newest_id =
            newest(&listed, &target.container, 0).ok_or_else(|| no_container(target))?;
        if previous {
            return newest(&listed, &target.container, 1)
                .ok_or_else(|| Refusal::bad_request(no_previous(&target.pod, &target.container)));
        }
        Ok(newest_id)
    }

    /// The pod's containers by their labels, newest first.
    async fn listed(
        &self,
        target: &Target,
        container: Option<&str>,
    ) -> Result<Vec<ContainerSummary>, Refusal> {
        let mut labels = vec![
            format!("{}={}", naming::POD_NAMESPACE, target.namespace),
            format!("{}={}", naming::POD_NAME, target.pod),
        ];
        labels.extend(target.uid.iter().map(|uid| format!("{}={uid}", naming::POD_UID)));
        labels.extend(container.map(|name| format!("{}={name}", naming::CONTAINER_NAME)));
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), labels)].into()),
            ..ListContainersOptions::default()
        };
        let found = self.docker.list_containers(Some(options)).await;
        let mut found = found.map_err(Refusal::internal)?;
        // A pod made anew under the same name has attempts of its own: the time comes first.
        let order = |c: &ContainerSummary| {
            let attempt = label(c, naming::RESTART_COUNT).parse::<u32>().unwrap_or_default();
            (c.created.unwrap_or_default(), attempt)
        };
        found.sort_by_key(|c| std::cmp::Reverse(order(c)));
        Ok(found)
    }
}

/// The pod of the target's name: of two the one made last, for the other one is on its way out.
fn newest_pod(pods: &[api::Object], target: &Target) -> Option<Arc<Pod>> {
    let of_name = pods.iter().filter(|object| {
        let meta = object.meta();
        meta.name.as_deref() == Some(&target.pod)
            && meta.namespace.as_deref() == Some(&target.namespace)
    });
    let made = |object: &&api::Object| object.meta().creation_timestamp.as_ref().map(|t| t.0);
    of_name.max_by_key(made)?.share::<Pod>()
}

/// A label of a container, empty when it has none of that name.
pub(crate) fn label<'a>(container: &'a ContainerSummary, key: &str) -> &'a str {
    container.labels.as_ref().and_then(|l| l.get(key)).map_or("", String::as_str)
}

fn newest(listed: &[ContainerSummary], name: &str, before: usize) -> Option<String> {
    let mut same = listed.iter().filter(|c| label(c, naming::CONTAINER_NAME) == name);
    same.nth(before)?.id.clone()
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    spec.containers.iter().chain(init).any(|c| c.name == name)
        || ephemeral.into_iter().any(|c| c.name == name)
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|s| s.name == name)
}

/// The identifier in `docker://ID`.
fn id_of(reference: Option<&str>) -> Option<String> {
    let reference = reference?;
    let id = reference.split_once("://").map_or(reference, |(_, id)| id);
    (!id.is_empty()).then(|| id.to_owned())
}

/// Which container's log a status points to, or why there is none.
fn log_container(
    status: Option<&ContainerStatus>,
    pod: &str,
    name: &str,
    previous: bool,
) -> Result<String, String> {
    let Some(status) = status else {
        return Err(format!("container {name:?} in pod {pod:?} is not available"));
    };
    let ended = |state: &Option<ContainerState>| {
        id_of(state.as_ref()?.terminated.as_ref()?.container_id.as_deref())
    };
    let last = ended(&status.last_state);
    if previous {
        return last.ok_or_else(|| no_previous(pod, name));
    }
    let state = status.state.as_ref();
    if state.is_some_and(|s| s.running.is_some())
        && let Some(id) = id_of(status.container_id.as_deref())
    {
        return Ok(id);
    }
    if let Some(id) = ended(&status.state).or(last) {
        return Ok(id);
    }
    if state.is_some_and(|s| s.terminated.is_some()) {
        return Err(format!("container {name:?} in pod {pod:?} is terminated"));
    }
    let waiting = state.and_then(|s| s.waiting.as_ref());
    Err(match waiting.and_then(|w| w.reason.as_deref()) {
        Some("ErrImagePull") => {
            format!("container {name:?} in pod {pod:?} is waiting to start: image can't be pulled")
        }
        Some("ImagePullBackOff") => format!(
            "container {name:?} in pod {pod:?} is waiting to start: \
             trying and failing to pull image"
        ),
        Some(reason) => {
            format!("container {name:?} in pod {pod:?} is waiting to start: {reason}")
        }
        None => format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet"),
    })
}

fn no_previous(pod: &str, container: &str) -> String {
    format!("previous terminated container {container:?} in pod {pod:?} not found")
}

fn no_container(target: &Target) -> Refusal {
    let Target { pod, container, .. } = target;
    Refusal::not_found(format!("container {container:?} not found in pod {pod:?}\n"))
}

fn no_running(target: &Target) -> Refusal {
    Refusal::internal(format!("container not found ({:?})", target.container))
}

fn pod_full_name(target: &Target) -> String {
    format!("{}_{}", target.pod, target.namespace)
}

/// The address of a pause container as the host sees it.
fn address(found: &ContainerInspectResponse) -> Option<String> {
    let host = found.host_config.as_ref().and_then(|h| h.network_mode.as_deref()) == Some("host");
    if host {
        return Some("127.0.0.1".to_owned());
    }
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let mut addresses: Vec<&String> =
        networks.values().filter_map(|n| n.ip_address.as_ref()).collect();
    addresses.sort();
    addresses.into_iter().find(|a| !a.is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(status: &Value, previous: bool, expected: Result<&str, &str>) {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}],
            "initContainers": [{"name": "i"}]}, "status": {"containerStatuses": [status]}});
        let (pod, _) = api::codec::decode(api::Kind::Pod, pod.to_string().as_bytes()).unwrap();
        let pod = pod.get::<Pod>().unwrap();
        assert!(has_container(pod, "c") && has_container(pod, "i") && !has_container(pod, "x"));
        let found = log_container(status_of(pod, "c"), "p", "c", previous);
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }

    fn status(fields: &Value) -> Value {
        let mut status = json!({"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0});
        for (key, value) in fields.as_object().unwrap() {
            status[key] = value.clone();
        }
        status
    }

    #[test]
    fn statuses_point_to_logs() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let running = json!({"containerID": "docker://a", "state": {"running": {}}});
        check(&status(&running), false, Ok("a"));
        let missing = Err(r#"previous terminated container "c" in pod "p" not found"#);
        check(&status(&running), true, missing);
        check(&status(&json!({"state": ended("docker://b")})), false, Ok("b"));
        let crashed = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": ended("docker://d")});
        check(&status(&crashed), false, Ok("d"));
        check(&status(&crashed), true, Ok("d"));
        let waiting = |reason: &str| status(&json!({"state": {"waiting": {"reason": reason}}}));
        let refused = |why: &str| format!(r#"container "c" in pod "p" is waiting to start{why}"#);
        check(&waiting("ContainerCreating"), false, Err(&refused(": ContainerCreating")));
        check(&waiting("ErrImagePull"), false, Err(&refused(": image can't be pulled")));
        let backing_off = refused(": trying and failing to pull image");
        check(&waiting("ImagePullBackOff"), false, Err(&backing_off));
        check(&status(&json!({})), false, Err(&refused(" - no logs yet")));
        let other = status(&json!({"name": "x"}));
        check(&other, false, Err(r#"container "c" in pod "p" is not available"#));
    }

    #[test]
    fn of_two_pods_the_later_is_meant() {
        let pods =
            [("p", "a", 7), ("p", "b", 9), ("p", "c", 8), ("q", "d", 10)].map(|(name, uid, s)| {
                let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": uid,
                "creationTimestamp": format!("2026-01-01T00:00:{s:02}Z")}});
                api::codec::decode(api::Kind::Pod, pod.to_string().as_bytes()).unwrap().0
            });
        let find = |pod: &str| {
            let target = Target {
                namespace: "ns".into(),
                pod: pod.into(),
                uid: None,
                container: "c".into(),
            };
            newest_pod(&pods, &target).and_then(|pod| pod.metadata.uid.clone())
        };
        assert_eq!(find("p").as_deref(), Some("b"));
        assert_eq!(find("x"), None);
    }
}
