//! Faults of one kind that overlap: when one of them is over, the other goes on.

use std::path::Path;

use crate::plan::Component;
use crate::scenario::Scenario;
use crate::span::Span;
use crate::world::{World, at};

/// Looks at what a fault does.
type See<T> = fn(&World) -> T;

/// A world with faults, each from when to when, and what it is.
fn world(faults: &[(u64, u64, &str)]) -> World {
    let head = "[settings]\nsafety = \"3m\"\n[[nodes]]\nname = \"a\"\n";
    let fault = |(from, to, what): &(u64, u64, &str)| {
        format!("[[faults]]\nat = \"{from}s\"\nuntil = \"{to}s\"\nfault = {what}\n")
    };
    let text = format!("{head}{}", faults.iter().map(fault).collect::<String>());
    let scenario = Scenario::parse(Path::new("t.toml"), &text)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false, 100)));
    World::new(scenario.expand(1).unwrap()).unwrap()
}

/// What can be seen of faults after so many seconds.
fn seen<T>(mut world: World, after: [u64; 3], of: See<T>) -> [T; 3] {
    after.map(|secs| {
        while world.now() < at(Span::secs(secs)) && world.step() {}
        of(&world)
    })
}

#[test]
fn a_fault_does_not_heal_another_of_its_kind() {
    let ahead = |world: &World| {
        let scheduler = world.process_of(&Component::Scheduler(0)).unwrap();
        world.processes[scheduler.index()].ahead.0 / Span::secs(1).0
    };
    let cases: [(&str, &str, See<u64>, u64); 4] = [
        (
            "\"slow-disk\"\nnode = \"a\"\nfactor = 9",
            "\"slow-disk\"\nnode = \"a\"\nfactor = 3",
            |world| world.hosts[0].slowness.into(),
            1,
        ),
        (
            "\"runtime-errors\"\nnode = \"a\"\npercent = 9",
            "\"runtime-errors\"\nnode = \"a\"\npercent = 3",
            |world| world.hosts[0].errors_percent.into(),
            0,
        ),
        (
            "\"lagging-server\"\napi_server = 0\nlag = \"9s\"",
            "\"lagging-server\"\napi_server = 0\nlag = \"3s\"",
            |world| world.servers[0].lag.0 / Span::secs(1).0,
            0,
        ),
        (
            "\"clock-skew\"\ncomponent = \"scheduler-0\"\nahead = \"9s\"",
            "\"clock-skew\"\ncomponent = \"scheduler-0\"\nahead = \"3s\"",
            ahead,
            0,
        ),
    ];
    for (worse, better, of, none) in cases {
        let within = |outer, inner| world(&[(30, 90, outer), (40, 50, inner)]);
        assert_eq!(seen(within(worse, better), [45, 60, 100], of), [9, 9, none], "{worse}");
        assert_eq!(seen(within(better, worse), [45, 60, 100], of), [9, 3, none], "{better}");
        let after = world(&[(30, 50, worse), (40, 90, better)]);
        assert_eq!(seen(after, [45, 60, 100], of), [9, 3, none], "{worse}");
    }
}

#[test]
fn what_two_faults_keep_down_is_up_after_both() {
    let cases: [(&str, See<bool>); 3] = [
        ("\"crash\"\ncomponent = \"api-server-0\"", |world| world.servers[0].up),
        ("\"crash\"\ncomponent = \"kubelet/a\"", |world| world.is_up(world.hosts[0].kubelet)),
        ("\"host-crash\"\nnode = \"a\"", |world| world.hosts[0].up),
    ];
    for (fault, is_up) in cases {
        // A host that is switched on takes 20 seconds to boot.
        let nested = world(&[(30, 90, fault), (40, 50, fault)]);
        assert_eq!(seen(nested, [45, 80, 115], is_up), [false, false, true], "{fault}");
        let again = world(&[(30, 40, fault), (45, 90, fault)]);
        assert_eq!(seen(again, [35, 70, 115], is_up), [false, false, true], "{fault}");
    }
}
