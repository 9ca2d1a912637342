//! Objects that nothing refuses and that make no sense. Whatever is asked of the controllers, they
//! come to rest, or go on at a pace that somebody chose, and say what is wrong where Kubernetes does.

#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better without borrows")]

mod anything;
mod batch;
mod objects;
mod scaling;
mod workloads;

use super::*;

/// So long is looked on once what can be done is done.
const HOURS: u64 = 2;

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "default"})
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "v1",
            "resources": {"requests": {"cpu": "100m"}}}]}})
}

fn selector(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

impl World {
    /// Lets half an hour pass, in which whatever can be done is done, and then two, in which there
    /// are at most so many requests in each.
    fn calm(&mut self, requests_an_hour_max: usize) {
        self.run_secs(1800);
        for _ in 0..HOURS {
            let before = self.log.len();
            self.run_secs(3600);
            let made = &self.log[before..];
            let tail = &made[made.len().saturating_sub(30)..];
            assert!(made.len() <= requests_an_hour_max, "{} requests: {tail:#?}", made.len());
        }
    }

    /// Whether people were told that.
    fn told(&self, text: &str) {
        let found = self.events.iter().any(|event| event.contains(text));
        assert!(found, "{text}: {:#?}", self.events);
    }

    /// The condition as `status reason`; empty if there is none.
    fn condition(&self, key: &Key, kind: &str) -> String {
        let value = self.value(key);
        let all = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        let found = all.iter().find(|c| c["type"] == kind);
        found.map_or_else(String::new, |c| {
            format!("{} {}", text(c, "status"), text(c, "reason")).trim().to_owned()
        })
    }
}
