//! Cron jobs, autoscalers, quotas, limit ranges and claims in whole runs: what users ask for in a
//! scenario file is what the controllers of production make of it.

use std::path::Path;

use api::{ApiObject, Kind, Object, Pod};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ResourceQuota};
use simulator::scenario::Scenario;
use simulator::span::Span;
use simulator::world::World;

const CLUSTER: &str = "[settings]\nsafety = \"10m\"\nquiet = \"310s\"\n\
    [[nodes]]\ncount = 3\nname = \"n-{i}\"\n";

fn world(text: &str) -> World {
    let text = format!("{CLUSTER}{text}");
    let scenario = Scenario::parse(Path::new("limits.toml"), &text)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false, 100)));
    let plan = scenario.expand(1).unwrap_or_else(|problems| panic!("{problems:?}"));
    World::new(plan).expect("a plan that can be run")
}

fn run_until(world: &mut World, secs: u64) {
    while world.elapsed() < Span::secs(secs) && world.step() {}
    assert_eq!(world.violations(), []);
}

fn run(world: &mut World) {
    world.run();
    assert_eq!(world.violations(), []);
    assert!(world.settled());
}

fn all<T: ApiObject>(world: &World) -> Vec<T> {
    world.objects(T::KIND).filter_map(Object::get::<T>).cloned().collect()
}

fn only<T: ApiObject + std::fmt::Debug>(world: &World) -> T {
    let mut all = all::<T>(world);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn pods_follow_the_load() {
    let mut world = world(
        "[templates.web]\ncpu = \"100m\"\n[[operations]]\nat = \"10s\"\ndo = \"create-deployment\"\n\
         name = \"web\"\ntemplate = \"web\"\nreplicas = 1\n[[operations]]\nat = \"10s\"\n\
         do = \"create-autoscaler\"\nname = \"web\"\nmax_replicas = 8\ncpu_percent = 50\n\
         load = [[\"0s\", \"40m\"], [\"2m\", \"230m\"], [\"5m\", \"90m\"]]\n",
    );
    let wanted = |world: &World| only::<Deployment>(world).spec.and_then(|s| s.replicas);
    run_until(&mut world, 115);
    assert_eq!(wanted(&world), Some(1));
    run_until(&mut world, 290);
    // 230 of 50 each.
    assert_eq!(wanted(&world), Some(5));
    // The highest number of five minutes holds.
    run_until(&mut world, 500);
    assert_eq!(wanted(&world), Some(5));
    run(&mut world);
    assert_eq!(wanted(&world), Some(2));
    let status = only::<HorizontalPodAutoscaler>(&world).status.expect("a status");
    let of = status.current_metrics.and_then(|mut m| m.pop()).and_then(|m| m.resource);
    assert_eq!(of.and_then(|r| r.current.average_utilization), Some(45));
}

#[test]
fn jobs_come_at_their_times_until_users_suspend_them() {
    let mut world = world(
        "[[workload]]\nkind = \"cron-jobs\"\nname = \"tick\"\ncount = 1\nruns = \"5s\"\n\
         schedules = [\"*/2 * * * *\"]\nsuccessful_kept = 2\n",
    );
    run_until(&mut world, 130);
    let first = only::<Job>(&world);
    run_until(&mut world, 590);
    // Of the second, the fourth, the sixth and the eighth minute the last two are kept.
    let jobs = all::<Job>(&world);
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|job| job.metadata.uid != first.metadata.uid));
    run(&mut world);
    let cron = only::<CronJob>(&world);
    assert_eq!(cron.spec.and_then(|s| s.suspend), Some(true));
    assert_eq!(cron.status.and_then(|s| s.active), None);
}

#[test]
fn who_has_no_room_says_so_until_there_is_some() {
    let mut world = world(
        "[[workload]]\nkind = \"namespaces\"\nname = \"team\"\ncount = 1\n\
         quota = { pods = 2, \"limits.cpu\" = \"5\" }\nlimits = { default = { cpu = \"200m\" } }\n\
         [[workload]]\nkind = \"deployments\"\nname = \"team-0/web\"\nfrom = \"10s\"\ncount = 1\n\
         replicas = 4\n[[operations]]\nat = \"5m\"\ndo = \"set-quota\"\nname = \"team-0/limits\"\n\
         hard = { pods = 3, \"limits.cpu\" = \"5\" }\n",
    );
    run_until(&mut world, 280);
    assert_eq!(all::<Pod>(&world).len(), 2);
    let refused = |world: &World| {
        let conditions = only::<ReplicaSet>(world).status.and_then(|s| s.conditions);
        let failure = conditions?.into_iter().find(|c| c.type_ == "ReplicaFailure")?;
        Some((failure.reason?, failure.message?))
    };
    let (reason, message) = refused(&world).expect("a condition");
    assert_eq!(reason, "FailedCreate");
    assert!(message.contains("exceeded quota: limits"), "{message}");
    run(&mut world);
    let pods = all::<Pod>(&world);
    assert_eq!(pods.len(), 3);
    assert!(refused(&world).is_some());
    let limits = pods.iter().flat_map(|p| &p.spec.as_ref().expect("a spec").containers);
    let limits = limits.filter_map(|c| c.resources.as_ref()?.limits.as_ref()?.get("cpu"));
    assert!(limits.clone().all(|cpu| cpu.0 == "200m") && limits.count() == 3);
    let used = only::<ResourceQuota>(&world).status.and_then(|s| s.used).expect("counted");
    assert_eq!((used["pods"].0.as_str(), used["limits.cpu"].0.as_str()), ("3", "600m"));
}

#[test]
fn claims_stay_with_a_set_or_go_with_a_pod() {
    let mut world = world(
        "[[workload]]\nkind = \"stateful-sets\"\nname = \"db\"\ncount = 1\nreplicas = 2\n\
         storage = \"1Gi\"\nclaims = { delete_when_scaled = true }\n\
         [[workload]]\nkind = \"deployments\"\nname = \"tmp\"\ncount = 1\nreplicas = 1\n\
         storage = \"100Mi\"\n[[operations]]\nat = \"5m\"\ndo = \"scale\"\ntarget = \"StatefulSet\"\n\
         name = \"db-0\"\nreplicas = 1\n[[operations]]\nat = \"6m\"\ndo = \"delete\"\n\
         target = \"Deployment\"\nname = \"tmp-0\"\n[[operations]]\nat = \"7m\"\ndo = \"delete\"\n\
         target = \"StatefulSet\"\nname = \"db-0\"\n",
    );
    run_until(&mut world, 290);
    assert!(
        all::<Pod>(&world)
            .iter()
            .all(|p| p.status.as_ref().unwrap().phase.as_deref() == Some("Running"))
    );
    let claims = |world: &World| {
        let names = all::<PersistentVolumeClaim>(world).into_iter();
        names.filter_map(|c| c.metadata.name).collect::<Vec<_>>()
    };
    let before = claims(&world);
    assert_eq!(before[..2], ["data-db-0-0", "data-db-0-1"]);
    assert!(before.len() == 3 && before[2].starts_with("tmp-0-"), "{before:?}");
    run(&mut world);
    // The set is gone, and its claim stays.
    assert_eq!(world.objects(Kind::Pod).count(), 0);
    assert_eq!(claims(&world), ["data-db-0-0"]);
    assert_eq!(all::<PersistentVolume>(&world).len(), 1);
}
