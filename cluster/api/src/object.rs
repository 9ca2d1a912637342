//! [`Object`]: any built-in object, shared by reference count.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps,
    authentication::v1 as authn,
    authorization::v1 as authz,
    autoscaling::{v1 as autoscaling, v2 as autoscaling_v2},
    batch::v1 as batch,
    certificates::v1 as certificates,
    coordination::v1 as coordination,
    core::v1 as core,
    discovery::v1 as discovery,
    policy::v1 as policy,
    rbac::v1 as rbac,
    scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Key, Kind, Revision, codec, metrics, pod};

/// A typed Kubernetes object that [`Object`] can hold.
pub trait ApiObject: Clone + PartialEq + std::fmt::Debug + 'static {
    /// The kind of this type.
    const KIND: Kind;
    /// Borrows this type from an object of its kind.
    fn of(object: &Object) -> Option<&Arc<Self>>;
    /// Wraps the value.
    fn into_object(self) -> Object;
    /// The object's metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The object's metadata, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
}

macro_rules! objects {
    ($( $kind:ident $ty:ty $(as $published:ty)? ),* $(,)?) => {
        /// Any built-in object. Cloning copies a pointer.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant holds the Kubernetes type of that name")]
        pub enum Object { $($kind(Arc<$ty>)),* }

        $(impl ApiObject for $ty {
            const KIND: Kind = Kind::$kind;
            fn of(object: &Object) -> Option<&Arc<Self>> {
                match object { Object::$kind(o) => Some(o), _ => None }
            }
            fn into_object(self) -> Object { Object::$kind(Arc::new(self)) }
            fn meta(&self) -> &ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
        })*

        impl Object {
            /// The object's kind.
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind),* }
            }
            /// The object's metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Self::$kind(o) => &o.metadata),* }
            }
            /// The object's metadata, to be changed; copies the object first when it is shared.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$kind(o) => &mut Arc::make_mut(o).metadata),* }
            }
        }

        pub(crate) fn decode_typed<'de, D: Deserializer<'de>>(
            kind: Kind, de: D,
        ) -> Result<Object, D::Error> {
            Ok(match kind { $(Kind::$kind => Object::$kind(Arc::new(<$ty>::deserialize(de)?))),* })
        }

        pub(crate) fn encode_typed<S: Serializer>(object: &Object, ser: S) -> Result<S::Ok, S::Error> {
            match object { $(Object::$kind(o) => o.as_ref().serialize(ser)),* }
        }

        /// Compile-time list of the Rust type of each kind, for schema generation.
        #[macro_export]
        macro_rules! for_each_kind {
            ($callback:ident) => { $callback! { $($kind $ty $(as $published)?),* } };
        }
    };
}

objects! {
    Namespace core::Namespace,
    Node core::Node,
    Pod pod::Pod as core::Pod,
    Service core::Service,
    Endpoints core::Endpoints,
    EndpointSlice discovery::EndpointSlice,
    ConfigMap core::ConfigMap,
    Secret core::Secret,
    ResourceQuota core::ResourceQuota,
    LimitRange core::LimitRange,
    ServiceAccount core::ServiceAccount,
    PersistentVolume core::PersistentVolume,
    PersistentVolumeClaim core::PersistentVolumeClaim,
    Event core::Event,
    ReplicationController core::ReplicationController,
    ReplicaSet apps::ReplicaSet,
    Deployment apps::Deployment,
    DaemonSet apps::DaemonSet,
    StatefulSet apps::StatefulSet,
    ControllerRevision apps::ControllerRevision,
    Job batch::Job,
    CronJob batch::CronJob,
    HorizontalPodAutoscaler autoscaling_v2::HorizontalPodAutoscaler,
    Lease coordination::Lease,
    PodDisruptionBudget policy::PodDisruptionBudget,
    CertificateSigningRequest certificates::CertificateSigningRequest,
    PriorityClass scheduling::PriorityClass,
    StorageClass storage::StorageClass,
    CsiNode storage::CSINode,
    Role rbac::Role,
    RoleBinding rbac::RoleBinding,
    ClusterRole rbac::ClusterRole,
    ClusterRoleBinding rbac::ClusterRoleBinding,
    HorizontalPodAutoscalerV1 autoscaling::HorizontalPodAutoscaler,
    NodeMetrics metrics::NodeMetrics,
    PodMetrics metrics::PodMetrics,
    Binding core::Binding,
    Scale autoscaling::Scale,
    Eviction policy::Eviction,
    TokenRequest authn::TokenRequest,
    TokenReview authn::TokenReview,
    SelfSubjectReview authn::SelfSubjectReview,
    SubjectAccessReview authz::SubjectAccessReview,
    LocalSubjectAccessReview authz::LocalSubjectAccessReview,
    SelfSubjectAccessReview authz::SelfSubjectAccessReview,
    SelfSubjectRulesReview authz::SelfSubjectRulesReview,
}

impl Object {
    /// The object's key.
    pub fn key(&self) -> Key {
        let meta = self.meta();
        Key::new(
            self.kind(),
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// Borrows the typed object; `None` when it is of another kind.
    pub fn get<T: ApiObject>(&self) -> Option<&T> {
        T::of(self).map(Arc::as_ref)
    }

    /// Shares the typed object; `None` when it is of another kind.
    pub fn share<T: ApiObject>(&self) -> Option<Arc<T>> {
        T::of(self).cloned()
    }

    /// The revision of the object's last write; zero when it was never stored.
    pub fn revision(&self) -> Revision {
        self.meta().resource_version.as_deref().and_then(Revision::parse).unwrap_or_default()
    }

    /// The object's UID, empty when it was never stored.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let raw = codec::encode_raw(self);
        raw.serialize(ser)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let raw = Box::<serde_json::value::RawValue>::deserialize(de)?;
        codec::decode_any(raw.get().as_bytes()).map_err(serde::de::Error::custom)
    }
}
