//! News from the kernel about links, addresses, routes and neighbours.

use futures::StreamExt;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;

use super::KernelError;

/// Returns a channel that holds a token whenever something happened since the last one was
/// taken.
pub(super) fn subscribe() -> Result<mpsc::Receiver<()>, KernelError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Neigh,
    ];
    let (connection, handle, mut messages) =
        new_multicast_connection(&groups).map_err(KernelError::Connect)?;
    tokio::spawn(connection);
    // One token is enough: it says "look again", not what happened.
    let (sink, events) = mpsc::channel(1);
    tokio::spawn(async move {
        // The connection ends with its last handle.
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            if sink.is_closed() {
                return;
            }
            // A lost message (the socket overran) counts as news of anything.
            let matters = match &message.payload {
                NetlinkPayload::InnerMessage(message) => matters(message),
                _ => true,
            };
            if matters {
                let _ = sink.try_send(());
            }
        }
    });
    Ok(events)
}

/// Whether the overlay may be touched. Neighbours are learned all the time; only their loss
/// can be one of the overlay's.
const fn matters(message: &RouteNetlinkMessage) -> bool {
    !matches!(message, RouteNetlinkMessage::NewNeighbour(_))
}
