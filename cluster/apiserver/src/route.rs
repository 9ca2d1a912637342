//! Paths: which resource a request is about and what it wants of it.

use api::{Kind, Status};
use http::Method;
use registry::authorize::Attributes;

use crate::discovery;
use crate::query::{Query, percent};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A resource: a collection, an object or a subresource.
    Resource(Resource),
    /// Something else, by its path.
    Path(String),
}

/// A resource path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// In the version in which it is stored.
    pub(crate) kind: Kind,
    /// In the version that the path names.
    pub(crate) served: Kind,
    /// Empty for cluster-scoped kinds and for all namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// Empty for none.
    pub(crate) subresource: String,
    pub(crate) verb: Verb,
}

impl Resource {
    /// The subresource as its kind names it; empty for none.
    pub(crate) fn known_subresource(&self) -> &'static str {
        let mut known = self.kind.info().subresources.iter().copied();
        known.find(|s| *s == self.subresource).unwrap_or_default()
    }
}

/// What is wanted of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// As RBAC rules spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    fn of(method: &Method, named: bool, watch: bool) -> Option<Self> {
        Some(match *method {
            Method::GET | Method::HEAD if watch => Self::Watch,
            Method::GET | Method::HEAD if named => Self::Get,
            Method::GET | Method::HEAD => Self::List,
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if named => Self::Delete,
            Method::DELETE => Self::DeleteCollection,
            _ => return None,
        })
    }
}

impl Route {
    /// Parses a path.
    ///
    /// # Errors
    /// `NotFound` for an unknown resource, `MethodNotAllowed` for an unknown method.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, Status> {
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(percent).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(Self::Path(path.to_owned())),
        };
        let (legacy_watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            _ => (false, rest),
        };
        let (namespace, rest) = match rest {
            ["namespaces", name] if group.is_empty() => ("", &["namespaces", name][..]),
            ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
                ("", &["namespaces", name, sub][..])
            }
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return Err(Status::no_route()),
        };
        let kind = Kind::of_path(group, version, plural).ok_or_else(Status::no_route)?;
        let info = kind.info();
        let whole_cluster = kind.namespaced() && namespace.is_empty();
        let no_path_of_its_own = matches!(kind, Kind::Scale | Kind::Eviction | Kind::TokenRequest);
        if (!kind.namespaced() && !namespace.is_empty())
            || (whole_cluster && !name.is_empty())
            || no_path_of_its_own
            || (!subresource.is_empty() && !info.subresources.contains(&subresource))
        {
            return Err(Status::no_route());
        }
        let verb = Verb::of(method, !name.is_empty(), legacy_watch || query.flag("watch"))
            .ok_or_else(not_allowed)?;
        let on_collection = matches!(verb, Verb::List | Verb::Watch | Verb::Create);
        let connects = matches!(subresource, "exec" | "attach" | "portforward" | "proxy");
        if whole_cluster && !on_collection
            || (verb == Verb::Create && !name.is_empty() && subresource.is_empty())
            || (matches!(verb, Verb::Update | Verb::Patch) && name.is_empty())
            || (subresource.is_empty() && !served(kind, verb))
            || (verb == Verb::Watch && !subresource.is_empty() && !connects)
        {
            return Err(not_allowed());
        }
        Ok(Self::Resource(Resource {
            kind: kind.stored_as(),
            served: kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            verb,
        }))
    }

    /// What an authorizer is asked.
    ///
    /// # Errors
    /// The field selector cannot be parsed.
    pub(crate) fn attributes(&self, method: &Method, query: &Query) -> Result<Attributes, Status> {
        Ok(match self {
            Self::Path(path) => Attributes {
                verb: method.as_str().to_ascii_lowercase(),
                path: path.clone(),
                ..Attributes::default()
            },
            Self::Resource(resource) => {
                let info = resource.served.info();
                // A namespace lies in itself.
                let namespace = if resource.kind == Kind::Namespace {
                    &resource.name
                } else {
                    &resource.namespace
                };
                let fields = query.fields()?;
                // A list or watch of one name is authorized as of that name.
                let name = match resource.verb {
                    Verb::List | Verb::Watch | Verb::DeleteCollection
                        if resource.name.is_empty() =>
                    {
                        fields.exact("metadata.name").unwrap_or_default().to_owned()
                    }
                    _ => resource.name.clone(),
                };
                Attributes {
                    verb: resource.verb.name().to_owned(),
                    group: info.group.to_owned(),
                    version: info.version.to_owned(),
                    resource: info.plural.to_owned(),
                    subresource: resource.subresource.clone(),
                    namespace: namespace.clone(),
                    name,
                    path: String::new(),
                    fields,
                }
            }
        })
    }
}

/// Whether the kind has the verb. Of a kind of which nothing can be deleted there is nothing to say.
fn served(kind: Kind, verb: Verb) -> bool {
    let verb = if verb == Verb::DeleteCollection { Verb::Delete } else { verb };
    discovery::verbs(kind).contains(&verb.name())
}

/// The method does not exist on this path.
pub(crate) fn not_allowed() -> Status {
    Status::new(
        api::Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &str) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match Route::parse(&method, path, &Query::parse(query)) {
            Ok(Route::Path(path)) => format!("path {path}"),
            Ok(Route::Resource(r)) => {
                format!(
                    "{} {} {:?} {:?} {:?}",
                    r.verb.name(),
                    r.kind,
                    r.namespace,
                    r.name,
                    r.subresource
                )
            }
            Err(status) => status.code.to_string(),
        }
    }

    #[test]
    fn paths() {
        let check = |method: &str, path: &str, expected: &str| {
            assert_eq!(route(method, path), expected, "{method} {path}");
        };
        check("GET", "/api/v1/namespaces/a/pods", r#"list Pod "a" "" """#);
        check("GET", "/api/v1/pods?watch=1", r#"watch Pod "" "" """#);
        check("GET", "/api/v1/watch/pods", r#"watch Pod "" "" """#);
        check("GET", "/api/v1/namespaces", r#"list Namespace "" "" """#);
        check("GET", "/api/v1/namespaces/a", r#"get Namespace "" "a" """#);
        check("PUT", "/api/v1/namespaces/a/finalize", r#"update Namespace "" "a" "finalize""#);
        check("POST", "/api/v1/namespaces/a/pods/b/exec", r#"create Pod "a" "b" "exec""#);
        check(
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            r#"patch Deployment "a" "b" "scale""#,
        );
        check(
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            r#"deletecollection Deployment "a" "" """#,
        );
        check(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            r#"create SelfSubjectAccessReview "" "" """#,
        );
        check("GET", "/apis/apps/v1", "path /apis/apps/v1");
        check("GET", "/api/v1/widgets", "404");
        check("GET", "/api/v1/namespaces/a/nodes", "404");
        check("GET", "/api/v1/pods/b", "404");
        check("GET", "/api/v1/namespaces/a/pods/b/nonsense", "404");
        check("DELETE", "/api/v1/pods", "405");
        check("PUT", "/api/v1/namespaces/a/pods", "405");
        check("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "405");
        check("POST", "/apis/autoscaling/v1/namespaces/a/scales", "404");
        let autoscalers = "namespaces/a/horizontalpodautoscalers";
        let expected = r#"list HorizontalPodAutoscaler "a" "" """#;
        check("GET", &format!("/apis/autoscaling/v1/{autoscalers}"), expected);
        check("GET", &format!("/apis/autoscaling/v2/{autoscalers}"), expected);
        check("GET", &format!("/apis/autoscaling/v3/{autoscalers}"), "404");
        check("GET", "/apis/metrics.k8s.io/v1beta1/nodes", r#"list NodeMetrics "" "" """#);
        let pod = "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods/b";
        check("GET", pod, r#"get PodMetrics "a" "b" """#);
        check("DELETE", pod, "405");
        check("GET", "/apis/metrics.k8s.io/v1beta1/pods?watch=1", "405");
    }
}
