//! Connections into a pod over SPDY: each takes a stream for data and one for errors.
//!
//! Source: kubernetes 1.33, `k8s.io/kubelet/pkg/cri/streaming/portforward/httpstream.go`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::containers::Sandbox;
use super::spdy::{Session, Stream, Writer};

/// The name of the protocol.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
/// The same within a WebSocket.
pub(crate) const TUNNELED: &str = "SPDY/3.1+portforward.k8s.io";

/// Connections of one client at the same time.
const CONNECTIONS_MAX: usize = 256;
/// Connections of which one of the two streams is there.
const HALF_OPEN_MAX: usize = 64;
const CONNECT_MAX: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 32 << 10;

/// Forwards connections until the client has gone.
pub(crate) async fn serve(
    mut session: Session,
    sandbox: Sandbox,
    pod: String,
    gone: CancellationToken,
) {
    let place = Arc::new((sandbox, pod));
    let mut half_open: BTreeMap<String, (u16, Kind, Stream)> = BTreeMap::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = connections.join_next() => continue,
            () = gone.cancelled() => None,
        };
        let Some(stream) = stream else { break };
        let Some((port, kind, request)) = described(&stream) else {
            stream.writer.reset().await;
            continue;
        };
        match half_open.remove(&request) {
            Some((first_port, first_kind, first))
                if first_port == port
                    && first_kind != kind
                    && connections.len() < CONNECTIONS_MAX =>
            {
                let (data, error) =
                    if kind == Kind::Data { (stream, first) } else { (first, stream) };
                connections.spawn(forward(Arc::clone(&place), port, data, error));
            }
            Some((_, _, first)) => {
                first.writer.reset().await;
                stream.writer.reset().await;
            }
            None if half_open.len() < HALF_OPEN_MAX => {
                half_open.insert(request, (port, kind, stream));
            }
            None => stream.writer.reset().await,
        }
    }
    connections.shutdown().await;
    session.close().await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// The port, the role and the connection of a stream.
fn described(stream: &Stream) -> Option<(u16, Kind, String)> {
    let header = |name: &str| stream.headers.get(name).map(String::as_str);
    let port = header("port")?.parse().ok().filter(|port| *port > 0)?;
    let kind = match header("streamtype")? {
        "data" => Kind::Data,
        "error" => Kind::Error,
        _ => return None,
    };
    Some((port, kind, header("requestid")?.to_owned()))
}

async fn forward(place: Arc<(Sandbox, String)>, port: u16, data: Stream, error: Stream) {
    let (sandbox, pod) = place.as_ref();
    let Stream { chunks, writer, .. } = data;
    let connect = timeout(CONNECT_MAX, connect(sandbox, port)).await;
    let result = match connect.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(connection) => {
            tokio::select! {
                result = copy(connection, chunks, &writer) => result,
                () = writer.was_reset() => Ok(()),
            }
        }
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("failed to connect to localhost:{port} inside the pod's network: {error}"),
        )),
    };
    if let Err(why) = result {
        let message = format!("error forwarding port {port} to pod {pod}: {why}");
        let _ = error.writer.send(Bytes::from(message)).await;
    }
    let _ = writer.finish().await;
    let _ = error.writer.finish().await;
}

/// Passes bytes both ways until the pod closes.
async fn copy(
    connection: TcpStream,
    chunks: mpsc::Receiver<Bytes>,
    writer: &Writer,
) -> io::Result<()> {
    let (from_pod, to_pod) = connection.into_split();
    let inward = async {
        // A pod that reads no more may still have something to say.
        let _half_closed = copy_in(chunks, to_pod).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = copy_out(from_pod, writer) => result,
        () = inward => Ok(()),
    }
}

async fn copy_in(mut chunks: mpsc::Receiver<Bytes>, mut to_pod: OwnedWriteHalf) -> OwnedWriteHalf {
    while let Some(chunk) = chunks.recv().await {
        if to_pod.write_all(&chunk).await.is_err() {
            return to_pod;
        }
    }
    let _ = to_pod.shutdown().await;
    to_pod
}

async fn copy_out(mut from_pod: OwnedReadHalf, writer: &Writer) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK_BYTES);
        match from_pod.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => {
                if writer.send(buffer.split().freeze()).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Connects as a process of the pod would, so that servers on its loopback are reached too; where
/// its network cannot be entered, from the host.
async fn connect(sandbox: &Sandbox, port: u16) -> io::Result<TcpStream> {
    let network = match sandbox.pid {
        Some(pid) => File::open(format!("/proc/{pid}/ns/net")).ok(),
        None => None,
    };
    if let Some(network) = network {
        match inside(network, port).await {
            Inside::Connected(stream) => {
                stream.set_nonblocking(true)?;
                return TcpStream::from_std(stream);
            }
            Inside::Refused(error) => return Err(error),
            Inside::NotEntered => {}
        }
    }
    let no_address = || io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
    let address = sandbox.address.as_deref().ok_or_else(no_address)?;
    TcpStream::connect((address, port)).await
}

enum Inside {
    Connected(std::net::TcpStream),
    Refused(io::Error),
    NotEntered,
}

/// Connects on a thread of its own: entering a network is for the rest of a thread's life.
async fn inside(network: File, port: u16) -> Inside {
    let (answer, connected) = oneshot::channel();
    let thread = std::thread::Builder::new().name("port-forward".to_owned()).spawn(move || {
        let result = match setns(network, CloneFlags::CLONE_NEWNET) {
            Err(_) => Inside::NotEntered,
            Ok(()) => {
                let connect = |address: SocketAddr| {
                    std::net::TcpStream::connect_timeout(&address, CONNECT_MAX)
                };
                let v4 = connect((Ipv4Addr::LOCALHOST, port).into());
                match v4.or_else(|e| connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| e)) {
                    Ok(stream) => Inside::Connected(stream),
                    Err(error) => Inside::Refused(error),
                }
            }
        };
        let _ = answer.send(result);
    });
    match thread {
        Ok(_) => connected.await.unwrap_or(Inside::NotEntered),
        Err(_) => Inside::NotEntered,
    }
}

#[cfg(test)]
mod tests;
