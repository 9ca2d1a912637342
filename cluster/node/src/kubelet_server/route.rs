//! Paths of the kubelet's API.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/server/server.go`.

use http::Method;

use super::query::decode;

/// One container of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// The pod's name.
    pub(crate) pod: String,
    /// The pod's UID, when the request names it.
    pub(crate) uid: Option<String>,
    /// The container's name; empty where the pod is meant.
    pub(crate) container: String,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Whether the server lives.
    Healthz,
    /// What this build calls itself.
    Version,
    /// The node's pods.
    Pods,
    /// A container's log.
    Logs(Target),
    /// A command in a container.
    Exec(Target),
    /// A container's own streams.
    Attach(Target),
    /// Connections into a pod.
    PortForward(Target),
    /// What the node and its pods use, as JSON.
    Summary,
    /// The kubelet's own metrics.
    Metrics,
    /// What the node and its pods use, as metrics.
    ResourceMetrics,
}

impl Route {
    /// Finds the route of a path; `None` when there is none.
    pub(crate) fn find(path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let decoded: Vec<String> =
            path.strip_prefix('/')?.split('/').map(|s| decode(s, false)).collect();
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let target = |namespace: &str, pod: &str, uid: Option<&str>, container: &str| Target {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.map(str::to_owned),
            container: container.to_owned(),
        };
        Some(match segments.as_slice() {
            ["healthz" | "livez" | "readyz"] => Self::Healthz,
            ["version"] => Self::Version,
            ["pods"] => Self::Pods,
            ["stats", "summary"] => Self::Summary,
            ["metrics"] => Self::Metrics,
            ["metrics", "resource"] => Self::ResourceMetrics,
            ["containerLogs", ns, pod, c] => Self::Logs(target(ns, pod, None, c)),
            ["exec", ns, pod, c] => Self::Exec(target(ns, pod, None, c)),
            ["exec", ns, pod, uid, c] => Self::Exec(target(ns, pod, Some(uid), c)),
            ["attach", ns, pod, c] => Self::Attach(target(ns, pod, None, c)),
            ["attach", ns, pod, uid, c] => Self::Attach(target(ns, pod, Some(uid), c)),
            ["portForward", ns, pod] => Self::PortForward(target(ns, pod, None, "")),
            ["portForward", ns, pod, uid] => Self::PortForward(target(ns, pod, Some(uid), "")),
            _ => return None,
        })
    }

    /// Whether the route takes this method.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        match self {
            Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => {
                matches!(*method, Method::GET | Method::POST)
            }
            _ => *method == Method::GET,
        }
    }

    /// A short name for metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Version => "version",
            Self::Pods => "pods",
            Self::Logs(_) => "containerLogs",
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portForward",
            Self::Summary => "stats/summary",
            Self::Metrics => "metrics",
            Self::ResourceMetrics => "metrics/resource",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expected: Option<&str>| {
            let found = Route::find(path).map(|route| match route {
                Route::Logs(t) | Route::Exec(t) | Route::Attach(t) | Route::PortForward(t) => {
                    format!(
                        "{} {:?} {}",
                        format_args!("{}/{}", t.namespace, t.pod),
                        t.uid,
                        t.container
                    )
                }
                other => other.name().to_owned(),
            });
            assert_eq!(found.as_deref(), expected, "{path}");
        };
        check("/healthz", Some("healthz"));
        check("/readyz", Some("healthz"));
        check("/version", Some("version"));
        check("/pods/", Some("pods"));
        check("/containerLogs/ns/p/c", Some("ns/p None c"));
        check("/exec/ns/p/c", Some("ns/p None c"));
        check("/exec/ns/p/u/c", Some("ns/p Some(\"u\") c"));
        check("/portForward/ns/p", Some("ns/p None "));
        check("/portForward/ns/p%2Fq", Some("ns/p/q None "));
        check("/", None);
        check("", None);
        check("/exec/ns", None);
        assert!(Route::find("/exec/n/p/c").unwrap().takes(&Method::POST));
        assert!(!Route::Pods.takes(&Method::POST));
    }
}
