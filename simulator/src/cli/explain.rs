//! `ksim explain`.

use std::fmt::Write;

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
    schedulers.filter_map(|scheduler| scheduler.explain(key)).next()
}

fn node_of(world: &World, key: &Key) -> Option<String> {
    let pod = world.object(key)?.get::<api::Pod>()?;
    pod.node_name.as_ref().map(ToString::to_string)
}

fn text(explanation: &Explanation, node: Option<&str>) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    match (node, &explanation.message) {
        (Some(node), _) => line(format!("{} went to {node}.", explanation.pod)),
        (None, Some(message)) => line(format!("{} has no node: {message}", explanation.pod)),
        (None, None) => line(format!("{} has no node yet.", explanation.pod)),
    }
    line(format!(
        "{} of {} nodes were looked at from {} on; {} can take it, {} cannot.",
        explanation.evaluated,
        explanation.nodes,
        explanation.first.as_deref().unwrap_or("-"),
        explanation.feasible.len(),
        explanation.rejected.len()
    ));
    if let Some(displaced) = &explanation.displaced {
        line(format!(
            "It takes a place on {} as soon as these have left, {} of them against a budget: {}.",
            displaced.node,
            displaced.violations,
            displaced.pods.join(", ")
        ));
    }
    if let [_, _, ..] = explanation.winners[..] {
        line(format!("{} nodes share the best score; one was drawn.", explanation.winners.len()));
    }
    if let Some(runner_up) = &explanation.runner_up {
        line(format!("Runner-up: {runner_up}."));
    }
    let mut ranked: Vec<_> = explanation.feasible.iter().collect();
    ranked.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.node.cmp(&b.node)));
    if !ranked.is_empty() {
        line("\nSCORE  NODE".to_owned());
    }
    for scored in ranked.iter().take(LISTED) {
        let mut row = format!("{:>5}  {}", scored.total, scored.node);
        for score in &scored.scores {
            let _ = write!(row, "  {} {} ({})", score.plugin, score.weighted, score.raw);
        }
        line(row);
    }
    if ranked.len() > LISTED {
        line(format!("       … and {} more", ranked.len() - LISTED));
    }
    if !explanation.rejected.is_empty() {
        line("\nREJECTED BY".to_owned());
    }
    let mut causes = std::collections::BTreeMap::<String, Vec<&str>>::new();
    for rejected in &explanation.rejected {
        let cause = format!("{}: {}", rejected.plugin, rejected.reasons.join(", "));
        causes.entry(cause).or_default().push(&rejected.node);
    }
    for (cause, nodes) in causes {
        let shown = nodes.iter().take(LISTED).copied().collect::<Vec<_>>().join(" ");
        let more = nodes.len().saturating_sub(LISTED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        line(format!("{cause}\n    {shown}{rest}"));
    }
    out
}
