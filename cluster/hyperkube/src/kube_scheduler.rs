//! `kube-scheduler`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::{ArgAction, Args};
use client::{Clock, WatchSpec, drive};
use machine::recording::Header;
use machine::{LeaderElector, Recorded, RngTree};
use rand::RngExt;
use scheduler::{Profile, ProfileConfig, Scheduler};

use crate::daemon;
use crate::flags::{Api, Log, Serving};
use crate::health_server::{self, Health};
use crate::recording::Recording;

/// Arguments of kube-scheduler.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    serving: Serving,
    /// Port for health checks and metrics.
    #[arg(long, default_value_t = 10259, value_name = "PORT")]
    secure_port: u16,
    /// Act only while holding the lease `kube-system/kube-scheduler`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true",
          require_equals = true, action = ArgAction::Set)]
    leader_elect: bool,
    #[command(flatten)]
    recording: Recording,
}

#[derive(Default)]
struct Vitals {
    leads: AtomicBool,
    pending: AtomicUsize,
}

impl Health for Vitals {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> String {
        let mut text = leader_metric("kube-scheduler", self.leads.load(Ordering::Relaxed));
        text.push_str(&format!(
            "# TYPE scheduler_pending_pods gauge\nscheduler_pending_pods {}\n",
            self.pending.load(Ordering::Relaxed)
        ));
        text
    }
}

/// Whether the process holds its lease, in Prometheus' text format.
pub(crate) fn leader_metric(lease: &str, leads: bool) -> String {
    format!(
        "# TYPE leader_election_master_status gauge\n\
         leader_election_master_status{{name=\"{lease}\"}} {}\n",
        u8::from(leads)
    )
}

/// A name for this process that no other candidate has: host and a random part.
pub(crate) fn identity() -> String {
    let host = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_else(|_| "unknown".to_owned());
    format!("{host}_{:016x}", rand::rng().random::<u64>())
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let shutdown = daemon::shutdown()?;
    let client = flags.api.client("kube-scheduler")?;
    let identity = flags.leader_elect.then(identity);
    let elector = identity.as_deref().map(|name| LeaderElector::new("kube-scheduler", name));
    let seed = rand::rng().random();
    let config = ProfileConfig::default();
    let header = Header {
        component: "kube-scheduler".to_owned(),
        seed,
        settings: serde_json::to_value(&config)?,
        identity,
    };
    let scheduler = Scheduler::new(Profile::new(&config)?, elector, &RngTree::new(seed));
    let scheduler = flags.recording.of(scheduler, &header)?;
    let specs = Scheduler::KINDS.iter().copied().map(WatchSpec::all).collect();
    let vitals = Arc::new(Vitals::default());
    health_server::serve(
        SocketAddr::new(flags.serving.bind_address, flags.secure_port),
        flags.serving.identity(),
        Arc::clone(&vitals) as Arc<dyn Health>,
        shutdown.clone(),
    )
    .await?;
    daemon::ready();
    let clock = Clock::new();
    let observe = move |scheduler: &Recorded<Scheduler>| {
        let scheduler = scheduler.machine();
        vitals.leads.store(scheduler.is_leader(clock.now()), Ordering::Relaxed);
        vitals.pending.store(scheduler.pending(), Ordering::Relaxed);
    };
    drive(scheduler, client.clone(), client, specs, shutdown, observe, |scheduler, now, out| {
        scheduler.machine_mut().release(now, out);
    })
    .await;
    Ok(())
}
