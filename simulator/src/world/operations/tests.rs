//! What becomes of operations that never succeed.

use std::path::Path;

use crate::scenario::Scenario;
use crate::world::World;

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
