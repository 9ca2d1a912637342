//! [`Pod`]: the one object that is written again and again.

use k8s_openapi::api::core::v1::{self, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use std::borrow::Cow;

use crate::{Name, Shared};

mod configuration;

pub use self::configuration::configuration;

/// `v1.Pod`, of which the versions share what they have in common.
///
/// A pod is written half a dozen times in its life, and hardly ever its spec, which is most of it.
/// The one field of the spec that is given to every pod is kept beside it, so that the pods of a
/// template can have one spec among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is wanted, but for `spec.nodeName`.
    pub spec: Option<Shared<PodSpec>>,
    /// `spec.nodeName`: the node that the pod is bound to; never empty.
    pub node_name: Option<Name>,
    /// What is.
    pub status: Option<Shared<PodStatus>>,
}

impl From<v1::Pod> for Pod {
    fn from(pod: v1::Pod) -> Self {
        let v1::Pod { metadata, spec, status } = pod;
        let status = status.map(Shared::new);
        Self { metadata, status, ..spec.map(Self::of_spec).unwrap_or_default() }
    }
}

impl Pod {
    /// A pod of that spec and nothing else.
    pub fn of_spec(mut spec: PodSpec) -> Self {
        let node_name = spec.node_name.take().filter(|name| !name.is_empty()).map(Name::from);
        Self { spec: Some(Shared::new(spec)), node_name, ..Self::default() }
    }

    /// The name of the node that the pod is bound to, empty if it is bound to none.
    pub fn node(&self) -> &str {
        self.node_name.as_deref().unwrap_or_default()
    }

    /// The spec as it is published, with the node.
    pub fn whole_spec(&self) -> Option<Cow<'_, PodSpec>> {
        let spec = self.spec.as_deref();
        match &self.node_name {
            None => spec.map(Cow::Borrowed),
            Some(name) => {
                let mut spec = spec.cloned().unwrap_or_default();
                spec.node_name = Some(name.to_string());
                Some(Cow::Owned(spec))
            }
        }
    }
}

impl Serialize for Pod {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let spec = self.whole_spec();
        let fields = 3 + usize::from(spec.is_some()) + usize::from(self.status.is_some());
        let mut state = ser.serialize_struct("Pod", fields)?;
        state.serialize_field("apiVersion", "v1")?;
        state.serialize_field("kind", "Pod")?;
        state.serialize_field("metadata", &self.metadata)?;
        if let Some(spec) = &spec {
            state.serialize_field("spec", &**spec)?;
        }
        if let Some(status) = &self.status {
            state.serialize_field("status", status)?;
        }
        state.end()
    }
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        v1::Pod::deserialize(de).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_that_of_the_published_type() {
        let check = |json: &str| {
            let published: v1::Pod = serde_json::from_str(json).expect("a pod");
            let ours: Pod = serde_json::from_str(json).expect("a pod");
            let text = serde_json::to_string(&ours).expect("a pod is JSON");
            assert_eq!(text, serde_json::to_string(&published).expect("a pod is JSON"));
            assert_eq!(ours, Pod::from(published));
        };
        check(r#"{"metadata":{"name":"a"}}"#);
        check(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b"}},
                "spec":{"containers":[{"name":"c"}],"nodeName":"n"},"status":{"phase":"Running"}}"#,
        );
    }
}
