//! [`Cluster`]: a lab, an inventory for it, and the programs that act on it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, LabOptions, test_images, workspace_root};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Inventory, Role, eventually};

/// No command of a test takes longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// The version the product promises to speak; any other serves when it is not there.
const KUBECTL_WANTED: &str = "kubectl.1.33";

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; negative when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A lab with an inventory.
pub struct Cluster {
    /// The hosts.
    pub lab: Lab,
    /// The inventory; [`Cluster::rewrite`] writes it anew.
    pub inventory: Inventory,
    folder: TempDir,
    kubectl: PathBuf,
}

impl Cluster {
    /// Boots bare hosts for the inventory and writes it.
    ///
    /// # Errors
    /// The lab cannot be started, or a program is missing.
    pub async fn boot(inventory: Inventory) -> Result<Self> {
        let mut options = LabOptions::for_test(inventory.name(), inventory.len());
        options.kinds.clone_from(&inventory.kinds);
        test_images::write_all(&workspace_root(), &options.images_dir()).await?;
        let lab = Lab::up(options).await?;
        let folder = tempfile::tempdir()?;
        inventory.write(&lab, folder.path())?;
        let kubectl = find_kubectl().await?;
        let cluster = Self { lab, inventory, folder, kubectl };
        for program in [cluster.kprov_path(), workspace_root().join("target/release/hyperkube")] {
            ensure!(program.exists(), "{} is missing: run `make build`", program.display());
        }
        Ok(cluster)
    }

    /// Boots bare hosts and applies the inventory.
    ///
    /// # Errors
    /// As [`Cluster::boot`], or the apply failed.
    pub async fn up(inventory: Inventory) -> Result<Self> {
        let cluster = Self::boot(inventory).await?;
        cluster.apply().await?;
        Ok(cluster)
    }

    /// Boots one more bare host and adds it to the inventory.
    ///
    /// # Errors
    /// The host cannot be started.
    pub async fn grow(mut self, role: Role) -> Result<Self> {
        self.inventory.add(role);
        let lab = self.lab.grow(self.inventory.len()).await?;
        let cluster = Self { lab, ..self };
        cluster.rewrite()?;
        Ok(cluster)
    }

    /// Puts new machines in the place of these hosts; see [`Lab::reinstall`].
    ///
    /// # Errors
    /// A host is unknown, or cannot be made anew.
    pub async fn reinstall(self, hosts: &[&str]) -> Result<Self> {
        let lab = self.lab.reinstall(hosts).await?;
        Ok(Self { lab, ..self })
    }

    /// Writes the inventory after a change.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rewrite(&self) -> Result<PathBuf> {
        self.inventory.write(&self.lab, self.folder.path())
    }

    /// The folder of inventory and state.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The inventory file.
    pub fn inventory_path(&self) -> PathBuf {
        self.folder.path().join("inventory.toml")
    }

    /// The kprov program.
    pub fn kprov_path(&self) -> PathBuf {
        workspace_root().join("target/release/kprov")
    }

    /// The kubectl that is used.
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// Runs `kprov VERB INVENTORY ARGS…`; a verb may be two words, as `certs renew`.
    ///
    /// # Errors
    /// The program cannot be started or hangs.
    pub async fn kprov(&self, verb: &str, arguments: &[&str]) -> Result<Outcome> {
        self.kprov_with(&[], verb, arguments).await
    }

    /// Runs kprov with variables of the environment besides.
    ///
    /// # Errors
    /// The program cannot be started or hangs.
    pub async fn kprov_with(
        &self,
        environment: &[(&str, &str)],
        verb: &str,
        arguments: &[&str],
    ) -> Result<Outcome> {
        let mut command = Command::new(self.kprov_path());
        command.envs(environment.iter().copied());
        command.args(verb.split(' ')).arg(self.inventory_path()).args(arguments);
        run(command, "").await
    }

    /// Applies the inventory and fetches the kubeconfig.
    ///
    /// # Errors
    /// The apply failed.
    pub async fn apply(&self) -> Result<Outcome> {
        let applied = self.kprov("apply", &[]).await?.expect_success("kprov apply")?;
        self.fetch_kubeconfig().await?;
        Ok(applied)
    }

    /// Fetches the kubeconfig anew.
    ///
    /// # Errors
    /// kprov failed.
    pub async fn fetch_kubeconfig(&self) -> Result<()> {
        let config = self.kprov("kubeconfig", &[]).await?.expect_success("kprov kubeconfig")?;
        let new = self.folder().join("kubeconfig.new");
        std::fs::write(&new, config.stdout)?;
        // A kubectl that runs meanwhile must not read half of it.
        std::fs::rename(new, self.kubeconfig())?;
        Ok(())
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Runs kubectl.
    ///
    /// # Errors
    /// The program cannot be started or hangs.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Result<Outcome> {
        self.kubectl_with(arguments, "").await
    }

    /// Runs kubectl with a manifest on standard input.
    ///
    /// # Errors
    /// The program cannot be started or hangs.
    pub async fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Result<Outcome> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        run(command, stdin).await
    }

    /// Every kubectl on this machine: the chosen one and other versions beside it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn kubectls(&self) -> Result<Vec<PathBuf>> {
        let folder = self.kubectl.parent().context("kubectl has no folder")?;
        let mut found = vec![self.kubectl.clone()];
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            if name.is_some_and(|n| n.starts_with("kubectl.1.")) && path != self.kubectl {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Runs a certain kubectl and returns what it printed.
    ///
    /// # Errors
    /// It failed.
    pub async fn kubectl_of(&self, program: &Path, line: &str, stdin: &str) -> Result<String> {
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(line.split_whitespace());
        let what = format!("{} {line}", program.display());
        Ok(run(command, stdin).await?.expect_success(&what)?.stdout)
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// It failed.
    pub async fn kubectl(&self, line: &str) -> Result<String> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let outcome = self.try_kubectl(&arguments).await?;
        Ok(outcome.expect_success(&format!("kubectl {line}"))?.stdout)
    }

    /// `kubectl get … -o jsonpath=…`, split at white space.
    ///
    /// # Errors
    /// kubectl failed.
    pub async fn get(&self, what: &str, jsonpath: &str) -> Result<Vec<String>> {
        let path = format!("jsonpath={jsonpath}");
        let mut arguments = vec!["get"];
        arguments.extend(what.split_whitespace());
        arguments.extend(["-o", &path]);
        let outcome = self.try_kubectl(&arguments).await?;
        let text = outcome.expect_success(&format!("kubectl get {what}"))?.stdout;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Waits until there are `count` nodes, all of them ready.
    ///
    /// # Errors
    /// They are not, `within` that time.
    pub async fn nodes_are_ready(&self, count: usize, within: Duration) -> Result<()> {
        let path = "{.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        eventually("all nodes to be ready", within, async || {
            let ready = self.get("nodes", path).await?;
            ensure!(ready.len() == count && ready.iter().all(|word| word == "True"), "{ready:?}");
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Whether a host reaches a TCP port of another one.
    ///
    /// # Errors
    /// A host is unknown, or has no shell.
    pub async fn reaches(&self, from: &str, to: &str, port: u16) -> Result<bool> {
        let address = self.lab.host(to)?.address;
        let script = format!("timeout 3 bash -c '</dev/tcp/{address}/{port}'");
        Ok(self.lab.exec(from, &["sh", "-c", &script]).await?.status == 0)
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// kubectl failed.
    pub async fn create(&self, manifest: &str) -> Result<String> {
        let outcome = self.kubectl_with(&["apply", "-f", "-"], manifest).await?;
        Ok(outcome.expect_success("kubectl apply")?.stdout)
    }
}

/// kubectl 1.33 beside the one on PATH, else the one on PATH.
async fn find_kubectl() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.is_file())
        .context("kubectl is not on PATH: run `make setup`")?;
    let real = std::fs::canonicalize(&found)?;
    let wanted = real.with_file_name(KUBECTL_WANTED);
    let chosen = if wanted.is_file() { wanted } else { found };
    let mut command = Command::new(&chosen);
    command.args(["version", "--client"]);
    let version = run(command, "").await?;
    let first = version.stdout.lines().next().unwrap_or_default().to_owned();
    #[expect(clippy::print_stdout, reason = "a test report names the client it used")]
    let () = println!("using {} ({first})", chosen.display());
    Ok(chosen)
}

async fn run(mut command: Command, stdin: &str) -> Result<Outcome> {
    use tokio::io::AsyncWriteExt;
    let shown = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let mut pipe = child.stdin.take().context("no standard input")?;
    pipe.write_all(stdin.as_bytes()).await?;
    drop(pipe);
    let output = tokio::time::timeout(COMMAND_TIMEOUT, child.wait_with_output())
        .await
        .with_context(|| format!("{shown} did not end within {COMMAND_TIMEOUT:?}"))??;
    Ok(Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Outcome {
    /// Itself, if the command succeeded.
    ///
    /// # Errors
    /// It failed; the error has all that it printed.
    pub fn expect_success(self, what: &str) -> Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        bail!("{what} ended with {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}
