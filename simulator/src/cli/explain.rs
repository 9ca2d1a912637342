//! `ksim explain`.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, anyhow, bail};
use api::{Key, Kind, Request};
use clap::Args as ClapArgs;
use scheduler::Explanation;

use super::input::ScenarioArgs;
use super::output::{self, Format};
use super::{Exit, complain, progress, run};
use crate::check::{Check, Cluster, Occurrence};
use crate::plan::Plan;
use crate::report;
use crate::world::{GaveUp, ProcessId, World};

/// Nodes that are listed for people.
const LISTED: usize = 12;
/// Pods of one prefix that are named to people.
const NAMED: usize = 8;

/// Arguments of `ksim explain`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// The pod, `NAMESPACE/NAME` or a name in the namespace `default`. For pods of workloads the
    /// name of the workload is enough, or any other prefix: of several pods the one that was bound
    /// first is explained, and all are named.
    pod: String,
    /// The seed, instead of the scenario's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// No progress bar.
    #[arg(long, short)]
    quiet: bool,
}

/// How well a pod's name fits what was asked for; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is the name.
    Exact,
    /// It is the name of a pod of a workload with that name.
    Workload,
    /// It begins so.
    Prefix,
}

impl Fit {
    fn of(name: &str, wanted: &str) -> Option<Self> {
        match name.strip_prefix(wanted)? {
            "" => Some(Self::Exact),
            rest if rest.starts_with('-') => Some(Self::Workload),
            _ => Some(Self::Prefix),
        }
    }
}

/// What is found begins so: a pod that is bound.
const BOUND: &str = "bound ";

/// Notices the first binding of a pod whose name fits, of each kind of fit, and tells which pods
/// there are, since a run that is given up never comes to rest.
#[derive(Clone)]
struct Bindings {
    namespace: String,
    wanted: String,
    bound: BTreeSet<Fit>,
    seen: Sender<String>,
}

impl Check for Bindings {
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
        match occurrence {
            Occurrence::Committed { key, old: None, .. }
                if key.kind == Kind::Pod
                    && *key.namespace == *self.namespace
                    && key.name.starts_with(&self.wanted) =>
            {
                // Who asked may have stopped to listen: then it has all that it wants.
                let _ = self.seen.send(key.name.to_string());
            }
            Occurrence::Called { request: Request::Bind { pod, .. }, .. }
                if *pod.namespace == *self.namespace =>
            {
                let fit = Fit::of(&pod.name, &self.wanted);
                if fit.is_some_and(|fit| self.bound.insert(fit)) {
                    found.push(format!("{BOUND}{}", pod.name));
                }
            }
            _ => {}
        }
    }
}

/// A decision, and which pods were meant.
struct Explained {
    explanation: Explanation,
    node: Option<String>,
    /// All pods that fit as well as the one that is explained.
    candidates: Vec<String>,
}

impl Args {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let loaded = self.scenario.load()?;
        let plan = loaded.plan(self.seed.unwrap_or_else(|| loaded.seed()))?;
        let (namespace, name) = self.pod.split_once('/').unwrap_or(("default", &self.pod));
        if name.is_empty() {
            bail!("`{}` names no pod: write NAMESPACE/NAME or NAME", self.pod);
        }
        let quiet = self.quiet || self.output != Format::Text;
        let Explained { explanation, node, candidates } = explain(plan, namespace, name, quiet)?;
        if candidates.len() > 1 {
            let shown = candidates.iter().take(NAMED).map(String::as_str);
            let more = if candidates.len() > NAMED { ", …" } else { "" };
            complain(&format!(
                "note: {} pods of this run begin with {namespace}/{name}: {}{more}; {} is \
                 explained, the first that was bound",
                candidates.len(),
                shown.collect::<Vec<_>>().join(", "),
                explanation.pod
            ));
        }
        output::print(&match self.output {
            Format::Json => serde_json::to_string(&serde_json::json!({
                "node": node, "candidates": candidates, "explanation": explanation,
            }))?,
            Format::Text => text(&explanation, node.as_deref()),
            Format::Csv => report::explanation_csv(&explanation, node.as_deref()).text,
        })?;
        Ok(Exit::Fine)
    }
}

/// The decision about the pod of that name, or else about the first that was bound of those whose
/// names begin so: runs to the end, and again to just before it.
fn explain(plan: Plan, namespace: &str, wanted: &str, quiet: bool) -> anyhow::Result<Explained> {
    let (seen, names) = channel();
    let bindings = Bindings {
        namespace: namespace.to_owned(),
        wanted: wanted.to_owned(),
        bound: BTreeSet::new(),
        seen,
    };
    let mut world = World::with_checks(plan.clone(), vec![Box::new(bindings)])?;
    let exactly = format!("{BOUND}{wanted}");
    let is_bound = |world: &World| world.violations().iter().any(|v| v.message == exactly);
    // Nobody fits better than the pod of that very name; else all must be known.
    progress::run_until(&mut world, quiet, "", &mut |world| is_bound(world));
    let (bound, candidates) = candidates(&world, names.try_iter().collect(), wanted);
    let gave_up = matches!(world.gave_up(), Some(GaveUp::NoProgress(_)));
    let stuck = run::stuck(&world).filter(|_| gave_up);
    let Some(first) = candidates.first() else {
        let until = if gave_up { "before this run was given up" } else { "in this run" };
        let why = stuck.map(|why| format!(": {why}")).unwrap_or_default();
        bail!("no pod {namespace}/{wanted} was made {until}{why}");
    };
    if let Some(why) = stuck {
        complain(&format!(
            "note: this run was given up, and what would have come is not known: {why}"
        ));
    }
    let fit = Fit::of(first, wanted);
    let found = bound.into_iter().find(|(name, _)| Fit::of(name, wanted) == fit);
    let Some((name, event)) = found else {
        // It was never bound: what would the scheduler say at the end?
        let exists = |name: &&String| world.object(&Key::new(Kind::Pod, namespace, name)).is_some();
        let name = candidates.iter().find(exists).with_context(|| {
            format!("the pod {namespace}/{first} was deleted before a scheduler bound it")
        })?;
        let key = Key::new(Kind::Pod, namespace, name);
        let explanation = ask(&world, &key)
            .ok_or_else(|| anyhow!("the pod {} is not for the scheduler to place", key.path()))?;
        return Ok(Explained { explanation, node: None, candidates });
    };
    let key = Key::new(Kind::Pod, namespace, &name);
    let mut before = World::with_checks(plan, Vec::new())?;
    let last = |world: &World| world.events() + 1 >= event;
    progress::run_until(&mut before, quiet, "again: ", &mut |world| last(world));
    let mut explanation = ask(&before, &key);
    before.step();
    if explanation.is_none() {
        // A pod that was decided on in the very step that made it known is thought away again.
        explanation = ask(&before, &key);
    }
    let Some(explanation) = explanation else { bail!("no scheduler knows the pod {}", key.path()) };
    while node_of(&before, &key).is_none() && before.step() {}
    Ok(Explained { explanation, node: node_of(&before, &key), candidates })
}

/// The first bindings with their events, and of the pods that were seen those that fit best.
fn candidates(
    world: &World,
    seen: BTreeSet<String>,
    wanted: &str,
) -> (Vec<(String, u64)>, Vec<String>) {
    let found = world.violations().iter();
    let bound = found.filter_map(|v| Some((v.message.strip_prefix(BOUND)?, v.event)));
    let best = seen.iter().filter_map(|name| Fit::of(name, wanted)).min();
    let fitting = seen.into_iter().filter(|name| Fit::of(name, wanted) == best);
    let fitting = fitting.collect();
    (bound.map(|(name, event)| (name.to_owned(), event)).collect(), fitting)
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
