//! The table of built-in kinds: group, version, resource name, scope and subresources.

use serde::{Deserialize, Serialize};

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Objects belong to a namespace.
    Namespaced,
    /// Objects belong to the whole cluster.
    Cluster,
}

/// One row of the resource table.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind as written in manifests, for example `Pod`.
    pub kind: &'static str,
    /// The API group, empty for the core group.
    pub group: &'static str,
    /// The API version within the group.
    pub version: &'static str,
    /// `group/version`, or the version alone for the core group.
    pub api_version: &'static str,
    /// The resource name in paths, for example `pods`.
    pub plural: &'static str,
    /// The singular name kubectl accepts.
    pub singular: &'static str,
    /// Short names kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Groups of resources such as `all`.
    pub categories: &'static [&'static str],
    /// Namespaced or cluster-scoped.
    pub scope: Scope,
    /// Whether objects are stored; reviews are only answered, and metrics measured.
    pub stored: bool,
    /// Subresources of each object, for example `status`.
    pub subresources: &'static [&'static str],
}

/// The name of a kind in manifests: that of its variant, unless it is another version of one, or
/// not spelt as variants are.
macro_rules! name {
    ($kind:ident) => {
        stringify!($kind)
    };
    ($kind:ident $name:literal) => {
        $name
    };
}

macro_rules! kinds {
    ($( $kind:ident $(= $name:literal)? { $group:literal $version:literal $api:literal $plural:literal $singular:literal
         [$($short:literal),*] [$($cat:literal),*] $scope:ident $stored:literal [$($sub:literal),*] } )*) => {
        /// A built-in kind. The order is stable and is the order of iteration everywhere.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each variant is the Kubernetes kind of that name")]
        pub enum Kind { $($kind),* }

        impl Kind {
            /// Every kind, in order.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The row of the resource table.
            pub const fn info(self) -> &'static KindInfo {
                match self {
                    $(Self::$kind => &KindInfo {
                        kind: name!($kind $($name)?), group: $group, version: $version, api_version: $api,
                        plural: $plural, singular: $singular, short_names: &[$($short),*],
                        categories: &[$($cat),*], scope: Scope::$scope, stored: $stored,
                        subresources: &[$($sub),*],
                    }),*
                }
            }
        }
    };
}

kinds! {
    Namespace { "" "v1" "v1" "namespaces" "namespace" ["ns"] [] Cluster true ["finalize", "status"] }
    Node { "" "v1" "v1" "nodes" "node" ["no"] [] Cluster true ["proxy", "status"] }
    Pod { "" "v1" "v1" "pods" "pod" ["po"] ["all"] Namespaced true
        ["attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "status"] }
    Service { "" "v1" "v1" "services" "service" ["svc"] ["all"] Namespaced true ["status"] }
    Endpoints { "" "v1" "v1" "endpoints" "endpoints" ["ep"] [] Namespaced true [] }
    EndpointSlice { "discovery.k8s.io" "v1" "discovery.k8s.io/v1" "endpointslices" "endpointslice"
        [] [] Namespaced true [] }
    ConfigMap { "" "v1" "v1" "configmaps" "configmap" ["cm"] [] Namespaced true [] }
    Secret { "" "v1" "v1" "secrets" "secret" [] [] Namespaced true [] }
    ResourceQuota { "" "v1" "v1" "resourcequotas" "resourcequota" ["quota"] [] Namespaced true ["status"] }
    LimitRange { "" "v1" "v1" "limitranges" "limitrange" ["limits"] [] Namespaced true [] }
    ServiceAccount { "" "v1" "v1" "serviceaccounts" "serviceaccount" ["sa"] [] Namespaced true ["token"] }
    PersistentVolume { "" "v1" "v1" "persistentvolumes" "persistentvolume" ["pv"] [] Cluster true
        ["status"] }
    PersistentVolumeClaim { "" "v1" "v1" "persistentvolumeclaims" "persistentvolumeclaim" ["pvc"] []
        Namespaced true ["status"] }
    Event { "" "v1" "v1" "events" "event" ["ev"] [] Namespaced true [] }
    ReplicationController { "" "v1" "v1" "replicationcontrollers" "replicationcontroller" ["rc"] ["all"]
        Namespaced true ["scale", "status"] }
    ReplicaSet { "apps" "v1" "apps/v1" "replicasets" "replicaset" ["rs"] ["all"] Namespaced true
        ["scale", "status"] }
    Deployment { "apps" "v1" "apps/v1" "deployments" "deployment" ["deploy"] ["all"] Namespaced true
        ["scale", "status"] }
    DaemonSet { "apps" "v1" "apps/v1" "daemonsets" "daemonset" ["ds"] ["all"] Namespaced true ["status"] }
    StatefulSet { "apps" "v1" "apps/v1" "statefulsets" "statefulset" ["sts"] ["all"] Namespaced true
        ["scale", "status"] }
    ControllerRevision { "apps" "v1" "apps/v1" "controllerrevisions" "controllerrevision" [] []
        Namespaced true [] }
    Job { "batch" "v1" "batch/v1" "jobs" "job" [] ["all"] Namespaced true ["status"] }
    CronJob { "batch" "v1" "batch/v1" "cronjobs" "cronjob" ["cj"] ["all"] Namespaced true ["status"] }
    HorizontalPodAutoscaler { "autoscaling" "v2" "autoscaling/v2" "horizontalpodautoscalers"
        "horizontalpodautoscaler" ["hpa"] ["all"] Namespaced true ["status"] }
    Lease { "coordination.k8s.io" "v1" "coordination.k8s.io/v1" "leases" "lease" [] [] Namespaced true [] }
    PodDisruptionBudget { "policy" "v1" "policy/v1" "poddisruptionbudgets" "poddisruptionbudget" ["pdb"] []
        Namespaced true ["status"] }
    CertificateSigningRequest { "certificates.k8s.io" "v1" "certificates.k8s.io/v1"
        "certificatesigningrequests" "certificatesigningrequest" ["csr"] [] Cluster true
        ["approval", "status"] }
    PriorityClass { "scheduling.k8s.io" "v1" "scheduling.k8s.io/v1" "priorityclasses" "priorityclass"
        ["pc"] [] Cluster true [] }
    StorageClass { "storage.k8s.io" "v1" "storage.k8s.io/v1" "storageclasses" "storageclass" ["sc"] []
        Cluster true [] }
    CsiNode = "CSINode" { "storage.k8s.io" "v1" "storage.k8s.io/v1" "csinodes" "csinode" [] []
        Cluster true [] }
    Role { "rbac.authorization.k8s.io" "v1" "rbac.authorization.k8s.io/v1" "roles" "role"
        [] [] Namespaced true [] }
    RoleBinding { "rbac.authorization.k8s.io" "v1" "rbac.authorization.k8s.io/v1" "rolebindings"
        "rolebinding" [] [] Namespaced true [] }
    ClusterRole { "rbac.authorization.k8s.io" "v1" "rbac.authorization.k8s.io/v1" "clusterroles"
        "clusterrole" [] [] Cluster true [] }
    ClusterRoleBinding { "rbac.authorization.k8s.io" "v1" "rbac.authorization.k8s.io/v1"
        "clusterrolebindings" "clusterrolebinding" [] [] Cluster true [] }
    HorizontalPodAutoscalerV1 = "HorizontalPodAutoscaler" { "autoscaling" "v1" "autoscaling/v1"
        "horizontalpodautoscalers" "horizontalpodautoscaler" ["hpa"] ["all"] Namespaced false ["status"] }
    NodeMetrics { "metrics.k8s.io" "v1beta1" "metrics.k8s.io/v1beta1" "nodes" "" [] [] Cluster false [] }
    PodMetrics { "metrics.k8s.io" "v1beta1" "metrics.k8s.io/v1beta1" "pods" "" [] [] Namespaced false [] }
    Binding { "" "v1" "v1" "bindings" "binding" [] [] Namespaced false [] }
    Scale { "autoscaling" "v1" "autoscaling/v1" "scales" "scale" [] [] Namespaced false [] }
    Eviction { "policy" "v1" "policy/v1" "evictions" "eviction" [] [] Namespaced false [] }
    TokenRequest { "authentication.k8s.io" "v1" "authentication.k8s.io/v1" "tokenrequests"
        "tokenrequest" [] [] Namespaced false [] }
    TokenReview { "authentication.k8s.io" "v1" "authentication.k8s.io/v1" "tokenreviews"
        "tokenreview" [] [] Cluster false [] }
    SelfSubjectReview { "authentication.k8s.io" "v1" "authentication.k8s.io/v1" "selfsubjectreviews"
        "selfsubjectreview" [] [] Cluster false [] }
    SubjectAccessReview { "authorization.k8s.io" "v1" "authorization.k8s.io/v1" "subjectaccessreviews"
        "subjectaccessreview" [] [] Cluster false [] }
    LocalSubjectAccessReview { "authorization.k8s.io" "v1" "authorization.k8s.io/v1"
        "localsubjectaccessreviews" "localsubjectaccessreview" [] [] Namespaced false [] }
    SelfSubjectAccessReview { "authorization.k8s.io" "v1" "authorization.k8s.io/v1"
        "selfsubjectaccessreviews" "selfsubjectaccessreview" [] [] Cluster false [] }
    SelfSubjectRulesReview { "authorization.k8s.io" "v1" "authorization.k8s.io/v1"
        "selfsubjectrulesreviews" "selfsubjectrulesreview" [] [] Cluster false [] }
}

impl Kind {
    /// The kind's name in manifests.
    pub const fn name(self) -> &'static str {
        self.info().kind
    }

    /// The resource name in paths.
    pub const fn plural(self) -> &'static str {
        self.info().plural
    }

    /// `apiVersion` as written in manifests.
    pub const fn api_version(self) -> &'static str {
        self.info().api_version
    }

    /// Whether objects live in a namespace.
    pub const fn namespaced(self) -> bool {
        matches!(self.info().scope, Scope::Namespaced)
    }

    /// The version of this kind in which its objects are stored: another one for versions that
    /// are only spoken.
    pub const fn stored_as(self) -> Self {
        match self {
            Self::HorizontalPodAutoscalerV1 => Self::HorizontalPodAutoscaler,
            other => other,
        }
    }

    /// Whether objects of the kind only tell what happened. They own nothing and nothing owns them,
    /// and they are nobody's share of anything.
    pub const fn is_record(self) -> bool {
        matches!(self, Self::Event)
    }

    /// Every kind whose objects are stored, in order.
    pub fn stored() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|k| k.info().stored)
    }

    /// Finds a kind by `apiVersion` and `kind`, as manifests name it.
    pub fn of_manifest(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.name() == kind && k.api_version() == api_version)
    }

    /// Finds a kind by group, version and resource name, as paths name it.
    pub fn of_path(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| {
            let info = k.info();
            info.plural == plural && info.group == group && info.version == version
        })
    }

    /// `plural` or `plural.group`, as error messages name a resource.
    pub fn group_resource(self) -> String {
        let info = self.info();
        if info.group.is_empty() {
            info.plural.to_owned()
        } else {
            format!("{}.{}", info.plural, info.group)
        }
    }
}

/// The kinds for which a condition holds, in the order of the table: a `&'static [Kind]` that is
/// worked out when the program is built, for those who must name kinds in a constant.
///
/// ```
/// use api::{Kind, kinds_where};
///
/// const CLUSTER: &[Kind] = kinds_where!(|kind| kind.info().stored && !kind.namespaced());
/// assert!(CLUSTER.contains(&Kind::Node) && !CLUSTER.contains(&Kind::Pod));
/// ```
#[macro_export]
macro_rules! kinds_where {
    (|$kind:ident| $condition:expr) => {{
        const fn is_meant($kind: $crate::Kind) -> bool {
            $condition
        }
        const COUNT: usize = {
            let (mut i, mut count) = (0, 0);
            while i < $crate::Kind::ALL.len() {
                if is_meant($crate::Kind::ALL[i]) {
                    count += 1;
                }
                i += 1;
            }
            count
        };
        const LIST: [$crate::Kind; COUNT] = {
            let mut list = [$crate::Kind::ALL[0]; COUNT];
            let (mut i, mut count) = (0, 0);
            while i < $crate::Kind::ALL.len() {
                if is_meant($crate::Kind::ALL[i]) {
                    list[count] = $crate::Kind::ALL[i];
                    count += 1;
                }
                i += 1;
            }
            list
        };
        &LIST
    }};
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
