//! Faults of one kind that overlap: when one of them is over, the other goes on. What faults of
//! links, clocks, watches and API servers do.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use api::{Key, Kind, Object, Request, Revision};
use machine::WatchEvent;

use crate::check::{Check, Cluster, Occurrence};
use crate::oracle;
use crate::plan::{Component, Direction};
use crate::scenario::Scenario;
use crate::span::Span;
use crate::world::{ProcessId, World, at};

/// Looks at what a fault does.
type See<T> = fn(&World) -> T;

/// A fault of a scenario, from when to when, and what it is.
fn fault((from, to, what): &(u64, u64, &str)) -> String {
    format!("[[faults]]\nat = \"{from}s\"\nuntil = \"{to}s\"\nfault = {what}\n")
}

/// A world with faults.
fn world(faults: &[(u64, u64, &str)]) -> World {
    let head = "[settings]\nsafety = \"3m\"\n[[nodes]]\nname = \"a\"\n";
    parsed(&format!("{head}{}", faults.iter().map(fault).collect::<String>()))
}

fn parsed(text: &str) -> World {
    let scenario = Scenario::parse(Path::new("t.toml"), text)
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

/// A world of two API servers, the first of which the scheduler talks to, in which messages take
/// always the same time and twenty pods come after forty seconds.
fn linked(faults: &[(u64, u64, &str)]) -> World {
    let head = "[settings]\nsafety = \"3m\"\napi_servers = 2\n[settings.network]\n\
                control_plane = \"1ms\"\nnodes = \"1ms\"\nservice = \"1ms\"\nstore = \"1ms\"\n\
                [[nodes]]\nname = \"a\"\n[templates.web]\ncpu = \"10m\"\n\
                [[operations]]\nat = \"40s\"\ndo = \"create-deployment\"\nname = \"web\"\n\
                template = \"web\"\nreplicas = 20\n";
    parsed(&format!("{head}{}", faults.iter().map(fault).collect::<String>()))
}

fn scheduler(world: &World) -> ProcessId {
    world.process_of(&Component::Scheduler(0)).expect("it was planned")
}

fn until(world: &mut World, secs: u64) {
    while world.now() < at(Span::secs(secs)) && world.step() {}
}

/// Runs to the end; what it came to.
fn ended(mut world: World) -> String {
    world.run();
    assert!(world.settled(), "{:?}", world.gave_up());
    assert_eq!(world.violations(), []);
    world.effect_log_hash()
}

#[test]
fn runs_with_faults_of_links_and_clocks_repeat() {
    let without = ended(linked(&[]));
    for what in [
        "\"loss\"\ncomponent = \"scheduler-0\"\npercent = 40",
        "\"loss\"\ncomponent = \"kubelet/a\"\npercent = 40\ndirection = \"from-server\"",
        "\"reorder\"\ncomponent = \"scheduler-0\"\napi_server = 0\npercent = 50\nby = \"2s\"",
        "\"delay\"\ncomponent = \"scheduler-0\"\napi_server = 0\nextra = { min = \"0s\", max = \"2s\" }",
        "\"duplicate\"\ncomponent = \"kubelet/a\"\napi_server = 0\npercent = 50",
        "\"clock-behind\"\ncomponent = \"scheduler-0\"\nbehind = \"20s\"",
        "\"watch-break\"\ncomponent = \"kubelet/a\"",
        "\"watch-coalescing\"\ncomponent = \"controller-manager-0\"\nperiod = \"1s\"",
        "\"stale-reads\"\napi_server = 0\nlag = \"10s\"",
    ] {
        let run = || ended(linked(&[(30, 70, what)]));
        assert_eq!(run(), run(), "{what}");
        assert_ne!(run(), without, "{what}");
    }
}

#[test]
fn what_a_fault_has_delayed_is_waited_for() {
    let mut world = parsed(
        "[settings]\nsafety = \"1m\"\nquiet = \"10s\"\n[[nodes]]\nname = \"a\"\n[templates.web]\n\
         [[operations]]\nat = \"50s\"\ndo = \"create-pod\"\nname = \"web\"\ntemplate = \"web\"\n\
         [[faults]]\nat = \"45s\"\nfault = \"delay\"\ncomponent = \"kubelet/a\"\nextra = \"40s\"\n",
    );
    world.run();
    assert!(world.settled());
    let pod = oracle::pod(world.object(&Key::new(Kind::Pod, "default", "web")));
    assert_eq!(pod.map(oracle::phase), Some("Running"));
}

#[test]
fn what_goes_wrong_with_one_link_leaves_the_other_alone() {
    let what = "\"loss\"\ncomponent = \"scheduler-0\"\npercent = 100\napi_server = ";
    let bound = |server: u16| {
        let world = linked(&[(39, 90, &format!("{what}{server}"))]);
        seen(world, [60, 89, 150], World::pods_bound)
    };
    assert_eq!(bound(0), [0, 0, 20]);
    assert_eq!(bound(1), [20, 20, 20]);

    let mut world = linked(&[
        (30, 60, "\"delay\"\ncomponent = \"scheduler-0\"\napi_server = 1\nextra = \"3s\""),
        (30, 60, "\"duplicate\"\ncomponent = \"scheduler-0\"\napi_server = 1\npercent = 9"),
        (
            30,
            60,
            "\"reorder\"\ncomponent = \"scheduler-0\"\napi_server = 0\npercent = 100\nby = \"5s\"",
        ),
        (
            30,
            60,
            "\"loss\"\ncomponent = \"scheduler-0\"\napi_server = 1\npercent = 100\ndirection = \"to-server\"",
        ),
    ]);
    let id = scheduler(&world);
    until(&mut world, 45);
    assert_eq!(world.one_way_of(id, 1), Span(3_001_000_000));
    let held: Vec<Span> = (0..100).map(|_| world.one_way_of(id, 0)).collect();
    assert!(held.iter().all(|span| *span <= Span::millis(5_001)), "{held:?}");
    assert!(held.iter().any(|span| *span > Span::secs(4)), "{held:?}");
    assert!(held.iter().any(|span| *span < Span::secs(1)), "{held:?}");
    assert!(world.loses(id, 1, Direction::ToServer));
    assert!(!world.loses(id, 1, Direction::FromServer));
    assert!(!world.loses(id, 0, Direction::ToServer));
    let twice = |world: &World, server| {
        world.processes[id.index()].trouble.as_ref().map(|trouble| trouble.duplicates(server))
    };
    assert_eq!((twice(&world, 0), twice(&world, 1)), (Some(0), Some(9)));
    until(&mut world, 61);
    assert_eq!(world.one_way_of(id, 0), Span::millis(1));
    assert_eq!(twice(&world, 1), None);
}

/// Tells of bindings: whether they are carried out or only asked for, and of which pod.
#[derive(Clone)]
struct Bindings(Sender<(bool, Key)>);

impl Check for Bindings {
    fn property(&self) -> &'static str {
        "bindings"
    }

    fn statement(&self) -> &'static str {
        "tells of bindings"
    }

    fn observe(&mut self, _: &dyn Cluster, occurrence: &Occurrence<'_>, _: &mut Vec<String>) {
        let (done, request) = match occurrence {
            Occurrence::Called { request, .. } => (false, request),
            Occurrence::Committed { request, .. } => (true, request),
            _ => return,
        };
        if let Request::Bind { pod, .. } = request {
            self.0.send((done, pod.clone())).unwrap();
        }
    }
}

#[test]
fn calls_overtake_each_other_only_where_they_are_said_to() {
    let order = |faults: &[(u64, u64, &str)]| -> (Vec<Key>, Vec<Key>) {
        let (told, bindings) = channel();
        let mut world = linked(faults);
        world.checks = vec![Box::new(Bindings(told))];
        until(&mut world, 89);
        drop(world);
        let (done, asked): (Vec<_>, Vec<_>) = bindings.into_iter().partition(|(done, _)| *done);
        let keys = |list: Vec<(bool, Key)>| list.into_iter().map(|(_, key)| key).collect();
        (keys(asked), keys(done))
    };
    let (asked, done) = order(&[]);
    assert_eq!((asked.len(), &asked), (20, &done));
    let what = "\"reorder\"\ncomponent = \"scheduler-0\"\npercent = 50\nby = \"2s\"";
    let (asked, done) = order(&[(39, 89, what)]);
    assert_ne!(asked, done);
}

#[test]
fn a_clock_that_is_set_back_stands_still_until_it_is_right() {
    let what = "\"clock-behind\"\ncomponent = \"scheduler-0\"\nbehind = \"20s\"";
    let crash = "\"crash\"\ncomponent = \"scheduler-0\"";
    let behind = |world: &World| {
        let clock = world.clock(scheduler(world));
        (world.now().since(clock) + Duration::from_millis(500)).as_secs()
    };
    // It has acted within two seconds before: it renews its lease.
    let [early, later, after] = seen(linked(&[(60, 100, what)]), [70, 95, 101], behind);
    assert!((10..=12).contains(&early), "{early}");
    assert_eq!((later, after), (20, 0));
    // Who starts meanwhile has seen nothing of the time before.
    let restarted = linked(&[(60, 100, what), (62, 64, crash)]);
    assert_eq!(seen(restarted, [65, 95, 101], behind), [20, 20, 0]);
}

/// What a watch told: whom, how old it was, and of what.
struct Told {
    to: ProcessId,
    secs: u64,
    /// How many writes came after it.
    behind: u64,
    /// The objects of a list, or the key of one that changed or went; nothing of a bookmark.
    what: Result<usize, Option<Key>>,
}

/// Tells what watches of pods tell.
#[derive(Clone)]
struct Deliveries {
    told: Sender<Told>,
    written: Revision,
}

impl Check for Deliveries {
    fn property(&self) -> &'static str {
        "deliveries"
    }

    fn statement(&self) -> &'static str {
        "tells what watches tell"
    }

    fn observe(&mut self, world: &dyn Cluster, occurrence: &Occurrence<'_>, _: &mut Vec<String>) {
        if let Occurrence::Committed { revision, .. } = occurrence {
            self.written = *revision;
        }
        let Occurrence::Delivered { to, event } = occurrence else { return };
        let (revision, what) = match event {
            WatchEvent::Replaced { kind: Kind::Pod, objects, revision } => {
                (*revision, Ok(objects.len()))
            }
            WatchEvent::Changed(object @ Object::Pod(_)) => {
                (object.revision(), Err(Some(object.key())))
            }
            WatchEvent::Deleted { key, revision } if key.kind == Kind::Pod => {
                (*revision, Err(Some(key.clone())))
            }
            WatchEvent::Progress { kind: Kind::Pod, revision } => (*revision, Err(None)),
            _ => return,
        };
        let secs = world.now().since(at(Span::ZERO)).as_secs();
        let behind = self.written.0.saturating_sub(revision.0);
        self.told.send(Told { to: *to, secs, behind, what }).unwrap();
    }
}

/// What was told of pods until all is over, with these faults.
fn told(faults: &[(u64, u64, &str)]) -> (World, Vec<Told>) {
    let (told, deliveries) = channel();
    let mut world = linked(faults);
    world.checks.push(Box::new(Deliveries { told, written: Revision(0) }));
    world.run();
    assert!(world.settled());
    assert_eq!(world.violations(), []);
    world.checks.clear();
    (world, deliveries.into_iter().collect())
}

/// How many lists the scheduler was told of since the pods came, and how many changes less than the
/// controller manager.
fn lists_and_missed((world, told): &(World, Vec<Told>)) -> (usize, usize) {
    let manager = world.process_of(&Component::ControllerManager(0)).unwrap();
    let of = |process| told.iter().filter(move |t| t.to == process && t.secs >= 39);
    let changes = |process| of(process).filter(|t| matches!(t.what, Err(Some(_)))).count();
    let lists = of(scheduler(world)).filter(|t| t.what.is_ok()).count();
    let all = changes(manager);
    assert!(all >= 60, "twenty pods are created, bound and run: {all}");
    (lists, all - changes(scheduler(world)))
}

#[test]
fn a_watch_that_breaks_goes_on_where_it_was() {
    assert_eq!(lists_and_missed(&told(&[])), (0, 0));
    let breaks = "\"watch-break\"\ncomponent = \"scheduler-0\"";
    // Creations are missed until the watch goes on, and then told one by one.
    assert_eq!(lists_and_missed(&told(&[(39, 60, breaks)])), (0, 0));
    let gap = "\"watch-gap\"\ncomponent = \"scheduler-0\"";
    let (lists, missed) = lists_and_missed(&told(&[(39, 60, gap)]));
    assert_eq!((lists, missed), (1, 20));
}

#[test]
fn a_watch_goes_on_with_another_server_and_lists_anew_where_nobody_knows() {
    let crash = |server| format!("\"crash\"\ncomponent = \"api-server-{server}\"");
    let (first, second) = (crash(0), crash(1));
    assert_eq!(lists_and_missed(&told(&[(40, 60, &first)])), (0, 0));
    // What was written while they were down servers do not know: after both have been, nobody does.
    let breaks = "\"watch-break\"\ncomponent = \"scheduler-0\"";
    let faults: [(u64, u64, &str); 3] = [(39, 70, breaks), (39, 50, &first), (55, 65, &second)];
    assert_eq!(lists_and_missed(&told(&faults)).0, 1);
}

#[test]
fn of_each_object_only_the_last_of_a_batch_is_told() {
    let what = "\"watch-coalescing\"\ncomponent = \"scheduler-0\"\nperiod = \"10s\"";
    let (world, told) = told(&[(35, 75, what)]);
    let batches = |secs| {
        let batch = told.iter().filter(|t| t.to == scheduler(&world) && t.secs == secs);
        batch.filter_map(|t| t.what.clone().err().flatten()).collect::<Vec<Key>>()
    };
    let first = batches(45);
    assert_eq!(first.len(), 20);
    for secs in 35..75 {
        let batch = batches(secs);
        assert!(batch.is_empty() || (secs - 35) % 10 == 0, "{batch:?} after {secs}s");
        let keys: BTreeSet<&Key> = batch.iter().collect();
        assert_eq!(keys.len(), batch.len(), "after {secs}s");
    }
}

#[test]
fn batches_of_two_faults_come_when_either_tells_and_not_while_watches_stall() {
    let slow = "\"watch-coalescing\"\ncomponent = \"scheduler-0\"\nperiod = \"10s\"";
    let fast = "\"watch-coalescing\"\ncomponent = \"scheduler-0\"\nperiod = \"7s\"";
    let stall = "\"watch-stall\"\ncomponent = \"scheduler-0\"";
    let told_at = |faults: &[(u64, u64, &str)]| {
        let (world, told) = told(faults);
        let to_it = told.iter().filter(|t| t.to == scheduler(&world) && t.secs >= 39);
        to_it.filter(|t| matches!(t.what, Err(Some(_)))).map(|t| t.secs).collect::<BTreeSet<u64>>()
    };
    let seen = told_at(&[(35, 75, slow), (37, 75, fast)]);
    // The pods come at 40, and are bound and run a few seconds after each batch.
    assert_eq!(seen.first(), Some(&44), "{seen:?}");
    assert!(seen.iter().all(|s| (s - 35) % 10 == 0 || (s - 37) % 7 == 0 || *s >= 75), "{seen:?}");
    assert!(seen.contains(&45) && seen.contains(&51), "{seen:?}");
    let seen = told_at(&[(35, 75, slow), (37, 75, fast), (38, 60, stall)]);
    assert_eq!(seen.first(), Some(&65), "{seen:?}");
}

#[test]
fn one_server_answers_lists_from_an_old_state() {
    let stale = |server| format!("\"stale-reads\"\napi_server = {server}\nlag = \"30s\"");
    let crash = |component: &str| format!("\"crash\"\ncomponent = \"{component}\"");
    // After the restart: when, how old and of how many.
    let lists = |server, component: &str| -> Vec<(u64, u64, usize)> {
        let (world, told) = told(&[(38, 100, &stale(server)), (50, 51, &crash(component))]);
        let component: Component = component.parse().unwrap();
        let of = |t: &&Told| world.component(t.to) == component && (50..100).contains(&t.secs);
        let list = |t: &Told| Some((t.secs, t.behind, *t.what.as_ref().ok()?));
        told.iter().filter(of).filter_map(list).collect()
    };
    // The scheduler talks to the first one.
    let [(51, behind, pods)] = lists(0, "scheduler-0")[..] else { panic!("not one list") };
    assert_eq!(pods, 0);
    assert!(behind >= 60, "{behind}");
    // Those of the other one are fresh. (There are no pods, for their makers know old states.)
    assert_eq!(lists(1, "scheduler-0"), [(51, 0, 0)]);
    // The kubelet talks to the first one, too, and waits until that has caught up.
    let [(secs, ..)] = lists(0, "kubelet/a")[..] else { panic!("not one list") };
    assert!(secs >= 75, "{secs}");
    // In its life nobody is shown an older state than before.
    let expired = "\"watch-expired\"\ncomponent = \"scheduler-0\"";
    let (world, told) = told(&[(45, 100, &stale(0)), (50, 51, expired)]);
    let list = told.iter().find(|t| t.to == scheduler(&world) && t.secs >= 50 && t.what.is_ok());
    assert_eq!(list.unwrap().what, Ok(20));
}
