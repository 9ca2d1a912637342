//! Values as errors show them: text quoted, numbers bare, structures in Go's notation, because
//! that is what 1.33 prints and people search for.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{
    DaemonSetUpdateStrategy, RollingUpdateStatefulSetStrategy, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    NodeAddress, NodeSelectorRequirement, NodeSelectorTerm, PodIP, Taint, Toleration,
};
use k8s_openapi::api::rbac::v1::RoleRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, Time,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::quote;

/// A value that an error can show.
pub(crate) trait Shown {
    /// The value as text.
    fn shown(&self) -> String;
}

/// A structure that holds pointers, whose Go notation differs from run to run: as JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> Shown for Json<T> {
    fn shown(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// A port and its protocol, as a service port with nothing else set.
pub(crate) struct PortPair<'a>(pub(crate) &'a str, pub(crate) i32);

impl Shown for PortPair<'_> {
    fn shown(&self) -> String {
        format!(
            "core.ServicePort{{Name:\"\", Protocol:{}, AppProtocol:(*string)(nil), Port:{}, \
             TargetPort:intstr.IntOrString{{Type:0, IntVal:0, StrVal:\"\"}}, NodePort:0}}",
            quote(self.0),
            self.1
        )
    }
}

/// Labels that may be absent, which Go tells from empty ones.
pub(crate) struct Labels<'a>(pub(crate) Option<&'a BTreeMap<String, String>>);

impl Shown for Labels<'_> {
    fn shown(&self) -> String {
        self.0.map_or_else(|| "map[string]string(nil)".to_owned(), Shown::shown)
    }
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "\"null\"".to_owned(), Shown::shown)
    }
}

impl Shown for str {
    fn shown(&self) -> String {
        quote(self)
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        quote(self)
    }
}

impl Shown for i32 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for [i32] {
    fn shown(&self) -> String {
        let items: Vec<String> = self.iter().map(i32::to_string).collect();
        format!("[]int32{{{}}}", items.join(", "))
    }
}

impl Shown for Time {
    fn shown(&self) -> String {
        self.0.to_string()
    }
}

impl Shown for IntOrString {
    fn shown(&self) -> String {
        let (kind, number, text) = match self {
            Self::Int(number) => (0, *number, ""),
            Self::String(text) => (1, 0, text.as_str()),
        };
        let text = quote(text);
        format!("intstr.IntOrString{{Type:{kind}, IntVal:{number}, StrVal:{text}}}")
    }
}

impl Shown for ByteString {
    fn shown(&self) -> String {
        let bytes: Vec<String> = self.0.iter().map(|b| format!("{b:#x}")).collect();
        format!("[]uint8{{{}}}", bytes.join(", "))
    }
}

impl Shown for [String] {
    fn shown(&self) -> String {
        let items: Vec<String> = self.iter().map(|s| quote(s)).collect();
        format!("[]string{{{}}}", items.join(", "))
    }
}

impl Shown for Vec<String> {
    fn shown(&self) -> String {
        self.as_slice().shown()
    }
}

impl Shown for BTreeMap<String, String> {
    fn shown(&self) -> String {
        let items: Vec<String> =
            self.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
        format!("map[string]string{{{}}}", items.join(", "))
    }
}

impl Shown for LabelSelector {
    fn shown(&self) -> String {
        let labels = Labels(self.match_labels.as_ref()).shown();
        let expressions = match &self.match_expressions {
            Some(list) => {
                let items: Vec<String> = list.iter().map(Shown::shown).collect();
                format!("[]v1.LabelSelectorRequirement{{{}}}", items.join(", "))
            }
            None => "[]v1.LabelSelectorRequirement(nil)".to_owned(),
        };
        format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{expressions}}}")
    }
}

impl Shown for LabelSelectorRequirement {
    fn shown(&self) -> String {
        let values = self.values.as_ref().map_or_else(|| "[]string(nil)".to_owned(), Shown::shown);
        format!(
            "v1.LabelSelectorRequirement{{Key:{}, Operator:{}, Values:{values}}}",
            quote(&self.key),
            quote(&self.operator)
        )
    }
}

impl Shown for DaemonSetUpdateStrategy {
    fn shown(&self) -> String {
        match &self.rolling_update {
            Some(_) => Json(self).shown(),
            None => format!(
                "apps.DaemonSetUpdateStrategy{{Type:{}, \
                 RollingUpdate:(*apps.RollingUpdateDaemonSet)(nil)}}",
                quote(self.type_.as_deref().unwrap_or_default())
            ),
        }
    }
}

impl Shown for StatefulSetUpdateStrategy {
    fn shown(&self) -> String {
        match &self.rolling_update {
            Some(_) => Json(self).shown(),
            None => format!(
                "apps.StatefulSetUpdateStrategy{{Type:{}, \
                 RollingUpdate:(*apps.RollingUpdateStatefulSetStrategy)(nil)}}",
                quote(self.type_.as_deref().unwrap_or_default())
            ),
        }
    }
}

impl Shown for RollingUpdateStatefulSetStrategy {
    fn shown(&self) -> String {
        format!(
            "apps.RollingUpdateStatefulSetStrategy{{Partition:{}, \
             MaxUnavailable:(*intstr.IntOrString)(nil)}}",
            self.partition.unwrap_or(0)
        )
    }
}

impl Shown for RoleRef {
    fn shown(&self) -> String {
        format!(
            "rbac.RoleRef{{APIGroup:{}, Kind:{}, Name:{}}}",
            quote(&self.api_group),
            quote(&self.kind),
            quote(&self.name)
        )
    }
}

impl Shown for Taint {
    fn shown(&self) -> String {
        let added = match &self.time_added {
            Some(time) => time.shown(),
            None => "<nil>".to_owned(),
        };
        format!(
            "core.Taint{{Key:{}, Value:{}, Effect:{}, TimeAdded:{added}}}",
            quote(&self.key),
            quote(self.value.as_deref().unwrap_or_default()),
            quote(&self.effect)
        )
    }
}

impl Shown for Toleration {
    fn shown(&self) -> String {
        let text = |field: &Option<String>| quote(field.as_deref().unwrap_or_default());
        let seconds = self.toleration_seconds.map_or("nil".to_owned(), |s| s.to_string());
        format!(
            "core.Toleration{{Key:{}, Operator:{}, Value:{}, Effect:{}, \
             TolerationSeconds:(*int64)({seconds})}}",
            text(&self.key),
            text(&self.operator),
            text(&self.value),
            text(&self.effect)
        )
    }
}

impl Shown for NodeSelectorRequirement {
    fn shown(&self) -> String {
        let (key, operator) = (quote(&self.key), quote(&self.operator));
        let values = self.values.as_ref().map_or_else(|| "[]string(nil)".to_owned(), Shown::shown);
        format!("core.NodeSelectorRequirement{{Key:{key}, Operator:{operator}, Values:{values}}}")
    }
}

impl Shown for NodeSelectorTerm {
    fn shown(&self) -> String {
        let list = |requirements: &Option<Vec<NodeSelectorRequirement>>| match requirements {
            Some(list) => {
                let items: Vec<String> = list.iter().map(Shown::shown).collect();
                format!("[]core.NodeSelectorRequirement{{{}}}", items.join(", "))
            }
            None => "[]core.NodeSelectorRequirement(nil)".to_owned(),
        };
        let (expressions, fields) = (list(&self.match_expressions), list(&self.match_fields));
        format!("core.NodeSelectorTerm{{MatchExpressions:{expressions}, MatchFields:{fields}}}")
    }
}

impl Shown for [NodeSelectorTerm] {
    fn shown(&self) -> String {
        let items: Vec<String> = self.iter().map(Shown::shown).collect();
        format!("[]core.NodeSelectorTerm{{{}}}", items.join(", "))
    }
}

impl Shown for NodeAddress {
    fn shown(&self) -> String {
        let (kind, address) = (quote(&self.type_), quote(&self.address));
        format!("core.NodeAddress{{Type:{kind}, Address:{address}}}")
    }
}

impl Shown for PodIP {
    fn shown(&self) -> String {
        format!("core.PodIP{{IP:{}}}", quote(&self.ip))
    }
}
