//! Commands on a host, past its sshd.

use std::fmt;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use crate::lab::{Host, Lab, LabError};
use crate::test_images::TestImage;

/// Longest command where no other limit is given.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub status: i64,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", text.trim())?;
            }
        }
        Ok(())
    }
}

/// How a command runs.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// User, `root` by default.
    pub user: String,
    /// Bytes for its standard input.
    pub stdin: Vec<u8>,
    /// After this the call fails; the command itself is left alone.
    pub timeout: Duration,
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self { user: "root".to_owned(), stdin: Vec::new(), timeout: TIMEOUT_DEFAULT }
    }
}

impl Lab {
    /// Runs a command as root on a host and returns what it left, whatever its exit code.
    ///
    /// # Errors
    /// An unknown host, a host that does not run, or no answer in time.
    pub async fn exec(&self, host: &str, command: &[&str]) -> Result<Output, LabError> {
        self.exec_with(host, command, ExecOptions::default()).await
    }

    /// Runs a command as root and returns its standard output.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), and any exit code but 0.
    pub async fn run(&self, host: &str, command: &[&str]) -> Result<String, LabError> {
        let output = self.exec(host, command).await?;
        if output.success() {
            return Ok(output.stdout);
        }
        let (host, command) = (host.to_owned(), command.join(" "));
        Err(LabError::Command { host, command, output })
    }

    /// Loads test images into the Docker of a host.
    ///
    /// # Errors
    /// As [`run`](Self::run), and an archive that cannot be read.
    pub async fn load_images(&self, host: &str, images: &[TestImage]) -> Result<(), LabError> {
        for image in images {
            let stdin = tokio::fs::read(&image.path)
                .await
                .map_err(|source| LabError::io(format!("read {}", image.path.display()), source))?;
            let options = ExecOptions { stdin, ..ExecOptions::default() };
            let output = self.exec_with(host, &["docker", "load", "--quiet"], options).await?;
            if !output.success() {
                let command = format!("docker load < {}", image.path.display());
                return Err(LabError::Command { host: host.to_owned(), command, output });
            }
        }
        Ok(())
    }

    /// Runs a command with options of its own.
    ///
    /// # Errors
    /// As [`exec`](Self::exec).
    pub async fn exec_with(
        &self,
        host: &str,
        command: &[&str],
        options: ExecOptions,
    ) -> Result<Output, LabError> {
        let host = self.host(host)?;
        let timeout = options.timeout;
        let running = self.exec_in(host, command, options);
        match tokio::time::timeout(timeout, running).await {
            Ok(output) => output,
            Err(_) => Err(LabError::ExecTimeout {
                host: host.name.clone(),
                command: command.join(" "),
                timeout,
            }),
        }
    }

    async fn exec_in(
        &self,
        host: &Host,
        command: &[&str],
        options: ExecOptions,
    ) -> Result<Output, LabError> {
        let failed = |source| LabError::docker(format!("run a command on {}", host.name), source);
        let with_stdin = !options.stdin.is_empty();
        let config = ExecConfig {
            attach_stdin: Some(with_stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            user: Some(options.user),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..ExecConfig::default()
        };
        let docker = &self.daemon().docker;
        let id = docker.create_exec(&host.container, config).await.map_err(failed)?.id;
        let started = docker.start_exec(&id, None).await.map_err(failed)?;
        let StartExecResults::Attached { output: mut stream, mut input } = started else {
            unreachable!("the command was not started detached");
        };
        // Written beside the reading: a command may answer before it has read everything.
        let feeding = tokio::spawn(async move {
            // A command that does not read to the end is no failure.
            let _closed = input.write_all(&options.stdin).await;
            let _closed = input.shutdown().await;
            input
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(part) = stream.next().await {
            match part.map_err(failed)? {
                LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
                other => stdout.extend_from_slice(&other.into_bytes()),
            }
        }
        feeding.abort();
        let status = docker.inspect_exec(&id).await.map_err(failed)?.exit_code.unwrap_or(-1);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_reads_as_one_message() {
        let output =
            Output { status: 2, stdout: String::new(), stderr: "no such file\n".to_owned() };
        assert_eq!(output.to_string(), "exit code 2\nstderr: no such file");
        assert!(!output.success());
    }
}
