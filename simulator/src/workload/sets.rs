//! Deployments, replication controllers, stateful sets and daemon sets, with services, budgets,
//! autoscalers, rollouts and changes of their size.

use machine::RngTree;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::scaling::{self, Autoscale};
use super::{Arrivals, Draft, Sizes, pods};
use crate::distribution::Distribution;
use crate::plan::{Budget, Operation, PodTemplate, Target};
use crate::scenario::diagnostics::Problem;
use crate::scenario::events::{QUARTER, REPLICAS_MAX, budget_bounds, daemon_bounds, share};
use crate::scenario::section::{COUNT, Section};
use crate::scenario::shapes::{self, Catalogue};
use crate::span::Span;

/// What sets are created, rolled out anew and scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sets {
    /// What is created.
    pub kind: Kind,
    /// When they are created.
    pub arrivals: Arrivals,
    /// What their pods are like.
    pub template: PodTemplate,
    /// How much their pods ask for.
    pub sizes: Sizes,
    /// Whether each has a service.
    pub services: bool,
    /// `minAvailable` or `maxUnavailable` of the budget of each, if they have one.
    pub budget: Option<(Option<String>, Option<String>)>,
    /// The autoscaler of each, if they have one.
    pub autoscale: Option<Autoscale>,
    /// What becomes of the claims of stateful sets, if that is said: whether they go with the set,
    /// and with pods that are scaled away.
    pub claims: Option<(bool, bool)>,
    /// When one of them is rolled out anew.
    pub rollouts: Option<Arrivals>,
    /// When one of them is scaled.
    pub scalings: Option<Arrivals>,
    /// To how many pods; as at first when absent.
    pub scaled: Option<Distribution<u64>>,
    /// When one of them is deleted.
    pub deletions: Option<Arrivals>,
}

/// A kind with what is particular about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deployments.
    Deployment {
        /// How many pods each has.
        replicas: Distribution<u64>,
        /// `maxSurge` of all.
        max_surge: String,
        /// `maxUnavailable` of all.
        max_unavailable: String,
    },
    /// Replication controllers.
    ReplicationController {
        /// How many pods each has.
        replicas: Distribution<u64>,
    },
    /// Stateful sets.
    StatefulSet {
        /// How many pods each has.
        replicas: Distribution<u64>,
        /// Whether their pods do not wait for each other.
        parallel: bool,
        /// The first ordinal that rollouts replace.
        partition: u32,
    },
    /// Daemon sets.
    DaemonSet {
        /// `maxSurge` of all.
        max_surge: String,
        /// `maxUnavailable` of all.
        max_unavailable: String,
    },
}

impl Kind {
    fn read(section: &Section<'_>, target: Target) -> Option<Self> {
        let replicas = || section.need("replicas").and_then(|v| v.distribution(&COUNT));
        Some(match target {
            Target::StatefulSet => {
                let replicas = replicas();
                let parallel = section.truth("parallel").unwrap_or(false);
                let partition = section.whole("partition", 0..=REPLICAS_MAX).unwrap_or(0);
                Self::StatefulSet { replicas: replicas?, parallel, partition }
            }
            Target::ReplicationController => Self::ReplicationController { replicas: replicas()? },
            Target::DaemonSet => {
                let (max_surge, max_unavailable) = daemon_bounds(section);
                Self::DaemonSet { max_surge: max_surge?, max_unavailable: max_unavailable? }
            }
            _ => {
                let replicas = replicas();
                let max_surge = share(section, "max_surge", QUARTER);
                let max_unavailable = share(section, "max_unavailable", QUARTER);
                if [&max_surge, &max_unavailable].into_iter().flatten().all(|s| is_zero(s)) {
                    let message = "with no surge and none unavailable no rollout can begin";
                    let problem = Problem::error(section.place_of("max_surge"), message);
                    section.report(problem.help("let one of them be at least 1"));
                }
                Self::Deployment {
                    replicas: replicas?,
                    max_surge: max_surge?,
                    max_unavailable: max_unavailable?,
                }
            }
        })
    }

    const fn target(&self) -> Target {
        match self {
            Self::Deployment { .. } => Target::Deployment,
            Self::ReplicationController { .. } => Target::ReplicationController,
            Self::StatefulSet { .. } => Target::StatefulSet,
            Self::DaemonSet { .. } => Target::DaemonSet,
        }
    }

    /// How many pods each has, where that is said.
    const fn replicas(&self) -> Option<&Distribution<u64>> {
        match self {
            Self::Deployment { replicas, .. }
            | Self::ReplicationController { replicas }
            | Self::StatefulSet { replicas, .. } => Some(replicas),
            Self::DaemonSet { .. } => None,
        }
    }

    fn create(&self, name: String, template: u32, replicas: u32) -> Operation {
        match self.clone() {
            Self::Deployment { max_surge, max_unavailable, .. } => {
                Operation::CreateDeployment { name, template, replicas, max_surge, max_unavailable }
            }
            Self::ReplicationController { .. } => {
                Operation::CreateReplicationController { name, template, replicas }
            }
            Self::StatefulSet { parallel, partition, .. } => {
                Operation::CreateStatefulSet { name, template, replicas, parallel, partition }
            }
            Self::DaemonSet { max_surge, max_unavailable } => {
                Operation::CreateDaemonSet { name, template, max_surge, max_unavailable }
            }
        }
    }
}

fn is_zero(share: &str) -> bool {
    share == "0" || share == "0%"
}

pub(super) fn read(
    section: &Section<'_>,
    target: Target,
    templates: &Catalogue<PodTemplate>,
) -> Option<Sets> {
    let (base, named) = pods::base(section, templates)?;
    let sizes = Sizes::read(section, Sizes::of(&base));
    // All at once unless something else is said.
    let arrivals = Arrivals::read(section, Some(Distribution::default()));
    let kind = Kind::read(section, target);
    let mut template = shapes::pod_manners(section, &base);
    if !named && !section.has("image") {
        // The name of the set takes its place.
        template.image.clear();
    }
    let policy = &template.restart_policy;
    if policy != "Always" {
        let what = match target {
            Target::StatefulSet => "stateful set",
            Target::ReplicationController => "replication controller",
            Target::DaemonSet => "daemon set",
            _ => "deployment",
        };
        let message = format!("pods of a {what} cannot have the restart policy `{policy}`");
        let problem = Problem::error(section.place_of("restart_policy"), message);
        section.report(problem.label("must be `Always`"));
    }
    let services = section.truth("services").unwrap_or(false);
    let budget = section.section("budget").and_then(|section| {
        let bounds = budget_bounds(&section);
        section.finish();
        bounds
    });
    let stream = |key| {
        let section = section.section(key)?;
        let arrivals = Arrivals::read(&section, None);
        section.finish();
        arrivals
    };
    // Nobody replaces the pods of a replication controller.
    let has_rollouts = target != Target::ReplicationController;
    let rollouts = if has_rollouts { stream("rollouts") } else { None };
    let deletions = stream("deletions");
    let scales = target != Target::DaemonSet;
    let autoscale = if scales { section.section("autoscale") } else { None };
    let autoscale = autoscale.map(|section| scaling::read(&section));
    let claims = if target == Target::StatefulSet { section.section("claims") } else { None };
    let claims = claims.map(|section| {
        let truth = |key| section.truth(key).unwrap_or(false);
        let claims = (truth("delete_with_set"), truth("delete_when_scaled"));
        section.finish();
        claims
    });
    let (mut scalings, mut scaled) = (None, None);
    if target != Target::DaemonSet
        && let Some(section) = section.section("scalings")
    {
        scalings = Arrivals::read(&section, None);
        scaled = section.distribution("replicas", &COUNT);
        section.finish();
    }
    let kind = kind?;
    // An absent value is right, a wrong one is not.
    let autoscale = autoscale.map_or(Some(None), |autoscale| autoscale.map(Some))?;
    for (what, of) in [("replicas", kind.replicas()), ("scalings", scaled.as_ref())] {
        if of.is_some_and(|of| of.upper() > u64::from(REPLICAS_MAX)) {
            let message = format!("`{}.{what}`: more pods than can be simulated", section.path());
            let label = format!("more than {REPLICAS_MAX}");
            section.report(Problem::error(section.place_of(what), message).label(label));
        }
    }
    Some(Sets {
        kind,
        arrivals: arrivals?,
        template,
        sizes,
        services,
        budget,
        autoscale,
        claims,
        rollouts,
        scalings,
        scaled,
        deletions,
    })
}

/// A set in the making.
struct Made {
    name: String,
    created: Span,
    template: PodTemplate,
    /// How often it was rolled out.
    versions: u32,
}

impl Sets {
    fn streams(&self) -> impl Iterator<Item = &Arrivals> {
        let changes = [&self.rollouts, &self.scalings, &self.deletions];
        let loads = self.autoscale.iter().filter_map(|a| a.changes.as_ref());
        changes.into_iter().flatten().chain([&self.arrivals]).chain(loads)
    }

    pub(super) fn endless(&self) -> bool {
        self.streams().any(Arrivals::endless)
    }

    pub(super) fn expected(&self, end: Option<Span>) -> u64 {
        let of_each = self.kind.replicas().map_or(1, Distribution::mean).saturating_add(1);
        let operations = self.streams().fold(0_u64, |n, s| n.saturating_add(s.expected(end)));
        self.arrivals.expected(end).saturating_mul(of_each).saturating_add(operations)
    }

    pub(super) fn expand(&self, name: &str, tree: RngTree, draft: &mut Draft) {
        let mut made = self.create(name, tree, draft);
        let created: Vec<Span> = made.iter().map(|m| m.created).collect();
        let deleted = self.delete(&made, tree, draft);
        let changes = |stream: &Option<Arrivals>, purpose: &str| -> Vec<Span> {
            let mut rng = tree.rng(purpose);
            stream.iter().flat_map(|s| s.times(draft.end, &mut rng).collect::<Vec<_>>()).collect()
        };
        let (rollouts, scalings) =
            (changes(&self.rollouts, "rollouts"), changes(&self.scalings, "scalings"));
        let exists = |at: Span, i: usize| deleted[i].is_none_or(|end| at < end);
        let mut rng = tree.rng("rolled out");
        for at in rollouts {
            let Some(i) = one_of(&created, at, &mut rng).filter(|i| exists(at, *i)) else {
                continue;
            };
            let set = &mut made[i];
            set.versions += 1;
            let mut template = set.template.clone();
            template.image = next_image(&template.image, set.versions);
            let operation = Operation::SetTemplate {
                target: self.kind.target(),
                name: set.name.clone(),
                template: draft.template(template),
            };
            draft.operation(at, operation);
        }
        let (mut rng, mut sizes) = (tree.rng("scaled"), tree.rng("scaled to"));
        for at in scalings {
            let Some(i) = one_of(&created, at, &mut rng).filter(|i| exists(at, *i)) else {
                continue;
            };
            let Some(to) = self.scaled.as_ref().or(self.kind.replicas()) else { continue };
            let replicas = to.sample(&mut sizes);
            let (target, name) = (self.kind.target(), made[i].name.clone());
            draft.operation(at, Operation::Scale { target, name, replicas: pods_of(replicas) });
        }
    }

    fn create(&self, name: &str, tree: RngTree, draft: &mut Draft) -> Vec<Made> {
        let mut base = self.template.clone();
        if base.image.is_empty() {
            base.image = format!("{}:1", name.rsplit('/').next().unwrap_or(name));
        }
        let sizes = self.sizes.draw(&base, &mut tree.rng("sizes"));
        let (mut arrivals, mut choice, mut replicas) =
            (tree.rng("arrivals"), tree.rng("choice"), tree.rng("replicas"));
        let mut made = Vec::new();
        for (i, at) in self.arrivals.times(draft.end, &mut arrivals).enumerate() {
            let name = format!("{name}-{i}");
            let template = sizes[choice.random_range(0..sizes.len())].clone();
            let index = draft.template(template.clone());
            let replicas = self.kind.replicas().map_or(0, |r| pods_of(r.sample(&mut replicas)));
            let operation = self.kind.create(name.clone(), index, replicas);
            draft.operation(at, operation);
            if let Some((delete_with_set, delete_when_scaled)) = self.claims {
                let name = name.clone();
                let policy =
                    Operation::SetClaimPolicy { name, delete_with_set, delete_when_scaled };
                draft.operation(at, policy);
            }
            if let Some(autoscale) = &self.autoscale {
                autoscale.create(&name, self.kind.target(), at, tree, draft);
            }
            if self.services {
                let app = name.rsplit('/').next().unwrap_or(&name).to_owned();
                draft.operation(at, Operation::CreateService { name: name.clone(), app });
            }
            if let Some((min_available, max_unavailable)) = self.budget.clone() {
                let app = name.rsplit('/').next().unwrap_or(&name).to_owned();
                let name = name.clone();
                let budget = Operation::CreateBudget(Box::new(Budget {
                    name,
                    app,
                    min_available,
                    max_unavailable,
                }));
                draft.operation(at, budget);
            }
            made.push(Made { name, created: at, template, versions: 1 });
        }
        made
    }

    /// Deletes some of them; says when, for each.
    fn delete(&self, made: &[Made], tree: RngTree, draft: &mut Draft) -> Vec<Option<Span>> {
        let mut deleted = vec![None; made.len()];
        let Some(stream) = &self.deletions else { return deleted };
        let (mut times, mut rng) = (tree.rng("deletions"), tree.rng("deleted"));
        let created: Vec<Span> = made.iter().map(|m| m.created).collect();
        let moments: Vec<Span> = stream.times(draft.end, &mut times).collect();
        for at in moments {
            let Some(i) = one_of(&created, at, &mut rng) else { continue };
            if deleted[i].is_some() {
                continue;
            }
            deleted[i] = Some(at);
            let (target, name) = (self.kind.target(), made[i].name.clone());
            let operation = Operation::Delete { target, name, orphan: false, foreground: false };
            draft.operation(at, operation);
        }
        deleted
    }
}

pub(super) fn pods_of(replicas: u64) -> u32 {
    u32::try_from(replicas).unwrap_or(u32::MAX)
}

/// One of those that have been created before a moment, by when each was.
pub(super) fn one_of(created: &[Span], at: Span, rng: &mut ChaCha8Rng) -> Option<usize> {
    let there = created.partition_point(|created| *created < at);
    (there > 0).then(|| rng.random_range(0..there))
}

/// `web:1` becomes `web:VERSION`.
fn next_image(image: &str, version: u32) -> String {
    let name = image.rsplit_once(':').map_or(image, |(name, _)| name);
    format!("{name}:{version}")
}
