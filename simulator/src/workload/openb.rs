//! Defaults fitted to a published trace of a cluster of machines with GPUs ("OpenB", 1,523 nodes
//! and 8,152 pods): quantiles that were computed from it, no rows of it.

use std::collections::BTreeMap;

use super::Sizes;
use crate::distribution::{Amount, Decimal, Distribution};
use crate::span::Span;
use crate::trace::GPU;

fn quantiles<T: Amount>(points: &[(u64, T)]) -> Distribution<T> {
    let quantiles = points.iter().map(|(p, v)| (Decimal::from_thousandths(p * 1_000), *v));
    Distribution::Empirical { quantiles: quantiles.collect() }
}

/// CPUs, memory and GPUs. The 44 of 100 pods with one GPU that share theirs in the trace have a
/// whole one here, as Kubernetes gives them out.
pub(super) fn sizes() -> Sizes {
    let mib = |mib: u64| mib << 20;
    Sizes {
        cpu: quantiles(&[
            (5, 3_152),
            (25, 4_000),
            (50, 11_300),
            (75, 12_000),
            (90, 16_400),
            (99, 32_000),
        ]),
        memory: quantiles(&[
            (5, mib(5_600)),
            (25, mib(15_258)),
            (50, mib(41_560)),
            (75, mib(49_152)),
            (90, mib(58_368)),
            (99, mib(125_952)),
        ]),
        extended: BTreeMap::from([(
            GPU.to_owned(),
            Distribution::Choices { choices: vec![(130, 0), (861, 1), (2, 2), (2, 4), (5, 8)] },
        )]),
        distinct: 200,
    }
}

/// How long pods run: most some minutes, a few more than a day.
pub(super) fn runs() -> Distribution {
    quantiles(&[
        (5, Span::secs(50)),
        (25, Span::secs(175)),
        (50, Span::secs(616)),
        (75, Span::secs(2_246)),
        (90, Span::secs(7_764)),
        (99, Span::secs(114_715)),
    ])
}

/// The time between two pods.
pub(super) fn gap() -> Distribution {
    quantiles(&[
        (5, Span::secs(1)),
        (25, Span::secs(45)),
        (50, Span::secs(161)),
        (75, Span::secs(437)),
        (90, Span::secs(948)),
        (99, Span::secs(3_426)),
    ])
}
