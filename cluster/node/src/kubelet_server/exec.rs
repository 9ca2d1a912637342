//! Commands in containers, and the containers' own streams, through the runtime.

use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::{AttachContainerOptions, ResizeContainerTTYOptions};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::containers::Running;
use super::streams::{Outcome, Sink, Streams, TerminalSize, Wanted};

/// The runtime's way out of a terminal would swallow what people type (Ctrl-P); this sequence
/// nobody types.
const DETACH_KEYS: &str = "ctrl-^,ctrl-],ctrl-^,ctrl-]";
/// The runtime knows the exit code soon after the last byte.
const EXIT_MAX: Duration = Duration::from_secs(30);
const EXIT_POLL: Duration = Duration::from_millis(20);
const EXIT_POLL_MAX: Duration = Duration::from_secs(1);
/// What a process that lost its client has before it is killed.
const LEAVE_MAX: Duration = Duration::from_secs(2);

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Whose terminal is resized.
enum Terminal {
    Exec(String),
    Container(String),
}

/// A command that was made in a container and not started yet.
pub(crate) struct Command {
    docker: Docker,
    id: String,
    container: String,
}

impl Command {
    /// Makes a command in a container.
    pub(crate) async fn new(
        docker: Docker,
        container: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let options = CreateExecOptions {
            attach_stdin: Some(wanted.stdin),
            attach_stdout: Some(wanted.stdout),
            attach_stderr: Some(wanted.stderr),
            tty: Some(wanted.tty),
            detach_keys: Some(DETACH_KEYS.to_owned()),
            cmd: Some(command),
            ..CreateExecOptions::default()
        };
        let id = docker.create_exec(container, options).await?.id;
        Ok(Self { docker, id, container: container.to_owned() })
    }

    /// Runs it to its end, or until the other side has gone.
    pub(crate) async fn run(self, streams: Streams) -> Outcome {
        // The terminal was asked for when the command was made. Here the runtime is only told to
        // frame the output, without which bytes of a terminal could be taken for a frame.
        let options =
            StartExecOptions { detach: false, tty: false, output_capacity: Some(32 << 10) };
        let (output, input) = match self.docker.start_exec(&self.id, Some(options)).await {
            Ok(StartExecResults::Attached { output, input }) => (output, input),
            Ok(StartExecResults::Detached) => {
                return Outcome::Failed("the runtime did not attach".to_owned());
            }
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let terminal = Terminal::Exec(self.id.clone());
        match pump(&self.docker, terminal, output, input, streams).await {
            Outcome::Exited(_) => match self.exit(EXIT_MAX).await {
                Some(code) => Outcome::Exited(code),
                None => Outcome::Failed("the exit code is not known".to_owned()),
            },
            Outcome::Gone => {
                // Its input is closed by now, which ends shells and filters.
                if self.exit(LEAVE_MAX).await.is_none() {
                    self.kill().await;
                }
                Outcome::Gone
            }
            failed @ Outcome::Failed(_) => failed,
        }
    }

    /// Waits for the exit code.
    async fn exit(&self, max: Duration) -> Option<i64> {
        let end = Instant::now() + max;
        let mut pause = EXIT_POLL;
        loop {
            match self.docker.inspect_exec(&self.id).await {
                Ok(found) if found.running != Some(true) => return found.exit_code,
                Ok(_) => {}
                Err(error) => tracing::debug!(exec = self.id, %error, "exec cannot be inspected"),
            }
            if Instant::now() + pause > end {
                return None;
            }
            sleep(pause).await;
            pause = (pause * 2).min(EXIT_POLL_MAX);
        }
    }

    /// Kills the process, for which the runtime has no call.
    async fn kill(&self) {
        let Ok(found) = self.docker.inspect_exec(&self.id).await else { return };
        let pid = found.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
        let (Some(true), Some(pid)) = (found.running, pid) else { return };
        // The number may belong to another process by now: it must be one of the container.
        let groups = tokio::fs::read_to_string(format!("/proc/{pid}/cgroup")).await;
        if groups.is_ok_and(|groups| groups.contains(&self.container)) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Connects to a container's own streams until it ends or the other side has gone.
pub(crate) async fn attach(
    docker: &Docker,
    container: Running,
    wanted: Wanted,
    streams: Streams,
) -> Outcome {
    let options = AttachContainerOptions {
        detach_keys: Some(DETACH_KEYS.to_owned()),
        logs: false,
        stream: true,
        stdin: wanted.stdin && container.open_stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let attached = match docker.attach_container(&container.id, Some(options)).await {
        Ok(attached) => attached,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let terminal = Terminal::Container(container.id);
    pump(docker, terminal, attached.output, attached.input, streams).await
}

/// Passes bytes both ways until the output ends.
async fn pump(
    docker: &Docker,
    terminal: Terminal,
    output: Output,
    input: Input,
    streams: Streams,
) -> Outcome {
    let Streams { stdin, stdout, stderr, resize, gone } = streams;
    let inward = async {
        let write = pump_in(input, stdin);
        let resize = pump_sizes(docker, &terminal, resize);
        // The unused half of the connection must stay open: closing it would detach.
        let (_input, ()) = tokio::join!(write, resize);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = pump_out(output, stdout, stderr) => outcome,
        () = inward => Outcome::Gone,
        () = gone.cancelled() => Outcome::Gone,
    }
}

async fn pump_out(mut output: Output, stdout: Option<Sink>, stderr: Option<Sink>) -> Outcome {
    while let Some(item) = output.next().await {
        let (sink, bytes) = match item {
            Ok(LogOutput::StdErr { message }) => (&stderr, message),
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => (&stdout, message),
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        if let Some(sink) = sink
            && sink.send(bytes).await.is_err()
        {
            return Outcome::Gone;
        }
    }
    Outcome::Exited(0)
}

async fn pump_in(mut input: Input, stdin: Option<mpsc::Receiver<Bytes>>) -> Input {
    let Some(mut stdin) = stdin else { return input };
    while let Some(bytes) = stdin.recv().await {
        let written = async {
            input.write_all(&bytes).await?;
            input.flush().await
        };
        if let Err(error) = written.await {
            // The process reads no more; its output may go on.
            tracing::debug!(%error, "standard input is closed");
            return input;
        }
    }
    let _ = input.shutdown().await;
    input
}

async fn pump_sizes(
    docker: &Docker,
    terminal: &Terminal,
    sizes: Option<mpsc::Receiver<TerminalSize>>,
) {
    let Some(mut sizes) = sizes else { return };
    while let Some(TerminalSize { width, height }) = sizes.recv().await {
        if width == 0 || height == 0 {
            continue;
        }
        let resized = match terminal {
            Terminal::Exec(id) => docker.resize_exec(id, ResizeExecOptions { height, width }).await,
            Terminal::Container(id) => {
                let options =
                    ResizeContainerTTYOptions { h: i32::from(height), w: i32::from(width) };
                docker.resize_container_tty(id, options).await
            }
        };
        if let Err(error) = resized {
            tracing::debug!(%error, "a terminal cannot be resized");
        }
    }
}
