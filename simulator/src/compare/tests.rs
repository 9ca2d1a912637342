use super::*;
use crate::report::demo;

fn run(p99_secs: u64, cpu_milli: u64) -> Outcome {
    let nanos = p99_secs * 1_000_000_000;
    let sample = Sample {
        cpu_allocatable_milli: 1_000,
        cpu_requested_milli: cpu_milli,
        nodes_used: 4,
        ..Sample::default()
    };
    Outcome {
        scheduling: Percentiles { count: 9, p99_ns: nanos, ..Percentiles::default() },
        samples: vec![sample],
        ..Outcome::default()
    }
}

fn of<'a>(comparison: &'a Comparison, metric: &str) -> &'a Difference {
    comparison.differences.iter().find(|d| d.metric == metric).unwrap()
}

#[test]
fn the_interval_is_that_of_paired_differences() {
    // Differences of 1, 2, 3 and 2 s: mean 2, deviation √(2/3), error √(2/3)/2 = 0.408248;
    // Student's quantile for three degrees of freedom is 3.182446.
    let pairs = [(10, 11), (20, 22), (30, 33), (5, 7)];
    let pairs = pairs.map(|(a, b)| (run(a, 500), run(b, 500)));
    let comparison = Comparison::of(&pairs);
    let found = of(&comparison, "scheduling_p99");
    assert_eq!((found.mean_a, found.mean_b, found.difference), (16.25, 18.25, 2.0));
    let (low, high) = found.interval.unwrap();
    assert!((low - 0.700_771).abs() < 1e-5 && (high - 3.299_229).abs() < 1e-5, "{low} {high}");
    assert_eq!(found.verdict, Verdict::Worse);
    let cpu = of(&comparison, "cpu_mean");
    assert_eq!((cpu.mean_a, cpu.interval), (50.0, Some((0.0, 0.0))));
    assert_eq!(cpu.verdict, Verdict::NoDifferenceSeen);
    assert_eq!(of(&comparison, "wall").verdict, Verdict::NotMeasured);
}

#[test]
fn verdicts_know_what_is_better() {
    let pairs = [(run(5, 400), run(4, 500)), (run(6, 420), run(5, 540))];
    let comparison = Comparison::of(&pairs);
    // Always one second less: the interval has no width.
    assert_eq!(of(&comparison, "scheduling_p99").interval, Some((-1.0, -1.0)));
    assert_eq!(of(&comparison, "scheduling_p99").verdict, Verdict::Better);
    // 10 and 12 percent more, with t = 12.706: 11 ± 12.706.
    let cpu = of(&comparison, "cpu_peak");
    let (low, high) = cpu.interval.unwrap();
    assert!((low + 1.706).abs() < 1e-2 && (high - 23.706).abs() < 1e-2, "{low} {high}");
    assert_eq!(cpu.verdict, Verdict::NoDifferenceSeen);
    let same = [(run(5, 400), run(4, 500)), (run(6, 400), run(5, 500))];
    assert_eq!(of(&Comparison::of(&same), "cpu_peak").verdict, Verdict::Better);
}

#[test]
fn one_pair_has_no_interval_and_none_no_figures() {
    let comparison = Comparison::of(&[(run(5, 400), run(4, 500))]);
    let found = of(&comparison, "scheduling_p99");
    assert_eq!((found.difference, found.interval), (-1.0, None));
    assert_eq!(found.verdict.words(), "one pair: no interval");
    let nothing = Comparison::of(&[]);
    assert!(nothing.differences.iter().all(|d| d.verdict == Verdict::NotMeasured));
    assert!(!nothing.text().contains("NaN"), "{}", nothing.text());
}

#[test]
fn the_table_is_for_people() {
    let pairs: Vec<_> = (1..=5).map(|s| (demo::outcome(s), demo::denser(s))).collect();
    let comparison = Comparison::of(&pairs).named("LeastAllocated", "MostAllocated");
    insta::assert_snapshot!(comparison.text());
    let read: Comparison = serde_json::from_str(&comparison.json()).unwrap();
    assert_eq!(read.differences.len(), comparison.differences.len());
    assert_eq!(read.a, "LeastAllocated");
}
