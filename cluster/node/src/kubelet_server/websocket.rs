//! Kubernetes' channels over WebSocket, and WebSockets as plain byte streams.
//!
//! Every binary message starts with the number of its channel. Source: kubernetes 1.33,
//! `k8s.io/apimachinery/pkg/util/remotecommand/constants.go` and `httpstream/wsstream`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink as _, SinkExt, Stream as _, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::streams::{
    Activity, CLOSE_MAX, Gone, IDLE_MAX, INPUT_CHUNKS, Outcome, PING, SIZES, Sink, Streams,
    TerminalSize, Wanted,
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Clients send up to 32 KiB at once.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages that wait to be sent.
const OUTPUT_MESSAGES: usize = 8;

/// A version of the channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The error channel carries text.
    V1,
    /// The error channel carries a status.
    V4,
    /// As v4, and single channels can be closed.
    V5,
}

impl Version {
    /// The names of all versions, as clients ask for them.
    pub(crate) const NAMES: &'static [&'static str] =
        &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", ""];

    /// The version of a name.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "v5.channel.k8s.io" => Self::V5,
            "v4.channel.k8s.io" => Self::V4,
            _ => Self::V1,
        }
    }
}

type Socket<T> = WebSocketStream<T>;

/// Makes a WebSocket of a connection on which the handshake is done.
async fn socket<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> Socket<T> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_write_buffer_size(4 << 20)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// One outgoing channel.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    number: u8,
    out: mpsc::Sender<Message>,
}

impl Channel {
    /// Sends one message; waits while the other side is slower.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<(), Gone> {
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(self.number);
        message.put_slice(bytes);
        self.out.send(Message::Binary(message.freeze())).await.map_err(|_| Gone)
    }
}

/// A connection of numbered channels.
pub(crate) struct Connection {
    version: Version,
    error: Channel,
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
    _idle: AbortOnDropHandle<()>,
}

/// Opens the channels of an exec or attach.
pub(crate) async fn open<T>(
    io: T,
    version: Version,
    wanted: Wanted,
    gone: CancellationToken,
) -> (Streams, Connection)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket(io).await.split();
    let (out, messages) = mpsc::channel(OUTPUT_MESSAGES);
    let (stdin, stdin_chunks) = mpsc::channel(INPUT_CHUNKS);
    let (resize, sizes) = mpsc::channel(SIZES);
    let activity = Activity::new();
    let input = Input { version, stdin: wanted.stdin.then_some(stdin), resize };
    let channel = |number| Channel { number, out: out.clone() };
    let output = |wanted: bool, number| wanted.then(|| Sink::WebSocket(channel(number)));
    let streams = Streams {
        stdin: wanted.stdin.then_some(stdin_chunks),
        stdout: output(wanted.stdout, STDOUT),
        stderr: output(wanted.stderr, STDERR),
        resize: wanted.tty.then_some(sizes),
        gone: gone.clone(),
    };
    // Clients wait for a first message to know that the connection stands.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = channel(first).send(&[]).await;
    let reader = spawn_read(stream, input, activity.clone(), gone.clone());
    let writer = spawn_write(sink, messages, gone.clone());
    let idle = AbortOnDropHandle::new(tokio::spawn(async move {
        activity.idle(IDLE_MAX).await;
        gone.cancel();
    }));
    (streams, Connection { version, error: channel(ERROR), reader, writer, _idle: idle })
}

impl Connection {
    /// Tells how it ended and closes the connection.
    pub(crate) async fn finish(self, outcome: &Outcome) {
        let Self { version, error, reader, writer, .. } = self;
        if *outcome == Outcome::Gone {
            return;
        }
        let text = match version {
            Version::V1 => outcome.message().unwrap_or_default(),
            Version::V4 | Version::V5 => outcome.status().to_string(),
        };
        let done = async {
            if !text.is_empty() {
                error.send(text.as_bytes()).await?;
            }
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            error.out.send(Message::Close(Some(frame))).await.map_err(|_| Gone)?;
            drop(error);
            // What is sent may be lost when we end before the other side has read it.
            let _ = writer.await;
            let _ = reader.await;
            Ok::<_, Gone>(())
        };
        let _ = timeout(CLOSE_MAX, done).await;
    }
}

/// Where input goes.
struct Input {
    version: Version,
    stdin: Option<mpsc::Sender<Bytes>>,
    resize: mpsc::Sender<TerminalSize>,
}

impl Input {
    async fn take(&mut self, mut message: Bytes) {
        if message.is_empty() {
            return;
        }
        let payload = message.split_off(1);
        match message.first() {
            Some(&STDIN) if !payload.is_empty() => {
                if let Some(stdin) = &self.stdin
                    && stdin.send(payload).await.is_err()
                {
                    // The container reads no more: what comes is dropped.
                    self.stdin = None;
                }
            }
            Some(&RESIZE) => {
                if let Ok(size) = serde_json::from_slice(&payload) {
                    let _ = self.resize.try_send(size);
                }
            }
            Some(&CLOSE) if self.version == Version::V5 && *payload == [STDIN] => {
                self.stdin = None;
            }
            _ => {}
        }
    }
}

fn spawn_read<T>(
    mut stream: SplitStream<Socket<T>>,
    mut input: Input,
    activity: Activity,
    gone: CancellationToken,
) -> AbortOnDropHandle<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        // Whoever ends this task without asking has broken the connection.
        let _gone = gone.drop_guard();
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(bytes) => input.take(bytes).await,
                Message::Text(text) => input.take(Bytes::from(text)).await,
                Message::Close(_) => break,
                Message::Pong(_) => continue,
                Message::Ping(_) | Message::Frame(_) => {}
            }
            activity.touch();
        }
    }))
}

fn spawn_write<T>(
    mut sink: SplitSink<Socket<T>, Message>,
    mut messages: mpsc::Receiver<Message>,
    gone: CancellationToken,
) -> AbortOnDropHandle<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        loop {
            let sent = tokio::select! {
                message = messages.recv() => {
                    let Some(message) = message else { break };
                    let last = matches!(message, Message::Close(_));
                    let sent = sink.send(message).await;
                    if last {
                        break;
                    }
                    sent
                }
                _ = pings.tick() => {
                    // While input waits for the container nobody answers the client's pings:
                    // it also takes a pong that it did not ask for.
                    match sink.send(Message::Ping(Bytes::new())).await {
                        Ok(()) => sink.send(Message::Pong(Bytes::new())).await,
                        error => error,
                    }
                }
            };
            if sent.is_err() {
                gone.cancel();
                break;
            }
        }
    }))
}

/// A WebSocket whose binary messages are read and written as one stream of bytes.
pub(crate) struct ByteStream<T> {
    socket: Socket<T>,
    pending: Bytes,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream<T> {
    /// Reads and writes through a connection on which the handshake is done.
    pub(crate) async fn new(io: T) -> Self {
        Self { socket: socket(io).await, pending: Bytes::new() }
    }

    /// Reads and writes through a WebSocket, as a client does.
    #[cfg(test)]
    pub(crate) const fn of(socket: WebSocketStream<T>) -> Self {
        Self { socket, pending: Bytes::new() }
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.pending = bytes,
                Some(Ok(Message::Text(text))) => self.pending = Bytes::from(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                None
                | Some(
                    Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed),
                ) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = buffer.remaining().min(self.pending.len());
        buffer.put_slice(&self.pending.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let length = bytes.len().min(32 << 10);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..length]));
        socket.start_send(message).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

#[cfg(test)]
mod tests;
