//! Docker's event stream as the kubelet's news.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt;
use kubelet::{NodeInput, RuntimeEvent, RuntimeInput, naming};
use tokio::sync::mpsc;

use super::{Runtime, error};

/// Between attempts to reach the daemon.
const RECONNECT: Duration = Duration::from_millis(500);
/// A daemon that does not answer a ping in this time is down.
const PING: Duration = Duration::from_secs(10);
/// A container that is not described in this time is asked for by the kubelet.
const INSPECT: Duration = Duration::from_secs(5);
/// So many containers are looked at at once when many end together.
const INSPECTIONS_MAX: usize = 16;

/// Follows the daemon's events until the receiver is gone. Says when the daemon comes and goes.
pub(super) async fn watch(runtime: Runtime, inputs: mpsc::Sender<NodeInput>) {
    let mut told: Option<String> = None;
    while !inputs.is_closed() {
        let answer = tokio::time::timeout(PING, runtime.docker.ping()).await;
        let reason = match answer {
            Ok(Ok(_)) => {
                told = None;
                follow(&runtime, &inputs).await
            }
            Ok(Err(error)) => error::chain(&error),
            Err(_) => format!("no answer within {PING:?}"),
        };
        if told.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "Docker is not reachable");
            told = Some(reason.clone());
            send(&inputs, RuntimeEvent::Disconnected { reason }).await;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn send(inputs: &mpsc::Sender<NodeInput>, event: RuntimeEvent) {
    let _ = inputs.send(NodeInput::Runtime(RuntimeInput::Event(event))).await;
}

/// Follows events until the daemon goes away; returns why it did.
async fn follow(runtime: &Runtime, inputs: &mpsc::Sender<NodeInput>) -> String {
    let filters = HashMap::from([("type", vec!["container"]), ("label", vec![naming::OWNER])]);
    let options = EventsOptionsBuilder::new().filters(&filters).build();
    let described = |message: Result<EventMessage, bollard::errors::Error>| async move {
        Ok::<_, bollard::errors::Error>(change(runtime, message?).await)
    };
    let news = runtime.docker.events(Some(options)).map(described);
    // In the order in which they happened.
    let mut news = std::pin::pin!(news.buffered(INSPECTIONS_MAX));
    // What happened before the stream began is found by the listing that follows.
    send(inputs, RuntimeEvent::Connected).await;
    loop {
        let next = tokio::select! {
            next = news.next() => next,
            () = inputs.closed() => return String::new(),
        };
        match next {
            Some(Ok(event)) => {
                if let Some(event) = event {
                    send(inputs, event).await;
                }
            }
            Some(Err(error)) => return error::chain(&error),
            None => return "the event stream ended".to_owned(),
        }
    }
}

/// What the daemon says of a container, with how it is since if it has ended: the kubelet would
/// ask.
async fn change(runtime: &Runtime, message: EventMessage) -> Option<RuntimeEvent> {
    let action = message.action?;
    if !matches!(&*action, "start" | "die" | "destroy") {
        return None;
    }
    let actor = message.actor?;
    let attributes = actor.attributes?;
    let id = actor.id?;
    let pod_uid = attributes.get(naming::POD_UID)?.clone();
    let container = attributes.get(naming::CONTAINER_NAME)?.clone();
    let record = match &*action {
        "die" => tokio::time::timeout(INSPECT, runtime.record(&id)).await.ok(),
        _ => None,
    };
    let record = record.and_then(Result::ok).flatten().map(Box::new);
    Some(RuntimeEvent::ContainerChanged { id, pod_uid, container, record })
}
