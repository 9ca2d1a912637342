//! [`Pod`]: the one object that is written again and again.

use k8s_openapi::api::core::v1::{self, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Shared;

/// `v1.Pod`, of which the versions share what they have in common.
///
/// A pod is written half a dozen times in its life, and hardly ever its spec, which is most of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: Option<Shared<PodSpec>>,
    /// What is.
    pub status: Option<Shared<PodStatus>>,
}

impl From<v1::Pod> for Pod {
    fn from(pod: v1::Pod) -> Self {
        let v1::Pod { metadata, spec, status } = pod;
        Self { metadata, spec: spec.map(Shared::new), status: status.map(Shared::new) }
    }
}

impl Serialize for Pod {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let fields = 3 + usize::from(self.spec.is_some()) + usize::from(self.status.is_some());
        let mut state = ser.serialize_struct("Pod", fields)?;
        state.serialize_field("apiVersion", "v1")?;
        state.serialize_field("kind", "Pod")?;
        state.serialize_field("metadata", &self.metadata)?;
        if let Some(spec) = &self.spec {
            state.serialize_field("spec", spec)?;
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
