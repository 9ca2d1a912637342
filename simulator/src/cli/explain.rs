//! `ksim explain`.

use anyhow::{anyhow, bail};
use api::{Key, Kind, Request};
use clap::Args as ClapArgs;
use scheduler::Explanation;

use super::Exit;
use super::input::ScenarioArgs;
use super::output::{self, Format};
use crate::check::{Check, Cluster, Occurrence};
use crate::plan::Plan;
use crate::world::{ProcessId, World};

/// Nodes that are listed for people.
const LISTED: usize = 12;

/// Arguments of `ksim explain`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// The pod, `NAMESPACE/NAME` or a name in the namespace `default`; a prefix of the name is
    /// enough for pods of workloads.
    pod: String,
    /// The seed, instead of the scenario's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Notices when a pod is bound.
#[derive(Clone)]
struct Binding {
    namespace: String,
    prefix: String,
}

impl Check for Binding {
    fn property(&self) -> &'static str {
        "binding"
    }

    fn statement(&self) -> &'static str {
        "the pod is not bound"
    }

    fn observe(
        &mut self,
        _cluster: &dyn Cluster,
        occurrence: &Occurrence<'_>,
        found: &mut Vec<String>,
    ) {
        if let Occurrence::Called { request: Request::Bind { pod, .. }, .. } = occurrence
            && *pod.namespace == *self.namespace
            && pod.name.starts_with(&self.prefix)
        {
            found.push(pod.name.to_string());
        }
    }
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let loaded = self.scenario.load()?;
        let plan = loaded.plan(self.seed.unwrap_or_else(|| loaded.seed()))?;
        let (namespace, name) = self.pod.split_once('/').unwrap_or(("default", &self.pod));
        let (explanation, node) = explain(plan, namespace, name)?;
        output::print(&match self.output {
            Format::Json => serde_json::to_string(&serde_json::json!({
                "node": node, "explanation": explanation,
            }))?,
            Format::Text | Format::Csv => text(&explanation, node.as_deref()),
        })?;
        Ok(Exit::Fine)
    }
}

/// The decision about the first pod of that name: runs up to it, and again to just before it.
fn explain(
    plan: Plan,
    namespace: &str,
    prefix: &str,
) -> anyhow::Result<(Explanation, Option<String>)> {
    let binding = || -> Vec<Box<dyn Check>> {
        vec![Box::new(Binding { namespace: namespace.to_owned(), prefix: prefix.to_owned() })]
    };
    let mut world = World::with_checks(plan.clone(), binding())?;
    while world.violations().is_empty() && world.step() {}
    let Some(found) = world.violations().first() else {
        // It was never bound: what would the scheduler say at the end?
        let pods = world.objects(Kind::Pod).map(api::Object::key);
        let key = pods
            .into_iter()
            .find(|k| *k.namespace == *namespace && k.name.starts_with(prefix))
            .ok_or_else(|| anyhow!("no pod {namespace}/{prefix} was made in this run"))?;
        let explanation = ask(&world, &key)
            .ok_or_else(|| anyhow!("the pod {} is not for the scheduler to place", key.path()))?;
        return Ok((explanation, None));
    };
    let key = Key::new(Kind::Pod, namespace, &found.message);
    let mut before = World::with_checks(plan, Vec::new())?;
    while before.events() + 1 < found.event && before.step() {}
    // A pod that was decided on in the very step that made it known is thought away again.
    let Some(explanation) = ask(&before, &key).or_else(|| ask(&world, &key)) else {
        bail!("no scheduler knows the pod {}", key.path())
    };
    while world.step() && node_of(&world, &key).is_none() {}
    Ok((explanation, node_of(&world, &key)))
}

fn ask(world: &World, key: &Key) -> Option<Explanation> {
    let schedulers = world.processes().filter_map(|p: ProcessId| world.scheduler(p));
    schedulers.filter_map(|scheduler| scheduler.explain(key).ok()).next()
}

fn node_of(world: &World, key: &Key) -> Option<String> {
    let pod = world.object(key)?.get::<api::Pod>()?;
    pod.node_name.as_ref().map(ToString::to_string)
}

fn text(explanation: &Explanation, node: Option<&str>) -> String {
    let headline = match node {
        Some(node) => format!("{} went to {node}.", explanation.pod),
        None => explanation.headline(),
    };
    explanation.to_text(&headline, LISTED)
}
