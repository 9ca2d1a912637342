//! `kube-scheduler`.

mod watcher;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{ArgAction, Args};
use client::{WatchSpec, drive};
use machine::recording::Header;
use machine::{Election, LeaderElector, RngTree};
use rand::RngExt;
use scheduler::{Desk, Scheduler, SchedulerConfig};

use crate::extenders::{Extended, Extenders};
use crate::flags::{Api, LeaderElection, Log, Serving};
use crate::health_server::{self, Health};
use crate::recording::Recording;
use crate::{daemon, scheduler_config_file};

/// Arguments of kube-scheduler.
#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) log: Log,
    /// `KubeSchedulerConfiguration` file, `kubescheduler.config.k8s.io/v1`: profiles, plugins and
    /// what they are told.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the configuration, with everything that the file leaves out, and exit.
    #[arg(long, value_name = "FILE", requires = "config")]
    write_config_to: Option<PathBuf>,
    /// Kubeconfig with the server, its CA and this component's certificate; one that the
    /// configuration file names comes first.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    kubeconfig: Option<PathBuf>,
    /// All API servers (`https://HOST:PORT`), tried in order; default: the kubeconfig's.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    api_servers: Vec<String>,
    #[command(flatten)]
    serving: Serving,
    /// Port for health checks, metrics and explanations.
    #[arg(long, default_value_t = 10259, value_name = "PORT")]
    secure_port: u16,
    /// Act only while holding a lease, `kube-system/kube-scheduler` if no other is named; default: as
    /// the configuration file says, else true.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true,
          action = ArgAction::Set)]
    leader_elect: Option<bool>,
    #[command(flatten)]
    election: LeaderElection,
    /// Take one decision in so many a second time, in the plain way, and log and count those that
    /// differ. No decision changes by it.
    #[arg(long, value_name = "N")]
    compare_decisions: Option<NonZeroU32>,
    #[command(flatten)]
    recording: Recording,
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

/// What the configuration file and the flags come to.
struct Settings {
    scheduler: SchedulerConfig,
    extenders: Extenders,
    /// `None` if it acts without competing.
    election: Option<Election>,
    api: Api,
}

impl Flags {
    /// `None` if there was nothing to do but to write a file.
    fn settings(&self) -> anyhow::Result<Option<Settings>> {
        let file = self.config.as_deref().map(scheduler_config_file::load).transpose()?;
        for remark in file.iter().flat_map(|file| &file.remarks) {
            tracing::warn!("{remark}");
        }
        if let (Some(path), Some(file)) = (&self.write_config_to, &file) {
            scheduler_config_file::write(path, file)?;
            return Ok(None);
        }
        let named = file.as_ref().and_then(|file| file.kubeconfig.as_ref()).map(PathBuf::from);
        let kubeconfig = named.or_else(|| self.kubeconfig.clone()).context(
            "no kubeconfig: give --kubeconfig, or clientConnection.kubeconfig in the file of --config",
        )?;
        let from_file = file.as_ref().and_then(|file| file.leader_elect);
        let competes = self.leader_elect.or(from_file).unwrap_or(true);
        let usual = || Election::of("kube-scheduler");
        let election = file.as_ref().map_or_else(usual, |file| file.election.clone());
        let election = competes.then(|| self.election.over(election)).transpose()?;
        let extenders = file
            .as_ref()
            .map(|file| Extenders::load(&file.scheduler.extenders, &file.extenders))
            .transpose()?;
        Ok(Some(Settings {
            election,
            extenders: extenders.unwrap_or_default(),
            scheduler: file.map(|file| file.scheduler).unwrap_or_default(),
            api: Api { kubeconfig, api_servers: self.api_servers.clone() },
        }))
    }
}

/// Runs until a signal.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<()> {
    let Some(settings) = flags.settings()? else { return Ok(()) };
    let shutdown = daemon::shutdown()?;
    let client = settings.api.client("kube-scheduler")?;
    let election = settings.election;
    let lease = election.as_ref().map_or("kube-scheduler", |election| &election.name);
    let identity = election.is_some().then(identity);
    let elector = election.clone().zip(identity.as_deref());
    let elector = elector.map(|(election, name)| LeaderElector::of(election, name));
    let seed = rand::rng().random();
    let header = Header {
        component: "kube-scheduler".to_owned(),
        seed,
        settings: serde_json::to_value(&settings.scheduler)?,
        identity,
        election: election.clone(),
    };
    let desk = Desk::new(&settings.scheduler)?;
    let mut scheduler = Scheduler::new(desk, elector, &RngTree::new(seed));
    if settings.scheduler.extenders.is_empty() {
        // Extenders look at what we do not, and get pods and nodes whole.
        scheduler.keep_lean();
    }
    scheduler.compare_decisions(flags.compare_decisions);
    let scheduler = flags.recording.of(scheduler, &header)?;
    let specs = Scheduler::KINDS.iter().copied().map(WatchSpec::all).collect();
    let (vitals, watcher) = watcher::pair(lease, flags.compare_decisions.is_some());
    health_server::serve(
        SocketAddr::new(flags.serving.bind_address, flags.secure_port),
        flags.serving.identity(),
        vitals as Arc<dyn Health>,
        shutdown.clone(),
    )
    .await?;
    daemon::ready();
    let caller = Extended::new(client.clone(), settings.extenders);
    drive(scheduler, client, caller, specs, shutdown, watcher, |scheduler, now, out| {
        scheduler.machine_mut().release(now, out);
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::Span;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    const SERVING: [&str; 3] =
        ["--tls-cert-file=/c", "--tls-private-key-file=/k", "--client-ca-file=/a"];

    fn flags(given: &[&str]) -> Result<Flags, String> {
        let line = [&["kube-scheduler"], given, &SERVING[..]].concat();
        Line::try_parse_from(line).map(|line| line.flags).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler.yaml");
        let text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let config = format!("--config={}", path.display());
        let settings = |given: &[&str]| flags(given).unwrap().settings();
        std::fs::write(&path, text).unwrap();
        let error = settings(&[&config]).err().unwrap();
        assert!(error.to_string().starts_with("no kubeconfig: "), "{error}");
        let of_flag = settings(&[&config, "--kubeconfig=/flag"]).unwrap().unwrap();
        assert_eq!(of_flag.api.kubeconfig, PathBuf::from("/flag"));
        assert_eq!(of_flag.election, Some(Election::of("kube-scheduler")));
        let more = "leaderElection: {leaderElect: false}\nclientConnection: {kubeconfig: /file}\n";
        std::fs::write(&path, format!("{text}{more}")).unwrap();
        let of_file = settings(&[&config, "--kubeconfig=/flag"]).unwrap().unwrap();
        assert_eq!((of_file.api.kubeconfig, of_file.election), ("/file".into(), None));
        let both = settings(&[&config, "--leader-elect"]).unwrap().unwrap();
        assert_eq!(both.election, Some(Election::of("kube-scheduler")));
        // What the command line says comes before the file.
        let more = "leaderElection: {resourceName: second, leaseDuration: 1m, retryPeriod: 5s}\n";
        std::fs::write(&path, format!("{text}{more}")).unwrap();
        let given = [
            &config,
            "--kubeconfig=/k",
            "--leader-elect-retry-period=3s",
            "--leader-elect-resource-namespace=batch",
        ];
        let expected = Election {
            namespace: "batch".to_owned(),
            lease_duration: Span::secs(60),
            retry_period: Span::secs(3),
            ..Election::of("second")
        };
        assert_eq!(settings(&given).unwrap().unwrap().election, Some(expected));
        let wrong = [&config, "--kubeconfig=/k", "--leader-elect-renew-deadline=60s"];
        let error = settings(&wrong).err().unwrap().to_string();
        let expected =
            "--leader-elect-lease-duration is 1m, which must be greater than `RenewDeadline`";
        assert_eq!(error, expected);
        std::fs::write(&path, format!("{text}leaderElection: {{leaderElect: false}}\nclientConnection: {{kubeconfig: /file}}\n")).unwrap();
        let out = folder.path().join("complete.yaml");
        let write = format!("--write-config-to={}", out.display());
        assert!(settings(&[&config, &write]).unwrap().is_none());
        let again = scheduler_config_file::load(&out).unwrap();
        assert_eq!((again.leader_elect, again.kubeconfig.as_deref()), (Some(false), Some("/file")));
    }

    #[test]
    fn what_the_command_line_refuses() {
        assert!(flags(&[]).err().unwrap().contains("--kubeconfig"));
        let zero = flags(&["--kubeconfig=/k", "--compare-decisions=0"]).err().unwrap();
        assert!(zero.contains("--compare-decisions"), "{zero}");
        assert!(flags(&["--kubeconfig=/k", "--write-config-to=/f"]).is_err());
    }
}
