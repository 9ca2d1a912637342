//! The command line of `lab`.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::future::try_join_all;
use lab::{Dockerd, Fault, HostKind, Lab, LabError, LabOptions, Snapshot, Subnet, test_images};

use crate::demo::{self, DemoOptions};

/// Real Linux hosts on one machine: containers with systemd, sshd and their own Docker.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    lab up --hosts 3                      three hosts, node-1 to node-3, 10.99.0.11 and on\n  \
    lab up --name ha --hosts 6            a second lab beside it\n  \
    lab exec node-1 -- docker ps\n  \
    lab fault pause node-2\n  \
    lab down"
)]
pub(crate) struct Cli {
    /// What is logged to stderr, as `info` or `lab=debug`.
    #[arg(long, global = true, env = "LAB_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
    /// Directory for the key, the outer daemon's data and images [default: .lab in the checkout]
    #[arg(long, global = true, env = "LAB_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Name of the lab; several may be up at once.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Boots hosts and waits until they answer; what is there already is kept.
    #[command(
        after_help = "Examples:\n  lab up\n  lab up --hosts 4               adds node-4 to a lab of three\n  lab up --name ha --hosts 6 --subnet 10.99.9.0/24\n  lab up --fresh                 starts over with bare hosts\n  lab up --name mixed --image centos7,centos9,ubuntu"
    )]
    Up(Up),
    /// Removes hosts, volumes and network, and stops the Docker that `up` started.
    #[command(
        after_help = "Examples:\n  lab down\n  lab down --name ha\n  lab down --purge               forgets the images as well"
    )]
    Down {
        /// Leave the Docker that `up` started running.
        #[arg(long)]
        keep_docker: bool,
        /// Remove that Docker's data and the test images too.
        #[arg(long, conflicts_with = "keep_docker")]
        purge: bool,
    },
    /// Shows the hosts.
    Status {
        /// How to print.
        #[arg(long, short, default_value = "text")]
        output: Format,
    },
    /// Runs a command as root on a host, past its sshd.
    #[command(
        after_help = "Examples:\n  lab exec node-1 -- systemctl --failed\n  lab exec node-2 -- sh -c 'docker ps | wc -l'"
    )]
    Exec {
        /// The host.
        host: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Opens an ssh session to a host, or runs a command through one.
    #[command(
        after_help = "Examples:\n  lab ssh node-1\n  lab ssh node-1 --user root -- journalctl --unit docker"
    )]
    Ssh {
        /// The host.
        host: String,
        /// The user: kprov (with sudo) or root.
        #[arg(long, default_value = "kprov")]
        user: String,
        /// The command; none opens a shell.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Makes a fault happen to a host, or ends it.
    #[command(
        after_help = "Examples:\n  lab fault kill node-3\n  lab fault start node-3         returns when it is ready\n  lab fault cut node-2; lab fault heal node-2"
    )]
    Fault {
        /// What happens.
        fault: Fault,
        /// The host.
        host: String,
    },
    /// Builds the test container images and writes them as tars for `docker load`.
    #[command(
        after_help = "Examples:\n  lab images\n  lab images --load              and into every host's Docker"
    )]
    Images {
        /// Directory to write to [default: images/ in the lab's directory]
        #[arg(long)]
        output: Option<PathBuf>,
        /// Load them into the Docker of every host as well.
        #[arg(long)]
        load: bool,
    },
    /// Prints what a host is: files, units, settings, links, rules, containers.
    Snapshot {
        /// The host.
        host: String,
    },
    /// Compares every host with what it was when `up` made it.
    BareCheck,
    /// Prints the environment that points `docker` at the outer Docker.
    #[command(after_help = "Examples:\n  eval $(lab env); docker ps")]
    Env,
    /// Shows the whole way: a lab, a cluster on it, a workload, an answer.
    Demo(DemoOptions),
}

#[derive(Debug, Args)]
struct Up {
    /// Number of hosts.
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Prefix of their names.
    #[arg(long, default_value = "node")]
    prefix: String,
    /// Range of their addresses, as 10.99.0.0/24 [default: that one, or a free one for --name]
    #[arg(long)]
    subnet: Option<Subnet>,
    /// What they are dressed as, in their order, as debian,ubuntu,centos7,centos9; the last one
    /// holds for the rest [default: debian]
    #[arg(long, value_delimiter = ',')]
    image: Vec<HostKind>,
    /// Do not start Docker on the hosts at boot.
    #[arg(long)]
    no_docker: bool,
    /// Remove a lab of this name first.
    #[arg(long)]
    fresh: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    let mut options = LabOptions::from_environment(&|name| std::env::var(name).ok());
    options.name.clone_from(&cli.name);
    if let Some(dir) = &cli.dir {
        options.dir = std::path::absolute(dir)?;
    }
    match cli.command {
        Action::Up(arguments) => up(options, arguments).await?,
        Action::Down { keep_docker, purge } => down(&options, keep_docker, purge).await?,
        Action::Status { output } => status(options, output).await?,
        Action::Exec { host, command } => return exec(options, &host, &command).await,
        Action::Ssh { host, user, command } => ssh(options, &host, &user, &command).await?,
        Action::Fault { fault, host } => Lab::open(options).await?.fault(&host, fault).await?,
        Action::Images { output, load } => images(options, output, load).await?,
        Action::Snapshot { host } => {
            say(&Lab::open(options).await?.snapshot(&host).await?.to_string())?;
        }
        Action::BareCheck => return bare_check(options).await,
        Action::Env => env(&options).await?,
        Action::Demo(arguments) => demo::run(options, &arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes to stdout, ending the line.
pub(crate) fn say(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n')).context("cannot write")
}

/// Writes an error and all its causes to stderr.
pub(crate) fn complain(error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    let _closed = writeln!(io::stderr().lock(), "lab: {}", causes.join(": "));
}

async fn up(options: LabOptions, arguments: Up) -> Result<()> {
    let start = Instant::now();
    let before: Vec<String> = match Lab::open(options.clone()).await {
        Ok(lab) if !arguments.fresh => lab.hosts().iter().map(|host| host.name.clone()).collect(),
        _ => Vec::new(),
    };
    let lab = Lab::up(LabOptions {
        hosts: arguments.hosts,
        prefix: arguments.prefix,
        kinds: arguments.image,
        subnet: arguments.subnet,
        docker_at_boot: !arguments.no_docker,
        fresh: arguments.fresh,
        ..options
    })
    .await?;
    let up = start.elapsed();
    let new = lab.hosts().iter().filter(|host| !before.contains(&host.name));
    let snapshots = new.map(async |host| Ok((host, lab.snapshot(&host.name).await?)));
    for (host, snapshot) in try_join_all(snapshots).await.map_err(|error: LabError| error)? {
        let path = baseline(&lab, &host.name);
        std::fs::create_dir_all(path.parent().context("a baseline lies in a directory")?)?;
        std::fs::write(&path, snapshot.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&table(&lab))?;
    say(&format!(
        "\nup in {:.1} s; ssh -i {} kprov@ADDRESS",
        up.as_secs_f64(),
        lab.ssh_key().display()
    ))
}

/// Where `up` notes what a host was at first.
fn baseline(lab: &Lab, host: &str) -> PathBuf {
    lab.options().dir.join("baseline").join(&lab.options().name).join(host)
}

fn table(lab: &Lab) -> String {
    let mut text = format!("{:<12} {:<16} {:<9} {}", "HOST", "ADDRESS", "STATE", "CONTAINER");
    for host in lab.hosts() {
        let state = format!("{:?}", host.state).to_lowercase();
        text.push_str(&format!(
            "\n{:<12} {:<16} {state:<9} {}",
            host.name,
            host.address.to_string(),
            host.container
        ));
    }
    text
}

async fn down(options: &LabOptions, keep_docker: bool, purge: bool) -> Result<()> {
    Lab::remove(options, keep_docker).await?;
    let baselines = options.dir.join("baseline").join(&options.name);
    if baselines.exists() {
        std::fs::remove_dir_all(baselines)?;
    }
    if !purge {
        return Ok(());
    }
    if Dockerd::find(options).await?.is_some_and(|daemon| daemon.ours) {
        bail!("another lab of this directory is up; `lab down --name NAME` removes it");
    }
    for dir in [options.dir.join("docker"), options.images_dir()] {
        if dir.exists() {
            std::fs::remove_dir_all(&dir)
                .with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    Ok(())
}

async fn status(options: LabOptions, format: Format) -> Result<()> {
    let lab = match Lab::open(options).await {
        Ok(lab) => lab,
        Err(error @ LabError::NoLab { .. }) => match format {
            Format::Text => return say(&error.to_string()),
            Format::Json => return say("{\"hosts\":[]}"),
        },
        Err(error) => return Err(error.into()),
    };
    match format {
        Format::Text => say(&format!(
            "{}\n\nrange {}, bridge {}, Docker {}, key {}",
            table(&lab),
            lab.subnet(),
            lab.bridge(),
            lab.daemon().address,
            lab.ssh_key().display()
        )),
        Format::Json => {
            let status = serde_json::json!({
                "name": lab.options().name,
                "subnet": lab.subnet().to_string(),
                "bridge": lab.bridge(),
                "docker": lab.daemon().address,
                "key": lab.ssh_key(),
                "hosts": lab.hosts(),
            });
            say(&serde_json::to_string_pretty(&status)?)
        }
    }
}

async fn exec(options: LabOptions, host: &str, command: &[String]) -> Result<ExitCode> {
    let lab = Lab::open(options).await?;
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let output = lab.exec(host, &words).await?;
    io::stdout().lock().write_all(output.stdout.as_bytes())?;
    io::stderr().lock().write_all(output.stderr.as_bytes())?;
    Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(u8::MAX)))
}

async fn ssh(options: LabOptions, host: &str, user: &str, command: &[String]) -> Result<()> {
    let lab = Lab::open(options).await?;
    let address = lab.host(host)?.address;
    // Hosts come and go at the same address, so their keys are not worth remembering.
    let error = Command::new("ssh")
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-i"])
        .arg(lab.ssh_key())
        .arg(format!("{user}@{address}"))
        .args(command)
        .exec();
    Err(error).context("cannot run ssh")
}

async fn images(options: LabOptions, output: Option<PathBuf>, load: bool) -> Result<()> {
    let dir = output.unwrap_or_else(|| options.images_dir());
    let images = test_images::write_all(&lab::workspace_root(), &dir).await?;
    for image in &images {
        say(&format!("{:<24} {:>9} {}", image.name, image.bytes, image.path.display()))?;
    }
    if load {
        let lab = Lab::open(options).await?;
        for host in lab.hosts() {
            lab.load_images(&host.name, &images).await?;
        }
    }
    Ok(())
}

async fn bare_check(options: LabOptions) -> Result<ExitCode> {
    let lab = Lab::open(options).await?;
    let mut code = ExitCode::SUCCESS;
    let snapshots =
        lab.hosts().iter().map(async |host| Ok((host, lab.snapshot(&host.name).await?)));
    for (host, now) in try_join_all(snapshots).await.map_err(|error: LabError| error)? {
        let path = baseline(&lab, &host.name);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: was the lab made by `up`?", path.display())
        })?;
        let differences = Snapshot::parse(&text).diff(&now);
        if differences.is_empty() {
            say(&format!("{}: as it was", host.name))?;
            continue;
        }
        code = ExitCode::FAILURE;
        say(&format!("{}: {} differences", host.name, differences.len()))?;
        for difference in differences {
            say(&format!("  {difference}"))?;
        }
    }
    Ok(code)
}

async fn env(options: &LabOptions) -> Result<()> {
    match Dockerd::find(options).await? {
        Some(daemon) => say(&format!("export DOCKER_HOST={}", daemon.address)),
        None => bail!("no Docker runs; `lab up` starts one"),
    }
}
