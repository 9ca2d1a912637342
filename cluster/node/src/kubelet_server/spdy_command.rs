//! Exec and attach over SPDY: one stream each for errors, input, outputs and terminal sizes.
//!
//! Source: kubernetes 1.33, `k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::spdy::{Session, Stream, Writer};
use super::streams::{Outcome, SIZES, Sink, Streams, TerminalSize, Wanted};

/// How long a client has to open the streams it asked for.
const STREAMS_MAX: Duration = Duration::from_secs(30);
/// A size is a short object.
const SIZE_BYTES_MAX: usize = 4 << 10;

/// The versions of the protocol, as clients ask for them.
pub(crate) const VERSIONS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// A session whose streams are all open.
pub(crate) struct Connection {
    session: Session,
    status: bool,
    error: Writer,
    outputs: Vec<Writer>,
    _sizes: Option<AbortOnDropHandle<()>>,
}

/// Waits for the streams of an exec or attach; `None` when they do not come.
pub(crate) async fn open<T>(
    io: T,
    version: &str,
    wanted: Wanted,
    gone: CancellationToken,
) -> Option<(Streams, Connection)>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = Session::start(io, gone.clone());
    let resizes = wanted.tty && matches!(version, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let opened = timeout(STREAMS_MAX, collect(&mut session, wanted, resizes)).await;
    let Ok(Some(opened)) = opened else {
        gone.cancel();
        return None;
    };
    let Opened { error, stdin, stdout, stderr, resize } = opened;
    let outputs = [&stdout, &stderr].into_iter().flatten().map(|s| s.writer.clone()).collect();
    let (sizes, _sizes) = match resize {
        Some(stream) => {
            let (sender, sizes) = mpsc::channel(SIZES);
            let task = tokio::spawn(read_sizes(stream.chunks, sender));
            (Some(sizes), Some(AbortOnDropHandle::new(task)))
        }
        None => (None, None),
    };
    let sink = |stream: Option<Stream>| stream.map(|s| Sink::Spdy(s.writer));
    let streams = Streams {
        stdin: stdin.map(|s| s.chunks),
        stdout: sink(stdout),
        stderr: sink(stderr),
        resize: sizes,
        gone,
    };
    let status = version == "v4.channel.k8s.io";
    let error = error?.writer;
    Some((streams, Connection { session, status, error, outputs, _sizes }))
}

impl Connection {
    /// Tells how it ended and closes the connection.
    pub(crate) async fn finish(self, outcome: &Outcome) {
        if *outcome == Outcome::Gone {
            return;
        }
        for output in &self.outputs {
            let _ = output.finish().await;
        }
        let text = if self.status {
            outcome.status().to_string()
        } else {
            outcome.message().unwrap_or_default()
        };
        let _ = self.error.send(Bytes::from(text)).await;
        let _ = self.error.finish().await;
        self.session.close().await;
    }
}

#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Takes streams until all that are expected are there.
async fn collect(session: &mut Session, wanted: Wanted, resizes: bool) -> Option<Opened> {
    let mut opened = Opened::default();
    loop {
        let complete = opened.error.is_some()
            && opened.stdin.is_some() == wanted.stdin
            && opened.stdout.is_some() == wanted.stdout
            && opened.stderr.is_some() == wanted.stderr
            && opened.resize.is_some() == resizes;
        if complete {
            return Some(opened);
        }
        let stream = session.accept().await?;
        let place = match stream.headers.get("streamtype").map(String::as_str) {
            Some("error") => &mut opened.error,
            Some("stdin") if wanted.stdin => &mut opened.stdin,
            Some("stdout") if wanted.stdout => &mut opened.stdout,
            Some("stderr") if wanted.stderr => &mut opened.stderr,
            Some("resize") if resizes => &mut opened.resize,
            _ => {
                stream.writer.reset().await;
                continue;
            }
        };
        *place = Some(stream);
    }
}

/// Reads sizes, one JSON object after the other.
async fn read_sizes(mut chunks: mpsc::Receiver<Bytes>, sizes: mpsc::Sender<TerminalSize>) {
    let mut text = BytesMut::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk);
        let mut stream = serde_json::Deserializer::from_slice(&text).into_iter::<TerminalSize>();
        let mut broken = false;
        for size in &mut stream {
            match size {
                Ok(size) => {
                    let _ = sizes.try_send(size);
                }
                Err(error) => {
                    broken = !error.is_eof();
                    break;
                }
            }
        }
        let read = stream.byte_offset();
        let _ = text.split_to(read.min(text.len()));
        if broken || text.len() > SIZE_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
