//! kprov: the program around the `provisioner` library.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::Parser as _;
use provisioner::cli::{Cli, Exit, Surroundings};
use provisioner::secret::Secret;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let level = match cli.verbosity() {
        0 => "warn",
        1 => "provisioner=info,warn",
        _ => "provisioner=trace,info",
    };
    let surroundings = surroundings()?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(!surroundings.no_color && std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let stop = surroundings.stop.clone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let exit = runtime.block_on(async {
        let mut work = tokio::task::spawn_blocking(move || cli.run(&surroundings));
        tokio::select! {
            exit = &mut work => return exit,
            () = interruption() => {}
        }
        // The first interruption ends the run between two batches, so that its summary is true
        // and the locks are released in order; the second one ends it at once.
        stop.store(true, Ordering::Relaxed);
        tracing::warn!("stopping after the present step; interrupt again to stop at once");
        tokio::select! {
            exit = &mut work => exit,
            () = interruption() => Ok(Exit::Interrupted),
        }
    })?;
    // A blocked host must not keep the program: its connection ends with the process.
    runtime.shutdown_background();
    Ok(ExitCode::from(exit as u8))
}

/// Waits for Ctrl-C, or for a polite request to end.
async fn interruption() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}

/// All that the program takes from its environment.
fn surroundings() -> anyhow::Result<Surroundings> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let person = variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    let program = std::env::current_exe()?;
    let passphrase = OnceLock::new();
    if let Some(text) = variable("KPROV_PASSPHRASE") {
        passphrase.get_or_init(|| Secret::new(text));
    }
    let sudo_password = OnceLock::new();
    if let Some(text) = variable("KPROV_SUDO_PASSWORD") {
        sudo_password.get_or_init(|| Secret::new(text));
    }
    Ok(Surroundings {
        person: person.unwrap_or_else(|| "somebody".to_owned()),
        no_color: variable("NO_COLOR").is_some(),
        home: std::env::home_dir(),
        cache: cache.join("kprov"),
        stop: Arc::new(AtomicBool::new(false)),
        passphrase,
        ssh_passphrase: variable("KPROV_SSH_PASSPHRASE").map(Secret::new),
        sudo_password,
        jumps: Arc::default(),
        beside: program.parent().map(PathBuf::from).unwrap_or_default(),
    })
}
