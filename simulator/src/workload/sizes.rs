//! How much pods ask for. A cluster has a limited number of sizes however many pods it has, so
//! sizes are drawn first, and then pods choose among them.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::distribution::Distribution;
use crate::plan::PodTemplate;
use crate::scenario::diagnostics::Problem;
use crate::scenario::section::{COUNT, CPU, MEMORY, Section};
use crate::scenario::shapes::{self, CPU_MILLI_MAX, MEMORY_MAX};

/// Sizes that are drawn when nothing else is said.
const DISTINCT: u32 = 100;

/// How much pods ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Thousandths of a CPU.
    pub cpu: Distribution<u64>,
    /// Bytes.
    pub memory: Distribution<u64>,
    /// Other resources, by name. They go their own ways; CPU and memory grow together.
    pub extended: BTreeMap<String, Distribution<u64>>,
    /// How many different sizes there are at most.
    pub distinct: u32,
}

impl Sizes {
    /// Reads `cpu`, `memory`, `extended` and `sizes`; `default` has what is absent.
    pub(crate) fn read(section: &Section<'_>, default: Self) -> Self {
        let mut sizes = default;
        for (key, unit, most, place) in [
            ("cpu", &CPU, CPU_MILLI_MAX, &mut sizes.cpu),
            ("memory", &MEMORY, MEMORY_MAX, &mut sizes.memory),
        ] {
            let Some(distribution) = section.distribution(key, unit) else { continue };
            if distribution.upper() > most {
                let message = format!("`{}.{key}` is out of range", section.path());
                let label = if key == "cpu" {
                    "up to more than 1000000 CPUs"
                } else {
                    "up to more than 1Ei"
                };
                section.report(Problem::error(section.place_of(key), message).label(label));
                continue;
            }
            *place = distribution;
        }
        if let Some(table) = section.section("extended") {
            for (name, place, value) in table.entries() {
                shapes::resource_fault(section, name, place);
                if let Some(distribution) = value.distribution(&COUNT) {
                    sizes.extended.insert(name.to_owned(), distribution);
                }
            }
        }
        if let Some(distinct) = section.whole("sizes", 1..=10_000) {
            sizes.distinct = distinct;
        }
        sizes
    }

    /// The sizes of a template.
    pub(crate) fn of(template: &PodTemplate) -> Self {
        let extended = template.extended.iter();
        Self {
            cpu: Distribution::Constant(template.cpu_milli),
            memory: Distribution::Constant(template.memory_bytes),
            extended: extended.map(|(k, v)| (k.clone(), Distribution::Constant(*v))).collect(),
            distinct: DISTINCT,
        }
    }

    /// `base` in all sizes. Each part of a distribution is in it as often as it should be, however
    /// few sizes there are.
    pub(crate) fn draw(&self, base: &PodTemplate, rng: &mut ChaCha8Rng) -> Vec<PodTemplate> {
        let constant = |d: &Distribution<u64>| matches!(d, Distribution::Constant(_));
        let all = [&self.cpu, &self.memory].into_iter().chain(self.extended.values());
        let count = if all.into_iter().all(constant) { 1 } else { self.distinct.max(1) };
        let part = u64::MAX / u64::from(count);
        let middle = |i: u32| u64::from(i) * part + part / 2;
        let mut templates: Vec<PodTemplate> = (0..count)
            .map(|i| PodTemplate {
                cpu_milli: rounded(self.cpu.quantile(middle(i)), 10),
                memory_bytes: rounded(self.memory.quantile(middle(i)), 1 << 20),
                ..base.clone()
            })
            .collect();
        for (name, distribution) in &self.extended {
            for (i, at) in (0..count).zip(shuffled(templates.len(), rng)) {
                let amount = distribution.quantile(middle(i));
                templates[at].extended.insert(name.clone(), amount);
                if amount == 0 {
                    templates[at].extended.remove(name);
                }
            }
        }
        templates
    }
}

/// People ask for round numbers; small ones are left alone.
fn rounded(amount: u64, unit: u64) -> u64 {
    if amount < 10 * unit { amount } else { amount / unit * unit }
}

/// The numbers below `count` in any order.
fn shuffled(count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}

#[cfg(test)]
mod tests {
    use machine::RngTree;

    use super::*;
    use crate::distribution::Decimal;

    #[test]
    fn few_sizes_stand_for_the_whole_distribution() {
        let percent = |p: u64| Decimal::from_thousandths(p * 1_000);
        let mut sizes = Sizes::of(&PodTemplate::default());
        sizes.cpu = Distribution::Empirical {
            quantiles: vec![(percent(0), 100), (percent(50), 1_000), (percent(100), 10_000)],
        };
        let gpu = "nvidia.com/gpu".to_owned();
        sizes.extended = BTreeMap::from([(
            gpu.clone(),
            Distribution::Choices { choices: vec![(3, 0), (1, 1_000)] },
        )]);
        sizes.distinct = 40;
        let drawn = sizes.draw(&PodTemplate::default(), &mut RngTree::new(1).rng("a"));
        assert_eq!(drawn.len(), 40);
        assert_eq!(drawn.iter().filter(|t| t.cpu_milli < 1_000).count(), 20);
        assert_eq!(drawn.iter().filter(|t| t.extended.contains_key(&gpu)).count(), 10);
        let large = |t: &&PodTemplate| t.cpu_milli >= 1_000;
        let with_gpu = drawn.iter().filter(large).filter(|t| !t.extended.is_empty()).count();
        assert!((1..10).contains(&with_gpu), "independent of the CPU: {with_gpu}");
        sizes = Sizes::of(&PodTemplate::default());
        assert_eq!(sizes.draw(&PodTemplate::default(), &mut RngTree::new(1).rng("a")).len(), 1);
    }
}
