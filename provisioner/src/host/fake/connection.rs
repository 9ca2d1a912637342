//! A connection to a fake machine.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::etcd::FakeEtcd;
use super::objects;
use super::weather::Event;
use super::{FakeMachine, FakeState};
use crate::digest::Digest;
use crate::facts::{Facts, FactsError, FactsQuery, LockRequest};
use crate::host::{CommandEnd, Host, HostError, HttpsAnswer, HttpsEndpoint, Probe, StepEvent};
use crate::plan::Upload;
use crate::step::Step;

pub(super) fn lost(doing: &str) -> HostError {
    let source = io::Error::new(io::ErrorKind::ConnectionReset, "the test cut the connection");
    HostError::Lost { doing: doing.to_owned(), source }
}

pub(super) struct FakeHost {
    machine: FakeMachine,
    owner: Option<String>,
    generation: u64,
    dead: bool,
}

impl FakeHost {
    pub(super) fn new(machine: FakeMachine) -> Self {
        Self { machine, owner: None, generation: 0, dead: false }
    }

    fn locked(&self) -> Result<MutexGuard<'_, FakeState>, HostError> {
        let mut state = self.machine.state();
        if self.dead {
            return Err(lost("reach the host"));
        }
        if self.owner.is_none() || state.lock != self.owner || state.fence > self.generation {
            return Err(HostError::LockLost);
        }
        state.fence = self.generation;
        state.round_trips += 1;
        Ok(state)
    }

    /// A named cut point: the weather decides.
    fn cut(&self, state: &mut FakeState, doing: &str, dead: &mut bool) -> Result<(), HostError> {
        state.cut(doing)?;
        let Some(weather) = &self.machine.weather else { return Ok(()) };
        match weather.pass(&self.machine.name, doing) {
            Event::Nothing => Ok(()),
            Event::Killed => Err(lost(doing)),
            Event::Loss => {
                *dead = true;
                Err(lost(doing))
            }
            Event::Crash => {
                state.reboot();
                *dead = true;
                Err(lost(doing))
            }
        }
    }

    fn answer(&self, method: &str, endpoint: &HttpsEndpoint, body: &str) -> HttpsAnswer {
        let mut state = self.machine.state();
        let at = endpoint.endpoint();
        if method != "GET" {
            state.sent.push(format!("{method} {at} {body}").trim_end().to_owned());
        }
        if let Some(objects) = &mut state.objects {
            return objects::answer(objects, method, &endpoint.path, body);
        }
        let status = state.unhealthy.get(&at).copied().unwrap_or(200);
        let body = state.answers.get(&at).cloned().unwrap_or_default();
        HttpsAnswer { status, body: body.into_bytes() }
    }

    /// The member on this machine answers while its unit runs.
    fn ask_etcd(
        &self,
        etcd: &mut FakeEtcd,
        endpoint: &HttpsEndpoint,
        json: &str,
    ) -> Result<HttpsAnswer, HostError> {
        let runs = self.machine.state().units.get("etcd.service").is_some_and(|unit| unit.active);
        let answer = match runs {
            true => etcd.answer(&endpoint.address, &self.machine.name, &endpoint.path, json),
            false => None,
        };
        let (status, body) = answer.ok_or_else(|| refused(endpoint))?;
        Ok(HttpsAnswer { status, body: body.to_string().into_bytes() })
    }
}

fn refused(endpoint: &HttpsEndpoint) -> HostError {
    let source = io::ErrorKind::ConnectionRefused.into();
    HostError::Https { endpoint: endpoint.endpoint(), source }
}

impl Host for FakeHost {
    fn name(&self) -> &str {
        &self.machine.name
    }

    fn facts(
        &mut self,
        query: &FactsQuery,
        lock: Option<&LockRequest>,
    ) -> Result<Facts, HostError> {
        let mut state = self.machine.state();
        if self.dead {
            return Err(lost("gather facts"));
        }
        state.round_trips += 1;
        let mut dead = false;
        let cut = self.cut(&mut state, "gather facts", &mut dead);
        self.dead |= dead;
        cut?;
        if let Some(request) = lock {
            if let Some(owner) = &state.lock {
                return Err(FactsError::Locked { owner: owner.clone() }.into());
            }
            state.lock = Some(request.owner.clone());
            self.owner = Some(request.owner.clone());
        }
        let mut facts = state.facts(query);
        // The looks of gates alone: those take no lock.
        for (unit, fact) in facts.units.iter_mut().filter(|_| lock.is_none()) {
            if state.looks.get_mut(unit).and_then(VecDeque::pop_front) == Some(false) {
                fact.active = "activating".to_owned();
            }
        }
        facts.holder = state.lock.clone().filter(|_| lock.is_none());
        Ok(facts)
    }

    fn read(&mut self, paths: &[String]) -> Result<BTreeMap<String, String>, HostError> {
        // A fake machine keeps digests, and only those texts that a test has given it.
        let state = self.machine.state();
        let text = |path: &String| Some((path.clone(), state.texts.get(path)?.clone()));
        Ok(paths.iter().filter_map(text).collect())
    }

    fn push(
        &mut self,
        uploads: &BTreeMap<Digest, Upload>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), HostError> {
        let mut dead = false;
        let mut push = || {
            let mut state = self.locked()?;
            self.cut(&mut state, "before sending", &mut dead)?;
            state.staged.clear();
            let mut total = 0;
            for (digest, upload) in uploads {
                state.staged.insert(*digest, upload.len());
                total += upload.len();
                sent(total);
                let doing = format!("after sending {}", digest.short());
                self.cut(&mut state, &doing, &mut dead)?;
            }
            Ok(())
        };
        let pushed = push();
        self.dead |= dead;
        pushed
    }

    fn run(
        &mut self,
        steps: &[Step],
        seen: &mut dyn FnMut(StepEvent<'_>),
    ) -> Result<(), HostError> {
        let mut dead = false;
        let mut run = || {
            let mut state = self.locked()?;
            for step in steps {
                let name = step.describe();
                self.cut(&mut state, &format!("before {name}"), &mut dead)?;
                seen(StepEvent::Begin(step));
                let failing = state.failing.contains(&name);
                let done = if failing { Err("told to fail".to_owned()) } else { state.apply(step) };
                done.map_err(|output| HostError::Step {
                    step: name.clone(),
                    code: 1,
                    output,
                    unit: step.unit().map(str::to_owned),
                })?;
                self.cut(&mut state, &format!("after {name}"), &mut dead)?;
            }
            Ok(())
        };
        let ran = run();
        self.dead |= dead;
        ran
    }

    fn get(&mut self, endpoint: &HttpsEndpoint) -> Result<HttpsAnswer, HostError> {
        Ok(self.answer("GET", endpoint, ""))
    }

    fn merge_patch(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
    ) -> Result<HttpsAnswer, HostError> {
        Ok(self.answer("PATCH", endpoint, json))
    }

    fn post(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
        _patience: Duration,
    ) -> Result<HttpsAnswer, HostError> {
        match self.machine.etcd.clone() {
            Some(etcd) => {
                let mut etcd = etcd.lock().unwrap_or_else(PoisonError::into_inner);
                self.ask_etcd(&mut etcd, endpoint, json)
            }
            None => Ok(self.answer("POST", endpoint, json)),
        }
    }

    fn delete(&mut self, endpoint: &HttpsEndpoint) -> Result<HttpsAnswer, HostError> {
        Ok(self.answer("DELETE", endpoint, ""))
    }

    fn download(
        &mut self,
        endpoint: &HttpsEndpoint,
        _json: &str,
        sink: &mut dyn io::Write,
    ) -> Result<(), HostError> {
        let body = self.machine.state().answers.get(&endpoint.endpoint()).cloned();
        let body = body.ok_or_else(|| refused(endpoint))?;
        let wrap = |source| HostError::Https { endpoint: endpoint.endpoint(), source };
        sink.write_all(body.as_bytes()).map_err(wrap)
    }

    fn served(&mut self, endpoint: &HttpsEndpoint) -> Result<Vec<Vec<u8>>, HostError> {
        let at = format!("{}:{}", endpoint.address, endpoint.port);
        let shown = self.machine.state().served.get(&at).cloned();
        shown.ok_or_else(|| refused(endpoint))
    }

    fn command(&mut self, command: &str, _limit: Duration) -> Result<CommandEnd, HostError> {
        let mut state = self.locked()?;
        state.commands.push(command.to_owned());
        let fine = CommandEnd { code: Some(0), output: String::new() };
        Ok(state.command_ends.get(command).cloned().unwrap_or(fine))
    }

    fn probe(&mut self, probe: &Probe<'_>) -> Result<String, HostError> {
        let mut state = self.machine.state();
        state.round_trips += 1;
        let kind = probe.arguments.first().cloned().unwrap_or_default();
        state.probes.get(&kind).cloned().ok_or_else(|| lost("measure"))
    }

    fn end_probe(&mut self) -> Result<(), HostError> {
        self.machine.state().round_trips += 1;
        Ok(())
    }

    fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    fn journal(&mut self, unit: &str, _lines: u32) -> Result<String, HostError> {
        Ok(format!("the journal of {unit}"))
    }

    fn break_lock(&mut self) -> Result<Option<String>, HostError> {
        Ok(self.machine.state().lock.take())
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        if self.owner.is_some() && state.lock == self.owner {
            state.lock = None;
        }
    }
}
