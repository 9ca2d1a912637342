//! [`Chaos`]: what goes wrong at random, with a rate for each kind of fault; and [`Churn`]: how
//! nodes of a large cluster fail, come and go.

mod churn;
mod draw;
#[cfg(test)]
mod tests;

use std::ops::Range;

use machine::RngTree;

pub use churn::Churn;
pub(crate) use churn::read as read_churn;

use crate::distribution::Distribution;
use crate::plan::{Component, Plan, PlannedFault};
use crate::scenario::diagnostics::Problem;
use crate::scenario::events::{FAULTS, Known};
use crate::scenario::section::{Section, TIME, Value};
use crate::span::Span;

/// The keys of `[chaos]` that are no faults.
const FRAME: [&str; 3] = ["from", "until", "lasts"];
/// Kinds of processes, as in the names of components.
const CLASSES: [&str; 4] = ["api-server", "scheduler", "controller-manager", "kubelet"];
/// More faults are not drawn: each is an event for every check.
const FAULTS_MAX: u64 = 1_000_000;

/// What goes wrong at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// When it begins.
    pub from: Span,
    /// When it ends; with the operations when absent. What began before may last longer.
    pub until: Option<Span>,
    /// The kinds of faults.
    pub kinds: Vec<FaultRate>,
    /// Where the file says so.
    pub place: Range<usize>,
}

/// A kind of fault and how often it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRate {
    /// Its name in a plan.
    pub kind: &'static str,
    /// The time from one to the next.
    pub every: Distribution,
    /// How long each lasts.
    pub lasts: Distribution,
    /// What it strikes.
    pub on: Vec<Victims>,
    /// Between which percentages it draws, where the kind has one.
    pub percent: (u8, u8),
    /// How much, where the kind has a length of time: a delay, a lag, a skew, a period.
    pub amount: Distribution,
    /// The largest factor or number, where the kind has one.
    pub most: u32,
    /// How many of a hundred are of one link alone, to one API server, where the kind has links.
    pub links: u8,
}

/// What a fault may strike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victims {
    /// All processes of a kind, by its number among the API servers, the schedulers, the
    /// controller managers and the kubelets.
    Class(usize),
    /// One process.
    One(Component),
}

/// Reads `[chaos]`.
pub(crate) fn read(section: &Section<'_>, known: &Known<'_>) -> Option<Chaos> {
    let from = section.time("from").unwrap_or_default();
    let until = section.time("until");
    if until.is_some_and(|until| until <= from) {
        let problem = Problem::error(section.place_of("until"), "the chaos ends before it begins");
        section.report(problem.label(format!("not after {from}")));
    }
    let lasts = section.distribution("lasts", &TIME);
    let mut kinds = Vec::new();
    for kind in FAULTS {
        let Some(value) = section.get(kind) else { continue };
        kinds.extend(rate(&value, kind, lasts.as_ref(), known));
    }
    if kinds.is_empty() && FRAME.iter().filter(|key| section.has(key)).count() == section.len() {
        let problem = Problem::error(section.place(), "chaos without faults");
        let help = "add kinds of faults with the mean time between two: crash = \"30s\"";
        section.report(problem.label("nothing goes wrong").help(help));
    }
    section.finish();
    Some(Chaos { from, until, kinds, place: section.place() })
}

/// Reads how often a kind comes: the mean time between two, or a table with more.
fn rate(
    value: &Value<'_>,
    kind: &'static str,
    lasts: Option<&Distribution>,
    known: &Known<'_>,
) -> Option<FaultRate> {
    let mut rate = FaultRate {
        kind,
        every: Distribution::default(),
        lasts: lasts.cloned().unwrap_or(LASTS),
        on: draw::victims(kind),
        percent: (5, 80),
        amount: draw::amount(kind),
        most: draw::most(kind),
        links: draw::links(kind).unwrap_or(0),
    };
    if !value.is_table() {
        rate.every = Distribution::Exponential { mean: value.amount(&TIME)? };
    } else {
        let section = value.section()?;
        let every = section.need("every").and_then(|v| v.distribution(&TIME));
        if let Some(lasts) = section.distribution("lasts", &TIME) {
            rate.lasts = lasts;
        }
        if draw::has_victims(kind)
            && let Some(on) = section.get("on")
        {
            rate.on = on.list()?.iter().filter_map(|v| victims(v, kind, known)).collect();
            if rate.on.is_empty() {
                on.report(format!("`{}` names nothing", on.path()), "strikes nothing", "");
            }
        }
        if draw::has_percent(kind)
            && let Some(percent) = section.get("percent")
        {
            rate.percent = percentages(&percent).unwrap_or(rate.percent);
        }
        if let Some(key) = draw::amount_key(kind)
            && let Some(amount) = section.distribution(key, &TIME)
        {
            rate.amount = amount;
        }
        if let Some(key) = draw::most_key(kind)
            && let Some(most) = section.whole(key, 1..=1_000_000)
        {
            rate.most = most;
        }
        if draw::links(kind).is_some()
            && let Some(links) = section.whole("links", 0..=100)
        {
            rate.links = links;
        }
        section.finish();
        // Constant means regular here too: it stands in a table on purpose.
        rate.every = every?;
    }
    if rate.every.upper() == Span::ZERO {
        let message = format!("`{}`: no time between two faults", value.path());
        value.report(message, "would never end", "give the mean time between two");
        return None;
    }
    Some(rate)
}

/// Most faults are short, a few are long.
const LASTS: Distribution = Distribution::Skewed { median: Span::secs(3), p99: Span::secs(40) };

fn victims(value: &Value<'_>, kind: &str, known: &Known<'_>) -> Option<Victims> {
    let text = value.text()?;
    let strikes = draw::victims(kind);
    if let Some(class) = CLASSES.iter().position(|class| *class == text).map(Victims::Class) {
        if !strikes.contains(&class) {
            let message = format!("`{kind}` does nothing to an {text}");
            value.report(message, "strikes nothing", "of faults, `crash` does");
            return None;
        }
        return Some(class);
    }
    // What strikes all classes strikes each component.
    let all = strikes.len() == CLASSES.len();
    if all { known.component(value) } else { known.caller(value) }.map(Victims::One)
}

/// One percentage, or the least and the most.
fn percentages(value: &Value<'_>) -> Option<(u8, u8)> {
    if !value.is_list() {
        let percent = value.whole(1..=100)?;
        return Some((percent, percent));
    }
    let both: Vec<u8> = value.list()?.iter().map(|v| v.whole(0..=100)).collect::<Option<_>>()?;
    match both.as_slice() {
        [low, high] if low <= high => Some((*low, *high)),
        _ => {
            let message = format!("`{}` must be a rising pair", value.path());
            value.report(message, "not [least, most]", "as in [5, 50]");
            None
        }
    }
}

impl Chaos {
    /// Whether it needs to be told when operations end.
    pub(crate) const fn endless(&self) -> bool {
        self.until.is_none()
    }

    /// About how many faults there will be.
    pub(crate) fn expected(&self, end: Option<Span>) -> u64 {
        let Some(until) = self.until.or(end) else { return 0 };
        let window = until.0.saturating_sub(self.from.0);
        self.kinds.iter().map(|k| window / k.every.mean().0.max(1)).fold(0, u64::saturating_add)
    }

    /// Whether there are more faults than can be simulated.
    pub(crate) fn too_many(&self, end: Option<Span>) -> Option<Problem> {
        let expected = self.expected(end);
        (expected > FAULTS_MAX).then(|| {
            let message = format!("about {expected} faults are more than can be simulated");
            let problem = Problem::error(self.place.clone(), message);
            problem.label(format!("at most {FAULTS_MAX}"))
        })
    }

    /// Adds the faults to a plan whose operations end at `end`.
    pub(crate) fn expand(&self, end: Span, tree: RngTree, plan: &mut Plan) {
        let until = self.until.unwrap_or(end).min(end);
        let mut faults = Vec::new();
        for kind in &self.kinds {
            let tree = tree.child(kind.kind);
            let (mut times, mut lengths) = (tree.rng("times"), tree.rng("lengths"));
            let (mut what, mut links) = (tree.rng("what"), tree.rng("links"));
            let mut at = self.from;
            loop {
                at = Span(at.0.saturating_add(kind.every.sample(&mut times).0));
                if at >= until {
                    break;
                }
                let lasts = kind.lasts.sample(&mut lengths);
                // Drawn before anything is given up: what follows must not depend on it.
                if let Some(fault) = kind.draw(at, plan, &mut what, &mut links) {
                    let lasts = Span(lasts.0.min(end.0 - at.0));
                    faults.push(PlannedFault { at, lasts: Some(lasts), fault });
                }
            }
        }
        plan.faults.append(&mut faults);
    }
}
