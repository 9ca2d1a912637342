//! [`HollowRuntime`]: the model of a container runtime, by the wall clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use kubelet::container_runtime::{ContainerRuntime, Durations};
use kubelet::{NodeInput, RuntimeRequest};
use machine::CallId;
use tokio::sync::{Notify, mpsc};

use crate::kubelet_shell::NodeRuntime;

/// How long containers take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// To start a container, the pause container of a pod among them.
    pub start: Duration,
    /// From the signal that asks a container to end until it has ended.
    pub stop: Duration,
    /// To fetch an image that is not on the node.
    pub pull: Duration,
}

impl Durations for Delays {
    fn sandbox_start(&mut self) -> u64 {
        nanos(self.start)
    }

    fn container_start(&mut self) -> u64 {
        nanos(self.start)
    }

    fn stop(&mut self, grace_seconds: u32, obeys_after: u64) -> u64 {
        let obeyed = nanos(self.stop).saturating_add(obeys_after);
        obeyed.min(nanos(Duration::from_secs(u64::from(grace_seconds))))
    }

    fn pull(&mut self, _image: &str) -> u64 {
        nanos(self.pull)
    }

    fn other(&mut self) -> u64 {
        0
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The container runtime of a hollow node.
pub(super) struct HollowRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    model: Mutex<ContainerRuntime>,
    /// Something was planned, perhaps before all else.
    planned: Notify,
    delays: Delays,
    clock: Clock,
}

impl HollowRuntime {
    pub(super) fn new(model: ContainerRuntime, delays: Delays, clock: Clock) -> Self {
        let (model, planned) = (Mutex::new(model), Notify::new());
        Self { shared: Arc::new(Shared { model, planned, delays, clock }) }
    }
}

impl NodeRuntime for HollowRuntime {
    fn watch(&self, inputs: mpsc::Sender<NodeInput>) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        async move { shared.tell(&inputs).await }.boxed()
    }

    /// The answer comes with all other news.
    fn request(&self, id: CallId, request: RuntimeRequest, _: &mpsc::Sender<NodeInput>) {
        let Shared { model, planned, delays, clock } = &*self.shared;
        let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
        model.request(clock.now(), id, request, &mut { *delays }, None);
        drop(model);
        planned.notify_one();
    }
}

impl Shared {
    /// Sends what is due when it is, until the receiver is gone.
    async fn tell(&self, inputs: &mpsc::Sender<NodeInput>) {
        let mut news = Vec::new();
        loop {
            let next = {
                let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
                model.due(self.clock.now(), &mut news);
                model.next_due()
            };
            if news.is_empty() {
                let pause = next.map(|at| at.since(self.clock.now()));
                tokio::select! {
                    () = self.planned.notified() => {}
                    () = pause_for(pause) => {}
                    () = inputs.closed() => return,
                }
            }
            for input in news.drain(..) {
                if inputs.send(NodeInput::Runtime(input)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn pause_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use kubelet::container_runtime::NodeShape;
    use kubelet::{RuntimeEvent, RuntimeInput, RuntimeReply};

    use super::*;

    struct Node {
        runtime: HollowRuntime,
        inputs: mpsc::Sender<NodeInput>,
        news: mpsc::Receiver<NodeInput>,
    }

    impl Node {
        async fn new(delays: Delays) -> Self {
            let shape = NodeShape { cpus: 2, memory_bytes: 4 << 30, disk_bytes: 1 << 30 };
            let model = ContainerRuntime::new(shape, 0, 1);
            let runtime = HollowRuntime::new(model, delays, Clock::new());
            let (inputs, news) = mpsc::channel(4);
            tokio::spawn(runtime.watch(inputs.clone()));
            let mut node = Self { runtime, inputs, news };
            let connected = RuntimeInput::Event(RuntimeEvent::Connected);
            assert_eq!(node.news.recv().await, Some(NodeInput::Runtime(connected)));
            node
        }

        fn ask(&self, id: u64, request: RuntimeRequest) {
            self.runtime.request(CallId(id), request, &self.inputs);
        }

        async fn answer(&mut self) -> (u64, RuntimeReply) {
            match self.news.recv().await {
                Some(NodeInput::Runtime(RuntimeInput::Reply { id, result: Ok(reply) })) => {
                    (id.0, reply)
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn requests_are_answered_each_once_and_in_time() {
        let hour = Duration::from_secs(3600);
        let mut node = Node::new(Delays { pull: hour, ..Delays::default() }).await;
        node.ask(1, RuntimeRequest::PullImage { image: "slow".to_owned() });
        node.ask(2, RuntimeRequest::ReadFacts);
        node.ask(3, RuntimeRequest::List);
        let (id, RuntimeReply::Facts(facts)) = node.answer().await else { panic!("no facts") };
        assert_eq!((id, facts.cpus, facts.memory_bytes), (2, 2, 4 << 30));
        let (id, RuntimeReply::Listing { containers, .. }) = node.answer().await else {
            panic!("no list")
        };
        assert_eq!((id, containers.len()), (3, 0));
        // An image that takes an hour holds nobody else up.
        node.ask(4, RuntimeRequest::InspectImage { image: "slow".to_owned() });
        assert_eq!(node.answer().await, (4, RuntimeReply::Image(None)));
    }

    #[tokio::test]
    async fn it_ends_with_its_kubelet() {
        let shape = NodeShape { cpus: 1, memory_bytes: 1, disk_bytes: 1 };
        let model = ContainerRuntime::new(shape, 0, 1);
        let runtime = HollowRuntime::new(model, Delays::default(), Clock::new());
        let (inputs, mut news) = mpsc::channel(4);
        let task = tokio::spawn(runtime.watch(inputs));
        assert!(news.recv().await.is_some());
        drop(news);
        task.await.unwrap();
    }

    #[test]
    fn a_container_never_outlives_its_grace() {
        let mut delays = Delays { stop: Duration::from_secs(2), ..Delays::default() };
        assert_eq!(delays.stop(30, 0), 2_000_000_000);
        assert_eq!(delays.stop(1, 0), 1_000_000_000);
        assert_eq!(delays.stop(30, u64::MAX), 30_000_000_000);
        assert_eq!(delays.stop(0, 5), 0);
    }
}
