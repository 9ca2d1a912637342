//! Bare pods that come and go.

use machine::RngTree;
use rand::RngExt;

use super::{Arrivals, Draft, Sizes, openb};
use crate::distribution::Distribution;
use crate::plan::{Operation, PodTemplate};
use crate::scenario::section::{Section, TIME};
use crate::scenario::shapes::{self, Catalogue};

/// Pods that come at a rate, live for a while and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// When they come.
    pub arrivals: Arrivals,
    /// What they are like.
    pub template: PodTemplate,
    /// How much they ask for.
    pub sizes: Sizes,
    /// How long they run; for ever when absent.
    pub runs: Option<Distribution>,
}

pub(super) fn read(section: &Section<'_>, templates: &Catalogue<PodTemplate>) -> Option<Pods> {
    let preset = section.get("preset").and_then(|value| value.position("preset", ["openb"]));
    let open_b = preset.is_some();
    let (base, named) = base(section, templates)?;
    let sizes = if open_b { openb::sizes() } else { Sizes::of(&base) };
    let sizes = Sizes::read(section, sizes);
    let gap = open_b.then(openb::gap);
    let arrivals = Arrivals::read(section, gap);
    let runs = section.distribution("runs", &TIME).or_else(|| {
        let of_template = base.runs.map(Distribution::Constant);
        if open_b { Some(openb::runs()) } else { of_template }
    });
    let mut template = shapes::pod_manners(section, &base);
    template.runs = None;
    // What is given an end is not started again, unless somebody says so.
    if runs.is_some() && !named && !section.has("restart_policy") {
        "Never".clone_into(&mut template.restart_policy);
    }
    Some(Pods { arrivals: arrivals?, template, sizes, runs })
}

/// The template that a workload starts from, and whether it has a name.
pub(super) fn base(
    section: &Section<'_>,
    templates: &Catalogue<PodTemplate>,
) -> Option<(PodTemplate, bool)> {
    let Some(name) = section.get("template") else { return Some((PodTemplate::default(), false)) };
    let index = templates.index("template", &name)?;
    Some((templates.value(index)?.clone(), true))
}

impl Pods {
    pub(super) fn expand(&self, name: &str, tree: RngTree, draft: &mut Draft) {
        let mut base = self.template.clone();
        // One life for all is the template's.
        if let Some(Distribution::Constant(runs)) = self.runs {
            base.runs = Some(runs);
        }
        let sizes = self.sizes.draw(&base, &mut tree.rng("sizes"));
        let sizes: Vec<u32> = sizes.into_iter().map(|t| draft.template(t)).collect();
        let (mut arrivals, mut choice, mut lives) =
            (tree.rng("arrivals"), tree.rng("choice"), tree.rng("runs"));
        for (i, at) in self.arrivals.times(draft.end, &mut arrivals).enumerate() {
            let template = match sizes.as_slice() {
                [only] => *only,
                many => many[choice.random_range(0..many.len())],
            };
            let runs = match &self.runs {
                None | Some(Distribution::Constant(_)) => None,
                Some(runs) => Some(runs.sample(&mut lives)),
            };
            let name = format!("{name}-{i}");
            draft.operation(at, Operation::CreatePod { name, template, runs });
        }
    }
}
