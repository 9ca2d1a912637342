//! Docker's event stream as the kubelet's news.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt;
use kubelet::{NodeInput, RuntimeEvent, RuntimeInput, naming};
use tokio::sync::mpsc;

use super::error;

/// Between attempts to reach the daemon.
const RECONNECT: Duration = Duration::from_millis(500);
/// A daemon that does not answer a ping in this time is down.
const PING: Duration = Duration::from_secs(10);

/// Follows the daemon's events until the receiver is gone. Says when the daemon comes and goes.
pub(super) async fn watch(docker: Docker, inputs: mpsc::Sender<NodeInput>) {
    let mut told: Option<String> = None;
    while !inputs.is_closed() {
        let answer = tokio::time::timeout(PING, docker.ping()).await;
        let reason = match answer {
            Ok(Ok(_)) => {
                told = None;
                follow(&docker, &inputs).await
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
async fn follow(docker: &Docker, inputs: &mpsc::Sender<NodeInput>) -> String {
    let filters = HashMap::from([("type", vec!["container"]), ("label", vec![naming::OWNER])]);
    let options = EventsOptionsBuilder::new().filters(&filters).build();
    let mut events = std::pin::pin!(docker.events(Some(options)));
    // What happened before the stream began is found by the listing that follows.
    send(inputs, RuntimeEvent::Connected).await;
    loop {
        let next = tokio::select! {
            next = events.next() => next,
            () = inputs.closed() => return String::new(),
        };
        match next {
            Some(Ok(message)) => {
                if let Some(event) = change(message) {
                    send(inputs, event).await;
                }
            }
            Some(Err(error)) => return error::chain(&error),
            None => return "the event stream ended".to_owned(),
        }
    }
}

fn change(message: EventMessage) -> Option<RuntimeEvent> {
    if !matches!(message.action.as_deref(), Some("start" | "die" | "destroy")) {
        return None;
    }
    let actor = message.actor?;
    let attributes = actor.attributes?;
    Some(RuntimeEvent::ContainerChanged {
        id: actor.id?,
        pod_uid: attributes.get(naming::POD_UID)?.clone(),
        container: attributes.get(naming::CONTAINER_NAME)?.clone(),
    })
}
