//! [`drive`]: runs a machine against the real API.

use std::sync::Arc;

use api::{ApiError, Reply, Request};
use machine::{ApiEffect, ApiInput, Machine, Recorder, Report, WatchEvent};
use tokio::sync::{Semaphore, mpsc, watch as signal};
use tokio::time::{Duration, Instant};

use crate::{Client, Clock, WatchSpec, watch};

/// Carries out requests: the REST client, or a wrapper that answers some of them itself.
pub trait Caller: Clone + Send + Sync + 'static {
    /// Carries out one request.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, ApiError>> + Send;
}

impl Caller for Client {
    async fn call(&self, request: Request) -> Result<Reply, ApiError> {
        self.request(request).await
    }
}

/// Calls under way at a time; more wait. Enough to keep an API server of several cores busy.
const CALLS_MAX: usize = 192;
/// Events waiting to be written; more are dropped.
const RECORDS_MAX: usize = 1_024;
/// Inputs waiting for the machine; the watches pause when it is full.
const INPUTS_MAX: usize = 4_096;
/// How long the calls of a shutdown may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Looks at a machine, for metrics, readiness, and those who have questions.
pub trait Observe<M>: Send {
    /// Looks at the machine; called after each step.
    fn observe(&mut self, machine: &M);

    /// Returns when the machine shall be looked at though nothing happens to it. The call is
    /// dropped when something does, and must lose nothing by that.
    fn wanted(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

impl<M, F: FnMut(&M) + Send> Observe<M> for F {
    fn observe(&mut self, machine: &M) {
        self(machine);
    }
}

/// Runs `machine` until `shutdown` turns true: feeds it the watches `specs` and the answers to
/// its calls, wakes it when it asks. `farewell` runs last and may emit calls (for example to
/// release a lease). `observer` sees the machine after each step, and whenever it wants to.
pub async fn drive<M, C>(
    mut machine: M,
    client: Client,
    caller: C,
    specs: Vec<WatchSpec>,
    mut shutdown: signal::Receiver<bool>,
    mut observer: impl Observe<M>,
    farewell: impl FnOnce(&mut M, api::Time, &mut Vec<ApiEffect>) + Send,
) where
    M: Machine<Input = ApiInput, Effect = ApiEffect> + Send,
    C: Caller,
{
    let clock = Clock::new();
    let (inputs, mut incoming) = mpsc::channel::<ApiInput>(INPUTS_MAX);
    let watches = Watches::start(&client, specs, &inputs);
    let shell = Shell::new(caller, inputs);
    let mut effects = Vec::new();
    // The first wake lets machines that need no watch (an elector) begin.
    machine.step(clock.now(), ApiInput::Wake, &mut effects);
    shell.carry_out(&mut effects);
    loop {
        let sleep = machine.wake_at().map(|at| at.since(clock.now()));
        let input = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(input) = incoming.recv() => input,
            () = observer.wanted() => {
                observer.observe(&machine);
                continue;
            }
            () = sleep_for(sleep) => ApiInput::Wake,
        };
        machine.step(clock.now(), input, &mut effects);
        shell.carry_out(&mut effects);
        observer.observe(&machine);
    }
    drop(watches);
    farewell(&mut machine, clock.now(), &mut effects);
    shell.finish(&mut effects).await;
}

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep_until(Instant::now() + duration).await,
        None => std::future::pending().await,
    }
}

/// The tasks of all watches; dropping it ends them.
struct Watches {
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Watches {
    fn start(client: &Client, specs: Vec<WatchSpec>, inputs: &mpsc::Sender<ApiInput>) -> Self {
        let mut tasks = Vec::new();
        for spec in specs {
            let (sink, mut events) = mpsc::channel::<WatchEvent>(64);
            tasks.push(tokio::spawn(watch(client.clone(), spec, sink)));
            let inputs = inputs.clone();
            tasks.push(tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    if inputs.send(ApiInput::Watch(event)).await.is_err() {
                        return;
                    }
                }
            }));
        }
        Self { tasks }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Shell<C> {
    caller: C,
    inputs: mpsc::Sender<ApiInput>,
    slots: Arc<Semaphore>,
    records: mpsc::Sender<Box<Report>>,
}

impl<C: Caller> Shell<C> {
    fn new(caller: C, inputs: mpsc::Sender<ApiInput>) -> Self {
        let (records, mut queue) = mpsc::channel::<Box<Report>>(RECORDS_MAX);
        let writer = caller.clone();
        tokio::spawn(async move {
            let mut recorder = Recorder::default();
            while let Some(report) = queue.recv().await {
                if let Err(error) = writer.call(recorder.write(&report)).await {
                    tracing::debug!(%error, "event not written");
                }
            }
        });
        Self { caller, inputs, slots: Arc::new(Semaphore::new(CALLS_MAX)), records }
    }

    fn carry_out(&self, effects: &mut Vec<ApiEffect>) {
        for effect in effects.drain(..) {
            match effect {
                ApiEffect::Record(report) => {
                    if self.records.try_send(report).is_err() {
                        tracing::debug!("too many events: one is dropped");
                    }
                }
                ApiEffect::Call { id, request } => {
                    let caller = self.caller.clone();
                    let inputs = self.inputs.clone();
                    let slots = Arc::clone(&self.slots);
                    tokio::spawn(async move {
                        let Ok(_slot) = slots.acquire().await else { return };
                        let result = caller.call(request).await;
                        if let Err(error) = &result {
                            tracing::debug!(%error, "call failed");
                        }
                        let _ = inputs.send(ApiInput::Reply { id, result }).await;
                    });
                }
            }
        }
    }

    async fn finish(&self, effects: &mut Vec<ApiEffect>) {
        for effect in effects.drain(..) {
            let request = match effect {
                ApiEffect::Call { request, .. } => request,
                ApiEffect::Record(report) => Recorder::default().write(&report),
            };
            let call = self.caller.call(request);
            if tokio::time::timeout(FAREWELL, call).await.is_err() {
                tracing::warn!("a call at shutdown was not answered in time");
            }
        }
    }
}
