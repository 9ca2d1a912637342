//! Made-up outcomes to look at: a day of a small cluster with a rush hour, a rollout that went
//! badly and a rack that failed.

use std::collections::BTreeMap;

use machine::RngTree;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::check::Violation;
use crate::outcome::{HeatMap, LatencyCurve, Outcome, Percentiles, Rollout, Sample};
use crate::span::Span;
use crate::world::START;

const SAMPLES: u64 = 240;
const NODES: u64 = 60;
const CPU_MILLI: u64 = 16_000;

/// An outcome of the seed; those of even seeds have two violations.
pub(crate) fn outcome(seed: u64) -> Outcome {
    let mut rng = RngTree::new(seed).rng("demo");
    let samples: Vec<Sample> = (0..SAMPLES).map(|i| sample(i, &mut rng)).collect();
    let last = samples.last().copied().unwrap_or_default();
    let created = 48_200 + seed % 10;
    let ends = [
        ("pending", last.pending),
        ("bound", 3),
        ("running", last.running),
        ("succeeded", 21_000),
        ("failed", 12),
        ("deleted", created - 21_015 - last.pending - last.running),
    ];
    Outcome {
        name: "rush-hour".to_owned(),
        seed,
        wall_seconds: 4.12,
        virtual_seconds: 86_400.0,
        events: 1_310_400 + seed,
        peak_memory_bytes: 412 << 20,
        nodes: NODES,
        pods_created: created,
        pods_bound: created - last.pending,
        pods_started: created - last.pending - 3,
        pods_succeeded: 21_000,
        pods_failed: 12,
        pods_deleted: ends[5].1,
        pods_evicted: last.evicted,
        pods_at_end: ends.map(|(end, count)| (end.to_owned(), count)).into(),
        skipped_rows: BTreeMap::new(),
        operations_given_up: 0,
        given_up: Vec::new(),
        writes: last.writes,
        records: 96_000,
        settled_after: Some(Span::millis(41_300)),
        violations: if seed.is_multiple_of(2) { violations() } else { Vec::new() },
        finding: None,
        effect_log_hash: format!("{:016x}", seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        scheduling: percentiles(created - last.pending, 3_100_000 + seed * 10_000),
        start: percentiles(created - last.pending - 3, 910_000_000),
        scheduling_curve: curve(3_100_000 + seed * 10_000),
        start_curve: curve(910_000_000),
        heat: heat(&samples, &mut rng),
        samples,
        rollouts: rollouts(&mut rng),
    }
}

/// A day has two humps, at ten and at eight in the evening; percent.
fn load(at: u64) -> u64 {
    let hump = |middle: u64, height: u64| height * 900 / (900 + at.abs_diff(middle).pow(2));
    (22 + hump(100, 55) + hump(200, 38)).min(96)
}

fn sample(at: u64, rng: &mut ChaCha8Rng) -> Sample {
    let down = if (130..150).contains(&at) { 12 } else { 2 };
    let joined = (at * 12).min(NODES);
    let ready = joined.saturating_sub(down);
    let allocatable = joined * CPU_MILLI;
    let percent = load(at) * 10 + rng.random_range(0..25_u64);
    let requested = allocatable * percent.min(970) / 1_000;
    let rush = load(at).saturating_sub(70);
    let bound = !(at == 0 || (40..44).contains(&at));
    let p50 = 2_500_000 + rush.pow(3) * 40_000 + rng.random_range(0..400_000_u64);
    Sample {
        at: Span::secs(at * 360),
        nodes_ready: ready,
        nodes: joined,
        nodes_used: joined.min(requested / 9_000),
        cpu_allocatable_milli: allocatable,
        cpu_requested_milli: requested,
        memory_allocatable_bytes: joined * (64 << 30),
        memory_requested_bytes: joined * (64 << 30) / 1_000 * (percent * 7 / 10).min(990),
        gpus_allocatable: 0,
        gpus_requested: 0,
        cpu_stranded_milli: (allocatable - requested) * (percent / 12).min(90) / 100,
        pending: rush * rush / 2 + rng.random_range(0..6_u64) + down * 3,
        running: requested / 500,
        evicted: if at < 130 { 0 } else { 12 * 11 * (at - 129).min(6) },
        writes: at * 1_400 + at * load(at) * 9,
        scheduling_p50_ns: if bound { p50 } else { 0 },
        scheduling_p99_ns: if bound { p50 * (4 + rush) } else { 0 },
    }
}

fn heat(samples: &[Sample], rng: &mut ChaCha8Rng) -> HeatMap {
    let taken: Vec<&Sample> = samples.iter().step_by(2).collect();
    let own: Vec<u64> = (0..NODES).map(|_| rng.random_range(60..130_u64)).collect();
    let cell = |sample: &Sample, node: u64| {
        let index = usize::try_from(node).expect("a few nodes");
        let asked = sample.cpu_requested_milli * own[index];
        let percent = asked / sample.cpu_allocatable_milli.max(1);
        let known = node < sample.nodes;
        if known { u8::try_from(percent.min(100)).expect("a percentage") } else { u8::MAX }
    };
    HeatMap {
        nodes: (0..NODES).map(|i| format!("node-{i:03}")).collect(),
        times: taken.iter().map(|s| s.at).collect(),
        cpu_percent: taken
            .iter()
            .map(|sample| (0..NODES).map(|node| cell(sample, node)).collect())
            .collect(),
    }
}

fn rollouts(rng: &mut ChaCha8Rng) -> Vec<Rollout> {
    let mut rollouts = Vec::new();
    for app in 0..6_u64 {
        for generation in 1..=3_u64 {
            let began = Span::secs(app * 600 + (generation - 1) * (26_000 + app * 900));
            let took = Span::secs(rng.random_range(400..4_000_u64) * generation);
            let bad = app == 3 && generation == 3;
            let replicas = 8 + i32::try_from(app).expect("a few") * 4;
            let spared = if bad { replicas - 2 } else { rng.random_range(0..replicas / 2 + 2) };
            rollouts.push(Rollout {
                deployment: format!("default/app-{app}"),
                generation: i64::try_from(generation).expect("a few"),
                began,
                completed: (!bad).then(|| Span(began.0 + took.0)),
                available_min: if generation == 1 { 0 } else { replicas - spared },
                replicas,
            });
        }
    }
    rollouts
}

fn percentiles(count: u64, p50_ns: u64) -> Percentiles {
    let [p90_ns, p99_ns, max_ns] = [2, 11, 60].map(|factor| p50_ns * factor);
    Percentiles { count, p50_ns, p90_ns, p99_ns, max_ns }
}

/// The curve of [`percentiles`], about.
fn curve(p50_ns: u64) -> LatencyCurve {
    let points =
        [(0, 40), (250, 70), (500, 100), (750, 140), (900, 200), (990, 1_100), (1_000, 6_000)];
    LatencyCurve(points.map(|(permille, percent)| (permille, p50_ns / 100 * percent)).to_vec())
}

fn violations() -> Vec<Violation> {
    let violation = |property: &str, secs: u64, event: u64, message: &str| Violation {
        property: property.to_owned(),
        at: START + Span::secs(secs).duration(),
        event,
        message: message.to_owned(),
    };
    vec![
        violation(
            "P9",
            47_113,
            812_220,
            "pod default/app-3-7c9f is bound to both node-017 and node-031",
        ),
        violation(
            "P8",
            47_115,
            812_431,
            "node-031: 17200m CPU are requested, 16000m are allocatable",
        ),
    ]
}

/// As [`outcome`], of a configuration that packs more densely and schedules more slowly.
pub(crate) fn denser(seed: u64) -> Outcome {
    let mut outcome = outcome(seed);
    let jitter = seed % 3;
    for sample in &mut outcome.samples {
        sample.cpu_requested_milli = sample.cpu_requested_milli * (95 + jitter) / 100;
        sample.pending = sample.pending * 3 / 2 + 4;
        sample.evicted = sample.evicted * 4 / 5;
        sample.scheduling_p99_ns = sample.scheduling_p99_ns * 2 / 3;
        sample.cpu_stranded_milli = sample.cpu_stranded_milli * (70 + jitter) / 100;
        sample.nodes_used = sample.nodes_used * (80 + jitter) / 100;
    }
    let found = &mut outcome.scheduling;
    found.p50_ns = found.p50_ns * (120 + jitter) / 100;
    found.p99_ns = found.p99_ns * (98 + 2 * jitter) / 100;
    outcome.wall_seconds += 0.3;
    outcome.pods_at_end = BTreeMap::from([("pending".to_owned(), 3 + jitter)]);
    outcome
}
