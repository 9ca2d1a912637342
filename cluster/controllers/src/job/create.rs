//! New pods of a job.

use std::collections::BTreeMap;

use api::hash::{fnv64, letters};
use api::{ApiObject, Key, Kind, Pod, Request};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodTemplateSpec,
};
use machine::{Announcement, Plan};

use super::pass::Pass;
use super::pod::{self, COMPLETION_INDEX, FAILURE_COUNT, IGNORED_COUNT};
use super::{BURST_MAX, is_indexed, policy, selector_of};
use crate::announce;
use crate::replicas::pod_of_template;

/// The variable that tells a container its completion index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The longest name that leaves room for the letters that tell siblings apart.
const NAME_PREFIX_MAX: usize = 58;

impl<'a> Pass<'a> {
    /// Makes so many pods, if it is time for that.
    pub(super) fn create(&self, missing: usize, plan: &mut Plan) {
        let by_index = self.spec.backoff_limit_per_index.is_some();
        if !by_index {
            let wait = self.backoff();
            if !wait.is_zero() {
                plan.revisit_in(wait);
                return;
            }
        }
        let labels = self.spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        // Its pods would be released at once and created again, without end.
        if !selector_of(self.job).matches(labels) {
            return;
        }
        let missing = missing.min(BURST_MAX);
        if is_indexed(self.spec) {
            self.create_indexed(missing, plan);
        } else {
            let model = pod::tracked(&pod_of_template(self.job, &self.spec.template));
            let prefix = name_prefix(self.name(), "-");
            // What is known of these names is that many of the first are taken.
            let first = self.owned.map_or(0, |o| o.total).saturating_sub(2 * BURST_MAX);
            let names = (first..).map(|i| self.pod_name(&prefix, &i.to_string()));
            for name in names.filter(|name| self.is_free(name)).take(missing) {
                let mut pod = model.clone();
                pod.metadata.generate_name = Some(prefix.clone());
                self.request(pod, name, plan);
            }
        }
    }

    fn create_indexed(&self, missing: usize, plan: &mut Plan) {
        let failed = self.failed_last();
        let mut waits = Vec::new();
        let pending = self.pending_indexes(missing);
        let ready: Vec<i32> = pending
            .into_iter()
            .filter(|index| {
                let wait = failed.get(index).map(|pod| self.index_backoff(pod));
                let wait = wait.filter(|wait| !wait.is_zero());
                waits.extend(wait);
                wait.is_none()
            })
            .collect();
        waits.into_iter().for_each(|wait| plan.revisit_in(wait));
        let template = with_index_variable(&self.spec.template);
        let model = pod::tracked(&pod_of_template(self.job, &template));
        for index in ready {
            let prefix = name_prefix(self.name(), &format!("-{index}-"));
            let mut names = (0_u32..).map(|i| self.pod_name(&prefix, &format!("{index}/{i}")));
            let Some(name) = names.find(|name| self.is_free(name)) else { continue };
            let mut pod = self.pod_of_index(&model, &template, index, &failed);
            pod.metadata.generate_name = Some(prefix);
            self.request(pod, name, plan);
        }
    }

    fn pod_of_index(
        &self,
        model: &Pod,
        template: &PodTemplateSpec,
        index: i32,
        failed: &BTreeMap<i32, &Pod>,
    ) -> Pod {
        let mut spec = template.spec.clone().unwrap_or_default();
        spec.hostname = Some(format!("{}-{index}", self.name()));
        let mut pod = Pod { metadata: model.metadata.clone(), ..Pod::of_spec(spec) };
        let text = index.to_string();
        let notes = pod.metadata.annotations.get_or_insert_default();
        notes.insert(COMPLETION_INDEX.to_owned(), text.clone());
        if self.spec.backoff_limit_per_index.is_some() {
            let (mut counted, mut ignored) = (0_i32, 0_i32);
            if let Some(failed) = failed.get(&index) {
                (counted, ignored) = pod::failures_before(failed);
                let counts = policy::failure(self.spec, failed).counts();
                let count = if counts { &mut counted } else { &mut ignored };
                *count = count.saturating_add(1);
            }
            notes.insert(FAILURE_COUNT.to_owned(), counted.to_string());
            if ignored > 0 {
                notes.insert(IGNORED_COUNT.to_owned(), ignored.to_string());
            }
        }
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(COMPLETION_INDEX.to_owned(), text);
        pod
    }

    fn request(&self, mut pod: Pod, name: String, plan: &mut Plan) {
        let done = announce::normal(self.job, "SuccessfulCreate", format!("Created pod: {name}"));
        let refused = announce::warning(self.job, "FailedCreate", "Error creating: ".to_owned());
        pod.metadata.name = Some(name);
        plan.request_announced(
            Request::Create(pod.into_object()),
            Announcement { done: Some(done), refused: Some(refused) },
        );
    }

    fn name(&self) -> &'a str {
        self.job.metadata.name.as_deref().unwrap_or_default()
    }

    /// A name for a new pod. It depends on what is known alone, so that a write which arrives
    /// late meets its own repetition instead of doubling a pod; a loss moves it on.
    fn pod_name(&self, prefix: &str, which: &str) -> String {
        let uid = self.job.metadata.uid.as_deref().unwrap_or_default();
        let seed = format!("{uid}/{}/{which}", self.cache.tombstone(uid));
        format!("{prefix}{}", letters(fnv64(seed.as_bytes()), 5))
    }

    fn is_free(&self, name: &str) -> bool {
        let namespace = self.job.metadata.namespace.as_deref().unwrap_or_default();
        self.cache.object(&Key::new(Kind::Pod, namespace, name)).is_none()
    }
}

/// The name of the job and what follows it, cut so that the full name of a pod stays within the
/// limit for names.
fn name_prefix(name: &str, rest: &str) -> String {
    let mut end = name.len().min(NAME_PREFIX_MAX.saturating_sub(rest.len()));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{rest}", &name[..end])
}

/// The template with a variable in each container that tells it the index of its pod.
fn with_index_variable(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(spec) = &mut template.spec {
        let init = spec.init_containers.iter_mut().flatten();
        init.chain(&mut spec.containers).for_each(add_index_variable);
    }
    template
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|v| v.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}
