//! One HTTPS request over any stream: health gates, the final look at the nodes, their labels.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};

use crate::secret::Secret;

/// Longest wait for a piece of an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A list of all nodes of a large cluster fits.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A resource behind TLS, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsEndpoint {
    /// Address as seen from the host; the server's certificate must carry it.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// The authority that signed the server's certificate, as PEM.
    pub ca: String,
    /// Client certificate and key as PEM.
    pub client: Option<(String, Secret)>,
}

impl HttpsEndpoint {
    /// Address, port and path, for people.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}:{}{}", self.address, self.port, self.path)
    }
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
}

impl HttpsAnswer {
    /// The words of a `Status` of the API, or the whole body.
    #[must_use]
    pub fn message(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let status: Option<serde_json::Value> = serde_json::from_str(&body).ok();
        match status.as_ref().and_then(|status| status["message"].as_str()) {
            Some(message) => message.to_owned(),
            None => body.trim().to_owned(),
        }
    }
}

/// What is done with a resource.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act<'a> {
    /// It is read.
    Get,
    /// This JSON is merged into it (RFC 7396).
    MergePatch(&'a str),
    /// This JSON is posted to it.
    Post(&'a str),
    /// It is deleted.
    Delete,
}

/// Asks over `stream`.
///
/// # Errors
/// When certificates are unusable or not trusted, or the answer is not HTTP.
pub(super) fn ask(
    stream: impl Read + Write,
    endpoint: &HttpsEndpoint,
    act: Act<'_>,
) -> io::Result<HttpsAnswer> {
    let tls = send(stream, endpoint, act)?;
    let mut bytes = Vec::new();
    match tls.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes) {
        // A server that closes without the TLS farewell has still said all it had to say, if the
        // length that it announced is there.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    answer(&bytes)
}

fn send<S: Read + Write>(
    mut stream: S,
    endpoint: &HttpsEndpoint,
    act: Act<'_>,
) -> io::Result<StreamOwned<ClientConnection, S>> {
    let name = ServerName::try_from(endpoint.address.clone()).map_err(invalid)?;
    let config = Arc::new(config(endpoint)?);
    let mut connection = ClientConnection::new(config, name).map_err(invalid)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(request(endpoint, act).as_bytes())?;
    tls.flush()?;
    Ok(tls)
}

/// No header is longer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Sends JSON and hands the body on as it comes.
///
/// # Errors
/// When the answer is not 200, is cut off, or `sink` fails.
pub(super) fn download(
    stream: impl Read + Write,
    endpoint: &HttpsEndpoint,
    json: &str,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let mut tls = send(stream, endpoint, Act::Post(json))?;
    let (mut head, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    let body = loop {
        let count = tls.read(&mut piece)?;
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(invalid("the connection closed before an answer"));
        }
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break head.split_off(end + 4);
        }
    };
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = text.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let said = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(invalid(format!("it answers {status} {said}")));
    }
    if text.contains("\r\ntransfer-encoding: chunked") {
        return Err(invalid("it sends chunks to a client of HTTP/1.0"));
    }
    sink.write_all(&body)?;
    loop {
        match tls.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => sink.write_all(&piece[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The certificates that the server shows. Nothing is sent but the handshake, and nothing that is
/// learned this way is trusted.
///
/// # Errors
/// When no TLS server answers.
pub(super) fn served(
    mut stream: impl Read + Write,
    endpoint: &HttpsEndpoint,
) -> io::Result<Vec<Vec<u8>>> {
    let name = ServerName::try_from(endpoint.address.clone()).map_err(invalid)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = Arc::new(Onlooker { provider: Arc::clone(&provider), chain: Mutex::default() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<_>);
    let config = with_client(builder, endpoint)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(invalid)?;
    let mut ended = Ok(());
    while connection.is_handshaking() && ended.is_ok() {
        ended = connection.complete_io(&mut stream).map(drop);
    }
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    // A server that refuses our certificate has shown its own before.
    match (chain.is_empty(), ended) {
        (false, _) => Ok(chain),
        (true, Err(error)) => Err(error),
        (true, Ok(())) => Err(invalid("the server shows no certificate")),
    }
}

/// Looks at certificates and judges none.
#[derive(Debug)]
struct Onlooker {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<Vec<u8>>>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(end_entity).chain(intermediates);
        let shown = shown.map(|certificate| certificate.to_vec()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// HTTP/1.0 and its closing connection save taking a chunked body apart.
fn request(endpoint: &HttpsEndpoint, act: Act<'_>) -> String {
    let (method, kind, body) = match act {
        Act::Get => ("GET", "", ""),
        Act::Delete => ("DELETE", "", ""),
        Act::MergePatch(body) => ("PATCH", "application/merge-patch+json", body),
        Act::Post(body) => ("POST", "application/json", body),
    };
    let content = match kind {
        "" => String::new(),
        kind => format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()),
    };
    format!(
        "{method} {} HTTP/1.0\r\nHost: {}:{}\r\nAccept: application/json\r\n{content}\
         Connection: close\r\n\r\n{body}",
        endpoint.path, endpoint.address, endpoint.port
    )
}

fn config(request: &HttpsEndpoint) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(request.ca.as_bytes()) {
        roots.add(certificate.map_err(invalid)?).map_err(invalid)?;
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_root_certificates(roots);
    with_client(builder, request)
}

fn with_client(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    request: &HttpsEndpoint,
) -> io::Result<ClientConfig> {
    let Some((certificates, key)) = &request.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(invalid)?;
    builder.with_client_auth_cert(chain.map_err(invalid)?, key).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn answer(bytes: &[u8]) -> io::Result<HttpsAnswer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| invalid("the connection closed before an answer"))?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(invalid)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| invalid("the answer is not HTTP"))?;
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    };
    let body = &bytes[end + 4..];
    let body = match header("content-length").and_then(|len| len.parse::<usize>().ok()) {
        _ if header("transfer-encoding") == Some("chunked") => unchunked(body)?,
        Some(len) => body.get(..len).ok_or_else(|| invalid("the answer ends early"))?.to_vec(),
        None => body.to_vec(),
    };
    Ok(HttpsAnswer { status, body })
}

/// Some servers send chunks even to HTTP/1.0 clients.
fn unchunked(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let early = || invalid("the answer ends early");
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").ok_or_else(early)?;
        let line = std::str::from_utf8(&bytes[..end]).map_err(invalid)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let len = usize::from_str_radix(digits, 16).map_err(invalid)?;
        if len == 0 {
            return Ok(body);
        }
        let chunk = bytes.get(end + 2..).and_then(|rest| rest.get(..len)).ok_or_else(early)?;
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 2 + len + 2..).ok_or_else(early)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_read_in_all_framings() {
        let check = |text: &str, status: u16, body: &str| {
            let answer = answer(text.as_bytes()).unwrap();
            assert_eq!((answer.status, answer.body.as_slice()), (status, body.as_bytes()));
        };
        check("HTTP/1.1 200 OK\r\n\r\nok", 200, "ok");
        check("HTTP/1.1 503 Bad\r\nContent-Length: 2\r\n\r\nnoXX", 503, "no");
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x\r\n!\r\n0\r\n\r\n",
            200,
            "ok!",
        );
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").is_err());
        assert!(answer(b"hello").is_err());
    }

    #[test]
    fn a_patch_says_how_long_and_what_it_is() {
        let endpoint = HttpsEndpoint {
            address: "10.0.0.1".to_owned(),
            port: 6443,
            path: "/api/v1/nodes/n1".to_owned(),
            ca: String::new(),
            client: None,
        };
        assert_eq!(
            request(&endpoint, Act::MergePatch("{}")),
            "PATCH /api/v1/nodes/n1 HTTP/1.0\r\nHost: 10.0.0.1:6443\r\nAccept: application/json\r\n\
             Content-Type: application/merge-patch+json\r\nContent-Length: 2\r\n\
             Connection: close\r\n\r\n{}"
        );
        assert_eq!(
            request(&endpoint, Act::Get),
            "GET /api/v1/nodes/n1 HTTP/1.0\r\nHost: 10.0.0.1:6443\r\n\
             Accept: application/json\r\nConnection: close\r\n\r\n"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
            let _ = unchunked(&bytes);
        }
    }
}
