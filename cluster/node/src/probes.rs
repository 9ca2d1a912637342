//! Probes and lifecycle hooks: one try of one action.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use client::Unchecked;
use futures::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use kubelet::RuntimeError;
use kubelet::runtime::{ProbeAction, ProbeOutcome};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::docker::plain_error;

/// More output is not shown.
const OUTPUT_MAX: usize = 10 * 1024;

fn outcome(success: bool, output: impl Into<String>) -> ProbeOutcome {
    ProbeOutcome { success, output: output.into() }
}

/// Tries an action once.
///
/// # Errors
/// The runtime could not run a command; what a probe finds wrong is no error.
pub async fn run(
    docker: &Docker,
    container_id: &str,
    action: &ProbeAction,
    timeout: Duration,
) -> Result<ProbeOutcome, RuntimeError> {
    match action {
        ProbeAction::Exec { command } => {
            let attempt = exec(docker, container_id, command);
            match tokio::time::timeout(timeout, attempt).await {
                Ok(result) => result,
                Err(_) => {
                    let words = command.join(" ");
                    Ok(outcome(false, format!("command \"{words}\" timed out")))
                }
            }
        }
        ProbeAction::Tcp { host, port } => {
            let address = address(host, *port);
            Ok(match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => outcome(true, ""),
                Ok(Err(error)) => outcome(false, dial(&address, &error)),
                Err(_) => outcome(false, format!("dial tcp {address}: i/o timeout")),
            })
        }
        ProbeAction::Http { scheme, host, port, path, headers } => {
            let tls = scheme == "https";
            Ok(http_probe(tls, (host, *port), path, headers, timeout).await)
        }
        ProbeAction::Sleep { seconds } => {
            let pause = Duration::from_secs(u64::from(*seconds)).min(timeout);
            tokio::time::sleep(pause).await;
            Ok(outcome(true, ""))
        }
    }
}

async fn http_probe(
    tls: bool,
    (host, port): (&str, u16),
    path: &str,
    headers: &[(String, String)],
    timeout: Duration,
) -> ProbeOutcome {
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", address(host, port));
    match tokio::time::timeout(timeout, http(tls, host, port, path, headers)).await {
        Ok(Ok((200..400, body))) => outcome(true, body),
        Ok(Ok((code, _))) => outcome(false, format!("HTTP probe failed with statuscode: {code}")),
        Ok(Err(error)) => outcome(false, format!("Get \"{url}\": {error}")),
        Err(_) => outcome(
            false,
            format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting \
                 headers)"
            ),
        ),
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A failed connection in the words that users of Kubernetes know.
fn dial(address: &str, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: {why}")
}

async fn exec(
    docker: &Docker,
    container_id: &str,
    command: &[String],
) -> Result<ProbeOutcome, RuntimeError> {
    let options = CreateExecOptions::<String> {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..CreateExecOptions::default()
    };
    let id = docker.create_exec(container_id, options).await.map_err(|e| plain_error(&e))?.id;
    let started = docker.start_exec(&id, None::<StartExecOptions>).await;
    let mut text = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = started.map_err(|e| plain_error(&e))? {
        while let Some(chunk) = output.next().await {
            let chunk = chunk.map_err(|e| plain_error(&e))?.into_bytes();
            let room = OUTPUT_MAX.saturating_sub(text.len());
            text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    }
    let result = docker.inspect_exec(&id).await.map_err(|e| plain_error(&e))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(outcome(result.exit_code == Some(0), text))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn http(
    tls: bool,
    host: &str,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<(u16, String), String> {
    let address = address(host, port);
    let plain = TcpStream::connect(&address).await.map_err(|e| dial(&address, &e))?;
    let stream: Box<dyn Stream> = if tls {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting()));
        Box::new(connector.connect(name, plain).await.map_err(|e| e.to_string())?)
    } else {
        Box::new(plain)
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = Request::get(path);
    let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !named("host") {
        request = request.header("host", &address);
    }
    if !named("user-agent") {
        request = request.header("user-agent", "kube-probe/1.33");
    }
    if !named("accept") {
        request = request.header("accept", "*/*");
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), OUTPUT_MAX).collect().await;
    driver.abort();
    let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned());
    Ok((code, text.unwrap_or_default()))
}

/// Probes do not verify certificates, as in Kubernetes.
fn trusting() -> rustls::ClientConfig {
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked::new(provider)))
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(response: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        port
    }

    async fn get(port: u16) -> (bool, String) {
        let headers = [("X-A".to_owned(), "b".to_owned())];
        let patience = Duration::from_secs(5);
        let found = http_probe(false, ("127.0.0.1", port), "/ok", &headers, patience).await;
        (found.success, found.output.replace(&port.to_string(), "PORT"))
    }

    #[tokio::test]
    async fn http_probes_judge_by_status() {
        let ok = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(get(ok).await, (true, String::new()));
        let bad = answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(get(bad).await, (false, "HTTP probe failed with statuscode: 500".to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap().port();
        drop(listener);
        let (success, output) = get(closed).await;
        assert!(!success);
        assert_eq!(
            output,
            "Get \"http://127.0.0.1:PORT/ok\": dial tcp 127.0.0.1:PORT: connect: connection refused"
        );
    }
}
