//! What befalls fake machines and the connections to them, from a seed.
//!
//! Every cut point has a name, `HOST: before STEP` or the like. A run can be killed at any of them
//! by its number; besides, connections are lost and machines crash by chance. Time is only added
//! up: nobody waits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How likely and how slow things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Climate {
    /// From which all chances come.
    pub seed: u64,
    /// Of a million cut points, how many lose the connection.
    pub losses_ppm: u64,
    /// Of a million cut points, how many crash the machine.
    pub crashes_ppm: u64,
    /// Longest time that passes at a cut point, in milliseconds.
    pub latency_ms_max: u64,
}

impl Climate {
    /// Nothing happens by chance.
    pub const CALM: Self = Self { seed: 0, losses_ppm: 0, crashes_ppm: 0, latency_ms_max: 0 };
}

/// The weather over any number of machines.
#[derive(Debug)]
pub struct Weather {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    climate: Climate,
    passed: u64,
    names: Option<Vec<String>>,
    kill_at: Option<u64>,
    killed: Option<String>,
    chances: BTreeMap<String, u64>,
    counts: Counts,
    elapsed_ms: BTreeMap<String, u64>,
}

/// How often something happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were lost.
    pub losses: u64,
    /// Machines that crashed.
    pub crashes: u64,
}

/// What happens at a cut point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing.
    Nothing,
    /// The program is killed: no connection works any more.
    Killed,
    /// This connection is lost.
    Loss,
    /// The machine boots anew.
    Crash,
}

impl Weather {
    /// The weather of `climate`; no run is killed.
    #[must_use]
    pub fn new(climate: Climate) -> Self {
        let inner = Inner {
            climate,
            passed: 0,
            names: None,
            kill_at: None,
            killed: None,
            chances: BTreeMap::new(),
            counts: Counts::default(),
            elapsed_ms: BTreeMap::new(),
        };
        Self { inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a run: it is killed at the cut point of this number, from 0. Names are kept from
    /// here on where `names` says so.
    pub fn begin(&self, kill_at: Option<u64>, names: bool) {
        let mut inner = self.inner();
        inner.passed = 0;
        inner.killed = None;
        inner.kill_at = kill_at;
        inner.names = names.then(Vec::new);
    }

    /// From here on nothing happens by chance.
    pub fn calm_down(&self) {
        self.inner().climate = Climate::CALM;
    }

    /// The cut points that the run has passed.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.inner().passed
    }

    /// The names of those, in order, where they were kept.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner().names.clone().unwrap_or_default()
    }

    /// Where the run was killed, if it was.
    #[must_use]
    pub fn killed(&self) -> Option<String> {
        self.inner().killed.clone()
    }

    /// What has happened in all runs.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// The time that has passed on the slowest machine, in milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.inner().elapsed_ms.values().copied().max().unwrap_or(0)
    }

    pub(super) fn pass(&self, machine: &str, doing: &str) -> Event {
        let mut inner = self.inner();
        let Climate { seed, losses_ppm, crashes_ppm, latency_ms_max } = inner.climate;
        if inner.killed.is_some() {
            return Event::Killed;
        }
        if let Some(names) = &mut inner.names {
            names.push(format!("{machine}: {doing}"));
        }
        if inner.kill_at == Some(inner.passed) {
            inner.killed = Some(format!("{machine}: {doing}"));
            return Event::Killed;
        }
        inner.passed += 1;
        if inner.climate == Climate::CALM {
            return Event::Nothing;
        }
        // Each machine has chances of its own, so that the order of hosts does not matter.
        let state = inner.chances.entry(machine.to_owned()).or_insert_with(|| {
            let name = crate::digest::Digest::of(machine.as_bytes()).short();
            seed ^ u64::from_str_radix(&name, 16).unwrap_or(0)
        });
        let (chance, latency) = (next(state) % 1_000_000, next(state));
        *inner.elapsed_ms.entry(machine.to_owned()).or_default() += latency % (latency_ms_max + 1);
        if chance < losses_ppm {
            inner.counts.losses += 1;
            Event::Loss
        } else if chance < losses_ppm + crashes_ppm {
            inner.counts.crashes += 1;
            Event::Crash
        } else {
            Event::Nothing
        }
    }
}

/// One step of splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
