//! `[settings]`: how the cluster is made and how long it runs.

use super::diagnostics::Problem;
use super::section::{Section, TIME};
use crate::bug::Bug;
use crate::distribution::Distribution;
use crate::plan::{Network, Runtime, SchedulerSettings, Settings};
use crate::span::Span;

/// Virtual time is counted in nanoseconds and a run is to end while somebody waits.
pub(crate) const LENGTH_MAX: Span = Span::secs(3_650 * 86_400);
/// What has ever been run together in one cluster, with room.
const PROCESSES_MAX: u16 = 32;
/// How many properties the catalogue has.
const PROPERTIES: u32 = 58;
/// What people should know who name another.
pub(crate) const PROPERTY_HELP: &str = "properties are called `P1` to `P58`";
/// The plugins of the scheduler.
const PLUGINS: [&str; 10] = [
    "NodeName",
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "NodeResourcesBalancedAllocation",
    "PodTopologySpread",
    "InterPodAffinity",
    "ImageLocality",
];

/// Plugins beyond the default set.
const PLUGINS_BEYOND: [&str; 1] = ["Coscheduling"];

/// Reads the section; the first answer is whether and where it says how long operations go on.
pub(crate) fn read(section: &Section<'_>) -> (Option<Span>, Settings) {
    let default = Settings::default();
    let safety = length(section, "safety");
    let count = |key| section.whole(key, 1..=PROCESSES_MAX).unwrap_or(1);
    let truth = |key, default| section.truth(key).unwrap_or(default);
    let settings = Settings {
        safety: safety.unwrap_or(default.safety),
        settle: length(section, "settle").unwrap_or(default.settle),
        quiet: length(section, "quiet").unwrap_or(default.quiet),
        api_servers: count("api_servers"),
        schedulers: count("schedulers"),
        controller_managers: count("controller_managers"),
        leader_election: truth("leader_election", default.leader_election),
        network: section.section("network").map_or(default.network, |s| network(&s)),
        runtime: section.section("runtime").map_or(default.runtime, |s| runtime(&s)),
        scheduler: section.section("scheduler").map_or(default.scheduler, |s| scheduler(&s)),
        lazy_heartbeats: truth("lazy_heartbeats", default.lazy_heartbeats),
        store_events: truth("store_events", default.store_events),
        hash_contents: truth("hash_contents", default.hash_contents),
        bug: section.get("bug").and_then(|value| value.choice::<Bug>()),
        unchecked: unchecked(section),
    };
    section.finish();
    if let Some(problem) = restless(section, &settings) {
        section.report(problem);
    }
    (safety, settings)
}

/// Refuses a network that is slower than silence is long: the cluster would pass for at rest while
/// somebody is still to hear of the last write.
fn restless(section: &Section<'_>, settings: &Settings) -> Option<Problem> {
    let (quiet, reaction) = (settings.quiet, settings.network.reaction());
    if reaction < quiet {
        return None;
    }
    // Nobody wants to read nanoseconds.
    let unit = if reaction < Span::secs(10) { Span::millis(1) } else { Span::secs(1) };
    let reaction = Span(reaction.0.div_ceil(unit.0).saturating_mul(unit.0));
    let network = section.section("network");
    let slowest = settings.network.shares().into_iter().max_by_key(|(_, share)| *share);
    let place = match (&network, slowest) {
        (Some(network), Some((key, _))) => network.place_of(key),
        _ => section.place_of("quiet"),
    };
    let message = format!(
        "over this network a write may be answered by another one after {reaction}, but after \
         {quiet} of silence (`{}.quiet`) the cluster passes for at rest",
        section.path()
    );
    let help =
        format!("make the network faster, or raise `{}.quiet` above {reaction}", section.path());
    let problem = Problem::error(place, message).help(help);
    Some(match network {
        Some(_) if section.has("quiet") => {
            problem.label("too slow").also(section.place_of("quiet"), "for so short a silence")
        }
        Some(_) => problem.label("too slow"),
        None => problem.label("too short"),
    })
}

/// Each master of an inventory runs one of each; what the file says itself wins.
pub(crate) fn of_masters(root: &Section<'_>, masters: u16, settings: &mut Settings) {
    let masters = masters.clamp(1, PROCESSES_MAX);
    let section = root.section("settings");
    let says = |key| section.as_ref().is_some_and(|s| s.has(key));
    for (key, count) in [
        ("api_servers", &mut settings.api_servers),
        ("schedulers", &mut settings.schedulers),
        ("controller_managers", &mut settings.controller_managers),
    ] {
        if !says(key) {
            *count = masters;
        }
    }
}

/// A length of time that virtual time has room for.
fn length(section: &Section<'_>, key: &'static str) -> Option<Span> {
    let value = section.get(key)?;
    let span = value.amount(&TIME)?;
    let fault = match span {
        Span::ZERO if key == "safety" => "a run without time cannot do anything",
        span if span > LENGTH_MAX => "at most 3650d",
        _ => return Some(span),
    };
    value.report(format!("`{}` is out of range", value.path()), fault, "");
    None
}

fn network(section: &Section<'_>) -> Network {
    let default = Network::default();
    let get = |key, default| delay(section, key).unwrap_or(default);
    let network = Network {
        control_plane: get("control_plane", default.control_plane),
        nodes: get("nodes", default.nodes),
        store: get("store", default.store),
        service: get("service", default.service),
    };
    section.finish();
    network
}

fn runtime(section: &Section<'_>) -> Runtime {
    let default = Runtime::default();
    let get = |key, default| delay(section, key).unwrap_or(default);
    let runtime = Runtime {
        sandbox_start: get("sandbox_start", default.sandbox_start),
        container_start: get("container_start", default.container_start),
        stop: get("stop", default.stop),
        pull: get("pull", default.pull),
        other: get("other", default.other),
    };
    section.finish();
    runtime
}

fn delay(section: &Section<'_>, key: &'static str) -> Option<Distribution> {
    section.distribution(key, &TIME)
}

fn scheduler(section: &Section<'_>) -> SchedulerSettings {
    let mut settings = SchedulerSettings {
        percentage_of_nodes_to_score: section.whole("percentage_of_nodes_to_score", 1..=100),
        ..SchedulerSettings::default()
    };
    if let Some(value) = section.get("fit_strategy") {
        const STRATEGIES: [&str; 2] = ["LeastAllocated", "MostAllocated"];
        match value.text() {
            Some(text) if STRATEGIES.contains(&text) => {
                settings.fit_strategy = Some(text.to_owned());
            }
            Some(text) => value.no_choice(text, STRATEGIES),
            None => {}
        }
    }
    if let Some(weights) = section.section("weights") {
        for (name, place, value) in weights.entries() {
            if !PLUGINS.contains(&name) {
                let message = format!("there is no plugin `{name}`");
                let help = super::suggest::did_you_mean(name, PLUGINS);
                section.report(Problem::error(place, message).label("not known").help(help));
            } else if let Some(weight) = value.whole(0..=100) {
                settings.weights.insert(name.to_owned(), weight);
            }
        }
    }
    settings.disabled = plugins(section, "disabled", &PLUGINS);
    settings.enabled = plugins(section, "enabled", &PLUGINS_BEYOND);
    section.finish();
    settings
}

/// Those of `known` that a list names.
fn plugins<const N: usize>(
    section: &Section<'_>,
    key: &'static str,
    known: &'static [&'static str; N],
) -> Vec<String> {
    let named = section.get(key).and_then(|value| value.list()).unwrap_or_default();
    let positions = named.iter().filter_map(|value| value.position("plugin", *known));
    positions.map(|at| known[at].to_owned()).collect()
}

fn unchecked(section: &Section<'_>) -> Vec<String> {
    let items = section.get("unchecked").and_then(|value| value.list()).unwrap_or_default();
    let property = |value: &super::section::Value<'_>| {
        let text = value.text()?;
        if !is_property(text) {
            value.report(format!("there is no property `{text}`"), "not known", PROPERTY_HELP);
            return None;
        }
        Some(text.to_owned())
    };
    items.iter().filter_map(property).collect()
}

/// Whether a property of the catalogue is called so.
pub(crate) fn is_property(text: &str) -> bool {
    let number = text.strip_prefix('P').filter(|digits| !digits.starts_with(['0', '+']));
    let number = number.and_then(|digits| digits.parse::<u32>().ok());
    number.is_some_and(|n| (1..=PROPERTIES).contains(&n))
}
