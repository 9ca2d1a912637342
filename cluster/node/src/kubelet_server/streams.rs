//! The streams of exec and attach, whatever protocol carries them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use super::query::Query;
use super::spdy;
use super::websocket::Channel;

/// The other side must hear within this time that we are done, or is not listening.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long nothing may happen on a connection.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);
/// How often the other side is asked for a sign of life: dead connections show then.
pub(crate) const PING: Duration = Duration::from_secs(10);
/// Chunks of input that wait for the container.
pub(crate) const INPUT_CHUNKS: usize = 8;
/// Sizes of the terminal that wait to be set; more make no difference.
pub(crate) const SIZES: usize = 4;

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Standard input.
    pub(crate) stdin: bool,
    /// Standard output.
    pub(crate) stdout: bool,
    /// Standard error; never with a terminal, which has but one output.
    pub(crate) stderr: bool,
    /// A terminal.
    pub(crate) tty: bool,
}

impl Wanted {
    /// Reads a query in the kubelet's or in the API server's words.
    pub(crate) fn parse(query: &Query) -> Result<Self, Refusal> {
        let tty = query.any_on(["tty", "tty"]);
        let wanted = Self {
            stdin: query.any_on(["input", "stdin"]),
            stdout: query.any_on(["output", "stdout"]),
            stderr: query.any_on(["error", "stderr"]) && !tty,
            tty,
        };
        if !wanted.stdin && !wanted.stdout && !wanted.stderr {
            let message = "you must specify at least 1 of stdin, stdout, stderr";
            return Err(Refusal::bad_request(message));
        }
        Ok(wanted)
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TerminalSize {
    /// Columns.
    pub(crate) width: u16,
    /// Rows.
    pub(crate) height: u16,
}

/// Where output goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A numbered channel of a WebSocket.
    WebSocket(Channel),
    /// A stream of a SPDY session.
    Spdy(spdy::Writer),
}

/// The other side has gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Sink {
    /// Sends a chunk; waits while the other side is slower.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        match self {
            Self::WebSocket(channel) => channel.send(&bytes).await,
            Self::Spdy(writer) => writer.send(bytes).await.map_err(|_| Gone),
        }
    }
}

/// The streams of one exec or attach.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Input; ends when the other side closes it.
    pub(crate) stdin: Option<mpsc::Receiver<Bytes>>,
    /// Where standard output goes.
    pub(crate) stdout: Option<Sink>,
    /// Where standard error goes.
    pub(crate) stderr: Option<Sink>,
    /// New sizes of the terminal.
    pub(crate) resize: Option<mpsc::Receiver<TerminalSize>>,
    /// Cancelled when the connection has ended, or has to.
    pub(crate) gone: CancellationToken,
}

/// How an exec or attach ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The process ended with this code, or the container's streams ended (zero).
    Exited(i64),
    /// It could not be done.
    Failed(String),
    /// The other side left before.
    Gone,
}

impl Outcome {
    /// As `metav1.Status`, the form of protocol v4 and later.
    pub(crate) fn status(&self) -> Value {
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message().unwrap_or_default(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(_) | Self::Gone => {
                let message = self.message().unwrap_or_default();
                json!({
                    "metadata": {},
                    "status": "Failure",
                    "message": format!("Internal error occurred: {message}"),
                    "reason": "InternalError",
                    "details": {"causes": [{"message": message}]},
                    "code": 500,
                })
            }
        }
    }

    /// As text, the form of earlier protocols; `None` after success.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!(
                "command terminated with non-zero exit code: command terminated with exit code \
                 {code}"
            )),
            Self::Failed(why) => Some(format!("error executing command in container: {why}")),
            Self::Gone => Some("the connection ended".to_owned()),
        }
    }
}

/// When something last happened on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    last: Arc<Mutex<Instant>>,
}

impl Activity {
    /// Starts now.
    pub(crate) fn new() -> Self {
        Self { last: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Something happens.
    pub(crate) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has happened for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() >= last + limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_vocabularies() {
        let check = |query: &str| Wanted::parse(&Query::parse(query));
        let kubelet = check("input=1&output=1&error=1").unwrap();
        assert_eq!(Ok(kubelet), check("stdin=true&stdout=true&stderr=true"));
        assert!(kubelet.stdin && kubelet.stdout && kubelet.stderr && !kubelet.tty);
        assert!(!check("output=1&error=1&tty=1").unwrap().stderr);
        assert_eq!(check("tty=1&stdin=false").unwrap_err().code, 400);
    }

    #[test]
    fn statuses() {
        let check = |outcome: Outcome, json: &str, text: Option<&str>| {
            assert_eq!(outcome.status().to_string(), json);
            assert_eq!(outcome.message().as_deref(), text);
        };
        check(Outcome::Exited(0), r#"{"metadata":{},"status":"Success"}"#, None);
        let message =
            "command terminated with non-zero exit code: command terminated with exit code 3";
        check(
            Outcome::Exited(3),
            &format!(
                concat!(
                    r#"{{"details":{{"causes":[{{"message":"3","reason":"ExitCode"}}]}},"#,
                    r#""message":"{message}","metadata":{{}},"#,
                    r#""reason":"NonZeroExitCode","status":"Failure"}}"#
                ),
                message = message
            ),
            Some(message),
        );
        let failed = Outcome::Failed("x".into()).status();
        assert_eq!(
            failed["message"],
            "Internal error occurred: error executing command in container: x"
        );
    }

    #[tokio::test]
    async fn idleness() {
        let activity = Activity::new();
        activity.idle(Duration::ZERO).await;
        activity.touch();
        let hour = activity.idle(Duration::from_secs(3_600));
        assert_eq!(futures::FutureExt::now_or_never(hour), None);
    }
}
