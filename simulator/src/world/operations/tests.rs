//! What becomes of operations that never succeed.

use std::path::Path;

use crate::scenario::Scenario;
use crate::world::{GaveUp, World};

fn world(text: &str) -> World {
    let scenario = Scenario::parse(Path::new("t.toml"), text)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false, 100)));
    World::new(scenario.expand(1).unwrap()).unwrap()
}

#[test]
fn events_without_end_at_one_moment_are_no_progress() {
    let mut world = world("[[nodes]]\nname = \"a\"\n");
    assert_eq!(world.events_of_moment_max, 1_000_200);
    world.events_of_moment_max = 1;
    world.run();
    let Some(GaveUp::NoProgress(who)) = world.gave_up() else { panic!("{:?}", world.gave_up()) };
    assert!(!who.is_empty());
    assert_eq!(world.events(), 2);
}

#[test]
fn what_keeps_a_cluster_from_its_rest_is_named() {
    let scenario = |settings: &str, rest: &str| {
        format!(
            "[settings]\nsafety = \"30s\"\nsettle = \"2m\"\n{settings}\n[[nodes]]\n\
             name = \"a\"\n[[operations]]\nat = \"1s\"\ndo = \"create-pod\"\nname = \"p\"\n\
             template = \"t\"\n[templates.t]\n{rest}\n"
        )
    };
    let beginning = "the cluster did not come to rest within settings.settle (2m): ";
    for (text, expected) in [
        (
            scenario("", "runs = \"10h\""),
            "containers on a run on and will end by themselves, later",
        ),
        (
            scenario("[settings.runtime]\npull = \"10h\"", ""),
            "the container runtime of a still fetches or starts",
        ),
        (
            scenario("quiet = \"5m\"", "runs = \"1s\"\nexit_code = 1"),
            "the last to write was kubelet/a, pods/default/p, ",
        ),
    ] {
        let mut world = world(&text);
        world.run();
        let unrest = world.unrest().unwrap_or_default();
        assert!(unrest.starts_with(&format!("{beginning}{expected}")), "{unrest}");
    }
}

#[test]
fn operations_that_never_succeed_are_told() {
    let create = "do = \"create-namespace\"\nname = \"shop\"";
    for (operation, expected) in [
        (
            "do = \"scale\"\ntarget = \"Deployment\"\nname = \"wbe\"\nreplicas = 1",
            vec!["scale Deployment/default/wbe at 30s: deployments.apps \"wbe\" not found"],
        ),
        (
            create,
            vec!["create-namespace Namespace/shop at 30s: namespaces \"shop\" already exists"],
        ),
        // It is as it should be.
        ("do = \"delete\"\ntarget = \"Pod\"\nname = \"wbe\"", vec![]),
        ("do = \"cordon\"\nnode = \"a\"", vec![]),
    ] {
        let text = format!(
            "[[nodes]]\nname = \"a\"\n[[operations]]\nat = \"1s\"\n{create}\n\
             [[operations]]\nat = \"30s\"\n{operation}\n"
        );
        let scenario = Scenario::parse(Path::new("t.toml"), &text)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false, 100)));
        let mut world = World::new(scenario.expand(1).unwrap()).unwrap();
        world.run();
        assert!(world.settled(), "{operation}");
        let outcome = world.outcome();
        assert_eq!(outcome.given_up, expected, "{operation}");
        assert_eq!(outcome.operations_given_up, expected.len() as u64, "{operation}");
    }
}
