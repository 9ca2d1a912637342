//! The whole way on one machine: hosts, a cluster, a workload, an answer.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use lab::{Lab, LabOptions, test_images};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::cli::say;

/// Longest wait for pods, as kubectl is told.
const POD_TIMEOUT: &str = "--timeout=120s";
/// Longest wait for an answer through the service.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the demo's parts are.
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// The kprov program.
    #[arg(long, default_value = "target/release/kprov")]
    kprov: PathBuf,
    /// The inventory of three hosts at the lab's addresses.
    #[arg(long, default_value = "inventory/lab.toml")]
    inventory: PathBuf,
    /// The kubectl to show things with.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
}

/// Runs the demo and leaves it running.
pub(crate) async fn run(options: LabOptions, demo: &DemoOptions) -> Result<()> {
    let root = lab::workspace_root();
    let kubeconfig = options.dir.join("kubeconfig");
    let shell = Shell {
        kprov: root.join(&demo.kprov),
        kubectl: demo.kubectl.clone(),
        kubeconfig,
        root: root.clone(),
    };
    let inventory = demo.inventory.display().to_string();
    let mut steps = Steps::default();

    say("\n== Test images")?;
    // The inventory names them; kprov loads them where they are wanted.
    test_images::write_all(&root, &options.images_dir()).await?;
    steps.done("test images");
    say("== Three hosts with systemd, sshd and Docker")?;
    let lab = Lab::up(options).await?;
    steps.done("lab of 3 hosts");

    shell.kprov(&["apply", &inventory]).await?;
    steps.done("kprov apply from bare hosts");
    let text = shell.kprov_output(&["kubeconfig", &inventory]).await?;
    write_private(&shell.kubeconfig, &text)?;
    shell.kubectl(&["wait", "node", "--all", "--for=condition=Ready", POD_TIMEOUT]).await?;
    steps.done("all nodes Ready");
    shell.kprov(&["apply", &inventory]).await?;
    steps.done("second apply, nothing to do");

    shell.kubectl(&["get", "nodes,pods", "--all-namespaces", "--output=wide"]).await?;
    let first_time = !shell.exists(&["get", "deployment", "echo"]).await?;
    if first_time {
        let image = "--image=kprov.local/echo:1";
        shell.kubectl(&["create", "deployment", "echo", image, "--replicas=3"]).await?;
        let port = ["--port=80", "--target-port=8080", "--type=NodePort"];
        shell.kubectl(&[&["expose", "deployment", "echo"], port.as_slice()].concat()).await?;
    }
    shell.kubectl(&["rollout", "status", "deployment/echo", POD_TIMEOUT]).await?;
    steps.done("deployment of 3 echo pods");
    shell.kubectl(&["get", "pods,services", "--output=wide"]).await?;

    let path = "--output=jsonpath={.spec.ports[0].nodePort}";
    let port = shell.kubectl_output(&["get", "service", "echo", path]).await?;
    let port: u16 = port.trim().parse().context("the service has no node port")?;
    say(&format!("\n== http://NODE:{port}/ answers on every node"))?;
    for host in lab.hosts() {
        let answer = answer_within(host.address, port, ANSWER_TIMEOUT).await?;
        say(&format!("{:<8} {}", host.name, answer.trim_end()))?;
    }
    steps.done("an answer through every node");

    say(&format!(
        "\n{}\n\nIt keeps running. Try:\n  export KUBECONFIG={}\n  kubectl get pods --output=wide\n\
         `make demo-down` removes it.",
        steps.table(),
        shell.kubeconfig.display()
    ))
}

/// What took how long.
#[derive(Debug)]
struct Steps {
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { last: Instant::now(), done: Vec::new() }
    }
}

impl Steps {
    fn done(&mut self, name: &'static str) {
        self.done.push((name, self.last.elapsed()));
        self.last = Instant::now();
    }

    fn table(&self) -> String {
        let lines: Vec<String> = self
            .done
            .iter()
            .map(|(name, took)| format!("{name:<32} {:>6.1} s", took.as_secs_f64()))
            .collect();
        lines.join("\n")
    }
}

/// The programs that the demo shows.
#[derive(Debug)]
struct Shell {
    kprov: PathBuf,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    root: PathBuf,
}

impl Shell {
    async fn kprov(&self, arguments: &[&str]) -> Result<()> {
        show(self.command(&self.kprov, arguments)).await
    }

    async fn kprov_output(&self, arguments: &[&str]) -> Result<String> {
        output_of(self.command(&self.kprov, arguments)).await
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        show(self.command(&self.kubectl, arguments)).await
    }

    async fn kubectl_output(&self, arguments: &[&str]) -> Result<String> {
        output_of(self.command(&self.kubectl, arguments)).await
    }

    async fn exists(&self, arguments: &[&str]) -> Result<bool> {
        let mut command = self.command(&self.kubectl, arguments);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        Ok(status.context("cannot run kubectl")?.success())
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null());
        command
    }
}

/// Runs a command in the open, with the line that a user would type.
async fn show(mut command: Command) -> Result<()> {
    say(&format!("\n$ {}", line_of(&command)))?;
    let status = command.status().await;
    let status = status.with_context(|| format!("cannot run {}", line_of(&command)))?;
    if !status.success() {
        bail!("{}: {status}", line_of(&command));
    }
    Ok(())
}

async fn output_of(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().await;
    let output = output.with_context(|| format!("cannot run {}", line_of(&command)))?;
    if !output.status.success() {
        bail!("{}: {}", line_of(&command), output.status);
    }
    String::from_utf8(output.stdout).context("the output is not UTF-8")
}

fn line_of(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Writes a file that only its owner may read, replacing any other.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let act = || format!("cannot write {}", path.display());
    let partial = path.with_extension("partial");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .with_context(act)?;
    file.write_all(text.as_bytes()).with_context(act)?;
    std::fs::rename(&partial, path).with_context(act)
}

/// Asks until there is an answer: rules follow endpoints with a short delay.
async fn answer_within(address: Ipv4Addr, port: u16, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    loop {
        let asking = tokio::time::timeout(Duration::from_secs(3), ask(address, port));
        match asking.await.map_err(anyhow::Error::from).and_then(|answer| answer) {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("http://{address}:{port}/"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn ask(address: Ipv4Addr, port: u16) -> Result<String> {
    let mut stream = TcpStream::connect((address, port)).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("not an HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
