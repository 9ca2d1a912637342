//! Extenders: programs beside the scheduler that have a say in its decisions.
//!
//! A decision about a pod in which an extender is interested is taken in the reference's way, step by
//! step: what the plugins leave over is given to the extenders, one after the other; what they
//! leave over is scored by plugins and extenders together. Whom an extender can displace, or bind,
//! is its own business. See `scheduler::consultation` for the steps and [`wire`] for what is said.
//!
//! Source: kubernetes 1.33, `pkg/scheduler/extender.go`.

pub(crate) mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use api::Pod;
use k8s_openapi::api::core::v1::Container;
use serde::{Deserialize, Serialize};

/// The name of extenders among the plugins that refuse a pod.
pub(crate) const NAME: &str = "Extender";

/// How long an extender may take to answer where the configuration names no time.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// An extender as decisions see it; how to reach it is for the shell alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ExtenderConfig {
    /// What its addresses begin with; its name in messages.
    pub url_prefix: String,
    /// The last part of the address that filters; empty if it does not.
    pub filter_verb: String,
    /// The same for scores.
    pub prioritize_verb: String,
    /// The same for pods that would be displaced.
    pub preempt_verb: String,
    /// The same for bindings.
    pub bind_verb: String,
    /// Its scores are multiplied with this.
    pub weight: i64,
    /// How long it may take to answer.
    pub timeout_milliseconds: u64,
    /// Whether it knows nodes and pods by their names.
    pub node_cache_capable: bool,
    /// The resources that it looks after: it is asked about pods that ask for one of them. Without
    /// any it is asked about every pod.
    pub managed_resources: Vec<ManagedResource>,
    /// Whether a pod may be scheduled without it when it does not answer.
    pub ignorable: bool,
}

/// A resource that an extender looks after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ManagedResource {
    /// Its name.
    pub name: String,
    /// Whether nobody else looks at how much of it a node has.
    pub ignored_by_scheduler: bool,
}

impl Default for ExtenderConfig {
    fn default() -> Self {
        Self {
            url_prefix: String::new(),
            filter_verb: String::new(),
            prioritize_verb: String::new(),
            preempt_verb: String::new(),
            bind_verb: String::new(),
            weight: 0,
            timeout_milliseconds: u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            node_cache_capable: false,
            managed_resources: Vec::new(),
            ignorable: false,
        }
    }
}

/// All extenders of a scheduler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extenders {
    /// By their numbers.
    list: Vec<Extender>,
    /// Their numbers in the order in which they are asked: those without which nothing goes come
    /// first.
    order: Vec<u32>,
}

/// An extender.
#[derive(Clone, Debug)]
pub(crate) struct Extender {
    pub(crate) config: ExtenderConfig,
    managed: BTreeSet<String>,
}

impl Extenders {
    pub(crate) fn new(configs: &[ExtenderConfig]) -> Self {
        let managed = |config: &ExtenderConfig| {
            config.managed_resources.iter().map(|resource| resource.name.clone()).collect()
        };
        let list: Vec<Extender> = configs
            .iter()
            .map(|config| Extender { config: config.clone(), managed: managed(config) })
            .collect();
        let mut order: Vec<u32> = (0..).take(list.len()).collect();
        order.sort_by_key(|number| list[*number as usize].config.ignorable);
        Self { list, order }
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The numbers of those that are interested in a pod, in the order in which they are asked.
    pub(crate) fn interested(&self, pod: &Pod) -> Vec<u32> {
        let wants = |number: &&u32| self.list[**number as usize].wants(pod);
        self.order.iter().filter(wants).copied().collect()
    }

    /// The one of that number.
    pub(crate) fn get(&self, number: u32) -> &Extender {
        &self.list[number as usize]
    }

    /// The resources that nobody looks at but they.
    pub(crate) fn ignored(&self) -> impl Iterator<Item = &str> {
        let managed = self.list.iter().flat_map(|extender| &extender.config.managed_resources);
        managed.filter(|resource| resource.ignored_by_scheduler).map(|r| r.name.as_str())
    }
}

impl Extender {
    /// Whether it is interested in a pod.
    fn wants(&self, pod: &Pod) -> bool {
        let named = |container: &Container| {
            let resources = container.resources.iter();
            resources
                .flat_map(|r| r.requests.iter().chain(&r.limits).flatten())
                .any(|(name, _)| self.managed.contains(name))
        };
        self.managed.is_empty()
            || pod.spec.as_ref().is_some_and(|spec| {
                let first = spec.init_containers.iter().flatten();
                first.chain(&spec.containers).any(named)
            })
    }

    /// How long it may take to answer.
    pub(crate) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.timeout_milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: &serde_json::Value, first: bool) -> Pod {
        let containers = json!([{"name": "c", "resources": resources}]);
        let plain = json!([{"name": "p"}]);
        let (init, main) = if first { (&containers, &plain) } else { (&plain, &containers) };
        serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"initContainers": init, "containers": main}}))
        .unwrap()
    }

    #[test]
    fn they_are_interested_in_what_they_manage_and_those_that_matter_come_first() {
        let extender = |names: &[&str], ignorable: bool| ExtenderConfig {
            managed_resources: names
                .iter()
                .map(|name| ManagedResource {
                    name: (*name).to_owned(),
                    ignored_by_scheduler: *name == "a.com/foo",
                })
                .collect(),
            ignorable,
            ..ExtenderConfig::default()
        };
        let all = Extenders::new(&[
            extender(&["a.com/foo", "a.com/bar"], true),
            extender(&[], false),
            extender(&["a.com/bar"], false),
        ]);
        let none = json!({});
        assert_eq!(all.interested(&pod(&none, false)), [1]);
        let limit = json!({"limits": {"a.com/foo": "1"}});
        assert_eq!(all.interested(&pod(&limit, false)), [1, 0]);
        let request = json!({"requests": {"cpu": "1", "a.com/bar": "0"}});
        assert_eq!(all.interested(&pod(&request, true)), [1, 2, 0]);
        assert_eq!(all.ignored().collect::<Vec<_>>(), ["a.com/foo"]);
    }
}
