//! The order of changes, and a check of all that can happen to small clusters meanwhile.

use std::collections::{BTreeSet, VecDeque};

use super::*;

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| Wanted { name: name_of(name), peer_url: url(name) }).collect()
}

/// `c'` stands for the host `c` with another address.
fn name_of(host: &str) -> String {
    host.trim_end_matches('\'').to_owned()
}

fn url(host: &str) -> String {
    format!("https://{host}:2380")
}

fn voter(id: u64, host: &str) -> Member {
    Member {
        id,
        name: name_of(host),
        peer_url: url(host),
        is_learner: false,
        is_healthy: true,
        is_lost: false,
    }
}

fn voters(hosts: &[&str]) -> Vec<Member> {
    hosts.iter().zip(1..).map(|(host, id)| voter(id, host)).collect()
}

fn steps(wanted: &[Wanted], current: &[Member]) -> String {
    match plan(wanted, current) {
        Ok(planned) => planned.iter().map(|p| format!("{p}\n")).collect(),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn a_new_member_learns_before_it_votes() {
    insta::assert_snapshot!(steps(&wanted(&["a", "b", "c"]), &voters(&["a"])), @r"
    add b as a learner: then 1 of 1 voters are healthy, 1 are needed
    start etcd on b and let it catch up: then 1 of 1 voters are healthy, 1 are needed
    promote b: then 2 of 2 voters are healthy, 2 are needed
    add c as a learner: then 2 of 2 voters are healthy, 2 are needed
    start etcd on c and let it catch up: then 2 of 2 voters are healthy, 2 are needed
    promote c: then 3 of 3 voters are healthy, 2 are needed
    ");
    assert_eq!(steps(&wanted(&["a", "b"]), &voters(&["a", "b"])), "");
}

#[test]
fn a_dead_member_goes_before_its_successor_comes_and_a_healthy_one_after() {
    let mut current = voters(&["a", "b", "c"]);
    current[2].is_healthy = false;
    insta::assert_snapshot!(steps(&wanted(&["a", "b", "d"]), &current), @r"
    remove c: then 2 of 2 voters are healthy, 2 are needed
    add d as a learner: then 2 of 2 voters are healthy, 2 are needed
    start etcd on d and let it catch up: then 2 of 2 voters are healthy, 2 are needed
    promote d: then 3 of 3 voters are healthy, 2 are needed
    ");
    insta::assert_snapshot!(steps(&wanted(&["a", "b", "d"]), &voters(&["a", "b", "c"])), @r"
    add d as a learner: then 3 of 3 voters are healthy, 2 are needed
    start etcd on d and let it catch up: then 3 of 3 voters are healthy, 2 are needed
    promote d: then 4 of 4 voters are healthy, 3 are needed
    remove c: then 3 of 3 voters are healthy, 2 are needed
    ");
}

#[test]
fn a_host_that_lost_its_data_or_changed_its_address_is_another_member() {
    let mut current = voters(&["a", "b", "c"]);
    current[2].is_lost = true;
    let lost = steps(&wanted(&["a", "b", "c"]), &current);
    assert!(lost.starts_with("remove c: then 2 of 2"), "{lost}");
    assert_eq!(lost.lines().count(), 4, "{lost}");
    let moved = steps(&wanted(&["a", "b", "c'"]), &voters(&["a", "b", "c"]));
    assert!(moved.starts_with("remove c: then 2 of 2"), "{moved}");
    assert!(
        moved.ends_with("promote c: then 3 of 3 voters are healthy, 2 are needed\n"),
        "{moved}"
    );
}

#[test]
fn what_would_lose_the_quorum_is_refused_as_a_whole() {
    let mut current = voters(&["a", "b", "c"]);
    current[1].is_healthy = false;
    insta::assert_snapshot!(
        steps(&wanted(&["a", "b"]), &current),
        @"removing c from etcd would leave 1 healthy of 2 voters, and 2 are needed; not healthy: b"
    );
    current[2].is_healthy = false;
    insta::assert_snapshot!(
        steps(&wanted(&["a"]), &current),
        @"etcd has no quorum: 1 of 3 voters are healthy, and 2 are needed; not healthy: b, c"
    );
    assert_eq!(plan(&[], &current), Err(Refusal::Nobody));
}

#[test]
fn a_learner_that_was_left_behind_is_finished_or_removed() {
    let mut current = voters(&["a"]);
    let learner =
        Member { is_learner: true, is_healthy: false, name: String::new(), ..voter(9, "b") };
    current.push(learner);
    let goes_on = steps(&wanted(&["a", "b"]), &current);
    assert!(goes_on.starts_with("start etcd on b"), "{goes_on}");
    let given_up = steps(&wanted(&["a"]), &current);
    assert_eq!(given_up, "remove https://b:2380: then 1 of 1 voters are healthy, 1 are needed\n");
}

/// A host in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    role: Role,
    up: bool,
    started: bool,
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Outside,
    Learner,
    Voter,
}

/// A cluster in the model: one slot a host, and how many have lost their data so far.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    slots: Vec<Slot>,
    losses: usize,
}

/// Members are numbered from one on.
fn slot_of(id: u64) -> usize {
    usize::try_from(id).unwrap() - 1
}

struct Model {
    hosts: Vec<&'static str>,
    wanted: Vec<Wanted>,
    down_max: usize,
    losses_max: usize,
}

impl World {
    fn new(hosts: usize, voters: usize) -> Self {
        let slot = |at| Slot {
            role: if at < voters { Role::Voter } else { Role::Outside },
            up: true,
            started: at < voters,
            lost: false,
        };
        Self { slots: (0..hosts).map(slot).collect(), losses: 0 }
    }

    fn has_quorum(&self) -> bool {
        let voters: Vec<_> = self.slots.iter().filter(|slot| slot.role == Role::Voter).collect();
        voters.iter().filter(|slot| slot.up && !slot.lost).count() >= quorum(voters.len())
    }

    /// What an operator sees: without a quorum no member is healthy.
    fn observe(&self, hosts: &[&str]) -> Vec<Member> {
        let quorum = self.has_quorum();
        let members = self.slots.iter().zip(hosts).zip(1..);
        let members = members.filter(|((slot, _), _)| slot.role != Role::Outside);
        members
            .map(|((slot, host), id)| Member {
                name: if slot.started { name_of(host) } else { String::new() },
                is_learner: slot.role == Role::Learner,
                is_healthy: quorum && slot.up && slot.started && !slot.lost,
                is_lost: slot.lost,
                ..voter(id, host)
            })
            .collect()
    }

    /// What etcd does when it is told to; without a quorum it does nothing.
    fn act(&mut self, hosts: &[&str], change: &Change) {
        if !self.has_quorum() {
            return;
        }
        match change {
            Change::AddLearner { peer_url, .. } => {
                let at = hosts.iter().position(|host| url(host) == *peer_url).unwrap();
                let up = self.slots[at].up;
                self.slots[at] = Slot { role: Role::Learner, up, started: false, lost: false };
            }
            Change::Start { .. } => {
                let learner = self.slots.iter_mut().find(|slot| slot.role == Role::Learner);
                learner.filter(|slot| slot.up).unwrap().started = true;
            }
            // Refused by etcd unless the learner runs and has caught up.
            Change::Promote { id, .. } => {
                let slot = &mut self.slots[slot_of(*id)];
                if slot.up && slot.started {
                    slot.role = Role::Voter;
                }
            }
            Change::Remove { id, .. } => {
                let slot = &mut self.slots[slot_of(*id)];
                *slot = Slot { role: Role::Outside, started: false, lost: false, ..*slot };
            }
        }
    }

    fn down(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.up).count()
    }
}

impl Model {
    /// Visits every state that planner, failures, returns and losses of data can lead to, in any
    /// order and at any moment, between a look and the change that follows it too. An operator's
    /// run that dies and is started again is in there: the planner remembers nothing.
    fn explore(&self, start: World) -> usize {
        let mut seen = BTreeSet::from([start.clone()]);
        let mut queue = VecDeque::from([start]);
        while let Some(world) = queue.pop_front() {
            self.comes_to_an_end(world.clone());
            for next in self.successors(&world) {
                if seen.insert(next.clone()) {
                    queue.push_back(next);
                }
            }
        }
        seen.len()
    }

    fn successors(&self, world: &World) -> Vec<World> {
        let mut all = Vec::new();
        let decided = next(&self.wanted, &world.observe(&self.hosts));
        let change = decided.ok().flatten().map(|planned| planned.change);
        let may_act = |world: &World| match &change {
            Some(Change::Start { .. }) => {
                world.slots.iter().any(|slot| slot.role == Role::Learner && slot.up)
            }
            Some(_) => true,
            None => false,
        };
        if let Some(change) = change.as_ref().filter(|_| may_act(world)) {
            let mut after = world.clone();
            after.act(&self.hosts, change);
            assert!(world.has_quorum(), "{change} without a quorum in {world:?}");
            assert!(after.has_quorum(), "{change} loses the quorum of {world:?}");
            let learners = after.slots.iter().filter(|slot| slot.role == Role::Learner).count();
            assert!(learners <= 1, "{change} makes {learners} learners of {world:?}");
            all.push(after);
        }
        for at in 0..world.slots.len() {
            let slot = world.slots[at];
            if slot.role == Role::Outside && !self.is_wanted(at) {
                continue;
            }
            let with = |slot: Slot, losses: usize| {
                let mut world = world.clone();
                world.slots[at] = slot;
                world.losses += losses;
                world
            };
            if !slot.up {
                all.push(with(Slot { up: true, ..slot }, 0));
            } else if world.down() < self.down_max {
                let failed = with(Slot { up: false, ..slot }, 0);
                // It fails after the operator looked and before the change is made.
                if let Some(change) = change.as_ref().filter(|_| may_act(&failed)) {
                    let mut after = failed.clone();
                    after.act(&self.hosts, change);
                    let mut healed = after.clone();
                    healed.slots[at].up = true;
                    let fine = healed.has_quorum() || !world.has_quorum();
                    assert!(fine, "{change} is final in {world:?} when {} fails", self.hosts[at]);
                    all.push(after);
                }
                all.push(failed);
            }
            if slot.role == Role::Voter && !slot.lost && world.losses < self.losses_max {
                all.push(with(Slot { lost: true, ..slot }, 1));
            }
        }
        all
    }

    fn is_wanted(&self, at: usize) -> bool {
        self.wanted.iter().any(|wanted| wanted.peer_url == url(self.hosts[at]))
    }

    /// With every host up again, the planner reaches what is wanted, or says rightly why not.
    fn comes_to_an_end(&self, mut world: World) {
        world.slots.iter_mut().for_each(|slot| slot.up = true);
        for _ in 0..=4 * self.hosts.len() {
            match next(&self.wanted, &world.observe(&self.hosts)) {
                Ok(None) => {
                    for (at, slot) in world.slots.iter().enumerate() {
                        assert_eq!(slot.role == Role::Voter, self.is_wanted(at), "{world:?}");
                        assert!(slot.role != Role::Learner && !slot.lost, "{world:?}");
                    }
                    return;
                }
                Ok(Some(planned)) => world.act(&self.hosts, &planned.change),
                Err(Refusal::NoQuorum { .. }) => {
                    assert!(!world.has_quorum(), "{world:?}");
                    return;
                }
                // Only the last one of all cannot make room for its own successor.
                Err(refusal) => {
                    assert!(matches!(refusal, Refusal::Unsafe { voters: 0 | 1, .. }), "{refusal}");
                    return;
                }
            }
        }
        panic!("no end from {world:?} to {:?}", self.wanted);
    }
}

/// Explores the way from the first `voters` hosts to every set of hosts, one host of which has two
/// addresses. Gives the number of states.
fn check_all(hosts: &[&'static str], voters: usize, down_max: usize) -> usize {
    let mut states = 0;
    for set in 1..1_u32 << hosts.len() {
        let chosen: Vec<_> = (hosts.iter().enumerate())
            .filter(|(at, _)| set & (1 << at) != 0)
            .map(|(_, host)| *host)
            .collect();
        let names: BTreeSet<_> = chosen.iter().map(|host| name_of(host)).collect();
        if names.len() < chosen.len() {
            continue;
        }
        let (hosts, wanted) = (hosts.to_vec(), wanted(&chosen));
        let model = Model { wanted, down_max, losses_max: 1, hosts };
        states += model.explore(World::new(model.hosts.len(), voters));
    }
    states
}

#[test]
fn nothing_that_can_happen_to_three_members_loses_the_quorum() {
    let states = check_all(&["a", "b", "c", "d", "c'"], 3, 2);
    println!("3 members: {states} states");
    assert!(states > 1_000, "{states}");
}

#[test]
fn nothing_that_can_happen_to_five_members_loses_the_quorum() {
    let states = check_all(&["a", "b", "c", "d", "e", "f", "e'"], 5, 2);
    println!("5 members: {states} states");
    assert!(states > 10_000, "{states}");
}
