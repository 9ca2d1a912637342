//! SPDY/3.1 as Kubernetes' clients speak it: the client opens streams, each is accepted, data
//! flows both ways.
//!
//! There is no flow control but the connection's own: the clients neither keep to windows nor
//! announce them. Source: the SPDY/3.1 draft; `moby/spdystream` for what clients rely on.

mod frame;
mod header_block;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::streams::{Activity, CLOSE_MAX, IDLE_MAX, INPUT_CHUNKS, PING};
use frame::{Control, Encoder, FrameError, Head};
use header_block::Inflater;

/// Names, in lower case, and values.
pub(crate) type Headers = BTreeMap<String, String>;

/// What is read of a data frame at once.
const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Control frames carry a few short headers.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Streams that live at the same time; a forwarded connection takes two.
const STREAMS_MAX: usize = 1_024;
/// Frames that wait to be sent.
const OUTPUT_FRAMES: usize = 16;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// Why a session broke off.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the other side breaks the protocol: {0}")]
    Frame(#[from] FrameError),
}

/// The session is over, or the stream was reset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// A frame to send.
#[derive(Debug)]
enum Out {
    Reply(u32),
    Data { id: u32, bytes: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Ping(u32),
    GoAway { last: u32 },
}

/// The server's side of a session.
pub(crate) struct Session {
    streams: mpsc::Receiver<Stream>,
    out: mpsc::Sender<Out>,
    reader: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
    _idle: AbortOnDropHandle<()>,
}

/// A stream that the client opened.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What the client says about it.
    pub(crate) headers: Headers,
    /// What the client sends; ends when the client closes its half.
    pub(crate) chunks: mpsc::Receiver<Bytes>,
    /// The way back.
    pub(crate) writer: Writer,
}

/// The server's half of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    state: Arc<StreamState>,
    out: mpsc::Sender<Out>,
}

#[derive(Debug)]
struct StreamState {
    id: u32,
    reset: CancellationToken,
}

impl Session {
    /// Speaks over a connection, which is over when `gone` is cancelled, and cancels it.
    pub(crate) fn start<T>(io: T, gone: CancellationToken) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read_half, write_half) = tokio::io::split(io);
        let (out, frames) = mpsc::channel(OUTPUT_FRAMES);
        let (opened, streams) = mpsc::channel(INPUT_CHUNKS);
        let activity = Activity::new();
        let inbound = Inbound {
            streams: BTreeMap::new(),
            last: 0,
            opened,
            out: out.clone(),
            gone: gone.clone(),
        };
        let reader = AbortOnDropHandle::new(tokio::spawn({
            let (gone, activity) = (gone.clone(), activity.clone());
            async move {
                let _gone = gone.clone().drop_guard();
                tokio::select! {
                    result = read(BufReader::new(read_half), inbound, activity) => {
                        if let Err(error) = result {
                            tracing::debug!(error = %error_chain(&error), "a session broke off");
                        }
                    }
                    () = gone.cancelled() => {}
                }
            }
        }));
        let writer = AbortOnDropHandle::new(tokio::spawn({
            let gone = gone.clone();
            async move {
                if write(BufWriter::new(write_half), frames).await.is_err() {
                    gone.cancel();
                }
            }
        }));
        let idle = AbortOnDropHandle::new(tokio::spawn(async move {
            activity.idle(IDLE_MAX).await;
            gone.cancel();
        }));
        Self { streams, out, reader, writer, _idle: idle }
    }

    /// The next stream that the client opens; `None` when the session is over.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Ends the session when all that was sent is on its way.
    pub(crate) async fn close(self) {
        let Self { mut streams, out, reader, writer, .. } = self;
        streams.close();
        let done = async {
            if out.send(Out::GoAway { last: 0 }).await.is_ok() {
                let _ = writer.await;
                // What is sent may be lost when we end before the other side has read it.
                let _ = reader.await;
            }
        };
        let _ = timeout(CLOSE_MAX, done).await;
    }
}

impl Writer {
    /// Sends a chunk; waits while the other side is slower.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Closed> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.data(bytes, false).await
    }

    /// Closes this half: nothing may be sent after it.
    pub(crate) async fn finish(&self) -> Result<(), Closed> {
        self.data(Bytes::new(), true).await
    }

    /// Breaks the stream off.
    pub(crate) async fn reset(&self) {
        self.state.reset.cancel();
        let _ = self.out.send(Out::Reset { id: self.state.id, status: CANCEL }).await;
    }

    /// Returns when the client has broken the stream off.
    pub(crate) async fn was_reset(&self) {
        self.state.reset.cancelled().await;
    }

    async fn data(&self, bytes: Bytes, fin: bool) -> Result<(), Closed> {
        let data = Out::Data { id: self.state.id, bytes, fin };
        tokio::select! {
            biased;
            () = self.state.reset.cancelled() => Err(Closed),
            sent = self.out.send(data) => sent.map_err(|_| Closed),
        }
    }
}

/// What the reading half knows.
struct Inbound {
    streams: BTreeMap<u32, Entry>,
    last: u32,
    opened: mpsc::Sender<Stream>,
    out: mpsc::Sender<Out>,
    gone: CancellationToken,
}

struct Entry {
    /// Until the client closes its half or nobody listens.
    chunks: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    /// Gone when nobody writes any more.
    state: Weak<StreamState>,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.state.strong_count() > 0 || self.chunks.as_ref().is_some_and(|c| !c.is_closed())
    }
}

impl Inbound {
    async fn control(&mut self, control: Control) {
        match control {
            Control::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
            Control::SynReply { id, fin } | Control::Headers { id, fin } if fin => {
                self.finish(id);
            }
            Control::Reset { id } => {
                if let Some(entry) = self.streams.remove(&id) {
                    entry.reset.cancel();
                }
            }
            // Ours come back with even numbers. A full queue is sign of life enough.
            Control::Ping(id) if id % 2 == 1 => {
                let _ = self.out.try_send(Out::Ping(id));
            }
            _ => {}
        }
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        let valid = id % 2 == 1 && id > self.last;
        self.last = self.last.max(id);
        if self.streams.len() >= STREAMS_MAX {
            self.streams.retain(|_, entry| entry.is_used());
        }
        if !valid || self.streams.len() >= STREAMS_MAX {
            let status = if valid { REFUSED_STREAM } else { PROTOCOL_ERROR };
            let _ = self.out.send(Out::Reset { id, status }).await;
            return;
        }
        let reset = self.gone.child_token();
        let state = Arc::new(StreamState { id, reset: reset.clone() });
        let (sender, chunks) = mpsc::channel(INPUT_CHUNKS);
        let chunks_of = (!fin).then_some(sender);
        let entry = Entry { chunks: chunks_of, reset, state: Arc::downgrade(&state) };
        self.streams.insert(id, entry);
        let writer = Writer { state, out: self.out.clone() };
        let _ = self.out.send(Out::Reply(id)).await;
        if let Err(refused) = self.opened.send(Stream { headers, chunks, writer }).await {
            refused.0.writer.reset().await;
        }
    }

    async fn data(&mut self, id: u32, bytes: Bytes) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let Some(chunks) = &entry.chunks else { return };
        let taken = tokio::select! {
            sent = chunks.send(bytes) => sent.is_ok(),
            () = entry.reset.cancelled() => false,
        };
        if !taken {
            // Nobody listens: what is still to come is dropped.
            entry.chunks = None;
        }
    }

    fn finish(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.chunks = None;
        }
    }
}

async fn read<T: AsyncRead + Unpin>(
    mut io: T,
    mut inbound: Inbound,
    activity: Activity,
) -> Result<(), SessionError> {
    let mut inflater = Inflater::new();
    loop {
        let mut head = [0; frame::HEAD_BYTES];
        match io.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match Head::parse(head)? {
            Head::Data { id, fin, length } => {
                activity.touch();
                let mut left = length;
                while left > 0 {
                    let mut chunk = BytesMut::zeroed(left.min(CHUNK_BYTES_MAX));
                    io.read_exact(&mut chunk).await?;
                    left -= chunk.len();
                    inbound.data(id, chunk.freeze()).await;
                    activity.touch();
                }
                if fin {
                    inbound.finish(id);
                }
            }
            Head::Control { kind, flags, length } => {
                if length > CONTROL_BYTES_MAX {
                    return Err(FrameError::TooLong(length).into());
                }
                let mut payload = vec![0; length];
                io.read_exact(&mut payload).await?;
                let control = Control::parse(kind, flags, &payload, &mut inflater)?;
                if !matches!(control, Control::Ping(id) if id % 2 == 0) {
                    activity.touch();
                }
                inbound.control(control).await;
            }
        }
    }
}

async fn write<T: AsyncWrite + Unpin>(
    mut io: T,
    mut frames: mpsc::Receiver<Out>,
) -> io::Result<()> {
    let mut encoder = Encoder::new();
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut next_ping = 2_u32;
    loop {
        let out = tokio::select! {
            out = frames.recv() => out,
            _ = pings.tick() => {
                let ping = next_ping;
                next_ping = next_ping.wrapping_add(2);
                Some(Out::Ping(ping))
            }
        };
        let Some(out) = out else { return Ok(()) };
        match out {
            Out::Reply(id) => io.write_all(&encoder.syn_reply(id)).await?,
            Out::Data { id, bytes, fin } => {
                let mut chunks = bytes.chunks(CHUNK_BYTES_MAX).peekable();
                while let Some(chunk) = chunks.next() {
                    let last = fin && chunks.peek().is_none();
                    io.write_all(&frame::data_head(id, chunk.len(), last)).await?;
                    io.write_all(chunk).await?;
                }
                if fin && bytes.is_empty() {
                    io.write_all(&frame::data_head(id, 0, true)).await?;
                }
            }
            Out::Reset { id, status } => io.write_all(&frame::reset(id, status)).await?,
            Out::Ping(id) => io.write_all(&frame::ping(id)).await?,
            Out::GoAway { last } => {
                io.write_all(&frame::go_away(last)).await?;
                io.flush().await?;
                return io.shutdown().await;
            }
        }
        if frames.is_empty() {
            io.flush().await?;
        }
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", error_chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests;
