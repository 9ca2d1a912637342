//! What every component does around its work: log, start the runtime, tell systemd, stop on a
//! signal.

use std::future::Future;
use std::process::ExitCode;

use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::flags::Log;

/// How many threads a component works on; each has its stack and its part of the heap.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// It seldom has anything to do, and never two things at once.
    One,
    /// It serves others while it works; it waits more than it computes.
    Two,
}

/// Runs a component until it ends or fails.
pub(crate) fn run(
    log: &Log,
    threads: Threads,
    component: impl Future<Output = anyhow::Result<()>>,
) -> ExitCode {
    start_logging(log);
    let runtime = match threads {
        Threads::One => Builder::new_current_thread().enable_all().build(),
        Threads::Two => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    let result = match runtime {
        Ok(runtime) => runtime.block_on(component),
        Err(error) => Err(error.into()),
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(log: &Log) {
    let level = match log.v {
        0 => "warn",
        1..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    // Libraries speak only when something is wrong, or when everything is wanted.
    let libraries = if log.v > 6 { "debug" } else { "warn" };
    let ours = [
        "api",
        "machine",
        "registry",
        "scheduler",
        "controllers",
        "kubelet",
        "network",
        "store",
        "apiserver",
        "client",
        "node",
        "hyperkube",
    ];
    let directives = ours.iter().map(|name| format!(",{name}={level}"));
    let filter = EnvFilter::new(directives.fold(libraries.to_owned(), |all, one| all + &one));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if log.logging_format == "json" {
        builder.json().init();
    } else {
        // journald adds the time itself, but a file or a terminal does not.
        builder.with_target(true).init();
    }
}

/// Becomes true on SIGTERM or SIGINT.
pub(crate) fn shutdown() -> anyhow::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true);
        // Keep the channel open: a closed one would read as an error.
        stop.closed().await;
    });
    Ok(stopped)
}

/// Tells systemd that the component serves.
pub(crate) fn ready() {
    tracing::info!(version = api::version::GIT_VERSION, "ready");
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "systemd was not told");
    }
}
