//! Calls: from a process to an API server and back, with all that may become of them.

use std::sync::Arc;

use api::{ApiError, Kind, Object, Reason, Reply, Request, Status, Time};
use k8s_openapi::api::authentication::v1::TokenRequestStatus;
use machine::{ApiInput, CallId};
use rand::RngExt;
use registry::{Caller, Operation};

use super::process::{Input, Program, concerns};
use super::{Event, Phase, ProcessId, World, priority};
use crate::check::Occurrence;
use crate::plan::{Direction, Outcome};
use crate::span::Span;

/// Calls under way of one process, as in production's shell; more wait.
const CALLS_MAX: u16 = 192;
/// How long a process waits for an answer.
const PATIENCE: Span = Span::secs(5);
/// How long it takes to notice that no connection can be made.
const CONNECT: Span = Span::secs(1);
/// How long a connection that swallows everything is trusted.
const TRUSTED: Span = Span::secs(5);
/// How long an API server waits for the account of a namespace that was just made, and how often.
const ACCOUNT_WAIT: Span = Span::millis(100);
const ACCOUNT_WAITS: u8 = 10;

const TO_SERVER: Direction = Direction::ToServer;
const FROM_SERVER: Direction = Direction::FromServer;

#[derive(Clone)]
enum Body {
    Request(Request),
    Result(Result<Reply, ApiError>),
    /// It was taken out.
    Nothing,
}

#[derive(Clone)]
struct Call {
    process: ProcessId,
    life: u32,
    id: CallId,
    server: u16,
    /// Somebody waits for the answer.
    answered: bool,
    /// The server refuses it without looking.
    refused: bool,
    waits: u8,
    body: Body,
}

/// Calls under way.
#[derive(Clone, Default)]
pub(super) struct CallTable {
    calls: Vec<Option<Call>>,
    free: Vec<u32>,
}

impl CallTable {
    fn add(&mut self, call: Call) -> u32 {
        if let Some(index) = self.free.pop() {
            self.calls[index as usize] = Some(call);
            return index;
        }
        self.calls.push(Some(call));
        u32::try_from(self.calls.len() - 1).expect("fewer calls than numbers")
    }

    /// Who made a call that is under way.
    pub(super) fn process_of(&self, index: u32) -> Option<ProcessId> {
        self.calls.get(index as usize)?.as_ref().map(|call| call.process)
    }

    fn take(&mut self, index: u32) -> Option<Call> {
        let call = self.calls.get_mut(index as usize)?.take();
        if call.is_some() {
            self.free.push(index);
        }
        call
    }
}

impl World {
    /// How long a message between a process and the API server that it talks to takes.
    pub(super) fn one_way(&mut self, id: ProcessId) -> Span {
        self.one_way_of(id, self.processes[id.index()].server)
    }

    /// How long a message between a process and an API server takes.
    pub(super) fn one_way_of(&mut self, id: ProcessId, server: u16) -> Span {
        let network = &self.plan.settings.network;
        let process = &mut self.processes[id.index()];
        let distribution = match process.program {
            Program::Kubelet(_) => &network.nodes,
            Program::Scheduler(_) | Program::ControllerManager(_) => &network.control_plane,
        };
        let mut span = distribution.sample(&mut process.rng);
        if let Some(trouble) = &mut process.trouble {
            for (_, extra) in trouble.delays.iter().filter(|(link, _)| concerns(*link, server)) {
                span.0 += extra.sample(&mut process.rng).0;
            }
            span.0 += trouble.holds_back(server).0;
        }
        span
    }

    /// Whether the next message of that direction between a process and an API server is lost.
    pub(super) fn loses(&mut self, id: ProcessId, server: u16, direction: Direction) -> bool {
        let trouble = &mut self.processes[id.index()].trouble;
        trouble.as_mut().is_some_and(|trouble| trouble.loses(server, direction))
    }

    /// Whether messages of that direction are lost between a process and its API server.
    pub(super) fn is_cut_off(&self, id: ProcessId, direction: Direction) -> bool {
        let server = self.processes[id.index()].server;
        self.cut_off_since(id, server, direction).is_some()
    }

    fn cut_off_since(&self, id: ProcessId, server: u16, wanted: Direction) -> Option<Time> {
        let trouble = self.processes[id.index()].trouble.as_ref()?;
        let cuts = |direction: Direction| {
            direction == Direction::Both || wanted == Direction::Both || direction == wanted
        };
        let partitions = trouble.partitions.iter();
        partitions
            .filter(|(link, direction, _)| concerns(*link, server) && cuts(*direction))
            .map(|(_, _, since)| *since)
            .min()
    }

    /// An API server that the process reaches: the one it talks to, or else the next one.
    pub(super) fn reachable_server(&self, id: ProcessId, direction: Direction) -> Option<u16> {
        let servers = u16::try_from(self.servers.len()).expect("as many as the plan says");
        let first = self.processes[id.index()].server;
        (0..servers).map(|i| (first + i) % servers).find(|server| {
            self.servers[*server as usize].up
                && self.cut_off_since(id, *server, direction).is_none()
        })
    }

    /// A process makes a call.
    pub(super) fn call(&mut self, id: ProcessId, call: CallId, request: Request) {
        self.tell(&Occurrence::Called { by: id, request: &request });
        let process = &mut self.processes[id.index()];
        if process.in_flight >= CALLS_MAX {
            process.outbox.push_back((call, request));
            return;
        }
        process.in_flight += 1;
        self.send(id, call, request);
        self.crash_after_call(id);
    }

    /// The process dies now if that is what the plan wants after this call.
    fn crash_after_call(&mut self, id: ProcessId) {
        let process = &mut self.processes[id.index()];
        let Some(left) = process.crash_at_call else { return };
        if left > 1 {
            process.crash_at_call = Some(left - 1);
            return;
        }
        process.crash_at_call = None;
        self.crash(id);
        self.queue.push(self.now, priority::FAULT, Event::Start { process: id.0 });
    }

    fn send(&mut self, id: ProcessId, call: CallId, request: Request) {
        if self.cut_off_or_down(id, call, &request) {
            return;
        }
        let lost_on_the_way = self.loses(id, self.processes[id.index()].server, TO_SERVER);
        let fate = if lost_on_the_way { Some(Outcome::Lost) } else { self.fate(id) };
        let there = self.one_way(id);
        let service = {
            let process = &mut self.processes[id.index()];
            self.plan.settings.network.service.sample(&mut process.rng)
        };
        let arrives = self.now + Span(there.0 + service.0).duration();
        let process = &self.processes[id.index()];
        let mut sent = Call {
            process: id,
            life: process.life,
            id: call,
            server: process.server,
            answered: true,
            refused: false,
            waits: 0,
            body: Body::Request(request),
        };
        match fate {
            None => {}
            Some(Outcome::Refused) => sent.refused = true,
            Some(outcome) => {
                sent.answered = false;
                self.answer_after(id, call, PATIENCE, lost());
                if outcome == Outcome::Lost {
                    return;
                }
                if outcome == Outcome::CarriedOutLate {
                    let late = arrives + Span(2 * PATIENCE.0).duration();
                    let call = self.calls.add(sent);
                    self.queue.push(late, priority::MESSAGE, Event::Arrive { call });
                    return;
                }
            }
        }
        let call = self.calls.add(sent);
        self.queue.push(arrives, priority::MESSAGE, Event::Arrive { call });
    }

    /// What a fault makes of the next call.
    fn fate(&mut self, id: ProcessId) -> Option<Outcome> {
        let process = &mut self.processes[id.index()];
        let trouble = process.trouble.as_ref()?;
        let timeouts = trouble.timeouts.clone();
        timeouts
            .into_iter()
            .find(|(percent, _)| process.rng.random_range(0..100) < *percent)
            .map(|(_, outcome)| outcome)
    }

    /// Whether the call gets nowhere; its answer is then on its way.
    fn cut_off_or_down(&mut self, id: ProcessId, call: CallId, request: &Request) -> bool {
        let server = self.processes[id.index()].server;
        let to = self.cut_off_since(id, server, TO_SERVER);
        let from = self.cut_off_since(id, server, FROM_SERVER);
        let up = self.servers[server as usize].up;
        if up && to.is_none() && from.is_none() {
            return false;
        }
        let since = to.or(from);
        let trusted = since.is_some_and(|since| self.now.since(since) < TRUSTED.duration());
        if up && trusted {
            // The connection is still there, and swallows the call or its answer.
            if to.is_none() {
                let arrives = self.now + self.one_way(id).duration();
                let process = &self.processes[id.index()];
                let call = self.calls.add(Call {
                    process: id,
                    life: process.life,
                    id: call,
                    server,
                    answered: false,
                    refused: false,
                    waits: 0,
                    body: Body::Request(request.clone()),
                });
                self.queue.push(arrives, priority::MESSAGE, Event::Arrive { call });
            }
            self.answer_after(id, call, PATIENCE, lost());
            return true;
        }
        // A new connection is made, to whatever server can be reached.
        if let Some(next) = self.reachable_server(id, Direction::Both) {
            self.processes[id.index()].server = next;
            return false;
        }
        let unreachable = ApiError::Unreachable("connection refused (simulated)".to_owned());
        self.answer_after(id, call, CONNECT, Err(unreachable));
        true
    }

    fn answer_after(
        &mut self,
        id: ProcessId,
        call: CallId,
        delay: Span,
        result: Result<Reply, ApiError>,
    ) {
        let process = &self.processes[id.index()];
        let answer = self.calls.add(Call {
            process: id,
            life: process.life,
            id: call,
            server: process.server,
            answered: true,
            refused: false,
            waits: 0,
            body: Body::Result(result),
        });
        let due = self.now + delay.duration();
        self.queue.push(due, priority::MESSAGE, Event::Answer { call: answer });
    }

    /// An event for people is sent off; nobody waits for the answer.
    pub(super) fn send_record(&mut self, id: ProcessId, request: Request) {
        if self.loses(id, self.processes[id.index()].server, TO_SERVER) {
            return;
        }
        let due = self.now + self.one_way(id).duration();
        let process = &self.processes[id.index()];
        let call = self.calls.add(Call {
            process: id,
            life: process.life,
            id: CallId(u64::MAX),
            server: process.server,
            answered: false,
            refused: false,
            waits: 0,
            body: Body::Request(request),
        });
        self.queue.push(due, priority::MESSAGE, Event::Arrive { call });
    }

    /// A call arrives at its server.
    pub(super) fn arrive(&mut self, index: u32) {
        let Some(mut call) = self.calls.take(index) else { return };
        let body = std::mem::replace(&mut call.body, Body::Nothing);
        let Body::Request(request) = body else { return };
        if !self.servers[call.server as usize].up {
            if call.answered {
                let error = ApiError::Unreachable("connection refused (simulated)".to_owned());
                self.answer_after(call.process, call.id, Span::millis(1), Err(error));
            }
            return;
        }
        let result = if call.refused {
            Err(Status::new(Reason::Timeout, "the request timed out (simulated)").into())
        } else {
            self.serve(call.process, &request)
        };
        if waits_for_account(&result) && call.waits < ACCOUNT_WAITS {
            call.waits += 1;
            call.body = Body::Request(request);
            let due = self.now + ACCOUNT_WAIT.duration();
            let call = self.calls.add(call);
            self.queue.push(due, priority::MESSAGE, Event::Arrive { call });
            return;
        }
        if !call.answered {
            return;
        }
        let lost_on_the_way = self.cut_off_since(call.process, call.server, FROM_SERVER).is_some()
            || self.loses(call.process, call.server, FROM_SERVER);
        let result = if lost_on_the_way { lost() } else { result };
        let delay =
            if lost_on_the_way { PATIENCE } else { self.one_way_of(call.process, call.server) };
        call.body = Body::Result(result);
        let index = self.calls.add(call);
        let due = self.now + delay.duration();
        self.queue.push(due, priority::MESSAGE, Event::Answer { call: index });
    }

    /// Carries out a request.
    fn serve(&mut self, by: ProcessId, request: &Request) -> Result<Reply, ApiError> {
        match request {
            Request::Get(key) => match self.store.get(key) {
                Some(object) => Ok(Reply::Object(object.clone())),
                None => Err(Status::not_found(key.kind, &key.name).into()),
            },
            Request::List { kind: Kind::PodMetrics, namespace, selector } => {
                Ok(Reply::Objects(self.pods_use(namespace, selector)?))
            }
            // Nothing else is measured here.
            Request::List { .. } => Err(Status::no_route().into()),
            Request::ReadRevision(kind) => {
                let revision = self.store.revision();
                self.announce(by, *kind, revision);
                Ok(Reply::Done(revision))
            }
            Request::Create(Object::TokenRequest(token)) => {
                let mut token = token.as_ref().clone();
                token.status = Some(TokenRequestStatus {
                    token: "simulated".to_owned(),
                    expiration_timestamp: (self.now + Span::secs(3_600).duration()).to_meta(),
                });
                Ok(Reply::Object(Object::TokenRequest(token.into())))
            }
            _ if self.store_down => {
                Err(Status::new(Reason::ServiceUnavailable, "the store has no leader (simulated)")
                    .into())
            }
            request => {
                let Some(operation) = Operation::of_request(request) else {
                    return Err(Status::no_route().into());
                };
                let caller = self.processes[by.index()].caller.clone();
                self.write(Some(by), request, &operation, &caller).map_err(ApiError::from)
            }
        }
    }

    /// Carries out one write and tells everybody.
    pub(super) fn write(
        &mut self,
        by: Option<ProcessId>,
        request: &Request,
        operation: &Operation,
        caller: &Caller,
    ) -> Result<Reply, Status> {
        let written = match self.store.write(operation, caller, self.now) {
            Ok(written) => written,
            Err(status) => {
                self.tell(&Occurrence::Answered { by, request, refusal: Some(&status) });
                return Err(status);
            }
        };
        let Some(revision) = written.revision else {
            self.tell(&Occurrence::Answered { by, request, refusal: None });
            return Ok(Reply::Object(written.answer));
        };
        self.writes += 1;
        self.log.number(revision.0);
        self.log.contents(&written.new);
        self.note_revision(revision);
        if !is_heartbeat(written.key.kind, written.old.as_ref(), written.new.as_ref()) {
            self.last_write = self.now;
            if self.phase == Phase::Liveness {
                self.last_written = Some((by, Arc::clone(&written.key)));
            }
        }
        let (old, new) = (written.old.as_ref(), written.new.as_ref());
        self.publish(&written.key, old, new, revision);
        for (key, old, new) in &written.charged {
            self.publish(key, Some(old), Some(new), revision);
        }
        self.tell(&Occurrence::Committed { by, request, key: &written.key, old, new, revision });
        Ok(Reply::Object(written.answer))
    }

    /// An answer arrives.
    pub(super) fn answer(&mut self, index: u32) {
        let Some(call) = self.calls.take(index) else { return };
        let Body::Result(result) = call.body else { return };
        let process = &mut self.processes[call.process.index()];
        if process.life != call.life || !process.is_up() {
            return;
        }
        process.in_flight = process.in_flight.saturating_sub(1);
        if let Some((next, request)) = process.outbox.pop_front() {
            process.in_flight += 1;
            self.send(call.process, next, request);
            self.crash_after_call(call.process);
        }
        self.feed(call.process, Input::Api(ApiInput::Reply { id: call.id, result }));
    }
}

fn lost() -> Result<Reply, ApiError> {
    Err(ApiError::Unknown("the answer was lost (simulated)".to_owned()))
}

/// Whether the API server looks again in a moment before it says that.
fn waits_for_account(result: &Result<Reply, ApiError>) -> bool {
    matches!(result, Err(ApiError::Status(status))
        if status.reason == Reason::Forbidden
            && status.message.contains("error looking up service account"))
}

/// Whether a write only says that somebody lives.
fn is_heartbeat(kind: Kind, old: Option<&Object>, new: Option<&Object>) -> bool {
    match (kind, old, new) {
        (Kind::Lease | Kind::Event, _, _) => true,
        (Kind::Node, Some(Object::Node(old)), Some(Object::Node(new))) => {
            let mut old = old.as_ref().clone();
            let conditions = |node: &mut k8s_openapi::api::core::v1::Node| {
                for condition in
                    node.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten())
                {
                    condition.last_heartbeat_time = None;
                }
                node.metadata.resource_version = None;
            };
            let mut new = new.as_ref().clone();
            conditions(&mut old);
            conditions(&mut new);
            old == new
        }
        _ => false,
    }
}
